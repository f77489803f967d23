"""Bounds of connections at their edges: how many, how fast, how much of the server's memory."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import attacks
import msgpack
import pytest
import zmq
from conftest import PATIENCE, Script, wait_until
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    import logging
    import queue
    from collections.abc import Callable, Iterator

    Serve = Callable[..., LockerServer]
    Connect = Callable[[LockerServer], "Peer"]

HELLO, BEAT, SPEND, LEASE, PEEK = 0, 1, 2, 4, 9
WELCOME, HEARD, DECISION, QUEUED, REFUSE = range(5)
BOUND_EXCEEDED = 5
SECOND = 1_000_000_000

LIMITS: Any = {"k": "1000000/h", "one": "1 at once", "default": "1000000/h"}


@pytest.fixture
def serve() -> Iterator[Callable[..., LockerServer]]:
    with contextlib.ExitStack() as servers:

        def start(**bounds: int) -> LockerServer:
            url = "tcp://127.0.0.1:*"
            server = LockerServer(url=url, limits=LIMITS, bounds=bounds, block=False)
            return servers.enter_context(server)

        yield start


@pytest.fixture
def connect() -> Iterator[Connect]:
    with contextlib.ExitStack() as sockets:

        def start(server: LockerServer) -> Peer:
            peer = Peer(attacks.shake_hands(int(server.url.rpartition(":")[2])))
            sockets.callback(peer.socket.close)
            return peer

        yield start


class Peer:
    """A connection without a library."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(PATIENCE)
        self._bytes = b""
        self._items: list[list[Any]] = []

    def say(self, *items: list[Any]) -> None:
        self.socket.sendall(attacks.items(*items))

    def hear(self) -> list[Any]:
        """Give the next item; an empty one if the connection has ended."""
        while not self._items:
            while not (body := self._body()):
                some = self._receive()
                if not some:
                    return []
                self._bytes += some
            unpacker = msgpack.Unpacker()
            unpacker.feed(body)
            self._items.extend(unpacker)
        return self._items.pop(0)

    def greet(self, session: bytes | None = None) -> None:
        self.say(attacks.hello("peer", session))
        assert self.hear()[:2] == [WELCOME, 1]

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def _body(self) -> bytes:
        head = 9 if self._bytes[:1] == b"\2" else 2
        if len(self._bytes) < head:
            return b""
        length = int.from_bytes(self._bytes[1:head], "big")
        body, rest = self._bytes[head : head + length], self._bytes[head + length :]
        if len(body) < length:
            return b""
        self._bytes = rest
        return body


