"""A process that is fed the same logs for a long time, which rotate as it reads: its memory stays where it was.

The short form feeds 80,000 lines; RINGFENCE_LONG=1 feeds 6,000,000.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from statistics import median

import pytest

from tests.cli.command import command, ringfence
from tests.eve_lines import flow, topology_file

pytestmark = [pytest.mark.net, pytest.mark.long]

LONG = os.environ.get("RINGFENCE_LONG") == "1"
LINES = 6_000_000 if LONG else 80_000
ROUND = 2_000
"""Lines that are appended to each log at a time."""
AHEAD = 10 * ROUND
"""How far the writer may be ahead of the reader; far less than what the files that are kept hold."""
ROTATE_BYTES = 16 << 20
KEPT = 3
GROWTH_MB = 48 if LONG else 96
"""From the first third to the last; a short run has its warm-up in the first. In a long one, a row of ten that is not freed
would be far more."""
PATIENCE_SECS = 60
CONFIG = """
bus: sqlite:bus
topology: topology.yml
collectors:
  ids: {{type: suricata, path: eve.json}}
  hosts: {{type: syslog, path: auth.log}}
sinks:
  metrics: {{type: prometheus, listen: "127.0.0.1:{port}"}}
"""
SYSLOG = Path(__file__).parent / "collectors/cases/syslog/sshd_outcomes_without_pri/input.log"


class Log:
    """A log that is appended to and rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.touch()

    def append(self, data: bytes) -> None:
        with self._path.open("ab") as file:
            file.write(data)
            size = file.tell()
        if size > ROTATE_BYTES:
            for number in range(KEPT, 0, -1):
                old = Path(f"{self._path}.{number}")
                if old.exists():
                    old.rename(f"{self._path}.{number + 1}")
            Path(f"{self._path}.{KEPT + 1}").unlink(missing_ok=True)
            self._path.rename(f"{self._path}.1")
            self._path.touch()


def connection(serial: int) -> bytes:
    return flow(serial, f"10.1.{serial % 200}.{serial % 250}", port=443 if serial % 3 else 22)


def metrics(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def value(text: str, name: str) -> int:
    return sum(int(float(found)) for found in re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE))


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def fed(folder: Path, port: int, process: subprocess.Popen[bytes]) -> list[float]:
    """Feed everything and wait until it is processed; returns the memory after each round."""
    eve, hosts = Log(folder / "eve.json"), Log(folder / "auth.log")
    said = SYSLOG.read_bytes().splitlines(keepends=True)
    while not metrics(port):
        assert process.poll() is None, "the process has ended"
        time.sleep(0.05)
    sizes, written, received, heard = [], 0, 0, time.monotonic()
    while written < LINES or received < written:
        assert process.poll() is None, "the process has ended"
        if written < LINES and written - received < AHEAD:
            eve.append(b"".join(connection(serial) for serial in range(written, written + ROUND)))
            hosts.append(b"".join(said[serial % len(said)] for serial in range(ROUND)))
            written += 2 * ROUND
            sizes.append(resident_mb(process.pid))
        else:
            time.sleep(0.05)
        before, received = received, value(metrics(port), "ringfence_events_received_total")
        heard = heard if received == before else time.monotonic()
        assert time.monotonic() - heard < PATIENCE_SECS, "nothing is received any more"
    return sizes


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc, which this system has not")
def test_memory_stays_flat_over_a_long_run(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    topology_file(tmp_path)
    config = tmp_path / "ringfence.yml"
    config.write_text(CONFIG.format(port=port))
    process = subprocess.Popen(command("run", config), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        sizes = fed(tmp_path, port, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE_SECS)
    finally:
        process.kill()
        process.communicate()
    third = len(sizes) // 3
    # the first third fills what is bounded: look-ups, the memory of crossings, pools of the allocator
    middle, last = median(sizes[third : 2 * third]), median(sizes[-third:])
    growth = last - middle
    print(f"{len(sizes)} rounds: {sizes[0]:.0f} MB, then {middle:.0f}, then {last:.0f}")  # noqa: T201

    assert process.returncode == 0, errors.decode()
    assert json.loads(ringfence("ledger", config, "--json").out)["imbalance"] == 0
    assert growth < GROWTH_MB, f"{sizes}"
