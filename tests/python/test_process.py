"""What happens to a process: forks, threads that are left behind, the end of the interpreter."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE
from zmqlocker import Locker, LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Script


def test_a_forked_child_goes_on_with_the_client_of_its_parent(
    script: Callable[..., Script], serve: Callable[..., tuple[Script, str]]
) -> None:
    _, url = serve(400, 60.0)
    program = script(
        """
        import os, sys, threading
        from zmqlocker import LockerClient
        client = LockerClient(sys.argv[1])
        client.next()
        busy = threading.Thread(target=lambda: [client.next() for _ in range(199)])
        busy.start()
        children = []
        for _ in range(4):
            child = os.fork()
            if not child:
                answers = [client.next() for _ in range(50)]
                os._exit(answers != ["go"] * 50)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        busy.join()
        print(statuses, client.next())
        """,
        url,
    )
    assert program.finish() == (0, "[0, 0, 0, 0] sorry\n", "")


def test_a_forked_child_does_not_stop_the_server_of_its_parent(
    script: Callable[..., Script],
) -> None:
    program = script("""
        import os, sys
        from zmqlocker import LockerClient, LockerServer
        server = LockerServer(10, 60.0, "tcp://127.0.0.1:*", block=False)
        client = LockerClient(server.url, timeout=30.0)
        client.next()
        child = os.fork()
        if not child:
            server.stop()
            del server
            print("child", client.next())
            sys.exit()
        print("status", os.waitpid(child, 0)[1], client.next(), server.stats()["go"])
    """)
    assert program.finish() == (0, "child go\nstatus 0 go 3\n", "")


def test_a_forked_child_keeps_no_path_claimed(
    script: Callable[..., Script], tmp_path: Path
) -> None:
    program = script(
        """
        import fcntl, os, sys
        from zmqlocker import LockerServer
        path = sys.argv[1]
        server = LockerServer(10, 60.0, "ipc://" + path, block=False)
        def is_claimed():
            with open(path + ".lock", "r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
                return False
        from_child, to_child = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            server.stop()
            del server
            os.write(from_child[1], b"stopped")
            os.read(to_child[0], 1)
            os._exit(0)
        os.read(from_child[0], 7)
        print("beside the child", is_claimed())
        server.stop()
        print("after the stop", is_claimed())
        os.write(to_child[1], b"x")
        print("status", os.waitpid(child, 0)[1])
        LockerServer(10, 60.0, "ipc://" + path, block=False).stop()
        """,
        f"{tmp_path}/socket",
    )
    expected = "beside the child True\nafter the stop False\nstatus 0\n"
    assert program.finish() == (0, expected, "")


def ask(url: str) -> str:
    with LockerClient(url, timeout=PATIENCE) as client:
        return client.next()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_all_ways_of_multiprocessing_work(method: str) -> None:
    with (
        LockerServer(3, 60.0, "tcp://127.0.0.1:*", block=False) as server,
        multiprocessing.get_context(method).Pool(3) as pool,
    ):
        answers = pool.map(ask, [server.url] * 6)
    assert sorted(answers) == ["go"] * 3 + ["sorry"] * 3


@pytest.mark.parametrize(
    "ending", ["pass", "sys.exit(0)", "raise SystemExit", "os.kill(os.getpid(), 15)"]
)
def test_daemon_threads_that_wait_do_not_hold_up_the_exit(
    script: Callable[..., Script], free_url: str, ending: str
) -> None:
    program = script(
        f"""
        import os, signal, sys, threading
        from zmqlocker import LockerClient, LockerServer
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        answering = LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False)
        busy = LockerClient(answering.url)
        def ask():
            while True:
                busy.next()
        for _ in range(3):
            threading.Thread(target=ask, daemon=True).start()
        client = LockerClient(sys.argv[1])
        server = LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False)
        for _ in range(5):
            threading.Thread(target=client.next, daemon=True).start()
        threading.Thread(target=LockerServer, args=(1, 60.0, "inproc://a"), daemon=True).start()
        {ending}
        """,
        free_url,
    )
    status, output, errors = program.finish()
    assert (status, output) == (0, "")
    assert errors == ""


def test_the_exit_writes_out_the_log(script: Callable[..., Script]) -> None:
    program = script("""
        import logging
        from zmqlocker import LockerServer
        logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
        server = LockerServer(5, 0.8, "tcp://127.0.0.1:*", block=False)
    """)
    status, _, errors = program.finish()
    assert status == 0
    assert [line.split(" at ")[0] for line in errors.splitlines()] == [
        "zmqlocker serving 5/0.8s",
        "zmqlocker stopped serving",
    ]


def test_an_exit_handler_may_use_a_client(script: Callable[..., Script]) -> None:
    program = script("""
        import atexit
        atexit.register(lambda: print(client.next(timeout=0.3)))
        from zmqlocker import LockerClient, LockerServer
        server = LockerServer(1, 0.5, "tcp://127.0.0.1:*", block=False, patience=1.0)
        client = LockerClient("tcp://127.0.0.1:1")
        try:
            client.next(timeout=0.01)
        except TimeoutError as error:
            print(type(error).__name__)
        atexit.register(lambda: client.next(timeout=0.3))
    """)
    status, output, errors = program.finish()
    assert (status, output) == (0, "LockTimeout\n")
    assert errors.count("zmqlocker._exceptions.LockTimeout: no answer from") == 2


@pytest.mark.parametrize(
    "last_words",
    ["client.next(timeout=0.1)", "LockerServer(1, 60.0, 'tcp://127.0.0.1:*', block=False)"],
)
def test_what_happens_in_the_last_moments_of_an_interpreter_aborts_nothing(
    script: Callable[..., Script], last_words: str
) -> None:
    program = script(f"""
        from zmqlocker import LockerClient, LockerServer
        client = LockerClient("tcp://127.0.0.1:1")
        class Last:
            def __del__(self, client=client, LockerServer=LockerServer):
                {last_words}
        last = Last()
        last.itself = last
    """)
    status, _, errors = program.finish()
    assert status == 0
    assert "panicked" not in errors


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_locker_may_be_used_after_a_fork() -> None:
    locker = Locker(2, 3600.0)
    locker.next()
    child = os.fork()
    if not child:
        os._exit([locker.next(), locker.next()] != ["go", "sorry"])
    assert os.waitpid(child, 0)[1] == 0
    assert [locker.next(), locker.next()] == ["go", "sorry"]


def test_an_import_starts_no_thread() -> None:
    counted = subprocess.run(
        [sys.executable, "-c", "import os, zmqlocker; print(len(os.listdir('/proc/self/task')))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert counted.stdout == "1\n"


def test_the_gil_is_free_while_a_client_waits(script: Callable[..., Script], free_url: str) -> None:
    program = script(
        """
        import sys, threading
        from zmqlocker import LockerClient
        client = LockerClient(sys.argv[1])
        waiting = threading.Thread(target=client.next, daemon=True)
        waiting.start()
        print(sum(range(1_000_000)), waiting.is_alive())
        """,
        free_url,
    )
    assert program.finish()[1] == "499999500000 True\n"
