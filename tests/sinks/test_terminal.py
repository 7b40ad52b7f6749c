"""The summary for people: exact across restarts, and safe for the terminal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ringfence import bus
from ringfence.batch import EventClass
from ringfence.component import BuildContext
from ringfence.topology import EMPTY, Segment, Topology
from sinks.terminal import KIND, TerminalSummary
from tests import frames

NETWORK = Segment.model_validate({"networks": ["10.0.0.0/8"]})
TOPOLOGY = Topology("t.yml", "deny", {"zebra": NETWORK, "ant": NETWORK}, {}, {}, ())


def sink(output: str = "stdout", topology: Topology = EMPTY) -> TerminalSummary:
    return KIND.build(KIND.settings.model_validate({"output": output}), BuildContext("summary", topology))


def crossing(source: str = "users", destination: str = "servers", verdict: str = "breached") -> dict[str, Any]:
    return {
        **frames.ends("10.1.0.5", "10.2.0.9"),
        "source.segment.name": source,
        "destination.segment.name": destination,
        "ringfence.boundary.id": f"{source} -> {destination}",
        "ringfence.boundary.service": "ssh",
        "ringfence.boundary.verdict": verdict,
    }


def run(made: TerminalSummary, *rows: dict[str, Any], state: bytes = b"", close: bool = True) -> bytes:
    async def work() -> bytes:
        await made.open(state)
        await made.write(bus.BOUNDARY, frames.batch(EventClass.BOUNDARY, rows))
        kept = await made.flush()
        if close:
            await made.close()
        return kept

    return asyncio.run(work())


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_the_matrix_is_printed_when_it_closes(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink(), crossing())

    shown = capsys.readouterr().out
    assert "from \\ to" in shown
    assert "breached 1" in shown


def test_nothing_is_printed_before_it_closes(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink(), crossing(), close=False)

    assert capsys.readouterr().out == ""


def test_a_breach_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink(), crossing())

    assert "BREACHED users -> servers: 10.1.0.5 reached 10.2.0.9 on ssh" in capsys.readouterr().out


def test_it_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    made = sink()
    run(made, crossing())
    asyncio.run(made.close())

    assert capsys.readouterr().out.count("Verdicts:") == 1


def test_standard_error_is_a_choice(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink("stderr"), crossing())

    captured = capsys.readouterr()
    assert ("breached" in captured.err, captured.out) == (True, "")


def test_none_only_counts(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink("none"), crossing())

    assert capsys.readouterr() == ("", "")


def test_counts_go_on_from_the_committed_state(capsys: pytest.CaptureFixture[str]) -> None:
    kept = run(sink("none"), crossing())
    run(sink(), crossing(), state=kept)

    assert "breached 2" in capsys.readouterr().out


def test_what_was_not_committed_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink("none"), crossing())
    run(sink(), crossing())

    assert "breached 1" in capsys.readouterr().out


def test_the_order_is_that_of_the_topology(capsys: pytest.CaptureFixture[str]) -> None:
    run(sink(topology=TOPOLOGY), crossing("ant", "zebra", "held"), crossing("zebra", "ant", "held"))

    (header,) = (line for line in capsys.readouterr().out.splitlines() if "from \\ to" in line)
    assert header.index("zebra") < header.index("ant")


@pytest.mark.parametrize(
    "name",
    ["\x1b[2J\x1b]0;owned\x07", "\u202egnp", "a\rb", "[/red]", "\x9b31m"],
    ids=["escape", "bidi", "return", "markup", "c1"],
)
def test_control_characters_in_names_never_reach_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(sink(), crossing(name, "servers"), crossing("servers", name))

    assert not [char for char in capsys.readouterr().out if not char.isprintable() and char != "\n"]


def test_closing_unopened_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(sink().close())

    assert capsys.readouterr().out == ""


def test_nothing_is_claimed() -> None:
    assert list(KIND.resources(KIND.settings())) == []


def test_alerts_are_listed_below_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    alert = {
        "ringfence.alert.id": "a", "ringfence.alert.status": "new", "ringfence.alert.level": "high", "event.severity": 73,
        "event.start": 0, "message": "HIGH: Telnet: from 10.1.0.5 to 10.2.0.9.",
    }  # fmt: skip
    made = sink()

    async def work() -> None:
        await made.open(b"")
        await made.write(bus.BOUNDARY, frames.batch(EventClass.BOUNDARY, [crossing()]))
        await made.write(bus.ALERTS, frames.batch(EventClass.ALARM, [alert]))
        await made.close()

    asyncio.run(work())

    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["Alerts: 1", "HIGH: Telnet: from 10.1.0.5 to 10.2.0.9."]
