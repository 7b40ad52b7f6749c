"""The tests that a rule carries: events that must fire it, and near misses that must not.

    ringfence.test:
      fires:  [{destination.port: 3389, ringfence.boundary.outcome: passed}]
      misses: [{destination.port: 3389, ringfence.boundary.outcome: blocked}]

Events have the fields that the rule names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ringfence.sigma.engine import Engine
from ringfence.sigma.plain import Reader
from ringfence.sigma.rules import Rule

KEY = "ringfence.test"
LEAST = {"fires": 1, "misses": 2}
"""What a rule needs to count as tested."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a rule by its tests."""

    rule: Rule
    reason: str

    def __str__(self) -> str:
        return f"{self.rule.path}:{self.rule.line}: {self.rule.title}: {self.reason}"


def is_tested(rule: Rule) -> bool:
    """True where a rule carries tests."""
    return KEY in rule.custom


def faults(rule: Rule) -> Iterator[Fault]:
    """Each event that fires the rule and should not or the other way round, and what is missing of its tests."""
    tests = rule.custom.get(KEY)
    if not isinstance(tests, dict) or not all(isinstance(tests.get(name), list) for name in LEAST):
        yield Fault(rule, f"'{KEY}' is not a mapping with the lists fires and misses")
        return
    for name, least in LEAST.items():
        if len(tests[name]) < least:
            yield Fault(rule, f"{name} has {len(tests[name])} events; at least {least} are wanted")
        for number, event in enumerate(tests[name]):
            if _fires(rule, event) is not (name == "fires"):
                yield Fault(rule, f"event {number} of {name} {'does not fire' if name == 'fires' else 'fires'}: {event}")


def _fires(rule: Rule, event: Any) -> bool:
    found = Reader([rule]).read([msgspec.json.encode(event)])
    return bool(Engine([rule]).match(found.table))
