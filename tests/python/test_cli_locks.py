"""Locks from the shell: `zmqlocker lock`, `zmqlocker ls` and `zmqlocker break`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE, wait_until
from zmqlocker import LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Script

ZMQLOCKER = [sys.executable, "-m", "zmqlocker"]

#: Tells that it runs and by which token, and ends when it is told a line.
HOLD = ("sh", "-c", 'echo "$ZMQLOCKER_TOKEN"; read line; exit "${line:-0}"')

LOST = "zmqlocker: the lock is lost: the command is stopped\n"


class Run:
    """`zmqlocker lock` in a session of its own: no terminal is near, wherever the tests run."""

    def __init__(self, *arguments: str, before: str = "") -> None:
        command = [*ZMQLOCKER, "lock", *arguments]
        self.process = subprocess.Popen(
            ["sh", "-c", before + 'exec "$@"', "sh", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def finish(self, line: str = "") -> tuple[int, str, str]:
        """Tell the command a line: exit status, the rest of the output, all errors.

        The output ends when nothing that the command has started is left.
        """
        output, errors = self.process.communicate(line + "\n", timeout=PATIENCE)
        return self.process.returncode, output, errors

    def end(self) -> tuple[int, str, str]:
        """Wait for an end that comes without a word from us."""
        stdin, self.process.stdin = self.process.stdin, None
        assert stdin
        output, errors = self.process.communicate(timeout=PATIENCE)
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        return self.process.returncode, output, errors


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def start(*arguments: str, before: str = "") -> Run:
        started.append(Run(*arguments, before=before))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(PATIENCE)
        for stream in (one.process.stdin, one.process.stdout, one.process.stderr):
            if stream:
                # Commands whose wrapper is gone end with their input.
                stream.close()


@pytest.fixture
def server(serve: Callable[..., tuple[Script, str]]) -> tuple[Script, str]:
    return serve()


@pytest.fixture
def url(server: tuple[Script, str]) -> str:
    return f"--url={server[1]}"


@pytest.fixture
def client(server: tuple[Script, str]) -> Iterator[LockerClient]:
    with LockerClient(server[1], name="test", timeout=PATIENCE) as client:
        yield client


def zmqlocker(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*ZMQLOCKER, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stdout, done.stderr


def waiters(client: LockerClient, key: str) -> list[str]:
    return [waiter.name for lock in client.locks() if lock.key == key for waiter in lock.waiters]


def test_a_command_waits_for_the_one_before_it_and_has_a_higher_token(
    run: Callable[..., Run], url: str, client: LockerClient, tmp_path: Path
) -> None:
    first = run("a", url, "--", *HOLD)
    token = int(first.line())
    ran = tmp_path / "ran"
    second = run("a", url, "--name=second", "--", "sh", "-c", f'echo "$ZMQLOCKER_TOKEN" > {ran}')
    wait_until(lambda: waiters(client, "a") == ["second"])
    assert not ran.exists()
    assert first.finish() == (0, "", "")
    assert second.end() == (0, "", "")
    assert int(ran.read_text()) > token
    assert client.locks() == []


@pytest.mark.parametrize(
    "ended",
    [
        (("sh", "-c", "exit 7"), 7, ""),
        (("sh", "-c", "kill -TERM $$"), 143, ""),
        (
            ("./nothing",),
            127,
            'zmqlocker: cannot run "./nothing": No such file or directory (os error 2)\n',
        ),
        (
            ("/etc/passwd",),
            126,
            'zmqlocker: cannot run "/etc/passwd": Permission denied (os error 13)\n',
        ),
    ],
)
def test_the_exit_status_is_that_of_the_command_and_the_lock_is_free(
    run: Callable[..., Run],
    url: str,
    client: LockerClient,
    ended: tuple[tuple[str, ...], int, str],
) -> None:
    command, status, error = ended
    # The lock would outlive the test if nobody gave it back.
    assert run("a", url, "--ttl=1000", "--", *command).end() == (status, "", error)
    assert client.locks() == []


def test_a_lock_that_is_not_got_is_75_and_the_command_does_not_run(
    url: str, client: LockerClient
) -> None:
    with client.lock("a"):
        for timeout, problem in [
            ("0", '"b", "a" are not free together'),
            ("0.1", '"b", "a" were not free together within 0.1 s'),
        ]:
            arguments = ("lock", "b", "a", url, f"--timeout={timeout}", "--", "echo", "runs")
            status, output, error = zmqlocker(*arguments)
            assert (status, output) == (75, "")
            assert problem in error
        status, output, error = zmqlocker("lock", "a", url, "--timeout=0", "--", "echo", "runs")
        assert (status, output, error) == (75, "", 'zmqlocker: "a" is not free\n')


def test_what_cannot_be_got_later_either_is_3(
    url: str, client: LockerClient, free_url: str
) -> None:
    nowhere = f"--url={free_url}"
    with client.semaphore("a", 2):
        for arguments, problem in [
            ((url, "--timeout=5"), 'key "a" is a semaphore of 2, not a lock'),
            ((nowhere, "--timeout=0.1"), f"no answer from {free_url} within 0.1 s"),
            # Nobody wants to wait, so that an answer is not waited for for long either.
            ((nowhere, "--timeout=0"), f"no answer from {free_url} within 2 s"),
        ]:
            status, output, error = zmqlocker("lock", "a", *arguments, "--", "echo", "runs")
            assert (status, output) == (3, "")
            assert error.startswith(f"zmqlocker: {problem}")


def test_a_wrong_command_line_is_2(url: str) -> None:
    for arguments, problem in [
        (["a", url], "COMMAND"),
        ([url, "--", "true"], "KEY"),
        (["a", "a", url, "--", "true"], "keys must each be named once"),
        (["a", url, "--ttl=0.01", "--", "true"], "ttl must be from 0.1 to 86400 s, not 0.01"),
        (["a", url, "--timeout=soon", "--", "true"], 'must be a number or "none"'),
    ]:
        status, output, error = zmqlocker("lock", *arguments)
        assert (status, output) == (2, "")
        assert problem in error


def test_several_locks_are_held_together(
    run: Callable[..., Run], url: str, client: LockerClient
) -> None:
    held = run(
        "a", "b", url, "--timeout=none", "--", "sh", "-c", 'echo "$ZMQLOCKER_KEY"; read line'
    )
    assert [held.line(), held.line()] == ["a", "b"]
    assert [(lock.key, lock.holders[0].name) for lock in client.locks()] == [
        ("a", "sh"),
        ("b", "sh"),
    ]
    assert held.finish() == (0, "", "")


def test_a_command_is_run_as_it_was_written_even_if_it_is_no_text(url: str) -> None:
    written = os.fsdecode(b"\xff --url")
    command = [*ZMQLOCKER, "lock", "a", url, "--", "printf", "%s", written]
    done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=True)
    assert done.stdout == b"\xff --url"


#: Tells of each signal that it gets, and ends with 3 at SIGTERM.
LISTEN = """
import signal, sys
def hear(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(3)
for name in ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"]:
    signal.signal(getattr(signal, name), hear)
print("listening", flush=True)
while True:
    signal.pause()
"""


def test_signals_are_passed_on(run: Callable[..., Run], url: str) -> None:
    held = run("a", url, "--", sys.executable, "-c", LISTEN)
    assert held.line() == "listening"
    for name in ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTERM"]:
        held.process.send_signal(getattr(signal, name))
        assert held.line() == name
    assert held.end() == (3, "", "")


def test_a_signal_that_asks_to_end_is_for_all_that_the_command_has_started(
    run: Callable[..., Run], url: str
) -> None:
    held = run("a", url, "--", "sh", "-c", "sleep 1000 & echo; wait")
    assert held.line() == ""
    held.process.terminate()
    assert held.end() == (128 + signal.SIGTERM, "", "")


def test_what_the_shell_has_us_ignore_the_command_ignores_too(
    run: Callable[..., Run], url: str
) -> None:
    source = (
        "import signal; names = ['SIGHUP', 'SIGINT', 'SIGTERM']\n"
        "print([signal.getsignal(getattr(signal, name)) is signal.SIG_IGN for name in names])"
    )
    ignoring = run("a", url, "--", sys.executable, "-c", source, before="trap '' HUP INT; ")
    assert ignoring.end() == (0, "[True, True, False]\n", "")


def test_ctrl_c_at_a_terminal_is_heard_once_and_the_command_may_read_from_there(
    script: Callable[..., Script], url: str
) -> None:
    source = f"name = input(); print('hello', name, flush=True)\n{LISTEN}"
    terminal = script(
        """
        import os, pty, signal, sys
        child, terminal = pty.fork()
        if not child:
            os.execv(sys.argv[1], sys.argv[1:])
        output = open(terminal, "rb", buffering=0)
        os.write(terminal, b"you\\n")
        def until(line):
            heard = b""
            while not heard.endswith(line + b"\\r\\n"):
                heard += output.read(1)
            return heard
        until(b"hello you")
        until(b"listening")
        os.write(terminal, b"\\x03")
        until(b"SIGINT")
        os.kill(child, signal.SIGTERM)
        print(until(b"SIGTERM").split()[:-1])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """,
        *ZMQLOCKER,
        *("lock", "a", url, "--", sys.executable, "-c", source),
    )
    assert terminal.finish() == (0, "[]\n3\n", "")


def test_a_signal_ends_the_wait_and_gives_up_the_place(
    run: Callable[..., Run], url: str, client: LockerClient
) -> None:
    with client.lock("a"):
        waits = run("a", url, "--name=waits", "--timeout=none", "--", "echo", "runs")
        wait_until(lambda: waiters(client, "a") == ["waits"])
        waits.process.terminate()
        assert waits.end() == (-signal.SIGTERM, "", "")
        wait_until(lambda: waiters(client, "a") == [])


def test_a_lock_that_is_broken_stops_the_command_and_all_that_it_has_started(
    run: Callable[..., Run], url: str
) -> None:
    held = run("a", url, "--", "sh", "-c", "sleep 1000 & echo; wait")
    assert held.line() == ""
    assert zmqlocker("break", "a", url) == (0, "", "")
    assert held.end() == (76, "", LOST)


def test_who_does_not_stop_is_killed_after_a_grace(run: Callable[..., Run], url: str) -> None:
    stubborn = "(trap '' TERM; echo; sleep 1000) & wait"
    for command in (stubborn, f"trap '' TERM; {stubborn}"):
        held = run("a", url, "--kill-after=0.1", "--", "sh", "-c", command)
        assert held.line() == ""
        assert zmqlocker("break", "a", url) == (0, "", "")
        assert held.end() == (76, "", LOST)


def test_what_needs_its_time_to_stop_has_it(run: Callable[..., Run], url: str) -> None:
    tidy = "import signal; signal.signal(signal.SIGTERM, lambda *_: print(input(), flush=True))"
    tidy += "; print(flush=True); signal.pause()"
    held = run("a", url, "--kill-after=1000", "--", "sh", "-c", f'{sys.executable} -c "{tidy}"; :')
    assert held.line() == ""
    assert zmqlocker("break", "a", url) == (0, "", "")
    assert held.finish("tidied") == (76, "tidied\n", LOST)


def test_a_server_that_is_gone_stops_the_command(
    run: Callable[..., Run], server: tuple[Script, str], url: str
) -> None:
    held = run("a", url, "--ttl=0.8", "--", *HOLD)
    held.line()
    server[0].kill()
    assert held.end() == (76, "", LOST)


def test_a_command_outlives_ten_seconds_without_a_server_unless_told_otherwise(
    run: Callable[..., Run], url: str, client: LockerClient
) -> None:
    held = run("a", url, "--", *HOLD)
    held.line()
    (lock,) = client.locks()
    # It is renewed at a third of that.
    assert 6.0 < lock.holders[0].ttl_left <= 10.04
    assert held.finish() == (0, "", "")


def test_a_command_may_not_run_for_longer_than_max_hold(run: Callable[..., Run], url: str) -> None:
    held = run("a", url, "--ttl=0.1", "--max-hold=0.2", "--", *HOLD)
    held.line()
    assert held.end() == (76, "", LOST)


def test_a_command_that_ends_when_the_lock_is_lost_already_is_76(
    run: Callable[..., Run], url: str, client: LockerClient
) -> None:
    held = run("a", url, "--ttl=0.8", "--", "sh", "-c", "echo; read line; echo ends")
    assert held.line() == ""
    held.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, held.process.pid, os.WSTOPPED)
    with client.lock("a"):
        assert held.process.stdin
        held.process.stdin.write("\n")
        held.process.stdin.flush()
        assert held.line() == "ends"
        held.process.send_signal(signal.SIGCONT)
        status, _, errors = held.end()
    assert status == 76
    assert errors.startswith("zmqlocker: the lock ")


def test_a_killed_holder_leaves_the_lock_free_after_its_ttl(
    run: Callable[..., Run], url: str, client: LockerClient
) -> None:
    held = run("a", url, "--ttl=0.3", "--", *HOLD)
    token = int(held.line())
    held.process.kill()
    with client.lock("a") as lease:
        assert lease.token > token


def test_ls_shows_who_holds_and_who_waits(
    run: Callable[..., Run], url: str, client: LockerClient
) -> None:
    assert zmqlocker("ls", url) == (0, "nobody holds a lock\n", "")
    assert zmqlocker("ls", "--json", url) == (0, "[]\n", "")
    held = run("invoice:42", url, "--name=nightly", "--ttl=5", "--", *HOLD)
    token = held.line()
    waits = run("invoice:42", url, "--name=backup", "--timeout=1000", "--", "true")
    wait_until(lambda: waiters(client, "invoice:42") == ["backup"])

    status, text, errors = zmqlocker("ls", url)
    assert (status, errors) == (0, "")
    host = os.uname().nodename
    for process, mark in [(held.process.pid, "PID1"), (waits.process.pid, "PID2")]:
        text = text.replace(f" {process} {host}", f" {mark} HOST")
    text = re.sub(r"\d\.\ds", "T.Ts", text.replace(token, "TOKEN".rjust(len(token))))
    expected = f"""\
  STATE  SINCE    LEFT  {"TOKEN":>{len(token)}}  WHO
invoice:42: lock
  holds   T.Ts    T.Ts  {"TOKEN":>{len(token)}}  nightly PID1 HOST
  waits   T.Ts  16m39s  {"-":>{len(token)}}  backup PID2 HOST
"""
    assert re.sub(r"16m[34]\ds", "16m39s", text) == expected

    status, text, errors = zmqlocker("ls", "--json", url)
    assert (status, errors) == (0, "")
    (lock,) = json.loads(text)

    def times(entry: dict[str, Any], left: str, most: float) -> dict[str, Any]:
        assert 0.0 <= entry.pop("since") < PATIENCE
        assert 0.0 < entry.pop(left) <= most
        return entry

    mode = {"mode": "exclusive", "permits": 1}
    who = {"name": "nightly", "host": host, "pid": held.process.pid, "token": int(token), **mode}
    assert times(lock["holders"][0], "ttl_left", 5.02) == who
    who = {"name": "backup", "host": host, "pid": waits.process.pid, **mode}
    assert times(lock["waiters"][0], "timeout_left", 1000.0) == who
    assert [len(lock[name]) for name in ("holders", "waiters")] == [1, 1]
    assert (lock["key"], lock["kind"], lock["size"]) == ("invoice:42", "lock", 1)

    assert held.finish() == (0, "", "")
    assert waits.end() == (0, "", "")


def test_break_takes_a_lock_from_its_present_holder_only(url: str, client: LockerClient) -> None:
    assert zmqlocker("break", "a", url) == (1, "", 'zmqlocker: nobody holds the lock "a"\n')
    lease = client.lock("a").acquire()
    status, output, errors = zmqlocker("break", "a", "--token=1", url)
    assert (status, output) == (1, "")
    assert errors.startswith("zmqlocker: ")
    assert lease.held
    assert zmqlocker("break", "a", f"--token={lease.token}", url) == (0, "", "")
    wait_until(lambda: lease.lost)


def test_no_server_is_told_by_ls_and_break() -> None:
    for arguments in (["ls"], ["break", "a"]):
        status, output, errors = zmqlocker(*arguments, "--url=nothing")
        assert (status, output) == (2, "")
        assert errors.startswith("zmqlocker: url must read tcp://HOST:PORT")
