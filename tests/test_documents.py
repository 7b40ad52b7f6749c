"""ECS documents: what a row looks like when it is indexed, and that it equals a naive rendering of the same row."""

from __future__ import annotations

import ipaddress
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import documents, schema
from ringfence.batch import Batch, EventClass
from ringfence.topology import PROTOCOLS
from tests import frames

CLASSES = list(EventClass)


def rendered(batch: Batch, hide: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    return [json.loads(line) for chunk in documents.render(batch, hide) for line in chunk.splitlines()]


def one(event_class: EventClass, **row: Any) -> dict[str, Any]:
    (document,) = rendered(frames.batch(event_class, [row]))
    return document


def flow(row: dict[str, Any] | None = None, ends: tuple[str, str] = ("10.1.0.5", "10.2.0.9")) -> dict[str, Any]:
    return one(EventClass.FLOW, **frames.ends(*ends), **(row or {}))


def test_names_become_nested_objects() -> None:
    assert flow({"source.port": 5})["source"] == {"ip": "10.1.0.5", "port": 5}


def test_null_members_are_left_out() -> None:
    first, second = rendered(frames.batch(EventClass.FLOW, [{"source.port": 5, "source.bytes": 1}, {"source.bytes": 2}]))

    assert (first["source"], second["source"]) == ({"port": 5, "bytes": 1}, {"bytes": 2})


def test_an_object_whose_members_are_all_null_is_left_out() -> None:
    _, second = rendered(frames.batch(EventClass.FLOW, [{"source.port": 5, "source.as.number": 1}, {}]))

    assert "source" not in second


def test_zero_false_and_empty_text_are_kept() -> None:
    document = flow({"source.packets": 0, "ringfence.evidence.lossy": False, "ringfence.flow.state": ""})

    assert (document["source"]["packets"], document["ringfence"]["evidence"], document["ringfence"]["flow"]) == (
        0,
        {"lossy": False},
        {"state": ""},
    )


def test_time_is_rfc_3339_with_microseconds() -> None:
    assert flow({"@timestamp": 1_795_592_663_000_001})["@timestamp"] == "2026-11-25T07:44:23.000001Z"


def test_both_addresses_are_related() -> None:
    assert flow()["related"] == {"ip": ["10.1.0.5", "10.2.0.9"]}


def test_one_address_alone_is_related() -> None:
    assert one(EventClass.AUTH, **{"source.ip": 1})["related"] == {"ip": ["0.0.0.1"]}


def test_without_addresses_nothing_is_related() -> None:
    assert "related" not in one(EventClass.PROCESS, **{"message": "x"})


def test_ipv6_addresses_are_written_as_rfc_5952_says() -> None:
    assert flow(ends=("2001:DB8:0:0::5", "::1"))["related"] == {"ip": ["2001:db8::5", "::1"]}


def test_ipv4_and_ipv6_rows_share_one_member() -> None:
    batch = frames.batch(EventClass.FLOW, [frames.ends("10.0.0.1", "10.0.0.2"), frames.ends("2001:db8::1", "2001:db8::2")])

    assert [document["source"]["ip"] for document in rendered(batch)] == ["10.0.0.1", "2001:db8::1"]


def test_the_network_type_is_that_of_the_source() -> None:
    batch = frames.batch(EventClass.FLOW, [frames.ends("10.0.0.1", "10.0.0.2"), frames.ends("::1", "::2"), {}])

    assert [document.get("network", {}).get("type") for document in rendered(batch)] == ["ipv4", "ipv6", None]


@pytest.mark.parametrize(
    ("number", "transport"), [(6, "tcp"), (17, "udp"), (1, "icmp"), (58, "ipv6-icmp"), (112, "vrrp"), (4, None), (254, None)]
)
def test_the_protocol_number_and_its_name_are_both_there(number: int, transport: str | None) -> None:
    network = flow({"network.iana_number": number})["network"]

    assert (network["iana_number"], network.get("transport")) == (str(number), transport)


def test_the_event_id_is_128_bits_of_stream_and_position() -> None:
    assert (
        flow({"ringfence.event.position": pl.Series([255], dtype=pl.UInt64)[0]})["event"]["id"]
        == "feedfacecafebeef00000000000000ff"
    )


def test_a_boundary_test_names_its_evidence() -> None:
    document = one(EventClass.BOUNDARY, **{"ringfence.evidence.source": 1, "ringfence.evidence.position": 2})

    assert document["ringfence"]["evidence"] == {"ids": ["00000000000000010000000000000002"]}


def test_a_test_without_evidence_names_none() -> None:
    batch = frames.batch(EventClass.BOUNDARY, [{"ringfence.evidence.source": 1, "ringfence.evidence.position": 2}, {}])

    assert "evidence" not in rendered(batch)[1]["ringfence"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"\xff\x00\n", "\\xff\x00\n"),
        ("h\u00f6st".encode(), "h\u00f6st"),
        (b"", ""),
        (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
    ],
    ids=["ascii", "binary", "utf-8", "empty", "surrogate"],
)
def test_bytes_are_text_with_what_is_no_utf8_escaped(raw: bytes, text: str) -> None:
    assert flow({"event.original": raw})["event"]["original"] == text


