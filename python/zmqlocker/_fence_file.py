"""Where a fence that outlives its process remembers: a file of SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from zmqlocker._exceptions import ConfigError
from zmqlocker._fence import busy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: How often somebody who waits looks, in seconds.
_LOOK_EVERY = 0.001


class FenceFile:
    """Remembers in a file, by SQLite: each visit is a connection, so that processes may fork."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout = path, timeout
        with self._opened("rwc") as table, table.alone():
            table.make()

    @contextlib.contextmanager
    def visit(self) -> Iterator[FenceTable]:
        # A file that is gone meanwhile is not made anew: it would let anybody in.
        with self._opened("rw") as table:
            yield table

    @contextlib.contextmanager
    def _opened(self, mode: str) -> Iterator[FenceTable]:
        try:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode={mode}", uri=True, timeout=0.0, isolation_level=None
            )
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        with contextlib.closing(connection):
            yield FenceTable(connection, self)

    def one(self, connection: sqlite3.Connection, statement: str, *values: str | int) -> Any:
        """The first value that a statement gives. Waits while others are at it."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                row = connection.execute(statement, values).fetchone()
            except sqlite3.Error as error:
                if "locked" not in str(error):
                    raise self._unusable(error) from error
                if time.monotonic() >= deadline:
                    raise busy(self._timeout) from error
                # SQLite itself would look ever more rarely, so that others who come overtake.
                time.sleep(_LOOK_EVERY)
            else:
                return None if row is None else row[0]

    def _unusable(self, error: sqlite3.Error) -> ConfigError:
        return ConfigError(
            f"the fence {str(self._path)!r} cannot be used: {error}: make it readable and "
            "writable, restore it, or start with a new one once no holder of old is left"
        )


class FenceTable:
    """The file while it is open."""

    def __init__(self, connection: sqlite3.Connection, file: FenceFile) -> None:
        self._connection, self._file = connection, file
        # What is committed is on the disk, the names of files too.
        self._one("PRAGMA synchronous = EXTRA")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        self._one("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._one("ROLLBACK")
            raise
        self._one("COMMIT")

    def make(self) -> None:
        self._one(
            "CREATE TABLE IF NOT EXISTS zmqlocker_fence "
            "(number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, token INTEGER NOT NULL)"
        )

    def newest(self, key: str) -> int | None:
        newest: int | None = self._one("SELECT token FROM zmqlocker_fence WHERE key = ?", key)
        return newest

    def keys(self) -> int:
        # No key is ever forgotten.
        keys: int = self._one("SELECT max(number) FROM zmqlocker_fence") or 0
        return keys

    def remember(self, key: str, token: int) -> None:
        self._one(
            "INSERT INTO zmqlocker_fence (key, token) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET token = excluded.token",
            key,
            token,
        )

    def _one(self, statement: str, *values: str | int) -> Any:
        return self._file.one(self._connection, statement, *values)
