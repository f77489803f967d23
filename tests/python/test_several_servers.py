"""Several servers that share the keys through a registry: as one, whatever becomes of them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import zmqlocker.asyncio
from commands import zmqlocker as command
from conftest import wait_until
from zmqlocker import (
    ConfigError,
    DeadlockError,
    LockerClient,
    LockerError,
    LockerServer,
    LockTimeout,
)

from cluster import Callers, Cluster, above_limit, allowed_since, keys

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zmqlocker import LockInfo

#: A dead server's keys are answered again within so many seconds.
FAIL_OVER = 2.0


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return f"file://{tmp_path}/registry"


@pytest.fixture
def cluster(registry: str) -> Iterator[Cluster]:
    limits = ["k*=20/s sliding", "n*=8/min", "default=3/min", "gpu*=1 at once"]
    with Cluster(registry, *limits) as cluster:
        yield cluster


def test_whoever_is_asked_all_keys_are_counted_once(cluster: Cluster) -> None:
    for url in cluster.urls[:2]:
        with LockerClient(url) as client:
            assert all(client.try_acquire(key, cost=3).allowed for key in keys("n"))
    with LockerClient(cluster.urls) as client:
        refused = [client.try_acquire(key, cost=3) for key in keys("n")]
        assert not any(decision.allowed for decision in refused)
        assert [client.peek(key).remaining for key in keys("n")] == [2] * 12
        assert all(decision.allowed for decision in client.try_acquire_many(keys("n")))


def test_seed_clients_hear_the_home_of_default_from_any_server(cluster: Cluster) -> None:
    answers = []
    for url in cluster.urls * 2:
        with LockerClient(url) as client:
            answers.append(client.next())
    assert answers == ["go"] * 3 + ["sorry"] * 3


def test_locks_exclude_each_other_over_all_servers(cluster: Cluster) -> None:
    one, other, third = (LockerClient(url) for url in cluster.urls)
    with one, other, third:
        for key in keys("lock"):
            with one.lock(key) as lease:
                assert other.lock(key).try_acquire() is None
                lease.check()
            with third.lock(key, timeout=5.0) as later:
                assert later.token > lease.token


def test_who_waits_at_one_server_is_served_when_another_client_releases(cluster: Cluster) -> None:
    one, other = (LockerClient(url) for url in cluster.urls[:2])
    with one, other:
        for key in keys("lock", 6):
            served = threading.Event()

            def wait(key: str = key, served: threading.Event = served) -> None:
                with other.lock(key, timeout=20.0):
                    served.set()

            waiter = threading.Thread(target=wait)
            with one.lock(key):
                waiter.start()
                assert not served.wait(0.05)
            waiter.join()
            assert served.is_set()


def one_of_each_home(cluster: Cluster, prefix: str) -> dict[str, str]:
    """A key of each server, by the name of the server."""
    found: dict[str, str] = {}
    for key in keys(prefix, 1000):
        found.setdefault(cluster.home_of(key), key)
        if len(found) == len(cluster.servers):
            break
    return found


def test_locks_of_several_homes_are_held_together_and_outlive_one_of_them(cluster: Cluster) -> None:
    homes = one_of_each_home(cluster, "lock")
    together = list(homes.values())
    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        lease = client.lock(together, ttl=10.0).acquire()
        assert list(lease.tokens) == together
        with pytest.raises(LockerError, match="have a token each"):
            _ = lease.token
        assert all(other.lock(key).try_acquire() is None for key in together)
        with pytest.raises(LockTimeout):
            other.lock(together[::-1], timeout=0.2).acquire()
        victim = next(iter(homes))
        cluster.servers[victim].process.kill()
        survivors = [server.url for name, server in cluster.servers.items() if name != victim]
        wait_until(lambda: homes[victim] in {row.key for url in survivors for row in locks_at(url)})
        lease.check()
        lease.release()
        with other.lock(together, timeout=20.0) as later:
            assert all(later.tokens[key] > lease.tokens[key] for key in together)


def test_who_takes_the_same_locks_in_another_order_waits_and_no_more(cluster: Cluster) -> None:
    together = list(one_of_each_home(cluster, "lock").values())
    inside, most = 0, 0

    def take(order: list[str]) -> None:
        nonlocal inside, most
        with LockerClient(cluster.urls) as client:
            for _ in range(20):
                with client.lock(order, timeout=20.0):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1

    with ThreadPoolExecutor() as pool:
        orders = [together, together[::-1], together[1:] + together[:1]]
        for done in [pool.submit(take, order) for order in orders]:
            done.result()
    assert most == 1


def test_a_cycle_of_waits_at_one_home_is_found(cluster: Cluster) -> None:
    home = cluster.home_of("lock0")
    first, second = [key for key in keys("lock", 40) if cluster.home_of(key) == home][:2]
    client, other = LockerClient(cluster.urls), LockerClient(cluster.urls)
    with client, other, ThreadPoolExecutor() as pool:
        with client.lock(first):
            late = pool.submit(take_both, other, second, first)
            wait_until(lambda: any(row.key == first and row.waiters for row in client.locks()))
            with pytest.raises(DeadlockError), client.lock(second, timeout=20.0):
                pass
        late.result()


def take_both(client: LockerClient, first: str, second: str) -> None:
    with client.lock(first), client.lock(second, timeout=20.0):
        pass


def test_permits_of_several_homes_are_all_taken_or_none(cluster: Cluster) -> None:
    first, second, third = one_of_each_home(cluster, "n").values()
    with LockerClient(cluster.urls) as client:
        assert client.try_acquire({first: 5, second: 5, third: 5})
        refused = client.try_acquire({first: 3, second: 3, third: 4})
        assert not refused
        assert refused.key == third
        wait_until(lambda: [client.peek(key).remaining for key in (first, second)] == [3, 3])
        with client.reserve({first: 3, second: 3}) as reservation:
            reservation.commit({first: 1, second: 3})
        wait_until(lambda: [client.peek(key).remaining for key in (first, second)] == [2, 0])


def test_tasks_take_locks_of_several_homes(cluster: Cluster) -> None:
    together = list(one_of_each_home(cluster, "lock").values())

    async def take() -> None:
        async with zmqlocker.asyncio.LockerClient(cluster.urls) as client:
            lease = await client.lock(together, ttl=5.0).acquire()
            late = asyncio.create_task(client.lock(together[1:], timeout=20.0).acquire())
            # It begins to wait.
            await asyncio.sleep(0)
            late.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await late
            await lease.release()
            # Whoever was cancelled holds nothing.
            async with client.lock(together, timeout=20.0) as later:
                assert later.tokens.keys() == lease.tokens.keys()

    asyncio.run(take())


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL])
def test_who_knows_one_server_is_served_by_others_when_that_is_gone(
    cluster: Cluster, ends: signal.Signals
) -> None:
    home = cluster.home_of("long")
    with LockerClient(cluster.servers[home].url) as client:
        with client.lock("long", ttl=10.0) as lease:
            cluster.servers[home].finish(ends)
            survivors = [server.url for name, server in cluster.servers.items() if name != home]
            wait_until(lambda: "long" in {row.key for url in survivors for row in locks_at(url)})
            lease.check()
        with client.lock("another", timeout=20.0):
            pass


def test_whoever_looks_at_one_server_sees_the_keys_of_all(cluster: Cluster) -> None:
    homes, limited = one_of_each_home(cluster, "lock"), one_of_each_home(cluster, "n")
    with LockerClient(cluster.urls, name="holder") as client:
        leases = [client.lock(key, ttl=10.0).acquire() for key in homes.values()]
        for count, key in enumerate(limited.values(), start=1):
            assert client.try_acquire_many([key] * count)
        for server in cluster.servers.values():
            with LockerClient(server.url) as one:
                assert {row.key for row in one.locks()} == set(homes.values())
                limits = [row for row in one.busy_keys() if row.kind == "limit"]
                assert {row.key: row.allowed for row in limits} == dict(
                    zip(limited.values(), (1, 2, 3), strict=True)
                )
                assert sum(row.name == "holder" for row in one.clients()) == len(homes)
        victim, *others = homes
        cluster.servers[victim].process.kill()
        # That one is gone once the others know; until then nobody can tell what it has.
        for name in others:
            assert {row.key for row in locks_at(cluster.servers[name].url)} <= set(homes.values())
        wait_until(lambda: len(locks_at(cluster.servers[others[0]].url)) == len(homes))
        for lease in leases:
            lease.release()


def test_a_permit_is_held_by_one_over_all_servers(cluster: Cluster) -> None:
    one, other = (LockerClient(url) for url in cluster.urls[:2])
    with one, other:
        for key in keys("gpu", 6):
            with one.limit(key), pytest.raises(LockTimeout), other.limit(key, timeout=0.05):
                pass


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGKILL])
def test_a_permit_is_held_on_where_its_key_goes(cluster: Cluster, ends: signal.Signals) -> None:
    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        with client.limit("gpu1", ttl=3.0) as lease:
            home = cluster.home_of("gpu1")
            cluster.servers.pop(home).finish(ends)
            wait_until(lambda: cluster.home_of("gpu1") in cluster.servers)

            def holders() -> list[int]:
                return [row.holders for row in other.busy_keys() if row.key == "gpu1"]

            with pytest.raises(LockTimeout), other.limit("gpu1", timeout=2.0):
                pass
            wait_until(lambda: holders() == [1])
            assert lease.remaining > 1.0
        with other.limit("gpu1", timeout=20.0):
            pass


def test_the_keys_of_a_killed_server_are_served_by_others_and_theirs_never_stop(
    cluster: Cluster,
) -> None:
    all_keys = keys("k", 16)
    locks = {key: cluster.home_of(key) for key in all_keys}
    victim = locks[all_keys[0]]
    with LockerClient(cluster.urls) as client:
        callers = Callers(lambda key: client.try_acquire(key, timeout=10.0).allowed, all_keys)
        wait_until(lambda: all(len(heard) > 20 for heard in callers.answers.values()))
        killed_at = time.monotonic()
        cluster.servers[victim].process.kill()
        lost = [key for key in all_keys if locks[key] == victim]
        kept = [key for key in all_keys if locks[key] != victim]

        def answered_since(key: str) -> bool:
            return any(answer.asked > killed_at for answer in callers.answers[key])

        wait_until(lambda: all(answered_since(key) for key in all_keys))
        answers = callers.answers
        wait_until(lambda: any(allowed_since(answers[key], killed_at + 1.0) for key in lost))
        callers.finish()
    gaps = {key: max(one.heard - one.asked for one in callers.answers[key]) for key in all_keys}
    print({"lost": max(gaps[key] for key in lost), "kept": max(gaps[key] for key in kept)})
    assert callers.errors == []
    assert max(gaps[key] for key in lost) < FAIL_OVER
    for key in all_keys:
        assert list(above_limit(callers.answers[key], 20, 1.0)) == []


def test_a_lease_that_is_long_enough_outlives_its_server(cluster: Cluster) -> None:
    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        with client.lock("long", ttl=10.0) as lease:
            home = cluster.home_of("long")
            cluster.servers[home].process.kill()
            survivors = [server.url for name, server in cluster.servers.items() if name != home]

            def is_known() -> bool:
                return any(row.key == "long" for url in survivors for row in locks_at(url))

            wait_until(is_known)
            lease.check()
            assert other.lock("long").try_acquire() is None
        # What was given back is free, once its home is sure of what was held.
        with other.lock("long", timeout=20.0) as later:
            assert later.token > lease.token


def locks_at(url: str) -> list[LockInfo]:
    with LockerClient(url) as client:
        return list(client.locks())


def test_a_clean_stop_hands_over_what_is_used_and_held(cluster: Cluster) -> None:
    all_keys = keys("n")
    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        assert all(client.try_acquire(key, cost=5).allowed for key in all_keys)
        leases = [client.lock(key, ttl=5.0).acquire() for key in keys("lock")]
        status, _ = cluster.servers["s1"].finish()
        assert status == 0
        del cluster.servers["s1"]
        assert [other.peek(key).remaining for key in all_keys] == [3] * 12
        for key, lease in zip(keys("lock"), leases, strict=True):
            assert other.lock(key).try_acquire() is None
            lease.check()
        for lease in leases:
            lease.release()
        for key in keys("lock"):
            with other.lock(key, timeout=10.0):
                pass


def test_what_is_given_back_while_partitions_move_is_free(cluster: Cluster) -> None:
    held = keys("lock", 24)
    ends = threading.Event()

    def take(key: str) -> int:
        count = 0
        while not ends.is_set():
            # A lease that nobody gave back would keep the next one out for a minute.
            with client.lock(key, ttl=60.0, timeout=20.0):
                count += 1
            client.lock(key, ttl=60.0, timeout=20.0).acquire().release()
        return count

    with LockerClient(cluster.urls) as client, LockerClient(cluster.urls) as other:
        with ThreadPoolExecutor(len(held)) as pool:
            counts = [pool.submit(take, key) for key in held]
            for name in ("s0", "s1"):
                wait_until(lambda: {cluster.home_of(key) for key in held} == set(cluster.servers))
                cluster.servers.pop(name).finish()
            ends.set()
            assert all(count.result() for count in counts)
        # The client is there still, and would keep what it had forgotten.
        for key in held:
            other.lock(key, timeout=0.5).acquire().release()


def test_nobody_waits_long_while_a_server_stops_in_order(cluster: Cluster) -> None:
    all_keys = keys("k", 16)
    with LockerClient(cluster.urls) as client:
        callers = Callers(lambda key: client.try_acquire(key).allowed, all_keys)
        wait_until(lambda: all(len(heard) > 20 for heard in callers.answers.values()))
        cluster.servers["s0"].finish()
        del cluster.servers["s0"]
        callers.finish()
    longest = max(callers.longest(key) for key in all_keys)
    print({"longest while a server stopped": longest})
    assert callers.errors == []
    assert longest < 1.0
    for key in all_keys:
        assert list(above_limit(callers.answers[key], 20, 1.0)) == []


def test_a_server_that_joins_takes_its_share_without_a_gap(cluster: Cluster) -> None:
    all_keys = keys("k", 16)
    with LockerClient(cluster.urls) as client:
        lease = client.lock("held").acquire()
        callers = Callers(lambda key: client.try_acquire(key).allowed, all_keys)
        cluster.start("s9")
        wait_until(lambda: any(cluster.home_of(key) == "s9" for key in keys("new", 20)))
        callers.finish()
        lease.check()
        lease.release()
    assert callers.errors == []
    for key in all_keys:
        assert list(above_limit(callers.answers[key], 20, 1.0)) == []


def test_what_counts_as_used_up_does_so_at_its_next_home_too(cluster: Cluster) -> None:
    all_keys = keys("n", 60)
    homes = {key: cluster.home_of(key) for key in all_keys}
    victim = homes[all_keys[0]]
    lost = [key for key in all_keys if homes[key] == victim]
    with LockerClient(cluster.urls) as client:
        assert all(client.try_acquire(key, cost=5).allowed for key in lost)
        cluster.servers.pop(victim).finish(signal.SIGKILL)
        wait_until(lambda: cluster.home_of(lost[0]) in cluster.servers)
        joined = cluster.start("s9")
        joined.line_with("is home of 21 of 64 partitions, with 3 servers")
        wait_until(lambda: any(cluster.home_of(key) == "s9" for key in lost))
        moved = [key for key in lost if cluster.home_of(key) == "s9"]
        assert not any(client.try_acquire(key, cost=4).allowed for key in moved)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--name=s0",), 'another server of this cluster is named "s0"'),
        (("--name=s1", "--advertise={url}"), '"s0" of this cluster is found at {url} as well'),
    ],
)
def test_a_second_server_of_a_name_or_url_is_refused_and_the_first_goes_on(
    registry: str, arguments: tuple[str, ...], told: str
) -> None:
    with Cluster(registry, count=1) as cluster:
        (url,) = cluster.urls
        options = [f"--registry={registry}", *(option.format(url=url) for option in arguments)]
        status, _, heard = command("serve", "--url=tcp://127.0.0.1:*", *options)
        assert (status, told.format(url=url) in heard) == (2, True), heard
        with LockerClient(cluster.urls) as client, client.lock("k"):
            pass


def test_the_registry_of_another_cluster_is_refused(registry: str) -> None:
    with (
        Cluster(registry, count=1),
        pytest.raises(ConfigError, match="the registry is of the cluster"),
    ):
        LockerServer(
            url="tcp://127.0.0.1:*", registry=f"{registry}?cluster=blue", name="b", block=False
        )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"url": "tcp://*:*"}, "advertise must say where"),
        ({"url": "ipc:///tmp/zmqlocker-x", "name": None}, "name must be given"),
        ({"name": "a b"}, "name must be 1 to 64 letters"),
        ({"registry": "redis://a"}, "registry must read etcd://"),
        ({"registry": None}, "name is of no use without a registry"),
        ({"advertise": "tcp://*:7777"}, "advertise must be where"),
    ],
)
def test_bad_settings_are_refused_by_name(
    registry: str, arguments: dict[str, Any], told: str
) -> None:
    good: dict[str, Any] = {"url": "tcp://127.0.0.1:*", "registry": registry, "name": "a"}
    with pytest.raises(ConfigError, match=told):
        LockerServer(block=False, **{**good, **arguments})


def test_what_is_used_outlives_all_servers_that_stop_in_order(registry: str) -> None:
    limits = {"k": "3/min"}
    with (
        LockerServer(
            url="tcp://127.0.0.1:*", limits=limits, registry=registry, block=False
        ) as server,
        LockerClient(server.url) as client,
    ):
        assert client.try_acquire("k", cost=2).allowed
    with (
        LockerServer(
            url="tcp://127.0.0.1:*", limits=limits, registry=registry, block=False
        ) as server,
        LockerClient(server.url) as client,
    ):
        assert client.peek("k").remaining == 1


def test_a_server_that_is_stopped_for_a_while_grants_nothing_when_it_goes_on(
    cluster: Cluster,
) -> None:
    with LockerClient(cluster.urls) as client:
        home = cluster.home_of("frozen")
        frozen = cluster.servers[home]
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            with client.lock("frozen", timeout=20.0) as lease:
                frozen.process.send_signal(signal.SIGCONT)
                with LockerClient(frozen.url) as other:
                    assert other.lock("frozen").try_acquire() is None
                lease.check()
        finally:
            frozen.process.send_signal(signal.SIGCONT)
