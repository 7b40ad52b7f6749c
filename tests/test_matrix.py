"""The boundary matrix: additive counts, a stable state, and text that is safe for a terminal."""

from __future__ import annotations

import io
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ringfence import matrix
from ringfence.batch import EventClass
from ringfence.matrix import VERDICTS, Matrix
from tests import frames

A, B = "10.1.0.5", "10.2.0.9"


def crossing(
    source: str, destination: str, verdict: str, who: str = A, target: str = B, service: str = "ssh"
) -> dict[str, Any]:
    return {
        **frames.ends(who, target),
        "source.segment.name": source,
        "destination.segment.name": destination,
        "ringfence.boundary.id": f"{source} -> {destination}",
        "ringfence.boundary.service": service,
        "ringfence.boundary.verdict": verdict,
    }


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return frames.batch(EventClass.BOUNDARY, rows).frame


def counted(*rows: dict[str, Any]) -> Matrix:
    made = Matrix()
    made.add(frame(*rows))
    return made


def text(made: Matrix, order: list[str] | None = None, width: int = 200) -> str:
    output = io.StringIO()
    made.print(Console(file=output, width=width, color_system=None, force_terminal=True), order or [])
    return output.getvalue()


def test_tests_are_counted_by_boundary_and_verdict() -> None:
    made = counted(crossing("a", "b", "held"), crossing("a", "b", "held"), crossing("b", "a", "breached"))

    assert dict(made.tests) == {("a", "b", "held"): 2, ("b", "a", "breached"): 1}


def test_totals_name_every_verdict() -> None:
    assert counted(crossing("a", "b", "held")).totals() == {**dict.fromkeys(VERDICTS, 0), "held": 1}


def test_a_breach_is_listed_with_who_what_and_where() -> None:
    assert dict(counted(crossing("a", "b", "breached")).breaches) == {("a -> b", A, B, "ssh"): 1}


def test_a_breach_over_ipv6_is_listed() -> None:
    made = counted(crossing("a", "b", "breached"), crossing("a", "b", "breached", "2001:db8::1", "2001:db8::2"))

    assert ("a -> b", "2001:db8::1", "2001:db8::2", "ssh") in made.breaches


def test_what_is_no_breach_is_not_listed() -> None:
    assert not counted(crossing("a", "b", "held"), crossing("a", "b", "permitted")).breaches


def test_breaches_beyond_the_bound_are_counted_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "MAX_TESTERS", 2)
    made = counted(*(crossing("a", "b", "breached", f"10.1.0.{host}") for host in range(5)))

    assert (len(made.breaches), made.not_listed) == (2, 3)


def test_a_listed_breach_goes_on_being_counted_at_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "MAX_TESTERS", 1)
    made = counted(crossing("a", "b", "breached"))

    made.add(frame(crossing("a", "b", "breached")))

    assert made.breaches["a -> b", A, B, "ssh"] == 2


ROWS = st.lists(
    st.builds(crossing, st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from(VERDICTS)), min_size=1, max_size=8
)


@given(ROWS, ROWS)
def test_counts_add_up_however_rows_are_batched(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    apart = counted(*one)
    apart.add(frame(*two))

    assert apart.as_json() == counted(*one, *two).as_json()


@given(ROWS)
def test_the_state_restores_everything(rows: list[dict[str, Any]]) -> None:
    made = counted(*rows)
    made.not_listed = 3

    assert Matrix.decode(made.encode()).as_json() == made.as_json()


def test_no_state_is_an_empty_matrix() -> None:
    assert Matrix.decode(b"").as_json() == Matrix().as_json()


def test_an_empty_frame_adds_nothing() -> None:
    made = Matrix()
    made.add(frame(crossing("a", "b", "breached")).clear())

    assert not made.tests


def test_a_cell_names_each_verdict_worst_first() -> None:
    shown = text(counted(crossing("a", "b", "held"), crossing("a", "b", "breached")))

    assert shown.index("breached 1") < shown.index("held 1")


def test_the_order_is_that_of_the_topology() -> None:
    made = counted(crossing("a", "b", "held"), crossing("b", "a", "held"))
    (header,) = (line for line in text(made, ["b", "a"]).splitlines() if "from \\ to" in line)

    assert [word for word in header.split() if word in ("a", "b")] == ["b", "a"]


def test_a_narrow_terminal_shows_a_list() -> None:
    names = [f"a-rather-long-segment-name-{number}" for number in range(6)]
    shown = text(
        counted(*(crossing(name, "b", "held") for name in names), *(crossing("b", name, "held") for name in names)), width=80
    )

    assert all(f"{name} -> b" in shown for name in names)


def test_a_breach_is_told_in_a_sentence() -> None:
    assert "BREACHED a -> b: 10.1.0.5 reached 10.2.0.9 on ssh, though intent denies it; 1 record proves it." in text(
        counted(crossing("a", "b", "breached"))
    )


def test_ten_breaches_are_told_and_the_rest_counted() -> None:
    shown = text(counted(*(crossing("a", "b", "breached", f"10.1.0.{host}") for host in range(12))))

    assert (shown.count("BREACHED"), "... and 2 more, see boundary.jsonl." in shown) == (10, True)


def test_an_empty_matrix_says_so() -> None:
    assert "No boundary was tested." in text(Matrix())


HOSTILE = ["\x1b[31mred\x07", "\u202ereversed", "[bold]marked[/bold]", "[/]", "new\nline", "\u200bzero", "\x9b31m"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_reaches_no_terminal(name: str) -> None:
    shown = text(counted(crossing(name, "b", "breached", service=name), crossing("b", name, "held")))

    assert not [char for char in shown if not char.isprintable() and char != "\n"]


@pytest.mark.parametrize("name", ["[bold]marked[/bold]", "[/]"])
def test_markup_in_a_name_is_only_text(name: str) -> None:
    assert text(counted(crossing("b", name, "held"))).count(name) == 1
