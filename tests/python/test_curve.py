"""Servers with a key: who is let in, who is not, and what strangers see."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from conftest import PATIENCE, wait_until
from keys import KeyRing
from zmqlocker import (
    AuthError,
    ConfigError,
    LockerClient,
    LockerServer,
    ServerUnavailable,
)
from zmqlocker.asyncio import LockerClient as AsyncClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from keys import Key

#: How long a socket of pyzmq waits for what must come, in milliseconds.
MILLIS = int(PATIENCE * 1000)

#: How long a client may take to say that a key is wrong, of a timeout that is longer.
SOON = 2.5


def denied(call: Callable[[], object], problem: str) -> None:
    """Call, and hear soon that a key is wrong."""
    began = time.monotonic()
    with pytest.raises(AuthError, match=re.escape(problem)):
        call()
    assert time.monotonic() - began < SOON


def test_a_client_on_the_list_is_served(ring: KeyRing, worker: Key) -> None:
    with ring.serve() as server, LockerClient(server.url, **worker.client(ring.server)) as client:
        assert client.next() == "go"
        assert client.try_acquire("a", 3).remaining == 997
        with client.lock("b") as lease:
            assert lease.token > 0
        assert server.stats()["denied"] == 0


def test_the_servers_key_may_be_a_file(ring: KeyRing, worker: Key) -> None:
    keys: dict[str, Any] = {"server_key": ring.server.public_file, "key_file": str(worker.file)}
    with ring.serve() as server, LockerClient(server.url, **keys) as client:
        assert client.next("a") == "go"


def test_a_unix_socket_can_be_encrypted(ring: KeyRing, worker: Key, tmp_path: Path) -> None:
    url = f"ipc://{tmp_path}/socket"
    with ring.serve(url), LockerClient(url, **worker.client(ring.server)) as client:
        assert client.next("a") == "go"
    with ring.serve(url), LockerClient(url, timeout=PATIENCE) as client:
        denied(client.next, "it lets in clients with keys only")


def test_event_loops_and_threads_are_served(ring: KeyRing, worker: Key) -> None:
    async def ask(url: str) -> list[str]:
        async with AsyncClient(url, **worker.client(ring.server)) as client:
            return list(await asyncio.gather(*(client.next("a") for _ in range(50))))

    answers: list[str] = []
    with ring.serve() as server:
        assert asyncio.run(ask(server.url)) == ["go"] * 50
        with LockerClient(server.url, **worker.client(ring.server)) as client:
            ask_often = lambda: answers.extend(client.next("b") for _ in range(50))  # noqa: E731
            threads = [threading.Thread(target=ask_often) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert answers == ["go"] * 200


def test_a_client_goes_on_after_the_server_was_started_anew(
    ring: KeyRing, worker: Key, free_url: str
) -> None:
    with LockerClient(free_url, timeout=PATIENCE, **worker.client(ring.server)) as client:
        for _ in range(3):
            with ring.serve(free_url):
                assert client.next() == "go"
                assert client.next("a") == "go"


def test_messages_of_any_length_are_carried(ring: KeyRing, worker: Key) -> None:
    """The longest that the protocol has are not cut by what encryption adds."""
    with ring.serve() as server, zmq.Context() as context:
        stranger = context.socket(zmq.DEALER)
        worker.give(stranger, ring.server)
        stranger.connect(server.url)
        for size in (65_531, 65_532):
            stranger.send(b"\xc1" * size)
            assert stranger.poll(MILLIS)
            assert stranger.recv()
        stranger.close(0)
        keys = [f"{number:0250}" for number in range(500)]
        with LockerClient(server.url, **worker.client(ring.server)) as client:
            assert all(client.try_acquire_many(keys))


@pytest.mark.parametrize("ask", ["next", "acquire", "asyncio", "many", "policy"])
def test_every_way_of_asking_hears_that_a_key_is_unknown(
    ring: KeyRing, worker: Key, ask: str
) -> None:
    unknown = ring.key("unknown").client(ring.server)
    problem = "it does not let this client's key in: add the public key to the server's clients"

    async def await_it(url: str) -> None:
        async with AsyncClient(url, timeout=PATIENCE, **unknown) as client:
            await client.acquire("a")

    with ring.serve() as server, LockerClient(server.url, timeout=PATIENCE, **unknown) as client:
        ways: dict[str, Callable[[], Any]] = {
            "next": client.next,
            "acquire": lambda: client.acquire("a"),
            "asyncio": lambda: asyncio.run(await_it(server.url)),
            "many": lambda: client.try_acquire_many(["a", "b"]),
            "policy": lambda: client.try_acquire("a", on_failure="open"),
        }
        denied(ways[ask], f"{server.url} cannot be used: {problem}")
        denied(ways[ask], problem)
        assert server.stats()["denied"] >= 1
        assert server.stats()["go"] == 0
    assert worker.public not in problem


def test_a_wrong_key_of_the_server_is_seen(ring: KeyRing, worker: Key) -> None:
    other = ring.key("other")
    with (
        ring.serve() as server,
        LockerClient(server.url, timeout=PATIENCE, **worker.client(other)) as client,
    ):
        denied(client.next, "it hangs up when it hears server_key: it has another key")
        denied(lambda: client.next("a"), "it has another key")


def test_a_plain_client_is_told_that_it_needs_keys(ring: KeyRing, worker: Key) -> None:
    with ring.serve() as server, LockerClient(server.url, timeout=PATIENCE) as client:
        denied(client.next, "it lets in clients with keys only: give server_key and key_file")
        denied(lambda: client.next("a"), "it lets in clients with keys only")
        assert server.stats()["go"] == 0
    assert worker.file.exists()


def test_a_client_with_keys_says_nothing_to_a_server_without(ring: KeyRing, worker: Key) -> None:
    with (
        LockerServer(5, 60.0, "tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=PATIENCE, **worker.client(ring.server)) as client,
    ):
        denied(client.next, "it has no key, and so it is not the one that server_key is for")
        assert server.stats()["go"] == 0


def test_a_server_that_is_down_is_no_wrong_key(worker: Key, ring: KeyRing, free_url: str) -> None:
    with (
        LockerClient(free_url, timeout=0.5, **worker.client(ring.server)) as client,
        pytest.raises(ServerUnavailable, match="connection refused"),
    ):
        client.next("a")


def test_of_several_servers_one_that_lets_the_client_in_is_enough(
    ring: KeyRing, worker: Key, tmp_path: Path
) -> None:
    (tmp_path / "strict").mkdir()
    strict = KeyRing(tmp_path / "strict")
    strict.let_in()
    with ring.serve() as good, strict.serve(curve_key=ring.server.file) as bad:
        keys = worker.client(ring.server)
        with LockerClient([bad.url, good.url], timeout=PATIENCE, **keys) as client:
            assert [client.next("a") for _ in range(5)] == ["go"] * 5
        with LockerClient([bad.url, bad.url], timeout=PATIENCE, **keys) as client:
            denied(lambda: client.next("a"), "does not let this client's key in")


def test_clients_of_the_first_design_need_a_key_and_the_right(ring: KeyRing) -> None:
    worker, narrow, unknown = ring.key("worker"), ring.key("narrow"), ring.key("unknown")
    ring.let_in((worker, "default", ""), (narrow, "a", ""))
    with ring.serve() as server, zmq.Context() as context:
        no_right = b'error: this client has no right to use the key "default"'
        for key, answer in [(worker, b"go"), (narrow, no_right), (unknown, None), (None, None)]:
            asker = context.socket(zmq.REQ)
            if key:
                key.give(asker, ring.server)
            asker.connect(server.url)
            asker.send(b"let me go")
            answered = asker.poll(300 if answer is None else MILLIS)
            assert (asker.recv() if answered else None) == answer
            asker.close(0)
        assert server.stats()["go"] == 1
        with (
            LockerClient(server.url, **narrow.client(ring.server)) as client,
            pytest.raises(AuthError, match='no right to use the key "default"'),
        ):
            client.next()


def test_anybody_may_use_and_nobody_administer_where_all_are_let_in(ring: KeyRing) -> None:
    with (
        ring.serve(clients="*") as server,
        LockerClient(server.url, server_key=ring.server.public) as client,
    ):
        assert client.next("a") == "go"
        with pytest.raises(AuthError, match='no right to administer the key "a"'):
            client.reset("a")
        with LockerClient(server.url, timeout=PATIENCE) as plain:
            denied(plain.next, "it lets in clients with keys only")


class Tap:
    """Carries one connection to a server, and keeps what goes by."""

    def __init__(self, url: str) -> None:
        self._server = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.seen = b""
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        near, _ = self._listener.accept()
        with near, socket.create_connection(self._server) as far:
            back = threading.Thread(target=self._copy, args=(far, near))
            back.start()
            self._copy(near, far)
            back.join()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65_536):
            self.seen += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


def test_who_listens_in_reads_nothing(ring: KeyRing, worker: Key) -> None:
    words = [b"secret-name", b"let me go", b"sorry", b"private", b"1000/s"]
    for keys, is_read in [(worker.client(ring.server), False), ({}, True)]:
        secure: dict[str, Any] = {} if keys else {"curve_key": None, "clients": None}
        with ring.serve(limits={"*": "1000/s", "default": "1/h"}, **secure) as server:
            tap = Tap(server.url)
            with LockerClient(tap.url, name="secret-name", **keys) as client:
                assert [client.next(), client.next()] == ["go", "sorry"]
                assert client.try_acquire("private-key")
            tap.close()
        assert len(tap.seen) > 200
        assert [word in tap.seen for word in words] == [is_read] * len(words)


def test_what_is_wrong_with_keys_is_said_at_once(ring: KeyRing, worker: Key) -> None:
    public, secret = ring.server.public, worker.file
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"key_file": secret}, "key_file needs server_key, the public key of the server"),
        ({"server_key": "x"}, "server_key x cannot be read: no such file"),
        ({"server_key": secret}, "has a secret key, which only its owner should have"),
        ({"server_key": public, "key_file": "/nowhere"}, "key_file /nowhere cannot be read: no"),
        ({"server_key": public, "key_file": worker.public_file}, "has a public key only"),
        ({"server_key": public, "url": "inproc://a"}, "server_key is of no use for inproc://a"),
    ]
    for arguments, problem in mistakes:
        with pytest.raises(ConfigError, match=re.escape(problem)):
            LockerClient(**arguments)
    servers: list[tuple[dict[str, Any], str]] = [
        (
            {"clients": None},
            "curve_key needs clients: the file with the clients that are let in, or",
        ),
        ({"curve_key": None}, "clients needs curve_key"),
        ({"clients": "/nowhere"}, "clients /nowhere cannot be read: no such file"),
        ({"url": "inproc://a"}, "curve_key is of no use for inproc://a"),
    ]
    for arguments, problem in servers:
        with pytest.raises(ConfigError, match=re.escape(problem)):
            ring.serve(**arguments)


def test_a_secret_that_others_can_read_is_refused(ring: KeyRing, worker: Key) -> None:
    for mode in (0o640, 0o604, 0o660, 0o644):
        worker.file.chmod(mode)
        problem = f"can be read by others than its owner, its mode is {mode:04o}: chmod 600"
        if mode == 0o640 and worker.file.stat().st_uid == 0:
            # The group of root's files may read them: that is how containers mount secrets.
            LockerClient(**worker.client(ring.server)).close()
            continue
        with pytest.raises(ConfigError, match=re.escape(problem)):
            LockerClient(**worker.client(ring.server))
    for mode in (0o600, 0o400):
        worker.file.chmod(mode)
        LockerClient(**worker.client(ring.server)).close()
    ring.server.file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"curve_key .*can be read by others"):
        ring.serve()


def test_a_key_that_is_added_is_let_in_without_a_restart(ring: KeyRing, worker: Key) -> None:
    late = ring.key("late")
    with (
        ring.serve() as server,
        LockerClient(server.url, timeout=PATIENCE, **late.client(ring.server)) as client,
    ):
        denied(lambda: client.next("a"), "does not let this client's key in")
        ring.let_in((worker, "*", ""), (late, "*", ""))
        server.reload()
        assert client.next("a") == "go"


def test_a_key_that_is_taken_away_is_served_no_more(ring: KeyRing, worker: Key) -> None:
    gone = ring.key("gone")
    ring.let_in((worker, "*", "*"), (gone, "*", ""))
    with (
        ring.serve(limits={"*": "1000/s", "full": "1/h"}) as server,
        LockerClient(server.url, timeout=PATIENCE, **worker.client(ring.server)) as stays,
        LockerClient(server.url, timeout=PATIENCE, **gone.client(ring.server)) as goes,
    ):
        lease = goes.lock("a", ttl=0.5).acquire()
        assert goes.next("full") == "go"
        problems: list[BaseException] = []

        def wait_in_vain() -> None:
            try:
                goes.acquire("full")
            except AuthError as problem:
                problems.append(problem)

        waiting = threading.Thread(target=wait_in_vain)
        waiting.start()
        wait_until(lambda: server.stats()["waiting"] == 1)
        ring.let_in((worker, "*", "*"))
        server.reload()
        waiting.join(PATIENCE)
        assert [str(problem) for problem in problems] == ["this client is not let in any more"]
        with pytest.raises(AuthError, match="is not let in any more"):
            goes.next("b")
        with pytest.raises(AuthError, match="is not let in any more"):
            goes.next()
        # It believes that it holds the lock until it is over, and nobody else has it by then.
        taken = stays.lock("a", timeout=PATIENCE).acquire()
        assert lease.lost
        assert taken.token > lease.token
        assert server.stats()["waiting"] == 0


def test_a_list_that_is_wrong_changes_nothing(ring: KeyRing, worker: Key) -> None:
    with ring.serve() as server, LockerClient(server.url, **worker.client(ring.server)) as client:
        ring.clients.write_text("[clients.a]\npublic_key = 7\n")
        with pytest.raises(ConfigError, match=r"clients\.toml:2:14: public_key must be a string"):
            server.reload()
        assert client.next("a") == "go"


def test_garbage_in_the_handshake_harms_nobody(ring: KeyRing, worker: Key) -> None:
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01CURVE" + b"\0" * 47
    hello = b"\x04\xc8\x05HELLO\x01\x00" + b"\0" * 72 + b"\x07" * 120
    with ring.serve() as server, LockerClient(server.url, **worker.client(ring.server)) as client:
        address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
        for garbage in [
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\xff" * 64,
            greeting,
            greeting.replace(b"CURVE", b"NULL\0"),
            greeting[:12] + b"PLAIN" + b"\0" * 47,
            greeting + hello,
            greeting + hello[:100],
            greeting + b"\x04\x03\x02XY",
            greeting + b"\x06" + b"\xff" * 8,
            greeting + hello.replace(b"HELLO", b"READY"),
            b"\x01\x00\x00\x0alet me go",
        ]:
            with socket.create_connection(address) as stranger:
                stranger.sendall(garbage)
                assert client.next("a") == "go"
        assert server.stats()["bad_messages"] == 0


def test_a_client_of_another_key_cannot_go_on_with_a_session(ring: KeyRing, worker: Key) -> None:
    thief = ring.key("thief")
    ring.let_in((worker, "*", ""), (thief, "*", ""))
    hello = bytes.fromhex("97 00 01 c4 10") + b"s" * 16 + bytes.fromhex("a0 a0 00 01")
    with ring.serve() as server, zmq.Context() as context:
        heard = []
        for key in (worker, thief, worker):
            dealer = context.socket(zmq.DEALER)
            key.give(dealer, ring.server)
            dealer.connect(server.url)
            dealer.send(hello)
            assert dealer.poll(MILLIS)
            heard.append(dealer.recv())
            dealer.close(0)
        assert b"another key has" in heard[1]
        assert heard[0] == heard[2]


def test_rights_are_by_key_and_what_is_shown_is_by_rights(ring: KeyRing) -> None:
    worker, operator = ring.key("worker"), ring.key("operator")
    ring.let_in((worker, "a:* b", ""), (operator, "", "a:* c"))
    with (
        ring.serve() as server,
        LockerClient(server.url, timeout=PATIENCE, **worker.client(ring.server)) as uses,
        LockerClient(server.url, timeout=PATIENCE, **operator.client(ring.server)) as administers,
    ):
        refusals: list[tuple[Callable[[], object], str]] = [
            (lambda: uses.try_acquire("c"), "use the key 'c'"),
            (lambda: uses.acquire({"a:1": 1, "c": 1}), "use the key 'c'"),
            (lambda: uses.lock("b:1").acquire(), "use the key 'b:1'"),
            (lambda: uses.lock(["a:1", "c"]).acquire(), "use the key 'c'"),
            (lambda: uses.freeze("c", 1.0), "use the key 'c'"),
            (lambda: uses.block("c").try_acquire(), "use the key 'c'"),
            (lambda: uses.peek("c"), "look at the key 'c'"),
            (lambda: uses.reset("a:1"), "administer the key 'a:1'"),
            (lambda: uses.set_limits("a:1", ["9/s"]), "administer the key 'a:1'"),
            (lambda: uses.break_lock("a:1"), "administer the key 'a:1'"),
            (uses.clients, "see others"),
            (lambda: administers.try_acquire("a:1"), "use the key 'a:1'"),
            (lambda: administers.reset("b"), "administer the key 'b'"),
        ]
        for call, what in refusals:
            with pytest.raises(AuthError) as caught:
                call()
            assert f"this client has no right to {what}".replace("'", '"') in str(caught.value)
        assert server.stats()["denied"] == len(refusals)
        first, second = uses.lock("a:1").acquire(), uses.lock("b").acquire()
        assert uses.try_acquire("a:2", 3).allowed
        assert [lock.key for lock in uses.locks()] == ["a:1", "b"]
        assert [lock.key for lock in administers.locks()] == ["a:1"]
        assert {key.key for key in administers.busy_keys()} <= {"a:1", "a:2"}
        assert administers.server_status().security == "curve"
        assert len(administers.clients()) == 2
        administers.reset("a:2")
        assert uses.peek("a:2").remaining == 1000
        administers.break_lock("a:1")
        wait_until(lambda: first.lost)
        second.release()
