"""Clients that cost next to nothing, by docs/protocol.md over plain sockets; a relay that counts.

A client is a DEALER of ZMTP 3: a greeting, a command that tells the type, and frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from itertools import cycle
from typing import TYPE_CHECKING, Any

import msgpack
from askers import PATIENCE, begin

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"

LONG, COMMAND = 2, 4
HELLO, BEAT, RELEASE, LOCK = 0, 1, 6, 15
DECISION, REFUSE, DONE = 2, 4, 5
EXCLUSIVE = 0

TTL = 0.8
BEATS = 3


class Dealer:
    """A client: a connection, and the lease that it holds."""

    def __init__(self, place: tuple[str, int], key: str) -> None:
        """Connect, and say hello."""
        self._socket = socket.create_connection(place, timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(None)
        self._socket.sendall(GREETING)
        self._read(64)
        self._socket.sendall(bytes([COMMAND, len(READY)]) + READY)
        self._frame()
        self._send([HELLO, 1, os.urandom(16), "dealer", "bench", os.getpid()])
        self._key = key
        self._grant = self._turns = 0
        self._sent_at = 0.0
        #: The longest time in which nothing was sent.
        self.silence = 0.0

    def take_turn(self) -> None:
        """Ask for the lease, the first time, and renew it at all others.

        There is never more than one message that was not answered.
        """
        now = time.monotonic()
        if self._turns == 1:
            self._grant = self._answer(DECISION)[-1]
        elif self._turns:
            heard = self._socket.recv(4096)
            assert len(heard) == 2 + heard[1], heard
        if self._turns:
            self.silence = max(self.silence, now - self._sent_at)
            self._send([BEAT, self._turns, 2])
        else:
            length = int(TTL * 1e9)
            self._send([LOCK, 1, None, length, None, 0, self._key, EXCLUSIVE])
        self._sent_at = now
        self._turns += 1

    def release(self) -> None:
        """Give the lease back."""
        self.silence = max(self.silence, time.monotonic() - self._sent_at)
        self._send([RELEASE, 2, self._grant])

    def has_kept(self) -> bool:
        """Wait for the answer to the release: whether the lease was held to the end."""
        return bool(self._answer(DONE))

    def _send(self, item: list[Any]) -> None:
        body = msgpack.packb(item)
        self._socket.sendall(b"\x00" + bytes([len(body)]) + body)

    def _answer(self, wanted: int) -> list[Any]:
        """Read until an answer of this kind has come, or a refusal: that is empty."""
        while True:
            unpacker = msgpack.Unpacker()
            unpacker.feed(self._frame())
            for item in unpacker:
                if item[0] == wanted:
                    return list(item)
                if item[0] == REFUSE:
                    return []

    def _frame(self) -> bytes:
        # What a server says to one of these clients is short.
        _, length = self._read(2)
        return self._read(length)

    def _read(self, size: int) -> bytes:
        return self._socket.recv(size, socket.MSG_WAITALL)


def beat(url: str, count: str, seconds: str) -> dict[str, float]:
    """Have many clients renew one lease each, spread evenly over the time between two beats."""
    host, port = url.removeprefix("tcp://").split(":")
    keys = [f"lease:{os.getpid()}:{number}" for number in range(int(count))]
    dealers = [Dealer((host, int(port)), key) for key in keys]
    begin()
    pause, beats, behind = TTL / BEATS / len(dealers), 0, 0.0
    start = time.monotonic()
    for dealer in cycle(dealers):
        ahead = start + beats * pause - time.monotonic()
        if ahead > 0.001:
            time.sleep(ahead)
        elif time.monotonic() > start + float(seconds):
            break
        behind = max(behind, -ahead)
        dealer.take_turn()
        beats += 1
    rate = beats / (time.monotonic() - start)
    for dealer in dealers:
        dealer.release()
    lost = [dealer for dealer in dealers if not dealer.has_kept()]
    late = sum(dealer.silence > TTL for dealer in dealers)
    lost_in_time = sum(dealer.silence <= TTL for dealer in lost)
    return {"rate": rate, "behind": behind, "late": late, "lost": lost_in_time}


async def relay(url: str) -> None:
    """Pass everything on between clients and a server; each line asks how many messages came."""
    host, port = url.removeprefix("tcp://").split(":")
    messages = 0

    async def copy(read: Callable[[], Awaitable[bytes]], writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while some := await read():
                writer.write(some)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def frame() -> bytes:
            nonlocal messages
            head = await reader.readexactly(2)
            length = head[1]
            if head[0] & LONG:
                head += await reader.readexactly(7)
                length = int.from_bytes(head[1:], "big")
            messages += not head[0] & COMMAND
            return head + await reader.readexactly(length)

        answers, requests = await asyncio.open_connection(host, int(port))
        requests.write(await reader.readexactly(64))
        await asyncio.gather(copy(frame, requests), copy(lambda: answers.read(65536), writer))

    async with await asyncio.start_server(connect, "127.0.0.1", 0) as server:
        print(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(messages, flush=True)
