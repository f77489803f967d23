"""A gate for resources that many processes share: at most so many requests in so much time.

`LockerServer` owns the time and the count, `LockerClient` asks it over ZeroMQ and hears "go" or
"sorry". `Locker` is the same gate within one process.
"""

from zmqlocker._exceptions import ConfigError, LockerError, LockTimeout, ProtocolError
from zmqlocker._zmqlocker import (
    Locker,
    LockerClient,
    LockerServer,
    __version__,
    has_curve,
    libzmq_version,
)

__all__ = [
    "ConfigError",
    "LockTimeout",
    "Locker",
    "LockerClient",
    "LockerError",
    "LockerServer",
    "ProtocolError",
    "__version__",
    "has_curve",
    "libzmq_version",
]
