"""`ringfence replay FILE...`: run files through the whole chain, as if they arrived now.

Leaves events.jsonl, boundary.jsonl, detections.jsonl, alerts.jsonl, dead.jsonl and summary.json in the output folder. Files are
read one after the other, so the same input gives the same output. Interrupted or killed, the same command goes on where it stopped, losing and
repeating nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ringfence import bus, registry, topology
from ringfence.batching import Batching
from ringfence.bus import BusSettings
from ringfence.cli import ledger as ledger_verb
from ringfence.cli.options import Subparsers, add_year, counted, year_of
from ringfence.component import BuildContext, Collector, Format
from ringfence.config import Config, RuleFiles
from ringfence.errors import ExitCode, Permanent, Retryable
from ringfence.runtime import Options, Runtime, bus_of
from ringfence.sigma import ruleset
from ringfence.stages import SINK_STATE
from ringfence.summary import Summary
from ringfence.telemetry import printable
from ringfence.topology import Topology

SUMMARY_FILE = "summary.json"
BUS_FOLDER = ".bus"
FILES = ("events", "boundary", "detections", "alerts", "dead")
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
        help="Sigma files, or folders of them, to match, or `bundled`; may be given several times",
    )
    verb.add_argument("--exceptions", type=Path, metavar="FILE", help="file of exceptions: detections that make no alert")
    add_year(verb)
    verb.add_argument("--bus", default=None, metavar="URL", help="bus to run on (default: an embedded one in DIR)")
    verb.add_argument(
        "--original",
        choices=("keep", "drop"),
        default="drop",
        help="keep each line as it arrived in event.original (default: drop)",
    )
    verb.add_argument("--json", action="store_true", help="print summary.json instead of the matrix")
    verb.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class _Input:
    path: Path
    format: Format
    year: int

    def collector(self) -> Collector:
        """A collector that reads the file to its end."""
        shell = registry.load("shells", "tail")(self.path, self.format.framer, False)
        return Collector(self.format.module, shell, self.format.decoder(self.year))


def run(arguments: argparse.Namespace) -> int:
    """Replay, and leave the results."""
    loaded = topology.load(arguments.topology)
    inputs = [_input(path, arguments) for path in arguments.files]
    out: Path = arguments.out
    if arguments.bus == "memory:":
        raise Permanent(
            "a replay needs a bus that outlives a crash; leave --bus out, or give it sqlite:PATH or kafka://HOST:PORT"
        )
    for path in arguments.rules:
        if not ruleset.located(path).exists():
            raise Permanent(f"--rules {path} is not there; accepted: Sigma files, or folders of them")
    if (out / SUMMARY_FILE).exists():
        raise Permanent(f"{out} holds the result of a finished replay; choose another folder, or remove it")
    config = _config(arguments, inputs, loaded, out)
    asyncio.run(bus_of(config).create_topics())  # they are this replay's own
    with _progress(inputs) as on_progress:
        was_stopped = asyncio.run(_run(config, on_progress))
    if was_stopped:
        raise Retryable("stopped before the end; the same command goes on from here")
    summary, told = asyncio.run(_summary(config, inputs))
    text = json.dumps(summary, indent=2) + "\n"
    (out / SUMMARY_FILE).write_text(text)
    if arguments.bus is None:
        shutil.rmtree(out / BUS_FOLDER, ignore_errors=True)
    if arguments.json:
        sys.stdout.write(text)
    else:
        _print(summary, told, loaded, out)
    return ExitCode.OK


async def _run(config: Config, on_progress: Callable[[str, int], None]) -> bool:
    runtime = Runtime(config, Options(one_by_one=True, on_progress=on_progress))
    await runtime.run()
    return runtime.was_stopped


def _input(path: Path, arguments: argparse.Namespace) -> _Input:
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
    return _Input(path, found, year)


def _config(arguments: argparse.Namespace, inputs: Sequence[_Input], loaded: Topology, out: Path) -> Config:
    jsonl = registry.load("sinks", "jsonl")
    terminal = registry.load("sinks", "terminal")
    sinks: dict[str, Callable[[], Any]] = {
        name: _sink(jsonl, {"path": out, "topics": [name], "original": arguments.original}, name, loaded) for name in FILES
    }
    sinks["summary"] = _sink(terminal, {"output": "none"}, "summary", loaded)
    rule_files = RuleFiles(sigma=list(map(ruleset.located, arguments.rules)), exceptions=arguments.exceptions)
    return Config(
        bus_url=_bus_url(arguments.bus, out),
        bus=BusSettings(retention_bytes=0, partitions=1),
        topology_file=None,
        topology=loaded,
        batching=Batching(),
        collectors={f"{index}-{entry.path.name}": entry.collector for index, entry in enumerate(inputs)},
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
    """A progress bar over the bytes of all files, on a terminal only."""

    def __init__(self, inputs: Sequence[_Input]) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
        self._total = sum(entry.path.stat().st_size for entry in inputs)

    def __enter__(self) -> Callable[[str, int], None]:
        self._bar.start()
        task = self._bar.add_task("replay", total=self._total)
        return lambda name, count: self._bar.update(task, advance=count, description=printable(name))

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()


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
