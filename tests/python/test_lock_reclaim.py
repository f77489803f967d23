"""Locks over restarts of their server: holders hold on, whether anybody looks at them or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from zmqlocker import LockerClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Script

#: Serves from when it is told a line, until it is told another one.
SERVER = """
    import sys
    from zmqlocker import LockerServer
    url, folder = sys.argv[1:]
    sys.stdin.readline()
    with LockerServer(url=url, data_dir=folder, block=False) as server:
        print(server.url)
        sys.stdin.readline()
    print("stopped")
"""


@pytest.mark.parametrize("ending", ["killed", "stopped"])
def test_a_holder_at_whose_lease_nobody_looks_goes_on_over_a_restart(
    script: Callable[..., Script], tmp_path: Path, free_url: str, ending: str
) -> None:
    first, second = (script(SERVER, free_url, str(tmp_path)) for _ in range(2))
    first.tell()
    assert first.line() == free_url
    with LockerClient(free_url) as client, LockerClient(free_url) as other:
        lease = client.lock("held", ttl=1.0).acquire()
        before = other.lock("free").acquire()
        if ending == "killed":
            first.kill()
        else:
            first.tell()
            assert first.line() == "stopped"
        second.tell()
        assert second.line() == free_url
        # After a crash, this is granted when holders have had their time.
        after = other.lock("granted").acquire()
        held = {info.key: info.holders[0].token for info in other.locks()}
        assert held["held"] == lease.token
        assert lease.held
        assert before.token < after.token
        for one in [lease, before, after]:
            if one.held:
                one.release()
