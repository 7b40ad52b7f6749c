"""pflog as tcpdump prints it: the same rows as from the file that tcpdump read, in both dialects, and any bytes."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.lines import MAX_LINE_BYTES, LineFramer
from collectors.pflog import PflogDecoder
from collectors.pflog_text import KIND, PflogTextConfig, PflogTextDecoder, recognise
from ringfence.batch import Decoded, ProblemCode, Source, frames_of
from tests.collectors.chunks import pf_rows, read_chunks
from tests.collectors.encode_pflog import Pflog, file_header, icmp, ip4, ip6, record, tcp, udp

SOURCE = Source("pflog.txt", 0xFEED)
A4, B4 = socket.inet_aton("10.1.0.5"), socket.inet_aton("10.2.0.9")
A6, B6 = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::1", "2001:db8:2::9"))
ARRIVED = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()) * 1_000_000
OPENBSD = "Nov 25 07:44:23.123456 rule 4.tenant1.2/(match) pass in on xl0: 10.0.0.5.40000 > 10.1.0.9.22: S 1:1(0) win 16384 <mss 1460> (DF)"
UPSTREAM = "1790000000.000005 rule 2/0(match): block out on vlan20: 10.1.0.5.40000 > 10.2.0.9.22: Flags [S.], seq 1, ack 0, win 1, length 0"


def decode(lines: Sequence[str | bytes], decoder: PflogTextDecoder | None = None, received_us: int = 0) -> Decoded:
    parts = [(line.encode() if isinstance(line, str) else line) + b"\n" for line in lines]
    return (decoder or PflogTextDecoder(year=2026)).feed(frames_of(parts, SOURCE, received_us))


def one(line: str) -> dict[str, Any]:
    decoded = decode([line])
    assert not decoded.problems, decoded.problems
    (row,) = pf_rows(decoded)
    return row


def body(text: str) -> dict[str, Any]:
    return one(f"1790000000.000005 rule 2/0(match): block in on em0: {text}")


def test_openbsd_prints_rule_anchor_ends_and_flags() -> None:
    row = one(OPENBSD)

    assert row["@timestamp"] == int(datetime(2026, 11, 25, 7, 44, 23, 123456, UTC).timestamp() * 1_000_000)
    assert (row["ringfence.pf.rule"], row["rule.ruleset"], row["ringfence.pf.subrule"]) == (4, "tenant1", 2)
    assert (row["ringfence.pf.action"], row["ringfence.pf.reason"], row["ringfence.pf.direction"]) == ("pass", "match", "in")
    assert (row["observer.ingress.interface.name"], row["observer.egress.interface.name"]) == ("xl0", None)
    assert (row["source.ip"], row["source.port"], row["destination.ip"], row["destination.port"]) == (
        0x0A000005,
        40000,
        0x0A010009,
        22,
    )
    assert (row["network.iana_number"], row["ringfence.tcp.source_flags"], row["ringfence.pf.truncated"]) == (6, 2, False)
    assert row["event.original"] == OPENBSD.encode()


def test_the_tcpdump_of_tcpdump_org_prints_the_number_of_the_reason_and_flags_in_brackets() -> None:
    row = one(UPSTREAM)

    assert (row["@timestamp"], row["ringfence.pf.rule"], row["ringfence.pf.subrule"]) == (1_790_000_000_000_005, 2, None)
    assert (row["ringfence.pf.action"], row["observer.egress.interface.name"]) == ("block", "vlan20")
    assert row["ringfence.tcp.source_flags"] == 0x12


def test_verbose_openbsd_adds_users_and_processes() -> None:
    row = one(
        "Nov 25 12:34:56.789012 rule 3/(match) [uid 0, pid 12345] block out on em0: [uid 1000, pid 6789] "
        "192.168.1.1.1234 > 1.2.3.4.70: S [tcp sum ok] 1:1(0) win 16384 (ttl 64, id 4321, len 60)"
    )
    nobody = one(OPENBSD.replace("(match) ", "(match) [uid 0, pid 100000] "))

    assert (row["ringfence.pf.rule_uid"], row["ringfence.pf.rule_pid"]) == (0, 12345)
    assert (row["ringfence.pf.uid"], row["ringfence.pf.pid"], row["destination.port"]) == (1000, 6789, 70)
    assert (row["network.iana_number"], row["ringfence.tcp.source_flags"]) == (6, 2)
    assert (nobody["ringfence.pf.rule_pid"], nobody["ringfence.pf.pid"]) == (None, None)


@pytest.mark.parametrize(
    ("text", "rule", "ruleset", "subrule", "reason"),
    [
        ("rule def/(match) ", 0xFFFFFFFF, None, None, "match"),
        ("rule 4294967295/0(match): ", 0xFFFFFFFF, None, None, "match"),
        ("rule 7.blue.def/(short) ", 7, "blue", None, "short"),
        ("rule 7.x.y/1.2/2(fragment): ", 7, "x.y/1", 2, "fragment"),
        ("rule 7..3/0(match): ", 7, None, 3, "match"),
        ("rule 0/(unkn 20) ", 0, None, None, "unknown(20)"),
        ("rule 0/unkn(20): ", 0, None, None, "unknown(20)"),
        ("rule -1/0(match): ", 0xFFFFFFFF, None, None, "match"),
        ("rule 9999999999/0(match): ", None, None, None, "match"),
    ],
)
def test_rules_and_reasons(text: str, rule: int | None, ruleset: str | None, subrule: int | None, reason: str) -> None:
    row = one(f"1790000000.5 {text}block in on em0: 10.1.0.5.1 > 10.2.0.9.2: udp 4")

    found = [row[name] for name in ("ringfence.pf.rule", "rule.ruleset", "ringfence.pf.subrule", "ringfence.pf.reason")]
    assert found == [rule, ruleset, subrule, reason]
    assert row["destination.port"] == 2


@pytest.mark.parametrize(
    ("text", "protocol", "flags", "kind", "code", "truncated"),
    [
        ("10.1.0.5.1 > 10.2.0.9.2: . ack 1 win 4096", 6, 0x10, None, None, False),
        ("10.1.0.5.1 > 10.2.0.9.2: FP 1:20(19) ack 1 win 4096 urg 3", 6, 0x39, None, None, False),
        ("10.1.0.5.1 > 10.2.0.9.2: R 1:1(0) win 0", 6, 4, None, None, False),
        ("10.1.0.5.1 > 10.2.0.9.2: Flags [none], win 1, length 0", 6, 0, None, None, False),
        ("10.1.0.5.1 > 10.2.0.9.2: tcp 0", 6, None, None, None, False),
        ("10.1.0.5.1 > 10.2.0.9.2:  [|tcp]", 6, None, None, None, True),
        ("truncated-ip - 10 bytes missing! 10.1.0.5.1 > 10.2.0.9.2:  [|tcp]", 6, None, None, None, True),
        ("10.1.0.5 > 10.2.0.9: [|tcp]", 6, None, None, None, True),
        ("[|ip]", None, None, None, None, True),
        ("10.1.0.5.1 > 10.2.0.9.53: 4321+ A? example.org. (29)", 17, None, None, None, False),
        ("10.1.0.5.1 > 10.2.0.9.2: udp 4 (DF)", 17, None, None, None, False),
        ("10.1.0.5.5353 > 10.2.0.9.9: UDP, length 0", 17, None, None, None, False),
        ("10.1.0.5.1000 > 10.2.0.9.2000: sctp (1) [INIT]", 132, None, None, None, False),
        ("fe80::1.546 > ff02::1:2.547: dhcp6 solicit", 17, None, None, None, False),
        ("::ffff:10.1.0.5.546 > ff02::1:2.547: udp 4", 17, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9: icmp: echo request (id:1 seq:2)", 1, None, 8, None, False),
        ("10.1.0.5 > 10.2.0.9: icmp: 10.1.0.5 udp port 53 unreachable", 1, None, 3, 3, False),
        ("10.1.0.5 > 10.2.0.9: ICMP host 10.1.0.5 unreachable - admin prohibited filter, length 36", 1, None, 3, 13, False),
        ("10.1.0.5 > 10.2.0.9: ICMP type-#42, length 8", 1, None, 42, None, False),
        ("10.1.0.5 > 10.2.0.9: ICMP type-#999, length 8", 1, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9:  [|icmp]", 1, None, None, None, True),
        ("fe80::1 > ff02::16: icmp6: type-#143 [hlim 1]", 58, None, 143, None, False),
        (
            "fe80::1 > ff02::1: ICMP6, destination unreachable, unreachable port, fe80::2 udp port 2, length 5",
            58,
            None,
            1,
            4,
            False,
        ),
        ("fe80::1 > ff02::1: ICMP6, neighbor solicitation, who has ::1, length 24", 58, None, 135, None, False),
        ("10.1.0.5 > 224.0.0.22: igmp v3 report, 1 group record(s)", 2, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9: ESP(spi=0x00000001,seq=0x1), length 84", 50, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9: esp spi 0x1 seq 1 len 84", 50, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9:  ip-proto-99 8", 99, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9: ip-proto-999", None, None, None, None, False),
        ("10.1.0.5 > 10.2.0.9: (frag 1:8@8+)", None, None, None, None, False),
        ("CARPv2-advertise 36: vhid=1 advbase=1 advskew=0 demote=0 (DF) [tos 0x10]", 112, None, None, None, False),
        ("(tos 0x0, ttl 64, id 1, offset 0, flags [none], proto TCP (6), length 40)", 6, None, None, None, False),
    ],
)
def test_what_follows_the_addresses_tells_the_protocol(
    text: str, protocol: int | None, flags: int | None, kind: int | None, code: int | None, truncated: bool
) -> None:
    row = body(text)

    assert (row["network.iana_number"], row["ringfence.tcp.source_flags"]) == (protocol, flags)
    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"]) == (kind, code)
    assert row["ringfence.pf.truncated"] is truncated


def test_ipv6_ports_follow_the_address_and_mapped_addresses_count_as_ipv4() -> None:
    row = body("fe80::1.546 > 2001:db8:2::9.547: Flags [S], seq 1")
    mapped = body("::ffff:10.1.0.5.80 > ff02::2: icmp6: echo request")

    assert (row["source.ip6"], row["source.port"], row["destination.ip6"], row["destination.port"]) == (A6, 546, B6, 547)
    assert (mapped["source.ip"], mapped["source.ip6"], mapped["source.port"]) == (0x0A010005, None, 80)
    assert body("fe80::1 > ff02::2: ICMP6, echo reply")["source.port"] is None


def test_names_cost_their_field_only() -> None:
    row = body("10.1.0.5.40000 > 10.2.0.9.ssh: Flags [S], seq 1")
    hosts = body("gw.example.org.40000 > www.example.org.ssh: Flags [S], seq 1")
    wrong = body("10.1.0.999.70000 > 10.2.0.9.22: Flags [S], seq 1")

    assert (row["destination.ip"], row["destination.port"], row["network.iana_number"]) == (0x0A020009, None, 6)
    assert (hosts["source.ip"], hosts["destination.ip"], hosts["ringfence.pf.rule"]) == (None, None, 2)
    assert (wrong["source.ip"], wrong["source.port"], wrong["destination.port"]) == (None, None, 22)


REST = "rule 2/0(match): block in on em0: 10.1.0.5.1 > 10.2.0.9.2: Flags [S], seq 1"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1790000000.000005 ", 1_790_000_000_000_005),
        ("1790000000.000005678 ", 1_790_000_000_000_005),
        ("    1  1790000000.5 ", 1_790_000_000_500_000),
        ("2026-09-21 14:13:20.000005 ", 1_790_000_000_000_005),
        ("Sep 21 14:13:20.000005 ", 1_790_000_000_000_005),
        ("Sep 21 14:13:20 ", 1_790_000_000_000_000),
    ],
)
def test_times_with_a_date(time: str, expected: int) -> None:
    assert one(time + REST)["@timestamp"] == expected


@pytest.mark.parametrize(
    ("time", "why"),
    [
        ("14:13:20.000005 ", "no date"),
        (" 00:00:01.000005 ", "relative"),
        ("0.000123 ", "relative"),
        ("", "no time"),
        ("Foo 21 14:13:20.000005 ", "no date of the calendar"),
        ("2026-02-30 14:13:20.000005 ", "no date of the calendar"),
        ("Feb 29 14:13:20.000005 ", "no date of the calendar"),
    ],
)
def test_a_time_that_cannot_be_known_is_a_problem(time: str, why: str) -> None:
    (problem,) = decode([time + REST]).problems

    assert problem.code is ProblemCode.MALFORMED
    assert why in problem.detail


def test_a_time_without_a_year_and_no_year_is_a_problem() -> None:
    assert "set the option year" in decode(["Sep 21 14:13:20.5 " + REST], PflogTextDecoder()).problems[0].detail


def test_a_day_or_the_arrival_completes_a_time_of_day() -> None:
    line = "14:13:20.000005 " + REST
    by_day = decode([line], PflogTextDecoder(day=date(2026, 9, 21)))
    earlier, midnight = (
        pf_rows(decode([text + " " + REST], PflogTextDecoder(), ARRIVED))[0]["@timestamp"]
        for text in ("11:59:59.5", "Nov 24 00:00:00.5")
    )
    before_midnight = pf_rows(
        decode(["23:59:59.9 " + REST], PflogTextDecoder(), ARRIVED // 86_400_000_000 * 86_400_000_000 + 50_000)
    )

    assert pf_rows(by_day)[0]["@timestamp"] == 1_790_000_000_000_005
    assert earlier == ARRIVED - 500_000
    assert midnight == ARRIVED - 36 * 3_600_000_000 + 500_000
    assert before_midnight[0]["@timestamp"] == ARRIVED - 12 * 3_600_000_000 - 100_000
    assert pf_rows(decode([REST], PflogTextDecoder(), ARRIVED))[0]["@timestamp"] == ARRIVED


def test_lines_that_are_no_record_are_counted_or_refused() -> None:
    decoded = decode(
        [
            "reading from file x.pcap, link-type PFLOG (OpenBSD pflog file), snapshot length 65535", UPSTREAM,
            "    10.1.0.5.40000 > 10.2.0.9.22: Flags [S], seq 1", "\t0x0000:  4500 0028", "",
            "1790000000.000005 IP 10.1.0.5.40000 > 10.2.0.9.22: Flags [S], seq 1", "1790000000.5 rule 7/0(match): block", "hello",
        ]
    )  # fmt: skip

    assert decoded.taken == 1
    assert decoded.filtered == {"tcpdump's own message": 1, "continuation": 2, "blank": 1}
    assert [(problem.row, problem.offset) for problem in decoded.problems] == [(5, 0), (6, 13), (7, 0)]


def test_an_over_long_line_is_one_problem() -> None:
    framer, decoder = LineFramer(), PflogTextDecoder()
    data, bounds = framer.cut(UPSTREAM.encode() + b"\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\n" + UPSTREAM.encode() + b"\n")
    parts = [data[start:end] for start, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)]

    decoded = decoder.feed(frames_of(parts, SOURCE))

    assert (decoded.taken, [problem.code for problem in decoded.problems]) == (2, [ProblemCode.TOO_LARGE])
    assert decoded.filtered["too_large_rest"] == len(parts) - 3


pieces = st.sampled_from([
    "1790000000.000005 ", "Nov 25 07:44:23.1 ", "12:00:00.5 ", "rule ", "7", ".blue.", "def", "/", "0(match)", "(match)", ": ", " ",
    "[uid 1, pid 2] ", "block", " in on ", "em0", "10.1.0.5", ".22", " > ", "fe80::1", "::", "Flags [S]", "S 1:1(0) ack 1", "ICMP ",
    "icmp: ", "echo request", "unreachable", "[|tcp]", "\t", "\x00", "é", "ip-proto-9", "(tos 0x0, proto TCP (6)", "\r",
])  # fmt: skip
lines = st.one_of(
    st.lists(pieces, max_size=14).map(lambda parts: "".join(parts).encode()),
    st.tuples(st.sampled_from([OPENBSD, UPSTREAM]), st.integers(0, 130), st.binary(max_size=3)).map(
        lambda parts: parts[0].encode()[: parts[1]] + parts[2] + parts[0].encode()[parts[1] + len(parts[2]) :]
    ),
    st.binary(max_size=60),
)


@settings(max_examples=300)
@given(st.lists(lines, max_size=8), st.lists(st.integers(0, 120), max_size=8), st.booleans(), st.booleans())
def test_any_bytes_in_any_chunks_raise_nothing_and_are_accounted_for(
    texts: list[bytes], sizes: list[int], ended: bool, arrived: bool
) -> None:
    stream = b"\n".join(texts) + (b"\n" if ended else b"")

    assert _read(stream, sizes, ARRIVED * arrived) == _read(stream, [], ARRIVED * arrived)


def _read(stream: bytes, sizes: Sequence[int], received_us: int) -> tuple[list[dict[str, Any]], list[Any], dict[str, int]]:
    found, problems, filtered = read_chunks(LineFramer(), PflogTextDecoder(year=2026), SOURCE, stream, sizes, received_us)
    return [dict(sorted({"ringfence.pf.ridentifier": None, **row}.items())) for row in found], problems, filtered


def test_the_format_is_recognised() -> None:
    assert recognise(OPENBSD.encode() + b"\n")
    assert recognise(b"reading from file x\n" + UPSTREAM.encode())
    assert not recognise(b"Nov 25 07:44:23 fw1 sshd[1]: rule 4/(match) pass in on xl0: x\n")
    assert not recognise(b"")


def test_the_settings_are_checked() -> None:
    read_once = PflogTextConfig.model_validate({"path": "/tmp/pflog.txt", "follow": False, "day": "2026-09-21"})

    assert (read_once.day, KIND.resources(read_once)) == (date(2026, 9, 21), ["file /tmp/pflog.txt"])
    for wrong in ({"year": 2026}, {"day": "2026-09-21"}, {"follow": False, "day": "2026-02-30"}, {"folow": True}):
        with pytest.raises(ValidationError):
            PflogTextConfig.model_validate({"path": "/tmp/pflog.txt", **wrong})


KEYS = (
    "@timestamp", "ringfence.pf.rule", "ringfence.pf.subrule", "rule.ruleset", "ringfence.pf.action", "ringfence.pf.reason",
    "ringfence.pf.direction", "observer.ingress.interface.name", "observer.egress.interface.name", "source.ip", "source.ip6",
    "source.port", "destination.ip", "destination.ip6", "destination.port", "network.iana_number", "ringfence.tcp.source_flags",
)  # fmt: skip


# Not reason 4: tcpdump 4.99.3 prints it as `3(short)`, and 3 as `unkn(3)`.
@st.composite
def packets(draw: st.DrawFn) -> bytes:
    names = st.text("abcdefghijklmnop0123456789_-", min_size=1, max_size=15).map(str.encode)
    ports, octets = st.integers(1, 65535), st.integers(0, 255)
    anchored = draw(st.booleans())
    v6 = draw(st.booleans())
    transport = draw(
        st.one_of(
            st.tuples(st.just(6), st.builds(tcp, st.just(9), ports, octets)),
            st.tuples(st.just(17), st.builds(udp, st.just(9), ports)),
            st.tuples(st.just(58 if v6 else 1), st.builds(icmp, octets, st.just(0)).map(lambda head: head + bytes(60))),
        )
    )
    header = Pflog(
        length=draw(st.sampled_from([61, 69, 100])), action=draw(st.integers(0, 2)), reason=draw(st.integers(0, 14).filter(lambda code: code != 4)),
        ifname=draw(names), ruleset=draw(names) if anchored else b"", rulenr=draw(st.integers(0, 2**32 - 1)),
        subrulenr=draw(st.integers(0, 2**32 - 2)) if anchored else 0xFFFFFFFF, dir=draw(st.integers(1, 2)),
    )  # fmt: skip
    if v6:
        family = 24 if header.length == 100 else 28
        ends = [draw(st.binary(min_size=16, max_size=16)) for _ in range(2)]
        return Pflog(**{**header.__dict__, "af": family}).encode() + ip6(ends[0], ends[1], *transport)
    ends = [draw(st.binary(min_size=4, max_size=4)) for _ in range(2)]
    return header.encode() + ip4(ends[0], ends[1], *transport)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump: apt-get install -y tcpdump")
@pytest.mark.parametrize("option", ["-tt", "-tttt"])
def test_text_and_file_decode_to_the_same(tmp_path_factory: pytest.TempPathFactory, option: str) -> None:
    capture = tmp_path_factory.mktemp("text") / "pflog"

    @settings(max_examples=15)
    @given(st.lists(packets(), min_size=1, max_size=30))
    def same(logged: list[bytes]) -> None:
        assert _text_rows(capture, logged, option) == _file_rows(logged)

    same()


def _text_rows(capture: Path, logged: list[bytes], option: str) -> list[list[Any]]:
    capture.write_bytes(file_header() + b"".join(record(packet) for packet in logged))
    command = ["tcpdump", "-n", "-e", option, "-r", str(capture)]
    printed = subprocess.run(
        command, capture_output=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/usr/sbin:/bin"}
    ).stdout
    # what a payload printer adds on lines of its own is left out here as by the decoder
    decoded = decode([line for line in printed.split(b"\n") if b" rule " in line])
    assert not decoded.problems
    return [[row[key] for key in KEYS] for row in pf_rows(decoded)]


def _file_rows(logged: list[bytes]) -> list[list[Any]]:
    decoded = PflogDecoder().feed(frames_of([file_header(), *map(record, logged)], SOURCE))
    assert not decoded.problems
    return [[row[key] for key in KEYS] for row in pf_rows(decoded)]
