"""The journal of systemd: entries as JSON (`journalctl -o json`) or in the export format (`journalctl -o export`).

After the documents "Journal JSON Format" and "Journal Export Formats" of systemd and systemd.journal-fields(7). An entry
gives the row that the same message gives as syslog (`collectors/program_messages.py`). A field of JSON is a text, an array
of the numbers of its bytes where they are no text, an array of such where it occurs several times (the first counts),
or null where journalctl left it out for its size, which is not done with `--all`, as it is run here. In the export format
a field that is no text has its length before it. Octets that are not UTF-8 become U+FFFD.

`@timestamp` is when the program sent the message (_SOURCE_REALTIME_TIMESTAMP) where the journal knows, else when it was
received. `process.name` is SYSLOG_IDENTIFIER, else _COMM; the others of the process are the trusted fields of the journal.

Delivery: `journalctl -f` goes on after the cursor of the last entry that was committed, so nothing is lost or repeated as
long as the journal keeps it. An entry larger than MAX_LINE_BYTES is not read.

Sample: {"__CURSOR":"s=...","__REALTIME_TIMESTAMP":"1795592663123456","_HOSTNAME":"srv3","MESSAGE":"Accepted password for ...",...}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collectors import program_messages
from collectors.command import CommandShell
from collectors.json_documents import Reader, read
from collectors.lines import MAX_LINE_BYTES, NO_FRAMES, Boundaries, Continuations, LineFramer, first_line
from collectors.records import MAX_INT, LineBlock, integers
from collectors.tail import TailShell
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Shell, Status
from ringfence.yamlfile import ConfigPath

CHUNK_LINES = 512
FIELDS = (
    "__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP", "_HOSTNAME", "SYSLOG_IDENTIFIER", "_COMM", "_PID", "SYSLOG_PID", "_EXE",
    "_SYSTEMD_UNIT", "PRIORITY", "SYSLOG_FACILITY", "MESSAGE",
)  # fmt: skip
"""What is read of an entry, in the order of Entry."""
_LENGTH_BYTES = 8
_CURSOR = re.compile(rb'"__CURSOR" ?: ?"([!-~]{1,512}?)"')
_NAME = re.compile(rb"[A-Z0-9_]{1,64}")

Entry = tuple[str | None, ...]
"""The texts of FIELDS."""

_NAMES = {name.strip("_").lower() + "_of_" * name.startswith("_"): name for name in FIELDS}
"""Names of Python for those of the journal, which begin with underscores."""
_STRUCT = msgspec.defstruct("entry", [(name, str | int | list[Any] | None, None) for name in _NAMES], rename=_NAMES, gc=False)
_READER = Reader(msgspec.json.Decoder(_STRUCT), _STRUCT)


def _text(value: Any) -> str | None:
    """A field as it is in JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if value and all(type(number) is int and 0 <= number <= 255 for number in value):
        return bytes(value).decode("utf-8", "replace")
    return next((text for text in map(_inner, value) if text is not None), None)


def _inner(value: Any) -> str | None:
    """One of several values of a field, which are not nested further."""
    return _text(value) if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)) else None


class _Entries:
    """What both forms have in common: texts of fields to rows."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()

    def _tables(self, block: LineBlock, rows: list[int], entries: Sequence[Entry]) -> Mapping[EventClass, pl.DataFrame]:
        """The rows of some entries; those without a time are refused."""
        received, sent, *_ = zip(*entries, strict=True) if entries else ((), ())
        times = [_digits(own) or _digits(outer) for own, outer in zip(sent, received, strict=True)]
        for index in [index for index, time in enumerate(times) if time is None]:
            block.refuse(ProblemCode.MALFORMED, "there is no __REALTIME_TIMESTAMP", rows[index], 0, "$.__REALTIME_TIMESTAMP")
        good = [index for index, time in enumerate(times) if time is not None]
        if not good:
            return {}
        _, _, host, identifier, command, pid, said_pid, executable, unit, priority, facility, message = zip(
            *(entries[index] for index in good), strict=True
        )
        where = np.array([rows[index] for index in good], np.int64)
        columns: dict[str, Any] = block.origin_columns(where, self._keep_original, False)
        programs = [own or other for own, other in zip(identifier, command, strict=True)]
        pids = [own or other for own, other in zip(said_pid, pid, strict=True)]
        texts = [text or "" for text in message]
        columns |= {
            "@timestamp": [times[index] for index in good],
            "observer.name": host if self._observer is None else [self._observer] * len(good),
            "host.hostname": host,
            "host.name": host,
            "process.name": programs,
            "process.pid": _numbers([own or other for own, other in zip(pid, said_pid, strict=True)], MAX_INT),
            "process.executable": executable,
            "service.name": unit,
            "log.syslog.appname": identifier,
            "log.syslog.procid": pids,
            "log.syslog.severity.code": _numbers(priority, 7),
            "log.syslog.facility.code": _numbers(facility, 23),
            "message": texts,
        }
        typed = {name: _series(name, values) for name, values in columns.items()}
        return program_messages.tables(programs, texts, typed, "journald", self._addresses)


def _series(name: str, values: Any) -> pl.Series:
    if isinstance(values, pl.Series):
        return values
    return (
        pl.Series(values)
        if isinstance(values, np.ndarray)
        else pl.Series(name, values, dtype=pl.Int64 if name == "@timestamp" else pl.String)
    )


def _digits(text: str | None) -> int | None:
    """Microseconds since the epoch, within what a time may be."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 18 else None


