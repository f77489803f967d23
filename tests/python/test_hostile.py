"""Clients that mean harm take nothing from others, and no more memory than they may."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attacks
import pytest
from conftest import PATIENCE, Script, wait_until
from zmqlocker import LockerClient, LockerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 1 << 20

#: What a server has at most after each attack alone.
RESIDENT_MAX = 512 * MIB

#: How much the good client may have.
OF_THE_GOOD = 1000

SERVER = """
    import json, sys
    from zmqlocker import LockerServer
    from attacks import raise_file_limit
    raise_file_limit()
    limits = {"good": "1000/h", "k:*": "2/h", "mine": "1000/h"}
    with LockerServer(limits=limits, url="tcp://127.0.0.1:*", block=False,
                      bounds=json.loads(sys.argv[1])) as server:
        print(server.url)
        for _ in sys.stdin:
            print(json.dumps(server.stats()))
"""


class Victim:
    """A server in a process of its own."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.url = script.line()
        self.port = int(self.url.rpartition(":")[2])

    def stats(self) -> dict[str, int]:
        self.script.tell()
        stats: dict[str, int] = json.loads(self.script.line())
        return stats

    @property
    def resident(self) -> int:
        return attacks.resident_bytes(self.script.pid)


@pytest.fixture
def victim(script: Callable[..., Script], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Victim]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))

    def start(**bounds: int) -> Victim:
        return Victim(script(SERVER, json.dumps(bounds)))

    return start


class Good:
    """A client that asks all the time, and knows what it must hear."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()

    def run(self) -> None:
        try:
            self._ask()
        except LockerError as error:
            self.wrong.append(repr(error))

    def stop(self) -> None:
        self._stop.set()

    def _ask(self) -> None:
        with LockerClient(self.url, name="good", timeout=PATIENCE) as client:
            last = 0
            while not self._stop.is_set():
                decision = client.try_acquire("mine")
                with client.lock("mine too", timeout=PATIENCE, ttl=PATIENCE) as lease:
                    if lease.token <= last:
                        self.wrong.append(f"token {lease.token} after {last}")
                    last = lease.token
                self.asked += 1
                if bool(decision) != (self.asked <= OF_THE_GOOD):
                    self.wrong.append(f"request {self.asked}: {decision}")


@contextlib.contextmanager
def good_client(url: str) -> Iterator[Good]:
    good = Good(url)
    thread = threading.Thread(target=good.run)
    thread.start()
    try:
        yield good
    finally:
        good.stop()
        thread.join()


class Attack:
    """One of them, in a process of its own."""

    def __init__(self, name: str, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, attacks.__file__, name, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline() == "begun\n"

    def stop(self) -> int:
        """Stop it; how often it did its harm."""
        output, _ = self.process.communicate(timeout=PATIENCE * 2)
        return int(output)


def wait_for_answers(good: Good, count: int) -> None:
    """Wait until the good client was answered so often, and wrong once at most."""
    until = good.asked + count
    wait_until(lambda: good.asked >= until or bool(good.wrong))
    assert not good.wrong


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_one_attack_takes_nothing_from_others(victim: Callable[..., Victim], name: str) -> None:
    server = victim()
    with good_client(server.url) as good:
        wait_for_answers(good, 10)
        attack = Attack(name, server.port)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            wait_for_answers(good, 10)
            assert server.resident < RESIDENT_MAX
        assert attack.stop() != 0
        wait_for_answers(good, 10)
    assert server.resident < RESIDENT_MAX
    # Whoever comes now is served, and those who have gone are not there any more.
    with LockerClient(server.url, timeout=PATIENCE) as client:
        assert client.try_acquire("k:another")
    wait_until(lambda: server.stats()["connections"] == 0)


def test_all_attacks_together_take_nothing_from_others(victim: Callable[..., Victim]) -> None:
    server = victim()
    with good_client(server.url) as good:
        wait_for_answers(good, 10)
        begun = [Attack(name, server.port) for name in attacks.ATTACKS]
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            wait_for_answers(good, 1)
            assert server.resident < attacks.RESIDENT_OF_ALL_MAX
        done = [attack.stop() for attack in begun]
        wait_for_answers(good, 10)
    assert 0 not in done
    assert server.resident < attacks.RESIDENT_OF_ALL_MAX
    with LockerClient(server.url, timeout=PATIENCE) as client:
        assert client.try_acquire("k:another")
    wait_until(lambda: server.stats()["connections"] == 0)
