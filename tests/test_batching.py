"""Blocks: flushed at a limit, bucketed by actor, no row lost."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ringfence import schema
from ringfence.batch import Batch, EventClass
from ringfence.batching import Batcher, Batching, actor_hash
from tests import frames

FLOW, AUTH = EventClass.FLOW, EventClass.AUTH


def batcher(buckets: int = 1, sequence: int = 0, **limits: int) -> Batcher:
    return Batcher("edge", "suricata", Batching(**limits), buckets, sequence)


def flows(*sources: str) -> pl.DataFrame:
    return frames.batch(FLOW, [frames.ends(source, "10.2.0.9") for source in sources]).frame


def test_nothing_waits_at_first() -> None:
    empty = batcher()

    assert (empty.rows, empty.wait_secs(5.0), empty.due(5.0), empty.take(0)) == (0, None, False, [])


def test_rows_wait_for_the_delay() -> None:
    waiting = batcher(max_delay_ms=100)
    waiting.add({FLOW: flows("10.0.0.1")}, 5.0)

    assert waiting.wait_secs(5.025) == pytest.approx(0.075)


def test_the_delay_counts_from_the_oldest_row() -> None:
    waiting = batcher(max_delay_ms=100)
    waiting.add({FLOW: flows("10.0.0.1")}, 5.0)
    waiting.add({FLOW: flows("10.0.0.1")}, 5.09)

    assert (waiting.due(5.09), waiting.due(5.1001)) == (False, True)


def test_enough_rows_are_due_at_once() -> None:
    waiting = batcher(rows=2)
    waiting.add({FLOW: flows("10.0.0.1", "10.0.0.2")}, 5.0)

    assert waiting.due(5.0)


def test_enough_bytes_are_due_at_once() -> None:
    waiting = batcher(bytes=4096)
    waiting.add({FLOW: frames.batch(FLOW, [{"event.original": bytes(5000)}]).frame}, 5.0)

    assert waiting.due(5.0)


def test_empty_frames_start_no_delay() -> None:
    waiting = batcher()
    waiting.add({FLOW: flows("10.0.0.1").clear()}, 5.0)

    assert waiting.wait_secs(5.0) is None


def test_taking_leaves_nothing_behind() -> None:
    waiting = batcher()
    waiting.add({FLOW: flows("10.0.0.1")}, 5.0)
    waiting.take(9)

    assert (waiting.rows, waiting.wait_secs(5.0), waiting.take(9)) == (0, None, [])


def test_each_class_is_a_batch_of_its_own() -> None:
    waiting = batcher()
    waiting.add({FLOW: flows("10.0.0.1"), AUTH: frames.batch(AUTH, [{"message": "x"}]).frame}, 5.0)

    assert [batch.header.event_class for _, batch in waiting.take(9)] == [FLOW, AUTH]


def test_the_header_tells_what_is_inside() -> None:
    waiting = batcher(sequence=41)
    waiting.add({FLOW: flows("10.0.0.1", "10.0.0.2")}, 5.0)

    ((key, batch),) = waiting.take(9)

    header = batch.header
    assert (key, header.batch_id, header.sequence, header.rows, header.ingested_us) == (b"0", "edge-42", 42, 2, 9)
    assert (header.schema, header.module, header.time_min_us, header.time_max_us) == (
        schema.VERSION,
        "suricata",
        frames.AT_US,
        frames.AT_US + 1,
    )


def test_the_sequence_goes_on() -> None:
    waiting = batcher()
    for _ in range(3):
        waiting.add({FLOW: flows("10.0.0.1")}, 5.0)
        waiting.take(9)

    assert waiting.sequence == 3


ROWS = st.lists(
    st.fixed_dictionaries({}, optional={"source.ip": st.none() | st.integers(0, 2**32 - 1), "source.ip6": st.none() | st.binary(min_size=16, max_size=16)}),
    min_size=1,
    max_size=12,
)  # fmt: skip


def taken(rows: list[dict[str, Any]], buckets: int) -> list[tuple[bytes, Batch]]:
    waiting = batcher(buckets)
    waiting.add({FLOW: frames.batch(FLOW, rows).frame}, 5.0)
    return waiting.take(9)


@given(ROWS, st.integers(1, 16))
def test_bucketing_keeps_every_row_once(rows: list[dict[str, Any]], buckets: int) -> None:
    positions = [
        position for _, batch in taken(rows, buckets) for position in batch.frame["ringfence.event.position"].to_list()
    ]

    assert sorted(positions) == list(range(len(rows)))


@given(ROWS, st.integers(2, 16))
def test_one_actor_is_in_one_bucket(rows: list[dict[str, Any]], buckets: int) -> None:
    where: dict[object, set[bytes]] = {}
    for key, batch in taken(rows, buckets):
        for row in batch.frame.iter_rows(named=True):
            four, six = row.get("source.ip"), row.get("source.ip6")
            where.setdefault(four if four is not None else six, set()).add(key)

    assert all(len(keys) == 1 for keys in where.values())


def test_an_actor_hashes_the_same_in_every_version() -> None:
    rows: list[dict[str, Any]] = [{"source.ip": 0x0A00_0001}, {"source.ip6": bytes(range(16))}, {"host.hostname": "fw1"}]

    assert actor_hash(frames.batch(AUTH, rows).frame).tolist() == [3_710_935_698, 506_228_898, 3_146_218_002]


def test_a_host_is_the_actor_where_there_is_no_address() -> None:
    rows = [{"host.hostname": f"finance-web-{number:02d}"} for number in range(16)]

    assert len(set(actor_hash(frames.batch(AUTH, rows).frame).tolist())) == 16


def test_an_address_beats_the_host() -> None:
    rows: list[dict[str, Any]] = [{"host.hostname": "a", "source.ip": 5}, {"host.hostname": "b", "source.ip": 5}]

    assert len(set(actor_hash(frames.batch(AUTH, rows).frame).tolist())) == 1


def test_neighbours_spread_over_buckets() -> None:
    keys = {key for key, _ in taken([{"source.ip": 0x0A00_0000 + host} for host in range(64)], 8)}

    assert len(keys) == 8


@pytest.mark.parametrize("limits", [{"rows": 0}, {"max_delay_ms": 0}, {"bytes": 1}, {"row": 5}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Batching(**limits)
