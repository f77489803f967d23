"""The commands that ask a server: what they print for people and for programs, and how they end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest
from commands import ZMQLOCKER, environment, zmqlocker
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Script

LIMITS: dict[str, str | list[str]] = {
    "default": "2/h",
    "a": "5/h",
    "b": "1/h",
    "soon": "1/0.2s",
    "gpu": "1 at once",
}


@pytest.fixture
def url(serve_limits: Callable[..., tuple[Script, str]]) -> str:
    return serve_limits(LIMITS)[1]


@pytest.fixture
def client(url: str) -> Iterator[LockerClient]:
    with LockerClient(url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def ask(url: str) -> Callable[..., tuple[int, str, str]]:
    """Run a command against the server, which it finds in its environment."""
    return lambda *arguments: zmqlocker(*arguments, ZMQLOCKER_URL=url)


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_next_says_the_time_and_the_answer(ask: Callable[..., tuple[int, str, str]]) -> None:
    status, output, error = ask("next", "--repeat=3", "--every=0")
    assert (status, error) == (1, "")
    assert re.fullmatch(r"\d+\.\d{3} go\n\d+\.\d{3} go\n\d+\.\d{3} sorry\n", output)
    status, output, error = ask("next", "--json")
    (answer,) = objects(output)
    assert (status, answer.pop("answer"), list(answer), error) == (1, "sorry", ["time"], "")
    assert ask("reset", "default") == (0, "", "")
    assert ask("next")[0] == 0


def test_acquire_takes_permits_and_says_what_is_left(
    ask: Callable[..., tuple[int, str, str]],
) -> None:
    status, output, error = ask("acquire", "a", "--cost=4")
    assert (status, error) == (0, "")
    assert re.fullmatch(r"a: allowed, 1 left of 5/h, unused in (1h00m|59m\d\ds)\n", output)
    status, output, error = ask("acquire", "a", "b", "--cost=2", "--cost=1", "--timeout=0")
    assert (status, error) == (1, "")
    assert re.fullmatch(r"a: refused by 5/h, again in (1h00m|59m\d\ds)\n", output)
    status, output, error = ask("acquire", "a", "b", "--json")
    (decision,) = objects(output)
    assert 0 < decision.pop("reset_after") < 3601
    assert (status, error) == (0, "")
    assert decision == {
        "key": "a",
        "allowed": True,
        "remaining": 0,
        "retry_after": 0,
        "limit": "5/h",
    }


def test_acquire_waits_for_its_permits_and_says_so_if_it_did_in_vain(
    ask: Callable[..., tuple[int, str, str]],
) -> None:
    assert [ask("acquire", "soon")[0] for _ in range(3)] == [0, 0, 0]
    assert ask("acquire", "b")[0] == 0
    status, output, error = ask("acquire", "b", "--timeout=0.1", "--json")
    (decision,) = objects(output)
    assert status == 1
    assert error.startswith('zmqlocker: no permit of "b" within 0.1 s')
    assert decision.pop("limit") in ("1/h", None)
    assert decision == {
        "key": "b",
        "allowed": False,
        "remaining": None,
        "retry_after": None,
        "reset_after": None,
    }


def test_peek_takes_nothing(ask: Callable[..., tuple[int, str, str]], client: LockerClient) -> None:
    assert client.try_acquire("b")
    for _ in range(3):
        status, output, error = ask("peek", "a", "--cost=5", "--json")
        (decision,) = objects(output)
        assert (status, decision["allowed"], decision["remaining"], error) == (0, True, 5, "")
    status, output, _ = ask("peek", "b")
    assert status == 1
    assert output.startswith("b: refused by 1/h, again in ")


def test_an_operator_changes_what_holds_for_a_key(
    ask: Callable[..., tuple[int, str, str]], client: LockerClient
) -> None:
    assert client.try_acquire("a", 3)
    assert ask("set-limit", "a", "7/h", "9/h gcra burst 9") == (0, "", "")
    assert client.peek("a").remaining == 4
    status, output, _ = ask("reset", "a", "b", "--json")
    assert (status, output) == (0, '{"key": "a", "done": true}\n{"key": "b", "done": true}\n')
    assert client.peek("a").remaining == 7
    assert ask("freeze", "a", "1000") == (0, "", "")
    frozen = client.try_acquire("a")
    assert not frozen
    assert (frozen.retry_after or 0) > 900
    status, output, error = ask("set-limit", "a", "much")
    assert (status, output) == (2, "")
    assert re.fullmatch(r"zmqlocker: .*much.*\n", error)


def test_break_says_whether_there_was_something_to_take(
    ask: Callable[..., tuple[int, str, str]], client: LockerClient
) -> None:
    lease = client.lock("invoice:42", ttl=1000.0).acquire()
    status, output, error = ask("break", "invoice:42", "--token=1", "--json")
    assert (status, output) == (1, '{"key": "invoice:42", "done": false}\n')
    assert error.count("\n") == 1
    assert ask("break", "invoice:42", f"--token={lease.token}") == (0, "", "")
    assert client.locks() == []


def test_status_shows_the_server_its_keys_and_its_clients(
    ask: Callable[..., tuple[int, str, str]], url: str, client: LockerClient
) -> None:
    assert client.try_acquire("a", 2)
    status, output, error = ask("status", "--keys=5", "--clients=5")
    assert (status, error) == (0, "")
    assert re.search(rf"^server +zmqlocker \d.* at {url}$", output, re.MULTILINE)
    assert re.search(r"^allowed +1$", output, re.MULTILINE)
    assert re.search(r"^a  .* 3 .*5/h$", output, re.MULTILINE)
    assert all(len(line) <= 80 for line in output.splitlines())
    status, output, error = ask("status", "--keys=5", "--clients=5", "--json")
    (answer,) = objects(output)
    assert (answer["url"], answer["allowed"], answer["clients"]) == (url, 1, 2)
    # The key of the first design is there from the start.
    assert "a" in [key["key"] for key in answer["busy_keys"]]
    assert [client["address"] for client in answer["client_list"]] == ["127.0.0.1"] * 2
    assert "busy_keys" not in objects(ask("status", "--json")[1])[0]


def test_ping_tells_how_long_each_answer_took_and_sums_it_up(
    ask: Callable[..., tuple[int, str, str]], url: str
) -> None:
    status, output, error = ask("ping", "--count=3", "--interval=0")
    assert (status, error) == (0, "")
    lines = output.splitlines()
    assert len(lines) == 5
    for number, line in enumerate(lines[:3], 1):
        assert re.fullmatch(rf"{url}: {number} answered in \d+\.\d{{3}} ms", line)
    assert lines[3] == f"{url}: 3 asked, 3 answered"
    assert re.fullmatch(
        r"round trip min/mean/max/deviation = (\d+\.\d{3}/){3}\d+\.\d{3} ms", lines[4]
    )
    answers = objects(ask("ping", "-c2", "-i0", "--json")[1])
    assert [answer.get("sequence") for answer in answers] == [1, 2, None]
    assert answers[-1]["answered"] == 2
    assert answers[-1]["min"] <= answers[-1]["mean"] <= answers[-1]["max"]


def test_ping_without_an_answer_is_3(free_url: str) -> None:
    status, output, error = zmqlocker("ping", "-c2", "-i0", "--timeout=0.1", f"--url={free_url}")
    assert (status, error) == (3, "")
    assert output.startswith(f"{free_url}: 1 no answer from {free_url} within 0.1 s")
    assert output.endswith(f"{free_url}: 2 asked, 0 answered\n")


def test_ping_ends_at_ctrl_c_with_its_summary(url: str) -> None:
    command = [*ZMQLOCKER, "ping", "--count=0", "--interval=1000", f"--url={url}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout
        assert " 1 answered in " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == f"{url}: 1 asked, 1 answered\n"
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("next", "--timeout=0.1"),
        ("acquire", "a", "--timeout=0.1"),
        ("peek", "a", "--timeout=0.1"),
        ("reset", "a", "--timeout=0.1"),
        ("freeze", "a", "1", "--timeout=0.1"),
        ("set-limit", "a", "1/s", "--timeout=0.1"),
        ("ls", "--timeout=0.1"),
        ("break", "a", "--timeout=0.1"),
        ("status", "--timeout=0.1"),
    ],
)
def test_without_a_server_a_command_says_so_in_a_line_and_ends_with_3(
    arguments: tuple[str, ...], free_url: str
) -> None:
    status, output, error = zmqlocker(*arguments, ZMQLOCKER_URL=free_url)
    assert (status, output) == (3, "")
    assert re.fullmatch(rf"zmqlocker: no answer from {free_url} within 0\.1 s.*\n", error)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("peek", ""), "key must be 1 to 256 bytes"),
        (("acquire", "a", "a"), "keys must each be named once"),
        (("acquire", "a", "--cost=1", "--cost=2"), "--cost must be given once for all keys"),
        (("freeze", "a", "-1"), "SECONDS must be above 0"),
        (("ls", "--timeout=0"), "--timeout must be above 0"),
        (("ls", "--url=tcp://a:1", "--url=tcp://b:1"), "url must be one"),
    ],
)
def test_wrong_usage_is_2_and_is_told_in_a_line(arguments: tuple[str, ...], problem: str) -> None:
    status, output, error = zmqlocker(*arguments)
    assert (status, output) == (2, "")
    assert re.fullmatch(rf"zmqlocker: {re.escape(problem)}.*\n", error)


def test_a_server_at_all_addresses_is_found_by_the_same_environment(
    serving: Callable[..., Any],
) -> None:
    server = serving("--bind-anyway", url="tcp://*:*")
    port = server.url.rsplit(":", 1)[1]
    assert zmqlocker("ping", "-c1", ZMQLOCKER_URL=f"tcp://*:{port}")[0] == 0


def test_an_answer_is_given_though_nobody_can_be_told(url: str) -> None:
    for closed, status in [(">&-", 0), (">&- 2>&- <&-", 0), ("2>&- <&-", 0)]:
        script = f'"$@" acquire a --url="$URL" {closed}'
        done = subprocess.run(
            ["bash", "-c", script, "bash", *ZMQLOCKER],
            timeout=PATIENCE,
            check=False,
            env=environment({"URL": url}),
        )
        assert done.returncode == status, closed


def test_whoever_reads_no_further_ends_a_command_as_any_other(url: str) -> None:
    script = (
        '"$@" next --repeat=1000000 --every=0 --url="$URL" | head -n 1; echo "${PIPESTATUS[0]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", *ZMQLOCKER],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
        env=environment({"URL": url}),
    )
    assert done.stdout.splitlines()[1] == str(128 + signal.SIGPIPE)
    assert done.stderr == ""


def test_limit_runs_as_many_at_once_as_the_key_allows(
    ask: Callable[..., tuple[int, str, str]], url: str, client: LockerClient, tmp_path: Path
) -> None:
    command = ["limit", "gpu", f"--url={url}", "--", "sh", "-c", 'echo "$ZMQLOCKER_KEY"; read line']
    with subprocess.Popen(
        [*ZMQLOCKER, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as first:
        assert first.stdout
        assert first.stdin
        assert first.stdout.readline() == "gpu\n"
        status, output, error = ask("limit", "gpu", "--timeout=0", "--", "echo", "runs")
        assert (status, output) == (75, "")
        assert error == 'zmqlocker: no permit of "gpu": the limit is "1 at once"\n'
        ran = tmp_path / "ran"
        second = threading.Thread(target=ask, args=("limit", "gpu", "--", "touch", str(ran)))
        second.start()
        wait_until(lambda: any(key.waiting for key in client.busy_keys() if key.key == "gpu"))
        assert not ran.exists()
        first.stdin.write("\n")
        first.stdin.flush()
        assert first.wait(PATIENCE) == 0
    second.join(PATIENCE)
    assert ran.exists()
    assert client.peek("gpu").remaining == 1


def test_limit_spends_a_permit_of_a_rate_and_hands_the_status_on(
    ask: Callable[..., tuple[int, str, str]], client: LockerClient
) -> None:
    assert ask("limit", "a", "--cost=2", "--", "sh", "-c", "exit 7") == (7, "", "")
    assert client.peek("a").remaining == 3
    assert ask("limit", "b", "--", "true") == (0, "", "")
    status, output, error = ask("limit", "b", "--timeout=0.1", "--", "echo", "runs")
    assert (status, output) == (75, "")
    assert error.startswith('zmqlocker: no permit of "b" within 0.1 s')


def test_a_permit_that_is_lost_stops_the_command(
    serve_limits: Callable[..., tuple[Script, str]],
) -> None:
    server, url = serve_limits({"gpu": "1 at once"})
    command = [
        "limit",
        "gpu",
        f"--url={url}",
        "--ttl=0.8",
        "--kill-after=0",
        "--",
        "sh",
        "-c",
        "echo; read line",
    ]
    with subprocess.Popen(
        [*ZMQLOCKER, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "\n"
        server.stop()
        assert process.wait(PATIENCE) == 76
        assert process.stderr
        assert process.stderr.read() == "zmqlocker: the permit is lost: the command is stopped\n"


def test_check_tells_programs_what_a_file_says_or_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text('[limits]\na = ["5/second", "2 at once"]\n')
    status, output, error = zmqlocker("check", str(file), "--json")
    rules = '[{"key": "a", "limits": ["5/s", "2 at once"]}]'
    assert (status, error) == (0, "")
    assert output == f'{{"file": "{file}", "ok": true, "rules": {rules}}}\n'
    file.write_text('patience = "x"\nlimit = 1\n')
    status, output, error = zmqlocker("check", str(file), "--json")
    (answer,) = objects(output)
    assert (status, answer["ok"], error) == (2, False, "")
    assert [problem.partition(" ")[0] for problem in answer["errors"]] == [
        f"{file}:1:12:",
        f"{file}:2:1:",
    ]


def test_what_cannot_be_read_is_no_wrong_file(tmp_path: Path) -> None:
    for file in (tmp_path / "nowhere.toml", tmp_path):
        status, output, error = zmqlocker("check", str(file))
        assert (status, output) == (3, "")
        assert str(file) in error


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('curve_key = "s.key"', "curve_key needs clients"),
        ('clients = "*"', "clients needs curve_key"),
        ('peers = ["tcp://b:7778"]\n[limits]\nc = "3 at once"', 'concurrency limit of "c"'),
        ('peers_url = "tcp://*:7778"', "peers_url needs peers"),
        ('name = "a"', "name is of no use without a registry"),
        ('registry = "file:///r"\npeers = ["tcp://b:7778"]', "peers goes without a registry"),
    ],
)
def test_check_says_what_does_not_go_together(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text(text)
    status, output, error = zmqlocker("check", str(file))
    assert (status, output) == (2, "")
    assert error.startswith(f"{file}: ")
    assert problem in error


def test_the_demo_tells_programs_what_it_came_to() -> None:
    status, output, error = zmqlocker("demo", "--seconds=1", "--json")
    (answer,) = objects(output)
    assert (status, error) == (0, "")
    assert (answer["limit"], answer["kept"], len(answer["clients"])) == ("5/0.8s", True, 3)
    assert sum(client["go"] for client in answer["clients"]) == sum(answer["slots"])
