"""Permits that are held and given back: `limit()` and `reserve()`, in threads and processes."""

from __future__ import annotations

import gc
import logging
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, late, wait_until
from zmqlocker import (
    ConfigError,
    KindMismatch,
    LockerClient,
    LockerError,
    LockerServer,
    LockTimeout,
    NotHeld,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits: Any = {
        "gpu": "2 at once",
        "one": "1 at once",
        "both": ["1 at once", "3/h"],
        "hour": "10/h",
        "tpm": "1000/h",
    }
    with LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def left(client: LockerClient, key: str) -> int:
    return client.peek(key).remaining


def test_a_permit_is_held_while_the_block_runs(client: LockerClient) -> None:
    with client.limit("gpu") as first:
        assert first.decision.remaining == 1
        assert left(client, "gpu") == 1
        assert not first.lost
        assert 0.0 < first.remaining <= 0.8
        with client.limit("gpu"):
            assert left(client, "gpu") == 0
            assert not client.peek("gpu")
        assert left(client, "gpu") == 1
    assert left(client, "gpu") == 2
    with client.limit("gpu", 2, timeout=5.0, ttl=30.0) as both:
        assert left(client, "gpu") == 0
        assert both.remaining > 25.0
    assert left(client, "gpu") == 2


def test_a_permit_comes_back_when_the_block_raises(client: LockerClient) -> None:
    with pytest.raises(ZeroDivisionError), client.limit("one"):
        _ = 1 // 0
    assert left(client, "one") == 1


def test_a_block_that_cannot_be_entered_holds_nothing(client: LockerClient) -> None:
    with client.limit("one"):
        late(
            lambda: client.limit("one", timeout=0.01).__enter__(),
            'no permit of "one" within 0.01 s: the limit is "1 at once"',
        )
        with (
            pytest.raises(LockTimeout),
            client.limit({"gpu": 2, "one": 1}, timeout=0.01),
        ):
            pytest.fail("entered without a permit")
        assert left(client, "gpu") == 2
    assert left(client, "one") == 1


def test_permits_of_several_keys_are_held_together(client: LockerClient) -> None:
    with client.limit({"gpu": 2, "one": 1, "hour": 4}):
        assert [left(client, key) for key in ("gpu", "one", "hour")] == [0, 0, 6]
    assert [left(client, key) for key in ("gpu", "one", "hour")] == [2, 1, 6]


def test_what_is_spent_beside_a_permit_stays_spent(client: LockerClient) -> None:
    for remaining in (2, 1, 0):
        with client.limit("both", timeout=1.0):
            pass
        assert client.peek("both").remaining == min(1, remaining)
    late(
        lambda: client.limit("both", timeout=0.01).__enter__(),
        'no permit of "both" within 0.01 s: the limit is "3/h"',
    )


def test_permits_that_are_spent_cannot_be_lost(
    client: LockerClient, caplog: pytest.LogCaptureFixture
) -> None:
    with client.limit("hour") as permit, caplog.at_level(logging.WARNING, "zmqlocker"):
        assert not permit.lost
        assert permit.remaining == float("inf")
    assert caplog.messages == []
    assert left(client, "hour") == 9


@pytest.mark.parametrize("ttl", [0, -1.0, 0.0999, 86_401.0, float("nan"), float("inf")])
def test_a_ttl_out_of_bounds_is_named(client: LockerClient, ttl: float) -> None:
    with pytest.raises(ConfigError, match=r"^ttl must be "), client.limit("one", ttl=ttl):
        pass
    for good in (0.1, 86_400.0):
        with client.limit("one", ttl=good):
            assert left(client, "one") == 0


def test_nothing_is_held_before_the_block(client: LockerClient) -> None:
    permit, reservation = client.limit("one"), client.reserve("tpm", 5)
    for look in (
        lambda: permit.remaining,
        lambda: permit.lost,
        lambda: permit.decision,
        lambda: reservation.decision,
        lambda: reservation.commit(1),
        reservation.cancel,
    ):
        with pytest.raises(NotHeld, match="enter the `with` block first"):
            look()
    assert left(client, "one") == 1


def test_a_block_is_entered_once_at_a_time(client: LockerClient) -> None:
    permit = client.limit("gpu")
    for _ in range(3):
        with permit:
            with pytest.raises(LockerError, match="entered already"), permit:
                pass
            assert left(client, "gpu") == 1
        assert left(client, "gpu") == 2


def test_what_nobody_knows_of_any_more_comes_back(client: LockerClient) -> None:
    client.limit("one", ttl=3600.0).__enter__()
    client.reserve("tpm", 500).__enter__()
    gc.collect()
    wait_until(lambda: left(client, "one") == 1)
    assert left(client, "tpm") == 500


def test_a_client_that_closes_gives_everything_back(
    client: LockerClient, server: LockerServer, caplog: pytest.LogCaptureFixture
) -> None:
    with LockerClient(server.url) as other:
        permit = other.limit("one", ttl=3600.0)
        permit.__enter__()
    wait_until(lambda: left(client, "one") == 1)
    assert permit.lost
    with caplog.at_level(logging.WARNING, "zmqlocker"):
        permit.__exit__(None, None, None)
    assert caplog.messages == ["the permit of one was lost before it was given back"]


HOLDING = """
    import sys
    from zmqlocker import LockerClient
    client = LockerClient(sys.argv[1])
    with client.limit("one", ttl=float(sys.argv[2])) as permit:
        print("holds")
        sys.stdin.readline()
        print("lost" if permit.lost else "holds")
"""


def test_a_holder_that_is_killed_holds_for_its_ttl_and_no_longer(
    client: LockerClient, server: LockerServer, script: Callable[..., Script]
) -> None:
    holder = script(HOLDING, server.url, "0.3")
    assert holder.line() == "holds"
    # It is renewed for as long as it lives.
    with pytest.raises(LockTimeout), client.limit("one", timeout=1.0):
        pass
    holder.kill()
    with client.limit("one"):
        assert left(client, "one") == 0


def test_a_holder_that_stands_still_knows_that_it_has_lost(
    client: LockerClient, server: LockerServer, script: Callable[..., Script]
) -> None:
    holder = script(HOLDING, server.url, "0.3")
    assert holder.line() == "holds"
    holder.stop()
    with client.limit("one"):
        holder.signal(signal.SIGCONT)
        holder.tell()
        assert holder.line() == "lost"
        status, _, errors = holder.finish()
        assert status == 0
        assert "the permit of one was lost before it was given back" in errors
        # What was lost is not given back.
        assert left(client, "one") == 0


def test_a_permit_is_renewed_while_the_gil_is_held(
    client: LockerClient, server: LockerServer, script: Callable[..., Script]
) -> None:
    holder = script(
        """
        import ctypes, sys
        from zmqlocker import LockerClient
        client = LockerClient(sys.argv[1])
        with client.limit("one", ttl=0.2) as permit:
            print("holds")
            # As ctypes does not let the GIL go for this one, no Python thread runs meanwhile.
            ctypes.PyDLL(None).usleep(999_999)
            print("lost" if permit.lost else "holds")
            sys.stdin.readline()
        """,
        server.url,
    )
    assert holder.line() == "holds"
    with pytest.raises(LockTimeout), client.limit("one", timeout=0.9):
        pass
    assert holder.line() == "holds"


def test_a_server_that_starts_anew_has_forgotten_who_holds(
    serve_limits: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    server, url = serve_limits({"one": "1 at once"}, free_url)
    with LockerClient(url, timeout=PATIENCE) as client:
        permit = client.limit("one", ttl=3600.0)
        with permit:
            server.kill()
            serve_limits({"one": "1 at once"}, free_url)
            with client.limit("one"):
                assert permit.lost


def test_a_reservation_is_spent_but_for_what_goes_back(client: LockerClient) -> None:
    with client.reserve("tpm", 400) as reserved:
        assert left(client, "tpm") == 600
        assert reserved.decision.remaining == 600
        reserved.commit(150)
        assert left(client, "tpm") == 850
    assert left(client, "tpm") == 850
    with client.reserve("tpm", 50):
        pass
    assert left(client, "tpm") == 800
    with client.reserve("tpm", 800) as reserved:
        reserved.cancel()
    assert left(client, "tpm") == 800
    # What was beyond the reservation is counted.
    with client.reserve("tpm", 100) as reserved:
        reserved.commit(300)
    assert left(client, "tpm") == 500


def test_a_reservation_of_several_keys_is_settled_by_key(client: LockerClient) -> None:
    with client.reserve({"tpm": 400, "hour": 3}) as reserved:
        reserved.commit({"tpm": 100})
    assert [left(client, "tpm"), left(client, "hour")] == [900, 7]
    with client.reserve({"tpm": 400, "hour": 3}) as reserved:
        with pytest.raises(ConfigError, match=r"^spent must be a dict"):
            reserved.commit(3)
        reserved.commit({"hour": 0, "tpm": 0})
    assert [left(client, "tpm"), left(client, "hour")] == [900, 7]
    with client.reserve({"tpm": 400, "hour": 3}) as reserved:
        reserved.cancel()
    assert [left(client, "tpm"), left(client, "hour")] == [900, 7]


def test_a_reservation_is_settled_once(client: LockerClient) -> None:
    with client.reserve("tpm", 100) as reserved:
        reserved.commit(10)
        for again in (reserved.cancel, lambda: reserved.commit(5)):
            with pytest.raises(NotHeld, match="settled already"):
                again()
    with pytest.raises(NotHeld, match="settled already"):
        reserved.cancel()
    assert left(client, "tpm") == 990


@pytest.mark.parametrize("spent", [-1, 10**12 + 1, 2**64, {"tpm": -1}, {"other": 1}])
def test_what_was_spent_is_bounded(client: LockerClient, spent: Any) -> None:
    with client.reserve("tpm", 100) as reserved:
        with pytest.raises(ConfigError, match=r"^spent must be from 0 to 1000000000000, of keys"):
            reserved.commit(spent)
        with pytest.raises(TypeError):
            reserved.commit({"tpm": 1.5})  # type: ignore[dict-item]
        with pytest.raises(TypeError):
            reserved.commit(1.5)  # type: ignore[arg-type]
        reserved.commit(0)
    assert left(client, "tpm") == 1000


def test_permits_that_are_held_cannot_be_reserved(client: LockerClient) -> None:
    with pytest.raises(KindMismatch, match='"one"'), client.reserve("one"):
        pass


def test_fifty_threads_share_a_client_and_never_hold_too_many(client: LockerClient) -> None:
    inside, most, entered = 0, 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal inside, most, entered
        for _ in range(5):
            with client.limit("gpu"):
                with counting:
                    inside += 1
                    entered += 1
                    most = max(most, inside)
                client.peek("gpu")
                with counting:
                    inside -= 1
            with client.reserve("tpm", 4) as reserved:
                reserved.commit(1)

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entered == 250
    assert most <= 2
    assert [left(client, "gpu"), left(client, "tpm")] == [2, 750]
    wait_until(lambda: left(client, "gpu") == 2)


def test_permits_go_from_one_client_to_another_as_they_come_back(
    client: LockerClient, server: LockerServer
) -> None:
    with LockerClient(server.url, timeout=PATIENCE) as other:
        for _ in range(50):
            with client.limit("one", ttl=3600.0):
                assert not other.peek("one")
            with other.limit("one", ttl=3600.0):
                assert not client.peek("one")
