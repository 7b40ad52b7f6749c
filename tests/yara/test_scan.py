"""Scans of columns: what a hit says, bounds, and budgets that hostile rules and values break."""

from __future__ import annotations

import time

import polars as pl
import pytest
import yara
from hypothesis import given
from hypothesis import strategies as st

from ringfence.yara import rules, scan
from ringfence.yara.inquest import Finding
from ringfence.yara.scan import Found, Scanner

TWO = """rule word { strings: $a = "abcd" condition: $a }
rule short { strings: $b = "abcd" condition: $b and filesize < 10 }
"""
BOMB = "rule bomb { strings: $a = /aaaa(a|aa|aaa)+b/ condition: $a }"
HOSTILE = "a" * (1 << 17)
PATIENT = {"inquest_secs": 60.0, "overtime_secs": 120.0}


def scanner(text: str, **options: float) -> Scanner:
    loaded = rules.loads(text)
    assert not loaded.refusals, loaded.refusals[0]
    return Scanner(loaded, **options)  # type: ignore[arg-type]


def test_a_hit_names_rule_row_column_and_places() -> None:
    frame = pl.DataFrame({"a": ["x", None, "-abcd-abcd-", "abcd"], "b": [b"\xffabcd", b"", None, b"y"], "c": [1, 2, 3, 4]})
    hits = scanner(TWO).scan(frame, ["b", "missing", "a"])

    assert [(hit.row, hit.column, hit.rule.identifier, hit.strings) for hit in hits] == [
        (0, "b", "word", (Found("$a", ((1, 4),)),)),
        (0, "b", "short", (Found("$b", ((1, 4),)),)),
        (2, "a", "word", (Found("$a", ((1, 4), (6, 4))),)),
        (3, "a", "word", (Found("$a", ((0, 4),)),)),
        (3, "a", "short", (Found("$b", ((0, 4),)),)),
    ]


def test_elements_of_lists_are_values() -> None:
    frame = pl.DataFrame({"a": [["x", "abcd"], [], None, ["abcd", "abcd", None]]})

    assert [hit.row for hit in scanner(TWO).scan(frame, ["a"]) if hit.rule.identifier == "word"] == [0, 3, 3]


def test_numbers_are_scanned_as_text() -> None:
    text = 'rule r { strings: $a = "1234" condition: $a }'

    assert [hit.row for hit in scanner(text).scan(pl.DataFrame({"n": [1, 12345, None]}), ["n"])] == [1]


def test_nothing_is_found_across_two_values() -> None:
    text = "rule r { strings: $a = /abcd[^x]*efgh/ condition: $a }"
    one = scanner(text)

    assert [hit.row for hit in one.scan(pl.DataFrame({"a": ["abcd", "efgh", "abcd\nefgh"]}), ["a"])] == [2]
    assert one.counts["values_scanned_again"] == 2


def test_places_are_capped() -> None:
    (hit,) = scanner('rule r { strings: $a = "abcd" condition: $a }').scan(pl.DataFrame({"a": ["abcd" * 99]}), ["a"])

    assert hit.strings[0].spans == tuple((4 * number, 4) for number in range(scan.MAX_SPANS))


def test_values_full_of_matches_are_scanned_alone_at_once() -> None:
    one = scanner('rule r { strings: $a = "abcd" condition: #a > 8 }')

    assert [hit.row for hit in one.scan(pl.DataFrame({"a": ["abcd" * 99, "abcd" * 8, "x"]}), ["a"])] == [0]


def test_long_values_are_cut_and_counted() -> None:
    one = scanner(TWO, max_value_bytes=100)
    frame = pl.DataFrame({"a": ["abcd" + "x" * 200, "x" * 98 + "abcd"]})

    assert [hit.row for hit in one.scan(frame, ["a"])] == [0]
    assert one.counts["cut_values"] == 2


@given(st.lists(st.integers(0, 40), max_size=30))
def test_blocks_hold_every_value_once_and_in_order(sizes: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "BLOCK_BYTES", 50)
        patch.setattr(scan, "BLOCK_VALUES", 5)
        patch.setattr(scan, "LONG_VALUE_BYTES", 30)
        blocks = list(scan._blocks(scan.Unit(0, range(len(sizes)), [b"x" * size for size in sizes])))

    assert [row for block in blocks for row in block.rows] == list(range(len(sizes)))
    assert all(len(block.data) <= 5 and (len(block.data) == 1 or block.size <= 50) for block in blocks)
    assert all(len(block.data) == 1 for block in blocks if max(map(len, block.data)) > 30)


