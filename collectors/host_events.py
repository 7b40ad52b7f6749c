"""What the decoders of sensors inside hosts share: events of a few kinds, each with its event class and its columns.

A kind names the columns that it fills and reads their values from one record. A value that has no place in its column (no
address, a number out of range) costs that field and never the record; without a time there is no row. Records of no known
kind become rows of class generic with their line kept.

Sample: Kind(EventClass.PROCESS, ("event.action", "process.pid"), lambda record: ("exec", record.pid))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from collectors.lines import Continuations, LineFramer
from collectors.records import MAX_INT, LineBlock, integers, micros_of, without
from collectors.tail import TailShell
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Decoder, Format, Status
from ringfence.jsonlines import decode_lines, explain, locate
from ringfence.schema import build_frame, frame_schema
from ringfence.yamlfile import ConfigPath

CHUNK_LINES = 512
_LOSSY = frozenset({EventClass.FLOW, EventClass.ALERT})
_MOST: Mapping[pl.DataType, int] = {
    pl.UInt8(): 0xFF,
    pl.UInt32(): 0xFFFF_FFFF,
    pl.Int32(): 0x7FFF_FFFF,
    pl.Int64(): MAX_INT,
}


class Kind(NamedTuple):
    """One kind of event. `names` are columns, addresses without their 6; `read` gives their values in that order."""

    event_class: EventClass
    names: tuple[str, ...]
    read: Callable[[Any], tuple[Any, ...]]


class Found:
    """The records of one kind in a block: their lines, and the values of each column."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.values: list[tuple[Any, ...]] = []


def typed_columns(kind: Kind, values: Sequence[tuple[Any, ...]], addresses: AddressCache) -> dict[str, Any]:
    """The columns of some records of one kind."""
    types = frame_schema(kind.event_class)
    columns: dict[str, Any] = {}
    for name, found in zip(kind.names, zip(*values, strict=True), strict=True):
        dtype = types[name]
        if name.endswith(".ip"):
            parsed = addresses.column(found)
            columns[name] = parsed.v4
            if parsed.v6 is not None:
                columns[f"{name}6"] = parsed.v6
        elif dtype.is_integer():
            most = 65_535 if name.endswith(".port") else _MOST.get(dtype, MAX_INT)
            columns[name] = integers(found, 0 if dtype != pl.Int64() else -MAX_INT, most, "", {})
        else:
            columns[name] = pl.Series(found, dtype=dtype)
    return columns


class HostEventDecoder:
    """Decoder of JSON lines, each a record of one kind.

    `decoder` reads a line; `kind_of` names the kind of a record, one of `kinds` or, for class generic, any other text;
    `context_of` gives its time (RFC 3339 text, or microseconds) and the name of its sensor; `time_path` is where the time
    stands. `observer` names the sensor where a record does not.
    """

    def __init__(
        self,
        decoder: msgspec.json.Decoder[Any],
        kinds: Mapping[str, Kind],
        kind_of: Callable[[Any], str | None],
        context_of: Callable[[Any], tuple[str | int | None, str | None]],
        time_path: str,
        observer: str | None,
        keep_original: bool,
    ) -> None:
        self._decoder = decoder
        self._kinds = kinds
        self._kind_of = kind_of
        self._context_of = context_of
        self._time_path = time_path
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        parts: dict[EventClass, list[pl.DataFrame]] = {}
        for start in range(0, len(block.lines), CHUNK_LINES):
            for kind, found in self._chunk(block, start).items():
                frame = self._frame(block, kind, found)
                if frame.height:
                    parts.setdefault(kind.event_class, []).append(frame)
        return block.decoded(parts)

    def _chunk(self, block: LineBlock, start: int) -> dict[Kind, Found]:
        """The values of some lines by kind."""
        records, refused = decode_lines(self._decoder, block.lines[start : start + CHUNK_LINES])
        for index in refused:
            refuse_line(block, self._decoder, start + index)
        groups: dict[Kind, Found] = {}
        for row, record in enumerate(records, start):
            if record is None:
                continue
            name = self._kind_of(record)
            kind = self._kinds.get(name or "", GENERIC)
            found = groups.get(kind)
            if found is None:
                found = groups[kind] = Found()
            found.rows.append(row)
            own = (name,) if kind is GENERIC else kind.read(record)
            found.values.append((*self._context_of(record), *own))
        return groups

    def _frame(self, block: LineBlock, kind: Kind, found: Found) -> pl.DataFrame:
        """The rows of one kind; those without a time are refused."""
        rows = np.array(found.rows)
        times, observers, *_ = zip(*found.values, strict=True)
        is_generic = kind.event_class is EventClass.GENERIC
        columns = block.origin_columns(rows, self._keep_original or is_generic, kind.event_class in _LOSSY)
        columns |= typed_columns(kind, [values[2:] for values in found.values], self._addresses)
        columns["observer.name"] = [observer or self._observer for observer in observers]
        columns["@timestamp"], absent = _times(times)
        for index in absent:
            row = int(rows[index])
            path = f"$.{self._time_path}"
            block.refuse(ProblemCode.WRONG_TYPE, "Expected a time", row, locate(block.lines[row], path), path)
        return without(build_frame(kind.event_class, columns), dict.fromkeys(absent))


