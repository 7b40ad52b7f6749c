"""Documents of Elastic Beats, one JSON object a line or record: Winlogbeat, Filebeat and what else writes ECS.

As Beats write them to Kafka or a file (reference of Winlogbeat and Filebeat 7 to 9, "Exported fields"). Windows events are
told apart by `winlog.provider_name` and `winlog.event_id` (`collectors/windows.py`): logons and accounts become rows of
class auth, processes of class process, connections of class flow, DNS queries of class dns, files of class file, all
others of class generic. ECS fields that a document has, such as those that a module of Winlogbeat made, win over what
`winlog.event_data` says; only `event.action` of a known event is always our word. Without Windows event the class is that
of `event.category`, as far as the fields that make it such a row are there.

A field of an unexpected type is left out, and the row is taken without it. `winlog.event_data` keeps the fields of a
Windows event as they came. `message` of a Windows event, a text that Windows makes of the same fields, is cut to its
first line. A document without `@timestamp` is of the time of its arrival. Keys with dots in them are not read.

Sample: {"@timestamp":"2026-11-25T07:44:23.123Z","agent":{"type":"winlogbeat"},"winlog":{"event_id":"4624",...},...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
import polars as pl
from msgspec.structs import fields
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collectors import windows
from collectors.kafka_topic import KafkaTopic, KafkaTopicShell, require_one
from collectors.lines import Continuations, LineFramer
from collectors.records import MAX_INT, TRANSPORTS, LineBlock, integers, without
from collectors.tail import TailShell
from collectors.windows import UNKNOWN, Meaning
from ringfence import timestamps
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Shell, Status
from ringfence.jsonlines import REFUSALS, decode_lines, explain, locate
from ringfence.projection import columns_of, struct_for
from ringfence.schema import BY_NAME, build_frame, frame_schema
from ringfence.yamlfile import ConfigPath

CHUNK_LINES = 512
MAX_PORT = 65_535

_PORTS = ("source.port", "destination.port")
_NUMBERS = (*_PORTS, "source.bytes", "source.packets", "destination.bytes", "destination.packets", "file.size")
_NUMBERS_OF_PROCESSES = ("process.pid", "process.exit_code", "process.parent.pid")
_SAME = (
    "destination.domain", "destination.ip", "dll.code_signature.status", "dll.hash.sha256", "dll.path", "dll.pe.original_file_name",
    "dns.question.name", "dns.question.type", "dns.response_code", "event.action", "event.outcome", "event.reason", "file.hash.md5",
    "file.hash.sha1", "file.hash.sha256", "file.name", "file.path", "group.name", "host.hostname", "host.name", "log.file.path",
    "network.community_id", "network.protocol", "powershell.file.script_block_text", "process.command_line", "process.entity_id",
    "process.executable", "process.hash.md5", "process.hash.sha1", "process.hash.sha256", "process.name", "process.parent.command_line",
    "process.parent.entity_id", "process.parent.executable", "process.parent.name", "process.pe.company", "process.pe.description",
    "process.pe.file_version", "process.pe.imphash", "process.pe.original_file_name", "process.pe.product", "process.working_directory",
    "registry.path", "service.name", "source.domain", "source.ip", "user.domain", "user.id", "user.name", "user.target.domain",
    "user.target.id", "user.target.name", "winlog.channel", "winlog.logon.id", "winlog.logon.type", "winlog.provider_name",
)  # fmt: skip
"""Texts that are columns under their own names."""
_TEXTS = (
    "@timestamp",
    "agent.type",
    "event.dataset",
    "event.end",
    "event.module",
    "event.start",
    "network.transport",
    "winlog.computer_name",
)
_CODES = ("event.code", "winlog.event_id", "winlog.record_id")
_LISTS = ("event.category", "registry.data.strings")
_TIME, _EVENT_DATA = "@timestamp", "winlog.event_data"
_NULL = msgspec.Raw(b"null")
_LINE_FEED = b"\\n"


class _Reader(NamedTuple):
    decoder: msgspec.json.Decoder[Any]
    struct: type[msgspec.Struct]


@cache
def _documents() -> _Reader:
    """How a document is read; `event_data` is left for the reader of its event."""
    kinds: dict[str, Any] = dict.fromkeys((*_SAME, *_TEXTS), str) | dict.fromkeys((*_NUMBERS, *_NUMBERS_OF_PROCESSES), int)
    kinds |= dict.fromkeys(_CODES, str | int) | dict.fromkeys(_LISTS, list[str] | str)
    kinds |= {"dll.code_signature.exists": bool, _EVENT_DATA: msgspec.Raw, "message": msgspec.Raw}
    struct = struct_for("document", kinds.items())
    return _Reader(msgspec.json.Decoder(struct), struct)


@cache
def _event_data(fields_of: tuple[str, ...]) -> _Reader:
    """How the fields of one kind of event are read."""
    struct = struct_for("event_data", [(name, str) for name in fields_of])
    return _Reader(msgspec.json.Decoder(struct), struct)


class BeatsDecoder:
    """Decoder of documents. `observer` names the sensor instead of the host that a document is about."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all documents; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        gathered: dict[EventClass, Gathered] = {}
        for start in range(0, len(block.lines), CHUNK_LINES):
            self._chunk(block, start, gathered)
        parts = {event_class: [self._frame(block, event_class, rows)] for event_class, rows in gathered.items()}
        return block.decoded({event_class: [frame] for event_class, (frame,) in parts.items() if frame.height})

    def _chunk(self, block: LineBlock, start: int, gathered: dict[EventClass, Gathered]) -> None:
        """Decode some documents and copy their fields into columns, those of one kind of event together."""
        documents = _documents()
        structs, refused = decode_lines(documents.decoder, block.lines[start : start + CHUNK_LINES])
        for index in refused:
            structs[index] = _second_look(block, start + index)
        groups: dict[tuple[str | None, Any], tuple[list[Any], list[int]]] = {}
        for row, document in enumerate(structs, start):
            if document is None:
                continue
            event = document.winlog
            key = (None, None) if event is None else (event.provider_name, event.event_id)
            group = groups.get(key)
            if group is None:
                group = groups[key] = ([], [])
            group[0].append(document)
            group[1].append(row)
        for (provider, event_id), (members, rows) in groups.items():
            found = columns_of(members, documents.struct, sparse=True)
            if event_id is None:
                _take_by_category(found, rows, gathered)
            else:
                meaning = windows.meaning_of(provider, str(event_id))
                gathered.setdefault(meaning.event_class, Gathered()).take(_event(found, meaning, len(rows)), rows)

    def _frame(self, block: LineBlock, event_class: EventClass, gathered: Gathered) -> pl.DataFrame:
        """The rows of one class; a document without any time is refused."""
        rows = np.array(gathered.rows, np.int64)
        found = gathered.columns()
        columns = block.origin_columns(rows, self._keep_original or event_class is EventClass.GENERIC, False)
        times, absent = timestamps.parse([*map(_six_digits, found.pop(_TIME, [None] * len(rows)))])
        received = block.frames.received_us[rows]
        times[absent] = received[absent]
        columns[_TIME] = times
        columns |= typed_columns(event_class, found, self._addresses)
        if self._observer is not None:
            columns["observer.name"] = [self._observer] * len(rows)
        elif "host.name" in found:
            columns["observer.name"] = columns["host.name"]
        timeless = absent[received[absent] == 0].tolist()
        for index in timeless:
            detail = "there is no @timestamp and the time of arrival is not known"
            row = int(rows[index])
            block.refuse(ProblemCode.WRONG_TYPE, detail, row, locate(block.lines[row], "$.@timestamp"), "$.@timestamp")
        return without(build_frame(event_class, columns), dict.fromkeys(timeless))


