"""How large a rule may be: far above what rules are (the largest of SigmaHQ in brackets), low enough to load and test in time."""

from __future__ import annotations

from typing import Any

from ringfence.sigma.tree import And, Node, Not, Or, Parts

MAX_CONDITION_CHARS = 8 * 1024
MAX_DEPTH = 48  # (7)
MAX_VALUES = 20_000  # (4,432) as often as the condition may name them
MAX_LEAVES = 10_000  # (4,432)
MAX_TEXT_CHARS = 8 * 1024  # (232)
MAX_WILDCARDS = 64  # (6)
MAX_FILLED = 1_000  # texts that the placeholders of one text may give
MAX_PROGRAM = 10_000  # (8,005) instructions of a regular expression


class TooLarge(Exception):
    """A rule is larger than may be; says what of it."""


def check_document(document: dict[str, Any]) -> None:
    """Before it is parsed: how often its condition may name how many values, and how deep they lie."""
    detection = document.get("detection")
    if not isinstance(detection, dict):
        return
    conditions = detection.get("condition", "")
    text = " ".join(map(str, conditions)) if isinstance(conditions, list) else str(conditions)
    _bound(len(text), MAX_CONDITION_CHARS, "characters of the condition")
    values = _values({name: value for name, value in detection.items() if name != "condition"})
    _bound(values, MAX_VALUES, "values")
    _bound(values * (text.count(" of ") + 1), MAX_VALUES * 8, "values times uses of them")


def _values(found: Any) -> int:
    """Values in lists and mappings; anchors of YAML make few bytes many, so counting ends where it is too much."""
    count, waiting = 0, [(found, 0)]
    while waiting:
        inner, depth = waiting.pop()
        _bound(depth, MAX_DEPTH, "levels")
        if isinstance(inner, (dict, list)):
            parts = list(inner.values() if isinstance(inner, dict) else inner)
            _bound(len(waiting) + len(parts), MAX_VALUES, "values")
            waiting += [(part, depth + 1) for part in parts]
        else:
            if isinstance(inner, str):
                _bound(len(inner), MAX_TEXT_CHARS, "characters of a value")
            count += 1
        _bound(count, MAX_VALUES, "values")
    return count


def check_text(parts: Parts) -> None:
    """A text with its placeholders filled."""
    _bound(sum(len(part) for part in parts if isinstance(part, str)), MAX_TEXT_CHARS, "characters of a value")
    _bound(sum(not isinstance(part, str) for part in parts), MAX_WILDCARDS, "wildcards of a value")


def check_filled(count: int) -> None:
    """What the placeholders of one text give."""
    _bound(count, MAX_FILLED, "texts by placeholders in one value")


def check_program(instructions: int) -> None:
    """A regular expression as RE2 compiles it."""
    _bound(instructions, MAX_PROGRAM, "instructions of a regular expression")


def check_tree(node: Node) -> None:
    """The parsed condition."""
    leaves, waiting = 0, [(node, 1)]
    while waiting:
        inner, depth = waiting.pop()
        _bound(depth, MAX_DEPTH, "levels of the condition")
        match inner:
            case And(children) | Or(children):
                waiting += [(child, depth + 1) for child in children]
            case Not(child):
                waiting.append((child, depth + 1))
            case _:
                leaves += 1
    _bound(leaves, MAX_LEAVES, "tests in the condition")


def _bound(count: int, most: int, what: str) -> None:
    if count > most:
        raise TooLarge(f"the rule is too large: more than {most:,} {what}")
