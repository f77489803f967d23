"""`docs/protocol.md`, by a client that has nothing of zmqlocker in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import zmq
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLE = Path(__file__).parents[2] / "examples" / "pyzmq_client.py"

HELLO, BEAT, SPEND, RESERVE, LEASE, COMMIT, RELEASE, CANCEL, FREEZE, PEEK = range(10)
RESET, SET_LIMITS, BLOCK, GIVE_BACK, BYE = range(10, 15)
WELCOME, HEARD, DECISION, QUEUED, REFUSE, DONE, LENT = range(7)
PROTOCOL, CONFIG, COST_TOO_LARGE, KIND_MISMATCH, BOUND_EXCEEDED, NOT_HELD, UNKNOWN = range(1, 8)
SECOND = 1_000_000_000


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits: Any = {"hour": "3/h", "one": "1 at once", "default": "2/h"}
    with LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


class Raw:
    """A DEALER socket, and what it hears."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = int(PATIENCE * 1000)
        self.socket.connect(url)
        self.items: list[list[Any]] = []

    def say(self, *items: Any) -> None:
        self.socket.send(b"".join(msgpack.packb(item) for item in items))

    def hear(self) -> list[Any]:
        """The next item."""
        while not self.items:
            unpacker = msgpack.Unpacker()
            unpacker.feed(self.socket.recv())
            self.items.extend(unpacker)
        return self.items.pop(0)

    def hello(self, session: bytes | None = None, connection: int = 0) -> bytes:
        session = session or os.urandom(16)
        self.say([HELLO, 1, session, "raw", "here", 1, connection])
        op, version, server, patience = self.hear()
        assert (op, version, patience) == (WELCOME, 1, 0)
        assert isinstance(server, int)
        return session


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with warnings.catch_warnings(category=ResourceWarning, action="ignore"):
        yield context
        context.destroy()


@pytest.fixture
def raw(server: LockerServer, context: zmq.Context[zmq.Socket[bytes]]) -> Raw:
    return Raw(context, server.url)


def run_example(url: str, key: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, EXAMPLE, url, key],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    return [str(done.returncode), *done.stdout.splitlines()]


def test_the_example_client_is_served() -> None:
    limits: Any = {"hour": "1/h", "second": "1/s"}
    with LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server:
        status, welcome, decision = run_example(server.url, "hour")
        assert status == "0"
        assert re.fullmatch(r"welcome 1 \d+ 0", welcome)
        assert re.fullmatch(r"decision 1 True 0 0 \d+ 1/h 0 None", decision)
        # The session is gone with its bye.
        wait_until(lambda: server.stats()["clients"] == 0)
        with LockerClient(server.url, timeout=PATIENCE) as client:
            for _ in range(20):
                client.acquire("second")
                lines = run_example(server.url, "second")
                if any(line.startswith("queued") for line in lines):
                    break
        # While it waits it beats, and is heard.
        no, queued, yes = [line for line in lines[2:] if not line.startswith("heard")]
        assert re.fullmatch(r"decision 1 False 0 \d+ \d+ 1/s 0 None", no)
        assert queued == "queued 2 0"
        assert re.fullmatch(r"decision 2 True 0 0 \d+ 1/s 0 None", yes)
        status, welcome, refuse = run_example(server.url, "nobody")
        assert status == "1"
        assert refuse.startswith(f'refuse 1 {CONFIG} key "nobody" has no limits')


