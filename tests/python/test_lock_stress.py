"""Holders and their server are killed and stopped at random: a lock never has two holders.

`python tests/python/test_lock_stress.py 180` does it for three minutes and prints what it saw; a
seed after the seconds repeats the dice. `STRESS_SECONDS` and `STRESS_SEED` say the same to pytest.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import free_port
from exclusion import Note, read, sections, shortest_gap, violations
from lock_stress_client import KEYS
from stress_client import boot_time
from zmqlocker import LockerClient

HOLDERS = 8
SECONDS = float(os.environ.get("STRESS_SECONDS", "20"))
SECOND = 1_000_000_000

PATIENCE = 60.0

SERVER = """
import sys
from zmqlocker import LockerServer
LockerServer(url=sys.argv[1], data_dir=sys.argv[2])
"""


@dataclass
class Run:
    """What happened."""

    seed: int
    misfortunes: Counter[str] = field(default_factory=Counter)
    #: When the server was ended.
    ends: list[int] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


class Stress:
    """A server and its holders, and what is done to them."""

    def __init__(self, run: Run, until: int, folder: Path) -> None:
        self.run, self.until, self.folder = run, until, folder
        self.dice = random.Random(run.seed)
        self.url = f"tcp://127.0.0.1:{free_port()}"
        self.server = self.start_server()
        self.holders = [self.start_holder(number) for number in range(HOLDERS)]
        #: Who is stopped, and until when.
        self.stopped: dict[subprocess.Popen[str], int] = {}

    def start_server(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", SERVER, self.url, str(self.folder / "data")]
        return subprocess.Popen(command, text=True)

    def start_holder(self, number: int) -> subprocess.Popen[str]:
        program = str(Path(__file__).with_name("lock_stress_client.py"))
        life = self.run.misfortunes.total()
        who, seed = f"{number}.{life}", f"{self.run.seed} {number} {life}"
        arguments = [self.url, str(self.folder / "log"), str(self.until), seed, who]
        command = [sys.executable, "-X", "faulthandler", program, *arguments]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def wake(self, now: int) -> None:
        for process, wakes_at in list(self.stopped.items()):
            if wakes_at <= now:
                process.send_signal(signal.SIGCONT)
                del self.stopped[process]

    def stop(self, process: subprocess.Popen[str], now: int, seconds: float) -> None:
        process.send_signal(signal.SIGSTOP)
        self.stopped[process] = now + round(seconds * SECOND)

    def end_server(self, number: signal.Signals) -> None:
        self.stopped.pop(self.server, None)
        self.server.send_signal(signal.SIGCONT)
        self.run.ends.append(boot_time())
        self.server.send_signal(number)
        status = self.server.wait(PATIENCE)
        # It may not have begun to serve yet, and to take the signal for what it is.
        assert status in {-number, 0 if number == signal.SIGTERM else -number}, status

    def misfortune(self) -> None:
        """Do something to somebody."""
        now, dice = boot_time(), self.dice
        self.wake(now)
        number = dice.randrange(HOLDERS)
        holder = self.holders[number]
        acts = {"kill": 2, "stop": 4, "server kill": 1, "server stop": 1, "server term": 1, "": 60}
        act = dice.choices(list(acts), list(acts.values()))[0]
        if holder.poll() is not None or now > self.until - SECOND:
            return
        if act == "kill":
            holder.kill()
            holder.communicate(timeout=PATIENCE)
            self.stopped.pop(holder, None)
            self.holders[number] = self.start_holder(number)
        elif act == "stop" and holder not in self.stopped:
            self.stop(holder, now, 2.0)
        elif act == "server stop" and self.server not in self.stopped:
            self.stop(self.server, now, dice.choice((0.1, 0.5, 2.0)))
        elif act in {"server kill", "server term"}:
            self.end_server(signal.SIGKILL if act == "server kill" else signal.SIGTERM)
            time.sleep(dice.choice((0.0, 0.0, 0.3)))
            self.server = self.start_server()
        else:
            return
        self.run.misfortunes[act] += 1

    def finish(self) -> None:
        """Let all come to their end. Nobody may wait for ever, and nothing may stay held."""
        for process in list(self.stopped):
            process.send_signal(signal.SIGCONT)
        for number, holder in enumerate(self.holders):
            try:
                errors = holder.communicate(timeout=PATIENCE)[1]
            except subprocess.TimeoutExpired:
                holder.send_signal(signal.SIGABRT)
                errors = holder.communicate(timeout=PATIENCE)[1]
                pytest.fail(f"holder {number} waits for ever:\n{errors}")
            assert holder.returncode == 0, errors
        with LockerClient(self.url, timeout=PATIENCE) as client:
            # What was killed holds for as long as its lease.
            for key in KEYS:
                with client.lock(key):
                    pass
            assert client.locks() == []
        self.end_server(signal.SIGTERM)

    def kill_all(self) -> None:
        for process in [self.server, *self.holders]:
            process.kill()
            process.communicate(timeout=PATIENCE)


def stress(seconds: float, seed: int, folder: Path) -> Run:
    """Let holders go on for so long, and do to them what happens to processes."""
    print(f"seed {seed}, {seconds} s, {HOLDERS} holders", flush=True)
    run, until = Run(seed), boot_time() + round(seconds * SECOND)
    stress = Stress(run, until, folder)
    with contextlib.ExitStack() as stack:
        stack.callback(stress.kill_all)
        while boot_time() < until:
            time.sleep(stress.dice.uniform(0.02, 0.1))
            stress.misfortune()
        stress.finish()
    run.notes = list(read(folder / "log"))
    return run


def over_restarts(run: Run, ordered: list[Note]) -> int:
    """How many critical sections went on while the server was not there."""
    return sum(note.enter < end < note.leave for note in ordered for end in run.ends)


def show(run: Run) -> None:
    print(f"misfortunes: {dict(run.misfortunes)}")
    for key, ordered in sections(run.notes).items():
        gap = shortest_gap(ordered)
        print(
            f"  {key:10} {len(ordered):6} critical sections, {over_restarts(run, ordered):3} over "
            f"ends of the server, shortest gap {(gap or 0) / 1e6:.3f} ms"
        )


def check(run: Run) -> None:
    """Find what must not have happened."""
    assert violations(run.notes) == [], f"seed {run.seed}"
    assert set(sections(run.notes)) == set(KEYS), "not all keys were held"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    seed = int(os.environ.get("STRESS_SEED", str(time.time_ns() % 1_000_000)))
    run = stress(SECONDS, seed, tmp_path_factory.mktemp("stress"))
    show(run)
    return run


def test_whatever_happens_to_holders_and_their_server_a_lock_has_one_holder(run: Run) -> None:
    check(run)


def test_a_second_holder_in_the_log_would_be_seen(run: Run) -> None:
    """The same log with one more critical section, anywhere within another one."""
    dice = random.Random(run.seed)
    for ordered in sections(run.notes).values():
        met = dice.choice(ordered)
        at = dice.randint(met.enter, met.leave)
        token = max(note.token for note in ordered) + 1
        for planted in (
            Note(token, met.key, at, at, "planted"),
            Note(met.token, met.key, at, met.leave + 1, "planted"),
        ):
            assert violations([*run.notes, planted]) != []


HONEST = [
    Note(5, "a", 10, 12, "x"),
    Note(5, "a", 10, 19, "x"),
    Note(7, "a", 20, 29, "y"),
    Note(6, "b", 15, 40, "y"),
]


def test_who_is_honest_is_not_blamed() -> None:
    assert violations(HONEST) == []
    assert violations(reversed(HONEST)) == []
    assert [shortest_gap(ordered) for ordered in sections(HONEST).values()] == [1, None]


@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        # Within another one, round it, over its end, and at the very instant of its end.
        (Note(8, "a", 22, 23, "z"), "at once"),
        (Note(4, "a", 9, 50, "z"), "at once"),
        (Note(8, "a", 28, 35, "z"), "at once"),
        (Note(8, "a", 29, 35, "z"), "at once"),
        # One that was met by somebody long after it began, not by the one that followed it.
        (Note(7, "b", 39, 41, "z"), "at once"),
        # Tokens that do not rise, or were given twice.
        (Note(6, "a", 31, 35, "z"), "not above"),
        (Note(7, "a", 31, 35, "z"), "not above"),
        (Note(7, "a", 31, 35, "y"), "not above"),
        (Note(1, "b", 41, 42, "z"), "not above"),
    ],
)
def test_a_violation_that_is_planted_is_found(planted: Note, expected: str) -> None:
    for notes in ([*HONEST, planted], [planted, *HONEST]):
        found = violations(notes)
        assert found
        assert all(expected in one or "not above" in one for one in found)


if __name__ == "__main__":
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    with tempfile.TemporaryDirectory() as name:
        done = stress(duration, first_seed, Path(name))
    show(done)
    check(done)
    print("no lock had two holders")
