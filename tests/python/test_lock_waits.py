"""Leases that come after a wait: whoever gets one holds it."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import Lease, LockerClient, LockerServer
from zmqlocker import asyncio as asking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(
        limits={"slots": "1 at once"}, url="tcp://127.0.0.1:*", block=False
    ) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def is_waited(client: LockerClient, seconds: float) -> bool:
    """Whether somebody has waited for so long."""
    return any(waiter.since > seconds for lock in client.locks() for waiter in lock.waiters)


@pytest.mark.parametrize("renew", [True, False])
def test_a_short_lease_is_held_after_a_wait_of_any_length(
    server: LockerServer, client: LockerClient, *, renew: bool
) -> None:
    for waited in (0.05, 0.2, 0.45, 0.6):
        holder = client.lock("a").acquire()
        with LockerClient(server.url, timeout=PATIENCE) as waiter:
            held: list[float] = []

            def wait(waiter: LockerClient = waiter, held: list[float] = held) -> None:
                with waiter.lock("a", ttl=0.1, renew=renew) as lease:
                    held.append(lease.remaining)

            thread = threading.Thread(target=wait)
            thread.start()
            wait_until(lambda waited=waited: is_waited(client, waited))  # type: ignore[misc]
            holder.release()
            thread.join()
        assert held[0] > 0.0


def test_a_short_permit_is_held_after_a_wait(server: LockerServer, client: LockerClient) -> None:
    async def main() -> None:
        async with asking.LockerClient(server.url, timeout=PATIENCE) as waiter:
            with client.limit("slots"):
                permit = waiter.limit("slots", ttl=0.1)
                waiting = asyncio.ensure_future(permit.__aenter__())
                assert not (await asyncio.wait([waiting], timeout=0.45))[0]
            held = await waiting
            assert held.remaining > 0.0
            await permit.__aexit__(None, None, None)

    asyncio.run(main())


STOPPED = """
    import sys, zmqlocker
    from zmqlocker import LockTimeout
    client = zmqlocker.LockerClient(sys.argv[1])
    print("begun")
    try:
        with client.lock("a", ttl=0.2, timeout=float(sys.argv[2])) as lease:
            print(lease.held, lease.token)
    except LockTimeout as error:
        print("late", error)
"""


def overtake(client: LockerClient, lease: Lease, waiter: Script) -> int:
    """Stop a waiter, grant it the lock in vain, and have it: the token that others had last."""
    wait_until(lambda: is_waited(client, 0.0))
    waiter.signal(signal.SIGSTOP)
    lease.release()
    with client.lock("a") as later:
        return later.token


def test_a_waiter_that_was_stopped_while_its_lease_came_and_ended_waits_for_another_one(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    lease = client.lock("a").acquire()
    waiter = script(STOPPED, server.url, str(PATIENCE))
    assert waiter.line() == "begun"
    last = overtake(client, lease, waiter)
    waiter.signal(signal.SIGCONT)
    held, token = waiter.line().split()
    assert held == "True"
    assert int(token) > last


def test_a_waiter_that_was_stopped_beyond_its_timeout_is_late(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    lease = client.lock("a").acquire()
    waiter = script(STOPPED, server.url, "0.3")
    assert waiter.line() == "begun"
    began = time.monotonic()
    overtake(client, lease, waiter)
    wait_until(lambda: time.monotonic() > began + 0.5)
    waiter.signal(signal.SIGCONT)
    assert waiter.line() == 'late "a" was not free within 0.3 s'
