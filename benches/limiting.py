"""Measures what the gate promises of its speed and its size, beside Redis, and gives verdicts.

Needs `redis-server`, and in the virtual environment zmqlocker, redis and hiredis: `pip install .
--group bench`. `python benches/limiting.py` takes about five minutes; with names of parts it runs
those alone.

Machines are noisy and differ: the ratios are what counts. Each round measures all contestants one
after the other; a figure is the median of the rounds.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from compare import ROUNDS, redis_server
from measuring import Programs, Rounds, Verdict, judge, percentile, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from measuring import Server

ASKERS = Programs("askers.py")
run = ASKERS.run

#: How long a contestant is measured in a round, in seconds.
SECONDS = 2.0
SECONDS_OF_PROCESSES = 5.0

PROCESSES = 32
WAITERS = 64
KEYS = 1_000_000
WAITERS_OF_ONE_KEY = 100_000
PROCESSES_THAT_WAIT = 4

#: With how many connections redis.asyncio was fastest: of 1, 4, 10, 50 and 200.
REDIS_CONNECTIONS = 10

#: A server has a slot of an hour, and so many permits.
GENEROUS = "1000000000/h"

#: How long a measurement may take, in seconds.
PATIENCE = 300.0


def generous(**limits: str) -> AbstractContextManager[Server]:
    """A server that refuses no key but those with limits of their own."""
    return serving(**{"*": GENEROUS, **limits})


def batch() -> Iterator[Verdict]:
    """One process asks in batches."""
    rounds = Rounds("one process, decisions/s")
    with generous() as server, redis_server() as port:
        for _ in range(ROUNDS):
            rounds.add("try_acquire_many of 1000", run("batches", server.url, SECONDS))
            rounds.add("redis-py, pipeline of 100", run("redis_batches", port, 100, SECONDS))
            rounds.add("redis-py, pipeline of 1000", run("redis_batches", port, 1000, SECONDS))
    rounds.show()
    ours = rounds.median("try_acquire_many of 1000")
    for size, target in ((100, ">= 10"), (1000, "")):
        ratio = ours / rounds.median(f"redis-py, pipeline of {size}")
        yield Verdict("batch", f"x redis-py, pipeline of {size}", ratio, target)


def event_loop() -> Iterator[Verdict]:
    """One event loop asks for 1000 keys at once."""
    rounds = Rounds("asyncio, 1000 requests under way, decisions/s")
    theirs = f"redis.asyncio, {REDIS_CONNECTIONS} connections"
    with generous() as server, redis_server() as port:
        for _ in range(ROUNDS):
            rounds.add("try_acquire", run("concurrently", server.url, SECONDS))
            rounds.add(theirs, run("redis_concurrently", port, REDIS_CONNECTIONS, SECONDS))
    rounds.show()
    ratio = rounds.median("try_acquire") / rounds.median(theirs)
    yield Verdict("event_loop", f"x {theirs}", ratio, ">= 4")


def together(name: str, place: str) -> float:
    """How many a second many processes are granted together."""
    keys = (f"user:{number}" for number in range(PROCESSES))
    return ASKERS.together([(name, place, key, SECONDS_OF_PROCESSES) for key in keys])


def processes() -> Iterator[Verdict]:
    """Many processes ask one by one."""
    rounds = Rounds(f"{PROCESSES} processes in a closed loop, decisions/s in sum")
    with generous() as server, redis_server() as port:
        for _ in range(ROUNDS):
            rounds.add("try_acquire", together("alone", server.url))
            rounds.add("redis-py + hiredis, Lua", together("redis_alone", port))
    rounds.show()
    ratio = rounds.median("try_acquire") / rounds.median("redis-py + hiredis, Lua")
    yield Verdict("processes", "x redis-py + hiredis, Lua", ratio, ">= 1.5")


def wake_up() -> Iterator[Verdict]:
    """From the instant at which a permit is there to the waiter that has it."""
    rounds = Rounds(f"{WAITERS} waiters are woken one by one, us")
    contestants = {
        "a permit is passed on, one event loop": "hand_over",
        "a permit is passed on, threads": "hand_over_between_threads",
        "a slot opens, one event loop": "wake",
    }
    with generous(seat="1 at once", turn="1/0.005s") as server:
        for _ in range(ROUNDS):
            for name, program in contestants.items():
                trips = run(program, server.url, WAITERS, 1000)
                rounds.add(f"{name}, p50", percentile(trips, 0.5))
                rounds.add(f"{name}, p99", percentile(trips, 0.99))
            # What the machine itself needs at the time, whatever else it has to do.
            trips = run("machine", 1000)
            rounds.add("two processes and a pipe, p50", percentile(trips, 0.5))
            rounds.add("two processes and a pipe, p99", percentile(trips, 0.99))
    rounds.show()
    for name in contestants:
        yield Verdict("wake_up", f"us, p99, {name}", rounds.median(f"{name}, p99"), "< 1000 us")


def memory() -> Iterator[Verdict]:
    """What the server needs for a key."""
    rounds = Rounds(f"memory of {KEYS} keys in use, bytes for each")
    for _ in range(ROUNDS):
        with generous(**{"*": "1000/h"}) as server:
            run("fill", server.url, 1000)
            before = server.memory()
            assert run("fill", server.url, KEYS) == KEYS
            assert server.stats()["keys"] >= KEYS, "keys were forgotten"
            rounds.add("a fixed window", (server.memory() - before) / KEYS)
    rounds.show()
    yield Verdict("memory", "bytes for a key", rounds.median("a fixed window"), "<= 200 bytes")


@contextlib.contextmanager
def crowding(server: Server, waiters: int) -> Iterator[None]:
    """Some processes wait for a key with so many callers in all; none of them does at the end."""

    def until(count: int) -> None:
        end = time.monotonic() + PATIENCE
        while (waiting := server.stats()["waiting"]) != count:
            assert time.monotonic() < end, waiting
            time.sleep(0.01)

    for_each = waiters // PROCESSES_THAT_WAIT
    with contextlib.ExitStack() as stack:
        for _ in range(PROCESSES_THAT_WAIT):
            stack.enter_context(ASKERS.start("wait_for_ever", server.url, for_each))
        until(waiters)
        yield
        assert server.stats()["waiting"] == waiters, "waiters were lost"
    until(0)


def crowd() -> Iterator[Verdict]:
    """What the waiters of one key cost those who ask for another.

    The processes in which they wait are there in the control too, with one waiter each: so what is
    compared are the waiters alone.
    """
    alone, control, crowded = "nobody waits", f"{PROCESSES_THAT_WAIT} waiters", "all waiters"
    rounds = Rounds(f"try_acquire beside {WAITERS_OF_ONE_KEY} waiters of another key, us")
    ratio = f"{crowded}, p99, x that of {control}"

    def measure(server: Server, when: str) -> float:
        trips = ASKERS.run("trips_alone", server.url, 2000)
        rounds.add(f"{when}, p50", percentile(trips, 0.5))
        rounds.add(f"{when}, p99", p99 := percentile(trips, 0.99))
        return p99

    for _ in range(ROUNDS):
        with generous(busy="1/h") as server:
            measure(server, alone)
            with crowding(server, PROCESSES_THAT_WAIT):
                few = measure(server, control)
            start, memory = time.monotonic(), server.memory()
            with crowding(server, WAITERS_OF_ONE_KEY):
                rounds.add("until all wait, s", time.monotonic() - start)
                memory = server.memory() - memory
                rounds.add("memory of a waiter, bytes", memory / WAITERS_OF_ONE_KEY)
                rounds.add(ratio, measure(server, crowded) / few)
                start = time.monotonic()
            rounds.add("until all are forgotten, s", time.monotonic() - start)
    rounds.show()
    for when in (alone, control, crowded):
        yield Verdict("crowd", f"us, p99, {when}", rounds.median(f"{when}, p99"), "")
    low, high = rounds.range(ratio)
    what = f"x, p99 to {control} ({low:.1f} to {high:.1f})"
    yield Verdict("crowd", what, rounds.median(ratio), "")


def block() -> Iterator[Verdict]:
    """Permits that are spent without asking."""
    rounds = Rounds("one process spends from a block, permits/s")
    with generous() as server:
        for _ in range(ROUNDS):
            rounds.add("block.next()", run("blocks", server.url, SECONDS))
    rounds.show()
    yield Verdict("block", "permits/s", rounds.median("block.next()"), ">= 3000000")


PARTS: dict[str, Callable[[], Iterator[Verdict]]] = {
    part.__name__: part for part in (batch, event_loop, processes, wake_up, memory, crowd, block)
}


if __name__ == "__main__":
    sys.exit(judge(PARTS, sys.argv[1:], __doc__))
