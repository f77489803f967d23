"""What a client takes and gives back: permits that are held, and reservations."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from zmqlocker._exceptions import ConfigError, LockerError, NotHeld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zmqlocker._zmqlocker import Decision, Held

_LOG = logging.getLogger("zmqlocker")

#: As much as a request may cost.
_SPENT_MAX = 10**12


class _Holding:
    """What a lease and a reservation have in common."""

    _held: Held | None = None

    def __init__(self, client: Any, wanted: tuple[Any, ...], options: Any) -> None:
        """Remember whom to ask, and what for."""
        self._client, self._wanted, self._options = client, wanted, options

    @property
    def decision(self) -> Decision:
        """The decision by which it was granted."""
        return self._now().decision

    def _must_be_free(self) -> None:
        if self._held is not None and not self._held.given_back:
            message = "the block is entered already: make another one"
            raise LockerError(message)

    def _now(self) -> Held:
        if self._held is None:
            message = "nothing is held: enter the `with` block first"
            raise NotHeld(message)
        return self._held


class _Lease(_Holding):
    """Permits of a concurrency limit, as their holder sees them."""

    @property
    def remaining(self) -> float:
        """For how many seconds the permits are safe if no server is heard; 0.0 if they are lost."""
        return self._now().remaining

    @property
    def lost(self) -> bool:
        """Whether others may have the permits by now."""
        return self._now().remaining <= 0.0

    def _warn_of_loss(self) -> None:
        if self.lost:
            keys = ", ".join(key for key, _ in self._now().parts)
            _LOG.warning("the permit of %s was lost before it was given back", keys)


class _Reservation(_Holding):
    """Permits of which some may go back."""

    def _spend(self, spent: int | Mapping[str, int]) -> list[int]:
        """What was spent of each key, in the order of the reservation."""
        held = self._now()
        if held.given_back:
            message = "the reservation is settled already"
            raise NotHeld(message)
        parts = held.parts
        if isinstance(spent, int):
            if len(parts) > 1:
                message = "spent must be a dict that says how much of each key was spent"
                raise ConfigError(message)
            by_key = {parts[0][0]: spent}
        else:
            by_key = dict(spent)
        unknown = by_key.keys() - {key for key, _ in parts}
        if unknown or not all(0 <= permits <= _SPENT_MAX for permits in by_key.values()):
            message = f"spent must be from 0 to {_SPENT_MAX}, of keys that were reserved: {by_key}"
            raise ConfigError(message)
        return [by_key.get(key, cost) for key, cost in parts]

    def _nothing(self) -> dict[str, int]:
        """What was spent of each key if all goes back."""
        return {key: 0 for key, _ in self._now().parts}
