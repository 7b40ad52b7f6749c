"""The list of alerts for people: the latest record of each, highest first, at most 20; and the state that it shares with the matrix."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from ringfence import alert_list
from ringfence.alert_list import AlertList
from ringfence.batch import EventClass
from ringfence.matrix import Matrix
from ringfence.summary import Summary
from tests import frames


def record(name: str, severity: int = 47, message: str = "MEDIUM: x.", status: str = "new", start: int = 0) -> dict[str, Any]:
    return {
        "ringfence.alert.id": name, "event.severity": severity, "event.start": start, "ringfence.alert.status": status,
        "ringfence.alert.level": "medium", "message": message,
    }  # fmt: skip


def listed(*rows: dict[str, Any]) -> AlertList:
    made = AlertList()
    made.add(frames.batch(EventClass.ALARM, rows).frame)
    return made


def printed(made: AlertList) -> list[str]:
    console = Console(width=200, record=True, file=StringIO())
    made.print(console)
    return console.export_text().splitlines()


def test_the_highest_is_first() -> None:
    assert printed(listed(record("a", 47, "m"), record("b", 99, "c"), record("c", 99, "d", start=-1))) == [
        "Alerts: 3",
        "d",
        "c",
        "m",
    ]


def test_an_update_replaces_the_sentence_and_counts_once() -> None:
    assert printed(listed(record("a", message="once"), record("a", message="ten times", status="updated"))) == [
        "Alerts: 1",
        "ten times",
    ]


def test_at_most_twenty_are_shown() -> None:
    lines = printed(listed(*(record(f"{number:02}") for number in range(25))))

    assert len(lines) == 22
    assert lines[-1] == "... and 5 more, see alerts.jsonl."


def test_of_too_many_the_highest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_list, "MAX_KEPT", 2)

    assert printed(listed(record("a", 1, "low"), record("b", 99, "worst"), record("c", 73, "bad"))) == [
        "Alerts: 3",
        "worst",
        "bad",
        "... and 1 more, see alerts.jsonl.",
    ]


def test_nothing_is_printed_where_there_is_none() -> None:
    assert printed(AlertList()) == []


def test_control_characters_never_reach_the_terminal() -> None:
    assert printed(listed(record("a", message="\x1b[2J[red]"))) == ["Alerts: 1", "\\x1b[2J[red]"]


def test_the_state_is_read_again() -> None:
    made = Summary(alerts=listed(record("a", message="\u00e4")))

    again = Summary.decode(made.encode())

    assert (again.encode(), again.alerts.count) == (made.encode(), 1)


def test_the_state_of_a_matrix_alone_is_read() -> None:
    matrix = Matrix()
    matrix.tests["a", "b", "held"] = 2

    again = Summary.decode(matrix.encode())

    assert (again.matrix.totals()["held"], again.alerts.count) == (2, 0)
    assert Summary.decode(b"").alerts.count == 0
