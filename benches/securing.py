"""Measures what encryption costs, and what strangers cost who is let in. Prints ratios.

Needs zmqlocker in the virtual environment: `pip install .`. Takes about a minute. Strangers connect
one after the other, as fast as one process can, and say a recorded hello, which costs the server as
much as any and them nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare import process
from measuring import Rounds
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 5
CALLS = 4_000

#: Where two are compared that differ by little: short, and by turns, whatever else runs meanwhile.
TURNS = 120
CALLS_OF_A_TURN = 300

CONNECTIONS = 100

GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01CURVE" + b"\0" * 47
HELLO_BYTES = 202
WELCOME_BYTES = 170


def made_key(folder: Path, name: str) -> Path:
    path = folder / f"{name}.key"
    command = [sys.executable, "-m", "zmqlocker", "keygen", str(path)]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return path


def public_line(key: Path) -> str:
    lines = key.with_name(key.name + ".pub").read_text().splitlines()
    return next(line for line in lines if line.startswith("public_key"))


def recorded_hello(keys: dict[str, Any]) -> bytes:
    """What a client says first to a server with that key."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with LockerClient(url, **keys) as client:
            with contextlib.suppress(Exception):
                client.next(timeout=0.01)
            stream, _ = listener.accept()
            with stream:
                stream.sendall(GREETING)
                with contextlib.suppress(Exception):
                    client.next(timeout=0.2)
                said = b""
                while len(said) < len(GREETING) + HELLO_BYTES:
                    said += stream.recv(1000)
                return said[len(GREETING) :]


def pester(port: str, hello: str) -> None:
    """Be a stranger, again and again, and count aloud."""
    said = GREETING + bytes.fromhex(hello)
    count, since = 0, time.monotonic()
    while True:
        with socket.create_connection(("127.0.0.1", int(port))) as stream:
            stream.sendall(said)
            heard = 0
            while heard < len(GREETING) + WELCOME_BYTES and (data := stream.recv(1000)):
                heard += len(data)
        count += 1
        if count % 100 == 0:
            print(f"{count / (time.monotonic() - since):.0f}", flush=True)
            count, since = 0, time.monotonic()


def trips(client: LockerClient, calls: int = CALLS) -> tuple[float, float]:
    """Microseconds of a round trip: the median, and the 99th percentile."""
    for _ in range(calls // 10):
        client.next()
    times = []
    for _ in range(calls):
        begin = time.perf_counter_ns()
        client.next()
        times.append(time.perf_counter_ns() - begin)
    times.sort()
    return times[calls // 2] / 1000, times[calls * 99 // 100] / 1000


def cost_of_connecting(url: str, keys: dict[str, Any]) -> float:
    """Microseconds of processor time, ours and the server's, for a client that asks once."""
    begin = time.process_time()
    for _ in range(CONNECTIONS):
        with LockerClient(url, **keys) as client:
            client.next()
    return (time.process_time() - begin) / CONNECTIONS * 1e6


@contextlib.contextmanager
def pestered(url: str, hello: bytes, strangers: int) -> Iterator[list[subprocess.Popen[str]]]:
    port = url.rsplit(":", 1)[1]
    with contextlib.ExitStack() as stack:
        command = (sys.executable, __file__, "pester", port, hello.hex())
        started = [stack.enter_context(process(*command)) for _ in range(strangers)]
        for one in started:
            assert one.stdout
            one.stdout.readline()
        yield started


def measure(folder: Path) -> None:
    server_key, key = made_key(folder, "server"), made_key(folder, "client")
    clients = folder / "clients.toml"
    clients.write_text(f'[clients.bench]\n{public_line(key)}\nuse = "*"\n')
    keys: dict[str, Any] = {"server_key": f"{server_key}.pub", "key_file": key}
    hello = recorded_hello(keys)
    url = "tcp://127.0.0.1:*"
    trip, connect = (
        Rounds("round trip, us"),
        Rounds("a connection, us of processor time, both ends"),
    )
    pestering = Rounds("round trip, encrypted, us, while strangers connect")
    with (
        LockerServer(5, 0.8, url, block=False) as plain,
        LockerServer(5, 0.8, url, block=False, curve_key=server_key, clients=clients) as curve,
        LockerClient(plain.url) as plain_client,
        LockerClient(curve.url, **keys) as curve_client,
    ):
        for _ in range(TURNS):
            for name, client in [("plain", plain_client), ("CURVE", curve_client)]:
                trip.add(name, trips(client, CALLS_OF_A_TURN)[0])
        for _ in range(ROUNDS):
            connect.add("plain", cost_of_connecting(plain.url, {}))
            connect.add("CURVE", cost_of_connecting(curve.url, keys))
        for _ in range(ROUNDS):
            for strangers in (0, 1):
                with pestered(curve.url, hello, strangers):
                    median, late = trips(curve_client)
                    pestering.add(f"{strangers} strangers", median)
                    pestering.add(f"{strangers} strangers, 99th percentile", late)
        with pestered(curve.url, hello, 1) as [stranger]:
            assert stranger.stdout
            for _ in range(ROUNDS):
                pestering.add(
                    "connections of the stranger a second", float(stranger.stdout.readline())
                )
    for rounds in (trip, connect, pestering):
        rounds.show()
    print(f"\nCURVE / plain: round trip {trip.median('CURVE') / trip.median('plain'):.2f}")
    print(f"CURVE / plain: connection {connect.median('CURVE') / connect.median('plain'):.2f}")
    pestered_ratio = pestering.median("1 strangers") / pestering.median("0 strangers")
    print(f"one stranger / none: round trip {pestered_ratio:.2f}")


def main() -> None:
    if sys.argv[1:2] == ["pester"]:
        return pester(*sys.argv[2:])
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    with tempfile.TemporaryDirectory() as folder:
        return measure(Path(folder))


if __name__ == "__main__":
    main()
