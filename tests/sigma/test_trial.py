"""Tests that rules carry, and those of the bundled rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringfence import rulesets
from ringfence.rulesets import RuleFiles
from ringfence.sigma import fields, rules, trial
from ringfence.sigma.correlations import Correlation
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


def is_described(rule: Rule | Correlation) -> bool:
    """Named after its file, with ATT&CK ids and a response."""
    return (
        rule.name == Path(rule.path).stem
        and rule.custom["ringfence.response"] in ("alert", "approve-quarantine", "auto-quarantine")
        and any(tag.startswith("attack.t1") for tag in rule.tags)
    )


@pytest.mark.parametrize("rule", [rule for rule in BUNDLED.rules if rule.is_reported], ids=lambda rule: str(rule.name))
def test_a_bundled_rule_is_tested_and_reads_columns(rule: Rule) -> None:
    assert trial.is_tested(rule)
    assert list(trial.faults(rule)) == []
    fields.routed(rule)
    assert is_described(rule)


@pytest.mark.parametrize(
    "correlation", [each for each in BUNDLED.correlations if each.is_reported], ids=lambda each: str(each.name)
)
def test_a_bundled_correlation_is_tested(correlation: Correlation) -> None:
    assert trial.is_tested(correlation)
    assert list(trial.faults_of(correlation, BUNDLED)) == []
    assert is_described(correlation)


def test_bundled_rules_and_correlations_are_on_columns() -> None:
    assert [str(refusal) for refusal in RuleFiles(sigma=[rulesets.BUNDLED]).load().refusals] == []


CHAIN = """title: s
name: s
logsource: {product: ringfence, category: auth}
detection: {a: {event.outcome: failure}, condition: a}
---
title: c
name: c
correlation: {type: event_count, rules: s, group-by: [user.name], timespan: 1m, condition: {gte: 2}}
ringfence.test: TESTS
"""


@pytest.mark.parametrize(
    ("tests", "reasons"),
    [
        ("{fires: [[A, B]], misses: [[A], [A, C]]}", []),
        ("{fires: [[A]], misses: [[A, B], []]}", ["stream 0 of fires does not fire", "stream 0 of misses fires"]),
    ],
)
def test_the_streams_of_a_correlation_are_tried(tests: str, reasons: list[str]) -> None:
    event = "{at: %d, event.outcome: failure, user.name: ann}"
    for name, at in (("A", 0), ("B", 59), ("C", 61)):
        tests = re.sub(rf"\b{name}\b", event % at, tests)
    loaded = rules.loads(CHAIN.replace("TESTS", tests))
    found = [fault.reason for fault in trial.faults_of(loaded.correlations[0], loaded)]

    assert [reason.partition(":")[0] for reason in found] == reasons
