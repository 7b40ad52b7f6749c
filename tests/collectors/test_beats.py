"""Documents of Beats: which class each is of, which of two sources of a field wins, and what is left out or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.beats import KIND, BeatsDecoder
from collectors.json_documents import MAX_PORT
from collectors.windows import AUDIT, SYSMON
from ringfence import registry
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.cli.command import ringfence
from tests.collectors.feeding import fed
from tests.collectors.json_lines import check_accounts
from tests.eve_lines import topology_file

SOURCE = Source("events.ndjson", 0xFEED)
TIME, TIME_US = "2026-11-25T07:44:23.123Z", 1_795_592_663_123_000
LOGON = {"TargetUserName": "ann", "TargetDomainName": "EXAMPLE", "IpAddress": "10.1.0.5", "IpPort": "49233", "LogonType": "3"}


def document(**more: Any) -> bytes:
    return json.dumps({"@timestamp": TIME, "agent": {"type": "winlogbeat"}, **more}, separators=(",", ":")).encode() + b"\n"


def windows(provider: str, event_id: Any, data: Any, more: Any = None, **beside: Any) -> bytes:
    event = {"provider_name": provider, "event_id": event_id, "computer_name": "ws7", "record_id": 9, "event_data": data}
    return document(winlog={**event, **(more or {})}, **beside)


def decode(*lines: bytes, received_us: int = 0) -> Decoded:
    return BeatsDecoder().feed(frames_of(lines, SOURCE, received_us))


def one(data: bytes, event_class: EventClass) -> dict[str, Any]:
    decoded = decode(data)
    assert not decoded.problems
    (row,) = decoded.rows[event_class].to_dicts()
    return {name: value for name, value in row.items() if value is not None}


def test_a_logon_of_windows_is_a_row_of_class_auth() -> None:
    line = windows(AUDIT, "4624", LOGON, message="An account was logged on.\r\n\r\nSubject:")

    assert one(line, EventClass.AUTH) == {
        "@timestamp": TIME_US, "ringfence.event.source": 0xFEED, "ringfence.event.position": 0, "event.original": line.rstrip(),
        "observer.name": "ws7", "host.name": "ws7", "event.code": "4624", "event.action": "login", "event.outcome": "success",
        "user.name": "ann", "user.domain": "EXAMPLE", "source.ip": frames.v4("10.1.0.5"), "source.port": 49233,
        "ringfence.auth.logon_type": 3, "winlog.logon.type": "Network", "winlog.provider_name": AUDIT, "winlog.record_id": "9",
        "winlog.event_data": json.dumps(LOGON, separators=(",", ":")), "message": "An account was logged on.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "event_id", "event_class"),
    [(AUDIT, 4625, EventClass.AUTH), (AUDIT, "4688", EventClass.PROCESS), (SYSMON, 1, EventClass.PROCESS), (SYSMON, "3", EventClass.FLOW),
     (SYSMON, "22", EventClass.DNS), (SYSMON, "11", EventClass.FILE), (SYSMON, "13", EventClass.GENERIC), (AUDIT, "1", EventClass.GENERIC), ("x", None, EventClass.GENERIC)],
)  # fmt: skip
def test_the_class_is_that_of_the_event(provider: str, event_id: Any, event_class: EventClass) -> None:
    assert list(decode(windows(provider, event_id, {})).rows) == [event_class]


def test_ecs_fields_of_a_document_win_over_its_event_data_and_lacking_ones_are_made() -> None:
    row = one(
        windows(AUDIT, "4624", LOGON, user={"name": "ANN"}, event={"action": "logged-in", "outcome": "unknown"}),
        EventClass.AUTH,
    )

    assert (row["user.name"], row["user.domain"], row["event.outcome"]) == ("ANN", "EXAMPLE", "unknown")


def test_the_action_of_a_known_event_is_our_word() -> None:
    assert one(windows(AUDIT, "4624", LOGON, event={"action": "logged-in"}), EventClass.AUTH)["event.action"] == "login"
    assert one(windows("x", "1", {}, event={"action": "their-word"}), EventClass.GENERIC)["event.action"] == "their-word"


ENDS: dict[str, Any] = {"source": {"ip": "10.1.0.5", "port": 1}, "destination": {"ip": "10.2.0.9", "port": 2}}


@pytest.mark.parametrize(
    ("category", "more", "event_class"),
    [
        (["authentication"], {}, EventClass.AUTH),
        (["process"], {"process": {"pid": 1}}, EventClass.PROCESS),
        (["process"], {}, EventClass.GENERIC),
        ("file", {}, EventClass.FILE),
        (["network"], ENDS, EventClass.FLOW),
        (["network"], {"source": ENDS["source"]}, EventClass.GENERIC),
        (["network"], {**ENDS, "dns": {"question": {"name": "x"}}}, EventClass.DNS),
        (["network", "intrusion_detection"], ENDS, EventClass.GENERIC),
        (None, ENDS, EventClass.GENERIC),
    ],
)
def test_without_windows_event_the_class_is_that_of_the_category(category: Any, more: Any, event_class: EventClass) -> None:
    assert list(decode(document(event={"category": category}, **more)).rows) == [event_class]


def test_a_line_that_filebeat_read_is_a_generic_row_with_its_text() -> None:
    row = one(
        document(message="a\nb", event={"dataset": "system.auth"}, log={"file": {"path": "/var/log/auth.log"}}),
        EventClass.GENERIC,
    )

    assert (row["message"], row["ringfence.generic.type"], row["log.file.path"]) == ("a\nb", "system.auth", "/var/log/auth.log")


@pytest.mark.parametrize("decimals", ["", ".5", ".123", ".123456", ".1234567", ".123456789"])
def test_times_are_read_with_any_number_of_decimals(decimals: str) -> None:
    (row,) = decode(document(**{"@timestamp": f"2026-11-25T07:44:23{decimals}Z"})).rows[EventClass.GENERIC].to_dicts()

    assert row["@timestamp"] == 1_795_592_663_000_000 + int((decimals[1:] + "000000")[:6])


def test_without_a_time_a_document_is_of_its_arrival_if_that_is_known() -> None:
    line = document(**{"@timestamp": "yesterday"})
    (row,) = decode(line, received_us=77).rows[EventClass.GENERIC].to_dicts()
    (problem,) = decode(line).problems

    assert row["@timestamp"] == 77
    assert (problem.code, problem.path, problem.raw[problem.offset :]) == (
        ProblemCode.WRONG_TYPE,
        "$.@timestamp",
        line[line.index(b'"yesterday') :],
    )


def test_a_field_of_another_type_costs_only_itself() -> None:
    row = one(
        document(host="srv3", user={"name": ["a"], "id": 33}, source={"ip": "10.1", "port": MAX_PORT + 1}, process={"pid": "12"}, message={"a": 1}),
        EventClass.GENERIC,
    )  # fmt: skip

    assert {
        name: value for name, value in row.items() if name.startswith(("host", "user", "source", "process", "message"))
    } == {
        "user.id": "33",
        "process.pid": 12,
        "message": '{"a":1}',
    }


@pytest.mark.parametrize(
    ("data", "user"),
    [
        ({"TargetUserName": 5, "x": [1]}, "5"),
        ({"TargetUserName": {"a": 1}}, '{"a":1}'),
        ("text", None),
        (None, None),
        ([], None),
    ],
)
def test_event_data_may_hold_what_is_no_text(data: Any, user: str | None) -> None:
    row = one(windows(AUDIT, "4624", data), EventClass.AUTH)

    assert row.get("user.name") == user
    assert row.get("winlog.event_data") == (None if data is None else json.dumps(data, separators=(",", ":")))


def test_a_number_that_is_too_large_costs_the_fields_beside_it_only() -> None:
    line = windows(AUDIT, "4624", {"TargetUserName": 5, "x": 1}).replace(b'"x":1', b'"x":1e999')

    assert one(line, EventClass.AUTH)["winlog.event_data"] == '{"TargetUserName":5,"x":1e999}'


@pytest.mark.parametrize("text", ["C:\\new\nline", "a\\", "\nb", "", "é\r\nx", "only one"])
def test_the_message_of_a_windows_event_is_cut_to_its_first_line(text: str) -> None:
    assert one(windows("x", "1", {}, message=text), EventClass.GENERIC)["message"] == text.partition("\n")[0].rstrip("\r")


JUDGED: list[tuple[bytes, str | None]] = [
    (windows(AUDIT, "5157", {"Direction": "%%14592", "SourceAddress": "10.1.0.5", "SourcePort": "40000", "DestAddress": "10.2.0.9", "DestPort": "22", "Protocol": "6"}), "held"),
    (windows(AUDIT, "5156", {"Direction": "%%14592", "SourceAddress": "10.1.0.5", "SourcePort": "40000", "DestAddress": "10.2.0.9", "DestPort": "22", "Protocol": "6"}), "breached"),
    (windows(AUDIT, "5156", {"Direction": "%%14593", "SourceAddress": "10.1.0.5", "SourcePort": "40000", "DestAddress": "10.2.0.9", "DestPort": "22", "Protocol": "6"}), "unproven"),
    (windows(SYSMON, "3", {"Protocol": "tcp", "Initiated": "false", "SourceIp": "10.1.0.5", "SourcePort": "40000", "DestinationIp": "10.2.0.9", "DestinationPort": "443"}), "permitted"),
    (document(event={"category": ["network"]}, network={"transport": "tcp"}, source={"ip": "10.1.0.5", "port": 40001, "packets": 3}, destination={"ip": "10.2.0.9", "port": 443, "packets": 2}), "permitted"),
    (windows(AUDIT, "4624", LOGON), None),
]  # fmt: skip


def test_verdicts_are_judged_end_to_end(tmp_path: Path) -> None:
    log, out = tmp_path / "events.ndjson", tmp_path / "out"
    log.write_bytes(b"".join(data for data, _ in JUDGED))

    outcome = ringfence("replay", log, "--topology", topology_file(tmp_path), "--out", out)

    assert outcome.code == 0, outcome.err
    tests = [json.loads(text) for text in (out / "boundary.jsonl").read_text().splitlines()]
    assert [test["ringfence"]["boundary"]["verdict"] for test in tests] == [verdict for _, verdict in JUDGED if verdict]


VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 70), st.floats(), st.text(max_size=4), st.just({}), st.just([]), st.sampled_from(["10.1.0.5", "0x10", "process"])
)  # fmt: skip
OBJECT = st.dictionaries(
    st.sampled_from(["name", "ip", "port", "pid", "category", "code", "question", "hash", "path", "provider_name", "x"]),
    VALUE,
    max_size=4,
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.dictionaries(st.sampled_from(["@timestamp", "event", "source", "process", "winlog", "message", "dns", "host"]), st.one_of(VALUE, OBJECT), max_size=4).map(lambda more: document(**more)),
        st.builds(windows, st.sampled_from([AUDIT, SYSMON]), st.sampled_from(["4624", 4625, "1", 3, "22", "4688", None]), st.one_of(VALUE, st.dictionaries(st.sampled_from(list(LOGON)), VALUE)), OBJECT),
        st.sampled_from([b"", b"\n", b"{}", document()[:-9], windows(SYSMON, "1", {"Image": "\ud83d"})]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(*lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    assert fed(BeatsDecoder(), lines, size) == fed(BeatsDecoder(), lines, len(lines) or 1)


@given(frames.TEXT, st.ip_addresses(v=4), st.integers(0, MAX_PORT), st.booleans())
def test_what_is_encoded_is_decoded_again(user: str, address: Any, port: int, as_ecs: bool) -> None:
    if as_ecs:
        line = windows(AUDIT, "4624", {}, user={"name": user}, source={"ip": str(address), "port": port})
    else:
        line = windows(AUDIT, "4624", {"TargetUserName": user, "IpAddress": str(address), "IpPort": str(port)})

    row = one(line, EventClass.AUTH)

    named = user if as_ecs or user not in ("", "-") else None
    assert (row.get("user.name"), row["source.ip"], row["source.port"]) == (named, int(address), port)


def test_more_lines_than_a_chunk_are_all_taken() -> None:
    assert decode(*[windows(AUDIT, "4624", LOGON), document(), windows(SYSMON, "1", {}), b"bad"] * 400).taken == 1200


def test_documents_are_recognised_by_their_first_bytes() -> None:
    found = [registry.recognise(data) for data in (document(), b"\n" + document(), b'{"@timestamp":5}')]

    assert [entry and entry.name for entry in found] == ["beats", "beats", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/events.ndjson"})

    assert KIND.build(settings, BuildContext("hosts", EMPTY)).module == "beats"
    assert list(KIND.resources(settings)) == ["file /logs/events.ndjson"]
