"""The statements of the guide: a database refuses what a holder writes that was overtaken."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import sqlite3
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from conftest import PATIENCE, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GUIDE = Path(__file__).parents[2] / "docs" / "locks.md"
UPDATE, UPSERT = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
BOTH = pytest.mark.parametrize("statement", [UPDATE, UPSERT], ids=["update", "upsert"])
TABLE = "CREATE TABLE report (name TEXT PRIMARY KEY, text TEXT, fence BIGINT NOT NULL DEFAULT 0)"
NEWEST_TOKEN = (1 << 63) - 1


def write(connection: Any, statement: str, text: str, token: int) -> int:
    """Write as the holder of a token; how many rows that has changed."""
    if isinstance(connection, psycopg.Connection):
        statement = re.sub(r":(\w+)", r"%(\1)s", statement)
    values = {"name": "sales", "text": text, "token": token}
    changed: int = connection.execute(statement, values).rowcount
    return changed


def read(connection: Any) -> tuple[str, int]:
    row: tuple[str, int] = connection.execute("SELECT text, fence FROM report").fetchone()
    return row


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A server of its own in a temporary folder, reached by a socket there; how to connect."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: int(it.parent.name))
    found = programs[-1] / "initdb" if programs else shutil.which("initdb")
    assert found, "PostgreSQL is missing: run scripts/debian"
    program = Path(found).resolve().parent
    # It does not run as root; its package brings a user.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="zmqlocker-") as folder:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

        def run(name: str, *arguments: str) -> None:
            command = [str(program / name), "-D", f"{folder}/data", *arguments]
            quiet = subprocess.DEVNULL
            subprocess.run(
                command, check=True, cwd=folder, stdout=quiet, timeout=PATIENCE, user=user
            )

        run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--username=fence")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "start", "--wait", "--silent", f"--log={folder}/log", f"--options={options}")
        try:
            yield f"host={folder} user=fence dbname=postgres"
        finally:
            run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")


@pytest.fixture(params=["sqlite", "postgresql"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Any]]:
    """Connect to an empty table, each statement by itself; all that connected is closed."""
    opened: list[Any] = []

    def start() -> Any:
        if request.param == "sqlite":
            path = tmp_path / "reports"
            connection: Any = sqlite3.connect(
                path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        else:
            place = request.getfixturevalue("postgresql")
            connection = psycopg.connect(place, autocommit=True)
        opened.append(connection)
        return connection

    start().execute("DROP TABLE IF EXISTS report")
    opened[0].execute(TABLE)
    yield start
    for connection in opened:
        connection.close()


@BOTH
def test_a_newer_holder_writes_and_an_older_one_is_refused(
    connect: Callable[[], Any], statement: str
) -> None:
    old, new = connect(), connect()
    assert write(old, UPSERT, "first", 7) == 1
    assert write(old, statement, "again", 7) == 1
    assert write(new, statement, "newer", NEWEST_TOKEN) == 1
    assert write(old, statement, "too late", 7) == 0
    assert read(old) == ("newer", NEWEST_TOKEN)


@BOTH
def test_a_late_write_that_meets_a_newer_one_under_way_is_refused(
    connect: Callable[[], Any], statement: str
) -> None:
    old, new, watch = connect(), connect(), connect()
    assert write(old, UPSERT, "first", 7) == 1
    new.execute("BEGIN")
    assert write(new, statement, "newer", 8) == 1
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(write, old, statement, "too late", 7)
        if isinstance(watch, psycopg.Connection):
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: watch.execute(waiting).fetchone() == (1,))
        else:
            with pytest.raises(TimeoutError):
                late.result(0.1)
        new.execute("COMMIT")
        assert late.result(PATIENCE) == 0
    assert read(watch) == ("newer", 8)


@BOTH
def test_a_newer_write_that_is_taken_back_refuses_nobody(
    connect: Callable[[], Any], statement: str
) -> None:
    old, new = connect(), connect()
    assert write(old, UPSERT, "first", 7) == 1
    new.execute("BEGIN")
    assert write(new, statement, "newer", 8) == 1
    new.execute("ROLLBACK")
    assert write(old, statement, "again", 7) == 1
    assert read(new) == ("again", 7)
