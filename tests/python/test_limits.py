"""Limits: what is decided of which keys at which cost, and what is wrong with a request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, late
from zmqlocker import (
    ConfigError,
    CostTooLarge,
    Decision,
    KindMismatch,
    Limit,
    LockerClient,
    LockerError,
    LockerServer,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMITS: dict[str, str | Limit | list[str | Limit]] = {
    "rpm": "3/h",
    "tpm": Limit(1000, 3600.0, algorithm="sliding_window"),
    "both": ["5/h", "2/min gcra"],
    "tenant:*": "2/h",
    "tenant:vip-*": "4/h",
    "tenant:vip-1": "6/h",
    "gpu": "2 at once",
    "shadowed": ["5/h", Limit(1, 3600.0, shadow=True)],
    "many-*": "1/h",
}


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(limits=LIMITS, url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.fixture
def client(server: LockerServer) -> Iterator[LockerClient]:
    with LockerClient(server.url, timeout=PATIENCE) as client:
        yield client


def granted(client: LockerClient, key: str, asked: int = 10) -> int:
    return sum(bool(client.try_acquire(key)) for _ in range(asked))


def test_a_decision_tells_what_is_left(client: LockerClient) -> None:
    yes = client.try_acquire("rpm", 2)
    assert isinstance(yes, Decision)
    assert (yes.allowed, yes.remaining, yes.retry_after) == (True, 1, 0.0)
    assert (yes.key, yes.limit, yes.policy) == ("rpm", "3/h", None)
    assert 0.0 < yes.reset_after <= 3600.001
    no = client.try_acquire("rpm", cost=2)
    assert not no
    assert (no.allowed, no.remaining, no.limit, no.key) == (False, 1, "3/h", "rpm")
    assert no.retry_after is not None
    assert 0.0 < no.retry_after <= 3600.001


def test_a_refusal_costs_nothing(client: LockerClient) -> None:
    assert client.try_acquire("rpm", 2)
    assert not any(client.try_acquire("rpm", 2) for _ in range(10))
    assert client.try_acquire("rpm", 1)


def test_a_decision_prints_all_that_it_knows(client: LockerClient) -> None:
    number = r"\d+\.\d+"
    assert re.fullmatch(
        rf"zmqlocker\.Decision\(allowed=True, remaining=2, retry_after=0\.0, "
        rf'reset_after={number}, limit="3/h", key="rpm"\)',
        repr(client.try_acquire("rpm")),
    )
    assert re.fullmatch(
        rf"zmqlocker\.Decision\(allowed=False, remaining=2, retry_after={number}, "
        rf'reset_after={number}, limit="3/h", key="rpm"\)',
        repr(client.try_acquire("rpm", 3)),
    )


def test_all_limits_of_a_key_must_agree(client: LockerClient) -> None:
    assert granted(client, "both") == 2
    no = client.try_acquire("both")
    assert no.limit == str(Limit.parse("2/min gcra"))


def test_several_keys_are_charged_together_or_not_at_all(client: LockerClient) -> None:
    assert client.try_acquire({"rpm": 1, "tpm": 600})
    no = client.try_acquire({"rpm": 1, "tpm": 600})
    assert (bool(no), no.key) == (False, "tpm")
    assert client.peek("rpm").remaining == 2
    assert client.peek("tpm").remaining == 400
    assert client.acquire({"tpm": 400, "rpm": 2}, timeout=1.0).remaining == 0
    assert client.try_acquire({"tpm": 1, "rpm": 1}).remaining == 0


def test_a_name_goes_before_patterns_and_a_longer_pattern_before_a_shorter(
    client: LockerClient,
) -> None:
    assert granted(client, "tenant:7") == 2
    assert granted(client, "tenant:8") == 2
    assert granted(client, "tenant:vip-2") == 4
    assert granted(client, "tenant:vip-1") == 6


def test_a_key_without_a_rule_is_an_error_that_names_it(client: LockerClient) -> None:
    for ask in (client.try_acquire, client.acquire, client.peek, client.reset, client.next):
        with pytest.raises(ConfigError, match=r'^key "nobody" has no limits: name it in '):
            ask("nobody")


def test_where_a_rate_is_given_it_is_that_of_all_other_keys() -> None:
    with (
        LockerServer(3, 3600.0, "tcp://127.0.0.1:*", limits={"rpm": "1/h"}, block=False) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        assert granted(client, "rpm") == 1
        assert granted(client, "other") == 3
        assert granted(client, "another") == 3
        assert [client.next() for _ in range(4)] == ["go"] * 3 + ["sorry"]
        # The seed's key has a name.
        assert not client.try_acquire("default")


def test_next_answers_for_a_key_in_the_words_of_the_seed(client: LockerClient) -> None:
    assert [client.next("rpm") for _ in range(4)] == ["go"] * 3 + ["sorry"]
    assert client.next("tenant:1", timeout=PATIENCE) == "go"


def test_a_limit_in_shadow_lets_everything_pass(client: LockerClient) -> None:
    assert granted(client, "shadowed") == 5


def test_peek_takes_nothing(client: LockerClient, server: LockerServer) -> None:
    before = server.stats()["keys"]
    assert all(client.peek("rpm").remaining == 3 for _ in range(10))
    assert client.peek("rpm", 3)
    assert server.stats()["keys"] == before
    client.try_acquire("rpm", 2)
    assert not client.peek("rpm", 2)
    assert client.peek("rpm", 1)
    assert client.peek("gpu").remaining == 2


def test_reset_forgets_what_was_used(client: LockerClient) -> None:
    assert granted(client, "rpm") == 3
    client.reset("rpm")
    assert granted(client, "rpm") == 3
    client.reset("tenant:never-used")


def test_a_frozen_key_grants_nothing_until_it_is_reset(client: LockerClient) -> None:
    client.freeze("rpm", 600.0)
    no = client.try_acquire("rpm")
    assert not no
    assert no.retry_after is not None
    assert 500.0 < no.retry_after <= 600.0
    # A shorter freeze does not end a longer one.
    client.freeze("rpm", 0.0)
    assert not client.try_acquire("rpm")
    client.reset("rpm")
    assert client.try_acquire("rpm").remaining == 2


def test_limits_change_while_the_server_runs_and_usage_stays(client: LockerClient) -> None:
    assert granted(client, "rpm") == 3
    client.set_limits("rpm", "5/h")
    assert client.peek("rpm").remaining == 2
    client.set_limits("rpm", [Limit(1, 3600.0), "4/h sliding"])
    assert not client.try_acquire("rpm")
    client.set_limits("unheard-of", ["1/h"])
    assert granted(client, "unheard-of") == 1
    assert granted(client, "tenant:1") == 2


def test_limits_of_another_kind_are_refused(client: LockerClient) -> None:
    with client.limit("gpu"), pytest.raises(KindMismatch, match="gpu"):
        client.set_limits("gpu", "5/h")
    client.try_acquire("rpm")
    with pytest.raises(KindMismatch, match="rpm"):
        client.set_limits("rpm", "5 at once")


def test_permits_that_are_held_are_not_asked_for_in_passing(client: LockerClient) -> None:
    for ask in (client.try_acquire, client.acquire, client.next):
        with pytest.raises(KindMismatch, match=r'^key "gpu" has a concurrency limit, whose'):
            ask("gpu")


def test_a_cost_that_can_never_be_granted_is_an_error_at_once(client: LockerClient) -> None:
    match = r'^cost 4 of key "rpm" is above its limit "3/h": at most 3 can be granted at once$'
    for ask in (client.try_acquire, client.acquire, client.peek):
        with pytest.raises(CostTooLarge, match=match):
            ask("rpm", 4)
    with pytest.raises(CostTooLarge, match='"gpu"'), client.limit("gpu", 3):
        pass
    assert client.peek("rpm").remaining == 3


@pytest.mark.parametrize("cost", [0, -1, 10**12 + 1, 2**63, 2**64, 10**40, -(10**40)])
def test_a_cost_out_of_bounds_is_named(client: LockerClient, cost: int) -> None:
    match = rf"^cost must be from 1 to {10**12}, not -?\d+$"
    calls: list[Callable[[], Any]] = [
        lambda: client.try_acquire("rpm", cost),
        lambda: client.acquire("rpm", cost),
        lambda: client.peek("rpm", cost),
        lambda: client.try_acquire({"rpm": cost}),
        lambda: client.try_acquire_many([{"rpm": cost}]),
        lambda: client.limit("gpu", cost).__enter__(),
        lambda: client.reserve("rpm", cost).__enter__(),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=match):
            call()


@pytest.mark.parametrize("key", ["", "x" * 257, "\u00e9" * 129, "\ud800"])
def test_a_key_out_of_bounds_is_named(client: LockerClient, key: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.try_acquire(key),
        lambda: client.acquire(key),
        lambda: client.next(key),
        lambda: client.peek(key),
        lambda: client.reset(key),
        lambda: client.freeze(key, 1.0),
        lambda: client.set_limits(key, "1/s"),
        lambda: client.try_acquire({"rpm": 1, key: 1}),
        lambda: client.try_acquire_many(["rpm", key]),
        lambda: client.limit(key).__enter__(),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"^key must be (1 to 256 bytes of|text that) UTF-8"):
            call()
    assert client.peek("rpm").remaining == 3


@pytest.mark.parametrize("key", ["x" * 256, "\u00e9" * 128, "a\0b", " ", "tenant:*", "\U0001f512"])
def test_a_key_may_be_any_text(key: str) -> None:
    with (
        LockerServer(2, 3600.0, "tcp://127.0.0.1:*", block=False) as server,
        LockerClient(server.url, timeout=PATIENCE) as client,
    ):
        assert granted(client, key) == 2
        assert client.peek(key).key == key


def test_the_keys_of_a_request_are_bounded(client: LockerClient) -> None:
    with pytest.raises(ConfigError, match=r"^keys must be at least one$"):
        client.try_acquire({})
    with pytest.raises(ConfigError, match=r"^keys must be at most 16 in one request$"):
        client.try_acquire({f"tenant:{number}": 1 for number in range(17)})
    assert client.try_acquire({f"tenant:{number}": 1 for number in range(16)})


@pytest.mark.parametrize("key", [None, 7, b"rpm", ["rpm"], 1.5])
def test_a_key_of_another_type_is_an_error(client: LockerClient, key: Any) -> None:
    if key is not None:
        with pytest.raises(TypeError, match="key must be a str"):
            client.next(key)
    with pytest.raises(TypeError, match="key must be a str, or a dict of str and int, not "):
        client.try_acquire(key)
    for ask in (client.peek, client.reset):
        with pytest.raises(TypeError):
            ask(key)
    with pytest.raises(TypeError):
        client.try_acquire({None: 1})  # type: ignore[dict-item]


def test_arguments_of_other_types_are_errors(client: LockerClient) -> None:
    wrong: Any = "3"
    number: Any = 7
    with pytest.raises(TypeError):
        client.try_acquire("rpm", wrong)
    with pytest.raises(TypeError):
        client.try_acquire("rpm", 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        client.try_acquire({"rpm": wrong})
    with pytest.raises(TypeError, match="cost is for one key"):
        client.try_acquire({"rpm": 1}, 2)
    with pytest.raises(TypeError):
        client.try_acquire("rpm", timeout=wrong)
    with pytest.raises(TypeError):
        client.try_acquire_many(number)
    with pytest.raises(TypeError):
        client.freeze("rpm", wrong)
    with pytest.raises(TypeError, match="limits must be str or Limit, or a list of them, not int"):
        client.set_limits("rpm", 7)  # type: ignore[arg-type]
    assert client.peek("rpm").remaining == 3


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e10, 10**400])
def test_a_freeze_out_of_bounds_is_named(client: LockerClient, seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"^seconds must be from 0 and at most 1000000000 s"):
        client.freeze("rpm", seconds)
    assert client.try_acquire("rpm")


@pytest.mark.parametrize("limits", ["", "5", "5/x", "0/s", [], ["1/s"] * 9, "5/s burst 2"])
def test_limits_that_cannot_be_read_are_named(client: LockerClient, limits: Any) -> None:
    with pytest.raises(ConfigError, match=r"^limit"):
        client.set_limits("rpm", limits)
    with pytest.raises(ConfigError, match=r"^limit"):
        LockerServer(limits={"rpm": limits}, url="tcp://127.0.0.1:*", block=False)
    assert client.peek("rpm").limit == "3/h"


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf")])
def test_a_timeout_out_of_bounds_is_named_by_every_call(
    client: LockerClient, timeout: float
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.try_acquire("rpm", timeout=timeout),
        lambda: client.try_acquire_many(["rpm"], timeout=timeout),
        lambda: client.acquire("rpm", timeout=timeout),
        lambda: client.peek("rpm", timeout=timeout),
        lambda: client.reset("rpm", timeout=timeout),
        lambda: client.limit("gpu", timeout=timeout).__enter__(),
        lambda: client.reserve("rpm", timeout=timeout).__enter__(),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match=r"^timeout must be above 0 and at most 1000000000"):
            call()


def test_many_keys_are_asked_at_once_each_by_itself(
    client: LockerClient, server: LockerServer
) -> None:
    keys = [f"many-{number}" for number in range(10_000)]
    assert all(client.try_acquire_many(keys))
    again = client.try_acquire_many(keys)
    assert not any(again)
    assert [decision.key for decision in again] == keys
    assert server.stats()["keys"] >= 10_000
    assert client.try_acquire_many([]) == []
    several: list[str | dict[str, int]] = ["rpm", {"rpm": 2, "tpm": 1}, "rpm"]
    mixed = client.try_acquire_many(key for key in several)
    assert [bool(decision) for decision in mixed] == [True, True, False]
    with pytest.raises(ConfigError, match="nobody"):
        client.try_acquire_many(["tpm", "nobody", "tpm"])
    assert client.peek("tpm").remaining <= 998


def test_a_wait_that_is_too_long_names_key_timeout_and_limit(client: LockerClient) -> None:
    assert granted(client, "rpm") == 3
    late(
        lambda: client.acquire("rpm", timeout=0.01),
        'no permit of "rpm" within 0.01 s: the limit is "3/h"',
    )
    late(
        lambda: client.acquire({"rpm": 1, "tpm": 1}, timeout=0.02),
        'no permit of "rpm", "tpm" within 0.02 s: the limit is "3/h"',
    )
    assert client.peek("tpm").remaining == 1000


def test_a_client_that_is_closed_says_so(client: LockerClient) -> None:
    client.close()
    calls: list[Callable[[], Any]] = [
        lambda: client.try_acquire("rpm"),
        lambda: client.try_acquire_many(["rpm"]),
        lambda: client.acquire("rpm"),
        lambda: client.peek("rpm"),
        lambda: client.limit("gpu").__enter__(),
    ]
    for call in calls:
        with pytest.raises(LockerError, match="the client is closed"):
            call()
