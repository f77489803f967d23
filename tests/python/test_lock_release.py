"""What becomes of a release, and what a lease tells of its end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
import zmqlocker.asyncio
from conftest import PATIENCE
from zmqlocker import LockerClient, LockerServer, LockLost, NotHeld, ServerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Script

HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[LockerServer]:
    with LockerServer(url="tcp://127.0.0.1:*", block=False) as server:
        yield server


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_a_release_waits_no_longer_than_the_lease_lasts(
    server: LockerServer, timeout: float | None
) -> None:
    with LockerClient(server.url, timeout=timeout) as client:
        lease = client.lock("a", ttl=1.0).acquire()
        server.stop()
        began = time.monotonic()
        lease.release()
        assert time.monotonic() - began < PATIENCE / 2
        assert (lease.held, lease.lost) == (False, False)
        with pytest.raises(NotHeld, match="was released"):
            lease.release()


def test_a_release_on_a_loop_waits_no_longer_than_the_lease_lasts(server: LockerServer) -> None:
    async def main() -> None:
        async with zmqlocker.asyncio.LockerClient(server.url, timeout=None) as client:
            lease = await client.lock("a", ttl=1.0).acquire()
            await asyncio.to_thread(server.stop)
            await asyncio.wait_for(lease.release(), PATIENCE)
            assert not lease.held
            assert not lease.lost

    asyncio.run(main())


def test_a_release_of_a_lease_that_lasts_says_that_no_server_has_it(server: LockerServer) -> None:
    with LockerClient(server.url, timeout=0.2) as client:
        lease = client.lock("a", ttl=HOUR).acquire()
        server.stop()
        with pytest.raises(ServerUnavailable):
            lease.release()
        assert not lease.held


def test_a_lease_tells_that_its_client_was_closed(server: LockerServer) -> None:
    with LockerClient(server.url) as client:
        lease = client.lock("a", ttl=HOUR).acquire()
    with pytest.raises(LockLost, match="'a' was given back when its client was closed: others may"):
        lease.check()
    with pytest.raises(NotHeld, match="was given back when its client was closed"):
        lease.release()


def test_a_forked_child_is_told_that_the_lease_is_its_parent_s(
    server: LockerServer, script: Callable[..., Script]
) -> None:
    program = script(
        """
        import os, sys
        from zmqlocker import LockerClient, LockLost
        client = LockerClient(sys.argv[1])
        with client.lock("a", ttl=3600.0) as lease:
            child = os.fork()
            if not child:
                try:
                    lease.check()
                except LockLost as error:
                    print(error, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
            lease.check()
            print("held")
        """,
        server.url,
    )
    assert program.line() == "the lease of 'a' is the parent's: a forked child holds nothing"
    assert program.line() == "held"
    assert program.finish() == (0, "", "")
