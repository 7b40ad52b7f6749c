"""filterlog of pfSense and OPNsense: every protocol, every header, and a field that is odd costs no more than itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors import syslog_message
from collectors.filterlog import _BARE, _USUAL, KIND, RUN_LINES, FilterlogConfig, FilterlogDecoder, _packet, _Packets, recognise
from collectors.lines import MAX_LINE_BYTES
from collectors.rfc6587 import SyslogFramer
from collectors.syslog_message import read_message
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from tests.collectors.chunks import pf_rows, read_chunks

SOURCE = Source("filter.log", 0xFEED)
ARRIVED = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()) * 1_000_000
AT = int(datetime(2026, 11, 25, 7, 44, 23, tzinfo=UTC).timestamp()) * 1_000_000
HEAD = "5,,,1000000103,igb0,match,block,in,"
V4 = HEAD + "4,0x0,,64,1,0,DF,{},{},60,10.1.0.5,10.2.0.9,"
V6 = HEAD + "6,0x00,0x00000,64,{},{},20,fe80::1,2001:db8:2::9,"
TCP = V4.format(6, "tcp") + "40000,22,0,SA,1:21,7,65535,,mss;nop"
A6, B6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::1", "2001:db8:2::9"))


def decode(lines: Sequence[str], decoder: FilterlogDecoder | None = None, received_us: int = ARRIVED) -> Decoded:
    parts = [line.encode() + b"\n" for line in lines]
    return (decoder or FilterlogDecoder()).feed(frames_of(parts, SOURCE, received_us))


def one(line: str) -> dict[str, Any]:
    decoded = decode([line])
    assert not decoded.problems, decoded.problems
    (row,) = pf_rows(decoded)
    return row


def test_a_tcp_line_gives_rule_ends_and_flags() -> None:
    row = one(TCP)

    assert (row["ringfence.pf.rule"], row["ringfence.pf.subrule"], row["rule.ruleset"]) == (5, None, None)
    assert (row["ringfence.pf.tracker"], row["ringfence.pf.ridentifier"]) == ("1000000103", 1_000_000_103)
    assert (row["ringfence.pf.action"], row["ringfence.pf.reason"], row["ringfence.pf.direction"]) == ("block", "match", "in")
    assert (row["observer.ingress.interface.name"], row["observer.egress.interface.name"]) == ("igb0", None)
    assert (row["source.ip"], row["source.port"], row["destination.ip"], row["destination.port"]) == (
        0x0A010005,
        40000,
        0x0A020009,
        22,
    )
    assert (row["network.iana_number"], row["network.bytes"], row["ringfence.tcp.source_flags"]) == (6, 60, 0x12)
    assert (row["@timestamp"], row["observer.name"], row["event.original"]) == (ARRIVED, "filter.log", TCP.encode())
    assert row["ringfence.pf.truncated"] is False


HASH, UUID = "02f4bab031b57d1e30553ce08e0ec131", "8e51a1b2-7f6c-4d3e-9a10-0123456789ab"


@pytest.mark.parametrize(
    ("head", "rule", "subrule", "anchor", "tracker", "number"),
    [
        (f"80,,,{HASH}", 80, None, None, HASH, None),
        (f"80,,,{UUID}", 80, None, None, UUID, None),
        ("80,3,blue,0", 80, 3, "blue", None, None),
        ("80,,,", 80, None, None, None, None),
        (",,,0", 0xFFFFFFFF, None, None, None, None),
        ("4294967295,,,12", 0xFFFFFFFF, None, None, "12", 12),
        ("9,16777216,,1770008960", 9, None, None, "1770008960", 1_770_008_960),
        ("9,16777216,blue,99999999999", 9, 16_777_216, "blue", "99999999999", None),
        ("x,y,a/b,z", None, None, "a/b", "z", None),
    ],
)
def test_rule_and_tracker(
    head: str, rule: int | None, subrule: int | None, anchor: str | None, tracker: str | None, number: int | None
) -> None:
    header = "<134>1 2026-11-25T07:44:23Z fw1 filterlog 1 - - "

    row = one(header + TCP.replace("5,,,1000000103", head, 1))

    assert (row["ringfence.pf.rule"], row["ringfence.pf.subrule"], row["rule.ruleset"]) == (rule, subrule, anchor)
    assert (row["ringfence.pf.tracker"], row["ringfence.pf.ridentifier"]) == (tracker, number)
    assert row["destination.port"] == 22


@pytest.mark.parametrize(
    ("line", "protocol", "ports", "kind", "code", "truncated"),
    [
        (V4.format(17, "udp") + "5353,53,20", 17, (5353, 53), None, None, False),
        (V6.format("udp", 17) + "546,547,20", 17, (546, 547), None, None, False),
        (V6.format("UDP", 17) + "546,547,20", 17, (546, 547), None, None, False),
        (V4.format(132, "sctp") + "1000,2000,20", 132, (1000, 2000), None, None, False),
        (V4.format(1, "icmp") + "request,1,264", 1, (None, None), 8, None, False),
        (V4.format(1, "icmp") + "unreachport,10.1.0.5,UDP,5336", 1, (None, None), 3, 3, False),
        (V4.format(1, "icmp") + "tstampreply, 1,2,00:00:00.000,", 1, (None, None), 14, None, False),
        (V4.format(1, "icmp") + "type-??64", 1, (None, None), None, None, False),
        (V4.format(1, "icmp") + "datalength=64", 1, (None, None), None, None, False),
        (V4.format(1, "icmp") + "datalength=64,unreach,needfrag,,,1400", 1, (None, None), 3, 4, False),
        (V4.format(1, "icmp") + "datalength=64,unknown(42),7,,,", 1, (None, None), 42, 7, False),
        (V4.format(1, "icmp") + "datalength=1,truncated-icmp=1,,,,", 1, (None, None), None, None, True),
        (V6.format("ipv6-icmp", 58) + "datalength=32,neighbrsol,0,,,", 58, (None, None), 135, 0, False),
        (V6.format("ICMPv6", 58), 58, (None, None), None, None, False),
        (V6.format("Options", 0) + "HBH,RTALERT,0x0000,PADN,", None, (None, None), None, None, False),
        (V4.format(2, "igmp") + "datalength=16 ", 2, (None, None), None, None, False),
        (V4.format(112, "carp") + "advertise,255,1,2,0,1", 112, (None, None), None, None, False),
        (V6.format("VRRP", 112) + "advertise,255,1,2,0,1", 112, (None, None), None, None, False),
        (V4.format(6, "tcp") + "errormsg='tcp -8 [bad hdr length 8 - too short < 20]',", 6, (None, None), None, None, True),
        (V4.format(17, "udp").replace(",0,DF,", ",1480,none,"), 17, (None, None), None, None, False),
        (V4.format(17, "udp").replace("4,0x0", "4,error='truncated-ip 20 bytes missing!',0x0") + "1,2,3", 17, (1, 2), None, None, True),
        (V6.format("udp", 17).replace("6,0x00,", "6,truncated-ip6=60,0x00,") + "1,2,3", 17, (1, 2), None, None, True),
        (HEAD + "4,truncated-ip=12,", None, (None, None), None, None, True),
        (HEAD + "7", None, (None, None), None, None, True),
        (HEAD.rstrip(","), None, (None, None), None, None, True),
        (V4.format(300, "x") + "1,2,3", None, (None, None), None, None, False),
        (V4.format(17, "udp") + "70000,x,3", 17, (None, None), None, None, False),
    ],
)  # fmt: skip
def test_what_each_protocol_tells(
    line: str, protocol: int | None, ports: tuple[int | None, int | None], kind: int | None, code: int | None, truncated: bool
) -> None:
    row = one("Nov 25 07:44:23 fw1 filterlog[1]: " + line)

    assert row["network.iana_number"] == protocol
    assert (row["source.port"], row["destination.port"]) == ports
    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"], row["ringfence.pf.truncated"]) == (kind, code, truncated)
    assert (row["ringfence.pf.rule"], row["ringfence.pf.action"]) == (5, "block")


def test_ipv6_ends_and_length() -> None:
    row = one(V6.format("tcp", 6) + "40000,22,0,S,1,,65535,,mss")

    assert (row["source.ip6"], row["destination.ip6"], row["source.ip"], row["network.bytes"]) == (A6, B6, None, 60)
    assert row["ringfence.tcp.source_flags"] == 2


def test_an_odd_field_costs_only_itself() -> None:
    row = one(
        TCP.replace("10.1.0.5", "10.1.0.555").replace(",60,", ",many,").replace(",SA,", ",SX,").replace(",block,", ",unkn(%u),")
    )
    out = one(TCP.replace(",in,", ",out,").replace(",match,", ",unknown(3),").replace(",block,", ",synproxy-drop,"))
    both = one(TCP.replace(",in,", ",in/out,"))

    assert (row["source.ip"], row["network.bytes"], row["ringfence.tcp.source_flags"], row["ringfence.pf.action"]) == (
        None,
    ) * 4
    assert (row["destination.ip"], row["source.port"]) == (0x0A020009, 40000)
    assert (out["observer.egress.interface.name"], out["ringfence.pf.reason"], out["ringfence.pf.action"]) == (
        "igb0",
        "short",
        "synproxy_drop",
    )
    assert (both["ringfence.pf.direction"], both["observer.ingress.interface.name"]) == ("unknown(0)", None)


@pytest.mark.parametrize(
    ("header", "time", "observer"),
    [
        ("", ARRIVED, "filter.log"),
        ("<134>Nov 25 07:44:23 filterlog[3542]: ", AT, "filter.log"),
        ("Nov 25 07:44:23 fw1 filterlog[3542]: ", AT, "fw1"),
        ("Nov 25 07:44:23 fw1 filterlog: ", AT, "fw1"),
        ("<134>1 2026-11-25T07:44:23.003000Z fw1.example.org filterlog 3542 - - ", AT + 3000, "fw1.example.org"),
        ('<134>1 2026-11-25T08:44:23+01:00 OPNsense.lan filterlog 99 - [meta sequenceId="12"] ', AT, "OPNsense.lan"),
        ("<134>filterlog[1]: ", ARRIVED, "filter.log"),
    ],
)
def test_every_header(header: str, time: int, observer: str) -> None:
    row = one(header + TCP)

    assert (row["@timestamp"], row["observer.name"], row["destination.port"]) == (time, observer, 22)


def test_the_observer_of_the_settings_wins_and_originals_can_be_left_out() -> None:
    decoded = decode(["Nov 25 07:44:23 fw1 filterlog[1]: " + TCP], FilterlogDecoder("edge", keep_original=False))

    (row,) = pf_rows(decoded)
    assert row["observer.name"] == "edge"
    assert "event.original" not in row


def test_lines_that_are_no_record_are_counted_or_refused() -> None:
    decoded = decode(["", "Nov 25 07:44:23 fw1 sshd[1]: hello", "Nov 25 07:44:23 fw1 filterlog[1]: [|pflog]", "hello", TCP])

    assert (decoded.taken, decoded.filtered) == (1, {"blank": 1, "another program": 1})
    assert [(problem.row, problem.code) for problem in decoded.problems] == [
        (2, ProblemCode.MALFORMED),
        (3, ProblemCode.MALFORMED),
    ]


def test_an_octet_count_that_is_wrong_is_a_problem() -> None:
    message = "<134>Nov 25 07:44:23 fw1 filterlog[1]: " + TCP
    parts = [f"{len(message)} {message}".encode(), f"{len(message)} {message}".encode()[:-9]]

    decoded = FilterlogDecoder().feed(frames_of(parts, SOURCE, ARRIVED))

    assert (decoded.taken, [problem.code for problem in decoded.problems]) == (1, [ProblemCode.TRUNCATED])


@pytest.mark.parametrize(
    ("line", "year", "why"),
    [
        (TCP, 2026, "no time"),
        ("Nov 25 07:44:23 fw1 filterlog[1]: " + TCP, None, "set the option year"),
        ("Foo 25 07:44:23 fw1 filterlog[1]: " + TCP, 2026, "no date"),
    ],
)
def test_a_time_that_cannot_be_known_is_a_problem(line: str, year: int | None, why: str) -> None:
    (problem,) = decode([line], FilterlogDecoder(year=year), 0).problems

    assert why in problem.detail


def test_an_over_long_line_is_one_problem() -> None:
    framer = SyslogFramer()
    data, bounds = framer.cut(TCP.encode() + b"\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + TCP.encode() + b"\n")
    parts = [data[start:end] for start, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)]

    decoded = FilterlogDecoder().feed(frames_of(parts, SOURCE, ARRIVED))

    assert (decoded.taken, [problem.code for problem in decoded.problems]) == (2, [ProblemCode.TOO_LARGE])


pieces = st.sampled_from([
    "5", ",", ",", ",", ",,", "igb0", "match", "block", "in", "4", "6", "0x0", "DF", "tcp", "udp", "17", "1", "58", "10.1.0.5", "fe80::1",
    "SA", "datalength=4", "unreach", "unknown(9)", "error='x'", "truncated-ip=4", "Nov 25 07:44:23 ", "fw1 ", "filterlog[1]: ",
    "<134>1 2026-11-25T07:44:23Z fw1 filterlog - - - ", "\u0661", "é", "\x00", "\r", "120 <134>",
])  # fmt: skip
some_lines = st.one_of(
    st.lists(pieces, max_size=30).map(lambda parts: "".join(parts).encode()),
    st.tuples(st.integers(0, 100), st.binary(max_size=3)).map(
        lambda parts: TCP.encode()[: parts[0]] + parts[1] + TCP.encode()[parts[0] + len(parts[1]) :]
    ),
    st.binary(max_size=60),
)


@settings(max_examples=300)
@given(st.lists(some_lines, max_size=8), st.lists(st.integers(0, 120), max_size=8), st.booleans(), st.booleans())
def test_any_bytes_in_any_chunks_raise_nothing_and_are_accounted_for(
    texts: list[bytes], sizes: list[int], ended: bool, arrived: bool
) -> None:
    stream = b"\n".join(texts) + (b"\n" if ended else b"")

    assert _read(stream, sizes, ARRIVED * arrived) == _read(stream, [], ARRIVED * arrived)


def _read(stream: bytes, sizes: Sequence[int], received_us: int) -> tuple[list[dict[str, Any]], list[Any], dict[str, int]]:
    return read_chunks(SyslogFramer(), FilterlogDecoder(year=2026), SOURCE, stream, sizes, received_us)


numbers, octets = st.integers(0, 65535), st.integers(0, 255)
words = st.text("abcdefgh0123456789_-", min_size=1, max_size=12)


@given(
    st.integers(0, 2**32 - 2), words, words, st.sampled_from(["pass", "block"]), st.sampled_from(["in", "out"]), st.booleans(),
    st.binary(min_size=16, max_size=16), numbers, numbers, st.sampled_from([(6, "tcp"), (17, "udp")]), st.integers(60, 1500),
)  # fmt: skip
def test_decoding_gives_what_was_encoded(
    rule: int, tracker: str, interface: str, action: str, way: str, v6: bool, address: bytes, sport: int, dport: int,
    protocol: tuple[int, str], length: int,
) -> None:  # fmt: skip
    packed = address if v6 else address[:4]
    text = socket.inet_ntop(socket.AF_INET6 if v6 else socket.AF_INET, packed)
    head = f"{rule},,,{tracker},{interface},match,{action},{way},"
    version = (
        f"6,0x00,0x00000,64,{protocol[1]},{protocol[0]},{length},"
        if v6
        else f"4,0x0,,64,1,0,DF,{protocol[0]},{protocol[1]},{length},"
    )

    row = one(f"Nov 25 07:44:23 fw1 filterlog[1]: {head}{version}{text},{text},{sport},{dport},0,S,1,,65535,,")

    mapped = v6 and packed[:12] == bytes(10) + b"\xff\xff"
    v4 = None if v6 and not mapped else int.from_bytes(packed[-4:], "big")
    assert (row["source.ip"], row["destination.ip6"]) == (v4, packed if v6 and not mapped else None)
    assert (row["source.port"], row["destination.port"], row["network.iana_number"]) == (sport, dport, protocol[0])
    assert (row["ringfence.pf.rule"], row["ringfence.pf.action"], row["ringfence.pf.direction"]) == (rule, action, way)
    assert (row["ringfence.pf.tracker"], row["network.bytes"]) == (None if tracker == "0" else tracker, length + 40 * v6)


fields = st.one_of(
    st.sampled_from(["4", "6", "0", "17", "58", "1", "0x0", "0x10", "error='x'", "S", "SA", "X", "", "10.1.0.5", "datalength=4", "70000", "errormsg='"]),
    st.integers(0, 70_000).map(str),
)  # fmt: skip
usual = st.sampled_from(
    [V4.format(6, "tcp") + "1,2,0,S", V4.format(17, "udp") + "1,2,3", V6.format("TCP", 6) + "1,2,0,SA,1,,,", TCP]
).map(lambda line: line.split(","))


@settings(max_examples=500)
@given(st.one_of(usual, st.lists(fields, max_size=30)), st.lists(st.tuples(st.integers(8, 25), fields), max_size=3))
def test_the_table_of_usual_packets_says_what_the_slow_way_says(values: list[str], changes: list[tuple[int, str]]) -> None:
    for at, text in changes:
        if at < len(values):
            values[at] = text

    assert _Packets().read(list(values)) == _packet(list(values))


def test_the_format_is_recognised_and_syslog_leaves_it_alone() -> None:
    for line in (TCP, "Nov 25 07:44:23 fw1 filterlog[1]: " + TCP, "<134>Nov 25 07:44:23 filterlog[1]: " + TCP):
        assert recognise(line.encode() + b"\n")
        assert not syslog_message.recognise(line.encode() + b"\n")
    assert not recognise(b"Nov 25 07:44:23 fw1 sshd[1]: a,b,c,d,e,f,g,h\n")
    assert not recognise(b"")


def test_the_collector_takes_the_settings_of_syslog() -> None:
    listening = FilterlogConfig.model_validate({"listen": "udp://127.0.0.1:5514"})

    assert KIND.resources(listening) == ["udp 127.0.0.1:5514"]
    with pytest.raises(ValidationError):
        FilterlogConfig.model_validate({"listen": "udp://127.0.0.1:5514", "path": "/tmp/x"})


_PIECES = st.sampled_from(
    ["<134>", "<200>", "<1>", "Nov 25 07:44:23 ", "Nov  5 07:44:23 ", "2026-11-25T07:44:23Z ", "1 ", "fw1 ", "fw1: ", "a[1] ", "filterlog",
     "filterlog: ", "filterlog[3542]: ", "filterlog[]: ", "other: ", "5,,,0,igb0,match,block,in,4", " ", "\n", "é "]
)  # fmt: skip


@given(st.lists(_PIECES, max_size=7).map("".join))
def test_the_usual_header_is_read_as_any_header_is(text: str) -> None:
    usual = _USUAL.match(text)

    if usual is not None:
        message = read_message(text)
        assert message is not None
        time, host, values = usual.groups()
        assert (message[1], message[2], message[3], message[7]) == (time, host, "filterlog", values)
        assert _BARE.match(text) is None


def test_a_block_of_more_lines_than_are_read_at_once_keeps_their_order() -> None:
    count = RUN_LINES + 3
    decoded = decode([V4.format(17, "udp") + f"{port},53,40" for port in range(count)])

    assert decoded.rows[EventClass.PF]["source.port"].to_list() == list(range(count))
