"""Which part of a rule holds for an event."""

from __future__ import annotations

from ringfence.sigma import explain, rules
from ringfence.sigma.plain import Reader

RULE = """title: t
logsource: {product: x}
detection:
  a: {Image|endswith: '\\cmd.exe', User: [ann, bob]}
  b: {Port|gt: 1024}
  k: [whoami]
  condition: (a or b) and not k
"""


def explained(line: bytes) -> list[str]:
    loaded = rules.loads(RULE)
    table = Reader(loaded.rules).read([line]).table
    return [
        f"{'+' if holds else '-'} {depth} {text}" for holds, depth, text in explain.lines(loaded.rules[0].condition, table, 0)
    ]


def test_every_part_says_whether_it_holds_and_what_it_saw() -> None:
    assert explained(b'{"Image":"C:\\\\cmd.exe","User":"eve"}') == [
        "- 0 all of",
        "- 1 any of",
        "- 2 all of",
        "+ 3 Image: '*\\\\cmd.exe' (is 'C:\\\\cmd.exe')",
        "- 3 any of",
        "- 4 User: 'ann' (is 'eve')",
        "- 4 User: 'bob' (is 'eve')",
        "- 2 Port|compare: gt, 1024 (no such field)",
        "+ 1 not",
        "- 2 keyword: 'whoami'",
    ]


def test_the_fields_that_matched_are_those_of_the_parts_that_hold() -> None:
    loaded = rules.loads(RULE)
    table = Reader(loaded.rules).read([b'{"Image":"C:\\\\cmd.exe","User":"eve","Port":2000}']).table

    assert explain.fields(loaded.rules[0].condition, table)(0) == {"Port": "2000"}