def _numbers(texts: Sequence[str | None], most: int) -> pl.Series:
    return integers([_digits(text) for text in texts], 0, most, "", {})


class JournalJsonDecoder(_Entries):
    """Decoder of entries as JSON, one a line. `observer` names the sensor instead of the entry's host."""

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        rows: list[int] = []
        entries: list[Entry] = []
        for start in range(0, len(block.lines), CHUNK_LINES):
            for row, struct in enumerate(read(block, _READER, start, start + CHUNK_LINES), start):
                if struct is not None:
                    rows.append(row)
                    entries.append(tuple(map(_text, msgspec.structs.astuple(struct))))
        tables = self._tables(block, rows, entries)
        return block.decoded({event_class: [frame] for event_class, frame in tables.items()})


class ExportFramer:
    """Cuts the export format into entries, each with the empty line behind it.

    What is longer than the cap, by its own account or so far, is handed over up to the next empty line, in pieces such as
    those of `collectors/lines.py`, for the decoder to reject.
    """

    head_bytes = 0

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._rest = bytearray()
        self._place = 0
        """Where the next field of the entry at the start of `_rest` begins."""
        self._skipping = False

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Boundaries]:
        """Take the next bytes; return the entries that are complete."""
        self._rest += data
        bounds = [0]
        while (end := self._end(bounds[-1])) is not None:
            bounds.append(end)
        taken = bytes(self._rest[: bounds[-1]])
        del self._rest[: bounds[-1]]
        self._place -= bounds[-1]
        return (taken, np.array(bounds, np.int64)) if len(bounds) > 1 else (b"", NO_FRAMES)

    def finish(self) -> tuple[bytes, Boundaries]:
        """Return the last entry, complete or not."""
        rest, self._rest, self._place, self._skipping = bytes(self._rest), bytearray(), 0, False
        return rest, np.array([0, len(rest)], np.int64) if rest else NO_FRAMES

    def _end(self, start: int) -> int | None:
        """Where the entry that begins there ends, or None when more bytes must tell."""
        rest = self._rest
        while not self._skipping:
            line_end = rest.find(b"\n", self._place)
            size = (line_end if line_end >= 0 else len(rest)) - start
            if size > self._max_bytes:
                self._skipping = True
            elif line_end < 0:
                return None
            elif line_end == self._place:
                self._place += 1
                return self._place
            elif rest.find(b"=", self._place, line_end) >= 0:
                self._place = line_end + 1
            else:
                after = line_end + 1 + _LENGTH_BYTES
                if len(rest) < after:
                    return None
                after += int.from_bytes(rest[line_end + 1 : after], "little") + 1
                if after - start > self._max_bytes:
                    self._skipping = True
                elif len(rest) < after:
                    return None
                else:
                    self._place = after
        return self._skip(start)

    def _skip(self, start: int) -> int | None:
        """The end of what is left out: behind the next empty line, or of a piece; the last piece is no shorter than others."""
        piece = self._max_bytes + 1
        found = self._rest.find(b"\n\n", start, start + 2 * piece)
        if found >= 0:
            self._skipping = False
            self._place = found + 2
        elif len(self._rest) - start < 2 * piece:
            return None
        else:
            self._place = start + piece
        return self._place


class JournalExportDecoder(_Entries):
    """Decoder of entries in the export format. `observer` names the sensor instead of the entry's host."""

    def feed(self, frames: Frames) -> Decoded:
        """Decode all entries; each is one row, one Problem or blank."""
        block = _ExportBlock(frames, self._continuations)
        rows: list[int] = []
        entries: list[Entry] = []
        for row, frame in enumerate(frames.slices()):
            if row in block.left_out:
                continue
            if not frame.strip(b"\n"):
                block.filtered["blank"] += 1
                continue
            found: dict[bytes, str] = {}
            for name, value, place in read_export(frame):
                if value is None:
                    block.refuse(
                        ProblemCode.MALFORMED, "expected NAME=TEXT, or NAME, a length and as many bytes", row, place, None
                    )
                    break
                if name in _WANTED and name not in found:
                    found[name] = value.decode("utf-8", "replace")
            else:
                rows.append(row)
                entries.append(tuple(map(found.get, _WANTED)))
        tables = self._tables(block, rows, entries)
        return block.decoded({event_class: [frame] for event_class, frame in tables.items()})


