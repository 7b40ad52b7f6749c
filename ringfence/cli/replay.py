"""`ringfence replay FILE...`: run files through the whole chain, as if they arrived now.

Leaves events.jsonl, boundary.jsonl, detections.jsonl, alerts.jsonl, dead.jsonl and summary.json in the output folder. Files
are read one after the other, so the same input gives the same output. With --speed they are read side by side, each event at
its time. Interrupted or killed, the same command goes on where it stopped, losing and repeating nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ringfence import bus, registry, rulesets, topology
from ringfence.batch import Frames
from ringfence.batching import Batching
from ringfence.bus import BusSettings
from ringfence.cli import ledger as ledger_verb
from ringfence.cli.options import Subparsers, add_placeholders, add_year, counted, placeholders_of, year_of
from ringfence.clock import Clock, SystemClock
from ringfence.component import BuildContext, Collector, Decoder, Format
from ringfence.config import Config
from ringfence.errors import ExitCode, Permanent, Retryable
from ringfence.pace import Pace
from ringfence.runtime import Options, Runtime, bus_of
from ringfence.stages import SINK_STATE
from ringfence.summary import Summary
from ringfence.telemetry import printable
from ringfence.topology import Topology

SUMMARY_FILE = "summary.json"
DETECTIONS_FILE = "detections.jsonl"
SORTED_BYTES = 64 << 20
"""Sorted in memory at once."""
BUS_FOLDER = ".bus"
FILES = ("events", "boundary", "detections", "alerts", "dead")
SLOWEST, FASTEST = 0.001, 1_000_000
_RECOGNISE_BYTES = 64 * 1024


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "replay",
        help="run files through the whole chain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: ringfence replay eve.json pflog.pcap --topology topology.yml --out result",
    )
    verb.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="files to read; the format is recognised, or named by --format"
    )
    verb.add_argument("--topology", type=Path, required=True, metavar="T", help="topology file with segments and intents")
    verb.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the results; made when it is not there"
    )
    verb.add_argument("--format", choices=sorted(registry.formats()), help="format of all files")
    verb.add_argument(
        "--rules",
        type=Path,
        action="append",
        default=[],
        metavar="RULES",
        help="Sigma and YARA files, or folders of them, to match, or `bundled`; may be given several times",
    )
    add_placeholders(verb)
    verb.add_argument("--exceptions", type=Path, metavar="FILE", help="file of exceptions: detections that make no alert")
    add_year(verb)
    verb.add_argument("--bus", default=None, metavar="URL", help="bus to run on (default: an embedded one in DIR)")
    verb.add_argument(
        "--original",
        choices=("keep", "drop"),
        default="drop",
        help="keep each line as it arrived in event.original (default: drop)",
    )
    verb.add_argument(
        "--speed", type=_speed, metavar="N",
        help="N times as fast as it was recorded, by the times of the events (default: as fast as possible)",
    )  # fmt: skip
    verb.add_argument("--json", action="store_true", help="print summary.json instead of the matrix")
    verb.set_defaults(run=run)


def _speed(text: str) -> float:
    speed = float(text)
    if not SLOWEST <= speed <= FASTEST:
        raise argparse.ArgumentTypeError(f"{text} is not between {SLOWEST} and {FASTEST:,}")
    return speed


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    path: Path
    format: Format
    year: int

    def collector(self, pace: Pace | None) -> Collector:
        """A collector that reads the file to its end."""
        shell = (
            registry.load("shells", "tail")(self.path, self.format.framer, False)
            if pace is None
            else registry.load("shells", "paced")(self.name, self.path, self.format.framer, self.decoder, pace)
        )
        return Collector(self.format.module, shell, self.decoder())

    def decoder(self) -> Decoder:
        """A decoder for the file."""
        return self.format.decoder(self.year)


def run(arguments: argparse.Namespace) -> int:
    """Replay, and leave the results."""
    out: Path = arguments.out
    if arguments.bus == "memory:":
        raise Permanent(
            "a replay needs a bus that outlives a crash; leave --bus out, or give it sqlite:PATH or kafka://HOST:PORT"
        )
    if (out / SUMMARY_FILE).exists():
        raise Permanent(f"{out} holds the result of a finished replay; choose another folder, or remove it")
    loaded = topology.load(arguments.topology)
    run = through(arguments, loaded, FILES)
    if run.was_stopped:
        raise Retryable("stopped before the end; the same command goes on from here")
    put_in_order(out / DETECTIONS_FILE)
    summary, told = asyncio.run(_summary(run.config, run.inputs))
    text = json.dumps(summary, indent=2) + "\n"
    (out / SUMMARY_FILE).write_text(text)
    if arguments.bus is None:
        shutil.rmtree(out / BUS_FOLDER, ignore_errors=True)
    if arguments.json:
        sys.stdout.write(text)
    else:
        _print(summary, told, loaded, out)
    return ExitCode.OK


class Run(NamedTuple):
    """What went through the chain, as it was set up; `was_stopped` before its end."""

    config: Config
    inputs: Sequence[_Input]
    was_stopped: bool


def through(arguments: argparse.Namespace, loaded: Topology, names: Sequence[str]) -> Run:
    """Run files through the chain into some of FILES. Takes the arguments that add() declares."""
    inputs = [_input(index, path, arguments) for index, path in enumerate(arguments.files)]
    for path in arguments.rules:
        if path != rulesets.BUNDLED and not path.exists():
            raise Permanent(f"rules {path} are not there; accepted: files of Sigma or YARA rules, or folders of them")
    clock = SystemClock()
    pace = None if arguments.speed is None else Pace(arguments.speed, [entry.name for entry in inputs], clock)
    config = _config(arguments, inputs, loaded, names, pace)
    asyncio.run(bus_of(config).create_topics())  # they are this replay's own
    with _progress(inputs, pace) as on_progress:
        was_stopped = asyncio.run(_run(config, Options(one_by_one=pace is None, on_progress=on_progress), clock))
    if pace is not None and pace.late_secs:
        sys.stderr.write(f"this speed could not be kept: the replay ended {pace.late_secs:.1f} s late\n")
    return Run(config, inputs, was_stopped)


def put_in_order(path: Path) -> None:
    """Sort the lines of a file, so by time first: how batches were cut, which an interruption changes, must not show.

    The length stays, so a replay that is killed behind this goes on as if it had been killed before.
    """
    if not path.exists():
        return
    with ExitStack() as stack:
        source = stack.enter_context(path.open("rb"))
        runs = []
        while lines := source.readlines(SORTED_BYTES):
            run = stack.enter_context(TemporaryFile(dir=path.parent))
            run.writelines(sorted(lines))
            run.seek(0)
            runs.append(run)
        target = stack.enter_context(NamedTemporaryFile(dir=path.parent, delete=False))
        target.writelines(heapq.merge(*runs))
        target.flush()
        os.fsync(target.fileno())
        Path(target.name).replace(path)


async def _run(config: Config, options: Options, clock: Clock) -> bool:
    runtime = Runtime(config, options, clock)
    await runtime.run()
    return runtime.was_stopped


def _input(index: int, path: Path, arguments: argparse.Namespace) -> _Input:
    try:
        with path.open("rb") as stream:
            first, year = stream.read(_RECOGNISE_BYTES), year_of(stream, arguments.year)
    except OSError as error:
        raise Permanent(f"{path} cannot be read: {error.strerror}") from None
    known = registry.formats()
    found = known[arguments.format] if arguments.format else registry.recognise(first)
    if found is None:
        raise Permanent(
            f"the format of {path} is not recognised by its first bytes; name it with --format ({', '.join(sorted(known))})"
        )
    return _Input(f"{index}-{path.name}", path, found, year)


def _config(
    arguments: argparse.Namespace, inputs: Sequence[_Input], loaded: Topology, names: Sequence[str], pace: Pace | None
) -> Config:
    out: Path = arguments.out
    jsonl = registry.load("sinks", "jsonl")
    terminal = registry.load("sinks", "terminal")
    sinks: dict[str, Callable[[], Any]] = {
        name: _sink(jsonl, {"path": out, "topics": [name], "original": arguments.original}, name, loaded) for name in names
    }
    sinks["summary"] = _sink(terminal, {"output": "none"}, "summary", loaded)
    rule_files = rulesets.files_at(arguments.rules, arguments.exceptions, placeholders_of(arguments))
    return Config(
        bus_url=_bus_url(arguments.bus, out),
        bus=BusSettings(retention_bytes=0, partitions=1),
        topology_file=None,
        topology=loaded,
        batching=Batching(),
        collectors={entry.name: partial(entry.collector, pace) for entry in inputs},
        sinks=sinks,
        rule_files=rule_files,
        rules=rule_files.load(),
    )


def _bus_url(named: str | None, out: Path) -> str:
    """An embedded bus in the output folder; on Kafka, topics of this replay's own unless the URL names some."""
    if named is None:
        return f"sqlite:{out / BUS_FOLDER}"
    if named.startswith("kafka:") and named.count("/") == 2:
        own = hashlib.blake2b(str(out.absolute()).encode(), digest_size=4).hexdigest()
        return f"{named}/ringfence-replay-{own}"
    return named


