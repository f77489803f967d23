"""Blocks that hold a lock: none is entered without it, and none hides how it ended."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest
import zmqlocker.asyncio
from conftest import PATIENCE, wait_until
from zmqlocker import Fence, LockerClient, LockerError, LockerServer, LockLost, NotHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR = 3600.0

#: What ends a block and must not be held up.
URGENT = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits: dict[str, Any] = {"seat": "1 at once"}
    with LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def on_a_loop(server: LockerServer, use: Any) -> None:
    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient(server.url, timeout=PATIENCE) as of_loop:
            await asyncio.wait_for(use(of_loop), PATIENCE)

    asyncio.run(main(), debug=True)


def lose(client: LockerClient, lease: Any) -> None:
    client.break_lock("a")
    wait_until(lambda: bool(lease.lost))


def dead(client: LockerClient, how: str) -> Any:
    """A lease that is over."""
    options: dict[str, Any] = {
        "ran out": {"ttl": 0.1, "renew": False},
        "max_hold": {"ttl": 0.1, "max_hold": 0.1},
    }.get(how, {"ttl": HOUR})
    lease = client.lock("a", **options).acquire()
    if how == "released":
        lease.release()
    elif how == "left":
        with lease:
            pass
    elif how == "broken":
        lose(client, lease)
    else:
        wait_until(lambda: lease.lost)
    return lease


@pytest.mark.parametrize("how", ["released", "left", "broken", "ran out", "max_hold"])
def test_a_lease_that_is_over_cannot_be_entered(client: LockerClient, how: str) -> None:
    lease = dead(client, how)
    with client.lock("a") as newer:
        released = how in {"released", "left"}
        with (
            pytest.raises(NotHeld if released else LockLost) as caught,
            lease,
        ):
            pytest.fail("entered without the lock")
        what = "released" if released else "lost"
        assert str(caught.value) == f"the lease of 'a' was {what}: others may have it by now"
        assert newer.held


@pytest.mark.parametrize("how", ["released", "broken", "ran out"])
def test_a_lease_of_a_loop_that_is_over_cannot_be_entered(server: LockerServer, how: str) -> None:
    async def use(of_loop: zmqlocker.asyncio.LockerClient) -> None:
        options: dict[str, Any] = {"ttl": 0.1, "renew": False} if how == "ran out" else {}
        lease = await of_loop.lock("a", **options).acquire()
        if how == "released":
            await lease.release()
        else:
            if how == "broken":
                await of_loop.break_lock("a")
            await lease.lost
        with pytest.raises(NotHeld if how == "released" else LockLost):
            async with lease:
                pytest.fail("entered without the lock")

    on_a_loop(server, use)


def test_a_lease_is_held_by_one_block_at_a_time(client: LockerClient) -> None:
    with client.lock("a") as lease:
        with pytest.raises(LockerError, match="a block holds the lease of 'a' already"), lease:
            pytest.fail("its end would give back what the outer block needs")
        assert lease.held
    again = client.lock("b", reentrant=True)
    with again as outer:
        with again as inner:
            assert inner is outer
        assert outer.held
        once_more = again.acquire()
        with once_more:
            pass
        assert outer.held
    assert not outer.held


def test_a_lock_that_no_block_has_entered_cannot_be_left(client: LockerClient) -> None:
    lock = client.lock("a")
    with pytest.raises(NotHeld, match="no block has entered the lock 'a'"):
        lock.__exit__(None, None, None)


def test_a_lease_that_is_not_renewed_may_be_entered_again_while_it_lasts(
    client: LockerClient,
) -> None:
    lease = client.lock("a", ttl=HOUR, renew=False).acquire()
    for _ in range(2):
        with lease:
            assert client.lock("a").try_acquire() is None
    lease.release()
    with client.lock("a"):
        pass


def test_a_block_that_outlives_a_lease_that_is_not_renewed_says_so(client: LockerClient) -> None:
    with (
        pytest.raises(LockLost, match="'a' was lost"),
        client.lock("a", ttl=0.1, renew=False) as lease,
    ):
        wait_until(lambda: lease.lost)


@pytest.mark.parametrize("kind", URGENT)
def test_what_is_urgent_passes_the_end_of_a_block_whose_lock_is_lost(
    client: LockerClient, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def hold(lock: Any) -> None:
        with lock as lease:
            lose(client, lease)
            raise kind

    story = "the lease of 'a' was lost: others may have it by now"
    makes: list[Callable[[], Any]] = [
        lambda: client.lock("a"),
        lambda: client.lock("a", ttl=HOUR).acquire(),
        lambda: client.leader("a"),
    ]
    for make in makes:
        with pytest.raises(kind) as caught:
            hold(make())
        assert type(caught.value) is kind
        if sys.version_info >= (3, 11):
            assert caught.value.__notes__ == [story]
        assert [record.message for record in caplog.records] == [story]
        caplog.clear()

    @client.locked("a", ttl=HOUR)
    def work() -> None:
        client.break_lock("a")
        wait_until(lambda: client.stats()["leases"] == 0)
        raise kind

    with pytest.raises(kind):
        work()


def test_an_error_of_a_block_whose_lock_is_lost_is_the_cause_of_what_it_raises(
    client: LockerClient,
) -> None:
    def hold(error: Exception) -> None:
        with client.lock("a") as lease:
            lose(client, lease)
            raise error

    with pytest.raises(LockLost, match="'a' was lost") as caught:
        hold(ZeroDivisionError())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    # What says so already is not said twice.
    overtaken = LockLost("the row has a newer token")
    with pytest.raises(LockLost) as caught:
        hold(overtaken)
    assert caught.value is overtaken


def test_a_task_is_cancelled_though_its_lock_is_lost(
    server: LockerServer, client: LockerClient
) -> None:
    async def use(of_loop: zmqlocker.asyncio.LockerClient) -> None:
        lost = asyncio.Event()

        async def lose_and_stay(holder: Any) -> None:
            client.break_lock("a")
            await asyncio.to_thread(wait_until, lambda: holder.stats()["leases"] == 0)
            lost.set()
            await asyncio.sleep(HOUR)

        async def in_a_block() -> None:
            async with of_loop.lock("a", ttl=HOUR):
                await lose_and_stay(of_loop)

        @of_loop.locked("a", ttl=HOUR)
        async def decorated() -> None:
            await lose_and_stay(of_loop)

        @client.locked("a", ttl=HOUR)
        async def of_threads() -> None:
            await lose_and_stay(client)

        for work in (in_a_block, decorated, of_threads):
            lost.clear()
            task = asyncio.create_task(work())
            await lost.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
        # So a timeout round a block is one.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_a_block(), 0.2)

    on_a_loop(server, use)


def test_a_generator_that_is_closed_ends_quietly_though_its_lock_is_lost(
    client: LockerClient,
) -> None:
    def hold() -> Iterator[Any]:
        with client.lock("a") as lease:
            yield lease

    holding = hold()
    lose(client, next(holding))
    holding.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [*URGENT, ZeroDivisionError])
def test_permits_that_are_lost_change_nothing_about_how_a_block_ends(
    server: LockerServer, client: LockerClient, kind: type[BaseException]
) -> None:
    def hold() -> None:
        with client.limit("seat", ttl=0.1) as permit:
            server.stop()
            wait_until(lambda: permit.lost)
            raise kind

    with pytest.raises(kind):
        hold()


@pytest.mark.parametrize("kind", [*URGENT, ZeroDivisionError])
def test_the_end_of_a_guard_hides_nothing(tmp_path: Any, kind: type[BaseException]) -> None:
    path = tmp_path / "fence"

    def write() -> None:
        with Fence(path).guard(1):
            path.write_bytes(b"\xff" * path.stat().st_size)
            raise kind

    with pytest.raises(kind):
        write()
