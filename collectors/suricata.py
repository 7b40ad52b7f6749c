"""Suricata EVE JSON, one event a line (Suricata 6 to 8 user guide, "EVE JSON Format"; dns records of version 1, 2 and 3).

Each known `event_type` is read through a Struct generated from the column table, so only fields in use are built; any
other event type becomes a row of class generic with its line kept. An alert's ends are those of the packet that fired
it; where the record's `flow`, or without one its `direction`, says that the packet went to the client, they are turned
round, so that source is the initiator.

A dns record of version 3 gives the columns of one of version 2: its first question, `query` for a request and `answer`
for a response, whose ends are turned round where the server comes first. The rcode of a request answers nothing and is
left out. A netflow record is one direction of a flow: it has no packets back.

Sample: {"timestamp":"2026-11-25T07:44:23.123456+0000","event_type":"flow","src_ip":"10.0.0.5","proto":"TCP",...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from collectors.kafka_topic import KafkaTopic, KafkaTopicShell, require_one
from collectors.lines import Continuations, LineFramer
from collectors.records import MAX_INT, TRANSPORTS, LineBlock, integers
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from collectors.unix import UnixStreamShell
from ringfence import timestamps
from ringfence.addresses import AddressCache, HostPort
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Shell, Status
from ringfence.jsonlines import REFUSALS, decode_lines, explain, locate
from ringfence.projection import columns_of, eve_columns, field_path, json_type, struct_for
from ringfence.schema import Column, build_frame
from ringfence.yamlfile import ConfigPath

CHUNK_LINES = 512
"""Lines decoded at a time: their Structs stay in the cache (measured: 384 k against 242 k events/s in one 10 k chunk)."""

EVENT_CLASSES: Mapping[str, EventClass] = {
    "flow": EventClass.FLOW,
    "netflow": EventClass.FLOW,
    "dns": EventClass.DNS,
    "http": EventClass.HTTP,
    "tls": EventClass.TLS,
    "ssh": EventClass.SSH,
    "alert": EventClass.ALERT,
    "drop": EventClass.ALERT,
    "fileinfo": EventClass.FILE,
}


class _Query(msgspec.Struct, gc=False):
    """One question of a dns record of version 3."""

    rrname: str | None = None
    rrtype: str | None = None


_JSON_TYPES: Mapping[str, Any] = {
    "vlan": list[int],
    "flow_id": int,
    "alert.signature_id": int,
    "alert.rev": int,
    "verdict.reject": list[str],
}
"""Fields whose JSON type is not that of their column."""
_TEXT_PATHS = frozenset(
    {
        "timestamp",
        "flow.start",
        "flow.end",
        "netflow.start",
        "netflow.end",
        "src_ip",
        "dest_ip",
        "proto",
        "tcp.tcp_flags",
        "tcp.tcp_flags_ts",
        "tcp.tcp_flags_tc",
    }
)
_ONE_WAY: Mapping[str, str] = {
    "flow.start": "netflow.start",
    "flow.end": "netflow.end",
    "flow.pkts_toserver": "netflow.pkts",
    "flow.bytes_toserver": "netflow.bytes",
    "tcp.tcp_flags_ts": "tcp.tcp_flags",
}
"""Where a netflow record has what a flow record has elsewhere; of the rest of `flow` and `tcp` it has nothing."""
_ENDS = ("src_ip", "src_port", "dest_ip", "dest_port")
_OF_PACKET: Sequence[tuple[str, Any]] = (
    ("direction", str),
    ("verdict.reject-target", str),
    *((f"flow.{end}", int if end.endswith("port") else str) for end in _ENDS),
)
_BESIDE: Mapping[str, Sequence[tuple[str, Any]]] = {
    "alert": _OF_PACKET,
    "drop": _OF_PACKET,
    "dns": (("dns.queries", list[_Query]),),
}
"""Fields that are no column of their own but correct some, by event type."""
_GENERIC_PATHS = ("timestamp", "event_type", "host", "src_ip", "src_port", "dest_ip", "dest_port")
_SEVERITY: Mapping[int | None, int | None] = {None: None, 1: 99, 2: 73, 3: 47, 4: 21}
"""Suricata counts 1 as the highest; the values are the bands of Elastic's risk scale."""


