"""Alerts of Wazuh 4, one JSON object a line: `/var/ossec/logs/alerts/alerts.json` of the manager.

After the Wazuh documentation ("Alert management", "Rules syntax", "Syscheck"). Every alert is a row of class alert: the rule,
its ATT&CK ids, the agent as host, and what the decoders of Wazuh found in the log (`data.srcip` and so on). A Windows event in it
(`data.win`) fills the columns that Winlogbeat's fill (`collectors/windows.py`), as far as class alert has them; its field
names get their capital back in `winlog.event_data`, and doubled backslashes become one. Of syscheck the path is taken.

`event.severity` is by the level in the bands of the Wazuh dashboard: up to 6 low (21), 7 to 11 medium (47), 12 to 14 high
(73), 15 and 16 critical (99). An alert proves nothing at a boundary: no action is read from it.

Sample: {"timestamp":"2026-11-25T07:44:23.123+0000","rule":{"level":5,"description":"...","id":"5710"},"agent":{"id":"001","name":"srv3"},...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec

from collectors import windows
from collectors.json_documents import TIME, Gathered, Reader, Rows, first_set, read, reader_of, value_of
from collectors.kafka_topic import FileOrTopic
from collectors.lines import Continuations, LineFramer, first_line
from collectors.records import TRANSPORTS, LineBlock
from ringfence.batch import Decoded, EventClass, Frames
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.projection import columns_of

CHUNK_LINES = 512

_COLUMNS: Mapping[str, str] = {
    "timestamp": TIME, "rule.id": "rule.id", "rule.description": "rule.name", "agent.name": "host.name", "manager.name": "observer.name",
    "data.srcip": "source.ip", "data.srcport": "source.port", "data.dstip": "destination.ip", "data.dstport": "destination.port",
    "syscheck.path": "file.path", "data.win.system.channel": "winlog.channel", "data.win.system.providerName": "winlog.provider_name",
    "data.win.system.eventRecordID": "winlog.record_id", "data.win.system.eventID": "event.code", "predecoder.program_name": "process.name",
}  # fmt: skip
"""Texts that are taken as they are."""
_TEXTS = (*_COLUMNS, "data.srcuser", "data.dstuser", "data.protocol", "syscheck.event", "decoder.name")
_LISTS = ("rule.groups", "rule.mitre.id", "rule.mitre.tactic", "rule.mitre.technique")
_EVENT_DATA = "data.win.eventdata"
_PORTS = ("source.port", "destination.port")
_BANDS = ((15, 99), (12, 73), (7, 47), (0, 21))


@cache
def _alerts() -> Reader:
    kinds: dict[str, Any] = dict.fromkeys(_TEXTS, str) | dict.fromkeys(_LISTS, list[str])
    return reader_of("alert", {**kinds, "rule.level": int, _EVENT_DATA: msgspec.Raw}.items())


class WazuhDecoder:
    """Decoder of alerts. `observer` names the sensor instead of the manager."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._rows = Rows(observer, keep_original, "timestamp")
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all alerts; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        gathered = Gathered()
        reader = _alerts()
        for start in range(0, len(block.lines), CHUNK_LINES):
            alerts = read(block, reader, start, start + CHUNK_LINES)
            there = [(alert, row) for row, alert in enumerate(alerts, start) if alert is not None]
            if there:
                found = columns_of([alert for alert, _ in there], reader.struct, sparse=True)
                gathered.take(_row_columns(found, len(there)), [row for _, row in there])
        return block.decoded(self._rows.frames(block, {EventClass.ALERT: gathered} if gathered.rows else {}))


def _row_columns(found: Mapping[str, Sequence[Any]], count: int) -> dict[str, Sequence[Any]]:
    """The columns of some alerts."""
    nothing: Sequence[Any] = [None] * count
    columns: dict[str, Sequence[Any]] = {column: found[path] for path, column in _COLUMNS.items() if path in found}
    for port in _PORTS:
        if port in columns:
            columns[port] = [*map(windows.number, columns[port])]
    for path, column in (
        ("rule.groups", "rule.category"),
        ("rule.mitre.id", "threat.technique.id"),
        ("rule.mitre.technique", "threat.technique.name"),
        ("rule.mitre.tactic", "threat.tactic.name"),
    ):
        if path in found:
            columns[column] = [", ".join(words) if words else None for words in found[path]]
    if "rule.level" in found:
        columns["event.severity"] = [*map(_severity, found["rule.level"])]
    if "data.protocol" in found:
        columns["network.iana_number"] = [TRANSPORTS[text] for text in found["data.protocol"]]
    columns["user.name"] = first_set(found.get("data.srcuser"), found.get("data.dstuser", nothing))
    if _EVENT_DATA in found:
        _add_windows_events(columns, found, count)
    return columns


def _severity(level: int | None) -> int | None:
    return None if level is None else next((severity for lowest, severity in _BANDS if level >= lowest), None)


def _add_windows_events(columns: dict[str, Sequence[Any]], found: Mapping[str, Sequence[Any]], count: int) -> None:
    """What the fields of Windows events say, event by event: there are few kinds in a block, and few rows of each."""
    nothing: Sequence[Any] = [None] * count
    data = [_named(raw) for raw in found[_EVENT_DATA]]
    columns["winlog.event_data"] = [msgspec.json.encode(fields).decode() if fields else None for fields in data]
    kinds = list(zip(columns.get("winlog.provider_name", nothing), columns.get("event.code", nothing), strict=True))
    rows: dict[tuple[Any, Any], list[int]] = {}
    for row, kind in enumerate(kinds):
        if data[row]:
            rows.setdefault(kind, []).append(row)
    made: dict[str, list[Any]] = {}
    for (provider, code), own in rows.items():
        meaning = windows.meaning_of(provider, code)
        fields = {name: [data[row].get(name) for row in own] for name in meaning.reads}
        for name, values in windows.columns_of(meaning, fields, len(own)).items():
            column = made.setdefault(name, [None] * count)
            for row, value in zip(own, values, strict=True):
                column[row] = value
    for name, values in made.items():
        columns[name] = first_set(columns.get(name), values)


def _named(raw: Any) -> dict[str, str]:
    """The fields of an event as Windows names and writes them; Wazuh makes the first letter small and doubles backslashes."""
    value = None if raw is None else value_of(raw)
    members = value.items() if isinstance(value, dict) else ()
    return {name[:1].upper() + name[1:]: text.replace("\\\\", "\\") for name, text in members if isinstance(text, str)}


def recognise(first: bytes) -> bool:
    """True when a file that begins so holds alerts of Wazuh."""
    line = first_line(first)
    return line.startswith(b'{"timestamp":') and b'"rule":{' in line and b'"level":' in line and b'"agent":{' in line


class WazuhKind:
    """Entry point `wazuh`."""

    settings = FileOrTopic
    promise = "file, Kafka: every complete alert once, across restarts and rotation by rename"
    status: Status = "experimental"
    sample = "wazuh: {type: wazuh, path: /var/ossec/logs/alerts/alerts.json}"
    formats = (Format("wazuh", "alerts of Wazuh as JSON lines", LineFramer, lambda year: WazuhDecoder(), recognise, "wazuh"),)

    def build(self, settings: FileOrTopic, context: BuildContext) -> Collector:
        """Alerts through the shell that their file or topic asks for."""
        return Collector("wazuh", settings.shell(), WazuhDecoder(settings.observer, settings.keeps_original))

    def resources(self, settings: FileOrTopic) -> Sequence[str]:
        """A file or a topic may be read by one collector only."""
        return settings.claims()


KIND = WazuhKind()
