"""Syslog: RFC 5424, RFC 3164 with its usual deviations, and the framing of both on TCP (RFC 6587) and TLS (RFC 5425).

Messages about logins, accounts and privileges become rows of class auth, queries of name servers of class dns, all others of
class generic (`collectors/program_messages.py`). Taken as RFC 3164, beside its own form: no PRI (a file such as /var/log/auth.log), no hostname, no tag, a tag without process id, an ISO 8601 time, no time
at all after a PRI (it is the time of arrival then, section 4.3.2). Spaces and a byte order mark before the MSG of RFC
5424 are left out, octets that are not UTF-8 become U+FFFD in `message`; `event.original` keeps the message as it came,
without octet count and newline.

A time of RFC 3164 has neither year nor zone. It is read as UTC, in the latest year in which it is no later than the day
after the frame's arrival: December lines that arrive in January are of last year. A decoder has no clock: in a file that
is read once (`received_us` 0) all are in `year`, and without that such a line, or one without any time, is a Problem.

Not supported: time zones by configuration, years and fractions of a second in RFC 3164 times.

Samples: <34>1 2026-11-25T22:14:15.003Z mail su - ID47 - 'su root' failed
<86>Nov 25 08:35:42 vm sshd[18225]: Accepted password for ann from 192.0.2.7 port 44666 ssh2
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel

from collectors import program_messages
from collectors.lines import Continuations
from collectors.rfc6587 import COUNT, MAX_FRAME_BYTES, SyslogFramer
from collectors.syslog_message import BSD, IETF, Fields, explain, place_of_time, recognise, structured_data, unusual
from collectors.syslog_settings import SyslogConfig, claims_of, shell_of
from ringfence import timestamps
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.timestamps import ARRIVAL, DAY_US, NO_DATE, WHY_NO_TIME, DayTables, TimeTable

Ints = npt.NDArray[np.int64]


def _machine_times(texts: Sequence[str | None]) -> Ints | None:
    """Times that all have six decimals and `Z`, or all a numeric zone, read at once; None for any others."""
    if not texts or texts[0] is None or len(texts[0]) not in (27, 32) or None in texts:
        return None
    lengths = {len(text) for text in texts if text is not None}
    if lengths == {32}:
        joined = [text[:29] + text[30:] for text in texts if text is not None]
    elif lengths == {27} and all(text[26] == "Z" for text in texts if text is not None):
        joined = [text[:26] + "+0000" for text in texts if text is not None]
    else:
        return None
    micros, invalid = timestamps.parse(joined)
    micros[invalid] = NO_DATE
    return micros


class SyslogDecoder:
    """Decodes messages of any number of senders. `observer.name` is `observer`, else the sender's address or the path.

    `year` is that of times without one in a file that is read once.
    """

    def __init__(self, observer: str | None = None, keep_original: bool = True, year: int | None = None) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._times = DayTables(lambda day: TimeTable(year, day))
        self._addresses = AddressCache()
        self._continuations = Continuations(MAX_FRAME_BYTES)

    def feed(self, frames: Frames) -> Decoded:
        """Decode every frame; each is one row, one Problem, blank, or the rest of a message that was too long."""
        block = _Block(frames, self._continuations.of(frames))
        bsd, ietf = BSD.match, IETF.match
        found: list[Any] = [match.groups() if (match := bsd(text) or ietf(text)) else None for text in block.texts]
        block.look_again(found)
        rows = [row for row, fields in enumerate(found) if fields is not None]
        times = self._micros(rows, found, frames.received_us)
        bad = np.flatnonzero(times <= ARRIVAL).tolist()
        if bad:
            for index in bad:
                block.refuse(
                    rows[index], ProblemCode.MALFORMED, WHY_NO_TIME[int(times[index])], block.place_of_time(rows[index])
                )
            dropped = set(bad)
            rows = [row for index, row in enumerate(rows) if index not in dropped]
            times = times[times > ARRIVAL]
        tables = self._tables(block, rows, [found[row] for row in rows], times) if rows else {}
        problems = sorted(block.problems, key=lambda problem: problem.row or 0)
        return Decoded(tables, len(rows), problems, {reason: count for reason, count in block.filtered.items() if count})

    def _micros(self, rows: list[int], found: list[Fields | None], received_us: Ints) -> Ints:
        """Event time of each row; a mark at or below `ARRIVAL` where it cannot be known."""
        texts = [fields[1] for fields in found if fields is not None]
        regular = _machine_times(texts)
        if regular is not None:
            return regular
        arrived = received_us[rows]
        days = arrived // DAY_US
        if len(days) and days.min() == days.max():
            values = map(self._times[int(days[0])].__getitem__, texts)
        else:
            values = map(lambda day, text: self._times[day][text], days.tolist(), texts)
        micros = np.fromiter(values, np.int64, len(texts))
        at_arrival = (micros == ARRIVAL) & (arrived != 0)
        micros[at_arrival] = arrived[at_arrival]
        return micros

    def _tables(self, block: _Block, rows: list[int], found: list[Any], times: Ints) -> dict[EventClass, pl.DataFrame]:
        pri, _, host, app, procid, msgid, data, message = zip(*found, strict=True)
        columns = block.columns(rows, self._observer, self._keep_original)
        columns |= _header_columns(pri, host, app, procid, msgid, data, message)
        columns["@timestamp"] = pl.Series(times)
        return program_messages.tables(app, message, columns, "syslog", self._addresses)


_NEWLINE = ord("\n")
_NO_DATA = (None, "-")
_CODES: Mapping[str | None, int] = {None: -1, **{str(code): code for code in range(192)}}


def _header_columns(
    pri: Sequence[str | None],
    host: Sequence[str | None],
    app: Sequence[str | None],
    procid: Sequence[str | None],
    msgid: Sequence[str | None],
    data: Sequence[str | None],
    message: Sequence[str],
) -> dict[str, pl.Series]:
    codes = np.fromiter(map(_CODES.__getitem__, pri), np.int16, len(pri))
    absent = np.flatnonzero(codes < 0)
    name, process = _text(app), _text(procid)
    columns = {
        "log.syslog.facility.code": _without(pl.Series((codes >> 3).astype(np.uint8)), absent),
        "log.syslog.severity.code": _without(pl.Series((codes & 7).astype(np.uint8)), absent),
        "host.hostname": _text(host),
        "process.name": name,
        "log.syslog.appname": name,
        "log.syslog.procid": process,
        "process.pid": process.cast(pl.Int64, strict=False),
        "message": pl.Series(message, dtype=pl.String),
    }
    if any(msgid):
        columns["log.syslog.msgid"] = _text(msgid)
        columns["log.syslog.version"] = pl.Series(["1" if text else None for text in msgid], dtype=pl.String)
        some = any(text not in _NO_DATA for text in set(data))
        texts = list(map(structured_data, data)) if some else [None] * len(data)
        columns["ringfence.syslog.structured_data"] = pl.Series(texts, dtype=pl.String)
    return columns


def _text(values: Sequence[str | None]) -> pl.Series:
    """A column in which the NILVALUE of RFC 5424 is null."""
    series = pl.Series(values, dtype=pl.String)
    return series.set(series == "-", None) if "-" in values else series


def _without(series: pl.Series, rows: npt.NDArray[np.int64]) -> pl.Series:
    return series.scatter(rows, None) if len(rows) else series


class _Block:
    """One call of feed(): the text of each frame, and what became of those that are no row."""

    def __init__(self, frames: Frames, continuations: frozenset[int]) -> None:
        self._frames = frames
        self._continuations = continuations
        self._starts = frames.offsets[:-1].copy()
        self._miscounted: dict[int, int] = {}
        self._strip_counts()
        self._too_long = set(np.flatnonzero(np.diff(frames.offsets) > MAX_FRAME_BYTES).tolist())
        self._is_ascii = frames.data.isascii()
        self.texts = self._split()
        self.problems: list[Problem] = []
        self.filtered = {"blank": 0, "too_large_rest": 0}

    def _strip_counts(self) -> None:
        """Step over the octet count that a TCP frame keeps."""
        data, offsets = self._frames.data, self._frames.offsets
        full = np.flatnonzero(np.diff(offsets))
        first = np.frombuffer(data, np.uint8)[offsets[full]]
        for row in full[(first >= 0x31) & (first <= 0x39)].tolist():
            found = COUNT.match(data, offsets[row], offsets[row + 1])
            if found is None:
                continue
            self._starts[row] = found.end()
            if int(found[1]) != offsets[row + 1] - found.end():
                self._miscounted[row] = int(found[1])

    def _split(self) -> list[str]:
        """The text of each message without its newline; none where the frame is rejected anyway."""
        bounds = zip(self._starts.tolist(), self._frames.offsets[1:].tolist(), strict=True)
        if self._is_ascii:
            text = self._frames.data.decode("ascii")
            texts = text.split("\n")[:-1] if self._are_lines() else [text[start:end].rstrip("\r\n") for start, end in bounds]
        else:
            data = self._frames.data
            texts = [data[start:end].decode("utf-8", "replace").rstrip("\r\n") for start, end in bounds]
        for row in self._too_long | self._miscounted.keys():
            texts[row] = ""
        return texts

    def _are_lines(self) -> bool:
        """True when every frame is uncounted and ends with its only newline, and no text with another end of line."""
        data, offsets = self._frames.data, self._frames.offsets
        ends = offsets[1:]
        return (
            len(ends) > 0
            and b"\r" not in data
            and data.count(b"\n") == len(ends)
            and bool((np.frombuffer(data, np.uint8)[ends - 1] == _NEWLINE).all())
            and np.array_equal(self._starts, offsets[:-1])
        )

    def look_again(self, found: list[Fields | None]) -> None:
        """Read the messages that have none of the usual forms; count or refuse what is no message."""
        for row in [row for row, fields in enumerate(found) if fields is None]:
            if row in self._continuations:
                self.filtered["too_large_rest"] += 1
            elif row in self._too_long:
                self.refuse(row, ProblemCode.TOO_LARGE, f"the message is longer than {MAX_FRAME_BYTES} bytes", MAX_FRAME_BYTES)
            elif row in self._miscounted:
                self._refuse_count(row)
            elif not self.texts[row].strip():
                self.filtered["blank"] += 1
            else:
                found[row] = unusual(self.texts[row])
                if found[row] is None:
                    self._refuse_text(row)

    def refuse(self, row: int, code: ProblemCode, detail: str, offset: int) -> None:
        frames = self._frames
        source = frames.sources[frames.source[row]]
        self.problems.append(Problem(code, detail, row, offset, None, frames.frame(row), source, int(frames.positions[row])))

    def place_of_time(self, row: int) -> int:
        """Where the time of a message stands in its frame, or should."""
        return self._shift(row) + place_of_time(self._latin(row))

    def _refuse_count(self, row: int) -> None:
        announced, arrived = self._miscounted[row], int(self._frames.offsets[row + 1] - self._starts[row])
        code = ProblemCode.TRUNCATED if arrived < announced else ProblemCode.BAD_LENGTH
        self.refuse(row, code, f"octet count is {announced}, but {arrived} octets follow", 0)

    def _refuse_text(self, row: int) -> None:
        code, detail, offset = explain(self._latin(row))
        self.refuse(row, code, detail, offset + self._shift(row))

    def _latin(self, row: int) -> str:
        """The message with one character for each byte."""
        return self._frames.data[self._starts[row] : self._frames.offsets[row + 1]].decode("latin-1").rstrip("\r\n")

    def _shift(self, row: int) -> int:
        return int(self._starts[row] - self._frames.offsets[row])

    def columns(self, rows: list[int], observer: str | None, keep_original: bool) -> dict[str, pl.Series]:
        """The columns that do not depend on what a message says."""
        frames = self._frames
        source = frames.source[rows]
        received = frames.received_us[rows]
        identities = np.array([source.identity for source in frames.sources], np.uint64)
        names = pl.Series([observer or source.name for source in frames.sources], dtype=pl.String)
        columns = {
            "event.created": _without(pl.Series(received), np.flatnonzero(received == 0)),
            "ringfence.event.source": pl.Series(identities[source]),
            "ringfence.event.position": pl.Series(frames.positions[rows]),
            "observer.name": names.gather(source),
        }
        if keep_original:
            columns["event.original"] = self._originals(rows)
        return columns

    def _originals(self, rows: list[int]) -> pl.Series:
        if self._is_ascii:
            texts = self.texts if len(rows) == len(self.texts) else [self.texts[row] for row in rows]
            return pl.Series(texts, dtype=pl.String).cast(pl.Binary)
        data, starts, ends = self._frames.data, self._starts.tolist(), self._frames.offsets[1:].tolist()
        return pl.Series([data[starts[row] : ends[row]].rstrip(b"\r\n") for row in rows], dtype=pl.Binary)


class SyslogKind:
    """The collector kind `syslog`."""

    settings: type[BaseModel] = SyslogConfig
    promise = (
        "file: every complete line once, across restarts and rotation; tcp, tls, unix-dgram: what was read; "
        "udp: kernel drops are counted"
    )
    status: Status = "experimental"
    sample = 'hosts: {type: syslog, listen: "udp://0.0.0.0:514"}'
    formats: Sequence[Format] = (
        Format(
            "syslog",
            "syslog of RFC 5424 and RFC 3164, one message a line or octet counted",
            SyslogFramer,
            lambda year: SyslogDecoder(year=year),
            recognise,
            "syslog",
        ),
    )

    def build(self, settings: SyslogConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        decoder = SyslogDecoder(settings.observer, settings.original == "keep", settings.year)
        return Collector("syslog", shell_of(settings), decoder)

    def resources(self, settings: SyslogConfig) -> Sequence[str]:
        """The port or the file."""
        return claims_of(settings)


KIND = SyslogKind()
