"""Matches Sigma rules on events and boundary tests: each rule that holds for a row makes one detection.

A detection carries the row's ends, host, account and process, the rule with its level and ATT&CK techniques, the fields
that matched, and the id of the row as evidence. Its own id is made of the rule's id and the evidence's, so a replay gives the
same detections.
"""

from __future__ import annotations

import hashlib
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
from ringfence.sigma.table import Table
from ringfence.topology import Topology

SEVERITIES: Mapping[str, int] = {"informational": 1, "low": 21, "medium": 47, "high": 73, "critical": 99}
"""The bands of Elastic's risk scale."""
MAX_FIELDS_BYTES = 8 * 1024
_OWN = frozenset({"rule.id", "rule.name", "event.severity", "ringfence.event.source", "ringfence.event.position"})
_COPIED = [
    name for name in frame_schema(EventClass.DETECTION)
    if name not in _OWN and not name.startswith(("ringfence.detection.", "ringfence.evidence.", "threat.")) and ".segment." not in name
]  # fmt: skip
_ENCODER = msgspec.json.Encoder()


class Sigma:
    """The rules of a set on batches of all classes."""

    def __init__(self, rules: RuleSet, topology: Topology) -> None:
        self._engines = {event_class: Engine(members, fields.is_text) for event_class, members in rules.by_class.items()}
        self._segments = SegmentMap(topology)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with its detections beside it."""
        engine = self._engines.get(batch.header.event_class)
        if engine is None or not batch.frame.height:
            return Processed(batch)
        named = replace(batch, frame=self._named(batch.frame))
        table = fields.table_of(named)
        matches = engine.match(table)
        if not matches:
            return Processed(batch)
        frame = together([_detections(match, named, table) for match in matches])
        low, high = time_span(frame)
        header = replace(batch.header, event_class=EventClass.DETECTION, rows=frame.height, time_min_us=low, time_max_us=high)
        return Processed(batch, {bus.DETECTIONS: [Batch(header, frame)]})

    def _named(self, frame: pl.DataFrame) -> pl.DataFrame:
        """With the names of segments in place of their codes."""
        sides = [side for side in ("source", "destination") if f"{side}.segment.code" in frame.columns]
        columns = []
        for side in sides:
            codes = frame[f"{side}.segment.code"].to_numpy().astype(np.uint16)
            columns += [self._segments.part(part, codes).alias(f"{side}.segment.{part}") for part in SEGMENT_PARTS]
        return frame.with_columns(columns) if columns else frame


def _detections(match: Match, batch: Batch, table: Table) -> pl.DataFrame:
    """One row for each row that a rule matched."""
    rule, rows = match.rule, match.rows
    found = batch.frame[pl.Series(rows.astype(np.uint32))]
    columns: dict[str, Any] = {name: found[name] for name in found.columns if name in _COPIED or ".segment." in name}
    columns = {name: values for name, values in columns.items() if not name.endswith(".segment.code")}
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
    if tactics := tactics_of(rule.tags):
        columns["threat.tactic.name"] = _same(",".join(tactics), count)
    reaction = rule.reaction
    columns["ringfence.detection.response"] = _same(reaction.response, count)
    for name, number in (("risk", reaction.risk), ("suppress", reaction.suppress_s)):
        if number is not None:
            columns[f"ringfence.detection.{name}"] = pl.Series([number]).new_from_index(0, count)
    return build_frame(EventClass.DETECTION, columns)


def techniques_of(tags: Sequence[str]) -> list[str]:
    """ATT&CK techniques among the tags of a rule: `attack.t1021.002` is T1021.002."""
    return [tag.removeprefix("attack.").upper() for tag in tags if tag.startswith("attack.t") and tag[8:9].isdigit()]


def tactics_of(tags: Sequence[str]) -> list[str]:
    """ATT&CK tactics among the tags of a rule, as ATT&CK writes them: `attack.lateral-movement` is Lateral Movement."""
    words = [tag.removeprefix("attack.") for tag in tags if tag.startswith("attack.") and tag[7:].replace("-", "").isalpha()]
    return [word.replace("-", " ").title().replace(" And ", " and ") for word in words]


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
    event_classes = frozenset(EventClass) - {EventClass.DEAD, EventClass.DETECTION, EventClass.ALARM}

    def build(self, settings: Settings, context: BuildContext) -> Sigma:
        """Make the processor for the rules in force."""
        return Sigma(context.rules, context.topology)


KIND = SigmaKind()
