"""Locks from outside: every kind, every option, every refusal, with a real server."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from conftest import PATIENCE, late, wait_until
from zmqlocker import (
    CostTooLarge,
    KindMismatch,
    LockerClient,
    LockerError,
    LockerServer,
    LockLost,
    LockTimeout,
    NotHeld,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits = {"ruled": "10/h", "tenant:*": "1/h"}
    with LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="me", timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def other(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, name="other", timeout=PATIENCE) as client:
        yield client


class Waiting:
    """A thread that waits for a lock. It stands in the queue once this is made."""

    def __init__(self, server: LockerServer, wait: Callable[[], Any]) -> None:
        before = server.stats()["waiting"]
        self.outcome: Any = None
        self._thread = threading.Thread(target=self._run, args=(wait,))
        self._thread.start()
        wait_until(lambda: server.stats()["waiting"] == before + 1)

    def _run(self, wait: Callable[[], Any]) -> None:
        try:
            self.outcome = wait()
        except LockerError as error:
            self.outcome = error

    def end(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.outcome


def nothing_is_left(client: LockerClient) -> bool:
    return client.locks() == []


def test_a_lock_has_one_holder_while_the_block_runs(
    client: LockerClient, other: LockerClient
) -> None:
    with client.lock("a") as lease:
        assert (lease.key, lease.held, lease.lost) == ("a", True, False)
        assert 0.0 < lease.remaining <= 0.8
        assert repr(lease) == f"zmqlocker.Lease('a', token={lease.token}, held)"
        lease.check()
        assert other.lock("a").try_acquire() is None
        late(lambda: other.lock("a", timeout=0.01).acquire(), '"a" was not free within 0.01 s')
        with other.lock("b"):
            pass
    assert (lease.held, lease.lost, lease.remaining) == (False, False, 0.0)
    assert repr(lease) == f"zmqlocker.Lease('a', token={lease.token}, released)"
    with pytest.raises(LockLost, match=r"^the lease of 'a' was released"):
        lease.check()
    with other.lock("a") as later:
        assert later.token > lease.token
    assert nothing_is_left(client)


def test_a_block_that_cannot_have_the_lock_is_never_entered(
    client: LockerClient, other: LockerClient
) -> None:
    with client.lock("a", ttl=HOUR):
        with pytest.raises(LockTimeout) as caught, other.lock("a", timeout=0.05):
            pytest.fail("entered without the lock")
        assert isinstance(caught.value, TimeoutError)
        with pytest.raises(LockTimeout):
            other.lock("a", timeout=PATIENCE).acquire(timeout=0.05)


def test_a_block_that_raises_gives_the_lock_back(client: LockerClient) -> None:
    with pytest.raises(ZeroDivisionError), client.lock("a"):
        _ = 1 // 0
    assert nothing_is_left(client)


def test_readers_share_and_a_writer_is_alone(
    server: LockerServer, client: LockerClient, other: LockerClient
) -> None:
    mine, theirs = client.rw_lock("table"), other.rw_lock("table")
    with mine.read(), theirs.read() as second:
        assert mine.write().try_acquire() is None
        writer = Waiting(server, mine.write().acquire)
        # No reader overtakes a writer that waits.
        assert theirs.read().try_acquire() is None
        second.release()
    lease = writer.end()
    assert theirs.read().try_acquire() is None
    assert theirs.write().try_acquire() is None
    lease.release()
    with mine.read(), theirs.read():
        assert [holder.mode for info in client.locks() for holder in info.holders] == ["read"] * 2


def test_a_semaphore_has_its_permits_and_no_more(
    server: LockerServer, client: LockerClient, other: LockerClient
) -> None:
    with client.semaphore("gpu", 4, cost=3) as lease, other.semaphore("gpu", 4):
        assert other.semaphore("gpu", 4).try_acquire() is None
        waiting = Waiting(server, other.semaphore("gpu", 4, cost=2).acquire)
        lease.release()
        waiting.end().release()
    with pytest.raises(CostTooLarge, match="gpu"):
        client.semaphore("gpu", 4, cost=5).acquire()
    client.set_limits("set", "2 at once")
    with pytest.raises(KindMismatch, match='for permits, as was set: "2 at once"'):
        client.lock("set").acquire()
    with client.lock("held"), pytest.raises(KindMismatch, match='"held" is a lock'):
        client.set_limits("held", "2 at once")
    with client.semaphore("gpu", 4), pytest.raises(KindMismatch, match="semaphore of 4"):
        client.semaphore("gpu", 5).acquire()


def test_a_leader_is_followed_when_it_steps_down(
    server: LockerServer, client: LockerClient, other: LockerClient
) -> None:
    with client.leader("scheduler") as first:
        follower = Waiting(server, other.leader("scheduler").acquire)
        assert first.held
    second = follower.end()
    assert second.token > first.token
    second.release()


def test_several_locks_are_taken_together_or_not_at_all(
    server: LockerServer, client: LockerClient, other: LockerClient
) -> None:
    with client.lock("b"):
        assert other.lock(["a", "b", "c"]).try_acquire() is None
        for key in "ac":
            with client.lock(key):
                pass
        waiting = Waiting(server, other.lock(("a", "b")).acquire)
    lease = waiting.end()
    assert lease.key == ("a", "b")
    assert [client.lock(key).try_acquire() for key in "ab"] == [None, None]
    assert len({holder.token for info in client.locks() for holder in info.holders}) == 1
    lease.release()
    assert nothing_is_left(client)
    # Whoever asks in another order does not wait for ever.
    barrier = threading.Barrier(2)

    def both_often(keys: list[str]) -> None:
        barrier.wait()
        for _ in range(50):
            with client.lock(keys):
                pass

    threads = [
        threading.Thread(target=both_often, args=(keys,)) for keys in (["a", "b"], ["b", "a"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_decorated_function_holds_the_lock_while_it_runs(client: LockerClient) -> None:
    @client.locked("nightly", ttl=HOUR)
    def held_by(number: int) -> tuple[int, int]:
        """Count."""
        return number, len(client.locks()[0].holders)

    @client.locked(["a", "b"], timeout=5.0)
    async def both() -> int:
        await asyncio.sleep(0)
        return len(client.locks())

    @client.locked("nightly")
    def fail() -> None:
        _ = 1 // 0

    assert held_by(7) == (7, 1)
    assert (held_by.__name__, held_by.__doc__) == ("held_by", "Count.")
    assert asyncio.run(both()) == 2
    with pytest.raises(ZeroDivisionError):
        fail()
    assert nothing_is_left(client)


def test_a_lease_that_is_not_renewed_frees_itself(
    client: LockerClient, other: LockerClient
) -> None:
    with client.lock("slot", ttl=0.5, renew=False) as lease:
        pass
    # Nobody has released it at the end of the block.
    assert lease.held
    asked = time.monotonic()
    with other.lock("slot") as next_one:
        assert time.monotonic() - asked > 0.3
        assert (lease.held, lease.lost) == (False, True)
        with pytest.raises(NotHeld, match="was lost"):
            lease.release()
        assert next_one.held
    early = client.lock("slot", ttl=HOUR, renew=False).acquire()
    del early
    gc.collect()
    assert other.lock("slot").try_acquire() is None
    (info,) = client.locks()
    other.break_lock("slot", token=info.holders[0].token)
    by_hand = client.lock("slot", ttl=HOUR, renew=False).acquire()
    by_hand.release()
    assert nothing_is_left(client)


def test_a_lease_ends_after_max_hold_however_well_it_is_renewed(
    client: LockerClient, other: LockerClient
) -> None:
    granted = time.monotonic()
    lease = client.lock("a", ttl=0.2, max_hold=0.6).acquire()
    with other.lock("a"):
        assert time.monotonic() - granted >= 0.6
        assert lease.lost
    assert lease.remaining == 0.0


def test_a_thread_that_may_enters_again(client: LockerClient) -> None:
    lock = client.lock("a", reentrant=True)
    with lock as first:
        with lock as second, client.lock("a", reentrant=True) as third:
            assert first is second is third
        assert first.held
        elsewhere: list[Any] = []
        thread = threading.Thread(target=lambda: elsewhere.append(lock.try_acquire()))
        thread.start()
        thread.join()
        assert elsewhere == [None]
        again = lock.acquire()
        again.release()
        assert first.held
        # Who did not ask for that waits for itself.
        assert client.lock("a").try_acquire() is None
    assert not first.held
    assert nothing_is_left(client)
    with lock as later:
        assert later.token > first.token


def test_a_lock_may_be_shared_by_threads(client: LockerClient) -> None:
    lock, inside, entered = client.lock("a"), 0, 0

    def work() -> None:
        nonlocal inside, entered
        for _ in range(10):
            with lock:
                inside += 1
                entered += 1
                assert inside == 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert entered == 80
    assert nothing_is_left(client)


def test_a_block_may_end_in_another_thread_than_it_began(client: LockerClient) -> None:
    lock = client.lock("a")
    stack = contextlib.ExitStack()
    entering = threading.Thread(target=lambda: stack.enter_context(lock))
    entering.start()
    entering.join()
    assert len(client.locks()) == 1
    stack.close()
    assert nothing_is_left(client)


def test_who_loses_a_lock_is_told(client: LockerClient, other: LockerClient) -> None:
    told: list[Any] = []
    called = threading.Event()

    def on_lost(lease: Any) -> None:
        told.append((lease.key, lease.lost, lease.held))
        called.set()

    lease = client.lock("a", ttl=HOUR, on_lost=on_lost).acquire()
    other.break_lock("a")
    assert called.wait(PATIENCE)
    assert told == [("a", True, False)]
    with pytest.raises(LockLost, match=r"^the lease of 'a' was lost"):
        lease.check()
    with pytest.raises(NotHeld, match="was lost"):
        lease.release()
    with pytest.raises(NotHeld):
        lease.release()
    assert repr(lease).endswith("lost)")
    with client.lock("a", on_lost=on_lost):
        pass
    client.lock("a", on_lost=on_lost).acquire().release()
    assert len(told) == 1
    assert nothing_is_left(client)


def test_a_block_whose_lock_was_lost_says_so_at_its_end(
    client: LockerClient, other: LockerClient
) -> None:
    def hold() -> None:
        with client.lock("a") as lease:
            other.break_lock("a")
            wait_until(lambda: lease.lost)
            _ = 1 // 0

    with pytest.raises(LockLost) as caught:
        hold()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_former_holder_never_frees_a_newer_lock(
    client: LockerClient, other: LockerClient
) -> None:
    lease = client.lock("a").acquire()
    lease.release()
    with other.lock("a") as newer:
        with pytest.raises(NotHeld, match="was released"):
            lease.release()
        assert newer.held
        assert client.lock("a").try_acquire() is None
    broken = client.lock("a", ttl=HOUR).acquire()
    other.break_lock("a")
    with other.lock("a") as newer:
        with pytest.raises(NotHeld):
            broken.release()
        newer.check()
        assert client.lock("a").try_acquire() is None


def test_an_operator_may_break_a_lock(client: LockerClient, other: LockerClient) -> None:
    with pytest.raises(NotHeld, match='nobody holds the lock "a"'):
        other.break_lock("a")
    first = client.lock("a", ttl=HOUR).acquire()
    other.break_lock("a", token=first.token)
    wait_until(lambda: first.lost)
    with client.lock("a", ttl=HOUR) as second:
        with pytest.raises(
            NotHeld, match=f'the token {first.token} is not current for the lock "a"'
        ):
            other.break_lock("a", token=first.token)
        assert second.held
    with client.semaphore("gpu", 2) as one, contextlib.suppress(LockLost):
        with client.semaphore("gpu", 2) as two:
            other.break_lock("gpu", token=two.token)
            wait_until(lambda: two.lost)
        assert one.held


def test_who_holds_and_who_waits_is_told_in_the_order_of_the_queue(
    server: LockerServer, client: LockerClient, other: LockerClient
) -> None:
    with LockerClient(server.url, name="third") as third, client.lock("a", ttl=30.0) as lease:
        waiting = [
            Waiting(server, waiter.lock("a", timeout=20.0).acquire)
            for waiter in (other, third, client)
        ]
        (info,) = third.locks()
        (holder,) = info.holders
        assert (info.key, info.kind, info.size) == ("a", "lock", 1)
        assert (holder.name, holder.token, holder.mode) == ("me", lease.token, "exclusive")
        assert 0.0 <= holder.since < 20.0
        assert 20.0 < holder.ttl_left < 31.0
        assert [waiter.name for waiter in info.waiters] == ["other", "third", "me"]
        assert all(0.0 < waiter.timeout_left <= 20.0 for waiter in info.waiters)
        lease.release()
        for one in waiting:
            one.end().release()
    assert nothing_is_left(client)


def test_all_locks_are_told_however_many_there_are(client: LockerClient) -> None:
    keys = [f"{number:04}" + "x" * 200 for number in range(300)]
    leases = [client.lock(key, ttl=HOUR).acquire() for key in keys]
    assert [info.key for info in client.locks()] == keys
    for lease in leases:
        lease.release()
    assert nothing_is_left(client)


def test_a_wait_asks_once_and_is_served_at_the_release(
    server: LockerServer, client: LockerClient, free_url: str
) -> None:
    """A relay counts the messages of the one that waits."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(free_url)
    back.connect(server.url)
    bodies: list[bytes] = []
    stop = threading.Event()

    def relay() -> None:
        poller = zmq.Poller()
        poller.register(front, zmq.POLLIN)
        poller.register(back, zmq.POLLIN)
        peer = b""
        while not stop.is_set():
            for socket, _ in poller.poll(20):
                if socket is front:
                    peer, body = front.recv_multipart()
                    bodies.append(body)
                    back.send(body)
                else:
                    front.send_multipart([peer, back.recv()])

    relaying = threading.Thread(target=relay)
    relaying.start()
    with LockerClient(free_url) as waiter, client.lock("a") as lease:
        waiting = Waiting(server, waiter.lock("a").acquire)
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 1.2)
        lease.release()
        released = time.monotonic()
        got = waiting.end()
        assert time.monotonic() - released < 0.4
        # One asks; the others say that it lives, every half a second.
        assert sum(b"\xa1a" in body for body in bodies) == 1
        assert len(bodies) <= 1 + 1.5 / 0.5 + 2
        got.release()
    stop.set()
    relaying.join()
    front.close()
    back.close()
    context.term()


