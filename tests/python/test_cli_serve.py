"""A server from the shell: `zmqlocker serve`."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
from commands import zmqlocker
from conftest import PATIENCE
from zmqlocker import BoundExceeded, LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Serving


def remaining(url: str, key: str) -> int:
    with LockerClient(url, timeout=PATIENCE) as client:
        return client.peek(key).remaining


def test_one_line_at_the_start_says_where_for_whom_with_what_memory_and_limits(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    start = serving("--limit=openai=500/min", "--limit=openai=20 at once", "--patience=0.2").start
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO  serving openai 500/min, 20 at once "
        r"at tcp://127\.0\.0\.1:\d+, patience 0\.2 s, this host only, no data folder",
        start,
    )
    start = serving(f"--data-dir={tmp_path}", "--bind-anyway", url="tcp://0.0.0.0:*").start
    assert start.endswith(f", patience 0 s, not encrypted, data in {tmp_path}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_the_server_and_the_status_is_0(
    serving: Callable[..., Serving], number: signal.Signals
) -> None:
    server = serving()
    status, rest = server.finish(number)
    assert status == 0
    assert rest.endswith(f"stopped serving at {server.url}: 0 go, 0 sorry, 0 bad messages\n")


def test_a_hangup_reads_the_limits_of_the_file_anew_and_keeps_what_was_used(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text('[limits]\na = "5/h"\n')
    server = serving(f"--config={file}")
    with LockerClient(server.url, timeout=PATIENCE) as client:
        assert client.try_acquire("a", 2)
        file.write_text('[limits]\na = "9/h"\n')
        server.send(signal.SIGHUP)
        assert "a 9/h from now on" in server.line_with("serving ")
        assert client.peek("a").remaining == 7
        file.write_text('[limits]\na = "much"\n')
        server.send(signal.SIGHUP)
        assert f"{file}:2:5" in server.line_with("keeps its limits")
        assert client.peek("a").remaining == 7
    assert server.finish()[0] == 0


def test_flags_go_before_the_environment_and_that_before_the_file(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text('patience = 0.3\n[limits]\na = "3/h"\nb = "3/h"\nc = "3/h"\n')
    server = serving(
        "--limit=a=1/h",
        f"--config={file}",
        ZMQLOCKER_LIMITS="a=2/h;b=2/h",
        ZMQLOCKER_PATIENCE="0.2",
    )
    assert "patience 0.2 s" in server.start
    assert [remaining(server.url, key) for key in "abc"] == [1, 3, 3]
    server = serving(
        ZMQLOCKER_LIMITS="a=2/h;b=2/h;b=5 at once",
        ZMQLOCKER_CONFIG=str(file),
        ZMQLOCKER_URL="tcp://127.0.0.1:*",
        ZMQLOCKER_DATA_DIR=str(tmp_path / "data"),
        url=None,
    )
    assert "patience 0.3 s" in server.start
    assert f"data in {tmp_path}/data" in server.start
    assert [remaining(server.url, key) for key in "ac"] == [2, 3]


def test_bounds_are_given_like_limits(serving: Callable[..., Serving], tmp_path: Path) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text("[bounds]\nkeys_max = 1\nclient_answers_max = 2\n")
    server = serving("--limit=*=9/h", f"--config={file}", ZMQLOCKER_BOUNDS="keys_max=2; ")
    with LockerClient(server.url, timeout=PATIENCE) as client:
        # The key `default` is in use from the start.
        assert client.try_acquire("a")
        with pytest.raises(BoundExceeded, match=r'key "b" is one too many.*`keys_max`'):
            client.try_acquire("b")


def test_a_server_for_other_hosts_has_to_be_wanted(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    refused = (
        "zmqlocker: url tcp://*:0 is open to other hosts, without encryption and authentication: "
        "give --curve-key and --clients, serve tcp://127.0.0.1:PORT or an ipc:// path, or say "
        "--bind-anyway\n"
    )
    assert zmqlocker("serve", "--url=tcp://*:0") == (2, "", refused)
    assert zmqlocker("serve", ZMQLOCKER_URL="tcp://*:0") == (2, "", refused)
    file = tmp_path / "zmqlocker.toml"
    file.write_text('url = "tcp://*:0"\n')
    assert zmqlocker("serve", f"--config={file}") == (2, "", refused)
    server = serving("--bind-anyway", url="tcp://*:*")
    assert "WARN " in server.line_with("is open to other hosts, without encryption")
    assert server.finish()[0] == 0


def test_what_is_wrong_is_told_in_a_line_and_the_status_is_2(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    server = serving(f"--data-dir={tmp_path / 'data'}")
    for argument, problem in [
        ("--limit=500/min", 'limit must read KEY=TEXT, as "openai=500/min", not "500/min"'),
        ("--limit=a=much", 'limit must read like "500/min"'),
        ("--patience=-1", "patience must be from 0"),
        ("--bound=keys_max", 'bound must read NAME=NUMBER, as "keys_max=1000", not "keys_max"'),
        ("--bound=keys_max=0", "keys_max must be from 1 to 1000000000, not 0"),
        ("--bound=tea_max=1", 'bounds has no "tea_max": there are keys_max'),
        ("--config=/nowhere.toml", "config /nowhere.toml cannot be read"),
        ("--peer=elsewhere", "peers must read tcp://HOST:PORT"),
        (f"--url={server.url}", "is in use"),
        (f"--data-dir={tmp_path / 'data'}", "data_dir"),
    ]:
        status, output, error = zmqlocker("serve", argument, ZMQLOCKER_URL="tcp://127.0.0.1:*")
        assert (status, output) == (2, ""), argument
        assert re.fullmatch(rf"zmqlocker: .*{re.escape(problem)}.*\n", error), error


@pytest.mark.parametrize("value", ["", "soon"])
def test_a_variable_that_is_wrong_is_named(value: str) -> None:
    status, output, error = zmqlocker("serve", ZMQLOCKER_PATIENCE=value)
    assert (status, output) == (2, "")
    assert error.endswith("zmqlocker: ZMQLOCKER_PATIENCE in the environment has that value\n")
    status, _, error = zmqlocker("serve", f"--patience={value}-", ZMQLOCKER_PATIENCE="1")
    assert (status, "environment" in error) == (2, False)
