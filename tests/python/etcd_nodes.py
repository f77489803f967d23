"""A cluster of etcd, each node on a host of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hosts import Hosts

PATIENCE = 60.0

CLIENTS, PEERS = 2379, 2380


def etcd(name: str, folder: Path, client: str, peers: dict[str, str]) -> list[str]:
    """The command of a node, which serves clients at this URL and knows all nodes by theirs."""
    options = {
        "name": name,
        "data-dir": str(folder),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peers[name],
        "initial-advertise-peer-urls": peers[name],
        "initial-cluster": ",".join(f"{one}={url}" for one, url in peers.items()),
        "log-level": "error",
    }
    return ["etcd", *(f"--{option}={value}" for option, value in options.items())]


class EtcdNodes:
    """Nodes on these hosts, with Debian's defaults: a leader is missed after a second."""

    def __init__(self, hosts: Hosts, names: Sequence[str], folder: Path) -> None:
        self._hosts, self.names, self._folder = hosts, tuple(names), folder
        self.processes = {name: self._start(name) for name in names}

    def at(self, name: str, port: int = CLIENTS) -> str:
        return f"http://{self._hosts.address(name)}:{port}"

    @property
    def url(self) -> str:
        """What servers are told as their registry."""
        nodes = ",".join(f"{self._hosts.address(name)}:{CLIENTS}" for name in self.names)
        return f"etcd://{nodes}/zmqlocker"

    def _start(self, name: str) -> subprocess.Popen[str]:
        peers = {one: self.at(one, PEERS) for one in self.names}
        command = etcd(name, self._folder / name, self.at(name), peers)
        # What it says of lost peers is for nobody here.
        return self._hosts.start(name, *command, stderr=subprocess.DEVNULL)

    def start_again(self, name: str) -> None:
        self.processes[name] = self._start(name)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait(PATIENCE)

    def _status(self, name: str) -> dict[str, Any] | None:
        """What a node says of itself, if it answers."""
        control = ["etcdctl", f"--endpoints={self.at(name)}", "--write-out=json"]
        control += ["--dial-timeout=1s", "--command-timeout=1s", "endpoint", "status"]
        command = self._hosts.command(name, "env", "ETCDCTL_API=3", *control)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            return None
        status: dict[str, Any] = json.loads(done.stdout)[0]["Status"]
        return status

    def leader(self) -> str:
        """Wait until there is a leader; the name of its host."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for name in self.names:
                status = self._status(name)
                if status and status.get("leader") == status["header"]["member_id"]:
                    return name
        pytest.fail("etcd has no leader")

    def close(self) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(PATIENCE)
