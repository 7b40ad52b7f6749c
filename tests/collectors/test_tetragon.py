"""Tetragon: processes, sockets and files of its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.tetragon import KIND, TetragonDecoder
from ringfence import registry
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.json_lines import check_accounts, check_parts, damaged_lines, decode, one, rows

SAMPLES = (Path(__file__).parent / "cases" / "tetragon" / "events" / "input.json").read_bytes().splitlines(keepends=True)
TIME, TIME_US = "2026-11-25T07:44:23.123456789Z", 1_795_592_663_123_456


def line(record: Any) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def event(kind: str, **members: Any) -> bytes:
    return line({kind: {"process": {"exec_id": "a", "pid": 7, "binary": "/bin/ls"}, **members}, "time": TIME})


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.text(max_size=20))
def test_what_is_encoded_is_decoded_again(pid: int, uid: int, arguments: str) -> None:
    row = one(
        TetragonDecoder(),
        line({"process_exec": {"process": {"pid": pid, "uid": uid, "binary": "/bin/x", "arguments": arguments}}, "time": TIME}),
    )

    assert (row["@timestamp"], row["process.pid"], row["user.id"]) == (TIME_US, pid, str(uid))
    assert row["process.command_line"] == f"/bin/x {arguments}".removesuffix(" " if not arguments else "")


def test_a_tcp_connect_is_an_attempt_of_its_source() -> None:
    sock = {"protocol": "IPPROTO_TCP", "saddr": "10.1.0.5", "daddr": "10.2.0.9", "sport": 40000, "dport": 443}
    row = one(TetragonDecoder(), event("process_kprobe", function_name="tcp_connect", args=[{"sock_arg": sock}]))

    assert (row["source.ip"], row["destination.ip"], row["destination.port"]) == (
        frames.v4("10.1.0.5"),
        frames.v4("10.2.0.9"),
        443,
    )
    assert (row["ringfence.tcp.source_flags"], row["network.iana_number"], row["ringfence.flow.direction"]) == (2, 6, "egress")


@pytest.mark.parametrize(
    ("argument", "event_class"),
    [
        ({"file_arg": {"path": "/etc/x"}}, "file"),
        ({"path_arg": {"path": "/etc/x"}}, "file"),
        ({"skb_arg": {"daddr": "10.2.0.9"}}, "flow"),
        ({"int_arg": 3}, "generic"),
    ],
)
def test_the_arguments_decide_the_class(argument: dict[str, Any], event_class: str) -> None:
    (row,) = rows(decode(TetragonDecoder(), event("process_lsm", function_name="f", args=[argument])))

    assert row["class"] == event_class


def test_members_that_are_zero_may_be_left_out() -> None:
    assert one(TetragonDecoder(), event("process_exit"))["process.exit_code"] == 0


LINES = damaged_lines(
    SAMPLES,
    [
        "process_exec",
        "process_exit",
        "process_kprobe",
        "process",
        "parent",
        "pid",
        "args",
        "sock_arg",
        "daddr",
        "time",
        "pod",
        "x",
    ],
)


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(TetragonDecoder(), *lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    check_parts(TetragonDecoder, lines, size)


def test_it_is_recognised_by_its_first_bytes() -> None:
    found = [registry.recognise(data) for data in (SAMPLES[0], b"\n" + SAMPLES[1], b'{"a":1}')]

    assert [entry and entry.name for entry in found] == ["tetragon", "tetragon", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/events.log"})

    assert KIND.build(settings, BuildContext("one", EMPTY)).module == "tetragon"
    assert list(KIND.resources(settings)) == ["file /logs/events.log"]
