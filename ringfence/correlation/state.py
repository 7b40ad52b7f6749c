"""One correlation: what waits, its groups, and who fires.

Groups with fewer events than could ever fire are *cold*: their rows lie in a log of columns, and only counted. A group that
may fire becomes *hot*: its rows of the log become a window, and each of its events is judged. The counts of cold groups are
too high rather than too low, so which groups are hot changes no detection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from ringfence.correlation.detections import Detection, Entry, detection
from ringfence.correlation.groups import OVER, Groups
from ringfence.correlation.matches import Integers, Matches, rows_of, values_of
from ringfence.correlation.waiting import Waiting
from ringfence.correlation.windows import Bound, Window, window_for
from ringfence.sigma.correlations import COUNTS, Correlation, Expression, Threshold, least_whole

_LOG_ROWS = 4_096
_LOG_SHARE = 8
"""Small parts of the log are joined up to this many rows, or this share of the span."""
_CHECK_ROWS = 100_000
_OVER_SHARE = 0.25
"""Where more of the groups are over, numbers are given anew."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one correlation. A threshold above `entries` raises that to what it needs."""

    groups: int = 50_000
    entries: int = 1_000
    """Of one group."""
    held: int = 1_000_000
    """Of all groups."""
    waiting: int = 1_000_000


@dataclass(slots=True)
class _Hot:
    """A group whose events are judged.

    `last_us`: time of its last event; `opened_us`: of a window that must close; `fired_us`: not to fire again yet.
    """

    window: Window
    last_us: int = OVER
    opened_us: int | None = None
    fired_us: int | None = None


class _Rows(NamedTuple):
    """Rows in the order of their turn, by number of group."""

    number: Integers
    due_us: Integers
    frame: pl.DataFrame


class _Dump(msgspec.Struct, frozen=True, array_like=True):
    """The state of a correlation, as in a snapshot."""

    definition: bytes
    keys: list[str]
    last_us: bytes
    log: bytes | None
    waiting: bytes | None
    forced_us: int
    hot: list[tuple[int, int, int | None, int | None, Any]]


