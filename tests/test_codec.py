"""Blocks on the wire: what goes in comes out, and whatever is no block is refused with its reason."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import polars as pl
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from ringfence import codec, schema
from ringfence.batch import Batch, EventClass, Record
from ringfence.codec import BLOCK_BYTES, MAX_VALUE_BYTES, BadBlock
from tests import frames
from tests.blocks.write import block

CLASSES = list(EventClass)
BATCH = frames.batch(EventClass.FLOW, [{"source.port": 1}, {"source.port": 2}])


def encoded(batch: Batch = BATCH) -> Record:
    (record,) = codec.encode(batch, b"7")
    return record


def with_header(name: str, value: bytes | None) -> Record:
    record = encoded()
    headers = {key: text for key, text in record.headers.items() if key != name}
    return replace(record, headers=headers if value is None else {**headers, name: value})


def with_value(value: bytes) -> Record:
    record = encoded()
    return replace(record, value=value, headers={**record.headers, "ringfence-crc32c": b"%d" % crc32c(value)})


@pytest.mark.parametrize("event_class", CLASSES)
def test_every_column_of_every_class_travels(event_class: EventClass) -> None:
    written = block(event_class)

    batch = codec.decode(Record(written["key"], written["headers"], written["value"]))

    assert dict(batch.frame.schema) == schema.frame_schema(event_class)
    assert batch.frame.to_dict(as_series=False) == written["columns"]


@given(st.sampled_from(CLASSES).flatmap(frames.batches))
def test_a_round_trip_is_identity(batch: Batch) -> None:
    returned = codec.decode(encoded(batch))

    assert returned.header == batch.header
    assert returned.frame.equals(batch.frame)


def test_the_key_is_that_of_the_bucket() -> None:
    assert encoded().key == b"7"


def large(rows: int, width: int) -> Batch:
    noise = random.Random(7).randbytes
    lines = [{"event.original": noise(width), "source.port": row} for row in range(rows)]
    return frames.batch(EventClass.FLOW, lines)


@pytest.mark.parametrize("rows", [2, 3, 40], ids=["two", "three", "forty"])
def test_a_batch_is_halved_until_each_block_is_small_enough(rows: int) -> None:
    records = codec.encode(large(rows, 2_000_000 // rows // 2), b"0")

    assert len(records) > 1
    assert max(len(record.value) for record in records) <= BLOCK_BYTES


def test_halves_hold_all_rows_in_order() -> None:
    batch = large(40, 50_000)

    parts = [codec.decode(record) for record in codec.encode(batch, b"0")]

    assert pl.concat([part.frame for part in parts]).equals(batch.frame)


def test_halves_have_ids_of_their_own() -> None:
    records = codec.encode(large(40, 50_000), b"0")

    assert len({record.headers["ringfence-batch-id"] for record in records}) == len(records)


def test_halves_state_their_own_rows_and_times() -> None:
    for record in codec.encode(large(40, 50_000), b"0"):
        part = codec.decode(record)

        assert part.header.rows == part.frame.height
        assert (part.header.time_min_us, part.header.time_max_us) == codec.time_span(part.frame)


def test_a_row_that_is_too_large_alone_still_travels() -> None:
    (record,) = codec.encode(large(1, 600_000), b"0")

    assert codec.decode(record).frame.height == 1


def test_rows_are_counted_from_headers() -> None:
    assert codec.rows_in([encoded(), Record(b"", {}, b"a dead letter")]) == 3


REFUSED: dict[str, tuple[Callable[[], Record], str]] = {
    "foreign": (lambda: with_header("content-type", b"application/json"), "content-type b'application/json' is not a ringfence block"),
    "untyped": (lambda: with_header("content-type", None), "content-type b'(absent)' is not a ringfence block"),
    "huge": (lambda: with_value(bytes(MAX_VALUE_BYTES + 1)), f"the block is {MAX_VALUE_BYTES + 1} bytes long, at most {MAX_VALUE_BYTES} are accepted"),
    "headerless": (lambda: with_header("ringfence-class", None), "the record lacks the header ringfence-class"),
    "class": (lambda: with_header("ringfence-class", b"gossip"), "class 'gossip' with 2 rows is not one that this version reads"),
    "too-many-rows": (lambda: with_header("ringfence-rows", b"1000001"), "class 'flow' with 1000001 rows is not one that this version reads"),
    "negative-rows": (lambda: with_header("ringfence-rows", b"-1"), "class 'flow' with -1 rows is not one that this version reads"),
    "number": (lambda: with_header("ringfence-seq", b"1e9"), "header ringfence-seq is b'1e9', not a number"),
    "no-number": (lambda: with_header("ringfence-time-min", None), "header ringfence-time-min is b'', not a number"),
    "long-number": (lambda: with_header("ringfence-seq", b"9" * 5000), f"header ringfence-seq is {b'9' * 32!r}, not a number"),
    "version": (lambda: with_header("ringfence-schema", b"2.0"), "the block has schema 2.0, this version reads 1.x"),
    "rows": (lambda: with_header("ringfence-rows", b"3"), "header says 3 rows, the block has 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_block_is_refused_with_its_reason(case: str) -> None:
    make, sentence = REFUSED[case]

    with pytest.raises(BadBlock, match=f"^{re.escape(sentence)}$"):
        codec.decode(make())


def test_a_wrong_checksum_is_refused_with_both() -> None:
    record = encoded()

    with pytest.raises(BadBlock, match=r"^checksum mismatch: header says 00000005, the \d+ bytes give [0-9a-f]{8}$"):
        codec.decode(replace(record, headers={**record.headers, "ringfence-crc32c": b"5"}))


@given(st.integers(0, 7), st.data())
def test_any_flipped_bit_is_noticed(bit: int, data: st.DataObject) -> None:
    record = encoded()
    place = data.draw(st.integers(0, len(record.value) - 1))
    damaged = bytearray(record.value)
    damaged[place] ^= 1 << bit

    with pytest.raises(BadBlock, match="checksum mismatch"):
        codec.decode(replace(record, value=bytes(damaged)))


@given(st.binary(max_size=300))
def test_any_bytes_with_a_right_checksum_are_refused(value: bytes) -> None:
    with pytest.raises(BadBlock):
        codec.decode(with_value(value))


def test_text_in_a_number_column_is_refused() -> None:
    frame = BATCH.frame.with_columns(pl.Series("source.port", ["80", "eighty"]))

    with pytest.raises(BadBlock, match="not an Arrow IPC stream of known columns"):
        codec.decode(encoded(Batch(BATCH.header, frame)))


@given(st.dictionaries(st.sampled_from(sorted(encoded().headers)), st.binary(max_size=12), min_size=1))
def test_any_headers_are_read_or_refused(changes: dict[str, bytes]) -> None:
    record = encoded()
    with suppress(BadBlock):
        codec.decode(replace(record, headers={**record.headers, **changes}))


def test_the_time_span_of_no_rows_is_zero() -> None:
    assert codec.time_span(BATCH.frame.clear()) == (0, 0)


def test_the_time_span_is_that_of_the_rows() -> None:
    assert codec.time_span(BATCH.frame) == (frames.AT_US, frames.AT_US + 1)
