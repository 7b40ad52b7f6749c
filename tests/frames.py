"""Batches for tests: rows as dictionaries, and arbitrary frames of any class for properties."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import polars as pl
from hypothesis import strategies as st

from ringfence import schema
from ringfence.batch import Batch, EventClass, Header

AT_US = 1_790_000_000_123_456
IDENTITY = 0xFEED_FACE_CAFE_BEEF


def v4(text: str) -> int:
    return int(ipaddress.IPv4Address(text))


def v6(text: str) -> bytes:
    return ipaddress.IPv6Address(text).packed


def ends(source: str, destination: str) -> dict[str, Any]:
    """The address columns of a row, of either version."""
    row: dict[str, Any] = {}
    for side, text in (("source", source), ("destination", destination)):
        row.update({f"{side}.ip6": v6(text)} if ":" in text else {f"{side}.ip": v4(text)})
    return row


def header(event_class: EventClass, rows: int, version: str = schema.VERSION, module: str = "fixture") -> Header:
    return Header("edge-1", version, "", event_class, "edge", module, 1, rows, AT_US, AT_US, AT_US)


def batch(event_class: EventClass, rows: Sequence[dict[str, Any]]) -> Batch:
    """One batch of rows; each gets a time, an id from its index, and null where another row has a value."""
    names = {name: None for row in rows for name in row}
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in names}
    columns.setdefault("@timestamp", [AT_US + index for index in range(len(rows))])
    columns.setdefault("ringfence.event.source", pl.Series([IDENTITY] * len(rows), dtype=pl.UInt64))
    columns.setdefault("ringfence.event.position", list(range(len(rows))))
    return Batch(header(event_class, len(rows)), schema.build_frame(event_class, columns))


_INTS: dict[pl.DataType, int] = {pl.Int32(): 31, pl.UInt8(): 8, pl.UInt32(): 32, pl.UInt64(): 64}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def values(column: schema.Column) -> st.SearchStrategy[Any]:
    """Values of a column, null among them where a row may lack it."""
    if column.name in ("ringfence.event.source", "ringfence.event.position"):
        return st.integers(0, 2**64 - 1)
    if column.name == "@timestamp" or column.render == "time":
        kind: st.SearchStrategy[Any] = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
    elif column.render == "ipv6":
        kind = st.binary(min_size=16, max_size=16)
    elif column.name.endswith(".port"):
        kind = st.one_of(st.sampled_from([22, 53, 443, 40_000, 50_000]), st.integers(0, 65_535))
    elif column.dtype in _INTS:
        kind = st.integers(0, 2 ** _INTS[column.dtype] - 1)
    elif column.dtype == pl.Int64():
        kind = st.integers(-(2**63), 2**63 - 1)
    elif column.dtype == pl.Boolean():
        kind = st.booleans()
    else:
        kind = st.binary(max_size=12) if column.dtype == pl.Binary() else TEXT
    return kind if column.name == "@timestamp" else st.none() | kind


_NEEDED = ("@timestamp", "ringfence.event.source", "ringfence.event.position")


@st.composite
def batches(draw: st.DrawFn, event_class: EventClass, among: Sequence[str] = (), max_rows: int = 5) -> Batch:
    """A batch with some of the columns of its class (only of `among`, when given) and any values in them."""
    names = [name for name in schema.frame_schema(event_class) if name not in _NEEDED and ".segment." not in name]
    chosen = [name for name in names if not among or name in among]
    evidence = ("ringfence.evidence.source", "ringfence.evidence.position")
    present = draw(st.sets(st.sampled_from([name for name in chosen if name not in evidence]))) if chosen else set()
    if event_class is EventClass.BOUNDARY:
        present |= set(evidence)
    count = draw(st.integers(0, max_rows))
    columns = {
        name: draw(st.lists(values(schema.BY_NAME[name]), min_size=count, max_size=count))
        for name in [*_NEEDED, *sorted(present)]
    }
    typed = {name: pl.Series(column, dtype=schema.BY_NAME[name].dtype) for name, column in columns.items()}
    return Batch(header(event_class, count), schema.build_frame(event_class, typed))
