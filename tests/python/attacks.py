"""Clients that mean harm: what `test_hostile.py` and `benches/hostile.py` let loose on a server.

Each is a function of a port that runs until `stop` is set, and counts what it did. They speak ZMTP
over plain sockets, as no library would.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack

if TYPE_CHECKING:
    from collections.abc import Callable

GREETING = b"\xff" + b"\0" * 8 + b"\x7f" + b"\3\1NULL" + b"\0" * 48
READY = b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"
NAMED = b"\x04\x2e\x05READY\x0bSocket-Type\0\0\0\x06DEALER\x08Identity\0\0\0\x05"

HELLO, BEAT, SPEND = 0, 1, 2

#: How long a socket waits for a server that is busy, in seconds.
PATIENCE = 2.0

#: How many bytes of memory a server has at most, whichever of them go on for however long: 256 MiB
#: for what its connections hold (`connections_bytes_max`), and 1 GiB for 5,000 connections, a
#: million keys, a hundred thousand sessions, and what comes faster than it is seen.
RESIDENT_OF_ALL_MAX = 1280 << 20


def frame(body: bytes, *, more: bool = False) -> bytes:
    """Give a frame of a message, with its head."""
    if len(body) < 256:
        return bytes([more, len(body)]) + body
    return bytes([more | 2]) + struct.pack(">Q", len(body)) + body


def items(*of_a_message: list[object]) -> bytes:
    """Give a message of our protocol."""
    return frame(b"".join(msgpack.packb(item) for item in of_a_message))


def hello(name: str = "hostile", session: bytes | None = None) -> list[object]:
    return [HELLO, 1, session or os.urandom(16), name, "nowhere", os.getpid(), 1]


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def shake_hands(port: int, ready: bytes = READY) -> socket.socket:
    """Give a connection on which messages may be sent."""
    with contextlib.ExitStack() as broken:
        peer = broken.enter_context(connect(port))
        peer.sendall(GREETING + ready)
        # Before it is ready as well, a server takes whatever comes for a part of the handshake.
        heard = b""
        while len(heard) < 66 or len(heard) < 66 + heard[65]:
            some = peer.recv(1024)
            if not some:
                raise ConnectionResetError
            heard += some
        broken.pop_all()
    return peer


def garbage(port: int, stop: threading.Event) -> int:
    """Random bytes from the first byte on; a new connection for each that is ended."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), connect(port) as peer:
            for _ in range(16):
                peer.sendall(random.randbytes(4096))
                count += 1
    return count


def garbage_in_frames(port: int, stop: threading.Event) -> int:
    """Messages of random bytes, and the answers are not read."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            while not stop.is_set():
                peer.sendall(b"".join(frame(random.randbytes(200)) for _ in range(20)))
                count += 20
    return count


def half_greetings(port: int, stop: threading.Event) -> int:
    """Connections that begin, and say no more."""
    return hold(port, stop, [GREETING[:1], GREETING[:11], GREETING, GREETING + READY[:9]])


def half_frames(port: int, stop: threading.Event) -> int:
    """Connections that end in the midst of a message."""
    begun = [b"\0\xff" + b"x" * 100, b"\2" + struct.pack(">Q", 65_536) + b"x" * 65_000, b"\1\1x"]
    return hold(port, stop, [GREETING + READY + some for some in begun])


def hold(port: int, stop: threading.Event, beginnings: list[bytes]) -> int:
    with contextlib.ExitStack() as held:
        for count in range(200):
            with contextlib.suppress(OSError):
                peer = held.enter_context(connect(port))
                peer.sendall(beginnings[count % len(beginnings)])
        stop.wait()
        return 200


def names_of_others(port: int, stop: threading.Event) -> int:
    """Connections that have one name, or one such as the server gives.

    Each asks more than is taken in for it, and ends. Floods are what others are for.
    """
    count = 0
    asked = (frame(b"", more=True) + frame(b"let me go")) * 200
    while not stop.wait(0.02):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for name in (b"other", b"other", b"\0" + os.urandom(4)):
                peer = held.enter_context(shake_hands(port, NAMED + name))
                peer.sendall(asked)
                count += 200
    return count


def giant_frames(port: int, stop: threading.Event) -> int:
    """Frames of which only the length is honest."""
    sizes = [65_537, 10**9, 2**62, 2**64 - 1]
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            peer.sendall(b"\2" + struct.pack(">Q", sizes[count % len(sizes)]) + b"x" * 1000)
            count += 1
            peer.recv(1000)
    return count


def endless_messages(port: int, stop: threading.Event) -> int:
    """Messages whose last frame never comes."""
    count = 0
    many = frame(b"x" * 60_000, more=True) * 4
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            while not stop.is_set():
                peer.sendall(many)
                count += 4
    return count


def unread_answers(port: int, stop: threading.Event) -> int:
    """Requests without an end, whose answers nobody reads."""
    count, number = 0, 0
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            peer.sendall(items(hello("never reads")))
            while not stop.is_set():
                asked = [[SPEND, number + some, 0, "good"] for some in range(500)]
                number += len(asked)
                peer.sendall(items([BEAT, 1, number - len(asked)], *asked))
                count += len(asked)
    return count


def many_keys(port: int, stop: threading.Event, keys: int = 1_000_000) -> int:
    """Ask for a million different keys, as fast as the answers come."""
    count = 0
    with shake_hands(port) as peer:
        peer.sendall(items(hello("many keys")))
        reader = threading.Thread(target=drain, args=(peer,), daemon=True)
        reader.start()
        while count < keys and not stop.is_set():
            asked = [[SPEND, count + some, 0, f"k:{count + some}"] for some in range(500)]
            peer.sendall(items([BEAT, 1, count], *asked))
            count += len(asked)
        stop.wait()
        peer.shutdown(socket.SHUT_RDWR)
        reader.join(PATIENCE)
    return count


def drain(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while peer.recv(1 << 16):
            pass


def many_sessions(port: int, stop: threading.Event) -> int:
    """One connection that says that it is somebody else, again and again."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            reader = threading.Thread(target=drain, args=(peer,), daemon=True)
            reader.start()
            while not stop.is_set():
                name = f"{count}".ljust(256, "x")
                peer.sendall(b"".join(items(hello(name)) for _ in range(20)))
                count += 20
            peer.shutdown(socket.SHUT_RDWR)
            reader.join(PATIENCE)
    return count


