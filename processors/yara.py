"""Looks for YARA rules in what others wrote: payloads of logs, command lines, names that were asked for, requests.

Hits of one value are in the order of the rules; offsets are bytes
of the value, text being UTF-8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import bus, detections
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.segments import SegmentMap
from ringfence.telemetry import YARA_COUNTS, YARA_SUSPENDED
from ringfence.topology import Topology
from ringfence.yara.rules import Rule, RuleSet, finding_of
from ringfence.yara.scan import Hit, Scanner

_COMMANDS = ("process.command_line", "process.parent.command_line")
COLUMNS: Mapping[EventClass, Sequence[str]] = {
    EventClass.FLOW: _COMMANDS,
    EventClass.DNS: ("dns.question.name", *_COMMANDS),
    EventClass.HTTP: ("url.original", "url.domain", "user_agent.original", "http.request.referrer"),
    EventClass.TLS: ("tls.client.server_name", "tls.server.subject", "tls.server.issuer"),
    EventClass.SSH: ("ringfence.ssh.client", "ringfence.ssh.server"),
    EventClass.ALERT: _COMMANDS,
    EventClass.AUTH: ("message", "process.command_line"),
    EventClass.PROCESS: ("message", *_COMMANDS),
    EventClass.FILE: ("file.name", "file.path", *_COMMANDS),
    EventClass.GENERIC: (
        "message",
        "event.original",
        "process.command_line",
        "powershell.file.script_block_text",
        "registry.data.strings",
        "ringfence.service.command_line",
    ),
}
"""What is scanned unless the owner says otherwise: columns whose text an attacker can choose. Of classes that are taken
apart the line itself is left out, for its parts are scanned; `event.original` is all there is of records nobody knows."""


class Yara:
    """One rule set on batches of any class. `scanner` has the rules, the counts, and the rules that are suspended."""

    def __init__(self, rules: RuleSet, topology: Topology) -> None:
        self.scanner = Scanner(rules)
        self._rules = rules
        self._segments = SegmentMap(topology)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with its detections beside it."""
        hits = self.hits(batch)
        if not hits:
            return Processed(batch)
        by_rule: dict[str, dict[int, list[Hit]]] = {}
        for hit in hits:
            by_rule.setdefault(hit.rule.id, {}).setdefault(hit.row, []).append(hit)
        named = replace(batch, frame=detections.named(batch.frame, self._segments))
        found = [self._detections(rows, named) for rows in by_rule.values()]
        return Processed(batch, {bus.DETECTIONS: [detections.batch_of(found, batch.header)]})

    def hits(self, batch: Batch) -> list[Hit]:
        """What the rules find in the columns of a batch, by row, column and rule."""
        if not self._rules.rules:
            return []
        before = Counter(self.scanner.counts)
        found = self.scanner.scan(batch.frame, COLUMNS.get(batch.header.event_class, ()))
        for what, count in (self.scanner.counts - before).items():
            YARA_COUNTS.labels(what).inc(count)
        YARA_SUSPENDED.set(len(self.scanner.suspended))
        return found

    def _detections(self, hits: Mapping[int, Sequence[Hit]], batch: Batch) -> pl.DataFrame:
        """One row for each row in which a rule was found, whatever the columns."""
        rule = next(iter(hits.values()))[0].rule
        matched = [
            detections.fitting({**{hit.column: _places(hit) for hit in found}, **self._facts(rule)}) for found in hits.values()
        ]
        return detections.rows_of(finding_of(rule), batch, np.array(list(hits), np.int64), matched)

    def _facts(self, rule: Rule) -> Mapping[str, Any]:
        return {
            "yara.set": self._rules.sha256[:16],
            "yara.namespace": rule.namespace,
            "yara.tags": rule.tags,
            "yara.meta": rule.meta,
        }


def _places(hit: Hit) -> Mapping[str, Any]:
    """Offset and length of each string that was found."""
    return {string.string: string.spans for string in hit.strings}


class Settings(BaseModel):
    """No options: the rules are those of the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class YaraKind:
    """Entry point `yara`."""

    settings = Settings
    promise = "pure but for its budgets of time: one detection per rule and row, with the same id in every replay"
    status: Status = "experimental"
    event_classes = frozenset(COLUMNS)

    def build(self, settings: Settings, context: BuildContext) -> Yara:
        """Make the processor for the rules in force."""
        return Yara(context.rules.yara, context.topology)


KIND = YaraKind()
