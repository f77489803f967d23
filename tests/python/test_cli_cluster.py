"""`zmqlocker cluster`: which servers share the keys, how each of them does, and who is home."""

from __future__ import annotations

import fcntl
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from commands import zmqlocker
from conftest import wait_until
from zmqlocker import LockerClient

from cluster import Callers, Cluster, above_limit, partition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from commands import Serving


def seen(url: str) -> tuple[int, dict[str, Any]]:
    status, output, _ = zmqlocker("cluster", f"--url={url}", "--timeout=1", "--json")
    return status, json.loads(output)


def shares(url: str) -> list[int]:
    return sorted(one["homes"] for one in seen(url)[1]["servers"])


def test_all_servers_and_their_shares_are_shown(tmp_path: Path) -> None:
    with Cluster(f"file://{tmp_path}/registry", "k=5/min") as cluster:
        asked = cluster.servers["s0"].url
        wait_until(lambda: seen(asked)[0] == 0)
        status, output, errors = zmqlocker("cluster", f"--url={asked}")
        assert (status, errors) == (0, "")
        header, *rows, last = output.splitlines()
        assert header.split() == ["NAME", "HOMES", "UP", "ALLOWED", "REFUSED", "WAIT", "URL"]
        assert [row.split()[0] for row in rows] == ["s0", "s1", "s2"]
        assert sum(int(row.split()[1]) for row in rows) == 64
        assert [row.split()[-1] for row in rows] == cluster.urls
        assert last.startswith("64 partitions, each with a home, epoch ")
        assert all(len(line) <= 80 for line in output.splitlines())


def test_one_that_died_leaves_its_share_to_the_others(tmp_path: Path) -> None:
    with Cluster(f"file://{tmp_path}/registry", "k=5/min") as cluster:
        asked = cluster.servers["s0"].url
        # Whoever is asked sees with its next look what the others have done.
        wait_until(lambda: shares(asked) == [21, 21, 22])
        _, before = seen(asked)
        cluster.servers["s2"].process.kill()

        def is_taken() -> bool:
            status, now = seen(asked)
            names = [one["name"] for one in now["servers"]]
            return status == 0 and names == ["s0", "s1"]

        wait_until(is_taken)
        _, after = seen(asked)
        assert after["epoch"] > before["epoch"]
        assert [one["homes"] for one in after["servers"]] == [32, 32]
        assert all(one["status"]["version"] for one in after["servers"])


def test_one_that_is_silent_is_told_of(tmp_path: Path) -> None:
    with Cluster(f"file://{tmp_path}/registry", "k=5/min", count=1) as cluster:
        status, alone = seen(cluster.urls[0])
        assert status == 0
        assert [one["homes"] for one in alone["servers"]] == [64]
        cluster.servers["s0"].process.kill()
        status, output, errors = zmqlocker("cluster", f"--url={cluster.urls[0]}", "--timeout=0.2")
        assert (status, output) == (3, "")
        assert cluster.urls[0].rpartition(":")[2] in errors


def test_a_server_without_a_registry_is_alone(serving: Callable[..., Serving]) -> None:
    server = serving()
    status, output, errors = zmqlocker("cluster", f"--url={server.url}")
    assert (status, output) == (2, "")
    assert "it was started without a registry" in errors


@pytest.fixture
def registry(tmp_path: Path) -> str:
    return f"file://{tmp_path}/registry"


def wish(registry: str, *words: str) -> tuple[int, str, str]:
    return zmqlocker("cluster", *words, ZMQLOCKER_REGISTRY=registry, ZMQLOCKER_URL="tcp://none:1")


def is_home(cluster: Cluster, name: str, *keys: str) -> bool:
    return all(cluster.home_of(key) == name for key in keys)


def homes(url: str) -> dict[str, int]:
    return {one["name"]: one["homes"] for one in seen(url)[1]["servers"]}


def test_a_lock_is_held_and_a_limit_is_kept_while_their_partition_moves(registry: str) -> None:
    with (
        Cluster(registry, "k=20/s sliding", "used=8/h") as cluster,
        LockerClient(cluster.urls) as client,
        LockerClient(cluster.urls) as other,
    ):
        beside = next(f"n{it}" for it in range(10_000) if partition(f"n{it}") == partition("used"))
        assert client.try_acquire("used", cost=5).allowed
        callers = Callers(lambda key: client.try_acquire(key).allowed, ["k"])
        lease = client.lock(beside, ttl=5.0).acquire()
        try:
            for name in ["s0", "s1", "s2", "s0"]:
                assert wish(registry, "move", "--key", "used", name) == (0, "", "")
                assert wish(registry, "move", "--key", "k", name) == (0, "", "")
                # Whoever is asked sees with its next look who is home.
                wait_until(partial(is_home, cluster, name, "used", "k"))
                lease.check()
                assert other.lock(beside).try_acquire() is None
                assert other.peek("used").remaining == 3
        finally:
            callers.finish()
        with LockerClient(cluster.servers["s0"].url) as home:
            (row,) = home.locks()
            assert (row.key, row.holders[0].token) == (beside, lease.token)
        lease.release()
        with other.lock(beside) as later:
            assert later.token > lease.token
    assert callers.errors == []
    assert list(above_limit(callers.answers["k"], 20, 1.0)) == []


