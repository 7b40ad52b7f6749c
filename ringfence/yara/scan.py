"""Scans columns with a rule set: blocks where that is proven to miss nothing, value by value otherwise, within a budget.

Values are joined with newlines and scanned at once. Those in which a string of a matching rule begins are scanned again
alone, and only that counts. Rules that need it, and long values, are scanned value by value at once.

A scan runs in a thread of its own, because libyara cannot be stopped on time: it looks at the clock once in 4,096 bytes.
When one value or block, or all together, take BUDGET_SECS more than they may, the worker stops waiting. An inquest beside
it names the rules at fault; they are suspended, and the scan goes on without them. If it takes longer than INQUEST_SECS, the
rules that are scanned in the same way are set aside until it ends. One call of `scan` loses OVERTIME_SECS at most; what is
not scanned is counted.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import polars as pl
import yara

from ringfence.yara.blockwise import SEPARATOR
from ringfence.yara.inquest import ALLOWED_SECS_PER_BYTE, TIMEOUT_SECS, Finding, inquire
from ringfence.yara.rules import Rule, RuleSet

MAX_VALUE_BYTES = 1 << 20
BLOCK_VALUES = 1_000
BLOCK_BYTES = 512 << 10
LONG_VALUE_BYTES = 64 << 10
"""Longer values gain nothing from a block."""
MAX_SPANS = 16
BUDGET_SECS = 0.4
INQUEST_SECS = 0.4
OVERTIME_SECS = 1.0
REARM_SECS = 900.0
_UNIT_SECS = 1e-4
"""What any scan may take, beside what its bytes may take."""
_POLL_SECS = 0.02
_MAX_SLOWEST = 64
_MAX_STARTS = 4


class Found(NamedTuple):
    """A string of a rule: (offset, length) in bytes of where it was found, the first MAX_SPANS of them."""

    string: str
    spans: tuple[tuple[int, int], ...]


class Hit(NamedTuple):
    """A rule that matches the value of a column in a row."""

    row: int
    column: str
    rule: Rule
    strings: tuple[Found, ...]


class Suspension(NamedTuple):
    """A rule that broke its budget: how often so far, and when it is tried again, by the scanner's clock."""

    rule: Rule
    times: int
    until: float


class Unit(NamedTuple):
    """Values of one column that are scanned at once, and the row of each."""

    column: int
    rows: Sequence[int]
    data: Sequence[bytes]

    @property
    def size(self) -> int:
        """In bytes, without separators."""
        return sum(map(len, self.data))


