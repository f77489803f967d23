"""Clients are killed and stopped at random: never too much is granted, none waits for ever.

`python tests/python/test_stress.py 180` does it for three minutes and prints what it saw; a seed
after the seconds repeats the dice. `STRESS_SECONDS` and `STRESS_SEED` say the same to pytest.
"""

from __future__ import annotations

import contextlib
import json
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
from admissions import SECOND, Grant, Held, Note, Rate, busiest, most_at_once, read
from stress_client import (
    ASKED,
    LENT,
    MIXED,
    RATES,
    SEATS,
    SEATS_AT_ONCE,
    boot_time,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 8
SECONDS = float(os.environ.get("STRESS_SECONDS", "20"))

#: How long a client may need for one thing, beyond the time for which it was stopped, in seconds.
#: The longest wait that is not without an end has 1 s, those without stand in short queues.
LONGEST = 15.0

PATIENCE = 60.0

SERVER = """
import json, sys
from zmqlocker import LockerServer
with LockerServer(url="tcp://127.0.0.1:*", limits=json.loads(sys.argv[1]), block=False) as server:
    print(server.url, flush=True)
    sys.stdin.readline()
    print(json.dumps(server.stats()), flush=True)
"""


def rate_of(key: str) -> Rate:
    algorithm, seconds, _ = key.split(":")
    return Rate(RATES[float(seconds)], float(seconds), algorithm == "sliding")


def text_of(rate: Rate) -> str:
    sliding = " sliding" if rate.sliding else ""
    return f"{rate.max_requests}/{rate.in_seconds}s{sliding}"


class Server:
    """The server, in a process of its own.

    Whoever restarts it, with a folder for its data, does so here, as one more misfortune.
    """

    def __init__(self) -> None:
        limits = {key: text_of(rate_of(key)) for key in ASKED + MIXED + LENT}
        limits[SEATS] = f"{SEATS_AT_ONCE} at once"
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()

    def stop(self) -> dict[str, int]:
        """End it; its counts."""
        counts: dict[str, int] = json.loads(self.process.communicate("\n", PATIENCE)[0])
        return counts


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


@dataclass
class Run:
    """What happened: the lines of all clients, and what was done to them."""

    seed: int
    since: int = 0
    misfortunes: Counter[str] = field(default_factory=Counter)
    notes: dict[int, list[Note]] = field(default_factory=dict)
    stops: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    stats: dict[str, int] = field(default_factory=dict)

    def all_notes(self) -> Iterator[Note]:
        for notes in self.notes.values():
            yield from notes

    def grants(self) -> dict[str, list[Grant]]:
        grants = defaultdict(list)
        for note in self.all_notes():
            if note.cost and note.did != "held":
                grants[note.key].append(Grant(note.before, note.after, note.cost))
        return grants

    def held(self) -> list[Held]:
        notes = self.all_notes()
        return [Held(note.before, note.after, note.cost) for note in notes if note.did == "held"]

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
    """Let clients ask for so long, and do to them what happens to processes."""
    print(f"seed {seed}, {seconds} s, {CLIENTS} clients", flush=True)
    run, dice, server = Run(seed, boot_time()), random.Random(seed), Server()
    until = run.since + round(seconds * SECOND)
    clients: list[Client] = []
    with contextlib.ExitStack() as stack:
        stack.callback(server.process.kill)

        def kill_all() -> None:
            for client in clients:
                client.kill()

        stack.callback(kill_all)

        def start(number: int, life: int) -> Client:
            dice = f"{seed} {number} {life}"
            return start_client(number, server.url, folder / f"{number}", until, dice)

        clients += [start(number, 0) for number in range(CLIENTS)]
        while boot_time() < until:
            time.sleep(dice.uniform(0.02, 0.2))
            for dead in misfortune(run, clients, dice, until):
                clients[dead.number] = start(dead.number, run.misfortunes.total())
                clients[dead.number].stops = dead.stops
        for client in clients:
            client.wake()
        for client in clients:
            finish(client)
        run.stats = server.stop()
        run.notes = {client.number: list(read(folder / f"{client.number}")) for client in clients}
        run.stops = {client.number: client.stops for client in clients}
    return run


def show(run: Run) -> None:
    print(f"misfortunes: {dict(run.misfortunes)}; server: {run.stats}")
    print(f"what the clients did: {dict(Counter(note.did for note in run.all_notes()))}")
    for key, grants in sorted(run.grants().items()):
        rate = rate_of(key)
        length = round(rate.in_seconds * SECOND)
        _, most = busiest(sorted(grants), length)
        total, allowed = sum(grant.cost for grant in grants), rate.allowed(length)
        print(
            f"  {key:20} {total:7} permits, {most} of {allowed} in {rate.in_seconds} s for certain"
        )
    print(f"  {SEATS:20} {most_at_once(run.held())} of {SEATS_AT_ONCE} held at once")
    print(f"longest: {run.longest()}")


def check(run: Run) -> None:
    """Find what must not have happened."""
    for key, grants in run.grants().items():
        assert rate_of(key).violations(grants, run.since) == [], f"{key}, seed {run.seed}"
    assert most_at_once(run.held()) <= SEATS_AT_ONCE, f"seed {run.seed}"
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


def test_whatever_happens_to_clients_no_limit_is_exceeded_and_nobody_waits_for_ever(
    run: Run,
) -> None:
    check(run)


def test_a_grant_too_many_in_the_logs_would_be_seen(run: Run) -> None:
    """The same logs with as many grants more as the busiest interval leaves out, and one."""
    for key, grants in run.grants().items():
        rate = rate_of(key)
        length = round(rate.in_seconds * SECOND)
        start, most = busiest(sorted(grants), length)
        planted = Grant(start, start + length, rate.allowed(length) - most)
        assert rate.violations([*grants, planted, Grant(start, start + length)], run.since) != []


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
