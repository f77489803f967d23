"""Several servers that share the keys, each a process of its own, and their callers."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import msgpack
import zmq
from commands import Serving
from conftest import wait_until
from typing_extensions import Self
from zmqlocker import LockerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType


class Cluster:
    """Servers of one registry, with these options; a socket that asks them may need a key."""

    def __init__(
        self,
        registry: str,
        *limits: str,
        count: int = 3,
        options: Sequence[str] = (),
        give_key: Callable[[zmq.Socket[bytes]], None] | None = None,
    ) -> None:
        self._options = [f"--registry={registry}", *(f"--limit={limit}" for limit in limits)]
        self._options += options
        self._give_key = give_key
        self.servers: dict[str, Serving] = {}
        for number in range(count):
            self.start(f"s{number}")
        self.await_shares()

    def start(self, name: str, url: str = "tcp://127.0.0.1:*") -> Serving:
        """A server more, which is one of them when this returns."""
        server = Serving(f"--name={name}", *self._options, url=url)
        self.servers[name] = server
        return server

    def await_shares(self) -> None:
        """Wait until all servers have as many partitions as each other, but for one."""
        count = len(self.servers)
        shares = {64 // count, -(-64 // count)}
        for server in self.servers.values():
            while True:
                line = server.line_with("partitions, with")
                found = re.search(r"home of (\d+) of 64 partitions, with (\d+) servers", line)
                assert found, line
                if int(found[1]) in shares and int(found[2]) == count:
                    break
        # The one that is asked who is home may see last what the others know of themselves.
        wait_until(lambda: set(Counter(self._map()[0]).values()) <= shares)

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers.values()]

    def home_of(self, key: str) -> str:
        """The name of the server that is home of a key, as the first of the servers tells."""
        homes, names = self._map()
        place = homes[partition(key)]
        return names[place] if place < len(names) else ""

    def _map(self) -> tuple[bytes, list[str]]:
        """The place of each partition's home, and the names of all servers."""
        hello = [0, 1, os.urandom(16), "", "", os.getpid(), 1]
        with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
            peer.linger = 0
            peer.rcvtimeo = 10_000
            if self._give_key:
                self._give_key(peer)
            peer.connect(next(iter(self.servers.values())).url)
            peer.send(msgpack.packb(hello))
            items = msgpack.Unpacker()
            items.feed(peer.recv())
            _, _, _, homes, *servers = next(item for item in items if item[0] == 13)
            return homes, servers[::2]

    def __enter__(self) -> Self:
        """All of them run."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End those that still run."""
        for server in self.servers.values():
            server.process.kill()
        for server in self.servers.values():
            server.process.communicate()


def partition(key: str) -> int:
    """The partition of a key, as the protocol has it."""
    found = 0xCBF29CE484222325
    for byte in key.encode():
        found = (found ^ byte) * 0x100000001B3 % 2**64
    folded = found ^ found >> 32
    return (folded ^ folded >> 16) % 64


class Answer(NamedTuple):
    """What a caller heard: between when, and whether it was allowed."""

    asked: float
    heard: float
    allowed: bool


class Callers:
    """Threads that ask for keys without a pause, and note what they hear."""

    def __init__(self, ask: Callable[[str], bool], keys: list[str], pause: float = 0.005) -> None:
        self.answers: dict[str, list[Answer]] = {key: [] for key in keys}
        self.errors: list[str] = []
        self._ends = threading.Event()
        self._pause = pause
        self._threads = [threading.Thread(target=self._call, args=(ask, key)) for key in keys]
        for thread in self._threads:
            thread.start()

    def _call(self, ask: Callable[[str], bool], key: str) -> None:
        while not self._ends.wait(self._pause):
            asked = time.monotonic()
            try:
                allowed = ask(key)
            except LockerError as error:
                self.errors.append(f"{key}: {error!r}")
                continue
            self.answers[key].append(Answer(asked, time.monotonic(), allowed))

    def finish(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def longest(self, key: str) -> float:
        """The longest time that one answer took, in seconds."""
        return max(answer.heard - answer.asked for answer in self.answers[key])


def keys(prefix: str, count: int = 12) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def allowed_since(answers: list[Answer], since: float) -> bool:
    return any(answer.allowed and answer.asked > since for answer in answers)


def above_limit(answers: list[Answer], most: int, seconds: float) -> Iterator[list[Answer]]:
    """Where more than `most` were surely allowed within `seconds`.

    Between two of them less time has passed than that, whenever within its request each was
    granted.
    """
    allowed = sorted((answer for answer in answers if answer.allowed), key=lambda one: one.asked)
    for first in range(len(allowed) - most):
        some = allowed[first : first + most + 1]
        if max(one.heard for one in some) - some[0].asked < seconds:
            yield some
