"""Locks for threads."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from zmqlocker._exceptions import DeadlockError, NotHeld
from zmqlocker._lease import LeaseState, LockState, actor_of_thread, name_actors

if TYPE_CHECKING:
    from types import EllipsisType, TracebackType

    from typing_extensions import Self

    from zmqlocker._zmqlocker import Held

    _Timeout = float | EllipsisType | None


class Lease(LeaseState):
    """The right to a lock, until it is released, lost, or `max_hold` is over."""

    def __init__(self, client: Any, held: Held, lock: Lock) -> None:
        """Hold what a server has granted."""
        super().__init__(held, lock._wish)
        self._client = client
        on_lost = lock._on_lost
        if on_lost is not None:
            # The thread keeps no lease alive that nobody else knows of.
            this = weakref.ref(self)

            def watch() -> None:
                if held.wait_lost() and (lease := this()) is not None:
                    lease._was_lost = True
                    on_lost(lease)

            threading.Thread(target=watch, name="zmqlocker-on-lost", daemon=True).start()

    @property
    def lost(self) -> bool:
        """Whether the lease ended though it was not released. True before others can have it."""
        return self._is_lost()

    def release(self) -> None:
        """Give the lock back, and wait until the server has it.

        Raises `NotHeld` if it was released before, or is lost: then somebody else may have it, and
        keeps it. Raises `ServerUnavailable` if the server is not heard: it gets the lock back when
        it is there again.
        """
        if self._is_last():
            self._client._give_back(self._held)

    def __enter__(self) -> Self:
        """Give the lease itself. Raises `LockLost` or `NotHeld` if it is over: never enters so."""
        self._begin_block()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back, and wait for nothing. Raises `LockLost` if it was lost."""
        self._leave(exception)


class Lock(LockState[Lease]):
    """A lock to be acquired: by `with`, `acquire()` or `try_acquire()`. Threads may share it."""

    def acquire(self, *, timeout: _Timeout = ...) -> Lease:
        """Wait for the lock in the server's queue: first come, first served.

        Raises `LockTimeout` after `timeout` seconds, `KindMismatch` if the key is another kind of
        lock, `DeadlockError` if the wait closes a cycle, and `ServerUnavailable`.
        """
        return self._acquire(actor_of_thread(stays=self._reentrant), timeout)

    def _acquire(self, actor: int, timeout: _Timeout) -> Lease:
        timeout = self._timeout if timeout is ... else timeout
        lease = self._again(actor) or self._ask(actor, timeout, wait=True)
        if lease is None:
            message = "the server granted no lease"
            raise NotHeld(message)
        return lease

    def try_acquire(self, *, timeout: _Timeout = ...) -> Lease | None:
        """Take the lock if it is free now. `timeout` is how long to wait for the answer."""
        timeout = self._timeout if timeout is ... else timeout
        actor = actor_of_thread(stays=self._reentrant)
        return self._again(actor) or self._ask(actor, timeout, wait=False)

    def _ask(self, actor: int, timeout: _Timeout, *, wait: bool) -> Lease | None:
        arguments = () if timeout is ... else (timeout,)
        try:
            held = self._client._lock(self._wish, actor, wait, *arguments)
        except DeadlockError as error:
            name_actors(error)
            raise
        if held is None:
            return None
        lease = Lease(self._client, held, self)
        self._remember(actor, lease)
        return lease

    def __enter__(self) -> Lease:
        """Wait for the lock. Never enters without it."""
        actor = actor_of_thread(stays=True)
        return self._enter(actor, self._acquire(actor, ...))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the lock back, and wait for nothing. Raises `LockLost` if it was lost."""
        self._exit(actor_of_thread(stays=True))._leave(exception)
