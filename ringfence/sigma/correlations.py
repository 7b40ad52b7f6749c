"""Correlation documents of Sigma: several matches of rules, or of other correlations, in one span of time.

Sigma correlation rules specification 2.1. Of pySigma's types all are known. `group-by` names become, by way of `aliases`,
fields of each rule. `ringfence.suppress: 1h` on the document keeps a group silent for that long after a detection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from sigma.correlations import (
    CorrelationConditionAND,
    CorrelationConditionNOT,
    CorrelationConditionOR,
    SigmaCorrelationCondition,
    SigmaCorrelationRule,
    SigmaCorrelationTimespan,
    SigmaExtendedCorrelationCondition,
    SigmaRuleReference,
)

from ringfence.sigma.reaction import Reaction, reaction_of
from ringfence.sigma.refusals import Unsupported

SUPPRESS = "ringfence.suppress"
MAX_THRESHOLD = 100_000
"""A group keeps as many entries as its threshold asks for."""
MAX_ORDERED = 8
"""Rules of one temporal_ordered: it follows every subset of them."""
_KEYS = frozenset({"type", "rules", "generate", "group-by", "timespan", "aliases", "condition"})


class Kind(StrEnum):
    """What is measured in a span."""

    EVENT_COUNT = "event_count"
    VALUE_COUNT = "value_count"
    TEMPORAL = "temporal"
    TEMPORAL_ORDERED = "temporal_ordered"
    VALUE_SUM = "value_sum"
    VALUE_AVG = "value_avg"
    VALUE_PERCENTILE = "value_percentile"
    VALUE_MEDIAN = "value_median"


COUNTS = frozenset({Kind.EVENT_COUNT, Kind.VALUE_COUNT, Kind.TEMPORAL, Kind.TEMPORAL_ORDERED})
"""Measures that are whole numbers, and at least 1 once there is an event."""
ORDERS = frozenset({Kind.TEMPORAL, Kind.TEMPORAL_ORDERED})
Operator = Literal["gt", "gte", "lt", "lte", "eq", "neq"]


@dataclass(frozen=True, slots=True)
class Threshold:
    """A measure on one side of a number. For temporal kinds the measure is the number of rules that were seen."""

    operator: Operator
    value: int | float


@dataclass(frozen=True, slots=True)
class Seen:
    """A rule was seen, by its place in `Correlation.rules`."""

    place: int


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of them."""

    children: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of them."""

    children: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Absent:
    """Not this."""

    child: Expression


Expression = Seen | AllOf | AnyOf | Absent


@dataclass(frozen=True, slots=True)
class Input:
    """A rule or correlation that is referred to, and its names of the fields that are grouped by and measured."""

    rule: str
    group_by: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Correlation:
    """One correlation in force. `is_reported` is false where another correlation takes its detections as steps."""

    id: str
    title: str
    name: str | None
    level: str
    status: str | None
    tags: tuple[str, ...]
    kind: Kind
    inputs: tuple[Input, ...]
    group_by: tuple[str, ...]
    span_us: int
    condition: Threshold | Expression
    percentile: float | None
    suppress_us: int
    path: str
    line: int
    is_reported: bool = True
    custom: Mapping[str, Any] = field(default_factory=dict)
    reaction: Reaction = field(default_factory=Reaction)

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of what it refers to."""
        return tuple(each.rule for each in self.inputs)

    @property
    def waits_for_end(self) -> bool:
        """Whether it can be told only when a window is over: what is few, equal or absent may yet change."""
        if isinstance(self.condition, Threshold):
            return self.condition.operator not in ("gt", "gte")
        return has_no(self.condition)


def has_no(expression: Expression) -> bool:
    """Whether something must be absent."""
    match expression:
        case Absent():
            return True
        case AllOf(children) | AnyOf(children):
            return any(map(has_no, children))
        case _:
            return False


@dataclass(frozen=True, slots=True)
class Draft:
    """A correlation whose references are still words. `silences`: what it refers to makes no detections of its own."""

    correlation: Correlation
    references: tuple[str, ...]
    aliases: Mapping[str, Mapping[str, str]]
    value_fields: tuple[str, ...]
    silences: bool


