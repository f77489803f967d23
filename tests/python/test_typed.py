"""The types that users meet: checked by mypy, and run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqlocker import Locker, LockerClient, LockerServer, has_curve, libzmq_version

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: object, _: object) -> object:
        return value


def test_the_answers_have_types() -> None:
    locker = Locker(max_requests=2, in_seconds=60)
    assert_type(locker.next(), str)
    assert_type(next(iter(locker)), str)
    with LockerServer(1, 60.0, url="tcp://127.0.0.1:*", block=False, patience=0.0) as server:
        assert_type(server, LockerServer)
        assert_type(server.url, str)
        assert_type(server.stats(), dict[str, int])
        with LockerClient([server.url], timeout=10) as client:
            assert_type(client, LockerClient)
            assert_type(client.next(), str)
            assert_type(client.next(timeout=None), str)
    assert_type(libzmq_version(), str)
    assert_type(has_curve(), bool)
