"""Which rules may be scanned in blocks, and the proof by trial: blocks and single values give the same hits."""

from __future__ import annotations

import os
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.yara import rules, scan
from ringfence.yara.rules import RuleSet
from ringfence.yara.scan import Scanner

STRINGS = '$a = "abcd" $b = "bcde" wide ascii $c = { 61 62 [1-3] 64 65 }'


def reason(condition: str, strings: str = STRINGS, before: str = "") -> str:
    text = f"{before}\nrule tested {{ strings: {strings} condition: {condition} }}"
    loaded = rules.loads(text, variables={"is_on": True, "depth": 3, "site": "a"})
    assert not loaded.refusals, loaded.refusals[0]
    return loaded.rules[-1].by_value


@pytest.mark.parametrize(
    "condition",
    [
        "$a and $b and $c",
        "any of them",
        "all of them",
        "2 of them",
        "50% of them",
        "any of ($a, $b) and $c",
        "all of ($a*) or ($b and $c)",
        "#a >= 2 and $b and $c",
        "#a > 0 and $b and $c",
        "2 <= #a and 1 < #b and $c",
        "is_on and any of them",
        "depth >= 3 and any of them",
        'site == "b" and any of them',
        "any of them and (is_on or true)",
    ],
)
def test_conditions_that_only_ask_for_strings_are_proven(condition: str) -> None:
    assert reason(condition) == ""


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("any of them and not $a", "'not' in the condition"),
        ("filesize < 100 and any of them", "'filesize' in the condition"),
        ("any of them and filesize < 100", "'filesize' in the condition"),
        ("any of them and #a == 1", "a count with another bound than a lower one of 1 or more"),
        ("any of them and #a < 2", "a count with another bound than a lower one of 1 or more"),
        ("any of them and #a <= 2", "a count with another bound than a lower one of 1 or more"),
        ("any of them and #a >= 0", "a count with another bound than a lower one of 1 or more"),
        ("any of them and 2 > #a", "a count with another bound than a lower one of 1 or more"),
        ("any of them and #a in (0..10) == 1", "a count with another bound than a lower one of 1 or more"),
        ("any of them and $a at 0", "'at' in the condition"),
        ("any of them and $a in (0..10)", "'in' in the condition"),
        ("any of them in (0..10)", "'in' in the condition"),
        ("any of them at 0", "'at' in the condition"),
        ("none of them", "'none' in the condition"),
        ("0 of them", "'0 of' in the condition"),
        ("any of them and uint8(0) == 97", "'uint8' in the condition"),
        ("for any of them : ( $ )", "'for' in the condition"),
        ("for any i in (1..#a) : ( @a[i] < 10 ) and any of them", "'for' in the condition"),
        ("any of them and @a == 3", "'@a' in the condition"),
        ("any of them and !a[1] == 4", "'!a' in the condition"),
        ("is_on or any of them", "the condition can hold without a string"),
        ("true or any of them", "the condition can hold without a string"),
        ("any of them and depth == #a", "a variable is compared with more than a number or text"),
        ("any of them and defined $a", "'defined' in the condition"),
        ("any of them or other", "'other' in the condition"),
        ("any of them and any of (oth*)", "'of' over 'oth' in the condition"),
    ],
)
def test_other_conditions_are_not(condition: str, expected: str) -> None:
    assert reason(condition, before="rule other { condition: true }") == expected


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        ("/abc[^x]*d/", ""),
        ("/abc.*d/s", ""),
        (r"/abcd\$[$^]/", ""),
        (r"/\\babc/", ""),
        ("/abcd(ef|gh)+/ fullword", ""),
        ("/abcd[^x]*d/ fullword", "$a is a full word that may span lines"),
        (r"/abcd\s+d/ fullword", "$a is a full word that may span lines"),
        ("/abcd.*d/s fullword", "$a is a full word that may span lines"),
        ("/^abcd/", "$a is anchored"),
        ("/abcd$/", "$a is anchored"),
        (r"/\babcd/", "$a is anchored"),
        (r"/abcd\B/", "$a is anchored"),
        ('"abcd" private', "$a is private"),
        ('"abcd" xor fullword', "$a is a full word under xor"),
        ("{ 61 62 63 64 [0-300] 65 66 67 68 }", "$a has a long jump"),
        ("{ 61 62 63 64 [2-] 65 66 67 68 }", "$a has a long jump"),
        ("{ 61 62 63 64 [-] 65 66 67 68 }", "$a has a long jump"),
    ],
)
def test_strings_are_judged(string: str, expected: str) -> None:
    assert reason("$a", f"$a = {string}") == expected


