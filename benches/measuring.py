"""What benchmarks with verdicts have in common: programs, rounds, and the table."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import signal
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare import first_line, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

#: How long the whole of a program may take, in seconds.
PATIENCE = 300.0


def shown(figure: float) -> str:
    return f"{figure:13,.{1 if abs(figure) >= 10 else 2}f}"


@dataclass
class Verdict:
    """A figure, and what it should be."""

    part: str
    what: str
    figure: float
    target: str

    def __str__(self) -> str:
        """Give a line of the table."""
        relation, bound, *_ = [*self.target.split(), "", "0"]
        holds = {">=": operator.ge, "<=": operator.le, "<": operator.lt}.get(relation)
        verdict = "-" if holds is None else "yes" if holds(self.figure, float(bound)) else "NO"
        return f"{self.part:11} {self.what:46} {shown(self.figure)}   {self.target:13} {verdict}"


@dataclass
class Rounds:
    """The figures of contestants, round by round."""

    title: str
    _figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, figure: float) -> None:
        self._figures.setdefault(name, []).append(figure)

    def median(self, name: str) -> float:
        return statistics.median(self._figures[name])

    def range(self, name: str) -> tuple[float, float]:
        return min(self._figures[name]), max(self._figures[name])

    def highest(self, name: str) -> float:
        return max(self._figures[name])

    def show(self) -> None:
        load = " ".join(f"{load:.1f}" for load in os.getloadavg())
        rounds = max(map(len, self._figures.values()))
        print(f"\n{self.title} ({rounds} rounds, load {load})")
        for name in self._figures:
            low, high = self.range(name)
            median = self.median(name)
            print(f"  {name:46} {shown(median)}   ({low:,.1f} to {high:,.1f})", flush=True)


@dataclass(frozen=True)
class Programs:
    """A file of programs, each of which runs in a process of its own."""

    file: str

    def _command(self, name: str, *arguments: object) -> list[str]:
        return [
            sys.executable,
            str(Path(__file__).with_name(self.file)),
            name,
            *map(str, arguments),
        ]

    def run(self, name: str, *arguments: object) -> Any:
        """What a program finds out."""
        command = self._command(name, *arguments)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=PATIENCE)
        return json.loads(done.stdout)

    def start(self, name: str, *arguments: object) -> AbstractContextManager[subprocess.Popen[str]]:
        """Run a program as long as the block lasts."""
        return process(*self._command(name, *arguments))

    def at_once(self, calls: Iterable[tuple[object, ...]]) -> list[Any]:
        """What programs find out that begin together, once all are ready."""
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(self.start(*map(str, call))) for call in calls]
            for program in running:
                assert first_line(program) == "ready"
            for program in running:
                go_on(program)
            return [json.loads(first_line(program)) for program in running]

    def together(self, calls: Iterable[tuple[object, ...]]) -> float:
        """The sum of what such programs find out."""
        return sum(map(float, self.at_once(calls)))


def go_on(running: subprocess.Popen[str]) -> None:
    """Tell a program that waits for a line to go on."""
    assert running.stdin
    running.stdin.write("\n")
    running.stdin.flush()


@dataclass
class Server:
    """A server in a process of its own."""

    url: str
    running: subprocess.Popen[str]

    def stats(self) -> dict[str, int]:
        go_on(self.running)
        counts: dict[str, int] = json.loads(first_line(self.running))
        return counts

    def processor_time(self) -> float:
        """The seconds of processors that its threads have used so far."""
        threads = Path(f"/proc/{self.running.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text(encoding="ascii").split()[0]) for thread in threads) / 1e9

    def memory(self) -> int:
        return resident(self.running.pid)


def resident(pid: int) -> int:
    """The bytes of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    kilobytes = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes.split()[1]) * 1024


@contextlib.contextmanager
def serving(**limits: str) -> Iterator[Server]:
    with Programs("askers.py").start("serve", json.dumps(limits)) as running:
        yield Server(first_line(running), running)


def percentile(figures: list[float], part: float) -> float:
    return sorted(figures)[min(int(len(figures) * part), len(figures) - 1)]


def judge(
    parts: Mapping[str, Callable[[], Iterator[Verdict]]], names: list[str], usage: str | None
) -> int:
    """Measure the parts of these names, or all, and tell whether all verdicts hold."""
    if unknown := set(names) - parts.keys():
        sys.exit(f"{usage}\nNo part: {', '.join(unknown)}. Parts: {', '.join(parts)}")
    # What ends this program ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}")
    verdicts = [verdict for name in names or parts for verdict in parts[name]()]
    print(f"\n{'part':11} {'what':46} {'figure':>13}   {'target':13} holds")
    for verdict in verdicts:
        print(verdict)
    return any(str(verdict).endswith("NO") for verdict in verdicts)
