"""Both ways with the first design: its classes, as it wrote them, over real pyzmq."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import threading
import time
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import zmq
from conftest import PATIENCE
from zmqlocker import Locker, LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Script

EXAMPLES = Path(__file__).parents[2] / "examples"


class SeedLocker:
    """The class `Locker` of the first design."""

    def __init__(self, max_requests: int = 1, in_seconds: float = 1.0) -> None:
        self.max_requests = max_requests
        self.in_seconds = in_seconds
        self.requests = 0
        self.next_slot = time.time() + in_seconds

    def next(self) -> str:
        now = time.time()
        if now > self.next_slot:
            self.requests = 0
            self.next_slot = now + self.in_seconds
        if self.requests < self.max_requests:
            self.requests += 1
            return "go"
        return "sorry"


SEED_SERVER = f"""
import sys, time, zmq

{inspect.getsource(SeedLocker)}

socket = zmq.Context().socket(zmq.REP)
socket.bind(sys.argv[1])
locker = SeedLocker(int(sys.argv[2]), 60.0)
while True:
    socket.recv()
    socket.send_string(locker.next())
"""

SEED_CLIENT = """
    import sys, zmq
    socket = zmq.Context().socket(zmq.REQ)
    socket.connect(sys.argv[1])
    for _ in range(int(sys.argv[2])):
        socket.send_string("let me go")
        print(socket.recv_string())
"""


def test_a_client_of_the_seed_asks_our_server(script: Callable[..., Script]) -> None:
    with LockerServer(5, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        clients = [script(SEED_CLIENT, server.url, "4") for _ in range(3)]
        answers = [client.line() for client in clients for _ in range(4)]
    assert answers.count("go") == 5
    assert answers.count("sorry") == 7


def test_our_client_asks_a_server_of_the_seed(script: Callable[..., Script], free_url: str) -> None:
    with LockerClient(free_url, timeout=PATIENCE) as client:
        server = script(SEED_SERVER, free_url, "5")
        assert [client.next() for _ in range(7)] == ["go"] * 5 + ["sorry"] * 2
        server.kill()
        script(SEED_SERVER, free_url, "1")
        assert [client.next(), client.next()] == ["go", "sorry"]


def test_whatever_a_request_says_it_is_one() -> None:
    context = zmq.Context()
    with LockerServer(3, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        socket = context.socket(zmq.REQ)
        socket.rcvtimeo = int(PATIENCE * 1000)
        socket.connect(server.url)
        answers = []
        for body in [b"let me go", b"", b"\0\xff" * 1000, b"please"]:
            socket.send(body)
            answers.append(socket.recv())
        socket.close()
    context.term()
    assert answers == [b"go", b"go", b"go", b"sorry"]


def test_a_proxy_may_stand_between() -> None:
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    port = front.bind_to_random_port("tcp://127.0.0.1")
    control, steer = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    control.bind("inproc://control")
    steer.connect("inproc://control")
    with LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as server:
        back.connect(server.url)
        proxy = threading.Thread(target=zmq.proxy_steerable, args=(front, back, None, control))
        proxy.start()
        with LockerClient(f"tcp://127.0.0.1:{port}", timeout=PATIENCE) as client:
            assert [client.next(), client.next()] == ["go", "sorry"]
        steer.send(b"TERMINATE")
        proxy.join()
    for socket in (front, back, control, steer):
        socket.close()
    context.term()


def test_a_server_of_the_seed_may_send_heartbeats() -> None:
    context = zmq.Context()
    server = context.socket(zmq.REP)
    server.heartbeat_ivl, server.heartbeat_timeout = 20, 200
    monitor = server.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    with LockerClient(f"tcp://127.0.0.1:{port}", timeout=PATIENCE) as client:
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(client.next()))
        asking.start()
        server.recv()
        # While the client waits it answers them: its connection lasts.
        assert not monitor.poll(1000)
        server.send(b"go")
        asking.join()
        assert answers == ["go"]
    server.disable_monitor()
    monitor.close()
    server.close()
    context.term()


def test_the_example_scripts_run_as_they_are_told() -> None:
    python = [sys.executable, "-u"]
    with subprocess.Popen([*python, EXAMPLES / "run_server.py"], stderr=subprocess.PIPE) as server:
        try:
            client = subprocess.run(
                [*python, EXAMPLES / "run_client.py"],
                capture_output=True,
                text=True,
                timeout=PATIENCE + 10,
                check=True,
            )
        finally:
            server.terminate()
    assert server.returncode == 0
    lines = client.stdout.splitlines()
    assert len(lines) == 100
    for line in lines:
        assert re.fullmatch(r"\d+\.\d+ (go|sorry)", line)
    # Some eight requests a slot: five hear "go", the others "sorry". The first slot opened with
    # the server, so part of it may be over.
    runs = [(word, len(list(run))) for word, run in groupby(line.split()[1] for line in lines)]
    assert runs[0][0] == "go"
    # On a machine that is busy a client may ask less often than a slot allows, for a while.
    assert 5 in {length for word, length in runs[2:-1] if word == "go"}


def test_side_by_side_with_the_seed_the_same_answers() -> None:
    ours, seeds = Locker(7, 3600.0), SeedLocker(7, 3600.0)
    assert [ours.next() for _ in range(20)] == [seeds.next() for _ in range(20)]
