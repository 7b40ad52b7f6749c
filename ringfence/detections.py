"""Rows of class detection: what every kind of rule says of the events that it found.

A detection carries the ends, host, account and process of its evidence, the rule, and the id of the evidence. Its own id is
made of both, so that a replay gives the same detections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence.batch import Batch, EventClass, Header
from ringfence.codec import time_span
from ringfence.schema import VERSION, build_frame, frame_schema, together
from ringfence.segments import SEGMENT_PARTS, SegmentMap
from ringfence.sigma.reaction import Reaction

SEVERITIES: Mapping[str, int] = {"informational": 1, "low": 21, "medium": 47, "high": 73, "critical": 99}
"""Severity of each level: the bands of Elastic's risk scale."""
MAX_FIELDS_BYTES = 8 * 1024
_OWN = frozenset({"rule.id", "rule.name", "event.severity", "ringfence.event.source", "ringfence.event.position"})
_COPIED = [
    name for name in frame_schema(EventClass.DETECTION)
    if name not in _OWN and not name.startswith(("ringfence.detection.", "ringfence.evidence.", "threat.")) and not name.endswith(".segment.code")
]  # fmt: skip
_OF_MANY = Header("", VERSION, "", EventClass.DETECTION, "", "", 0, 0, 0, 0, 0)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Finding:
    """The rule that found something. `kind` is sigma, correlation or yara, `level` one of SEVERITIES."""

    kind: str
    id: str
    name: str
    level: str
    techniques: Sequence[str] = ()
    tactics: Sequence[str] = ()
    reaction: Reaction = field(default_factory=Reaction)

    @property
    def identity(self) -> np.uint64:
        """What makes the id of an event that of a detection of this rule."""
        return np.uint64(int.from_bytes(hashlib.blake2b(self.id.encode(), digest_size=8).digest(), "big"))


def named(frame: pl.DataFrame, segments: SegmentMap) -> pl.DataFrame:
    """A frame with the names of segments beside their codes."""
    columns = []
    for side in ("source", "destination"):
        if f"{side}.segment.code" in frame.columns:
            codes = frame[f"{side}.segment.code"].to_numpy().astype(np.uint16)
            columns += [segments.part(part, codes).alias(f"{side}.segment.{part}") for part in SEGMENT_PARTS]
    return frame.with_columns(columns) if columns else frame


def rows_of(finding: Finding, batch: Batch, rows: npt.NDArray[np.int64], matched: Sequence[str]) -> pl.DataFrame:
    """A detection for each of some rows of a batch that `named` made; `matched` says of each what the rule found, as JSON."""
    evidence = batch.frame[pl.Series(rows.astype(np.uint32))]
    count = len(rows)
    source = evidence["ringfence.event.source"].to_numpy()
    columns: dict[str, Any] = {name: evidence[name] for name in _COPIED if name in evidence.columns}
    columns |= {
        "ringfence.event.source": pl.Series(source ^ finding.identity),
        "ringfence.event.position": evidence["ringfence.event.position"],
        "ringfence.evidence.source": pl.Series(source),
        "ringfence.evidence.position": evidence["ringfence.event.position"],
        "ringfence.evidence.class": _same(str(batch.header.event_class), count),
        "ringfence.evidence.module": _same(batch.header.module, count),
        "ringfence.detection.fields": pl.Series(matched, dtype=pl.String),
    }
    return build_frame(EventClass.DETECTION, columns | of_rule(finding, count))


def of_rule(finding: Finding, count: int) -> dict[str, pl.Series]:
    """The columns that say which rule it was."""
    columns = {
        "rule.id": _same(finding.id, count),
        "rule.name": _same(finding.name, count),
        "event.severity": pl.Series([SEVERITIES.get(finding.level, 1)]).new_from_index(0, count),
        "ringfence.detection.kind": _same(finding.kind, count),
        "ringfence.detection.level": _same(finding.level, count),
    }
    for name, words in (("technique.id", finding.techniques), ("tactic.name", finding.tactics)):
        if words:
            columns[f"threat.{name}"] = _same(",".join(words), count)
    reaction = finding.reaction
    columns["ringfence.detection.response"] = _same(reaction.response, count)
    for name, number in (("risk", reaction.risk), ("suppress", reaction.suppress_s)):
        if number is not None:
            columns[f"ringfence.detection.{name}"] = pl.Series([number]).new_from_index(0, count)
    return columns


def batch_of(frames: Sequence[pl.DataFrame], origin: Header | None) -> Batch:
    """Detections as one batch, as of the batch that they were found in; of none where they come of many."""
    frame = together(frames)
    low, high = time_span(frame)
    header = replace(origin or _OF_MANY, event_class=EventClass.DETECTION, rows=frame.height, time_min_us=low, time_max_us=high)
    return Batch(header, frame)


def fitting(values: Mapping[str, Any]) -> str:
    """A JSON object of the values; without those that would make it longer than MAX_FIELDS_BYTES."""
    text = _ENCODER.encode(values)
    while len(text) > MAX_FIELDS_BYTES:
        longest = max(values, key=lambda name: len(_ENCODER.encode(values[name])))
        values = {name: value for name, value in values.items() if name != longest}
        text = _ENCODER.encode(values)
    return text.decode()


def techniques_of(tags: Sequence[str]) -> list[str]:
    """ATT&CK techniques among the tags of a rule: `attack.t1021.002` is T1021.002."""
    return [tag.removeprefix("attack.").upper() for tag in tags if tag.startswith("attack.t") and tag[8:9].isdigit()]


def tactics_of(tags: Sequence[str]) -> list[str]:
    """ATT&CK tactics among the tags of a rule, as ATT&CK writes them: `attack.lateral-movement` is Lateral Movement."""
    words = [tag.removeprefix("attack.") for tag in tags if tag.startswith("attack.") and tag[7:].replace("-", "").isalpha()]
    return [word.replace("-", " ").title().replace(" And ", " and ") for word in words]


def _same(text: str, count: int) -> pl.Series:
    return pl.Series([text]).new_from_index(0, count)