def test_who_gave_up_never_gets_the_lock(
    server: LockerServer, client: LockerClient, other: LockerClient
) -> None:
    with client.lock("a", ttl=HOUR):
        for _ in range(3):
            with pytest.raises(LockTimeout):
                other.lock("a", timeout=0.02).acquire()
        wait_until(lambda: client.locks()[0].waiters == ())
        with LockerClient(server.url) as leaving:
            waiting = Waiting(server, leaving.lock("a").acquire)
        assert isinstance(waiting.end(), LockerError)
        wait_until(lambda: client.locks()[0].waiters == ())
    assert nothing_is_left(client)


def test_a_client_that_is_closed_has_given_its_locks_back(
    server: LockerServer, client: LockerClient
) -> None:
    holder = LockerClient(server.url)
    lock = holder.lock("a", ttl=HOUR)
    lease = lock.acquire()
    holder.close()
    with client.lock("a"):
        assert (lease.held, lease.lost) == (False, True)
    with pytest.raises(NotHeld):
        lease.release()
    for ask in (lock.acquire, lock.try_acquire, holder.locks, lambda: holder.break_lock("a")):
        with pytest.raises(LockerError, match="the client is closed"):
            ask()


def test_a_lease_that_nobody_can_release_warns_and_is_given_back(client: LockerClient) -> None:
    lease: Any = client.lock("a", ttl=HOUR).acquire()
    with pytest.warns(ResourceWarning, match=r"^unreleased zmqlocker.Lease\('a', token="):
        del lease
    wait_until(lambda: nothing_is_left(client))
