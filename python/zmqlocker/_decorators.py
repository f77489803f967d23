"""Functions whose calls run within what a client makes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

P = ParamSpec("P")
R = TypeVar("R")


def during(make: Callable[[], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have each call of a function run within what `make` makes."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if not inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                with make():
                    return function(*args, **kwargs)

            return call

        @functools.wraps(function)
        async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
            entered = await asyncio.to_thread(make().__enter__)
            try:
                result = await function(*args, **kwargs)
            except BaseException:
                entered.__exit__(*sys.exc_info())
                raise
            entered.__exit__(None, None, None)
            return result

        return cast("Callable[P, R]", call_async)

    return decorate


def during_async(
    make: Callable[[], AbstractAsyncContextManager[Any]],
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Have each call of a coroutine function run within what `make` makes."""

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            async with make():
                return await function(*args, **kwargs)

        return call

    return decorate
