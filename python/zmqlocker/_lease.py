"""What locks have in common, for threads and for event loops."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import sys
import threading
import warnings
import weakref
from collections.abc import Iterable
from concurrent.futures import thread as _pools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from zmqlocker._exceptions import DeadlockError, LockerError, LockLost, NotHeld
from zmqlocker._zmqlocker import LockWish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import EllipsisType

    from zmqlocker._zmqlocker import Held

    _Timeout = float | EllipsisType | None

_LOG = logging.getLogger("zmqlocker")
_actors = itertools.count(1)
_of_thread = threading.local()
#: What the threads of pools run, by which `asyncio.to_thread()` acquires for its tasks.
_work: object = getattr(_pools, "_worker", None)
_of_task: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = weakref.WeakKeyDictionary()


def actor_of_thread(*, stays: bool) -> int:
    """Number this thread, among all threads and tasks of the process.

    What a worker of a pool acquires, and does not give back on its way out, is used elsewhere: then
    its lease is nobody's in particular, and 0.
    """
    if not stays and _work is getattr(threading.current_thread(), "_target", _pools):
        return 0
    if not hasattr(_of_thread, "actor"):
        _of_thread.actor = next(_actors)
        # By this its name is found, for as long as it lives.
        threading.current_thread()._zmqlocker_actor = _of_thread.actor  # type: ignore[attr-defined]
    actor: int = _of_thread.actor
    return actor


def actor_of_task() -> int:
    """Number the task that runs, among all threads and tasks of the process."""
    task = asyncio.current_task()
    if task is None:
        return 0
    return _of_task.setdefault(task, next(_actors))


def name_actors(error: DeadlockError) -> None:
    """Have an error tell the threads and tasks of this process by their names too."""
    names = {actor: task.get_name() for task, actor in list(_of_task.items())}
    for thread in threading.enumerate():
        names[getattr(thread, "_zmqlocker_actor", 0)] = thread.name

    def name(found: re.Match[str]) -> str:
        actor = int(found[1])
        return f"{names[actor]!r}, {found[0]}" if actor in names else found[0]

    ours = rf'thread or task (\d+) of (?:"[^"]*" \()?process {os.getpid()} on'
    error.args = (re.sub(ours, name, str(error)),)


@dataclass(frozen=True)
class LockHolder:
    """Who holds a lock: the name, host and process of a client, and its fencing token."""

    name: str
    host: str
    pid: int
    token: int
    #: "exclusive", "read", "write" or "permits".
    mode: str
    permits: int
    #: For how many seconds it is held.
    since: float
    #: In how many seconds it is free if nothing more is heard of the holder.
    ttl_left: float


@dataclass(frozen=True)
class LockWaiter:
    """Who waits for a lock."""

    name: str
    host: str
    pid: int
    mode: str
    permits: int
    #: For how many seconds it has waited.
    since: float
    #: In how many seconds it gives up.
    timeout_left: float


@dataclass(frozen=True)
class LockInfo:
    """A lock that is held or waited for."""

    key: str
    #: "lock", "rw_lock" or "semaphore".
    kind: str
    #: How many permits a semaphore has; 1 of other locks.
    size: int
    holders: tuple[LockHolder, ...]
    #: In the order in which they will be served.
    waiters: tuple[LockWaiter, ...]


def lock_infos(rows: Sequence[Any]) -> list[LockInfo]:
    """Put the rows of all pages together, by their keys."""
    holders: dict[tuple[str, str, int], list[LockHolder]] = {}
    waiters: dict[tuple[str, str, int], list[LockWaiter]] = {}
    for lock, (mode, permits), token, (since, left), (name, host, pid) in rows:
        held, waiting = holders.setdefault(lock, []), waiters.setdefault(lock, [])
        if token is None:
            waiting.append(LockWaiter(name, host, pid, mode, permits, since, left))
        else:
            held.append(LockHolder(name, host, pid, token, mode, permits, since, left))
    return [
        LockInfo(key, kind, size, tuple(held), tuple(waiters[key, kind, size]))
        for (key, kind, size), held in sorted(holders.items())
    ]


def _keys(key: object, *, several: bool = True) -> list[str]:
    """The keys that were given: one, or several if that may be."""
    if isinstance(key, str):
        return [key]
    if several and isinstance(key, Iterable) and not isinstance(key, bytes | bytearray):
        keys = list(key)
        if all(isinstance(one, str) for one in keys):
            return keys
    kinds = "a str or a list of str" if several else "a str"
    message = f"key must be {kinds}, not {key!r}"
    raise TypeError(message)


def key_of(wish: LockWish) -> str | tuple[str, ...]:
    """Name what is wanted: the key, or of several locks all of them."""
    keys = tuple(wish.keys)
    return keys[0] if len(keys) == 1 else keys


class LeaseState:
    """A lease as its holder sees it."""

    def __init__(self, held: Held, wish: LockWish) -> None:
        """Hold what a server has granted."""
        self._held, self._wish = held, wish
        #: How often it was acquired and not given back yet, and how many blocks hold it.
        self._count, self._blocks = 1, 0
        self._was_lost = False

    @property
    def key(self) -> str | tuple[str, ...]:
        """The key; of several locks all of them."""
        return key_of(self._wish)

    @property
    def token(self) -> int:
        """The fencing token: higher than that of every earlier lease of the key.

        Hand it to the resource, and have that refuse lower ones: see `zmqlocker.Fence`. Raises
        `LockerError` where the keys have one each, as with several servers: see `tokens`.
        """
        token = self._held.token
        if token is None:
            message = f"the keys {self.key!r} have a token each: hand on those of `tokens`"
            raise LockerError(message)
        return token

    @property
    def tokens(self) -> dict[str, int]:
        """The fencing token of each key: higher than that of every earlier lease of that key."""
        return dict(self._held.tokens)

    @property
    def remaining(self) -> float:
        """For how many seconds the lease is safe if no server is heard; 0.0 if it is over."""
        return self._held.remaining

    @property
    def held(self) -> bool:
        """Whether the lease is held, and nobody else can have it."""
        return not self._held.given_back and not self._is_lost()

    def check(self) -> None:
        """Raise `LockLost` unless the lease is held."""
        if not self.held:
            raise LockLost(self._story())

    def _is_lost(self) -> bool:
        if not self._was_lost and not self._held.given_back:
            self._was_lost = self._held.remaining <= 0.0
        return self._was_lost

    def _story(self) -> str:
        lease, others = f"the lease of {self.key!r}", "others may have it by now"
        if not self._held.is_ours:
            return f"{lease} is the parent's: a forked child holds nothing"
        if not self._is_lost():
            return f"{lease} was released: {others}"
        if self._held.is_closed and not self._held.given_back:
            return f"{lease} was given back when its client was closed: {others}"
        return f"{lease} was lost: {others}"

    def _begin_block(self) -> None:
        """Enter a `with` block, which must not run without the lock. Asks no server."""
        if self._held.given_back:
            raise NotHeld(self._story())
        self.check()
        if self._blocks >= self._count:
            message = f"a block holds the lease of {self.key!r} already, and its end gives it back"
            raise LockerError(message)
        self._blocks += 1

    def _leave(self, exception: BaseException | None) -> None:
        """End a `with` block: gives the lease back, and waits for nothing.

        Raises `LockLost` if it was lost meanwhile, unless the block ended by what must not be held
        up: a cancellation, Ctrl-C, an exit.
        """
        self._blocks -= 1
        if self._held.given_back:
            return
        lost = self._is_lost()
        if self._wish.renew:
            self._count -= 1
            if self._count <= 0:
                self._held.let_go()
        elif self._count > 1:
            self._count -= 1
        if lost:
            self._tell_loss(exception)

    def _tell_loss(self, exception: BaseException | None) -> None:
        lost = LockLost(self._story())
        if exception is None:
            raise lost
        if isinstance(exception, LockLost):
            return
        if isinstance(exception, Exception):
            raise lost from exception
        _LOG.warning("%s", lost)
        if sys.version_info >= (3, 11):
            exception.add_note(str(lost))

    def _is_last(self) -> bool:
        """Begin a release. Whether nobody of this thread or task is left who has entered.

        Raises `NotHeld` if nothing is held any more. No server has to be heard for that.
        """
        if self._held.given_back:
            raise NotHeld(self._story())
        self._count -= 1
        if self._is_lost():
            story = self._story()
            self._held.let_go()
            raise NotHeld(story)
        return self._count <= 0

    def __reduce__(self) -> NoReturn:
        """Refuse copies: the end of one would give back what the others need."""
        message = "a lease cannot be copied or pickled: hand on its token"
        raise TypeError(message)

    def __repr__(self) -> str:
        """Tell the key, the token, and what became of it."""
        state = "held" if self.held else "lost" if self._is_lost() else "released"
        return f"zmqlocker.Lease({self.key!r}, {self._token()}, {state})"

    def _token(self) -> str:
        token = self._held.token
        return f"tokens={self.tokens}" if token is None else f"token={token}"

    def __del__(self) -> None:
        """Warn of a lease that nobody can release any more, and release it."""
        held: Held | None = getattr(self, "_held", None)
        if held is None or held.given_back or not self._wish.renew or held.remaining <= 0.0:
            return
        warnings.warn(f"unreleased {self!r}", ResourceWarning, source=self, stacklevel=2)
        held.let_go()


L = TypeVar("L", bound="LockState[Any]")
E = TypeVar("E", bound=LeaseState)


class LockState(Generic[E]):
    """A lock, and who of this process has entered it."""

    def __init__(
        self,
        client: Any,
        wish: LockWish,
        timeout: _Timeout,
        *,
        reentrant: bool,
        on_lost: Callable[[E], object] | None,
    ) -> None:
        """Remember what to ask for, and whom."""
        if on_lost is not None and not callable(on_lost):
            message = f"on_lost must be a function that takes a lease, not {on_lost!r}"
            raise TypeError(message)
        self._client, self._wish, self._timeout = client, wish, timeout
        self._reentrant, self._on_lost = reentrant, on_lost
        self._entered: dict[int, list[E]] = {}

    @property
    def key(self) -> str | tuple[str, ...]:
        """The key; of several locks all of them."""
        return key_of(self._wish)

    def _again(self, actor: int) -> E | None:
        """Hold once more what this thread or task holds already, where that is wanted."""
        if not self._reentrant:
            return None
        lease: E | None = self._client._leases.get((tuple(self._wish.keys), actor))
        if lease is None or not lease.held:
            return None
        lease._count += 1
        return lease

    def _remember(self, actor: int, lease: E) -> None:
        if self._reentrant:
            self._client._leases[tuple(self._wish.keys), actor] = lease

    def _enter(self, actor: int, lease: E) -> E:
        lease._blocks += 1
        self._entered.setdefault(actor, []).append(lease)
        return lease

    def _exit(self, actor: int) -> E:
        if actor not in self._entered:
            # A generator may be entered by one thread or task, and left by another.
            actor = next(reversed(self._entered), 0)
        if actor not in self._entered:
            message = f"no block has entered the lock {self.key!r}"
            raise NotHeld(message)
        entered = self._entered[actor]
        lease = entered.pop()
        if not entered:
            del self._entered[actor]
        return lease

    def __repr__(self) -> str:
        """Tell the key."""
        return f"zmqlocker.Lock({self.key!r})"


class RwLock(Generic[L]):
    """A lock that one writer has, or many readers. No reader overtakes a writer that waits."""

    def __init__(self, make: Callable[[str], L]) -> None:
        """Make locks of either mode by `make`."""
        self._make = make

    def read(self) -> L:
        """Make a lock together with other readers."""
        return self._make("read")

    def write(self) -> L:
        """Make a lock alone."""
        return self._make("write")

    def __enter__(self) -> NoReturn:
        """Refuse: nobody knows in which mode."""
        message = "a rw lock is entered by `with lock.read():` or `with lock.write():`"
        raise TypeError(message)

    def __exit__(self, *exception: object) -> None:
        """Do nothing: no block is ever entered."""

    __aenter__, __aexit__ = __enter__, __exit__


class Locking(Generic[L]):
    """The locks of a client."""

    def _make_lock(self, wish: LockWish, timeout: _Timeout, *, reentrant: bool, on_lost: Any) -> L:
        raise NotImplementedError

    def lock(
        self,
        key: str | list[str] | tuple[str, ...],
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        max_hold: float | None = None,
        renew: bool = True,
        reentrant: bool = False,
        on_lost: Callable[[Any], object] | None = None,
    ) -> L:
        """Lock `key`, or several keys together or not at all, in a `with` block.

        The lock is waited for in the server's queue, `timeout` seconds at most: then `LockTimeout`
        is raised. It is renewed by a thread that no GIL stops, and free `ttl` seconds after this
        process has died. After `max_hold` seconds it is not renewed any more; with `renew=False`
        it is never, ends after `ttl` seconds and need not be released.

        `reentrant` counts how often a thread or task enters. `on_lost` is called with the lease if
        it is lost before it is released.

        Raises `ConfigError` for a key or a length that can never work.
        """
        wish = LockWish(
            _keys(key),
            "lock",
            size=1,
            cost=1,
            ttl=ttl,
            max_hold=max_hold,
            renew=renew,
            timeout=timeout,
        )
        return self._make_lock(wish, timeout, reentrant=reentrant, on_lost=on_lost)

    def rw_lock(
        self,
        key: str,
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        max_hold: float | None = None,
        renew: bool = True,
        on_lost: Callable[[Any], object] | None = None,
    ) -> RwLock[L]:
        """Lock `key` for one writer or many readers: `read()` and `write()` make locks."""
        keys = _keys(key, several=False)

        def make(mode: str) -> L:
            wish = LockWish(
                keys, mode, size=1, cost=1, ttl=ttl, max_hold=max_hold, renew=renew, timeout=timeout
            )
            return self._make_lock(wish, timeout, reentrant=False, on_lost=on_lost)

        # What can never work is refused here.
        make("read")
        return RwLock(make)

    def semaphore(
        self,
        key: str,
        size: int,
        *,
        cost: int = 1,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        max_hold: float | None = None,
        renew: bool = True,
        on_lost: Callable[[Any], object] | None = None,
    ) -> L:
        """Hold `cost` of the `size` permits of `key`. Its first use says how many there are."""
        wish = LockWish(
            _keys(key, several=False),
            "permits",
            size=size,
            cost=cost,
            ttl=ttl,
            max_hold=max_hold,
            renew=renew,
            timeout=timeout,
        )
        return self._make_lock(wish, timeout, reentrant=False, on_lost=on_lost)

    def leader(
        self,
        key: str,
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        on_lost: Callable[[Any], object] | None = None,
    ) -> L:
        """Be the one leader of `key` while the `with` block runs; others wait to follow."""
        return self.lock(key, ttl=ttl, timeout=timeout, on_lost=on_lost)
