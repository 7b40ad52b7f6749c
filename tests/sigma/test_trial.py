"""Tests that rules carry, and those of the bundled rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence import rulesets
from ringfence.sigma import fields, rules, trial
from ringfence.sigma.rules import Rule

RULE = """title: t
logsource: {product: ringfence, category: boundary}
detection: {a: {destination.port: 22}, condition: a}
ringfence.test: TESTS
"""
BUNDLED = rules.load([rulesets.located(rulesets.BUNDLED, "sigma")])


def faults(tests: str) -> list[str]:
    (rule,) = rules.loads(RULE.replace("TESTS", tests)).rules
    return [fault.reason for fault in trial.faults(rule)]


def test_a_rule_whose_events_do_as_they_should_has_no_fault() -> None:
    assert faults("{fires: [{destination.port: 22}], misses: [{destination.port: 23}, {}]}") == []


def test_an_event_that_does_otherwise_is_named() -> None:
    assert faults("{fires: [{destination.port: 23}], misses: [{destination.port: 22}, {}]}") == [
        "event 0 of fires does not fire: {'destination.port': 23}",
        "event 0 of misses fires: {'destination.port': 22}",
    ]


def test_too_few_events_are_a_fault() -> None:
    assert faults("{fires: [], misses: [{}]}") == [
        "fires has 0 events; at least 1 are wanted",
        "misses has 1 events; at least 2 are wanted",
    ]


def test_tests_of_another_form_are_a_fault() -> None:
    assert faults("[1]") == ["'ringfence.test' is not a mapping with the lists fires and misses"]


def test_every_bundled_file_is_in_force() -> None:
    assert BUNDLED.rules
    assert [str(refusal) for refusal in BUNDLED.refusals] == []


@pytest.mark.parametrize("rule", BUNDLED.rules, ids=lambda rule: str(rule.name))
def test_a_bundled_rule_is_tested_and_reads_columns(rule: Rule) -> None:
    assert trial.is_tested(rule)
    assert list(trial.faults(rule)) == []
    fields.routed(rule)
    assert rule.name == Path(rule.path).stem
    assert rule.custom["ringfence.response"] in ("alert", "approve-quarantine", "auto-quarantine")
    assert any(tag.startswith("attack.t1") for tag in rule.tags)
