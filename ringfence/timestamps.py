"""ISO 8601 text to microseconds since the epoch, over whole columns.

The common form of machines, `2026-11-25T07:44:23.123456+0000` (31 bytes), is read as one matrix of digits; anything
else goes through datetime.fromisoformat, one text at a time. `TimeTable` reads times that lack the year, as syslog has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

_LAYOUT = b"0000-00-00T00:00:00.000000+0000"
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
        joined = "".join(texts).encode()  # type: ignore[arg-type]
    except TypeError:
        return _one_by_one(texts)
    if not count or len(joined) != count * _WIDTH or set(map(len, filter(None, texts))) != {_WIDTH}:
        return _one_by_one(texts)
    places = np.ascontiguousarray(np.frombuffer(joined, np.uint8).reshape(count, _WIDTH).T)
    digits = places[_DIGITS] - np.uint8(_ZERO)
    signs = places[_SIGN]
    regular = (places[_FIXED] == _TEMPLATE[_FIXED, None]).all() and ((signs == ord("+")) | (signs == ord("-"))).all()
    if not regular or digits.max() > 9:
        return _one_by_one(texts)
    micros, valid = _micros(digits, signs)
    return (micros, np.empty(0, np.int64)) if valid.all() else _one_by_one(texts)


def _micros(digits: npt.NDArray[np.uint8], signs: npt.NDArray[np.uint8]) -> tuple[Numbers, npt.NDArray[np.bool_]]:
    def number(start: int, width: int) -> Numbers:
        value: Numbers = digits[start].astype(np.int64)
        for place in range(start + 1, start + width):
            value = value * 10 + digits[place]
        return value

    year, month, day = number(0, 4), number(4, 2), number(6, 2)
    hour, minute, second, fraction = number(8, 2), number(10, 2), number(12, 2), number(14, 6)
    offset_hours = number(20, 2)
    offset = (offset_hours * 60 + number(22, 2)) * np.where(signs == ord("-"), -1, 1)
    months = (year - 1970) * 12 + month - 1
    first_day = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    next_month = (months + 1).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    days = first_day + day - 1
    valid = (
        (year >= 1)
        & (offset_hours < 24)
        & (month >= 1)
        & (month <= 12)
        & (day >= 1)
        & (days < next_month)
        & (hour < 24)
        & (minute < 60)
        & (second < 60)
    )
    seconds = days * 86_400 + hour * 3_600 + (minute - offset) * 60 + second
    return seconds * 1_000_000 + fraction, valid


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
DAY_US = 86_400_000_000
YEARS_BACK = 8  # February 29 may be as far away
ARRIVAL = -(1 << 62)  # there is no time: that of arrival stands for it
UNKNOWN = ARRIVAL - 1  # the year cannot be known
NO_DATE = ARRIVAL - 2  # this is no date of the calendar
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
