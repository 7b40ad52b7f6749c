"""The column table, and that every later version reads the blocks that an earlier one wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import polars as pl
import pytest

from ringfence import codec, schema
from ringfence.batch import Batch, EventClass, Record
from ringfence.codec import BadBlock
from tests import frames
from tests.blocks.write import block

BLOCKS = Path(__file__).parent / "blocks"
WRITTEN = sorted(BLOCKS.glob("*/*.block"))
CLASSES = list(EventClass)
LATER = (EventClass.DETECTION, EventClass.DETECTOR, EventClass.ALARM)
FIRST_CLASSES = [event_class for event_class in CLASSES if event_class not in LATER]
"""Those that 1.0 had."""
INNER = "network.inner.vlan.id"


def stored(path: Path) -> tuple[Record, dict[str, Any]]:
    fixture = msgspec.msgpack.decode(path.read_bytes())
    return Record(fixture["key"], fixture["headers"], fixture["value"]), fixture["columns"]


@pytest.mark.parametrize("path", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_a_block_of_an_earlier_version_reads_with_equal_values(path: Path) -> None:
    record, columns = stored(path)

    assert codec.decode(record).frame.to_dict(as_series=False) == columns


@pytest.mark.parametrize("path", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_a_block_of_an_earlier_version_keeps_its_header(path: Path) -> None:
    header = codec.decode(stored(path)[0]).header

    assert (header.schema, header.event_class, header.rows) == (path.parent.name, path.stem, 3)


def test_no_column_is_declared_twice() -> None:
    assert len(schema.BY_NAME) == len(schema.COLUMNS)


def test_there_is_a_stored_block_of_every_class() -> None:
    assert {path.stem for path in WRITTEN if path.parent.name == "1.0"} == set(FIRST_CLASSES)


@pytest.mark.parametrize("event_class", FIRST_CLASSES)
def test_a_block_of_1_0_lacks_the_columns_that_came_later(event_class: EventClass) -> None:
    later = {column.name for column in schema.COLUMNS if column.since != "1.0"}

    assert not later & set(codec.decode(stored(BLOCKS / "1.0" / f"{event_class}.block")[0]).frame.columns)


@pytest.mark.parametrize("event_class", FIRST_CLASSES)
def test_a_block_of_1_0_has_every_column_of_1_0(event_class: EventClass) -> None:
    _, columns = stored(BLOCKS / "1.0" / f"{event_class}.block")
    first = [
        column.name
        for column in schema.COLUMNS
        if column.since == "1.0" and event_class in column.classes and event_class not in dict(column.joined)
    ]

    assert list(columns) == first


def test_the_inner_vlan_came_with_1_1() -> None:
    column = schema.BY_NAME[INNER]

    assert (column.since, column.dtype, column.eve, column.render) == ("1.1", pl.Int32(), None, "plain")


def test_the_inner_vlan_travels() -> None:
    (record,) = codec.encode(frames.batch(EventClass.PF, [{"network.vlan.id": 10, INNER: 200}]), b"0")

    assert codec.decode(record).frame[INNER].to_list() == [200]


def future(version: str, **columns: pl.Series) -> Record:
    batch = frames.batch(EventClass.FLOW, [{"source.port": 5}])
    frame = batch.frame.with_columns(**columns)
    (record,) = codec.encode(Batch(replace(batch.header, schema=version), frame), b"0")
    return record


def test_a_column_of_a_later_minor_version_is_ignored() -> None:
    batch = codec.decode(future("1.99", **{"network.hue": pl.Series([{"green": [1.5]}])}))

    assert batch.frame.columns == frames.batch(EventClass.FLOW, [{"source.port": 5}]).frame.columns


def test_the_known_columns_of_a_later_minor_version_are_read() -> None:
    assert codec.decode(future("1.99", **{"network.hue": pl.Series(["x"])})).frame["source.port"].to_list() == [5]


def test_a_block_of_another_major_version_is_refused() -> None:
    with pytest.raises(BadBlock, match=r"^the block has schema 2\.0, this version reads 1\.x$"):
        codec.decode(future("2.0"))


@pytest.mark.parametrize("version", ["", "1", ".1", "1.", "1.0.0", "one.two", "\u00b2.0", "-1.0"])
def test_a_version_that_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(BadBlock, match=r"is not <major>\.<minor>$"):
        codec.decode(future(version))


def test_column_names_are_unique() -> None:
    assert len(schema.BY_NAME) == len(schema.COLUMNS)


def test_no_column_came_with_a_version_that_is_still_to_come() -> None:
    named = {version for column in schema.COLUMNS for version in (column.since, *(version for _, version in column.joined))}
    versions = {tuple(map(int, version.split("."))) for version in named}

    assert max(versions) == (schema.MAJOR, schema.MINOR)


def test_no_member_of_a_document_is_both_a_value_and_an_object() -> None:
    names = {column.name for column in schema.COLUMNS if column.render != "hidden"}
    parents = {name[:place] for name in names for place, char in enumerate(name) if char == "."}

    assert not names & parents


@pytest.mark.parametrize("column", schema.COLUMNS, ids=lambda column: str(column.name))
def test_each_column_has_a_meaning_and_a_known_rendering(column: schema.Column) -> None:
    assert column.meaning.endswith(".")
    assert column.render in get_args(schema.Render)


@pytest.mark.parametrize("event_class", CLASSES)
def test_the_generator_covers_every_column_of_this_version(event_class: EventClass) -> None:
    assert list(block(event_class)["columns"]) == list(schema.frame_schema(event_class))


def test_a_misspelt_column_is_refused_by_name() -> None:
    with pytest.raises(KeyError, match=r"no column \['source\.prt'\] in class flow"):
        schema.build_frame(EventClass.FLOW, {"source.prt": [1]})


def test_a_frame_is_typed_and_ordered_by_the_table() -> None:
    frame = schema.build_frame(EventClass.FLOW, {"source.port": [1], "@timestamp": pl.Series([2], dtype=pl.Int8)})

    assert dict(frame.schema) == {"@timestamp": pl.Int64(), "source.port": pl.Int32()}


def test_frames_joined_have_null_where_one_lacked_a_column() -> None:
    one, two = (schema.build_frame(EventClass.FLOW, columns) for columns in ({"source.port": [1]}, {"destination.port": [2]}))

    assert schema.together([one, two]).to_dict(as_series=False) == {"source.port": [1, None], "destination.port": [None, 2]}