def test_a_block_with_more_matches_than_libyara_counts_is_scanned_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    one, match = scanner('rule r { strings: $a = "aaaa" condition: #a >= 8 }'), scan._match
    monkeypatch.setattr(scan, "_match", lambda rules, data, is_fast: (match(rules, data, is_fast)[0], b"\n" in data))

    assert [hit.row for hit in one.scan(pl.DataFrame({"a": ["a" * 11, "b", "a" * 10]}), ["a"])] == [0]
    assert one.counts["blocks_scanned_by_value"] == 1


def test_a_hostile_rule_is_suspended_and_named_and_the_others_go_on() -> None:
    one = scanner(TWO + BOMB, budget_secs=0.1, **PATIENT)
    frame = pl.DataFrame({"a": ["abcd", HOSTILE, "-abcd"]})
    hits = one.scan(frame, ["a"])

    assert list(one.suspended) == ["text:bomb"]
    assert (one.counts["overruns"], one.counts["suspensions"]) == (1, 1)
    assert {hit.row for hit in hits if hit.rule.identifier == "word"} <= {0, 2}
    assert [hit.row for hit in one.scan(frame, ["a"]) if hit.rule.identifier == "word"] == [0, 2]
    assert one.counts["overruns"] == 1


def test_a_hostile_rule_that_is_scanned_by_value_is_suspended_too() -> None:
    one = scanner(TWO + BOMB.replace("condition: $a", "condition: $a and filesize > 1"), budget_secs=0.1, **PATIENT)
    one.scan(pl.DataFrame({"a": ["abcd", HOSTILE]}), ["a"])

    assert list(one.suspended) == ["text:bomb"]


def test_many_values_that_are_slow_together_are_noticed() -> None:
    one = scanner(TWO + BOMB.replace("condition: $a", "condition: $a and filesize > 1"), budget_secs=0.2, **PATIENT)
    one.scan(pl.DataFrame({"a": ["a" * 900] * 3_000}), ["a"])

    assert list(one.suspended) == ["text:bomb"]


def test_rules_are_set_aside_while_an_inquest_goes_on_and_return_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    release: list[bool] = []

    def slow_inquiry(compile: object, found: list[rules.Rule], data: bytes) -> Finding[rules.Rule]:
        while not release:
            time.sleep(0.01)
        return Finding((), rules.loads(TWO).compile(found))

    one = scanner(TWO, inquest_secs=0.01)
    frame = pl.DataFrame({"a": ["abcd", "b"]})
    monkeypatch.setattr(scan, "inquire", slow_inquiry)
    monkeypatch.setattr(scan._Compiled, "scan", lambda self, unit, counts: (_ for _ in ()).throw(yara.TimeoutError()))
    assert one.scan(frame, ["a"]) == []
    assert (one.counts["overruns"], one.counts["unscanned_values"]) == (2, 4)

    monkeypatch.undo()
    assert one.scan(frame, ["a"]) == []
    assert one.counts["unscanned_values"] == 8

    release.append(True)
    while one.counts["unscanned_values"] == 8 and len(one.scan(frame, ["a"])) < 2:
        one.counts["unscanned_values"] = 8
        time.sleep(0.01)
    assert len(one.scan(frame, ["a"])) == 2
    assert one.counts["inquests_without_culprit"] == 2


def test_a_rule_is_armed_again_in_time() -> None:
    now = [0.0]
    one = Scanner(
        rules.loads(TWO + BOMB), rearm_secs=60.0, budget_secs=0.1, clock=lambda: now[0], inquest_secs=60.0, overtime_secs=120.0
    )
    hostile = pl.DataFrame({"a": [HOSTILE]})
    one.scan(hostile, ["a"])
    assert [(found.times, found.until) for found in one.suspended.values()] == [(1, 60.0)]

    now[0] = 61.0
    one.scan(pl.DataFrame({"a": ["x"]}), ["a"])
    assert not one.suspended
    one.scan(hostile, ["a"])
    assert [(found.times, found.until) for found in one.suspended.values()] == [(2, 121.0)]


def test_no_rules_find_nothing() -> None:
    assert scanner("").scan(pl.DataFrame({"a": ["abcd"]}), ["a"]) == []
