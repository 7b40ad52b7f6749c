"""Sends the datagrams of a corpus over loopback: `python -m bench.sender PORT FILE VERSION RECORDS_PER_SEC`; prints how many.

At RECORDS_PER_SEC 0 it waits for nothing. It stays off the core that the receiver is pinned to where there is another. The
corpus is sent until SECS are over, once at least; a datagram that is none of the protocol says that it was the last.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from collectors import ipfix, netflow, netflow_v9
from ringfence.component import Framer

SECS = 1.0
RECORDS = {"v5": 30, "v9": 24, "ipfix": 24}
BURST = 16
END = b"end"
_FRAMERS: dict[str, Callable[[], Framer]] = {"v5": netflow.NetflowFramer, "v9": netflow_v9.V9Framer, "ipfix": ipfix.IpfixFramer}


def main(port: int, path: Path, version: str, records_per_sec: int) -> None:
    """Send."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0))
    framer = _FRAMERS[version]()
    parts = [data[a:b] for data, bounds in (framer.cut(path.read_bytes()), framer.finish()) for a, b in pairwise(bounds)]
    pause = BURST * RECORDS[version] / records_per_sec if records_per_sec else 0.0
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        started = due = time.monotonic()
        while time.monotonic() < started + SECS or sent < len(parts):
            for number in range(sent, sent + BURST):
                sender.send(parts[number % len(parts)])
            sent += BURST
            due += pause
            while time.monotonic() < due:
                pass  # sleeping is too coarse for so many a second
        for _ in range(20):  # where the buffer is full still, some of these are dropped
            time.sleep(0.05)
            try:
                sender.send(END)
            except ConnectionRefusedError:
                break  # one came, and the receiver has gone
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
