"""What a server from the shell logs: for people or for programs, and of whom it turns away."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from commands import zmqlocker
from conftest import PATIENCE
from zmqlocker import BoundExceeded, LockerClient, LockerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Serving


def events(lines: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture
def bounded(tmp_path: Path) -> Path:
    file = tmp_path / "zmqlocker.toml"
    file.write_text('[limits]\n"*" = "1/h"\n[bounds]\nkeys_max = 2\nwaiters_max = 1\n')
    return file


def test_a_line_for_programs_has_its_fields(serving: Callable[..., Serving]) -> None:
    server = serving("--log-format=json", "--limit=a=5/s")
    start = json.loads(server.start)
    assert start.pop("time").endswith("Z")
    assert start == {
        "level": "info",
        "message": f"serving a 5/s at {server.url}, patience 0 s, this host only, no data folder",
        "event": "start",
        "url": server.url,
        "security": "this host only",
        "data_dir": None,
        "patience": 0,
        "limits": "a 5/s",
    }
    with LockerClient(server.url, name='a "name"\n', timeout=PATIENCE) as client:
        client.peek("a")
    hello = json.loads(server.line_with("client"))
    assert (hello["event"], hello["client"], hello["address"]) == (
        "client",
        'a "name"\n',
        "127.0.0.1",
    )
    stop = events(server.finish()[1])[-1]
    assert (stop["event"], stop["go"], stop["sorry"]) == ("stop", 1, 0)


def test_a_name_with_a_line_in_it_makes_no_line_for_people(serving: Callable[..., Serving]) -> None:
    server = serving("--limit=a=5/s")
    with LockerClient(server.url, name="x\nERROR all is lost", timeout=PATIENCE) as client:
        client.peek("a")
    assert '"x\\nERROR all is lost"' in server.line_with("client")
    _, rest = server.finish()
    assert not any(line.startswith("ERROR") for line in [*server.lines, *rest.splitlines()])


def test_the_level_says_what_is_left_out(
    serving: Callable[..., Serving], free_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text("")
    arguments = (f"--config={file}", "--log-level=error")
    server = serving(*arguments, url=free_url, await_start=False)
    with LockerClient(free_url, timeout=PATIENCE) as client:
        client.next()
    file.write_text("limits = 7")
    server.send(signal.SIGHUP)
    assert "ERROR" in server.line_with("keeps its limits")
    assert server.lines[:-1] == []
    assert server.finish() == (0, "")
    status, _, error = zmqlocker("serve", ZMQLOCKER_LOG_LEVEL="loud")
    assert status == 2
    assert "--log-level" in error


def test_a_bound_that_was_hit_is_logged_with_who_was_refused_and_ten_times_a_second(
    serving: Callable[..., Serving], bounded: Path
) -> None:
    server = serving("--log-format=json", f"--config={bounded}")
    with LockerClient(server.url, name="greedy", timeout=PATIENCE) as client:
        assert client.try_acquire("a")  # beside the key of the first design
        for _ in range(1000):
            with pytest.raises(BoundExceeded):
                client.try_acquire("c")
    lines = events("".join(server.lines) + server.finish()[1])
    hits = [line for line in lines if line.get("event") == "bound_hit"]
    assert 10 <= len(hits) < 500
    first = hits[0]
    assert first["level"] == "warn"
    assert (first["bound"], first["client"], first["address"]) == (
        "keys_max",
        "greedy",
        "127.0.0.1",
    )
    assert first["message"].startswith('refused to "greedy" (process ')
    assert 'key "c" is one too many' in first["message"]


def test_a_client_too_many_is_logged(serving: Callable[..., Serving], tmp_path: Path) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text("[bounds]\nsessions_max = 1\n")
    server = serving("--log-format=json", f"--config={file}")
    with LockerClient(server.url, name="first", timeout=PATIENCE) as first:
        first.peek("a")
        with (
            LockerClient(server.url, name="second", timeout=0.2) as second,
            pytest.raises(LockerError),
        ):
            second.peek("a")
    hit = json.loads(server.line_with("bound_hit"))
    assert (hit["bound"], hit["client"], hit["address"]) == ("sessions_max", "second", "127.0.0.1")


def test_one_of_the_first_design_is_told_by_its_address(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text('[limits]\n"*" = "1/h"\n[bounds]\nkeys_max = 1\n')
    server = serving("--log-format=json", f"--config={file}")
    with LockerClient(server.url, name="first", timeout=PATIENCE) as first:
        first.reset("default")
        assert first.try_acquire("a")
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.rcvtimeo = int(PATIENCE * 1000)
        socket.linger = 0
        socket.connect(server.url)
        socket.send(b"let me go")
        assert socket.recv().startswith(b"error: ")
    hit = json.loads(server.line_with("bound_hit"))
    assert (hit["bound"], hit["client"], hit["address"]) == ("keys_max", None, "127.0.0.1")
