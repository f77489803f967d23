"""Locks for event loops."""

from __future__ import annotations

import asyncio
import inspect
import weakref
from typing import TYPE_CHECKING, Any

from zmqlocker._exceptions import DeadlockError
from zmqlocker._lease import LeaseState, LockState, actor_of_task, name_actors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import EllipsisType, TracebackType

    from typing_extensions import Self

    from zmqlocker._zmqlocker import Held

    _Timeout = float | EllipsisType | None


class Loss:
    """Whether a lease was lost; to be awaited, it is true once it is, and false if it never was."""

    def __init__(self, lease: Lease) -> None:
        """Look at the lease whenever asked."""
        self._lease = lease

    def __bool__(self) -> bool:
        """Whether the lease ended though it was not released."""
        return self._lease._is_lost()

    def __await__(self) -> Generator[Any, None, bool]:
        """Wait until the lease is lost, or released."""
        return self._lease._until_over().__await__()

    def __repr__(self) -> str:
        """Tell whether it is lost."""
        return repr(bool(self))


class Lease(LeaseState):
    """The right to a lock, until it is released, lost, or `max_hold` is over."""

    def __init__(self, client: Any, held: Held, lock: Lock) -> None:
        """Hold what a server has granted."""
        super().__init__(held, lock._wish)
        self._client = client
        if lock._on_lost is not None:
            # The task keeps no lease alive that nobody else knows of.
            watch = _tell_loss(weakref.ref(self), client, held, lock._on_lost)
            self._watch = asyncio.create_task(watch, name="zmqlocker-on-lost")

    @property
    def lost(self) -> Loss:
        """Whether the lease ended though it was not released: to be tested, or awaited."""
        return Loss(self)

    async def release(self) -> None:
        """Give the lock back, and wait until the server has it. Cancelled, it is given back too.

        Raises `NotHeld` if it was released before, or is lost: then somebody else may have it, and
        keeps it. Raises `ServerUnavailable` if the server is not heard: it gets the lock back when
        it is there again.
        """
        if self._is_last():
            await self._client._release(self._held)

    async def _until_over(self) -> bool:
        await _until_over(self._client, self._held)
        return self._is_lost()

    def _leave(self, exception: BaseException | None) -> None:
        try:
            super()._leave(exception)
        finally:
            self._client._tell_news()

    async def __aenter__(self) -> Self:
        """Give the lease itself. Raises `LockLost` or `NotHeld` if it is over: never enters so."""
        self._begin_block()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back, and wait for nothing. Raises `LockLost` if it was lost."""
        self._leave(exception)

    def __repr__(self) -> str:
        """Tell the key, the token, and what became of it."""
        return super().__repr__().replace("zmqlocker.", "zmqlocker.asyncio.", 1)


async def _until_over(client: Any, held: Held) -> None:
    while not held.given_back and held.remaining > 0.0:
        await client._news(held.remaining)


async def _tell_loss(
    this: weakref.ref[Lease], client: Any, held: Held, on_lost: Callable[[Lease], object]
) -> None:
    await _until_over(client, held)
    lease = this()
    # A client that is closed has given everything back.
    if lease is not None and lease._is_lost() and not client._closed:
        told = on_lost(lease)
        if inspect.isawaitable(told):
            await told


class Lock(LockState[Lease]):
    """A lock to acquire: by `async with`, `acquire()` or `try_acquire()`. Tasks may share it."""

    async def acquire(self, *, timeout: _Timeout = ...) -> Lease:
        """Wait for the lock in the server's queue: first come, first served.

        Raises `LockTimeout` after `timeout` seconds, `KindMismatch` if the key is another kind of
        lock, `DeadlockError` if the wait closes a cycle, and `ServerUnavailable`.
        """
        timeout = self._timeout if timeout is ... else timeout
        actor = actor_of_task()
        lease = self._again(actor)
        if lease is None:
            try:
                held = await self._client._lock(self._wish, actor, timeout)
            except DeadlockError as error:
                name_actors(error)
                raise
            lease = self._hold(actor, held)
        return lease

    async def try_acquire(self, *, timeout: _Timeout = ...) -> Lease | None:
        """Take the lock if it is free now. `timeout` is how long to wait for the answer."""
        timeout = self._timeout if timeout is ... else timeout
        actor = actor_of_task()
        lease = self._again(actor)
        if lease is None:
            held = await self._client._try_lock(self._wish, actor, timeout)
            lease = None if held is None else self._hold(actor, held)
        return lease

    def _hold(self, actor: int, held: Held) -> Lease:
        lease = Lease(self._client, held, self)
        self._remember(actor, lease)
        return lease

    async def __aenter__(self) -> Lease:
        """Wait for the lock. Never enters without it."""
        return self._enter(actor_of_task(), await self.acquire())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back, and wait for nothing. Raises `LockLost` if it was lost."""
        self._exit(actor_of_task())._leave(exception)

    def __repr__(self) -> str:
        """Tell the key."""
        return super().__repr__().replace("zmqlocker.", "zmqlocker.asyncio.", 1)
