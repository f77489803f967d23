"""What a server tells of itself to those who look at it, and a client of itself."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest
import zmqlocker
from conftest import wait_until
from zmqlocker import ClientInfo, KeyInfo, LockerClient, LockerServer
from zmqlocker.asyncio import LockerClient as AsyncClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS: Any = {"api": "3/h", "gpu": "2 at once", "tenant:*": "5/h"}


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(limits=LIMITS, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="looker") as client:
        yield client


def by_name(keys: list[KeyInfo]) -> dict[str, KeyInfo]:
    return {key.key: key for key in keys}


def test_the_status_is_what_the_server_is_doing(server: LockerServer, client: LockerClient) -> None:
    before = client.server_status()
    for _ in range(4):
        client.try_acquire("api")
    with client.limit("gpu"), pytest.raises(zmqlocker.ConfigError):
        client.try_acquire("unknown")
    with client.lock("nightly"):
        status = client.server_status()
    assert (status.version, status.url) == (zmqlocker.__version__, server.url)
    assert (status.security, status.durable, status.grace) == ("none", False, 0.0)
    assert status.registry is None
    assert status.run == before.run
    assert 0 < before.uptime < status.uptime
    assert (status.allowed, status.refused, status.problems) == (5, 1, 1)
    assert (status.bounds_hit, status.bad_messages, status.waiting) == (0, 0, 0)
    assert (status.leases, status.clients) == (1, 1)


def test_another_run_has_another_number_and_a_folder_is_told_of(tmp_path: Path) -> None:
    runs = set()
    for _ in range(2):
        with (
            LockerServer(5, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False) as server,
            LockerClient(server.url) as client,
        ):
            status = client.server_status()
            assert status.durable
            runs.add(status.run)
    assert len(runs) == 2


def test_the_busiest_keys_come_first_with_what_they_were_asked(client: LockerClient) -> None:
    for _ in range(5):
        client.try_acquire("api")
    client.try_acquire("tenant:7")
    with client.limit("gpu"), client.lock("nightly"):
        keys = client.busy_keys()
    assert keys[0].key == "api"
    seen = by_name(keys)
    assert set(seen) == {"api", "tenant:7", "gpu", "nightly"}
    api = seen["api"]
    assert (api.kind, api.allowed, api.refused, api.remaining) == ("limit", 3, 2, 0)
    assert (api.limit, api.waiting, api.holders) == ("3/h", 0, 0)
    assert 0 < api.reset_after <= 3600
    assert (seen["gpu"].holders, seen["gpu"].remaining) == (1, 1)
    assert (seen["nightly"].kind, seen["nightly"].limit) == ("lock", "a lock")
    assert [key.key for key in client.busy_keys(1)] == ["api"]


def test_a_frozen_key_says_for_how_long(client: LockerClient) -> None:
    client.try_acquire("api")
    client.freeze("api", 30.0)
    assert 29 < by_name(client.busy_keys())["api"].frozen <= 30


def test_permits_of_a_block_count_each(client: LockerClient) -> None:
    with client.block("tenant:1") as block:
        block.try_acquire()
        assert by_name(client.busy_keys())["tenant:1"].allowed >= 1


def test_more_keys_than_fit_a_page_are_all_there(client: LockerClient) -> None:
    names = {f"tenant:{'x' * 200}{number}" for number in range(60)}
    client.try_acquire_many(sorted(names))
    assert {key.key for key in client.busy_keys()} == names


def test_a_client_is_seen_with_its_address(server: LockerServer, client: LockerClient) -> None:
    with LockerClient(server.url, name="<script>") as other, other.lock("nightly"):
        seen = {info.name: info for info in client.clients()}
        assert set(seen) == {"looker", "<script>"}
        one: ClientInfo = seen["<script>"]
        assert (one.pid, one.host) == (os.getpid(), socket.gethostname())
        assert (one.address, one.leases, one.waiting) == ("127.0.0.1", 1, 0)
        assert 0 <= one.silent <= one.since < 60
    wait_until(lambda: [info.name for info in client.clients()] == ["looker"])


def test_more_clients_than_fit_a_page_are_all_there(
    server: LockerServer, client: LockerClient
) -> None:
    others = [LockerClient(server.url, name=f"{'n' * 200}{number}") for number in range(40)]
    for other in others:
        other.peek("api")
    assert len({info.name for info in client.clients()}) == 41
    assert len(client.clients(7)) == 7
    for other in others:
        other.close()


def test_asyncio_sees_the_same(server: LockerServer) -> None:
    async def look() -> None:
        async with AsyncClient(server.url, name="loop") as client:
            await client.try_acquire("api")
            assert (await client.server_status()).allowed == 1
            assert [key.key for key in await client.busy_keys()] == ["api"]
            assert [info.name for info in await client.clients()] == ["loop"]
            assert client.stats()["answers"] == 4

    asyncio.run(look())


def test_a_client_counts_what_it_did(server: LockerServer, client: LockerClient) -> None:
    del server
    for _ in range(3):
        client.try_acquire("api")
    client.try_acquire_many(["api"] * 10)
    with client.lock("nightly"):
        stats = client.stats()
    assert (stats["requests"], stats["answers"], stats["timeouts"]) == (14, 14, 0)
    assert (stats["retries"], stats["reconnects"], stats["by_policy"]) == (0, 0, 0)
    assert (stats["leases"], stats["under_way"]) == (1, 0)
    assert (stats["servers"], stats["servers_up"], stats["servers_healthy"]) == (1, 1, 1)
    assert 0 < stats["waited_max"] <= stats["waited"] < 60


def test_a_client_counts_what_went_wrong(free_url: str) -> None:
    with LockerClient(free_url, timeout=0.01, on_failure="open") as client:
        assert client.try_acquire("api")
        assert client.try_acquire("api")
        stats = client.stats()
        assert (stats["requests"], stats["timeouts"], stats["by_policy"]) == (1, 1, 2)
        assert (stats["servers"], stats["servers_up"], stats["servers_healthy"]) == (1, 0, 0)
    with pytest.raises(zmqlocker.LockerError):
        client.stats()


def test_a_client_counts_connections_that_were_made_again(free_url: str) -> None:
    with LockerClient(free_url) as client:
        for _ in range(2):
            with LockerServer(5, 60.0, free_url, block=False):
                client.try_acquire("api")
        assert client.stats()["reconnects"] == 1
