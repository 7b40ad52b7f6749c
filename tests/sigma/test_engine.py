"""What rules match: by rows, by masks and by the engine with its scans, which must agree on every table."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence import addresses
from ringfence.sigma import rules, tree
from ringfence.sigma.engine import PIECE_BYTES, SAMPLE_EVERY, SAMPLE_ROWS, Engine
from ringfence.sigma.masks import Masks
from ringfence.sigma.rows import Pattern, program
from ringfence.sigma.rules import LogSource, Rule
from ringfence.sigma.table import WHOLE, Coded, Table


def table_of(events: list[dict[str, Any]]) -> Table:
    """Columns of some events; what an event lacks is null. Keywords see all text of it."""
    names = sorted({name for event in events for name in event})
    frame = pl.DataFrame({name: pl.Series([event.get(name) for event in events]) for name in names})
    whole = pl.Series(["\n".join(str(value) for value in event.values()) for event in events])
    return Table(len(events), lambda name: whole if name == WHOLE else frame[name] if name in frame.columns else None)


def rule_of(condition: tree.Node, id: str = "r") -> Rule:
    return Rule(id, "t", None, "low", None, (), LogSource(), condition, "r.yml", 1)


def by_engine(condition: tree.Node, table: Table) -> list[int]:
    return [row for match in Engine([rule_of(condition)]).match(table) for row in match.rows.tolist()]


def by_rows(condition: tree.Node, table: Table) -> list[int]:
    return list(filter(program(condition)(table), range(table.height)))


def by_masks(condition: tree.Node, table: Table) -> list[int]:
    return np.flatnonzero(Masks(table).of(condition)).tolist()


def matched(detection: str, *events: dict[str, Any], placeholders: dict[str, list[str]] | None = None) -> list[int]:
    """The events that a detection matches; all evaluators must say the same."""
    text = f"title: t\nlogsource: {{product: windows}}\ndetection:\n{detection}"
    loaded = rules.loads(text, "r.yml", placeholders)
    assert not loaded.refusals, loaded.refusals[0]
    (rule,) = loaded.rules
    table = table_of(list(events))
    found = by_rows(rule.condition, table)
    assert by_masks(rule.condition, table) == found
    assert by_engine(rule.condition, table) == found
    return found


CASES = [
    ("Image: 'C:\\Windows\\cmd.exe'", ["c:\\windows\\CMD.exe"], ["c:\\windows\\cmd.exe "]),
    ("Image|endswith: '\\cmd.exe'", ["C:\\x\\CMD.EXE"], ["cmd.exe", "\\cmd.exe.bak"]),
    ("Image|startswith: 'C:\\'", ["c:\\a"], ["xc:\\a", ""]),
    ("Image|contains: ' -enc '", ["x -ENC y"], ["x -enc", "-enc "]),
    ("Image|contains|all: [a, b]", ["bxa"], ["a", "b"]),
    ("Image|cased: Ab", ["Ab"], ["ab", "AB"]),
    ("Image|contains|cased: Ab", ["xAbx"], ["xabx"]),
    ("Image: 'a*c?e'", ["abbbcde", "ac\ne"], ["abcde ", "ace"]),
    ("Image: '*'", ["", "x"], [None]),
    ("Image: ''", [""], [None, "x"]),
    ("Image: null", [None], ["", "x"]),
    ("Image|exists: true", ["", "x"], [None]),
    ("Image|exists: false", [None], [""]),
    ("Image: 445", ["445", 445], ["4450", "0445", None]),
    ("Image: 1.5", ["1.5", 1.5, "1.50"], ["1", None]),
    ("Image|neq: 5", ["6", None], ["5"]),
    ("Image|gt: 5", ["6", 5.5], ["5", "x", None, "nan"]),
    ("Image|gte: 5", ["5"], ["4.9"]),
    ("Image|lt: 5", ["-1"], ["5"]),
    ("Image|lte: 5", ["5"], ["6", ""]),
    ("Image|cidr: 10.0.0.0/8", ["10.1.2.3", "::ffff:10.0.0.1"], ["11.0.0.1", "10.1", "x", None]),
    ("Image|cidr: 'fe80::/10'", ["fe80::1"], ["2001:db8::1", "10.0.0.1"]),
    ("Image|re: '^a+b$'", ["aab"], ["aabb", "AAB", None]),
    ("Image|re|i: '^a+b$'", ["AaB"], ["b"]),
    ("Image|re|i|m: '^b$'", ["a\nB\nc"], ["ab"]),
    ("Image|re|s: 'a.c'", ["a\nc"], ["abbc"]),
    ("Image|windash|contains: ' -f '", ["x /f y", "x -f y", "x \u2013f y"], ["x f y"]),
    ("Image|base64|contains: 'foo'", ["xxZm9vxx"], ["foo"]),
    ("Image|base64offset|contains: 'foobar'", ["Zm9vYmFy", "IGZvb2Jhcg"], ["foobar"]),
    ("Image|wide|base64offset|contains: 'ab'", ["YQBiA"], ["ab"]),
    ("Image|hour: 7", ["2026-11-25T07:44:23.123456Z", "2026-11-25T08:44:23+01:00"], ["2026-11-25T08:00:00Z", "x"]),
    ("Image|week: 48", ["2026-11-25T07:44:23Z"], ["2026-12-25T07:44:23Z"]),
    ("Image: true", [True, "true", "True"], [False, "yes", None]),
    ("Image|expand: '%hosts%'", ["srv1", "SRV2"], ["srv3"]),
    ("Image|expand: 'x%hosts%y'", ["xsrv1y"], ["srv1"]),
    ("Image: '\u03a3\u039f\u03a6\u039f\u03a3'", ["\u03c3\u03bf\u03c6\u03bf\u03c2"], ["\u03c3\u03bf\u03c6\u03bf"]),
    ("Image: 'a\\*b'", ["a*b"], ["axb"]),
]


@pytest.mark.parametrize(("item", "hits", "misses"), CASES, ids=[case[0] for case in CASES])
def test_a_modifier_matches_what_it_says(item: str, hits: list[Any], misses: list[Any]) -> None:
    for values, expected in ((hits, True), (misses, False)):
        for value in values:
            events = [{"Image": value}, {"Other": "x"}] if value is not None else [{"Other": "x"}]
            found = matched(f"  a:\n    {item}\n  condition: a\n", *events, placeholders={"hosts": ["srv1", "srv2"]})
            assert (0 in found) is expected, value


def test_any_element_of_a_list_counts() -> None:
    events: list[dict[str, Any]] = [{"Tags": ["a", "Bc"]}, {"Tags": ["x"]}, {"Tags": []}, {"Tags": None}]

    assert matched("  a: {Tags|endswith: bc}\n  condition: a\n", *events) == [0]
    assert matched("  a: {Tags|re: '^x'}\n  condition: a\n", *events) == [1]
    assert matched("  a: {Tags|re: '^x'}\n  condition: not a\n", *events) == [0, 2, 3]


@pytest.mark.parametrize(
    ("modifier", "expected"), [("fieldref", [0]), ("fieldref|startswith", [0, 1]), ("fieldref|endswith", [0, 2])]
)
def test_a_field_is_compared_with_another(modifier: str, expected: list[int]) -> None:
    events: list[dict[str, Any]] = [
        {"A": "X1", "B": "x1"},
        {"A": "x1y", "B": "x1"},
        {"A": "yx1", "B": "X1"},
        {"A": "x1"},
        {"A": "q", "B": "x1"},
    ]

    assert matched(f"  a: {{A|{modifier}: B}}\n  condition: a\n", *events) == expected


def test_keywords_are_found_in_any_text_of_an_event() -> None:
    events = [{"A": "x", "B": "say FOO now"}, {"A": "fo"}, {"A": "bar1baz"}]

    assert matched("  k: [foo, 'bar?baz']\n  condition: k\n", *events) == [0, 2]
    assert matched("  k: [foo]\n  condition: not k\n", *events) == [1, 2]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("1 of sel*", [0, 1, 2]),
        ("all of sel*", [2]),
        ("all of them", []),
        ("1 of them", [0, 1, 2, 3]),
        ("sel1 and not sel2", [0]),
        ("not (sel1 or sel2)", [3]),
    ],
)
def test_conditions_join_selections(condition: str, expected: list[int]) -> None:
    events = [{"A": "1"}, {"B": "1"}, {"A": "1", "B": "1"}, {"C": "1"}]
    detection = f"  sel1: {{A: 1}}\n  sel2: {{B: 1}}\n  other: {{C: 1}}\n  condition: {condition}\n"

    assert matched(detection, *events) == expected


def test_maps_of_a_list_are_alternatives() -> None:
    events = [{"A": "1", "B": "2"}, {"A": "1"}, {"C": "3"}]

    assert matched("  a: [{A: 1, B: 2}, {C: 3}]\n  condition: a\n", *events) == [0, 2]


def test_matches_come_in_the_order_of_the_rules() -> None:
    first, second = rule_of(tree.Text("A", ("x",)), "1"), rule_of(tree.Text("A", (tree.Wildcard.MANY, "y")), "2")
    found = Engine([first, second]).match(table_of([{"A": "y"}, {"A": "x"}, {"A": "xy"}]))

    assert [(match.rule.id, match.rows.tolist()) for match in found] == [("1", [1]), ("2", [0, 2])]


def test_a_sample_changes_anchors_but_no_match() -> None:
    condition = tree.And((tree.Text("A", (tree.Wildcard.MANY, "common-and-long")), tree.Text("B", ("rare",))))
    events = [{"A": "common-and-long", "B": "rare" if row % 500 == 0 else "no"} for row in range(SAMPLE_ROWS + 200)]
    engine, table = Engine([rule_of(condition)]), table_of(events)

    assert [match.rows.tolist() for match in engine.match(table)] == [[0, 500, 1000]]
    assert [match.rows.tolist() for match in engine.match(table)] == [[0, 500, 1000]]


def test_anchors_are_chosen_anew_when_events_change() -> None:
    condition = tree.And((tree.Text("A", ("one",)), tree.Text("B", ("other",))))
    engine = Engine([rule_of(condition)])
    before = table_of([{"A": "one", "B": "no"}] * SAMPLE_ROWS)
    after = table_of([{"A": "no", "B": "other"}] * SAMPLE_ROWS)

    engine.match(before)
    assert {literal.field for literal in engine.literals_scanned} == {"B"}
    for _ in range(SAMPLE_EVERY + 1):
        engine.match(after)
    assert {literal.field for literal in engine.literals_scanned} == {"A"}


REGEX = tree.Regex("A", "[ab]*a[ab]{300}c")


class Slow:
    """A clock that moves on by a second each time that it is looked at while it is wound up."""

    def __init__(self) -> None:
        self.now, self.is_wound = 0.0, False

    def __call__(self) -> float:
        self.now += self.is_wound
        return self.now


def test_a_rule_that_takes_too_long_is_suspended_and_named_once_and_the_others_go_on() -> None:
    named: list[str] = []
    clock = Slow()
    engine = Engine(
        [rule_of(REGEX, "slow"), rule_of(tree.Text("B", ("y",)), "good")],
        lambda field: True,
        lambda rule: named.append(rule.id),
        clock,
    )
    table = table_of([{"A": "b" * 9 + "a" + "b" * 300 + "c", "B": "x"}, {"A": "x", "B": "y"}])

    assert [match.rule.id for match in engine.match(table)] == ["slow", "good"]
    clock.is_wound = True
    assert engine.match(table) == []
    clock.is_wound = False

    assert named == ["slow", "good"]
    assert engine.match(table) == []
    assert [match.rule.id for match in Engine(engine.rules).match(table)] == ["slow", "good"]  # armed again


@pytest.mark.parametrize("rows", [3, 400], ids=["row by row", "as masks"])
def test_the_clock_is_looked_at_within_a_rule(rows: int) -> None:
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    condition = tree.And((tree.Exists("B"), REGEX))
    table = table_of([{"A": f"{row}" + "ab" * 2_000, "B": "x"} for row in range(rows)])
    Engine([rule_of(condition)], clock=clock).match(table)

    assert looks > rows


def test_of_a_long_value_a_regular_expression_reads_the_beginning_and_that_is_counted() -> None:
    most = Pattern(REGEX.pattern).most
    hit = "a" * 301 + "c"
    table = table_of([{"A": "x" * most + hit}, {"A": hit}])

    assert by_engine(REGEX, table) == [1]
    assert table.budget.cut == 1


def test_a_value_full_of_a_literal_is_scanned_in_pieces_and_found_across_them() -> None:
    condition = tree.Text("A", (tree.Wildcard.MANY, "needle", tree.Wildcard.MANY))
    events = [{"A": "n" * (PIECE_BYTES - 3) + "needle"}, {"A": "n" * PIECE_BYTES}, {"A": "NEEDLE"}]

    assert by_engine(condition, table_of(events)) == [0, 2]


def test_a_literal_that_fills_an_event_is_scanned_no_more_and_matches_as_before() -> None:
    many = tree.Wildcard.MANY
    conditions = [tree.Text("A", (many, text, many)) for text in ("a", "ab", "zz")]
    engine = Engine([rule_of(condition, str(number)) for number, condition in enumerate(conditions)])
    table = table_of([{"A": "a" * PIECE_BYTES}, {"A": "zz"}, {"A": "xab"}, {"A": "c"}])

    for _ in range(2):
        assert [(match.rule.id, match.rows.tolist()) for match in engine.match(table)] == [
            ("0", [0, 2]),
            ("1", [2]),
            ("2", [1]),
        ]
    assert {literal.text for literal in engine.literals_scanned} == {"ab", "zz"}


def test_literals_that_hold_another_one_are_not_scanned() -> None:
    many, texts = tree.Wildcard.MANY, ["a" * size for size in range(1, 5_000)]
    engine = Engine([rule_of(tree.Or(tuple(tree.Text("A", (many, text, many)) for text in [*texts, "b"])))])

    assert sorted(text for _, text, *_ in engine.literals_scanned) == ["a", "b"]
    assert [match.rows.tolist() for match in engine.match(table_of([{"A": "xax"}, {"A": "c"}, {"A": "B"}]))] == [[0, 2]]


def test_an_empty_table_has_no_match() -> None:
    assert Engine([rule_of(tree.ALWAYS)]).match(Table(0, lambda name: None)) == []


ALPHABET = "aAbB.\\ \u03c2\u03c3\u0130"
TEXTS = st.text(ALPHABET, max_size=6)
PARTS = st.lists(st.one_of(st.text(ALPHABET, min_size=1, max_size=3), st.sampled_from(tree.Wildcard)), max_size=4).map(tuple)
FIELDS = st.sampled_from(["A", "B", "C"])
LEAVES = st.one_of(
    st.builds(tree.Text, FIELDS, PARTS, st.booleans()),
    st.builds(tree.Keyword, PARTS.filter(bool), st.booleans()),
    st.builds(tree.Number, FIELDS, st.integers(0, 12)),
    st.builds(tree.Compare, FIELDS, st.sampled_from(["lt", "lte", "gt", "gte", "neq"]), st.integers(0, 12)),
    st.builds(tree.Exists, FIELDS),
    st.builds(tree.Reference, FIELDS, FIELDS, st.sampled_from(["equals", "starts", "ends", "contains"])),
    st.builds(tree.Regex, FIELDS, st.sampled_from(["a+b", "(?i)ab", "^a", "b$", "a|b", "(ab)?", "[ab]\\.", "\\bab"])),
)
NODES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(tree.And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(tree.Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(tree.Not, inner),
    ),
    max_leaves=6,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"A": TEXTS, "B": st.one_of(TEXTS, st.integers(0, 12).map(str)), "C": st.one_of(st.none(), TEXTS)}
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(NODES, EVENTS)
def test_all_evaluators_agree(condition: tree.Node, events: list[dict[str, Any]]) -> None:
    table = table_of(events) if any(events) else Table(len(events), lambda name: None)
    expected = by_rows(condition, table)

    assert by_masks(condition, table) == expected
    assert by_engine(condition, table) == expected
    assert by_engine(tree.simplified(condition), table) == expected


ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2]),
        st.sampled_from([0, 1, 2]),
        st.one_of(st.none(), st.integers(0, 12)),
        st.one_of(st.none(), st.integers(0, 2**32 - 1), st.sampled_from([0x0A000001, 0x0AFFFFFF])),
    ),
    min_size=1,
    max_size=8,
)
VALUES = pl.Series(["aB", None, "b\u03c2"])
TYPED = st.one_of(
    st.builds(tree.Text, st.sampled_from(["A", "B"]), PARTS, st.booleans()),
    st.builds(tree.Exists, st.sampled_from(["A", "B", "C", "D"])),
    st.builds(tree.Reference, st.just("A"), st.just("B"), st.sampled_from(["equals", "starts", "ends", "contains"])),
    st.builds(tree.Number, st.just("C"), st.one_of(st.integers(-1, 12), st.sampled_from([70_000, 2**63, 1.0]))),
    st.builds(
        tree.Compare,
        st.just("C"),
        st.sampled_from(["lt", "lte", "gt", "gte", "neq"]),
        st.one_of(st.integers(-1, 70_000), st.floats(0, 12)),
    ),
    st.builds(tree.Cidr, st.just("D"), st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "10.0.0.1/32", "fe80::/10"])),
)


@settings(max_examples=200, deadline=None)
@given(TYPED, ROWS)
def test_codes_and_numbers_give_what_their_text_gives(
    leaf: tree.Leaf, rows: list[tuple[int, int, int | None, int | None]]
) -> None:
    one, two, ports, numbers = zip(*rows, strict=True)
    coded = {"A": Coded(VALUES, np.array(one, np.uint16)), "B": Coded(VALUES, np.array(two, np.uint16))}
    four = pl.Series(numbers, dtype=pl.UInt32)
    columns = {"C": pl.Series(ports, dtype=pl.UInt16), "D": addresses.text(four, None)}
    table = Table(len(rows), columns.get, coded, lambda field: four if field == "D" else None)
    plain = Table(len(rows), lambda field: table.text(field))

    assert by_masks(leaf, table) == by_masks(leaf, plain) == by_rows(leaf, plain) == by_rows(leaf, table)
