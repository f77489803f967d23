"""Locks over the end of their server, with a folder for its data and without."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import ConfigError, LockerClient, LockerServer, LockTimeout, NotHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Script

HOUR = 3600.0

#: After an end without a word no lock is granted for so long, in seconds.
GRACE = 1.0

#: Serves until it is told a line, or SIGTERM. An empty name is no folder.
SERVER = """
    import sys
    from zmqlocker import LockerServer
    url, folder = sys.argv[1:]
    with LockerServer(url=url, data_dir=folder or None, block=False) as server:
        print(server.url)
        sys.stdin.readline()
"""

#: Serves until SIGTERM, as the command does.
BLOCKING = """
    import sys
    from zmqlocker import LockerServer
    LockerServer(url=sys.argv[1], data_dir=sys.argv[2])
"""


class Place:
    """A server that ends and starts again at one URL."""

    def __init__(self, script: Callable[..., Script], url: str, folder: str) -> None:
        self._script, self.url, self._folder = script, url, folder
        self.start()

    def start(self) -> None:
        self.process = self._script(SERVER, self.url, self._folder)
        assert self.process.line() == self.url

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        self.process.tell()
        assert self.process.finish()[0] == 0

    def end(self, *, clean: bool) -> None:
        if clean:
            self.stop()
        else:
            self.kill()


@pytest.fixture
def place(script: Callable[..., Script], free_url: str, tmp_path: Path) -> Place:
    return Place(script, free_url, str(tmp_path / "data"))


@pytest.fixture
def client(place: Place) -> Iterator[LockerClient]:
    with LockerClient(place.url, name="holder", timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def other(place: Place) -> Iterator[LockerClient]:
    with LockerClient(place.url, name="other", timeout=PATIENCE) as client:
        yield client


CLEAN = pytest.mark.parametrize("clean", [False, True])


@CLEAN
@pytest.mark.parametrize("ttl", [1.0, 5.0, HOUR])
def test_a_holder_goes_on_to_hold_and_nobody_else_gets_the_lock(
    place: Place, client: LockerClient, other: LockerClient, ttl: float, *, clean: bool
) -> None:
    with client.lock("a", ttl=ttl) as lease:
        for _ in range(3):
            place.end(clean=clean)
            place.start()
            with pytest.raises(LockTimeout):
                other.lock("a").acquire(timeout=1.2 if ttl == 1.0 else 0.3)
            lease.check()
            (info,) = other.locks()
            assert [holder.token for holder in info.holders] == [lease.token]
    with other.lock("a") as later:
        assert later.token > lease.token


@CLEAN
def test_every_kind_of_lock_is_held_on(
    place: Place, client: LockerClient, other: LockerClient, *, clean: bool
) -> None:
    table, gpu = client.rw_lock("table", ttl=5.0), client.semaphore("gpu", 3, cost=2, ttl=1.0)
    leases = [table.read().acquire(), table.read().acquire(), gpu.acquire()]
    leases.append(client.lock(["a", "b"], ttl=5.0).acquire())
    place.end(clean=clean)
    place.start()
    with other.semaphore("gpu", 3), other.rw_lock("table").read():
        assert all(lease.held for lease in leases)
        assert other.rw_lock("table").write().try_acquire() is None
        assert other.semaphore("gpu", 3).try_acquire() is None
        assert other.lock("b").try_acquire() is None
        for lease in leases:
            lease.release()
    assert other.locks() == []


def test_who_waits_goes_on_to_wait_and_is_served(
    place: Place, client: LockerClient, script: Callable[..., Script]
) -> None:
    lease = client.lock("a", ttl=5.0).acquire()
    waiter = script(
        """
        import sys
        from zmqlocker import LockerClient
        with LockerClient(sys.argv[1]).lock("a", timeout=30.0):
            print("got it")
        """,
        place.url,
    )
    wait_until(lambda: any(info.waiters for info in client.locks()))
    for clean in (True, False):
        place.end(clean=clean)
        place.start()
        wait_until(lambda: any(info.waiters for info in client.locks()))
        lease.check()
    lease.release()
    assert waiter.line() == "got it"


def test_the_first_lock_after_an_end_without_a_word_is_granted_after_the_grace(
    place: Place, client: LockerClient
) -> None:
    with client.lock("a"):
        pass
    place.kill()
    killed = time.monotonic()
    place.start()
    assert client.lock("b").try_acquire() is None
    with client.lock("a"):
        # Whoever held a lock of the last run knows by now whether it does.
        assert time.monotonic() - killed >= GRACE
    later = client.lock("b").try_acquire()
    assert later is not None
    later.release()


def test_after_a_clean_stop_there_is_no_gap(place: Place, client: LockerClient) -> None:
    for _ in range(2):
        with client.lock("a"):
            pass
        place.stop()
        place.start()
        started = time.monotonic()
        lease: Any = None
        while lease is None:
            lease = client.lock("a").try_acquire()
        assert time.monotonic() - started < GRACE / 2
        lease.release()


def test_sigterm_is_a_clean_stop(
    script: Callable[..., Script], free_url: str, tmp_path: Path
) -> None:
    with LockerClient(free_url, timeout=PATIENCE) as client:
        first = script(BLOCKING, free_url, str(tmp_path))
        with client.lock("a", ttl=HOUR) as lease:
            first.signal(signal.SIGTERM)
            status, _, errors = first.finish()
            assert status == 0
            script(BLOCKING, free_url, str(tmp_path))
            with client.lock("b"):
                pass
            assert client.lock("a").try_acquire() is None
            lease.check()
        assert "without a word" not in errors


@pytest.mark.parametrize("ttl", ["0.8", "5.0"])
def test_a_holder_that_dies_with_its_server_holds_no_longer_than_its_ttl(
    place: Place, client: LockerClient, script: Callable[..., Script], ttl: str
) -> None:
    holder = script(
        """
        import sys
        from zmqlocker import LockerClient
        lease = LockerClient(sys.argv[1]).lock("a", ttl=float(sys.argv[2])).acquire()
        print(lease.token)
        sys.stdin.readline()
        """,
        place.url,
        ttl,
    )
    token = int(holder.line())
    holder.kill()
    killed = time.monotonic()
    place.kill()
    place.start()
    with client.lock("a") as lease:
        assert lease.token > token
        waited = time.monotonic() - killed
        # What was written down lasts as if its holder were heard at the start.
        assert waited >= max(GRACE, float(ttl) if float(ttl) > GRACE else 0.0)


def test_a_holder_that_hears_of_no_server_loses_its_lock_by_its_own_clock(
    place: Place, client: LockerClient
) -> None:
    lease = client.lock("a", ttl=0.3).acquire()
    place.kill()
    killed = time.monotonic()
    wait_until(lambda: lease.lost)
    assert time.monotonic() - killed < 0.3 + 0.2
    with pytest.raises(NotHeld, match="was lost"):
        lease.release()
    place.start()
    with client.lock("a") as later:
        assert later.token > lease.token


@CLEAN
def test_tokens_rise_over_restarts(place: Place, client: LockerClient, *, clean: bool) -> None:
    tokens = []
    for _ in range(4):
        for _ in range(3):
            with client.lock("a") as lease:
                tokens.append(lease.token)
        place.end(clean=clean)
        place.start()
    assert tokens == sorted(set(tokens))


def test_tokens_rise_though_the_clock_of_the_host_was_lost(
    script: Callable[..., Script], free_url: str, tmp_path: Path
) -> None:
    """The time of day of the later runs is of 1970: a library that is loaded first says so."""
    source = tmp_path / "clock.c"
    source.write_text("""
        #define _GNU_SOURCE
        #include <time.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        int clock_gettime(clockid_t clock, struct timespec *time) {
            int status = syscall(SYS_clock_gettime, clock, time);
            if (clock == CLOCK_REALTIME) time->tv_sec = 1000;
            return status;
        }
    """)
    library = str(tmp_path / "clock.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, str(source)], check=True)
    lost = f"""
        import os, sys
        if "LD_PRELOAD" not in os.environ:
            os.execve(sys.executable, [sys.executable, "-u", "-c", sys.argv[3], *sys.argv[1:]],
                      dict(os.environ, LD_PRELOAD={library!r}))
    """
    program = "\n".join(line[4:] for line in SERVER.splitlines()).replace(
        "sys.argv[1:]", "sys.argv[1:3]"
    )
    tokens = []
    with LockerClient(free_url, timeout=PATIENCE) as client:
        for source_of_server in (SERVER.replace("sys.argv[1:]", "sys.argv[1:3]"), lost, lost):
            server = script(source_of_server, free_url, str(tmp_path / "data"), program)
            assert server.line() == free_url
            for _ in range(2):
                with client.lock("a") as lease:
                    tokens.append(lease.token)
            server.kill()
    assert tokens == sorted(set(tokens))
    assert tokens[-1] < 2**63


def test_a_lock_that_was_released_or_broken_is_free_after_a_restart(
    place: Place, client: LockerClient, other: LockerClient
) -> None:
    client.lock("a", ttl=HOUR).acquire().release()
    broken = client.lock("b", ttl=HOUR).acquire()
    other.break_lock("b")
    left = LockerClient(place.url)
    kept = left.lock("c", ttl=HOUR).acquire()
    left.close()
    wait_until(lambda: other.locks() == [])
    place.kill()
    place.start()
    with other.lock(["a", "b", "c"], timeout=5.0):
        assert not broken.held
        assert not kept.held


def test_a_lease_that_is_not_renewed_ends_as_if_the_server_had_gone_on(
    place: Place, client: LockerClient, other: LockerClient
) -> None:
    granted = time.monotonic()
    lease = client.lock("slot", ttl=2.5, renew=False).acquire()
    place.kill()
    place.start()
    with other.lock("slot"):
        assert time.monotonic() - granted >= 2.5
        assert lease.lost


def test_without_a_folder_a_holder_goes_on_to_hold_unless_another_one_comes_first(
    script: Callable[..., Script], free_url: str
) -> None:
    place = Place(script, free_url, "")
    with (
        LockerClient(place.url, timeout=PATIENCE) as client,
        LockerClient(place.url, timeout=PATIENCE) as other,
    ):
        kept = client.lock("a").acquire()
        place.kill()
        place.start()
        wait_until(lambda: [info.key for info in other.locks()] == ["a"])
        assert other.lock("a").try_acquire() is None
        kept.check()
        kept.release()
        lost = client.lock("a", ttl=HOUR).acquire()
        place.kill()
        place.start()
        # The holder has nothing to say for long, so it does not know of the new run.
        with other.lock("a") as newer:
            assert newer.token > lost.token
            wait_until(lambda: lost.lost)
            with pytest.raises(NotHeld, match="was lost"):
                lost.release()
            newer.check()


def test_a_second_server_on_the_folder_is_told_who_has_it(place: Place, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"in use by another server, process {place.process.pid} on"
    ):
        LockerServer(url="tcp://127.0.0.1:*", data_dir=tmp_path / "data", block=False)


CANNOT_WRITE = """
    import sys
    from zmqlocker import ConfigError, LockerServer
    try:
        LockerServer(url=sys.argv[1], data_dir=sys.argv[2], block=False)
        print("serves")
    except ConfigError as error:
        print(error)
"""


@pytest.mark.parametrize("options", ["ro,size=1m", "size=16k"])
def test_a_folder_that_cannot_be_written_to_is_named_and_nothing_is_granted(
    free_url: str, tmp_path: Path, options: str
) -> None:
    folder = tmp_path / "mounted"
    folder.mkdir()
    program = f"""
import os, sys, textwrap
status = os.system("mount -t tmpfs -o {options} none {folder}")
assert status == 0
exec(textwrap.dedent({CANNOT_WRITE!r}))
"""
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", program, free_url, folder],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    expected = rf'data_dir "{re.escape(str(folder))}" cannot be used: .* must be a folder that'
    assert re.match(expected, ran.stdout), ran