def test_every_item_is_answered_as_the_document_says(raw: Raw) -> None:
    raw.hello()
    raw.say([BEAT, 7, 1], [SPEND, 1, 0, "hour"], [PEEK, 2, "hour", 3])
    assert raw.hear() == [HEARD, 7]
    op, request, allowed, left, retry_after, reset_after, limit, key, grant = raw.hear()
    assert [op, request, allowed, left, retry_after, limit, key, grant] == [
        DECISION, 1, True, 2, 0, "3/h", 0, None,
    ]  # fmt: skip
    assert 0 < reset_after <= 3600 * SECOND + 1
    assert raw.hear()[:4] == [DECISION, 2, False, 2]
    raw.say([RESERVE, 3, 0, "hour", 2])
    grant = raw.hear()[8]
    raw.say([COMMIT, 4, grant, 0], [COMMIT, 5, grant, 0], [LEASE, 6, 0, SECOND, "one"])
    assert raw.hear() == [DONE, 4]
    assert raw.hear()[:3] == [REFUSE, 5, NOT_HELD]
    held = raw.hear()[8]
    raw.say([LEASE, 7, 60 * SECOND, SECOND, "one"], [SPEND, 8, 0, "one"], [RELEASE, 6_000, held])
    assert raw.hear() == [QUEUED, 7, 0]
    assert raw.hear()[:3] == [REFUSE, 8, KIND_MISMATCH]
    assert sorted([raw.hear()[:3], raw.hear()[:3]]) == [[DECISION, 7, True], [DONE, 6_000]]
    raw.say([SPEND, 6_001, 0, "hour", 4], [FREEZE, 6_002, "hour", SECOND], [RESET, 6_003, "hour"])
    assert raw.hear()[:3] == [REFUSE, 6_001, COST_TOO_LARGE]
    assert [raw.hear(), raw.hear()] == [[DONE, 6_002], [DONE, 6_003]]
    raw.say([SET_LIMITS, 6_004, "hour", "9/h", "8/min"], [BLOCK, 6_005, "hour", 100])
    assert raw.hear() == [DONE, 6_004]
    op, request, permits, valid_for, grant, *_ = raw.hear()
    assert [op, request] == [LENT, 6_005]
    assert 1 <= permits <= 8
    assert valid_for > 0
    raw.say([GIVE_BACK, 6_006, grant, permits])
    assert raw.hear() == [DONE, 6_006]