def draft(sigma: SigmaCorrelationRule, path: str, line: int) -> Draft:
    """What a document says, before the rules that it refers to are known; raises Unsupported."""
    custom = dict(sigma.custom_attributes)
    unknown = custom.pop("correlation", {}).keys() - _KEYS
    if unknown:
        raise Unsupported(f"unknown key '{min(unknown)}' in 'correlation'")
    kind = Kind(sigma.type.name.lower())
    references = _references(sigma)
    correlation = Correlation(
        id=str(sigma.id or sigma.name or f"{Path(path).stem}:{line}"),
        title=sigma.title or "",
        name=sigma.name,
        level=str(sigma.level or "informational").lower(),
        status=str(sigma.status).lower() if sigma.status else None,
        tags=tuple(f"{tag.namespace}.{tag.name}" for tag in sigma.tags),
        kind=kind,
        inputs=(),
        group_by=tuple(sigma.group_by or ()),
        span_us=sigma.timespan.seconds * 1_000_000,
        condition=_condition(sigma, kind, references),
        percentile=_percentile(sigma, kind),
        suppress_us=_suppress_us(custom),
        path=path,
        line=line,
        custom=custom,
        reaction=reaction_of({key: value for key, value in custom.items() if key != SUPPRESS}),  # that is its own
    )
    if kind is Kind.TEMPORAL_ORDERED and len(references) > MAX_ORDERED:
        raise Unsupported(f"temporal_ordered with {len(references)} rules; accepted: up to {MAX_ORDERED}")
    aliases = {alias.alias: {ref.reference: str(name) for ref, name in alias.mapping.items()} for alias in sigma.aliases}
    _check_aliases(aliases, references)
    return Draft(correlation, references, aliases, _value_fields(sigma, kind), not sigma.generate)


def _references(sigma: SigmaCorrelationRule) -> tuple[str, ...]:
    condition = sigma.condition
    if sigma.rules is not None:
        found = [str(reference.reference) for reference in sigma.rules]
    else:
        found = condition.get_referenced_rules() if isinstance(condition, SigmaExtendedCorrelationCondition) else []
    if not found:
        raise Unsupported("'rules' names no rule")
    repeated = next((name for name in found if found.count(name) > 1), None)
    if repeated is not None:
        raise Unsupported(f"rule '{repeated}' is named twice in 'rules'")
    return tuple(found)


def _condition(sigma: SigmaCorrelationRule, kind: Kind, references: Sequence[str]) -> Threshold | Expression:
    condition = sigma.condition
    if isinstance(condition, SigmaExtendedCorrelationCondition):
        return _expression(condition.parsed, references)
    operator: Operator = condition.op.name.lower()  # type: ignore[assignment]  # the names of pySigma's enum
    threshold = Threshold(operator, condition.count)
    _check_threshold(threshold, kind, len(references))
    return threshold


def _check_threshold(threshold: Threshold, kind: Kind, rules: int) -> None:
    operator, value = threshold.operator, threshold.value
    if kind not in COUNTS:
        return
    if value > MAX_THRESHOLD:
        raise Unsupported(f"'{operator}: {value}' counts to more than {MAX_THRESHOLD}")
    if (operator == "lt" and value <= 1) or (operator in ("lte", "eq") and value < 1):
        raise Unsupported(f"'{operator}: {value}' never holds: a window begins with an event, so its count is at least 1")
    if kind in ORDERS and ((operator in ("gte", "eq") and value > rules) or (operator == "gt" and value >= rules)):
        raise Unsupported(f"'{operator}: {value}' never holds: there are {rules} rules")


def _expression(parsed: Any, references: Sequence[str]) -> Expression:
    match parsed:
        case SigmaRuleReference(reference=name):
            return Seen(references.index(name))
        case CorrelationConditionAND(args=args):
            return AllOf(tuple(_expression(arg, references) for arg in args))
        case CorrelationConditionOR(args=args):
            return AnyOf(tuple(_expression(arg, references) for arg in args))
        case CorrelationConditionNOT(args=[arg]):
            return Absent(_expression(arg, references))
        case _:
            raise Unsupported(f"a condition of kind {type(parsed).__name__} is not known")


def _percentile(sigma: SigmaCorrelationRule, kind: Kind) -> float | None:
    if kind is Kind.VALUE_MEDIAN:
        return 50.0
    if kind is not Kind.VALUE_PERCENTILE:
        return None
    found = sigma.condition.percentile if isinstance(sigma.condition, SigmaCorrelationCondition) else None
    if found is None or not 0 <= found <= 100:
        raise Unsupported("'condition' of value_percentile needs 'percentile', a number from 0 to 100")
    return float(found)