def has_ended(begin: Callable[[], Peer]) -> bool:
    """Whether a connection that is begun so is ended by the server."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        peer = begin()
        peer.say(attacks.hello())
        return peer.hear() == []
    return True


def test_connections_max_counts_connections(
    serve: Serve, connect: Connect, log: queue.SimpleQueue[logging.LogRecord]
) -> None:
    server = serve(connections_max=3)
    peers = [connect(server) for _ in range(3)]
    for peer in peers:
        peer.greet()
    assert has_ended(lambda: connect(server))
    wait_until(lambda: server.stats()["connections_ended"] == 1)
    bound = "there are 3, as many as may be (`connections_max`)"
    wait_until(lambda: bound in log.get(timeout=PATIENCE).getMessage())
    # Those who are there are served on, and when one has left there is room again.
    for peer in peers:
        peer.say([SPEND, 1, 0, "k"])
        assert peer.hear()[:3] == [DECISION, 1, True]
    peers.pop().socket.close()
    wait_until(lambda: server.stats()["connections"] == 2)
    connect(server).greet()
    assert server.stats()["connections_ended"] == 1


def test_connections_on_which_nothing_is_said_make_room(serve: Serve, connect: Connect) -> None:
    server = serve(connections_max=3)
    silent = [connect(server) for _ in range(3)]
    silent[0].socket.settimeout(0.1)

    def has_made_room() -> bool:
        assert client.try_acquire("k")
        with contextlib.suppress(TimeoutError):
            return silent[0].hear() == []
        return False

    # The client tries again until it is let in.
    with LockerClient(server.url, timeout=PATIENCE) as client:
        wait_until(has_made_room)
        assert client.try_acquire("k")


@pytest.mark.parametrize("most", [1, 5])
def test_client_requests_max_counts_requests_of_a_connection_in_a_second(
    serve: Serve, connect: Connect, most: int
) -> None:
    server = serve(client_requests_max=most)
    peer, other = connect(server), connect(server)
    for one in (peer, other):
        one.greet()
    number = 0
    # A second may go by in the midst of a message.
    for _ in range(100):
        peer.say(*([SPEND, number + some, 0, "k"] for some in range(most + 1)))
        number += most + 1
        answers = [peer.hear() for _ in range(most + 1)]
        refused = [answer for answer in answers if answer[0] == REFUSE]
        if len(refused) == 1:
            break
    assert refused == [answers[-1]]
    assert refused[0][2] == BOUND_EXCEEDED
    assert "`client_requests_max`" in refused[0][3]
    assert server.stats()["bounds_hit"] > 0
    other.say([SPEND, 1, 0, "k"])
    assert other.hear()[:3] == [DECISION, 1, True]

    def is_admitted() -> bool:
        peer.say([SPEND, number, 0, "k"])
        return bool(peer.hear()[0] == DECISION)

    wait_until(is_admitted)


def test_client_requests_max_counts_those_of_the_seeds_clients(
    serve: Serve,
) -> None:
    server = serve(client_requests_max=1)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.REQ) as seed:
        seed.linger, seed.rcvtimeo = 0, int(PATIENCE * 1000)
        seed.connect(server.url)
        answers = set[bytes]()
        while len(answers) < 2:
            seed.send(b"let me go")
            answers.add(seed.recv())
    refused = b"error: the client makes more requests in a second than one may"
    assert b"go" in answers
    assert any(answer.startswith(refused) for answer in answers)


def flood(peer: Peer, some: bytes, most: int) -> int:
    """Send until the connection is ended; how many bytes it took."""
    sent = 0
    with contextlib.suppress(ConnectionResetError, BrokenPipeError, TimeoutError):
        while sent < most:
            peer.socket.settimeout(1.0)
            sent += peer.socket.send(some)
    return sent


def test_a_message_that_never_ends_ends_its_connection(
    serve: Serve, connect: Connect, log: queue.SimpleQueue[logging.LogRecord]
) -> None:
    server = serve(connection_bytes_max=1 << 20)
    peer, other = connect(server), connect(server)
    for one in (peer, other):
        one.greet()
    flood(peer, attacks.frame(b"x" * 60_000, more=True) * 16, 1 << 30)
    wait_until(lambda: server.stats()["connections"] == 1)
    assert server.stats()["connections_ended"] == 1
    wait_until(lambda: "(`connection_bytes_max`)" in log.get(timeout=PATIENCE).getMessage())
    other.say([SPEND, 1, 0, "k"])
    assert other.hear()[:3] == [DECISION, 1, True]


def test_who_reads_nothing_loses_its_connection_and_no_answer(
    serve: Serve, connect: Connect
) -> None:
    server = serve(connection_bytes_max=4 << 20)
    session, number = b"a session's name", 0
    peer = connect(server)
    peer.greet(session)
    asked = [[SPEND, some, 0, "k"] for some in range(1000)]
    peer.say(*asked)
    many = attacks.items(*asked)
    wait_until(lambda: server.stats()["connections"] == 1)
    while server.stats()["connections"] == 1 and number < 10_000:
        with contextlib.suppress(OSError):
            flood(peer, many, len(many) * 16)
        number += 1
    assert server.stats()["connections_ended"] == 1
    # What it has asked was counted once, and is answered on the next connection.
    again = connect(server)
    again.say([HELLO, 1, session, "peer", "here", 1, 2], *asked)
    assert again.hear()[:2] == [WELCOME, 1]
    answers = [again.hear() for _ in asked]
    assert [answer[:3] for answer in answers] == [[DECISION, some, True] for some in range(1000)]
    again.say([PEEK, 2000, "k"])
    assert again.hear()[:4] == [DECISION, 2000, True, 999_000]


def test_a_connection_has_one_session_at_a_time(serve: Serve, connect: Connect) -> None:
    server = serve()
    peer = connect(server)
    for _ in range(3):
        peer.greet()
        # What the session before held is free.
        peer.say([LEASE, 1, 0, 60 * SECOND, "one"])
        assert peer.hear()[:3] == [DECISION, 1, True]
    assert server.stats()["clients"] == 1


def test_clients_that_have_left_without_a_word_make_room_for_others(
    serve: Serve, connect: Connect
) -> None:
    server = serve(sessions_max=2)
    for _ in range(2):
        peer = connect(server)
        peer.greet()
        # As a host that is switched off, or nearly so.
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.socket.close()

    def is_let_in() -> bool:
        peer = connect(server)
        peer.say(attacks.hello())
        op, _, code, *_ = peer.hear()
        assert op == WELCOME or code == BOUND_EXCEEDED
        return bool(op == WELCOME)

    assert not is_let_in()
    wait_until(is_let_in)


#: Serves with few files, and opens nearly all that are left when it is told to.
FEW_FILES = """
    import os, resource, sys
    from zmqlocker import LockerServer
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    with LockerServer(limits={"k": "1000000/h"}, url="tcp://127.0.0.1:*", block=False) as server:
        print(server.url)
        for line in sys.stdin:
            if line == "take\\n":
                taken = []
                try:
                    while True:
                        taken.append(os.dup(0))
                except OSError:
                    for _ in range(2):
                        os.close(taken.pop())
            print(server.stats()["connections"])
"""


def test_without_files_those_who_are_there_are_served_and_others_turned_away(
    script: Callable[..., Script],
) -> None:
    server = script(FEW_FILES)
    url = server.line()
    port = int(url.rpartition(":")[2])

    def connections(line: str = "") -> int:
        server.tell(line)
        return int(server.line())

    with LockerClient(url, timeout=PATIENCE) as client, contextlib.ExitStack() as sockets:
        assert client.try_acquire("k")
        # Half of the files are left for others: with more, connections are ended.
        for _ in range(200):
            sockets.enter_context(attacks.connect(port))
        wait_until(lambda: connections() <= 128)
        assert client.try_acquire("k")
        connections("take")
        for _ in range(20):
            sockets.enter_context(attacks.connect(port))
        for _ in range(100):
            assert client.try_acquire("k")
    with LockerClient(url, timeout=PATIENCE) as another:
        assert another.try_acquire("k")
