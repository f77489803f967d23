from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Final, SupportsFloat, SupportsIndex, final

from _typeshed import SupportsGetItem
from typing_extensions import Self, disjoint_base

__all__ = [
    "Block",
    "Decision",
    "EventLoopClient",
    "Held",
    "Limit",
    "LockWish",
    "Locker",
    "LockerClient",
    "LockerServer",
    "__version__",
    "has_curve",
    "libzmq_version",
    "run_command",
]

__version__: Final[str]

@final
class Block:
    def __enter__(self, /) -> Block: ...
    def __exit__(self, /, *exception: object) -> None: ...
    def __new__(cls, /, client: LockerClient, key: str) -> Block: ...
    def _allowed(self, /) -> Decision: ...
    def _spend(self, /, cost: SupportsIndex) -> Any | None: ...
    def acquire(
        self, /, cost: SupportsIndex = ..., *, timeout: SupportsFloat | SupportsIndex | None = ...
    ) -> Decision: ...
    def close(self, /) -> None: ...
    @property
    def key(self, /) -> str: ...
    @property
    def left(self, /) -> int: ...
    def next(self, /) -> str: ...
    def try_acquire(
        self, /, cost: SupportsIndex = ..., *, timeout: SupportsFloat | SupportsIndex | None = ...
    ) -> Decision: ...

@final
class Decision:
    def __bool__(self, /) -> bool: ...
    @property
    def allowed(self, /) -> bool: ...
    @property
    def key(self, /) -> str: ...
    @property
    def limit(self, /) -> str: ...
    @property
    def policy(self, /) -> str | None: ...
    @property
    def remaining(self, /) -> int: ...
    @property
    def reset_after(self, /) -> float: ...
    @property
    def retry_after(self, /) -> float | None: ...

@final
class EventLoopClient:
    def __new__(cls, /, client: LockerClient) -> EventLoopClient: ...
    def abandon(self, /, exception: Any) -> None: ...
    def acquire(
        self,
        /,
        future: Any,
        wait: bool,
        key: Any,
        cost: SupportsIndex | None,
        timeout: object,
        on_failure: str | None,
        left: SupportsFloat | SupportsIndex | None = None,
    ) -> int: ...
    def break_lock(
        self, /, future: Any, key: str, token: SupportsIndex | None, timeout: object
    ) -> int: ...
    def collect(self, /) -> None: ...
    def commit(
        self, /, future: Any, held: Held, spent: SupportsGetItem[int, SupportsIndex]
    ) -> int: ...
    def decline(self, /, requests: SupportsGetItem[int, SupportsIndex]) -> None: ...
    def fileno(self, /) -> int: ...
    def freeze(
        self, /, future: Any, key: str, seconds: SupportsFloat | SupportsIndex, timeout: object
    ) -> int: ...
    def hold(
        self,
        /,
        future: Any,
        key: Any,
        cost: SupportsIndex | None,
        ttl: SupportsFloat | SupportsIndex | None,
        timeout: object,
        on_failure: str | None,
        left: SupportsFloat | SupportsIndex | None = None,
    ) -> int: ...
    def lock(
        self,
        /,
        future: Any,
        wish: LockWish,
        actor: SupportsIndex,
        wait: bool,
        timeout: object,
        left: SupportsFloat | SupportsIndex | None = None,
    ) -> int: ...
    def look(self, /, future: Any, what: str, start: SupportsIndex, timeout: object) -> int: ...
    def next(self, /, future: Any, key: Any | None, timeout: object) -> int: ...
    def peek(
        self, /, future: Any, key: str, cost: SupportsIndex | None, timeout: object
    ) -> int: ...
    def poll_timeout(self, /) -> float | None: ...
    def refill(
        self, /, future: Any, block: Block, wanted: SupportsIndex, timeout: object
    ) -> int: ...
    def release(self, /, future: Any, held: Held) -> int: ...
    def reset(self, /, future: Any, key: str, timeout: object) -> int: ...
    def set_limits(
        self,
        /,
        future: Any,
        key: str,
        limits: str | Limit | Sequence[str | Limit],
        timeout: SupportsFloat | SupportsIndex | None,
    ) -> int: ...
    def settle(self, /, requests: SupportsGetItem[int, SupportsIndex]) -> None: ...

@final
class Held:
    @property
    def decision(self, /) -> Decision: ...
    @property
    def given_back(self, /) -> bool: ...
    @property
    def is_closed(self, /) -> bool: ...
    @property
    def is_ours(self, /) -> bool: ...
    def let_go(self, /) -> None: ...
    @property
    def parts(self, /) -> list[tuple[str, int]]: ...
    @property
    def remaining(self, /) -> float: ...
    def spend(self, /) -> None: ...
    @property
    def token(self, /) -> int | None: ...
    @property
    def tokens(self, /) -> list[tuple[str, int]]: ...
    def wait_lost(self, /) -> bool: ...

@final
class Limit:
    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...
    def __ne__(self, value: object, /) -> bool: ...
    def __new__(
        cls,
        /,
        max_requests: SupportsIndex,
        in_seconds: SupportsFloat | SupportsIndex,
        *,
        algorithm: str = "fixed_window",
        burst: SupportsIndex | None = None,
        shadow: bool = False,
    ) -> Limit: ...
    @property
    def algorithm(self, /) -> str: ...
    @property
    def burst(self, /) -> int | None: ...
    @classmethod
    def concurrency(cls, /, at_once: SupportsIndex, *, shadow: bool = False) -> Limit: ...
    @property
    def in_seconds(self, /) -> float | None: ...
    @property
    def max_requests(self, /) -> int: ...
    @classmethod
    def parse(cls, /, text: str) -> Limit: ...
    @property
    def shadow(self, /) -> bool: ...