def _json_type(column: Column, path: str) -> Any:
    return _JSON_TYPES.get(path) or (str if path in _TEXT_PATHS else json_type(column.dtype))


@cache
def _decoders() -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any], dict[type, str]]:
    """The decoder of known event types, that of any other, and the event type of each Struct."""
    structs: dict[type, str] = {}
    for event_type in EVENT_CLASSES:
        paths = [(path, _json_type(column, path)) for column, path in _columns(event_type)]
        structs[struct_for(event_type, [*paths, *_BESIDE.get(event_type, ())], "event_type", event_type)] = event_type
    union: Any = None
    for struct in structs:
        union = struct if union is None else union | struct
    fields = [(path, (int if path.endswith("port") else str) | None, None) for path in _GENERIC_PATHS]
    generic = msgspec.defstruct("generic", fields, gc=False)
    structs[generic] = "generic"
    return msgspec.json.Decoder(union), msgspec.json.Decoder(generic), structs


class SuricataDecoder:
    """Decoder of EVE lines. `observer` names the sensor where a line has no `host`."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()
        self._known, self._any, self._types = _decoders()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem or blank."""
        run = _Run(frames, self._continuations)
        for start in range(0, len(run.lines), CHUNK_LINES):
            self._chunk(run, start)
        parts: dict[EventClass, list[pl.DataFrame]] = {}
        for event_type, fields in run.fields.items():
            event_class = EVENT_CLASSES.get(event_type, EventClass.GENERIC)
            frame = self._frame(run, event_type, event_class, fields)
            if frame.height:
                parts.setdefault(event_class, []).append(frame)
        return run.decoded(parts)

    def _chunk(self, run: _Run, start: int) -> None:
        """Decode some lines and copy their fields into lists, while the Structs are in the cache."""
        lines = run.lines[start : start + CHUNK_LINES]
        structs, refused = decode_lines(self._known, lines)
        for index in refused:
            structs[index] = self._second_look(run, lines[index], start + index)
        groups: dict[type, tuple[list[Any], list[int]]] = {}
        for row, struct in enumerate(structs, start):
            group = groups.get(type(struct))
            if group is None:
                group = groups[type(struct)] = ([], [])
            group[0].append(struct)
            group[1].append(row)
        groups.pop(type(None), None)
        for kind, (members, rows) in groups.items():
            event_type = self._types[kind]
            if event_type not in run.fields:
                run.fields[event_type] = _Fields(event_type)
            run.fields[event_type].take(members, rows)

    def _second_look(self, run: _Run, line: bytes, row: int) -> Any:
        """An unknown event type is no fault: read what every event has. Anything else is refused with its place."""
        if not line.strip():
            run.filtered["blank"] += row not in run.left_out
            return None
        code, detail, offset, path = explain(self._known, line)
        if path == "$.event_type" and code is ProblemCode.WRONG_TYPE:
            try:
                return self._any.decode(line)
            except REFUSALS:
                code, detail, offset, path = explain(self._any, line)
        run.refuse(code, detail, row, offset, path)
        return None

    def _frame(self, run: _Run, event_type: str, event_class: EventClass, fields: _Fields) -> pl.DataFrame:
        """The typed columns of one event type; rows with a value that cannot be are refused."""
        columns: dict[str, Any] = {}
        bad: dict[int, str] = {}
        back = _CORRECTIONS[event_type](fields.values) if event_type in _CORRECTIONS else None
        for column, path in _columns(event_type):
            self._convert(column, path, fields.values[path], columns, bad)
        rows = np.array(fields.rows)
        if event_type == "drop":
            columns["ringfence.ids.verdict"] = pl.repeat("drop", len(rows), eager=True)
        if self._observer is not None:
            columns["observer.name"] = pl.Series(columns["observer.name"], dtype=pl.String).fill_null(self._observer)
        if self._keep_original or event_class is EventClass.GENERIC:
            columns["event.original"] = run.original()[pl.Series(rows.astype(np.uint32))]
        if run.frames.lossy and event_class in (EventClass.FLOW, EventClass.ALERT):
            columns["ringfence.evidence.lossy"] = np.isin(run.frames.source[rows], list(run.frames.lossy))
        columns["ringfence.event.position"] = run.frames.positions[rows]
        columns["ringfence.event.source"] = run.identities[run.frames.source[rows]]
        frame = build_frame(event_class, columns)
        if back is not None:
            frame = _initiator_first(frame, pl.Series(back, dtype=pl.Boolean))
        if bad:
            frame = frame.filter(pl.Series([row not in bad for row in range(frame.height)]))
            for row, path in bad.items():
                line = run.lines[fields.rows[row]]
                run.refuse(
                    ProblemCode.WRONG_TYPE,
                    _EXPECTED.get(path, "Number out of range"),
                    fields.rows[row],
                    locate(line, path),
                    path,
                )
        return frame

    def _convert(self, column: Column, path: str, values: list[Any], columns: dict[str, Any], bad: dict[int, str]) -> None:
        """Turn the JSON values of one field into its column; rows that cannot be are noted in `bad` by path."""
        if column.render == "ipv4":
            parsed = self._addresses.column(values)
            columns[column.name] = parsed.v4
            columns[f"{column.name}6"] = (
                parsed.v6 if parsed.v6 is not None else pl.repeat(None, len(values), dtype=pl.Binary(), eager=True)
            )
            bad.update(dict.fromkeys(parsed.invalid.tolist(), f"$.{path}"))
        elif column.render == "time":
            columns[column.name], absent = _times(values)
            bad.update((row, f"$.{path}") for row in absent.tolist() if path == "timestamp" or values[row] is not None)
        elif path in _CONVERSIONS:
            columns[column.name] = _CONVERSIONS[path](values)
        elif column.dtype.is_integer():
            columns[column.name] = integers(values, *_RANGES.get(path, (-MAX_INT, MAX_INT)), path, bad)
        else:
            columns[column.name] = values


