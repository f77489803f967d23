"""Locks between processes: holders that stop, hang, fork or are killed, and cycles of waits."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import DeadlockError, LockerClient, LockerServer, LockTimeout, NotHeld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(limits={"rate": "1/h"}, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


#: Holds a lock, and tells what it sees of it whenever it is told a line.
HOLDER = """
    import sys, time
    from zmqlocker import LockerClient
    now = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    client = LockerClient(sys.argv[1], name="holder")
    lease = client.lock("a", ttl=float(sys.argv[2])).acquire()
    print(lease.token)
    for line in sys.stdin:
        print(now(), lease.held, lease.lost)
    lease.release()
"""


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("ttl", [0.3, 0.8])
def test_a_holder_that_was_stopped_sees_at_its_first_look_that_it_has_lost(
    server: LockerServer, client: LockerClient, script: Callable[..., Script], ttl: float
) -> None:
    holder = script(HOLDER, server.url, str(ttl))
    token = int(holder.line())
    waiter = script(
        """
        import sys, time
        from zmqlocker import LockerClient
        now = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        with LockerClient(sys.argv[1]).lock("a", timeout=30.0) as lease:
            print(now(), lease.token)
            sys.stdin.readline()
        """,
        server.url,
    )
    wait_until(lambda: server.stats()["waiting"] == 1)
    # It looks at its lease all the time until it stands still.
    seen = 0
    for _ in range(20):
        holder.tell()
        at, held, _ = holder.line().split()
        assert held == "True"
        seen = int(at)
    holder.stop()
    stopped = time.monotonic()
    granted, next_token = map(int, waiter.line().split())
    # The other one had it only when the holder could not see it as held any more.
    assert granted > seen
    assert next_token > token
    wait_until(lambda: time.monotonic() - stopped > 2.0)
    holder.signal(signal.SIGCONT)
    holder.tell()
    _, held, lost = holder.line().split()
    assert (held, lost) == ("False", "True")
    # What it does at its end takes nothing from the one that holds now.
    holder.process.stdin.close()  # type: ignore[union-attr]
    holder.process.wait(PATIENCE)
    assert client.lock("a").try_acquire() is None
    waiter.tell()


@pytest.mark.parametrize(
    "hold_the_gil",
    [
        # None of them lets another Python thread run meanwhile.
        "ctypes.PyDLL(None).usleep(999_999)",
        "sum(range(60_000_000))",
        "re.match('(a|a)*b', 'a' * 24)",
    ],
)
def test_a_lock_is_renewed_while_the_gil_is_held(
    server: LockerServer, client: LockerClient, script: Callable[..., Script], hold_the_gil: str
) -> None:
    holder = script(
        f"""
        import ctypes, re, sys, time
        from zmqlocker import LockerClient
        with LockerClient(sys.argv[1]).lock("a", ttl=0.3) as lease:
            print("holds")
            began = time.monotonic()
            while time.monotonic() - began < 0.9:
                {hold_the_gil}
            print("lost" if lease.lost else "holds")
        """,
        server.url,
    )
    assert holder.line() == "holds"
    with client.lock("a"):
        assert holder.line() == "holds"


def test_a_holder_that_is_killed_holds_for_its_ttl_and_no_longer(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    for ttl in ("0.3", "0.8"):
        holder = script(HOLDER, server.url, ttl)
        token = int(holder.line())
        assert client.lock("a").try_acquire() is None
        holder.kill()
        killed = time.monotonic()
        with client.lock("a") as lease:
            assert lease.token > token
            assert time.monotonic() - killed < float(ttl) + 0.25


def test_a_waiter_that_is_killed_or_interrupted_never_gets_the_lock(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    waiting = """
        import sys
        from zmqlocker import LockerClient
        try:
            LockerClient(sys.argv[1], timeout=None).lock("a").acquire()
            print("got it")
        except KeyboardInterrupt:
            print("interrupted")
    """
    with client.lock("a"):
        killed, interrupted = script(waiting, server.url), script(waiting, server.url)
        wait_until(lambda: server.stats()["waiting"] == 2)
        interrupted.signal(signal.SIGINT)
        assert interrupted.line() == "interrupted"
        killed.kill()
        # It is silent, so its place is let go.
        wait_until(lambda: client.locks()[0].waiters == ())
    assert client.locks() == []


def test_a_clean_end_gives_locks_back_at_once(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    for ending in ("client.close()", "sys.exit(0)", "pass"):
        holder = script(
            f"""
            import sys
            from zmqlocker import LockerClient
            client = LockerClient(sys.argv[1])
            lease = client.lock("a", ttl=3600.0).acquire()
            print("holds")
            sys.stdin.readline()
            {ending}
            """,
            server.url,
        )
        assert holder.line() == "holds"
        holder.tell()
        with client.lock("a"):
            pass


def test_a_forked_child_owns_nothing_of_its_parent(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    program = script(
        """
        import gc, os, sys
        from zmqlocker import LockerClient, NotHeld
        client = LockerClient(sys.argv[1], timeout=20.0)
        lock = client.lock("a", ttl=3600.0, reentrant=True)
        lease = lock.acquire()

        def inherit(act):
            child = os.fork()
            if not child:
                try:
                    act()
                except BaseException as error:
                    print("child:", repr(error))
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0

        def look():
            assert (lease.held, lease.lost, lease.remaining) == (False, True, 0.0)
            try:
                lease.release()
            except NotHeld:
                pass

        def forget():
            global lease
            del lease
            gc.collect()

        def lock_by_itself():
            assert lock.try_acquire() is None
            with client.lock("b") as own:
                own.check()

        def close():
            client.close()

        def leave():
            with lease:
                raise SystemExit

        for act in (look, forget, lock_by_itself, close):
            inherit(act)
            assert lease.held
        child = os.fork()
        if not child:
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
        lease.check()
        print("held")
        sys.stdin.readline()
        lease.release()
        """,
        server.url,
    )
    assert program.line() == "held"
    (info,) = client.locks()
    assert (info.key, info.holders[0].pid) == ("a", program.pid)
    program.tell()
    assert program.finish() == (0, "", "")
    assert client.locks() == []


def add_one(arguments: tuple[str, str]) -> None:
    url, path = arguments
    with LockerClient(url, timeout=PATIENCE) as client, client.lock("counter"):
        # Without the lock, what another one has added meanwhile would be lost.
        with open(path) as file:  # noqa: PTH123
            count = int(file.read())
        time.sleep(0.001)
        with open(path, "w") as file:  # noqa: PTH123
            file.write(str(count + 1))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_of_multiprocessing_exclude_each_other(
    server: LockerServer, tmp_path: Any, method: str
) -> None:
    path = tmp_path / "count"
    path.write_text("0")
    with multiprocessing.get_context(method).Pool(4) as pool:
        pool.map(add_one, [(server.url, str(path))] * 80)
    assert path.read_text() == "80"


def test_a_cycle_of_waits_is_named_to_its_youngest_and_the_other_goes_on(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    program = """
        import sys
        from zmqlocker import DeadlockError, LockerClient
        url, name, first, second = sys.argv[1:]
        client = LockerClient(url, name=name, timeout=30.0)
        try:
            with client.lock(first):
                print("holds")
                sys.stdin.readline()
                with client.lock(second):
                    print("has both")
        except DeadlockError as error:
            print(error)
    """
    older = script(program, server.url, "older", "a", "b")
    younger = script(program, server.url, "younger", "b", "a")
    assert (older.line(), younger.line()) == ("holds", "holds")
    older.tell()
    wait_until(lambda: server.stats()["waiting"] == 1)
    younger.tell()
    message = younger.line()
    for part in (
        f"'MainThread', thread or task 1 of \"younger\" (process {younger.pid} on ",
        f'thread or task 1 of "older" (process {older.pid} on ',
        'waits for "a"; ',
        'waits for "b"; ',
    ):
        assert part in message
    assert message.count("has it with the token") == 2
    assert older.line() == "has both"
    assert older.finish()[0] == younger.finish()[0] == 0
    assert client.locks() == []


def test_threads_of_one_client_can_be_a_cycle(client: LockerClient) -> None:
    barrier, outcomes = threading.Barrier(2), list[str]()

    def both(first: str, second: str) -> None:
        with client.lock(first):
            barrier.wait()
            try:
                with client.lock(second):
                    outcomes.append("both")
            except DeadlockError as error:
                outcomes.append(f"deadlock: {error}")

    threads = [
        threading.Thread(target=both, args=pair, name=f"from {pair[0]}") for pair in ("ab", "ba")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    both_held, deadlock = sorted(outcomes)
    assert both_held == "both"
    assert "'from a', thread or task " in deadlock
    assert "'from b', thread or task " in deadlock


def test_a_pool_s_threads_are_nobody_in_a_cycle_of_waits(client: LockerClient) -> None:
    """What they acquire is used elsewhere: a worker that waits again is not who holds it."""
    with ThreadPoolExecutor(1) as pool:
        # The first of them is on its way before the pool has taken note of its thread.
        first = pool.submit(client.lock("a").acquire).result()
        second = pool.submit(client.lock("a", timeout=1.5).acquire)
        assert isinstance(second.exception(), LockTimeout)
        first.release()


def test_locks_are_renewed_again_after_a_server_has_stood_still_for_long(
    serve: Callable[..., tuple[Script, str]],
) -> None:
    server, url = serve()
    with LockerClient(url, timeout=PATIENCE) as client:
        kept = client.lock("kept", ttl=0.6).acquire()
        with client.lock("let go", ttl=0.6):
            server.stop()
        stopped = time.monotonic()
        # Meanwhile its answers are looked for, and the release is seen to.
        wait_until(lambda: time.monotonic() - stopped > 9.0)
        server.signal(signal.SIGCONT)
        with pytest.raises(NotHeld):
            kept.release()
        with client.lock("kept", ttl=0.3) as lease:
            renewed = time.monotonic()
            wait_until(lambda: time.monotonic() - renewed > 1.0)
            lease.check()
