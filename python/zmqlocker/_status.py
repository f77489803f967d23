"""What a server tells of itself to those who look at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How many rows are asked for where nothing else is said.
MOST = 100


@dataclass(frozen=True)
class ServerStatus:
    """What a server is doing, and has done since it started."""

    version: str
    #: Where it serves.
    url: str
    #: The number of this run: another run has another one.
    run: int
    #: For how many seconds it has run.
    uptime: float
    #: How its connections are secured: "none" or "curve".
    security: str
    #: Whether usage outlives it.
    durable: bool
    #: Whether it has joined its registry and reaches it, without which it grants nothing. None if
    #: it has none.
    registry: bool | None
    #: For how many seconds it grants no locks yet, because an earlier run may have granted them.
    grace: float
    #: How many requests were allowed, and how many refused.
    allowed: int
    refused: int
    #: How many requests could not be answered; and how often a bound of the server was the reason.
    problems: int
    bounds_hit: int
    #: How many messages were no requests.
    bad_messages: int
    #: How many there are at present.
    waiting: int
    keys: int
    leases: int
    clients: int


@dataclass(frozen=True)
class KeyInfo:
    """One of the busiest keys of a server."""

    key: str
    #: "limit" or "lock": one of each may have the same name.
    kind: str
    #: How many requests for it are answered a second, over the last few seconds.
    rate: float
    #: How many were allowed since it is counted for; permits of blocks count each.
    allowed: int
    #: How many were refused because of it.
    refused: int
    waiting: int
    #: How many leases of it are held.
    holders: int
    #: How many permits are left, by the limit that leaves the fewest.
    remaining: int
    #: In how many seconds nothing of it will be counted any more, if nothing more is granted.
    reset_after: float
    #: For how many seconds it is frozen.
    frozen: float
    #: The limit that leaves the fewest permits; of a lock its kind.
    limit: str


@dataclass(frozen=True)
class ClientInfo:
    """A client of a server."""

    name: str
    host: str
    pid: int
    #: Where its messages come from, where that is known.
    address: str | None
    #: For how many seconds the server knows it.
    since: float
    #: For how many seconds the server has heard nothing of it.
    silent: float
    #: How many leases and reservations it has.
    leases: int
    #: How many of its requests wait.
    waiting: int


def key_infos(rows: Sequence[Any], most: int) -> list[KeyInfo]:
    """Put the rows of all pages together: a key may have moved from one to the next."""
    infos: dict[tuple[str, bool], KeyInfo] = {}
    for (key, is_lock), (rate, allowed, refused), (waiting, holders), state in rows:
        kind = "lock" if is_lock else "limit"
        info = KeyInfo(key, kind, rate, allowed, refused, waiting, holders, *state)
        infos.setdefault((key, is_lock), info)
    # Each of several servers tells of its own keys.
    return sorted(infos.values(), key=lambda info: -info.rate)[:most]


def client_infos(rows: Sequence[Any], most: int) -> list[ClientInfo]:
    """Put the rows of all pages together."""
    infos = [
        ClientInfo(name, host, pid, address or None, since, silent, leases, waiting)
        for (name, host, pid), address, (since, silent), (leases, waiting) in rows
    ]
    return infos[:most]
