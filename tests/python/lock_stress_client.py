"""A holder of the stress test of locks: enters critical sections at random, and notes what it saw.

`python lock_stress_client.py URL[,URL]... LOG UNTIL SEED WHO`. Every other one has an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
import sys
from typing import Any

from stress_client import boot_time
from zmqlocker import LockerClient, LockLost, LockTimeout, NotHeld, ServerUnavailable
from zmqlocker import asyncio as event_loop

TASKS = 2

#: The `ttl` of each key. Leases of more than a second are written down by the server.
KEYS = {"short": 0.3, "usual": 0.8, "one": 1.0, "recorded": 2.5}

#: For how long a critical section lasts if nothing happens, in seconds.
STAYS = (0.0, 0.0, 0.001, 0.001, 0.01, 0.01, 0.05, 0.2, 1.5)


class Holder:
    """Enters one critical section after the other."""

    def __init__(self, client: Any, log: int, who: str, seed: str, *, threads: bool) -> None:
        self._client, self._log, self._who = client, log, who
        self._dice, self._threads = random.Random(seed), threads

    def note(self, tokens: dict[str, int], enter: int, leave: int) -> None:
        sections = [(token, key, enter, leave, self._who) for key, token in tokens.items()]
        lines = [json.dumps(section) + "\n" for section in sections]
        fcntl.flock(self._log, fcntl.LOCK_EX)
        # One write, so that the lines are there as a whole or not at all after a kill.
        os.write(self._log, "".join(lines).encode())
        fcntl.flock(self._log, fcntl.LOCK_UN)

    async def acquire(self, lock: Any) -> Any:
        if self._threads:
            return await asyncio.to_thread(lock.acquire)
        if self._dice.random() < 0.2:
            return await asyncio.wait_for(lock.acquire(), self._dice.choice((0.001, 0.01, 0.3)))
        return await lock.acquire()

    async def leave(self, lease: Any) -> None:
        by_hand = self._dice.random() < 0.7
        if self._threads:
            await asyncio.to_thread(
                lease.release if by_hand else lambda: lease.__exit__(*[None] * 3)
            )
        elif by_hand:
            await lease.release()
        else:
            async with lease:
                pass

    async def enter(self) -> None:
        several = self._dice.random() < 0.15
        keys = self._dice.sample(list(KEYS), 2 if several else 1)
        ttl = min(KEYS[key] for key in keys)
        timeout = self._dice.choice((0.05, 0.5, 3.0, None))
        lease = await self.acquire(self._client.lock(keys, ttl=ttl, timeout=timeout))
        enter = boot_time()
        stay = self._dice.choice(STAYS)
        until = enter + round(stay * 1e9)
        while True:
            # It is held at some instant after this one, and so it was since it was granted.
            seen = boot_time()
            if not lease.held:
                break
            self.note(lease.tokens, enter, seen)
            if seen >= until:
                break
            await asyncio.sleep(min(stay / 4, 0.02))
        await self.leave(lease)

    async def enter_until(self, until: int) -> None:
        while boot_time() < until:
            with contextlib.suppress(
                LockTimeout, TimeoutError, ServerUnavailable, NotHeld, LockLost
            ):
                await self.enter()
            await asyncio.sleep(self._dice.choice((0.0, 0.0, 0.01)))


async def main(url: str, log: str, until: str, seed: str, who: str) -> None:
    threads = int(who.partition(".")[0]) % 2 == 0
    urls = url.split(",")
    client = LockerClient(urls, name=who) if threads else event_loop.LockerClient(urls, name=who)
    holders = []
    for number in range(TASKS):
        # A file of its own for each: a lock of a file is shared by all that use it opened once.
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        name = f"{who}.{number}"
        holders.append(Holder(client, file, name, f"{seed} {number}", threads=threads))
    await asyncio.gather(*(holder.enter_until(int(until)) for holder in holders))
    client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
