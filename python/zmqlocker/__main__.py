"""The command `zmqlocker`, also as `python -m zmqlocker`."""

import signal
import sys

from zmqlocker._zmqlocker import run_command


def main() -> int:
    """Run the command line and return its exit status."""
    # The command is Rust: Ctrl-C and a closed pipe end it as they end any program of the system.
    # Whoever starts a process in the background may have it ignore Ctrl-C, and that stays.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return run_command([sys.executable, "-m", "zmqlocker"], sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
