"""Makes alerts of detections: what is alike is one alert, raised where sensors agree, with exceptions; one plain sentence each.

`ringfence/alerting.py` says what is alike, what raises an alert and what makes one of its own. An alert gives a record when it
is new, when it has seen 10, 100, 1,000, ... detections, when another kind of sensor saw it and when its level rises; each
replaces the record before it (`ringfence.alert.id`). Detections that an exception covers make none and are counted by it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import addresses, bus
from ringfence.alert_exceptions import AlertException, Subject
from ringfence.alerting import LEVELS, NO_VERDICT, Alert, Alerting, Issued, Sighting
from ringfence.batch import Batch, EventClass, Micros
from ringfence.codec import time_span
from ringfence.component import BuildContext, Processed, Status
from ringfence.matrix import VERDICTS
from ringfence.schema import build_frame
from ringfence.segments import SEGMENT_PARTS
from ringfence.sigma.reaction import RESPONSES
from ringfence.wording import Story, sentence

SEVERITIES = (1, 21, 47, 73, 99)
"""The bands of Elastic's risk scale, by level."""
MAX_TEXT_BYTES = 192
"""Of names of hosts, accounts and programs; what differs only behind that is alike."""
MAX_KNOWN = 65_536
"""Rules with entities whose exceptions are remembered."""
_ENTITIES = (
    "source.ip", "source.ip6", "destination.ip", "destination.ip6", "host.name", "user.name", "process.executable", "process.name",
    "ringfence.boundary.id", "ringfence.boundary.origin",
)  # fmt: skip
_SHOWN = tuple(f"{side}.segment.{part}" for side in ("source", "destination") for part in SEGMENT_PARTS)
_READ = (
    "@timestamp", "rule.id", "rule.name", "ringfence.detection.level", "ringfence.detection.response", "ringfence.detection.risk",
    "ringfence.detection.suppress", "threat.technique.id", "threat.tactic.name", "ringfence.evidence.module",
    "ringfence.evidence.source", "ringfence.evidence.position", "ringfence.event.source", "ringfence.event.position",
    "ringfence.boundary.verdict", "destination.port", "ringfence.boundary.service", "ringfence.detector.name",
)  # fmt: skip
_RANK = {verdict: rank for rank, verdict in enumerate(VERDICTS)}
_LEVEL = {level: rank for rank, level in enumerate(LEVELS)}


class Alerts:
    """The alerts of one worker and the exceptions in force."""

    def __init__(self, exceptions: Sequence[AlertException] = ()) -> None:
        self._exceptions = exceptions
        self._known: dict[tuple[Any, ...], tuple[AlertException, ...]] = {}
        self._alerting = Alerting()

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with the alerts of its detections beside it."""
        if batch.header.event_class is not EventClass.DETECTION or not batch.frame.height:
            return Processed(batch)
        evicted = self._alerting.evicted
        excepted: Counter[str] = Counter()
        issued: list[Issued] = []
        for seen in _sightings(batch.frame):
            exception = self._exception(seen) if self._exceptions else None
            if exception is not None:
                excepted[exception.name] += 1
            else:
                issued += self._alerting.see(seen)
        outputs = {bus.ALERTS: [_batch(issued, batch)]} if issued else {}
        return Processed(batch, outputs, excepted=excepted, evicted=self._alerting.evicted - evicted)

    def snapshot(self) -> bytes:
        """The open alerts, and what may still make one."""
        return self._alerting.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on with those of a snapshot."""
        self._alerting.restore(state)

    def _exception(self, seen: Sighting) -> AlertException | None:
        """The first exception that covers a detection and was in force when it happened."""
        known = (seen.rule_id, seen.rule_name, *seen.entities)
        covering = self._known.get(known)
        if covering is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            subject = _subject(seen)
            covering = self._known[known] = tuple(each for each in self._exceptions if each.covers(subject))
        return next((each for each in covering if seen.at_us < each.until_us), None)


def _subject(seen: Sighting) -> Subject:
    of = dict(zip(_ENTITIES, seen.entities, strict=True))
    ends = [of[f"{side}.ip6"] if of[f"{side}.ip"] is None else of[f"{side}.ip"] for side in ("source", "destination")]
    return Subject(
        seen.rule_id, seen.rule_name, ends[0], ends[1], of["host.name"], of["user.name"], of["ringfence.boundary.id"]
    )


def _sightings(frame: pl.DataFrame) -> Iterator[Sighting]:
    """The detections of a batch, in its order; columns that it lacks are null."""
    source, destination = (_address(frame, side) for side in ("source", "destination"))
    read, entities, shown = (_rows(frame, names) for names in (_READ, _ENTITIES, _SHOWN))
    for row, whole, further, start, end in zip(read, entities, shown, source, destination, strict=True):
        alike = tuple(map(_cut, whole))
        (
            at_us, rule_id, rule_name, level, response, risk, suppress_s, techniques, tactics, module, high, low, own_high, own_low,
            verdict, port, service, detector,
        ) = row  # fmt: skip
        if detector is not None:
            port = service = None  # those of the last of many things that it counted
        yield Sighting(
            at_us=at_us, rule_id=rule_id or "", rule_name=rule_name or rule_id or "", level=_LEVEL.get(level, 0),
            response=response if response in RESPONSES else RESPONSES[0], risk=risk, suppress_s=suppress_s or None,
            techniques=_words(techniques), tactics=_words(tactics), module=module or "",
            evidence=(own_high, own_low) if high is None else (high, low),
            ends=(start, end) if start and end else None, actor=start or alike[_ENTITIES.index("host.name")],
            verdict=_RANK.get(verdict, NO_VERDICT), port=port, service=service, entities=alike, shown=further,
        )  # fmt: skip