def deep_arrays(port: int, stop: threading.Event) -> int:
    """MessagePack that claims to be far more than it is."""
    claims = [b"\x91" * 60_000, b"\xdd\xff\xff\xff\xff" * 1000, b"\xdf\xff\xff\xff\xff" * 1000]
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            reader = threading.Thread(target=drain, args=(peer,), daemon=True)
            reader.start()
            peer.sendall(items(hello()))
            while not stop.is_set():
                peer.sendall(frame(claims[count % len(claims)]))
                count += 1
            peer.shutdown(socket.SHUT_RDWR)
            reader.join(PATIENCE)
    return count


def many_connections(port: int, stop: threading.Event, most: int = 5000) -> int:
    """Five thousand connections, most of which say hello; nothing is read of any."""
    raise_file_limit()
    peers: list[socket.socket] = []
    while len(peers) < most and not stop.is_set():
        with contextlib.suppress(OSError):
            peer = shake_hands(port)
            peers.append(peer)
            if len(peers) % 4:
                peer.sendall(items(hello(f"idle {len(peers)}")))
    stop.wait()
    for peer in peers:
        peer.close()
    return len(peers)


def comings_and_goings(port: int, stop: threading.Event) -> int:
    """Connections that are made and end at once."""
    count = 0
    while not stop.is_set():
        with contextlib.suppress(OSError), shake_hands(port) as peer:
            peer.sendall(items(hello()))
            reset = struct.pack("ii", 1, 0)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            count += 1
    return count


ATTACKS: dict[str, Callable[[int, threading.Event], int]] = {
    attack.__name__: attack
    for attack in (
        garbage,
        garbage_in_frames,
        half_greetings,
        half_frames,
        names_of_others,
        giant_frames,
        endless_messages,
        unread_answers,
        many_keys,
        many_sessions,
        deep_arrays,
        many_connections,
        comings_and_goings,
    )
}


def raise_file_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * resource.getpagesize()


def main() -> None:
    """Run one attack until the end of the input: `hostile.py NAME PORT`; prints what it did."""
    name, port = sys.argv[1], int(sys.argv[2])
    stop = threading.Event()
    done: list[int] = []
    # A daemon: one that is stuck in a write to a server that has had enough does not stay.
    attack = threading.Thread(target=lambda: done.append(ATTACKS[name](port, stop)), daemon=True)
    attack.start()
    print("begun", flush=True)
    sys.stdin.read()
    stop.set()
    attack.join(PATIENCE)
    print(done[0] if done else -1, flush=True)


if __name__ == "__main__":
    main()
