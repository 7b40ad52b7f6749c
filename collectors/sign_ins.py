"""Logs of single sign-on and MFA servers, one record a line, to rows of class auth: what their decoders share.

A line may be wrapped as Docker's json-file driver writes it: {"log":"LINE\\n","stream":"stdout","time":"..."}. Records of a
log that say nothing of a sign-in are rows of class generic; lines that are no record, such as banners and the traces of an
exception, are left out and counted as `no_record`. A time without zone is UTC. What has no time has that of its arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import numpy as np
import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from collectors import auth_messages
from collectors.lines import Continuations, LineFramer
from collectors.message_forms import Reader, Values
from collectors.records import LineBlock
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from ringfence import timestamps
from ringfence.addresses import AddressCache, HostPort
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Shell, Status
from ringfence.jsonlines import REFUSALS, explain
from ringfence.schema import build_frame
from ringfence.yamlfile import ConfigPath


class Record(NamedTuple):
    """One record: its time as text (ISO 8601, or milliseconds since the epoch), its text, and what it says of a sign-in."""

    time: str | int | None
    message: str
    said: Values | None


Read = Callable[[str], Record | None]
"""Reads one line; None when it is no record. Raises what msgspec raises for JSON that is none."""


class _Docker(msgspec.Struct, gc=False):
    log: str | None = None
    time: str | None = None


_DOCKER = msgspec.json.Decoder(_Docker)
_ANY = msgspec.json.Decoder(Any)
NOTHING = msgspec.Raw(b"")
"""A member that is not there."""


S = TypeVar("S", bound=msgspec.Struct)


def part(raw: msgspec.Raw, struct: type[S]) -> S:
    """A member that has another form in other records; where it is not of this form it has no fields."""
    try:
        return msgspec.json.decode(raw, type=struct) if bytes(raw) else struct()
    except REFUSALS:
        return struct()


def of_message(read: Read) -> Reader:
    """Reads the same record where it is the text of a message of syslog or the journal."""

    def reader(message: str) -> Values | None:
        if not message.startswith("{"):
            return None
        try:
            record = read(message)
        except REFUSALS:
            return None
        return None if record is None else record.said

    return reader


class SignInDecoder:
    """Decoder of the lines that `read` reads, with `structs` where they are JSON.

    `observer` names the server, else the sender's address or the path does.
    """

    def __init__(
        self,
        read: Read,
        structs: msgspec.json.Decoder[Any] | None,
        kind: str,
        observer: str | None = None,
        keep_original: bool = True,
    ) -> None:
        self._read = read
        self._structs = structs or _ANY
        self._kind = kind
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode every line."""
        block = LineBlock(frames, self._continuations)
        rows: list[int] = []
        records: list[Record] = []
        for row, line in enumerate(block.lines):
            if row in block.left_out:
                continue
            record = self._record(block, row, line)
            if record is not None:
                rows.append(row)
                records.append(record)
        times = self._micros(block, rows, records)
        parts = {
            event_class: [frame]
            for event_class in (EventClass.AUTH, EventClass.GENERIC)
            if (frame := self._frame(block, event_class, rows, records, times)).height
        }
        return block.decoded(parts)

    def _record(self, block: LineBlock, row: int, line: bytes) -> Record | None:
        if not line.strip():
            block.filtered["blank"] += 1
            return None
        text, wrapped = line.decode(), None
        try:
            if line.startswith(_DOCKER_START):
                wrapped = _DOCKER.decode(line)
                text = (wrapped.log or "").rstrip("\r\n")
            record = self._read(text)
        except REFUSALS:
            inner = wrapped is not None
            code, detail, offset, path = explain(
                self._structs if inner or not line.startswith(_DOCKER_START) else _DOCKER, text.encode()
            )
            block.refuse(code, detail, row, 0 if inner else offset, f"$.log{path[1:] if path else ''}" if inner else path)
            return None
        if record is None:
            block.filtered["no_record"] += 1
            return None
        return record._replace(time=wrapped.time) if record.time is None and wrapped is not None else record

    def _micros(self, block: LineBlock, rows: list[int], records: list[Record]) -> list[int]:
        """When each happened; rows whose time cannot be known are refused and have 0."""
        texts = [record.time if isinstance(record.time, str) else None for record in records]
        found, absent = timestamps.parse([_zoned(text) for text in texts])
        micros: list[int] = found.tolist()
        for index in absent.tolist():
            time, row = records[index].time, rows[index]
            if isinstance(time, int) and 0 < time < timestamps.END_S * 1000:
                micros[index] = time * 1_000
            elif time is None and block.frames.received_us[row]:
                micros[index] = int(block.frames.received_us[row])
            else:
                detail = "there is no time and its arrival is not known" if time is None else "the time is none of the calendar"
                block.refuse(ProblemCode.MALFORMED, detail, row, 0, None)
                micros[index] = 0
        return micros

    def _frame(
        self, block: LineBlock, event_class: EventClass, rows: list[int], records: list[Record], micros: list[int]
    ) -> pl.DataFrame:
        is_auth = event_class is EventClass.AUTH
        chosen = [index for index, record in enumerate(records) if micros[index] and (record.said is not None) is is_auth]
        if not chosen:
            return pl.DataFrame()
        where = np.array([rows[index] for index in chosen], np.int64)
        columns = block.origin_columns(where, self._keep_original, False)
        columns["@timestamp"] = [micros[index] for index in chosen]
        columns["message"] = [records[index].message for index in chosen]
        names = [self._observer or source.name for source in block.frames.sources]
        columns["observer.name"] = [names[source] for source in block.frames.source[where].tolist()]
        if is_auth:
            said = [values for index in chosen if (values := records[index].said) is not None]
            columns |= auth_messages.columns(said, self._addresses)
        else:
            columns["ringfence.generic.type"] = [self._kind] * len(chosen)
        return build_frame(event_class, columns)


