"""What Prometheus scrapes, and what those who scrape badly cannot do."""

from __future__ import annotations

import http.client
import socket
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from commands import zmqlocker
from conftest import PATIENCE, wait_until
from keys import KeyRing
from prometheus_client.parser import text_string_to_metric_families
from zmqlocker import AuthError, ConfigError, LockerClient, LockerServer, LockTimeout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS: Any = {"api": "3/h", "gpu": "2 at once", "tenant:*": "5/h"}


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(
        limits=LIMITS, url="tcp://127.0.0.1:*", block=False, metrics="127.0.0.1:*"
    ) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="asker") as client:
        yield client


def place(server: LockerServer) -> tuple[str, int]:
    assert server.metrics_url
    url = urllib.parse.urlsplit(server.metrics_url)
    assert url.hostname
    assert url.port
    return url.hostname, url.port


def get(
    server: LockerServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of what is asked for."""
    connection = http.client.HTTPConnection(*place(server), timeout=PATIENCE)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, dict(response.getheaders()), body


def scrape(server: LockerServer) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """All samples, by name and labels."""
    status, headers, text = get(server, "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in samples.setdefault(sample.name, {})
            samples[sample.name][labels] = sample.value
    return samples


def one(samples: dict[str, Any], name: str, **labels: str) -> float:
    value: float = samples[name][tuple(sorted(labels.items()))]
    return value


def decisions(server: LockerServer, kind: str, pattern: str) -> dict[str, int]:
    """How requests ended, without what never was."""
    found = {}
    for labels, value in scrape(server)["zmqlocker_decisions_total"].items():
        named = dict(labels)
        if (named["kind"], named["pattern"]) == (kind, pattern) and value:
            found[named["result"]] = int(value)
    return found


def test_decisions_are_counted_by_pattern_and_result(
    server: LockerServer, client: LockerClient
) -> None:
    for tenant in range(3):
        client.try_acquire(f"tenant:{tenant}")
    for _ in range(4):
        client.try_acquire("api")
    with pytest.raises(LockTimeout):
        client.acquire("api", timeout=0.1)
    with pytest.raises(ConfigError):
        client.try_acquire("unknown")
    with client.lock("nightly"):
        pass
    assert decisions(server, "limit", "tenant:*") == {"allowed": 3}
    assert decisions(server, "limit", "api") == {"allowed": 3, "refused": 1, "timed_out": 1}
    assert decisions(server, "limit", "(none)") == {"error": 1}
    assert decisions(server, "lock", "*") == {"allowed": 1}


def test_what_there_is_at_present_is_told(server: LockerServer, client: LockerClient) -> None:
    client.try_acquire("api")
    with client.limit("gpu"), client.lock("nightly"):
        samples = scrape(server)
    assert one(samples, "zmqlocker_leases") == 2
    assert one(samples, "zmqlocker_sessions") == 1
    assert one(samples, "zmqlocker_keys") == 3
    assert one(samples, "zmqlocker_waiters") == 0
    assert one(samples, "zmqlocker_ready") == 1
    assert one(samples, "zmqlocker_bound", bound="keys_max") == 10_000_000
    assert one(samples, "zmqlocker_problems_total") == 0
    assert 0 < one(samples, "zmqlocker_uptime_seconds") < 3600
    versions = [dict(labels) for labels in samples["zmqlocker_build_info"]]
    assert [info["security"] for info in versions] == ["none"]
    assert one(samples, "process_resident_memory_bytes") > 1 << 20
    assert one(samples, "process_cpu_seconds_total") > 0
    assert one(samples, "process_start_time_seconds") > 1.6e9


def test_waits_holds_and_loops_are_histograms(server: LockerServer, client: LockerClient) -> None:
    with LockerClient(server.url) as other, client.lock("nightly"), pytest.raises(LockTimeout):
        other.lock("nightly", timeout=0.05).acquire()
    samples = scrape(server)
    holds = samples["zmqlocker_hold_seconds_bucket"]
    assert one(samples, "zmqlocker_hold_seconds_count", kind="lock") == 1
    assert one(samples, "zmqlocker_hold_seconds_sum", kind="lock") >= 0.05
    assert holds[(("kind", "lock"), ("le", "+Inf"))] == 1
    assert holds[(("kind", "lock"), ("le", "0.05"))] == 0
    assert one(samples, "zmqlocker_wait_seconds_count", kind="lock") == 0
    assert one(samples, "zmqlocker_batch_messages_count") > 2
    assert one(samples, "zmqlocker_loop_seconds_count") > 2
    for name in ["wait_seconds", "hold_seconds", "loop_seconds", "batch_messages"]:
        by_kind: dict[Any, list[float]] = {}
        for labels, count in samples[f"zmqlocker_{name}_bucket"].items():
            by_kind.setdefault(dict(labels).get("kind"), []).append(count)
        assert all(counts == sorted(counts) for counts in by_kind.values())


def test_keys_of_clients_make_no_series(server: LockerServer, client: LockerClient) -> None:
    before = scrape(server)["zmqlocker_decisions_total"]
    client.try_acquire_many([f"tenant:{number}" for number in range(3000)])
    for number in range(50):
        with client.lock(f"lock {number}"):
            pass
    after = scrape(server)["zmqlocker_decisions_total"]
    patterns = {dict(labels)["pattern"] for labels in set(after) - set(before)}
    assert patterns == {"tenant:*"}


def test_patterns_beyond_the_bound_are_one() -> None:
    limits: Any = {f"rule {number}": "5/h" for number in range(30)}
    with (
        LockerServer(
            limits=limits,
            url="tcp://127.0.0.1:*",
            block=False,
            metrics="127.0.0.1:*",
            bounds={"patterns_max": 10},
        ) as server,
        LockerClient(server.url) as client,
    ):
        client.try_acquire_many(list(limits))
        samples = scrape(server)["zmqlocker_decisions_total"]
        patterns = {dict(labels)["pattern"] for labels in samples} - {"*"}
        assert patterns == {*list(limits)[:10], "(more)"}
        assert decisions(server, "limit", "(more)") == {"allowed": 20}


def test_a_name_of_a_rule_is_escaped() -> None:
    name = 'a"b\\c\nd'
    limits: Any = {name: "5/h"}
    with (
        LockerServer(
            limits=limits, url="tcp://127.0.0.1:*", block=False, metrics="127.0.0.1:*"
        ) as server,
        LockerClient(server.url) as client,
    ):
        client.try_acquire(name)
        assert decisions(server, "limit", name) == {"allowed": 1}


def test_a_server_is_healthy_and_ready(server: LockerServer) -> None:
    for path in ["/healthz", "/readyz"]:
        assert get(server, path)[::2] == (200, "ok\n")


def test_a_server_is_not_ready_after_a_crash_until_its_grace_is_over(
    tmp_path: Path, script: Any
) -> None:
    source = """
        import sys
        from zmqlocker import LockerClient, LockerServer
        with LockerServer(5, 60.0, "tcp://127.0.0.1:*", data_dir=sys.argv[1], block=False) as it:
            LockerClient(it.url).lock("nightly").acquire()
            print("held")
            sys.stdin.readline()
    """
    crashing = script(source, str(tmp_path))
    assert crashing.line() == "held"
    crashing.kill()
    with LockerServer(
        5, 60.0, "tcp://127.0.0.1:*", data_dir=tmp_path, block=False, metrics="127.0.0.1:*"
    ) as server:
        status, _, text = get(server, "/readyz")
        assert (status, text.split(" s:")[0][:28]) == (503, "no lock is granted for anoth")
        assert get(server, "/healthz")[0] == 200
        assert one(scrape(server), "zmqlocker_ready") == 0
        wait_until(lambda: get(server, "/readyz")[0] == 200)
        assert one(scrape(server), "zmqlocker_ready") == 1


def test_a_server_with_keys_is_watched_too(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    worker, stranger = ring.key("worker"), ring.key("stranger")
    ring.let_in((worker, "*", ""))
    with (
        ring.serve(metrics="127.0.0.1:*") as server,
        LockerClient(server.url, **worker.client(ring.server)) as client,
    ):
        assert client.try_acquire("api")
        with (
            LockerClient(server.url, timeout=PATIENCE, **stranger.client(ring.server)) as other,
            pytest.raises(AuthError),
        ):
            other.try_acquire("api")
        wait_until(lambda: one(scrape(server), "zmqlocker_connections") == 1)
        assert decisions(server, "limit", "*") == {"allowed": 1}
        assert one(scrape(server), "zmqlocker_denied_total") >= 1
        assert worker.secret not in get(server, "/api/status")[2]


def test_the_port_is_free_when_the_server_has_stopped() -> None:
    with LockerServer(url="tcp://127.0.0.1:*", block=False, metrics="127.0.0.1:*") as server:
        address = place(server)
        assert get(server, "/healthz")[0] == 200
    with LockerServer(
        url="tcp://127.0.0.1:*", block=False, metrics=f"127.0.0.1:{address[1]}"
    ) as server:
        assert place(server) == address


def test_without_metrics_there_is_no_port() -> None:
    with LockerServer(url="tcp://127.0.0.1:*", block=False) as server:
        assert server.metrics_url is None


@pytest.mark.parametrize("bad", ["9464", "", "a.b:9464", "127.0.0.1:99999", "http://localhost:1"])
def test_an_address_that_is_none_is_refused(bad: str) -> None:
    with pytest.raises(ConfigError, match="metrics must read HOST:PORT"):
        LockerServer(url="tcp://127.0.0.1:*", block=False, metrics=bad)


def test_a_port_in_use_is_told_of(server: LockerServer) -> None:
    port = place(server)[1]
    with pytest.raises(ConfigError, match=f"metrics 127.0.0.1:{port} cannot be bound"):
        LockerServer(url="tcp://127.0.0.1:*", block=False, metrics=f"127.0.0.1:{port}")
    status, _, errors = zmqlocker("serve", "--url=tcp://127.0.0.1:*", f"--metrics=127.0.0.1:{port}")
    assert status == 2
    assert "cannot be bound" in errors
    assert "serving" not in errors


def test_the_file_may_say_where(tmp_path: Path) -> None:
    config = tmp_path / "zmqlocker.toml"
    config.write_text('url = "tcp://127.0.0.1:*"\nmetrics = "localhost:*"\n')
    with LockerServer(config=config, block=False) as server:
        assert get(server, "/healthz")[0] == 200


def test_what_cannot_be_answered_is_refused(server: LockerServer) -> None:
    assert get(server, "/nothing")[0] == 404
    status, headers, _ = get(server, "/metrics", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert get(server, "/", Host="evil.example")[0] == 421
    status, headers, body = get(server, "/metrics", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 1000
    samples = scrape(server)
    assert one(samples, "zmqlocker_http_requests_total", result="refused") == 3


def test_all_answers_forbid_to_guess_and_to_keep(server: LockerServer) -> None:
    for path in ["/", "/metrics", "/healthz", "/api/status", "/nothing"]:
        headers = get(server, path)[1]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert (headers["Cache-Control"], headers["Connection"]) == ("no-store", "close")


def hang_up(sockets: list[socket.socket]) -> None:
    for one_of_them in sockets:
        one_of_them.close()


def test_a_thousand_silent_connections_do_no_harm(
    server: LockerServer, client: LockerClient
) -> None:
    silent = [socket.create_connection(place(server), PATIENCE) for _ in range(1000)]
    try:
        for number, one_of_them in enumerate(silent):
            if number % 2:
                one_of_them.send(b"GET /metrics HTTP/1.1\r\nHost: local")
        assert client.try_acquire("api")
        samples = scrape(server)
        assert one(samples, "zmqlocker_http_connections") <= 128
        assert one(samples, "zmqlocker_http_requests_total", result="dropped") >= 1000 - 128
        assert get(server, "/healthz")[0] == 200
    finally:
        hang_up(silent)


def test_garbage_is_refused_and_a_slow_reader_waited_for_by_nobody(
    server: LockerServer, client: LockerClient
) -> None:
    slow = []
    for _ in range(50):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        reader.connect(place(server))
        reader.send(b"GET /metrics HTTP/1.1\r\n\r\n")
        slow.append(reader)
    for garbage in [b"\0" * 5000, b"GET " + b"x" * 100_000, b"\xff\xfe\r\n\r\n", b"\r\n\r\n"]:
        with socket.create_connection(place(server), PATIENCE) as bad:
            bad.sendall(garbage)
            bad.shutdown(socket.SHUT_WR)
            answer = b""
            while some := bad.recv(65536):
                answer += some
            assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431", b"")
    assert client.try_acquire("api")
    assert get(server, "/healthz")[0] == 200
    hang_up(slow)
