"""Hubble flows: who began, what a verdict proves, and what is refused and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.hubble import KIND, HubbleDecoder
from ringfence import registry
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.cli.command import ringfence
from tests.collectors.json_lines import check_accounts
from tests.eve_lines import topology_file

SOURCE = Source("events.log", 0xFEED)
TIME, TIME_US = "2026-11-25T07:44:23.123456789Z", 1_795_592_663_123_456
USER, SERVER = "10.1.0.5", "10.2.0.9"


def tcp(sport: int = 40_000, dport: int = 443, **flags: bool) -> dict[str, Any]:
    return {"TCP": {"source_port": sport, "destination_port": dport, "flags": flags or {"SYN": True}}}


def line(verdict: str = "FORWARDED", source: str = USER, destination: str = SERVER, **more: Any) -> bytes:
    flow = {
        "time": TIME,
        "verdict": verdict,
        "IP": {"source": source, "destination": destination},
        "l4": tcp(),
        "is_reply": False,
        "traffic_direction": "INGRESS",
    }
    return json.dumps({"flow": {**flow, **more}, "node_name": "worker-1", "time": TIME}, separators=(",", ":")).encode() + b"\n"


def decode(*lines: bytes) -> Decoded:
    return HubbleDecoder().feed(frames_of(lines, SOURCE))


def one(data: bytes) -> dict[str, Any]:
    (row,) = decode(data).rows[EventClass.FLOW].to_dicts()
    return {name: value for name, value in row.items() if value is not None}


ENDS = {"source.ip": frames.v4(USER), "source.port": 40_000, "destination.ip": frames.v4(SERVER), "destination.port": 443}
REPLY: dict[str, Any] = {"source": SERVER, "destination": USER, "l4": tcp(443, 40_000, SYN=True, ACK=True), "is_reply": True}


def test_a_flow_is_one_packet_from_its_initiator() -> None:
    assert one(line("DROPPED", drop_reason_desc="POLICY_DENIED", uuid="u1")) == {
        **ENDS, "@timestamp": TIME_US, "ringfence.event.source": 0xFEED, "ringfence.event.position": 0, "observer.name": "worker-1",
        "event.original": line("DROPPED", drop_reason_desc="POLICY_DENIED", uuid="u1").rstrip(), "network.iana_number": 6, "source.packets": 1, "destination.packets": 0,
        "ringfence.tcp.source_flags": 2, "ringfence.flow.id": "u1", "ringfence.flow.state": "dropped", "ringfence.flow.reason": "POLICY_DENIED",
        "ringfence.flow.action": "drop", "ringfence.firewall.action": "block",
    }  # fmt: skip


def test_a_reply_is_turned_round() -> None:
    row = one(line(**REPLY))

    assert {name: row[name] for name in ENDS} == ENDS
    assert (row["source.packets"], row["destination.packets"], row["ringfence.tcp.destination_flags"]) == (0, 1, 18)


def test_where_hubble_does_not_know_the_direction_it_is_left_open() -> None:
    assert "destination.packets" not in one(line(is_reply=None))


def test_members_that_are_zero_may_be_left_out() -> None:
    row = one(line(l4={"ICMPv4": {}}))

    assert (row["network.iana_number"], row["ringfence.icmp.type"], row["ringfence.icmp.code"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("policies", "rule"),
    [({"ingress_denied_by": [{"name": "a", "namespace": "n"}]}, "n/a"), ({"egress_allowed_by": [{"name": "b"}]}, "b"), ({"ingress_denied_by": []}, None)],
)  # fmt: skip
def test_the_rule_is_the_policy_that_is_named(policies: dict[str, Any], rule: str | None) -> None:
    assert one(line(**policies)).get("ringfence.firewall.rule") == rule


@pytest.mark.parametrize("kind", ["lost_events", "node_status", "agent_event"])
def test_a_record_that_is_no_flow_is_a_generic_row_with_its_line(kind: str) -> None:
    data = json.dumps({kind: {"x": 1}, "time": TIME}).encode()
    (row,) = decode(data).rows[EventClass.GENERIC].to_dicts()

    assert (row["ringfence.generic.type"], row["event.original"]) == (kind, data)


@pytest.mark.parametrize(
    ("bad", "path", "value"),
    [
        (line(source="10.1"), "$.flow.IP.source", b'"10.1"'),
        (line(l4=tcp(70_000)), "$.flow.l4.TCP.source_port", b"70000"),
        (line(l4={"ICMPv6": {"code": -1}}), "$.flow.l4.ICMPv6.code", b"-1"),
        (line(time="never"), "$.flow.time", b'"never"'),
        (line(verdict=5), "$.flow.verdict", b"5"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_value_is_named_with_its_byte(bad: bytes, path: str, value: bytes) -> None:
    (problem,) = decode(line(), bad, line()).problems

    assert (problem.row, problem.code, problem.path) == (1, ProblemCode.WRONG_TYPE, path)
    assert problem.raw[problem.offset or 0 :].startswith(value)


SSH: dict[str, Any] = {"l4": tcp(dport=22)}
JUDGED: list[tuple[bytes, str | None]] = [
    (line("DROPPED", **SSH), "held"),
    (line("DROPPED"), "overblocked"),
    (line("FORWARDED", trace_observation_point="TO_ENDPOINT", **SSH), "breached"),
    (line("FORWARDED", event_type={"type": 5}), "permitted"),
    (line("AUDIT", event_type={"type": 5}, **SSH), "breached"),
    (line("FORWARDED", traffic_direction="EGRESS", trace_observation_point="TO_NETWORK", **SSH), "unproven"),
    (line("FORWARDED", **REPLY), "permitted"),
    (line("FORWARDED", **{**REPLY, "l4": tcp(443, 40_000, RST=True, ACK=True)}), "unproven"),
    (line("DROPPED", **REPLY), None),
    (line("REDIRECTED"), None),
    (line("ERROR"), None),
]


def test_verdicts_are_judged_end_to_end(tmp_path: Path) -> None:
    log, out = tmp_path / "events.log", tmp_path / "out"
    log.write_bytes(b"".join(data for data, _ in JUDGED))

    outcome = ringfence("replay", log, "--topology", topology_file(tmp_path), "--out", out)

    assert outcome.code == 0, outcome.err
    tests = [json.loads(text) for text in (out / "boundary.jsonl").read_text().splitlines()]
    assert [test["ringfence"]["boundary"]["verdict"] for test in tests] == [verdict for _, verdict in JUDGED if verdict]
    assert {test["ringfence"]["boundary"]["id"] for test in tests} == {"users -> servers"}


VALUE = st.one_of(st.none(), st.booleans(), st.integers(-1, 99_999), st.text(max_size=4), st.just({}), st.just([]))
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.dictionaries(st.sampled_from(["time", "is_reply", "l4", "uuid", "event_type", "ingress_denied_by", "x"]), VALUE, max_size=4).map(lambda more: line(**more)),
        st.builds(lambda address, port, reply: line(source=address, l4=tcp(port), is_reply=reply), st.sampled_from(["::1", "1.1", USER, ""]), st.integers(-1, 70_000), st.sampled_from([True, False, None])),
        st.sampled_from([b"", b"\n", b"{}", line()[:-9], b'{"lost_events":{},"time":"2026-11-25T07:44:23Z"}', line(l4={"UDP": {}})]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(*lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    def fed(size: int) -> list[Any]:
        decoder, found = HubbleDecoder(), []
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            decoded = decoder.feed(frames_of(part, SOURCE, 0, range(start, start + len(part))))
            found += [
                {k: v for k, v in row.items() if v is not None} for frame in decoded.rows.values() for row in frame.to_dicts()
            ]
            found += [{"ringfence.event.position": problem.position, "detail": problem.detail} for problem in decoded.problems]
        return sorted(found, key=lambda row: int(row["ringfence.event.position"]))

    assert fed(size) == fed(len(lines) or 1)


@given(st.ip_addresses(v=4), st.integers(2**120, 2**128 - 1), st.integers(0, 65_535), st.booleans())
def test_what_is_encoded_is_decoded_again(v4: Any, v6: int, port: int, reply: bool) -> None:
    text = ":".join(f"{v6 >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))

    row = one(line(source=str(v4), destination=text, l4=tcp(port, 443), is_reply=reply))

    near, far = ("destination", "source") if reply else ("source", "destination")
    assert (row[f"{near}.ip"], row[f"{near}.port"], row[f"{far}.ip6"], row[f"{far}.port"]) == (
        int(v4),
        port,
        v6.to_bytes(16, "big"),
        443,
    )


def test_more_lines_than_a_chunk_are_all_taken() -> None:
    assert decode(*[line(), line("DROPPED"), b'{"node_status":{},"time":"2026-11-25T07:44:23Z"}', b"bad"] * 400).taken == 1200


def test_flows_are_recognised_by_their_first_bytes() -> None:
    found = [registry.recognise(data) for data in (line(), b"\n" + line(), b'{"flow":5}')]

    assert [entry and entry.name for entry in found] == ["hubble", "hubble", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/events.log"})

    assert KIND.build(settings, BuildContext("cluster", EMPTY)).module == "hubble"
    assert list(KIND.resources(settings)) == ["file /logs/events.log"]
