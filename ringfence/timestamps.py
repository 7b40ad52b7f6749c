"""ISO 8601 text to microseconds since the epoch, over whole columns.

The common form of machines, `2026-11-25T07:44:23.123456+0000` (31 bytes), is read as one matrix of digits; anything
else goes through datetime.fromisoformat, one text at a time. `TimeTable` reads times that lack the year, as syslog has them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

END_S = 253_402_300_800
"""Seconds from 1970 to the year 10000; no event is that late."""
_LAYOUT = b"0000-00-00T00:00:00.000000+0000\n"  # with the separator that a column of texts is joined by
_WIDTH = len(_LAYOUT)
_TEMPLATE = np.frombuffer(_LAYOUT, np.uint8)
_DIGITS = np.flatnonzero(ord("0") == _TEMPLATE)
_SIGN = _LAYOUT.index(b"+")
_FIXED = np.array([place for place in range(_WIDTH) if place not in _DIGITS and place != _SIGN])
_ZERO = ord("0")

Numbers = npt.NDArray[np.int64]


def parse(texts: Sequence[str | None]) -> tuple[Numbers, Numbers]:
    """Microseconds of each text, and the rows whose text is absent or no timestamp (their value is 0)."""
    count = len(texts)
    try:
        joined = "\n".join([*texts, ""]).encode()  # type: ignore[list-item]
    except TypeError:
        return _those_there(texts)
    if not count or len(joined) != count * _WIDTH:
        return _one_by_one(texts)
    places = np.ascontiguousarray(np.frombuffer(joined, np.uint8).reshape(count, _WIDTH).T)
    digits = places[_DIGITS] - np.uint8(_ZERO)
    signs = places[_SIGN]
    # as many line feeds as separators, all where they belong: so no text is longer or shorter than the layout
    regular = (places[_FIXED] == _TEMPLATE[_FIXED, None]).all() and ((signs == ord("+")) | (signs == ord("-"))).all()
    if not regular or digits.max() > 9:
        return _one_by_one(texts)
    micros = _micros(digits[::2] * np.uint8(10) + digits[1::2], signs)
    return _one_by_one(texts) if micros is None else (micros, np.empty(0, np.int64))


def _micros(pairs: npt.NDArray[np.uint8], signs: npt.NDArray[np.uint8]) -> Numbers | None:
    """From digits two by two: century, year, month, day, hour, minute, second, three of the fraction, zone; None if one is no time."""
    days = _days(_shared(pairs[:4]))
    highest = pairs.max(axis=1)
    if days is None or highest[4] > 23 or highest[5] > 59 or highest[6] > 59 or highest[10] > 23:
        return None
    hour, minute, second, *fraction = pairs[4:10].astype(np.int32)
    zone = _shared(np.concatenate([pairs[10:], signs[None]])).astype(np.int32)
    offset = (zone[0] * 60 + zone[1]) * np.where(zone[2] == ord("-"), -60, 60)
    seconds = (days * 86_400 - offset) + (hour * 3_600 + minute * 60 + second)
    micros: Numbers = seconds * 1_000_000 + (fraction[0] * 10_000 + fraction[1] * 100 + fraction[2])
    return micros


def _days(pairs: npt.NDArray[np.uint8]) -> Numbers | None:
    """Days since the epoch; None if one is not in the calendar."""
    century, year, month, day = pairs.astype(np.int64)
    months = (century * 100 + year - 1970) * 12 + month - 1
    first_day = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    next_month = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days: Numbers = first_day + day - 1
    valid = (century + year >= 1) & (month >= 1) & (month <= 12) & (day >= 1) & (days < next_month)
    return days if valid.all() else None


def _shared(pairs: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """One row for all when they are the same: most blocks lie within a day, and a source has one time zone."""
    return pairs[:, :1] if (pairs == pairs[:, :1]).all() else pairs


def _those_there(texts: Sequence[str | None]) -> tuple[Numbers, Numbers]:
    """Some texts are None: the others as a column of their own."""
    is_there = np.array([text is not None for text in texts])
    rows = np.flatnonzero(is_there)
    micros, invalid = parse([text for text in texts if text is not None])
    values = np.zeros(len(texts), np.int64)
    values[rows] = micros
    is_there[rows[invalid]] = False
    return values, np.flatnonzero(~is_there)


def _one_by_one(texts: Sequence[str | None]) -> tuple[Numbers, Numbers]:
    values = [_one(text) for text in texts]
    invalid = np.array([row for row, value in enumerate(values) if value is None], np.int64)
    return np.array([value or 0 for value in values], np.int64), invalid


def _one(text: str | None) -> int | None:
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


MAX_TIMES = 65_536
MAX_DAYS = 8  # days of arrival whose times are remembered
DAY_US = 86_400_000_000
YEARS_BACK = 8  # February 29 may be as far away
ARRIVAL = -(1 << 62)  # there is no time: that of arrival stands for it
UNKNOWN = ARRIVAL - 1  # the year cannot be known
NO_DATE = ARRIVAL - 2  # this is no date of the calendar
WHY_NO_TIME = {
    ARRIVAL: "there is no time and its arrival is not known",
    UNKNOWN: "the time has no year and its arrival is not known; set the option year",
    NO_DATE: "the time is no date of the calendar",
}
_MONTHS = {
    name: number
    for number, name in enumerate(("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1)
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class TimeTable(dict[str | None, int]):
    """Remembers what time texts mean on one day of arrival (0: not known): microseconds, or one of the marks above.

    Texts are ISO 8601 or `Nov 25 07:44:23`, which is in `year`, else in the latest year in which it is no later than the
    day after arrival.
    """

    def __init__(self, year: int | None, arrival_day: int) -> None:
        super().__init__()
        self._day = arrival_day
        self._years: Sequence[int] = () if year is None else (year,)
        if arrival_day:
            newest = (_EPOCH + timedelta(days=arrival_day)).year + 1
            self._years = range(newest, max(newest - YEARS_BACK - 2, 0), -1)

    def __missing__(self, text: str | None) -> int:
        if len(self) >= MAX_TIMES:
            self.clear()
        value = self[text] = ARRIVAL if text is None or text == "-" else self.parse(text)
        return value

    def parse(self, text: str) -> int:
        """What one text means."""
        if not text[0].isdigit():
            return self._without_year(text)
        try:
            parsed = datetime.fromisoformat(text)
        except ValueError:
            return NO_DATE
        return (parsed - _EPOCH) // _MICROSECOND

    def _without_year(self, text: str) -> int:
        month = _MONTHS.get(text[:3])
        if month is None:
            return NO_DATE
        if not self._years:
            return UNKNOWN
        day, hour, minute, second = int(text[4:6]), int(text[7:9]), int(text[10:12]), int(text[13:15])
        for year in self._years:
            try:
                micros = (datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _EPOCH) // _MICROSECOND
            except ValueError:
                continue
            if not self._day or micros < (self._day + 2) * DAY_US:
                return micros
        return NO_DATE


class DayTables(dict[int, TimeTable]):
    """The tables of the days of arrival that were seen lately; `make` makes that of a day."""

    def __init__(self, make: Callable[[int], TimeTable]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, day: int) -> TimeTable:
        if len(self) >= MAX_DAYS:
            self.clear()
        table = self[day] = self._make(day)
        return table
