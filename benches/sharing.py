"""Measures what it costs that several servers share the keys through a registry, and what waits.

`python benches/sharing.py` takes about three minutes; with names of parts it runs those alone.
Needs zmqlocker and pyzmq in the virtual environment, and Debian's `etcd-server` and `etcd-client`.
Three servers and one node of etcd run on this machine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compare import process
from measuring import Programs, Rounds, Verdict, judge, percentile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
from commands import Serving
from etcd_nodes import etcd
from peers import free_ports, processor_time

from cluster import Callers, Cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 4.0
ROUNDS = 5

#: How many programs ask at once. With more of them for one server it sleeps less often than three
#: that share them, which is no matter of where keys are at home.
ASKERS = 1

KEYS = [f"k{number}" for number in range(48)]
LIMITS = ["k*=1000000000/h", "default=1000000000/h"]

PROGRAMS = Programs("sharing.py")


@dataclass(frozen=True)
class Registry:
    """A node of etcd, by where it serves."""

    address: str

    @property
    def url(self) -> str:
        return f"etcd://{self.address}/bench"

    def writes(self) -> int:
        """How many there were so far."""
        control = ["env", "ETCDCTL_API=3", "etcdctl", f"--endpoints=http://{self.address}"]
        command = [*control, "get", "none", "--write-out=json"]
        told = subprocess.run(command, check=True, capture_output=True, timeout=10)
        revision: int = json.loads(told.stdout)["header"]["revision"]
        return revision


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    client, peer = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        peers = {"one": f"http://127.0.0.1:{peer}"}
        found = Registry(f"127.0.0.1:{client}")
        with process(*etcd("one", Path(folder), f"http://{found.address}", peers)):
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with contextlib.suppress(subprocess.CalledProcessError):
                    found.writes()
                    break
            yield found


@contextlib.contextmanager
def alone() -> Iterator[list[Serving]]:
    server = Serving(*[f"--limit={limit}" for limit in LIMITS])
    try:
        yield [server]
    finally:
        server.kill()


@contextlib.contextmanager
def together() -> Iterator[Cluster]:
    with registry() as found, Cluster(found.url, *LIMITS) as cluster:
        yield cluster


def ask(seconds: str, *urls: str) -> None:
    """Ask for all keys in turn, one after the other: how often."""
    from zmqlocker import LockerClient

    count = 0
    with LockerClient(list(urls), timeout=10.0) as client:
        for key in KEYS:
            client.try_acquire(key)
        print("ready", flush=True)
        sys.stdin.readline()
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            for key in KEYS:
                client.try_acquire(key)
            count += len(KEYS)
    print(count, flush=True)


def seed(seconds: str, url: str) -> None:
    """Ask as the first design's clients do: how many microseconds each answer took."""
    import zmq

    took: list[float] = []
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.connect(url)
        end = time.perf_counter() + float(seconds)
        while (begin := time.perf_counter()) < end:
            socket.send(b"let me go")
            assert socket.recv() == b"go"
            took.append((time.perf_counter() - begin) * 1e6)
    print(json.dumps([len(took), percentile(took, 0.5)]))


def used_by(servers: list[Serving], work: Callable[[], float]) -> float:
    """How many microseconds of processors servers use for each decision of some work."""
    before = sum(processor_time(server.process) for server in servers)
    count = work()
    used = sum(processor_time(server.process) for server in servers) - before
    return used * 1e6 / count


def work() -> Iterator[Verdict]:
    """What a decision costs at the home of its key."""
    rounds = Rounds("a decision, in microseconds of the servers' processors")

    def measure(name: str, servers: list[Serving], askers: int = ASKERS) -> None:
        calls = [("ask", SECONDS, *(server.url for server in servers))] * askers
        rounds.add(name, used_by(servers, lambda: PROGRAMS.together(calls)))

    for _ in range(ROUNDS):
        with alone() as servers:
            measure("one server", servers)
        with together() as cluster:
            servers = [*cluster.servers.values()]
            measure("three servers, one to ask them", servers)
            measure("three servers, one to ask each", servers, ASKERS * len(servers))
    rounds.show()
    for name in ("one to ask them", "one to ask each"):
        ratio = rounds.median(f"three servers, {name}") / rounds.median("one server")
        yield Verdict("work", f"at home, {name}, times one server", ratio, "<= 1.1")


