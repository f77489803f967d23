"""A client of docs/protocol.md in pyzmq and msgpack: pyzmq_client.py URL KEY."""

import os
import socket
import sys
from typing import Any

import msgpack
import zmq

HELLO, BEAT, SPEND, BYE = 0, 1, 2, 14
WELCOME, HEARD, DECISION, QUEUED, REFUSE = range(5)
SECOND = 1_000_000_000


def send(server: zmq.Socket[bytes], *items: list[Any]) -> None:
    """Sends items in one message."""
    server.send(b"".join(msgpack.packb(item) for item in items))


def decide(server: zmq.Socket[bytes], request: int) -> bool:
    """Prints what the server says until it has decided, and beats as long as that takes."""
    beat = 0
    while True:
        if not server.poll(500):
            beat += 1
            send(server, [BEAT, beat, request])
            continue
        unpacker = msgpack.Unpacker()
        unpacker.feed(server.recv())
        for op, *rest in unpacker:
            print(["welcome", "heard", "decision", "queued", "refuse"][op], *rest, flush=True)
            if op == REFUSE:
                sys.exit(1)
            if op == DECISION and rest[0] == request:
                return bool(rest[1])


if __name__ == "__main__":
    url, key = sys.argv[1:]
    with zmq.Context() as context, context.socket(zmq.DEALER) as server:
        server.connect(url)
        hello = [HELLO, 1, os.urandom(16), "pyzmq_client", socket.gethostname(), os.getpid()]
        send(server, hello, [SPEND, 1, 0, key])
        if not decide(server, 1):
            send(server, [SPEND, 2, 5 * SECOND, key])
            decide(server, 2)
        send(server, [BYE])
