"""Asks a hundred times for permission, ten times a second."""

import time

from zmqlocker import LockerClient

if __name__ == "__main__":
    locker_cli = LockerClient()
    for _ in range(100):
        print(time.time(), locker_cli.next())
        time.sleep(0.1)
