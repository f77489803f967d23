"""Several servers with one key: as encrypted as one server is, and as one for who is let in."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

import pytest
import zmq
from commands import zmqlocker
from conftest import PATIENCE, wait_until
from zmq.utils.monitor import recv_monitor_message
from zmqlocker import AuthError, LockerClient

from cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from keys import Key, KeyRing

#: How long a socket of pyzmq waits for what must come.
MILLIS = int(PATIENCE * 1000)

#: What a socket that connects is told of in the end.
ENDS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
ENDS |= zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


@pytest.fixture
def cluster(ring: KeyRing, worker: Key, tmp_path: Path) -> Iterator[Cluster]:
    options = [f"--curve-key={ring.server.file}", f"--clients={ring.clients}"]
    registry, limits = f"file://{tmp_path}/registry", ["n*=8/min", "default=1/min"]

    def give_key(socket: zmq.Socket[bytes]) -> None:
        worker.give(socket, ring.server)

    with Cluster(registry, *limits, options=options, give_key=give_key) as cluster:
        yield cluster


def test_who_has_a_key_is_served_by_all_and_keeps_its_lock_when_its_server_is_killed(
    cluster: Cluster, ring: KeyRing, worker: Key
) -> None:
    keys, counted = worker.client(ring.server), [f"n{number}" for number in range(12)]
    one, other = (LockerClient(url, **keys) for url in cluster.urls[:2])
    with one, other:
        assert {cluster.home_of(key) for key in counted} == set(cluster.servers)
        assert all(one.try_acquire(key, cost=5).allowed for key in counted)
        assert not any(other.try_acquire(key, cost=4).allowed for key in counted)
        lease = one.lock("long", ttl=3.0).acquire()
        assert other.lock("long").try_acquire() is None
        cluster.servers.pop(cluster.home_of("long")).finish(signal.SIGKILL)

        def holds(url: str) -> bool:
            with LockerClient(url, **keys) as client:
                return any(lock.key == "long" for lock in client.locks())

        wait_until(lambda: any(holds(url) for url in cluster.urls))
        lease.check()
        assert other.lock("long").try_acquire() is None
        lease.release()
        with other.lock("long", timeout=20.0) as later:
            assert later.token > lease.token


def test_who_has_none_or_another_is_let_in_by_no_server(cluster: Cluster, ring: KeyRing) -> None:
    unknown = ring.key("unknown").client(ring.server)
    strangers = [(unknown, "does not let this client's key in"), ({}, "clients with keys only")]
    for url in cluster.urls:
        for keys, problem in strangers:
            with (
                LockerClient(url, timeout=PATIENCE, **keys) as client,
                pytest.raises(AuthError, match=re.escape(problem)),
            ):
                client.lock("k").acquire()
    with LockerClient(cluster.urls, timeout=PATIENCE, **unknown) as client:
        for key in ("a", "b", "c"):
            with pytest.raises(AuthError, match="does not let this client's key in"):
                client.try_acquire(key)
    status, _, errors = zmqlocker("cluster", f"--url={cluster.urls[0]}", "--timeout=5")
    assert (status, "it lets in clients with keys only" in errors) == (3, True), errors


def test_clients_of_the_first_design_need_a_key_too(
    cluster: Cluster, ring: KeyRing, worker: Key
) -> None:
    home = cluster.servers[cluster.home_of("default")].url
    with zmq.Context() as context:
        for key, url in [*((None, url) for url in cluster.urls), (worker, home)]:
            asker = context.socket(zmq.REQ)
            if key:
                key.give(asker, ring.server)
            monitor = asker.get_monitor_socket(ENDS)
            asker.connect(url)
            asker.send(b"let me go")
            assert monitor.poll(MILLIS)
            end = recv_monitor_message(monitor)["event"]
            assert (end == zmq.EVENT_HANDSHAKE_SUCCEEDED) == (key is not None)
            asker.disable_monitor()
            monitor.close(0)
            if key:
                assert asker.poll(MILLIS)
                assert asker.recv() == b"go"
            asker.close(0)