def test_a_request_that_is_repeated_is_counted_once(
    server: LockerServer, context: zmq.Context[zmq.Socket[bytes]], raw: Raw
) -> None:
    session = raw.hello()
    raw.say([SPEND, 1, 0, "hour"], [SPEND, 1, 0, "hour"])
    raw.say([SPEND, 1, 0, "hour"])
    answers = [raw.hear() for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    again = Raw(context, server.url)
    again.hello(session)
    again.say([SPEND, 1, 0, "hour"], [SPEND, 2, 0, "hour"])
    assert again.hear() == answers[0]
    assert again.hear()[:4] == [DECISION, 2, True, 1]
    # Below the floor nothing is answered any more, nor counted.
    again.say([BEAT, 1, 3], [SPEND, 1, 0, "hour"], [SPEND, 2, 0, "hour"], [PEEK, 3, "hour"])
    assert again.hear() == [HEARD, 1]
    assert again.hear()[:4] == [DECISION, 3, True, 1]


def test_a_hello_that_is_repeated_drops_no_answer(raw: Raw) -> None:
    session, other = os.urandom(16), os.urandom(16)
    hello = [HELLO, 1, session, "raw", "here", 1]
    raw.say(hello, [SPEND, 1, 0, "hour"], hello, [PEEK, 2, "hour"])
    heard = [raw.hear()[:2] for _ in range(4)]
    assert heard == [[WELCOME, 1], [DECISION, 1], [WELCOME, 1], [DECISION, 2]]
    # Nor does one of the next session on the same connection.
    raw.say([SPEND, 3, 0, "hour"], [BYE], [HELLO, 1, other, "raw", "here", 1], [PEEK, 1, "hour"])
    heard = [raw.hear()[:2] for _ in range(3)]
    assert heard == [[DECISION, 3], [WELCOME, 1], [DECISION, 1]]


def test_what_comes_late_on_an_old_connection_is_not_listened_to(
    server: LockerServer, context: zmq.Context[zmq.Socket[bytes]], raw: Raw
) -> None:
    session = raw.hello(connection=2)
    old = Raw(context, server.url)
    old.say([HELLO, 1, session, "raw", "here", 1, 1], [SPEND, 1, 0, "hour"])
    old.say([SPEND, 2, 0, "hour"])
    assert old.hear()[:3] == [REFUSE, None, UNKNOWN]
    raw.say([PEEK, 3, "hour"])
    assert raw.hear()[:4] == [DECISION, 3, True, 3]


def test_who_has_not_said_hello_is_told_to(server: LockerServer, raw: Raw) -> None:
    raw.say([SPEND, 1, 0, "hour"], [SPEND, 2, 0, "hour"])
    assert raw.hear()[:3] == [REFUSE, None, UNKNOWN]
    raw.hello()
    raw.say([PEEK, 3, "hour"])
    assert raw.hear()[:4] == [DECISION, 3, True, 3]
    raw.say([BYE], [PEEK, 4, "hour"])
    assert raw.hear()[:3] == [REFUSE, None, UNKNOWN]
    assert server.stats()["clients"] == 0


@pytest.mark.parametrize(
    "hello", [[HELLO, 2], [HELLO, 0, "any"], [HELLO, 99, {"a": [1, [2]]}, None, 1.5, b"x" * 1000]]
)
def test_another_version_is_told_ours(server: LockerServer, raw: Raw, hello: list[Any]) -> None:
    raw.say(hello)
    op, request, code, message = raw.hear()
    assert [op, request, code] == [REFUSE, None, PROTOCOL]
    assert message == f"this server speaks version 1, not version {hello[1]}"
    assert server.stats()["bad_messages"] == 1


GOOD = msgpack.packb([PEEK, 1, "hour"])


@pytest.mark.parametrize(
    ("bad", "request_id", "code"),
    [
        ([99, 2], None, PROTOCOL),
        ([2**64 - 1], None, PROTOCOL),
        ([SPEND], None, PROTOCOL),
        ([SPEND, 2], 2, PROTOCOL),
        ([SPEND, 2, 0], 2, None),
        ([SPEND, 2, 0, ""], 2, CONFIG),
        ([SPEND, 2, 0, "x" * 257], 2, CONFIG),
        ([SPEND, 2, 0, "hour", 0], 2, CONFIG),
        ([SPEND, 2, 0, "hour", 10**12 + 1], 2, CONFIG),
        ([SPEND, 2, 0, "hour", -1], 2, CONFIG),
        ([SPEND, 2, 0, "hour", 1.0], 2, PROTOCOL),
        ([SPEND, 2, 0, "hour", 1, "one"], 2, PROTOCOL),
        ([SPEND, 2, 0, "hour", 1, "hour", 1], 2, CONFIG),
        ([SPEND, 2, 0, *(["a", 1] * 17)], 2, CONFIG),
        ([SPEND, 2, "0", "hour"], 2, PROTOCOL),
        ([SPEND, 2, 0, b"hour"], 2, PROTOCOL),
        ([SPEND, "2", 0, "hour"], None, PROTOCOL),
        ([LEASE, 2, 0, 1, "one"], 2, CONFIG),
        ([LEASE, 2, 0, 86_401 * SECOND, "one"], 2, CONFIG),
        ([COMMIT, 2, 1], 2, CONFIG),
        ([COMMIT, 2, 1, *([0] * 17)], 2, CONFIG),
        ([SET_LIMITS, 2, "hour"], 2, CONFIG),
        ([SET_LIMITS, 2, "hour", "x" * 257], 2, CONFIG),
        ([PEEK, 2, "hour", 1, 1], 2, PROTOCOL),
        ([True], None, PROTOCOL),
        ([None, 2], None, PROTOCOL),
    ],
)
def test_an_item_that_is_no_request_is_refused_and_the_next_is_read(
    server: LockerServer, raw: Raw, bad: list[Any], request_id: int | None, code: int | None
) -> None:
    raw.hello()
    raw.socket.send(msgpack.packb(bad) + GOOD)
    refusal = raw.hear()
    assert refusal[:2] == [REFUSE, request_id]
    assert refusal[2] == (code or refusal[2])
    assert 0 < len(refusal[3].encode()) <= 500
    assert raw.hear()[:4] == [DECISION, 1, True, 3]
    assert server.stats()["bad_messages"] == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xc1",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        msgpack.packb("let me go"),
        msgpack.packb({"op": 2}),
        msgpack.packb([SPEND, 2, 0, ["hour"]]),
        msgpack.packb([SPEND, 2, 0, {"hour": 1}]),
        b"\x91" * 60_000,
        b"\xdb\xff\xff\xff\xffx",
        b"\xc7\x01\x01x",
    ],
)
def test_what_stands_behind_garbage_is_not_read(
    server: LockerServer, raw: Raw, garbage: bytes
) -> None:
    raw.hello()
    raw.socket.send(GOOD + garbage + msgpack.packb([SPEND, 3, 0, "hour"]))
    assert raw.hear()[:4] == [DECISION, 1, True, 3]
    assert raw.hear()[:3] == [REFUSE, None, PROTOCOL]
    assert server.stats()["bad_messages"] == 1
    raw.say([PEEK, 4, "hour"])
    assert raw.hear()[:4] == [DECISION, 4, True, 3]


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_message_that_ends_within_an_item_is_served_up_to_it(raw: Raw, cut: int) -> None:
    raw.hello()
    raw.socket.send(GOOD + msgpack.packb([SPEND, 2, 0, "hour"])[:-cut])
    assert raw.hear()[:4] == [DECISION, 1, True, 3]
    assert raw.hear()[:3] == [REFUSE, None, PROTOCOL]
    raw.say([PEEK, 3, "hour"])
    assert raw.hear()[:4] == [DECISION, 3, True, 3]


