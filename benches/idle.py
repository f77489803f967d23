"""What 10,000 clients cost that are connected and silent: memory, files, and time of processors.

`python benches/idle.py [COUNT]` needs about twice as many files as clients (`ulimit -n`).
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from compare import first_line
from hostile import attacks
from measuring import Programs, Server, go_on, shown

if TYPE_CHECKING:
    import socket

#: How many, unless something else is said.
COUNT = 10_000

#: How long the server is watched while nothing is said, in seconds.
SECONDS = 10.0

PROGRAMS = Programs("idle.py")
SERVERS = Programs("hostile.py")


def hold(port: str, count: str) -> None:
    """Connect and say hello so often; then, with each line of the input, beat on all of them."""
    attacks.raise_file_limit()
    peers: list[socket.socket] = []
    for number in range(int(count)):
        peer = attacks.shake_hands(int(port))
        peer.sendall(attacks.items(attacks.hello(f"idle-{number:05}")))
        peers.append(peer)
    print(len(peers), flush=True)
    for beat, _ in enumerate(sys.stdin):
        for peer in peers:
            peer.sendall(attacks.items([attacks.BEAT, beat, 0]))
        for peer in peers:
            peer.recv(1 << 16)
        print(beat, flush=True)


def files_of(server: Server) -> int:
    return len(list(Path(f"/proc/{server.running.pid}/fd").iterdir()))


def tell(what: str, figure: float) -> None:
    print(f"  {what:58} {shown(figure)}", flush=True)


def measure(count: int) -> None:
    with SERVERS.start("serve") as running:
        server = Server(first_line(running), running)
        memory, used, files = server.memory(), server.processor_time(), files_of(server)
        began = time.perf_counter()
        port = server.url.rpartition(":")[2]
        with PROGRAMS.start("hold", port, count) as clients:
            assert first_line(clients) == str(count)
            while server.stats()["clients"] < count:
                time.sleep(0.01)
            tell("seconds until all are connected", time.perf_counter() - began)
            used_to_connect = server.processor_time() - used
            tell("microseconds of a processor for a connection", used_to_connect / count * 1e6)
            tell("memory before, MiB", memory / 2**20)
            tell("memory with all, MiB", server.memory() / 2**20)
            tell("bytes of memory for a client", (server.memory() - memory) / count)
            tell("files", files_of(server) - files)
            used = server.processor_time()
            time.sleep(SECONDS)
            share = (server.processor_time() - used) / SECONDS
            tell("of one processor while all are silent, percent", share * 100)
            used = server.processor_time()
            go_on(clients)
            first_line(clients)
            share = (server.processor_time() - used) / count
            tell("microseconds of a processor for a beat of each", share * 1e6)
        while server.stats()["connections"]:
            time.sleep(0.01)
        tell("memory when all have gone, MiB", server.memory() / 2**20)
        tell("files when all have gone", files_of(server) - files)


def main() -> int:
    name, *arguments = [*sys.argv[1:], ""]
    if name == "hold":
        hold(*filter(None, arguments))
        return 0
    attacks.raise_file_limit()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = int(name or COUNT)
    if files < count + 200:
        sys.exit(f"{__doc__}\n{files} files may be opened: too few for {count} clients")
    print(f"{count:,} clients")
    measure(count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
