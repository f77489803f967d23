"""Measures what metrics and the page cost: a server with them beside one without, in turn.

Needs zmqlocker in the virtual environment. `python benches/watching.py` takes about a minute. The
server with metrics is scraped, and looked at as a page looks, each once a second, all the while it
is measured. The ratio of throughputs is what is promised; that of the processor time of the servers
tells the same where other programs take turns with them, and what a second of being watched costs
a server that does nothing else tells it best.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from compare import first_line
from measuring import Programs, Rounds, Server, Verdict, judge
from zmqlocker import LockerClient

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKERS = Programs("askers.py")

#: How long each server is measured in a round, in seconds, and how often both are.
SECONDS = 1.0
ROUNDS = 15

#: How often it is looked, in seconds.
INTERVAL = 1.0


@contextlib.contextmanager
def watched(metrics_url: str) -> Iterator[None]:
    """Scrape a server, and look at it as a page does, while the block lasts."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(INTERVAL):
            for path in ("metrics", "api/status"):
                with urllib.request.urlopen(metrics_url + path, timeout=10) as answer:
                    answer.read()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


@contextlib.contextmanager
def serving(metrics: str) -> Iterator[tuple[Server, str]]:
    """A server, and where it is watched, if it is."""
    with ASKERS.start("serve_watched", metrics) as running:
        url, _, metrics_url = first_line(running).partition(" ")
        yield Server(url, running), metrics_url


def measure(rounds: Rounds, costs: Rounds, name: str, server: Server) -> None:
    """Ask in batches for a while: decisions a second, and what each cost the server."""
    used = server.processor_time()
    began = time.perf_counter()
    rate = float(ASKERS.run("batches", server.url, SECONDS))
    length = time.perf_counter() - began
    # The program takes a while to begin and to end, in which it asks for nothing.
    spent = server.processor_time() - used
    rounds.add(name, rate)
    costs.add(name, spent / (rate * min(SECONDS, length)) * 1e9)


def throughput() -> Iterator[Verdict]:
    """One process asks in batches, of a server that is watched and of one that is not."""
    rounds = Rounds("one process in batches, decisions/s")
    costs = Rounds("processor time of the server, ns a decision")
    with serving("") as (plain, _), serving("127.0.0.1:*") as (shown, url), watched(url):
        for number in range(ROUNDS):
            pair = [("without", plain), ("with metrics and page", shown)]
            for name, server in pair if number % 2 else reversed(pair):
                measure(rounds, costs, name, server)
    rounds.show()
    costs.show()
    ratio = rounds.median("with metrics and page") / rounds.median("without")
    yield Verdict("throughput", "with metrics and page, of without", ratio, ">= 0.97")
    cost = costs.median("with metrics and page") / costs.median("without")
    yield Verdict("throughput", "their processor time, of without", cost, "<= 1.03")


def idle() -> Iterator[Verdict]:
    """What a second of being watched costs a server that has as many keys as are counted for."""
    with serving("127.0.0.1:*") as (server, url), LockerClient(server.url) as client, watched(url):
        client.try_acquire_many([f"key {number}" for number in range(600)])
        time.sleep(2 * INTERVAL)
        used, began = threads(server), time.perf_counter()
        time.sleep(10 * INTERVAL)
        length = time.perf_counter() - began
        for name, target in (("zmql-server", "<= 3"), ("zmql-metrics", "-")):
            share = (threads(server)[name] - used[name]) / length * 100
            yield Verdict("idle", f"% of a processor, {name}", share, target)


def threads(server: Server) -> dict[str, float]:
    """The seconds of processors that each thread has used so far."""
    found = {}
    for thread in Path(f"/proc/{server.running.pid}/task").iterdir():
        name = (thread / "comm").read_text(encoding="ascii").strip()
        found[name] = int((thread / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    return found


def scrapes() -> Iterator[Verdict]:
    """How long an answer takes."""
    with serving("127.0.0.1:*") as (server, url):
        ASKERS.run("batches", server.url, SECONDS)
        for path in ("metrics", "api/status", "healthz"):
            taken = []
            for _ in range(50):
                began = time.perf_counter()
                with urllib.request.urlopen(url + path, timeout=10) as answer:
                    answer.read()
                taken.append((time.perf_counter() - began) * 1000)
            yield Verdict("scrapes", f"median of /{path}, ms", statistics.median(taken), "-")


if __name__ == "__main__":
    sys.exit(
        judge({"throughput": throughput, "idle": idle, "scrapes": scrapes}, sys.argv[1:], __doc__)
    )
