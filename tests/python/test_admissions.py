"""The checker of the stress test: it sees one grant too many, and blames nobody who is honest."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from admissions import (
    SECOND,
    Grant,
    Held,
    Life,
    Note,
    Rate,
    by_life,
    givers,
    held_by_life,
    most_at_once,
    read,
)

if TYPE_CHECKING:
    from pathlib import Path

MAX_REQUESTS = 5

#: Two lives of a server that was down for two seconds.
EARLIER, LATER = LIVES = (Life(0, 4 * SECOND), Life(6 * SECOND, 9 * SECOND))


def honest(rate: Rate, seed: int) -> list[Grant]:
    """As many grants as may be, each noted by a client with delays of its own."""
    dice = random.Random(seed)
    length = round(rate.in_seconds * SECOND)
    grants, opened = list[Grant](), 0
    while len(grants) < 100:
        # All at the very start of a slot, or at its very end: the worst that is allowed.
        instants = [opened] * rate.max_requests
        if not rate.sliding:
            instants = [opened + dice.choice((0, length)) for _ in instants]
        for instant in instants:
            before, after = (dice.choice((0, 1, dice.randrange(3 * length))) for _ in range(2))
            grants.append(Grant(instant - before, instant + after))
        opened += length + 1 + dice.choice((0, dice.randrange(length)))
    return grants


@pytest.mark.parametrize("sliding", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_who_is_honest_is_not_blamed(seed: int, *, sliding: bool) -> None:
    rate = Rate(MAX_REQUESTS, 0.5, sliding)
    assert rate.violations(honest(rate, seed)) == []


@pytest.mark.parametrize("seed", range(20))
def test_one_grant_too_many_in_a_sliding_window_is_seen(seed: int) -> None:
    rate = Rate(MAX_REQUESTS, 0.5, sliding=True)
    dice = random.Random(seed)
    start = dice.randrange(10 * SECOND)
    within = [
        Grant(start + before, start + before + dice.randrange(SECOND // 2 - before + 1))
        for before in [0, *(dice.randrange(SECOND // 2) for _ in range(MAX_REQUESTS - 1))]
    ]
    # The others are of another time; what was noted is in no order.
    others = [
        Grant(start + 2 * SECOND * place, start + 2 * SECOND * place) for place in range(1, 9)
    ]
    dice.shuffle(within)
    assert rate.violations(others + within) == []
    planted = Grant(start + SECOND // 4, start + SECOND // 2)
    (violation,) = rate.violations([*others, *within, planted])
    assert violation.startswith("6 permits within 1 x 0.5 s")


def test_what_may_have_been_outside_of_the_window_is_not_counted() -> None:
    rate = Rate(1, 1.0, sliding=True)
    assert rate.violations([Grant(0, 0), Grant(SECOND, SECOND + 1)]) == []
    assert rate.violations([Grant(0, 0), Grant(SECOND, SECOND)]) != []


def test_two_slots_may_meet_but_not_three() -> None:
    rate = Rate(MAX_REQUESTS, 1.0, sliding=False)
    start = [Grant(0, 0)]
    across = [Grant(SECOND, SECOND)] * (2 * MAX_REQUESTS - 1)
    assert rate.violations(start + across) == []
    assert len(rate.violations([*start, *across, Grant(SECOND, SECOND)])) == 2


def test_grants_whose_waits_were_long_are_counted_in_sum() -> None:
    rate = Rate(1, 1.0, sliding=False)
    waited = [Grant(0, 3 * SECOND - 1)] * 3
    assert rate.violations(waited) == []
    (violation,) = rate.violations([*waited, Grant(0, SECOND)])
    assert violation == "4 permits in 2999999999 ns, 3 are allowed"


def test_a_cost_counts_as_many_permits() -> None:
    rate = Rate(5, 1.0, sliding=True)
    assert rate.violations([Grant(0, 1, 2), Grant(2, 3, 3)]) == []
    assert rate.violations([Grant(0, 1, 3), Grant(2, 3, 3)]) != []


def test_who_holds_at_the_same_time_is_counted() -> None:
    assert most_at_once([]) == 0
    assert most_at_once([Held(0, 5), Held(5, 9), Held(9, 9)]) == 1
    assert most_at_once([Held(0, 5), Held(4, 9), Held(4, 6, 2)]) == 4


def test_a_grant_is_of_the_only_life_that_can_have_given_it() -> None:
    surely = Grant(5 * SECOND, 7 * SECOND, 2)
    unsure = Grant(4 * SECOND, 6 * SECOND)
    certain = by_life([surely, unsure, Grant(3 * SECOND, 3 * SECOND)], LIVES)
    assert certain[EARLIER] == [Grant(3 * SECOND, 3 * SECOND)]
    assert certain[LATER] == [Grant(6 * SECOND, 7 * SECOND, 2)]
    assert givers(Grant(4 * SECOND + 1, 6 * SECOND - 1), LIVES) == []


def test_what_is_spent_of_a_block_may_be_of_the_life_before() -> None:
    spent = Grant(7 * SECOND, 8 * SECOND)
    assert givers(spent, LIVES) == [LATER]
    assert givers(spent._replace(ahead=3 * SECOND), LIVES) == [EARLIER, LATER]
    while_down = Grant(5 * SECOND - 1, 5 * SECOND, 1, SECOND)
    assert by_life([while_down], LIVES)[EARLIER] == [while_down]
    assert givers(while_down._replace(ahead=SECOND - 2), LIVES) == []


@pytest.mark.parametrize("sliding", [False, True])
def test_what_begins_anew_is_counted_within_each_life(*, sliding: bool) -> None:
    rate = Rate(1, 10.0, sliding)
    budgets = [Grant(3 * SECOND, 3 * SECOND), Grant(6 * SECOND, 7 * SECOND)]
    assert rate.violations_in_lives(budgets, LIVES) == []
    assert rate.violations(budgets, 0) != []
    assert rate.violations_in_lives([*budgets, Grant(SECOND, 2 * SECOND)], LIVES) != []


def test_grants_of_one_life_or_another_are_counted_in_sum() -> None:
    rate = Rate(1, 10.0, sliding=True)
    unsure = Grant(3 * SECOND, 7 * SECOND)
    assert rate.violations_in_lives([unsure] * 2, LIVES) == []
    assert rate.violations_in_lives([unsure] * 3, LIVES) == ["3 permits in 2 lives, 2 are allowed"]


def test_a_lease_lasts_no_longer_than_its_time_after_its_life() -> None:
    held = Held(2 * SECOND, 4 * SECOND + 5, asked=SECOND, got=2 * SECOND)
    assert held_by_life([held], LIVES, 5)[0][EARLIER] == [held]
    assert held_by_life([held], LIVES, 4)[1] == [held]
    # The word of the next life keeps nothing of the one before, but what it granted itself.
    unsure = held._replace(end=4 * SECOND + 6, got=6 * SECOND)
    certain, overdue = held_by_life([unsure, held._replace(got=6 * SECOND)], LIVES, 5)
    assert (certain[LATER], overdue) == ([unsure], [])


def test_a_line_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('["try_acquire", 1, 2, "key", 3]\n["try_acquire", 4, 5, "k')
    assert list(read(log)) == [Note("try_acquire", 1, 2, "key", 3)]
