"""btrace of OpenBSD: lines of its program as processes."""

from __future__ import annotations

import asyncio
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.btrace import KIND, BtraceDecoder, BtraceShell, program_text
from ringfence import registry
from ringfence.batch import ProblemCode
from ringfence.component import BuildContext
from ringfence.errors import Misconfigured
from ringfence.topology import EMPTY
from tests.collectors.json_lines import check_accounts, check_parts, decode, one

AT, AT_US = 1_795_592_663_123_456_789, 1_795_592_663_123_456


@given(
    st.sampled_from(["exec", "connect", "accept"]),
    st.integers(0, 2**31),
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=24),
)
def test_what_is_encoded_is_decoded_again(kind: str, pid: int, name: str) -> None:
    assert one(BtraceDecoder("fw1"), f"{kind} {AT} {pid} 0 {name}\n".encode()) == {
        "class": "process",
        "@timestamp": AT_US,
        "observer.name": "fw1",
        "event.action": kind,
        "process.pid": pid,
        "process.name": name,
    }


@pytest.mark.parametrize(("value", "code"), [(0, 0), (3, 3), (-1, 255), (256, 0)])
def test_an_exit_has_the_code_that_its_parent_sees(value: int, code: int) -> None:
    assert one(BtraceDecoder(), f"exit {AT} 7 {value} ksh".encode())["process.exit_code"] == code


@pytest.mark.parametrize(
    "line", [b"exec now 7 0 ksh", b"fork 1 7 0 ksh", b"exec 9999999999999999999 7 0 x", b"6 events dropped"]
)
def test_any_other_line_is_a_problem(line: bytes) -> None:
    (problem,) = decode(BtraceDecoder(), line).problems

    assert (problem.code, problem.detail, problem.raw) == (ProblemCode.MALFORMED, "expected KIND NSECS PID VALUE NAME", line)


LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda kind, at, pid, value, name: f"{kind} {at} {pid} {value} {name}".encode(),
            st.sampled_from(["exec", "exit", "fork"]),
            st.integers(-1, 2**65),
            st.integers(-1, 2**40),
            st.integers(-(2**65), 2**65),
            st.text(max_size=5),
        ),
        st.just(b"\n"),
    ),
    max_size=6,
)


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(BtraceDecoder(), *lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    check_parts(BtraceDecoder, lines, size)


def test_the_program_prints_what_the_decoder_reads() -> None:
    kinds = {line.split('printf("')[1].split()[0] for line in program_text().splitlines() if 'printf("' in line}

    assert kinds == {"exec", "exit", "connect", "accept"}
    assert {
        line.split("printf(")[1].split(" ", 1)[1].split('"')[0] for line in program_text().splitlines() if "printf(" in line
    } == {"%u %u %d %s\\n"}


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(Misconfigured, match=r"^btrace works for root only"):
        asyncio.run(BtraceShell("kernel", "btrace").open(b""))


def test_it_is_recognised_by_its_first_bytes() -> None:
    found = [registry.recognise(data) for data in (f"exec {AT} 7 0 ksh\n".encode(), b"exec ls")]

    assert [entry and entry.name for entry in found] == ["btrace", None]


def test_the_entry_point_builds_the_collector() -> None:
    settings = KIND.settings.model_validate({})

    assert KIND.build(settings, BuildContext("kernel", EMPTY)).module == "btrace"
    assert list(KIND.resources(settings)) == ["btrace"]