def _value_fields(sigma: SigmaCorrelationRule, kind: Kind) -> tuple[str, ...]:
    found = sigma.condition.fieldref if isinstance(sigma.condition, SigmaCorrelationCondition) else None
    if found is None or kind in ORDERS or kind is Kind.EVENT_COUNT:
        if found is not None:
            raise Unsupported(f"'field' has no meaning in the condition of {kind}")
        return ()
    fields = tuple(map(str, found if isinstance(found, list) else [found]))
    if len(fields) != 1 and kind is not Kind.VALUE_COUNT:
        raise Unsupported(f"'field' of {kind} is one field")
    return fields


def _suppress_us(custom: Mapping[str, Any]) -> int:
    if SUPPRESS not in custom:
        return 0
    return SigmaCorrelationTimespan(custom[SUPPRESS]).seconds * 1_000_000


def _check_aliases(aliases: Mapping[str, Mapping[str, str]], references: Sequence[str]) -> None:
    for alias, names in aliases.items():
        stranger = next((name for name in names if name not in references), None)
        if stranger is not None:
            raise Unsupported(f"alias '{alias}' has a field for '{stranger}', which is not in 'rules'")
        missing = next((name for name in references if name not in names), None)
        if missing is not None:
            raise Unsupported(f"alias '{alias}' has no field for rule '{missing}'")


class References:
    """Ids of what can be referred to, by id and by name."""

    def __init__(self) -> None:
        self._ids: dict[str, set[str]] = {}
        self._refused: set[str] = set()

    def add(self, id: str, name: str | None) -> None:
        """A rule or correlation in force."""
        for word in {id, name or id}:
            self._ids.setdefault(word, set()).add(id)

    def refuse(self, *words: Any) -> None:
        """Words that name a document that was refused."""
        self._refused |= {_word(word) for word in words if word is not None}

    def resolve(self, reference: Any) -> str:
        """The id that a word stands for; raises Unsupported."""
        found = self._ids.get(_word(reference), set())
        if len(found) > 1:
            raise Unsupported(f"the name '{reference}' is that of {len(found)} rules; refer to one by its id")
        if not found:
            why = "was refused" if _word(reference) in self._refused else "is not among those that were loaded"
            raise Unsupported(f"rule '{reference}' {why}")
        return next(iter(found))


def _word(reference: Any) -> str:
    """Ids in one form: pySigma takes every way to write a UUID."""
    try:
        return str(UUID(str(reference)))
    except ValueError:
        return str(reference)


def resolved(drafted: Draft, known: References, correlations: Mapping[str, Correlation]) -> Correlation:
    """The correlation with ids for its references; `correlations` are those that it may refer to. Raises Unsupported."""
    inputs = []
    for reference in drafted.references:
        group_by = tuple(drafted.aliases.get(name, {}).get(reference, name) for name in drafted.correlation.group_by)
        values = tuple(drafted.aliases.get(name, {}).get(reference, name) for name in drafted.value_fields)
        found = Input(known.resolve(reference), group_by, values)
        below = correlations.get(found.rule)
        missing = next((name for name in group_by + values if below and name not in below.group_by), None)
        if below and missing is not None:
            has = ", ".join(below.group_by) or "none"
            raise Unsupported(f"correlation '{reference}' has no field '{missing}'; it has those that it groups by: {has}")
        inputs.append(found)
    return replace(drafted.correlation, inputs=tuple(inputs))


def in_order(drafts: Mapping[str, Draft], known: References) -> Iterator[str]:
    """Ids of drafts, those that are referred to first. Those in a cycle come last, in the order given."""
    placed: set[str] = set()
    waiting = list(drafts)
    while waiting:
        ready = [id for id in waiting if _below(drafts[id], known, drafts) <= placed]
        if not ready:
            break
        yield from ready
        placed |= set(ready)
        waiting = [id for id in waiting if id not in placed]
    yield from waiting


def _below(drafted: Draft, known: References, drafts: Mapping[str, Draft]) -> set[str]:
    found = set()
    for reference in drafted.references:
        try:
            found.add(known.resolve(reference))
        except Unsupported:
            continue  # said when the draft itself is resolved
    return found & set(drafts)


def least_whole(threshold: Threshold) -> int:
    """The least whole measure at which gt or gte hold."""
    return math.floor(threshold.value) + 1 if threshold.operator == "gt" else math.ceil(threshold.value)
