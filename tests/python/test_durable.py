"""`data_dir`: usage outlives the server, however it ends."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE
from zmqlocker import ConfigError, LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Script

#: Serves until it is told a line.
SERVER = """
    import sys
    from zmqlocker import LockerServer
    url, limits, folder = "tcp://127.0.0.1:*", {"*": sys.argv[1]}, sys.argv[2]
    with LockerServer(url=url, limits=limits, data_dir=folder, block=False) as server:
        print(server.url)
        sys.stdin.readline()
"""

KINDS = pytest.mark.parametrize("kind", ["", " sliding", " gcra"])


def take(url: str, count: int) -> int:
    """Ask so often; how often it was "go"."""
    with LockerClient(url, timeout=PATIENCE) as client:
        return sum(client.next() == "go" for _ in range(count))


@KINDS
@pytest.mark.parametrize("limit", [10, 320])
def test_kills_in_the_middle_of_use_give_no_second_budget(
    script: Callable[..., Script], tmp_path: Path, kind: str, limit: int
) -> None:
    went = 0
    kills = 4
    for _ in range(kills):
        server = script(SERVER, f"{limit}/day{kind}", str(tmp_path))
        went += take(server.line(), limit // 5)
        server.kill()
    server = script(SERVER, f"{limit}/day{kind}", str(tmp_path))
    went += take(server.line(), limit)
    assert limit - kills * (limit // 16) <= went <= limit


@KINDS
def test_a_clean_stop_loses_nothing(
    script: Callable[..., Script], tmp_path: Path, kind: str
) -> None:
    went = 0
    for _ in range(4):
        server = script(SERVER, f"320/day{kind}", str(tmp_path))
        went += take(server.line(), 64)
        server.tell()
        assert server.finish()[0] == 0
    server = script(SERVER, f"320/day{kind}", str(tmp_path))
    went += take(server.line(), 320)
    assert went == 320


def test_a_grant_that_was_heard_is_on_the_disk(
    script: Callable[..., Script], tmp_path: Path
) -> None:
    for number in range(5):
        server = script(SERVER, "1/day", str(tmp_path))
        assert take(server.line(), 1) == int(number == 0)
        server.signal(signal.SIGKILL)
        server.kill()


def test_a_limit_that_was_raised_meanwhile_gives_what_it_has_more(
    script: Callable[..., Script], tmp_path: Path
) -> None:
    server = script(SERVER, "5/day", str(tmp_path))
    assert take(server.line(), 6) == 5
    server.kill()
    server = script(SERVER, "8/day", str(tmp_path))
    assert take(server.line(), 8) == 3


def test_a_second_server_on_the_folder_is_refused(
    script: Callable[..., Script], tmp_path: Path
) -> None:
    server = script(SERVER, "5/day", str(tmp_path))
    server.line()
    who = f"process {server.pid} on host {re.escape(os.uname().nodename)}"
    expected = f'^data_dir "{tmp_path}" is in use by another server, {who}: stop that one, or'
    with pytest.raises(ConfigError, match=expected):
        LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False)
    server.kill()
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False):
        pass
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False):
        pass


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=folder, block=False) as server:
        assert take(server.url, 1) == 1
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        expected = f'data_dir "{folder}" cannot be used: .*: it must be a folder that this process'
        with pytest.raises(ConfigError, match=expected):
            LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=folder, block=False)


def test_a_disk_without_room_is_told_at_the_start(script: Callable[..., Script]) -> None:
    program = script("""
        import os, resource, signal, tempfile
        from zmqlocker import ConfigError, LockerServer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with tempfile.TemporaryDirectory() as folder:
            try:
                LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=folder, block=False)
            except ConfigError as error:
                print("cannot be used" in str(error), "on a disk with room" in str(error))
    """)
    assert program.finish() == (0, "True True\n", "")


def test_what_cannot_be_recorded_is_not_granted(script: Callable[..., Script]) -> None:
    program = script("""
        import resource, signal, tempfile, threading
        from zmqlocker import LockerClient, LockerError, LockerServer, LockTimeout
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        folder = tempfile.mkdtemp()
        url = "ipc://" + folder + "/socket"
        def spend():
            with LockerClient(url, timeout=1.0) as client:
                assert client.next() == "go"
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
                try:
                    print(client.next())
                except LockTimeout:
                    print("no answer")
        thread = threading.Thread(target=spend)
        thread.start()
        try:
            LockerServer(5, 60.0, url, data_dir=folder + "/data")
        except LockerError as error:
            print("cannot record what is used" in str(error), folder in str(error))
        thread.join()
    """)
    status, output, _ = program.finish()
    assert (status, sorted(output.split("\n"))) == (0, ["", "True True", "no answer"])


def test_a_file_that_is_none_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "usage.redb").write_bytes(b"not a database, but somebody's letters" * 100)
    with pytest.raises(ConfigError, match=r"usage\.redb in its place, or move it away"):
        LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False)
    assert (tmp_path / "usage.redb").read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("missing", [1, 4096, 100_000])
def test_a_file_that_was_cut_is_told_of(tmp_path: Path, missing: int) -> None:
    LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False).stop()
    file = tmp_path / "usage.redb"
    os.truncate(file, file.stat().st_size - missing)
    with pytest.raises(ConfigError, match=r"usage\.redb in its place, or move it away"):
        LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False)


@pytest.mark.parametrize("how", ["empty", "gone"])
def test_a_file_that_has_lost_all_is_warned_of(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def serve() -> list[str]:
        caplog.clear()
        LockerServer(1, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False).stop()
        return [record.message for record in caplog.records if record.levelname == "WARNING"]

    file = tmp_path / "usage.redb"
    # As a crash of the first start may leave it.
    file.touch()
    assert serve() == []
    assert serve() == []
    file.unlink()
    if how == "empty":
        file.touch()
    (warning,) = serve()
    assert warning.startswith(f'nothing is in usage.redb of the data_dir "{tmp_path}", though')
