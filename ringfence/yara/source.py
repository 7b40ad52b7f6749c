"""YARA source text cut into its rules: where each stands, its strings, and the words of its condition.

yara-python shows no syntax tree. This reads as much of the grammar (YARA 4.5 documentation, "Writing YARA rules") as is
needed to blank single rules out of a file and to judge their strings and conditions. What it cannot read is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_TOKEN = re.compile(
    r"""
      (?P<space>\s+ | //[^\n]* | /\*.*?\*/)
    | (?P<text>"(?:[^"\\\n]|\\.)*")
    | (?P<name>[A-Za-z_]\w*)
    | (?P<variable>[$\#@!]\w*\*?)
    | (?P<number>0x[0-9A-Fa-f]+ | 0o[0-7]+ | \d+\.\d+ | \d+(?:KB|MB)?)
    | (?P<mark>==|!=|<=|>=|<<|>>|\.\. | [^\w\s/"])
    """,
    re.VERBOSE | re.DOTALL,
)
_REGEX = re.compile(r"/(?:[^/\\\n]|\\.)+/[is]{0,2}")
_HEX = re.compile(r"\{(?://[^\n]*|/\*.*?\*/|[^}/])*\}", re.DOTALL)
_MODIFIERS = frozenset({"ascii", "wide", "nocase", "fullword", "private", "xor", "base64", "base64wide"})


class Token(NamedTuple):
    """A word of the source: `kind` is text, regex, hex, name, variable, number or mark."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """The place behind it."""
        return self.start + len(self.text)


class Unreadable(Exception):
    """A source that is not understood, and the place where that begins."""

    def __init__(self, reason: str, place: int) -> None:
        super().__init__(reason)
        self.place = place


@dataclass(frozen=True, slots=True)
class StringText:
    """A string of a rule as it is written: its name with the `$`, its kind (text, hex or regex), body and modifiers."""

    name: str
    kind: str
    body: str
    modifiers: frozenset[str]


@dataclass(frozen=True, slots=True)
class RuleText:
    """A rule as it is written, and where: from `start` up to `end` of its source."""

    name: str
    start: int
    end: int
    is_private: bool
    is_global: bool
    strings: Sequence[StringText]
    condition: Sequence[Token]


@dataclass(frozen=True, slots=True)
class Import:
    """A module that a source wants, and the place of the statement."""

    module: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SourceText:
    """A whole file."""

    text: str
    rules: Sequence[RuleText]
    imports: Sequence[Import]

    def line(self, place: int) -> int:
        """Its number, from 1."""
        return self.text.count("\n", 0, place) + 1


def parse(text: str) -> SourceText:
    """Cut a source into rules. Raises Unreadable."""
    words = _Words(list(_tokens(text)), len(text))
    rules: list[RuleText] = []
    imports: list[Import] = []
    while (token := words.peek()) is not None:
        if token.text == "include":
            raise Unreadable("include is not allowed: list the other file, or the folder that holds both", token.start)
        if token.text == "import":
            words.next()
            module = words.next("text")
            imports.append(Import(module.text[1:-1], token.start, module.end))
        else:
            rules.append(_rule(words))
    return SourceText(text, tuple(rules), tuple(imports))


def blanked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """The text without what stands between these places; lines keep their numbers."""
    parts, place = [], 0
    for start, end in sorted(spans):
        parts += [text[place:start], re.sub(r"[^\n]", " ", text[start:end])]
        place = end
    return "".join([*parts, text[place:]])


def _tokens(text: str) -> Iterator[Token]:
    place, before = 0, ""
    while place < len(text):
        found = None
        if text[place] == "/" and text[place : place + 2] not in ("//", "/*"):  # division is a backslash
            found, kind = _REGEX.match(text, place), "regex"
        elif text[place] == "{" and before == "=":
            found, kind = _HEX.match(text, place), "hex"
        else:
            found = _TOKEN.match(text, place)
            kind = str(found.lastgroup) if found else ""
        if found is None:
            raise Unreadable(f"{text[place]!r} is not expected here", place)
        if kind != "space":
            before = found[0]
            yield Token(kind, before, place)
        place = found.end()


class _Words:
    """Tokens, one after the other."""

    def __init__(self, tokens: Sequence[Token], length: int) -> None:
        self._tokens = tokens
        self._next = 0
        self._length = length

    def peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def next(self, wanted: str = "") -> Token:
        """The next one; `wanted` is its kind or its text."""
        token = self.peek()
        if token is None:
            raise Unreadable("the file ends inside a rule", self._length)
        if wanted and wanted not in (token.kind, token.text):
            raise Unreadable(f"{token.text!r} stands where {wanted!r} is expected", token.start)
        self._next += 1
        return token

    def take(self, text: str) -> bool:
        """Whether this is next; then it is taken."""
        token = self.peek()
        is_next = token is not None and token.text == text
        self._next += is_next
        return is_next


def _rule(words: _Words) -> RuleText:
    flags: set[str] = set()
    first = words.next("name")
    token = first
    while token.text in ("private", "global"):
        flags.add(token.text)
        token = words.next("name")
    if token.text != "rule":
        raise Unreadable(f"{token.text!r} stands where 'rule' is expected", token.start)
    name = words.next("name").text
    if words.take(":"):
        while (token := words.next()).text != "{":
            if token.kind != "name":
                raise Unreadable(f"{token.text!r} is no tag", token.start)
    else:
        words.next("{")
    strings: list[StringText] = []
    if words.take("meta"):
        _skip_meta(words)
    if words.take("strings"):
        words.next(":")
        while (token := words.next()).kind == "variable":
            strings.append(_string(token.text, words))
    else:
        token = words.next()
    if token.text != "condition":
        raise Unreadable(f"{token.text!r} stands where 'condition' is expected", token.start)
    words.next(":")
    condition: list[Token] = []
    while (token := words.next()).text != "}":
        condition.append(token)
    is_private, is_global = "private" in flags, "global" in flags
    return RuleText(name, first.start, token.end, is_private, is_global, tuple(strings), tuple(condition))


def _skip_meta(words: _Words) -> None:
    words.next(":")
    while (token := words.peek()) is not None and token.text not in ("strings", "condition"):
        words.next("name")
        words.next("=")
        words.take("-")
        value = words.next()
        if value.kind not in ("text", "number") and value.text not in ("true", "false"):
            raise Unreadable(f"{value.text!r} is no value of meta", value.start)


def _string(name: str, words: _Words) -> StringText:
    words.next("=")
    body = words.next()
    if body.kind not in ("text", "hex", "regex"):
        raise Unreadable(f"{body.text!r} is no string", body.start)
    modifiers: set[str] = set()
    while (token := words.peek()) is not None and token.text in _MODIFIERS:
        modifiers.add(words.next().text)
        if words.take("("):
            while words.next().text != ")":
                pass
    return StringText(name, body.kind, body.text, frozenset(modifiers))
