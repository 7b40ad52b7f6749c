"""One row after the other: the condition of a rule as functions of a table and a row."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import re2

from ringfence import addresses
from ringfence.addresses import MAPPED_PREFIX
from ringfence.sigma.budget import MAX_READ_WORK, Budget
from ringfence.sigma.table import NO_VALUES, WHOLE, Table
from ringfence.sigma.tree import (
    And,
    Boolean,
    Cidr,
    Compare,
    Exists,
    Keyword,
    Leaf,
    Node,
    Not,
    Number,
    Or,
    Parts,
    Reference,
    Regex,
    Shape,
    Text,
    TimePart,
    fold,
    shape_of,
)

RowTest = Callable[[int], bool]
Program = Callable[[Table], RowTest]
"""Bound to a table, a condition tests its rows; what can be looked up once for all rows is."""
Predicate = Callable[[Any], bool]
ALIKE = 64
"""Texts tested at once."""
LONG_CHARS = 16 * 1024
_LONG_WORK = 16
"""Instructions for each character of so many texts."""


def program(node: Node) -> Program:
    """The condition as functions."""
    match node:
        case And(children):
            return _all_of([program(child) for child in children])
        case Or(children):
            return _any_of([_leaf(*alike) for alike in _alike(children)] + [program(child) for child in _others(children)])
        case Not(child):
            return _opposite(program(child))
        case Reference():
            return _reference(node)
        case leaf:
            return _leaf(*test_of(leaf))


def _all_of(programs: Sequence[Program]) -> Program:
    if len(programs) == 2:
        first, second = programs

        def both(table: Table) -> RowTest:
            one, other = first(table), second(table)
            return lambda row: one(row) and other(row)

        return both

    def bind(table: Table) -> RowTest:
        tests = [bind(table) for bind in programs]

        def run(row: int) -> bool:
            for test in tests:  # noqa: SIM110 -- a generator would double the cost
                if not test(row):
                    return False
            return True

        return run

    return bind


def _any_of(programs: Sequence[Program]) -> Program:
    if len(programs) == 1:
        return programs[0]

    def bind(table: Table) -> RowTest:
        tests = [bind(table) for bind in programs]

        def run(row: int) -> bool:
            for test in tests:  # noqa: SIM110 -- as above
                if test(row):
                    return True
            return False

        return run

    return bind


def _opposite(program: Program) -> Program:
    def bind(table: Table) -> RowTest:
        test = program(table)
        return lambda row: not test(row)

    return bind


def _leaf(field: str, is_folded: bool, test_alone: Predicate) -> Program:
    def bind(table: Table) -> RowTest:
        values = table.values(field, is_folded)
        if values is NO_VALUES:
            return lambda row: False
        test = metered(test_alone, table.budget)
        if table.is_list(field):
            return lambda row: any(one is not None and test(one) for one in values[row] or ())

        def run(row: int) -> bool:
            value = values[row]
            return value is not None and test(value)

        return run

    return bind


def _alike(children: Sequence[Node]) -> Iterator[tuple[str, bool, Predicate]]:
    """Texts that one field may be, as one test for each way to compare; the rest is for _others."""
    groups: dict[tuple[str, bool, Shape], list[str]] = {}
    for child in children:
        if isinstance(child, Text) and (key := _kind(child)) is not None:
            groups.setdefault(key, []).append(_literal(child))
    for (field, cased, shape), literals in groups.items():
        for start in range(0, len(literals), ALIKE):
            yield field, not cased, _ONE_OF[shape](tuple(literals[start : start + ALIKE]))


def _others(children: Sequence[Node]) -> list[Node]:
    return [child for child in children if not isinstance(child, Text) or _kind(child) is None]


def _kind(leaf: Text) -> tuple[str, bool, Shape] | None:
    shape, _ = shape_of(leaf.parts)
    return (leaf.field, leaf.cased, shape) if shape in _ONE_OF else None


def _literal(leaf: Text) -> str:
    _, literal = shape_of(leaf.parts)
    return literal if leaf.cased else fold(literal)


def _contains(literals: tuple[str, ...]) -> Predicate:
    if len(literals) == 1:
        (only,) = literals
        return lambda text: only in text

    def run(text: str) -> bool:
        for literal in literals:  # noqa: SIM110 -- as above
            if literal in text:
                return True
        return False

    return run


_ONE_OF: Mapping[Shape, Callable[[tuple[str, ...]], Predicate]] = {
    Shape.EQUALS: lambda literals: frozenset(literals).__contains__,
    Shape.STARTS: lambda literals: lambda text: text.startswith(literals),
    Shape.ENDS: lambda literals: lambda text: text.endswith(literals),
    Shape.CONTAINS: _contains,
}


def _reference(leaf: Reference) -> Program:
    compare = _COMPARED[leaf.how]

    def bind(table: Table) -> RowTest:
        values, others = table.values(leaf.field, True), table.values(leaf.other, True)
        if values is NO_VALUES or others is NO_VALUES:
            return lambda row: False
        lists = table.is_list(leaf.field), table.is_list(leaf.other)

        def run(row: int) -> bool:
            ones, more = (
                found[row] or () if is_list else (found[row],) for found, is_list in zip((values, others), lists, strict=True)
            )
            return any(compare(one, other) for one in ones for other in more if one is not None and other is not None)

        return run

    return bind


_COMPARED: Mapping[str, Callable[[str, str], bool]] = {
    "equals": str.__eq__,
    "starts": str.startswith,
    "ends": str.endswith,
    "contains": str.__contains__,
}


def test_of(leaf: Leaf) -> tuple[str, bool, Predicate]:
    """The field of a leaf, whether it wants its text folded, and the test of one text that is there."""
    match leaf:
        case Text(field, parts, cased):
            return field, not cased, _pattern(parts, cased)
        case Keyword(parts, cased):
            return WHOLE, not cased, _inside(parts, cased)
        case Regex(field, pattern):
            return field or WHOLE, False, Pattern(pattern)
        case Number(field, value):
            return field, True, _number(value)
        case Compare(field, name, value):
            return field, True, _compare(name, value)
        case Cidr(field, network):
            return field, True, _in_network(network)
        case Boolean(field, value):
            return field, True, str(value).lower().__eq__
        case Exists(field):
            return field, True, lambda _: True
        case TimePart(field, part, value):
            return field, False, lambda text: _part_of(text, part) == value
        case _:
            raise TypeError(leaf)


def _pattern(parts: Parts, cased: bool) -> Predicate:
    shape, literal = shape_of(parts)
    if shape in _ONE_OF:
        return _ONE_OF[shape]((literal if cased else fold(literal),))
    return (lambda _: True) if shape is Shape.ANY else _wildcards(parts, cased, anchored=True)


def _inside(parts: Parts, cased: bool) -> Predicate:
    """A keyword is found anywhere, so wildcards at its ends say nothing."""
    texts = [part for part in parts if isinstance(part, str)]
    if len(parts) == 1 and texts:
        return _contains((texts[0] if cased else fold(texts[0]),))
    return _wildcards(parts, cased, anchored=False)


def _wildcards(parts: Parts, cased: bool, anchored: bool) -> Predicate:
    """In time linear in the text, whatever the pattern."""
    inner = "".join(
        re2.escape(part if cased else fold(part)) if isinstance(part, str) else ".*" if part.value == "*" else "."
        for part in parts
    )
    return Pattern(f"(?s)\\A(?:{inner})\\z" if anchored else f"(?s){inner}")


class Pattern:
    """A regular expression of RE2. Of a value for which it would do more than MAX_READ_WORK it reads the beginning."""

    def __init__(self, pattern: str) -> None:
        self._set = re2.Set.SearchSet()  # of one: half the cost of a search, for it makes no match object
        self._set.Add(pattern)
        self._set.Compile()
        self.instructions = max(re2.compile(pattern, _OPTIONS).programsize, 1)
        self.most = MAX_READ_WORK // self.instructions

    def __call__(self, text: str) -> bool:
        """True where it is found."""
        return bool(self._set.Match(text if len(text) <= self.most else text[: self.most]))


_OPTIONS = re2.Options()
_OPTIONS.max_mem = 8 << 20


def metered(test: Predicate, budget: Budget) -> Predicate:
    """The same test; what a regular expression does counts, and long text."""
    if not isinstance(test, Pattern):

        def plain(text: str) -> bool:
            if len(text) > LONG_CHARS:
                budget.spend(len(text) * _LONG_WORK)
            return test(text)

        return plain
    instructions, most = test.instructions, test.most

    def run(text: str) -> bool:
        found = test(text)
        budget.cut += len(text) > most
        budget.spend(instructions * len(text))
        return found

    return run


def _number(value: float) -> Predicate:
    digits = str(value)
    if isinstance(value, int):
        return digits.__eq__
    return lambda text: text == digits or _to_number(text) == value


def _compare(name: str, value: float) -> Predicate:
    compare: Callable[[float, float], bool] = getattr(operator, _OPERATORS[name])

    def run(text: str) -> bool:
        number = _to_number(text)
        return number is not None and compare(number, value)

    return run


_OPERATORS = {"lt": "lt", "lte": "le", "gt": "gt", "gte": "ge", "neq": "ne"}
_INTEGER = re.compile(r"[-+]?\d{1,18}", re.ASCII)


def _to_number(text: str) -> float | None:
    try:
        number = int(text) if _INTEGER.fullmatch(text) else float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _in_network(network: str) -> Predicate:
    base, _, size = network.partition("/")
    start = _packed(base) or b""
    bits = len(start) * 8 - int(size)
    prefix = int.from_bytes(start, "big") >> bits

    def run(text: str) -> bool:
        packed = _packed(text)
        return packed is not None and len(packed) == len(start) and int.from_bytes(packed, "big") >> bits == prefix

    return run


@lru_cache(maxsize=65_536)
def _packed(text: str) -> bytes | None:
    address = addresses.parse(text)
    if isinstance(address, int):
        return address.to_bytes(4, "big")
    return address[len(MAPPED_PREFIX) :] if address and address.startswith(MAPPED_PREFIX) else address


@lru_cache(maxsize=4096)
def _part_of(text: str, part: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment.astimezone(UTC) if moment.tzinfo else moment
    return moment.isocalendar().week if part == "week" else int(getattr(moment, part))
