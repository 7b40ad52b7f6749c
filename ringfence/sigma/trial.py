"""The tests that a rule carries: events that must fire it, and near misses that must not.

    ringfence.test:
      fires:  [{destination.port: 3389, ringfence.boundary.outcome: passed}]
      misses: [{destination.port: 3389, ringfence.boundary.outcome: blocked}]

Events have the fields that the rule names. Of a correlation each test is a stream of events, `at` being seconds; an event
is tried on all rules that the correlation refers to:

    ringfence.test:
      fires: [[{at: 0, event.outcome: failure, user.name: ann}, {at: 5, event.outcome: failure, user.name: ann}]]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from ringfence.correlation.engine import Correlator
from ringfence.correlation.matches import Matches
from ringfence.correlation.watermarks import END, START
from ringfence.sigma.correlations import Correlation
from ringfence.sigma.engine import Engine
from ringfence.sigma.plain import Reader
from ringfence.sigma.rules import Loaded, Rule

KEY = "ringfence.test"
LEAST = {"fires": 1, "misses": 2}
"""What a rule needs to count as tested."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a rule or correlation by its tests."""

    rule: Rule | Correlation
    reason: str

    def __str__(self) -> str:
        return f"{self.rule.path}:{self.rule.line}: {self.rule.title}: {self.reason}"


def is_tested(rule: Rule | Correlation) -> bool:
    """True where a rule or correlation carries tests."""
    return KEY in rule.custom


def faults(rule: Rule) -> Iterator[Fault]:
    """Each event that fires the rule and should not or the other way round, and what is missing of its tests."""
    return _faults(rule, "event", lambda event: _fires(rule, event))


def faults_of(correlation: Correlation, loaded: Loaded) -> Iterator[Fault]:
    """The same of the streams of a correlation, which was loaded with the rules that it refers to."""
    chain = _below(correlation, {each.id: each for each in loaded.correlations})
    wanted = {rule for each in chain for rule in each.rules}
    rules = [rule for rule in loaded.rules if rule.id in wanted]
    return _faults(correlation, "stream", lambda stream: _meets(correlation, chain, rules, stream))


def _faults(rule: Rule | Correlation, thing: str, fires: Callable[[Any], bool]) -> Iterator[Fault]:
    tests = rule.custom.get(KEY)
    if not isinstance(tests, dict) or not all(isinstance(tests.get(name), list) for name in LEAST):
        yield Fault(rule, f"'{KEY}' is not a mapping with the lists fires and misses")
        return
    for name, least in LEAST.items():
        if len(tests[name]) < least:
            yield Fault(rule, f"{name} has {len(tests[name])} {thing}s; at least {least} are wanted")
        for number, test in enumerate(tests[name]):
            if fires(test) is not (name == "fires"):
                yield Fault(rule, f"{thing} {number} of {name} {'does not fire' if name == 'fires' else 'fires'}: {test}")


def _fires(rule: Rule, event: Any) -> bool:
    found = Reader([rule]).read([msgspec.json.encode(event)])
    return bool(Engine([rule]).match(found.table))


def _below(correlation: Correlation, known: Mapping[str, Correlation]) -> list[Correlation]:
    """A correlation behind all those that it refers to."""
    chain = [each for rule in correlation.rules if rule in known for each in _below(known[rule], known)]
    return [*{each.id: each for each in chain}.values(), correlation]


def _meets(correlation: Correlation, chain: Sequence[Correlation], rules: Sequence[Rule], stream: Any) -> bool:
    events = sorted(stream, key=lambda event: float(event.get("at", 0)))
    names = {name for each in chain for wanted in each.inputs for name in (*wanted.group_by, *wanted.values)}
    table = Reader(rules, names).read([msgspec.json.encode(event) for event in events]).table
    times = np.array([float(event.get("at", 0)) * 1_000_000 for event in events]).astype(np.int64)
    correlator = Correlator(chain)
    wanted = correlator.needs()
    matches = {
        match.rule.id: Matches(
            times[match.rows],
            np.full(len(match.rows), START),
            np.zeros(len(match.rows), np.uint64),
            match.rows.astype(np.uint64),
            {name: column[match.rows] for name in wanted[match.rule.id] if (column := table.column(name)) is not None},
        )
        for match in Engine(rules).match(table)
        if match.rule.id in wanted
    }
    return any(found.rule == correlation.id for found in correlator.feed(matches, END))
