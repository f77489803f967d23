"""A wait that the server has let go is asked for again, and ends as one wait."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import msgpack
import pytest
import zmq
from conftest import PATIENCE
from zmqlocker import LockTimeout
from zmqlocker.asyncio import LockerClient

HELLO, SPEND, LEASE = 0, 2, 4
WELCOME, DECISION, REFUSE = 0, 2, 4
FORGOTTEN = 8


def test_a_wait_that_is_asked_again_ends_with_the_timeout_of_its_caller() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.rcvtimeo = int(PATIENCE * 1000)
    port = router.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        """Let one wait go, and refuse the next."""
        asked = 0
        while asked < 4:
            to, body = router.recv_multipart()
            unpacker = msgpack.Unpacker()
            unpacker.feed(body)
            for item in unpacker:
                if item[0] == HELLO:
                    answer: list[Any] = [WELCOME, 1, 1, 0]
                elif item[0] in {SPEND, LEASE}:
                    asked += 1
                    refusal = [DECISION, item[1], False, 0, 0, 0, "1/h", 0, None]
                    answer = [REFUSE, item[1], FORGOTTEN, "gone"] if asked % 2 else refusal
                else:
                    continue
                router.send_multipart([to, msgpack.packb(answer)])

    async def main() -> None:
        async with LockerClient(f"tcp://127.0.0.1:{port}") as client:
            message = r'^no permit of "k" within 30 s: the limit is "1/h"$'
            with pytest.raises(LockTimeout, match=message):
                await client.acquire("k", timeout=PATIENCE)
            with pytest.raises(LockTimeout, match=message):
                await client.limit("k", timeout=PATIENCE).__aenter__()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    asyncio.run(main(), debug=True)
    thread.join()
    context.destroy(linger=0)
