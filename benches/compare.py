"""Measures zmqlocker beside its peers, in one run, and prints medians and ratios.

Needs `redis-server` and a Rust toolchain, and in the virtual environment zmqlocker, limits, redis
and hiredis: `pip install . --group bench`. Takes about two minutes.

Machines are noisy and differ: the ratios are what counts. Each round measures all contestants one
after the other; a figure is the median of the rounds, a round the median of its calls.
"""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
ROUNDS = 5
CALLS = 20_000

FIXED_WINDOW = """
local used = redis.call("INCR", KEYS[1])
if used == 1 then redis.call("PEXPIRE", KEYS[1], ARGV[2]) end
return used <= tonumber(ARGV[1])
"""


def median_trip(call: Callable[[], Any]) -> float:
    """Microseconds of a call: the median of many, after some to warm up."""
    trips = []
    for _ in range(CALLS // 10):
        call()
    for _ in range(CALLS):
        start = time.perf_counter_ns()
        call()
        trips.append(time.perf_counter_ns() - start)
    return statistics.median(trips) / 1000


def ask_zmqlocker(url: str) -> float:
    from zmqlocker import LockerClient

    with LockerClient(url) as client:
        return median_trip(client.next)


def ask_redis(port: str) -> float:
    import redis

    with redis.Redis(port=int(port)) as client:
        fixed_window = client.register_script(FIXED_WINDOW)
        return median_trip(lambda: fixed_window(keys=["bench"], args=[5, 800]))


def serve_zmqlocker() -> None:
    from zmqlocker import LockerServer

    with LockerServer(5, 0.8, "tcp://127.0.0.1:*", block=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def process(*command: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program as long as the block lasts."""
    words = [*map(str, command)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, text=True, stdin=pipe, stdout=pipe) as running:
        try:
            yield running
        finally:
            running.kill()


def first_line(running: subprocess.Popen[str]) -> str:
    assert running.stdout
    return running.stdout.readline().strip()


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis server of our own; the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["--save", "", "--appendonly", "no", "--dir", folder, "--bind", "127.0.0.1"]
        with process("redis-server", "--port", port, *quiet) as running:
            while "Ready to accept" not in first_line(running):
                if running.poll() is not None:
                    sys.exit("redis-server does not start")
            yield port


def median_of_process(*command: str | Path) -> float:
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def round_trips(title: str, tcp_ping: Path) -> None:
    """Measure a round trip of each contestant, in this process's set of processors."""
    me = (sys.executable, __file__)
    with (
        process(tcp_ping, "serve") as tcp,
        process(*me, "serve_zmqlocker") as server,
        redis_server() as redis_port,
    ):
        tcp_port, url = first_line(tcp), first_line(server)
        contestants: dict[str, tuple[str | Path, ...]] = {
            "raw TCP ping-pong, Rust": (tcp_ping, "ask", tcp_port, str(CALLS)),
            "LockerClient.next()": (*me, "ask_zmqlocker", url),
            "redis-py + hiredis, Lua": (*me, "ask_redis", redis_port),
        }
        rounds: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(ROUNDS):
            for name, command in contestants.items():
                rounds[name].append(median_of_process(*command))
    table(f"round trip over loopback, {title}, us", rounds)


class Empty:
    def next(self) -> None:
        pass


def in_process() -> None:
    """Measure a decision within the process."""
    from limits import RateLimitItemPerSecond, storage, strategies
    from zmqlocker import Locker

    limiter = strategies.FixedWindowRateLimiter(storage.MemoryStorage())
    limit = RateLimitItemPerSecond(5)
    contestants: dict[str, Callable[[], Any]] = {
        "an empty Python method": Empty().next,
        "Locker.next()": Locker(5, 0.8).next,
        "limits, fixed window in memory": lambda: limiter.hit(limit, "bench"),
    }
    calls = 200_000
    rounds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, call in contestants.items():
            # As it is written in a loop: the method is looked up each time.
            owner = getattr(call, "__self__", None)
            code, names = (
                ("owner.next()", {"owner": owner}) if owner else ("call()", {"call": call})
            )
            rounds[name].append(timeit.timeit(code, globals=names, number=calls) / calls * 1e9)
    table("a decision within the process, ns", rounds)


def imports() -> None:
    """Measure the import, less the start of the interpreter."""

    def start(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter() - begin) * 1000

    rounds: dict[str, list[float]] = {"python": [], "python, import zmqlocker": []}
    for _ in range(ROUNDS):
        rounds["python"].append(start("pass"))
        rounds["python, import zmqlocker"].append(start("import zmqlocker"))
    table("start, ms", rounds)


def table(title: str, rounds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(figures) for name, figures in rounds.items()}
    first = next(iter(medians.values()))
    print(f"\n{title}")
    for name, median in medians.items():
        low, high = min(rounds[name]), max(rounds[name])
        print(f"  {name:32} {median:9.1f}   {median / first:6.2f} x   ({low:.1f} to {high:.1f})")


def build_tcp_ping() -> Path:
    build = ["cargo", "build", "--release", "--quiet", "--no-default-features"]
    subprocess.run([*build, "--example", "tcp_ping"], cwd=ROOT, check=True)
    return ROOT / "target" / "release" / "examples" / "tcp_ping"


def main() -> None:
    tcp_ping = build_tcp_ping()
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, {ROUNDS} rounds")
    in_process()
    imports()
    processors = os.sched_getaffinity(0)
    round_trips(f"free on {len(processors)} processors", tcp_ping)
    os.sched_setaffinity(0, {min(processors)})
    round_trips("all on one processor", tcp_ping)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main()
        case ["serve_zmqlocker"]:
            serve_zmqlocker()
        case ["ask_zmqlocker", url]:
            print(ask_zmqlocker(url))
        case ["ask_redis", port]:
            print(ask_redis(port))
        case _:
            sys.exit(__doc__)