def test_a_line_of_a_hostile_payload_is_still_one_line() -> None:
    batch = frames.batch(EventClass.FLOW, [{"event.original": b'\n{"x":\x1b[31m"\r\n'}])

    assert b"".join(documents.render(batch)).count(b"\n") == 1


def test_a_hidden_column_is_left_out() -> None:
    batch = frames.batch(EventClass.FLOW, [{"event.original": b"x"}])

    assert "original" not in rendered(batch, frozenset({"event.original"}))[0]["event"]


def segments(side: str, **parts: str) -> dict[str, str]:
    return {f"{side}.segment.{part}": text for part, text in parts.items()}


def test_a_segment_is_an_object_without_null_parts() -> None:
    document = flow(segments("source", id="s1", name="users", role="users"))

    assert document["source"]["segment"] == {"id": "s1", "name": "users", "role": "users"}


def test_rows_of_one_segment_share_its_object() -> None:
    rows = [
        segments("source", id="a", name="a"),
        segments("source", id="b", name="b"),
        {},
        segments("source", id="a", name="a"),
    ]

    found = [
        document.get("source", {}).get("segment", {}).get("name") for document in rendered(frames.batch(EventClass.FLOW, rows))
    ]

    assert found == ["a", "b", None, "a"]


def test_segment_codes_are_never_shown() -> None:
    assert flow({"source.segment.code": 4})["source"] == {"ip": "10.1.0.5"}


NETWORK = ["network"]
BY_CLASS: dict[str, tuple[EventClass, dict[str, Any], dict[str, Any]]] = {
    "pf block": (EventClass.PF, {"ringfence.pf.action": "block"}, {"kind": "event", "category": NETWORK, "type": ["connection", "denied"], "outcome": "failure"}),
    "pf pass": (EventClass.PF, {"ringfence.pf.action": "pass"}, {"kind": "event", "category": NETWORK, "type": ["connection", "allowed"], "outcome": "success"}),
    "pf match": (EventClass.PF, {"ringfence.pf.action": "match"}, {"kind": "event", "category": NETWORK, "type": None, "outcome": None}),
    "flow": (EventClass.FLOW, {}, {"kind": "event", "category": NETWORK, "type": None, "outcome": None}),
    "alert": (EventClass.ALERT, {}, {"kind": "alert", "category": ["network", "intrusion_detection"], "type": None, "outcome": None}),
    "login": (EventClass.AUTH, {"event.action": "ssh-login", "event.outcome": "success"}, {"kind": "event", "category": ["authentication"], "type": ["start"], "outcome": "success"}),
    "logout": (EventClass.AUTH, {"event.action": "session-closed"}, {"kind": "event", "category": ["authentication"], "type": ["end"], "outcome": None}),
    "failed login": (EventClass.AUTH, {"event.action": "ssh-login", "event.outcome": "failure"}, {"kind": "event", "category": ["authentication"], "type": ["start"], "outcome": "failure"}),
    "process": (EventClass.PROCESS, {}, {"kind": "event", "category": ["process"], "type": None, "outcome": None}),
    "file on the wire": (EventClass.FILE, {"source.ip": 1}, {"kind": "event", "category": ["file", "network"], "type": None, "outcome": None}),
    "file on a host": (EventClass.FILE, {"event.action": "file-created"}, {"kind": "event", "category": ["file"], "type": ["creation"], "outcome": None}),
    "end of a process": (EventClass.PROCESS, {"event.action": "exit"}, {"kind": "event", "category": ["process"], "type": ["end"], "outcome": None}),
    "generic": (EventClass.GENERIC, {}, {"kind": "event", "category": None, "type": None, "outcome": None}),
    "detection": (EventClass.DETECTION, {}, {"kind": "alert", "category": ["intrusion_detection"], "type": None, "outcome": None}),
    "detector": (EventClass.DETECTOR, {}, {"kind": "event", "category": ["intrusion_detection"], "type": None, "outcome": None}),
    "alarm": (EventClass.ALARM, {}, {"kind": "alert", "category": ["intrusion_detection"], "type": None, "outcome": None}),
    "dead": (EventClass.DEAD, {}, {"kind": "pipeline_error", "category": None, "type": None, "outcome": None}),
    "blocked": (EventClass.BOUNDARY, {"ringfence.boundary.outcome": "blocked"}, {"kind": "event", "category": NETWORK, "type": ["connection", "denied"], "outcome": "failure"}),
    "passed": (EventClass.BOUNDARY, {"ringfence.boundary.outcome": "passed"}, {"kind": "event", "category": NETWORK, "type": ["connection", "allowed"], "outcome": "success"}),
    "unknown": (EventClass.BOUNDARY, {"ringfence.boundary.outcome": "unknown"}, {"kind": "event", "category": NETWORK, "type": ["connection"], "outcome": "unknown"}),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_CLASS)
