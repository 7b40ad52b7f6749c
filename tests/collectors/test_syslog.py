"""Syslog messages of both RFCs, what sshd says in them, and what is refused with its place."""

from __future__ import annotations

import calendar
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.lines import LineFramer
from collectors.rfc6587 import MAX_FRAME_BYTES
from collectors.syslog import SyslogDecoder
from ringfence.addresses import parse
from ringfence.batch import Decoded, EventClass, Micros, Problem, ProblemCode, Source, frames_of

PEER = Source("192.0.2.9", 0xBEEF)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(*parts: int) -> Micros:
    return Micros((datetime(*parts, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1))  # type: ignore[misc,arg-type]


ARRIVAL = micros(2026, 11, 25, 12, 0, 0)


def decode(lines: Sequence[bytes], received_us: int = ARRIVAL, decoder: SyslogDecoder | None = None) -> Decoded:
    return (decoder or SyslogDecoder()).feed(frames_of(lines, PEER, received_us))


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    found = [row for frame in decoded.rows.values() for row in frame.to_dicts()]
    return sorted(found, key=lambda row: int(row["ringfence.event.position"]))


def one(line: bytes, received_us: int = ARRIVAL, decoder: SyslogDecoder | None = None) -> dict[str, Any]:
    decoded = decode([line], received_us, decoder)
    assert not decoded.problems, decoded.problems
    (row,) = rows(decoded)
    return row


def refused(line: bytes, received_us: int = ARRIVAL) -> Problem:
    decoded = decode([line], received_us)
    assert not decoded.rows
    (problem,) = decoded.problems
    assert problem.raw == line
    return problem


def login(text: str, program: str = "sshd") -> dict[str, Any]:
    return one(f"<38>Nov 25 08:35:42 vm {program}[42]: {text}\n".encode())


def accounted(decoded: Decoded) -> int:
    return decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held


# RFC 5424


def test_a_message_of_rfc_5424_fills_every_column() -> None:
    row = one(b'<165>1 2026-10-11T22:14:15.003Z host.example evntslog 77 ID47 [ex@32473 iut="3"] \xef\xbb\xbfAn event\n')

    assert row["@timestamp"] == micros(2026, 10, 11, 22, 14, 15, 3000)
    assert (row["log.syslog.facility.code"], row["log.syslog.severity.code"], row["log.syslog.version"]) == (20, 5, "1")
    assert (row["host.hostname"], row["process.name"], row["log.syslog.appname"]) == ("host.example", "evntslog", "evntslog")
    assert (row["process.pid"], row["log.syslog.procid"], row["log.syslog.msgid"]) == (77, "77", "ID47")
    assert row["ringfence.syslog.structured_data"] == '{"ex@32473":{"iut":"3"}}'
    assert (row["message"], row["ringfence.generic.type"], row["observer.name"]) == ("An event", "syslog", "192.0.2.9")
    assert (row["event.created"], row["ringfence.event.source"]) == (ARRIVAL, 0xBEEF)


def test_nil_values_are_null_and_a_nil_time_is_that_of_arrival() -> None:
    row = one(b"<34>1 - - - - - -")

    names = ("host.hostname", "process.name", "log.syslog.procid", "log.syslog.msgid", "ringfence.syslog.structured_data")
    assert [row[name] for name in names] == [None] * 5
    assert (row["message"], row["@timestamp"]) == ("", ARRIVAL)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1985-04-12T23:20:50.52Z", (1985, 4, 12, 23, 20, 50, 520_000)),
        ("1985-04-12T19:20:50.52-04:00", (1985, 4, 12, 23, 20, 50, 520_000)),
        ("2003-08-24T05:14:15.000003-07:00", (2003, 8, 24, 12, 14, 15, 3)),
        ("2026-11-25T08:35:41.462452+00:00", (2026, 11, 25, 8, 35, 41, 462_452)),
        ("2026-11-25T08:35:41.462452Z", (2026, 11, 25, 8, 35, 41, 462_452)),
        ("2026-11-25T08:35:41.4+01:00", (2026, 11, 25, 7, 35, 41, 400_000)),
        ("2026-11-25T08:35:41Z", (2026, 11, 25, 8, 35, 41)),
    ],
)
def test_times_with_zone_and_decimals_are_exact(time: str, expected: tuple[int, ...]) -> None:
    assert one(f"<13>1 {time} h a - - - m".encode())["@timestamp"] == micros(*expected)


