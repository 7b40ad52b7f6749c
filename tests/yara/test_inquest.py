"""The rules that make a scan slow are found and named."""

from __future__ import annotations

import random

import pytest

from ringfence.yara import inquest, rules
from ringfence.yara.inquest import allowed_secs, inquire, is_over

BOMB = "rule bomb { strings: $a = /aaaa(a|aa|aaa)+b/ condition: $a }"


def good(count: int) -> str:
    letters = random.Random(5)
    words = ["".join(letters.choices("cdefghijklm", k=8)) for _ in range(count)]
    return "\n".join(f'rule r{number} {{ strings: $a = "{word}" condition: $a }}' for number, word in enumerate(words))


def culprits(text: str, data: bytes) -> list[str]:
    loaded = rules.loads(text)
    assert not loaded.refusals
    finding = inquire(loaded.compile, loaded.rules, data)
    assert not is_over(finding.rest, data)
    return sorted(rule.identifier for rule in finding.culprits)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_a_slow_expression_is_named(count: int) -> None:
    assert culprits(f"{good(count)}\n{BOMB}", b"a" * (1 << 17)) == ["bomb"]


def test_two_are_named() -> None:
    assert culprits(f"{BOMB}\n{good(9)}\n{BOMB.replace('bomb', 'other')}", b"a" * (1 << 17)) == ["bomb", "other"]


def test_a_rule_is_found_by_halving_where_a_sample_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquest, "_SAMPLE_BYTES", (16,))

    assert culprits(f"{good(2)}\n{BOMB}", b"x" * 9_000 + b"a" * (1 << 15)) == ["bomb"]


def test_nobody_is_named_for_a_scan_that_is_fast_enough() -> None:
    assert culprits(f"{good(9)}\n{BOMB}", b"ordinary text " * 50) == []


def test_more_bytes_may_take_longer() -> None:
    assert allowed_secs(1 << 20) > allowed_secs(0) > 0
