"""What zmqlocker raises.

    LockerError
    ├── LockTimeout     also a TimeoutError
    ├── ConfigError     also a ValueError
    └── ProtocolError

A refusal is not an exception: it is the answer "sorry".
"""


class LockerError(Exception):
    """The root of all errors of zmqlocker."""


class LockTimeout(LockerError, TimeoutError):  # noqa: N818  the name that users know
    """The caller's timeout ran out before an answer came."""


class ConfigError(LockerError, ValueError):
    """An argument that does not work; the message names it, its bounds and what was given."""


class ProtocolError(LockerError):
    """Something answered that is no zmqlocker server."""