def test_times_of_many_forms_in_one_block_are_the_same_as_one_by_one() -> None:
    times = ["2026-11-25T08:35:41.462452Z", "2026-11-25T08:35:41.4+01:00", "Nov 25 08:00:00", "2026-11-25T08:35:41Z"]
    lines = [f"<13>{time} h a: m\n".encode() for time in times]

    assert [row["@timestamp"] for row in rows(decode(lines))] == [one(line)["@timestamp"] for line in lines]


def test_structured_data_keeps_escapes_and_repeated_names() -> None:
    row = one(rb'<13>1 - h a - - [x@1 q="a\"b\\c\]d\n" ip="1" ip="2" ip="3"][y] m')

    assert json.loads(row["ringfence.syslog.structured_data"]) == {
        "x@1": {"q": 'a"b\\c]d\\n', "ip": ["1", "2", "3"]},
        "y": {},
    }


def test_the_two_spaces_and_the_newline_of_rsyslog_are_no_part_of_the_message() -> None:
    assert one(b"<38>1 2026-11-25T08:35:41Z vm app - - -  hello\n")["message"] == "hello"


def test_a_procid_that_is_no_number_is_no_pid() -> None:
    row = one(b"<13>1 - h a worker-7 - - m")

    assert (row["log.syslog.procid"], row["process.pid"]) == ("worker-7", None)


# RFC 3164 and its deviations


@pytest.mark.parametrize(
    ("line", "host", "tag", "pid", "message"),
    [
        ("<34>Oct 11 22:14:15 mymachine su: 'su root' failed", "mymachine", "su", None, "'su root' failed"),
        ("<34>Oct  1 22:14:15 h cron[7]: a: b [c]", "h", "cron", 7, "a: b [c]"),
        ("<34>Oct 11 22:14:15 2001:db8::1 a[1]: m", "2001:db8::1", "a", 1, "m"),
        ("<34>Oct 11 22:14:15 su: no hostname", None, "su", None, "no hostname"),
        ("<34>Oct 11 22:14:15 sshd[7]: error: no hostname", None, "sshd", 7, "error: no hostname"),
        ("<34>Oct 11 22:14:15 h last message repeated 3 times", "h", None, None, "last message repeated 3 times"),
        ("<34>Oct 11 22:14:15 h http://x", "h", None, None, "http://x"),
        ("<34>Oct 11 22:14:15 h a:", "h", "a", None, ""),
        ("<34>Oct 11 22:14:15", None, None, None, ""),
        ("<34>app[9]: no time", None, "app", 9, "no time"),
        ("<34>no tag, no time", None, None, None, "no tag, no time"),
        ("<34>2026-10-11T22:14:15.5+02:00 h a: iso time", "h", "a", None, "iso time"),
        ("<34>", None, None, None, ""),
    ],
)
def test_a_message_of_rfc_3164_is_read_with_what_it_lacks(
    line: str, host: str | None, tag: str | None, pid: int | None, message: str
) -> None:
    row = one(line.encode())

    assert (row["host.hostname"], row["process.name"], row["process.pid"], row["message"]) == (host, tag, pid, message)
    assert (row["log.syslog.facility.code"], row["log.syslog.severity.code"]) == (4, 2)
    assert row["event.original"] == line.encode()


