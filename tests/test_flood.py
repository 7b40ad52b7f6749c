"""A flood of UDP far above what a whole pipeline can take: what was sent is stored, dead or counted as dropped, exactly."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from collectors import udp
from ringfence import config, ledger
from ringfence.ledger import Counts
from ringfence.runtime import Options, Runtime, bus_of, groups_of
from tests.collectors import flooding
from tests.eve_lines import topology_file

pytestmark = [
    pytest.mark.net,
    pytest.mark.long,
    pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux tells drops (SO_RXQ_OVFL)"),
]

LONG = os.environ.get("RINGFENCE_LONG") == "1"
SECS = 20.0 if LONG else 0.8
BUFFER_BYTES = 8192
PATIENCE_SECS = 60
CONFIG = """
bus: sqlite:bus
topology: topology.yml
batching: {{max_delay_ms: 20}}
collectors:
  flooded: {{type: {kind}, listen: "{listen}"}}
sinks:
  files: {{type: jsonl, path: out}}
"""
ROWS = {"syslog": 1, "netflow": flooding.RECORDS}
"""Rows of each datagram that can be decoded."""


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def flood(runtime: Runtime, kind: str, port: int, out: Path) -> int:
    """Let a process flood the port, then send until the kernel has told all its drops; returns how many were sent."""
    running = asyncio.ensure_future(runtime.run())
    await runtime.listening()
    command = [sys.executable, "-m", "tests.collectors.flooding", str(port), kind, str(SECS)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    sent = int(said)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(2 * PATIENCE_SECS):
            # the count of drops comes with the next datagram that is queued: one that is stored has brought it
            sender.sendto(b"the last one", ("127.0.0.1", port))
            sent += 1
            await asyncio.sleep(0.5)
            if (out / "dead.jsonl").is_file() and b"the last one" in (out / "dead.jsonl").read_bytes():
                break
    runtime.stop()
    await running
    return sent


@pytest.mark.parametrize("kind", ["syslog", "netflow"])
def test_in_a_flood_every_datagram_is_stored_dead_or_counted_as_dropped(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(listener: socket.socket, wanted_bytes: int) -> None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)

    monkeypatch.setattr(udp, "_raise_buffer", small)
    topology_file(tmp_path)
    port = free_port()
    listen = f"udp://127.0.0.1:{port}" if kind == "syslog" else f"127.0.0.1:{port}"
    path = tmp_path / "ringfence.yml"
    path.write_text(CONFIG.format(kind=kind, listen=listen))
    loaded = config.load(path)

    sent = asyncio.run(flood(Runtime(loaded, Options(handle_signals=False)), kind, port, tmp_path / "out"))
    book = asyncio.run(read_ledger(loaded))
    counts: Counts = book.components["ringfence.collect.flooded"]
    stored, dead = lines(tmp_path / "out/events.jsonl"), lines(tmp_path / "out/dead.jsonl")
    sys.stdout.write(f"{kind}: {sent} sent = {stored // ROWS[kind]} stored + {dead} dead + {counts.shed} dropped\n")

    assert book.imbalance == 0
    assert counts.shed > counts.received
    assert counts.dead == dead > 0
    assert stored % ROWS[kind] == 0
    assert sent == stored // ROWS[kind] + dead + counts.shed


async def read_ledger(loaded: config.Config) -> ledger.Ledger:
    engine = bus_of(loaded)
    await engine.open()
    try:
        return await ledger.read(engine, groups_of(loaded))
    finally:
        await engine.close()


def lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for line in file if json.loads(line))
