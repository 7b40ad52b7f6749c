"""Matches Sigma rules on events and boundary tests: each rule that holds for a row makes one detection.

A detection carries the row's ends, host, account and process, the rule with its level and ATT&CK techniques, the fields
that matched, and the id of the row as evidence. Its own id is made of the rule's id and the evidence's, so a replay gives the
same detections.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.codec import time_span
from ringfence.component import BuildContext, Processed, Status
from ringfence.schema import build_frame, frame_schema, together
from ringfence.segments import SEGMENT_PARTS, SegmentMap
from ringfence.sigma import explain, fields
from ringfence.sigma.engine import Engine, Match
from ringfence.sigma.rules import Rule
from ringfence.sigma.ruleset import RuleSet
from ringfence.sigma.table import Coded, Table
from ringfence.telemetry import RULE_VALUES_CUT, RULES_SUSPENDED
from ringfence.topology import Topology

SEVERITIES: Mapping[str, int] = {"informational": 1, "low": 21, "medium": 47, "high": 73, "critical": 99}
"""The bands of Elastic's risk scale."""
MAX_FIELDS_BYTES = 8 * 1024
MAX_NAMED = 100
_NAMED: set[str] = set()
"""Rules that have a label of their own among those suspended."""
_OWN = frozenset({"rule.id", "rule.name", "event.severity", "ringfence.event.source", "ringfence.event.position"})
_COPIED = [
    name for name in frame_schema(EventClass.DETECTION)
    if name not in _OWN and not name.startswith(("ringfence.detection.", "ringfence.evidence.", "threat.")) and ".segment." not in name
]  # fmt: skip
_log = logging.getLogger(__name__)
_ENCODER = msgspec.json.Encoder()


class Sigma:
    """The rules of a set on batches of all classes."""

    def __init__(self, rules: RuleSet, topology: Topology) -> None:
        self._engines = {
            event_class: Engine(members, fields.is_text, _suspended) for event_class, members in rules.by_class.items()
        }
        self._segments = SegmentMap(topology)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with its detections beside it."""
        engine = self._engines.get(batch.header.event_class)
        if engine is None or not batch.frame.height:
            return Processed(batch)
        table = fields.table_of(batch, self._coded(batch.frame))
        matches = engine.match(table)
        RULE_VALUES_CUT.inc(table.budget.cut)
        if not matches:
            return Processed(batch)
        frame = together([_detections(match, batch, table) for match in matches])
        low, high = time_span(frame)
        header = replace(batch.header, event_class=EventClass.DETECTION, rows=frame.height, time_min_us=low, time_max_us=high)
        return Processed(batch, {bus.DETECTIONS: [Batch(header, frame)]})

    def _coded(self, frame: pl.DataFrame) -> Mapping[str, Coded]:
        """The names of segments and what else is known of them, by the codes in a frame."""
        sides = [side for side in ("source", "destination") if f"{side}.segment.code" in frame.columns]
        codes = {side: frame[f"{side}.segment.code"].to_numpy().astype(np.uint16) for side in sides}
        return {
            f"{side}.segment.{part}": Coded(self._segments.texts(part), codes[side]) for side in sides for part in SEGMENT_PARTS
        }


def _suspended(rule: Rule) -> None:
    """Count and name a rule that is left out from now on."""
    if len(_NAMED) < MAX_NAMED:
        _NAMED.add(rule.id)
    RULES_SUSPENDED.labels(rule.id if rule.id in _NAMED else "other").inc()
    _log.error(
        "rule %s (%s, %s:%d) is suspended until rules are read again: it took more than its time for a batch",
        rule.id, rule.title, rule.path, rule.line,
    )  # fmt: skip


def _detections(match: Match, batch: Batch, table: Table) -> pl.DataFrame:
    """One row for each row that a rule matched."""
    rule, rows = match.rule, match.rows
    found = batch.frame[pl.Series(rows.astype(np.uint32))]
    columns: dict[str, Any] = {name: found[name] for name in found.columns if name in _COPIED or ".segment." in name}
    columns = {name: values for name, values in columns.items() if not name.endswith(".segment.code")}
    columns |= {
        name: coded.values.gather(pl.Series(coded.codes[rows].astype(np.uint32))) for name, coded in table.coded.items()
    }
    count = len(rows)
    source = found["ringfence.event.source"].to_numpy()
    columns |= {
        "ringfence.event.source": pl.Series(source ^ _id_of(rule)),
        "ringfence.event.position": found["ringfence.event.position"],
        "ringfence.evidence.source": pl.Series(source),
        "ringfence.evidence.position": found["ringfence.event.position"],
        "ringfence.evidence.class": _same(str(batch.header.event_class), count),
        "ringfence.evidence.module": _same(batch.header.module, count),
        "rule.id": _same(rule.id, count),
        "rule.name": _same(rule.title, count),
        "event.severity": pl.Series([SEVERITIES.get(rule.level, 1)]).new_from_index(0, count),
        "ringfence.detection.kind": _same("sigma", count),
        "ringfence.detection.level": _same(rule.level, count),
        "ringfence.detection.fields": pl.Series(_matched(rule, table, rows.tolist()), dtype=pl.String),
    }
    if techniques := techniques_of(rule.tags):
        columns["threat.technique.id"] = _same(",".join(techniques), count)
    return build_frame(EventClass.DETECTION, columns)


def techniques_of(tags: Sequence[str]) -> list[str]:
    """ATT&CK techniques among the tags of a rule: `attack.t1021.002` is T1021.002."""
    return [tag.removeprefix("attack.").upper() for tag in tags if tag.startswith("attack.t") and tag[8:9].isdigit()]


def _matched(rule: Rule, table: Table, rows: Sequence[int]) -> list[str]:
    """The fields that matched; without those that would make it longer than MAX_FIELDS_BYTES."""
    fields_at = explain.fields(rule.condition, table)
    return [_fitting(fields_at(row)) for row in rows]


def _fitting(values: Mapping[str, Any]) -> str:
    text = _ENCODER.encode(values)
    while len(text) > MAX_FIELDS_BYTES:
        longest = max(values, key=lambda name: len(str(values[name])))
        values = {name: value for name, value in values.items() if name != longest}
        text = _ENCODER.encode(values)
    return text.decode()


def _id_of(rule: Rule) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(rule.id.encode(), digest_size=8).digest(), "big"))


def _same(text: str, count: int) -> pl.Series:
    return pl.Series([text]).new_from_index(0, count)


class Settings(BaseModel):
    """No options: the rules are those of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SigmaKind:
    """Entry point `sigma`."""

    settings = Settings
    promise = "pure: one detection per rule and row, with the same id in every replay"
    status: Status = "experimental"
    event_classes = frozenset(EventClass) - {EventClass.DEAD, EventClass.DETECTION}

    def build(self, settings: Settings, context: BuildContext) -> Sigma:
        """Make the processor for the rules in force."""
        return Sigma(context.rules, context.topology)


KIND = SigmaKind()