def _sink(kind: Any, settings: dict[str, Any], name: str, loaded: Topology) -> Callable[[], Any]:
    checked = kind.settings(**settings)
    return lambda: kind.build(checked, BuildContext(name, loaded))


class _progress:  # noqa: N801  (a context manager that reads as a verb)
    """A progress bar over the bytes of all files, on a terminal only; at a pace, it tells which time is reached instead of
    guessing from bytes how long the rest takes."""

    def __init__(self, inputs: Sequence[_Input], pace: Pace | None) -> None:
        guesses = () if pace else (TransferSpeedColumn(), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), *guesses)
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._total = sum(entry.path.stat().st_size for entry in inputs)
        self._reached: dict[str, int] = {}
        self._pace = pace

    def __enter__(self) -> Callable[[str, Frames], None]:
        self._bar.start()
        self._task = self._bar.add_task("replay", total=self._total)
        return self._on_progress

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def _on_progress(self, name: str, frames: Frames) -> None:
        """What was read of a file, in this run and before it."""
        self._reached[name] = max(self._reached.get(name, 0), reached(frames))
        self._bar.update(self._task, completed=sum(self._reached.values()), description=printable(self._description(name)))

    def _description(self, name: str) -> str:
        if self._pace is None or self._pace.reached_us is None:
            return name
        return f"{datetime.fromtimestamp(self._pace.reached_us / 1_000_000, UTC):%Y-%m-%d %H:%M:%S}"


