"""Matches Sigma rules on events and boundary tests: each rule that holds for a row makes one detection, and so does each
correlation of several.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import bus, detections
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.correlation.stream import CorrelationStream
from ringfence.detections import Finding
from ringfence.segments import SEGMENT_PARTS, SegmentMap
from ringfence.sigma import explain, fields
from ringfence.sigma.engine import Engine, Match
from ringfence.sigma.rules import Rule
from ringfence.sigma.ruleset import RuleSet
from ringfence.sigma.table import Coded, Table
from ringfence.telemetry import RULE_VALUES_CUT, RULES_SUSPENDED
from ringfence.topology import Topology

MAX_NAMED = 100
_NAMED: set[str] = set()
"""Rules that have a label of their own among those suspended."""
_log = logging.getLogger(__name__)


class Sigma:
    """The rules of a set on batches of all classes."""

    def __init__(self, rules: RuleSet, topology: Topology) -> None:
        self._correlations = CorrelationStream(rules.correlations)
        self._engines = {
            event_class: Engine(members, fields.is_text, _suspended) for event_class, members in rules.by_class.items()
        }
        self._segments = SegmentMap(topology)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with its detections beside it."""
        if not batch.frame.height or batch.header.event_class is EventClass.DETECTION:
            return Processed(batch)
        engine = self._engines.get(batch.header.event_class)
        table = fields.table_of(batch, self._coded(batch.frame))
        matches = engine.match(table) if engine else []
        RULE_VALUES_CUT.inc(table.budget.cut)
        reported = [match for match in matches if match.rule.is_reported]
        named = replace(batch, frame=detections.named(batch.frame, self._segments)) if reported else batch
        found = [_detections(match, named, table) for match in reported]
        correlated = self._correlations.feed(batch, table, matches)
        if correlated is not None:
            found.append(correlated)
        return Processed(batch, {bus.DETECTIONS: [detections.batch_of(found, batch.header)]} if found else {})

    def finish(self) -> Mapping[str, Sequence[Batch]]:
        """The detections of correlations whose windows are open when nothing more will come."""
        left = self._correlations.finish()
        return {} if left is None else {bus.DETECTIONS: [detections.batch_of([left], None)]}

    def snapshot(self) -> bytes:
        """The state of correlations."""
        return self._correlations.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; what it says of correlations that have changed is given up."""
        self._correlations.restore(state)

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
        rule.id,
        rule.title,
        rule.path,
        rule.line,
    )


def _detections(match: Match, batch: Batch, table: Table) -> pl.DataFrame:
    """One row for each row that a rule matched, with the fields that did."""
    fields_at = explain.fields(match.rule.condition, table)
    matched = [detections.fitting(fields_at(row)) for row in match.rows.tolist()]
    return detections.rows_of(finding_of(match.rule), batch, match.rows, matched)


def finding_of(rule: Rule) -> Finding:
    """What a rule says of what it finds."""
    tags = rule.tags
    return Finding(
        "sigma", rule.id, rule.title, rule.level, detections.techniques_of(tags), detections.tactics_of(tags), rule.reaction
    )


class Settings(BaseModel):
    """No options: the rules are those of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SigmaKind:
    """Entry point `sigma`."""

    settings = Settings
    promise = "one detection per rule and row, or per correlation and window, with the same id in every replay"
    status: Status = "experimental"
    event_classes = frozenset(EventClass) - {EventClass.DEAD, EventClass.DETECTION, EventClass.ALARM}

    def build(self, settings: Settings, context: BuildContext) -> Sigma:
        """Make the processor for the rules in force."""
        return Sigma(context.rules.sigma, context.topology)


KIND = SigmaKind()
