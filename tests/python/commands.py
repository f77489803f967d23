"""The command `zmqlocker` in processes of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

ZMQLOCKER = [sys.executable, "-m", "zmqlocker"]


def environment(variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment, with nothing in it for the command but these variables."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ZMQLOCKER_")}
    return {**ours, **(variables or {})}


def zmqlocker(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Run a command to its end: exit status, output, errors."""
    done = subprocess.run(
        [*ZMQLOCKER, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env=environment(variables),
    )
    return done.returncode, done.stdout, done.stderr


class Serving:
    """`zmqlocker serve` on a port of the system's choice, and what it logs."""

    def __init__(
        self,
        *arguments: str,
        url: str | None = "tcp://127.0.0.1:*",
        await_start: bool = True,
        **variables: str,
    ) -> None:
        command = [*ZMQLOCKER, "serve", *([f"--url={url}"] if url else []), *arguments]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment(variables)
        )
        self.lines: list[str] = []
        if await_start:
            #: The line that says what is served.
            self.start = self.line_with("serving ")
            found = re.search(r"(tcp|ipc)://[^\s,]+", self.start)
            assert found, self.start
            self.url = found[0]

    def line_with(self, text: str) -> str:
        """Wait for a line with this text in it."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if text in line:
                return line.rstrip("\n")
        return pytest.fail(f"{text!r} is in none of {self.lines}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self, number: signal.Signals | None = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal and wait for the end: exit status, and the rest of the lines."""
        if number is not None:
            self.send(number)
        _, rest = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, rest

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        if self.process.stderr:
            self.process.stderr.close()