def test_the_categorisation_fields_of_ecs_are_derived(case: str) -> None:
    event_class, row, expected = BY_CLASS[case]
    event = one(event_class, **row)["event"]

    assert {name: event.get(name) for name in expected} == expected


@pytest.mark.parametrize(("origin", "action"), [("observed", "boundary-crossing"), ("simulated", "boundary-test")])
def test_the_action_of_a_boundary_test_tells_its_origin(origin: str, action: str) -> None:
    assert one(EventClass.BOUNDARY, **{"ringfence.boundary.origin": origin})["event"]["action"] == action


@pytest.mark.parametrize(
    ("event_class", "dataset"),
    [
        (EventClass.FLOW, "ringfence.events"),
        (EventClass.BOUNDARY, "ringfence.boundary"),
        (EventClass.DETECTION, "ringfence.detections"),
        (EventClass.DETECTOR, "ringfence.detections"),
        (EventClass.ALARM, "ringfence.alerts"),
        (EventClass.DEAD, "ringfence.dead"),
    ],
)
def test_the_dataset_is_that_of_the_topic(event_class: EventClass, dataset: str) -> None:
    assert one(event_class)["event"]["dataset"] == dataset


def test_no_rows_give_no_lines() -> None:
    batch = frames.batch(EventClass.FLOW, [frames.ends("10.0.0.1", "10.0.0.2")])

    assert rendered(Batch(batch.header, batch.frame.clear())) == []


def test_chunks_join_without_gap_or_repeat() -> None:
    count = 2 * documents.CHUNK_ROWS + 5
    batch = frames.batch(EventClass.FLOW, [{"source.bytes": row} for row in range(count)])

    assert [document["source"]["bytes"] for document in rendered(batch)] == list(range(count))


