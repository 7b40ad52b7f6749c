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
from typing import Any

import msgspec

from collectors import windows
from collectors.json_documents import TIME, Gathered, Reader, Rows, first_set, read, reader_of, texts_of, value_of
from collectors.kafka_topic import FileOrTopic
from collectors.lines import Continuations, LineFramer, first_line
from collectors.records import TRANSPORTS, LineBlock
from collectors.windows import UNKNOWN, Meaning
from ringfence.batch import Decoded, EventClass, Frames
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.jsonlines import decode_lines
from ringfence.projection import columns_of

CHUNK_LINES = 512

_NUMBERS = (
    "source.port",
    "destination.port",
    "source.bytes",
    "source.packets",
    "destination.bytes",
    "destination.packets",
    "file.size",
)
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
_EVENT_DATA = "winlog.event_data"
_NULL = msgspec.Raw(b"null")
_LINE_FEED = b"\\n"


@cache
def _documents() -> Reader:
    """How a document is read; `event_data` is left for the reader of its event."""
    kinds: dict[str, Any] = dict.fromkeys((*_SAME, *_TEXTS), str) | dict.fromkeys((*_NUMBERS, *_NUMBERS_OF_PROCESSES), int)
    kinds |= dict.fromkeys(_CODES, str | int) | dict.fromkeys(_LISTS, list[str] | str)
    kinds |= {"dll.code_signature.exists": bool, _EVENT_DATA: msgspec.Raw, "message": msgspec.Raw}
    return reader_of("document", kinds.items())


@cache
def _event_data(fields_of: tuple[str, ...]) -> Reader:
    """How the fields of one kind of event are read."""
    return reader_of("event_data", [(name, str) for name in fields_of])


class BeatsDecoder:
    """Decoder of documents. `observer` names the sensor instead of the host that a document is about."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._rows = Rows(observer, keep_original)
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all documents; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        gathered: dict[EventClass, Gathered] = {}
        for start in range(0, len(block.lines), CHUNK_LINES):
            self._chunk(block, start, gathered)
        return block.decoded(self._rows.frames(block, gathered))

    def _chunk(self, block: LineBlock, start: int, gathered: dict[EventClass, Gathered]) -> None:
        """Decode some documents and copy their fields into columns, those of one kind of event together."""
        documents = _documents()
        structs = read(block, documents, start, start + CHUNK_LINES)
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


def _event(found: Mapping[str, Sequence[Any]], meaning: Meaning, count: int) -> dict[str, Any]:
    """The columns of Windows events of one meaning."""
    own = _own_columns(found, count)
    raws = found.get(_EVENT_DATA)
    if raws is not None:
        raws = [None if raw is None or raw == _NULL else raw for raw in raws]
        own[_EVENT_DATA] = [None if raw is None else str(raw, "utf-8") for raw in raws]
    if "message" in found:
        own["message"] = [*map(_first_text_line, found["message"])]
    codes = found["winlog.event_id"]
    own["event.code"] = [str(code) for code in codes]
    if "winlog.record_id" in found:
        own["winlog.record_id"] = [None if record is None else str(record) for record in found["winlog.record_id"]]
    if "winlog.computer_name" in found:
        own["host.name"] = first_set(own.get("host.name"), found["winlog.computer_name"])
    if meaning.event_class is EventClass.GENERIC:
        own["ringfence.generic.type"] = [
            f"{provider or 'windows'}/{code}"
            for provider, code in zip(own.get("winlog.provider_name", [None] * count), own["event.code"], strict=True)
        ]
    if meaning is UNKNOWN:
        return own
    made = windows.columns_of(meaning, _fields_of(raws, meaning.reads, count), count)
    for name, values in made.items():
        own[name] = values if name == "event.action" else first_set(own.get(name), values)
    return own


def _text(raw: Any) -> str | None:
    """A text, or the JSON of what is none."""
    if raw is None or raw == _NULL:
        return None
    value = value_of(raw)
    return value if isinstance(value, str) else str(raw, "utf-8")


def _first_text_line(raw: Any) -> str | None:
    """The first line of a text, of which the rest is not decoded."""
    written = bytes(raw or b"")
    end = written.find(_LINE_FEED)
    is_cut = end >= 0 and written[:1] == b'"' and not written[:end].endswith(b"\\")
    text = _text(written[:end] + b'"' if is_cut else raw)
    return text and text.partition("\n")[0].rstrip("\r")


def _fields_of(raws: Sequence[Any] | None, names: tuple[str, ...], count: int) -> dict[str, Sequence[Any]]:
    """Some fields of `event_data`, as texts."""
    if raws is None or not names:
        return dict.fromkeys(names, [None] * count)
    reader = _event_data(names)
    structs, refused = decode_lines(reader.decoder, [b"{}" if raw is None else raw for raw in raws])
    for index in refused:
        structs[index] = texts_of(raws[index], reader.struct)
    return dict(zip(names, columns_of(structs, reader.struct).values(), strict=True))


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
    columns[TIME] = found.get("_at_timestamp", [None] * count)
    if "network.transport" in found:
        columns["network.iana_number"] = [TRANSPORTS[text] for text in found["network.transport"]]
    if "registry.data.strings" in found:
        values = found["registry.data.strings"]
        columns["registry.data.strings"] = [", ".join(value) if isinstance(value, list) else value for value in values]
    return columns


def recognise(first: bytes) -> bool:
    """True when a file that begins so holds documents of a Beat."""
    line = first_line(first)
    return line.startswith(b"{") and b'"@timestamp"' in line and (b'"@metadata"' in line or b'"agent"' in line)


class BeatsKind:
    """Entry point `beats`."""

    settings = FileOrTopic
    promise = "file, Kafka: every complete document once, across restarts and rotation by rename"
    status: Status = "experimental"
    sample = "windows: {type: beats, path: /var/log/winlogbeat/events.ndjson}"
    formats = (Format("beats", "JSON documents of Elastic Beats", LineFramer, lambda year: BeatsDecoder(), recognise, "beats"),)

    def build(self, settings: FileOrTopic, context: BuildContext) -> Collector:
        """Documents through the shell that their file or topic asks for."""
        return Collector("beats", settings.shell(), BeatsDecoder(settings.observer, settings.keeps_original))

    def resources(self, settings: FileOrTopic) -> Sequence[str]:
        """A file or a topic may be read by one collector only."""
        return settings.claims()


KIND = BeatsKind()