GENERIC = Kind(EventClass.GENERIC, ("ringfence.generic.type",), lambda name: (name,))


def _times(times: Sequence[str | int | None]) -> tuple[pl.Series, list[int]]:
    """Texts or microseconds as a column, and the rows that have no time."""
    texts, _ = micros_of([time if isinstance(time, str) else None for time in times])
    numbers = integers([time if isinstance(time, int) else None for time in times], 0, MAX_INT, "", {})
    found = texts.zip_with(texts.is_not_null(), numbers)
    return found, found.is_null().arg_true().to_list()


def refuse_line(block: LineBlock, decoder: msgspec.json.Decoder[Any], row: int) -> None:
    """Make a line that was not read a Problem, unless it is blank."""
    line = block.lines[row]
    if not line.strip():
        block.filtered["blank"] += row not in block.left_out
        return
    code, detail, offset, path = explain(decoder, line)
    block.refuse(code, detail, row, offset, path)


def container_id(name: str | None) -> str | None:
    """The id in the name of a control group, such as `docker-ID.scope`, or in a runtime's `docker://ID`."""
    if not name:
        return None
    text = name.removesuffix(".scope").rpartition("/")[2]
    text = text.rpartition("-")[2]
    return text if len(text) >= 12 and set(text) <= _HEX else None


_HEX = frozenset("0123456789abcdef")


def base_name(path: str | None) -> str | None:
    """The last part of a path."""
    return path.rpartition("/")[2] or None if path else None


class HostEventSettings(BaseModel):
    """A file of events as JSON lines, read once or followed across rotation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath = Field(description="File to read.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    observer: str | None = Field(default=None, description="Name of the sensor where a record does not name it.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each line as event.original.")


class HostEventKind:
    """The entry point of one sensor whose events are read from a file. `make` builds a decoder from observer and keep."""

    settings = HostEventSettings
    promise = "every complete line once, across restarts and rotation by rename"
    status: Status = "experimental"

    def __init__(
        self,
        name: str,
        meaning: str,
        sample: str,
        make: Callable[[str | None, bool], Decoder],
        recognise: Callable[[bytes], bool],
    ) -> None:
        self._name = name
        self._make = make
        self.sample = sample
        self.formats = (Format(name, meaning, LineFramer, lambda year: make(None, True), recognise, name),)

    def build(self, settings: HostEventSettings, context: BuildContext) -> Collector:
        """The file through the shell that all file collectors share."""
        decoder = self._make(settings.observer, settings.original == "keep")
        return Collector(self._name, TailShell(settings.path, LineFramer, settings.follow), decoder)

    def resources(self, settings: HostEventSettings) -> Sequence[str]:
        """A file may be read by one collector only."""
        return (f"file {settings.path}",)