def test_what_is_moved_is_shown_until_it_is_taken_back(registry: str) -> None:
    with Cluster(registry, "k=5/min", count=2) as cluster:
        asked, option = f"--url={cluster.urls[1]}", f"--registry={registry}"
        status, output, _ = wish(registry, "move", "7", "s1", "--json")
        assert (status, json.loads(output)) == (0, {"partition": 7, "name": "s1", "done": True})
        # Until the server that is asked has seen that, it says who is home still.
        wait_until(
            lambda: (
                zmqlocker("cluster", asked, option)[1].splitlines()[-2]
                == "partition 07: moved to s1"
            )
        )
        shown = json.loads(zmqlocker("cluster", asked, option, "--json")[1])
        assert (shown["moves"], shown["drained"]) == ([{"partition": 7, "name": "s1"}], [])
        # Without the registry nobody knows.
        shown = seen(cluster.urls[0])[1]
        assert (shown["moves"], shown["drained"]) == (None, None)
        assert wish(registry, "unmove", "07") == (0, "", "")
        assert "moved" not in zmqlocker("cluster", asked, option)[1]
        status, output, errors = wish(registry, "unmove", "7", "--json")
        assert (status, json.loads(output)) == (1, {"partition": 7, "done": False})
        assert errors == "zmqlocker: partition 07 was not moved\n"


def test_a_drained_server_is_home_of_nothing_until_that_is_taken_back(registry: str) -> None:
    with Cluster(registry, "k=5/h", "default=2/h") as cluster:
        asked = cluster.servers["s1"].url
        assert wish(registry, "drain", "s1", "--json") == (0, '{"name": "s1", "done": true}\n', "")
        wait_until(lambda: homes(asked) == {"s0": 32, "s1": 0, "s2": 32})
        status, output, _ = zmqlocker("cluster", f"--url={asked}", f"--registry={registry}")
        assert (status, output.splitlines()[-2]) == (0, "s1: drained")
        # It answers those who know it alone.
        with LockerClient(asked) as client:
            assert client.try_acquire("k", cost=4).allowed
            assert [client.next() for _ in range(3)] == ["go", "go", "sorry"]
            with client.lock("held"):
                pass
        assert cluster.servers["s1"].finish()[0] == 0
        again = cluster.start("s1").url
        assert homes(again) == {"s0": 32, "s1": 0, "s2": 32}
        assert wish(registry, "undrain", "s1") == (0, "", "")
        wait_until(lambda: shares(again) == [21, 21, 22])
        with LockerClient(cluster.urls) as client:
            assert client.peek("k").remaining == 1
        status, _, errors = wish(registry, "undrain", "s1")
        assert (status, errors) == (1, "zmqlocker: s1 was not drained; drained: none\n")


def test_the_last_server_is_not_drained(registry: str) -> None:
    with Cluster(registry, "k=5/min", count=2) as cluster:
        assert wish(registry, "drain", "s0")[0] == 0
        status, output, errors = wish(registry, "drain", "s1", "--json")
        assert (status, json.loads(output)) == (1, {"name": "s1", "done": False})
        assert "s1 cannot be drained: no other server is there that is not" in errors
        status, _, errors = wish(registry, "move", "7", "s0")
        assert status == 1
        assert "`zmqlocker cluster undrain s0` first" in errors
        # The one that is not drained goes.
        cluster.servers.pop("s1").finish()
        asked = cluster.servers["s0"].url
        wait_until(lambda: homes(asked) == {"s0": 64})
        output = zmqlocker("cluster", f"--url={asked}", f"--registry={registry}")[1]
        assert "all servers are drained, which counts for nothing: undrain one" in output