def test_a_line_of_a_file_without_pri_has_no_severity() -> None:
    row = one(b"Nov 25 08:35:42 vm cron[1]: m\n")

    assert (row["log.syslog.facility.code"], row["log.syslog.severity.code"]) == (None, None)


def test_a_message_without_a_time_has_that_of_its_arrival() -> None:
    assert one(b"<34>app: m")["@timestamp"] == ARRIVAL


@pytest.mark.parametrize(
    ("text", "arrival", "year"),
    [
        ("Nov 25 08:00:00", (2026, 11, 25), 2026),
        ("Dec 31 23:59:59", (2027, 1, 1), 2026),
        ("Dec 01 00:00:00", (2027, 1, 20), 2026),
        ("Jan  1 00:00:10", (2026, 12, 31), 2027),
        ("Nov 26 08:00:00", (2026, 11, 25), 2026),
        ("Nov 28 08:00:00", (2026, 11, 25), 2025),
        ("Feb 29 08:00:00", (2026, 11, 25), 2024),
    ],
)
def test_a_time_without_year_is_the_latest_that_has_arrived(text: str, arrival: tuple[int, ...], year: int) -> None:
    row = one(f"<13>{text} h a: m".encode(), micros(*arrival))

    assert datetime.fromtimestamp(row["@timestamp"] / 1_000_000, UTC).year == year


def test_frames_of_one_block_may_have_arrived_in_different_years() -> None:
    decoder = SyslogDecoder()
    frames = frames_of([b"<13>Dec 31 10:00:00 h a: m"] * 2, PEER)
    frames.received_us[:] = [micros(2025, 12, 31), micros(2027, 1, 1)]

    stamps = [row["@timestamp"] for row in rows(decoder.feed(frames))]

    assert stamps == [micros(2025, 12, 31, 10, 0, 0), micros(2026, 12, 31, 10, 0, 0)]


def test_in_a_file_that_is_read_once_the_year_is_the_configured_one() -> None:
    row = one(b"Nov 25 08:35:42 vm cron[1]: m\n", 0, SyslogDecoder(year=2019))

    assert (row["@timestamp"], row["event.created"]) == (micros(2019, 11, 25, 8, 35, 42), None)


@pytest.mark.parametrize(
    ("line", "detail", "offset"),
    [
        (b"Nov 25 08:35:42 vm a: m", "the time has no year and its arrival is not known; set the option year", 0),
        (b"<13>Nov 25 08:35:42 vm a: m", "the time has no year and its arrival is not known; set the option year", 4),
        (b"<13>1 - vm a - - - m", "there is no time and its arrival is not known", 6),
        (b"<13>m", "there is no time and its arrival is not known", 4),
    ],
)
def test_a_time_that_cannot_be_known_is_a_problem(line: bytes, detail: str, offset: int) -> None:
    problem = refused(line, 0)

    assert (problem.code, problem.detail, problem.offset) == (ProblemCode.MALFORMED, detail, offset)


# sshd


