"""What zmqlocker raises.

    LockerError
    ├── LockTimeout         also a TimeoutError
    ├── ServerUnavailable   also a ConnectionError
    ├── CostTooLarge
    ├── KindMismatch
    ├── NotHeld
    ├── DeadlockError
    ├── LockLost
    ├── BoundExceeded
    ├── AuthError
    ├── ConfigError         also a ValueError
    └── ProtocolError

A refusal is not an exception: it is the answer "sorry", or a decision that is not allowed.
"""


class LockerError(Exception):
    """The root of all errors of zmqlocker."""


class LockTimeout(LockerError, TimeoutError):
    """The caller's timeout ran out before the permits were granted, or an answer came."""


class ServerUnavailable(LockerError, ConnectionError):
    """No server answered within the caller's timeout."""


class CostTooLarge(LockerError):
    """The cost is above the limit: the request could never be allowed."""


class KindMismatch(LockerError):
    """The key has limits of another kind than the call is for."""


class NotHeld(LockerError):
    """What was to be given back is not held, or not any more."""


class LockLost(LockerError):
    """A lock is not held any more, though it was not released: others may have it by now."""


class DeadlockError(LockerError):
    """The wait closed a cycle of waits in which nobody could go on; the message tells the cycle."""


class BoundExceeded(LockerError):
    """A bound of the server is reached; the message names it."""


class AuthError(LockerError):
    """A key is missing or wrong, or has no right to what was asked; the message says which."""


class ConfigError(LockerError, ValueError):
    """An argument that does not work; the message names it, its bounds and what was given."""


class ProtocolError(LockerError):
    """Something answered that is no zmqlocker server."""


class Forgotten(LockerError):
    """The server let a waiter's place go because it was silent: the client asks again by itself."""