# a rendering of one row at a time, straight from the column table
TRANSPORTS = {number: name for name, number in PROTOCOLS.items() if name not in ("carp", "ipip")} | {58: "ipv6-icmp"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TYPES = {"blocked": "denied", "block": "denied", "passed": "allowed", "pass": "allowed"}


def put(document: dict[str, Any], path: str, value: Any) -> None:
    if value is not None and value != []:
        *parents, leaf = path.split(".")
        for parent in parents:
            document = document.setdefault(parent, {})
        document[leaf] = value


def shown(column: schema.Column, value: Any) -> Any:
    if value is None or column.render == "plain":
        return value
    if column.render == "time":
        moment = EPOCH + timedelta(microseconds=value)
        return f"{moment.year:04d}-" + moment.strftime("%m-%dT%H:%M:%S.%fZ")
    if column.render == "bytes":
        return value.decode(errors="backslashreplace")
    if column.render == "list":
        return [word.strip() for word in value.split(",")]
    if column.render == "code":
        return str(value)
    return str(ipaddress.ip_address(value))


def reference(batch: Batch, row: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    event_class = batch.header.event_class
    category = {
        "detector": ["intrusion_detection"],
        "alert": ["network", "intrusion_detection"],
        "auth": ["authentication"],
        "process": ["process"],
        "file": ["file", *(["network"] if {"source.ip", "source.ip6"} & row.keys() else [])],
        "generic": [],
        "detection": ["intrusion_detection"],
        "alarm": ["intrusion_detection"],
        "dead": [],
    }
    constants = {
        "ecs.version": documents.ECS_VERSION,
        "event.kind": {"alert": "alert", "detection": "alert", "alarm": "alert", "dead": "pipeline_error"}.get(event_class, "event"),
        "event.category": category.get(event_class, ["network"]),
        "event.module": batch.header.module,
        "event.dataset": {"boundary": "ringfence.boundary", "detection": "ringfence.detections", "detector": "ringfence.detections", "alarm": "ringfence.alerts", "dead": "ringfence.dead"}.get(event_class, "ringfence.events"),
        "ringfence.class": str(event_class),
        "ringfence.collector": batch.header.collector,
        "event.id": f"{row['ringfence.event.source']:016x}{row['ringfence.event.position']:016x}",
    }  # fmt: skip
    for path, value in constants.items():
        put(document, path, value)
    for name, value in row.items():
        column = schema.BY_NAME[name]
        if column.render in ("hidden", "event_id") or ".segment." in name:
            continue
        put(
            document,
            name.replace(".ip6", ".ip"),
            shown(column, value) if column.render not in ("ipv4", "ipv6") or value is not None else None,
        )
    put(document, "network.transport", TRANSPORTS.get(row.get("network.iana_number", 0)))
    ends = [document.get(side, {}).get("ip") for side in ("source", "destination")]
    put(document, "related.ip", [end for end in ends if end])
    put(document, "network.type", ("ipv6" if ":" in ends[0] else "ipv4") if ends[0] else None)
    if row.get("ringfence.evidence.source") is not None:
        put(
            document,
            "ringfence.evidence.ids",
            [f"{row['ringfence.evidence.source']:016x}{row['ringfence.evidence.position'] or 0:016x}"],
        )
    decided = {"boundary": "ringfence.boundary.outcome", "pf": "ringfence.pf.action", "auth": "event.outcome"}.get(event_class)
    word = row.get(decided or "")
    if word in TYPES and event_class is not EventClass.AUTH:
        put(document, "event.type", ["connection", TYPES[word]])
        put(document, "event.outcome", "failure" if TYPES[word] == "denied" else "success")
    return document


def only_one_version(batch: Batch) -> Batch:
    """No row has both an IPv4 and an IPv6 address at one end, and mapped addresses never come as IPv6."""
    frame = batch.frame
    for end in (pair.removesuffix(".ip") for pair in documents._ADDRESS_PAIRS):
        if f"{end}.ip6" in frame.columns:
            four = pl.col(f"{end}.ip").is_not_null() if f"{end}.ip" in frame.columns else pl.lit(False)
            plain = pl.col(f"{end}.ip6").bin.starts_with(bytes(10))
            frame = frame.with_columns(pl.when(four | plain).then(None).otherwise(pl.col(f"{end}.ip6")).alias(f"{end}.ip6"))
    return Batch(batch.header, frame)


@given(st.sampled_from(CLASSES).flatmap(frames.batches).map(only_one_version))
def test_documents_equal_a_naive_rendering(batch: Batch) -> None:
    expected = [reference(batch, row) for row in batch.frame.iter_rows(named=True)]

    assert rendered(batch) == expected


@given(st.lists(frames.TEXT, min_size=1, max_size=5))
def test_any_text_gives_one_line_of_json_each(texts: list[str]) -> None:
    batch = frames.batch(EventClass.GENERIC, [{"message": text, "host.hostname": text} for text in texts])

    lines = b"".join(documents.render(batch)).decode().removesuffix("\n").split("\n")

    assert [json.loads(line)["message"] for line in lines] == texts
