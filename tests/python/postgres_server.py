"""PostgreSQL, as Debian packages it: in a folder of its own, on a port that is free."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PATIENCE = 60.0

#: One that a URL cannot have as it is.
PASSWORD, IN_URLS = "s@cret", "s%40cret"


def program(name: str) -> str:
    """Where a program is; Debian keeps those of a server off the PATH."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = sorted(versions, key=lambda path: int(path.parts[-3]))
    found = str(newest[-1]) if newest else shutil.which(name)
    assert found, f"{name} is not here: run scripts/debian"
    return found


class PostgresServer:
    """A server at this address, started by commands that begin with these words."""

    def __init__(self, address: str = "127.0.0.1", within: Sequence[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="zmqlocker-postgres-"))
        self._within = list(within)
        if os.getuid() == 0:
            # It refuses to be root.
            user = pwd.getpwnam("postgres")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            ids = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}")
            self._within += ["setpriv", *ids, "--clear-groups"]
        self._port = free_port()
        self._options = f"-h {address} -p {self._port} -k ''"
        #: What servers are told as their registry.
        self.url = f"postgresql://me:{IN_URLS}@{address}:{self._port}/postgres"
        self._make()
        self.start()

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._within, program(name), f"--pgdata={self._data}", *arguments]
        # What it starts goes on with the output that it was given.
        with (self._folder / name).open("w+") as told:
            done = subprocess.run(
                command,
                check=False,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=told,
                timeout=PATIENCE,
            )
            told.seek(0)
            assert done.returncode == 0, told.read()

    def _make(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        access = ("--username=me", "--auth=scram-sha-256", f"--pwfile={password}")
        self._run("initdb", *access, "--no-sync")
        (self._data / "pg_hba.conf").write_text("host all all samenet scram-sha-256\n")

    def start(self) -> None:
        """Start it; it accepts connections when this returns."""
        log = f"--log={self._folder / 'log'}"
        self._run("pg_ctl", "start", "--wait", log, f"--options={self._options}")

    def crash(self) -> None:
        """End it at once, as its crash would; it is gone when this returns."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def freeze(self) -> None:
        """Stop all its processes: connections stay, and nothing is answered."""
        for process in self._processes():
            os.kill(process, signal.SIGSTOP)
            # It is no child of ours: the system tells nobody else when it has stopped.
            while not stands_still(process):
                time.sleep(0.001)

    def go_on(self) -> None:
        for process in self._processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def _processes(self) -> Iterator[int]:
        """The server, which starts no other ones once it was stopped, and those it has started."""
        first = (self._data / "postmaster.pid").read_text().split()[0]
        yield int(first)
        for other in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            yield int(other)

    def close(self) -> None:
        """End it, and leave nothing behind."""
        with contextlib.suppress(FileNotFoundError):
            self.go_on()
            self.crash()
        shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        """It runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.close()


def stands_still(process: int) -> bool:
    """Whether a process has stopped, or ended. The signal says so before it has."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(") ")[2][0] in "TZ"
