"""Zeek logs in both formats: names, times, states of connections, headers that change, and what is refused and where."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.tail import TailShell
from collectors.zeek import (
    CHUNK_LINES,
    KIND,
    LOGS,
    MARKERS,
    OTHER,
    RUN_LINES,
    ZeekJsonDecoder,
    ZeekTsvDecoder,
    ZeekTsvFramer,
    _log_of,
    _rows_by_log,
)
from ringfence import registry
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext, Decoder
from ringfence.errors import EndOfInput
from ringfence.topology import EMPTY
from tests import frames
from tests.cli.command import ringfence
from tests.collectors.json_lines import check_accounts
from tests.eve_lines import topology_file

SOURCE = Source("conn.log", 0xFEED)
AT, AT_US = 1_795_592_663.123456, 1_795_592_663_123_456
IDS = {"id.orig_h": "10.1.0.5", "id.orig_p": 50_000, "id.resp_h": "10.2.0.9", "id.resp_p": 22}
ENDS = {
    "source.ip": frames.v4("10.1.0.5"),
    "source.port": 50_000,
    "destination.ip": frames.v4("10.2.0.9"),
    "destination.port": 22,
}
CONN: dict[str, Any] = {"ts": AT, "uid": "C1", **IDS, "proto": "tcp", "conn_state": "SF", "orig_pkts": 5, "resp_pkts": 4}
FIELDS = list(CONN)
HEADER = (
    "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n#fields\t"
    + "\t".join(FIELDS)
    + "\n"
).encode()


def line(record: dict[str, Any] | None = None, **more: Any) -> bytes:
    return json.dumps({**(CONN if record is None else record), **more}, separators=(",", ":")).encode() + b"\n"


def tsv(**more: Any) -> bytes:
    return ("\t".join(str({**CONN, "ts": f"{AT:.6f}", **more}[name]) for name in FIELDS) + "\n").encode()


def decode(*lines: bytes, decoder: Decoder | None = None) -> Decoded:
    return (decoder or ZeekJsonDecoder()).feed(frames_of(lines, SOURCE))


def rows(*lines: bytes, decoder: Decoder | None = None) -> list[dict[str, Any]]:
    """All rows without what is null, in stream order."""
    found = [row for frame in decode(*lines, decoder=decoder).rows.values() for row in frame.to_dicts()]
    found.sort(key=lambda row: int(row["ringfence.event.position"]))
    return [{name: value for name, value in row.items() if value is not None} for row in found]


def one(**more: Any) -> dict[str, Any]:
    (row,) = rows(line(**more))
    return row


def header_and(*lines: bytes) -> list[dict[str, Any]]:
    return rows(*HEADER.splitlines(keepends=True), *lines, decoder=ZeekTsvDecoder())


NESTED = {name: value for name, value in CONN.items() if not name.startswith("id.")} | {
    "id": {name.removeprefix("id."): value for name, value in IDS.items()}
}
DIALECTS = {"dotted": CONN, "underscores": {name.replace(".", "_"): value for name, value in CONN.items()}, "nested": NESTED}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_ends_are_found_in_each_dialect(dialect: str) -> None:
    (row,) = rows(line(DIALECTS[dialect]))

    assert {name: row[name] for name in ENDS} == ENDS


def test_dialects_may_change_from_line_to_line() -> None:
    found = rows(*map(line, DIALECTS.values()), *map(line, DIALECTS.values()))

    assert [row["destination.port"] for row in found] == [22] * 6


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_bad_port_is_named_with_its_byte_in_each_dialect(dialect: str) -> None:
    bad = line(DIALECTS[dialect]).replace(b":50000", b":70000")

    (problem,) = decode(bad).problems

    assert (problem.code, problem.path, bad[problem.offset :][:5]) == (ProblemCode.WRONG_TYPE, "$.id.orig_p", b"70000")


@pytest.mark.parametrize(
    ("given_time", "expected"),
    [
        (AT, AT_US),
        (1_795_592_663, 1_795_592_663_000_000),
        (1_795_592_663_123, 1_795_592_663_123_000),
        ("2026-11-25T07:44:23.123456Z", AT_US),
        ("2026-11-25T08:44:23.123456+01:00", AT_US),
        (0.0, 0),
    ],
)
def test_a_time_is_seconds_milliseconds_or_iso(given_time: object, expected: int) -> None:
    assert one(ts=given_time)["@timestamp"] == expected


def test_times_of_all_kinds_may_stand_side_by_side() -> None:
    found = rows(*(line(ts=ts) for ts in (AT, "2026-11-25T07:44:23.123456Z", 1_795_592_663_123, "never", AT)))

    assert [row["@timestamp"] for row in found] == [AT_US, AT_US, 1_795_592_663_123_000, AT_US]


@pytest.mark.parametrize("bad", [None, -1, 1e300, "yesterday", "", "1795592663.1"])
def test_a_line_without_a_time_is_refused(bad: object) -> None:
    (problem,) = decode(line(ts=bad)).problems

    assert (problem.code, problem.path, problem.offset) == (ProblemCode.WRONG_TYPE, "$.ts", 6)


def test_a_connection_ends_after_its_duration() -> None:
    row = one(duration=1.5)

    assert (row["event.start"], row["event.end"]) == (AT_US, AT_US + 1_500_000)


@pytest.mark.parametrize("log", LOGS)
def test_a_log_has_its_class_by_its_path(log: str) -> None:
    assert list(decode(line({"_path": log, "ts": AT})).rows) == [LOGS[log]]


@pytest.mark.parametrize("marker", MARKERS)
def test_a_log_has_its_class_by_its_fields(marker: str) -> None:
    log = MARKERS[marker]
    text = f'{{"ts":{AT},"{marker}":null}}'.encode()

    assert list(decode(text).rows) == [LOGS.get(log, EventClass.GENERIC)]


def test_every_known_log_is_found_by_its_fields() -> None:
    assert set(LOGS) <= set(MARKERS.values())


@pytest.mark.parametrize("log", ["kerberos", "ntlm", "smb_files", "dce_rpc", "rdp", "h\u00f6"])
def test_an_unknown_log_is_a_generic_row_with_its_line(log: str) -> None:
    text = line({"_path": log, "ts": AT, **IDS})
    (row,) = rows(text, decoder=ZeekJsonDecoder(keep_original=False))

    assert {name: row.get(name) for name in ENDS} == ENDS
    assert (row["ringfence.generic.type"], row["event.original"]) == (log, text.rstrip())


def test_an_id_that_is_a_text_costs_nothing() -> None:
    assert len(rows(line({"_path": "pe", "ts": AT, "id": "F1"}), line({"_path": "rdp", **NESTED}))) == 2


@pytest.mark.parametrize("more", [{"vlan": 5000}, {"proto": "quux"}, {"vlan": -1, "inner_vlan": 9999}])
def test_an_odd_value_costs_that_field_only(more: dict[str, Any]) -> None:
    assert {name: one(**more)[name] for name in ENDS} == ENDS


FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@pytest.mark.parametrize(
    ("history", "source", "destination"),
    [
        ("S", SYN, 0),
        ("SD", SYN | PSH, 0),
        ("ShADadFf", SYN | ACK | PSH | FIN, SYN | ACK | PSH | FIN),
        ("Sr", SYN, RST),
        ("DadA", PSH | ACK, PSH | ACK),
        ("^hR", RST, SYN | ACK),
        ("CcGgWwIi!\u00f6", 0, 0),
    ],
)
def test_a_history_gives_the_flags_of_both_ends(history: str, source: int, destination: int) -> None:
    row = one(history=history)

    assert (row["ringfence.tcp.source_flags"], row["ringfence.tcp.destination_flags"]) == (source, destination)


def test_only_tcp_has_flags() -> None:
    assert "ringfence.tcp.source_flags" not in one(proto="udp", history="Dd")


OUTCOMES: dict[str, tuple[str | None, int, int, str]] = {
    "S0": ("S", 3, 0, "unknown"),
    "S0 with data in the SYN": ("SD", 3, 0, "unknown"),
    "S0 seen one way": ("SAD", 5, 0, "passed"),
    "REJ": ("Sr", 1, 1, "unknown"),
    "RSTOS0": ("SR", 2, 0, "unknown"),
    "SH": ("SF", 2, 0, "unknown"),
    "RSTRH": ("^hr", 0, 2, "passed"),
    "SHR": ("^hf", 0, 2, "passed"),
    "S1": ("ShADad", 5, 4, "passed"),
    "SF": ("ShADadFf", 5, 4, "passed"),
    "S2": ("ShADadF", 5, 4, "passed"),
    "S3": ("ShADadf", 5, 4, "passed"),
    "RSTO": ("ShR", 2, 1, "passed"),
    "RSTR": ("ShADadr", 5, 4, "passed"),
    "OTH": ("DadA", 5, 4, "passed"),
}


def test_the_states_of_connections_are_judged_end_to_end(tmp_path: Path) -> None:
    log = tmp_path / "conn.log"
    with_history = [
        line(conn_state=state.split()[0], history=h, orig_pkts=o, resp_pkts=r) for state, (h, o, r, _) in OUTCOMES.items()
    ]
    bare = [line(conn_state=state, orig_pkts=o, resp_pkts=r) for state, (_, o, r, _) in OUTCOMES.items() if " " not in state]
    log.write_bytes(b"".join(with_history + bare))

    outcome = ringfence("replay", log, "--topology", topology_file(tmp_path), "--out", tmp_path / "out")

    tests = [
        json.loads(text)["ringfence"]["boundary"]["outcome"]
        for text in (tmp_path / "out" / "boundary.jsonl").read_text().splitlines()
    ]
    assert outcome.code == 0, outcome.err
    assert tests == [word for *_, word in OUTCOMES.values()] + [
        word for state, (*_, word) in OUTCOMES.items() if " " not in state
    ]


def test_icmp_has_type_and_code_where_ports_stand() -> None:
    row = one(proto="icmp", **{"id.orig_p": 8, "id.resp_p": 0})

    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"], "source.port" in row) == (8, 0, False)


def test_icmp_over_ipv6_is_icmpv6() -> None:
    found = rows(line({**CONN, "id.orig_h": "2001:db8::1", "id.resp_h": "2001:db8::2"}, proto="icmp"), line(proto="icmp"))

    assert [row["network.iana_number"] for row in found] == [58, 1]


def test_a_file_that_the_responder_sent_has_the_originator_as_source() -> None:
    record = {"_path": "files", "ts": AT, "tx_hosts": ["10.2.0.9"], "rx_hosts": ["10.1.0.5"], "conn_uids": ["C1", "C2"]}
    found = rows(line(record, is_orig=False), line(record, is_orig=True), line({**record, **IDS, "uid": "C3"}))

    assert [row["source.ip"] for row in found] == [frames.v4(text) for text in ("10.1.0.5", "10.2.0.9", "10.1.0.5")]
    assert [row["ringfence.flow.id"] for row in found] == ["C1", "C1", "C3"]


def test_the_configured_observer_stands_in_for_a_missing_name() -> None:
    found = rows(line(_system_name="z1"), line(), decoder=ZeekJsonDecoder("tap"))

    assert [row["observer.name"] for row in found] == ["z1", "tap"]


def test_a_tab_separated_line_means_the_same_as_a_json_line() -> None:
    (as_json,), (as_tsv,) = rows(line()), header_and(tsv())
    for row in (as_json, as_tsv):
        del row["event.original"], row["ringfence.event.position"]

    assert as_tsv == as_json


def test_unset_and_empty_fields_are_told_apart() -> None:
    head = b"#fields\tts\tquery\n", b"#path\tdns\n"
    found = rows(*head, b"1.5\t-\n", b"1.5\t(empty)\n", b"1.5\t\\x2d\n", decoder=ZeekTsvDecoder())

    assert [row.get("dns.question.name") for row in found] == [None, "", "-"]


def test_a_header_counts_until_the_next_one() -> None:
    second = b"#separator \\x7c\n", b"#path|http\n", b"#fields|ts|host\n"
    found = rows(*HEADER.splitlines(keepends=True), tsv(), *second, b"2.5|intra\n", decoder=ZeekTsvDecoder())

    assert [row.get("url.domain") for row in found] == [None, "intra"]


def test_a_frame_of_two_lines_is_one_record() -> None:
    decoded = decode(*HEADER.splitlines(keepends=True), tsv() + tsv(), tsv(), decoder=ZeekTsvDecoder())

    assert decoded.taken == 1
    assert [(problem.row, problem.code) for problem in decoded.problems] == [(6, ProblemCode.BAD_LENGTH)]


def test_each_stream_has_its_own_header() -> None:
    decoder = ZeekTsvDecoder()
    decoder.feed(frames_of(HEADER.splitlines(keepends=True), SOURCE))

    other = decoder.feed(frames_of([tsv()], Source("other.log", 1)))

    assert [problem.detail for problem in other.problems] == ["no #fields line came before it"]


def test_the_framer_keeps_the_header_in_force() -> None:
    framer = ZeekTsvFramer()
    second = b"#separator \\x09\n#path\thttp\n#fields\tts\n"

    framer.cut(HEADER + b"#types\ttime\n#open\tx\n" + tsv())
    first = framer.head
    framer.cut(second + b"1.5\n#close\tx\n")

    assert (first, framer.head) == (HEADER, second)


@pytest.mark.parametrize("chunk_bytes", [300, 1 << 20])
def test_reading_goes_on_in_the_middle_of_a_file_under_the_header_in_force(tmp_path: Path, chunk_bytes: int) -> None:
    path = tmp_path / "conn.log"
    lines = [tsv(uid=f"C{number}") for number in range(20)]
    swapped = b"#separator \\x7c\n#path|conn\n#fields|uid|ts\n"
    path.write_bytes(HEADER + b"".join(lines) + swapped + b"".join(b"D%d|1.5\n" % number for number in range(40)))

    async def story() -> list[str]:
        position, uids = b"", []
        while True:
            shell, decoder = TailShell(path, ZeekTsvFramer, False, chunk_bytes), ZeekTsvDecoder()
            await shell.open(position)
            try:
                for _ in range(2 if position else 1):  # a head that is given again, and what follows it
                    delivery = await shell.read()
                    position = delivery.position
                    decoded = decoder.feed(delivery.frames)
                    assert not decoded.problems
                    uids += [uid for frame in decoded.rows.values() for uid in frame["ringfence.flow.id"]]
            except EndOfInput:
                return uids
            finally:
                await shell.close()

    assert asyncio.run(story()) == [f"C{number}" for number in range(20)] + [f"D{number}" for number in range(40)]


# properties
VALUE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=6),
    st.lists(st.text(max_size=3), max_size=2),
)
NAMES = st.sampled_from(
    [*CONN, *MARKERS, "id", "id_orig_h", "_path", "duration", "history", "vlan", "tx_hosts", "is_orig", "x"]
)
RECORD = st.one_of(
    st.dictionaries(NAMES, VALUE, max_size=8),
    st.fixed_dictionaries({}, optional={"history": st.text(max_size=5), "vlan": st.integers(-5, 5000), "duration": st.floats(-1, 1e12), "orig_bytes": st.integers(-1, 2**64), "ts": VALUE, "id.orig_h": st.sampled_from(["::1", "10.1", "", "10.1.0.1"])}).map(lambda more: {**CONN, **more}),
)  # fmt: skip
JSON_LINES = st.lists(
    st.one_of(st.binary(max_size=30), RECORD.map(lambda record: json.dumps(record).encode()), st.sampled_from([b"", b"\n", line(), line(NESTED), line()[:-9], line({"_path": "dns", "ts": 1})])),
    max_size=6,
)  # fmt: skip
TSV_LINES = st.lists(
    st.one_of(
        st.binary(max_size=30).map(lambda data: data.replace(b"\n", b"")),
        st.sampled_from([b"", *HEADER.splitlines(), tsv().strip(), b"#separator \\x7c", b"#fields\tts\tuid", b"#fields|ts|uid", b"#path\tdns", b"#path|files", b"#unset_field\t", b"1.5\tC1", b"1.5|C1", b"#close"]),
        st.fixed_dictionaries({}, optional={name: st.sampled_from(["-", "x", "(empty)", "5", "1.5", "\\x2d", "10.1.0.1", "-1"]) for name in CONN}).map(lambda more: tsv(**more).strip()),
    ),
    max_size=16,
)  # fmt: skip
BOTH = [pytest.param(ZeekJsonDecoder, JSON_LINES, id="json"), pytest.param(ZeekTsvDecoder, TSV_LINES, id="tsv")]


@pytest.mark.parametrize(("kind", "strategy"), BOTH)
@given(data=st.data())
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(
    kind: Callable[[], Decoder], strategy: st.SearchStrategy[list[bytes]], data: st.DataObject
) -> None:
    lines = data.draw(strategy)

    check_accounts(decode(*lines, decoder=kind()), lines)


def in_pieces(decoder: Decoder, lines: Sequence[bytes], size: int) -> tuple[list[dict[str, Any]], list[tuple[str, int]]]:
    """What one decoder makes of the lines, some at a time."""
    found: list[dict[str, Any]] = []
    problems: list[tuple[str, int]] = []
    for start in range(0, len(lines), size):
        decoded = decoder.feed(frames_of(lines[start : start + size], SOURCE, 0, range(start, min(start + size, len(lines)))))
        found += [row for frame in decoded.rows.values() for row in frame.to_dicts()]
        problems += [(problem.detail, problem.position) for problem in decoded.problems]
    found.sort(key=lambda row: int(row["ringfence.event.position"]))
    return [{name: value for name, value in row.items() if value is not None} for row in found], problems


@pytest.mark.parametrize(("kind", "strategy"), BOTH)
@given(data=st.data(), size=st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(
    kind: Callable[[], Decoder], strategy: st.SearchStrategy[list[bytes]], data: st.DataObject, size: int
) -> None:
    lines = data.draw(strategy)

    assert in_pieces(kind(), lines, size) == in_pieces(kind(), lines, len(lines) or 1)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
CONNECTIONS = st.fixed_dictionaries({
    "ts": st.integers(0, 4_000_000_000_000_000), "uid": TEXTS, "id.orig_h": st.ip_addresses(v=4).map(str), "id.orig_p": st.integers(0, 65_535),
    "id.resp_h": st.integers(2**120, 2**128 - 1).map(lambda number: str(ipaddress.IPv6Address(number))), "id.resp_p": st.integers(0, 65_535), "orig_pkts": st.integers(0, 2**63 - 1),
})  # fmt: skip


def expected(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "@timestamp": record["ts"], "ringfence.flow.id": record["uid"], "source.ip": frames.v4(record["id.orig_h"]), "source.port": record["id.orig_p"],
        "destination.ip6": frames.v6(record["id.resp_h"]), "destination.port": record["id.resp_p"], "source.packets": record["orig_pkts"],
    }  # fmt: skip


@given(st.lists(CONNECTIONS, max_size=5), st.sampled_from([".", "_"]))
def test_what_is_encoded_as_json_is_decoded_again(records: list[dict[str, Any]], dot: str) -> None:
    lines = [
        line({"_path": "conn", **{k.replace("id.", f"id{dot}"): v for k, v in r.items()}, "ts": r["ts"] / 1e6}) for r in records
    ]

    assert [{name: row[name] for name in expected(record)} for row, record in zip(rows(*lines), records, strict=True)] == [
        *map(expected, records)
    ]


def escaped(text: str) -> str:
    """As Zeek's TSV writer does: what would be read as something else, byte by byte."""
    if text in ("", "(empty)", "-"):
        return "(empty)" if not text else "".join(f"\\x{byte:02x}" for byte in text.encode())
    return "".join(char if char.isalnum() else "".join(f"\\x{byte:02x}" for byte in char.encode()) for char in text)


