"""Servers that count for each other: one limit, whichever is asked."""

from __future__ import annotations

import contextlib
import functools
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from commands import Serving, zmqlocker
from conftest import PATIENCE, wait_until
from keys import KeyRing
from zmqlocker import ConfigError, KindMismatch, LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Script

SERVERS = 3


class Fleet:
    """Servers that count for each other, each a `zmqlocker serve`."""

    def __init__(self, *options: str, count: int = SERVERS) -> None:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(2 * count)]
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            urls = [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
        self.urls, self.peers_urls = urls[:count], urls[count:]
        self.options = options
        self.running = [self._start(place) for place in range(count)]

    def _start(self, place: int) -> Serving:
        # All are given the same list, in which each finds itself.
        peers = [f"--peer={url}" for url in self.peers_urls]
        own = f"--peers-url={self.peers_urls[place]}"
        return Serving(own, *peers, *self.options, url=self.urls[place])

    def await_touch(self, place: int, *others: int) -> None:
        """Wait until a server is in touch with these others."""
        for _ in others:
            self.running[place].line_with("in touch with")

    def all_in_touch(self) -> None:
        everybody = range(len(self.running))
        for place in everybody:
            self.await_touch(place, *(other for other in everybody if other != place))

    def restart(self, place: int) -> None:
        self.running[place] = self._start(place)

    def kill(self) -> None:
        for one in self.running:
            one.kill()


@pytest.fixture
def fleet() -> Iterator[Callable[..., Fleet]]:
    started: list[Fleet] = []

    def start(*options: str, count: int = SERVERS) -> Fleet:
        started.append(Fleet(*options, count=count))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def granted(url: str, key: str, tries: int) -> int:
    with LockerClient(url, timeout=PATIENCE) as client:
        return [client.next(key) for _ in range(tries)].count("go")


def all_know(urls: list[str], key: str, left: int) -> None:
    """Wait until all servers know that so many permits are left."""

    def knows(client: LockerClient) -> bool:
        return client.peek(key).remaining == left

    for url in urls:
        with LockerClient(url, timeout=PATIENCE) as client:
            wait_until(functools.partial(knows, client))


@pytest.mark.parametrize("text", ["7/h", "7/h sliding", "7/h gcra burst 7"])
def test_what_one_has_granted_counts_with_all(fleet: Callable[..., Fleet], text: str) -> None:
    servers = fleet(f"--limit=k={text}")
    servers.all_in_touch()
    for place, (granted_there, left) in enumerate([(3, 4), (3, 1), (1, 0)]):
        assert granted(servers.urls[place], "k", 3) == granted_there
        all_know(servers.urls, "k", left)


def test_a_batch_is_granted_whole_while_the_others_are_told(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=k=50/h")
    servers.all_in_touch()
    with LockerClient(servers.urls[0], timeout=PATIENCE) as client:
        decisions = client.try_acquire_many(["k"] * 60)
    assert [bool(decision) for decision in decisions] == [True] * 50 + [False] * 10
    all_know(servers.urls, "k", 0)
    assert granted(servers.urls[1], "k", 1) == 0


def test_one_that_starts_anew_goes_on_from_what_the_others_have_counted(
    fleet: Callable[..., Fleet],
) -> None:
    servers = fleet("--limit=k=7/h sliding", "--limit=full=3/h")
    servers.all_in_touch()
    assert granted(servers.urls[0], "k", 5) == 5
    assert granted(servers.urls[0], "full", 4) == 3
    all_know(servers.urls, "k", 2)
    all_know(servers.urls, "full", 0)
    servers.running[0].kill()
    servers.running[1].line_with("out of touch with")
    servers.restart(0)
    # Asked at once, it waits until it has heard the others.
    assert granted(servers.urls[0], "full", 1) == 0
    servers.await_touch(0, 1, 2)
    assert granted(servers.urls[0], "k", 9) == 2


def test_a_peer_that_was_never_there_is_told_of(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=k=9/h", "--peer=tcp://127.0.0.1:1", count=1)
    line = servers.running[0].line_with("out of touch with")
    assert "out of touch with tcp://127.0.0.1:1: until it is back" in line


def test_those_who_are_cut_off_keep_to_their_share_until_all_are_back(
    fleet: Callable[..., Fleet],
) -> None:
    servers = fleet("--limit=k=9/h", "--limit=one=1/h", "--limit=later=9/h")
    servers.all_in_touch()
    servers.running[2].kill()
    for place in (0, 1):
        servers.running[place].line_with("out of touch with")
    assert granted(servers.urls[0], "k", 9) == 6
    all_know(servers.urls[:2], "k", 0)
    assert granted(servers.urls[1], "one", 2) == 1
    servers.restart(2)
    for place in (0, 1):
        servers.await_touch(place, 2)
    assert granted(servers.urls[1], "k", 9) == 3
    assert granted(servers.urls[2], "later", 10) == 9


def test_one_that_ends_in_order_leaves_the_others_all(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=k=9/h")
    servers.all_in_touch()
    assert granted(servers.urls[2], "k", 2) == 2
    all_know(servers.urls, "k", 7)
    assert servers.running[2].finish()[0] == 0
    assert granted(servers.urls[0], "k", 9) == 7


def test_who_waits_is_served_whichever_server_it_asks(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=k=2/0.3s sliding")
    servers.all_in_touch()
    assert granted(servers.urls[0], "k", 2) == 2
    with LockerClient(servers.urls[1], timeout=PATIENCE) as client:
        assert client.acquire("k", timeout=PATIENCE)


def test_other_limits_of_a_key_are_an_error_that_names_all(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=k=9/h", count=2)
    servers.all_in_touch()
    servers.running[1].kill()
    # The second is given another limit.
    servers.options = ("--limit=k=5/h",)
    servers.restart(1)
    servers.await_touch(1, 0)
    assert granted(servers.urls[0], "k", 2) == 2
    line = servers.running[1].line_with("key ")
    here, there = servers.peers_urls[1], servers.peers_urls[0]
    assert f'key "k" has 5/h at {here}, and 9/h at {there}' in line
    # It counts all the same.
    all_know(servers.urls[1:], "k", 3)
    assert granted(servers.urls[1], "k", 5) == 3


def test_the_first_designs_clients_are_served_by_all(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=default=30/h")
    servers.all_in_touch()
    answers: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.REQ) as asker:
        asker.setsockopt(zmq.LINGER, 0)
        asker.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
        for url in servers.urls:
            asker.connect(url)
        for _ in range(40):
            asker.send(b"let me go")
            answers.append(asker.recv())
    assert set(answers) == {b"go", b"sorry"}
    # Each but one may grant a permit of which the others have not heard.
    assert 30 <= answers.count(b"go") <= 30 + SERVERS - 1


#: Asks all servers in turn without a pause; tells how often it heard "go", and its longest wait.
ASKER = """
    import sys, time
    from zmqlocker import LockerClient
    with LockerClient(sys.argv[1].split(","), timeout=30.0) as client:
        client.peek("k")
        print("ready")
        sys.stdin.readline()
        end, goes, longest = time.monotonic() + float(sys.argv[2]), 0, 0.0
        while (sent := time.monotonic()) < end:
            goes += client.next("k") == "go"
            longest = max(longest, time.monotonic() - sent)
        print(goes, longest)
"""


def test_a_fleet_keeps_to_the_limit_while_one_server_is_killed(
    fleet: Callable[..., Fleet], script: Callable[..., Script]
) -> None:
    servers = fleet("--limit=k=200/h sliding")
    servers.all_in_touch()
    askers = [script(ASKER, ",".join(servers.urls), "2.0") for _ in range(24)]
    for asker in askers:
        assert asker.line() == "ready"
    for asker in askers:
        asker.tell()
    servers.running[1].kill()
    servers.restart(1)
    found = [asker.line().split() for asker in askers]
    goes = sum(int(line[0]) for line in found)
    # What was on its way from the one that was killed, and what all may grant untold.
    assert 100 <= goes <= 200 + 3 * (SERVERS - 1)
    # It costs those whom it owed an answer one time-out at most.
    assert max(float(line[1]) for line in found) < PATIENCE


def test_a_client_goes_on_with_those_servers_that_live(fleet: Callable[..., Fleet]) -> None:
    servers = fleet("--limit=k=1000/h")
    servers.all_in_touch()
    with LockerClient(servers.urls, timeout=PATIENCE) as client:
        assert [client.next("k") for _ in range(6)] == ["go"] * 6
        servers.running[0].kill()
        servers.running[1].line_with("out of touch with")
        began = time.monotonic()
        assert [client.next("k") for _ in range(60)] == ["go"] * 60
        assert time.monotonic() - began < PATIENCE
        servers.restart(0)
        for place in (1, 2):
            servers.await_touch(place, 0)
        assert client.next("k") == "go"


def test_locks_and_permits_that_are_held_are_refused() -> None:
    anywhere = "tcp://127.0.0.1:*"
    peers: Any = {"peers": ["tcp://127.0.0.1:1"], "peers_url": anywhere}
    with pytest.raises(ConfigError, match="registry"):
        LockerServer(limits={"k": "2 at once"}, url=anywhere, block=False, **peers)
    with (
        LockerServer(1, 60.0, url=anywhere, block=False, **peers) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
        pytest.raises(KindMismatch, match="registry"),
    ):
        client.lock("k").acquire()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"peers": ["tcp://*:1"]}, "must name a host and a port of each server"),
        ({"peers": ["tcp://a:1"] * 16}, "must name 1 to 15 servers, not 16"),
        ({"peers": ["tcp://a:1"], "url": "tcp://127.0.0.1:*"}, "peers_url must be given"),
        ({"peers_url": "tcp://127.0.0.1:1"}, "peers_url needs peers"),
        ({"peers": ["a:1"]}, "must read tcp://HOST:PORT"),
        ({"peers": ["tcp://a:1"], "peers_url": "tcp://1.2.3.4:1"}, "peers_url .* cannot be bound"),
    ],
)
def test_what_cannot_be_is_told(free_url: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        LockerServer(**{"url": free_url, "block": False, **options})


def test_the_command_tells_nobody_on_other_hosts_without_a_key() -> None:
    command = ("serve", "--url=tcp://127.0.0.1:7", "--peers-url=tcp://*:8", "--peer=tcp://b:8")
    status, _, errors = zmqlocker(*command)
    assert status == 2
    assert "peers_url tcp://*:8 is open to other hosts" in errors
    assert "--bind-anyway" in errors


def test_the_settings_come_from_the_file_and_the_environment(tmp_path: Path, free_url: str) -> None:
    file = tmp_path / "zmqlocker.toml"
    file.write_text('peers = ["tcp://127.0.0.1:1"]\npeers_url = "tcp://127.0.0.1:x"\n')
    status, _, errors = zmqlocker("check", str(file))
    assert status == 2
    assert "2:13: peers_url must end in a port" in errors
    variables = {"ZMQLOCKER_PEERS": "tcp://127.0.0.1:1;tcp://*:2", "ZMQLOCKER_URL": free_url}
    status, _, errors = zmqlocker("serve", **variables)
    assert status == 2
    assert "peers must name a host and a port of each server, not tcp://*:2" in errors


def test_servers_with_a_key_tell_only_those_who_have_it(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    worker = ring.key("worker")
    ring.let_in((worker, "*", ""))
    servers = Fleet(
        "--limit=k=3/h", f"--curve-key={ring.server.file}", f"--clients={ring.clients}", count=2
    )
    try:
        servers.all_in_touch()
        keys = worker.client(ring.server)
        with LockerClient(servers.urls[0], timeout=PATIENCE, **keys) as client:
            assert [client.next("k") for _ in range(2)] == ["go", "go"]
        with LockerClient(servers.urls[1], timeout=PATIENCE, **keys) as client:
            wait_until(lambda: client.peek("k").remaining == 1)
            assert [client.next("k") for _ in range(2)] == ["go", "sorry"]
        # Neither a stranger nor a client hears what is granted.
        for secure in (False, True):
            with zmq.Context() as context, context.socket(zmq.SUB) as listener:
                if secure:
                    listener.curve_serverkey = ring.server.public.encode()
                    listener.curve_publickey, listener.curve_secretkey = zmq.curve_keypair()
                listener.setsockopt(zmq.LINGER, 0)
                listener.setsockopt(zmq.RCVTIMEO, 300)
                listener.subscribe(b"")
                listener.connect(servers.peers_urls[0])
                with pytest.raises(zmq.Again):
                    listener.recv()
    finally:
        servers.kill()
