"""`Fence`: whoever was overtaken by a newer holder is refused, whatever it believes."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE
from zmqlocker import BoundExceeded, ConfigError, DeadlockError, Fence, LockLost, LockTimeout

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
    with ThreadPoolExecutor(1) as pool, fence.guard(1):
        checking = pool.submit(fence.check, 2)
        with pytest.raises(LockTimeout) as caught:
            checking.result(PATIENCE)
    assert str(caught.value) == (
        "the fence was not free within 0.01 s: somebody is in its `guard()`"
    )
    assert fence.newest() == 1


def test_a_guard_in_a_guard_of_the_same_thread_would_wait_for_itself(place: Path | None) -> None:
    fence = Fence(place, timeout=PATIENCE)
    beside = fence if place is None else Fence(place, timeout=PATIENCE)
    message = r"^this thread is in a `guard\(\)` of the fence, and would wait for itself$"
    with fence.guard(1):
        for ask in (fence, beside):
            with pytest.raises(DeadlockError, match=message), ask.guard(2):
                pytest.fail("entered within the guard of another token")
            with pytest.raises(DeadlockError, match=message):
                ask.accept(2, key="b")
            assert ask.newest() == 1
        with Fence().guard(9):
            pass
    with fence.guard(2), ThreadPoolExecutor(1) as pool:
        assert pool.submit(fence.newest).result(PATIENCE) == 2


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


#: Forks in a guard, and has the child go in as well.
FORK_IN_A_GUARD = """
    import os
    from zmqlocker import Fence
    fence = Fence(timeout=0.0)
    with fence.guard(1):
        child = os.fork()
        if child == 0:
            os._exit(0 if fence.accept(2) and not fence.accept(1) else 1)
        print(os.waitpid(child, 0)[1], fence.newest())
    print(fence.accept(2))
"""


def test_a_child_is_not_in_the_guard_of_its_parent(script: Callable[..., Script]) -> None:
    forking = script(FORK_IN_A_GUARD)
    assert [forking.line(), forking.line()] == ["0 1", "True"]


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


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_others(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE accounts (name TEXT)")


@pytest.mark.parametrize("make", [empty, of_others])
def test_a_file_that_remembers_no_tokens_is_no_fence(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "fence"
    make(path)
    content = path.read_bytes()
    for create in (True, False):
        with pytest.raises(ConfigError, match="cannot be used: it remembers no tokens: make it"):
            Fence(path, create=create)
    assert path.read_bytes() == content
    path.unlink()
    fence = Fence(path)
    fence.check(1)
    make(path) if make is empty else path.unlink()
    with pytest.raises(ConfigError, match="cannot be used"):
        fence.accept(2)


def test_a_fence_refuses_what_is_older_than_it_has_accepted_whatever_becomes_of_its_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fence"
    fence = Fence(path, keys_max=2)
    assert fence.accept(10)
    with fence.guard(12, key="b"):
        pass
    path.unlink()
    anew = Fence(path)
    # Who deletes the file deletes what it knew. What a fence has seen itself it knows still.
    assert anew.accept(3)
    assert not fence.accept(9)
    with pytest.raises(LockLost), fence.guard(11, key="b"):
        pytest.fail("entered with an old token")
    assert (fence.newest(), fence.newest("b"), anew.newest()) == (10, 12, 3)
    with pytest.raises(BoundExceeded):
        fence.accept(1, key="c")
    # And has the file know it again.
    assert fence.accept(10)
    assert not anew.accept(9)
    assert anew.accept(11)
    assert not fence.accept(10)


def test_a_fence_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "fence"
    with pytest.raises(ConfigError, match="unable to open database file"):
        Fence(path, create=False)
    assert list(tmp_path.iterdir()) == []
    Fence(path).check(5)
    assert not Fence(path, create=False).accept(4)
    assert list(tmp_path.iterdir()) == [path]


def test_many_may_make_a_fence_at_once(tmp_path: Path) -> None:
    for number in range(10):
        path = tmp_path / str(number)

        def make(token: int, path: Path = path) -> None:
            Fence(path).accept(token)

        with ThreadPoolExecutor(4) as pool:
            making = [pool.submit(make, token) for token in range(4)]
            for made in making:
                made.result(PATIENCE)
        assert Fence(path, create=False).newest() == 3


@pytest.mark.parametrize("options", [{"keys_max": "x"}, {"keys_max": 1.5}, {"timeout": "1"}])
def test_an_argument_of_another_kind_is_named(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(TypeError, match=rf"^{name} must be a (whole )?number, not {value!r}$"):
        Fence(**options)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder/fence' cannot be used: unable to open"):
        Fence(tmp_path / "no folder" / "fence")


def test_the_repr_tells_the_file(tmp_path: Path) -> None:
    assert repr(Fence()) == "zmqlocker.Fence()"
    assert repr(Fence(tmp_path / "f")) == f"zmqlocker.Fence('{tmp_path}/f')"
