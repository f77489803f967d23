"""What clients that mean harm cost others: how late a good client is answered beside them.

`python benches/hostile.py [PART]...` measures the parts of these names, or all, and judges them.
The attacks are those of `tests/python/attacks.py`. They stand for other machines, so they have
what the server and the good client leave them of the processors: those two go first at any time,
which takes root (`SCHED_RR`). For anybody else the attacks have the lowest priority, which keeps a
thread waiting for up to a tick of the kernel each time, and the first line of the table says so.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from compare import first_line
from measuring import Programs, Rounds, Server, Verdict, judge, percentile

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
import attacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["attacks"]

#: No answer of the measurements takes so long, in seconds.
PATIENCE = 60.0

#: How often each part is measured.
ROUNDS = 3

#: How long the good client is measured at a time, in seconds.
SECONDS = 3.0

#: How often it asks in a second: a steady client, so that a stall is not asked about once only.
PACE = 500

LIMITS = {"good": "1000000/h", "k:*": "2/h", "mine": "1000000000/h"}

#: How much later than on a quiet server the slowest hundredth may be answered.
TIMES_MAX = 20

#: The most memory that a server has, in MiB.
MEMORY_MAX = attacks.RESIDENT_OF_ALL_MAX / 2**20

#: How long an attack goes on before anything is measured, in seconds. What one has at most it has
#: soon; all of them together need longer.
BEFORE = 2.0
BEFORE_ALL = 20.0

#: The attacks of which a promise tells that all of them go on at once.
SIX = (
    "garbage",
    "half_frames",
    "giant_frames",
    "many_connections",
    "unread_answers",
    "many_keys",
)

PROGRAMS = Programs("hostile.py")


def go_first() -> bool:
    """Have the processors before all that attack, as on a machine of one's own. Whether we may."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    return True


def serve() -> None:
    """Serve until the end of the input; each line of it asks for the counts."""
    from zmqlocker import LockerServer

    go_first()
    attacks.raise_file_limit()
    # What is logged of attacks is for operators, not for the table.
    logging.getLogger("zmqlocker").setLevel(logging.CRITICAL)
    with LockerServer(url="tcp://127.0.0.1:*", limits=LIMITS, block=False) as server:
        print(server.url, flush=True)
        for _ in sys.stdin:
            print(json.dumps(server.stats()), flush=True)


def ask(url: str, seconds: str) -> None:
    """Ask at an even pace; how many microseconds each answer was late, from when it was due."""
    from zmqlocker import LockerClient

    go_first()
    late: list[float] = []
    with LockerClient(url, name="good", timeout=PATIENCE) as client:
        for _ in range(100):
            client.try_acquire("mine")
        due = time.perf_counter()
        end = due + float(seconds)
        while due < end:
            time.sleep(max(due - time.perf_counter(), 0))
            begin = time.perf_counter()
            assert client.try_acquire("mine")
            now = time.perf_counter()
            # Whoever would have asked meanwhile would have waited as well.
            behind = begin - due if begin - due > 2 / PACE else 0
            late.append((now - begin + behind) * 1e6)
            due += 1 / PACE
    figures = {"median": percentile(late, 0.5), "p99": percentile(late, 0.99), "worst": max(late)}
    print(json.dumps(figures))


def attack(name: str, port: str) -> None:
    """Attack until the end of the input."""
    os.nice(19)
    stop = threading.Event()
    threading.Thread(target=attacks.ATTACKS[name], args=(int(port), stop), daemon=True).start()
    print("begun", flush=True)
    sys.stdin.read()


@contextlib.contextmanager
def attacked(*names: str) -> Iterator[Server]:
    """Give a server with these attacks under way."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(PROGRAMS.start("serve"))
        server = Server(first_line(running), running)
        port = server.url.rpartition(":")[2]
        for name in names:
            begun = stack.enter_context(PROGRAMS.start("attack", name, port))
            assert first_line(begun) == "begun"
        if names:
            time.sleep(BEFORE if len(names) == 1 else BEFORE_ALL)
        yield server


def measure(part: str, *names: str) -> Iterator[Verdict]:
    rounds = Rounds(f"{part}: an answer to a good client, in microseconds")
    for _ in range(ROUNDS):
        for state, under_way in (("quiet", ()), ("attacked", names)):
            with attacked(*under_way) as server:
                before, begin = server.processor_time(), time.monotonic()
                figures = PROGRAMS.run("ask", server.url, SECONDS)
                used = (server.processor_time() - before) / (time.monotonic() - begin)
                for name, figure in figures.items():
                    rounds.add(f"{state} {name}", figure)
                if under_way:
                    rounds.add("processors of the server", used)
                    rounds.add("memory, MiB", server.memory() / 2**20)
                    rounds.add("connections ended", server.stats()["connections_ended"])
    rounds.show()
    times = rounds.median("attacked p99") / rounds.median("quiet p99")
    yield Verdict(part[:11], "p99, times that of a quiet server", times, f"< {TIMES_MAX}")
    memory = rounds.highest("memory, MiB")
    yield Verdict(part[:11], "memory, MiB, the most of all rounds", memory, f"< {MEMORY_MAX}")


PARTS = {
    **{name: partial(measure, name, name) for name in attacks.ATTACKS},
    "six": partial(measure, "six", *SIX),
    "all": partial(measure, "all", *attacks.ATTACKS),
}


def main() -> int:
    name, *arguments = [*sys.argv[1:], ""]
    programs: dict[str, Callable[..., None]] = {"serve": serve, "ask": ask, "attack": attack}
    if name in programs:
        programs[name](*filter(None, arguments))
        return 0
    attacks_yield = go_first()
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    print("attacks", "have the processors that are left" if attacks_yield else "share processors")
    return judge(PARTS, sys.argv[1:], __doc__)


if __name__ == "__main__":
    sys.exit(main())
