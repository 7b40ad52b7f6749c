"""Which rules may be scanned over many values at once, joined by a newline.

Proven for a rule: where it holds for one value, it holds for every block with that value, and one of the strings that the
scan reports begins in the value. So a scan of the block misses nothing, and a scan of the values in which a string
begins decides. That needs strings whose matches only grow in number as bytes are added around the value, and a
condition that only asks for them to be there. Everything else, and everything that is not understood, is scanned value
by value: `not`, upper bounds, places, sizes, loops, modules, anchors, private strings and rules.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ringfence.yara.source import RuleText, StringText, Token

SEPARATOR = b"\n"
_CHAIN = 200
"""Longer jumps are matched in parts (STRING_CHAINING_THRESHOLD of libyara)."""
_ESCAPE = re.compile(r"\\.", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?[^\]]*\]")
_JUMP = re.compile(r"\[\s*(\d*)\s*(-?)\s*(\d*)\s*\]")
_NEWLINE_TAKERS = re.compile(r"\[|\\[sWDSxnB]")
"""In a regular expression, what may take the separator. A whole class counts, so that it need not be understood."""


class _Unproven(Exception):
    """Why a rule is not proven."""


def reason_against(rule: RuleText, proven: Collection[str], variables: Collection[str], siblings: Sequence[RuleText]) -> str:
    """Why the rule needs a scan of each value; empty when a scan of blocks will do.

    `proven` names the rules of its file for which that is known, `variables` the external ones, `siblings` are all rules
    of the file.
    """
    try:
        if any(other.is_global for other in siblings):
            raise _Unproven("a global rule decides in its file")
        if rule.is_private:
            raise _Unproven("the rule is private")
        for string in rule.strings:
            _check(string)
        if not _Condition(rule, proven, variables).needs_a_string():
            raise _Unproven("the condition can hold without a string")
    except _Unproven as error:
        return str(error)
    except RecursionError:
        return "the condition is nested too deeply"
    return ""


def _check(string: StringText) -> None:
    """A match inside a value must be one in the block, at the same place."""
    if "private" in string.modifiers:
        raise _Unproven(f"{string.name} is private")
    if {"xor", "fullword"} <= string.modifiers:
        raise _Unproven(f"{string.name} is a full word under xor")
    if string.kind == "hex":
        for low, dash, high in _JUMP.findall(string.body):
            if (dash and not high) or max(int(low or 0), int(high or 0)) >= _CHAIN:
                raise _Unproven(f"{string.name} has a long jump")
    if string.kind == "regex":
        _check_regex(string)


def _check_regex(string: StringText) -> None:
    body, _, flags = string.body[1:].rpartition("/")
    escapes = _ESCAPE.findall(body)
    plain = _CLASS.sub("", _ESCAPE.sub("x", body))
    if "^" in plain or "$" in plain or "\\b" in escapes or "\\B" in escapes:
        raise _Unproven(f"{string.name} is anchored")
    # in a block the longest match may end behind the value, and then at no end of a word
    if "fullword" in string.modifiers and ("s" in flags or _NEWLINE_TAKERS.search(body) or "\n" in body):
        raise _Unproven(f"{string.name} is a full word that may span lines")


class _Condition:
    """A reader of conditions by recursive descent that knows only the harmless forms.

    Each method tells whether what it read can hold only if a string was found.
    """

    def __init__(self, rule: RuleText, proven: Collection[str], variables: Collection[str]) -> None:
        self._tokens = rule.condition
        self._next = 0
        self._proven = proven
        self._variables = variables

    def needs_a_string(self) -> bool:
        needed = self._any()
        if self._peek():
            raise _Unproven(f"'{self._peek()}' in the condition")
        return needed

    def _any(self) -> bool:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return all(parts)

    def _all(self) -> bool:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return any(parts)

    def _one(self) -> bool:
        needed = self._leaf()
        if self._peek() not in ("", "and", "or", ")"):
            raise _Unproven(f"'{self._peek()}' in the condition")
        return needed

    def _leaf(self) -> bool:
        token = self._word()
        text = token.text
        if text == "(":
            needed = self._any()
            self._expect(")")
            return needed
        if token.kind == "variable":
            return self._count(text) if text[0] == "#" else self._is_string(text)
        if text in ("any", "all") or (token.kind == "number" and self._peek() in ("of", "%")):
            return self._several(text)
        if token.kind == "number":
            return self._least(token)
        if text in ("true", "false"):
            return False
        if token.kind == "name" and text in self._proven:
            return True
        if token.kind == "name" and text in self._variables:
            return self._constant()
        raise _Unproven(f"'{text}' in the condition")

    def _is_string(self, text: str) -> bool:
        if text[0] != "$" or text == "$" or text.endswith("*"):
            raise _Unproven(f"'{text}' in the condition")
        return True

    def _count(self, text: str) -> bool:
        """`#a >= 2`, `#a > 1`."""
        if text == "#":
            raise _Unproven("'#' in the condition")
        sign = self._word().text
        return self._at_least(sign, {">=": 0, ">": 1}, self._word())

    def _least(self, number: Token) -> bool:
        """`2 <= #a`, `1 < #a`."""
        sign = self._word().text
        count = self._word()
        if count.text[0] != "#" or count.text == "#":
            raise _Unproven(f"'{number.text}' in the condition")
        return self._at_least(sign, {"<=": 0, "<": 1}, number)

    def _at_least(self, sign: str, more: dict[str, int], number: Token) -> bool:
        if sign not in more or not number.text.isdecimal() or int(number.text) + more[sign] < 1:
            raise _Unproven("a count with another bound than a lower one of 1 or more")
        return True

    def _several(self, quantity: str) -> bool:
        """`any of them`, `2 of ($a*, $b)`, `50% of them`."""
        if quantity.isdecimal():
            if int(quantity) < 1:
                raise _Unproven("'0 of' in the condition")
            self._take("%")
        elif quantity not in ("any", "all"):
            raise _Unproven(f"'{quantity}' in the condition")
        self._expect("of")
        if self._take("them"):
            return True
        self._expect("(")
        while True:
            token = self._word()
            if token.kind != "variable" or token.text[0] != "$":
                raise _Unproven(f"'of' over '{token.text}' in the condition")
            if self._take(")"):
                return True
            self._expect(",")

    def _constant(self) -> bool:
        """A variable, alone or compared with a number or text: the same for a block as for its values."""
        if self._peek() in ("==", "!=", "<", "<=", ">", ">=", "contains", "icontains", "startswith", "endswith", "iequals"):
            self._word()
            if self._word().kind not in ("number", "text"):
                raise _Unproven("a variable is compared with more than a number or text")
        return False

    def _peek(self) -> str:
        return self._tokens[self._next].text if self._next < len(self._tokens) else ""

    def _word(self) -> Token:
        if self._next >= len(self._tokens):
            raise _Unproven("the condition ends early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _take(self, text: str) -> bool:
        is_next = self._peek() == text
        self._next += is_next
        return is_next

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise _Unproven(f"'{self._peek()}' where '{text}' is expected")
