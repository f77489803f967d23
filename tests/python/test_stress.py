"""Clients and servers are killed and stopped: never too much is granted, none waits for ever.

The server has a folder, on which the next one goes on. `python tests/python/test_stress.py 180`
does it for three minutes and prints what it saw; a seed after the seconds repeats the dice.
`STRESS_SECONDS` and `STRESS_SEED` say the same to pytest.
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
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from admissions import (
    SECOND,
    Grant,
    Held,
    Life,
    Note,
    Rate,
    busiest,
    by_life,
    givers,
    held_by_life,
    most_at_once,
    read,
)
from stress_client import (
    ASKED,
    LENT,
    MIXED,
    RATES,
    SEATS,
    SEATS_AT_ONCE,
    TTL,
    boot_time,
)
from stress_server import PATIENCE, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 8
SECONDS = float(os.environ.get("STRESS_SECONDS", "60"))

#: Limits of so many seconds outlive the server.
DURABLE_FROM = 5.0

#: How long a client may need for one thing, beyond the time for which it was stopped, in seconds.
#: Waits without an end stand in short queues, for what comes back within the time of their limit.
LONGEST = max(RATES) + 15.0


def rate_of(key: str) -> Rate:
    algorithm, seconds, _ = key.split(":")
    return Rate(RATES[float(seconds)], float(seconds), algorithm == "sliding")


def text_of(rate: Rate) -> str:
    sliding = " sliding" if rate.sliding else ""
    return f"{rate.max_requests}/{rate.in_seconds}s{sliding}"


@dataclass
class Client:
    """A place for a client: the process that runs there now, and what all of them went through."""

    number: int
    process: subprocess.Popen[str]
    stopped_at: int | None = None
    wakes_at: int = 0
    #: When it was stopped, and until when.
    stops: list[tuple[int, int]] = field(default_factory=list)

    def stop(self, now: int, seconds: float) -> None:
        self.process.send_signal(signal.SIGSTOP)
        self.stopped_at, self.wakes_at = now, now + round(seconds * SECOND)

    def wake(self) -> None:
        if self.stopped_at is not None:
            self.process.send_signal(signal.SIGCONT)
            self.stops.append((self.stopped_at, boot_time()))
            self.stopped_at = None

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)
        self.stopped_at = None


def is_durable(key: str) -> bool:
    return rate_of(key).in_seconds >= DURABLE_FROM


@dataclass
class Run:
    """What happened: the lines of all clients, and what was done to them and to the server."""

    seed: int
    since: int = 0
    misfortunes: Counter[str] = field(default_factory=Counter)
    notes: dict[int, list[Note]] = field(default_factory=dict)
    stops: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    stats: dict[str, int] = field(default_factory=dict)

    def all_notes(self) -> Iterator[Note]:
        for notes in self.notes.values():
            yield from notes

    def grants(self) -> dict[str, list[Grant]]:
        grants = defaultdict(list)
        for note in self.all_notes():
            if note.cost and note.did != "held":
                # A block is void when the time of its limit is over.
                ahead = rate_of(note.key).length if note.did == "block" else 0
                grants[note.key].append(Grant(note.before, note.after, note.cost, ahead))
        return grants

    def violations(self, key: str, grants: list[Grant]) -> list[str]:
        """Where too many permits of a key were granted, or any while no server was there."""
        nobodys = [grant for grant in grants if not givers(grant, self.lives)]
        found = [f"nobody can have given {grant}" for grant in nobodys]
        rate = rate_of(key)
        if is_durable(key):
            return found + rate.violations(grants, self.since)
        return found + rate.violations_in_lives(grants, self.lives)

    def busiest(self, key: str, grants: list[Grant]) -> tuple[Life, int, int]:
        """The interval with the most permits for certain: the life it is in, its start, and they.

        What outlives the server is of one life that lasts as long as the run.
        """
        whole = Life(self.since, self.lives[-1].end)
        own = {whole: grants} if is_durable(key) else by_life(grants, self.lives)
        length = rate_of(key).length
        found = [(life, *busiest(sorted(some), length)) for life, some in own.items()]
        return max(found, key=lambda one: one[2])

    def held(self) -> tuple[dict[Life, list[Held]], list[Held]]:
        """What was held of each life of the server for certain, and what for longer than it was."""
        notes = (note for note in self.all_notes() if note.did == "held")
        held = [Held(note.before, note.after, note.cost, note.asked, note.got) for note in notes]
        return held_by_life(held, self.lives, round(TTL * SECOND))

    def most_held(self) -> int:
        return max(most_at_once(held) for held in self.held()[0].values())

    def longest(self) -> tuple[float, Note]:
        """What took longest, in seconds, not counting the time for which its client was stopped."""

        def seconds(number: int, note: Note) -> float:
            stopped = sum(
                max(min(note.after, end) - max(note.before, start), 0)
                for start, end in self.stops[number]
            )
            return (note.after - note.before - stopped) / SECOND

        return max(
            (seconds(number, note), note) for number, notes in self.notes.items() for note in notes
        )


def start_client(number: int, url: str, log: Path, until: int, seed: str) -> Client:
    program = str(Path(__file__).with_name("stress_client.py"))
    kind = ("threads", "event_loop")[number % 2]
    arguments = [url, str(log), str(until), seed, kind]
    command = [sys.executable, "-X", "faulthandler", program, *arguments]
    return Client(number, subprocess.Popen(command, stderr=subprocess.PIPE, text=True))


def finish(client: Client) -> None:
    """Let a client come to its end. One that does not shows where it hangs."""
    try:
        errors = client.process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        client.process.send_signal(signal.SIGABRT)
        errors = client.process.communicate(timeout=PATIENCE)[1]
        pytest.fail(f"client {client.number} waits for ever:\n{errors}")
    assert client.process.returncode == 0, errors


def misfortune(run: Run, clients: list[Client], dice: random.Random, until: int) -> list[Client]:
    """Do something to one of the clients; those that have to be started anew."""
    now = boot_time()
    for client in clients:
        if client.stopped_at is not None and client.wakes_at <= now:
            client.wake()
    client = dice.choice(clients)
    what = dice.choices(("kill", "stop", "nothing"), (1, 3, 6))[0]
    if client.process.poll() is not None or now > until - SECOND:
        return []
    if what == "kill":
        run.misfortunes["kill" if client.stopped_at is None else "kill while stopped"] += 1
        client.kill()
        return [client]
    if what == "stop" and client.stopped_at is None:
        run.misfortunes["stop"] += 1
        client.stop(now, dice.uniform(0.1, 3.0))
    return []


def stress(seconds: float, seed: int, folder: Path) -> Run:
    """Let clients ask for so long, and do to all what happens to processes."""
    print(f"seed {seed}, {seconds} s, {CLIENTS} clients", flush=True)
    run, dice = Run(seed, boot_time()), random.Random(seed)
    limits = {key: text_of(rate_of(key)) for key in ASKED + MIXED + LENT}
    server = Server({**limits, SEATS: f"{SEATS_AT_ONCE} at once"}, folder / "data")
    until = run.since + round(seconds * SECOND)
    clients: list[Client] = []
    with contextlib.ExitStack() as stack:

        def kill_all() -> None:
            for client in clients:
                client.kill()
            server.process.kill()

        stack.callback(kill_all)

        def start(number: int, life: int) -> Client:
            dice = f"{seed} {number} {life}"
            return start_client(number, server.url, folder / f"{number}", until, dice)

        clients += [start(number, 0) for number in range(CLIENTS)]
        fate, due = server.fate(random.Random(f"{seed} server")), boot_time()
        while boot_time() < until:
            time.sleep(dice.uniform(0.02, 0.2))
            for dead in misfortune(run, clients, dice, until):
                clients[dead.number] = start(dead.number, run.misfortunes.total())
                clients[dead.number].stops = dead.stops
            if boot_time() >= due:
                due = boot_time() + round(next(fate) * SECOND)
        server.come_back()
        for client in clients:
            client.wake()
        for client in clients:
            finish(client)
        server.finish()
        run.misfortunes += server.misfortunes
        run.lives, run.stats = server.lives, server.stats
        run.notes = {client.number: list(read(folder / f"{client.number}")) for client in clients}
        run.stops = {client.number: client.stops for client in clients}
    return run


def show(run: Run) -> None:
    print(f"misfortunes: {dict(run.misfortunes)}")
    print(f"{len(run.lives)} lives of the server; those that ended cleanly: {dict(run.stats)}")
    print(f"what the clients did: {dict(Counter(note.did for note in run.all_notes()))}")
    for key, grants in sorted(run.grants().items()):
        rate = rate_of(key)
        _, _, most = run.busiest(key, grants)
        total, allowed = sum(grant.cost for grant in grants), rate.allowed(rate.length)
        where = "over all lives" if is_durable(key) else "within a life"
        print(
            f"  {key:20} {total:7} permits, {most} of {allowed} in {rate.in_seconds} s for certain,"
            f" {where}"
        )
    print(f"  {SEATS:20} {run.most_held()} of {SEATS_AT_ONCE} held at once, within a life")
    print(f"longest: {run.longest()}")


def check(run: Run) -> None:
    """Find what must not have happened."""
    for key, grants in run.grants().items():
        assert run.violations(key, grants) == [], f"{key}, seed {run.seed}"
    assert run.most_held() <= SEATS_AT_ONCE, f"seed {run.seed}"
    assert run.held()[1] == [], f"held for longer than any lease may be, seed {run.seed}"
    seconds, note = run.longest()
    assert seconds < LONGEST, f"{note} took {seconds} s, seed {run.seed}"
    assert run.stats["bad_messages"] == 0
    granted = {note.did for note in run.all_notes() if note.cost}
    ways = {"try_acquire", "try_many", "acquire", "acquire_many_keys", "reserve", "held"}
    assert granted == (ways | {"block"}), "not all ways were gone"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    seed = int(os.environ.get("STRESS_SEED", str(time.time_ns() % 1_000_000)))
    run = stress(SECONDS, seed, tmp_path_factory.mktemp("stress"))
    show(run)
    return run


def test_whatever_happens_no_limit_is_exceeded_and_nobody_waits_for_ever(run: Run) -> None:
    check(run)


def test_a_grant_too_many_in_the_logs_would_be_seen(run: Run) -> None:
    """The same logs with as many grants more as the busiest interval leaves out, and one."""
    for key, grants in run.grants().items():
        rate = rate_of(key)
        life, start, most = run.busiest(key, grants)
        end = min(start + rate.length, life.end)
        planted = Grant(start, end, rate.allowed(rate.length) - most)
        assert run.violations(key, [*grants, planted, Grant(start, end)]) != []


def test_a_permit_too_many_or_for_too_long_in_the_logs_would_be_seen(run: Run) -> None:
    ttl = round(TTL * SECOND)
    for life, held in run.held()[0].items():
        for one in held[:1]:
            assert most_at_once([*held, *[one] * SEATS_AT_ONCE]) > SEATS_AT_ONCE
            last = one._replace(end=life.end + ttl, got=min(one.got, life.end))
            longer = last._replace(end=last.end + 1)
            assert held_by_life([last, longer], run.lives, ttl)[1] == [longer]


def test_the_server_ended_in_the_middle_of_it(run: Run) -> None:
    assert len(run.lives) > 3


def test_blocks_were_spent_from(run: Run) -> None:
    assert any(note.did == "block" and note.cost for note in run.all_notes())


if __name__ == "__main__":
    duration = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 1_000_000
    with tempfile.TemporaryDirectory() as name:
        done = stress(duration, first_seed, Path(name))
    show(done)
    check(done)
    print("no limit was exceeded")