@pytest.mark.parametrize(
    ("text", "action", "outcome", "user", "method", "reason"),
    [
        ("Accepted password for ann from 192.0.2.7 port 44 ssh2", "ssh-login", "success", "ann", "password", None),
        ("Accepted publickey for ann from 192.0.2.7 port 44 ssh2: ED25519 SHA256:a/b", "ssh-login", "success", "ann", "publickey", None),
        ("Failed password for root from 192.0.2.7 port 44 ssh2", "ssh-login", "failure", "root", "password", None),
        ("Failed none for invalid user x from 192.0.2.7 port 44 ssh2", "ssh-login", "failure", "x", "none", "invalid user"),
        ("Failed password for invalid user  from 192.0.2.7 port 44 ssh2", "ssh-login", "failure", "", "password", "invalid user"),
        ("Invalid user x y from 192.0.2.7 port 44", "ssh-invalid-user", "failure", "x y", None, "invalid user"),
        (
            "Connection closed by authenticating user ann 192.0.2.7 port 44 [preauth]",
            "ssh-disconnect", "failure", "ann", None, "Connection closed by authenticating user",
        ),
        (
            "Connection reset by invalid user x 192.0.2.7 port 44 [preauth]",
            "ssh-disconnect", "failure", "x", None, "Connection reset by invalid user",
        ),
        ("Disconnected from user ann 192.0.2.7 port 44", "ssh-disconnect", "success", "ann", None, None),
        (
            "error: maximum authentication attempts exceeded for invalid user x from 192.0.2.7 port 44 ssh2 [preauth]",
            "ssh-max-attempts", "failure", "x", None, "maximum authentication attempts exceeded",
        ),
        (
            "Disconnecting authenticating user ann 192.0.2.7 port 44: Too many authentication failures [preauth]",
            "ssh-disconnect", "failure", "ann", None, "Too many authentication failures",
        ),
    ],
)  # fmt: skip
def test_what_sshd_says_about_logins_is_class_auth(
    text: str, action: str, outcome: str, user: str, method: str | None, reason: str | None
) -> None:
    row = login(text)

    assert (row["event.action"], row["event.outcome"], row["user.name"]) == (action, outcome, user)
    assert (row["ringfence.auth.method"], row["event.reason"], row["message"]) == (method, reason, text)
    assert (row["source.ip"], row["source.port"]) == (parse("192.0.2.7"), 44)
    assert "ringfence.generic.type" not in row


@pytest.mark.parametrize("program", ["sshd", "sshd-session", "sshd-auth"])
def test_the_programs_of_openssh_are_known(program: str) -> None:
    assert login("Invalid user x from 192.0.2.7 port 44", program)["user.name"] == "x"


@pytest.mark.parametrize(
    ("address", "v4", "v6"),
    [
        ("2001:db8::7", None, parse("2001:db8::7")),
        ("::ffff:192.0.2.7", parse("192.0.2.7"), None),
        ("fe80::7%eth0", None, parse("fe80::7")),
        ("300.1.1.1", None, None),
    ],
)
def test_addresses_of_sshd_are_numbers(address: str, v4: int | None, v6: bytes | None) -> None:
    row = login(f"Accepted password for ann from {address} port 44 ssh2")

    assert (row["source.ip"], row["source.ip6"]) == (v4, v6)


@pytest.mark.parametrize(
    "name",
    ["x from 203.0.113.1 port 1 ssh2", "x from 203.0.113.1 port 1 ssh2: RSA SHA256:a", "x from 203.0.113.1 port 1"],
)
def test_an_address_in_a_user_name_is_not_taken_for_the_peers(name: str) -> None:
    row = login(f"Failed password for invalid user {name} from 192.0.2.7 port 44 ssh2")

    assert (row["user.name"], row["source.ip"], row["source.port"]) == (name, parse("192.0.2.7"), 44)


@pytest.mark.parametrize(
    "text",
    [
        "Server listening on 127.0.0.1 port 10022.",
        "Connection closed by 127.0.0.1 port 44642",
        "pam_unix(sshd:auth): check pass; user unknown",
        "Postponed publickey for ann from 127.0.0.1 port 44644 ssh2 [preauth]",
        "error: kex_exchange_identification: Connection closed by remote host",
        "Accepted key ED25519 SHA256:a found at /authorized_keys:1",
        "",
    ],
)
def test_what_else_sshd_says_is_generic(text: str) -> None:
    row = login(text)

    assert (row["ringfence.generic.type"], row["message"], row["process.name"]) == ("syslog", text, "sshd")


def test_another_program_that_talks_like_sshd_is_generic() -> None:
    assert login("Accepted password for ann from 192.0.2.7 port 44 ssh2", "notsshd")["ringfence.generic.type"] == "syslog"