@cache
def _columns(event_type: str) -> tuple[tuple[Column, str], ...]:
    """The columns that one event type fills, with their paths."""
    event_class = EVENT_CLASSES.get(event_type, EventClass.GENERIC)
    pairs = [(column, str(column.eve)) for column in eve_columns(event_class)]
    if event_class is EventClass.GENERIC:
        return tuple(pair for pair in pairs if pair[1] in _GENERIC_PATHS)
    if event_type == "netflow":
        pairs = [(column, _ONE_WAY.get(path, path)) for column, path in pairs]
        pairs = [pair for pair in pairs if not pair[1].startswith(("flow.", "tcp.tcp_flags_"))]
    return tuple(pair for pair in pairs if pair[1] != "event_type")


class _Fields:
    """The fields of all events of one type in a block, as lists by path, with the rows that they came from."""

    def __init__(self, event_type: str) -> None:
        paths = [path for _, path in _columns(event_type)] + [path for path, _ in _BESIDE.get(event_type, ())]
        self.values: dict[str, list[Any]] = {path: [] for path in paths}
        self.rows: list[int] = []

    def take(self, structs: list[Any], rows: list[int]) -> None:
        self.rows += rows
        columns = columns_of(structs, type(structs[0]))
        for path, values in self.values.items():
            values += columns[field_path(path)]


class _Run(LineBlock):
    """What one call of feed() counts."""

    def __init__(self, frames: Frames, continuations: Continuations) -> None:
        super().__init__(frames, continuations)
        self.fields: dict[str, _Fields] = {}