def test_messages_are_bounded(
    server: LockerServer, context: zmq.Context[zmq.Socket[bytes]], raw: Raw
) -> None:
    raw.hello()
    raw.say(*([PEEK, place, "hour"] for place in range(4097)))
    answers = [raw.hear() for _ in range(4097)]
    assert [answer[:2] for answer in answers[:-1]] == [[DECISION, place] for place in range(4096)]
    assert answers[-1][:3] == [REFUSE, None, PROTOCOL]
    # With the routing id it is one byte too many: nothing of it is served.
    raw.socket.send(GOOD * (65_532 // len(GOOD) + 1))
    heard = raw.hear()
    assert heard[:3] in ([REFUSE, None, PROTOCOL], [DECISION, 1, True])
    giant = Raw(context, server.url)
    giant.socket.send(b"\x91" * 10_000_000)
    seed = context.socket(zmq.REQ)
    seed.linger, seed.rcvtimeo = 0, int(PATIENCE * 1000)
    seed.connect(server.url)
    seed.send(b"let me go")
    assert seed.recv() == b"go"


def test_clients_of_the_seed_are_served_beside(
    server: LockerServer, context: zmq.Context[zmq.Socket[bytes]], raw: Raw
) -> None:
    seed = context.socket(zmq.REQ)
    seed.linger, seed.rcvtimeo = 0, int(PATIENCE * 1000)
    seed.connect(server.url)
    raw.hello()
    seed.send(b"let me go")
    assert seed.recv() == b"go"
    raw.say([SPEND, 1, 0, "default"], [SPEND, 2, 0, "default"])
    assert [raw.hear()[2], raw.hear()[2]] == [True, False]
    seed.send(b"let me go")
    assert seed.recv() == b"sorry"
    # One connection may carry both.
    raw.socket.send_multipart([b"number", b"", b"let me go"])
    assert raw.socket.recv_multipart() == [b"number", b"", b"sorry"]
    assert server.stats()["bad_messages"] == 0


def test_random_bytes_do_no_harm(server: LockerServer, raw: Raw) -> None:
    raw.hello()
    for size in range(1, 400):
        raw.socket.send(os.urandom(size))
    raw.say([PEEK, 2**50, "hour"])
    while raw.hear()[:2] != [DECISION, 2**50]:
        pass
    assert server.stats()["bad_messages"] > 300
    with LockerClient(server.url, timeout=PATIENCE) as client:
        assert client.try_acquire("hour")
