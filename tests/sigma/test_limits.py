"""Hostile rules are refused while they are loaded, with what is too large of them."""

from __future__ import annotations

import pytest

from ringfence.sigma import limits, rules

HEAD = "title: t\nlogsource: {product: windows}\ndetection:\n"
LAUGHS = "".join(f"  l{number}: &l{number} [{', '.join(10 * [f'*l{number - 1}'])}]\n" for number in range(1, 9))

HOSTILE = {
    "condition": ("  a: {x: y}\n  condition: " + " and ".join(["a"] * 3_000), "characters of the condition"),
    "nested condition": ("  a: {x: y}\n  condition: " + "(" * 200 + "a" + ") or not a" * 200, "nested too deeply|levels|characters|parenthes"),
    "nested values": (f"  a: {'[' * 100}x{']' * 100}\n  condition: a", "levels"),
    "values": (f"  a: {{x|contains: [{', '.join(map(str, range(30_000)))}]}}\n  condition: a", "values"),
    "anchors of YAML": (f"  l0: &l0 [x]\n{LAUGHS}  condition: l8", "values"),
    "uses of values": (
        f"  a: {{x: [{', '.join(map(str, range(5_000)))}]}}\n  condition: {' and '.join(['1 of them'] * 100)}",
        "values times uses",
    ),
    "offsets of base64": (f"  a: {{x|base64offset|contains: [{', '.join(f'v{n}' for n in range(6_000))}]}}\n  condition: a", "tests in the condition"),
    "long text": (f"  a: {{x: {'y' * 20_000}}}\n  condition: a", "characters of a value"),
    "wildcards": (f"  a: {{x: '{'y*' * 2_000}'}}\n  condition: a", "wildcards of a value"),
    "a million wildcards": (f"  a: {{x: '{'?' * 1_000_000}'}}\n  condition: a", "characters of a value"),
    "placeholders": ("  a: {x|expand: '%n%%n%%n%%n%'}\n  condition: a", "texts by placeholders"),
    "placeholders that fill up": ("  a: {x|expand: '%long%%long%'}\n  condition: a", "characters of a value"),
    "program": ("  a: {x|re: '\\pL{20}'}\n  condition: a", "instructions of a regular expression"),
    "repetition": ("  a: {x|re: '((a{90}){90}){90}'}\n  condition: a", "repetition|RE2|invalid"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_rule_is_refused_by_what_is_too_large(kind: str) -> None:
    detection, reason = HOSTILE[kind]
    placeholders = {"n": [str(number) for number in range(10)], "long": ["x" * 5_000]}
    loaded = rules.loads(f"{HEAD}{detection}\n", "r.yml", placeholders)

    assert not loaded.rules
    (refusal,) = loaded.refusals
    assert any(word in refusal.reason for word in reason.split("|")), refusal.reason


def test_a_hostile_rule_leaves_its_neighbours_in_force() -> None:
    hostile, good = HOSTILE["values"][0], f"{HEAD}  a: {{x: y}}\n  condition: a\n"
    loaded = rules.loads(f"{HEAD}{hostile}\n---\n{good}", "r.yml")

    assert (len(loaded.rules), len(loaded.refusals)) == (1, 1)


def test_a_rule_as_large_as_they_come_is_loaded() -> None:
    values = ", ".join(f"v{number}" for number in range(5_000))
    loaded = rules.loads(f"{HEAD}  a: {{x|contains: [{values}]}}\n  condition: a\n", "r.yml")

    assert not loaded.refusals
    assert limits.MAX_LEAVES > 5_000
