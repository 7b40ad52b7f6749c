"""Suricata EVE lines for tests, one connection each."""

from __future__ import annotations

import json
from pathlib import Path

TOPOLOGY = """
default_intent: deny
segments:
  users: {tenant: a, networks: [10.1.0.0/16]}
  servers: {tenant: b, networks: [10.2.0.0/16]}
services: {https: tcp/443}
intents:
  - {from: users, to: servers, allow: [https]}
"""


def flow(serial: int, source: str = "10.1.0.5", destination: str = "10.2.0.9", port: int = 443, answered: bool = True) -> bytes:
    """A flow record that carries a serial number in flow_id."""
    second, micro = divmod(serial, 1_000_000)
    at = f"2026-11-25T07:44:{second % 60:02d}.{micro:06d}+0000"
    back = 4 if answered else 0
    record = {
        "timestamp": at, "flow_id": serial, "event_type": "flow", "src_ip": source, "src_port": 40_000, "dest_ip": destination, "dest_port": port,
        "proto": "TCP", "flow": {"pkts_toserver": 5, "pkts_toclient": back, "bytes_toserver": 400, "bytes_toclient": back * 100, "start": at, "end": at},
        "tcp": {"tcp_flags_ts": "1b" if answered else "02", "tcp_flags_tc": "1b" if answered else "00"},
    }  # fmt: skip
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def topology_file(folder: Path) -> Path:
    """A topology of two segments, users and servers, that allows https from the first to the second."""
    path = folder / "topology.yml"
    path.write_text(TOPOLOGY)
    return path
