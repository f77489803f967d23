"""What `deploy/` has: every file is valid, and the server starts as it says."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from commands import Serving, zmqlocker
from conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "zmqlocker.service"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    return dict(yaml.safe_load((DEPLOY / name).read_text()))


def of_cluster(kind: str) -> dict[str, dict[str, Any]]:
    """Those services of a cluster whose names begin so."""
    services = compose("docker-compose-cluster.yml")["services"]
    return {name: service for name, service in services.items() if name.startswith(kind)}


def kubernetes(kind: str) -> dict[str, Any]:
    every = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (one,) = (resource for resource in every if resource["kind"] == kind)
    return dict(one)


def container() -> dict[str, Any]:
    pod = kubernetes("StatefulSet")["spec"]["template"]["spec"]
    (one,) = pod["containers"]
    return dict(one)


def image_environment() -> dict[str, str]:
    """Return what the image sets in the environment of the server."""
    (line,) = re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE)
    return dict(word.split("=", 1) for word in shlex.split(line))


def unit_command() -> list[str]:
    unit = UNIT.read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return shlex.split(line)


def unit_options_for_other_hosts() -> list[str]:
    (line,) = re.findall(r"^#     (--url .*)$", UNIT.read_text(), re.MULTILINE)
    return shlex.split(line)


COMMANDS = {
    "systemd": (unit_command()[1:], {}),
    "systemd for other hosts": (unit_command()[1:] + unit_options_for_other_hosts(), {}),
    "compose": (compose()["services"]["zmqlocker"]["command"], image_environment()),
    "kubernetes": (container()["args"], image_environment()),
}


@pytest.fixture(params=COMMANDS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    """A server that is started as one of the files says, but with files and ports of the test."""
    words, variables = COMMANDS[request.param]
    assert words[0] == "serve"
    (tmp_path / "zmqlocker.toml").write_text('[limits]\nopenai = "500/min"\n')
    (tmp_path / "clients.toml").write_text("")
    assert zmqlocker("keygen", str(tmp_path / "server.key"))[0] == 0
    text = "\0".join([*words[1:], *(f"{name}={value}" for name, value in variables.items())])
    for there in (
        "/etc/zmqlocker",
        "/run/secrets/zmqlocker",
        "/run/secrets",
        "${CREDENTIALS_DIRECTORY}",
    ):
        text = text.replace(f"{there}/", f"{tmp_path}/")
    for there in ("/var/lib/zmqlocker", "${STATE_DIRECTORY}"):
        text = text.replace(there, str(tmp_path / "data"))
    text = re.sub(r":(7777|9464)\b", ":*", text)
    here = text.split("\0")
    count = len(words) - 1
    environment: dict[str, Any] = dict(word.split("=", 1) for word in here[count:])
    server = Serving(*here[:count], url=None, **environment)
    yield server
    server.kill()


def test_the_server_starts_as_the_files_say(served: Serving, tmp_path: Path) -> None:
    start = json.loads(served.start)
    assert start["limits"] == "openai 500/min"
    assert start["data_dir"] == str(tmp_path / "data")
    assert served.finish()[0] == 0


def serve_help() -> str:
    return zmqlocker("serve", "--help")[1]


def test_each_variable_of_the_image_is_one_that_the_server_knows() -> None:
    known = set(re.findall(r"\[env: (ZMQLOCKER_\w+)", serve_help()))
    assert set(image_environment()) <= known


def test_a_cluster_has_three_servers_that_differ_by_their_names_alone() -> None:
    servers = of_cluster("zmqlocker")
    options = r"^ +(?:-\w, )?(--[a-z-]+)|\[env: (ZMQLOCKER_\w+)"
    known = {found for pair in re.findall(options, serve_help(), re.MULTILINE) for found in pair}
    (command,) = {tuple(server["command"]) for server in servers.values()}
    assert command[0] == "serve"
    assert {word.partition("=")[0] for word in command[1:]} <= known
    for name, server in servers.items():
        told = server["environment"]
        assert told.keys() <= known
        assert told["ZMQLOCKER_SERVER_NAME"] == name
        assert told["ZMQLOCKER_ADVERTISE"] == f"tcp://{name}:7777"
        assert server["volumes"] == [f"{name}:{image_environment()['ZMQLOCKER_DATA_DIR']}"]
    assert len(servers) == 3


def test_a_cluster_asks_the_nodes_of_etcd_that_it_has() -> None:
    nodes, flags = of_cluster("etcd"), set(re.findall(r"--([a-z-]+)", checked("etcd", "--help")))
    for name, node in nodes.items():
        told = node["environment"]
        used = {word.removeprefix("ETCD_").lower().replace("_", "-") for word in told}
        assert used <= flags
        assert told["ETCD_NAME"] == name
        assert told["ETCD_ADVERTISE_CLIENT_URLS"] == f"http://{name}:2379"
        assert told["ETCD_INITIAL_ADVERTISE_PEER_URLS"] == f"http://{name}:2380"
        peers = ",".join(f"{one}=http://{one}:2380" for one in nodes)
        assert told["ETCD_INITIAL_CLUSTER"] == peers
        assert node["volumes"] == [f"{name}:{told['ETCD_DATA_DIR']}"]
        assert node["networks"] == ["registry"]
    endpoints = ",".join(f"{name}:2379" for name in nodes)
    for server in of_cluster("zmqlocker").values():
        assert f"--registry=etcd://{endpoints}/zmqlocker" in server["command"]
        assert set(server["depends_on"]) == set(nodes)
        assert "registry" in server["networks"]
    assert len(nodes) == 3


def test_a_cluster_lets_no_container_do_more_than_it_needs() -> None:
    whole = compose("docker-compose-cluster.yml")
    for service in whole["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert set(service["networks"]) <= whole["networks"].keys()
        volumes = {volume.partition(":")[0] for volume in service["volumes"]}
        assert volumes <= whole["volumes"].keys()
    assert whole["networks"]["registry"] == {"internal": True}


def recipe(language: str, start: str) -> str:
    """What the recipe for three servers has users write into a file."""
    page = (DEPLOY.parent / "docs" / "several-servers.md").read_text()
    blocks = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (one,) = (block for block in blocks if block.startswith(start))
    return str(one)


def test_the_recipe_sets_what_etcd_and_the_server_know() -> None:
    node = dict(line.split("=", 1) for line in recipe("sh", "ETCD_NAME").splitlines())
    assert node.keys() <= of_cluster("etcd")["etcd1"]["environment"].keys()
    lines = re.findall(r"^Environment=(\w+)=(.*)$", recipe("ini", "[Unit]"), re.MULTILINE)
    server = dict(lines)
    known = set(re.findall(r"\[env: (ZMQLOCKER_\w+)", serve_help()))
    assert server.keys() <= known
    peers = re.findall(r"http://([\d.]+):2380", node["ETCD_INITIAL_CLUSTER"])
    endpoints = ",".join(f"{address}:2379" for address in peers)
    assert server["ZMQLOCKER_REGISTRY"] == f"etcd://{endpoints}/zmqlocker"
    assert server["ZMQLOCKER_ADVERTISE"] == f"tcp://{peers[0]}:7777"
    assert f"http://{peers[0]}:2379" == node["ETCD_ADVERTISE_CLIENT_URLS"]


def test_the_ports_are_the_same_everywhere() -> None:
    exposed = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    assert exposed == ["7777 9464"]
    assert {port["containerPort"] for port in container()["ports"]} == {7777, 9464}
    assert {port["port"] for port in kubernetes("Service")["spec"]["ports"]} == {7777, 9464}


def test_there_is_one_server_that_writes_to_its_volume() -> None:
    assert kubernetes("StatefulSet")["spec"]["replicas"] == 1
    (mount,) = [one for one in container()["volumeMounts"] if not one.get("readOnly")]
    assert mount["mountPath"] == image_environment()["ZMQLOCKER_DATA_DIR"]


def test_nothing_runs_as_root() -> None:
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["7777:7777"]
    pod = kubernetes("StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 7777
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert "\nDynamicUser=yes\n" in UNIT.read_text()


def checked(*command: str | Path) -> str:
    """Run a tool that has to be content: what it prints."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name: str) -> Path:
    """Return where a tool is that came with the group `test`."""
    return Path(sys.executable).parent / name


def test_hadolint_has_nothing_against_the_dockerfile() -> None:
    checked(tool("hadolint"), DEPLOY / "Dockerfile")


def test_kubernetes_knows_every_field() -> None:
    checked(tool("kubernetes-validate"), "--strict", DEPLOY / "kubernetes.yaml")


@pytest.mark.parametrize("servers", [1, 3])
def test_systemd_knows_every_line_of_the_unit(tmp_path: Path, servers: int) -> None:
    # The command is looked for, and is not where the unit has it.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(unit_command()[0], "/bin/true", 1))
    if servers == 3:
        override = tmp_path / f"{UNIT.name}.d" / "override.conf"
        override.parent.mkdir()
        override.write_text(recipe("ini", "[Unit]"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_leaves_little_open() -> None:
    # What is left: a network, /proc, and the programs of the host.
    checked("systemd-analyze", "security", "--offline=true", "--threshold=15", UNIT)
