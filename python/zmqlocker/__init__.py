"""A gate for resources that many processes share: so many requests in so much time, and locks.

`LockerServer` owns the time and the counts, `LockerClient` asks it over ZeroMQ. `Locker` is the
same gate within one process, `zmqlocker.asyncio` the client for event loops.
"""

from zmqlocker._client import LockerClient, Permit, Reservation
from zmqlocker._exceptions import (
    AuthError,
    BoundExceeded,
    ConfigError,
    CostTooLarge,
    DeadlockError,
    KindMismatch,
    LockerError,
    LockLost,
    LockTimeout,
    NotHeld,
    ProtocolError,
    ServerUnavailable,
)
from zmqlocker._fence import Fence
from zmqlocker._lease import LockHolder, LockInfo, LockWaiter, RwLock
from zmqlocker._lock import Lease, Lock
from zmqlocker._status import ClientInfo, KeyInfo, ServerStatus
from zmqlocker._zmqlocker import (
    Block,
    Decision,
    Limit,
    Locker,
    LockerServer,
    __version__,
    has_curve,
    libzmq_version,
)

__all__ = [
    "AuthError",
    "Block",
    "BoundExceeded",
    "ClientInfo",
    "ConfigError",
    "CostTooLarge",
    "DeadlockError",
    "Decision",
    "Fence",
    "KeyInfo",
    "KindMismatch",
    "Lease",
    "Limit",
    "Lock",
    "LockHolder",
    "LockInfo",
    "LockLost",
    "LockTimeout",
    "LockWaiter",
    "Locker",
    "LockerClient",
    "LockerError",
    "LockerServer",
    "NotHeld",
    "Permit",
    "ProtocolError",
    "Reservation",
    "RwLock",
    "ServerStatus",
    "ServerUnavailable",
    "__version__",
    "has_curve",
    "libzmq_version",
]
