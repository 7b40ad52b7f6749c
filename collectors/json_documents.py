"""What the decoders of JSON documents share: reading that survives fields of unexpected types, and rows of many kinds together.

A document is read through a Struct of the fields in use. One that the Struct refuses is read again without the fields that
do not fit, so that a field of another type costs only itself.

Sample: `read(block, reader, 0, 512)` -> one Struct for each of the first 512 lines, None for what is no document
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, get_args

import msgspec
import numpy as np
import polars as pl
from msgspec.structs import fields

from collectors.records import MAX_INT, LineBlock, integers, without
from ringfence import timestamps
from ringfence.addresses import AddressCache
from ringfence.batch import EventClass, ProblemCode
from ringfence.jsonlines import REFUSALS, decode_lines, explain, locate
from ringfence.projection import struct_for
from ringfence.schema import BY_NAME, build_frame, frame_schema

MAX_PORT = 65_535
TIME = "@timestamp"


class Reader(NamedTuple):
    """How one kind of document is read."""

    decoder: msgspec.json.Decoder[Any]
    struct: type[msgspec.Struct]


def reader_of(name: str, kinds: Iterable[tuple[str, Any]]) -> Reader:
    """A reader of the fields at some dotted paths, each with its type."""
    struct = struct_for(name, kinds)
    return Reader(msgspec.json.Decoder(struct), struct)


def read(block: LineBlock, reader: Reader, start: int, stop: int) -> list[Any]:
    """The documents of some lines; None for a line that is none, which is accounted for."""
    structs, refused = decode_lines(reader.decoder, block.lines[start:stop])
    for index in refused:
        structs[index] = _second_look(block, start + index, reader)
    return structs


def _second_look(block: LineBlock, row: int, reader: Reader) -> Any:
    """A document that has a field of another type than expected, without that field; None for what is none."""
    line = block.lines[row]
    if not line.strip():
        block.filtered["blank"] += row not in block.left_out
        return None
    try:
        value = msgspec.json.decode(line)
    except REFUSALS:
        value = None
    if not isinstance(value, dict):
        block.refuse(*_explained(reader.decoder, line, row))
        return None
    return _without_misfits(value, reader.struct)


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


def texts_of(raw: Any, struct: type[msgspec.Struct]) -> msgspec.Struct:
    """The fields of an `event_data` whose values are not all texts."""
    value = value_of(raw)
    members = value if isinstance(value, dict) else {}
    there = ((name, members.get(key)) for name, key, *_ in _members(struct))
    return struct(
        **{
            name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
            for name, value in there
            if value is not None
        }
    )


def value_of(raw: Any) -> Any:
    """What a piece of JSON says; None for a number that is too large, which only now is read."""
    try:
        return msgspec.json.decode(raw)
    except REFUSALS:
        return None


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


class Rows:
    """Makes the rows of gathered columns. `observer` names the sensor instead of the host that a document is about.

    `time` is the field that has the time, for people.
    """

    def __init__(self, observer: str | None, keep_original: bool, time: str = TIME) -> None:
        self._time = time
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()

    def frames(self, block: LineBlock, gathered: Mapping[EventClass, Gathered]) -> dict[EventClass, list[pl.DataFrame]]:
        """A frame for each class that there are rows of; a document without any time is refused."""
        made = {event_class: self._frame(block, event_class, rows) for event_class, rows in gathered.items()}
        return {event_class: [frame] for event_class, frame in made.items() if frame.height}

    def _frame(self, block: LineBlock, event_class: EventClass, gathered: Gathered) -> pl.DataFrame:
        rows = np.array(gathered.rows, np.int64)
        found = gathered.columns()
        columns = block.origin_columns(rows, self._keep_original or event_class is EventClass.GENERIC, False)
        times, absent = timestamps.parse([*map(six_digits, found.pop(TIME, [None] * len(rows)))])
        received = block.frames.received_us[rows]
        times[absent] = received[absent]
        columns[TIME] = times
        columns |= typed_columns(event_class, found, self._addresses)
        if self._observer is not None:
            columns["observer.name"] = [self._observer] * len(rows)
        elif "host.name" in columns:
            columns["observer.name"] = first_set(columns.get("observer.name"), columns["host.name"])
        timeless = absent[received[absent] == 0].tolist()
        for index in timeless:
            row = int(rows[index])
            detail = f"there is no {self._time} and the time of arrival is not known"
            block.refuse(ProblemCode.WRONG_TYPE, detail, row, locate(block.lines[row], f"$.{self._time}"), f"$.{self._time}")
        return without(build_frame(event_class, columns), dict.fromkeys(timeless))


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
            times, absent = timestamps.parse([*map(six_digits, values)])
            columns[name] = pl.Series(times).scatter(absent.tolist(), None)
        elif column.dtype.is_integer():
            columns[name] = integers(values, *_RANGES.get(name, (-MAX_INT, MAX_INT)), name, {})
        else:
            columns[name] = values
    return columns


_RANGES = dict.fromkeys(("source.port", "destination.port"), (0, MAX_PORT)) | {"network.iana_number": (0, 255)}


def six_digits(text: str | None) -> str | None:
    """A time of 3, 7 or 9 decimals and `Z`, or 3 and a zone such as +0000, in the form that is read fastest."""
    if text is None:
        return None
    if len(text) == 28 and text[23] in "+-" and text[19] == ".":
        return text[:23] + "000" + text[23:]
    if text[-1:] != "Z":
        return text
    if len(text) == 24:
        return text[:23] + "000+0000"
    return text[:26] + "+0000" if len(text) > 27 else text


def first_set(preferred: Sequence[Any] | None, other: Sequence[Any]) -> Sequence[Any]:
    """Row by row the first value that is there."""
    if preferred is None:
        return other
    return [value if value is not None else second for value, second in zip(preferred, other, strict=True)]
