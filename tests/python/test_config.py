"""The file of settings: checked by a command, read by a server, and read anew."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE
from zmqlocker import BoundExceeded, ConfigError, LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Script

GOOD = """
max_requests = 5
in_seconds = 3600.0
[limits]
openai = ["500 / minute", "20 at once"]
"tenant:*" = "2/h"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "zmqlocker.toml"
    file.write_text(GOOD)
    return file


def check(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zmqlocker", "check", str(file)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_good_file_is_told_in_its_shortest_text(file: Path) -> None:
    done = check(file)
    assert done.stdout.splitlines() == [
        "openai      500/min, 20 at once",
        "tenant:*    2/h",
        "other keys  5/h",
        f"{file}: ok, 3 rules",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_all_that_is_wrong_in_a_file_is_told(file: Path) -> None:
    file.write_text('urk = "tcp://127.0.0.1:7777"\n[limits]\nopenai = "500/mn"\n')
    done = check(file)
    assert done.stderr.splitlines() == [
        f'{file}:1:1: unknown key "urk": did you mean "url"?',
        (
            f'{file}:3:10: limit must read like "500/min": column 5 of "500/mn": expected a unit '
            '(s, ms, min, h, day), found "mn"'
        ),
    ]
    assert (done.returncode, done.stdout) == (2, "")


def test_a_file_that_is_missing_is_a_failure(tmp_path: Path) -> None:
    done = check(tmp_path / "nothing.toml")
    assert "nothing.toml: No such file" in done.stderr
    assert (done.returncode, done.stdout) == (3, "")


def test_a_server_takes_its_limits_from_a_file(file: Path) -> None:
    with (
        LockerServer(config=file, url="tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url) as client,
    ):
        assert [client.next("tenant:1") for _ in range(3)] == ["go", "go", "sorry"]
        assert client.peek("other").limit == "5/h"


def test_what_the_call_says_goes_before_the_file(file: Path) -> None:
    with (
        LockerServer(
            7, 60.0, "tcp://127.0.0.1:*", config=file, limits={"tenant:*": "9/h"}, block=False
        ) as server,
        LockerClient(server.url) as client,
    ):
        assert client.peek("tenant:1").limit == "9/h"
        assert client.peek("other").limit == "7/min"
        assert client.peek("openai").remaining == 20


def test_a_server_does_not_start_on_a_file_that_is_wrong(file: Path) -> None:
    file.write_text("[limits]\na = 1\n")
    with pytest.raises(ConfigError, match=r"zmqlocker\.toml:2:5: limits of \"a\" must be"):
        LockerServer(config=file, url="tcp://127.0.0.1:*", block=False)
    with pytest.raises(ConfigError, match="nowhere cannot be read: no such file"):
        LockerServer(config="/nowhere", url="tcp://127.0.0.1:*", block=False)


def test_usage_survives_a_reload_and_a_wrong_file_changes_nothing(file: Path) -> None:
    with (
        LockerServer(config=file, url="tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url) as client,
    ):
        assert [client.next("tenant:1") for _ in range(3)] == ["go", "go", "sorry"]
        file.write_text('[limits]\n"tenant:*" = "3/h"\nopenai = "x"\n')
        with pytest.raises(ConfigError, match="3:10"):
            server.reload()
        assert client.next("tenant:1") == "sorry"
        file.write_text('[limits]\n"tenant:*" = "3/h"\n')
        server.reload()
        assert [client.next("tenant:1") for _ in range(2)] == ["go", "sorry"]
        with pytest.raises(ConfigError, match='key "other" has no limits'):
            client.next("other")


def test_sighup_reads_the_file_anew(
    file: Path, script: Callable[..., Script], free_url: str
) -> None:
    program = script(
        """
        import logging, sys
        from zmqlocker import LockerServer
        logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
        LockerServer(config=sys.argv[1], url=sys.argv[2])
        """,
        str(file),
        free_url,
    )
    assert program.line().startswith("serving ")
    with LockerClient(free_url) as client:
        assert [client.next("tenant:1") for _ in range(3)] == ["go", "go", "sorry"]
        file.write_text("nonsense")
        program.signal(signal.SIGHUP)
        while "keeps its limits" not in program.line():
            pass
        assert client.next("tenant:1") == "sorry"
        file.write_text('[limits]\n"tenant:*" = "3/h"\n')
        program.signal(signal.SIGHUP)
        while "from now on" not in program.line():
            pass
        assert [client.next("tenant:1") for _ in range(2)] == ["go", "sorry"]
    program.signal(signal.SIGTERM)
    assert program.finish()[0] == 0


def test_bounds_are_given_by_name_and_go_before_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text("[bounds]\nkeys_max = 2\nwaiters_max = 7\n")
    bounds = {"keys_max": 3}
    with (
        LockerServer(
            1, 3600.0, "tcp://127.0.0.1:*", config=file, bounds=bounds, block=False
        ) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        # The key `default` is in use from the start.
        assert client.try_acquire("a")
        assert client.try_acquire("b")
        with pytest.raises(BoundExceeded, match=r'key "c" is one too many.*`keys_max`'):
            client.try_acquire("c")
        client.reset("a")
        assert client.try_acquire("c")


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"tea_max": 1}, 'bounds has no "tea_max": there are keys_max, waiters_max,'),
        ({"keys_max": 0}, "keys_max must be from 1 to 1000000000, not 0"),
        ({"keys_max": 10**30}, "keys_max must be from 1 to 1000000000, not "),
    ],
)
def test_a_bound_that_is_wrong_is_told(bounds: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LockerServer(url="tcp://127.0.0.1:*", bounds=bounds, block=False)
    assert str(caught.value).startswith(message)
