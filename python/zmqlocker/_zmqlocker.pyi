from typing import Final, SupportsFloat, SupportsIndex

from _typeshed import SupportsGetItem
from typing_extensions import Self, disjoint_base

__all__ = [
    "Locker",
    "LockerClient",
    "LockerServer",
    "__version__",
    "has_curve",
    "libzmq_version",
    "run_command",
]

__version__: Final[str]

@disjoint_base
class Locker:
    def __iter__(self, /) -> Locker: ...
    def __new__(
        cls, /, max_requests: SupportsIndex = ..., in_seconds: SupportsFloat | SupportsIndex = ...
    ) -> Self: ...
    def __next__(self, /) -> str: ...
    def next(self, /) -> str: ...

@disjoint_base
class LockerClient:
    def __enter__(self, /) -> Self: ...
    def __exit__(self, /, *exception: object) -> None: ...
    def __new__(
        cls,
        /,
        url: str | list[str] | tuple[str, ...] = ...,
        *,
        timeout: SupportsFloat | SupportsIndex | None = None,
    ) -> Self: ...
    def close(self, /) -> None: ...
    def next(self, /, *, timeout: SupportsFloat | SupportsIndex | None = ...) -> str: ...

@disjoint_base
class LockerServer:
    def __enter__(self, /) -> Self: ...
    def __exit__(self, /, *exception: object) -> None: ...
    def __new__(
        cls,
        /,
        max_requests: SupportsIndex = ...,
        in_seconds: SupportsFloat | SupportsIndex = ...,
        url: str = "tcp://*:7777",
        *,
        block: bool = True,
        patience: SupportsFloat | SupportsIndex = ...,
    ) -> Self: ...
    def stats(self, /) -> dict[str, int]: ...
    def stop(self, /) -> None: ...
    @property
    def url(self, /) -> str: ...

def has_curve() -> bool: ...
def libzmq_version() -> str: ...
def run_command(
    program: SupportsGetItem[int, str], arguments: SupportsGetItem[int, str]
) -> int: ...
