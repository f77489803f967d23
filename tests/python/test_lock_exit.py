"""The end of a process gives back what it holds, whoever of its threads is still at work."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script

HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(limits={"seat": "1 at once"}, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="test", timeout=PATIENCE) as client:
        yield client


#: What a process holds at its end, for an hour if it is not given back.
HOLDINGS = {
    "a lease": 'lease = client.lock("a", ttl=3600.0).acquire()',
    "a lease with on_lost": (
        'lease = client.lock("a", ttl=3600.0, on_lost=lambda _: print("told")).acquire()'
    ),
    "a block of a daemon": """
def hold():
    with client.lock("a", ttl=3600.0), client.limit("seat", ttl=3600.0):
        held.set()
        threading.Event().wait()
""",
}


@pytest.mark.parametrize("holding", HOLDINGS.values(), ids=HOLDINGS)
@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit", "kill()"])
def test_a_process_that_ends_while_a_daemon_thread_lives_gives_back_what_it_holds(
    server: LockerServer,
    client: LockerClient,
    script: Callable[..., Script],
    holding: str,
    ending: str,
) -> None:
    program = script(
        f"""
import os, signal, sys, threading
from zmqlocker import LockerClient
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
def kill():
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
client, held, stay = LockerClient(sys.argv[1]), threading.Event(), threading.Event()
hold = held.set
{holding}
threading.Thread(target=hold, daemon=True).start()
threading.Thread(target=lambda client: stay.wait(), args=(client,), daemon=True).start()
held.wait()
print("holds")
sys.stdin.readline()
{ending}
        """,
        server.url,
    )
    assert program.line() == "holds"
    assert client.lock("a").try_acquire() is None
    program.tell()
    with client.lock("a"), client.limit("seat"):
        pass
    assert program.finish() == (0, "", "")


def test_a_process_that_ends_while_its_daemon_threads_wait_gets_no_lock_later(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    with client.lock("a", ttl=HOUR) as lease:
        program = script(
            """
            import sys, threading
            from zmqlocker import LockerClient
            client = LockerClient(sys.argv[1], timeout=None)
            for _ in range(3):
                threading.Thread(target=client.lock("a", ttl=3600.0).acquire, daemon=True).start()
            sys.stdin.readline()
            """,
            server.url,
        )
        wait_until(lambda: server.stats()["waiting"] == 3)
        began = time.monotonic()
        program.tell()
        assert program.finish() == (0, "", "")
        assert time.monotonic() - began < PATIENCE / 2
        wait_until(lambda: server.stats()["waiting"] == 0)
        lease.release()
    with client.lock("a"):
        pass


def test_what_was_never_released_is_warned_of_at_the_end(
    server: LockerServer, script: Callable[..., Script]
) -> None:
    source = """
        import sys, threading, warnings
        from zmqlocker import LockerClient
        warnings.simplefilter("always")
        client = LockerClient(sys.argv[1])
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        with client.lock("given back"):
            pass
        {}
    """
    leak = 'leases = [client.lock(key).acquire() for key in "ab"]'
    assert script(source.format("pass"), server.url).finish() == (0, "", "")
    status, _, errors = script(source.format(leak), server.url).finish()
    assert status == 0
    assert "ResourceWarning: 2 unreleased leases at the exit, which gives them back" in errors


def test_a_lease_that_frees_itself_outlasts_its_process(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    for number, thread in enumerate(["", "threading.Thread(target=stay, daemon=True).start()"]):
        program = script(
            f"""
            import sys, threading
            from zmqlocker import LockerClient
            client, stay = LockerClient(sys.argv[1]), threading.Event().wait
            client.lock("slot {number}", ttl=3600.0, renew=False).acquire()
            {thread}
            """,
            server.url,
        )
        assert program.finish() == (0, "", "")
        assert client.lock(f"slot {number}").try_acquire() is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_child_of_multiprocessing_gives_back_what_it_holds(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    program = script(
        """
        import multiprocessing, sys, threading
        from zmqlocker import LockerClient
        client = LockerClient(sys.argv[1])
        client.lock("of the parent", ttl=3600.0).acquire().release()
        def child():
            global lease
            lease = client.lock("a", ttl=3600.0).acquire()
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
        print(process.exitcode)
        sys.stdin.readline()
        """,
        server.url,
    )
    assert program.line() == "0"
    with client.lock("a"):
        pass
    program.tell()
    assert program.finish()[0] == 0
