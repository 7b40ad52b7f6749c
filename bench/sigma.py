"""What Sigma rules cost: process creations from JSON to matches, and the processors on a mixed stream of ringfence's own events."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from bench.columnar import Chain, byte_blocks, line_blocks, one_batch
from bench.processes import ALL
from processors.sigma import Sigma
from ringfence import bus, rulesets, topology
from ringfence.batch import Batch, EventClass, Micros
from ringfence.sigma import rules, ruleset
from ringfence.sigma.engine import Engine
from ringfence.sigma.plain import Reader
from ringfence.sigma.ruleset import RuleSet
from ringfence.sigma.tree import (
    And,
    Exists,
    Node,
    Not,
    Or,
    Reference,
    Regex,
    Shape,
    Text,
    Wildcard,
    fold,
    shape_of,
)

BLOCK_LINES = 10_000
MIXED_ROWS = 20_000
Work = Callable[[], tuple[int, dict[str, int]]]
Test = Callable[[dict[str, Any]], bool]


def from_json(count: int, folder: Path) -> Work:
    """Lines of process creations to the rows of each rule."""
    loaded = rules.load([folder / f"sigma-{count}"]).rules
    engine, reader = Engine(loaded), Reader(loaded)
    blocks = [block.splitlines(keepends=True) for block in line_blocks(folder / f"processes-{count}.json", BLOCK_LINES)]

    def work() -> tuple[int, dict[str, int]]:
        hits: Counter[str] = Counter()
        for block in blocks:
            hits.update({match.rule.id: len(match.rows) for match in engine.match(reader.read(block).table)})
        return sum(map(len, blocks)), dict(hits)

    return work


def per_event(count: int, folder: Path) -> Work:
    """The same by a dict for each line and a closure for each part of a condition."""
    tests = [(rule.id, _closure(rule.condition)) for rule in rules.load([folder / f"sigma-{count}"]).rules]
    lines = (folder / f"processes-{count}.json").read_bytes().splitlines()

    def work() -> tuple[int, dict[str, int]]:
        hits: Counter[str] = Counter()
        for line in lines:
            event = msgspec.json.decode(line)
            event = {**event, **{name.lower(): value.lower() for name, value in event.items()}}
            hits.update(name for name, test in tests if test(event))
        return len(lines), dict(hits)

    return work


def _closure(node: Node) -> Test:
    """Fields by their name hold text as it is, by their name in lower case the text in lower case."""
    match node:
        case And(children):
            every = [_closure(child) for child in children]
            return lambda event: all(test(event) for test in every)
        case Or(children):
            some = [_closure(child) for child in children]
            return lambda event: any(test(event) for test in some)
        case Not(child):
            opposite = _closure(child)
            return lambda event: not opposite(event)
        case Exists(field):
            return lambda event: field in event
        case Reference(field, other):
            one, two = field.lower(), other.lower()
            return lambda event: one in event and event[one] == event.get(two)
        case Regex(field, pattern) if field is not None:
            search = re.compile(pattern).search
            return lambda event: field in event and search(event[field]) is not None
        case Text():
            return _text(node)
        case _:
            raise TypeError(f"the per-event code does not know {node}")


def _text(leaf: Text) -> Test:
    shape, literal = shape_of(leaf.parts)
    field, literal = (leaf.field, literal) if leaf.cased else (leaf.field.lower(), fold(literal))
    match shape:
        case Shape.EQUALS:
            return lambda event: event.get(field) == literal
        case Shape.STARTS:
            return lambda event: field in event and event[field].startswith(literal)
        case Shape.ENDS:
            return lambda event: field in event and event[field].endswith(literal)
        case Shape.CONTAINS:
            return lambda event: field in event and literal in event[field]
        case _:
            wild = (".*" if part is Wildcard.MANY else "." if part is Wildcard.ONE else re.escape(part) for part in leaf.parts)
            matches = re.compile("".join(wild), re.DOTALL if leaf.cased else re.DOTALL | re.IGNORECASE).fullmatch
            return lambda event: field in event and matches(event[field]) is not None


def mixed(paths: Callable[[Path], Path], folder: Path) -> Work:
    """Segments, boundaries and rules on events that are decoded already, and the rules on the boundary tests that come of them."""
    streams = list(_streams(folder))
    batches = [batch for _, step in streams for batch in step]
    judge = streams[0][0]
    processor = Sigma(_rules(paths(folder)), topology.load(folder / "topology.yml"))

    def work() -> tuple[int, dict[str, int]]:
        judge.restart()
        hits = sum(_hits(processor, part) for batch in batches for part in _judged(judge, batch))
        return sum(batch.frame.height for batch in batches), {"detections": hits}

    return work


def rows_of(event_class: EventClass, folder: Path) -> Work:
    """The bundled rules alone, on NetFlow or on the boundary tests that come of it."""
    chain_of, step = _netflow(folder)
    parts = [part for batch in step for part in _judged(chain_of, batch) if part.header.event_class is event_class]
    processor = Sigma(_rules(rulesets.BUNDLED), topology.load(folder / "topology.yml"))

    def work() -> tuple[int, dict[str, int]]:
        hits = sum(_hits(processor, part) for part in parts)
        return sum(part.frame.height for part in parts), {"detections": hits}

    return work


def bundled(folder: Path) -> Path:
    """The bundled rules."""
    return rulesets.BUNDLED


def whole(folder: Path) -> Path:
    """Every rule of SigmaHQ."""
    return folder / ALL


def _rules(path: Path) -> RuleSet:
    return ruleset.load([rulesets.located(path, "sigma")], {})


def _streams(folder: Path) -> Iterator[tuple[Chain, list[Batch]]]:
    """The same number of rows of each kind of source."""
    yield _netflow(folder)
    for collector, file, name in (
        ("suricata", "eve.json", ""),
        ("syslog", "syslog.log", "syslog"),
        ("beats", "beats.ndjson", ""),
    ):
        yield _taken(
            Chain(collector, folder, BLOCK_LINES, name), line_blocks(folder / file, BLOCK_LINES)[: MIXED_ROWS // BLOCK_LINES]
        )
    yield _taken(Chain("pflog", folder, BLOCK_LINES), byte_blocks(folder / "pflog.pcap", 3 << 20)[:1])


def _netflow(folder: Path) -> tuple[Chain, list[Batch]]:
    size = BLOCK_LINES // 30 * (24 + 30 * 48)
    return _taken(
        Chain("netflow", folder, BLOCK_LINES, "netflow-v5"),
        byte_blocks(folder / "netflow.v5", size)[: MIXED_ROWS // BLOCK_LINES],
    )


def _taken(source: Chain, blocks: Sequence[bytes]) -> tuple[Chain, list[Batch]]:
    return source, list(chain.from_iterable(source.steps(blocks)))


def _judged(judge: Chain, batch: Batch) -> Iterator[Batch]:
    events, tests = judge.judged(batch)
    yield events
    yield from one_batch(tests)


def _hits(processor: Sigma, batch: Batch) -> int:
    made = processor.process(batch, Micros(0)).outputs.get(bus.DETECTIONS, ())
    return sum(part.frame.height for part in made)