def _cut(value: Any) -> Any:
    """A text that is not longer than MAX_TEXT_BYTES; other values as they are."""
    if not isinstance(value, str) or len(value) * 4 <= MAX_TEXT_BYTES:
        return value
    return value.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _address(frame: pl.DataFrame, side: str) -> Sequence[str | None]:
    v4, v6 = (frame[name] if name in frame.columns else None for name in (f"{side}.ip", f"{side}.ip6"))
    text = addresses.text(v4, v6)
    return [None] * frame.height if text is None else text.to_list()


def _rows(frame: pl.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    nothing = [None] * frame.height
    columns = [frame[name].to_list() if name in frame.columns else nothing for name in names]
    return list(zip(*columns, strict=True))


def _batch(issued: Sequence[Issued], batch: Batch) -> Batch:
    rows = [_row(alert, at_us) for alert, at_us in issued]
    names = {name for row in rows for name, value in row.items() if value is not None}
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    for half in ("source", "position"):
        columns[f"ringfence.event.{half}"] = pl.Series(columns[f"ringfence.event.{half}"], dtype=pl.UInt64)
    frame = build_frame(EventClass.ALARM, columns)
    low, high = time_span(frame)
    header = replace(
        batch.header, event_class=EventClass.ALARM, collector="", module="ringfence", rows=frame.height,
        time_min_us=low, time_max_us=high,
    )  # fmt: skip
    return Batch(header, frame)


def _row(alert: Alert, at_us: int) -> dict[str, Any]:
    """One record: its event id is made of that of the alert and of how many records the alert had."""
    name = alert.id
    of: dict[str, Any] = dict(zip(_ENTITIES, alert.entities, strict=True)) if alert.kind == "rule" else {}
    of |= dict(zip(_SHOWN, alert.shown, strict=True)) if alert.shown else {}
    return {
        "@timestamp": at_us,
        "ringfence.event.source": int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"),
        "ringfence.event.position": alert.revision,
        "event.start": alert.first_us,
        "event.end": alert.last_us,
        "event.severity": SEVERITIES[alert.raised],
        "rule.id": alert.rule_id,
        "rule.name": alert.rule_name,
        "threat.technique.id": ",".join(alert.techniques) or None,
        "threat.tactic.name": ",".join(alert.tactics) or None,
        "destination.port": _only(alert.ports),
        "ringfence.boundary.service": _only(alert.services),
        "ringfence.boundary.verdict": _verdict(alert),
        "ringfence.alert.id": name,
        "ringfence.alert.kind": alert.kind,
        "ringfence.alert.status": "new" if alert.revision == 1 else "updated",
        "ringfence.alert.level": LEVELS[alert.raised],
        "ringfence.alert.count": alert.count,
        "ringfence.alert.evidence": ",".join(f"{high:016x}{low:016x}" for _, high, low in alert.evidence),
        "ringfence.alert.modules": ",".join(alert.modules) or None,
        "ringfence.alert.corroborated": alert.is_corroborated,
        "ringfence.alert.response": alert.response,
        "ringfence.alert.risk": alert.risk,
        "message": sentence(_story(alert, of)),
        **_host(alert),
        **of,
    }


def _story(alert: Alert, of: Mapping[str, Any]) -> Story:
    ends = {side: addresses.shown(of.get(f"{side}.ip"), of.get(f"{side}.ip6")) for side in ("source", "destination")}
    return Story(
        kind=alert.kind, level=LEVELS[alert.raised], rule=alert.rule_name,
        source=ends["source"], source_segment=of.get("source.segment.name"),
        destination=ends["destination"], destination_segment=of.get("destination.segment.name"),
        port=_only(alert.ports), service=_only(alert.services), verdict=_verdict(alert),
        is_simulated=of.get("ringfence.boundary.origin") == "simulated", host=of.get("host.name"), user=of.get("user.name"),
        process=of.get("process.executable") or of.get("process.name"), actor=alert.actor, risk=alert.risk, tactics=alert.tactics,
        count=alert.count, sensors=len(alert.modules), first_us=alert.first_us, last_us=alert.last_us,
    )  # fmt: skip


def _host(alert: Alert) -> dict[str, Any]:
    """What an alert of a host is about: its address, or its name."""
    if alert.kind == "rule" or alert.actor is None:
        return {}
    address = addresses.parse(alert.actor)
    if address is None:
        return {"host.name": alert.actor}
    return {"source.ip6" if isinstance(address, bytes) else "source.ip": address}


def _verdict(alert: Alert) -> str | None:
    return None if alert.verdict == NO_VERDICT else VERDICTS[alert.verdict]


def _only(span: tuple[Any, Any] | None) -> Any:
    """The one value that all detections had, if they had."""
    return span[0] if span is not None and span[0] == span[1] else None


class Settings(BaseModel):
    """No options: exceptions stand in the section `rules`."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AlertsKind:
    """Entry point `alerts`."""

    settings = Settings
    promise = "one alert for detections that are alike, with the same id in every replay; state with the offsets"
    status: Status = "experimental"
    event_classes = frozenset({EventClass.DETECTION})

    def build(self, settings: Settings, context: BuildContext) -> Alerts:
        """Make the processor for the exceptions in force."""
        return Alerts(context.rules.exceptions)


KIND = AlertsKind()
