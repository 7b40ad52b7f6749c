"""`ringfence demo`: a story of lateral movement through the whole chain in one process, on loopback, in seconds.

Leaves the configuration, the sensors' files and all results in a folder, to look at and to try the other commands on.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import socket
import sys
import urllib.request
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from ringfence import config
from ringfence.batch import Frames
from ringfence.cli import ledger as ledger_verb
from ringfence.cli.options import Subparsers
from ringfence.clock import SystemClock
from ringfence.config import Config
from ringfence.demo import exporters
from ringfence.demo.story import Scene, Storyteller
from ringfence.errors import ExitCode, Permanent
from ringfence.runtime import Options, Runtime, first_failure
from ringfence.telemetry import printable

DEFAULT_FOLDER = Path("demo-out")
CONFIG_FILE = "ringfence.yml"
MARK = "# written by `ringfence demo`"
MAX_WAIT_SECS = 30.0
_HOUR_US = 3_600 * 1_000_000
_BOOTED_US = _HOUR_US
_RECORDS_PER_DATAGRAM = 30


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "demo", help="see it work on a made-up network", description=__doc__, epilog="Example: ringfence demo --out demo-out"
    )
    verb.add_argument(
        "--out", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help=f"folder for everything (default: {DEFAULT_FOLDER})"
    )
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Tell the story and show what became of it."""
    out: Path = arguments.out
    ports = _free_ports()
    _prepare(out, ports)
    loaded = config.load(out / CONFIG_FILE)
    console = Console(highlight=False, soft_wrap=True)
    logging.getLogger("ringfence").setLevel(logging.WARNING)  # the story speaks for itself
    try:
        asyncio.run(_play(loaded, out, ports, console))
    except BaseExceptionGroup as failures:
        raise first_failure(failures) from None
    book = asyncio.run(ledger_verb.read(loaded))
    console.print("The ledger balances: nothing was lost." if not book.imbalance else f"The ledger is off by {book.imbalance}.")
    folder = printable(str(out))
    ringfence = printable(sys.argv[0]) if sys.argv[0].endswith("ringfence") else "ringfence"
    console.print(f"""
Look at it:
  {folder}/alerts.jsonl     what needs somebody's attention, one plain sentence each
  {folder}/detections.jsonl every row that a rule matched
  {folder}/boundary.jsonl   every boundary test: where, when, which boundary, who, verdict, evidence
  {folder}/events.jsonl     every event in ECS
  {folder}/dead.jsonl       what could not be decoded, and why
  {folder}/metrics.txt      what Prometheus would scrape
  {ringfence} ledger {folder}/{CONFIG_FILE}
  {ringfence} dlq list --config {folder}/{CONFIG_FILE}""")
    return ExitCode.FOUND if book.imbalance else ExitCode.OK


@dataclass(frozen=True, slots=True)
class _Ports:
    netflow: int
    syslog: int
    metrics: int


def _free_ports() -> _Ports:
    """Ports that nobody uses now."""
    kinds = (socket.SOCK_DGRAM, socket.SOCK_DGRAM, socket.SOCK_STREAM)
    sockets = [socket.socket(socket.AF_INET, kind) for kind in kinds]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return _Ports(*(each.getsockname()[1] for each in sockets))
    finally:
        for each in sockets:
            each.close()


def _prepare(out: Path, ports: _Ports) -> None:
    """An empty folder with the sensors' files and the configuration; only a folder of an earlier demo is emptied."""
    try:
        if out.exists() and any(out.iterdir()):
            mark = out / CONFIG_FILE
            if not mark.is_file() or not mark.read_text().startswith(MARK):
                raise Permanent(f"{out} is not empty and not of an earlier demo; choose another folder with --out")
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "eve.json").touch()
        (out / "pflog").write_bytes(exporters.PCAP_HEADER)
        (out / "topology.yml").write_text((files("ringfence.demo") / "topology.yml").read_text())
        (out / CONFIG_FILE).write_text(_configuration(ports))
    except OSError as error:
        raise Permanent(f"{error.filename or out} cannot be written: {error.strerror}") from None


def _configuration(ports: _Ports) -> str:
    return f"""{MARK}
bus: sqlite:bus
topology: topology.yml
rules: {{sigma: [bundled]}}
batching: {{max_delay_ms: 50}}
collectors:
  firewall: {{type: pflog, path: pflog, follow: true, observer: fw1}}
  router:   {{type: netflow, listen: "127.0.0.1:{ports.netflow}"}}
  hosts:    {{type: syslog, listen: "udp://127.0.0.1:{ports.syslog}"}}
  ids:      {{type: suricata, path: eve.json, follow: true, observer: ids1}}
sinks:
  files:    {{type: jsonl, path: .}}
  metrics:  {{type: prometheus, listen: "127.0.0.1:{ports.metrics}"}}
  summary:  {{type: terminal}}
"""


