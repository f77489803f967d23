"""What Prometheus scrapes of several servers, and what is written of all that is scraped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq
from commands import Serving
from conftest import PATIENCE, wait_until
from test_metrics import LIMITS, get, one, scrape
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def sharing(folder: Path, count: int = 2) -> Iterator[list[LockerServer]]:
    """Servers that share the keys through a registry in a folder, once each has its share."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                LockerServer(
                    limits={**LIMITS, "default": "3/h"},
                    url="tcp://127.0.0.1:*",
                    block=False,
                    metrics="127.0.0.1:*",
                    registry=f"file://{folder}/registry",
                    name=f"s{number}",
                )
            )
            for number in range(count)
        ]
        wait_until(lambda: all(partitions(server)["here"] == 64 / count for server in servers))
        yield servers


def counting(folder: Path, name: str, *others: str) -> LockerServer:
    """Return a server that counts with others, and is in its own list."""
    return LockerServer(
        limits={"api": "3/h"},
        url=f"ipc://{folder}/{name}",
        block=False,
        metrics="127.0.0.1:*",
        peers=[f"ipc://{folder}/{other}.peers" for other in (name, *others)],
    )


def by_label(server: LockerServer, name: str) -> dict[str, int]:
    """The samples of a metric that has one label."""
    return {labels[0][1]: int(value) for labels, value in scrape(server)[name].items()}


def partitions(server: LockerServer) -> dict[str, int]:
    return by_label(server, "zmqlocker_partitions")


def peers(server: LockerServer) -> dict[str, int]:
    return by_label(server, "zmqlocker_peers")


def test_servers_that_share_the_keys_tell_who_has_which(tmp_path: Path) -> None:
    with sharing(tmp_path) as servers:
        for server in servers:
            samples = scrape(server)
            assert one(samples, "zmqlocker_servers") == 2
            assert partitions(server) == {"here": 32, "elsewhere": 32, "none": 0}
            assert 0 < one(samples, "zmqlocker_alive_seconds") <= 0.6
            changes = by_label(server, "zmqlocker_home_changes_total")
            came, went = changes["gained"] + changes["taken"], changes["given"] + changes["lost"]
            assert came - went == 32
        epochs = [one(scrape(server), "zmqlocker_epoch") for server in servers]
        assert epochs[0] == epochs[1] >= 2
        # The first one had all of them, and gave half of them away.
        assert by_label(servers[0], "zmqlocker_home_changes_total")["given"] >= 32


def test_what_a_server_does_not_do_for_others_keys_is_counted(tmp_path: Path) -> None:
    def total(name: str) -> float:
        return sum(one(scrape(server), name) for server in servers)

    with sharing(tmp_path) as servers:
        assert total("zmqlocker_forwarded_total") == 0
        # Only one of them is home of the key "default".
        with zmq.Context() as context:
            for server in servers:
                with context.socket(zmq.REQ) as asker:
                    asker.rcvtimeo = int(PATIENCE * 1000)
                    asker.connect(server.url)
                    asker.send(b"let me go")
                    assert asker.recv() == b"go"
        assert total("zmqlocker_forwarded_total") >= 1
        before = total("zmqlocker_not_home_total")
        # The others have to know of a long lease before there is one.
        with (
            LockerClient(servers[0].url, timeout=PATIENCE) as client,
            client.lock("nightly", ttl=9.0),
        ):
            assert total("zmqlocker_not_home_total") > before


def test_what_comes_from_a_dead_server_counts_as_taken(tmp_path: Path) -> None:
    with sharing(tmp_path, count=1) as (server,):
        other = Serving(f"--registry=file://{tmp_path}/registry", "--name=dies", "--limit=api=3/h")
        try:
            wait_until(lambda: partitions(server)["elsewhere"] == 32)
        finally:
            other.kill()
        wait_until(lambda: partitions(server) == {"here": 64, "elsewhere": 0, "none": 0})
        assert by_label(server, "zmqlocker_home_changes_total")["taken"] == 32
        assert one(scrape(server), "zmqlocker_servers") == 1


def test_a_server_without_its_registry_may_grant_nothing(tmp_path: Path) -> None:
    def alive() -> float:
        return one(scrape(server), "zmqlocker_alive_seconds")

    with sharing(tmp_path, count=1) as (server,):
        with (tmp_path / "registry" / "registry.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            wait_until(lambda: alive() == 0)
        wait_until(lambda: alive() > 0)


def test_a_server_with_peers_tells_whom_it_hears(tmp_path: Path) -> None:
    def start() -> Serving:
        url = f"ipc://{tmp_path}/b"
        return Serving("--limit=api=3/h", f"--peer=ipc://{tmp_path}/a.peers", url=url)

    with counting(tmp_path, "a", "b") as server:
        wait_until(lambda: peers(server) == {"in_touch": 0, "stopped": 0, "out_of_touch": 1})
        other = start()
        try:
            wait_until(lambda: peers(server)["in_touch"] == 1)
            other.line_with("in touch with")
            with LockerClient(other.url, timeout=PATIENCE) as client:
                assert client.try_acquire("api", cost=2)
            wait_until(lambda: one(scrape(server), "zmqlocker_peer_permits_total") == 2)
            told = one(scrape(server), "zmqlocker_peer_updates_total")
            with LockerClient(server.url, timeout=PATIENCE) as client:
                assert client.try_acquire("api")
            wait_until(lambda: one(scrape(server), "zmqlocker_peer_updates_total") > told)
            other.kill()
            wait_until(lambda: peers(server)["out_of_touch"] == 1)
            other = start()
            wait_until(lambda: peers(server)["in_touch"] == 1)
            other.finish(signal.SIGTERM)
            wait_until(lambda: peers(server)["stopped"] == 1)
        finally:
            other.kill()


def test_a_server_alone_tells_nothing_of_others() -> None:
    with LockerServer(url="tcp://127.0.0.1:*", block=False, metrics="127.0.0.1:*") as server:
        names = set(scrape(server))
        assert not names & {"zmqlocker_servers", "zmqlocker_partitions", "zmqlocker_peers"}
        seen = json.loads(get(server, "/api/status")[2])
        assert (seen["sharing"], seen["peers"]) == (None, None)


@pytest.fixture
def everything(tmp_path: Path) -> str:
    """All that is scraped: of a server that shares the keys, and of one that has peers."""
    with sharing(tmp_path, count=1) as (member,), counting(tmp_path, "a", "b") as peer:
        with LockerClient(member.url, timeout=PATIENCE) as client:
            client.try_acquire("api")
        return get(member, "/metrics")[2] + get(peer, "/metrics")[2]


def test_every_metric_is_in_the_document_and_no_other(everything: str) -> None:
    text = everything
    scraped = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    document = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `((?:zmqlocker|process)_\w+)", document, re.MULTILINE)) == scraped


def test_the_dashboard_shows_only_what_is_scraped(everything: str) -> None:
    scraped = set(re.findall(r"^\w+", everything, re.MULTILINE))
    dashboard = (ROOT / "deploy" / "grafana-dashboard.json").read_text()
    panels = json.loads(dashboard)["panels"]
    targets = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    assert len(targets) > 10
    for expression in targets:
        names = set(re.findall(r"\b(?:zmqlocker|process)_\w+", expression))
        assert names
        assert names <= scraped, expression


def test_alerts_are_about_what_is_scraped(everything: str) -> None:
    alerts = (ROOT / "deploy" / "alerts.yml").read_text()
    names = set(re.findall(r"\b(?:zmqlocker|process)_\w+", alerts))
    assert names
    assert names <= set(re.findall(r"^\w+", everything, re.MULTILINE))
