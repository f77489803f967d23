"""`Fence`: whoever was overtaken by a newer holder is refused, whatever it believes."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE
from zmqlocker import BoundExceeded, ConfigError, Fence, LockLost, LockTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Script

NEWEST_TOKEN = (1 << 63) - 1


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "a fence?" if request.param == "file" else None


def test_older_tokens_are_refused_and_the_newest_is_accepted_again(place: Path | None) -> None:
    fence = Fence(place)
    assert [fence.accept(token) for token in [0, 7, 7, 6, 0, 8, 7, NEWEST_TOKEN]] == [
        *[True, True, True, False, False, True, False],
        True,
    ]
    assert fence.newest() == NEWEST_TOKEN


def test_keys_are_apart(place: Path | None) -> None:
    fence = Fence(place)
    assert fence.accept(9, key="a")
    assert fence.newest("b") is None
    assert fence.accept(1, key="b")
    assert not fence.accept(8, key="a")
    assert (fence.newest("a"), fence.newest("b")) == (9, 1)


def test_a_check_raises_what_an_old_holder_can_understand(place: Path | None) -> None:
    fence = Fence(place)
    fence.check(5, key="report")
    with pytest.raises(LockLost) as caught:
        fence.check(4, key="report")
    assert str(caught.value) == (
        "the token 4 of 'report' is older than one that was seen: another holder has the lock since"
    )


@pytest.mark.parametrize("token", [-1, 1 << 63, 1.0, "1", None, True])
def test_what_cannot_be_a_token_is_refused(place: Path | None, token: int) -> None:
    fence = Fence(place)
    with pytest.raises(ConfigError) as caught:
        fence.accept(token)
    assert str(caught.value) == f"token must be a whole number from 0 to 2^63 - 1, not {token!r}"
    with pytest.raises(ConfigError):
        fence.check(token)
    with pytest.raises(ConfigError), fence.guard(token):
        pytest.fail("entered without a token")
    assert fence.newest() is None


@pytest.mark.parametrize("key", ["", "k" * 257, "ä" * 129, "\udcff", 7])
def test_what_cannot_be_a_key_is_refused(place: Path | None, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Fence(place).accept(1, key=key)
    assert str(caught.value) == f"key must be 1 to 256 bytes of UTF-8, not {key!r}"


def test_a_fence_that_is_full_refuses_a_new_key_and_forgets_none(place: Path | None) -> None:
    fence = Fence(place, keys_max=2)
    for key in "abab":
        assert fence.accept(5, key=key)
    with pytest.raises(BoundExceeded) as caught:
        fence.accept(9, key="c")
    assert str(caught.value) == (
        "the fence remembers 2 keys, and 'c' is one more: raise `keys_max`"
    )
    assert not fence.accept(4, key="a")
    assert fence.accept(6, key="b")


@pytest.mark.parametrize("options", [{"keys_max": 0}, {"timeout": -1.0}, {"timeout": 1e7}])
def test_bounds_that_do_not_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^{next(iter(options))} must be from "):
        Fence(**options)


def test_a_newer_holder_waits_while_an_older_one_is_in_its_guard(place: Path | None) -> None:
    fence, events = Fence(place, timeout=PATIENCE), []

    def overtake() -> None:
        fence.check(2)
        events.append("overtaken")

    with ThreadPoolExecutor(1) as pool:
        with fence.guard(1):
            overtaking = pool.submit(overtake)
            with pytest.raises(TimeoutError):
                overtaking.result(0.05)
            events.append("written")
        overtaking.result(PATIENCE)
    assert events == ["written", "overtaken"]
    with pytest.raises(LockLost), fence.guard(1):
        pytest.fail("entered with an old token")


def test_who_waits_for_too_long_is_told(place: Path | None) -> None:
    fence = Fence(place, timeout=0.01)
    with fence.guard(1), pytest.raises(LockTimeout) as caught:
        fence.check(2)
    assert str(caught.value) == (
        "the fence was not free within 0.01 s: somebody is in its `guard()`"
    )
    assert fence.newest() == 1


def test_a_guard_whose_block_fails_keeps_its_token(place: Path | None) -> None:
    fence = Fence(place)
    with pytest.raises(ZeroDivisionError), fence.guard(3):
        raise ZeroDivisionError
    assert fence.newest() == 3
    assert fence.accept(4)


def test_nobody_is_in_a_guard_with_an_older_token_than_who_was_before(place: Path | None) -> None:
    fence, seen = Fence(place, timeout=PATIENCE), []
    tokens = iter(range(200 if place else 20_000))

    def write() -> None:
        for token in tokens:
            with contextlib.suppress(LockLost), fence.guard(token):
                seen.append(token)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            for writing in [pool.submit(write) for _ in range(4)]:
                writing.result(PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    assert len(seen) > 1
    assert seen == sorted(seen)


#: Raises the token of a key by one again and again, and tells each that was accepted.
RAISER = """
    import sys
    from zmqlocker import Fence
    fence, key = Fence(sys.argv[1]), sys.argv[2]
    while True:
        token = (fence.newest(key) or 0) + 1
        if fence.accept(token, key=key):
            print(token)