class Gathered:
    """The columns of all rows of one class in a block, and the lines that they came from."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self._columns: dict[str, list[Any]] = {}

    def take(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> None:
        """Add rows; a column that they lack is null in them."""
        before = len(self.rows)
        for name, values in columns.items():
            column = self._columns.setdefault(name, [])
            if len(column) < before:
                column += [None] * (before - len(column))
            column += values
        self.rows += rows

    def columns(self) -> dict[str, list[Any]]:
        """Every column, as long as there are rows."""
        count = len(self.rows)
        for column in self._columns.values():
            column += [None] * (count - len(column))
        return self._columns


def typed_columns(event_class: EventClass, found: Mapping[str, Sequence[Any]], addresses: AddressCache) -> dict[str, Any]:
    """Values of columns of a class by their types; what has no place in its column is left out, and so is what the class lacks."""
    schema = frame_schema(event_class)
    columns: dict[str, Any] = {}
    for name, values in found.items():
        column = BY_NAME[name]
        if name not in schema:
            continue
        if column.render == "ipv4":
            parsed = addresses.column(values)
            columns[name] = parsed.v4
            if parsed.v6 is not None:
                columns[f"{name}6"] = parsed.v6
        elif column.render == "time":
            times, absent = timestamps.parse([*map(_six_digits, values)])
            columns[name] = pl.Series(times).scatter(absent.tolist(), None)
        elif column.dtype.is_integer():
            columns[name] = integers(values, *_RANGES.get(name, (-MAX_INT, MAX_INT)), name, {})
        else:
            columns[name] = values
    return columns


_RANGES = dict.fromkeys(_PORTS, (0, MAX_PORT)) | {"network.iana_number": (0, 255)}


def _six_digits(text: str | None) -> str | None:
    """A time of Beats, of 3, 7 or 9 decimals and `Z`, in the form that is read fastest."""
    if text is None or text[-1:] != "Z":
        return text
    if len(text) == 24:
        return text[:23] + "000+0000"
    return text[:26] + "+0000" if len(text) > 27 else text


def _event(found: Mapping[str, Sequence[Any]], meaning: Meaning, count: int) -> dict[str, Any]:
    """The columns of Windows events of one meaning."""
    own = _own_columns(found, count)
    raws = found.get(_EVENT_DATA)
    if raws is not None:
        raws = [None if raw is None or raw == _NULL else raw for raw in raws]
        own[_EVENT_DATA] = [None if raw is None else str(raw, "utf-8") for raw in raws]
    if "message" in found:
        own["message"] = [*map(_first_line, found["message"])]
    codes = found["winlog.event_id"]
    own["event.code"] = [str(code) for code in codes]
    if "winlog.record_id" in found:
        own["winlog.record_id"] = [None if record is None else str(record) for record in found["winlog.record_id"]]
    if "winlog.computer_name" in found:
        own["host.name"] = _first(own.get("host.name"), found["winlog.computer_name"])
    if meaning.event_class is EventClass.GENERIC:
        own["ringfence.generic.type"] = [
            f"{provider or 'windows'}/{code}"
            for provider, code in zip(own.get("winlog.provider_name", [None] * count), own["event.code"], strict=True)
        ]
    if meaning is UNKNOWN:
        return own
    made = windows.columns_of(meaning, _fields_of(raws, meaning.reads, count), count)
    for name, values in made.items():
        own[name] = values if name == "event.action" else _first(own.get(name), values)
    return own


def _text(raw: Any) -> str | None:
    """A text, or the JSON of what is none."""
    if raw is None or raw == _NULL:
        return None
    value = _value(raw)
    return value if isinstance(value, str) else str(raw, "utf-8")


def _value(raw: Any) -> Any:
    """What a piece of JSON says; None for a number that is too large, which only now is read."""
    try:
        return msgspec.json.decode(raw)
    except REFUSALS:
        return None


def _first_line(raw: Any) -> str | None:
    """The first line of a text, of which the rest is not decoded."""
    written = bytes(raw or b"")
    end = written.find(_LINE_FEED)
    is_cut = end >= 0 and written[:1] == b'"' and not written[:end].endswith(b"\\")
    text = _text(written[:end] + b'"' if is_cut else raw)
    return text and text.partition("\n")[0].rstrip("\r")


def _first(preferred: Sequence[Any] | None, other: Sequence[Any]) -> Sequence[Any]:
    """Row by row the first value that is there."""
    if preferred is None:
        return other
    return [value if value is not None else second for value, second in zip(preferred, other, strict=True)]


def _fields_of(raws: Sequence[Any] | None, names: tuple[str, ...], count: int) -> dict[str, Sequence[Any]]:
    """Some fields of `event_data`, as texts."""
    if raws is None or not names:
        return dict.fromkeys(names, [None] * count)
    reader = _event_data(names)
    structs, refused = decode_lines(reader.decoder, [b"{}" if raw is None else raw for raw in raws])
    for index in refused:
        structs[index] = _texts_of(raws[index], reader.struct)
    return dict(zip(names, columns_of(structs, reader.struct).values(), strict=True))


def _texts_of(raw: Any, struct: type[msgspec.Struct]) -> msgspec.Struct:
    """The fields of an `event_data` whose values are not all texts."""
    value = _value(raw)
    members = value if isinstance(value, dict) else {}
    there = ((name, members.get(key)) for name, key, *_ in _members(struct))
    return struct(
        **{
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in there
            if value is not None
        }
    )


def _take_by_category(found: dict[str, Sequence[Any]], rows: list[int], gathered: dict[EventClass, Gathered]) -> None:
    """Documents without Windows event, each to the class that its category and fields make it."""
    columns = _own_columns(found, len(rows))
    nothing = [None] * len(rows)
    if "message" in found:
        columns["message"] = [*map(_text, found["message"])]
    if "event.code" in found:
        columns["event.code"] = [None if code is None else str(code) for code in found["event.code"]]
    ends = zip(columns.get("source.ip", nothing), columns.get("destination.ip", nothing), strict=True)
    is_pair = [source is not None and destination is not None for source, destination in ends]
    names = (columns.get(name, nothing) for name in ("dns.question.name", "process.pid", "process.executable"))
    classes = [*map(_class_of, found.get("event.category", nothing), is_pair, *names)]
    kinds = (found.get(name, nothing) for name in ("event.dataset", "event.module", "agent.type"))
    columns["ringfence.generic.type"] = [
        dataset or module or beat or "beats" for dataset, module, beat in zip(*kinds, strict=True)
    ]
    for event_class in dict.fromkeys(classes):
        places = [place for place, own in enumerate(classes) if own is event_class]
        part = {name: [values[place] for place in places] for name, values in columns.items()}
        gathered.setdefault(event_class, Gathered()).take(part, [rows[place] for place in places])


def _class_of(categories: Any, is_pair: bool, question: Any, pid: Any, executable: Any) -> EventClass:
    """The class of an ECS document."""
    if not categories:
        return EventClass.GENERIC
    if "authentication" in categories:
        return EventClass.AUTH
    if "network" in categories and is_pair and "intrusion_detection" not in categories:
        return EventClass.FLOW if question is None else EventClass.DNS
    if "process" in categories and (pid is not None or executable is not None):
        return EventClass.PROCESS
    return EventClass.FILE if "file" in categories else EventClass.GENERIC


_OWN = frozenset((*_SAME, *_NUMBERS, *_NUMBERS_OF_PROCESSES, "event.start", "event.end", "dll.code_signature.exists"))


def _own_columns(found: Mapping[str, Sequence[Any]], count: int) -> dict[str, Any]:
    """The columns that the ECS fields of a document fill."""
    columns: dict[str, Any] = {name: values for name, values in found.items() if name in _OWN}
    columns[_TIME] = found.get("_at_timestamp", [None] * count)
    if "network.transport" in found:
        columns["network.iana_number"] = [TRANSPORTS[text] for text in found["network.transport"]]
    if "registry.data.strings" in found:
        values = found["registry.data.strings"]
        columns["registry.data.strings"] = [", ".join(value) if isinstance(value, list) else value for value in values]
    return columns


def _second_look(block: LineBlock, row: int) -> Any:
    """A document that has a field of another type than expected, without that field; None for what is none."""
    line = block.lines[row]
    if not line.strip():
        block.filtered["blank"] += row not in block.left_out
        return None
    documents = _documents()
    try:
        value = msgspec.json.decode(line)
    except REFUSALS:
        value = None
    if not isinstance(value, dict):
        block.refuse(*_explained(documents.decoder, line, row))
        return None
    return _without_misfits(value, documents.struct)


def _explained(decoder: msgspec.json.Decoder[Any], line: bytes, row: int) -> tuple[ProblemCode, str, int, int, str | None]:
    code, detail, offset, path = explain(decoder, line)
    return code, detail, row, offset, path


def _without_misfits(value: Mapping[str, Any], struct: type[msgspec.Struct]) -> Any:
    """A Struct of what fits; a number where a text is expected is its text, and digits may stand for a number."""
    members: dict[str, Any] = {}
    for name, key, kind, inner in _members(struct):
        member = value.get(key)
        if member is None:
            continue
        if inner is not None:
            if isinstance(member, dict):
                members[name] = _without_misfits(member, inner)
        elif kind is msgspec.Raw:
            members[name] = msgspec.Raw(msgspec.json.encode(member))
        elif isinstance(member, int | float) and kind == str | None:
            members[name] = msgspec.json.encode(member).decode()
        else:
            try:
                members[name] = msgspec.convert(member, kind, strict=False)
            except msgspec.ValidationError:
                continue
    return struct(**members)


@cache
def _members(struct: type[msgspec.Struct]) -> tuple[tuple[str, str, Any, type[msgspec.Struct] | None], ...]:
    """Name, key and type of each field, and the Struct that it holds, if it does."""
    inner = [
        next((kind for kind in get_args(field.type) if isinstance(kind, type) and issubclass(kind, msgspec.Struct)), None)
        for field in fields(struct)
    ]
    return tuple((field.name, field.encode_name, field.type, kind) for field, kind in zip(fields(struct), inner, strict=True))


def recognise(first: bytes) -> bool:
    """True when a file that begins so holds documents of a Beat."""
    line = next((line for line in first.split(b"\n", 20)[:20] if line.strip()), b"")
    return line.startswith(b"{") and b'"@timestamp"' in line and (b'"@metadata"' in line or b'"agent"' in line)


class Settings(BaseModel):
    """A file of documents, read once or followed across rotation, or a topic of Kafka."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath | None = Field(default=None, description="File to read.")
    kafka: KafkaTopic | None = Field(default=None, description="Topic of Kafka to read; exactly one of path and kafka.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    observer: str | None = Field(default=None, description="Name of the sensor; the host of the document when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each document as event.original.")

    @model_validator(mode="after")
    def _check(self) -> Settings:
        require_one(self, "path", "kafka")
        return self


class BeatsKind:
    """Entry point `beats`."""

    settings = Settings
    promise = "file, Kafka: every complete document once, across restarts and rotation by rename"
    status: Status = "experimental"
    sample = "windows: {type: beats, path: /var/log/winlogbeat/events.ndjson}"
    formats = (Format("beats", "JSON documents of Elastic Beats", LineFramer, lambda year: BeatsDecoder(), recognise, "beats"),)

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """Documents through the shell that their file or topic asks for."""
        return Collector("beats", _shell(settings), BeatsDecoder(settings.observer, settings.original == "keep"))

    def resources(self, settings: Settings) -> Sequence[str]:
        """A file or a topic may be read by one collector only."""
        return (f"file {settings.path}",) if settings.kafka is None else settings.kafka.claims()


def _shell(settings: Settings) -> Shell:
    if settings.kafka is not None:
        return KafkaTopicShell(settings.kafka)
    return TailShell(Path(settings.path or ""), LineFramer, settings.follow)


KIND = BeatsKind()
