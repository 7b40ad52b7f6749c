"""Finds hosts that scan: a sequential test of the first contacts of each source, and slow counters for patient ones.

A contact is a source with a destination and a port; only the first one in a day counts, as a success or as a miss (blocked,
refused, not answered). A source is followed from its first miss on; one that never misses costs nothing.

The sequential test is TRW (Jung, Paxson, Berger, Balakrishnan: Fast Portscan Detection Using Sequential Hypothesis Testing,
2004), for each source and boundary and for each source and destination. A miss adds ln((1-t1)/(1-t0)), a success
ln(t1/t0), half of that to a service that nobody declared. The sum never falls below 0: a clean history buys no credit.
With t0 = .95, t1 = .20 and alpha = 1e-5 five misses decide.

The slow counters look at 24 hours and 7 days: at least 20 contacts, at least half of them missed, at any rate.

All times are event times; which rows come together in a batch makes no difference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ringfence.crossings import mixed
from ringfence.detectors import DAY_US, MAX_IDS, Bounds, Finding, event_id

BENIGN_SUCCESS, SCANNER_SUCCESS, FALSE_ALARM = 0.95, 0.20, 1e-5
MISS = math.log((1 - SCANNER_SUCCESS) / (1 - BENIGN_SUCCESS))
SUCCESS = math.log(SCANNER_SUCCESS / BENIGN_SUCCESS)
DECIDED = math.log(1 / FALSE_ALARM)
HORIZONTAL_HOSTS = 3
"""A scan along a boundary missed at least so many hosts; fewer are scans of those hosts."""
REARM_US = 3_600_000_000
"""A scan that goes on is found again after this time."""
SLOW_DISTINCT = 20
SLOW_SHARE = 0.5
DAY_HOURS, WEEK_HOURS = 24, 168
WEEK_US = 7 * DAY_US
HOUR_US = 3_600_000_000

MAX_SOURCES = 4_096
MAX_CONTACTS = 256
"""Contacts of one source that are remembered; then the oldest success gives way, and where all are misses the new one."""
MAX_ALL_CONTACTS = 65_536
MAX_SCORES = 64
"""Boundaries, and destinations, of one source that have a score."""
CACHE_LOG2 = 16

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint64]


class Attempts(NamedTuple):
    """Attempts as columns of one length: addresses as numbers, times in microseconds, `place` names the boundary or segment."""

    source: Numbers
    target: Numbers
    port: Ints
    missed: Mask
    declared: Mask
    at_us: Ints
    place: Callable[[int], str]
    target_text: Callable[[int], str]
    id_source: Numbers
    id_position: Numbers


class _Missed(msgspec.Struct, array_like=True):
    target: int
    text: str
    event: str


class _Score(msgspec.Struct, array_like=True):
    value: float = 0.0
    first_us: int = 0
    last_us: int = 0
    silent_until_us: int = -(1 << 62)
    distinct: int = 0
    missed: int = 0
    misses: list[_Missed] = []


class _Contact(msgspec.Struct, array_like=True):
    day_us: int
    week_us: int
    missed: bool


class _Source(msgspec.Struct, array_like=True):
    """What is known of one source; `hours` counts contacts and misses of the day's rule, then of the week's, for each hour."""

    contacts: dict[int, _Contact] = {}
    places: dict[str, _Score] = {}
    hosts: dict[str, _Score] = {}
    hours: dict[int, list[int]] = {}
    slow_until_us: int = -(1 << 62)
    recent: list[str] = []


@dataclass
class _Row:
    index: int
    key: int
    source: int
    target: int
    missed: bool
    at_us: int
    attempts: Attempts = field(repr=False)

    @property
    def event(self) -> str:
        return event_id(int(self.attempts.id_source[self.index]), int(self.attempts.id_position[self.index]))


class Scans:
    """The memory of one worker for one kind of evidence, `what` in the words of the findings."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._sources: dict[int, _Source] = {}
        self._packed: dict[int, bytes] = {}
        self._contacts = 0
        self._followed: Numbers | None = None
        size = 1 << CACHE_LOG2
        self._cached: Numbers = np.zeros(size, np.uint64)
        self._cached_at: Ints = np.zeros(size, np.int64)
        self.bounds = Bounds()

    def seen(self, attempts: Attempts) -> list[Finding]:
        """Take attempts in their order; returns what they complete."""
        missed = attempts.missed
        if not self.needs(missed):
            return []
        wanted = missed.copy()
        if not wanted.all():
            if self._followed is None:
                self._followed = np.array(sorted(self._sources), np.uint64)
            followed = np.union1d(self._followed, attempts.source[missed])
            place = np.minimum(np.searchsorted(followed, attempts.source), len(followed) - 1)
            wanted |= followed[place] == attempts.source
        rows = np.flatnonzero(wanted)
        if not len(rows):
            return []
        key = mixed(attempts.source[rows], attempts.target[rows], attempts.port[rows] + 1)
        slot = (key >> np.uint64(64 - CACHE_LOG2)).astype(np.int64)
        known = (self._cached[slot] == key) & (np.abs(attempts.at_us[rows] - self._cached_at[slot]) < DAY_US)
        if known.any():
            rows, key = rows[~known], key[~known]
        told = (column[rows].tolist() for column in (attempts.source, attempts.target, attempts.missed, attempts.at_us))
        found: list[Finding] = []
        for index, number, source, target, is_missed, at_us in zip(rows.tolist(), key.tolist(), *told, strict=True):
            found += self._take(_Row(index, number, source, target, is_missed, at_us, attempts))
        return found

    def needs(self, missed: Mask) -> bool:
        """Whether attempts can matter: somebody is followed, or one of them missed."""
        return bool(self._sources) or bool(missed.any())

    def _take(self, row: _Row) -> Iterator[Finding]:
        source = self._sources.get(row.source)
        if source is None:
            if not row.missed:
                return
            source = self._follow(row.source)
        contact = source.contacts.get(row.key)
        if contact is not None and abs(row.at_us - contact.day_us) < DAY_US:
            self._cache(row.key, contact.day_us)
            return
        self._touch(row.source, source)
        is_new_in_week = contact is None or abs(row.at_us - contact.week_us) >= WEEK_US
        if not self._remember(source, row, contact, is_new_in_week):
            return
        self._count(source, row, is_new_in_week)
        yield from self._judged(source, row)

    def _follow(self, number: int) -> _Source:
        if len(self._sources) >= MAX_SOURCES:
            self._forget(next(iter(self._sources)))
        self._followed = None
        source = self._sources[number] = _Source()
        return source

    def _touch(self, number: int, source: _Source) -> None:
        """It changed, and is the last to be forgotten."""
        del self._sources[number]
        self._sources[number] = source
        self._packed.pop(number, None)

    def _forget(self, number: int) -> None:
        self.bounds.hit("sources")
        self._followed = None
        self._packed.pop(number, None)
        for key in self._sources.pop(number).contacts:
            self._drop(key)

    def _remember(self, source: _Source, row: _Row, contact: _Contact | None, is_new_in_week: bool) -> bool:
        """Note the contact; False where there is no room and it is left out."""
        contacts = source.contacts
        while contacts:
            oldest = next(iter(contacts))
            if row.at_us - contacts[oldest].week_us < WEEK_US or oldest == row.key:
                break
            del contacts[oldest]
            self._drop(oldest)
        if row.key in contacts:
            del contacts[row.key]
            self._drop(row.key)
        elif len(contacts) >= MAX_CONTACTS:
            self.bounds.hit("contacts")
            success = next((key for key, known in contacts.items() if not known.missed), None)
            if success is None:
                return False
            del contacts[success]
            self._drop(success)
        week_us = row.at_us if is_new_in_week or contact is None else contact.week_us
        contacts[row.key] = _Contact(row.at_us, week_us, row.missed)
        self._contacts += 1
        self._cache(row.key, row.at_us)
        while self._contacts > MAX_ALL_CONTACTS:
            self._forget(next(iter(self._sources)))
        return True

    def _drop(self, key: int) -> None:
        self._contacts -= 1
        slot = key >> (64 - CACHE_LOG2)
        if self._cached[slot] == key:
            self._cached[slot] = 0

    def _cache(self, key: int, at_us: int) -> None:
        slot = key >> (64 - CACHE_LOG2)
        self._cached[slot], self._cached_at[slot] = key, at_us

    def _count(self, source: _Source, row: _Row, is_new_in_week: bool) -> None:
        hour = row.at_us // HOUR_US
        counts = source.hours.get(hour)
        if counts is None:
            for old in [known for known in source.hours if known <= hour - WEEK_HOURS]:
                del source.hours[old]
            if len(source.hours) >= WEEK_HOURS:  # times that go backwards
                del source.hours[min(source.hours)]
            counts = source.hours[hour] = [0, 0, 0, 0]
        counts[0] += 1
        counts[1] += row.missed
        counts[2] += is_new_in_week
        counts[3] += is_new_in_week and row.missed
        if row.missed:
            source.recent = [*source.recent[1 - MAX_IDS :], row.event]

    def _judged(self, source: _Source, row: _Row) -> Iterator[Finding]:
        place = row.attempts.place(row.index)
        along = self._scored(source.places, place, row)
        if along is not None and len({miss.target for miss in along.misses}) >= HORIZONTAL_HOSTS:
            yield self._scan("scan-horizontal", along, f"on {place}", row)
        one = self._scored(source.hosts, f"{place}|{row.target}", row)
        if one is not None:
            yield self._scan("scan-vertical", one, f"of one host on {place}", row)
        if row.missed and row.at_us >= source.slow_until_us:
            yield from self._slow(source, row)

    def _scored(self, scores: dict[str, _Score], name: str, row: _Row) -> _Score | None:
        """Add the contact to a score; returns it where it has decided."""
        score = scores.get(name)
        if score is not None and abs(row.at_us - score.last_us) >= DAY_US:
            del scores[name]
            score = None
        if not row.missed:
            if score is not None:
                score.value += SUCCESS if row.attempts.declared[row.index] else SUCCESS / 2
                score.distinct += 1
                if score.value <= 0:
                    self._clear(scores, name, score, row)
            return None
        if score is None:
            if len(scores) >= MAX_SCORES:
                self.bounds.hit("scores")
                del scores[next(iter(scores))]
            score = scores[name] = _Score(first_us=row.at_us, misses=[])
        if not score.misses:
            score.first_us = row.at_us
        score.value += MISS
        score.last_us = row.at_us
        score.distinct += 1
        score.missed += 1
        score.misses = [*score.misses[1 - MAX_IDS :], _Missed(row.target, row.attempts.target_text(row.index), row.event)]
        return score if score.value >= DECIDED and row.at_us >= score.silent_until_us else None

    def _clear(self, scores: dict[str, _Score], name: str, score: _Score, row: _Row) -> None:
        """Back at the floor: begin anew, silent as long as before."""
        if row.at_us >= score.silent_until_us:
            del scores[name]
        else:
            scores[name] = _Score(last_us=score.last_us, silent_until_us=score.silent_until_us, misses=[])

    def _scan(self, name: str, score: _Score, where: str, row: _Row) -> Finding:
        shown = ", ".join(miss.text for miss in score.misses[:5])
        text = (
            f"{score.missed} of {score.distinct} hosts and ports {where} were blocked, refused or silent "
            f"within {_span(row.at_us - score.first_us)}: {shown}{', ...' if score.missed > 5 else ''} ({self._what})"
        )
        ids = [miss.event for miss in score.misses]
        finding = Finding(
            row.index,
            name,
            round(score.value / math.log(10)),
            text,
            score.distinct,
            score.missed,
            score.first_us,
            row.at_us,
            ids,
        )
        score.value = 0.0
        score.distinct = score.missed = 0
        score.misses = []
        score.silent_until_us = row.at_us + REARM_US
        return finding

    def _slow(self, source: _Source, row: _Row) -> Iterator[Finding]:
        hour = row.at_us // HOUR_US
        for hours, column, words in ((DAY_HOURS, 0, "24 hours"), (WEEK_HOURS, 2, "7 days")):
            within = [(known, counts) for known, counts in source.hours.items() if hour - hours < known <= hour]
            distinct = sum(counts[column] for _, counts in within)
            missed = sum(counts[column + 1] for _, counts in within)
            if distinct >= SLOW_DISTINCT and missed >= SLOW_SHARE * distinct:
                source.slow_until_us = row.at_us + DAY_US
                text = (
                    f"{missed} of {distinct} hosts and ports of the last {words} were blocked, refused or silent ({self._what})"
                )
                first_us = min(known for known, _ in within) * HOUR_US
                yield Finding(
                    row.index, "scan-slow", 100 * missed // distinct, text, distinct, missed, first_us, row.at_us, source.recent
                )
                return

    def snapshot(self) -> bytes:
        """All that is known, sources in the order in which they will be forgotten."""
        for number in self._sources.keys() - self._packed.keys():
            self._packed[number] = _ENCODER.encode((number, self._sources[number]))
        return _ENCODER.encode([msgspec.Raw(self._packed[number]) for number in self._sources])

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew; one that cannot be read is left aside."""
        try:
            known = _DECODER.decode(state)
        except msgspec.DecodeError:
            return
        self._sources = dict(known)
        self._packed = {}
        self._followed = None
        self._cached[:] = 0
        self._contacts = sum(len(source.contacts) for source in self._sources.values())


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[list[tuple[int, _Source]]] = msgspec.msgpack.Decoder(list[tuple[int, _Source]])


def _span(length_us: int) -> str:
    """A length of time in words."""
    seconds = abs(length_us) // 1_000_000
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 1)} s"