def test_auth_and_generic_rows_of_one_block_keep_their_places() -> None:
    lines = [b"<38>Nov 25 08:35:42 vm cron: m\n", b"<38>Nov 25 08:35:42 vm sshd[1]: Invalid user x from 192.0.2.7 port 4\n"] * 2

    decoded = decode(lines)

    ends = {name: frame["ringfence.event.position"].to_list() for name, frame in decoded.rows.items()}
    first, second = len(lines[0]), len(lines[0]) + len(lines[1])
    assert ends == {EventClass.AUTH: [first, second + first], EventClass.GENERIC: [0, second]}


# What is refused


@pytest.mark.parametrize(
    ("line", "code", "detail", "offset"),
    [
        (b"\x00\x01binary", ProblemCode.MALFORMED, "neither a PRI nor a time", 0),
        (b"plain text", ProblemCode.MALFORMED, "neither a PRI nor a time", 0),
        (b"<192>Nov 25 08:35:42 h a: m", ProblemCode.MALFORMED, "PRI is not a number from 0 to 191 in angle brackets", 1),
        (b"<01>Nov 25 08:35:42 h a: m", ProblemCode.MALFORMED, "PRI is not a number from 0 to 191 in angle brackets", 1),
        (b"<>m", ProblemCode.MALFORMED, "PRI is not a number from 0 to 191 in angle brackets", 1),
        (b"<13>Nov 31 08:35:42 h a: m", ProblemCode.MALFORMED, "the time is no date of the calendar", 4),
        (b"<13>Foo 11 08:35:42 h a: m", ProblemCode.MALFORMED, "the time is no date of the calendar", 4),
        (b"<13>2026-11-31T08:35:42Z h a: m", ProblemCode.MALFORMED, "the time is no date of the calendar", 4),
        (b"<13>1 2026-11-25T08:35:60Z h a - - - m", ProblemCode.MALFORMED, "the time is no date of the calendar", 6),
        (b"<13>1 yesterday h a - - - m", ProblemCode.MALFORMED, "TIMESTAMP is not - or a time such as 2026-11-25T22:14:15.003Z", 6),
        (b"<13>1 - \xc3\xa4 a - - - m", ProblemCode.MALFORMED, "HOSTNAME is not 1 to 255 printable characters", 8),
        (b"<13>1 - h " + b"a" * 49 + b" - - - m", ProblemCode.MALFORMED, "APP-NAME is not 1 to 48 printable characters", 10),
        (b"<13>1 - h a", ProblemCode.MALFORMED, "APP-NAME is not 1 to 48 printable characters", 10),
        (b"<13>1 - h a - - nothing", ProblemCode.MALFORMED, 'STRUCTURED-DATA is not - or [id name="value" ...]', 16),
        (b'<13>1 - h a - - [a b="1"][c d="2] m', ProblemCode.MALFORMED, 'STRUCTURED-DATA is not - or [id name="value" ...]', 25),
        (b"<13>2 - h a - - - m", ProblemCode.UNKNOWN_VERSION, "syslog version is 2; accepted: 1", 4),
        (b"20 <13>1 yesterday - - - -", ProblemCode.TRUNCATED, "octet count is 20, but 23 octets follow", 0),
        (b"30 <13>cut", ProblemCode.TRUNCATED, "octet count is 30, but 7 octets follow", 0),
        (b"15 <13>1 yesterday", ProblemCode.MALFORMED, "TIMESTAMP is not - or a time such as 2026-11-25T22:14:15.003Z", 9),
    ],
)  # fmt: skip
def test_what_is_no_message_is_a_problem_with_its_place(line: bytes, code: ProblemCode, detail: str, offset: int) -> None:
    problem = refused(line)

    expected = ProblemCode.BAD_LENGTH if line.startswith(b"20 ") else code
    assert (problem.code, problem.detail, problem.offset) == (expected, detail, offset)