_EXPECTED: Mapping[str, str] = {
    "$.timestamp": "Expected an ISO 8601 time such as 2026-11-25T07:44:23.123456+0000",
    "$.flow.start": "Expected an ISO 8601 time",
    "$.flow.end": "Expected an ISO 8601 time",
    "$.netflow.start": "Expected an ISO 8601 time",
    "$.netflow.end": "Expected an ISO 8601 time",
    "$.src_ip": "Expected an IPv4 or IPv6 address",
    "$.dest_ip": "Expected an IPv4 or IPv6 address",
}
_RANGES: Mapping[str, tuple[int, int]] = {
    "src_port": (0, 65_535),
    "dest_port": (0, 65_535),
    "icmp_type": (0, 255),
    "icmp_code": (0, 255),
}


def _times(values: list[Any]) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    micros, absent = timestamps.parse(values)
    series = pl.Series(micros)
    return (series.scatter(absent.tolist(), None) if len(absent) else series), absent


def _texts(values: list[Any]) -> Any:
    try:
        return pl.Series(values, dtype=pl.Int64).cast(pl.String)
    except (OverflowError, pl.exceptions.PolarsError, TypeError):
        pass  # beyond 64 bits
    return [None if value is None else str(value) for value in values]


def _hex_flags(values: list[Any]) -> list[int | None]:
    return list(map(_FLAGS.get, values))


_FLAGS: dict[str | None, int | None] = {None: None, **{f"{number:02x}": number for number in range(256)}}
_CONVERSIONS: Mapping[str, Callable[[list[Any]], Any]] = {
    "proto": lambda values: list(map(TRANSPORTS.__getitem__, values)),
    "vlan": lambda values: [value[0] if value and 0 <= value[0] <= 4095 else None for value in values],
    "flow_id": _texts,
    "alert.signature_id": _texts,
    "alert.rev": _texts,
    "alert.severity": lambda values: [_SEVERITY.get(value, 1) for value in values],
    "verdict.reject": lambda values: [",".join(value) if value else None for value in values],
    "tcp.tcp_flags": _hex_flags,
    "tcp.tcp_flags_ts": _hex_flags,
    "tcp.tcp_flags_tc": _hex_flags,
}


def _packet_fields(values: dict[str, list[Any]]) -> list[bool]:
    """Take the older name of the reject target where there is one; tell which packets went to the client."""
    older = values["verdict.reject-target"]
    if any(older):
        newer = values["verdict.reject_target"]
        values["verdict.reject_target"] = [new if new is not None else old for new, old in zip(newer, older, strict=True)]
    ends = zip(*(values[end] for end in _ENDS), strict=True)
    flows = zip(*(values[f"flow.{end}"] for end in _ENDS), strict=True)
    return list(map(_went_back, ends, flows, values["direction"]))


def _went_back(ends: tuple[Any, ...], flow: tuple[Any, ...], direction: str | None) -> bool:
    """The flow knows who began it. An ICMP error about a flow, whose ends are others, leaves it to the direction."""
    if flow[0] is not None and ends[:2] != ends[2:]:
        if flow == ends:
            return False
        if flow == (*ends[2:], *ends[:2]):
            return True
    return direction == "to_client"


def _question_first(values: dict[str, list[Any]]) -> list[bool] | None:
    """Give records of version 3 the form of version 2; tell which have the server as their source."""
    types = values["dns.type"]
    if "request" not in types and "response" not in types:
        return None
    asked, back = values["dns.queries"], [False] * len(types)
    for row, word in enumerate(types):
        if word not in _VERSION_2:
            continue
        types[row] = _VERSION_2[word]
        if asked[row]:
            values["dns.rrname"][row], values["dns.rrtype"][row] = asked[row][0].rrname, asked[row][0].rrtype
        if word == "request":
            values["dns.rcode"][row] = None
            continue
        back[row] = values["src_port"][row] == _DNS_PORT or values["dest_port"][row] != _DNS_PORT
    return back


