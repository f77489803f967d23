"""Measures what the gate promises of its locks, beside Redis, and gives verdicts.

Needs `redis-server` and a Rust toolchain, and in the virtual environment zmqlocker, redis, hiredis
and msgpack: `pip install . --group bench`. `python benches/locking.py` takes about five minutes;
with names of parts it runs those alone.

Machines are noisy and differ: the ratios are what counts. Each round measures all contestants one
after the other; a figure is the median of the rounds.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from compare import (
    CALLS,
    ROUNDS,
    build_tcp_ping,
    first_line,
    median_of_process,
    process,
    redis_server,
)
from measuring import Programs, Rounds, Verdict, go_on, judge, percentile, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from measuring import Server

LOCKERS = Programs("lockers.py")
run = LOCKERS.run

#: How long a contestant is measured in a round, in seconds.
SECONDS = 2.0

PROCESSES = 8
HAND_OVERS = 1000
#: Beside redis-py's own sleep between two looks, of 0.1 s.
SMALL_SLEEP = 0.001

TTL = 0.8
BEATS = 3
KILLS = 100
KILLS_AT_ONCE = 10

LEASES = 100_000
CLIENTS = 10_000
PROCESSES_OF_CLIENTS = 2

#: How long a measurement may take, in seconds.
PATIENCE = 60.0


def cycle() -> Iterator[Verdict]:
    """One client acquires and releases again and again."""
    rounds = Rounds("one client, acquire and release, cycles/s")
    with serving() as server, redis_server() as port:
        for _ in range(ROUNDS):
            contestants = {
                "with client.lock()": ("enter", server.url, "key", SECONDS),
                "acquire() and release()": ("acquire_and_release", server.url, "key", SECONDS),
                "redis-py, with redis.lock()": ("redis_enter", port, "key", SECONDS),
            }
            for name, call in contestants.items():
                rounds.add(name, LOCKERS.together([call]))
    rounds.show()
    theirs = rounds.median("redis-py, with redis.lock()")
    for name, target in (("with client.lock()", ">= 1.8"), ("acquire() and release()", "")):
        yield Verdict("cycle", f"x redis-py, {name}", rounds.median(name) / theirs, target)


def processes() -> Iterator[Verdict]:
    """Some processes do so, each with a key of its own."""
    rounds = Rounds(f"{PROCESSES} processes, acquire and release, cycles/s in sum")
    keys = [f"key:{number}" for number in range(PROCESSES)]
    with serving() as server, redis_server() as port:
        for _ in range(ROUNDS):
            contestants = {
                "with client.lock()": ("enter", server.url),
                "acquire() and release()": ("acquire_and_release", server.url),
                "redis-py, with redis.lock()": ("redis_enter", port),
            }
            for name, call in contestants.items():
                rounds.add(name, LOCKERS.together([(*call, key, SECONDS) for key in keys]))
    rounds.show()
    theirs = rounds.median("redis-py, with redis.lock()")
    for name, target in (("with client.lock()", ">= 2"), ("acquire() and release()", "")):
        yield Verdict("processes", f"x redis-py, {name}", rounds.median(name) / theirs, target)


def trips(name: str, place: str, pause: float, count: int, *arguments: object) -> list[float]:
    """Microseconds from one's release until the other has it, where that one waited already."""
    call = (name, place, pause, count // 2, *arguments)
    turns = sorted((turn for turns in LOCKERS.at_once([call, call]) for turn in turns), key=had_at)
    found = [
        (had - released) / 1000
        for (_, _, released), (asked, had, _) in pairwise(turns)
        if asked < released
    ]
    assert len(found) > count * 0.8, "hardly anybody waited"
    return found


def had_at(turn: tuple[int, int, int]) -> int:
    return turn[1]


def hand_over() -> Iterator[Verdict]:
    """From a release in one process to the waiter in another one that has the lock."""
    rounds = Rounds("a lock is passed on between two processes, us")
    tcp_ping = build_tcp_ping()
    first, *_, last = sorted(os.sched_getaffinity(0))
    at_first, at_last = ["taskset", "-c", str(first)], ["taskset", "-c", str(last)]
    with (
        serving() as server,
        redis_server() as port,
        process(tcp_ping, "serve") as free,
        process(*at_first, tcp_ping, "serve") as apart,
    ):
        pings: dict[str, list[str | Path]] = {
            "free": [tcp_ping, "ask", first_line(free), str(CALLS)],
            "on two processors": [*at_last, tcp_ping, "ask", first_line(apart), str(CALLS)],
        }
        for _ in range(ROUNDS):
            contestants = {
                "zmqlocker": trips("pass_on", server.url, 0.001, HAND_OVERS),
                f"redis-py, sleep {SMALL_SLEEP}": trips(
                    "redis_pass_on", port, 0.005, 200, SMALL_SLEEP
                ),
                "redis-py": trips("redis_pass_on", port, 0.11, 20, 0.1),
                # What the machine itself needs to wake somebody who has slept for a while.
                "two processes and a pipe": Programs("askers.py").run("machine", HAND_OVERS),
            }
            for name, found in contestants.items():
                rounds.add(f"{name}, p50", percentile(found, 0.5))
                rounds.add(f"{name}, p99", percentile(found, 0.99))
            for where, ping in pings.items():
                rounds.add(f"raw TCP round trip, {where}", median_of_process(*ping))
    rounds.show()
    # Left free, the two may share a processor: then nobody has to wake the other one.
    for where, target in zip(pings, ("< 2.5", ""), strict=True):
        trip = rounds.median(f"raw TCP round trip, {where}")
        ratio = rounds.median("zmqlocker, p50") / trip
        yield Verdict("hand_over", f"x raw TCP round trip, {where}, p50", ratio, target)
    yield Verdict("hand_over", "us, p99", rounds.median("zmqlocker, p99"), "< 1000 us")
    theirs = rounds.median(f"redis-py, sleep {SMALL_SLEEP}, p50")
    yield Verdict("hand_over", f"us, p50, redis-py, sleep {SMALL_SLEEP}", theirs, "")
    yield Verdict("hand_over", "us, p50, redis-py", rounds.median("redis-py, p50"), "")


def kill_holders(server: Server, first: int) -> list[float]:
    """How many milliseconds after its ttl the lock of a killed holder is granted, of several."""
    dice = random.Random(first)
    keys = [f"key:{number}" for number in range(first, first + KILLS_AT_ONCE)]
    with contextlib.ExitStack() as stack:
        holders = [
            stack.enter_context(LOCKERS.start("hold_until_killed", server.url, key)) for key in keys
        ]
        for holder in holders:
            assert first_line(holder) == "ready"
        waiter = stack.enter_context(LOCKERS.start("wait_for_each", server.url, *keys))
        until(lambda: server.stats()["waiting"] == len(keys))
        killed_at = []
        for holder in holders:
            # At any time between two beats.
            time.sleep(dice.random() * TTL / BEATS)
            killed_at.append(time.monotonic_ns())
            holder.kill()
        granted_at = json.loads(first_line(waiter))
    pairs = zip(killed_at, granted_at, strict=True)
    return [(granted - killed) / 1e6 - TTL * 1000 for killed, granted in pairs]


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def kill() -> Iterator[Verdict]:
    """From the death of a holder to the waiter that has its lock."""
    rounds = Rounds(f"{KILLS} holders are killed, ms beyond the ttl of {TTL} s")
    with serving() as server:
        waves = range(0, KILLS, KILLS_AT_ONCE)
        beyond = [found for first in waves for found in kill_holders(server, first)]
    for part in (0.5, 0.99):
        rounds.add(f"p{part * 100:.0f}", percentile(beyond, part))
    rounds.add("min", min(beyond))
    rounds.add("max", max(beyond))
    rounds.show()
    yield Verdict("kill", "ms beyond the ttl, p99", rounds.median("p99"), "<= 5 ms")


def memory() -> Iterator[Verdict]:
    """What the server needs for a lease that is held and renewed.

    What counts is all memory of the server's process that came since a client had some thousand
    leases and gave them back: leases, keys, and what the allocator keeps beside them.
    """
    rounds = Rounds(f"{LEASES} leases of one client")
    for _ in range(ROUNDS):
        with serving() as server:
            with LOCKERS.start("hold_many", server.url, LEASES // 20) as warm_up:
                assert first_line(warm_up) == "ready"
                go_on(warm_up)
                warm_up.wait(PATIENCE)
            before = server.memory()
            with LOCKERS.start("hold_many", server.url, LEASES) as holder:
                assert first_line(holder) == "ready"
                rounds.add("bytes for each", (server.memory() - before) / LEASES)
                used, start = server.processor_time(), time.monotonic()
                time.sleep(SECONDS)
                used = (server.processor_time() - used) / (time.monotonic() - start)
                rounds.add("ms of a processor a second", used * 1000)
                go_on(holder)
                assert holder.wait(PATIENCE) == 0, "leases were lost"
    rounds.show()
    yield Verdict("memory", "bytes for a lease", rounds.median("bytes for each"), "<= 300 bytes")
    busy = rounds.median("ms of a processor a second")
    yield Verdict("memory", f"ms of a processor a second, {LEASES} leases", busy, "")


def renewal() -> Iterator[Verdict]:
    """What it costs the server that clients renew what they hold."""
    yield from messages()
    rounds = Rounds(f"{CLIENTS} clients renew a lease of {TTL} s each")
    for _ in range(ROUNDS):
        with serving() as server, contextlib.ExitStack() as stack:
            for_each = CLIENTS // PROCESSES_OF_CLIENTS
            seconds = SECONDS + 3
            beating = [
                stack.enter_context(LOCKERS.start("beat", server.url, for_each, seconds))
                for _ in range(PROCESSES_OF_CLIENTS)
            ]
            for clients in beating:
                assert first_line(clients) == "ready"
            for clients in beating:
                go_on(clients)
            # Until all have asked for their leases.
            time.sleep(2)
            used, start = server.processor_time(), time.monotonic()
            time.sleep(SECONDS)
            used = (server.processor_time() - used) / (time.monotonic() - start)
            found = [json.loads(first_line(clients)) for clients in beating]
        rate = sum(one["rate"] for one in found)
        rounds.add("messages/s", rate)
        rounds.add("ms of a processor a second", used * 1000)
        rounds.add("us of a processor for a message", used * 1e6 / rate)
        rounds.add("the latest beat, ms late", max(one["behind"] for one in found) * 1000)
        rounds.add("leases that were renewed too late", sum(one["late"] for one in found))
        rounds.add("leases that were lost beside them", sum(one["lost"] for one in found))
    rounds.show()
    for what in ("messages/s", "ms of a processor a second", "us of a processor for a message"):
        yield Verdict("renewal", what, rounds.median(what), "")
    lost = rounds.highest("leases that were lost beside them")
    yield Verdict("renewal", "leases lost though renewed in time", lost, "<= 0 leases")


def messages() -> Iterator[Verdict]:
    """How many messages a client sends, by how many leases it holds."""
    seconds = 8.0
    rounds = Rounds("messages/s of a client that renews")
    with contextlib.ExitStack() as stack:
        relays = {}
        for leases in (1, LEASES // 10):
            server = stack.enter_context(serving())
            relay = stack.enter_context(LOCKERS.start("relay", server.url))
            holder = stack.enter_context(LOCKERS.start("hold_many", first_line(relay), leases))
            assert first_line(holder) == "ready"
            relays[leases] = relay

        def count(relay: subprocess.Popen[str]) -> int:
            go_on(relay)
            return int(first_line(relay))

        before = {leases: count(relay) for leases, relay in relays.items()}
        time.sleep(seconds)
        for leases, relay in relays.items():
            rounds.add(f"{leases} leases", (count(relay) - before[leases]) / seconds)
    rounds.show()
    ratio = rounds.median(f"{LEASES // 10} leases") / rounds.median("1 leases")
    yield Verdict("renewal", f"x messages, {LEASES // 10} leases to 1", ratio, "<= 1.1")


PARTS: dict[str, Callable[[], Iterator[Verdict]]] = {
    part.__name__: part for part in (cycle, processes, hand_over, kill, memory, renewal)
}


if __name__ == "__main__":
    sys.exit(judge(PARTS, sys.argv[1:], __doc__))
