"""What a new user tries first; run where nothing but zmqlocker is installed."""

import subprocess
import sys
from importlib import metadata

import zmqlocker
from zmqlocker import Locker, LockerClient, LockerServer

assert zmqlocker.__version__ == metadata.version("zmqlocker")
assert metadata.requires("zmqlocker") is None
assert zmqlocker.libzmq_version() == "4.3.5"
assert zmqlocker.has_curve()
assert [Locker(1, 60.0).next() for _ in range(2)] == ["go", "go"]
with LockerServer(1, 60.0, "tcp://127.0.0.1:*", block=False) as server:
    with LockerClient(server.url) as client:
        assert [client.next(), client.next()] == ["go", "sorry"]
    command = [sys.executable, "-m", "zmqlocker", "next", "--url", server.url]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert asked.stdout.endswith(" sorry\n")
