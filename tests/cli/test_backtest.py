"""`ringfence rules backtest`: what rules would have found in recorded files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli import backtest
from ringfence.errors import ExitCode
from tests.cli.command import ringfence
from tests.eve_lines import flow, topology_file

RULES = """title: Breach
id: 5b8f0f0e-8f0a-4c7e-9f51-0d3c5c2b6a01
level: high
logsource: {product: ringfence, category: boundary}
detection: {a: {ringfence.boundary.verdict: breached}, condition: a}
---
title: Port of a list
id: 5b8f0f0e-8f0a-4c7e-9f51-0d3c5c2b6a02
level: low
logsource: {product: ringfence, category: flow}
detection: {a: {source.ip|expand: '%admins%'}, condition: a}
---
title: Never
id: 5b8f0f0e-8f0a-4c7e-9f51-0d3c5c2b6a03
level: critical
logsource: {product: ringfence, category: flow}
detection: {a: {destination.port: 9}, condition: a}
"""
EXCEPTIONS = "exceptions: {known: {owner: netops, reason: CHG-1, expires: 2999-01-01, match: {rule: Breach}}}"


@pytest.fixture
def inputs(tmp_path: Path) -> list[Any]:
    """Three breaches by two hosts, one permitted connection and one broken line, with rules and topology."""
    eve, rules = tmp_path / "eve.json", tmp_path / "rules.yml"
    breaches = [flow(1, port=22), flow(2, port=22), flow(3, port=22, source="10.1.0.6")]
    eve.write_bytes(b"".join(breaches) + b"broken\n" + flow(4))
    rules.write_text(RULES)
    return [rules, "--events", eve, "--topology", topology_file(tmp_path), "--placeholder", "admins=10.1.0.6"]


def test_each_rule_in_force_is_told_with_what_it_found(inputs: list[Any]) -> None:
    outcome = ringfence("rules", "backtest", *inputs, "--json")

    assert outcome.code == ExitCode.OK, outcome.err
    found = {rule["title"]: rule for rule in map(json.loads, outcome.out.splitlines())}
    assert list(found) == ["Never", "Breach", "Port of a list"]
    assert {title: (rule["detections"], rule["alerts"], rule["sources"]) for title, rule in found.items()} == {
        "Never": (0, 0, 0),
        "Breach": (3, 2, 2),
        "Port of a list": (1, 1, 1),
    }
    assert (found["Never"]["first"], found["Breach"]["last"][:19]) == (None, "2026-11-25T07:44:00")
    assert outcome.err.endswith("3 rules in force, 0 refused; 2 found something in 4 events, 1 dead letter\n")


def test_the_table_leaves_out_what_found_nothing(inputs: list[Any]) -> None:
    outcome = ringfence("rules", "backtest", *inputs)

    assert "Breach" in outcome.out
    assert "Never" not in outcome.out


def test_exceptions_make_no_alerts(inputs: list[Any], tmp_path: Path) -> None:
    exceptions = tmp_path / "exceptions.yml"
    exceptions.write_text(EXCEPTIONS)

    outcome = ringfence("rules", "backtest", *inputs, "--exceptions", exceptions, "--json")

    breach = next(rule for rule in map(json.loads, outcome.out.splitlines()) if rule["title"] == "Breach")
    assert (breach["detections"], breach["alerts"]) == (3, 0), outcome.err


def test_nothing_is_left_behind(inputs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))

    assert ringfence("rules", "backtest", *inputs).code == ExitCode.OK
    assert list(scratch.iterdir()) == []


def test_a_refused_rule_is_named_with_its_reason(inputs: list[Any]) -> None:
    outcome = ringfence("rules", "backtest", *inputs[:-2])

    assert outcome.code == ExitCode.OK
    assert "Port of a list: placeholder '%admins%' has no values" in outcome.err
    assert "2 rules in force, 1 refused" in outcome.err


def test_a_placeholder_without_values_is_a_usage_error(inputs: list[Any]) -> None:
    outcome = ringfence("rules", "backtest", *inputs, "--placeholder", "admins")

    assert outcome.code == ExitCode.USAGE
    assert "--placeholder: 'admins' is not NAME=VALUE,VALUE" in outcome.err


def test_sources_are_counted_up_to_a_bound() -> None:
    found = backtest.Found("id", "Many", "low", sources={str(number) for number in range(backtest.MAX_SOURCES)})

    assert found.source_count == "10,000+"
