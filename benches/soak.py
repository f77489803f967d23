"""Hours of a server in minutes: clients of all kinds come, go, are killed, and nothing may grow.

`python benches/soak.py [MINUTES]` prints what the server has every few seconds, and at the end
whether anything grew after the start, or was left when all had gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import statistics
import sys
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare import first_line
from hostile import attacks
from measuring import Programs, go_on, resident
from zmqlocker import LockerClient, LockerError, LockerServer

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

MINUTES = 10.0

#: How often what the server has is written down, in seconds.
INTERVAL = 2.0

#: How many programs ask at a time, and how many of them are replaced in a second.
PROGRAMS_AT_A_TIME = 8
REPLACED_A_SECOND = 2.0

#: What is used of limits and locks is over after so long, and whoever was killed forgotten.
SETTLED_AFTER = 75.0

LIMITS = {
    "rate:*": "50/s sliding",
    "short:*": "3/0.5s",
    "smooth:*": "20/s gcra burst 5",
    "pool:*": "4 at once",
    "block:*": "100000/s",
    "once:*": "1/s",
}

PROGRAMS = Programs("soak.py")


def serve() -> None:
    """Serve until the end of the input; each line of it asks for the counts."""
    attacks.raise_file_limit()
    with LockerServer(url="tcp://127.0.0.1:*", limits=LIMITS, block=False) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.stats()), flush=True)


def load(url: str, seed: str) -> None:
    """Ask for all kinds of things from a few threads, until the end of the input."""

    def run(chance: random.Random) -> None:
        while True:
            with (
                contextlib.suppress(LockerError),
                LockerClient(url, name=f"soak-{os.getpid()}", timeout=2.0) as client,
            ):
                for _ in range(chance.randrange(1, 400)):
                    with contextlib.suppress(LockerError):
                        chance.choice(KINDS)(client, chance)

    for number in range(3):
        chance = random.Random(f"{seed} {number}")
        threading.Thread(target=run, args=(chance,), daemon=True).start()
    print("begun", flush=True)
    sys.stdin.read()
    # Some end as programs do, and some in the midst of things.
    if random.Random(seed).random() < 0.5:
        os._exit(1)


def hold_for_a_moment(chance: random.Random) -> None:
    time.sleep(chance.uniform(0, 0.02))


def spend(client: Any, chance: random.Random) -> None:
    number = chance.randrange(50)
    client.try_acquire(f"rate:{number}", cost=chance.randrange(1, 9))
    client.acquire({f"smooth:{number}": 1, f"rate:{number}": 2}, timeout=0.3)
    client.peek(f"rate:{number}")


def wait(client: Any, chance: random.Random) -> None:
    client.acquire(f"short:{chance.randrange(5)}", timeout=chance.uniform(0.01, 0.6))


def hold_permit(client: Any, chance: random.Random) -> None:
    with client.limit(f"pool:{chance.randrange(3)}", timeout=0.3):
        hold_for_a_moment(chance)


def lock(client: Any, chance: random.Random) -> None:
    ttl = chance.choice([0.2, 0.8, 2.0])
    with client.lock(f"lock:{chance.randrange(7)}", timeout=0.5, ttl=ttl):
        hold_for_a_moment(chance)


def share(client: Any, chance: random.Random) -> None:
    with client.semaphore(f"semaphore:{chance.randrange(3)}", 4, timeout=0.3):
        hold_for_a_moment(chance)


def leave_locked(client: Any, chance: random.Random) -> None:
    client.lock(f"left:{chance.randrange(50)}", ttl=0.3, renew=False).acquire(timeout=0.1)


def reserve(client: Any, chance: random.Random) -> None:
    with client.reserve(f"rate:{chance.randrange(50)}", 5, timeout=0.2) as reserved:
        reserved.commit(chance.randrange(6))


def spend_block(client: Any, chance: random.Random) -> None:
    with client.block(f"block:{chance.randrange(2)}") as block:
        for _ in range(200):
            block.try_acquire()


def use_once(client: Any, chance: random.Random) -> None:
    # Keys that nobody has asked for before, or ever will.
    client.try_acquire(f"once:{chance.getrandbits(64)}")
    client.lock(f"once:{chance.getrandbits(64)}").acquire(timeout=0.2).release()


def look(client: Any, _: random.Random) -> None:
    client.locks()


KINDS = [
    *(spend, wait, hold_permit, lock, lock, share, leave_locked, reserve, spend_block, use_once),
    look,
]


@dataclass
class Counts:
    """What a server has."""

    memory: int
    threads: int
    files: int
    clients: int
    connections: int
    keys: int
    leases: int
    waiting: int

    def __str__(self) -> str:
        """Give a line of the table."""
        memory = f"memory {self.memory / 2**20:.1f} MiB"
        others = [f"{one.name} {getattr(self, one.name)}" for one in fields(self)[1:]]
        return ", ".join([memory, *others])


@dataclass
class Watched:
    """A server in a process of its own, and a client that looks at it."""

    running: subprocess.Popen[str]
    url: str
    client: LockerClient

    def counts(self) -> Counts:
        go_on(self.running)
        stats: dict[str, int] = json.loads(first_line(self.running))
        process = Path(f"/proc/{self.running.pid}")
        return Counts(
            memory=resident(self.running.pid),
            threads=len(list((process / "task").iterdir())),
            files=len(list((process / "fd").iterdir())),
            clients=stats["clients"],
            connections=stats["connections"],
            keys=stats["keys"],
            leases=self.client.server_status().leases,
            waiting=stats["waiting"],
        )


def soak(watched: Watched, seconds: float) -> list[Counts]:
    """Have programs ask, be replaced and be killed for so long."""
    chance = random.Random(time.time_ns())
    seen: list[Counts] = []
    with contextlib.ExitStack() as stack:
        running: list[subprocess.Popen[str]] = []
        begin = time.monotonic()
        look_at, replace_at = begin, begin
        while (now := time.monotonic()) < begin + seconds:
            if now >= replace_at or len(running) < PROGRAMS_AT_A_TIME:
                replace_at = now + chance.expovariate(REPLACED_A_SECOND)
                if len(running) >= PROGRAMS_AT_A_TIME:
                    end(running.pop(chance.randrange(len(running))), kill=chance.random() < 0.5)
                program = stack.enter_context(
                    PROGRAMS.start("load", watched.url, chance.getrandbits(32))
                )
                assert first_line(program) == "begun"
                running.append(program)
            if now >= look_at:
                look_at = now + INTERVAL
                seen.append(watched.counts())
                print(f"{now - begin:6.0f} s: {seen[-1]}", flush=True)
            time.sleep(0.05)
        for program in running:
            end(program, kill=False)
    return seen


def end(program: subprocess.Popen[str], *, kill: bool) -> None:
    if kill:
        program.kill()
    assert program.stdin
    program.stdin.close()
    program.wait(60.0)


def grew(seen: list[Counts]) -> list[str]:
    """Tell what was more towards the end than at the beginning, by more than chance."""
    # The first quarter is the warm-up.
    rest = seen[len(seen) // 4 :]
    third = len(rest) // 3
    problems = []
    # Leases come by dozens, with each block and whoever was killed in the midst of things.
    slack = {"memory": 16 * 2**20, "keys": 500, "leases": 100}
    for one in fields(Counts):
        early = statistics.median(getattr(counts, one.name) for counts in rest[:third])
        late = statistics.median(getattr(counts, one.name) for counts in rest[-third:])
        verdict = "grew" if late > early * 1.1 + slack.get(one.name, 20) else "did not grow"
        line = f"{one.name}: {early:,.0f} early, {late:,.0f} late: {verdict}"
        print(line)
        problems += [line] if verdict == "grew" else []
    return problems


def left(watched: Watched, before: Counts) -> list[str]:
    """Tell what is there when all have gone, and was not there before they came."""
    until = time.monotonic() + SETTLED_AFTER
    while time.monotonic() < until:
        after = watched.counts()
        if (after.clients, after.connections, after.leases, after.waiting) == (1, 1, 0, 0):
            break
        time.sleep(0.5)
    print(f"after all: {after}")
    names = ("threads", "files", "clients", "connections", "leases", "waiting")
    return [
        f"{name}: {getattr(before, name)} before, {getattr(after, name)} after"
        for name in names
        if getattr(after, name) > getattr(before, name)
    ]


def main() -> int:
    name, *arguments = [*sys.argv[1:], ""]
    programs: dict[str, Callable[..., None]] = {"serve": serve, "load": load}
    if name in programs:
        programs[name](*filter(None, arguments))
        return 0
    with PROGRAMS.start("serve") as running:
        url = first_line(running)
        watched = Watched(running, url, LockerClient(url, name="watcher", timeout=30.0))
        # The first look connects.
        watched.counts()
        before = watched.counts()
        print(f"before: {before}")
        problems = grew(soak(watched, float(name or MINUTES) * 60)) + left(watched, before)
    for problem in problems:
        print(f"NO: {problem}")
    if not problems:
        print("nothing grew, and nothing was left")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
