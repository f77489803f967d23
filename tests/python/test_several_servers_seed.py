"""The first design's clients and several servers: any of them answers for the home."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import zmq

from cluster import Cluster

if TYPE_CHECKING:
    from pathlib import Path


class Asker:
    """One of the first design's clients, which asks one server without a pause."""

    def __init__(self, url: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        self._socket.linger = 0
        self._socket.rcvtimeo = 20_000
        self._socket.connect(url)

    def ask(self) -> bool:
        self._socket.send(b"let me go")
        return self._socket.recv() == b"go"

    def close(self) -> None:
        self._socket.close()
        self._context.term()


def test_many_who_ask_elsewhere_get_what_the_home_lends_and_never_more(tmp_path: Path) -> None:
    most = 20_000
    with Cluster(f"file://{tmp_path}/registry", f"default={most}/h") as cluster:
        granted = 0

        def ask(url: str) -> int:
            asker, goes = Asker(url), 0
            try:
                while asker.ask():
                    goes += 1
            finally:
                asker.close()
            return goes

        with ThreadPoolExecutor() as pool:
            for asked in [pool.submit(ask, url) for url in cluster.urls]:
                granted += asked.result()
        # What was lent and not asked for goes back, and is granted to those who ask then.
        while granted < most:
            granted += sum(ask(url) for url in cluster.urls)
        assert granted == most
        assert not any(ask(url) for url in cluster.urls)


def test_a_server_that_stops_answers_those_whom_it_has_taken_in(tmp_path: Path) -> None:
    with Cluster(f"file://{tmp_path}/registry", "default=1000000/h") as cluster:
        home = cluster.home_of("default")
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.linger = 0
            peer.rcvtimeo = 20_000
            peer.connect(cluster.servers[home].url)
            asked = answered = 0
            stopping = ThreadPoolExecutor(1)
            ends = stopping.submit(cluster.servers.pop(home).finish)
            # As one client after the other would: until the server is not there any more.
            while not ends.done():
                peer.send_multipart([b"", b"let me go"])
                asked += 1
                if peer.poll(1000, zmq.POLLIN):
                    assert peer.recv_multipart()[1] == b"go"
                    answered += 1
            stopping.shutdown()
            assert ends.result()[0] == 0
        # What is sent when it has closed its socket waits for the next server of that place.
        assert asked - answered <= 1
