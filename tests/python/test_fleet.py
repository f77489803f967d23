"""Many processes that ask one server: never too many "go" in a slot.

`python tests/python/test_fleet.py 60` does it for a minute and prints what it saw.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from operator import itemgetter

from zmqlocker import LockerClient, LockerServer

PROCESSES = 20
MAX_REQUESTS = 5
IN_SECONDS = 0.8

#: Asks as fast as an honest client would in need, and prints what the monotonic clock of this
#: machine said before and after each "go".
CLIENT = """
import sys, time
from zmqlocker import LockerClient
url, seconds = sys.argv[1], float(sys.argv[2])
sorry = 0
with LockerClient(url) as client:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        before = time.monotonic_ns()
        if client.next() == "go":
            print(before, time.monotonic_ns())
        else:
            sorry += 1
        time.sleep(0.01)
print("sorry", sorry)
"""


def run_fleet(seconds: float) -> tuple[list[tuple[int, int]], int]:
    """Every "go" as the instants before and after it, in order; and how many heard "sorry"."""
    with LockerServer(MAX_REQUESTS, IN_SECONDS, "tcp://127.0.0.1:*", block=False) as server:
        # The first slot opened with the server, and is used up before it is measured.
        with LockerClient(server.url) as first:
            assert [first.next() for _ in range(MAX_REQUESTS)] == ["go"] * MAX_REQUESTS
        command = [sys.executable, "-c", CLIENT, server.url, str(seconds)]
        clients = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
        ]
        lines = [
            line.split() for client in clients for line in client.communicate()[0].splitlines()
        ]
        assert [client.returncode for client in clients] == [0] * PROCESSES
        sorry = sum(int(count) for word, count in lines if word == "sorry")
        go = [(int(before), int(after)) for before, after in lines if before != "sorry"]
        stats = server.stats()
        assert [stats["go"], stats["sorry"]] == [len(go) + MAX_REQUESTS, sorry]
        assert [stats["bad_messages"], stats["waiting"]] == [0, 0]
    return sorted(go, key=itemgetter(1)), sorry


def check(go: list[tuple[int, int]]) -> None:
    """Every slot is used up at once, so each five "go" are a slot, and slots are so far apart.

    A "go" was given at some instant between the two that its client noted. The first of a slot was
    given after the earliest "before" and before the earliest "after" of the slot.
    """
    slots = [go[start : start + MAX_REQUESTS] for start in range(0, len(go), MAX_REQUESTS)]
    for slot, later in itertools.pairwise(slots):
        opened = min(before for before, _ in slot)
        opened_later = min(after for _, after in later)
        assert opened_later - opened > IN_SECONDS * 1e9


def test_twenty_processes_never_get_more_than_a_slot_has() -> None:
    seconds = 5.0
    go, sorry = run_fleet(seconds)
    check(go)
    assert sorry > len(go)
    # At the most one slot more than fit, and every slot is used.
    slots = seconds / IN_SECONDS
    assert len(go) <= MAX_REQUESTS * (slots + 2)
    assert len(go) >= MAX_REQUESTS * (slots - 2)


if __name__ == "__main__":
    began = time.monotonic()
    all_go, all_sorry = run_fleet(float(sys.argv[1]))
    check(all_go)
    print(
        f"{PROCESSES} processes, {time.monotonic() - began:.0f} s: {len(all_go)} go in slots of "
        f"{MAX_REQUESTS}, {all_sorry} sorry; no slot with more"
    )
