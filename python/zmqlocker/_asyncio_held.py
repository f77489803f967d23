"""Permits that are held, reserved and lent, for event loops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqlocker import _zmqlocker
from zmqlocker._held import _Lease, _Reservation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import EllipsisType

    from typing_extensions import Self

    from zmqlocker import Decision
    from zmqlocker.asyncio import LockerClient

    _Timeout = float | EllipsisType | None


class Permit(_Lease):
    """Permits that are held while the `async with` block runs.

    A thread renews them that neither the GIL nor a busy event loop stops. They come back when the
    block ends, or when nothing was heard of this process for `ttl` seconds.
    """

    async def __aenter__(self) -> Self:
        """Wait for the permits. Never enters without them, or a policy that allows it."""
        self._must_be_free()
        self._held = await self._client._hold(self._wanted, self._options)
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Give the permits back. Waits for nothing, so that nothing can be cancelled."""
        self._warn_of_loss()
        self._now().let_go()


class Reservation(_Reservation):
    """Permits that are spent when the block ends, but for what `commit()` gives back."""

    async def __aenter__(self) -> Self:
        """Wait for the permits. Never enters without them, or a policy that allows it."""
        self._must_be_free()
        self._held = await self._client._hold(self._wanted, self._options)
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Spend what was reserved, if nothing else was said. Waits for nothing."""
        self._now().spend()

    async def commit(self, spent: int | Mapping[str, int]) -> None:
        """Say how much was spent: the rest goes back, what is beyond is counted.

        Raises `NotHeld` if it was said before.
        """
        await self._client._commit(self._now(), self._spend(spent))

    async def cancel(self) -> None:
        """Give everything back."""
        await self.commit(self._nothing())


class Block:
    """Permits of `key` that this process has in advance, as `zmqlocker.Block`.

    A permit that is there is spent without giving up the event loop.
    """

    def __init__(self, client: LockerClient, key: str) -> None:
        """Have nothing yet."""
        self._client = client
        self._block = _zmqlocker.Block(client._client, key)

    async def next(self) -> str:
        """Spend one permit: "go", or "sorry" if there is none."""
        return "go" if await self._refuse(1, ...) is None else "sorry"

    async def try_acquire(self, cost: int = 1, *, timeout: _Timeout = ...) -> Decision:
        """Spend `cost` permits if they are to be had now."""
        refusal = await self._refuse(cost, timeout)
        return self._block._allowed() if refusal is None else refusal

    async def acquire(self, cost: int = 1, *, timeout: _Timeout = ...) -> Decision:
        """Spend `cost` permits; where there are none, wait for them in the server's queue."""
        if await self._refuse(cost, timeout) is None:
            return self._block._allowed()
        return await self._client.acquire(self.key, cost, timeout=timeout)

    async def _refuse(self, cost: int, timeout: _Timeout) -> Decision | None:
        """Spend permits; `None` if they were spent, or else what the server says."""
        wanted = self._block._spend(cost)
        if isinstance(wanted, int):
            # Asked once, a server gives a block or says that there is none; one may be too small.
            await self._client._refill(self._block, wanted, timeout)
            wanted = self._block._spend(cost)
        if isinstance(wanted, int):
            decision = await self._client.try_acquire(self.key, cost, timeout=timeout)
            return None if decision else decision
        return wanted

    @property
    def key(self) -> str:
        """The key."""
        return self._block.key

    @property
    def left(self) -> int:
        """How many permits can be spent without asking."""
        return self._block.left

    def close(self) -> None:
        """Give back what was not spent. The block can still be used: it asks anew."""
        self._block.close()

    async def __aenter__(self) -> Self:
        """Give the block itself."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Give back what was not spent."""
        self.close()

    def __repr__(self) -> str:
        """Tell the key, and what is left."""
        return repr(self._block).replace("zmqlocker.", "zmqlocker.asyncio.", 1)
