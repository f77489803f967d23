"""Several servers whose registry is PostgreSQL: as one, whatever becomes of them and of it."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING

import pytest
from commands import zmqlocker
from conftest import wait_until
from postgres_server import PostgresServer
from zmqlocker import LockerClient, ServerUnavailable

from cluster import Callers, Cluster, above_limit, allowed_since, keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: For how long a server grants after it wrote to the registry, in seconds.
ALIVE = 0.6

#: Of the tables: each test has its own.
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as postgres:
        yield postgres


@pytest.fixture
def cluster(postgres: PostgresServer) -> Iterator[Cluster]:
    registry = f"{postgres.url}?table=t{next(NUMBERS)}"
    with Cluster(registry, "k*=20/s sliding", "n*=8/min") as cluster:
        yield cluster


def costs(key: str) -> int:
    """So much that a key of the longer limit has room for one of them."""
    return 5 if key.startswith("n") else 1


@contextlib.contextmanager
def calling(ask: Callable[[str], bool], keys: list[str]) -> Iterator[Callers]:
    callers = Callers(ask, keys)
    try:
        yield callers
    finally:
        callers.finish()


class Unavailable:
    """Asks for permits, and notes when there was nobody to give them."""

    def __init__(self, client: LockerClient) -> None:
        self._client = client
        #: Of each key, when it was asked for in vain.
        self.asked: dict[str, list[float]] = {}

    def __call__(self, key: str) -> bool:
        asked = time.monotonic()
        try:
            return self._client.try_acquire(key, cost=costs(key), timeout=0.3).allowed
        except ServerUnavailable:
            self.asked.setdefault(key, []).append(asked)
            return False

    def since(self, key: str, since: float) -> bool:
        return any(asked > since for asked in self.asked.get(key, []))


def test_locks_exclude_each_other_and_limits_are_counted_once(cluster: Cluster) -> None:
    one, other, third = (LockerClient(url) for url in cluster.urls)
    with one, other, third:
        assert {cluster.home_of(key) for key in keys("lock", 24)} == set(cluster.servers)
        for key in keys("lock", 24):
            with one.lock(key) as lease:
                assert other.lock(key).try_acquire() is None
                lease.check()
            with third.lock(key, timeout=5.0) as later:
                assert later.token > lease.token
        for client in (one, other):
            assert all(client.try_acquire(key, cost=3).allowed for key in keys("n"))
        assert not any(third.try_acquire(key, cost=3).allowed for key in keys("n"))
        assert [third.peek(key).remaining for key in keys("n")] == [2] * 12
    assert zmqlocker("cluster", f"--url={cluster.urls[0]}", "--timeout=5")[0] == 0


def test_the_keys_of_a_killed_server_are_served_by_the_others(cluster: Cluster) -> None:
    homes = {key: cluster.home_of(key) for key in keys("k")}
    victim = homes["k0"]
    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        names = (f"lock{number}" for number in itertools.count())
        held = next(name for name in names if cluster.home_of(name) == victim)
        lease = client.lock(held, ttl=3.0).acquire()

        def ask(key: str) -> bool:
            return client.try_acquire(key, timeout=10.0).allowed

        with calling(ask, list(homes)) as callers:
            answers = callers.answers
            wait_until(lambda: all(allowed_since(answers[key], 0.0) for key in homes))
            killed_at = time.monotonic()
            cluster.servers[victim].process.kill()
            # Their limit counts as used up for a second, and is there again.
            lost = [key for key, home in homes.items() if home == victim]
            wait_until(lambda: all(allowed_since(answers[key], killed_at + 1.0) for key in lost))
        lease.check()
        assert other.lock(held).try_acquire() is None
        lease.release()
        with other.lock(held, timeout=20.0) as later:
            assert later.token > lease.token
    assert callers.errors == []
    assert all(list(above_limit(answers[key], 20, 1.0)) == [] for key in homes)


@pytest.mark.parametrize("fault", ["crash", "freeze"])
def test_without_it_nothing_is_granted_and_afterwards_everything_is_as_before(
    cluster: Cluster, postgres: PostgresServer, fault: str
) -> None:
    ways: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "crash": (postgres.crash, postgres.start),
        "freeze": (postgres.freeze, postgres.go_on),
    }
    take_away, bring_back = ways[fault]
    often, full = keys("k"), keys("n")
    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        assert all(client.try_acquire(key, cost=costs(key)).allowed for key in full)
        long = client.lock("long", ttl=60.0).acquire()
        lost = threading.Event()
        short = client.lock("short", on_lost=lambda _: lost.set()).acquire()
        ask = Unavailable(client)
        with calling(ask, often + full) as callers:
            answers = callers.answers
            wait_until(lambda: all(allowed_since(answers[key], 0.0) for key in often))
            take_away()
            away = time.monotonic()
            try:
                wait_until(lambda: all(ask.since(key, away + ALIVE) for key in often + full))
                with pytest.raises(ServerUnavailable):
                    other.lock("another", timeout=0.3).acquire()
                # Nobody can renew it, and its holder hears of that. The other one has time.
                wait_until(lost.is_set)
                long.check()
            finally:
                back = time.monotonic()
                bring_back()
            wait_until(lambda: all(allowed_since(answers[key], back) for key in often))
        for key in often:
            during = [one for one in answers[key] if away + ALIVE < one.asked and one.heard < back]
            assert not any(one.allowed for one in during)
            assert list(above_limit(answers[key], 20, 1.0)) == []
        assert not any(allowed_since(answers[key], 0.0) for key in full)
        assert other.lock("long").try_acquire() is None
        long.check()
        long.release()
        with other.lock("short", timeout=20.0) as later:
            assert later.token > short.token
    assert callers.errors == []
