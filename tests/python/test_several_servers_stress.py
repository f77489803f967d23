"""Holders and callers at servers that die, freeze, stop and come back, with a registry in etcd."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import etcd_nodes
import pytest
from conftest import PATIENCE, free_port
from exclusion import read, sections, violations
from stress_client import boot_time
from zmqlocker import LockerClient, ServerUnavailable

from cluster import Callers, Cluster, above_limit, keys

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT = Path(__file__).with_name("lock_stress_client.py")

#: For how long it goes on, in seconds.
LENGTH = 12.0


#: A server that has not heard from the registry for so long grants nothing, in seconds.
ALIVE = 1.0


class Registry(NamedTuple):
    """A server of etcd of our own."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Registry]:
    """A registry in etcd."""
    ports = [free_port(), free_port()]
    client, peer = (f"http://127.0.0.1:{port}" for port in ports)
    with (tmp_path / "etcd.log").open("w") as log:
        command = etcd_nodes.etcd("one", tmp_path / "etcd", client, {"one": peer})
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield Registry(f"etcd://127.0.0.1:{ports[0]}", process)
    process.kill()
    process.wait()


def test_no_lock_has_two_holders_and_no_limit_is_exceeded_whatever_becomes_of_the_servers(
    etcd: Registry, tmp_path: Path
) -> None:
    seed = os.environ.get("ZMQLOCKER_SEED") or str(time.time_ns())
    print(f"ZMQLOCKER_SEED={seed}")
    dice = random.Random(seed)
    log = tmp_path / "log"
    log.touch()
    with Cluster(etcd.url, "k*=20/s sliding") as cluster:
        urls, until = cluster.urls, boot_time() + round(LENGTH * 1e9)
        holders = [
            subprocess.Popen(
                [sys.executable, str(CLIENT), ",".join(urls), str(log), str(until), seed, str(who)],
                stderr=subprocess.PIPE,
                text=True,
            )
            for who in range(3)
        ]
        keys = [f"k{number}" for number in range(6)]
        with LockerClient(urls) as client:
            callers = Callers(lambda key: client.try_acquire(key, timeout=10.0).allowed, keys, 0.01)
            while boot_time() < until - 2_000_000_000:
                _misfortune(cluster, dice)
                time.sleep(dice.choice((0.5, 1.0, 1.5)))
            for holder in holders:
                _, told = holder.communicate(timeout=PATIENCE)
                assert (holder.returncode, told) == (0, "")
            callers.finish()
    notes = list(read(log))
    assert violations(notes) == []
    counts = {key: len(ordered) for key, ordered in sections(notes).items()}
    print(counts, {key: len(heard) for key, heard in callers.answers.items()})
    assert sum(counts.values()) > 50
    for key in keys:
        assert list(above_limit(callers.answers[key], 20, 1.0)) == []
    assert callers.errors == []


def _misfortune(cluster: Cluster, dice: random.Random) -> None:
    """What becomes of one of the servers; all of them are there afterwards."""
    name = dice.choice(sorted(cluster.servers))
    server = cluster.servers[name]
    match dice.choice(("kill", "stop", "freeze")):
        case "kill":
            server.kill()
            cluster.start(name, server.url)
        case "stop":
            server.finish()
            cluster.start(name, server.url)
        case _:
            server.process.send_signal(signal.SIGSTOP)
            time.sleep(dice.choice((0.3, 1.2)))
            server.process.send_signal(signal.SIGCONT)


def test_while_the_registry_is_silent_nobody_grants_and_all_goes_on_afterwards(
    etcd: Registry,
) -> None:
    with Cluster(etcd.url) as cluster, LockerClient(cluster.urls) as client:
        lease = client.lock("held", ttl=10.0).acquire()
        etcd.process.send_signal(signal.SIGSTOP)
        try:
            # By now all servers are past the time for which their last beat keeps them alive.
            time.sleep(ALIVE)
            with pytest.raises(ServerUnavailable, match="ask again"):
                client.lock("k", timeout=0.3).acquire()
            assert lease.held
        finally:
            etcd.process.send_signal(signal.SIGCONT)
        with client.lock("k", timeout=20.0) as later:
            assert later.held
        assert client.lock("held").try_acquire() is None
        lease.release()


def test_a_server_that_was_replaced_while_it_stood_still_leads_nobody_astray(
    etcd: Registry,
) -> None:
    with Cluster(etcd.url, count=2) as cluster:
        old = cluster.servers["s0"]
        mine = [key for key in keys("k", 40) if cluster.home_of(key) == "s0"]
        with LockerClient(cluster.urls) as client:
            for key in mine:
                client.lock(key).acquire().release()
            old.send(signal.SIGSTOP)
            cluster.start("s0").line_with("is home of 32 of 64 partitions, with 2 servers")
            # It goes on where it stood, and finds its place taken.
            assert old.finish(signal.SIGCONT)[0] == 2
            for key in mine:
                client.lock(key, timeout=5.0).acquire().release()
