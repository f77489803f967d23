"""`LockerClient`, with what Python does best: `with` blocks and decorators."""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any

from zmqlocker import _zmqlocker
from zmqlocker._decorators import during
from zmqlocker._held import _Lease, _Reservation
from zmqlocker._lease import LockInfo, Locking, lock_infos
from zmqlocker._lock import Lease, Lock
from zmqlocker._status import MOST, ClientInfo, KeyInfo, ServerStatus, client_infos, key_infos

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import EllipsisType

    from typing_extensions import Self

    from zmqlocker._decorators import P, R

    _Timeout = float | EllipsisType | None


def _given(timeout: _Timeout) -> dict[str, Any]:
    """The argument, if it was given."""
    return {} if timeout is ... else {"timeout": timeout}


class Permit(_Lease):
    """Permits that are held while the `with` block runs, and renewed by a thread that no GIL stops.

    They come back when the block ends, or when nothing was heard of this process for `ttl` seconds.
    """

    def __enter__(self) -> Self:
        """Wait for the permits. Never enters without them, or a policy that allows it."""
        self._must_be_free()
        self._held = self._client._hold(*self._wanted, **self._options)
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the permits back."""
        self._warn_of_loss()
        self._now().let_go()


class Reservation(_Reservation):
    """Permits that are spent when the `with` block ends, but for what `commit()` gives back."""

    def __enter__(self) -> Self:
        """Wait for the permits. Never enters without them, or a policy that allows it."""
        self._must_be_free()
        self._held = self._client._hold(*self._wanted, **self._options)
        return self

    def __exit__(self, *exception: object) -> None:
        """Spend what was reserved, if nothing else was said. Waits for nothing."""
        self._now().spend()

    def commit(self, spent: int | Mapping[str, int]) -> None:
        """Say how much was spent: the rest goes back, what is beyond is counted.

        Raises `NotHeld` if it was said before.
        """
        self._client._give_back(self._now(), self._spend(spent))

    def cancel(self) -> None:
        """Give everything back."""
        self.commit(self._nothing())


class LockerClient(Locking[Lock], _zmqlocker.LockerClient):
    __doc__ = _zmqlocker.LockerClient.__doc__
    __module__ = "zmqlocker"

    #: What threads hold that may enter again.
    @functools.cached_property
    def _leases(self) -> weakref.WeakValueDictionary[Any, Lease]:
        return weakref.WeakValueDictionary()

    def _make_lock(
        self, wish: _zmqlocker.LockWish, timeout: _Timeout, *, reentrant: bool, on_lost: Any
    ) -> Lock:
        return Lock(self, wish, timeout, reentrant=reentrant, on_lost=on_lost)

    def locks(self, *, timeout: _Timeout = ...) -> list[LockInfo]:
        """Tell who holds and who waits for locks, sorted by key."""
        rows: list[Any] = []
        start: int | None = 0
        while start is not None:
            some, start = self._look("locks", start, **_given(timeout))
            rows += some
        return lock_infos(rows)

    def server_status(self, *, timeout: _Timeout = ...) -> ServerStatus:
        """Tell what the server is doing, and has done since it started."""
        return ServerStatus(**self._look("status", 0, **_given(timeout)))

    def busy_keys(self, most: int = MOST, *, timeout: _Timeout = ...) -> list[KeyInfo]:
        """Tell which keys are the busiest, `most` of them, the busiest first.

        A server counts for 512 keys at a time.
        """
        rows: list[Any] = []
        start: int | None = 0
        while start is not None:
            some, start = self._look("keys", start, **_given(timeout))
            rows += some
        return key_infos(rows, most)

    def clients(self, most: int = MOST, *, timeout: _Timeout = ...) -> list[ClientInfo]:
        """Tell which clients the server knows, `most` of them at most."""
        rows: list[Any] = []
        start: int | None = 0
        while start is not None and len(rows) < most:
            some, start = self._look("clients", start, **_given(timeout))
            rows += some
        return client_infos(rows, most)

    def locked(
        self,
        key: str | list[str] | tuple[str, ...],
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        max_hold: float | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Have each call of a function wait for a lock, and hold it while it runs.

        A generator holds it from its first value to its end. A coroutine function waits in a
        thread; `zmqlocker.asyncio` needs none.
        """

        def make() -> Lock:
            return self.lock(key, ttl=ttl, timeout=timeout, max_hold=max_hold)

        # What can never work is refused here.
        make()
        return during(make)

    def limit(
        self,
        key: str | dict[str, int],
        cost: int | None = None,
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Permit:
        """Hold permits of a concurrency limit in a `with` block.

        They are waited for in the server's queue, `timeout` seconds at most: then the block raises
        `LockTimeout`. Permits of other limits of the key are spent.

        Where no server answers, the failure policy lets the block run, holding nothing, or raises
        `LockTimeout` at once.
        """
        return Permit(self, (key, cost), {"ttl": ttl, "on_failure": on_failure, **_given(timeout)})

    def reserve(
        self,
        key: str | dict[str, int],
        cost: int | None = None,
        *,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Reservation:
        """Take permits in a `with` block whose real cost is known only afterwards.

        Call `commit()` of what the block gives with what was spent; the rest goes back. Without it,
        all is spent. Where no server answers, the failure policy decides as for `limit()`.
        """
        return Reservation(self, (key, cost), {"on_failure": on_failure, **_given(timeout)})

    def block(self, key: str) -> _zmqlocker.Block:
        """Have permits of `key` in advance and spend them without a round trip."""
        return _zmqlocker.Block(self, key)

    def limited(
        self,
        key: str | dict[str, int],
        cost: int | None = None,
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Have each call of a function wait for its permits, and hold them while it runs.

        A generator holds them from its first value to its end. A coroutine function waits in a
        thread; `zmqlocker.asyncio` needs none.
        """
        return during(
            lambda: self.limit(key, cost, ttl=ttl, timeout=timeout, on_failure=on_failure)
        )