@given(st.lists(CONNECTIONS, max_size=5), st.sampled_from(["\t", "|"]))
def test_what_is_encoded_as_tsv_is_decoded_again(records: list[dict[str, Any]], separator: str) -> None:
    names = sorted(CONN.keys() - {"proto", "conn_state", "resp_pkts"})
    head = [f"#separator \\x{ord(separator):02x}", f"#path{separator}conn", separator.join(["#fields", *names])]
    cells = [{**record, "uid": escaped(record["uid"]), "ts": f"{record['ts'] / 1e6:.6f}"} for record in records]
    body = [separator.join(str(cell[name]) for name in names) for cell in cells]

    found = rows(*(text.encode() + b"\n" for text in [*head, *body]), decoder=ZeekTsvDecoder())

    assert [{name: row[name] for name in expected(record)} for row, record in zip(found, records, strict=True)] == [
        *map(expected, records)
    ]


@pytest.mark.parametrize(
    ("first", "format_name"),
    [(line(), "zeek-json"), (b"\n" + line({"_path": "x", "ts": 1}), "zeek-json"), (HEADER, "zeek-tsv"), (b'{"ts":1}', None), (b'{"ts":1,"event_type":"flow","timestamp":""}', "eve"), (b"", None)],
)  # fmt: skip
def test_a_log_is_recognised_by_its_first_bytes(first: bytes, format_name: str | None) -> None:
    found = registry.recognise(first)

    assert (found.name if found else None) == format_name