_DOCKER_START = b'{"log":'


def _zoned(text: str | None) -> str | None:
    """ISO 8601 with microseconds at most and a zone: `2026-11-25 08:35:42,956` too, as log4j writes it."""
    if text is None or len(text) < 19:
        return text
    day, rest = text[:10], text[11:].replace(",", ".", 1)
    clock, sign, zone = rest, "", ""
    for mark in ("Z", "+", "-"):
        if mark in rest:
            clock, sign, zone = rest.partition(mark)
            break
    whole, _, fraction = clock.partition(".")
    if not fraction.isdigit():
        fraction = ""
    offset = "+0000" if sign in ("", "Z") else sign + zone.replace(":", "")
    return f"{day}T{whole}.{fraction[:6]:0<6}{offset}"


def _listen(value: str) -> str:
    scheme, separator, address = value.partition("://")
    if scheme == "tcp" and separator:
        return f"tcp://{HostPort.parse(address)}"
    raise ValueError(f"{value!r} is not tcp://HOST:PORT, such as tcp://127.0.0.1:5170")


class SignInSettings(BaseModel):
    """A log file, followed as it grows and is rotated, or lines on a TCP port."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath | None = Field(default=None, description="File to read.")
    listen: Annotated[str, AfterValidator(_listen)] | None = Field(
        default=None, description="tcp://HOST:PORT, one record a line."
    )
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    observer: str | None = Field(default=None, description="Name of the server; the path or the sender's address when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each line as event.original.")

    @model_validator(mode="after")
    def _check(self) -> SignInSettings:
        if (self.listen is None) == (self.path is None):
            raise ValueError("exactly one of listen and path is required")
        return self


class SignInKind:
    """A collector kind whose decoder is given what names the observer, and whether to keep each line."""

    settings = SignInSettings
    promise = "file: every complete line once, across restarts and rotation by rename; tcp: what was read"
    status: Status = "experimental"

    def __init__(
        self,
        name: str,
        meaning: str,
        path: str,
        decoder: Callable[[str | None, bool], SignInDecoder],
        recognise: Callable[[bytes], bool],
    ) -> None:
        self._name = name
        self._decoder = decoder
        self.sample = f"sso: {{type: {name}, path: {path}}}"
        self.formats: Sequence[Format] = (Format(name, meaning, LineFramer, lambda year: decoder(None, True), recognise, name),)

    def build(self, settings: SignInSettings, context: BuildContext) -> Collector:
        """A file or a port through the shells that all share."""
        return Collector(self._name, _shell_of(settings), self._decoder(settings.observer, settings.original == "keep"))

    def resources(self, settings: SignInSettings) -> Sequence[str]:
        """What no second collector may read."""
        return (f"file {settings.path}" if settings.listen is None else settings.listen.replace("://", " "),)


def _shell_of(settings: SignInSettings) -> Shell:
    if settings.path is not None:
        return TailShell(settings.path, LineFramer, settings.follow)
    where = HostPort.parse(str(settings.listen).removeprefix("tcp://"))
    return TcpShell(where.host, where.port, LineFramer)
