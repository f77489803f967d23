"""What holders of locks noted of their critical sections, and whether two were in one at a time.

A holder notes the instant after the lock was granted, and then, again and again, an instant after
which it found the lease to be held. So it held the lock from the first to the last of them. What it
did later it did without the lock, as it could see: a process may be stopped anywhere.
"""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Note(NamedTuple):
    """A line: this lock was held from `enter` to `leave` at least, in nanoseconds."""

    token: int
    key: str
    enter: int
    leave: int
    who: str


def read(log: Path) -> Iterator[Note]:
    """The lines of all holders; a last one may be cut off."""
    for line in log.read_text(encoding="ascii").splitlines(keepends=True):
        if line.endswith("\n"):
            yield Note(*json.loads(line))


def sections(notes: Iterable[Note]) -> dict[str, list[Note]]:
    """The critical sections of each key, in the order in which they were entered."""
    longest: dict[tuple[str, int, str, int], Note] = {}
    for note in notes:
        section = (note.key, note.token, note.who, note.enter)
        longest[section] = max(note, longest.get(section, note), key=lambda one: one.leave)
    by_key = defaultdict(list)
    for note in sorted(longest.values(), key=lambda one: one.enter):
        by_key[note.key].append(note)
    return dict(sorted(by_key.items()))


def violations(notes: Iterable[Note]) -> list[str]:
    """Where two held a lock at one time, or a later holder had no higher token."""
    found = []
    for ordered in sections(notes).values():
        last = ordered[0]
        for one in ordered[1:]:
            if one.enter <= last.leave:
                found.append(f"{last.who} and {one.who} at once: {last} and {one}")
            if one.token <= last.token:
                found.append(f"a token that is not above the one before: {last} and {one}")
            # Whoever stays longest is the one to be met by those that follow.
            last = max(last, one, key=lambda note: note.leave)
    return found


def shortest_gap(ordered: Iterable[Note]) -> int | None:
    """The shortest time for which nobody was seen to hold a lock, in nanoseconds."""
    return min((after.enter - before.leave for before, after in pairwise(ordered)), default=None)
