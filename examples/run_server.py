"""Serves at most 5 requests in 0.8 seconds, on port 7777."""

from zmqlocker import LockerServer

svr = LockerServer(max_requests=5, in_seconds=0.8)
