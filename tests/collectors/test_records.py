"""The lines of a block: what is left out of them, and typed columns."""

from __future__ import annotations

from typing import Any

import pytest

from collectors.lines import MAX_LINE_BYTES, Continuations
from collectors.records import TRANSPORTS, LineBlock, integers
from ringfence.batch import ProblemCode, Source, frames_of

SOURCE = Source("x.log", 7)


def block(*lines: bytes) -> LineBlock:
    return LineBlock(frames_of(lines, SOURCE), Continuations())


def test_lines_lose_their_ends() -> None:
    assert block(b"one\n", b"two\r\n", b"three").lines == [b"one", b"two", b"three"]


def test_a_line_that_is_not_utf8_is_left_out_with_the_byte() -> None:
    found = block(b"good\n", b"ba\xffd\n")

    assert ([(problem.row, problem.offset, problem.raw) for problem in found.problems], found.lines) == (
        [(1, 2, b"ba\xffd\n")],
        [b"good", b""],
    )


def test_a_line_that_is_too_long_is_left_out() -> None:
    found = block(b"x" * (MAX_LINE_BYTES + 1), b"good\n")

    assert ([problem.code for problem in found.problems], found.lines) == ([ProblemCode.TOO_LARGE], [b"", b"good"])


@pytest.mark.parametrize(
    ("name", "number"),
    [("tcp", 6), ("TCP", 6), ("Udp", 17), ("089", 89), ("256", None), ("9" * 5000, None), (None, None), ("\u0662", None)],
)
def test_a_protocol_is_known_by_name_or_number(name: str | None, number: int | None) -> None:
    assert TRANSPORTS[name] == number


@pytest.mark.parametrize(
    ("values", "wrong"),
    [([1, None, 70_000], {2: "$.port"}), ([2**70, -1], {0: "$.port", 1: "$.port"}), ([5], {}), ([None], {})],
)
def test_a_number_out_of_range_is_noted(values: list[Any], wrong: dict[int, str]) -> None:
    bad: dict[int, str] = {}

    integers(values, 0, 65_535, "port", bad)

    assert bad == wrong
