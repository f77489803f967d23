"""Terminals that programs run on, and what stands on them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
import unicodedata
from typing import TYPE_CHECKING

import pytest
from commands import environment
from conftest import PATIENCE

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

#: Runs a command on its standard input, as the terminal of a session of its own.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""

#: A sequence that moves, paints or switches something, or a piece of text.
PART = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\x1b.|([^\x1b]+)", re.DOTALL)

#: Those that switch to the screen for full views, and back.
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR = "\x1b[?25h"


class Terminal:
    """A terminal with a program on it."""

    def __init__(
        self, command: list[str], columns: int = 80, lines: int = 30, **variables: str
    ) -> None:
        self.main, self.end = pty.openpty()
        self.size = (0, 0)
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.end)
        self.output = b""
        settings = environment({"TERM": "xterm", **variables})
        if "NO_COLOR" not in variables:
            settings.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *command],
            stdin=self.end,
            stdout=self.end,
            stderr=self.end,
            start_new_session=True,
            env=settings,
        )

    def resize(self, columns: int, lines: int) -> None:
        self.size = (columns, lines)
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.main, keys.encode())

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def read(self, seconds: float) -> None:
        """Take in what comes next, if something comes in this time."""
        if select.select([self.main], [], [], seconds)[0]:
            self.output += os.read(self.main, 65536)

    @property
    def text(self) -> str:
        return self.output.decode(errors="ignore")

    def screen(self) -> list[str]:
        """What stands on the screen for full views."""
        columns, lines = self.size
        cells = [[" "] * columns for _ in range(lines)]
        x = y = 0
        for numbers, letter, text in PART.findall(self.text.rpartition(ENTER)[2]):
            if letter == "H":
                y, x = (int(number) - 1 for number in (numbers or "1;1").split(";"))
            elif letter == "J":
                cells = [[" "] * columns for _ in range(lines)]
            for character in text:
                wide = 2 if unicodedata.east_asian_width(character) in "WF" else 1
                # What was drawn for another size may lie outside.
                if y < lines and x + wide <= columns:
                    cells[y][x : x + wide] = [character, *[""] * (wide - 1)]
                x += wide
        return ["".join(line).rstrip() for line in cells]

    def wait_for(self, is_so: Callable[[list[str]], bool]) -> list[str]:
        """Read until the screen is so."""
        until = time.monotonic() + PATIENCE
        while not is_so(self.screen()):
            if time.monotonic() > until or self.process.poll() is not None:
                pytest.fail(f"{self.process.returncode}: " + "\n".join(self.screen()))
            self.read(1.0)
        return self.screen()

    def wait_for_text(self, *texts: str) -> list[str]:
        return self.wait_for(lambda lines: all(text in "\n".join(lines) for text in texts))

    def finish(self) -> int:
        """Read until the program has ended: its exit status."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < until, self.screen()
            self.read(0.05)
        self.read(0.0)
        return self.process.returncode

    def is_as_before(self) -> bool:
        """Whether the program has given the terminal back as it was."""
        back = self.text.rfind(LEAVE)
        shown = self.text.rfind(SHOW_CURSOR)
        was_taken = 0 <= self.text.find(ENTER) < back and shown >= 0
        return was_taken and termios.tcgetattr(self.end) == self.before

    def hang_up(self) -> None:
        """The line is cut."""
        os.close(self.end)
        os.close(self.main)
        self.main = self.end = -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        for descriptor in (self.main, self.end):
            with contextlib.suppress(OSError):
                os.close(descriptor)
