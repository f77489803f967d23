"""What clients noted of their grants, and whether there were too many of them.

A client notes the instants before it sent a request and after the answer came, both of the clock
that the server goes by. The grant was given at some instant between the two. So a law is broken for
certain only if it is broken wherever between the two the grants were: what is counted of an
interval are the grants that lie in it as a whole.

A server may end, and another one go on in its place. What outlives it is counted over all of its
lives. What does not is counted within each of them: of those grants that no other life can have
given.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SECOND = 1_000_000_000


class Life(NamedTuple):
    """From before a server was started until after it had ended."""

    start: int
    end: int


class Grant(NamedTuple):
    """Permits that were granted at some instant from `before` to `after`, in nanoseconds.

    Those of a block were spent between the two. A server lent them then, or at most `ahead` before.
    """

    before: int
    after: int
    cost: int = 1
    ahead: int = 0

    def within(self, life: Life) -> Grant:
        """The same, if it was given in that life."""
        if self.ahead:
            # It says when they were spent, which may be after the server's end.
            return self
        before, after = max(self.before, life.start), min(self.after, life.end)
        return self._replace(before=before, after=after)


class Held(NamedTuple):
    """Permits that were held at least from `start` to `end`, in nanoseconds.

    They were granted from `asked` to `got`.
    """

    start: int
    end: int
    cost: int = 1
    asked: int = 0
    got: int = 0


class Note(NamedTuple):
    """A line of a client: what it did, when, and what it got of which key.

    Of what is held, also when it was asked for and granted.
    """

    did: str
    before: int
    after: int
    key: str
    cost: int
    asked: int = 0
    got: int = 0


def read(log: Path) -> Iterator[Note]:
    """The lines of a client; the last one may be cut off by its end."""
    for line in log.read_text(encoding="ascii").splitlines(keepends=True):
        if line.endswith("\n"):
            yield Note(*json.loads(line))


@dataclass
class Rate:
    """A limit of a rate, and how to count what it allows."""

    max_requests: int
    in_seconds: float
    sliding: bool

    @property
    def length(self) -> int:
        """Its time in nanoseconds."""
        return round(self.in_seconds * SECOND)

    def allowed(self, length: int) -> int:
        """How many permits a closed interval of so many nanoseconds may see.

        Each part of it that is `in_seconds` long, closed at one end, has `max_requests` of a
        sliding window. Slots of a fixed window are open for `in_seconds` and open later than the
        end of the one before: so one that was open already may come in addition.
        """
        parts = max(-(-length // self.length), 1)
        return self.max_requests * (parts if self.sliding else parts + 1)

    def violations(self, grants: Iterable[Grant], since: int | None = None) -> list[str]:
        """Where too many grants were, whenever they were given exactly.

        The first request for the key came after `since`, or else is the first of `grants`.
        """
        found = []
        ordered = sorted(grants)
        for parts in (1, 2, 4, 8):
            length = parts * self.length
            start, most = busiest(ordered, length)
            if most > self.allowed(length):
                found.append(
                    f"{most} permits within {parts} x {self.in_seconds} s from {start} ns on, "
                    f"{self.allowed(length)} are allowed"
                )
        return found + self.too_many_in_sum(ordered, since)

    def violations_in_lives(self, grants: Iterable[Grant], lives: Iterable[Life]) -> list[str]:
        """Where too many grants were of a limit that begins anew in each life of the server."""
        grants, lives = list(grants), list(lives)
        found = []
        for life, own in by_life(grants, lives).items():
            found += self.violations(own, life.start)
        # Those that are of one life or another are counted here.
        slots = sum((life.end - life.start) // self.length + 1 for life in lives)
        total = sum(grant.cost for grant in grants)
        if total > slots * self.max_requests:
            allowed = slots * self.max_requests
            found.append(f"{total} permits in {len(lives)} lives, {allowed} are allowed")
        return found

    def too_many_in_sum(self, grants: list[Grant], since: int | None) -> list[str]:
        """Whether there were more than all slots have that opened, or all parts of the time.

        The first slot opens with the first request, so none was open before.
        """
        if not grants:
            return []
        if since is None:
            since = min(grant.before for grant in grants)
        elapsed = max(grant.after for grant in grants) - since
        slots = elapsed // self.length + 1
        total = sum(grant.cost for grant in grants)
        if total <= slots * self.max_requests:
            return []
        return [f"{total} permits in {elapsed} ns, {slots * self.max_requests} are allowed"]


def lives_between(asked: int, got: int, lives: Iterable[Life]) -> list[Life]:
    """The lives in which something can have been granted from the one instant to the other."""
    return [life for life in lives if life.start <= got and asked <= life.end]


def givers(grant: Grant, lives: Iterable[Life]) -> list[Life]:
    """The lives that can have given this. It is of none if nothing served that could."""
    return lives_between(grant.before - grant.ahead, grant.after, lives)


def by_life(grants: Iterable[Grant], lives: Iterable[Life]) -> dict[Life, list[Grant]]:
    """The grants that are of each life for certain."""
    certain: dict[Life, list[Grant]] = {life: [] for life in lives}
    for grant in grants:
        possible = givers(grant, certain)
        if len(possible) == 1:
            certain[possible[0]].append(grant.within(possible[0]))
    return certain


def held_by_life(
    held: Iterable[Held], lives: Iterable[Life], ttl: int
) -> tuple[dict[Life, list[Held]], list[Held]]:
    """What was held of each life for certain; and what no life can have lent for so long.

    A lease lasts until `ttl` after the last word to the server that granted it.
    """
    certain: dict[Life, list[Held]] = {life: [] for life in lives}
    overdue = []
    for one in held:
        possible = lives_between(max(one.asked, one.end - ttl), one.got, certain)
        if len(possible) == 1:
            certain[possible[0]].append(one)
        elif not possible:
            overdue.append(one)
    return certain, overdue


def busiest(ordered: list[Grant], length: int) -> tuple[int, int]:
    """The interval of that length with the most permits that lie in it as a whole.

    It may be moved to the right up to the first `before` in it, so only those are tried.
    """
    best = (0, 0)
    for place, first in enumerate(ordered):
        permits = 0
        for index in range(place, len(ordered)):
            grant = ordered[index]
            if grant.before > first.before + length:
                break
            if grant.after <= first.before + length:
                permits += grant.cost
        if permits > best[1]:
            best = (first.before, permits)
    return best


def most_at_once(held: Iterable[Held]) -> int:
    """How many permits were held at one instant, at least."""
    changes = []
    for one in held:
        if one.start < one.end:
            changes += [(one.start, one.cost), (one.end, -one.cost)]
    most = now = 0
    # What ends at an instant ends before something else starts at it.
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