@dataclass
class _Arrivals:
    """Bytes that each collector has taken, against what was sent to it."""

    sent: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)

    def on_progress(self, name: str, frames: Frames) -> None:
        self.taken[name] += len(frames.data)

    @property
    def complete(self) -> bool:
        return all(self.taken[name] >= count for name, count in self.sent.items())


async def _play(loaded: Config, out: Path, ports: _Ports, console: Console) -> None:
    arrivals = _Arrivals()
    runtime = Runtime(loaded, Options(on_progress=arrivals.on_progress, is_last=True))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(runtime.run())
        sensors = _Sensors(out, ports, arrivals)
        try:
            await _either(runtime.listening(), running)
            for number, scene in enumerate(Storyteller(_last_full_hour(SystemClock().now())).scenes(), 1):
                console.print(f"[bold]Scene {number}[/bold] {scene.title}.")
                await sensors.send(scene)
            await _until_complete(arrivals, running)
            await _keep_metrics(ports, out, loaded)
        finally:
            sensors.close()
            runtime.stop()


def _last_full_hour(now_us: int) -> int:
    """The start of the hour before this one: windows of alerts begin with the hour, so the story is the same in every run."""
    return now_us // _HOUR_US * _HOUR_US - _HOUR_US


async def _either(wanted: Coroutine[None, None, None], running: asyncio.Task[None]) -> None:
    """Wait for something while the runtime runs; its failure ends the wait."""
    waiting = asyncio.ensure_future(wanted)
    await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()


async def _until_complete(arrivals: _Arrivals, running: asyncio.Task[None]) -> None:
    clock = SystemClock()
    until = clock.monotonic() + MAX_WAIT_SECS
    while not arrivals.complete and clock.monotonic() < until and not running.done():
        await clock.sleep(0.05)


async def _keep_metrics(ports: _Ports, out: Path, loaded: Config) -> None:
    """Wait until the boundary tests of the last scene are counted, then keep one scrape."""
    clock = SystemClock()
    url = f"http://127.0.0.1:{ports.metrics}/metrics"
    before = b""
    until = clock.monotonic() + MAX_WAIT_SECS
    while clock.monotonic() < until:
        await clock.sleep(0.5)
        now = await asyncio.to_thread(_fetch, url)
        tests = b"\n".join(line for line in now.splitlines() if line.startswith(b"ringfence_boundary_tests_total"))
        if tests and tests == before:
            (out / "metrics.txt").write_bytes(now)
            return
        before = tests


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  (our own loopback endpoint)
        return bytes(answer.read())


class _Sensors:
    """Sends what the sensors of a scene write: files grow, datagrams fly."""

    def __init__(self, out: Path, ports: _Ports, arrivals: _Arrivals) -> None:
        self._ports = ports
        self._arrivals = arrivals
        self._eve = (out / "eve.json").open("ab", buffering=0)
        self._pflog = (out / "pflog").open("ab", buffering=0)
        self._arrivals.sent["firewall"] += len(exporters.PCAP_HEADER)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sequence = 0

    async def send(self, scene: Scene) -> None:
        """Everything of one scene; pauses between datagrams so that the kernel keeps up on any machine."""
        for name, file, parts in (("firewall", self._pflog, scene.pflog), ("ids", self._eve, scene.eve)):
            data = b"".join(parts)
            file.write(data)
            self._arrivals.sent[name] += len(data)
        for line in scene.syslog:
            await self._datagram("hosts", line, self._ports.syslog)
        for start in range(0, len(scene.netflow), _RECORDS_PER_DATAGRAM // 2):
            talks = scene.netflow[start : start + _RECORDS_PER_DATAGRAM // 2]
            now_us = max(talk.end_us for talk in talks)
            datagram = exporters.netflow_v5(talks, self._sequence, now_us - _BOOTED_US, now_us)
            self._sequence += int.from_bytes(datagram[2:4], "big")
            await self._datagram("router", datagram, self._ports.netflow)
        if scene.broken_netflow:
            await self._datagram("router", scene.broken_netflow, self._ports.netflow)
        await asyncio.sleep(0.5)

    async def _datagram(self, name: str, data: bytes, port: int) -> None:
        self._socket.sendto(data, ("127.0.0.1", port))
        self._arrivals.sent[name] += len(data)
        await asyncio.sleep(0.002)

    def close(self) -> None:
        """Close files and socket."""
        self._eve.close()
        self._pflog.close()
        self._socket.close()
