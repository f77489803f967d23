"""Fixtures: servers and clients in processes of their own, and servers of other makes."""

from __future__ import annotations

import contextlib
import json
import logging
import logging.handlers
import os
import queue
import signal
import socket
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest
from keys import KeyRing
from zmqlocker import LockTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from commands import Serving
    from keys import Key

# A shell lets what it runs in the background ignore Ctrl-C, and what that starts as well.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: How long a test waits for what must happen, in seconds: far beyond any honest delay.
PATIENCE = 30.0


def wait_until(is_so: Callable[[], bool]) -> None:
    """For what has no event: it is looked at until it is so."""
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.001)


def late(wait: Callable[[], object], message: str) -> None:
    """Wait in vain for permits, and hear this.

    The limit is what the server says at the end. A server that is slow to say it is not waited for,
    and there is no knowing how slow this machine is.
    """
    without, _, limit = message.partition(": ")
    for _ in range(100):
        with pytest.raises(LockTimeout) as caught:
            wait()
        assert isinstance(caught.value, TimeoutError)
        if str(caught.value) == message:
            return
        assert str(caught.value) == without
    pytest.fail(f"never heard {limit!r}")


IGNORED = "ignore:This process:DeprecationWarning"


class Script:
    """A Python program in a process of its own, with its lines as events."""

    def __init__(self, source: str, *arguments: str, own_network: bool = False) -> None:
        network = ["unshare", "--map-root-user", "--net"] if own_network else []
        # Newer Pythons warn of a fork beside threads; what becomes of it is tested.
        python = [sys.executable, "-W", IGNORED, "-u", "-c", textwrap.dedent(source)]
        self.process = subprocess.Popen(
            [*network, *python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that the program prints; empty at its end."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def tell(self, line: str = "") -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stop the process, all threads of it, as SIGSTOP does, and wait until it stands still."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit status, the rest of the output, all errors."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


@pytest.fixture
def script() -> Iterator[Callable[..., Script]]:
    """Start programs; whatever still runs at the end of the test is killed."""
    started: list[Script] = []

    def start(source: str, *arguments: str, own_network: bool = False) -> Script:
        started.append(Script(source, *arguments, own_network=own_network))
        return started[-1]

    yield start
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one.pid, signal.SIGCONT)
        one.kill()
        for stream in (one.process.stdin, one.process.stdout, one.process.stderr):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def log() -> Iterator[queue.SimpleQueue[logging.LogRecord]]:
    """What zmqlocker logs, as it comes."""
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    logger = logging.getLogger("zmqlocker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def free_url() -> str:
    """The URL of a port that nobody uses."""
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path)


@pytest.fixture
def worker(ring: KeyRing) -> Key:
    """The key of a client that may use everything."""
    worker = ring.key("worker")
    ring.let_in((worker, "*", ""))
    return worker


#: Serves until it is told a line, in the background.
SERVER = """
    import sys
    from zmqlocker import LockerServer
    url, max_requests, in_seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    with LockerServer(max_requests, in_seconds, url, block=False) as server:
        print(server.url)
        sys.stdin.readline()
"""


@pytest.fixture
def serve(script: Callable[..., Script]) -> Callable[..., tuple[Script, str]]:
    """Start a server in a process of its own; the process and its URL."""

    def start(
        max_requests: int = 1_000_000, in_seconds: float = 60.0, url: str = "tcp://127.0.0.1:*"
    ) -> tuple[Script, str]:
        server = script(SERVER, url, str(max_requests), str(in_seconds))
        return server, server.line()

    return start


#: Serves limits that are told as JSON until it is told a line, in the background.
LIMITS_SERVER = """
    import json, sys
    from zmqlocker import LockerServer
    url, limits = sys.argv[1], json.loads(sys.argv[2])
    with LockerServer(limits=limits, url=url, block=False) as server:
        print(server.url)
        sys.stdin.readline()
"""


@pytest.fixture
def serve_limits(script: Callable[..., Script]) -> Callable[..., tuple[Script, str]]:
    """Start a server of limits in a process of its own; the process and its URL."""

    def start(
        limits: dict[str, str | list[str]], url: str = "tcp://127.0.0.1:*"
    ) -> tuple[Script, str]:
        server = script(LIMITS_SERVER, url, json.dumps(limits))
        return server, server.line()

    return start


@pytest.fixture
def serving() -> Iterator[Callable[..., Serving]]:
    """Start `zmqlocker serve`; whatever still runs at the end of the test is killed."""
    import commands  # noqa: PLC0415 - that module needs this one

    started: list[Serving] = []

    def start(*arguments: str, **options: Any) -> Serving:
        started.append(commands.Serving(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.kill()
