"""Kunai: processes, connections, names and files of its events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.kunai import KIND, KunaiDecoder
from ringfence import registry
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.json_lines import check_accounts, check_parts, damaged_lines, decode, one, rows

SAMPLES = (Path(__file__).parent / "cases" / "kunai" / "events" / "input.json").read_bytes().splitlines(keepends=True)
TIME, TIME_US = "2026-11-25T07:44:23.123456789Z", 1_795_592_663_123_456


def line(record: Any) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def event(name: str, **data: Any) -> bytes:
    return line({"data": data, "info": {"event": {"name": name}, "task": {"tgid": 7, "guuid": "g"}, "utc_time": TIME}})


@given(st.integers(0, 2**31 - 1), st.text(max_size=20))
def test_what_is_encoded_is_decoded_again(pid: int, text: str) -> None:
    task = {"tgid": pid, "uid": 5, "user": text}
    row = one(
        KunaiDecoder(),
        line({"data": {"command_line": text}, "info": {"event": {"name": "execve"}, "task": task, "utc_time": TIME}}),
    )

    assert (row["@timestamp"], row["process.pid"], row["process.command_line"]) == (TIME_US, pid, text)
    assert row.get("user.name") == (None if text == "?" else text)


@pytest.mark.parametrize(("connected", "flags"), [(True, (0x12, 0x12)), (False, (2, None))])
def test_a_connect_that_succeeded_was_answered(connected: bool, flags: tuple[int, int | None]) -> None:
    ends = {"src": {"ip": "10.1.0.5", "port": 40000}, "dst": {"ip": "10.2.0.9", "port": 443}}
    row = one(KunaiDecoder(), event("connect", socket={"proto": "TCP"}, connected=connected, **ends))

    assert (row["ringfence.tcp.source_flags"], row.get("ringfence.tcp.destination_flags")) == flags
    assert (row["source.ip"], row["destination.ip"]) == (frames.v4("10.1.0.5"), frames.v4("10.2.0.9"))


@pytest.mark.parametrize(("response", "code"), [("10.2.0.9", "NOERROR"), ("", None)])
def test_only_addresses_show_that_a_query_was_answered(response: str, code: str | None) -> None:
    assert one(KunaiDecoder(), event("dns_query", query="a.example", response=response)).get("dns.response_code") == code


@pytest.mark.parametrize(
    ("name", "event_class"), [("clone", "process"), ("write_close", "file"), ("send_data", "flow"), ("loss", "generic")]
)
def test_the_name_decides_the_class(name: str, event_class: str) -> None:
    (row,) = rows(decode(KunaiDecoder(), event(name)))

    assert row["class"] == event_class


LINES = damaged_lines(
    SAMPLES, ["data", "info", "event", "name", "utc_time", "task", "host", "container", "src", "dst", "ip", "port", "x"]
)


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(KunaiDecoder(), *lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    check_parts(KunaiDecoder, lines, size)


def test_it_is_recognised_by_its_first_bytes() -> None:
    found = [registry.recognise(data) for data in (SAMPLES[0], b"\n" + SAMPLES[1], b'{"a":1}')]

    assert [entry and entry.name for entry in found] == ["kunai", "kunai", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/events.log"})

    assert KIND.build(settings, BuildContext("one", EMPTY)).module == "kunai"
    assert list(KIND.resources(settings)) == ["file /logs/events.log"]
