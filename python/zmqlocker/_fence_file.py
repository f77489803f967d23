"""Where a fence that outlives its process remembers: a file of SQLite."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from typing import TYPE_CHECKING, Any

from zmqlocker._exceptions import ConfigError
from zmqlocker._fence import busy, entering

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: How often somebody who waits looks, in seconds.
_LOOK_EVERY = 0.001


class FenceFile:
    """Remembers in a file, by SQLite: each visit is a connection, so that processes may fork."""

    def __init__(self, path: Path, timeout: float, *, create: bool) -> None:
        self._path, self._timeout = path, timeout
        #: What was accepted here, whatever becomes of the file.
        self.seen: dict[str, int] = {}
        if create and not os.path.lexists(path):
            self._make()
        with self._opened(path) as table:
            table.check()

    @contextlib.contextmanager
    def visit(self) -> Iterator[FenceTable]:
        # A file that is gone meanwhile is not made anew: it would let anybody in.
        with self._opened(self._path) as table:
            yield table

    def _make(self) -> None:
        """Put a file there that is whole, unless somebody else has: an empty one lets nobody in."""
        made = self._path.with_name(f".zmqlocker-fence-{secrets.token_hex(8)}")
        try:
            with self._opened(made, "rwc") as table, table.alone():
                table.make()
            with contextlib.suppress(FileExistsError):
                os.link(made, self._path)
        except OSError as error:
            raise self.unusable(error) from error
        finally:
            with contextlib.suppress(OSError):
                made.unlink()

    @contextlib.contextmanager
    def _opened(self, path: Path, mode: str = "rw") -> Iterator[FenceTable]:
        try:
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode={mode}", uri=True, timeout=0.0, isolation_level=None
            )
        except sqlite3.Error as error:
            raise self.unusable(error) from error
        with contextlib.closing(connection):
            yield FenceTable(connection, self, str(path))

    def one(self, connection: sqlite3.Connection, statement: str, *values: str | int) -> Any:
        """The first value that a statement gives. Waits while others are at it."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                row = connection.execute(statement, values).fetchone()
            except sqlite3.Error as error:
                if "locked" not in str(error):
                    raise self.unusable(error) from error
                if time.monotonic() >= deadline:
                    raise busy(self._timeout) from error
                # SQLite itself would look ever more rarely, so that others who come overtake.
                time.sleep(_LOOK_EVERY)
            else:
                return None if row is None else row[0]

    def unusable(self, error: Exception | str) -> ConfigError:
        return ConfigError(
            f"the fence {str(self._path)!r} cannot be used: {error}: make it readable and "
            "writable, restore it, or start with a new one once no holder of old is left"
        )


class FenceTable:
    """The file while it is open."""

    def __init__(self, connection: sqlite3.Connection, file: FenceFile, path: str) -> None:
        self._connection, self._file, self._path = connection, file, path
        # What is committed is on the disk, the names of files too.
        self._one("PRAGMA synchronous = EXTRA")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with entering(self._path):
            self._one("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._one("ROLLBACK")
                raise
            self._one("COMMIT")

    def make(self) -> None:
        self._one(
            "CREATE TABLE zmqlocker_fence "
            "(number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, token INTEGER NOT NULL)"
        )

    def check(self) -> None:
        """Raise unless this is a fence. What is empty is none: it may have been one that knew."""
        if not self._one("SELECT count(*) FROM sqlite_master WHERE name = 'zmqlocker_fence'"):
            problem = "it remembers no tokens"
            raise self._file.unusable(problem)

    def newest(self, key: str) -> int | None:
        stored, seen = self._stored(key), self._file.seen.get(key)
        # Somebody may have put an older copy there, or a new file.
        return max((token for token in (stored, seen) if token is not None), default=None)

    def knows(self, key: str, token: int) -> bool:
        return self._stored(key) == token == self._file.seen.get(key)

    def keys(self) -> int:
        # No key is ever forgotten.
        keys: int = self._one("SELECT max(number) FROM zmqlocker_fence") or 0
        return max(keys, len(self._file.seen))

    def remember(self, key: str, token: int) -> None:
        self._one(
            "INSERT INTO zmqlocker_fence (key, token) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET token = excluded.token WHERE token < excluded.token",
            key,
            token,
        )
        self._file.seen[key] = token

    def _stored(self, key: str) -> int | None:
        stored: int | None = self._one("SELECT token FROM zmqlocker_fence WHERE key = ?", key)
        return stored

    def _one(self, statement: str, *values: str | int) -> Any:
        return self._file.one(self._connection, statement, *values)