def test_a_reference_is_as_good_as_the_rule_that_it_names() -> None:
    good, bad, private = (f"{word}rule other {{ strings: $x = \"abcd\" condition: $x {more} }}" for word, more in (
        ("", ""), ("", "and filesize < 9"), ("private ", ""),
    ))  # fmt: skip

    assert reason("other or $a", '$a = "bcde"', good) == ""
    assert reason("other or $a", '$a = "bcde"', bad) == "'other' in the condition"
    assert reason("other or $a", '$a = "bcde"', private) == "'other' in the condition"


def test_a_global_rule_decides_in_its_file() -> None:
    assert reason("$a", '$a = "bcde"', "global rule other { condition: filesize < 9 }") == "a global rule decides in its file"


LONG = os.environ.get("RINGFENCE_LONG") == "1"

WORDS = ["abca", "bcab", "cabc", "abcabc"]
MODIFIERS = ["", "nocase", "wide", "wide ascii", "fullword", "wide fullword", "xor", "xor(1-255)", "base64", "base64wide"]
REGEXES = [
    "abca[^c]*b", "abca.*c", "abca.{0,3}b", "abc(a|b)+", "bca[abc]{2,4}", "(abca|bcab)", r"abca\s+\w", r"abca\W*bc", "abca+?", "abca.*?b",
    "cabca?b?", "abca|^bcab", "abca$", r"\babca", r"abca\b", r"\Bbcab", r"abca\nbc",
]  # fmt: skip
HEXES = [
    "61 62 63 61",
    "61 62 ?? 61 62",
    "61 62 63 61 [0-4] 62",
    "61 62 63 61 (62 | 63 61)",
    "61 62 63 61 [2-] 62",
    "61 62 63 61 ~62",
]
STRING = st.one_of(
    st.builds('"{}" {}'.format, st.sampled_from(WORDS), st.sampled_from(MODIFIERS)),
    st.builds("/{}/{} {}".format, st.sampled_from(REGEXES), st.sampled_from(["", "s", "i"]), st.sampled_from(["", "fullword", "wide"])),
    st.sampled_from(HEXES).map("{{ {} }}".format),
)  # fmt: skip
MONOTONE = [
    "$a", "$b", "any of them", "all of them", "2 of them", "any of ($a, $b)", "#a >= 2", "#b > 0", "2 <= #b", "first", "is_on", "true",
]  # fmt: skip
OTHER = [
    "not $a", "$b at 0", "#a == 1", "filesize < 9", "uint8(0) == 97", "#b < 2", "$a in (0..4)", "none of them", "not first",
    "for any of them : ( @ > 2 )", "for all i in (1..#a) : ( @a[i] < 9 )",
]  # fmt: skip
LEAF = st.one_of(st.sampled_from(MONOTONE), st.sampled_from(OTHER))
CONDITION = st.recursive(
    LEAF, lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner), max_leaves=4
)
VALUE = st.one_of(
    st.text("abc", max_size=12).map(str.encode),
    st.lists(st.sampled_from([b"abca", b"bcab", b"cab", b" ", b"\n", b"a\0b\0c\0a\0", b"\0", b"YWJjYQ", b"ABCA"]), max_size=5).map(b"".join),
)  # fmt: skip


@settings(max_examples=1_000 if LONG else 60)
@given(st.lists(st.tuples(STRING, STRING, CONDITION), min_size=1, max_size=3), st.lists(VALUE, max_size=8))
def test_blocks_and_single_values_give_the_same_hits(texts: list[tuple[str, str, str]], values: list[bytes]) -> None:
    first = 'rule first { strings: $x = "bcab" condition: $x }'
    source = "\n".join(
        [first, *(f"rule r{number} {{ strings: $a = {a} $b = {b} condition: {how} or (2 of them and ($a or $b)) }}" for number, (a, b, how) in enumerate(texts))]
    )  # fmt: skip
    loaded = rules.loads(source, variables={"is_on": True})
    frame = pl.DataFrame({"value": pl.Series(values, dtype=pl.Binary)})

    assert Scanner(loaded).scan(frame, ["value"]) == by_value(loaded, frame)


def by_value(loaded: RuleSet, frame: pl.DataFrame) -> list[scan.Hit]:
    """The same hits by a scan of each value; they name the rules of `loaded`."""
    alone = replace(loaded, rules=tuple(replace(rule, by_value="here") for rule in loaded.rules))
    own = {rule.id: rule for rule in loaded.rules}
    return [hit._replace(rule=own[hit.rule.id]) for hit in Scanner(alone).scan(frame, ["value"])]


def test_the_trial_would_find_a_rule_that_is_wrongly_taken_for_proven() -> None:
    loaded = rules.loads('rule r { strings: $a = "abca" condition: $a at 0 }')
    wrong = replace(loaded, rules=tuple(replace(rule, by_value="") for rule in loaded.rules))
    frame = pl.DataFrame({"value": [b"x", b"abca"]})

    assert [hit.row for hit in by_value(loaded, frame)] == [1]
    assert Scanner(wrong).scan(frame, ["value"]) == []