_WANTED = {name.encode(): None for name in FIELDS}


class _ExportBlock(LineBlock):
    """Entries instead of lines: they may hold any bytes, and `event.original` keeps them."""

    def _leave_out_bad_text(self) -> None:
        """Fields that are no text are allowed."""


def read_export(entry: bytes) -> Iterator[tuple[bytes, bytes | None, int]]:
    """Name, value and place of each field; a value of None marks the place where it is none, and is the last."""
    place = 0
    while place < len(entry) and entry[place : place + 1] != b"\n":
        line_end = entry.find(b"\n", place)
        line_end = len(entry) if line_end < 0 else line_end
        name, equals, value = entry[place:line_end].partition(b"=")
        after = line_end + 1
        if not equals:
            start = after + _LENGTH_BYTES
            after = start + int.from_bytes(entry[line_end + 1 : start], "little") + 1
            value = entry[start : after - 1]
            if after > len(entry) or entry[after - 1 : after] != b"\n":
                yield name, None, place
                return
        if not _NAME.fullmatch(name):
            yield name, None, place
            return
        yield name, value, place
        place = after


def _looks_like_json(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b"{") and any(
        name in line for name in (b'"__CURSOR"', b'"__REALTIME_TIMESTAMP"', b'"__MONOTONIC_TIMESTAMP"', b'"_BOOT_ID"')
    )


def _looks_like_export(first: bytes) -> bool:
    return first.lstrip(b"\n").startswith((b"__CURSOR=", b"__REALTIME_TIMESTAMP="))


class Settings(BaseModel):
    """The journal of this host, a folder of journals, or a file that journalctl wrote."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath | None = Field(default=None, description="File of entries to read, instead of running journalctl.")
    format: Literal["json", "export"] = Field(default="json", description="Form of the entries in `path`.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    directory: ConfigPath | None = Field(
        default=None, description="Folder of journals, such as that of systemd-journal-remote."
    )
    start: Literal["now", "boot", "beginning"] = Field(
        default="now", description="Where to begin when nothing was read before."
    )
    observer: str | None = Field(default=None, description="Name of the sensor; the host of the entry when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each entry as event.original.")

    @model_validator(mode="after")
    def _check(self) -> Settings:
        if self.path is not None and self.directory is not None:
            raise ValueError("path and directory exclude each other")
        if self.path is None and self.format != "json":
            raise ValueError("format is for path: journalctl is asked for json")
        return self


_START: Mapping[str, tuple[str, ...]] = {"now": ("--lines=0",), "boot": ("--boot", "--no-tail"), "beginning": ("--no-tail",)}


def _argv(settings: Settings, position: bytes) -> Sequence[str]:
    """The command that prints what comes after a cursor."""
    argv = ["journalctl", "--output=json", "--all", "--follow", "--quiet", "--no-pager"]
    if settings.directory is not None:
        argv.append(f"--directory={settings.directory}")
    return [*argv, f"--after-cursor={position.decode()}", "--no-tail"] if position else [*argv, *_START[settings.start]]


def cursor_of(line: bytes) -> bytes:
    """The cursor of an entry as JSON; empty where it has none."""
    found = _CURSOR.search(line)
    return found[1] if found else b""


class JournaldKind:
    """Entry point `journald`."""

    settings = Settings
    promise = "every entry once, across restarts, as long as the journal keeps it; file: as any file"
    status: Status = "experimental"
    sample = "journal: {type: journald}"
    formats = (
        Format(
            "journald",
            "journal of systemd as JSON lines",
            LineFramer,
            lambda year: JournalJsonDecoder(),
            _looks_like_json,
            "journald",
        ),
        Format(
            "journal-export",
            "journal of systemd in its export format",
            ExportFramer,
            lambda year: JournalExportDecoder(),
            _looks_like_export,
            "journald",
        ),
    )

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """journalctl, or the file."""
        decoder = JournalExportDecoder if settings.format == "export" else JournalJsonDecoder
        return Collector("journald", _shell(settings, context.name), decoder(settings.observer, settings.original == "keep"))

    def resources(self, settings: Settings) -> Sequence[str]:
        """A file or a journal may be read by one collector only."""
        return (f"journal {settings.directory or 'of this host'}" if settings.path is None else f"file {settings.path}",)


def _shell(settings: Settings, name: str) -> Shell:
    if settings.path is None:
        return CommandShell(name, partial(_argv, settings), LineFramer, resume=cursor_of)
    framer = ExportFramer if settings.format == "export" else LineFramer
    return TailShell(Path(settings.path), framer, settings.follow)


KIND = JournaldKind()
