"""How `zmqlocker serve` starts and ends under a service manager: readiness, drain, watchdog."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient, LockerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Serving
    from zmqlocker import Lease


class Manager:
    """What hears how a service is, as systemd does."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.bind(address.replace("@", "\0"))

    def hear(self) -> dict[str, str]:
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, str]]:
    path = str(tmp_path / "notify")
    address = path if request.param == "path" else f"@{path}"
    manager = Manager(address)
    yield manager, address
    manager.socket.close()


def test_the_manager_hears_when_the_server_can_be_asked_reloads_and_stops(
    serving: Callable[..., Serving], manager: tuple[Manager, str], tmp_path: Path
) -> None:
    systemd, address = manager
    file = tmp_path / "zmqlocker.toml"
    file.write_text('[limits]\na = "5/h"\n')
    server = serving(f"--config={file}", "--drain=7", NOTIFY_SOCKET=address)
    ready = {"READY": "1", "STATUS": f"serving {server.url}"}
    assert systemd.hear() == ready
    before = time.monotonic_ns() // 1000
    server.send(signal.SIGHUP)
    reloading = systemd.hear()
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert reloading == {"RELOADING": "1"}
    assert systemd.hear() == ready
    server.send(signal.SIGTERM)
    assert systemd.hear() == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "12000000"}
    assert server.finish(None)[0] == 0


def test_the_watchdog_hears_of_a_server_that_does_its_work(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    address = str(tmp_path / "notify")
    systemd = Manager(address)
    server = serving(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000")
    assert "READY" in systemd.hear()
    for _ in range(5):
        assert systemd.hear() == {"WATCHDOG": "1"}
    assert server.finish()[0] == 0
    server = serving(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000", WATCHDOG_PID="1")
    heard = [systemd.hear()]
    server.send(signal.SIGTERM)
    while "STOPPING" not in heard[-1]:
        heard.append(systemd.hear())
    assert server.finish(None)[0] == 0
    # What was still on its way from the first one.
    assert {"WATCHDOG": "1"} not in heard[1:]
    systemd.socket.close()


@pytest.fixture
def holder() -> Iterator[Callable[[Serving], tuple[LockerClient, Lease]]]:
    """Holds the lock "a" of a server."""
    held: list[tuple[LockerClient, Lease]] = []

    def hold(server: Serving) -> tuple[LockerClient, Lease]:
        client = LockerClient(server.url, timeout=PATIENCE)
        held.append((client, client.lock("a", ttl=PATIENCE).acquire()))
        return held[-1]

    yield hold
    for client, lease in held:
        # The server is gone, and nobody else has it.
        client.close()
        with contextlib.suppress(LockerError):
            lease.release()


class Waiter(threading.Thread):
    """Waits for the lock "a", and tells its end."""

    def __init__(self, server: Serving, client: LockerClient, timeout: float) -> None:
        super().__init__()
        self.client = LockerClient(server.url, name="waiter", timeout=timeout)
        self.got = threading.Event()
        self.go_on = threading.Event()
        self.error: LockerError | None = None
        self.start()
        wait_until(lambda: any(lock.waiters for lock in client.locks()))

    def run(self) -> None:
        try:
            with self.client.lock("a"):
                self.got.set()
                self.go_on.wait(PATIENCE)
        except LockerError as error:
            self.error = error
        finally:
            self.client.close()


def probe(url: str) -> int:
    """Ask as a balancer does; the status of the answer."""
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", f"/{path}")
        return connection.getresponse().status


def test_a_drain_serves_who_waits_and_lets_nobody_join(
    serving: Callable[..., Serving],
    holder: Callable[[Serving], tuple[LockerClient, Lease]],
) -> None:
    server = serving(f"--drain={PATIENCE}", "--metrics=127.0.0.1:*")
    page = server.line_with("metrics at ").rpartition(" ")[2]
    client, lease = holder(server)
    assert probe(page + "readyz") == 200
    waiter = Waiter(server, client, PATIENCE)
    server.send(signal.SIGTERM)
    assert "1 wait, 1 leases are held" in server.line_with("stops within")
    stopping = pytest.raises(LockerError, match="the server is stopping")
    with LockerClient(server.url, timeout=0.3) as late, stopping:
        late.lock("b").acquire()
    assert client.peek("default").allowed
    # A balancer sends nobody here any more, and nobody ends what is about to end by itself.
    assert (probe(page + "readyz"), probe(page + "healthz")) == (503, 200)
    assert server.process.poll() is None
    lease.release()
    assert waiter.got.wait(PATIENCE)
    assert server.process.poll() is None
    waiter.go_on.set()
    waiter.join(PATIENCE)
    assert waiter.error is None
    assert server.finish(None)[0] == 0


@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(
    serving: Callable[..., Serving],
    holder: Callable[[Serving], tuple[LockerClient, Lease]],
    again: signal.Signals,
) -> None:
    server = serving("--drain=1000000")
    holder(server)
    server.send(signal.SIGTERM)
    server.line_with("stops within")
    assert server.finish(again)[0] == 0


def test_a_drain_ends_in_time_though_somebody_holds(
    serving: Callable[..., Serving],
    holder: Callable[[Serving], tuple[LockerClient, Lease]],
) -> None:
    server = serving("--drain=0.2")
    holder(server)
    started = time.monotonic()
    assert server.finish()[0] == 0
    assert time.monotonic() - started >= 0.2


def test_with_a_folder_what_is_held_outlives_the_server_and_is_not_waited_for(
    serving: Callable[..., Serving],
    holder: Callable[[Serving], tuple[LockerClient, Lease]],
    free_url: str,
    tmp_path: Path,
) -> None:
    arguments = ("--drain=1000000", f"--data-dir={tmp_path}")
    server = serving(*arguments, url=free_url)
    client, lease = holder(server)
    assert server.finish()[0] == 0
    serving(*arguments, url=free_url)
    wait_until(lambda: bool(client.locks()))
    assert [lock.holders[0].token for lock in client.locks()] == [lease.token]
    assert not lease.lost
    lease.check()


def test_with_a_folder_permits_are_waited_for_which_do_not_outlive_the_server(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    server = serving("--drain=1000000", f"--data-dir={tmp_path}", "--limit=gpu=1 at once")
    with LockerClient(server.url, timeout=PATIENCE) as client, client.limit("gpu"):
        server.send(signal.SIGTERM)
        server.line_with("1 leases are held")
        assert client.peek("gpu").remaining == 0
    assert server.finish(None)[0] == 0


def test_without_a_drain_who_waits_is_answered_and_the_server_is_gone(
    serving: Callable[..., Serving],
    holder: Callable[[Serving], tuple[LockerClient, Lease]],
) -> None:
    server = serving()
    client, _ = holder(server)
    waiter = Waiter(server, client, 0.5)
    assert server.finish()[0] == 0
    waiter.join(PATIENCE)
    assert waiter.error is not None
