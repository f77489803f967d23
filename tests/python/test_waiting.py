"""Waiting in a server's queue: in turn, for so long, over restarts, at nobody's cost."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE, late, wait_until
from zmqlocker import LockerClient, LockerError, LockerServer, LockTimeout, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script

#: Waits for permits of a key, and prints when it has them.
WAITING = """
    import sys
    from zmqlocker import LockerClient
    url, key, cost = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with LockerClient(url, timeout=60.0) as client:
        print("asks")
        client.acquire(key, cost)
        print("has")
        sys.stdin.readline()
"""


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits = {"hour": "3/h", "second": "1/s", "other": "1/h", "gpu": "1 at once"}
    with LockerServer(limits=dict(limits), url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def waiting(server: LockerServer, count: int) -> None:
    wait_until(lambda: server.stats()["waiting"] == count)


def use_up(client: LockerClient, key: str) -> None:
    while client.try_acquire(key):
        pass


def test_who_waits_for_long_holds_back_no_other_request_of_its_client(
    server: LockerServer, client: LockerClient
) -> None:
    with LockerClient(server.url) as other:
        lease = other.lock("k").acquire()
        waiter = threading.Thread(target=lambda: client.lock("k").acquire(timeout=None).release())
        waiter.start()
        waiting(server, 1)
        # More than the answers that a server keeps for a client.
        for _ in range(70):
            assert len(client.try_acquire_many(["hour"] * 1000)) == 1000
        assert waiter.is_alive()
        lease.release()
    waiter.join(PATIENCE)
    assert not waiter.is_alive()


def test_waiters_of_several_processes_are_served_in_turn(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    use_up(client, "hour")
    waiters = []
    for place in range(4):
        waiters.append(script(WAITING, server.url, "hour", "1"))
        waiting(server, place + 1)
        assert waiters[-1].line() == "asks"
    for place, waiter in enumerate(waiters):
        # Usage stays: each change of the limit has room for the next in turn, and no other.
        client.set_limits("hour", f"{4 + place}/h")
        assert waiter.line() == "has"
        waiting(server, 3 - place)


def test_nobody_overtakes(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    client.try_acquire("hour")
    large = script(WAITING, server.url, "hour", "3")
    waiting(server, 1)
    # Two permits are left, and one who waits for three goes first.
    no = client.try_acquire("hour")
    assert not no
    assert client.peek("hour").remaining == 2
    small = script(WAITING, server.url, "hour", "1")
    waiting(server, 2)
    client.reset("hour")
    assert [large.line(), large.line()] == ["asks", "has"]
    waiting(server, 1)
    client.reset("hour")
    assert [small.line(), small.line()] == ["asks", "has"]


def test_a_permit_comes_to_who_waits_as_soon_as_it_is_there(client: LockerClient) -> None:
    began = time.monotonic()
    for _ in range(3):
        assert client.acquire("second", timeout=PATIENCE)
    # Two slots have passed since the first permit; the slot before may have been open already.
    assert time.monotonic() - began > 1.0


@pytest.mark.parametrize("timeout", [0.2, 0.5])
def test_a_deadline_names_key_timeout_and_limit(client: LockerClient, timeout: float) -> None:
    use_up(client, "hour")
    late(
        lambda: client.acquire("hour", timeout=timeout),
        f'no permit of "hour" within {timeout} s: the limit is "3/h"',
    )
    with client.limit("gpu"):
        late(
            lambda: client.limit("gpu", timeout=timeout).__enter__(),
            f'no permit of "gpu" within {timeout} s: the limit is "1 at once"',
        )


def test_a_waiter_that_gave_up_eats_no_permit(server: LockerServer, client: LockerClient) -> None:
    use_up(client, "hour")
    with pytest.raises(LockTimeout):
        client.acquire("hour", 3, timeout=0.05)
    waiting(server, 0)
    client.reset("hour")
    assert client.try_acquire("hour", 3)


def test_a_waiter_that_was_killed_eats_no_permit(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    use_up(client, "hour")
    dead = script(WAITING, server.url, "hour", "3")
    waiting(server, 1)
    alive = threading.Thread(target=client.acquire, args=("hour", 3))
    alive.start()
    waiting(server, 2)
    dead.kill()
    # Whether the server knows by now that nobody is there, or finds out when it answers.
    client.reset("hour")
    alive.join(PATIENCE)
    assert not alive.is_alive()
    assert client.peek("hour").remaining == 0


def test_a_waiter_that_stands_still_loses_its_place_and_asks_again(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    use_up(client, "hour")
    still = script(WAITING, server.url, "hour", "3")
    waiting(server, 1)
    assert still.line() == "asks"
    still.stop()
    # After 2 s of silence it waits no more.
    waiting(server, 0)
    client.reset("hour")
    assert client.try_acquire("hour", 3)
    still.signal(signal.SIGCONT)
    waiting(server, 1)
    client.reset("hour")
    assert still.line() == "has"
    assert client.peek("hour").remaining == 0


def test_an_interrupt_ends_a_wait_at_once(
    server: LockerServer, client: LockerClient, script: Callable[..., Script]
) -> None:
    use_up(client, "hour")
    program = script(
        """
        import sys, time
        from zmqlocker import LockerClient
        client = LockerClient(sys.argv[1])
        try:
            client.acquire("hour", 3, timeout=None)
        except KeyboardInterrupt:
            print("interrupted", client.peek("hour").allowed)
            sys.stdin.readline()
        """,
        server.url,
    )
    waiting(server, 1)
    began = time.monotonic()
    program.signal(signal.SIGINT)
    assert program.line() == "interrupted False"
    # The promise is 0.2 s; the rest is for a machine that is busy.
    assert time.monotonic() - began < 2.0
    waiting(server, 0)
    client.reset("hour")
    assert client.try_acquire("hour", 3)


def test_closing_a_client_ends_the_waits_of_its_threads(
    server: LockerServer, client: LockerClient
) -> None:
    use_up(client, "hour")
    errors: list[LockerError] = []

    def acquire(other: LockerClient) -> None:
        with pytest.raises(LockerError, match="the client is closed") as caught:
            other.acquire("hour")
        errors.append(caught.value)

    with LockerClient(server.url) as other:
        threads = [threading.Thread(target=acquire, args=(other,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        waiting(server, 10)
    for thread in threads:
        thread.join()
    assert len(errors) == 10
    waiting(server, 0)
    client.reset("hour")
    assert client.try_acquire("hour", 3)


def test_who_waits_at_a_server_that_dies_asks_the_next_one(
    script: Callable[..., Script],
    serve_limits: Callable[..., tuple[Script, str]],
    free_url: str,
) -> None:
    server, url = serve_limits({"hour": "1/h"}, free_url)
    with LockerClient(url, timeout=PATIENCE) as client:
        client.acquire("hour")
        waiters = [script(WAITING, url, "hour", "1") for _ in range(3)]
        assert [waiter.line() for waiter in waiters] == ["asks"] * 3
        server.kill()
        serve_limits({"hour": "3/h"}, free_url)
        assert [waiter.line() for waiter in waiters] == ["has"] * 3
        assert not client.try_acquire("hour")


def test_who_waits_at_a_server_that_stops_in_order_asks_the_next_one(
    script: Callable[..., Script], free_url: str
) -> None:
    server = LockerServer(limits={"hour": "1/h"}, url=free_url, block=False)
    with LockerClient(free_url, timeout=PATIENCE) as client:
        client.acquire("hour")
        waiter = script(WAITING, free_url, "hour", "1")
        waiting(server, 1)
        server.stop()
        with LockerServer(limits={"hour": "1/h"}, url=free_url, block=False):
            assert [waiter.line(), waiter.line()] == ["asks", "has"]


def test_a_server_that_does_not_come_back_is_unavailable(
    serve_limits: Callable[..., tuple[Script, str]],
) -> None:
    server, url = serve_limits({"hour": "1/h"})
    with LockerClient(url) as client:
        client.acquire("hour")
        kill = threading.Thread(target=server.kill)
        kill.start()
        with pytest.raises((ServerUnavailable, LockTimeout)):
            client.acquire("hour", timeout=0.5)
        kill.join()
        match = rf"^no answer from {url} within 0\.1 s: connection refused"
        with pytest.raises(ServerUnavailable, match=match) as caught:
            client.acquire("hour", timeout=0.1)
        assert isinstance(caught.value, ConnectionError)


def test_a_change_that_makes_a_wait_hopeless_ends_it(
    server: LockerServer, client: LockerClient
) -> None:
    use_up(client, "hour")
    raised: list[BaseException] = []

    def acquire() -> None:
        with pytest.raises(LockerError, match="cost 3 of key") as caught:
            client.acquire("hour", 3)
        raised.append(caught.value)

    waiter = threading.Thread(target=acquire)
    waiter.start()
    waiting(server, 1)
    client.set_limits("hour", "2/h")
    waiter.join(PATIENCE)
    assert len(raised) == 1


def test_a_freeze_holds_up_those_who_wait(server: LockerServer, client: LockerClient) -> None:
    client.freeze("hour", 3600.0)
    waiter = threading.Thread(target=client.acquire, args=("hour",))
    waiter.start()
    waiting(server, 1)
    client.reset("hour")
    waiter.join(PATIENCE)
    assert client.peek("hour").remaining == 2
