"""The text that must occur wherever an expression matches."""

from __future__ import annotations

import pytest

from ringfence.sigma.required import literal_of


@pytest.mark.parametrize(
    ("pattern", "literal"),
    [
        ("abc", "abc"),
        ("(?i)abc", "abc"),
        ("a(?:bcd|efg)hi", "hi"),
        ("(?:powershell|pwsh)\\.exe -e", ".exe -e"),
        ("ab*cd", "cd"),
        ("ab(cde)+f", "cde"),
        ("ab(cde)?f", "ab"),
        ("a|b", ""),
        ("^abc$", "abc"),
        ("[ab]{3}", ""),
        ("a{2}", "a"),
        ("\\Qab\\E", ""),
        ("(", ""),
    ],
)
def test_the_longest_literal_that_is_needed(pattern: str, literal: str) -> None:
    assert literal_of(pattern) == literal
