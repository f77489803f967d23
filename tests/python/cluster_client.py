"""A client of the cluster's test: asks for permits without waiting, and notes what it got.

`python cluster_client.py URL,URL,... LOG UNTIL SEED`
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

from stress_client import Asker, boot_time
from zmqlocker import ServerUnavailable
from zmqlocker.asyncio import LockerClient

TASKS = 4


async def ask_until(asker: Asker, until: int) -> None:
    while boot_time() < until:
        with contextlib.suppress(ServerUnavailable):
            await asker.try_acquire()
        # The pace of a client: without it the processor would be all that is tested.
        await asyncio.sleep(0.005)


async def main(urls: str, log: str, until: str, seed: str) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    client = LockerClient(urls.split(","))
    askers = [Asker(client, file, f"{seed} {number}") for number in range(TASKS)]
    await asyncio.gather(*(ask_until(asker, int(until)) for asker in askers))
    client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
