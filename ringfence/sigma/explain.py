"""Why a rule holds for an event or not: its condition with what each part says of one row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ringfence.sigma.rows import RowTest, program
from ringfence.sigma.table import Table
from ringfence.sigma.tree import And, Keyword, Leaf, Node, Not, Or, Reference, Text, Wildcard


def lines(node: Node, table: Table, row: int, depth: int = 0) -> Iterator[tuple[bool, int, str]]:
    """For each part, outermost first: whether it holds, how deep it lies, and what it is with the value that it saw."""
    holds = program(node)(table)(row)
    match node:
        case And(children) | Or(children):
            yield holds, depth, "all of" if isinstance(node, And) else "any of"
            for child in children:
                yield from lines(child, table, row, depth + 1)
        case Not(child):
            yield holds, depth, "not"
            yield from lines(child, table, row, depth + 1)
        case leaf:
            yield holds, depth, f"{described(leaf)}{_seen(leaf, table, row)}"


def fields(node: Node, table: Table) -> Callable[[int], dict[str, Any]]:
    """For a row where the condition holds: the fields whose values made it so, with these values."""
    match node:
        case And(children):
            return _merged([fields(child, table) for child in children])
        case Or(children):
            return _those_that_hold([(program(part)(table), fields(child, table)) for part, child in _parts(children)])
        case Not() | Keyword():
            return lambda row: {}
        case leaf:
            names = [name for name in (leaf.field, getattr(leaf, "other", None)) if name]
            columns = [(name, table.values(name, False)) for name in names]
            return lambda row: {name: values[row] for name, values in columns if values and values[row] is not None}


def _parts(children: Sequence[Node]) -> Iterator[tuple[Node, Node]]:
    """What must hold, and what its fields are read of: of texts that one field may be any will do, tested at once."""
    texts: dict[str, list[Text]] = {}
    for child in children:
        if isinstance(child, Text):
            texts.setdefault(child.field, []).append(child)
        else:
            yield child, child
    yield from ((Or(tuple(alike)), alike[0]) for alike in texts.values())


def _merged(parts: Sequence[Callable[[int], dict[str, Any]]]) -> Callable[[int], dict[str, Any]]:
    return lambda row: {name: value for part in parts for name, value in part(row).items()}


def _those_that_hold(parts: Sequence[tuple[RowTest, Callable[[int], dict[str, Any]]]]) -> Callable[[int], dict[str, Any]]:
    return lambda row: {name: value for holds, part in parts if holds(row) for name, value in part(row).items()}


def described(leaf: Leaf) -> str:
    """A leaf in the words of Sigma."""
    match leaf:
        case Text(field, parts, cased):
            return f"{field}{'|cased' if cased else ''}: {_pattern(parts)}"
        case Keyword(parts, cased):
            return f"keyword{'|cased' if cased else ''}: {_pattern(parts)}"
        case Reference(field, other, how):
            return f"{field}|fieldref{'' if how == 'equals' else f'|{how}'}: {other}"
        case _:
            values = {name: getattr(leaf, name) for name in type(leaf).__slots__ if name != "field"}
            words = ", ".join(str(value) for value in values.values())
            return f"{leaf.field or 'keyword'}|{type(leaf).__name__.lower()}{f': {words}' if words else ''}"


def _pattern(parts: tuple[str | Wildcard, ...]) -> str:
    return repr(
        "".join(part.replace("*", "\\*").replace("?", "\\?") if isinstance(part, str) else part.value for part in parts)
    )


def _seen(leaf: Leaf, table: Table, row: int) -> str:
    if isinstance(leaf, Keyword) or leaf.field is None:
        return ""
    value = _value(leaf.field, table, row)
    return " (no such field)" if value is None else f" (is {value!r})"


def _value(field: str, table: Table, row: int) -> Any:
    values = table.values(field, False)
    return values[row] if row < len(values) else None
