"""Rule files as text: where rules begin and end, and what is refused."""

from __future__ import annotations

import pytest
import yara

from ringfence.yara.source import Unreadable, blanked, parse

TEXT = r"""/* a comment with rule x { and "quotes" */
import "math"  // condition: }
private global rule first : one two
{
    meta:
        id = "a\"}{"
        count = -3
        is_good = true
    strings:
        $a = "x\\" nocase wide
        $b = /a\/b[^"}]+/is fullword
        $c = { 41 4? [2-3] (42 | 43) ~44 // } in a comment
               44 }
        $ = "anonymous" xor(1-3) private
    condition:
        any of them and filesize \ 2 > 1 and math.abs(1) == 1 and "a" matches /x}/
}
rule second { condition: first }
"""


def test_rules_are_found_with_their_strings() -> None:
    first, second = parse(TEXT).rules

    assert (first.name, first.is_private, first.is_global) == ("first", True, True)
    assert [(string.name, string.kind) for string in first.strings] == [
        ("$a", "text"),
        ("$b", "regex"),
        ("$c", "hex"),
        ("$", "text"),
    ]
    assert [sorted(string.modifiers) for string in first.strings] == [
        ["nocase", "wide"],
        ["fullword"],
        [],
        ["private", "xor"],
    ]
    assert TEXT[first.start :].startswith("private global rule first")
    assert TEXT[: first.end].endswith("/x}/\n}")
    assert [token.text for token in second.condition] == ["first"]


def test_imports_are_found() -> None:
    (wanted,) = parse(TEXT).imports

    assert (wanted.module, TEXT[wanted.start : wanted.end]) == ("math", 'import "math"')


def test_what_is_left_after_blanking_compiles_and_keeps_its_lines() -> None:
    _, second = parse(TEXT).rules
    text = blanked(TEXT, [(second.start, second.end)])

    assert [rule.identifier for rule in yara.compile(source=text)] == ["first"]
    assert text.count("\n") == TEXT.count("\n")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('include "x.yar"', "include is not allowed: list the other file, or the folder that holds both"),
        ("rule a { condition: true", "the file ends inside a rule"),
        ("rule a { condition: /* }", "'/' is not expected here"),
        ('rule a { strings: $a = "x', "'\"' is not expected here"),
        ("rule a : b, c { condition: true }", "',' is no tag"),
        ("rule a { strings: $a = 5 condition: $a }", "'5' is no string"),
        ("rule a { meta: b = c condition: true }", "'c' is no value of meta"),
        ("rule a { strings: $a = \"x\" }", "'}' stands where 'condition' is expected"),
        ("private a { condition: true }", "'a' stands where 'rule' is expected"),
        ("5", "'5' stands where 'name' is expected"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(text)

    assert str(caught.value) == reason
