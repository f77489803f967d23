"""Measures what servers that count for each other grant beyond a limit, and what that costs.

`python benches/peers.py` takes about two minutes; with names of parts it runs those alone. Needs
zmqlocker and pyzmq in the virtual environment.

A "go" is granted between the question and the answer. Of a sliding window the figure is the most
that was granted for certain within its length: what was asked and answered in it. Of a fixed window
it is what was granted in each slot; a slot is what lies between two pauses, for the limit is used
up long before its end.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare import process
from measuring import Programs, Rounds, Verdict, judge

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

SERVERS = 3
CLIENTS = 24
SECONDS = 8.0

#: How many decisions a round trip brings where the limit is high.
BATCH = 16

PROGRAMS = Programs("peers.py")

Go = tuple[float, float, int]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def servers(count: int, limit: str, *, with_peers: bool = True) -> Iterator[list[Any]]:
    """Servers that count for each other: each with its URL and its process."""
    ports = free_ports(2 * count)
    urls = [f"tcp://127.0.0.1:{port}" for port in ports]
    served, published = urls[:count], urls[count:]
    with contextlib.ExitStack() as stack:
        running = []
        for url, peers_url in zip(served, published, strict=True):
            command = [sys.executable, "-m", "zmqlocker", "serve", f"--limit=*={limit}"]
            peers = [f"--peer={peer}" for peer in published] if with_peers else []
            own = [f"--peers-url={peers_url}"] if with_peers else []
            log = ["--log-level=error"]
            server = process(*command, f"--url={url}", *peers, *own, *log)
            running.append((url, stack.enter_context(server)))
        time.sleep(1.0)
        yield running


def ask(url: str, seconds: str, batch: str, pause: str) -> None:
    """Ask one server again and again: the answers that were "go", with their times."""
    from zmqlocker import LockerClient

    goes: list[Go] = []
    count, rest = int(batch), float(pause)
    with LockerClient(url, timeout=10.0) as client:
        client.peek("k")
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + float(seconds)
        while (sent := time.monotonic()) < end:
            if count == 1:
                allowed = int(client.next("k") == "go")
            else:
                allowed = sum(map(bool, client.try_acquire_many(["k"] * count)))
            if allowed:
                goes.append((sent, time.monotonic(), allowed))
            if rest:
                time.sleep(rest)
    print(json.dumps(goes), flush=True)


def most_in_any(goes: list[Go], length: float) -> int:
    """The most that were granted for certain within that length of time."""
    by_end = sorted((received, sent, count) for sent, received, count in goes)
    ends = [received for received, _, _ in by_end]
    most = 0
    for start in sorted({sent for sent, _, _ in goes}):
        upper = bisect.bisect_right(ends, start + length)
        lower = bisect.bisect_left(ends, start)
        inside = (count for _, sent, count in by_end[lower:upper] if sent >= start)
        most = max(most, sum(inside))
    return most


def by_slot(goes: list[Go], length: float) -> list[int]:
    """How many were granted in each slot."""
    slots: list[int] = []
    opened = -length
    for _, received, count in sorted(goes, key=lambda go: go[1]):
        if received >= opened + 0.9 * length:
            opened = received
            slots.append(0)
        slots[-1] += count
    return slots


def over(limit: int, seconds: float, *, sliding: bool, batch: int, pause: float) -> list[int]:
    """How many were granted beyond the limit, in each slot or in the worst window."""
    text = f"{limit}/{seconds}s" + (" sliding" if sliding else "")
    with servers(SERVERS, text) as running:
        urls = [url for url, _ in running]
        calls = [("ask", urls[n % SERVERS], SECONDS, batch, pause) for n in range(CLIENTS)]
        found = PROGRAMS.at_once(calls)
    goes = [tuple(go) for some in found for go in some]
    granted = sum(count for *_, count in goes)
    most = limit / seconds
    print(f"    {text:18} {granted / SECONDS:9,.0f} granted/s, all may grant {most:,.0f}")
    counts = [most_in_any(goes, seconds)] if sliding else by_slot(goes, seconds)
    return [count - limit for count in counts]


def small() -> Iterator[Verdict]:
    """Small limits, asked for without a pause, and as the first design's clients do."""
    for pause in (0.0, 0.1):
        beyond = over(5, 0.8, sliding=False, batch=1, pause=pause)
        what = f"5/0.8s, beyond in a slot, pauses of {pause} s"
        print(f"    {what}: {beyond}")
        yield Verdict("small", what, max(beyond), f"<= {SERVERS - 1}")
        yield Verdict("small", "on an average", sum(beyond) / len(beyond), "")
    beyond = over(5, 0.8, sliding=True, batch=1, pause=0.0)
    yield Verdict("small", "5/0.8s sliding, beyond in any window", max(beyond), f"<= {SERVERS - 1}")


def high() -> Iterator[Verdict]:
    """High limits."""
    for limit, batch, percent in ((100, 1, 2), (1000, 1, 1), (10_000, BATCH, 1)):
        beyond = over(limit, 1.0, sliding=True, batch=batch, pause=0.0)
        what = f"{limit}/s sliding, % beyond in any window"
        yield Verdict("high", what, 100 * max(beyond) / limit, f"<= {percent}")


def cost() -> Iterator[Verdict]:
    """What it costs a server to tell others, while one client asks without a pause."""
    rounds = Rounds("one server is asked, us of its processors for a decision")
    for _ in range(3):
        for batch in (1, BATCH):
            for count, name in ((1, "alone"), (3, "with two others")):
                with servers(count, "1000000000/h", with_peers=count > 1) as running:
                    url, server = running[0]
                    before = processor_time(server)
                    goes = PROGRAMS.at_once([("ask", url, 3.0, batch, 0.0)])[0]
                    used = processor_time(server) - before
                    granted = sum(go[2] for go in goes)
                rounds.add(f"{name}, {batch} at a time", 1e6 * used / granted)
    rounds.show()
    for batch in (1, BATCH):
        ratio = rounds.median(f"with two others, {batch} at a time")
        ratio /= rounds.median(f"alone, {batch} at a time")
        yield Verdict("cost", f"x alone, {batch} at a time", ratio, "")


def processor_time(running: subprocess.Popen[str]) -> float:
    threads = Path(f"/proc/{running.pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9


PARTS: dict[str, Callable[[], Iterator[Verdict]]] = {"small": small, "high": high, "cost": cost}

if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(*sys.argv[2:])
    else:
        sys.exit(judge(PARTS, sys.argv[1:], __doc__))