class State:
    """Everything about one correlation. `drops` counts what did not count, by reason."""

    def __init__(self, correlation: Correlation, limits: Limits) -> None:
        self.correlation = correlation
        self.drops: Counter[str] = Counter()
        self._limits = limits
        self._span_us, self._suppress_us = correlation.span_us, correlation.suppress_us
        condition = correlation.condition
        need = least_whole(condition) if isinstance(condition, Threshold) else 1
        bound = Bound(max(limits.entries, need + 1 if correlation.kind in COUNTS else 0), self.drops)
        is_counted = correlation.kind in COUNTS and not correlation.waits_for_end
        self._need = need if is_counted and isinstance(condition, Threshold) else 1
        self._new_window = window_for(correlation, bound)
        self._holds = _test(condition)
        self._restart()

    def _restart(self) -> None:
        self._waiting = Waiting(self._limits.waiting, self.drops)
        self._groups = Groups(self._limits.groups, max(self._span_us, self._suppress_us))
        self._hot: dict[int, _Hot] = {}
        self._is_hot = np.zeros(1, bool)
        self._cold = np.zeros(1, np.int64)
        self._log: list[pl.DataFrame] = []
        self._timers: list[tuple[int, int]] = []
        self._unchecked = 0

    def add(self, matches: Matches, place: int) -> None:
        """Matches of the input at this place."""
        self._waiting.add(rows_of(matches, self.correlation.inputs[place], place, self.correlation, self.drops))

    def advance(self, horizon_us: int) -> list[Detection]:
        """Take all that is due before the watermark, and close the windows that end before it."""
        fired: list[Detection] = []
        frame = self._waiting.take(horizon_us)
        if frame is not None:
            frame = self._in_time(frame)
            if frame.height:
                self._take(frame, fired)
        while self._timers and self._timers[0][0] < horizon_us:
            end_us, number = heappop(self._timers)
            hot = self._hot.get(number)
            if hot is not None and hot.opened_us == end_us - self._span_us:
                self._close(number, hot, fired)
                self._cool(number)
        self._tidy(horizon_us)
        return fired

    def _in_time(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Without late rows whose window is over."""
        lateness = frame["due_us"] - frame["time_us"]
        late = int((lateness > 0).sum())
        if not late:
            return frame
        kept = frame.filter(lateness < self._span_us)
        self.drops["too_late"] += frame.height - kept.height
        self.drops["late"] += late - (frame.height - kept.height)
        return kept

    def _take(self, frame: pl.DataFrame, fired: list[Detection]) -> None:
        due_us: Integers = frame["due_us"].to_numpy()
        times: Integers = frame["time_us"].to_numpy()
        number, evicted = self._groups.numbers(frame["key"].to_list(), times)
        self._grow(len(self._groups))
        self._unchecked += frame.height
        rows = _Rows(number, due_us, frame)
        if self._need > 1:
            rows = self._without_cold(rows, times)
        if len(rows.number):
            self._judge(rows, fired)
        for each, row in evicted.items():
            self._evict(each, int(due_us[row]), fired)

    def _without_cold(self, rows: _Rows, times: Integers) -> _Rows:
        """Put rows of cold groups into the log; what stays is hot."""
        self._cold += np.bincount(rows.number, minlength=len(self._cold))
        may_fire = (self._cold[rows.number] >= self._need) | (times < rows.due_us)
        self._heat(np.unique(rows.number[may_fire & ~self._is_hot[rows.number]]))
        is_hot = self._is_hot[rows.number]
        if is_hot.all():
            self._cold -= np.bincount(rows.number, minlength=len(self._cold))
            return rows
        cold = rows.frame if not is_hot.any() else rows.frame[np.flatnonzero(~is_hot)]
        self._append(cold.select(_KEPT).insert_column(0, pl.Series("number", rows.number[~is_hot])))
        hot = rows.number[is_hot]
        self._cold -= np.bincount(hot, minlength=len(self._cold))
        return _Rows(hot, rows.due_us[is_hot], rows.frame[np.flatnonzero(is_hot)])

    def _append(self, part: pl.DataFrame) -> None:
        """Join the last parts while they are small, so that there are few of them and each row is copied few times."""
        while self._log:
            last = self._log[-1]
            span_us = int(part["time_us"][-1]) - int(last["time_us"][0])
            if last.height > 2 * part.height or last.height + part.height > _LOG_ROWS or span_us > self._span_us // _LOG_SHARE:
                break
            part = pl.concat([self._log.pop(), part], rechunk=True)
        self._log.append(part)

    def _heat(self, numbers: Integers) -> None:
        """Make windows of what the log has of these groups. None of it can fire, or its group were hot already."""
        if not len(numbers):
            return
        self._is_hot[numbers] = True
        chosen = np.zeros(len(self._is_hot), bool)
        chosen[numbers] = True
        for number in numbers.tolist():
            self._hot[number] = _Hot(self._new_window())
        for part in self._log:
            found = np.flatnonzero(chosen[part["number"].to_numpy()])
            if len(found):
                rows = part[found]  # cheaper than a filter where few are found
                for number, entry in zip(rows["number"].to_list(), _entries(rows), strict=True):
                    hot = self._hot[number]
                    hot.last_us = entry[0]
                    hot.window.slide(entry, OVER, False)

    def _judge(self, rows: _Rows, fired: list[Detection]) -> None:
        """Each event of a hot group in its turn."""
        turns = zip(rows.number.tolist(), rows.due_us.tolist(), _entries(rows.frame), strict=True)
        if not self.correlation.waits_for_end:
            self._slide(turns, fired)
            return
        for number, due_us, entry in turns:
            self._step_to_end(number, self._hot.get(number) or self._new_hot(number), entry, due_us, fired)

    def _new_hot(self, number: int) -> _Hot:
        hot = self._hot[number] = _Hot(self._new_window())
        self._is_hot[number] = True
        return hot

    def _slide(self, turns: Iterator[tuple[int, int, Entry]], fired: list[Detection]) -> None:
        """A window that ends with each event. It fires when the condition begins to hold."""
        hots, holds, span_us, suppress_us = self._hot, self._holds, self._span_us, self._suppress_us
        for number, due_us, entry in turns:
            hot = hots.get(number) or self._new_hot(number)
            low_us, time_us = due_us - span_us, entry[0]
            if hot.last_us <= low_us and not suppress_us:
                hot.fired_us = None
            if time_us > hot.last_us:
                hot.last_us = time_us
            if not holds(hot.window.slide(entry, low_us, time_us < due_us)):
                if not suppress_us:
                    hot.fired_us = None
            elif hot.fired_us is None or (suppress_us and due_us - hot.fired_us >= suppress_us):
                hot.fired_us = due_us
                fired.append(self._detection(number, hot.window, due_us))

    def _step_to_end(self, number: int, hot: _Hot, entry: Entry, due_us: int, fired: list[Detection]) -> None:
        """A window that began with the first event, and is judged when it is over."""
        span_us = self._span_us
        if hot.opened_us is not None and due_us >= hot.opened_us + span_us:
            self._close(number, hot, fired)
        if hot.opened_us is None:
            hot.opened_us = entry[0]
            heappush(self._timers, (entry[0] + span_us, number))
        elif entry[0] < hot.opened_us:
            self.drops["too_late"] += 1
            return
        hot.window.slide(entry, OVER, entry[0] < due_us)

    def _close(self, number: int, hot: _Hot, fired: list[Detection]) -> None:
        end_us = (hot.opened_us or 0) + self._span_us
        suppress_us = self._suppress_us
        is_quiet = bool(suppress_us) and hot.fired_us is not None and end_us - hot.fired_us < suppress_us
        if not is_quiet and self._holds(hot.window.measure()):
            hot.fired_us = end_us
            fired.append(self._detection(number, hot.window, end_us))
        hot.opened_us, hot.window = None, self._new_window()

    def _detection(self, number: int, window: Window, time_us: int) -> Detection:
        group = values_of(self._groups.keys[number], len(self.correlation.group_by))
        return detection(self.correlation, group, time_us, window.entries(), window.measure())

    def _evict(self, number: int, now_us: int, fired: list[Detection]) -> None:
        """A group made room: what it had is lost, unless it was over by then."""
        hot = self._hot.get(number)
        if hot is not None and hot.opened_us is not None and hot.opened_us + self._span_us <= now_us:
            self._close(number, hot, fired)
        self.drops["groups"] += not self._groups.is_over(number, now_us)
        self._hot.pop(number, None)
        self._groups.end(number)

    def _cool(self, number: int) -> None:
        """A group without an open window is kept only for its suppression."""
        if not self._suppress_us:
            self._hot.pop(number, None)
            self._is_hot[number] = False

    def _grow(self, count: int) -> None:
        if count > len(self._cold):
            more = max(2 * len(self._cold), count) - len(self._cold)
            self._cold = np.concatenate([self._cold, np.zeros(more, np.int64)])
            self._is_hot = np.concatenate([self._is_hot, np.zeros(more, bool)])

    def _tidy(self, horizon_us: int) -> None:
        """Drop what is over. Nothing of it could count again."""
        low_us = horizon_us - self._span_us
        while self._log and int(self._log[0]["time_us"][-1]) <= low_us:
            part = self._log.pop(0)
            self._cold -= np.bincount(part["number"].to_numpy(), minlength=len(self._cold))
        if self._unchecked < max(_CHECK_ROWS, len(self._groups)):
            return
        self._unchecked = 0
        if self._groups.share_over(horizon_us) > _OVER_SHARE:
            self._compact(horizon_us)
        held = sum(part.height for part in self._log) + sum(len(hot.window) for hot in self._hot.values())
        if held > self._limits.held:
            for number in self._groups.oldest(len(self._groups) // 4 + 1):
                self._evict(number, horizon_us, [])
            self._compact(horizon_us)

    def _compact(self, horizon_us: int) -> None:
        now = self._groups.compact(horizon_us)
        live = now >= 0
        self._hot = {int(now[number]): hot for number, hot in self._hot.items() if live[number]}
        self._is_hot = np.concatenate([self._is_hot[: len(now)][live], np.zeros(1, bool)])
        self._log = [_renumbered(part, now) for part in self._log]
        self._log = [part for part in self._log if part.height]
        self._cold = np.zeros(len(self._is_hot), np.int64)
        for part in self._log:
            self._cold += np.bincount(part["number"].to_numpy(), minlength=len(self._cold))
        self._timers = [(end_us, int(now[number])) for end_us, number in self._timers if live[number]]
        heapify(self._timers)

    @property
    def groups(self) -> int:
        """How many groups are held."""
        return int(np.count_nonzero(self._groups.last_us > OVER))

    def dump(self, horizon_us: int) -> _Dump:
        """The state after compaction, which changes nothing."""
        self._compact(horizon_us)
        return _Dump(
            self._definition(),
            self._groups.keys,
            self._groups.last_us.tobytes(),
            _packed(pl.concat(self._log, rechunk=True) if self._log else None),
            _packed(self._waiting.rows()),
            self._waiting.forced_us,
            [
                (number, hot.last_us, hot.opened_us, hot.fired_us, hot.window.dump())
                for number, hot in sorted(self._hot.items())
            ],
        )

    def load(self, dump: _Dump) -> bool:
        """Go on from a dump. False, with an empty state, when it is damaged or of another definition of the correlation."""
        self._restart()
        if dump.definition != self._definition():
            return False
        try:
            self._load(dump)
        except (pl.exceptions.PolarsError, OSError, ValueError, TypeError, LookupError):
            self._restart()
            return False
        return True

    def _load(self, dump: _Dump) -> None:
        self._groups.restore(dump.keys, np.frombuffer(dump.last_us, np.int64))
        self._waiting.forced_us = dump.forced_us
        if dump.waiting is not None:
            self._waiting.add(pl.read_ipc(dump.waiting))
        self._grow(len(dump.keys) + 1)
        if dump.log is not None:
            self._log = [pl.read_ipc(dump.log)]
            self._cold += np.bincount(self._log[0]["number"].to_numpy(), minlength=len(self._cold))
        for number, last_us, opened_us, fired_us, window in dump.hot:
            self._hot[number] = hot = _Hot(self._new_window(), last_us, opened_us, fired_us)
            hot.window.load(window)
            self._is_hot[number] = True
            if opened_us is not None:
                heappush(self._timers, (opened_us + self._span_us, number))

    def _definition(self) -> bytes:
        its = self.correlation
        text = repr((its.kind, its.inputs, its.group_by, its.span_us, its.condition, its.percentile, its.suppress_us))
        return blake2b(text.encode(), digest_size=16).digest()


Dump = _Dump
_KEPT = ("time_us", "source", "position", "place", "value")


def _test(condition: Threshold | Expression) -> Callable[[float], bool]:
    """Whether a measure meets the condition; that of an expression is 1 or 0."""
    if not isinstance(condition, Threshold):
        return bool
    value = condition.value
    tests: dict[str, Callable[[float], bool]] = {
        "gt": lambda measure: measure > value,
        "gte": lambda measure: measure >= value,
        "lt": lambda measure: measure < value,
        "lte": lambda measure: measure <= value,
        "eq": lambda measure: measure == value,
        "neq": lambda measure: measure != value,
    }
    return tests[condition.operator]


def _entries(rows: pl.DataFrame) -> Iterator[Entry]:
    return zip(*(rows[name].to_list() for name in _KEPT), strict=True)


def _renumbered(part: pl.DataFrame, now: Integers) -> pl.DataFrame:
    numbers = now[part["number"].to_numpy()]
    kept = part.with_columns(pl.Series("number", numbers))
    return kept.filter(pl.col("number") >= 0) if (numbers < 0).any() else kept


def _packed(frame: pl.DataFrame | None) -> bytes | None:
    return None if frame is None else frame.write_ipc(None, compression="lz4").getvalue()
