"""The network of the tests: what is cut does not pass, and everything else does."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hosts import Hosts

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("a", "b", "c")

#: Prints every line that comes, from whoever it comes.
HEAR = """
import socket, sys
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind((sys.argv[1], 7777))
print("ready", flush=True)
while True:
    print(heard.recv(100).decode(), flush=True)
"""

SAY = """
import socket, sys
said = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
said.sendto(sys.argv[2].encode(), (sys.argv[1], 7777))
"""


class Ears:
    """Hears on every host."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._hearing = {
            name: hosts.start(
                name, sys.executable, "-c", HEAR, hosts.address(name), stdout=subprocess.PIPE
            )
            for name in NAMES
        }
        assert all(self.line(name) == "ready" for name in NAMES)

    def line(self, name: str) -> str:
        output = self._hearing[name].stdout
        assert output
        return output.readline().strip()

    def say(self, sender: str, receiver: str, text: str) -> None:
        address = self._hosts.address(receiver)
        command = self._hosts.command(sender, sys.executable, "-c", SAY, address, text)
        # Without a plug nothing can be sent.
        subprocess.run(command, check=False, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        for process in self._hearing.values():
            process.kill()
            process.communicate()


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with Hosts(NAMES) as hosts:
        yield hosts


@pytest.fixture
def ears(hosts: Hosts) -> Iterator[Ears]:
    ears = Ears(hosts)
    yield ears
    ears.close()


def test_what_is_cut_passes_the_other_way(hosts: Hosts, ears: Ears) -> None:
    hosts.cut("b", ["a"])
    ears.say("a", "b", "lost")
    ears.say("c", "b", "from c")
    assert ears.line("b") == "from c"
    ears.say("b", "a", "from b")
    assert ears.line("a") == "from b"
    hosts.mend("b")
    ears.say("a", "b", "from a")
    assert ears.line("b") == "from a"


def test_nothing_passes_without_a_plug(hosts: Hosts, ears: Ears) -> None:
    hosts.plug("a", is_in=False)
    ears.say("b", "a", "lost")
    ears.say("c", "b", "from c")
    assert ears.line("b") == "from c"
    hosts.plug("a", is_in=True)
    ears.say("a", "b", "from a")
    assert ears.line("b") == "from a"
