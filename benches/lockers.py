"""What `locking.py` runs in processes of their own: programs that lock.

`python benches/lockers.py NAME ARGUMENT...` prints one line of JSON. Instants are those of
CLOCK_MONOTONIC, which all processes of a host share, in nanoseconds.
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from askers import PATIENCE, ask_in_a_loop, begin, run_program
from beating import beat, relay

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

TTL = 0.8

#: How many requests of an event loop are under way at once.
PORTION = 1000


def enter(url: str, key: str, seconds: str) -> float:
    """Cycles a second of a `with` block, which does not wait for the answer to its release."""
    from zmqlocker import LockerClient

    with LockerClient(url, timeout=PATIENCE) as client:
        return ask_in_a_loop(lambda: entered(client.lock(key, ttl=TTL)), seconds)


def acquire_and_release(url: str, key: str, seconds: str) -> float:
    """Cycles a second where the answer to the release is waited for."""
    from zmqlocker import LockerClient

    with LockerClient(url, timeout=PATIENCE) as client:

        def cycle() -> bool:
            client.lock(key, ttl=TTL).acquire().release()
            return True

        return ask_in_a_loop(cycle, seconds)


def redis_enter(port: str, key: str, seconds: str) -> float:
    import redis

    with redis.Redis(port=int(port)) as client:
        return ask_in_a_loop(lambda: entered(client.lock(key, timeout=TTL)), seconds)


def entered(lock: AbstractContextManager[object]) -> bool:
    with lock:
        return True


def pass_on(url: str, pause: str, count: str) -> list[tuple[int, int, int]]:
    from zmqlocker import LockerClient

    with LockerClient(url, timeout=PATIENCE) as client:
        return turns(lambda: client.lock("baton", ttl=TTL), float(pause), int(count))


def redis_pass_on(port: str, pause: str, count: str, sleep: str) -> list[tuple[int, int, int]]:
    import redis

    with redis.Redis(port=int(port)) as client:

        def make() -> AbstractContextManager[object]:
            lock: AbstractContextManager[object]
            lock = client.lock("baton", timeout=PATIENCE, sleep=float(sleep))
            return lock

        return turns(make, float(pause), int(count))


def turns(
    make: Callable[[], AbstractContextManager[object]], pause: float, count: int
) -> list[tuple[int, int, int]]:
    """When the lock was asked for, when it was had, and when its release began, each time.

    The pause lets the other have it. It is held longer than that, so that the other waits again by
    then, and for a random time, so that whoever polls does so at a random phase.
    """
    entered(make())
    begin()
    found, dice = [], random.Random()
    for _ in range(count):
        asked_at = time.monotonic_ns()
        with make():
            had_at = time.monotonic_ns()
            time.sleep(pause * (1.5 + dice.random()))
            released_at = time.monotonic_ns()
        found.append((asked_at, had_at, released_at))
        time.sleep(pause)
    return found


def hold_until_killed(url: str, key: str) -> None:
    from zmqlocker import LockerClient

    client = LockerClient(url, timeout=PATIENCE)
    with client.lock(key, ttl=TTL):
        print("ready", flush=True)
        sys.stdin.read()


async def wait_for_each(url: str, *keys: str) -> list[int]:
    """When each of the keys was granted."""
    from zmqlocker.asyncio import LockerClient

    async with LockerClient(url, timeout=PATIENCE) as client:

        async def wait(key: str) -> int:
            async with client.lock(key):
                return time.monotonic_ns()

        return await asyncio.gather(*map(wait, keys))


async def hold_many(url: str, count: str) -> None:
    """Hold many leases until a line comes, and give them back then."""
    from zmqlocker.asyncio import LockerClient

    leases: list[Any] = []
    async with LockerClient(url, timeout=PATIENCE) as client:
        while len(leases) < int(count):
            numbers = range(len(leases), min(len(leases) + PORTION, int(count)))
            locks = [client.lock(f"lock:{number:08}", ttl=TTL) for number in numbers]
            leases += await asyncio.gather(*(lock.acquire() for lock in locks))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        lost = sum(lease.held is False for lease in leases)
        assert not lost, f"{lost} leases were lost"
        while some := [leases.pop() for _ in range(min(PORTION, len(leases)))]:
            await asyncio.gather(*(lease.release() for lease in some))


def files() -> None:
    """Let this process have as many connections as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


#: What can be run, by name.
PROGRAMS: dict[str, Callable[..., Any]] = {
    program.__name__: program
    for program in (
        enter,
        acquire_and_release,
        redis_enter,
        pass_on,
        redis_pass_on,
        hold_until_killed,
        wait_for_each,
        hold_many,
        beat,
        relay,
    )
}


if __name__ == "__main__":
    files()
    run_program(PROGRAMS, *sys.argv[1:])
