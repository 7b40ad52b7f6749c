"""Floods a UDP port as fast as one process can: `python -m tests.collectors.flooding PORT WHAT SECS`; prints datagrams sent.

WHAT is `syslog` or `netflow` (v5, RECORDS in each). One datagram of BROKEN_EVERY cannot be decoded.
"""

from __future__ import annotations

import socket
import sys
import time

from tests.collectors.encode_netflow import Export, Flow

RECORDS = 3
BROKEN_EVERY = 40
_BATCH = 200


def syslog(number: int) -> bytes:
    """An RFC 5424 message; some have a priority that there is none of."""
    priority = 999 if number % BROKEN_EVERY == 0 else 134
    return b"<%d>1 2026-11-25T07:44:23.%06dZ host app %d - - message %d" % (priority, number % 1_000_000, number % 1000, number)


def netflow(number: int) -> bytes:
    """A datagram of NetFlow v5; some say that they hold one record more than they do."""
    whole = Export(sequence=number * RECORDS).encode([Flow()] * RECORDS)
    return whole[:-48] if number % BROKEN_EVERY == 0 else whole


def main(port: int, what: str, secs: float) -> None:
    """Send until the time is over."""
    make = {"syslog": syslog, "netflow": netflow}[what]
    prepared = [make(number) for number in range(20_000)]
    sent = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        until = time.monotonic() + secs
        while time.monotonic() < until:
            for number in range(sent, sent + _BATCH):
                sender.send(prepared[number % len(prepared)])
            sent += _BATCH
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