def test_good_lines_before_and_after_a_bad_one_are_kept() -> None:
    decoded = decode(
        [b"<13>Nov 25 08:35:42 h a: one\n", b"junk\n", b"\n", b"  \r\n", b"<13>Nov 31 08:35:42 h a: x\n", b"<13>a: two\n"]
    )

    assert [row["message"] for row in rows(decoded)] == ["one", "two"]
    assert [(problem.row, problem.position) for problem in decoded.problems] == [(1, 29), (4, 39)]
    assert dict(decoded.filtered) == {"blank": 2}


def test_an_over_long_line_is_one_problem_and_none_of_it_is_a_record() -> None:
    forged = b"<13>Nov 25 08:35:42 h a: forged\n"
    head = b"<13>Nov 25 08:35:42 h a: "
    line = head + b"x" * (MAX_FRAME_BYTES + 1 - len(head)) + forged[:-1] + b"y" * 3 * MAX_FRAME_BYTES + b"\n"
    framer, decoder = LineFramer(), SyslogDecoder()
    decoded = []
    for start in range(0, len(line), 100_000):
        data, bounds = framer.cut((line + forged)[start : start + 100_000])
        decoded.append(decode([data[a:b] for a, b in pairwise(bounds)], ARRIVAL, decoder))
    data, _ = framer.cut((line + forged)[len(decoded) * 100_000 :])
    decoded.append(decode([data] if data else [], ARRIVAL, decoder))

    (problem,) = [problem for block in decoded for problem in block.problems]
    assert (problem.code, problem.offset) == (ProblemCode.TOO_LARGE, MAX_FRAME_BYTES)
    assert [row["message"] for block in decoded for row in rows(block)] == ["forged"]
    assert sum(block.filtered.get("too_large_rest", 0) for block in decoded) == 3


# Text and bytes


def test_octets_that_are_not_utf_8_are_replaced_in_the_message_and_kept_in_the_original() -> None:
    row = one(b"<13>Nov 25 08:35:42 h a: caf\xe9 \x00\x1b[31m \xc3\xa9\r\n")

    assert row["message"] == "caf\ufffd \x00\x1b[31m \u00e9"
    assert row["event.original"] == b"<13>Nov 25 08:35:42 h a: caf\xe9 \x00\x1b[31m \xc3\xa9"


def test_the_original_has_no_octet_count_and_can_be_left_out() -> None:
    assert "event.original" not in one(b"<13>a: m", decoder=SyslogDecoder(keep_original=False))
    assert one(b"8 <13>a: m")["event.original"] == b"<13>a: m"


def test_the_observer_can_be_named() -> None:
    assert one(b"<13>a: m", decoder=SyslogDecoder(observer="loghost"))["observer.name"] == "loghost"


@given(st.lists(st.binary(max_size=80), max_size=8), st.sampled_from([0, ARRIVAL]))
def test_any_bytes_are_accounted_for(lines: list[bytes], received_us: int) -> None:
    decoded = decode(lines, received_us)

    assert accounted(decoded) == len(lines)
    assert decoded.taken == sum(frame.height for frame in decoded.rows.values())


_TOKENS = [
    "<13>", "<13>1 ", "<999>", "Nov 25 08:35:42 ", "Feb 30 08:35:42 ", "2026-11-25T08:35:42Z ", "0000-00-00T99:00:00Z ", "- ",
    "host ", "sshd[1]: ", "sshd - - - ", "[a b=\"c\\]\"] ", "[", "Failed password for ", "invalid user ", " from ", "1.2.3.4 ", "port 1",
    " ssh2", "12 ", ":", " ", "\n", "\x00", "\u00e9", "\ufeff", "9999-12-31T23:59:59-23:59 ", "0001-01-01T00:00:00+23:59 ",
]  # fmt: skip


