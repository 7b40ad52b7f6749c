"""`ringfence rules backtest RULES... --events FILE... --topology T`: what rules would have found, before they are put in force.

Runs the files through the whole chain, as `ringfence replay` does, but leaves nothing behind: one row for each rule that
found something, with its detections, the alerts that people would have seen, the sources, and the time of the first and the
last. Rules that found nothing are named with --json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from rich.table import Table as Grid

from ringfence import bus, registry, topology
from ringfence.cli import ledger as ledger_verb
from ringfence.cli import replay
from ringfence.cli.options import add_year, counted, say
from ringfence.console import show
from ringfence.detections import SEVERITIES
from ringfence.errors import ExitCode, Retryable
from ringfence.rulesets import Rules
from ringfence.telemetry import printable
from ringfence.yara.rules import finding_of

MAX_SOURCES = 10_000
"""Sources of one rule that are told apart; a count of so many is shown as `10,000+`."""


class _Named(msgspec.Struct):
    id: str
    name: str = ""


class _State(msgspec.Struct):
    """Of a detection or alert; `status` of alerts only, `new` in the first record of each."""

    level: str = ""
    status: str = ""


class _Member(msgspec.Struct):
    detection: _State = msgspec.field(default_factory=_State)
    alert: _State = msgspec.field(default_factory=_State)


class _Source(msgspec.Struct):
    ip: str | None = None


class _Record(msgspec.Struct):
    """What is read of a line of detections.jsonl or alerts.jsonl."""

    at: str = msgspec.field(name="@timestamp")
    ringfence: _Member
    rule: _Named | None = None
    source: _Source = msgspec.field(default_factory=_Source)


class Found(msgspec.Struct):
    """What one rule found. Times are RFC 3339, None where it found nothing."""

    id: str
    title: str
    level: str
    detections: int = 0
    alerts: int = 0
    sources: set[str] = msgspec.field(default_factory=set)
    first: str | None = None
    last: str | None = None

    @property
    def source_count(self) -> str:
        """How many sources, as text."""
        return f"{len(self.sources):,}" + ("+" if len(self.sources) >= MAX_SOURCES else "")

    def add(self, record: _Record) -> None:
        """Take the time and the source of a detection or alert."""
        self.first = min(self.first or record.at, record.at)
        self.last = max(self.last or record.at, record.at)
        if record.source.ip is not None and len(self.sources) < MAX_SOURCES:
            self.sources.add(record.source.ip)


def declare(action: argparse.ArgumentParser) -> None:
    """The options beside the rules."""
    action.add_argument(
        "--events", nargs="+", required=True, type=Path, metavar="FILE", dest="files", help="files that sensors recorded"
    )
    action.add_argument("--topology", type=Path, required=True, metavar="T", help="topology file with segments and intents")
    action.add_argument("--format", choices=sorted(registry.formats()), help="format of all files (default: recognised)")
    action.add_argument("--exceptions", type=Path, metavar="FILE", help="file of exceptions: detections that make no alert")
    action.add_argument("--json", action="store_true", help="one JSON document a line, one for each rule in force")
    add_year(action)
    action.set_defaults(run=run, speed=None, bus=None, original="drop")


def run(arguments: argparse.Namespace) -> int:
    """Replay into a folder that goes away, and tell what became of each rule."""
    loaded = topology.load(arguments.topology)
    with TemporaryDirectory(prefix="ringfence-backtest-") as folder:
        arguments.out = Path(folder)
        done = replay.through(arguments, loaded, ("detections", "alerts"))
        if done.was_stopped:
            raise Retryable("stopped before the end; nothing is kept of a backtest")
        book = asyncio.run(ledger_verb.read(done.config))
        rules = done.config.rules
        found = _found(Path(folder), rules)
    events, dead = (
        sum(counts.written.get(topic, 0) for counts in book.components.values()) for topic in (bus.EVENTS, bus.DEAD)
    )
    if arguments.json:
        for each in found:
            say(json.dumps({**msgspec.structs.asdict(each), "sources": len(each.sources)}))
    else:
        _print(each for each in found if each.first)
    for refusal in rules.refusals:
        sys.stderr.write(printable(str(refusal)) + "\n")
    useful = sum(bool(each.detections) for each in found)
    sys.stderr.write(
        f"{counted(rules.count, 'rule')} in force, {len(rules.refusals):,} refused; {useful:,} found something"
        f" in {counted(events, 'event')}, {counted(dead, 'dead letter')}\n"
    )
    return ExitCode.OK


def _found(folder: Path, rules: Rules) -> list[Found]:
    """The rules in force, and what makes alerts of several, highest level and most alerts first."""
    found = {each.id: each for each in _in_force(rules)}
    decode = msgspec.json.Decoder(_Record).decode
    for name in ("detections", "alerts"):
        for record in map(decode, _lines(folder / f"{name}.jsonl")):
            if record.rule is None:
                continue  # what a detector saw: what rules make of it has its own line
            level = record.ringfence.detection.level or record.ringfence.alert.level
            each = found.setdefault(record.rule.id, Found(record.rule.id, record.rule.name, level))
            each.detections += name == "detections"
            each.alerts += record.ringfence.alert.status == "new"
            each.add(record)
    return sorted(found.values(), key=lambda each: (-SEVERITIES.get(each.level, 0), -each.alerts, -each.detections, each.id))


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _in_force(rules: Rules) -> Iterator[Found]:
    """Those that make detections of their own."""
    for members in rules.sigma.by_class.values():
        yield from (Found(rule.id, rule.title, rule.level) for rule in members if rule.is_reported)
    yield from (Found(each.id, each.title, each.level) for each in rules.sigma.correlations if each.is_reported)
    for finding in map(finding_of, rules.yara.rules):
        yield Found(finding.id, finding.name, finding.level)


def _print(found: Iterator[Found]) -> None:
    grid = Grid("level", "title", "detections", "alerts", "sources", "first", "last", "id", box=None)
    for each in found:
        grid.add_row(
            each.level, printable(each.title), f"{each.detections:,}", f"{each.alerts:,}", each.source_count,
            _minute(each.first), _minute(each.last), printable(each.id),
        )  # fmt: skip
    show(grid)


def _minute(at: str | None) -> str:
    return (at or "")[:16].replace("T", " ")
