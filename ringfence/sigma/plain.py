"""JSON lines whose fields are named as rules name them, such as recorded Windows events: read for what rules ask, no more.

A field with dots is a key of that name, else a path into objects. Lines are decoded by a msgspec Struct that has only the
fields in use; the rest of a line is skipped. Numbers and booleans are text to a rule; an object is no value.

Sample: {"EventID":1,"Image":"C:\\\\Windows\\\\cmd.exe","CommandLine":"cmd /c whoami","userIdentity":{"type":"Root"}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl
from msgspec.structs import astuple

from ringfence.jsonlines import REFUSALS, decode_lines, explain
from ringfence.sigma.rules import Rule
from ringfence.sigma.table import WHOLE, Table
from ringfence.sigma.tree import Keyword, Regex, leaves

CHUNK_LINES = 1024


class Refused(NamedTuple):
    """A line that is no JSON object: its number in the block, the reason, and the byte in it."""

    row: int
    reason: str
    offset: int


class Events(NamedTuple):
    """The events of a block of lines, the line that each came from, and the lines that are none; blank ones are left out."""

    table: Table
    rows: Sequence[int]
    refused: Sequence[Refused]


class Reader:
    """Reads events for some rules; `more` are fields that are wanted beside theirs."""

    def __init__(self, rules: Iterable[Rule], more: Iterable[str] = ()) -> None:
        used = [leaf for rule in rules for leaf in leaves(rule.condition)]
        names = {name for leaf in used for name in (getattr(leaf, "field", None), getattr(leaf, "other", None)) if name}
        names |= set(more)
        self._wants_whole = any(isinstance(leaf, Keyword) or (isinstance(leaf, Regex) and leaf.field is None) for leaf in used)
        self._names = sorted(names | {name.split(".", 1)[0] for name in names})
        members = [(f"f{number}", Any, None) for number in range(len(self._names))]
        renamed = {f"f{number}": name for number, name in enumerate(self._names)}
        self._struct = msgspec.defstruct("Event", members, rename=renamed, gc=False)
        self._decoder = msgspec.json.Decoder(self._struct)

    def read(self, lines: Sequence[bytes]) -> Events:
        """The events of some lines."""
        columns: list[list[Any]] = [[] for _ in self._names]
        rows: list[int] = []
        refused: list[Refused] = []
        for start in range(0, len(lines), CHUNK_LINES):
            structs, bad = decode_lines(self._decoder, lines[start : start + CHUNK_LINES])
            refused += [self._refusal(start + row, lines[start + row]) for row in bad if lines[start + row].strip()]
            rows += [start + row for row, struct in enumerate(structs) if struct is not None]
            if good := [astuple(struct) for struct in structs if struct is not None]:
                for column, values in zip(columns, zip(*good, strict=True), strict=True):
                    column += values
        values_of = dict(zip(self._names, columns, strict=True))
        whole = [_text_of(lines[row]) for row in rows] if self._wants_whole else []
        return Events(Table(len(rows), lambda name: _column(name, values_of, whole)), rows, refused)

    def _refusal(self, row: int, line: bytes) -> Refused:
        _, reason, offset, _ = explain(self._decoder, line)
        return Refused(row, reason, offset)


def _column(name: str, values_of: Mapping[str, Sequence[Any]], whole: Sequence[str]) -> pl.Series | None:
    if name == WHOLE:
        return pl.Series(whole, dtype=pl.String) if whole else None
    if name not in values_of:
        return None
    values = values_of[name]
    if "." in name:
        first, *path = name.split(".")
        values = [_at(outer, path) if value is None else value for value, outer in zip(values, values_of[first], strict=True)]
    kinds = set(map(type, values))
    if kinds <= {str, type(None)}:
        return pl.Series(values, dtype=pl.String)
    if list in kinds:
        lists = [value if type(value) is list else None if value is None else [value] for value in values]
        return pl.Series(
            [None if value is None else [_word(one) for one in value] for value in lists], dtype=pl.List(pl.String)
        )
    return pl.Series(list(map(_word, values)), dtype=pl.String)


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        if type(value) is not dict:
            return None
        value = value.get(key)
    return value


def _word(value: Any) -> str | None:
    """A value as text; an object or a list in a list is none."""
    kind = type(value)
    if kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return "true" if value else "false"
    return str(value) if kind in (int, float) else None


def _text_of(line: bytes) -> str:
    """All text in an event. Escapes hide what keywords look for, so a line that has some is read."""
    if b"\\" not in line:
        return line.decode(errors="replace")
    try:
        return "\n".join(_texts_in(msgspec.json.decode(line)))
    except REFUSALS:
        return line.decode(errors="replace")


def _texts_in(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts_in(inner)
    elif (word := _word(value)) is not None:
        yield word
