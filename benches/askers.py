"""What `limiting.py` runs in processes of their own: a server, and programs that ask.

`python benches/askers.py NAME ARGUMENT...` prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

from compare import FIXED_WINDOW

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: No answer of the measurements takes so long, in seconds.
PATIENCE = 60.0

#: The keys that are asked for in turn.
KEYS = [f"user:{number:04}" for number in range(1000)]

#: Of each key, in each hour: more than is ever asked for.
GENEROUS = 1_000_000_000
HOUR_MS = 3_600_000

PERMITS_OF_A_BLOCK = 1_000_000


def serve(limits: str) -> None:
    """Serve until the end of the input; each line of it asks for the counts and the memory."""
    from zmqlocker import LockerServer

    rules: dict[str, Any] = json.loads(limits)
    with LockerServer(url="tcp://127.0.0.1:*", limits=rules, block=False) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.stats()), flush=True)


def serve_watched(metrics: str) -> None:
    """Serve one generous limit; with metrics, if it is said where."""
    from zmqlocker import LockerServer

    rules: dict[str, Any] = {"*": "1000000000/h"}
    with LockerServer(
        url="tcp://127.0.0.1:*", limits=rules, metrics=metrics or None, block=False
    ) as server:
        print(server.url, server.metrics_url or "", flush=True)
        sys.stdin.read()


def rate(call: Callable[[], int], seconds: float) -> float:
    """How many a second: `call` is called again and again, and says how many it has done."""
    call()
    done, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < start + seconds:
        done += call()
    return done / (now - start)


def batches(url: str, seconds: str) -> float:
    from zmqlocker import LockerClient

    with LockerClient(url, timeout=PATIENCE) as client:

        def batch() -> int:
            return sum(map(bool, client.try_acquire_many(KEYS)))

        return rate(batch, float(seconds))


def redis_batches(port: str, size: str, seconds: str) -> float:
    import redis

    with redis.Redis(port=int(port)) as client:
        sha = client.script_load(FIXED_WINDOW)
        turn = 0

        def batch() -> int:
            nonlocal turn
            pipeline = client.pipeline(transaction=False)
            for key in KEYS[turn : turn + int(size)]:
                pipeline.evalsha(sha, 1, key, GENEROUS, HOUR_MS)
            turn = (turn + int(size)) % len(KEYS)
            return sum(map(bool, pipeline.execute()))

        return rate(batch, float(seconds))


async def rate_of_tasks(ask: Callable[[str], Awaitable[Any]], seconds: float) -> float:
    """How many a second: a task for each key, each asks again as soon as it is answered."""
    done, until = 0, 0.0

    async def task(key: str) -> None:
        nonlocal done
        await ask(key)
        started.release()
        await begin.wait()
        while time.perf_counter() < until:
            allowed = bool(await ask(key))
            done += allowed

    started, begin = asyncio.Semaphore(0), asyncio.Event()
    tasks = [asyncio.create_task(task(key)) for key in KEYS]
    for _ in KEYS:
        await started.acquire()
    start = time.perf_counter()
    until = start + seconds
    begin.set()
    await asyncio.gather(*tasks)
    return done / (time.perf_counter() - start)


async def concurrently(url: str, seconds: str) -> float:
    from zmqlocker.asyncio import LockerClient

    async with LockerClient(url, timeout=PATIENCE) as client:
        return await rate_of_tasks(client.try_acquire, float(seconds))


async def redis_concurrently(port: str, connections: str, seconds: str) -> float:
    import redis.asyncio as redis

    pool = redis.BlockingConnectionPool(
        port=int(port), max_connections=int(connections), timeout=PATIENCE
    )
    async with redis.Redis(connection_pool=pool) as client:
        sha = await client.script_load(FIXED_WINDOW)

        async def ask(key: str) -> Any:
            return await client.evalsha(sha, 1, key, str(GENEROUS), str(HOUR_MS))

        return await rate_of_tasks(ask, float(seconds))


def begin() -> None:
    """Begin when a line comes, together with others."""
    print("ready", flush=True)
    sys.stdin.readline()


def ask_in_a_loop(call: Callable[[], Any], seconds: str) -> float:
    call()
    begin()
    return rate(lambda: bool(call()), float(seconds))


def alone(url: str, key: str, seconds: str) -> float:
    from zmqlocker import LockerClient

    with LockerClient(url, timeout=PATIENCE) as client:
        return ask_in_a_loop(lambda: client.try_acquire(key), seconds)


def redis_alone(port: str, key: str, seconds: str) -> float:
    import redis

    with redis.Redis(port=int(port)) as client:
        sha = client.script_load(FIXED_WINDOW)
        arguments = (sha, 1, key, GENEROUS, HOUR_MS)
        return ask_in_a_loop(lambda: client.evalsha(*arguments), seconds)


async def hand_over(url: str, waiters: str, count: str) -> list[float]:
    """One client of an event loop: each task waits for the only permit, and passes it on."""
    from zmqlocker.asyncio import LockerClient

    passed_at, trips = 0, list[float]()
    async with LockerClient(url, timeout=PATIENCE) as client:

        async def task() -> None:
            nonlocal passed_at
            while len(trips) < int(count):
                async with client.limit("seat"):
                    trips.append((time.perf_counter_ns() - passed_at) / 1000)
                    # Who was here is in the queue again before the permit moves on.
                    await asyncio.sleep(0.001)
                    passed_at = time.perf_counter_ns()

        await asyncio.gather(*(task() for _ in range(int(waiters))))
    return trips[int(waiters) : int(count)]


def hand_over_between_threads(url: str, waiters: str, count: str) -> list[float]:
    """One client of many threads: each waits for the only permit, and passes it on."""
    from zmqlocker import LockerClient

    passed_at, trips = 0, list[float]()
    with LockerClient(url, timeout=PATIENCE) as client:

        def task() -> None:
            nonlocal passed_at
            while len(trips) < int(count):
                with client.limit("seat"):
                    trips.append((time.perf_counter_ns() - passed_at) / 1000)
                    time.sleep(0.001)
                    passed_at = time.perf_counter_ns()

        threads = [threading.Thread(target=task, daemon=True) for _ in range(int(waiters))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return trips[int(waiters) : int(count)]


async def wake(url: str, waiters: str, count: str) -> list[float]:
    """One client of an event loop: each task waits for its turn, one in each slot.

    Who was woken looks when the next slot opens: as long after the server's answer as it says. The
    answer was given after the look was sent, so what is measured is never less than what was.
    """
    from zmqlocker.asyncio import LockerClient

    opens_at, trips = 0.0, list[float]()
    async with LockerClient(url, timeout=PATIENCE) as client:

        async def task() -> None:
            nonlocal opens_at
            while len(trips) < int(count):
                await client.acquire("turn")
                trips.append((time.perf_counter() - opens_at) * 1e6)
                before = time.perf_counter()
                opens_at = before + (await client.peek("turn")).reset_after

        await asyncio.gather(*(task() for _ in range(int(waiters))))
    return trips[int(waiters) : int(count)]


def machine(count: str) -> list[float]:
    """Microseconds until another process has heard of something through a pipe and answered."""
    there, back = os.pipe(), os.pipe()
    trips = []
    if os.fork() == 0:
        # Without a writer there is an end to what can be read.
        os.close(there[1])
        while os.read(there[0], 1):
            os.write(back[1], b".")
        os._exit(0)
    for _ in range(int(count)):
        time.sleep(0.001)
        start = time.perf_counter_ns()
        os.write(there[1], b".")
        os.read(back[0], 1)
        trips.append((time.perf_counter_ns() - start) / 1000)
    return trips


def fill(url: str, count: str) -> int:
    from zmqlocker import LockerClient

    granted = 0
    keys = (f"key:{number:08}" for number in range(int(count)))
    with LockerClient(url, timeout=PATIENCE) as client:
        while some := list(islice(keys, 4000)):
            granted += sum(map(bool, client.try_acquire_many(some)))
    return granted


async def wait_for_ever(url: str, waiters: str) -> None:
    from zmqlocker.asyncio import LockerClient

    async with LockerClient(url, timeout=None) as client:
        await client.try_acquire("busy")
        await asyncio.gather(*(client.acquire("busy") for _ in range(int(waiters))))


def trips_alone(url: str, count: str) -> list[float]:
    """Microseconds of each call, with pauses of a random length between them."""
    from zmqlocker import LockerClient

    trips, dice = [], random.Random(1)
    with LockerClient(url, timeout=PATIENCE) as client:
        for _ in range(int(count)):
            time.sleep(dice.random() * 0.001)
            start = time.perf_counter_ns()
            client.try_acquire("idle")
            trips.append((time.perf_counter_ns() - start) / 1000)
    return trips


def blocks(url: str, seconds: str) -> float:
    from zmqlocker import LockerClient

    with LockerClient(url, timeout=PATIENCE) as client:
        block = client.block("block")

        def spend() -> int:
            following = block.next
            return sum(following() == "go" for _ in range(100_000))

        return rate(spend, float(seconds))


#: What can be run, by name.
PROGRAMS: dict[str, Callable[..., Any]] = {
    program.__name__: program
    for program in (
        serve,
        serve_watched,
        batches,
        redis_batches,
        concurrently,
        redis_concurrently,
        alone,
        redis_alone,
        hand_over,
        hand_over_between_threads,
        wake,
        machine,
        fill,
        wait_for_ever,
        trips_alone,
        blocks,
    )
}


def run_program(programs: dict[str, Callable[..., Any]], name: str, *arguments: str) -> None:
    found = programs[name](*arguments)
    print(json.dumps(asyncio.run(found) if asyncio.iscoroutine(found) else found), flush=True)
    # Nothing that still runs in a thread is waited for.
    os._exit(0)


if __name__ == "__main__":
    run_program(PROGRAMS, *sys.argv[1:])
