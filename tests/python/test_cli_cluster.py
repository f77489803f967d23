"""`zmqlocker cluster`: which servers share the keys, and how each of them does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from commands import zmqlocker
from conftest import wait_until

from cluster import Cluster

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
