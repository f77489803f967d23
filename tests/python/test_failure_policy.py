"""`on_failure`: what becomes of requests while no server answers."""

from __future__ import annotations

import asyncio
import math
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import (
    ConfigError,
    LockerClient,
    LockerServer,
    LockTimeout,
    NotHeld,
    ServerUnavailable,
)
from zmqlocker.asyncio import LockerClient as AsyncClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Script


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"on_failure": "open"}, [True] * 5),
        ({"on_failure": "closed"}, [False] * 5),
        ({"on_failure": "share", "share": "2/h"}, [True, True, False, False, False]),
        ({"on_failure": "share", "share": ["9/h", "3/min"]}, [True] * 3 + [False] * 2),
    ],
)
def test_a_policy_decides_where_no_server_does(
    free_url: str, options: dict[str, Any], allowed: list[bool]
) -> None:
    with LockerClient(free_url, timeout=0.05, **options) as client:
        decisions = [client.try_acquire("a") for _ in allowed]
        assert [decision.allowed for decision in decisions] == allowed
        assert {decision.policy for decision in decisions} == {options["on_failure"]}
        assert f'policy="{options["on_failure"]}"' in repr(decisions[0])
        # Each key is counted by itself, and a wait ends at once.
        decisions = [client.acquire("b") for _ in allowed]
        assert [decision.allowed for decision in decisions] == allowed
        many = client.try_acquire_many(["c"] * len(allowed))
        assert [decision.allowed for decision in many] == allowed
        assert {decision.key for decision in many} == {"c"}


def test_without_a_policy_every_call_raises(free_url: str) -> None:
    with LockerClient(free_url, timeout=0.05) as client:
        for _ in range(3):
            for ask in (client.try_acquire, client.acquire, client.peek, client.reset):
                with pytest.raises(ServerUnavailable, match=rf"^no answer from {free_url} within"):
                    ask("a")
            with pytest.raises(ServerUnavailable):
                client.try_acquire_many(["a", "b"])
            with pytest.raises(ServerUnavailable), client.limit("a"):
                pass


def test_what_has_no_answer_but_a_servers_raises_whatever_the_policy(free_url: str) -> None:
    with LockerClient(free_url, timeout=0.05, on_failure="open") as client:
        for ask in (client.peek, client.reset):
            with pytest.raises(ServerUnavailable):
                ask("a")
        # The seed's call hears "go" or "sorry" from a server, or waits.
        with pytest.raises(LockTimeout):
            client.next()


def test_a_policy_lets_a_block_run_that_holds_nothing(free_url: str) -> None:
    with LockerClient(free_url, timeout=0.05, on_failure="open") as client:
        permit = client.limit("a")
        for _ in range(2):
            with permit:
                assert permit.decision.policy == "open"
                assert not permit.lost
                assert permit.remaining == math.inf
        with client.reserve("a", 3) as reserved:
            reserved.commit(2)
            with pytest.raises(NotHeld):
                reserved.commit(2)
        assert client.limited("a")(lambda: 7)() == 7

    async def main() -> None:
        async with AsyncClient(free_url, timeout=0.05, on_failure="open") as client:
            for _ in range(2):
                async with client.limit("a") as permit:
                    assert permit.decision.policy == "open"
                    assert not permit.lost
                async with client.reserve("a", 3) as reserved:
                    await reserved.commit(2)
                    with pytest.raises(NotHeld):
                        await reserved.commit(2)

    asyncio.run(main())


def test_a_policy_that_refuses_lets_nobody_into_a_block(free_url: str) -> None:
    message = r'^no permit of "a": no server answers, and the policy is "closed"$'
    with LockerClient(free_url, timeout=0.05, on_failure="closed", share="2/h") as client:
        for block in (client.limit("a"), client.reserve("a"), client.limit("a")):
            with pytest.raises(LockTimeout, match=message), block:
                pytest.fail("entered")
        with client.limit("a", on_failure="share"), client.reserve("a", on_failure="share"):
            pass
        with pytest.raises(LockTimeout, match="share"), client.limit("a", on_failure="share"):
            pytest.fail("entered")
        with pytest.raises(ServerUnavailable), client.limit("a", on_failure="raise"):
            pytest.fail("entered")

    async def main() -> None:
        async with AsyncClient(free_url, timeout=0.05, on_failure="closed") as client:
            for block in (client.limit("a"), client.reserve("a"), client.limit("a")):
                with pytest.raises(LockTimeout, match=message):
                    await block.__aenter__()
            with pytest.raises(ServerUnavailable):
                await client.limit("a", on_failure="raise").__aenter__()

    asyncio.run(main())


