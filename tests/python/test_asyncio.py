"""`zmqlocker.asyncio`: every call, cancelled anywhere, in any loop, at any end."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import zmqlocker
from conftest import PATIENCE, wait_until
from zmqlocker import (
    ConfigError,
    CostTooLarge,
    LockerError,
    LockerServer,
    LockTimeout,
    NotHeld,
    ServerUnavailable,
)
from zmqlocker.asyncio import LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

LIMITS = {"hour": "3/h", "tpm": "1000/h", "gpu": "2 at once", "one": "1 at once", "many": "1000/h"}


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(limits=dict(LIMITS), url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def beside(server: LockerServer) -> Iterator[zmqlocker.LockerClient]:
    """Another client, which looks on."""
    with zmqlocker.LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def run(
    server: LockerServer, use: Callable[[LockerClient], Coroutine[Any, Any, None]], **options: Any
) -> None:
    async def main() -> None:
        async with LockerClient(server.url, timeout=PATIENCE, **options) as client:
            await use(client)

    asyncio.run(main(), debug=True)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


def test_every_call_answers_as_that_of_the_client_for_threads(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        decision = await client.try_acquire("hour", 2)
        assert (decision.remaining, decision.key, decision.limit) == (1, "hour", "3/h")
        assert not await client.try_acquire("hour", cost=2)
        assert await client.acquire("hour")
        assert await client.next("hour") == "sorry"
        assert not await client.peek("hour")
        await client.reset("hour")
        assert (await client.peek("hour")).remaining == 3
        await client.freeze("hour", 3600.0)
        assert not await client.try_acquire("hour")
        await client.reset("hour")
        await client.set_limits("hour", ["4/h"])
        assert (await client.peek("hour")).remaining == 4
        assert all(await client.try_acquire_many(["hour", {"hour": 1, "tpm": 1}]))
        with pytest.raises(CostTooLarge):
            await client.acquire("hour", 5)
        with pytest.raises(ConfigError, match=r"^cost must be from 1 to"):
            await client.try_acquire("hour", 0)
        with pytest.raises(ConfigError, match=r"^key must be"):
            await client.peek("")
        with pytest.raises(ConfigError, match="has no limits"):
            await client.next()
        with pytest.raises(LockTimeout, match=r'^no permit of "tpm" within 0\.01 s'):
            await client.acquire("tpm", 1000, timeout=0.01)

    run(server, use)


def test_permits_are_held_and_reservations_settled(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        async with client.limit("gpu", 2) as permit:
            assert not permit.lost
            assert 0.0 < permit.remaining <= 0.8
            with pytest.raises(LockTimeout, match=r'^no permit of "gpu" within 0\.01 s'):
                async with client.limit("gpu", timeout=0.01):
                    pytest.fail("entered without a permit")
            with pytest.raises(LockerError, match="entered already"):
                await permit.__aenter__()
        async with client.limit("gpu", 2):
            assert (await client.peek("gpu")).remaining == 0
        async with client.reserve("tpm", 400) as reserved:
            await reserved.commit(100)
            with pytest.raises(NotHeld):
                await reserved.cancel()
        async with client.reserve({"tpm": 400, "hour": 1}) as reserved:
            await reserved.cancel()
        assert (await client.peek("tpm")).remaining == 900
        async with client.reserve("tpm", 900):
            pass
        assert (await client.peek("tpm")).remaining == 0
        with pytest.raises(NotHeld, match="enter the `with` block first"):
            _ = client.limit("one").lost

    run(server, use)


@pytest.mark.parametrize("key", ["tpm", "one", "many"])
def test_who_is_cancelled_at_any_step_holds_nothing(
    server: LockerServer, beside: zmqlocker.LockerClient, key: str
) -> None:
    entered = 0

    async def use(client: LockerClient) -> None:
        nonlocal entered

        async def work() -> None:
            nonlocal entered
            if key == "one":
                async with client.limit("one", ttl=3600.0):
                    await asyncio.sleep(0)
            elif key == "many":
                await client.try_acquire_many(["many", "many"])
                entered += 2
            else:
                await client.acquire("tpm")
                entered += 1

        for steps in range(50):
            task = asyncio.create_task(work())
            for _ in range(steps):
                await asyncio.sleep(0)
                if steps % 5 == 4:
                    # Let the server be as fast as it can be.
                    beside.peek("hour")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await client.peek(key)

    run(server, use)
    left = 1 if key == "one" else 1000 - entered
    wait_until(lambda: beside.peek(key).remaining == left)


def test_many_keys_of_which_one_is_none_take_nothing(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        with pytest.raises(ConfigError, match="key"):
            await client.try_acquire_many(["hour", ""])
        # Where the server says no, the others have their answers, as for threads.
        with pytest.raises(ConfigError, match="nobody"):
            await client.try_acquire_many(["hour", "nobody"])

    run(server, use)
    assert beside.peek("hour").remaining == 2


def test_who_is_cancelled_while_it_waits_leaves_the_queue(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        async with client.limit("one"):
            waiters = [
                asyncio.create_task(client.limit("one", timeout=None).__aenter__())
                for _ in range(10)
            ]
            await until(lambda: server.stats()["waiting"] == 10)
            for waiter in waiters[:9]:
                waiter.cancel()
            await until(lambda: server.stats()["waiting"] == 1)
        assert not (await waiters[9]).lost
        await waiters[9].result().__aexit__()

    run(server, use)
    assert beside.peek("one").remaining == 1


def test_a_timeout_of_asyncio_is_as_good_as_our_own(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        async with client.limit("one"):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.limit("one").__aenter__(), 0.02)
            await until(lambda: server.stats()["waiting"] == 0)
        assert (await client.peek("one")).remaining == 1

    run(server, use)


def test_a_thousand_tasks_ask_at_once_in_few_messages(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        tasks = [client.try_acquire("many") for _ in range(1500)]
        decisions = await asyncio.gather(*tasks)
        assert sum(map(bool, decisions)) == 1000
        # In order: the first thousand have them.
        assert all(decisions[:1000])
        # Each answer tells how many were left when it was given, one less than the one before.
        assert [decision.remaining for decision in decisions[:1000]] == list(range(999, -1, -1))

    run(server, use)


def test_a_thousand_tasks_share_what_is_held(server: LockerServer) -> None:
    inside = most = 0

    async def use(client: LockerClient) -> None:
        async def work() -> None:
            nonlocal inside, most
            async with client.limit("gpu"):
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(work() for _ in range(1000)))

    run(server, use)
    assert most == 2


def test_one_who_leaves_a_block_takes_no_answer_from_others(server: LockerServer) -> None:
    async def use(client: LockerClient) -> None:
        async def hold() -> None:
            async with client.limit("gpu"):
                await client.peek("gpu")

        async def ask() -> None:
            for _ in range(20):
                await client.peek("hour")

        everybody = asyncio.gather(*(hold() for _ in range(100)), *(ask() for _ in range(100)))
        await asyncio.wait_for(everybody, PATIENCE)

    run(server, use)


def test_closing_ends_what_is_under_way(server: LockerServer) -> None:
    async def main() -> None:
        client = LockerClient(server.url)
        async with client.limit("one"):
            waiters = [asyncio.create_task(client.limit("one").__aenter__()) for _ in range(10)]
            await until(lambda: server.stats()["waiting"] == 10)
            client.close()
            for heard in await asyncio.gather(*waiters, return_exceptions=True):
                assert isinstance(heard, LockerError)
                assert "the client is closed" in str(heard)
        client.close()
        await client.aclose()
        for ask in (client.next, client.peek, client.try_acquire):
            with pytest.raises(LockerError, match="the client is closed"):
                await ask("hour")
        await until(lambda: server.stats()["waiting"] == 0)

    asyncio.run(main(), debug=True)


def test_a_client_belongs_to_one_loop(server: LockerServer) -> None:
    client = LockerClient(server.url)

    async def use() -> int:
        return (await client.peek("tpm")).remaining

    assert asyncio.run(use()) == 1000
    with pytest.raises(RuntimeError, match="belongs to another event loop: make one in each"):
        asyncio.run(use())
    client.close()


def test_threads_with_a_loop_each_have_a_client_each(server: LockerServer) -> None:
    async def main() -> None:
        async with LockerClient(server.url, timeout=PATIENCE) as client:
            await asyncio.gather(*(client.acquire("many") for _ in range(100)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.stats()["go"] == 500


def test_a_client_that_nobody_holds_leaves_nothing_behind(server: LockerServer) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def leave() -> weakref.ref[LockerClient]:
            client = LockerClient(server.url, timeout=3600.0)
            await client.peek("tpm")
            return weakref.ref(client)

        await leave()
        gc.collect()
        before = descriptors()
        for _ in range(20):
            left = await leave()
            await asyncio.sleep(0)
            gc.collect()
            assert left() is None
        assert descriptors() <= before
        selector = getattr(loop, "_selector", None)
        if selector:
            # What is left is the loop's own way to wake itself.
            assert len(selector.get_map()) == 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


def test_a_loop_may_close_before_its_client(server: LockerServer) -> None:
    for _ in range(5):
        client = LockerClient(server.url)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.peek("tpm"))
        loop.close()
        client.close()
        forgotten = LockerClient(server.url)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(forgotten.peek("tpm"))
        loop.close()
        del forgotten
        gc.collect()
    LockerClient(server.url).close()


def test_a_permit_is_renewed_while_the_loop_is_busy(
    server: LockerServer, beside: zmqlocker.LockerClient
) -> None:
    async def use(client: LockerClient) -> None:
        async with client.limit("one", ttl=0.2) as permit:
            with pytest.raises(LockTimeout), beside.limit("one", timeout=0.7):
                pytest.fail("held twice")
            assert not permit.lost

    run(server, use)


def test_a_server_that_is_not_there_is_unavailable(free_url: str) -> None:
    async def main() -> None:
        async with LockerClient(free_url, timeout=0.05) as client:
            for ask in (client.try_acquire, client.acquire, client.peek, client.reset):
                with pytest.raises(ServerUnavailable, match=r"^no answer from tcp:.* 0\.05 s"):
                    await ask("hour")
            with pytest.raises(LockTimeout, match=r"^no answer from tcp:"):
                await client.next()

    asyncio.run(main(), debug=True)


def test_policies_decide_for_a_loop_too(free_url: str) -> None:
    async def main() -> None:
        async with LockerClient(free_url, timeout=0.05, on_failure="open") as client:
            asked = [client.try_acquire("hour") for _ in range(100)]
            decisions = await asyncio.gather(*asked)
            assert {decision.policy for decision in decisions} == {"open"}
            # Others that wait in vain are not forgotten over those that are answered here.
            slow = [asyncio.create_task(client.peek("hour", timeout=0.1)) for _ in range(10)]
            while not all(task.done() for task in slow):
                assert await client.acquire("hour")
                await asyncio.sleep(0)
            errors = await asyncio.gather(*slow, return_exceptions=True)
            assert {type(error) for error in errors} == {ServerUnavailable}
            assert not await client.acquire("hour", on_failure="closed")

    asyncio.run(asyncio.wait_for(main(), PATIENCE), debug=True)


def test_the_repr_names_the_servers(free_url: str) -> None:
    client = LockerClient(free_url)
    assert repr(client) == f'zmqlocker.asyncio.LockerClient("{free_url}")'
    client.close()