def forwarded() -> Iterator[Verdict]:
    """What the seed's clients cost at a server that is not home of their key."""
    rounds = Rounds("a request of the first design's clients, in microseconds")
    for _ in range(ROUNDS):
        with together() as cluster:
            home = cluster.home_of("default")
            other = next(name for name in cluster.servers if name != home)
            servers = [*cluster.servers.values()]
            for name, asked in (("at home", home), ("forwarded", other)):
                url = cluster.servers[asked].url
                found: list[float] = []

                def work(url: str = url, found: list[float] = found) -> float:
                    found.extend(PROGRAMS.run("seed", SECONDS, url))
                    return found[0]

                rounds.add(f"{name}, of the servers' processors", used_by(servers, work))
                rounds.add(f"{name}, median until its answer", found[1])
    rounds.show()
    for what in ("of the servers' processors", "median until its answer"):
        ratio = rounds.median(f"forwarded, {what}") / rounds.median(f"at home, {what}")
        yield Verdict("forwarded", f"x at home, {what}", ratio, "<= 2")


def writes() -> Iterator[Verdict]:
    """How often the servers write to the registry."""
    with registry() as found, Cluster(found.url, *LIMITS) as cluster:
        calls = [("ask", SECONDS, *cluster.urls)] * ASKERS
        works: dict[str, Callable[[], object]] = {
            "idle": lambda: time.sleep(SECONDS),
            "asked without a pause": lambda: PROGRAMS.together(calls),
        }
        for name, work in works.items():
            before, begin = found.writes(), time.monotonic()
            work()
            count, took = found.writes() - before, time.monotonic() - begin
            per_server = count / took / len(cluster.servers)
            yield Verdict("writes", f"a second and server, {name}", per_server, "<= 10")


def ends(part: str, end: Callable[[Serving], object], bound: str) -> Iterator[Verdict]:
    """How long callers wait while a server ends."""
    from zmqlocker import LockerClient

    rounds = Rounds(f"{part}: milliseconds")
    keys = KEYS[:12]
    for _ in range(ROUNDS):
        with together() as cluster, LockerClient(cluster.urls) as client:
            homes = {key: cluster.home_of(key) for key in keys}
            victim = homes[keys[0]]

            def is_allowed(key: str, client: LockerClient = client) -> bool:
                return client.try_acquire(key, timeout=10.0).allowed

            callers = Callers(is_allowed, keys, pause=0.01)
            time.sleep(1.5)
            ended_at = time.monotonic()
            end(cluster.servers[victim])
            time.sleep(2.5)
            callers.finish()
            del cluster.servers[victim]
        assert callers.errors == []
        took: dict[str, list[float]] = {"lost": [], "others": [], "quiet": []}
        for key, answers in callers.answers.items():
            for one in answers:
                when = "lost" if homes[key] == victim else "others"
                took["quiet" if one.heard < ended_at else when].append(one.heard - one.asked)
        rounds.add("longest for a key whose home ended", 1e3 * max(took["lost"]))
        rounds.add(
            "99th percentile for a key of the others", 1e3 * percentile(took["others"], 0.99)
        )
        rounds.add("the same before", 1e3 * percentile(took["quiet"], 0.99))
    rounds.show()
    longest = rounds.highest("longest for a key whose home ended")
    yield Verdict(part, "longest of all rounds, ms", longest, bound)
    name = "99th percentile for a key of the others"
    ratio = rounds.median(name) / rounds.median("the same before")
    yield Verdict(part, "99th percentile of others, times before", ratio, "")


def killed() -> Iterator[Verdict]:
    return ends("killed", Serving.kill, "<= 2000")


def stopped() -> Iterator[Verdict]:
    return ends("stopped", Serving.finish, "<= 50")


PARTS: dict[str, Callable[[], Iterator[Verdict]]] = {
    "work": work,
    "forwarded": forwarded,
    "writes": writes,
    "killed": killed,
    "stopped": stopped,
}

if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {"ask": ask, "seed": seed}
    name, *arguments = [*sys.argv[1:], ""]
    if name in programs:
        programs[name](*filter(None, arguments))
    else:
        sys.exit(judge(PARTS, sys.argv[1:], __doc__))
