"""A permit that was lost stays lost, and one that was not is not said to be."""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from conftest import PATIENCE
from zmqlocker import LockerClient, LockerServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script

#: Holds a permit and tells, whenever it is asked, whether it has it still.
HOLDER = """
    import sys
    from zmqlocker import LockerClient
    with LockerClient(sys.argv[1]) as client, client.limit("seat", timeout=30.0) as permit:
        print("held")
        for _ in sys.stdin:
            print(permit.lost)
"""


@pytest.fixture
def server() -> Iterator[LockerServer]:
    limits: dict[str, Any] = {"seat": "1 at once"}
    with LockerServer(url="tcp://127.0.0.1:*", limits=limits, block=False) as server:
        yield server


def test_who_was_stopped_for_too_long_does_not_believe_to_hold_again_what_others_hold(
    server: LockerServer, script: Callable[..., Script]
) -> None:
    holder = script(HOLDER, server.url)
    assert holder.line() == "held"
    holder.stop()
    with LockerClient(server.url) as client, client.limit("seat", timeout=PATIENCE):
        holder.process.send_signal(signal.SIGCONT)
        # The holder's client speaks with the server before anybody asks for the permit: more than
        # one of its beats is sent and answered.
        time.sleep(0.7)
        holder.tell()
        assert holder.line() == "True"


@pytest.mark.parametrize("wait", [0.3, 0.9])
def test_who_has_waited_for_a_permit_is_not_told_that_it_is_lost(
    server: LockerServer, wait: float
) -> None:
    with LockerClient(server.url) as first, LockerClient(server.url) as second:
        held = first.limit("seat")
        held.__enter__()
        threading.Timer(wait, held.__exit__).start()
        with second.limit("seat", timeout=PATIENCE) as permit:
            for _ in range(100):
                time.sleep(0.01)
                assert not permit.lost