@given(st.lists(st.lists(st.sampled_from(_TOKENS), max_size=14).map("".join), max_size=6), st.sampled_from([0, ARRIVAL]))
def test_anything_that_looks_like_syslog_is_accounted_for(texts: list[str], received_us: int) -> None:
    lines = [text.encode() for text in texts]

    together, apart = decode(lines, received_us), [decode([line], received_us) for line in lines]

    assert accounted(together) == len(lines)
    assert [row["message"] for row in rows(together)] == [row["message"] for block in apart for row in rows(block)]
    assert [row["@timestamp"] for row in rows(together)] == [row["@timestamp"] for block in apart for row in rows(block)]
    assert [(p.code, p.detail, p.offset) for p in together.problems] == [
        (p.code, p.detail, p.offset) for block in apart for p in block.problems
    ]


# Encode, then decode

_NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='=]"'), min_size=1, max_size=32)
_HEADER_TEXT = st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=32).filter(
    lambda text: text != "-"
)
_MESSAGES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).filter(
    lambda text: text == text.strip(" \r\n") and not text.startswith("\ufeff")
)
_TIMES = st.integers(0, 250_000_000_000).map(lambda secs: EPOCH + timedelta(seconds=secs, microseconds=secs % 1_000_003))
_DATA = st.dictionaries(
    _NAMES, st.dictionaries(_NAMES, st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=3), max_size=3
)


def encode_5424(pri: int, time: datetime, header: Sequence[str | None], data: dict[str, dict[str, str]], message: str) -> bytes:
    """RFC 5424 section 6."""

    def escaped(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")

    elements = [
        "".join([f"[{name}", *(f' {key}="{escaped(value)}"' for key, value in params.items()), "]"])
        for name, params in data.items()
    ]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    fields = " ".join(text or "-" for text in header)
    return f"<{pri}>1 {stamp} {fields} {''.join(elements) or '-'} {message}".encode()


def encode_3164(pri: int, time: datetime, host: str, tag: str, pid: int | None, message: str) -> bytes:
    """RFC 3164 section 4.1."""
    process = "" if pid is None else f"[{pid}]"
    stamp = f"{calendar.month_abbr[time.month]} {time.day:2} {time:%H:%M:%S}"
    return f"<{pri}>{stamp} {host} {tag}{process}: {message}".encode()


@given(st.integers(0, 191), _TIMES, st.tuples(*[_HEADER_TEXT] * 4), _DATA, _MESSAGES)
def test_decoding_gives_back_what_was_encoded_as_rfc_5424(
    pri: int, time: datetime, header: tuple[str | None, ...], data: dict[str, dict[str, str]], message: str
) -> None:
    row = one(encode_5424(pri, time, header, data, message))

    names = ("host.hostname", "log.syslog.appname", "log.syslog.procid", "log.syslog.msgid")
    assert tuple(row[name] for name in names) == header
    assert row["log.syslog.facility.code"] * 8 + row["log.syslog.severity.code"] == pri
    assert row["@timestamp"] == (time - EPOCH) // timedelta(microseconds=1)
    assert (json.loads(row["ringfence.syslog.structured_data"]) if data else {}) == data
    assert row["message"] == message


_WORDS = st.text("abcXYZ019._-", min_size=1, max_size=20).filter(lambda text: text != "-")


@given(st.integers(0, 191), st.integers(0, 363 * 86_400), _WORDS, _WORDS, st.none() | st.integers(0, 1 << 22), _MESSAGES)
def test_decoding_gives_back_what_was_encoded_as_rfc_3164(
    pri: int, age_secs: int, host: str, tag: str, pid: int | None, message: str
) -> None:
    time = datetime(2026, 11, 25, 12, tzinfo=UTC) - timedelta(seconds=age_secs)

    row = one(encode_3164(pri, time, host, tag, pid, message))

    assert row["@timestamp"] == (time - EPOCH) // timedelta(microseconds=1)
    assert (row["host.hostname"], row["log.syslog.appname"], row["process.pid"]) == (host, tag, pid)
    assert row["message"] == message