def test_a_call_may_have_a_policy_of_its_own(free_url: str) -> None:
    with LockerClient(free_url, timeout=0.05, share="1/h") as client:
        with pytest.raises(ServerUnavailable):
            client.try_acquire("a")
        assert client.try_acquire("a", on_failure="open").policy == "open"
        assert not client.try_acquire("a", on_failure="closed")
        assert client.acquire("a", on_failure="share")
        assert not client.acquire("a", on_failure="share")
        assert client.try_acquire_many(["a"], on_failure="open")[0].policy == "open"
        with pytest.raises(ServerUnavailable):
            client.acquire("a", on_failure="raise")


@pytest.mark.parametrize("policy", ["", "fail", "Open", "share"])
def test_a_policy_that_is_none_is_named(free_url: str, policy: str) -> None:
    with pytest.raises(ConfigError, match=r"^on_failure "):
        LockerClient(free_url, on_failure=policy)
    with LockerClient(free_url) as client, pytest.raises(ConfigError, match=r"^on_failure "):
        client.try_acquire("a", on_failure=policy)
    with pytest.raises(ConfigError, match=r"^limit"):
        LockerClient(free_url, on_failure="open", share="5")


def test_only_the_first_failure_costs_the_timeout(free_url: str) -> None:
    timeout = 2.0
    with LockerClient(free_url, timeout=timeout, on_failure="open") as client:
        began = time.monotonic()
        assert client.try_acquire("a")
        first = time.monotonic() - began
        assert first >= timeout * 0.9
        # More than ten thousand requests, in several calls: less than one timeout for all.
        began = time.monotonic()
        assert all(client.try_acquire("a") for _ in range(20))
        assert all(client.try_acquire_many(["a"] * 10_000))
        assert time.monotonic() - began < timeout


def test_the_servers_decide_again_when_they_are_back(
    serve_limits: Callable[..., tuple[Script, str]], free_url: str
) -> None:
    with LockerClient(free_url, timeout=1.0, on_failure="open") as client:
        assert client.try_acquire("a").policy == "open"
        server, _ = serve_limits({"a": "1000000/h"}, free_url)
        for _ in range(2):
            wait_until(lambda: client.try_acquire("a").policy is None)
            server.kill()
            wait_until(lambda: client.try_acquire("a").policy == "open")
            server, _ = serve_limits({"a": "1000000/h"}, free_url)
        wait_until(lambda: client.try_acquire("a").policy is None)


def test_a_server_that_stood_still_decides_again(
    serve_limits: Callable[..., tuple[Script, str]],
) -> None:
    server, url = serve_limits({"a": "1000000/h", "one": "1 at once"})
    with LockerClient(url, timeout=0.5, on_failure="closed") as client:
        with client.limit("one", timeout=PATIENCE):
            server.stop()
            assert client.try_acquire("a").policy == "closed"
            assert client.try_acquire("a").policy == "closed"
        # What was held is given back in vain; it does not keep the client from looking.
        assert client.try_acquire("a").policy == "closed"
        server.signal(signal.SIGCONT)
        wait_until(lambda: client.try_acquire("a").policy is None)


def test_a_refusal_of_a_server_is_no_failure() -> None:
    limits: Any = {"a": "1/h"}
    with (
        LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=PATIENCE, on_failure="open") as client,
    ):
        assert client.try_acquire("a").policy is None
        assert not client.try_acquire("a")
        with pytest.raises(LockTimeout):
            client.acquire("a", timeout=0.01)
        with pytest.raises(ConfigError):
            client.try_acquire("b")
        assert not client.try_acquire("a")
