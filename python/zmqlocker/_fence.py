"""Refusing who has lost a lock and does not know it: for the side of what the lock protects."""

from __future__ import annotations

import contextlib
import numbers
import operator
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from zmqlocker._exceptions import (
    BoundExceeded,
    ConfigError,
    DeadlockError,
    LockLost,
    LockTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_TOKENS = 1 << 63
_KEY_BYTES_MAX = 256
_KEYS_MAX_MAX = 1_000_000_000
_TIMEOUT_MAX = 1e6

_of_thread = threading.local()
#: The fences of this process that remember in it alone.
_memories: weakref.WeakSet[_Memory] = weakref.WeakSet()


class Fence:
    """Refuses fencing tokens that are older than one that it has seen.

    It stands before the resource: whoever writes shows the token of its lease, and who has been
    overtaken by a newer holder is refused, whatever it believes.

        fence = Fence("/var/lib/reports/fence")
        with fence.guard(token, key="report"):
            write()

    Without `path` it remembers in this process, for all its threads. With `path` it remembers in
    that file, for all processes of the host, over `kill -9` and power cuts. It remembers `keys_max`
    keys at most, since to forget one would let its old holders in. Whoever comes while another one
    is at it waits, `timeout` seconds at most.

    A file that is missing is a fence that begins, and lets in whoever comes first: with
    `create=False` it is refused. One that is there and is no fence is refused always.

    Raises `ConfigError` if the file cannot be used.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        keys_max: int = 1_000_000,
        timeout: float = 10.0,
        create: bool = True,
    ) -> None:
        """Open the fence, or make it."""
        keys_max, timeout = _whole("keys_max", keys_max), _number("timeout", timeout)
        if not 1 <= keys_max <= _KEYS_MAX_MAX:
            message = f"keys_max must be from 1 to {_KEYS_MAX_MAX}, not {keys_max}"
            raise ConfigError(message)
        if not 0.0 <= timeout <= _TIMEOUT_MAX:
            message = f"timeout must be from 0 to {_TIMEOUT_MAX:.0f} s, not {timeout}"
            raise ConfigError(message)
        self._path = None if path is None else Path(path).absolute()
        self._keys_max = keys_max
        self._store: _Store = (
            _Memory(timeout) if self._path is None else _file(self._path, timeout, create=create)
        )

    def accept(self, token: int, *, key: str = "default") -> bool:
        """Tell whether `token` is the newest of `key`; older ones are refused from now on.

        The newest itself is accepted again and again.

        Raises `ConfigError` for what cannot be a token or a key, `BoundExceeded` for one key more
        than `keys_max`, and `LockTimeout` if others were at it all the time.
        """
        token, key = _token(token), _key(key)
        with self._store.visit() as visit:
            return self._accept(visit, token, key)

    def check(self, token: int, *, key: str = "default") -> None:
        """Raise `LockLost` if `accept()` refuses `token`."""
        if not self.accept(token, key=key):
            raise _overtaken(token, key)

    @contextlib.contextmanager
    def guard(self, token: int, *, key: str = "default") -> Iterator[None]:
        """Check `token`, and let no newer one of any key in while the `with` block runs.

        So nobody can overtake between the check and the write. A process that is stopped in the
        block holds up newer holders, and nothing else does: one that is killed does not.

        Raises `DeadlockError` in the block of another guard of this thread, of whatever key.
        """
        token, key = _token(token), _key(key)
        with self._store.visit() as visit:
            accepted = self._accept(visit, token, key)
            with visit.alone():
                if not accepted or visit.newest(key) != token:
                    raise _overtaken(token, key)
                yield

    def newest(self, key: str = "default") -> int | None:
        """The newest token of `key` that was accepted; `None` if there was none."""
        key = _key(key)
        with self._store.visit() as visit:
            return visit.newest(key)

    def _accept(self, visit: _Visit, token: int, key: str) -> bool:
        newest = visit.newest(key)
        if newest is not None and token < newest:
            return False
        if visit.knows(key, token):
            return True
        with visit.alone():
            newest = visit.newest(key)
            if newest is None and visit.keys() >= self._keys_max:
                message = (
                    f"the fence remembers {self._keys_max} keys, and {key!r} is one more: raise "
                    "`keys_max`"
                )
                raise BoundExceeded(message)
            if newest is None or newest <= token:
                visit.remember(key, token)
                return True
        return False

    def __repr__(self) -> str:
        """Tell the file."""
        return (
            "zmqlocker.Fence()" if self._path is None else f"zmqlocker.Fence({str(self._path)!r})"
        )


def _token(token: int) -> int:
    try:
        number = -1 if isinstance(token, bool) else operator.index(token)
    except TypeError:
        number = -1
    if not 0 <= number < _TOKENS:
        message = f"token must be a whole number from 0 to 2^63 - 1, not {token!r}"
        raise ConfigError(message)
    return number


def _whole(name: str, number: int) -> int:
    try:
        return operator.index(number)
    except TypeError:
        message = f"{name} must be a whole number, not {number!r}"
        raise TypeError(message) from None


def _number(name: str, number: float) -> float:
    if not isinstance(number, numbers.Real):
        message = f"{name} must be a number, not {number!r}"
        raise TypeError(message)
    return float(number)


def _key(key: str) -> str:
    try:
        length = len(key.encode())
    except (AttributeError, UnicodeEncodeError):
        length = 0
    if not 1 <= length <= _KEY_BYTES_MAX:
        message = f"key must be 1 to {_KEY_BYTES_MAX} bytes of UTF-8, not {key!r}"
        raise ConfigError(message)
    return key


def _overtaken(token: int, key: str) -> LockLost:
    return LockLost(
        f"the token {token} of {key!r} is older than one that was seen: another holder has the "
        "lock since"
    )


def busy(timeout: float) -> LockTimeout:
    return LockTimeout(f"the fence was not free within {timeout:g} s: somebody is in its `guard()`")


@contextlib.contextmanager
def entering(place: object) -> Iterator[None]:
    """Keep in mind where this thread keeps others out: there it would wait for itself."""
    inside: set[tuple[int, object]] = _of_thread.__dict__.setdefault("inside", set())
    here = (os.getpid(), place)
    if here in inside:
        message = "this thread is in a `guard()` of the fence, and would wait for itself"
        raise DeadlockError(message)
    inside.add(here)
    try:
        yield
    finally:
        inside.discard(here)


def _file(path: Path, timeout: float, *, create: bool) -> _Store:
    # Not every Python has SQLite.
    from zmqlocker._fence_file import FenceFile  # noqa: PLC0415

    return FenceFile(path, timeout, create=create)


class _Visit(Protocol):
    """What can be done while the store is open."""

    def newest(self, key: str) -> int | None: ...

    def knows(self, key: str, token: int) -> bool:
        """Whether `token` is the newest, and nothing has to be remembered anew."""
        ...

    def keys(self) -> int: ...

    def remember(self, key: str, token: int) -> None: ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep what is remembered as it is for everybody else; what is remembered stays after."""
        ...


class _Store(Protocol):
    def visit(self) -> AbstractContextManager[_Visit]: ...


class _Memory:
    """Remembers in this process."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self.lock = threading.Lock()
        self._newest: dict[str, int] = {}
        _memories.add(self)

    @contextlib.contextmanager
    def visit(self) -> Iterator[_Memory]:
        yield self

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        lock = self.lock
        with entering(self):
            if not lock.acquire(timeout=self._timeout):
                raise busy(self._timeout)
            try:
                yield
            finally:
                lock.release()

    def newest(self, key: str) -> int | None:
        return self._newest.get(key)

    def knows(self, key: str, token: int) -> bool:
        return self._newest.get(key) == token

    def keys(self) -> int:
        return len(self._newest)

    def remember(self, key: str, token: int) -> None:
        self._newest[key] = token


def _free_in_child() -> None:
    """A guard that was entered before the fork is the parent's, and so is what it guards."""
    for memory in _memories:
        memory.lock = threading.Lock()


os.register_at_fork(after_in_child=_free_in_child)
