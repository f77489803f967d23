"""Hosts on one switch, made of network namespaces: what is between them can be cut.

Needs root, `ip` and `iptables`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of the hosts' addresses; namespaces of several tests do not meet.
NETWORK = "10.77.0."


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Hosts:
    """Hosts of these names, each with an address of its own."""

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"zmqlocker-{os.getpid()}-"
        self._numbers = {name: number for number, name in enumerate(names, 1)}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Bring them up."""
        with contextlib.ExitStack() as broken:
            broken.push(self._stack)
            self._add("switch")
            self._within("switch", "ip", "link", "add", "switch", "type", "bridge")
            self._within("switch", "ip", "link", "set", "switch", "up")
            for name in self._numbers:
                self._connect(name)
            broken.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Take them away; whatever runs on them is on its own."""
        self._stack.close()

    def _add(self, name: str) -> None:
        run("ip", "netns", "add", self._prefix + name)
        self._stack.callback(run, "ip", "netns", "delete", self._prefix + name)

    def _connect(self, name: str) -> None:
        self._add(name)
        number = self._numbers[name]
        here, there = f"port{number}", self._prefix + name
        ends = ("type", "veth", "peer", "name", "eth0", "netns", there)
        self._within("switch", "ip", "link", "add", here, *ends)
        self._within("switch", "ip", "link", "set", here, "master", "switch", "up")
        self._within(name, "ip", "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._within(name, "ip", "link", "set", device, "up")

    def _within(self, name: str, *command: str) -> None:
        run(*self.command(name, *command))

    def command(self, name: str, *command: str) -> list[str]:
        """The command that runs this one on a host. Its process is that of this one."""
        return ["ip", "netns", "exec", self._prefix + name, *command]

    def start(self, name: str, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Run a program on a host."""
        return subprocess.Popen(self.command(name, *command), text=True, **options)

    def address(self, name: str) -> str:
        """The address of a host."""
        return f"{NETWORK}{self._numbers[name]}"

    def cut(self, name: str, others: Sequence[str]) -> None:
        """Let nothing come to a host from these others; what it sends arrives."""
        for other in others:
            source = ("--source", self.address(other))
            self._within(name, "iptables", "--append", "INPUT", *source, "--jump", "DROP")

    def mend(self, name: str) -> None:
        """Let everything come to a host again."""
        self._within(name, "iptables", "--flush", "INPUT")

    def plug(self, name: str, *, is_in: bool) -> None:
        """Pull the plug of a host at the switch, or put it in again."""
        port = f"port{self._numbers[name]}"
        self._within("switch", "ip", "link", "set", port, "up" if is_in else "down")
