"""All rules at once on a table of events: one scan of each text column for literals, then exact tests of the few rows left.

Of a rule's condition an *anchor* is drawn: literals of which at least one must occur, with the place where it must stand
in its value. Rows with none of them cannot match. Of several possible anchors that of an AND is the one with the fewest
hits in a sample of events; until there is one, that with the longest literals. Where events change, a new sample is taken. Rules without an anchor are read as masks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import ahocorasick_rs
import numpy as np

from ringfence.sigma.budget import Budget, Clock, Exhausted
from ringfence.sigma.masks import Masks
from ringfence.sigma.required import literal_of
from ringfence.sigma.rows import Program, program
from ringfence.sigma.rules import Rule
from ringfence.sigma.table import WHOLE, Joined, Rows, Table
from ringfence.sigma.tree import And, Keyword, Node, Number, Or, Regex, Shape, Text, fold, leaves, shape_of

SAMPLE_ROWS = 1_000
SAMPLE_EVERY = 64
"""Tables of that size or more between two samples, at least."""
CROWDED, CROWDED_SHARE = 4, 0.01
"""A new sample is due when a row is a candidate of so many times more rules than in the last one, and of this share of all."""
MASK_SHARE = 0.25
"""Where an anchor leaves more of the rows than this, masks are cheaper than a test of each."""
MANY_ROWS = 64
TESTS_EACH = 3_200
"""Tests of values between two looks at the clock: 0.1 s for values of 256 KiB, a millisecond for usual ones."""
PIECE_BYTES = 256 * 1024
CROWDED_HITS = 0.25
"""Hits for each byte of a piece; an event that is full of a literal must not hold the scan."""
"""What is scanned at once: each hit is a tuple for a while, and there may be as many as bytes."""


class Literal(NamedTuple):
    """A folded text that must occur in a field; at the start or the end of its value, or both."""

    field: str
    text: str
    at_start: bool
    at_end: bool


Anchor = frozenset[Literal]


class Match(NamedTuple):
    """The rows in which a rule holds, in ascending order."""

    rule: Rule
    rows: Rows


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Rule
    bind: Program
    is_anchored: bool
    rows_each: int


Weight = Callable[[Literal], float]


class Engine:
    """Rules on tables whose fields they name. `is_text` tells which fields are worth a scan.

    A rule that takes more than its time for a table (`ringfence/sigma/budget.py`) is suspended: it matches nothing any more.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        is_text: Callable[[str], bool] = lambda field: True,
        on_suspension: Callable[[Rule], None] = lambda rule: None,
        clock: Clock = time.thread_time,
    ) -> None:
        self._is_text = is_text
        self._on_suspension = on_suspension
        self._clock = clock
        self._suspended: set[int] = set()
        self._rules = [self._compiled(rule) for rule in rules]
        self._scans = self._scans_of(_shortness)
        self._since_sample = SAMPLE_EVERY
        self._limit = 0.0

    def _compiled(self, rule: Rule) -> _Compiled:
        is_anchored = _anchor(rule.condition, self._is_text, _shortness) is not None
        rows_each = max(TESTS_EACH // max(sum(1 for _ in leaves(rule.condition)), 1), 1)
        return _Compiled(rule, program(rule.condition), is_anchored, rows_each)

    @property
    def rules(self) -> list[Rule]:
        """Its rules, in their order."""
        return [compiled.rule for compiled in self._rules]

    @property
    def literals_scanned(self) -> set[Literal]:
        """What it looks for in every row."""
        return {literal for scan in self._scans for literal in scan.scanned()}

    def match(self, table: Table) -> list[Match]:
        """Every rule that holds somewhere, in the order of the rules."""
        budget = table.budget = Budget(self._clock)
        candidates = self._candidates(table)
        if table.height >= SAMPLE_ROWS:
            self._since_sample += 1
            if self._since_sample > SAMPLE_EVERY and _crowd(candidates, table) > self._limit:
                self._sample(table)
                candidates = self._candidates(table)
        tests = _Tests(table, [rows for rows in candidates.values() if not _is_dense(rows, table)])
        matches = []
        for number, compiled in enumerate(self._rules):
            rows = candidates.get(number) if compiled.is_anchored else np.arange(table.height)
            if rows is None or not len(rows) or number in self._suspended:
                continue
            try:
                with budget.rule(table.height):
                    rows = tests.of(compiled, rows)
            except Exhausted:
                self._suspended.add(number)
                self._on_suspension(compiled.rule)
                continue
            if len(rows):
                matches.append(Match(compiled.rule, rows))
        return matches

    def _candidates(self, table: Table) -> dict[int, Rows]:
        """For each rule with an anchor the rows that have it; rules without any such row are absent."""
        codes = [scan.codes(table, len(self._rules)) for scan in self._scans]
        pairs = np.unique(np.concatenate([*codes, np.zeros(0, np.int64)]))
        rules, rows = np.divmod(pairs, max(table.height, 1))
        edges = np.flatnonzero(np.diff(rules, prepend=-1, append=-1))
        return {
            int(rules[start]): rows[start:stop] for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        }

    def _scans_of(self, weight: Weight) -> list[_Scan]:
        wanted: dict[str, dict[Literal, list[int]]] = {}
        for number, compiled in enumerate(self._rules):
            for literal in _least(_anchor(compiled.rule.condition, self._is_text, weight) or frozenset()):
                wanted.setdefault(literal.field, {}).setdefault(literal, []).append(number)
        return [_Scan(field, literals) for field, literals in wanted.items()]

    def _sample(self, table: Table) -> None:
        """Choose anchors anew, by how often each literal occurs in some rows, spread over the table."""
        self._since_sample = 0
        every: dict[str, dict[Literal, list[int]]] = {}
        for compiled in self._rules:
            for literal in _literals(compiled.rule.condition, self._is_text):
                every.setdefault(literal.field, {})[literal] = [0]
        some = table.at(np.arange(SAMPLE_ROWS) * table.height // SAMPLE_ROWS)
        hits: dict[Literal, int] = {}
        for field, literals in every.items():
            hits |= _Scan(field, literals).hits(some)
        self._scans = self._scans_of(lambda literal: hits[literal] + _shortness(literal))
        self._limit = max(CROWDED * _crowd(self._candidates(some), some), CROWDED_SHARE * len(self._rules))


def _crowd(candidates: Mapping[int, Rows], table: Table) -> float:
    """The rules that a row is a candidate of, on average."""
    return sum(map(len, candidates.values())) / table.height


def _shortness(literal: Literal) -> float:
    return 1 / len(literal.text)


def _is_dense(rows: Rows, table: Table) -> bool:
    return len(rows) > MANY_ROWS and len(rows) >= MASK_SHARE * table.height


class _Tests:
    """Exact tests on a table: as masks where many of its rows are asked for, else row by row. Only rows that are a candidate
    of some rule are made Python's.
    """

    def __init__(self, table: Table, candidates: Sequence[Rows]) -> None:
        self._table, self._masks = table, Masks(table)
        self._rows = np.unique(np.concatenate([*candidates, np.zeros(0, np.int64)]))
        self._few = table.at(self._rows)

    def of(self, compiled: _Compiled, rows: Rows) -> Rows:
        """The rows in which the rule holds."""
        if _is_dense(rows, self._table):
            return rows[self._masks.of(compiled.rule.condition)[rows]]
        table, places = (self._few, np.searchsorted(self._rows, rows)) if compiled.is_anchored else (self._table, rows)
        test, places = compiled.bind(table), places.tolist()
        holds: list[bool] = []
        for start in range(0, len(places), compiled.rows_each):
            holds += map(test, places[start : start + compiled.rows_each])
            table.budget.look()
        return rows[np.array(holds, np.bool_)]


class _Scan:
    """One automaton for all literals that are wanted in one field."""

    def __init__(self, field: str, literals: dict[Literal, list[int]]) -> None:
        self._field = field
        self._literals = list(literals)
        texts = list(dict.fromkeys(literal.text.encode() for literal in literals))
        number = {text: place for place, text in enumerate(texts)}
        self._longest = max(map(len, texts))
        self._texts = texts
        self._use(np.zeros(0, np.int64))
        entries = sorted(
            (number[literal.text.encode()], literal.at_start, literal.at_end, rule, place)
            for place, (literal, rules) in enumerate(literals.items())
            for rule in rules
        )
        columns = np.array(entries, np.int64).reshape(-1, 5).T
        self._at_start, self._at_end = columns[1] > 0, columns[2] > 0
        self._of, self._rules, self._places = columns[0], columns[3], columns[4]
        self._first = np.searchsorted(columns[0], np.arange(len(texts) + 1))

    def _use(self, given_up: Rows) -> None:
        """Scan for all texts but those."""
        self._given_up = given_up
        self._scanned = np.setdiff1d(np.arange(len(self._texts)), given_up)
        wanted = [self._texts[place] for place in self._scanned.tolist()]
        self._automaton = ahocorasick_rs.BytesAhoCorasick(wanted) if wanted else None

    def _give_up(self, hits: Rows) -> None:
        """Scan no more for the texts that are found most often: every row becomes a candidate of their rules."""
        self._use(np.union1d(self._given_up, np.flatnonzero(hits >= min(hits.max(), PIECE_BYTES * CROWDED_HITS / 16))))

    def scanned(self) -> Iterator[Literal]:
        """The literals that it looks for still."""
        given_up = {self._texts[place] for place in self._given_up.tolist()}
        return (literal for literal in self._literals if literal.text.encode() not in given_up)

    def _rules_of(self, texts: Rows) -> Rows:
        return np.unique(self._rules[np.isin(self._of, texts)])

    def codes(self, table: Table, rules: int) -> Rows:
        """rule * height + row of each literal found where it must stand."""
        entries, rows = self._found(table)
        codes: Rows = self._rules[entries] * table.height + rows
        if not len(self._given_up):
            return codes
        return np.concatenate(
            [codes, np.add.outer(self._rules_of(self._given_up) * table.height, np.arange(table.height)).ravel()]
        )

    def hits(self, table: Table) -> dict[Literal, int]:
        """How often each literal was found."""
        entries, _ = self._found(table)
        counts = np.bincount(self._places[entries], minlength=len(self._literals))
        counts[self._places[np.isin(self._of, self._given_up)]] = table.height
        return dict(zip(self._literals, counts.tolist(), strict=True))

    def _found(self, table: Table) -> tuple[Rows, Rows]:
        """Entries of literals and the rows that have them; some more than once."""
        joined = table.joined(self._field)
        pieces = [] if joined is None else [self._piece(joined, start) for start in range(0, len(joined.data), PIECE_BYTES)]
        nothing = np.zeros(0, np.int64)
        return np.concatenate([nothing, *(entries for entries, _ in pieces)]), np.concatenate(
            [nothing, *(rows for _, rows in pieces)]
        )

    def _piece(self, joined: Joined, place: int) -> tuple[Rows, Rows]:
        """The same for what begins in a part of the text."""
        data = joined.data if len(joined.data) <= PIECE_BYTES else joined.data[place : place + PIECE_BYTES + self._longest]
        found = self._automaton.find_matches_as_indexes(data, overlapping=True) if self._automaton else []
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        texts, starts, ends = np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3).T
        texts, starts, ends = self._scanned[texts], starts + place, ends + place
        if len(found) > CROWDED_HITS * PIECE_BYTES:
            self._give_up(np.bincount(texts, minlength=len(self._texts)))
        values = np.searchsorted(joined.starts, starts, side="right") - 1
        at_start, at_end = joined.starts[values] == starts, joined.ends[values] == ends
        first, count = self._first[texts], self._first[texts + 1] - self._first[texts]
        of = np.repeat(np.arange(len(texts)), count)
        entries = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
        stands = (at_start[of] | ~self._at_start[entries]) & (at_end[of] | ~self._at_end[entries])
        rows = values if joined.rows is None else joined.rows[values]
        return entries[stands], rows[of[stands]]


def _least(anchor: Anchor) -> Iterator[Literal]:
    """Without literals in which another one occurs anyway: `a` makes `aa` and `aaa` needless, which would be hit as often."""
    free: dict[str, dict[bytes, None]] = {}
    for literal in anchor:
        if not (literal.at_start or literal.at_end):
            free.setdefault(literal.field, {})[literal.text.encode()] = None
    automata = {field: (list(texts), ahocorasick_rs.BytesAhoCorasick(list(texts))) for field, texts in free.items()}
    for literal in anchor:
        texts, automaton = automata.get(literal.field, ([], None))
        own = literal.text.encode()
        inner = automaton.find_matches_as_indexes(own) if automaton else []
        if not inner or (texts[inner[0][0]] == own and not (literal.at_start or literal.at_end)):
            yield literal


def _anchor(node: Node, is_text: Callable[[str], bool], weight: Weight) -> Anchor | None:
    """The lightest anchor of a condition; None where any row may match."""
    match node:
        case And(children):
            found = [anchor for child in children if (anchor := _anchor(child, is_text, weight)) is not None]
            return min(found, key=lambda anchor: sum(map(weight, anchor)), default=None)
        case Or(children):
            parts = [_anchor(child, is_text, weight) for child in children]
            return None if None in parts else frozenset[Literal]().union(*(part for part in parts if part is not None))
        case leaf:
            literal = _literal(leaf)
            return frozenset({literal}) if literal is not None and is_text(literal.field) else None


def _literals(node: Node, is_text: Callable[[str], bool]) -> Iterator[Literal]:
    """All that may become part of an anchor."""
    match node:
        case And(children) | Or(children):
            for child in children:
                yield from _literals(child, is_text)
        case leaf:
            literal = _literal(leaf)
            if literal is not None and is_text(literal.field):
                yield literal


def _literal(node: Node) -> Literal | None:
    match node:
        case Text(field, parts, _):
            shape, text = shape_of(parts)
            at_start, at_end = shape in (Shape.EQUALS, Shape.STARTS), shape in (Shape.EQUALS, Shape.ENDS)
            return Literal(field, fold(text), at_start, at_end) if text and "\0" not in text else None
        case Number(field, int(value)):
            return Literal(field, str(value), True, True)
        case Regex(field, pattern):
            text = literal_of(pattern)
            return Literal(field or WHOLE, fold(text), False, False) if text and "\0" not in text else None
        case Keyword(parts, _):
            _, text = shape_of(parts)
            return Literal(WHOLE, fold(text), False, False) if text and "\0" not in text else None
        case _:
            return None