def reached(frames: Frames) -> int:
    """How much of its file was read with these frames."""
    return int(frames.positions[-1]) + int(frames.offsets[-1] - frames.offsets[-2]) if len(frames) else 0


async def _summary(config: Config, inputs: Sequence[_Input]) -> tuple[dict[str, Any], Summary]:
    engine = bus_of(config)
    try:
        await engine.open()
        states = await engine.states()
    finally:
        await engine.close()
    kept = states.get("ringfence.sink.summary", {})
    told = Summary.decode(next((value for key, value in kept.items() if key.partition("@")[0] == SINK_STATE), b""))
    book = await ledger_verb.read(config)
    events, boundary, detections, records, dead = (
        sum(counts.written.get(topic, 0) for counts in book.components.values())
        for topic in (bus.EVENTS, bus.BOUNDARY, bus.DETECTIONS, bus.ALERTS, bus.DEAD)
    )
    summary: dict[str, Any] = {
        "files": [
            {"path": str(entry.path), "format": entry.format.name, "bytes": entry.path.stat().st_size} for entry in inputs
        ],
        "events": events,
        "boundary_tests": boundary,
        "merged": sum(counts.merged for counts in book.components.values()),
        "rules": config.rules.count,
        "detections": detections,
        "alerts": told.alerts.count,
        "alert_records": records,
        "excepted": {name: count for counts in book.components.values() for name, count in counts.excepted.items()},
        "dead": dead,
        **told.matrix.as_json(),
        "ledger": ledger_verb.as_json(book),
    }
    return summary, told


def _print(summary: dict[str, Any], told: Summary, loaded: Topology, out: Path) -> None:
    console = Console()
    told.print(console, list(loaded.segments))
    words = [("events", "event"), ("boundary_tests", "boundary test"), ("dead", "dead letter")]
    if summary["rules"]:
        words[2:2] = [("detections", "detection"), ("alerts", "alert")]
    made = ", ".join(counted(summary[key], word) for key, word in words)
    balance = (
        "the ledger balances"
        if not summary["ledger"]["imbalance"]
        else f"the ledger is off by {summary['ledger']['imbalance']:,}"
    )
    if summary["merged"]:
        made += f", {summary['merged']:,} merged"
    console.print(f"{made}; {balance}. Results are in {printable(str(out))}.", highlight=False, soft_wrap=True)
