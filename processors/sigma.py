"""Matches Sigma rules on events and boundary tests: each rule that holds for a row makes one detection, and so does each
correlation of several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import bus, detections
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.correlation.stream import CorrelationStream
from ringfence.detections import Finding
from ringfence.segments import SegmentMap
from ringfence.sigma import explain, fields
from ringfence.sigma.engine import Engine, Match
from ringfence.sigma.rules import Rule
from ringfence.sigma.ruleset import RuleSet
from ringfence.sigma.table import Table
from ringfence.topology import Topology


class Sigma:
    """The rules of a set on batches of all classes."""

    def __init__(self, rules: RuleSet, topology: Topology) -> None:
        self._correlations = CorrelationStream(rules.correlations)
        self._engines = {event_class: Engine(members, fields.is_text) for event_class, members in rules.by_class.items()}
        self._segments = SegmentMap(topology)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with its detections beside it."""
        if not batch.frame.height or batch.header.event_class is EventClass.DETECTION:
            return Processed(batch)
        engine = self._engines.get(batch.header.event_class)
        named = replace(batch, frame=detections.named(batch.frame, self._segments)) if engine else batch
        table = fields.table_of(named)
        matches = engine.match(table) if engine else []
        found = [_detections(match, named, table) for match in matches if match.rule.is_reported]
        correlated = self._correlations.feed(named, table, matches)
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


def _detections(match: Match, batch: Batch, table: Table) -> pl.DataFrame:
    """One row for each row that a rule matched, with the fields that did."""
    fields_at = explain.fields(match.rule.condition, table)
    matched = [detections.fitting(fields_at(row)) for row in match.rows.tolist()]
    return detections.rows_of(finding_of(match.rule), batch, match.rows, matched)


def finding_of(rule: Rule) -> Finding:
    """What a rule says of what it finds."""
    response = rule.custom.get("ringfence.response")
    return Finding(
        "sigma", rule.id, rule.title, rule.level, detections.techniques_of(rule.tags), str(response) if response else None
    )


class Settings(BaseModel):
    """No options: the rules are those of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SigmaKind:
    """Entry point `sigma`."""

    settings = Settings
    promise = "one detection per rule and row, or per correlation and window, with the same id in every replay"
    status: Status = "experimental"
    event_classes = frozenset(EventClass) - {EventClass.DEAD, EventClass.DETECTION}

    def build(self, settings: Settings, context: BuildContext) -> Sigma:
        """Make the processor for the rules in force."""
        return Sigma(context.rules.sigma, context.topology)


KIND = SigmaKind()
