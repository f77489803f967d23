"""Locks for event loops: as those for threads, and cancelled anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import zmqlocker
from conftest import PATIENCE, wait_until
from zmqlocker import (
    DeadlockError,
    KindMismatch,
    LockerError,
    LockerServer,
    LockLost,
    LockTimeout,
    NotHeld,
    ServerUnavailable,
)
from zmqlocker.asyncio import Lease, LockerClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator

HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(limits={"ruled": "1/h"}, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def beside(server: LockerServer) -> Iterator[zmqlocker.LockerClient]:
    """Another client, which looks on."""
    with zmqlocker.LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def run(server: LockerServer, use: Callable[[LockerClient], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with LockerClient(server.url, name="loop", timeout=PATIENCE) as client:
            await asyncio.wait_for(use(client), PATIENCE)

    asyncio.run(main(), debug=True)


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_a_lock_has_one_holder_while_the_block_runs(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        async with client.lock("a") as lease:
            assert (lease.key, lease.held, bool(lease.lost)) == ("a", True, False)
            assert 0.0 < lease.remaining <= 0.8
            assert repr(lease) == f"zmqlocker.asyncio.Lease('a', token={lease.token}, held)"
            assert repr(lease.lost) == "False"
            lease.check()
            assert await client.lock("a").try_acquire() is None
            with pytest.raises(LockTimeout):
                await client.lock("a").acquire(timeout=0.01)
            with pytest.raises(LockTimeout):
                async with client.lock("a", timeout=0.01):
                    pytest.fail("entered without the lock")
            (info,) = await client.locks()
            assert (info.key, info.holders[0].token) == ("a", lease.token)
        assert not lease.held
        with pytest.raises(LockLost, match="was released"):
            lease.check()
        async with client.lock(["a", "b"]) as both:
            assert both.token > lease.token
            assert beside.lock("b").try_acquire() is None
        by_hand = await client.lock("a").acquire()
        await by_hand.release()
        with pytest.raises(NotHeld, match="was released"):
            await by_hand.release()

    run(server, use)
    assert beside.locks() == []


def test_every_kind_of_lock_is_there(server: LockerServer, beside: zmqlocker.LockerClient) -> None:
    async def use(client: LockerClient) -> None:
        table = client.rw_lock("table")
        async with table.read(), table.read():
            assert await table.write().try_acquire() is None
        async with table.write():
            assert await table.read().try_acquire() is None
        async with client.semaphore("gpu", 3, cost=2), client.semaphore("gpu", 3):
            assert await client.semaphore("gpu", 3).try_acquire() is None
        async with client.leader("scheduler"):
            assert beside.leader("scheduler").try_acquire() is None
        lease = await client.lock("slot", ttl=0.3, renew=False).acquire()
        async with lease:
            pass
        assert lease.held
        assert await lease.lost
        async with client.lock("a"):
            with pytest.raises(KindMismatch):
                await client.semaphore("a", 2).acquire()
        with pytest.raises(KindMismatch):
            await client.lock("ruled").acquire()
        most = await client.lock("a", ttl=0.2, max_hold=0.4).acquire()
        assert await most.lost
        await client.lock("a").acquire()

    with pytest.warns(ResourceWarning, match="unreleased"):
        run(server, use)


def test_a_decorated_function_holds_the_lock_while_it_runs(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        inside = 0

        @client.locked("nightly")
        async def work(number: int) -> int:
            nonlocal inside
            inside += 1
            await asyncio.sleep(0)
            assert inside == 1
            inside -= 1
            return number

        assert await asyncio.gather(*(work(number) for number in range(20))) == list(range(20))

    run(server, use)
    assert beside.locks() == []


def test_a_task_that_may_enters_again(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        told: list[Lease] = []
        lock = client.lock("a", ttl=HOUR, reentrant=True, on_lost=told.append)
        async with lock as first:
            async with lock as second:
                assert first is second
            assert first.held
            # A task of its own is another one.
            assert await asyncio.create_task(lock.try_acquire()) is None
            again = await lock.acquire()
            await again.release()
            assert first.held
            with zmqlocker.LockerClient(server.url) as other:
                other.break_lock("a")
            await until(lambda: told == [first])

    with pytest.raises(LockLost):
        run(server, use)


def test_a_block_may_end_in_another_task_than_it_began(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        async def hold() -> AsyncIterator[Lease]:
            async with client.lock("a", ttl=HOUR) as lease:
                yield lease

        holding = hold()
        lease = await asyncio.create_task(_next(holding))
        with contextlib.suppress(StopAsyncIteration):
            await asyncio.create_task(_next(holding))
        assert not lease.held

    run(server, use)
    wait_until(lambda: beside.locks() == [])


def test_a_loss_can_be_awaited(server: LockerServer, beside: zmqlocker.LockerClient) -> None:
    async def use(client: LockerClient) -> None:
        lease = await client.lock("a", ttl=HOUR).acquire()
        lost = asyncio.create_task(_wait(lease.lost))
        await asyncio.sleep(0)
        beside.break_lock("a")
        assert await lost is True
        assert (lease.held, bool(lease.lost), repr(lease.lost)) == (False, True, "True")
        with pytest.raises(NotHeld, match="was lost"):
            await lease.release()
        # A lease that is given back was never lost.
        async with client.lock("a", ttl=HOUR) as kept:
            lost = asyncio.create_task(_wait(kept.lost))
            await asyncio.sleep(0)
        assert await lost is False
        by_hand = await client.lock("a", ttl=HOUR).acquire()
        lost = asyncio.create_task(_wait(by_hand.lost))
        await asyncio.sleep(0)
        await by_hand.release()
        assert await lost is False

    run(server, use)


async def _wait(awaitable: Awaitable[bool]) -> bool:
    return await awaitable


async def _next(leases: AsyncIterator[Lease]) -> Lease:
    return await anext(leases)


def test_a_loss_that_somebody_else_heard_of_wakes_who_awaits_it(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        lease = await client.lock("a", ttl=HOUR).acquire()
        lost = asyncio.create_task(_wait(lease.lost))
        await asyncio.sleep(0)
        beside.break_lock("a")
        # The loop does not run meanwhile: this look takes the news from the socket.
        wait_until(lambda: not lease.held)
        assert await lost is True

    run(server, use)


def test_who_awaits_a_loss_need_not_wait_for_a_server_that_is_gone(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        leases = [await client.lock(key, ttl=HOUR).acquire() for key in "abc"]
        lost = [asyncio.create_task(_wait(lease.lost)) for lease in leases]
        await asyncio.sleep(0)
        server.stop()
        async with leases[0]:
            pass
        assert await lost[0] is False
        releasing = asyncio.create_task(leases[1].release())
        assert await lost[1] is False
        releasing.cancel()
        client.close()
        assert await lost[2] is True
        with pytest.raises(asyncio.CancelledError):
            await releasing

    run(server, use)


def test_who_loses_a_lock_is_told(server: LockerServer, beside: zmqlocker.LockerClient) -> None:
    async def use(client: LockerClient) -> None:
        told: list[str] = []

        async def slowly(lease: Lease) -> None:
            await asyncio.sleep(0)
            told.append(f"slowly {lease.key}")

        def at_once(lease: Lease) -> None:
            told.append(f"at once {lease.key}")

        a = await client.lock("a", ttl=HOUR, on_lost=slowly).acquire()
        b = await client.lock("b", ttl=HOUR, on_lost=at_once).acquire()
        async with client.lock("c", on_lost=at_once):
            pass
        for key in "ab":
            beside.break_lock(key)
        await until(lambda: sorted(told) == ["at once b", "slowly a"])
        assert a.lost
        assert b.lost

    run(server, use)


@pytest.mark.parametrize("watched", [False, True])
def test_a_lease_that_nobody_can_release_warns_and_is_given_back(
    server: LockerServer, beside: zmqlocker.LockerClient, *, watched: bool
) -> None:
    async def use(client: LockerClient) -> None:
        on_lost = (lambda _: None) if watched else None
        lease: Any = await client.lock("a", ttl=HOUR, on_lost=on_lost).acquire()
        await asyncio.sleep(0)
        with pytest.warns(ResourceWarning, match=r"^unreleased zmqlocker.asyncio.Lease\('a', "):
            del lease
        await until(lambda: beside.locks() == [])

    run(server, use)


async def cancel_after(steps: int, work: Coroutine[Any, Any, Any], between: Any = None) -> None:
    """Cancel it after so many rounds of the loop; `between` may let the server be fast."""
    task = asyncio.create_task(work)
    for _ in range(steps):
        await asyncio.sleep(0)
        if between is not None:
            between()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("way", ["block", "by hand", "try", "several"])
def test_who_is_cancelled_at_any_step_holds_nothing_and_waits_for_nothing(
    server: LockerServer, beside: zmqlocker.LockerClient, way: str, *, fast: bool
) -> None:
    async def use(client: LockerClient) -> None:
        async def work() -> None:
            keys = ["a", "b"] if way == "several" else "a"
            lock = client.lock(keys, ttl=HOUR)
            if way in {"block", "several"}:
                async with lock:
                    await asyncio.sleep(0)
                return
            lease = await (lock.try_acquire() if way == "try" else lock.acquire())
            assert lease is not None
            await lease.release()

        for steps in range(30):
            await cancel_after(steps, work(), beside.locks if fast else None)
            # Nothing is in the way of the next one.
            async with client.lock(["a", "b"], timeout=5.0):
                pass
        await until(lambda: beside.locks() == [])
        assert server.stats()["waiting"] == 0

    run(server, use)


def test_who_is_cancelled_at_the_tick_of_the_grant_holds_nothing(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        for steps in range(12):
            held = beside.lock("a", ttl=HOUR).acquire()
            waiting = asyncio.create_task(client.lock("a", ttl=HOUR).acquire())
            await until(lambda: server.stats()["waiting"] == 1)
            held.release()
            # The grant is on its way, or in the socket: the loop has not looked.
            wait_until(lambda: len(beside.locks()[0].holders) == 1)
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(outcome, Lease):
                await outcome.release()
            await until(lambda: beside.locks() == [])

    run(server, use)


def test_who_is_cancelled_while_it_waits_leaves_the_queue(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        async with client.lock("a"):
            waiters = [
                asyncio.create_task(client.lock("a", timeout=None).acquire()) for _ in range(10)
            ]
            await until(lambda: server.stats()["waiting"] == 10)
            for waiter in waiters[:9]:
                waiter.cancel()
            await until(lambda: len(beside.locks()[0].waiters) == 1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.lock("a", timeout=None).acquire(), 0.05)
        await (await waiters[9]).release()

    run(server, use)
    assert beside.locks() == []


def test_a_release_that_is_cancelled_at_any_step_gives_back(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        for steps in range(1, 12):
            lease = await client.lock("a", ttl=HOUR).acquire()
            await cancel_after(steps, lease.release())
            assert not lease.held
            await until(lambda: beside.locks() == [])
            # One that is cancelled before it began has not begun.
            kept = await client.lock("a", ttl=HOUR).acquire()
            await cancel_after(0, kept.release())
            assert kept.held
            await kept.release()

    run(server, use)


def test_a_loop_that_is_busy_loses_no_lock(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        async with client.lock("a", ttl=0.3) as lease:
            waiting = threading.Thread(target=lambda: beside.lock("a").acquire().release())
            waiting.start()
            time.sleep(2.0)  # noqa: ASYNC251
            assert lease.held
            lease.check()
        await asyncio.to_thread(waiting.join)

    run(server, use)


def test_tasks_that_wait_for_each_other_are_told(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        both_hold = asyncio.Event()

        async def work(first: str, second: str) -> str:
            async with client.lock(first):
                if first == "b":
                    both_hold.set()
                await both_hold.wait()
                async with client.lock(second):
                    return "both"

        outcomes = await asyncio.gather(work("a", "b"), work("b", "a"), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome != "both"] == [DeadlockError]

    run(server, use)


def test_closing_ends_what_is_under_way(
    server: LockerServer, beside: zmqlocker.LockerClient, free_url: str
) -> None:
    async def use(client: LockerClient) -> None:
        lease = await client.lock("a", ttl=HOUR).acquire()
        waiting = asyncio.create_task(client.lock("a").acquire())
        await until(lambda: server.stats()["waiting"] == 1)
        await client.aclose()
        with pytest.raises(LockerError, match="closed"):
            await waiting
        assert lease.lost
        with pytest.raises(LockerError, match="closed"):
            await client.lock("a").acquire()
        async with LockerClient(free_url, timeout=0.1) as nowhere:
            with pytest.raises(ServerUnavailable):
                await nowhere.lock("a").acquire()

    run(server, use)
    wait_until(lambda: beside.locks() == [])


def test_leases_that_are_lost_are_given_up_by_hand(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        lease = await client.lock("a", ttl=HOUR).acquire()
        await client.break_lock("a", token=lease.token)
        await until(lambda: bool(lease.lost))
        with pytest.raises(NotHeld):
            await client.break_lock("a")
        newer = beside.lock("a", ttl=HOUR).acquire()
        with pytest.raises(LockLost):
            async with lease:
                pass
        assert newer.held
        newer.release()

    run(server, use)
