"""`Locker`: the seed's counter within one process."""

import math
import sys
import threading
import weakref
from itertools import islice

import pytest
from zmqlocker import ConfigError, Locker, LockerError


def test_a_slot_has_so_many_permits() -> None:
    locker = Locker(max_requests=5, in_seconds=3600.0)
    assert [locker.next() for _ in range(7)] == ["go"] * 5 + ["sorry"] * 2


def test_the_defaults_are_one_request_in_one_second() -> None:
    assert repr(Locker()) == "zmqlocker.Locker(max_requests=1, in_seconds=1.0)"


def test_a_locker_is_its_own_iterator() -> None:
    locker = Locker(2, 3600.0)
    assert iter(locker) is locker
    assert list(islice(locker, 3)) == ["go", "go", "sorry"]


def test_a_new_slot_opens_by_itself() -> None:
    locker = Locker(1, 0.000_001)
    assert next(answer for answer in locker if answer == "go") == "go"
    assert next(answer for answer in locker if answer == "go") == "go"


@pytest.mark.parametrize("max_requests", [0, -1, -(10**30), 10**12 + 1, 10**30])
def test_max_requests_out_of_bounds_is_named(max_requests: int) -> None:
    with pytest.raises(ConfigError, match=r"^max_requests must be from 1 to 1000000000000, not"):
        Locker(max_requests)


@pytest.mark.parametrize("in_seconds", [0, -1.0, math.inf, -math.inf, math.nan, 1e10, 10**400])
def test_in_seconds_out_of_bounds_is_named(in_seconds: float) -> None:
    with pytest.raises(ConfigError, match=r"^in_seconds must be above 0 and at most 1000000000 s"):
        Locker(1, in_seconds)


def test_a_config_error_is_a_value_error_and_a_locker_error() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, LockerError)


def test_arguments_of_other_types_are_type_errors() -> None:
    for arguments in [("5",), (1.5,), (1, "fast")]:
        with pytest.raises(TypeError):
            Locker(*arguments)  # type: ignore[arg-type]


def test_threads_share_the_permits_of_a_slot() -> None:
    locker = Locker(1000, 3600.0)
    answers: list[str] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [
            threading.Thread(target=lambda: answers.extend(islice(locker, 500))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(answers) == 4000
    assert answers.count("go") == 1000


def test_a_locker_may_be_weakly_referenced() -> None:
    locker = Locker()
    assert weakref.ref(locker)() is locker


def test_a_subclass_may_add_to_it() -> None:
    class Named(Locker):
        name = "mine"

    assert Named(1, 60.0).next() == "go"
