"""Keys from the shell: `zmqlocker keygen`, `serve --curve-key`, and commands that ask with keys."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
from typing import TYPE_CHECKING

import pytest
from commands import zmqlocker
from keys import KeyRing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Serving


@pytest.fixture
def lax_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("lax_umask")
def test_a_secret_is_for_its_owner_and_the_public_key_for_all(tmp_path: Path) -> None:
    secret, public = tmp_path / "a.key", tmp_path / "a.key.pub"
    status, output, errors = zmqlocker("keygen", str(secret))
    assert (status, errors) == (0, "")
    key, path = output.split()
    assert (path, len(key)) == (str(public), 40)
    assert (mode(secret), mode(public)) == (0o600, 0o644)
    assert f'public_key = "{key}"\n' in public.read_text()
    assert re.fullmatch(
        "# A secret key of zmqlocker: whoever can read this file can pass for its owner.\n"
        f'public_key = "{re.escape(key)}"\nsecret_key = "[^"]{{40}}"\n',
        secret.read_text(),
    )
    other = json.loads(zmqlocker("keygen", "--json", str(tmp_path / "b.key"))[1])
    assert other == {"public_key": other["public_key"], "public_key_file": f"{tmp_path}/b.key.pub"}
    assert other["public_key"] != key


@pytest.mark.parametrize("there", ["a.key", "a.key.pub"])
def test_a_key_is_never_written_over(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("precious")
    status, output, errors = zmqlocker("keygen", str(tmp_path / "a.key"))
    problem = f"zmqlocker: path {tmp_path}/{there} is there already: a key is never written over\n"
    assert (status, output, errors) == (2, "", problem)
    assert [file.name for file in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "precious"


def test_a_key_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    status, output, errors = zmqlocker("keygen", str(tmp_path / "nowhere" / "a.key"))
    assert (status, output) == (3, "")
    assert "cannot write a key" in errors


def test_keys_made_by_the_command_are_enough_to_serve_other_hosts(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    keys = {
        name: zmqlocker("keygen", str(tmp_path / f"{name}.key"))[1].split()[0]
        for name in ("server", "worker", "operator")
    }
    clients = tmp_path / "clients.toml"
    worker = f'[clients.worker]\npublic_key = "{keys["worker"]}"\nuse = ["default", "job:*"]\n'
    operator = f'[clients.operator]\npublic_key = "{keys["operator"]}"\nadminister = "*"\n'
    clients.write_text(worker)
    server = serving(
        "--limit=default=100/s",
        f"--curve-key={tmp_path}/server.key",
        ZMQLOCKER_CLIENTS=str(clients),
        url="tcp://*:*",
    )
    assert f"encrypted for 1 client with the key {keys['server']}" in server.start
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    public = f"--server-key={tmp_path}/server.key.pub"

    def ask(command: str, *arguments: str, key: str = "worker") -> tuple[int, str, str]:
        own = f"--key-file={tmp_path}/{key}.key"
        return zmqlocker(command, f"--url={url}", public, own, *arguments)

    assert ask("next")[0] == 0
    assert ask("ls") == (0, "nobody holds a lock\n", "")
    assert ask("lock", "job:1", "--", "true")[0] == 0
    no_right = 'this client has no right to use the key "other"'
    assert no_right in ask("lock", "other", "--", "true")[2]
    assert "no right to administer" in ask("break", "job:1")[2]
    status, _, errors = ask("next", key="operator")
    assert status == 3
    assert "does not let this client's key in" in errors

    clients.write_text(worker + operator)
    server.send(signal.SIGHUP)
    server.line_with("lets in 2 clients from now on")
    assert ask("break", "job:1", key="operator")[0] == 1
    assert "no right to use" in ask("next", key="operator")[2]

    by_environment = {
        "ZMQLOCKER_SERVER_KEY": keys["server"],
        "ZMQLOCKER_KEY_FILE": f"{tmp_path}/worker.key",
    }
    assert zmqlocker("next", f"--url={url}", **by_environment)[0] == 0
    assert "it lets in clients with keys only" in zmqlocker("next", f"--url={url}")[2]
    status, rest = server.finish()
    assert status == 0
    assert not any("is open to other hosts" in line for line in [*server.lines, rest])


def test_a_list_that_is_wrong_is_told_and_the_old_one_holds(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    ring = KeyRing(tmp_path)
    worker = ring.key("worker")
    ring.let_in((worker, "*", ""))
    server = serving(f"--curve-key={ring.server.file}", f"--clients={ring.clients}")
    ring.clients.write_text("[clients.a]\nuse = 7\n")
    server.send(signal.SIGHUP)
    assert 'clients.toml:1:10: client "a" needs its public_key' in server.line_with("keeps its")
    keys = [f"--server-key={ring.server.public}", f"--key-file={worker.file}"]
    assert zmqlocker("next", f"--url={server.url}", *keys)[0] == 0


def test_a_server_says_which_key_or_list_is_wrong(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    ring.let_in()
    key, clients = f"--curve-key={ring.server.file}", f"--clients={ring.clients}"
    assert "curve_key needs clients" in zmqlocker("serve", key)[2]
    assert "clients needs curve_key" in zmqlocker("serve", clients)[2]
    ring.clients.write_text("client = 1\n")
    assert 'clients.toml:1:1: unknown key "client"' in zmqlocker("serve", key, clients)[2]
    ring.server.file.chmod(0o644)
    status, _, errors = zmqlocker("serve", key, clients)
    assert status == 2
    assert "its mode is 0644: chmod 600" in errors