@pytest.mark.parametrize("format_name", ["json", "tsv"])
def test_the_entry_point_builds_the_collector_and_claims_its_file(format_name: str) -> None:
    settings = KIND.settings.model_validate({"path": "/logs/conn.log", "format": format_name, "original": "drop"})

    assert KIND.build(settings, BuildContext("zeek", EMPTY)).module == "zeek"
    assert list(KIND.resources(settings)) == ["file /logs/conn.log"]


def test_names_of_unknown_logs_share_one_plan() -> None:
    assert OTHER not in LOGS
    assert decode(*(line({"_path": f"log{number}", "ts": 1}) for number in range(600))).rows[EventClass.GENERIC].height == 600


PIECES = [
    b'"_path":"conn"',
    b'"_path" : "dns"',
    b'"_path":5',
    b'"_path":"pe"',
    *(f'"{key}":1'.encode() for key in MARKERS),
    b'"x":1',
    b"",
]


@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=3), max_size=12))
def test_the_logs_of_many_lines_are_told_at_once_as_one_by_one(lines: list[list[bytes]]) -> None:
    texts = [b"{" + b",".join(pieces) + b"}" if pieces else b"" for pieces in lines]
    found = list(_rows_by_log(pl.Series(texts, dtype=pl.Binary), texts))

    assert [(log, list(rows)) for log, rows in found] == list(_one_by_one(texts).items())


def _one_by_one(texts: Sequence[bytes]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(_log_of(text), []).append(row)
    return groups


def test_a_key_that_is_written_with_escapes_is_read() -> None:
    plain, escaped = line(), line().replace(b'"id.orig_h"', b'"\\u0069d_orig_h"')

    assert escaped != plain
    assert [row["source.ip"] for row in rows(escaped)] == [row["source.ip"] for row in rows(plain)]


def test_a_block_of_more_lines_than_are_read_at_once_keeps_their_order() -> None:
    count = RUN_LINES + CHUNK_LINES + 3
    ports = [1024 + number % 60_000 for number in range(count)]
    more: list[dict[str, Any]] = [{"id.orig_p": port} for port in ports]

    assert [row["source.port"] for row in rows(*(line(**each) for each in more))] == ports
    tab_separated = header_and(*(tsv(**each) for each in more))
    assert [row["source.port"] for row in tab_separated] == ports
