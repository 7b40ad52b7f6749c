"""Finds hosts that scan: a sequential test of the first contacts of each source, and slow counters for patient ones.

A contact is a source with a destination and a port; only the first one in a day counts, as a success or as a miss (blocked,
refused, not answered). A source is followed from its first miss on; one that never misses costs nothing.

The sequential test is TRW (Jung, Paxson, Berger, Balakrishnan: Fast Portscan Detection Using Sequential Hypothesis Testing,
2004), for each source and boundary and for each source and destination. A miss adds ln((1-t1)/(1-t0)), a success
ln(t1/t0), half of that to a service that nobody declared. The sum never falls below 0: a clean history buys no credit.
With t0 = .95, t1 = .20 and alpha = 1e-5 five misses decide.

The slow counters look at 24 hours and at 7 days of UTC: at least 20 contacts, at least half of them missed, at any rate.

All times are event times; which rows come together in a batch makes no difference.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ringfence.crossings import mixed
from ringfence.detectors import DAY_US, MAX_IDS, Bounds, Finding, Recent, event_id

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
DAY_HOURS, WEEK_DAYS = 24, 7
WEEK_US = 7 * DAY_US
HOUR_US = 3_600_000_000

MAX_SOURCES = 4_096
MAX_CONTACTS = 256
"""Contacts of one source that are remembered; then the oldest success gives way, and where all are misses the new one."""
MAX_ALL_CONTACTS = 65_536
LEAST_MISSES = math.ceil(DECIDED / MISS)
"""With fewer nothing can be found, so that nothing is computed yet."""
MAX_PENDING = 16
MAX_SCORES = 64
"""Boundaries, and destinations, of one source that have a score."""

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.uint64]


class Attempts(NamedTuple):
    """Attempts as columns of one length: addresses as numbers, times in microseconds."""

    source: Numbers
    target: Numbers
    port: Ints
    missed: Mask
    declared: Mask
    at_us: Ints
    id_source: Numbers
    id_position: Numbers
    places: Callable[[Ints], list[str]]
    """The names of the boundaries or segments of some rows."""
    targets6: Callable[[Ints], list[str | None]]
    """The targets of some rows as text, where they are IPv6."""


class _Entry(NamedTuple):
    """One attempt."""

    key: int
    target: int
    port: int
    missed: bool
    declared: bool
    at_us: int
    id_source: int
    id_position: int
    place: str
    target6: str | None

    @property
    def event(self) -> str:
        return event_id(self.id_source, self.id_position)

    @property
    def text(self) -> str:
        host = str(ipaddress.IPv4Address(self.target)) if self.target6 is None else self.target6
        return f"{host}:{self.port}" if self.port >= 0 else host


class _Score(msgspec.Struct, array_like=True):
    value: float = 0.0
    first_us: int = 0
    last_us: int = 0
    silent_until_us: int = -(1 << 62)
    distinct: int = 0
    missed: int = 0
    misses: list[_Entry] = []


class _Contact(msgspec.Struct, array_like=True):
    day_us: int
    week_us: int
    missed: bool


class _Source(msgspec.Struct, array_like=True):
    """What is known of one source; `hours` and `days` hold how many contacts there were in each, and how many missed."""

    pending: list[_Entry] = []
    """What came before there was enough for any finding; it is looked at when the time has come, and gives the same then."""
    pending_missed: int = 0
    contacts: dict[int, _Contact] = {}
    places: dict[str, _Score] = {}
    hosts: dict[str, _Score] = {}
    hours: dict[int, list[int]] = {}
    days: dict[int, list[int]] = {}
    slow_until_us: int = -(1 << 62)
    recent: list[_Entry] = []


_MISSED = _Entry._fields.index("missed")


class Scans:
    """The memory of one worker for one kind of evidence, `what` in the words of the findings."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._sources: dict[int, _Source] = {}
        self._packed: dict[int, bytes] = {}
        self._contacts = 0
        self._followed: Numbers | None = None
        self._recent = Recent()
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
        known = np.abs(self._recent.ages(key, attempts.at_us[rows])) < DAY_US
        if known.any():
            rows, key = rows[~known], key[~known]
        if not len(rows):
            return []
        columns = (
            attempts.target, attempts.port, attempts.missed, attempts.declared, attempts.at_us, attempts.id_source, attempts.id_position,
        )  # fmt: skip
        told = (column[rows].tolist() for column in columns)
        entries = zip(key.tolist(), *told, attempts.places(rows), attempts.targets6(rows), strict=True)
        found: list[Finding] = []
        for row, number, entry in zip(rows.tolist(), attempts.source[rows].tolist(), entries, strict=True):
            source = self._sources.get(number)
            if source is None:
                if not entry[_MISSED]:
                    continue
                source = self._new(number)
            if source.pending_missed >= LEAST_MISSES:
                found += self._take(row, number, source, _Entry._make(entry))
            else:
                found += self._wait(row, number, source, entry)
        return found

    def needs(self, missed: Mask) -> bool:
        """Whether attempts can matter: somebody is followed, or one of them missed."""
        return bool(self._sources) or bool(missed.any())

    def _wait(self, row: int, number: int, source: _Source, entry: tuple[Any, ...]) -> list[Finding]:
        """Put an attempt to those that wait, or look at all of them."""
        source.pending.append(entry)  # type: ignore[arg-type]  # a plain tuple is made much faster
        source.pending_missed += entry[_MISSED]
        self._touch(number, source)
        if source.pending_missed < LEAST_MISSES and len(source.pending) <= MAX_PENDING:
            return []
        source.pending_missed = LEAST_MISSES
        pending, source.pending = source.pending, []
        return [finding for old in pending for finding in self._take(row, number, source, _Entry._make(old))]

    def _touch(self, number: int, source: _Source) -> None:
        """It changed, and is the last to be forgotten."""
        del self._sources[number]
        self._sources[number] = source
        self._packed.pop(number, None)

    def _new(self, number: int) -> _Source:
        if len(self._sources) >= MAX_SOURCES:
            self._forget(next(iter(self._sources)))
        self._followed = None
        source = self._sources[number] = _Source()
        return source

    def _take(self, row: int, number: int, source: _Source, entry: _Entry) -> Iterator[Finding]:
        contact = source.contacts.get(entry.key)
        if contact is not None and abs(entry.at_us - contact.day_us) < DAY_US:
            self._recent.note(entry.key, contact.day_us)
            return
        self._touch(number, source)
        is_new_in_week = contact is None or abs(entry.at_us - contact.week_us) >= WEEK_US
        if self._remember(source, entry, contact, is_new_in_week):
            self._count(source, entry, is_new_in_week)
            yield from self._judged(row, source, entry)

    def _forget(self, number: int) -> None:
        self.bounds.hit("sources")
        self._followed = None
        self._packed.pop(number, None)
        for key in self._sources.pop(number).contacts:
            self._drop(key)

    def _remember(self, source: _Source, entry: _Entry, contact: _Contact | None, is_new_in_week: bool) -> bool:
        """Note the contact; False where there is no room and it is left out."""
        contacts = source.contacts
        while contacts:
            oldest = next(iter(contacts))
            if entry.at_us - contacts[oldest].week_us < WEEK_US or oldest == entry.key:
                break
            del contacts[oldest]
            self._drop(oldest)
        if entry.key in contacts:
            del contacts[entry.key]
            self._drop(entry.key)
        elif len(contacts) >= MAX_CONTACTS:
            self.bounds.hit("contacts")
            success = next((key for key, known in contacts.items() if not known.missed), None)
            if success is None:
                return False
            del contacts[success]
            self._drop(success)
        week_us = entry.at_us if is_new_in_week or contact is None else contact.week_us
        contacts[entry.key] = _Contact(entry.at_us, week_us, entry.missed)
        self._contacts += 1
        self._recent.note(entry.key, entry.at_us)
        while self._contacts > MAX_ALL_CONTACTS:
            self._forget(next(iter(self._sources)))
        return True

    def _drop(self, key: int) -> None:
        self._contacts -= 1
        self._recent.drop(key)

    def _count(self, source: _Source, entry: _Entry, is_new_in_week: bool) -> None:
        _add(source.hours, entry.at_us // HOUR_US, DAY_HOURS, entry.missed)
        if is_new_in_week:
            _add(source.days, entry.at_us // DAY_US, WEEK_DAYS, entry.missed)
        if entry.missed:
            source.recent = [*source.recent[1 - MAX_IDS :], entry]

    def _judged(self, row: int, source: _Source, entry: _Entry) -> Iterator[Finding]:
        place = entry.place
        along = self._scored(source.places, place, entry)
        if along is not None and len({miss.target for miss in along.misses}) >= HORIZONTAL_HOSTS:
            yield self._scan(row, "scan-horizontal", along, f"on {place}", entry)
        one = self._scored(source.hosts, f"{place}|{entry.target}", entry)
        if one is not None:
            yield self._scan(row, "scan-vertical", one, f"of one host on {place}", entry)
        if entry.missed and entry.at_us >= source.slow_until_us:
            yield from self._slow(row, source, entry)

    def _scored(self, scores: dict[str, _Score], name: str, entry: _Entry) -> _Score | None:
        """Add the contact to a score; returns it where it has decided."""
        score = scores.get(name)
        if score is not None and abs(entry.at_us - score.last_us) >= DAY_US:
            del scores[name]
            score = None
        if not entry.missed:
            if score is not None:
                score.value += SUCCESS if entry.declared else SUCCESS / 2
                score.distinct += 1
                if score.value <= 0:
                    self._clear(scores, name, score, entry)
            return None
        if score is None:
            if len(scores) >= MAX_SCORES:
                self.bounds.hit("scores")
                del scores[next(iter(scores))]
            score = scores[name] = _Score(first_us=entry.at_us, misses=[])
        if not score.misses:
            score.first_us = entry.at_us
        score.value += MISS
        score.last_us = entry.at_us
        score.distinct += 1
        score.missed += 1
        score.misses = [*score.misses[1 - MAX_IDS :], entry]
        return score if score.value >= DECIDED and entry.at_us >= score.silent_until_us else None

    def _clear(self, scores: dict[str, _Score], name: str, score: _Score, entry: _Entry) -> None:
        """Back at the floor: begin anew, silent as long as before."""
        if entry.at_us >= score.silent_until_us:
            del scores[name]
        else:
            scores[name] = _Score(last_us=score.last_us, silent_until_us=score.silent_until_us, misses=[])

    def _scan(self, row: int, name: str, score: _Score, where: str, entry: _Entry) -> Finding:
        shown = ", ".join(miss.text for miss in score.misses[:5])
        text = (
            f"{score.missed} of {score.distinct} hosts and ports {where} were blocked, refused or silent "
            f"within {_span(entry.at_us - score.first_us)}: {shown}{', ...' if score.missed > 5 else ''} ({self._what})"
        )
        ids = [miss.event for miss in score.misses]
        finding = Finding(
            row,
            name,
            round(score.value / math.log(10)),
            text,
            score.distinct,
            score.missed,
            score.first_us,
            entry.at_us,
            ids,
        )
        score.value = 0.0
        score.distinct = score.missed = 0
        score.misses = []
        score.silent_until_us = entry.at_us + REARM_US
        return finding

    def _slow(self, row: int, source: _Source, entry: _Entry) -> Iterator[Finding]:
        if len(source.recent) < SLOW_SHARE * SLOW_DISTINCT:
            return
        for parts, size_us, length, words in (
            (source.hours, HOUR_US, DAY_HOURS, "24 hours"),
            (source.days, DAY_US, WEEK_DAYS, "7 days"),
        ):
            last = entry.at_us // size_us
            within = [(part, counts) for part, counts in parts.items() if last - length < part <= last]
            distinct = sum(counts[0] for _, counts in within)
            missed = sum(counts[1] for _, counts in within)
            if distinct >= SLOW_DISTINCT and missed >= SLOW_SHARE * distinct:
                source.slow_until_us = entry.at_us + DAY_US
                text = (
                    f"{missed} of {distinct} hosts and ports of the last {words} were blocked, refused or silent ({self._what})"
                )
                first_us = min(part for part, _ in within) * size_us
                yield Finding(
                    row,
                    "scan-slow",
                    100 * missed // distinct,
                    text,
                    distinct,
                    missed,
                    first_us,
                    entry.at_us,
                    [miss.event for miss in source.recent],
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
        self._recent = Recent()
        self._contacts = sum(len(source.contacts) for source in self._sources.values())


_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[list[tuple[int, _Source]]] = msgspec.msgpack.Decoder(list[tuple[int, _Source]])


def _add(parts: dict[int, list[int]], part: int, length: int, missed: bool) -> None:
    """Count in a part of time; those of which the window has moved on are dropped, of times that go backwards the earliest."""
    counts = parts.get(part)
    if counts is None:
        for old in [known for known in parts if known <= part - length]:
            del parts[old]
        if len(parts) >= length:
            del parts[min(parts)]
        counts = parts[part] = [0, 0]
    counts[0] += 1
    counts[1] += missed


def _span(length_us: int) -> str:
    """A length of time in words."""
    seconds = abs(length_us) // 1_000_000
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 1)} s"
