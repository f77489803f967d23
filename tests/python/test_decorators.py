"""`limited()`: functions that hold permits while they run."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING

import pytest
import zmqlocker.asyncio
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient, LockerServer, LockTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits = {"one": "1 at once", "hour": "2/h"}
    with LockerServer(limits=dict(limits), url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def test_a_function_holds_a_permit_while_it_runs(client: LockerClient) -> None:
    @client.limited("one")
    def add(first: int, *, second: int) -> int:
        """Add."""
        assert not client.peek("one")
        return first + second

    assert [add(1, second=place) for place in range(3)] == [1, 2, 3]
    assert client.peek("one")
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert list(inspect.signature(add).parameters) == ["first", "second"]


def test_an_error_passes_and_the_permit_comes_back(client: LockerClient) -> None:
    @client.limited("one")
    def divide(by: int) -> float:
        return 1 / by

    with pytest.raises(ZeroDivisionError):
        divide(0)
    assert divide(2) == 0.5


def test_a_function_that_gets_no_permit_does_not_run(client: LockerClient) -> None:
    runs = []

    @client.limited({"hour": 2}, timeout=0.01)
    def run() -> None:
        runs.append(1)

    run()
    with pytest.raises(LockTimeout, match='"hour"'):
        run()
    assert runs == [1]


def test_calls_of_many_threads_run_one_by_one(client: LockerClient) -> None:
    inside: list[int] = []

    @client.limited("one", ttl=60.0)
    def work() -> None:
        inside.append(1)
        assert len(inside) == 1
        inside.pop()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.peek("one")


def test_a_coroutine_function_stays_one(client: LockerClient) -> None:
    @client.limited("one")
    async def work(value: int) -> int:
        assert not client.peek("one")
        await asyncio.sleep(0)
        return value

    async def main() -> list[int]:
        return list(await asyncio.gather(*(work(place) for place in range(10))))

    assert inspect.iscoroutinefunction(work)
    assert work.__name__ == "work"
    assert asyncio.run(main()) == list(range(10))
    assert client.peek("one")


def test_a_coroutine_that_is_cancelled_while_a_thread_waits_holds_nothing(
    client: LockerClient, server: LockerServer
) -> None:
    @client.limited("one", ttl=3600.0)
    async def work() -> None:
        pytest.fail("it was cancelled before")

    async def main() -> None:
        with client.limit("one"):
            task = asyncio.create_task(work())
            await asyncio.to_thread(wait_until, lambda: server.stats()["waiting"] == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    wait_until(lambda: bool(client.peek("one")))


def test_coroutine_functions_of_an_event_loop_need_no_thread(server: LockerServer) -> None:
    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient(server.url, timeout=PATIENCE) as client:
            before = threading.active_count()

            @client.limited("one")
            async def work(value: int) -> int:
                """Work."""
                assert threading.active_count() == before
                assert not await client.peek("one")
                return value

            @client.limited("one")
            async def fail() -> None:
                raise ZeroDivisionError

            assert await asyncio.gather(*(work(place) for place in range(10))) == list(range(10))
            with pytest.raises(ZeroDivisionError):
                await fail()
            assert await client.peek("one")
            assert work.__doc__ == "Work."

    asyncio.run(main())