_VERSION_2: Mapping[str | None, str] = {"request": "query", "response": "answer"}
_DNS_PORT = 53
_CORRECTIONS: Mapping[str, Callable[[dict[str, list[Any]]], list[bool] | None]] = {
    "alert": _packet_fields,
    "drop": _packet_fields,
    "dns": _question_first,
}


def _initiator_first(frame: pl.DataFrame, back: pl.Series) -> pl.DataFrame:
    """Turn round the ends of packets that went to the client."""
    if not back.any():
        return frame
    ends = [end for end in ("ip", "ip6", "port") if f"source.{end}" in frame.columns and f"destination.{end}" in frame.columns]
    return frame.with_columns(
        pl.when(back).then(pl.col(f"{other}.{end}")).otherwise(pl.col(f"{side}.{end}")).alias(f"{side}.{end}")
        for side, other in (("source", "destination"), ("destination", "source"))
        for end in ends
    )


def _looks_like_eve(first: bytes) -> bool:
    objects = any(line.startswith(b"{") for line in first.split(b"\n", 20)[:20])
    return objects and b'"event_type"' in first and b'"timestamp"' in first


def _listen(value: str) -> str:
    transport, separator, address = value.partition("://")
    if transport == "tcp" and separator:
        return f"tcp://{HostPort.parse(address)}"
    if transport == "unix" and address.startswith("/"):
        return value
    raise ValueError(f"{value!r} is not tcp://HOST:PORT or unix:///PATH, such as unix:///run/ringfence/eve.sock")


class Settings(BaseModel):
    """An EVE file, read once or followed across rotation, or a socket that Suricata writes to. Suricata drops events that a
    socket does not take at once, and only a file can be read again: prefer the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath | None = Field(default=None, description="File to read.")
    listen: Annotated[str, AfterValidator(_listen)] | None = Field(
        default=None,
        description="tcp://HOST:PORT, or unix:///PATH for `filetype: unix_stream`; exactly one of path, listen and kafka.",
    )
    kafka: KafkaTopic | None = Field(
        default=None, description="Topic of Kafka that Suricata or a shipper writes its events to."
    )
    follow: bool = True
    observer: str | None = None
    original: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _check(self) -> Settings:
        require_one(self, "path", "listen", "kafka")
        return self


class SuricataKind:
    """Entry point `suricata`."""

    settings = Settings
    promise = (
        "file, Kafka: every complete line once, across restarts and rotation by rename; "
        "tcp, unix: what was read, Suricata drops what the socket does not take at once"
    )
    status: Status = "experimental"
    sample = "ids: {type: suricata, path: /var/log/suricata/eve.json, observer: ids1}"
    formats = (
        Format("eve", "Suricata EVE JSON lines", LineFramer, lambda year: SuricataDecoder(), _looks_like_eve, "suricata"),
    )

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """EVE through the shell that its file or address asks for."""
        decoder = SuricataDecoder(settings.observer, settings.original == "keep")
        return Collector("suricata", _shell(settings), decoder)

    def resources(self, settings: Settings) -> Sequence[str]:
        """A file may be read by one collector only, and an address listened on by one."""
        if settings.kafka is not None:
            return settings.kafka.claims()
        return (f"file {settings.path}" if settings.listen is None else settings.listen.replace("://", " "),)


def _shell(settings: Settings) -> Shell:
    if settings.kafka is not None:
        return KafkaTopicShell(settings.kafka)
    if settings.path is not None:
        return TailShell(settings.path, LineFramer, settings.follow)
    transport, _, address = str(settings.listen).partition("://")
    if transport == "unix":
        return UnixStreamShell(Path(address), LineFramer)
    where = HostPort.parse(address)
    return TcpShell(where.host, where.port, LineFramer)


KIND = SuricataKind()
