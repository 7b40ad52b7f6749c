"""Segment codes of whole batches: both versions, absent addresses, contests settled by what the row says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.segments import KIND, Segments
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext
from ringfence.topology import Segment, Topology
from tests import frames

DECLARED: dict[str, dict[str, Any]] = {
    "users": {"networks": ["10.1.0.0/16", "2001:db8:1::/64"]},
    "east-lan": {"networks": ["10.9.0.0/16"], "vlan": 91, "vni": 1091, "interface": "em1", "observer": "fw1", "tenant": "east"},
    "west-lan": {"networks": ["10.9.0.0/16"], "vlan": 92, "vni": 1092, "interface": "em2", "observer": "fw2", "tenant": "west"},
    "east-dc": {"networks": ["10.8.0.0/16"], "tenant": "east"},
}
TOPOLOGY = Topology("t.yml", "deny", {name: Segment.model_validate(body) for name, body in DECLARED.items()}, {}, {}, ())
USER, LAN, DC = "10.1.0.5", "10.9.0.5", "10.8.0.5"
INGRESS, EGRESS = "observer.ingress.interface.name", "observer.egress.interface.name"


def named(batch: Batch, processor: Segments | None = None) -> list[tuple[str, str]]:
    processor = processor or Segments(TOPOLOGY)
    frame = processor.process(batch, Micros(0)).batch.frame
    names = processor.map.names
    return [
        (names[one], names[two]) for one, two in frame.select("source.segment.code", "destination.segment.code").iter_rows()
    ]


def pair(source: str, destination: str, **row: Any) -> tuple[str, str]:
    (found,) = named(frames.batch(EventClass.FLOW, [{**frames.ends(source, destination), **row}]))
    return found


def test_both_ends_are_mapped() -> None:
    assert pair(USER, "192.0.2.1") == ("users", "outside")


def test_ipv6_is_mapped_too() -> None:
    assert pair("2001:db8:1::5", "2001:db8:2::5") == ("users", "outside")


def test_both_versions_in_one_batch_are_mapped() -> None:
    rows = [frames.ends(USER, "192.0.2.1"), {}, frames.ends("2001:db8:3::1", "2001:db8:1::5")]

    assert named(frames.batch(EventClass.FLOW, rows)) == [("users", "outside"), ("", ""), ("outside", "users")]


def test_an_end_without_address_has_no_segment() -> None:
    assert named(frames.batch(EventClass.AUTH, [{"source.ip": frames.v4(USER)}])) == [("users", "")]


def test_a_batch_without_addresses_passes_as_it_is() -> None:
    batch = frames.batch(EventClass.PROCESS, [{"message": "x"}])

    assert Segments(TOPOLOGY).process(batch, Micros(0)).batch is batch


def test_the_batch_that_was_given_is_not_changed() -> None:
    batch = frames.batch(EventClass.FLOW, [frames.ends(USER, LAN)])
    before = batch.frame.clone()

    Segments(TOPOLOGY).process(batch, Micros(0))

    assert batch.frame.equals(before)


def test_an_empty_batch_is_given_empty_codes() -> None:
    batch = frames.batch(EventClass.FLOW, [frames.ends(USER, LAN)])

    assert named(Batch(batch.header, batch.frame.clear())) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({}, "ambiguous"),
        ({"network.vlan.id": 92}, "west-lan"),
        ({"ringfence.vxlan.vni": 1091}, "east-lan"),
        ({"observer.name": "fw2"}, "west-lan"),
        ({INGRESS: "em1"}, "east-lan"),
        ({EGRESS: "em1"}, "ambiguous"),
        ({INGRESS: "em2", "network.vlan.id": 91}, "ambiguous"),
        ({"network.vlan.id": 55}, "ambiguous"),
    ],
    ids=["nothing", "vlan", "vni", "observer", "ingress", "egress", "contradiction", "stranger"],
)
def test_a_contested_source_is_settled_by_what_it_entered_with(row: dict[str, Any], expected: str) -> None:
    assert pair(LAN, "192.0.2.1", **row) == (expected, "outside")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({EGRESS: "em2"}, "west-lan"),
        ({INGRESS: "em2"}, "ambiguous"),
        ({"network.vlan.id": 92}, "ambiguous"),
        ({EGRESS: "em2", "network.vlan.id": 92}, "west-lan"),
        ({EGRESS: "em2", "network.vlan.id": 91}, "ambiguous"),
        ({INGRESS: "em0", EGRESS: "em2", "network.vlan.id": 91}, "west-lan"),
        ({"observer.name": "fw1"}, "east-lan"),
    ],
    ids=[
        "egress",
        "ingress",
        "vlan-of-the-ingress",
        "egress-and-its-vlan",
        "contradiction",
        "vlan-of-the-other-side",
        "observer",
    ],
)
def test_a_contested_destination_is_settled_by_what_it_left_with(row: dict[str, Any], expected: str) -> None:
    assert pair("192.0.2.1", LAN, **row) == ("outside", expected)


def test_the_other_end_settles_what_the_row_does_not_say() -> None:
    assert [pair(DC, LAN), pair(LAN, DC)] == [("east-dc", "east-lan"), ("east-lan", "east-dc")]


def test_two_contested_ends_settle_one_another() -> None:
    assert pair(LAN, "10.9.0.6", **{"network.vlan.id": 92}) == ("west-lan", "west-lan")


def test_a_settled_destination_settles_its_source() -> None:
    assert pair(LAN, "10.9.0.6", **{EGRESS: "em1"}) == ("east-lan", "east-lan")


FACTS = st.fixed_dictionaries(
    {},
    optional={
        "network.vlan.id": st.none() | st.sampled_from([91, 92, 5]),
        "ringfence.vxlan.vni": st.none() | st.sampled_from([1091, 1092]),
        "observer.name": st.none() | st.sampled_from(["fw1", "fw2", "fw3"]),
        INGRESS: st.none() | st.sampled_from(["em1", "em2"]),
        EGRESS: st.none() | st.sampled_from(["em1", "em2"]),
    },
)
ROWS = st.lists(
    st.tuples(st.sampled_from([USER, LAN, DC, "192.0.2.1"]), st.sampled_from([USER, LAN, DC, "192.0.2.1"]), FACTS),
    min_size=1,
    max_size=6,
)


@given(ROWS)
def test_a_row_has_the_same_segments_among_any_others(rows: list[tuple[str, str, dict[str, Any]]]) -> None:
    batch = frames.batch(
        EventClass.FLOW, [{**frames.ends(source, destination), **facts} for source, destination, facts in rows]
    )

    assert named(batch) == [pair(source, destination, **facts) for source, destination, facts in rows]


@given(st.sampled_from(sorted(KIND.event_classes)).flatmap(frames.batches))
def test_any_batch_gets_codes_that_mean_something(batch: Batch) -> None:
    processor = Segments(TOPOLOGY)
    frame = processor.process(batch, Micros(0)).batch.frame

    codes = [code for name in frame.columns if name.endswith(".segment.code") for code in frame[name].to_list()]

    assert all(0 <= code < len(processor.map.names) for code in codes)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processors.segments.MAX_SETTLED", 3)
    rows = [{**frames.ends(LAN, "192.0.2.1"), "observer.name": f"host{number}"} for number in range(50)]
    processor = Segments(TOPOLOGY)

    named(frames.batch(EventClass.FLOW, rows), processor)

    assert len(processor._settled) <= 3


def test_the_entry_point_builds_the_processor() -> None:
    assert isinstance(KIND.build(KIND.settings(), BuildContext("segments", TOPOLOGY)), Segments)
