"""The condition of a rule as a tree: what pySigma's classes say, reduced to the forms that the evaluators know.

Sigma 2.1, "Sigma rules specification", sections detection and modifiers. Text is compared without regard to case unless a
leaf is `cased`; both sides are folded by `fold`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Wildcard(Enum):
    """`*` and `?` of Sigma."""

    MANY = "*"
    ONE = "?"


Parts = tuple[str | Wildcard, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; a leaf about a missing field is false, so its opposite is true."""

    child: Node


@dataclass(frozen=True, slots=True)
class Text:
    """Text that equals a pattern with wildcards. A number is the text of its digits."""

    field: str
    parts: Parts
    cased: bool = False


@dataclass(frozen=True, slots=True)
class Keyword:
    """Text found anywhere in an event."""

    parts: Parts
    cased: bool = False


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression of RE2 found in a field, or anywhere in an event where the field is None."""

    field: str | None
    pattern: str


@dataclass(frozen=True, slots=True)
class Number:
    """A number that equals another; text counts if it is that number's digits."""

    field: str
    value: int | float


@dataclass(frozen=True, slots=True)
class Compare:
    """A number that lies before or behind another."""

    field: str
    operator: Literal["lt", "lte", "gt", "gte", "neq"]
    value: int | float


@dataclass(frozen=True, slots=True)
class Cidr:
    """An address in a network; an IPv4-mapped address counts as IPv4."""

    field: str
    network: str


@dataclass(frozen=True, slots=True)
class Boolean:
    """True or false, also as a word."""

    field: str
    value: bool


@dataclass(frozen=True, slots=True)
class Exists:
    """The field has a value, if it is text also an empty one."""

    field: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A field that equals another of the same event, or begins or ends with it; case does not count."""

    field: str
    other: str
    how: Literal["equals", "starts", "ends", "contains"]


@dataclass(frozen=True, slots=True)
class TimePart:
    """Minute, hour, day, ISO week, month or year of a time in UTC."""

    field: str
    part: Literal["minute", "hour", "day", "week", "month", "year"]
    value: int | float


Leaf = Text | Keyword | Regex | Number | Compare | Cidr | Boolean | Exists | Reference | TimePart
Node = And | Or | Not | Leaf

NEVER = Or(())
ALWAYS = And(())


def fold(text: str) -> str:
    """Text without regard to case, the same on both sides of a comparison: a final sigma is a sigma."""
    lower = text.lower()
    return lower if lower.isascii() else lower.replace("\u03c2", "\u03c3")


def leaves(node: Node) -> Iterator[Leaf]:
    """Every leaf, from left to right."""
    match node:
        case And(children) | Or(children):
            for child in children:
                yield from leaves(child)
        case Not(child):
            yield from leaves(child)
        case leaf:
            yield leaf


def simplified(node: Node) -> Node:
    """The same tree with ANDs in ANDs and ORs in ORs joined, and no group of one."""
    match node:
        case And(children) | Or(children):
            kind = type(node)
            flat: list[Node] = []
            for child in map(simplified, children):
                flat += child.children if isinstance(child, kind) else (child,)
            return flat[0] if len(flat) == 1 else kind(tuple(dict.fromkeys(flat)))
        case Not(child):
            inner = simplified(child)
            return inner.child if isinstance(inner, Not) else Not(inner)
        case leaf:
            return leaf


class Shape(Enum):
    """What a pattern asks for, if wildcards stand at its ends only."""

    EQUALS = "equals"
    STARTS = "startswith"
    ENDS = "endswith"
    CONTAINS = "contains"
    ANY = "any"
    MIXED = "mixed"


def shape_of(parts: Parts) -> tuple[Shape, str]:
    """The shape of a pattern, and its literal; for MIXED, the longest literal in it."""
    texts = [part for part in parts if isinstance(part, str)]
    if not texts:
        return (Shape.ANY if parts and set(parts) == {Wildcard.MANY} else Shape.MIXED if parts else Shape.EQUALS), ""
    if len(texts) > 1 or Wildcard.ONE in parts:
        return Shape.MIXED, max(texts, key=len)
    before, behind = parts[0] is not texts[0], parts[-1] is not texts[0]
    shapes = {
        (False, False): Shape.EQUALS,
        (False, True): Shape.STARTS,
        (True, False): Shape.ENDS,
        (True, True): Shape.CONTAINS,
    }
    return shapes[before, behind], texts[0]