def test_what_is_not_there_yet_is_told_of(registry: str) -> None:
    with Cluster(registry, "k=5/min", count=2) as cluster:
        # Nobody hands over: what is wished is written down all the same.
        home = next(name for name in cluster.servers if cluster.home_of("k") == name)
        (other,) = set(cluster.servers) - {home}
        for server in cluster.servers.values():
            server.process.kill()
            server.process.wait()
        status, _, errors = wish(registry, "move", "--key", "k", other, "--timeout=0.1")
        late = (
            f"partition {partition('k'):02} is still with {home} after 0.1 s, and goes to {other}"
        )
        assert (status, errors) == (1, f"zmqlocker: {late} as soon as it can\n")
        status, _, errors = wish(registry, "drain", home, "--timeout=0.1")
        late = f"{home} is still home of 32 partitions after 0.1 s, which go as soon as they can"
        assert (status, errors) == (1, f"zmqlocker: {late}\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["move", "64", "s0"], 'PARTITION must be from 0 to 63, or a key after --key, not "64"'),
        (["move", "k", "s0"], 'PARTITION must be from 0 to 63, or a key after --key, not "k"'),
        (["move", "--key", "", "s0"], "key must be"),
        (["move", "7", "s9"], "NAME must be one of the servers that are there, not s9: s0"),
        (["drain", "s9"], "NAME must be one of the servers that are there, not s9: s0"),
        (["drain", "a b"], "name must be 1 to 64 letters"),
        (["drain", "s0", "--timeout=0"], "--timeout must be"),
        (["drain", "s0", "--registry=redis://a"], "registry must read etcd://"),
        (["drain"], "<NAME>"),
    ],
)
def test_what_cannot_be_wished_is_wrong_usage(registry: str, words: list[str], told: str) -> None:
    with Cluster(registry, "k=5/min", count=1):
        status, output, errors = wish(registry, *words)
    assert (status, output) == (2, "")
    assert told in errors, errors


def test_a_registry_that_is_not_there_or_another_ones_is_told_of(tmp_path: Path) -> None:
    missing = f"file://{tmp_path}/no"
    status, _, errors = wish(missing, "drain", "s0")
    assert (status, f"cannot use the registry: {missing} is no folder" in errors) == (3, True)
    assert not (tmp_path / "no").exists()
    (tmp_path / "empty").mkdir()
    status, _, errors = wish(f"file://{tmp_path}/empty", "drain", "s0")
    assert (status, "registry has no cluster" in errors) == (2, True), errors
    status, _, errors = zmqlocker("cluster", "drain", "s0")
    assert (status, "--registry <URL>" in errors) == (2, True), errors
    registry = f"file://{tmp_path}/registry"
    with Cluster(f"{registry}?cluster=blue", "k=5/min", count=1) as cluster:
        status, _, errors = wish(registry, "drain", "s0")
        assert (status, "by ?cluster=blue in its URL" in errors) == (2, True), errors
        # The servers are shown all the same.
        asked = f"--url={cluster.urls[0]}"
        status, output, _ = zmqlocker("cluster", asked, f"--registry={missing}")
        assert status == 1
        assert output.splitlines()[1].split()[:2] == ["s0", "64"]
        assert "cannot use the registry: " in output.splitlines()[-2]
        output = zmqlocker("cluster", asked, f"--registry={missing}", "--json")[1]
        assert "cannot use the registry: " in json.loads(output)["error"]


def test_the_registry_of_other_servers_is_not_believed(tmp_path: Path) -> None:
    ours, theirs = f"file://{tmp_path}/ours", f"file://{tmp_path}/theirs"
    with Cluster(ours, count=1) as cluster, Cluster(theirs, count=1):
        asked = f"--url={cluster.urls[0]}"
        assert zmqlocker("cluster", asked, f"--registry={ours}")[0] == 0
        status, output, _ = zmqlocker("cluster", asked, f"--registry={theirs}")
        told = output.splitlines()[-2]
        assert (status, "registry is of other servers than those" in told) == (1, True), told


def test_servers_that_do_not_reach_their_registry_are_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "registry"
    with Cluster(f"file://{folder}", count=2) as cluster:
        asked = cluster.urls[0]
        with LockerClient(asked) as client:
            assert client.server_status().registry

        def reached() -> list[bool]:
            return [one["status"]["registry"] for one in seen(asked)[1]["servers"]]

        with (folder / "registry.lock").open("rb") as lock:
            # Nobody reads or writes while somebody has it.
            fcntl.flock(lock, fcntl.LOCK_EX)
            wait_until(lambda: reached() == [False, False])
            status, output, _ = zmqlocker("cluster", f"--url={asked}")
            assert status == 1
            assert "\ns1: grants nothing: it has not joined, or does not reach the" in output
            assert "not reached: no grants" in zmqlocker("status", f"--url={asked}")[1]
        wait_until(lambda: seen(asked)[0] == 0)
