"""`zmqlocker top`, on terminals and without."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from commands import ZMQLOCKER, zmqlocker
from conftest import PATIENCE
from keys import KeyRing
from terminals import LEAVE, Terminal
from zmqlocker import LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Serving

LIMITS = ["--limit=openai=5/h", "--limit=*=1000/h"]


@pytest.fixture
def server(serving: Callable[..., Serving]) -> Serving:
    return serving(*LIMITS)


@pytest.fixture
def client(server: Serving) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="worker-3", timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def top() -> Iterator[Callable[..., Terminal]]:
    """Start the view on terminals; whatever still runs at the end of the test is killed."""
    started: list[Terminal] = []

    def start(*arguments: str, **options: Any) -> Terminal:
        command = [*ZMQLOCKER, "top", "--interval=0.1", *arguments]
        started.append(Terminal(command, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def line(lines: list[str], part: str, name: str) -> list[str]:
    """The cells of the line with this name in a part of the view."""
    start = next(place for place, line in enumerate(lines) if line.startswith(part))
    return next(line.split() for line in lines[start:] if line.startswith(f"{name} "))


@pytest.mark.parametrize("quit_by", ["q", "\x1b", "\x03"], ids=["q", "Esc", "Ctrl-C"])
def test_it_shows_what_a_server_does_until_a_key_is_pressed(
    server: Serving, client: LockerClient, top: Callable[..., Terminal], quit_by: str
) -> None:
    for _ in range(7):
        client.try_acquire("openai")
    with client.lock("invoice:42"):
        view = top(f"--url={server.url}")
        lines = view.wait_for_text("openai", "invoice:42", "round trip", "q quit")
    assert server.url in lines[0]
    assert re.match("allowed 6.* refused 2", lines[1])
    # Nothing is known of what came before the view, so there is no bar.
    assert line(lines, "keys: ", "openai")[2:7] == ["5", "2", "0", "0", "0"]
    key, state, _, left, queue, who, *_ = line(lines, "locks: ", "invoice:42")
    assert (key, state, queue, who) == ("invoice:42", "held", "0", "worker-3")
    assert 0 < float(left.rstrip("s")) <= 0.8
    assert line(lines, "clients: ", "worker-3")[4:6] == ["1", "0"]
    view.press(quit_by)
    assert view.finish() == 0
    assert view.is_as_before()


def test_a_rate_is_seen_in_bars(
    server: Serving, client: LockerClient, top: Callable[..., Terminal]
) -> None:
    view = top(f"--url={server.url}")
    view.wait_for_text("clients: 1")

    def are_there(lines: list[str]) -> bool:
        client.try_acquire("tenant:鍵")
        bars = [line for line in lines if line.startswith(("tenant:鍵 ", "load"))]
        return len(bars) == 2 and all("█" in line for line in bars)

    lines = view.wait_for(are_there)
    assert re.search(r"allowed \d+, [1-9][0-9.]*/s", lines[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_before(
    server: Serving, top: Callable[..., Terminal], number: signal.Signals
) -> None:
    view = top(f"--url={server.url}")
    view.wait_for_text("nobody holds one")
    view.send(number)
    assert view.finish() == 0
    assert view.is_as_before()


def test_keys_filter_sort_and_pause(
    server: Serving, client: LockerClient, top: Callable[..., Terminal]
) -> None:
    for name, times in (("a:one", 3), ("a:two", 1), ("b:one", 2)):
        for _ in range(times):
            client.try_acquire(name)
    view = top(f"--url={server.url}")
    view.wait_for_text("a:one", "a:two", "b:one")

    def order(lines: list[str]) -> list[str]:
        return re.findall(r"^([ab]:\w+) ", "\n".join(lines), re.MULTILINE)

    view.press("ss")
    view.wait_for(lambda lines: order(lines) == ["a:one", "b:one", "a:two"])
    view.press("r")
    view.wait_for(lambda lines: order(lines) == ["a:two", "b:one", "a:one"])
    view.press("/a:q")
    view.wait_for(lambda lines: order(lines) == [] and "filter: a:q_" in lines[-1])
    view.press("\x7f\r")
    view.wait_for(lambda lines: order(lines) == ["a:two", "a:one"] and "q quit" in lines[-1])
    view.press("\x1b[B")
    view.wait_for(lambda lines: "a:one: 1000/h" in lines[-2])
    view.press(" ")
    view.wait_for_text("paused: ")
    client.try_acquire("a:three")
    view.press("\t")
    assert order(view.wait_for_text("CLIENT")) == ["a:two", "a:one"]
    view.press(" ")
    view.wait_for_text("a:three")


def test_it_draws_for_the_size_that_the_terminal_has_now(
    server: Serving, client: LockerClient, top: Callable[..., Terminal]
) -> None:
    client.try_acquire("tenant:" * 8)
    view = top(f"--url={server.url}")
    view.wait_for_text("LAST MINUTE", "tenant:", "clients: ")
    view.resize(40, 10)
    lines = view.wait_for(lambda lines: "…" in "".join(lines) and "LAST MINUTE" not in lines)
    assert any(words.startswith("tenant:") for words in lines)
    view.resize(1, 1)
    view.resize(100, 40)
    view.wait_for_text("LAST MINUTE", "clients: ", "arrows select")


def test_a_server_that_went_is_told_of_and_seen_again(
    serving: Callable[..., Serving], top: Callable[..., Terminal], free_url: str
) -> None:
    view = top(f"--url={free_url}")
    view.wait_for_text(f"no answer from {free_url} for ")
    for seconds in ("5/h", "7/h"):
        server = serving(f"--limit=*={seconds}", url=free_url)
        with LockerClient(free_url, timeout=PATIENCE) as client:
            client.try_acquire("openai")
            view.wait_for(lambda lines: "openai" in str(lines) and "no answer" not in lines[0])
        server.kill()
        lines = view.wait_for_text(f"no answer from {free_url} for ", "away: what is shown is")
        assert "openai" in str(lines)
    view.press("q")
    assert view.finish() == 0
    assert view.is_as_before()


def test_a_line_that_is_cut_ends_it(server: Serving, top: Callable[..., Terminal]) -> None:
    view = top(f"--url={server.url}")
    view.wait_for_text("nobody holds one")
    view.hang_up()
    assert view.process.wait(PATIENCE) == 0


def test_no_color_is_respected(server: Serving, top: Callable[..., Terminal]) -> None:
    colour = re.compile(r"\x1b\[(3[0-8]|9[0-7])[;0-9]*m")
    for no_color, found in (("", True), ("1", False)):
        view = top(f"--url={server.url}", NO_COLOR=no_color)
        view.wait_for_text("nobody holds one")
        assert bool(colour.search(view.text)) == found


def test_one_snapshot_is_plain_text_that_fits(server: Serving, client: LockerClient) -> None:
    for name in ("openai", "tenant:" * 9, "鍵" * 40):
        client.try_acquire(name)
    with client.lock("invoice:42"):
        status, output, errors = zmqlocker("top", "--once", f"--url={server.url}")
    assert (status, errors) == (0, "")
    for text in (f"at {server.url}\n", "\nround trip    ", "\nopenai  ", "invoice:42: lock"):
        assert text in output
    assert "\x1b" not in output
    assert max(len(words) + words.count("鍵") for words in output.splitlines()) <= 80


def test_one_snapshot_is_one_object(server: Serving, client: LockerClient) -> None:
    client.try_acquire("openai")
    with client.lock("invoice:42"):
        status, output, errors = zmqlocker("top", "--once", "--json", f"--url={server.url}")
    assert (status, errors, output.count("\n")) == (0, "", 1)
    found = json.loads(output)
    assert (found["url"], found["allowed"]) == (server.url, 2)
    assert 0 < found["round_trip"] < PATIENCE
    assert {row["key"] for row in found["busy_keys"]} == {"openai", "invoice:42"}
    assert found["locks"][0]["holders"][0]["name"] == "worker-3"
    assert "worker-3" in [row["name"] for row in found["client_list"]]


def test_without_a_terminal_it_says_what_to_do() -> None:
    problem = (
        "zmqlocker: --once is needed: there is no terminal to draw on, and --once prints one "
        "snapshot without any\n"
    )
    assert zmqlocker("top") == (2, "", problem)


def test_a_terminal_that_can_do_nothing_is_none(top: Callable[..., Terminal]) -> None:
    view = top(TERM="dumb")
    assert view.finish() == 2
    assert "--once is needed" in view.text


def test_wrong_usage_is_told(free_url: str) -> None:
    assert zmqlocker("top", "--json")[0] == 2
    assert "--json needs --once" in zmqlocker("top", "--json")[2]
    for seconds in ("0.05", "61", "-1", "nan"):
        status, _, errors = zmqlocker("top", "--interval", seconds)
        assert status == 2
        assert "--interval must be 0.1 to 60 seconds" in errors
    status, output, errors = zmqlocker("top", "--once", f"--url={free_url}", "--timeout=0.2")
    assert (status, output) == (3, "")
    assert f"no answer from {free_url}" in errors


def test_keys_decide_what_is_seen(tmp_path: Path, top: Callable[..., Terminal]) -> None:
    ring = KeyRing(tmp_path)
    operator, worker, stranger = (ring.key(name) for name in ("operator", "worker", "stranger"))
    ring.let_in((operator, "*", "*"), (worker, "openai", ""))
    with ring.serve() as server:
        reach = [f"--url={server.url}", f"--server-key={ring.server.public}"]
        with LockerClient(server.url, timeout=PATIENCE, **operator.client(ring.server)) as client:
            client.try_acquire("openai")
            client.try_acquire("secret")
            view = top(*reach, f"--key-file={operator.file}")
            view.wait_for_text("openai", "secret", "security curve", "clients: 2")
        view = top(*reach, f"--key-file={worker.file}")
        lines = view.wait_for_text("openai", "clients: only who may administer a key sees them")
        assert "secret" not in str(lines)
        view = top(*reach, f"--key-file={stranger.file}")
        assert view.finish() == 3
        assert view.is_as_before()
        assert "does not let this client's key in" in view.text.rpartition(LEAVE)[2]
