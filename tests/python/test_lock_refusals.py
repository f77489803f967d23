"""What can never be locked, or not here, is refused at once and by name."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from conftest import PATIENCE
from zmqlocker import (
    ConfigError,
    KindMismatch,
    LockerClient,
    LockerServer,
    ServerUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def client() -> Iterator[LockerClient]:
    limits = {"ruled": "10/h", "tenant:*": "1/h", "*": "1/h"}
    with (
        LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        yield client


@pytest.mark.parametrize("ttl", [0, -1.0, 0.0999, 86_400.1, float("nan"), float("inf")])
def test_a_ttl_out_of_its_bounds_is_named(client: LockerClient, ttl: float) -> None:
    match = r"^ttl must be from 0.1 to 86400 s, not "
    for make in (
        client.lock,
        client.leader,
        lambda key, **options: client.semaphore(key, 2, **options),
    ):
        with pytest.raises(ConfigError, match=match):
            make("a", ttl=ttl)
    with pytest.raises(ConfigError, match=match):
        client.rw_lock("a", ttl=ttl)
    with pytest.raises(ConfigError, match=match), client.limit("ruled", ttl=ttl):
        pytest.fail("entered with a lease that cannot be")
    for good in (0.1, 86_400.0):
        with client.lock("a", ttl=good):
            pass


@pytest.mark.parametrize("max_hold", [0, -1.0, 0.79, float("nan")])
def test_a_max_hold_that_cannot_be_is_named(client: LockerClient, max_hold: float) -> None:
    match = r'^max_hold must be at least the ttl of 0.8 s, not .*, for "a"$'
    with pytest.raises(ConfigError, match=match):
        client.lock("a", max_hold=max_hold)


def test_what_is_out_of_its_bounds_names_the_keys(client: LockerClient) -> None:
    lock = client.lock("a")
    calls: list[Callable[[], object]] = [
        lambda: client.lock("a", ttl=0),
        lambda: client.lock("a", timeout=0),
        lambda: client.semaphore("a", 0),
        lambda: client.semaphore("a", 2, cost=0),
        lambda: client.locked("a", ttl=0),
        lambda: lock.acquire(timeout=-1.0),
        lambda: lock.try_acquire(timeout=0),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r', for "a"$'):
            call()
    with pytest.raises(ConfigError, match=r'^ttl must be .*, for "a", "b"$'):
        client.lock(["a", "b"], ttl=0)


@pytest.mark.parametrize("token", [-1, 2**63, 2**200])
def test_what_can_be_no_token_is_named(client: LockerClient, token: int) -> None:
    with pytest.raises(ConfigError, match=r"^token must be from 0 to 2\^63 - 1, not "):
        client.break_lock("a", token=token)


def test_an_argument_of_another_kind_is_named(client: LockerClient) -> None:
    wrong: list[dict[str, Any]] = [{"ttl": "1"}, {"max_hold": "1"}, {"timeout": "1"}]
    for options in wrong:
        (name,) = options
        with pytest.raises(TypeError, match=f"'{name}'"):
            client.lock("a", **options)
    sizes: list[Any] = [True, 1.5, "2"]
    for size in sizes:
        with pytest.raises(TypeError, match="'size'"):
            client.semaphore("a", size)


@pytest.mark.parametrize("key", ["", "x" * 257, "ä" * 129, "\ud800"])
def test_a_key_that_cannot_be_is_named(client: LockerClient, key: str) -> None:
    for make in (client.lock, client.leader, lambda key: client.semaphore(key, 2)):
        with pytest.raises(ConfigError, match=r"^key must be "):
            make(key)
    with pytest.raises(ConfigError, match=r"^key must be "):
        client.rw_lock(key)
    with pytest.raises(ConfigError, match=r"^key must be "):
        client.break_lock(key)


def test_keys_that_are_taken_together_are_bounded(client: LockerClient) -> None:
    for keys in ([], ["a", "a"], [str(number) for number in range(17)]):
        with pytest.raises(ConfigError):
            client.lock(keys)
    with client.lock([str(number) for number in range(16)]) as lease:
        assert len(lease.key) == 16


@pytest.mark.parametrize("key", [1, None, b"a", ["a", 1], [b"a"], {"a": 1}.values()])
def test_what_is_no_key_is_named(client: LockerClient, key: Any) -> None:
    for make in (client.lock, client.leader, client.locked):
        with pytest.raises(TypeError, match=r"^key must be a str or a list of str, not "):
            make(key)
    for make_one in (client.rw_lock, lambda key: client.semaphore(key, 2)):
        with pytest.raises(TypeError, match=r"^key must be a str, not "):
            make_one(key)


def test_what_cannot_be_told_of_a_loss_is_refused_at_once(client: LockerClient) -> None:
    makes: list[Any] = [
        client.lock,
        client.leader,
        client.rw_lock,
        lambda key, **options: client.semaphore(key, 2, **options),
    ]
    for make in makes:
        with pytest.raises(TypeError, match=r"^on_lost must be a function .*, not 5$"):
            make("a", on_lost=5)


def test_a_lease_has_no_copies(client: LockerClient) -> None:
    with client.lock("a") as lease:
        for copying in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="a lease cannot be copied or pickled"):
                copying(lease)
        assert lease.held


def test_a_rw_lock_says_how_it_is_entered(client: LockerClient) -> None:
    with pytest.raises(TypeError, match=r"by `with lock.read\(\):` or `with"):
        client.rw_lock("a").__enter__()


@pytest.mark.parametrize("size", [0, -1, 10**12 + 1, 2**70])
def test_the_size_and_the_cost_of_a_semaphore_are_bounded(client: LockerClient, size: int) -> None:
    with pytest.raises(ConfigError, match=r"^size must be "):
        client.semaphore("gpu", size)
    with pytest.raises(ConfigError, match=r"^cost must be "):
        client.semaphore("gpu", 2, cost=size)


def test_a_key_is_one_kind_of_lock_at_a_time(client: LockerClient) -> None:
    with client.lock("a"):
        for lock in (
            client.rw_lock("a").read(),
            client.rw_lock("a").write(),
            client.semaphore("a", 1),
        ):
            with pytest.raises(KindMismatch, match=r'^key "a" is a lock, not '):
                lock.acquire()
    for key, rule in (("ruled", "10/h"), ("tenant:7", "1/h")):
        with pytest.raises(KindMismatch, match=f'for permits, by the rule "{rule}"'):
            client.lock(key).acquire()
    # A rule for all other keys names none of them.
    with client.lock("other"):
        assert client.next("other") == "go"


def test_no_server_is_said_to_be_unavailable(free_url: str) -> None:
    with LockerClient(free_url, timeout=0.1) as client:
        for ask in (client.lock("a").acquire, client.lock("a").try_acquire, client.locks):
            with pytest.raises(ServerUnavailable):
                ask()
        with pytest.raises(ServerUnavailable), client.lock("a"):
            pytest.fail("entered without the lock")


def test_a_server_of_the_seed_has_no_locks() -> None:
    context = zmq.Context()
    seed = context.socket(zmq.REP)
    port = seed.bind_to_random_port("tcp://127.0.0.1")

    def serve() -> None:
        seed.recv()
        seed.send(b"go")

    serving = threading.Thread(target=serve)
    serving.start()
    with LockerClient(f"tcp://127.0.0.1:{port}", timeout=PATIENCE) as client:
        with pytest.raises(ServerUnavailable), client.lock("a", timeout=0.3):
            pytest.fail("entered without the lock")
        assert client.next() == "go"
    serving.join()
    seed.close()
    context.term()
