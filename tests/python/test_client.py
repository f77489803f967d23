"""`LockerClient`: waiting, restarts, late answers, several servers, threads, the end."""

from __future__ import annotations

import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
import zmq
from conftest import PATIENCE
from zmqlocker import (
    ConfigError,
    LockerClient,
    LockerError,
    LockerServer,
    LockTimeout,
    ProtocolError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Script

ASKING = """
    import sys
    from zmqlocker import LockerClient
    client = LockerClient(sys.argv[1])
    while True:
        print(client.next())
"""


def test_a_client_started_first_waits_and_then_runs(
    script: Callable[..., Script], serve: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    clients = [script(ASKING, free_url) for _ in range(3)]
    with pytest.raises(LockTimeout):
        LockerClient(free_url, timeout=0.3).next()
    serve(url=free_url)
    assert {client.line() for client in clients} == {"go"}


def test_a_server_killed_and_started_again_is_picked_up(
    serve: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    with LockerClient(free_url, timeout=PATIENCE) as client:
        for _ in range(5):
            server, _ = serve(1, 60.0, free_url)
            assert [client.next(), client.next()] == ["go", "sorry"]
            server.kill()


def test_a_request_under_way_when_the_server_dies_is_asked_again(
    serve: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    server, _ = serve(url=free_url)
    with LockerClient(free_url, timeout=PATIENCE) as client:
        client.next()
        server.stop()
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(client.next()))
        asking.start()
        server.kill()
        serve(url=free_url)
        asking.join(PATIENCE)
        assert answers == ["go"]


def test_a_late_answer_is_not_taken_for_a_later_one(
    serve: Callable[..., tuple[Script, str]],
) -> None:
    server, url = serve(2, 60.0)
    with LockerClient(url) as client:
        assert client.next() == "go"
        server.stop()
        with pytest.raises(LockTimeout, match=f"^no answer from {url} within 0.05 s$"):
            client.next(timeout=0.05)
        server.signal(signal.SIGCONT)
        # The answer to the request that timed out is "go", and took the last permit.
        assert [client.next() for _ in range(50)] == ["sorry"] * 50


def test_a_timeout_says_why_there_is_no_connection(free_url: str) -> None:
    with (
        LockerClient(free_url, timeout=0.1) as client,
        pytest.raises(
            LockTimeout, match=f"^no answer from {free_url} within 0.1 s: connection refu"
        ),
    ):
        client.next()


def test_a_timeout_is_a_timeout_error(free_url: str) -> None:
    with LockerClient(free_url) as client, pytest.raises(TimeoutError) as caught:
        client.next(timeout=0.01)
    assert isinstance(caught.value, LockerError)


def test_a_call_says_for_itself_how_long_it_waits() -> None:
    with (
        LockerServer(10, 60.0, "tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=0.000_001) as client,
    ):
        with pytest.raises(LockTimeout):
            client.next()
        assert client.next(timeout=PATIENCE) == "go"
        assert client.next(timeout=None) == "go"


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_timeout_out_of_bounds_is_named(free_url: str, timeout: float) -> None:
    match = r"^timeout must be above 0 and at most 1000000000 seconds, not"
    if timeout == 0:
        match += r" 0.0: `try_acquire\(\)` does not wait$"
    elif timeout == float("inf"):
        match += " inf: `None` waits without an end$"
    with pytest.raises(ConfigError, match=match):
        LockerClient(free_url, timeout=timeout)
    with LockerClient(free_url) as client, pytest.raises(ConfigError, match=match):
        client.next(timeout=timeout)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:7777",
        "tcp://localhost",
        "tcp://*:7777",
        "tcp://localhost:0",
        "tcp://a:1\0",
        [],
    ],
)
def test_a_url_that_can_never_work_is_named(url: str | list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^url "):
        LockerClient(url)


def test_at_most_64_servers_are_asked(free_url: str) -> None:
    LockerClient([free_url] * 64).close()
    with pytest.raises(ConfigError, match=r"^url must name 1 to 64 servers, not 65$"):
        LockerClient([free_url] * 65)


def test_requests_go_to_servers_that_answer(
    serve: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    first, first_url = serve()
    _, second_url = serve()
    with LockerClient([free_url, first_url, second_url], timeout=PATIENCE) as client:
        assert {client.next() for _ in range(10)} == {"go"}
        first.kill()
        assert {client.next() for _ in range(10)} == {"go"}


def test_a_server_that_is_silent_is_left_alone_until_it_answers() -> None:
    context = zmq.Context()
    mute = context.socket(zmq.ROUTER)
    mute.rcvtimeo = 0
    port = mute.bind_to_random_port("tcp://127.0.0.1")
    with (
        LockerServer(10**6, 60.0, "tcp://127.0.0.1:*", block=False) as server,
        LockerClient([f"tcp://127.0.0.1:{port}", server.url], timeout=PATIENCE) as client,
    ):
        answers = [client.next()]
        while not mute.poll(0):
            answers.append(client.next())
        asked = [mute.recv_multipart()]
        answers += [client.next() for _ in range(100)]
        assert set(answers) == {"go"}
        with pytest.raises(zmq.Again):
            asked.append(mute.recv_multipart())
        # An answer that comes late answers nothing, but is a sign of life: it is asked again.
        mute.send_multipart([*asked[0][:-1], b"late"])
        answers = ["go"]
        while not mute.poll(0) and len(answers) < 10_000:
            answers.append(client.next())
        assert mute.poll(0)
        assert set(answers) == {"go"}
    mute.close()
    context.term()


def test_what_answers_otherwise_is_no_server_of_this_kind() -> None:
    context = zmq.Context()
    other = context.socket(zmq.REP)
    port = other.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        other.recv()
        other.send(b"maybe")

    serving = threading.Thread(target=serve)
    serving.start()
    with (
        LockerClient(f"tcp://127.0.0.1:{port}", timeout=PATIENCE) as client,
        pytest.raises(ProtocolError, match=r'does not speak this protocol: it answered "maybe"$'),
    ):
        client.next()
    serving.join()
    other.close()
    context.term()


@pytest.mark.parametrize(
    ("greeting", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", "it is no ZeroMQ socket of version 4 or later"),
        (
            b"\xff" + b"\0" * 8 + b"\x7f\x02\x01",
            "it is no ZeroMQ socket of version 4 or later",
        ),
    ],
)
def test_a_timeout_says_what_is_wrong_with_a_stranger(greeting: bytes, problem: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.sendall(greeting)
                stream.recv(1000)

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with LockerClient(url, timeout=0.5) as client, pytest.raises(LockTimeout, match=problem):
            client.next()
        answering.join()


def test_threads_share_a_client_and_do_not_wait_for_each_other() -> None:
    answers: list[str] = []
    with (
        LockerServer(700, 60.0, "tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        threads = [
            threading.Thread(target=lambda: answers.extend(client.next() for _ in range(100)))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers.count("go") == 700
    assert answers.count("sorry") == 300


def test_a_thread_that_waits_does_not_hold_up_another() -> None:
    with (
        LockerServer(1, 2.0, "tcp://127.0.0.1:*", block=False, patience=60.0) as server,
        LockerClient(server.url) as client,
    ):
        client.next()
        waiting = threading.Thread(target=client.next)
        waiting.start()
        with pytest.raises(LockTimeout):
            client.next(timeout=0.05)
        assert waiting.is_alive()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()


def test_close_ends_the_waits_of_other_threads(free_url: str) -> None:
    client = LockerClient(free_url)
    caught: list[str] = []

    def wait() -> None:
        try:
            client.next()
        except LockerError as error:
            caught.append(str(error))

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    client.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert caught == ["the client is closed: make a new one"] * 5
    client.close()
    with pytest.raises(LockerError, match="closed"):
        client.next()


def test_ctrl_c_ends_a_wait_at_once(script: Callable[..., Script], free_url: str) -> None:
    client = script(
        """
        import sys
        from zmqlocker import LockerClient
        client = LockerClient(sys.argv[1])
        try:
            print("waiting")
            client.next()
        except KeyboardInterrupt:
            print("interrupted")
        """,
        free_url,
    )
    assert client.line() == "waiting"
    client.signal(signal.SIGINT)
    began = time.monotonic()
    assert client.line() == "interrupted"
    # The promise is 0.2 s; the rest is for a machine that is busy.
    assert time.monotonic() - began < 2.0
    assert client.finish()[0] == 0


def test_a_signal_whose_handler_returns_does_not_end_a_wait(
    script: Callable[..., Script], serve: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    client = script(
        """
        import signal, sys
        from zmqlocker import LockerClient
        signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
        client = LockerClient(sys.argv[1])
        print("waiting")
        print(client.next())
        """,
        free_url,
    )
    assert client.line() == "waiting"
    client.signal(signal.SIGUSR1)
    assert client.line() == "handled"
    serve(url=free_url)
    assert client.line() == "go"


def test_a_client_does_not_connect_to_itself(script: Callable[..., Script]) -> None:
    """Where nobody listens, TCP may connect a socket to its own port."""
    namespace = script(
        """
        import fcntl, socket, struct
        from zmqlocker import LockerClient, LockerServer
        SIOCSIFFLAGS, IFF_UP = 0x8914, 1
        with socket.socket() as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        with open("/proc/sys/net/ipv4/ip_local_port_range", "w") as ports:
            ports.write("40000 40019")
        client = LockerClient("tcp://127.0.0.1:40010")
        try:
            print(client.next(timeout=6.0))
        except TimeoutError:
            print("nobody")
        with LockerServer(1, 60.0, "tcp://127.0.0.1:40010", block=False):
            print(client.next())
    """,
        own_network=True,
    )
    assert namespace.finish()[:2] == (0, "nobody\ngo\n")


def test_a_peer_that_ends_amid_a_message_is_asked_again() -> None:
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01NULL" + b"\0" * 48
    ready = b"\x04\x26\x05READY\x0bSocket-Type\0\0\0\x03REP\x08Identity\0\0\0\0"
    numbers = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for complete in [False, True]:
                stream, _ = listener.accept()
                with stream, stream.makefile("rb") as received:
                    stream.sendall(greeting + ready)
                    received.read(64 + 30)
                    request = received.read(10 + 2 + 11)
                    numbers.append(request[2:10])
                    answer = request[:12] + b"\0\x02go"
                    stream.sendall(answer if complete else answer[:-1])

        serving = threading.Thread(target=serve)
        serving.start()
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with LockerClient(url, timeout=PATIENCE) as client:
            assert client.next() == "go"
        serving.join()
    assert numbers == [b"\0\0\0\0\0\0\0\x01"] * 2


def test_a_name_is_looked_up(serve: Callable[..., tuple[Script, str]]) -> None:
    _, url = serve(url="tcp://*:*")
    with LockerClient(url.replace("0.0.0.0", socket.gethostname()), timeout=PATIENCE) as client:
        assert client.next() == "go"


def test_a_name_that_nobody_knows_is_told() -> None:
    with (
        LockerClient("tcp://nobody.invalid:7777", timeout=2.0) as client,
        pytest.raises(LockTimeout, match=r"tcp://nobody.invalid:7777 within 2 s: failed to lookup"),
    ):
        client.next()


def test_the_repr_names_the_servers(free_url: str) -> None:
    with LockerClient(free_url) as client:
        assert repr(client) == f'zmqlocker.LockerClient("{free_url}")'
    with LockerClient([free_url, free_url]) as client:
        assert repr(client) == f'zmqlocker.LockerClient(["{free_url}", "{free_url}"])'
