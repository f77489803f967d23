"""`patience=`: a request waits at the server where its permit is near."""

from __future__ import annotations

import os
import time
import warnings
from typing import TYPE_CHECKING

import pytest
import zmq
from conftest import PATIENCE
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Asker:
    """Sends requests of the seed and leaves their answers to come."""

    def __init__(self) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    def __call__(self, server: LockerServer) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.REQ)
        socket.linger = 0
        socket.rcvtimeo = int(PATIENCE * 1000)
        socket.connect(server.url)
        socket.send(b"let me go")
        return socket


@pytest.fixture
def ask() -> Iterator[Asker]:
    asker = Asker()
    with warnings.catch_warnings(category=ResourceWarning, action="ignore"):
        yield asker
        asker.context.destroy()


def wait_for(server: LockerServer, waiting: int) -> None:
    """There is no event for this: the server's count is looked at until it is right."""
    until = time.monotonic() + PATIENCE
    while server.stats()["waiting"] != waiting:
        assert time.monotonic() < until
        os.sched_yield()


def test_without_patience_nobody_waits() -> None:
    with (
        LockerServer(1, 3600.0, "tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        assert [client.next(), client.next()] == ["go", "sorry"]


def test_a_slot_that_is_too_far_away_is_not_waited_for() -> None:
    with (
        LockerServer(1, 3600.0, "tcp://127.0.0.1:*", block=False, patience=60.0) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        assert [client.next(), client.next()] == ["go", "sorry"]


def test_a_request_waits_for_a_slot_that_is_near() -> None:
    with (
        LockerServer(1, 0.2, "tcp://127.0.0.1:*", block=False, patience=0.3) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        assert [client.next() for _ in range(5)] == ["go"] * 5
        assert (
            server.stats().items() >= {"bad_messages": 0, "go": 5, "sorry": 0, "waiting": 0}.items()
        )


def test_waiters_are_served_in_the_order_in_which_they_came(ask: Asker) -> None:
    with LockerServer(1, 1.0, "tcp://127.0.0.1:*", block=False, patience=60.0) as server:
        ask(server).recv()
        waiters = []
        for place in range(3):
            waiters.append(ask(server))
            wait_for(server, place + 1)
        for waiter in waiters:
            assert zmq.select(waiters, [], [], PATIENCE)[0] == [waiter]
            assert waiter.recv() == b"go"
        # The next request gets the permit of the next slot, behind nobody.
        ask(server).recv()


def test_others_are_answered_while_somebody_waits(ask: Asker) -> None:
    with LockerServer(1, 2.0, "tcp://127.0.0.1:*", block=False, patience=3.0) as server:
        ask(server).recv()
        waiter = ask(server)
        wait_for(server, 1)
        # The slot after the next is too far away: no waiting for this one.
        assert ask(server).recv() == b"sorry"
        assert not waiter.poll(0)
        assert waiter.recv() == b"go"


def test_a_waiter_that_has_gone_costs_at_most_its_permit(ask: Asker) -> None:
    with LockerServer(2, 1.0, "tcp://127.0.0.1:*", block=False, patience=60.0) as server:
        for _ in range(2):
            ask(server).recv()
        gone = ask(server)
        wait_for(server, 1)
        stays = ask(server)
        wait_for(server, 2)
        gone.close()
        assert stays.recv() == b"go"
        assert server.stats()["go"] == 4


def test_a_server_that_stops_answers_whoever_waits(ask: Asker) -> None:
    server = LockerServer(1, 3600.0, "tcp://127.0.0.1:*", block=False, patience=1e6)
    ask(server).recv()
    waiters = [ask(server) for _ in range(3)]
    wait_for(server, 3)
    server.stop()
    assert [waiter.recv() for waiter in waiters] == [b"sorry"] * 3
