"""The client for event loops: the names of `zmqlocker.LockerClient`, to be awaited.

    from zmqlocker.asyncio import LockerClient

    async with LockerClient() as client:
        await client.acquire("openai", timeout=5.0)

Everything runs on the event loop's own reader; there is no thread for a request. What one round of
the loop asks goes out in one message. A task that is cancelled while it waits holds nothing.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any

from zmqlocker import _zmqlocker
from zmqlocker._asyncio_held import Block, Permit, Reservation
from zmqlocker._asyncio_lock import Lease, Lock, Loss
from zmqlocker._decorators import during_async
from zmqlocker._exceptions import Forgotten, LockerError, LockTimeout, ServerUnavailable
from zmqlocker._lease import LockInfo, Locking, RwLock, lock_infos
from zmqlocker._status import MOST, ClientInfo, KeyInfo, ServerStatus, client_infos, key_infos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from os import PathLike
    from types import EllipsisType

    from typing_extensions import Self

    from zmqlocker import Decision, Limit
    from zmqlocker._decorators import A, P

    _Timeout = float | EllipsisType | None
    _Keys = str | dict[str, int]
    _Limits = str | Limit | Sequence[str | Limit]

__all__ = ["Block", "Lease", "Lock", "LockerClient", "Loss", "Permit", "Reservation", "RwLock"]


class LockerClient(Locking[Lock]):
    """Asks the server at `url` for permits, on the event loop in which it is used first.

    The arguments are those of `zmqlocker.LockerClient`.
    """

    _on_timer: Callable[[], None]

    def __init__(
        self,
        url: str | list[str] | tuple[str, ...] = "tcp://localhost:7777",
        *,
        name: str = "",
        timeout: _Timeout = ...,
        on_failure: str = "raise",
        share: _Limits | None = None,
        server_key: str | PathLike[str] | None = None,
        key_file: str | PathLike[str] | None = None,
    ) -> None:
        """Connect in the background; the servers need not be up yet."""
        options: dict[str, Any] = {} if timeout is ... else {"timeout": timeout}
        self._client = _zmqlocker.LockerClient(
            url,
            name=name,
            on_failure=on_failure,
            share=share,
            server_key=server_key,
            key_file=key_file,
            **options,
        )
        self._core = _zmqlocker.EventLoopClient(self._client)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._descriptor = -1
        self._flush_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._leases: weakref.WeakValueDictionary[Any, Lease] = weakref.WeakValueDictionary()
        self._news_waiters: set[asyncio.Future[None]] = set()

    def _make_lock(
        self, wish: _zmqlocker.LockWish, timeout: _Timeout, *, reentrant: bool, on_lost: Any
    ) -> Lock:
        return Lock(self, wish, timeout, reentrant=reentrant, on_lost=on_lost)

    async def locks(self, *, timeout: _Timeout = ...) -> list[LockInfo]:
        """Tell who holds and who waits for locks, sorted by key."""
        rows: list[Any] = []
        start: int | None = 0
        while start is not None:
            some, start = await self._ask(self._core.look, "locks", start, timeout)
            rows += some
        return lock_infos(rows)

    async def server_status(self, *, timeout: _Timeout = ...) -> ServerStatus:
        """Tell what the server is doing, and has done since it started."""
        fields: dict[str, Any] = await self._ask(self._core.look, "status", 0, timeout)
        return ServerStatus(**fields)

    async def busy_keys(self, most: int = MOST, *, timeout: _Timeout = ...) -> list[KeyInfo]:
        """Tell which keys are the busiest, `most` of them, the busiest first."""
        rows: list[Any] = []
        start: int | None = 0
        while start is not None:
            some, start = await self._ask(self._core.look, "keys", start, timeout)
            rows += some
        return key_infos(rows, most)

    async def clients(self, most: int = MOST, *, timeout: _Timeout = ...) -> list[ClientInfo]:
        """Tell which clients the server knows, `most` of them at most."""
        rows: list[Any] = []
        start: int | None = 0
        while start is not None and len(rows) < most:
            some, start = await self._ask(self._core.look, "clients", start, timeout)
            rows += some
        return client_infos(rows, most)

    def stats(self) -> dict[str, Any]:
        """Tell what this client has done so far in this process, as `zmqlocker.LockerClient`'s."""
        return self._client.stats()

    async def break_lock(
        self, key: str, *, token: int | None = None, timeout: _Timeout = ...
    ) -> None:
        """Take a lock from its holders; with `token`, only from the one that has it."""
        await self._ask(self._core.break_lock, key, token, timeout)

    def locked(
        self,
        key: str | list[str] | tuple[str, ...],
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        max_hold: float | None = None,
    ) -> Callable[[Callable[P, A]], Callable[P, A]]:
        """Have each call of a coroutine function wait for a lock, and hold it meanwhile.

        An asynchronous generator holds it from its first value to its end.
        """

        def make() -> Lock:
            return self.lock(key, ttl=ttl, timeout=timeout, max_hold=max_hold)

        # What can never work is refused here.
        make()
        return during_async(make)

    async def next(self, key: str | None = None, *, timeout: _Timeout = ...) -> str:
        """Ask for one permit: "go" or "sorry". Waits for a server that is not up."""
        answer: str = await self._ask(self._core.next, key, timeout)
        return answer

    async def try_acquire(
        self,
        key: _Keys,
        cost: int | None = None,
        *,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Decision:
        """Ask for `cost` permits of `key`, and do not wait for them."""
        decision: Decision = await self._ask(
            self._core.acquire, False, key, cost, timeout, on_failure
        )
        return decision

    async def try_acquire_many(
        self,
        keys: Iterable[_Keys],
        *,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> list[Decision]:
        """Ask for permits of many keys at once, each by itself."""
        requests: list[int] = []
        how = (None, timeout, on_failure)
        try:
            answers: list[asyncio.Future[Decision]] = [
                self._begin(requests, self._core.acquire, False, key, *how) for key in keys
            ]
            await asyncio.gather(*answers, return_exceptions=True)
        except BaseException:
            self._core.decline(requests)
            raise
        self._core.settle(requests)
        return [answer.result() for answer in answers]

    async def acquire(
        self,
        key: _Keys,
        cost: int | None = None,
        *,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Decision:
        """Ask for `cost` permits of `key`, and wait for them in the server's queue."""

        def start(future: asyncio.Future[Any], left: float | None) -> int:
            return self._core.acquire(future, True, key, cost, timeout, on_failure, left)

        decision: Decision = await self._ask_until_heard(start, timeout)
        return decision

    def limit(
        self,
        key: _Keys,
        cost: int | None = None,
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Permit:
        """Hold permits of a concurrency limit in an `async with` block."""
        return Permit(self, (key, cost, ttl, on_failure), timeout)

    def reserve(
        self,
        key: _Keys,
        cost: int | None = None,
        *,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Reservation:
        """Take permits in an `async with` block whose real cost is known only afterwards."""
        return Reservation(self, (key, cost, None, on_failure), timeout)

    def block(self, key: str) -> Block:
        """Have permits of `key` in advance and spend them without a round trip."""
        return Block(self, key)

    def limited(
        self,
        key: _Keys,
        cost: int | None = None,
        *,
        ttl: float = 0.8,
        timeout: _Timeout = ...,
        on_failure: str | None = None,
    ) -> Callable[[Callable[P, A]], Callable[P, A]]:
        """Have each call of a coroutine function wait for its permits, and hold them meanwhile.

        An asynchronous generator holds them from its first value to its end.
        """
        return during_async(
            lambda: self.limit(key, cost, ttl=ttl, timeout=timeout, on_failure=on_failure)
        )

    async def peek(self, key: str, cost: int | None = None, *, timeout: _Timeout = ...) -> Decision:
        """Tell what the answer to a request would be. Takes nothing."""
        decision: Decision = await self._ask(self._core.peek, key, cost, timeout)
        return decision

    async def reset(self, key: str, *, timeout: _Timeout = ...) -> None:
        """Forget everything that was used of `key`, and a freeze. Leases stay."""
        await self._ask(self._core.reset, key, timeout)

    async def freeze(self, key: str, seconds: float, *, timeout: _Timeout = ...) -> None:
        """Let nobody have a permit of `key` for so many seconds."""
        await self._ask(self._core.freeze, key, seconds, timeout)

    async def set_limits(self, key: str, limits: _Limits, *, timeout: _Timeout = ...) -> None:
        """Give `key` other limits while the server runs. What was used stays used."""
        await self._ask(self._core.set_limits, key, limits, timeout)

    def close(self) -> None:
        """Close the connections. What is under way ends with `LockerError`."""
        if self._closed:
            return
        self._closed = True
        self._core.abandon(LockerError("the client is closed: make a new one"))
        if self._timer:
            self._timer.cancel()
        if self._loop and not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._tell_news()
        self._client.close()

    async def aclose(self) -> None:
        """Close the connections, as `close()` does."""
        self.close()

    async def __aenter__(self) -> Self:
        """Give the client itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close the connections."""
        self.close()

    def __del__(self) -> None:
        """Close the connections, whatever became of the event loop."""
        if hasattr(self, "_timer"):
            self.close()

    def __repr__(self) -> str:
        """Tell the servers."""
        return repr(self._client).replace("zmqlocker.", "zmqlocker.asyncio.", 1)

    async def _hold(self, wanted: tuple[Any, ...], timeout: _Timeout) -> _zmqlocker.Held:
        def start(future: asyncio.Future[Any], left: float | None) -> int:
            key, cost, ttl, on_failure = wanted
            return self._core.hold(future, key, cost, ttl, timeout, on_failure, left)

        held: _zmqlocker.Held = await self._ask_until_heard(start, timeout)
        return held

    async def _lock(
        self, wish: _zmqlocker.LockWish, actor: int, timeout: _Timeout
    ) -> _zmqlocker.Held:
        def start(future: asyncio.Future[Any], left: float | None) -> int:
            return self._core.lock(future, wish, actor, True, timeout, left)

        held: _zmqlocker.Held = await self._ask_until_heard(start, timeout)
        return held

    async def _try_lock(
        self, wish: _zmqlocker.LockWish, actor: int, timeout: _Timeout
    ) -> _zmqlocker.Held | None:
        def start(future: asyncio.Future[Any], left: float | None) -> int:
            return self._core.lock(future, wish, actor, False, timeout, left)

        held: _zmqlocker.Held | None = await self._ask_until_heard(start, timeout)
        return held

    async def _release(self, held: _zmqlocker.Held) -> None:
        """Give a lease back. Whoever is cancelled meanwhile has given it back all the same."""
        requests: list[int] = []
        future = self._begin(requests, self._core.release, held)

        def settle(done: asyncio.Future[Any]) -> None:
            self._core.settle(requests)
            # Whoever was cancelled does not come for what went wrong.
            if not done.cancelled():
                done.exception()

        future.add_done_callback(settle)
        self._tell_news()
        await asyncio.shield(future)

    async def _news(self, timeout: float) -> None:
        """Wait until something has come from a server, or for so long."""
        loop = asyncio.get_running_loop()
        news: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(max(timeout, 0.001), _resolve, news)
        self._news_waiters.add(news)
        try:
            await news
        finally:
            timer.cancel()
            self._news_waiters.discard(news)

    def _tell_news(self) -> None:
        for news in self._news_waiters:
            _resolve(news)

    async def _refill(self, block: _zmqlocker.Block, wanted: int, timeout: _Timeout) -> None:
        try:
            await self._ask(self._core.refill, block, wanted, timeout)
        except ServerUnavailable:
            # What becomes of the request is the policy's to say.
            return

    async def _commit(self, held: _zmqlocker.Held, spent: list[int]) -> None:
        await self._ask(self._core.commit, held, spent)

    async def _ask_until_heard(
        self,
        start: Callable[[asyncio.Future[Any], float | None], int],
        timeout: _Timeout,
    ) -> Any:
        """Ask, and ask again where the server has let the place in its queue go."""
        loop = asyncio.get_running_loop()
        allowed = self._client.default_timeout if timeout is ... else timeout
        deadline = None if allowed is None else loop.time() + allowed
        left = None
        while True:
            try:
                return await self._ask(start, left)
            except Forgotten as forgotten:
                left = None if deadline is None else deadline - loop.time()
                if left is not None and left <= 0.0:
                    message = f"nothing was granted within {allowed} s: {forgotten}"
                    raise LockTimeout(message) from None

    async def _ask(self, start: Callable[..., int], *arguments: Any) -> Any:
        requests: list[int] = []
        try:
            return await self._begin(requests, start, *arguments)
        except (asyncio.CancelledError, GeneratorExit):
            self._core.decline(requests)
            raise
        finally:
            self._core.settle(requests)

    def _begin(
        self, requests: list[int], start: Callable[..., int], *arguments: Any
    ) -> asyncio.Future[Any]:
        """Ask, and put the number of the request to `requests`: to be settled or declined."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._attach(loop)
        elif loop is not self._loop:
            message = "the client belongs to another event loop: make one in each"
            raise RuntimeError(message)
        future: asyncio.Future[Any] = loop.create_future()
        requests.append(start(future, *arguments))
        if not self._flush_is_due:
            self._flush_is_due = True
            loop.call_soon(self._flush)
        return future

    def _attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the running event loop watch the sockets."""
        self._descriptor = self._core.fileno()
        # The loop does not keep the client alive.
        this = weakref.ref(self)

        def collect() -> None:
            client = this()
            if client:
                client._collect()

        def collect_in_time() -> None:
            client = this()
            if client:
                client._timer = None
                client._collect()

        self._on_timer = collect_in_time
        loop.add_reader(self._descriptor, collect)
        self._loop = loop

    def _flush(self) -> None:
        self._flush_is_due = False
        self._collect()

    def _collect(self) -> None:
        """Send what was asked and resolve the futures whose answers have come."""
        if self._closed or self._loop is None:
            return
        self._tell_news()
        self._core.collect()
        due = self._core.poll_timeout()
        if due is None:
            return
        at = self._loop.time() + due
        if self._timer is None or at < self._timer.when():
            if self._timer:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._on_timer)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
