"""`limited()` and `locked()`: functions that hold permits or locks while they run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest
import zmqlocker.asyncio
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient, LockerServer, LockTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator


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


class Counter:
    """Something that can be called like a coroutine function."""

    def __init__(self, client: LockerClient) -> None:
        self.client = client

    async def __call__(self, value: int) -> int:
        assert not self.client.peek("one")
        return value


def test_an_object_that_is_called_like_a_coroutine_function_holds_a_permit_while_it_runs(
    client: LockerClient, server: LockerServer
) -> None:
    async def main() -> None:
        for function in (Counter(client), functools.partial(Counter(client))):
            assert await client.limited("one")(function)(7) == 7
            async with zmqlocker.asyncio.LockerClient(server.url, timeout=PATIENCE) as of_loop:
                assert await of_loop.limited("one")(function)(7) == 7

    asyncio.run(main())
    assert client.peek("one")


def test_a_generator_holds_a_permit_from_its_first_value_to_its_end(client: LockerClient) -> None:
    @client.limited("one")
    def count(to: int) -> Generator[int, int, str]:
        """Count."""
        for value in range(to):
            given = yield value
            assert given is None or given == value + 1
        return "done"

    def all_of() -> Generator[int, int, str]:
        return (yield from count(3))

    assert inspect.isgeneratorfunction(count)
    assert (count.__name__, count.__doc__) == ("count", "Count.")
    counting = count(3)
    assert client.peek("one")
    assert [next(counting), counting.send(1), counting.send(2)] == [0, 1, 2]
    assert not client.peek("one")
    with pytest.raises(StopIteration) as caught:
        counting.send(3)
    assert caught.value.value == "done"
    assert client.peek("one")
    assert list(all_of()) == [0, 1, 2]
    # However it ends.
    counting = count(3)
    next(counting)
    counting.close()
    assert client.peek("one")
    counting = count(3)
    next(counting)
    with pytest.raises(ZeroDivisionError):
        counting.throw(ZeroDivisionError())
    counting = count(3)
    next(counting)
    del counting
    assert client.peek("one")


@pytest.mark.parametrize("of", ["threads", "loop"])
def test_an_asynchronous_generator_holds_a_permit_from_its_first_value_to_its_end(
    client: LockerClient, server: LockerServer, of: str
) -> None:
    closed = []

    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient(server.url, timeout=PATIENCE) as of_loop:
            limited = client.limited("one") if of == "threads" else of_loop.limited("one")

            @limited
            async def count(to: int) -> AsyncGenerator[int, int]:
                """Count."""
                try:
                    for value in range(to):
                        given = yield value
                        assert given is None or given == value + 1
                except KeyError:
                    yield -1
                finally:
                    assert not client.peek("one")
                    closed.append(to)

            assert inspect.isasyncgenfunction(count)
            assert (count.__name__, count.__doc__) == ("count", "Count.")
            assert [value async for value in count(3)] == [0, 1, 2]
            counting = count(4)
            assert await anext(counting) == 0
            assert await counting.asend(1) == 1
            assert await counting.athrow(KeyError()) == -1
            assert not client.peek("one")
            await counting.aclose()
            assert client.peek("one")
            counting = count(5)
            await anext(counting)
            with pytest.raises(ZeroDivisionError):
                await counting.athrow(ZeroDivisionError())
            assert client.peek("one")

    asyncio.run(main(), debug=True)
    assert closed == [3, 4, 5]


def test_decorators_may_be_put_together(client: LockerClient, server: LockerServer) -> None:
    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient(server.url, timeout=PATIENCE) as of_loop:

            @of_loop.limited("one")
            @client.locked("a")
            async def work(value: int) -> int:
                assert not client.peek("one")
                assert len(client.locks()) == 1
                return value

            @functools.wraps(work)
            def wrapped(value: int) -> Any:
                return work(value)

            assert await work(7) == 7
            assert await of_loop.limited({"hour": 1})(wrapped)(7) == 7

    asyncio.run(main())


CLASS_METHOD: Any = classmethod(lambda _: None)


@pytest.mark.parametrize("thing", [5, None, "text", int, staticmethod(len), CLASS_METHOD])
def test_what_is_no_function_is_refused_at_once(client: LockerClient, thing: Any) -> None:
    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient("tcp://127.0.0.1:1") as of_loop:
            for decorate in (
                client.limited("one"),
                client.locked("a"),
                of_loop.limited("one"),
                of_loop.locked("a"),
            ):
                with pytest.raises(TypeError, match=r"^only a function can be decorated, not "):
                    decorate(thing)

    asyncio.run(main())


def test_what_runs_on_no_loop_is_refused_by_the_client_of_a_loop() -> None:
    def plain() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient("tcp://127.0.0.1:1") as client:
            for function in (plain, generator, len, functools.partial(plain)):
                for decorate in (client.limited("one"), client.locked("a")):
                    with pytest.raises(TypeError, match="is no `async def`: use the client of"):
                        decorate(function)  # type: ignore[type-var]

    asyncio.run(main())
