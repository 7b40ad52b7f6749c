"""Falco alerts as JSON lines (`json_output: true`; falco.org, "Output Formatting" and "Supported Fields").

A record is `{"hostname":...,"output":...,"output_fields":{...},"priority":...,"rule":...,"tags":[...],"time":...}`. Each is
a row of class alert; which fields it has is up to the rule's `output`. `source` is the client of the connection (`fd.cip`,
`fd.cport`), `destination` its server; without these the two sides of `fd.name`, `10.1.0.5:40000->10.2.0.9:443`. Other
names of files are `file.path`. `rule.category` holds the tags. A value may be null, empty or `<NA>`.

Sample: {"output":"...","output_fields":{"proc.name":"sh","proc.pid":7,...},"priority":"Notice","rule":"Terminal shell",...}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from collectors.host_events import HostEventDecoder, HostEventKind, Kind
from collectors.lines import first_line
from collectors.records import TRANSPORTS
from ringfence.batch import EventClass

_FIELDS: Mapping[str, str] = {
    "process.pid": "proc.pid",
    "process.name": "proc.name",
    "process.executable": "proc.exepath",
    "process.command_line": "proc.cmdline",
    "process.working_directory": "proc.cwd",
    "process.parent.pid": "proc.ppid",
    "process.parent.name": "proc.pname",
    "process.parent.executable": "proc.pexepath",
    "process.parent.command_line": "proc.pcmdline",
    "process.hash.sha256": "proc.hash.sha256",
    "user.id": "user.uid",
    "user.name": "user.name",
    "container.id": "container.id",
    "container.name": "container.name",
    "orchestrator.namespace": "k8s.ns.name",
    "orchestrator.resource.name": "k8s.pod.name",
}
"""Columns that a field of Falco fills as it is."""
_SEVERITY: Mapping[str, int] = {
    "emergency": 99,
    "alert": 99,
    "critical": 99,
    "error": 73,
    "warning": 47,
    "notice": 21,
    "informational": 1,
    "debug": 1,
}
"""The bands of Elastic's risk scale."""
_NUMBERS = frozenset({"process.pid", "process.parent.pid"})
_CONNECTION = re.compile(r"\[?([0-9A-Fa-f.:]+?)\]?:(\d{1,5})->\[?([0-9A-Fa-f.:]+?)\]?:(\d{1,5})")


class _Record(msgspec.Struct, gc=False):
    rule: str
    time: str | None = None
    priority: str | None = None
    output: str | None = None
    hostname: str | None = None
    tags: list[str] | None = None
    output_fields: dict[str, Any] | None = None


def _value(fields: Mapping[str, Any], name: str) -> Any:
    value = fields.get(name)
    return None if value in ("", "<NA>") or isinstance(value, (dict, list)) else value


def _number(value: Any) -> int | None:
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _alert(record: _Record) -> tuple[Any, ...]:
    fields = record.output_fields or {}
    own = (
        _number(_value(fields, name)) if column in _NUMBERS else _text(_value(fields, name)) for column, name in _FIELDS.items()
    )
    name = _text(_value(fields, "fd.name"))
    ends = _ends(fields, name)
    image = [text for part in ("repository", "tag") if (text := _text(_value(fields, f"container.image.{part}")))]
    protocol = _text(_value(fields, "fd.l4proto"))
    return (
        record.rule, record.output, ",".join(record.tags) if record.tags else None,
        _SEVERITY.get((record.priority or "").lower()), *ends, TRANSPORTS[protocol] if protocol else None,
        None if name is None or "->" in name or not name.startswith("/") else name, ":".join(image) or None, *own,
    )  # fmt: skip


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _ends(fields: Mapping[str, Any], name: str | None) -> tuple[Any, ...]:
    """Client and server with their ports."""
    client, server = _text(_value(fields, "fd.cip")), _text(_value(fields, "fd.sip"))
    if client or server:
        return client, _number(_value(fields, "fd.cport")), server, _number(_value(fields, "fd.sport"))
    found = _CONNECTION.fullmatch(name) if name else None
    return (found[1], int(found[2]), found[3], int(found[4])) if found else (None, None, None, None)


_KIND = Kind(
    EventClass.ALERT,
    (
        "rule.name", "rule.description", "rule.category", "event.severity", "source.ip", "source.port", "destination.ip",
        "destination.port", "network.iana_number", "file.path", "container.image.name", *_FIELDS,
    ),
    _alert,
)  # fmt: skip
_DECODER = msgspec.json.Decoder(_Record)


class FalcoDecoder(HostEventDecoder):
    """Decoder of Falco lines. `observer` names the sensor where a record has no `hostname`."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(
            _DECODER,
            {"alert": _KIND},
            lambda record: "alert",
            lambda record: (record.time, record.hostname),
            "time",
            observer,
            keep_original,
        )


def _looks_like_falco(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and b'"output_fields":' in line and b'"priority":' in line and b'"rule":' in line


KIND = HostEventKind(
    "falco",
    "Falco alerts as JSON lines",
    "runtime: {type: falco, path: /var/log/falco/events.json}",
    FalcoDecoder,
    _looks_like_falco,
)
