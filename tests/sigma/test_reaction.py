"""What a rule wants done: its own keys, read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from ringfence.sigma import rules
from ringfence.sigma.reaction import Reaction, reaction_of


@pytest.mark.parametrize(
    ("custom", "expected"),
    [
        ({}, Reaction("alert", None, None)),
        ({"ringfence.response": "auto-quarantine"}, Reaction("auto-quarantine")),
        ({"ringfence.risk": 0}, Reaction(risk=0)),
        ({"ringfence.suppress": "30m"}, Reaction(suppress_s=1_800)),
        ({"ringfence.suppress": "7d"}, Reaction(suppress_s=604_800)),
    ],
)
def test_keys_are_read(custom: dict[str, Any], expected: Reaction) -> None:
    assert reaction_of(custom) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("response", "block"), ("risk", 101), ("risk", True), ("risk", "9"), ("suppress", "1w"), ("suppress", "0h"), ("suppress", "8d"), ("suppress", 60)],
)  # fmt: skip
def test_a_wrong_value_refuses_the_rule_with_its_line(key: str, value: Any) -> None:
    text = f"title: T\nlogsource: {{product: x}}\ndetection: {{a: {{b: 1}}, condition: a}}\nringfence.{key}: {value!r}\n"

    loaded = rules.loads(text)

    assert not loaded.rules
    assert [(refusal.line, refusal.reason.partition(";")[0]) for refusal in loaded.refusals] == [(4, f"'ringfence.{key}' is {value!r}")]  # fmt: skip


def test_a_correlation_is_read_as_strictly() -> None:
    text = """title: A
name: a
logsource: {product: x}
detection: {s: {b: 1}, condition: s}
---
title: Many
correlation: {type: event_count, rules: [a], timespan: 5m, condition: {gte: 3}}
ringfence.response: %s
"""

    (correlation,) = rules.loads(text % "approve-quarantine").correlations
    (refusal,) = rules.loads(text % "block").refusals

    assert correlation.reaction == Reaction("approve-quarantine")
    assert refusal.reason.startswith("'ringfence.response' is 'block'; accepted: alert")
