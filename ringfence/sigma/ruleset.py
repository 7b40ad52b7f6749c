"""The rules in force: loaded from files, put on columns, and by class of events; with what was refused, and a name for it all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ringfence.batch import EventClass
from ringfence.sigma import fields, rules
from ringfence.sigma.correlations import Correlation
from ringfence.sigma.rules import Refusal, Rule, Unsupported


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules on columns, by class, and correlations of them; `digest` names the set: it changes when any rule does."""

    by_class: Mapping[EventClass, Sequence[Rule]]
    refusals: Sequence[Refusal]
    count: int
    digest: str
    correlations: Sequence[Correlation] = ()


def load(paths: Sequence[Path], placeholders: Mapping[str, Sequence[str]]) -> RuleSet:
    """Load what is under some paths. A rule that is refused leaves the others in force."""
    loaded = rules.load(paths, placeholders)
    by_class: dict[EventClass, list[Rule]] = {}
    refusals = list(loaded.refusals)
    routes: dict[str, Rule] = {}
    digest = hashlib.sha256()
    for rule in loaded.rules:
        try:
            routed = fields.routed(rule)
        except Unsupported as error:
            refusals.append(Refusal(rule.path, rule.line, rule.title, str(error)))
            continue
        routes[rule.id] = rule
        digest.update(repr((rule.id, rule.level, rule.tags, rule.reaction, routed.rule.condition)).encode())
        for event_class in routed.classes:
            by_class.setdefault(event_class, []).append(routed.rule)
    correlations: dict[str, Correlation] = {}
    for correlation in loaded.correlations:
        try:
            correlations[correlation.id] = _on_columns(correlation, routes, correlations)
        except Unsupported as error:
            refusals.append(Refusal(correlation.path, correlation.line, correlation.title, str(error)))
        else:
            digest.update(repr(correlations[correlation.id]).encode())
    count = len(routes) + len(correlations)
    return RuleSet(by_class, refusals, count, digest.hexdigest()[:16], tuple(correlations.values()))


def _on_columns(correlation: Correlation, routes: Mapping[str, Rule], known: Mapping[str, Correlation]) -> Correlation:
    """The correlation with columns for the fields of its rules. Raises Unsupported."""
    inputs = []
    for wanted in correlation.inputs:
        if wanted.rule in routes:
            rule = routes[wanted.rule]
            columns = [tuple(fields.column_of(rule, name) for name in names) for names in (wanted.group_by, wanted.values)]
            inputs.append(replace(wanted, group_by=columns[0], values=columns[1]))
        elif wanted.rule in known:
            inputs.append(wanted)
        else:
            raise Unsupported(f"rule '{wanted.rule}' that it refers to was refused")
    return replace(correlation, inputs=tuple(inputs))


EMPTY = RuleSet({}, (), 0, "")
