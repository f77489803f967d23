"""A client of the stress test: asks at random until its time is over, and notes what it got.

`python stress_client.py URL LOG UNTIL SEED event_loop|threads`
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from zmqlocker import LockerClient, LockTimeout, NotHeld, ServerUnavailable
from zmqlocker import asyncio as event_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

TASKS = 4

#: Those of 5 seconds and more outlive the server: one that is recorded exactly, as small ones are,
#: and one of which something is recorded ahead.
RATES = {0.5: 20, 3.0: 50, 6.0: 12, 15.0: 160}

#: How likely it is that who waits for them does so without an end. Of the small one there would be
#: too few for all who wait.
ENDLESS = {0.5: 0.2, 3.0: 0.1, 6.0: 0.0, 15.0: 0.01}

ALGORITHMS = ("fixed", "sliding")

#: Of these keys nobody waits for long, so that the instants of their grants are known well.
ASKED = [f"{name}:{seconds}:asked" for name in ALGORITHMS for seconds in RATES]

#: These are asked for in every way there is.
MIXED = [f"{name}:{seconds}:mixed" for name in ALGORITHMS for seconds in RATES]

#: Of these, permits are lent in blocks too.
LENT = [f"{name}:{seconds}:lent" for name in ALGORITHMS for seconds in RATES]

SEATS = "seats"
SEATS_AT_ONCE = 3

#: What a lease lasts if nothing is said of it, in seconds.
TTL = 0.8


def boot_time() -> int:
    """The clock that the server goes by, in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class InThreads:
    """A `LockerClient` whose calls run in threads, with the names of the one for event loops."""

    def __init__(self, client: Any) -> None:
        """Wrap a client, or what a client gives."""
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Give the method of that name, to be awaited."""

        def call(*arguments: Any, **options: Any) -> Awaitable[Any]:
            return asyncio.to_thread(getattr(self._client, name), *arguments, **options)

        return call

    @contextlib.asynccontextmanager
    async def limit(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        permit = self._client.limit(*arguments, **options)
        await asyncio.to_thread(permit.__enter__)
        try:
            yield permit
        finally:
            await asyncio.to_thread(permit.__exit__)

    @contextlib.asynccontextmanager
    async def reserve(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        reservation = self._client.reserve(*arguments, **options)
        await asyncio.to_thread(reservation.__enter__)
        try:
            yield InThreads(reservation)
        finally:
            await asyncio.to_thread(reservation.__exit__)


class Asker:
    """Asks, one thing after the other, and notes each answer before it does anything else."""

    def __init__(self, client: Any, log: int, seed: str) -> None:
        self._client, self._log, self._dice = client, log, random.Random(seed)
        self._blocks: dict[str, Any] = {}

    def note(self, did: str, before: int, after: int, keys: dict[str, int], *lease: int) -> None:
        # One write, so that a line is there as a whole or not at all when the process is killed.
        lines = (json.dumps((did, before, after, *item, *lease)) + "\n" for item in keys.items())
        os.write(self._log, "".join(lines).encode())

    async def ask(self) -> None:
        """Do one thing, and note how long it took if it gave nothing."""
        acts = [self.try_acquire] * 6 + [self.try_many] * 2 + [self.reserve] * 3
        acts += [self.acquire] * 4 + [self.acquire_many_keys, self.hold]
        acts += [self.spend] * 6
        act = self._dice.choice(acts)
        before = boot_time()
        try:
            await act()
        except (LockTimeout, ServerUnavailable, NotHeld) as error:
            self.note(f"{act.__name__} {type(error).__name__}", before, boot_time(), {"": 0})

    async def try_acquire(self) -> None:
        key, cost = self._dice.choice(ASKED + MIXED + LENT), self._dice.choice((1, 1, 1, 2, 3))
        before = boot_time()
        decision = await self._client.try_acquire(key, cost, timeout=1.0)
        self.note("try_acquire", before, boot_time(), {key: cost * bool(decision)})

    async def try_many(self) -> None:
        keys = [self._dice.choice(ASKED) for _ in range(self._dice.randrange(1, 20))]
        before = boot_time()
        decisions = await self._client.try_acquire_many(keys, timeout=1.0)
        after = boot_time()
        granted = dict.fromkeys(keys, 0)
        for key, decision in zip(keys, decisions, strict=True):
            granted[key] += bool(decision)
        self.note("try_many", before, after, granted)

    async def acquire(self) -> None:
        key, cost = self._dice.choice(MIXED), self._dice.choice((1, 1, 2))
        is_endless = self._dice.random() < ENDLESS[float(key.split(":")[1])]
        timeout = None if is_endless else self._dice.choice((0.01, 0.03, 0.1, 0.3, 1.0))
        before = boot_time()
        await self._client.acquire(key, cost, timeout=timeout)
        self.note("acquire", before, boot_time(), {key: cost})

    async def acquire_many_keys(self) -> None:
        wanted = {key: self._dice.randrange(1, 3) for key in self._dice.sample(MIXED, 2)}
        before = boot_time()
        await self._client.acquire(wanted, timeout=self._dice.choice((0.05, 0.5)))
        self.note("acquire_many_keys", before, boot_time(), wanted)

    async def reserve(self) -> None:
        key, cost = self._dice.choice(ASKED + MIXED), self._dice.randrange(2, 6)
        before = boot_time()
        async with self._client.reserve(key, cost, timeout=0.02) as reserved:
            after = boot_time()
            await asyncio.sleep(self._dice.choice((0.0, 0.01, 0.1)))
            spent = self._dice.randrange(cost + 1)
            # The rest is free for others only from the commit on, and this is used before it.
            self.note("reserve", before, after, {key: spent})
            await reserved.commit(spent)

    async def hold(self) -> None:
        asked = boot_time()
        async with self._client.limit(SEATS, timeout=0.3, ttl=TTL) as permit:
            start = got = boot_time()
            self.note("wait", asked, got, {SEATS: 0})
            for _ in range(self._dice.randrange(1, 20)):
                # It was still held at an instant before it was found to be held.
                end = boot_time()
                if permit.lost:
                    self.note("lost", start, boot_time(), {SEATS: 0})
                    break
                self.note("held", start, end, {SEATS: 1}, asked, got)
                start = end
                await asyncio.sleep(0.01)

    async def spend(self) -> None:
        key = self._dice.choice(LENT)
        block = self._blocks.get(key)
        if block is None:
            made = self._client.block(key)
            block = self._blocks[key] = await made if inspect.isawaitable(made) else made
        for _ in range(self._dice.randrange(1, 10)):
            before = boot_time()
            answer = block.next()
            answer = await answer if inspect.isawaitable(answer) else answer
            self.note("block", before, boot_time(), {key: int(answer == "go")})

    async def ask_until(self, until: int) -> None:
        while boot_time() < until:
            await self.ask()
            await asyncio.sleep(self._dice.choice((0.0, 0.001, 0.01, 0.02)))


async def main(url: str, log: str, until: str, seed: str, kind: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    client = InThreads(LockerClient(url)) if kind == "threads" else event_loop.LockerClient(url)
    askers = [Asker(client, file, f"{seed} {number}") for number in range(TASKS)]
    await asyncio.gather(*(asker.ask_until(int(until)) for asker in askers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
