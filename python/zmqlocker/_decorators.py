"""Functions whose calls run within what a client makes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
    from contextlib import AbstractAsyncContextManager

P = ParamSpec("P")
R = TypeVar("R")
#: What a function gives that runs on an event loop.
A = TypeVar("A", bound="Awaitable[Any] | AsyncIterator[Any]")


def during(make: Callable[[], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have each call of a function run within what `make` makes: a generator until its end."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        _check(function)
        if _is(function, inspect.iscoroutinefunction) or _is(function, inspect.isasyncgenfunction):
            within = during_async(lambda: _entered_in_thread(make))
            return cast("Callable[P, R]", within(cast("Callable[P, Any]", function)))
        if _is(function, inspect.isgeneratorfunction):

            @functools.wraps(function)
            def generate(*args: P.args, **kwargs: P.kwargs) -> Generator[Any, Any, Any]:
                with make():
                    return (yield from cast("Any", function(*args, **kwargs)))

            return cast("Callable[P, R]", generate)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with make():
                return function(*args, **kwargs)

        return call

    return decorate


def during_async(
    make: Callable[[], AbstractAsyncContextManager[Any]],
) -> Callable[[Callable[P, A]], Callable[P, A]]:
    """Have each call of a coroutine function run within what `make` makes: a generator too."""

    def decorate(function: Callable[P, A]) -> Callable[P, A]:
        _check(function)
        # What is wrapped by others says what they give.
        inner = inspect.unwrap(function)
        if _is(inner, inspect.isasyncgenfunction):
            return cast("Callable[P, A]", _generating(make, cast("Any", function)))
        if not _is(inner, inspect.iscoroutinefunction):
            message = f"{function!r} is no `async def`: use the client of threads for it"
            raise TypeError(message)

        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
            async with make():
                return await cast("Awaitable[Any]", function(*args, **kwargs))

        return cast("Callable[P, A]", call)

    return decorate


def _generating(
    make: Callable[[], AbstractAsyncContextManager[Any]],
    function: Callable[P, AsyncGenerator[Any, Any]],
) -> Callable[P, AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def generate(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        async with make(), contextlib.aclosing(generator):
            # What `yield from` does for generators: there is none for these.
            step = generator.asend(None)
            while True:
                try:
                    value = await step
                except StopAsyncIteration:
                    return
                try:
                    sent = yield value
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - all goes on into the generator
                    step = generator.athrow(error)
                else:
                    step = generator.asend(sent)

    return generate


@contextlib.asynccontextmanager
async def _entered_in_thread(make: Callable[[], Any]) -> AsyncGenerator[None, None]:
    """What threads enter, for an event loop: a thread waits, and the end waits for nothing."""
    entered = await asyncio.to_thread(make().__enter__)
    try:
        yield
    except BaseException:
        entered.__exit__(*sys.exc_info())
        raise
    entered.__exit__(None, None, None)


def _check(function: Any) -> None:
    if isinstance(function, type | staticmethod | classmethod) or not callable(function):
        message = f"only a function can be decorated, not {function!r}"
        raise TypeError(message)


def _is(function: Any, kind: Callable[[Any], bool]) -> bool:
    """Whether a function, or an object that can be called, is of a kind."""
    while isinstance(function, functools.partial):
        function = function.func
    return kind(function) or kind(type(function).__call__)
