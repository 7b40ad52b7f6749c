"""Structs generated from paths, and their fields as columns."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import schema
from ringfence.batch import EventClass
from ringfence.projection import columns_of, eve_columns, json_type, struct_for, zeek_columns

PATHS: list[tuple[str, Any]] = [("a", int), ("b.c", str), ("b.d.e", int), ("b.d.f", int), ("g.h", bool)]
STRUCT = struct_for("sample", PATHS, "kind", "sample")


def decoded(*texts: str) -> list[msgspec.Struct]:
    return [msgspec.json.decode(text, type=STRUCT) for text in texts]


def test_a_field_is_read_by_its_path() -> None:
    columns = columns_of(decoded('{"kind":"sample","a":1,"b":{"c":"x","d":{"e":2,"f":3}},"g":{"h":true}}'), STRUCT)

    assert {path: list(values) for path, values in columns.items()} == {
        "a": [1],
        "b.c": ["x"],
        "b.d.e": [2],
        "b.d.f": [3],
        "g.h": [True],
    }


def test_an_absent_object_leaves_null_in_place() -> None:
    columns = columns_of(
        decoded('{"kind":"sample"}', '{"kind":"sample","b":{"d":{"f":3}}}', '{"kind":"sample","b":null}'), STRUCT
    )

    assert list(columns["b.d.f"]) == [None, 3, None]


def test_an_object_that_no_row_has_still_has_its_columns() -> None:
    assert {path: list(values) for path, values in columns_of(decoded('{"kind":"sample"}'), STRUCT).items()} == {
        path: [None] for path, _ in PATHS
    }


def test_other_members_are_skipped() -> None:
    (struct,) = decoded('{"kind":"sample","other":{"deep":[1,2]},"a":7}')

    assert not hasattr(struct, "other")


def test_structs_are_not_tracked_by_the_collector() -> None:
    assert STRUCT.__struct_config__.gc is False


LEAF = st.none() | st.integers(-5, 5)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"kind": st.just("sample")},
        optional={
            "a": LEAF,
            "b": st.none()
            | st.fixed_dictionaries({}, optional={"c": st.none() | st.text(max_size=3), "d": st.none() | st.fixed_dictionaries({}, optional={"e": LEAF, "f": LEAF})}),
            "g": st.none() | st.fixed_dictionaries({}, optional={"h": st.none() | st.booleans()}),
        },
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip


def value_at(row: dict[str, Any], path: str) -> Any:
    node: Any = row
    for step in path.split("."):
        node = node.get(step) if isinstance(node, dict) else None
    return node


@given(ROWS)
def test_columns_hold_what_each_row_has_at_each_path(rows: list[dict[str, Any]]) -> None:
    columns = columns_of(decoded(*(msgspec.json.encode(row).decode() for row in rows)), STRUCT)

    assert {path: list(values) for path, values in columns.items()} == {
        path: [value_at(row, path) for row in rows] for path, _ in PATHS
    }


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(pl.Int64(), int), (pl.UInt8(), int), (pl.String(), str), (pl.Boolean(), bool)],
    ids=["int64", "uint8", "text", "bool"],
)
def test_a_column_is_read_from_its_json_type(dtype: pl.DataType, kind: type) -> None:
    assert json_type(dtype) is kind


def test_only_columns_with_a_path_are_read() -> None:
    names = {column.name for column in eve_columns(EventClass.DNS)}

    assert names == {column.name for column in schema.COLUMNS if EventClass.DNS in column.classes and column.eve}


def zeek(event_class: EventClass, log: str) -> dict[str, tuple[str, ...]]:
    return {column.name: names for column, names in zeek_columns(event_class, log)}


def test_an_entry_without_a_log_counts_for_every_log() -> None:
    assert (zeek(EventClass.DNS, "dns")["source.port"], zeek(EventClass.GENERIC, "rdp")["source.port"]) == (("id.orig_p",),) * 2


def test_the_entry_of_a_log_replaces_the_general_one() -> None:
    assert zeek(EventClass.ALERT, "notice")["destination.port"] == ("id.resp_p", "p")


def test_the_entry_of_another_log_does_not_count() -> None:
    assert "rule.description" not in zeek(EventClass.ALERT, "alarm")
