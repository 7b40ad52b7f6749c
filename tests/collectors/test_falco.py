"""Falco: alerts with whatever fields their rules name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.falco import KIND, FalcoDecoder
from ringfence import registry
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.json_lines import check_accounts, check_parts, damaged_lines, decode, one, rows

SAMPLES = (Path(__file__).parent / "cases" / "falco" / "alerts" / "input.json").read_bytes().splitlines(keepends=True)
TIME, TIME_US = "2026-11-25T07:44:23.123456789Z", 1_795_592_663_123_456


def line(record: Any) -> bytes:
    return msgspec.json.encode(record) + b"\n"


def alert(fields: dict[str, Any] | None = None, **members: Any) -> bytes:
    return line({"rule": "r", "time": TIME, "output_fields": fields, **members})


@given(st.integers(0, 2**31 - 1), st.text(max_size=20))
def test_what_is_encoded_is_decoded_again(pid: int, text: str) -> None:
    row = one(FalcoDecoder(), alert({"proc.pid": pid, "proc.cmdline": text}, output=text))

    assert (row["@timestamp"], row["process.pid"], row["rule.description"]) == (TIME_US, pid, text)
    assert row.get("process.command_line", "") == ("" if text == "<NA>" else text)


@pytest.mark.parametrize(
    ("priority", "severity"),
    [
        ("Emergency", 99),
        ("critical", 99),
        ("Error", 73),
        ("Warning", 47),
        ("Notice", 21),
        ("Informational", 1),
        ("Debug", 1),
        ("Other", None),
    ],
)
def test_a_priority_is_a_severity(priority: str, severity: int | None) -> None:
    assert one(FalcoDecoder(), alert(priority=priority)).get("event.severity") == severity


@pytest.mark.parametrize(
    "fields",
    [
        {"fd.name": "10.1.0.5:40000->10.2.0.9:443"},
        {
            "fd.cip": "10.1.0.5",
            "fd.cport": 40000,
            "fd.sip": "10.2.0.9",
            "fd.sport": "443",
            "fd.name": "10.2.0.9:443->10.1.0.5:40000",
        },
    ],
)
def test_the_client_is_the_source(fields: dict[str, Any]) -> None:
    row = one(FalcoDecoder(), alert(fields))

    assert (row["source.ip"], row["source.port"]) == (frames.v4("10.1.0.5"), 40000)
    assert (row["destination.ip"], row["destination.port"]) == (frames.v4("10.2.0.9"), 443)
    assert "file.path" not in row


@pytest.mark.parametrize("absent", [None, "", "<NA>", ["a"], {"a": 1}])
def test_a_value_that_is_none_is_absent(absent: Any) -> None:
    (row,) = rows(decode(FalcoDecoder(), alert({"proc.name": absent, "user.uid": absent, "proc.pid": absent})))

    assert not row.keys() & {"process.name", "user.id", "process.pid"}


LINES = damaged_lines(
    SAMPLES, ["rule", "time", "output_fields", "priority", "tags", "hostname", "proc.pid", "fd.name", "fd.cip", "x"]
)


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(FalcoDecoder(), *lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    check_parts(FalcoDecoder, lines, size)


def test_it_is_recognised_by_its_first_bytes() -> None:
    found = [registry.recognise(data) for data in (SAMPLES[0], b"\n" + SAMPLES[1], b'{"a":1}')]

    assert [entry and entry.name for entry in found] == ["falco", "falco", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/events.log"})

    assert KIND.build(settings, BuildContext("one", EMPTY)).module == "falco"
    assert list(KIND.resources(settings)) == ["file /logs/events.log"]