@final
class LockWish:
    def __new__(
        cls,
        /,
        keys: SupportsGetItem[int, str],
        mode: str,
        *,
        size: SupportsIndex,
        cost: SupportsIndex,
        ttl: SupportsFloat | SupportsIndex,
        max_hold: SupportsFloat | SupportsIndex | None,
        renew: bool,
        timeout: object,
    ) -> LockWish: ...
    @property
    def keys(self, /) -> list[str]: ...
    @property
    def renew(self, /) -> bool: ...

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
        name: str = "",
        timeout: SupportsFloat | SupportsIndex | None = ...,
        on_failure: str = "raise",
        share: str | Limit | Sequence[str | Limit] | None = None,
        server_key: str | PathLike[str] | None = None,
        key_file: str | PathLike[str] | None = None,
    ) -> Self: ...
    def _give_back(
        self, /, held: Held, spent: SupportsGetItem[int, SupportsIndex] | None = None
    ) -> None: ...
    def _hold(
        self,
        /,
        key: str | dict[str, int],
        cost: SupportsIndex | None = None,
        *,
        ttl: SupportsFloat | SupportsIndex | None = None,
        timeout: SupportsFloat | SupportsIndex | None = ...,
        on_failure: str | None = None,
    ) -> Held: ...
    def _lock(
        self,
        /,
        wish: LockWish,
        actor: SupportsIndex,
        wait: bool,
        timeout: SupportsFloat | SupportsIndex | None = ...,
    ) -> Held | None: ...
    def _look(
        self,
        /,
        what: str,
        start: SupportsIndex,
        timeout: SupportsFloat | SupportsIndex | None = ...,
    ) -> Any: ...
    def acquire(
        self,
        /,
        key: str | dict[str, int],
        cost: SupportsIndex | None = None,
        *,
        timeout: SupportsFloat | SupportsIndex | None = ...,
        on_failure: str | None = None,
    ) -> Decision: ...
    def break_lock(
        self,
        /,
        key: str,
        *,
        token: SupportsIndex | None = None,
        timeout: SupportsFloat | SupportsIndex | None = ...,
    ) -> None: ...
    def close(self, /) -> None: ...
    @property
    def default_timeout(self, /) -> float | None: ...
    def freeze(
        self,
        /,
        key: str,
        seconds: SupportsFloat | SupportsIndex,
        *,
        timeout: SupportsFloat | SupportsIndex | None = ...,
    ) -> None: ...
    def next(
        self, /, key: Any | None = None, *, timeout: SupportsFloat | SupportsIndex | None = ...
    ) -> str: ...
    def peek(
        self,
        /,
        key: str,
        cost: SupportsIndex | None = None,
        *,
        timeout: SupportsFloat | SupportsIndex | None = ...,
    ) -> Decision: ...
    def reset(
        self, /, key: str, *, timeout: SupportsFloat | SupportsIndex | None = ...
    ) -> None: ...
    def set_limits(
        self,
        /,
        key: str,
        limits: str | Limit | Sequence[str | Limit],
        *,
        timeout: SupportsFloat | SupportsIndex | None = ...,
    ) -> None: ...
    def stats(self, /) -> dict[str, Any]: ...
    def try_acquire(
        self,
        /,
        key: str | dict[str, int],
        cost: SupportsIndex | None = None,
        *,
        timeout: SupportsFloat | SupportsIndex | None = ...,
        on_failure: str | None = None,
    ) -> Decision: ...
    def try_acquire_many(
        self,
        /,
        keys: Iterable[str | dict[str, int]],
        *,
        timeout: SupportsFloat | SupportsIndex | None = ...,
        on_failure: str | None = None,
    ) -> list[Decision]: ...

@disjoint_base
class LockerServer:
    def __enter__(self, /) -> Self: ...
    def __exit__(self, /, *exception: object) -> None: ...
    def __new__(
        cls,
        /,
        max_requests: SupportsIndex = ...,
        in_seconds: SupportsFloat | SupportsIndex = ...,
        url: str = ...,
        *,
        limits: Mapping[str, str | Limit | Sequence[str | Limit]] | None = None,
        config: str | PathLike[str] | None = None,
        block: bool = True,
        patience: SupportsFloat | SupportsIndex = ...,
        data_dir: str | PathLike[str] | None = None,
        bounds: dict[str, int] | None = None,
        curve_key: str | PathLike[str] | None = None,
        clients: str | PathLike[str] | None = None,
        metrics: str | None = None,
        registry: str | None = None,
        name: str | None = None,
        advertise: str | None = None,
        peers: Sequence[str] | None = None,
        peers_url: str | None = None,
    ) -> Self: ...
    @property
    def metrics_url(self, /) -> str | None: ...
    def reload(self, /) -> None: ...
    def stats(self, /) -> dict[str, int]: ...
    def stop(self, /) -> None: ...
    @property
    def url(self, /) -> str: ...

def has_curve() -> bool: ...
def libzmq_version() -> str: ...
def run_command(
    program: SupportsGetItem[int, str], arguments: SupportsGetItem[int, str]
) -> int: ...
