"""Linux firewall lines: what a prefix says of the action, each kind of packet, and the verdicts that come of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.netfilter import KIND, MAX_CHARS, Actions, NetfilterDecoder
from ringfence import registry
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.cli.command import ringfence
from tests.collectors.json_lines import check_accounts
from tests.eve_lines import topology_file

SOURCE = Source("kern.log", 0xFEED)
HEADER = "Nov 25 07:44:23 fw1 kernel: "
AT_US = 1_795_592_663_000_000


def packet(
    prefix: str = "DROP ",
    source: str = "10.1.0.5",
    destination: str = "10.2.0.9",
    sport: int = 40_000,
    dport: int = 443,
    flags: str = "SYN ",
) -> str:
    return f"{prefix}IN=eth0 OUT=eth1 MAC=00:11 SRC={source} DST={destination} LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID=1 DF PROTO=TCP SPT={sport} DPT={dport} WINDOW=64240 RES=0x00 {flags}URGP=0 "


def decode(*lines: str | bytes, received_us: int = 0, decoder: NetfilterDecoder | None = None) -> Decoded:
    parts = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return (decoder or NetfilterDecoder(year=2026)).feed(frames_of(parts, SOURCE, received_us))


def one(line: str, **more: Any) -> dict[str, Any]:
    (row,) = decode(line, **more).rows[EventClass.FLOW].to_dicts()
    return {name: value for name, value in row.items() if value is not None}


def test_a_line_is_a_flow_of_one_packet_one_way() -> None:
    assert one(HEADER + packet("[ipv4-FWD-filter-10-D]")) == {
        "@timestamp": AT_US, "ringfence.event.source": 0xFEED, "ringfence.event.position": 0, "event.original": (HEADER + packet("[ipv4-FWD-filter-10-D]")).encode(),
        "observer.name": "fw1", "source.ip": frames.v4("10.1.0.5"), "source.port": 40_000, "destination.ip": frames.v4("10.2.0.9"), "destination.port": 443,
        "network.iana_number": 6, "observer.ingress.interface.name": "eth0", "observer.egress.interface.name": "eth1", "source.packets": 1, "source.bytes": 60,
        "ringfence.tcp.source_flags": 2, "ringfence.flow.action": "drop", "ringfence.firewall.action": "block", "ringfence.firewall.rule": "[ipv4-FWD-filter-10-D]",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "action"),
    [
        ("[ipv4-FWD-filter-10-D]", "block"), ("[ipv6-INP-filter-default-R]", "block"), ("[ipv4-NAM-DROP-LIST-30-A]", "pass"), ("[ipv4-FWD-filter-10-C]", "unknown"),
        ("[bri-FWD-filter-1-RET]", "unknown"), ("DROP ", "block"), ("iptables-dropped: ", "block"), ("[UFW BLOCK] ", "block"), ("[UFW ALLOW] ", "pass"), ("IPTables-Denied:", "block"),
        ("REJECT:", "block"), ("accept-web ", "pass"), ("PASS ", "pass"), ("", "unknown"), ("DISALLOW ", "unknown"), ("BYPASS ", "unknown"), ("PASSWORD ", "unknown"),
        ("DROP-OR-ACCEPT ", "unknown"), ("FWD[old-D] ", "block"), ("TRACE: raw:PREROUTING ", "unknown"),
    ],
)  # fmt: skip
def test_a_prefix_tells_the_action(prefix: str, action: str) -> None:
    assert Actions({})[prefix] == action


def test_what_is_configured_is_asked_first_and_in_order() -> None:
    actions = Actions({"policy-7 drop-test": "pass", "policy-7": "block", "-c]": "block"})

    assert [actions[text] for text in ("POLICY-7 DROP-TEST ", "policy-7 accept ", "[x-1-C]", "DROP ")] == [
        "pass",
        "block",
        "block",
        "block",
    ]


@pytest.mark.parametrize(
    ("flags", "expected"), [("SYN ", 2), ("ACK SYN ", 18), ("ACK PSH FIN ", 25), ("CWR ECE URG RST ", 0xE4), ("", 0)]
)
def test_the_flags_are_those_that_are_named(flags: str, expected: int) -> None:
    assert one(HEADER + packet(flags=flags))["ringfence.tcp.source_flags"] == expected


def test_the_addresses_are_not_those_of_the_link_layer() -> None:
    line = packet().replace("MAC=00:11", "MACSRC=00:11 MACDST=00:12 MACPROTO=0800 VPROTO=8100 VID=10")

    assert (one(HEADER + line)["source.ip"], one(HEADER + line)["network.vlan.id"]) == (frames.v4("10.1.0.5"), 10)


@pytest.mark.parametrize("stamp", ["", "[ 4711.123456] ", "[4711.123456]"])
def test_the_kernel_may_stamp_its_messages(stamp: str) -> None:
    assert one(HEADER + stamp + packet("[x-10-D]"))["ringfence.firewall.rule"] == "[x-10-D]"


def test_a_line_alone_has_the_time_of_its_arrival() -> None:
    row = one("[ 4711.123456] " + packet(), received_us=AT_US)

    assert (row["@timestamp"], row["observer.name"], row["ringfence.firewall.action"]) == (AT_US, "kern.log", "block")


def test_a_line_alone_in_a_file_has_no_time() -> None:
    (problem,) = decode(packet()).problems

    assert (problem.code, problem.detail) == (ProblemCode.MALFORMED, "there is no time and its arrival is not known")


def test_other_messages_stay_what_syslog_makes_of_them() -> None:
    decoded = decode(
        HEADER + "eth0: link up",
        "Nov 25 07:44:23 fw1 sshd[7]: Accepted publickey for ann from 10.1.0.5 port 5 ssh2",
        HEADER + packet(),
    )

    assert {event_class: frame.height for event_class, frame in decoded.rows.items()} == {
        EventClass.GENERIC: 1,
        EventClass.AUTH: 1,
        EventClass.FLOW: 1,
    }


@pytest.mark.parametrize(
    ("more", "path", "value"),
    [({"source": "999.1.1.1"}, "$.SRC", b"999.1.1.1"), ({"destination": "10.2"}, "$.DST", b"10.2 "), ({"sport": 70_000}, "$.SPT", b"70000"), ({"dport": 65_536}, "$.DPT", b"65536")],
)  # fmt: skip
def test_a_bad_value_is_named_with_its_byte(more: dict[str, Any], path: str, value: bytes) -> None:
    (problem,) = decode(HEADER + packet(), HEADER + packet(**more)).problems

    assert (problem.row, problem.code, problem.path) == (1, ProblemCode.WRONG_TYPE, path)
    assert problem.raw[problem.offset or 0 :].startswith(value)


VERDICTS = [
    ("block", "held", packet("DROP ", dport=22)),
    ("pass", "breached", packet("ACCEPT ", dport=22)),
    ("pass", "permitted", packet("[ipv4-FWD-filter-20-A]")),
    ("block", "overblocked", packet("[ipv4-FWD-filter-30-R]")),
    ("unknown", None, packet("seen ", dport=22)),
    (
        "block",
        None,
        packet("DROP ", source="10.2.0.9", destination="10.1.0.5", sport=443, dport=40_000, flags="ACK FIN "),
    ),  # its state was gone
    (
        "block",
        "overblocked",
        packet("DROP ", source="10.2.0.9", destination="10.1.0.5", sport=443, dport=40_000, flags="ACK SYN "),
    ),
]


def test_the_actions_are_judged_end_to_end(tmp_path: Path) -> None:
    log, out = tmp_path / "kern.log", tmp_path / "out"
    log.write_text("".join(f"{HEADER}{line}\n" for *_, line in VERDICTS))

    outcome = ringfence(
        "replay", log, "--format", "netfilter", "--year", "2026", "--topology", topology_file(tmp_path), "--out", out
    )

    assert outcome.code == 0, outcome.err
    tests = [json.loads(text)["ringfence"] for text in (out / "boundary.jsonl").read_text().splitlines()]
    assert [(test["firewall"]["action"], test["boundary"]["verdict"]) for test in tests] == [
        (a, verdict) for a, verdict, _ in VERDICTS if verdict
    ]
    assert len((out / "events.jsonl").read_text().splitlines()) == len(VERDICTS)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(lambda *parts: "".join(parts).encode(), st.sampled_from(["", HEADER, "<4>", "[1.5] "]), st.builds(
            packet, prefix=st.text(max_size=6), source=st.sampled_from(["10.1.0.5", "::1", "1.1", "999.1.1.1"]), sport=st.integers(0, 99_999), flags=st.sampled_from(["", "SYN ", "ACK XYZ "]),
        )),
        st.sampled_from([b"", b"\n", (HEADER + packet())[:-70].encode(), b"<999>x", HEADER.encode()]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES, st.sampled_from([0, AT_US]))
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes], received_us: int) -> None:
    check_accounts(decode(*lines, received_us=received_us), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    def fed(size: int) -> list[Any]:
        decoder, found = NetfilterDecoder(year=2026), []
        for start in range(0, len(lines), size):
            part = lines[start : start + size]
            decoded = decoder.feed(frames_of(part, SOURCE, 0, range(start, start + len(part))))
            found += [
                {k: v for k, v in row.items() if v is not None} for frame in decoded.rows.values() for row in frame.to_dicts()
            ]
            found += [{"ringfence.event.position": problem.position, "detail": problem.detail} for problem in decoded.problems]
        return sorted(found, key=lambda row: int(row["ringfence.event.position"]))

    assert fed(size) == fed(len(lines) or 1)


@given(st.ip_addresses(v=4), st.integers(2**120, 2**128 - 1), st.integers(0, 65_535), st.integers(0, 65_535), st.booleans())
def test_what_is_encoded_is_decoded_again(v4: Any, v6: int, sport: int, dport: int, is_v6: bool) -> None:
    text = ":".join(f"{v6 >> shift & 0xFFFF:04x}" for shift in range(112, -1, -16)) if is_v6 else str(v4)

    row = one(HEADER + packet(source=text, destination=text, sport=sport, dport=dport))

    assert row["source.ip6" if is_v6 else "source.ip"] == (v6.to_bytes(16, "big") if is_v6 else int(v4))
    assert (row["source.port"], row["destination.port"]) == (sport, dport)


@pytest.mark.parametrize("line", ["IN= OUT= " * 20_000, "IN=a OUT=b SRC=" * 10_000, packet()[:-90] + " RES=0x00 SYN" * 9_000])
def test_a_hostile_line_is_looked_at_only_as_far_as_the_kernel_would_write(line: str) -> None:
    assert len(line) > MAX_CHARS
    assert decode(HEADER + line).taken == 1


def test_lines_alone_are_recognised_and_those_with_a_header_are_syslog() -> None:
    found = [registry.recognise(text.encode()) for text in (packet(), HEADER + packet(), "IN= x")]

    assert [entry and entry.name for entry in found] == ["netfilter", "syslog", None]


def test_the_entry_point_builds_the_collector_and_claims_its_port() -> None:
    settings = KIND.settings.model_validate({"listen": "udp://127.0.0.1:5140", "actions": {"policy-7": "block"}})

    assert KIND.build(settings, BuildContext("gateway", EMPTY)).module == "netfilter"
    assert list(KIND.resources(settings)) == ["udp 127.0.0.1:5140"]
