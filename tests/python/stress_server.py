"""The server of the stress test: a process that ends in several ways, and others on its folder."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

from admissions import Life
from stress_client import boot_time

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 60.0

#: Serves until SIGTERM, or the end of whoever started it.
SERVER = """
import json, signal, sys
from zmqlocker import LockerServer
url, folder, limits = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
with LockerServer(url=url, limits=limits, data_dir=folder, block=False) as server:
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        print(server.url, flush=True)
        sys.stdin.read()
    finally:
        print(json.dumps(server.stats()), flush=True)
"""

STOP, KILL, CLEAN = "server stopped", "server killed", "server ended by SIGTERM"
KILL_STOPPED, KILL_TWICE = "server killed while stopped", "server killed, and at its next start"

#: What happens to a server, in another order each time.
MISFORTUNES = (STOP, STOP, KILL, KILL, KILL_STOPPED, KILL_TWICE, CLEAN, CLEAN)


class Server:
    """The place of the server: the process that runs there now, and the lives of all before it."""

    def __init__(self, limits: dict[str, str], folder: Path) -> None:
        self._limits, self._folder = limits, folder
        # An address of its own: while no server is there, nobody else is given its port, and a
        # connection to it does not meet itself.
        self.url = f"tcp://{ipaddress.ip_address('127.1.0.0') + os.getpid()}:*"
        self.lives: list[Life] = []
        self.misfortunes = Counter[str]()
        #: The sum of what those have counted that ended cleanly.
        self.stats = Counter[str]()
        self._start()
        self._wait_until_up()

    def fate(self, dice: random.Random) -> Iterator[float]:
        """Do to it what happens to servers; how many seconds pass in between."""
        while True:
            for what in dice.sample(MISFORTUNES, len(MISFORTUNES)):
                yield dice.uniform(1.0, 6.0)
                self.misfortunes[what] += 1
                if what in (STOP, KILL_STOPPED):
                    self.process.send_signal(signal.SIGSTOP)
                    yield dice.uniform(0.1, 1.0)
                if what == STOP:
                    self.process.send_signal(signal.SIGCONT)
                    continue
                self._end(signal.SIGTERM if what == CLEAN else signal.SIGKILL)
                yield dice.choice((0.0, dice.uniform(0.0, 1.5)))
                self._start()
                if what == KILL_TWICE:
                    yield dice.uniform(0.0, 0.5)
                    self._end(signal.SIGKILL)
                    self._start()
                self._wait_until_up()

    def come_back(self) -> None:
        """Serve again, whatever happened to it last."""
        if self.process.poll() is not None:
            self._start()
        self.process.send_signal(signal.SIGCONT)
        if not self._is_up:
            self._wait_until_up()

    def finish(self) -> None:
        """End it cleanly, for good."""
        self._end(signal.SIGTERM)

    def _start(self) -> None:
        self._is_up = False
        self._since = boot_time()
        arguments = [self.url, str(self._folder), json.dumps(self._limits)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _wait_until_up(self) -> None:
        assert self.process.stdout
        url = self.process.stdout.readline().strip()
        assert url, "the server did not start"
        self._is_up, self.url = True, url

    def _end(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        self.lives.append(Life(self._since, boot_time()))
        output, _ = self.process.communicate()
        if number == signal.SIGTERM:
            assert self.process.returncode == 0
            self.stats.update(json.loads(output))