class Scanner:
    """Scans with one rule set. `counts` counts everything that happens; `suspended` names rules by their id.

    A rule that was suspended is armed again after `rearm_secs`, and by making a new Scanner.
    """

    def __init__(
        self,
        loaded: RuleSet,
        rearm_secs: float = REARM_SECS,
        max_value_bytes: int = MAX_VALUE_BYTES,
        budget_secs: float = BUDGET_SECS,
        inquest_secs: float = INQUEST_SECS,
        overtime_secs: float = OVERTIME_SECS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.loaded = loaded
        self.counts: Counter[str] = Counter()
        self._max_value_bytes = max_value_bytes
        self._overtime_secs = overtime_secs
        self._order = {rule.id: number for number, rule in enumerate(loaded.rules)}
        limits = _Limits(rearm_secs, budget_secs, inquest_secs, clock)
        blockwise = [rule for rule in loaded.rules if not rule.by_value]
        by_value = [rule for rule in loaded.rules if rule.by_value]
        self._groups = (
            _Group(loaded, blockwise, _blocks, limits, self.counts),
            _Group(loaded, by_value, _singles, limits, self.counts),
        )

    @property
    def suspended(self) -> Mapping[str, Suspension]:
        """Rules that are not scanned for now."""
        return {id: suspension for group in self._groups for id, suspension in group.suspended.items()}

    def scan(self, frame: pl.DataFrame, columns: Sequence[str]) -> list[Hit]:
        """Hits in these columns of text or bytes, by row, column and rule. Columns that are absent are passed over."""
        present = [name for name in columns if name in frame.columns]
        whole = [self._values(number, frame[name]) for number, name in enumerate(present)]
        overtime = _Overtime(self._overtime_secs)
        found = [hit for group in self._groups for hit in group.scan(whole, overtime)]
        found.sort(key=lambda hit: (hit.row, hit.column, self._order[hit.rule.id]))
        self.counts["hits"] += len(found)
        return [Hit(hit.row, present[hit.column], hit.rule, hit.strings) for hit in found]

    def _values(self, column: int, series: pl.Series) -> Unit:
        """All values of a column but nulls; a list counts as its elements."""
        rows: Sequence[int] = range(len(series))
        if isinstance(series.dtype, pl.List):
            parts = series.to_frame("value").with_row_index("row").explode("value").drop_nulls()
            rows, series = parts["row"].to_list(), parts["value"]
        elif series.null_count():
            rows, series = series.is_not_null().arg_true().to_list(), series.drop_nulls()
        data = (series if series.dtype == pl.Binary else series.cast(pl.String).cast(pl.Binary)).to_list()
        self.counts["values"] += len(data)
        limit = self._max_value_bytes
        if max(map(len, data), default=0) > limit:
            self.counts["cut_values"] += sum(len(value) > limit for value in data)
            data = [value[:limit] for value in data]
        return Unit(column, rows, data)


class _Limits(NamedTuple):
    rearm_secs: float
    budget_secs: float
    inquest_secs: float
    clock: Callable[[], float]


@dataclass(slots=True)
class _Overtime:
    """What a call may still lose to hostile rules or values."""

    left: float


class _Found(NamedTuple):
    row: int
    column: int
    rule: Rule
    strings: tuple[Found, ...]


def _singles(whole: Unit) -> Iterator[Unit]:
    return (Unit(whole.column, (row,), (value,)) for row, value in zip(whole.rows, whole.data, strict=True))


def _blocks(whole: Unit) -> Iterator[Unit]:
    """A long value is a block of its own."""
    start = size = 0
    for number, length in enumerate(map(len, whole.data)):
        is_long = length > LONG_VALUE_BYTES
        if number > start and (is_long or number - start == BLOCK_VALUES or size + length > BLOCK_BYTES):
            yield _part(whole, start, number)
            start, size = number, 0
        size += length + len(SEPARATOR)
        if is_long:
            yield _part(whole, number, number + 1)
            start, size = number + 1, 0
    if start < len(whole.data):
        yield _part(whole, start, len(whole.data))


def _part(whole: Unit, start: int, stop: int) -> Unit:
    return Unit(whole.column, whole.rows[start:stop], whole.data[start:stop])


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Rules as libyara holds them, and the rules that may be reported, by namespace and identifier."""

    rules: yara.Rules
    reported: Mapping[tuple[str, str], Rule]

    def scan(self, unit: Unit, counts: Counter[str]) -> list[_Found]:
        """What is found in each value of a unit."""
        candidates = self._candidates(unit, counts) if len(unit.data) > 1 else (0,)
        return [found for number in candidates for found in self._value(unit, number, counts)]

    def _value(self, unit: Unit, number: int, counts: Counter[str]) -> Iterator[_Found]:
        """What is found in a value; of a long one only the first place of a string, if its rule asks for no more."""
        value = unit.data[number]
        matches, is_full = _match(self.rules, value, len(value) > LONG_VALUE_BYTES)
        counts["values_with_too_many_matches"] += is_full
        for match in matches:
            rule = self.reported.get((match.namespace, match.rule))
            if rule is not None:
                yield _Found(unit.rows[number], unit.column, rule, _strings(match))

    def _candidates(self, unit: Unit, counts: Counter[str]) -> Sequence[int]:
        """The values of a block in which a string begins; all of them where libyara does not say."""
        counts["blocks"] += 1
        try:
            matches, is_full = _match(self.rules, SEPARATOR.join(unit.data), False)
        except yara.TimeoutError:
            raise
        except yara.Error:  # such as too many states of an expression, which one value may not need
            matches, is_full = [], True
        if is_full:
            counts["blocks_scanned_by_value"] += 1
            return range(len(unit.data))
        offsets = _offsets(matches, _MAX_STARTS * len(unit.data))
        if offsets is None:
            return range(len(unit.data))
        if not offsets:
            return ()
        starts = list(accumulate((len(value) + len(SEPARATOR) for value in unit.data), initial=0))
        found = sorted({bisect_right(starts, offset) - 1 for offset in offsets})
        counts["values_scanned_again"] += len(found)
        return found


def _match(rules: yara.Rules, data: bytes, is_fast: bool) -> tuple[list[yara.Match], bool]:
    """Matches, and whether a string had more than libyara counts."""
    warnings: list[object] = []

    def warned(*about: object) -> int:
        warnings.append(about)
        return int(yara.CALLBACK_CONTINUE)

    return rules.match(data=data, timeout=TIMEOUT_SECS, fast=is_fast, warnings_callback=warned), bool(warnings)


def _offsets(matches: Sequence[yara.Match], limit: int) -> list[int] | None:
    """Where strings begin; None where these are so many that they would take longer to sort out than to scan all values."""
    found = [string.instances for match in matches for string in match.strings]
    if sum(map(len, found)) > limit:
        return None
    return [place.offset for places in found for place in places]


def _strings(match: yara.Match) -> tuple[Found, ...]:
    """The first places, for libyara gives them in their order."""
    return tuple(
        Found(string.identifier, tuple((place.offset, place.matched_length) for place in string.instances[:MAX_SPANS]))
        for string in match.strings
    )


class _Group:
    """Rules that are scanned in one way. At any time all are in force, some are suspended, or all wait for an inquest."""

    def __init__(
        self,
        loaded: RuleSet,
        rules: Sequence[Rule],
        units: Callable[[Unit], Iterator[Unit]],
        limits: _Limits,
        counts: Counter[str],
    ) -> None:
        self.suspended: dict[str, Suspension] = {}
        self._compile = loaded.compile
        self._rules = rules
        self._units = units
        self._limits = limits
        self._counts = counts
        self._times: Counter[str] = Counter()
        self._inquest: Future[Finding[Rule]] | None = None
        self._compiled = self._of(rules, loaded.compile(rules))

    def scan(self, columns: Sequence[Unit], overtime: _Overtime) -> list[_Found]:
        """What the rules in force find."""
        self._rearm()
        units = [unit for column in columns for unit in self._units(column)] if self._rules else []
        found: list[_Found] = []
        while units:
            budget = min(self._limits.budget_secs, overtime.left)
            if not self._is_ready() or budget <= 0:
                self._counts["unscanned_values"] += sum(len(unit.data) for unit in units)
                break
            run = _Run(self._compiled, units, budget)
            done, at_fault = run.wait()
            self._counts.update(dict(run.counts))
            found += [hit for hits in done for hit in hits]
            units = units[len(done) :]
            if at_fault:
                self._counts["overruns"] += 1
                overtime.left -= budget
                overtime.left -= self._begin_inquest(at_fault, min(self._limits.inquest_secs, overtime.left))
        return found

    def _in_force(self) -> list[Rule]:
        return [rule for rule in self._rules if rule.id not in self.suspended]

    def _of(self, rules: Sequence[Rule], compiled: yara.Rules) -> _Compiled:
        return _Compiled(compiled, {(rule.namespace, rule.identifier): rule for rule in rules})

    def _rearm(self) -> None:
        now = self._limits.clock()
        if any(suspension.until <= now for suspension in self.suspended.values()):
            self.suspended = {id: suspension for id, suspension in self.suspended.items() if suspension.until > now}
            rules = self._in_force()
            self._compiled = self._of(rules, self._compile(rules))

    def _begin_inquest(self, values: Sequence[bytes], wait_secs: float) -> float:
        """Let one begin and wait a while for it; the seconds that this took."""
        future: Future[Finding[Rule]] = Future()
        rules, data = self._in_force(), SEPARATOR.join(values)

        def work() -> None:
            try:
                future.set_result(inquire(self._compile, rules, data))
            except BaseException as error:
                future.set_exception(error)

        self._inquest = future
        threading.Thread(target=work, name="yara-inquest", daemon=True).start()
        start = time.monotonic()
        _wait(future, max(wait_secs, 0.0))
        return time.monotonic() - start

    def _is_ready(self) -> bool:
        """False while an inquest goes on; what one found takes effect here."""
        if self._inquest is None:
            return True
        if not self._inquest.done():
            return False
        finding, self._inquest = self._inquest.result(), None
        until = self._limits.clock() + self._limits.rearm_secs
        for rule in finding.culprits:
            self._times[rule.id] += 1
            self.suspended[rule.id] = Suspension(rule, self._times[rule.id], until)
        self._counts["suspensions"] += len(finding.culprits)
        self._counts["inquests_without_culprit"] += not finding.culprits
        self._compiled = self._of(self._in_force(), finding.rest)
        return True


class _Run:
    """Units scanned one after the other in a thread that can be left behind."""

    def __init__(self, compiled: _Compiled, units: Sequence[Unit], budget_secs: float) -> None:
        self.counts: Counter[str] = Counter()
        self._compiled = compiled
        self._units = units
        self._budget_secs = budget_secs
        self._done: list[list[_Found]] = []
        self._secs: list[float] = []
        self._started = time.monotonic()
        self._is_left = False
        self._end: Future[Sequence[bytes]] = Future()

    def wait(self) -> tuple[list[list[_Found]], Sequence[bytes]]:
        """What was found in each unit that was done, from the first one, and the values that broke the budget."""
        threading.Thread(target=self._work, name="yara-scan", daemon=True).start()
        while not _wait(self._end, _POLL_SECS):
            if time.monotonic() - self._started > self._budget_secs:
                self._is_left = True
                done = list(self._done)
                if len(done) < len(self._units):
                    return done, self._units[len(done)].data
        return self._done, self._end.result()

    def _work(self) -> None:
        try:
            self._end.set_result(self._at_fault())
        except BaseException as error:
            self._end.set_exception(error)

    def _at_fault(self) -> Sequence[bytes]:
        """Scan; the values of the unit that fails, or the slowest ones when all together take too long."""
        lost = 0.0
        for unit in self._units:
            self._started = start = time.monotonic()
            try:
                found = self._compiled.scan(unit, self.counts)
            except yara.Error:
                return unit.data
            if self._is_left:
                break
            self._done.append(found)
            self._secs.append(time.monotonic() - start)
            lost += max(self._secs[-1] - _UNIT_SECS - unit.size * ALLOWED_SECS_PER_BYTE, 0.0)
            if lost > self._budget_secs:
                return self._slowest()
        return ()

    def _slowest(self) -> Sequence[bytes]:
        numbers = sorted(range(len(self._secs)), key=self._secs.__getitem__, reverse=True)
        values = [value for number in numbers[:_MAX_SLOWEST] for value in self._units[number].data]
        return next(_blocks(Unit(0, range(len(values)), values))).data


def _wait(future: Future[Any], secs: float) -> bool:
    """Whether it is done within this time; what it came to is left in it."""
    return future in wait([future], secs).done