"""


def test_what_was_accepted_outlives_a_kill(script: Callable[..., Script], tmp_path: Path) -> None:
    path, newest = tmp_path / "fence", 0
    for _ in range(5):
        raiser = script(RAISER, str(path), "a")
        told = [int(raiser.line()) for _ in range(20)]
        raiser.kill()
        assert told[0] > newest
        newest = told[-1]
        fence = Fence(path)
        assert not fence.accept(newest - 1, key="a")
        assert (fence.newest("a") or 0) >= newest


def test_processes_share_a_file(script: Callable[..., Script], tmp_path: Path) -> None:
    path = tmp_path / "fence"
    raisers = [script(RAISER, str(path), "a") for _ in range(3)]
    told = [[int(raiser.line()) for _ in range(20)] for raiser in raisers]
    for raiser in raisers:
        raiser.kill()
    assert all(one == sorted(set(one)) for one in told)
    assert (Fence(path).newest("a") or 0) >= max(one[-1] for one in told)


#: Stays in its guard until it is killed.
GUARD = """
    import sys, time
    from zmqlocker import Fence
    with Fence(sys.argv[1]).guard(1):
        print("within")
        sys.stdin.readline()
"""


def test_a_process_that_is_killed_in_its_guard_holds_nobody_up(
    script: Callable[..., Script], tmp_path: Path
) -> None:
    path = tmp_path / "fence"
    guard = script(GUARD, str(path))
    assert guard.line() == "within"
    with pytest.raises(LockTimeout) as caught:
        Fence(path, timeout=0.0).check(2)
    assert str(caught.value) == "the fence was not free within 0 s: somebody is in its `guard()`"
    guard.kill()
    Fence(path, timeout=PATIENCE).check(2)


#: Forks, and has the child overtake.
FORK = """
    import os, sys
    from zmqlocker import Fence
    fence = Fence(sys.argv[1])
    fence.check(1)
    child = os.fork()
    if child == 0:
        os._exit(0 if fence.accept(2) and not fence.accept(1) else 1)
    print(os.waitpid(child, 0)[1], fence.accept(1), fence.newest())
"""


def test_a_fork_goes_on_with_the_fence(script: Callable[..., Script], tmp_path: Path) -> None:
    assert script(FORK, str(tmp_path / "fence")).line() == "0 False 2"


@pytest.mark.parametrize(
    "content", [b"no fence at all" * 100, b"SQLite format 3\0" + b"\xff" * 200]
)
def test_a_file_that_is_no_fence_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fence"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Fence(path)
    assert str(caught.value).startswith(f"the fence {str(path)!r} cannot be used: file is not a da")
    assert "restore it" in str(caught.value)
    assert path.read_bytes() == content


def test_a_file_that_broke_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "fence"
    fence = Fence(path)
    fence.check(1)
    path.write_bytes(b"\xff" * path.stat().st_size)
    for token in [1, 2]:
        with pytest.raises(ConfigError, match="cannot be used: file is not a database"):
            fence.accept(token)


def test_a_file_that_is_gone_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "fence"
    fence = Fence(path)
    path.unlink()
    with pytest.raises(ConfigError, match="unable to open database file"):
        fence.accept(1)
    assert not path.exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder/fence' cannot be used: unable to open"):
        Fence(tmp_path / "no folder" / "fence")


def test_the_repr_tells_the_file(tmp_path: Path) -> None:
    assert repr(Fence()) == "zmqlocker.Fence()"
    assert repr(Fence(tmp_path / "f")) == f"zmqlocker.Fence('{tmp_path}/f')"
