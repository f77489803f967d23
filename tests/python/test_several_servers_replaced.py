"""Servers of a cluster under a name of others, and those that follow a server that was alone."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from commands import Serving
from conftest import free_port
from zmqlocker import LockerClient, LockerServer

from cluster import Cluster, keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


LIMIT = "k*=1000000/h"


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return f"file://{tmp_path}/registry"


@pytest.fixture
def cluster(registry: str) -> Iterator[Cluster]:
    with Cluster(registry, LIMIT, count=2) as cluster:
        yield cluster


def test_nobody_takes_a_server_for_another_one_of_its_name(cluster: Cluster, registry: str) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    mine = [key for key in keys("k", 40) if cluster.home_of(key) == "s0"]
    with ExitStack() as stack:
        clients = []
        for _ in range(3):
            copied = Serving("--name=s0", f"--registry={registry}", url=url)
            # They hear of the one that has the name from others alone.
            for _ in range(4):
                client = stack.enter_context(LockerClient([url, cluster.servers["s1"].url]))
                client.try_acquire("k")
                clients.append(client)
            assert copied.finish(None)[0] == 2
        for client in clients:
            assert all(client.try_acquire(key, timeout=5.0).allowed for key in mine)


def test_tokens_rise_when_one_server_becomes_several(registry: str) -> None:
    with (
        LockerServer(url="tcp://127.0.0.1:*", block=False) as alone,
        LockerClient(alone.url) as client,
        client.lock("k") as lease,
    ):
        before = lease.token
    with (
        Cluster(registry, count=1) as cluster,
        LockerClient(cluster.urls) as client,
        client.lock("k") as lease,
    ):
        assert lease.token > before
