"""Codes become names before a batch leaves the process."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.labels import KIND, Labels
from processors.segments import Segments
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext
from ringfence.segments import SEGMENT_PARTS
from ringfence.topology import Segment, Topology
from tests import frames

USERS = Segment.model_validate({"networks": ["10.1.0.0/16"], "id": "u-1", "role": "users", "tenant": "a", "site": "hq"})
TOPOLOGY = Topology("t.yml", "deny", {"users": USERS}, {}, {}, ())


def labelled(batch: Batch) -> Batch:
    return Labels(TOPOLOGY).process(Segments(TOPOLOGY).process(batch, Micros(0)).batch, Micros(0)).batch


ROWS = [frames.ends("10.1.0.5", "192.0.2.1"), {}]


def test_each_end_has_the_parts_of_its_segment() -> None:
    row = labelled(frames.batch(EventClass.FLOW, ROWS)).frame.row(0, named=True)

    assert [row[f"source.segment.{part}"] for part in SEGMENT_PARTS] == ["u-1", "users", "users", "a", "hq"]


def test_outside_has_a_name_but_no_owner() -> None:
    row = labelled(frames.batch(EventClass.FLOW, ROWS)).frame.row(0, named=True)

    assert [row[f"destination.segment.{part}"] for part in SEGMENT_PARTS] == ["outside", "outside", None, None, None]


def test_an_end_without_address_has_no_parts() -> None:
    row = labelled(frames.batch(EventClass.FLOW, ROWS)).frame.row(1, named=True)

    assert {row[f"source.segment.{part}"] for part in SEGMENT_PARTS} == {None}


def test_codes_are_gone() -> None:
    assert not [name for name in labelled(frames.batch(EventClass.FLOW, ROWS)).frame.columns if name.endswith(".code")]


def test_a_batch_without_codes_passes_as_it_is() -> None:
    batch = frames.batch(EventClass.FLOW, ROWS)

    assert Labels(TOPOLOGY).process(batch, Micros(0)).batch is batch


def test_an_empty_batch_gets_empty_columns() -> None:
    batch = frames.batch(EventClass.FLOW, ROWS)

    assert labelled(Batch(batch.header, batch.frame.clear())).frame["source.segment.name"].to_list() == []


@given(st.sampled_from(sorted(KIND.event_classes)).flatmap(frames.batches))
def test_labels_change_nothing_else(batch: Batch) -> None:
    assert labelled(batch).frame.select(batch.frame.columns).equals(batch.frame)


def test_the_entry_point_builds_the_processor() -> None:
    assert isinstance(KIND.build(KIND.settings(), BuildContext("labels", TOPOLOGY)), Labels)
