"""`LockerServer`: the constructor that serves, the server in the background, what it is sent."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq
from conftest import PATIENCE
from zmqlocker import ConfigError, LockerClient, LockerServer

if TYPE_CHECKING:
    import queue
    from collections.abc import Callable

    from conftest import Script

BLOCKING = """
    import sys
    from zmqlocker import LockerServer
    try:
        LockerServer(5, 60.0, sys.argv[1])
        print("returned")
    except KeyboardInterrupt:
        print("interrupted")
"""


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@pytest.mark.parametrize(
    ("number", "outcome"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "returned")]
)
def test_the_constructor_serves_until_a_signal(
    script: Callable[..., Script], free_url: str, number: signal.Signals, outcome: str
) -> None:
    server = script(BLOCKING, free_url)
    with LockerClient(free_url, timeout=PATIENCE) as client:
        assert [client.next() for _ in range(6)] == ["go"] * 5 + ["sorry"]
        server.signal(number)
        assert server.line() == outcome
    # As every server binds: connections that have ended may linger, a listener may not.
    socket.create_server(("127.0.0.1", port_of(free_url))).close()
    assert server.finish()[0] == 0


def test_a_handler_of_the_users_for_sigterm_stays(
    script: Callable[..., Script], free_url: str
) -> None:
    server = script(
        """
        import signal, sys
        from zmqlocker import LockerServer
        def leave(number, frame):
            raise SystemExit(7)
        signal.signal(signal.SIGTERM, leave)
        LockerServer(5, 60.0, sys.argv[1])
        """,
        free_url,
    )
    with LockerClient(free_url, timeout=PATIENCE) as client:
        client.next()
    server.signal(signal.SIGTERM)
    assert server.finish()[0] == 7


def test_other_threads_run_while_the_constructor_serves(
    script: Callable[..., Script], free_url: str
) -> None:
    server = script(
        """
        import os, signal, sys, threading
        from zmqlocker import LockerClient, LockerServer
        def ask():
            with LockerClient(sys.argv[1]) as client:
                print(client.next(), sum(range(1000)))
            os.kill(os.getpid(), signal.SIGTERM)
        threading.Thread(target=ask).start()
        LockerServer(5, 60.0, sys.argv[1])
        """,
        free_url,
    )
    assert server.finish() == (0, "go 499500\n", "")


def test_a_server_in_the_background_tells_its_url() -> None:
    with LockerServer(2, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        assert server.url.startswith("tcp://127.0.0.1:")
        assert repr(server) == f'zmqlocker.LockerServer("{server.url}")'
        with LockerClient(server.url, timeout=PATIENCE) as client:
            assert [client.next() for _ in range(3)] == ["go", "go", "sorry"]
        assert (
            server.stats().items() >= {"bad_messages": 0, "go": 2, "sorry": 1, "waiting": 0}.items()
        )


def test_a_port_is_free_when_stop_returns(free_url: str) -> None:
    for _ in range(20):
        server = LockerServer(1, 60.0, free_url, block=False)
        with LockerClient(free_url, timeout=PATIENCE) as client:
            client.next()
            server.stop()
        server.stop()


def test_a_server_that_nobody_holds_stops(free_url: str) -> None:
    LockerServer(1, 60.0, free_url, block=False)
    gc.collect()
    LockerServer(1, 60.0, free_url, block=False).stop()


def test_several_servers_in_one_process_have_a_count_each() -> None:
    with (
        LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as one,
        LockerServer(2, 60.0, "tcp://127.0.0.1:*", block=False) as two,
        LockerClient(one.url, timeout=PATIENCE) as to_one,
        LockerClient(two.url, timeout=PATIENCE) as to_two,
    ):
        assert [to_one.next() for _ in range(2)] == ["go", "sorry"]
        assert [to_two.next() for _ in range(3)] == ["go", "go", "sorry"]


def test_all_transports_are_served(tmp_path: Path) -> None:
    for url in [
        "tcp://127.0.0.1:*",
        "tcp://[::1]:*",
        f"ipc://{tmp_path}/socket",
        f"ipc://@zmqlocker-{tmp_path.name}",
        "inproc://here",
    ]:
        for _ in range(2):
            with (
                LockerServer(1, 60.0, url, block=False) as server,
                LockerClient(server.url, timeout=PATIENCE) as client,
            ):
                assert [client.next(), client.next()] == ["go", "sorry"]


def test_an_inproc_server_may_come_back_under_its_client() -> None:
    with LockerClient("inproc://comes-back", timeout=PATIENCE) as client:
        for _ in range(3):
            with LockerServer(1, 60.0, "inproc://comes-back", block=False):
                assert [client.next(), client.next()] == ["go", "sorry"]


def test_a_port_in_use_is_named(free_url: str) -> None:
    with (
        LockerServer(1, 60.0, free_url, block=False),
        pytest.raises(ConfigError, match=f"^url {free_url} cannot be bound: the address is in use"),
    ):
        LockerServer(1, 60.0, free_url, block=False)


@pytest.mark.parametrize(
    "url",
    ["", "tcp://", "localhost:7777", "http://localhost:7777", "tcp://127.0.0.1", "tcp://a\0:1"],
)
def test_a_url_that_cannot_be_served_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^url "):
        LockerServer(1, 60.0, url, block=False)


@pytest.mark.parametrize("patience", [-0.1, float("nan"), float("inf")])
def test_patience_out_of_bounds_is_named(patience: float) -> None:
    with pytest.raises(ConfigError, match=r"^patience must be from 0 and at most 1000000000 s"):
        LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False, patience=patience)


def test_garbage_is_answered_and_counted_and_stops_nothing() -> None:
    context = zmq.Context()
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        dealer = context.socket(zmq.DEALER)
        dealer.rcvtimeo = int(PATIENCE * 1000)
        dealer.connect(server.url)
        for garbage, answer in [
            ([b"let", b"me", b"go"], [b"error: an empty frame must stand before the body"]),
            ([b"", b"one", b"two"], [b"", b"error: one body frame must follow"]),
            ([b"number", b""], [b"number", b"", b"error: one body frame must follow"]),
            ([b"x"] * 20, [b"error: a message has at most 16 frames"]),
        ]:
            dealer.send_multipart(garbage)
            heard = dealer.recv_multipart()
            assert heard[:-1] == answer[:-1]
            assert heard[-1].startswith(answer[-1])
        with socket.create_connection(("127.0.0.1", port_of(server.url))) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 1000)
        giant = context.socket(zmq.DEALER)
        giant.linger = 0
        giant.connect(server.url)
        giant.send_multipart([b"", b"x" * 10_000_000])
        dealer.send_multipart([b"", b""])
        assert dealer.recv_multipart() == [b"", b"go"]
        assert server.stats()["bad_messages"] == 4
        giant.close()
        dealer.close()
    context.term()


def test_a_client_that_reads_nothing_does_not_hold_up_others() -> None:
    context = zmq.Context()
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        silent = context.socket(zmq.DEALER)
        silent.linger = 0
        silent.rcvhwm = 1
        silent.connect(server.url)
        # More answers than the buffers of the system hold: 20 MB of them.
        for _ in range(20_000):
            silent.send_multipart([b"x" * 1000, b"", b"let me go"])
        with LockerClient(server.url, timeout=PATIENCE) as client:
            heard = [client.next() for _ in range(1000)]
        assert set(heard) <= {"go", "sorry"}
        silent.close()
    context.term()


def test_all_who_wait_on_one_connection_are_answered() -> None:
    waiters = 5000
    context = zmq.Context()
    server = LockerServer(1, 3600.0, "tcp://127.0.0.1:*", block=False, patience=1e9)
    dealer = context.socket(zmq.DEALER)
    dealer.rcvtimeo = int(PATIENCE * 1000)
    dealer.rcvhwm = 0
    dealer.connect(server.url)
    for number in range(waiters + 1):
        dealer.send_multipart([b"%d" % number, b"", b"let me go"])
    assert dealer.recv_multipart() == [b"0", b"", b"go"]
    until = time.monotonic() + PATIENCE
    while server.stats()["waiting"] != waiters:
        assert time.monotonic() < until
    server.stop()
    for number in range(1, waiters + 1):
        assert dealer.recv_multipart() == [b"%d" % number, b"", b"sorry"]
    dealer.close()
    context.term()


def test_waiters_cost_what_they_say_of_themselves_and_not_what_they_ask() -> None:
    context = zmq.Context()
    with LockerServer(1, 3600.0, "tcp://127.0.0.1:*", block=False, patience=1e9) as server:
        dealer = context.socket(zmq.DEALER)
        dealer.linger = 0
        dealer.connect(server.url)
        before = resident_bytes()
        for _ in range(2001):
            dealer.send_multipart([b"", b"x" * 60_000])
        until = time.monotonic() + PATIENCE
        while server.stats()["waiting"] != 2000:
            assert time.monotonic() < until
        # The requests themselves are 120 MB.
        assert resident_bytes() - before < 60_000_000
        dealer.close()
    context.term()


def resident_bytes() -> int:
    # What was freed and is only kept for later does not count.
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_a_file_is_not_taken_for_a_dead_socket(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(
        ConfigError, match=r"cannot be bound: the path is taken by what is no socket"
    ):
        LockerServer(1, 60.0, f"ipc://{path}", block=False)
    assert path.read_text() == "data"


def test_a_unix_socket_in_use_is_not_taken_over(
    tmp_path: Path, script: Callable[..., Script]
) -> None:
    url = f"ipc://{tmp_path}/socket"
    living = script(
        """
        import sys
        from zmqlocker import LockerServer
        server = LockerServer(1, 60.0, sys.argv[1], block=False)
        print(server.url)
        sys.stdin.readline()
        """,
        url,
    )
    assert living.line() == url
    with pytest.raises(ConfigError, match=r"cannot be bound: the address is in use"):
        LockerServer(1, 60.0, url, block=False)
    living.kill()
    # What a server leaves behind that was killed is nobody's.
    LockerServer(1, 60.0, url, block=False).stop()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_unix_socket_whose_owner_takes_no_connection_is_in_use(
    tmp_path: Path, kind: socket.SocketKind
) -> None:
    with (
        socket.socket(socket.AF_UNIX, kind) as owner,
        socket.socket(socket.AF_UNIX, kind) as waiting,
    ):
        owner.bind(f"{tmp_path}/socket")
        if kind == socket.SOCK_STREAM:
            owner.listen(0)
            waiting.connect(f"{tmp_path}/socket")
        with pytest.raises(ConfigError, match=r"cannot be bound: the address is in use"):
            LockerServer(1, 60.0, f"ipc://{tmp_path}/socket", block=False)


@pytest.mark.parametrize(
    "make",
    [
        'LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False).stop()',
        'LockerServer(1, 60.0, "inproc://here", block=False).stop()',
        'LockerServer(1, 60.0, "ipc://@zmqlocker-%d" % os.getpid(), block=False).stop()',
    ],
)
def test_a_server_without_files_to_open_says_what_to_do(
    script: Callable[..., Script], make: str
) -> None:
    program = script(f"""
        import os, resource
        from zmqlocker import LockerError, LockerServer
        def count():
            # The folder itself is open while it is read.
            return len(os.listdir("/proc/self/fd")) - 1
        before, (_, hard) = count(), resource.getrlimit(resource.RLIMIT_NOFILE)
        for left in range(64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + left, hard))
            try:
                {make}
                print("served")
                break
            except LockerError as error:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
                print(count() - before, str(error).endswith("(ulimit -n)") or error)
    """)
    status, output, errors = program.finish()
    *refused, served = output.splitlines()
    assert (status, served, errors) == (0, "served", "")
    assert set(refused) == {"0 True"}


def test_a_client_within_the_process_without_files_to_open_is_told(
    script: Callable[..., Script],
) -> None:
    program = script("""
        import os, resource
        from zmqlocker import LockerClient, LockerError, LockTimeout
        before = len(os.listdir("/proc/self/fd")) - 1
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for left in range(64):
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + left, hard))
            try:
                with LockerClient("inproc://here", timeout=0.001) as client:
                    client.next()
            except LockTimeout:
                print("asked")
                break
            except LockerError as error:
                print(error)
    """)
    status, output, errors = program.finish()
    *refused, asked = output.splitlines()
    assert (status, asked, errors) == (0, "asked", "")
    assert any(line.endswith("(ulimit -n)") for line in refused)


def test_whoever_stops_a_server_finds_it_stopped(free_url: str) -> None:
    for _ in range(50):
        server = LockerServer(1, 60.0, free_url, block=False)
        first = threading.Thread(target=server.stop)
        first.start()
        server.stop()
        LockerServer(1, 60.0, free_url, block=False).stop()
        first.join()


def test_log_lines_tell_what_matters(log: queue.SimpleQueue[logging.LogRecord]) -> None:
    server = LockerServer(5, 0.8, "tcp://127.0.0.1:*", block=False)
    with LockerClient(server.url, timeout=PATIENCE) as client:
        for _ in range(3):
            client.next()
    server.stop()
    expected = [
        f"serving 5/0.8s at {server.url}, patience 0 s",
        "first request of client 127.0.0.1 (",
        f"stopped serving at {server.url}: 3 go, 0 sorry, 0 bad messages",
    ]
    for start in expected:
        record = log.get(timeout=PATIENCE)
        while not record.getMessage().startswith(start):
            # Of the server of a test before.
            assert server.url not in record.getMessage()
            record = log.get(timeout=PATIENCE)
        assert (record.name, record.levelname) == ("zmqlocker", "INFO")


def test_bad_messages_are_logged_ten_times_a_second_at_most(
    log: queue.SimpleQueue[logging.LogRecord],
) -> None:
    context = zmq.Context()
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        dealer = context.socket(zmq.DEALER)
        dealer.rcvtimeo = int(PATIENCE * 1000)
        dealer.connect(server.url)
        for _ in range(5000):
            dealer.send(b"garbage")
        for _ in range(5000):
            dealer.recv()
        dealer.close()
    context.term()
    lines = iter(lambda: log.get(timeout=PATIENCE).getMessage(), "")
    until_stop = list(itertools.takewhile(lambda line: not line.startswith("stopped"), lines))
    warnings = [line for line in until_stop if line.startswith("bad message")]
    assert 10 <= len(warnings) < 1000


def test_a_server_open_to_other_hosts_warns(script: Callable[..., Script]) -> None:
    server = script("""
        from zmqlocker import LockerServer
        LockerServer(1, 60.0, "tcp://*:*", block=False).stop()
    """)
    status, _, errors = server.finish()
    assert status == 0
    assert "is open to other hosts, without encryption" in errors


def test_a_handler_that_raises_or_blocks_does_not_stop_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, leave, reported = threading.Event(), threading.Event(), threading.Event()
    monkeypatch.setattr(sys, "unraisablehook", lambda _: reported.set())

    class Hostile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            leave.wait(PATIENCE)
            raise RuntimeError(record.getMessage())

    logger = logging.getLogger("zmqlocker")
    handler = Hostile()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as server:
            assert entered.wait(PATIENCE)
            with LockerClient(server.url, timeout=PATIENCE) as client:
                assert [client.next(), client.next()] == ["go", "sorry"]
            leave.set()
            assert reported.wait(PATIENCE)
    finally:
        leave.set()
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def test_a_unix_socket_is_gone_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        with LockerServer(url=f"ipc://{path}", block=False) as server:
            assert path.is_socket()
            with LockerClient(server.url) as client:
                assert client.next() == "go"
        assert not path.exists()
