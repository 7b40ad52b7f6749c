"""Syslog: RFC 5424, RFC 3164 with its usual deviations, and the framing of both on TCP (RFC 6587) and TLS (RFC 5425).

Messages about logins, accounts and privileges (`collectors/auth_messages.py`) become rows of class auth, all others of
class generic. Taken as RFC 3164, beside its own
form: no PRI (a file such as /var/log/auth.log), no hostname, no tag, a tag without process id, an ISO 8601 time, no time
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

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from collectors import auth_messages
from collectors.auth_messages import Said
from collectors.lines import MAX_LINE_BYTES, NO_FRAMES, Continuations, LineFramer, pieces
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from collectors.tls import TlsFiles
from collectors.udp import UdpShell
from collectors.unix import UnixDatagramShell
from ringfence import timestamps
from ringfence.addresses import AddressCache, HostPort
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Shell, Status
from ringfence.schema import build_frame
from ringfence.timestamps import ARRIVAL, DAY_US, NO_DATE, WHY_NO_TIME, DayTables, TimeTable
from ringfence.yamlfile import ConfigPath

MAX_FRAME_BYTES = MAX_LINE_BYTES

Ints = npt.NDArray[np.int64]
Fields = tuple[str | None, str | None, str | None, str | None, str | None, str | None, str | None, str | None]
"""PRI, time, hostname, app-name or tag, process id, msgid, structured data, message; the two before last only in RFC 5424."""

# Grammar. Quantifiers are bounded or possessive: matching is linear in the length of the line.
_PRI = "<(19[01]|1[0-8][0-9]|[1-9]?[0-9])>"  # RFC 5424 6.2.1
_ISO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)"  # RFC 5424 6.2.3
_BSD_TIME = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"  # RFC 3164 4.1.2
_TAG = r"([^\s:\[]{1,48})(?:\[([^\s\]]{1,128})\])?:(?: |\Z)"
_SD_NAME = r"[!#-<>-\\^-~]{1,32}"  # RFC 5424 6.3.2: printable but not = ] "
_SD_ELEMENT = rf'\[{_SD_NAME}(?: {_SD_NAME}="(?:[^"\\\]]++|\\.)*+")*+\]'
_HEADER_FIELDS = (  # RFC 5424 section 6
    ("TIMESTAMP", f"-|{_ISO_TIME}", "- or a time such as 2026-11-25T22:14:15.003Z"),
    ("HOSTNAME", "[!-~]{1,255}", "1 to 255 printable characters"),
    ("APP-NAME", "[!-~]{1,48}", "1 to 48 printable characters"),
    ("PROCID", "[!-~]{1,128}", "1 to 128 printable characters"),
    ("MSGID", "[!-~]{1,32}", "1 to 32 printable characters"),
)
_FLAGS = re.ASCII | re.DOTALL
_NOT_HERE = "(?:(?!)()())?"  # two groups that never match: the fields that RFC 3164 lacks
_BSD = re.compile(rf"(?:{_PRI})?({_BSD_TIME}|{_ISO_TIME}) ([^\s\[]{{0,254}}[^\s\[:]) {_TAG}{_NOT_HERE}(.*)", _FLAGS)
_IETF = re.compile(
    f"{_PRI}1 "
    + "".join(f"({pattern}) " for _, pattern, _ in _HEADER_FIELDS)
    + rf"(-|(?:{_SD_ELEMENT})++)(?: +\ufeff?|\Z)(.*)",
    _FLAGS,
)
_LOOSE = re.compile(rf"(?:{_PRI})?(?:({_BSD_TIME}|{_ISO_TIME})(?: |\Z))?(?:{_TAG})?(.*)", _FLAGS)
_HOST = re.compile(r"([\w.:-]{1,255}) (.+)", _FLAGS)
_VERSIONED = re.compile(rf"<\d{{1,3}}>([1-9]\d{{0,2}}) (?=1 |- |{_ISO_TIME})|<\d{{1,3}}>(1) ", _FLAGS)
_PARAMS = re.compile(rf'\[({_SD_NAME})| ({_SD_NAME})="((?:[^"\\\]]++|\\.)*+)"', _FLAGS)
_ESCAPE = re.compile(r'\\(["\\\]])')  # RFC 5424 6.3.3: any other backslash is one
_COUNT = re.compile(rb"([1-9][0-9]{0,7}) (?=<)")  # RFC 6587 3.4.1
_COUNT_BEGUN = re.compile(rb"[1-9][0-9]{0,7} ?")


class SyslogFramer:
    """Cuts a TCP stream into messages: octet counting (RFC 6587 3.4.1) or newlines (3.4.2), told apart for each frame.

    A frame that starts with a number, a space and `<` is octet counted and keeps that prefix. What is longer than the
    cap comes in pieces, as those of `collectors/lines.py`.
    """

    head_bytes = 0

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._piece = max_bytes + 1
        self._rest = bytearray()
        self._left = _AT_START
        """What is left of the frame at the start of `_rest`, or one of the two marks below."""

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Ints]:
        """Take the next bytes; return the frames that are complete, and the pieces of one that is too long."""
        if self._must_wait(data):
            self._rest += data
            return b"", NO_FRAMES
        if self._rest:
            data = bytes(self._rest) + data
        bounds = [0]
        while bounds[-1] < len(data):
            if self._left == _AT_START:
                self._left = _frame_length(data, bounds[-1])
            if self._left == _AT_START or not self._cut_one(data, bounds):
                break
        self._rest = bytearray(data[bounds[-1] :])
        return data[: bounds[-1]], np.array(bounds, np.int64)

    def finish(self) -> tuple[bytes, Ints]:
        """Return the last frame, complete or not."""
        rest, self._rest, self._left = bytes(self._rest), bytearray(), _AT_START
        return rest, np.array([0, len(rest)], np.int64) if rest else NO_FRAMES

    def _must_wait(self, data: bytes) -> bool:
        """True when nothing can be cut yet; spares joining what is held again and again."""
        held = len(self._rest) + len(data)
        if self._left == _TO_NEWLINE:
            return held < 2 * self._piece and b"\n" not in data
        return held < (self._left if self._left < 2 * self._piece else self._piece)

    def _cut_one(self, data: bytes, bounds: list[int]) -> bool:
        """Add the end of the frame that starts at the last boundary, or those of its pieces; False when it goes on."""
        start = bounds[-1]
        if self._left == _TO_NEWLINE:
            end = data.find(b"\n", start) + 1
            self._cut_pieces(start, end or len(data), bounds, len(data))
        else:
            end = start + self._left
            before = len(bounds)
            self._cut_pieces(start, end, bounds, len(data))
            self._left -= self._piece * (len(bounds) - before)
            end = end if end <= len(data) else 0
        if end:
            bounds.append(end)
            self._left = _AT_START
        return bool(end)

    def _cut_pieces(self, start: int, end: int, bounds: list[int], available: int) -> None:
        if end - start >= 2 * self._piece:
            bounds += pieces(start, end, self._piece, available).tolist()


_AT_START = 0
_TO_NEWLINE = -1


def _frame_length(data: bytes, start: int) -> int:
    """Length of the counted frame that starts there, `_TO_NEWLINE`, or `_AT_START` when more bytes must tell."""
    if not 0x31 <= data[start] <= 0x39:
        return _TO_NEWLINE
    counted = _COUNT.match(data, start)
    if counted:
        return counted.end() - start + int(counted[1])
    begun = _COUNT_BEGUN.match(data, start)
    return _AT_START if begun and begun.end() == len(data) else _TO_NEWLINE


def _machine_times(texts: Sequence[str | None]) -> Ints | None:
    """Times that all have six decimals and `Z`, or all a numeric zone, read at once; None for any others."""
    if not texts or None in texts:
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
        bsd, ietf = _BSD.match, _IETF.match
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
        logins = list(map(auth_messages.read, app, message))
        auth = [index for index, login in enumerate(logins) if login is not None]
        tables = {}
        if auth:
            ends = self._login_columns([login for login in logins if login is not None])
            tables[EventClass.AUTH] = build_frame(EventClass.AUTH, _taken(columns, auth, len(rows)) | ends)
        if len(auth) < len(rows):
            rest = [index for index, login in enumerate(logins) if login is None]
            kind = pl.repeat("syslog", len(rest), dtype=pl.String(), eager=True)
            generic = _taken(columns, rest, len(rows)) | {"ringfence.generic.type": kind}
            tables[EventClass.GENERIC] = build_frame(EventClass.GENERIC, generic)
        return tables

    def _login_columns(self, logins: list[Said]) -> dict[str, Any]:
        action, outcome, reason, method, user, target, group, command, terminal, address, port = zip(*logins, strict=True)
        ends = self._addresses.column(address)
        later = {
            "user.target.name": target,
            "group.name": group,
            "process.command_line": command,
            "ringfence.auth.terminal": terminal,
        }
        return {name: values for name, values in later.items() if any(values)} | {
            "event.action": action,
            "event.outcome": outcome,
            "event.reason": reason,
            "ringfence.auth.method": method,
            "user.name": user,
            "source.ip": ends.v4,
            "source.ip6": ends.v6 if ends.v6 is not None else pl.repeat(None, len(logins), dtype=pl.Binary(), eager=True),
            "source.port": pl.Series(port, dtype=pl.String).cast(pl.Int32),
        }


def _taken(columns: dict[str, pl.Series], rows: list[int], count: int) -> dict[str, Any]:
    return dict(columns) if len(rows) == count else {name: values.gather(rows) for name, values in columns.items()}


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
        columns["ringfence.syslog.structured_data"] = pl.Series(list(map(_structured, data)), dtype=pl.String)
    return columns


def _text(values: Sequence[str | None]) -> pl.Series:
    """A column in which the NILVALUE of RFC 5424 is null."""
    series = pl.Series(values, dtype=pl.String)
    return series.set(series == "-", None) if "-" in values else series


def _without(series: pl.Series, rows: npt.NDArray[np.int64]) -> pl.Series:
    return series.scatter(rows, None) if len(rows) else series


def _structured(text: str | None) -> str | None:
    """Structured data as JSON, id -> name -> value; a name that comes more than once has a list (RFC 5424 6.3.3)."""
    if text is None or text == "-":
        return None
    elements: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {}
    for found in _PARAMS.finditer(text):
        element, name, value = found.groups()
        if element is not None:
            params = elements.setdefault(element, {})
            continue
        value = _ESCAPE.sub(r"\1", value)
        before = params.get(name)
        params[name] = value if before is None else [*before, value] if isinstance(before, list) else [before, value]
    return msgspec.json.encode(elements).decode()


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
            found = _COUNT.match(data, offsets[row], offsets[row + 1])
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
            texts = [text[start:end].rstrip("\r\n") for start, end in bounds]
        else:
            data = self._frames.data
            texts = [data[start:end].decode("utf-8", "replace").rstrip("\r\n") for start, end in bounds]
        for row in self._too_long | self._miscounted.keys():
            texts[row] = ""
        return texts

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
                found[row] = _unusual(self.texts[row])
                if found[row] is None:
                    self._refuse_text(row)

    def refuse(self, row: int, code: ProblemCode, detail: str, offset: int) -> None:
        frames = self._frames
        source = frames.sources[frames.source[row]]
        self.problems.append(Problem(code, detail, row, offset, None, frames.frame(row), source, int(frames.positions[row])))

    def place_of_time(self, row: int) -> int:
        """Where the time of a message stands in its frame, or should."""
        found = re.match(rf"{_PRI}(?:1 )?", self._latin(row))
        return self._shift(row) + (found.end() if found else 0)

    def _refuse_count(self, row: int) -> None:
        announced, arrived = self._miscounted[row], int(self._frames.offsets[row + 1] - self._starts[row])
        code = ProblemCode.TRUNCATED if arrived < announced else ProblemCode.BAD_LENGTH
        self.refuse(row, code, f"octet count is {announced}, but {arrived} octets follow", 0)

    def _refuse_text(self, row: int) -> None:
        code, detail, offset = _explain(self._latin(row))
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
            return pl.Series([self.texts[row] for row in rows], dtype=pl.String).cast(pl.Binary)
        data, starts, ends = self._frames.data, self._starts.tolist(), self._frames.offsets[1:].tolist()
        return pl.Series([data[starts[row] : ends[row]].rstrip(b"\r\n") for row in rows], dtype=pl.Binary)


def _unusual(text: str) -> Fields | None:
    """A message of RFC 3164 that lacks hostname, tag or time; None when it is none, or a faulty one of RFC 5424."""
    found = _LOOSE.match(text)
    if found is None or _VERSIONED.match(text):
        return None
    pri, time, tag, pid, message = found.groups()
    if pri is None and time is None:
        return None
    host = None
    if time is not None and tag is None:
        named = _HOST.match(message)
        host, message = named.groups() if named else (None, message)
    return pri, time, host, tag, pid, None, None, message


def read_message(text: str) -> Fields | None:
    """The fields of a message without octet count and newline, in any of the accepted forms; None when it is none."""
    found = _BSD.match(text) or _IETF.match(text)
    if found is None:
        return _unusual(text)
    fields: Any = found.groups()
    return cast(Fields, fields)


def _explain(text: str) -> tuple[ProblemCode, str, int]:
    """Why a message is none, and the byte where reading failed."""
    if not text.startswith("<"):
        return ProblemCode.MALFORMED, "neither a PRI nor a time", 0
    if not re.match(_PRI, text):
        return ProblemCode.MALFORMED, "PRI is not a number from 0 to 191 in angle brackets", 1
    versioned = _VERSIONED.match(text)
    if versioned is not None and versioned[1] not in (None, "1"):
        return ProblemCode.UNKNOWN_VERSION, f"syslog version is {versioned[1]}; accepted: 1", versioned.start(1)
    return _explain_header(text, text.index(" ") + 1)


def _explain_header(text: str, place: int) -> tuple[ProblemCode, str, int]:
    """Find the faulty field of a message of RFC 5424."""
    for name, pattern, accepted in _HEADER_FIELDS:
        found = re.compile(f"(?:{pattern}) ", _FLAGS).match(text, place)
        if found is None:
            return ProblemCode.MALFORMED, f"{name} is not {accepted}", place
        place = found.end()
    element = re.compile(_SD_ELEMENT, _FLAGS)
    while found := element.match(text, place):
        place = found.end()
    return ProblemCode.MALFORMED, 'STRUCTURED-DATA is not - or [id name="value" ...]', place


def recognise(first: bytes) -> bool:
    """True when a file that starts so is syslog: a PRI (after an octet count or not), or a time and a hostname.

    Lines of filterlog have a decoder of their own (`collectors/filterlog.py`).
    """
    line = first.split(b"\n", 1)[0].decode("latin-1")
    if re.search(r" filterlog(?:\[\d{1,10}\])?[: ]", line):
        return False
    counted = _COUNT.match(first)
    return bool(
        re.match(_PRI, line[counted.end() if counted else 0 :]) or re.match(rf"(?:{_BSD_TIME}|{_ISO_TIME}) [!-~]+ ", line)
    )


def _listen(value: str) -> str:
    transport, separator, address = value.partition("://")
    if transport in ("udp", "tcp", "tls") and separator:
        return f"{transport}://{HostPort.parse(address)}"
    if transport == "unix-dgram" and address.startswith("/"):
        return value
    raise ValueError(
        f"{value!r} is not udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix-dgram:///PATH, such as udp://127.0.0.1:514"
    )


class SyslogConfig(BaseModel):
    """Listens on one UDP, TCP or TLS port or local socket, or reads one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_listen)] | None = Field(
        default=None, description="udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix-dgram:///PATH (such as /dev/log)."
    )
    tls: TlsFiles | None = Field(
        default=None,
        description="PEM files for tls://: `certificate`, `key` and, where senders must show a certificate too, `client_ca`.",
    )
    path: ConfigPath | None = Field(default=None, description="File to read.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    year: int | None = Field(default=None, ge=1970, le=9999, description="Year of times without one; only with follow: false.")
    observer: str | None = Field(default=None, description="Name of the sensor; the sender's address or the path when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each message as it came as event.original.")

    @model_validator(mode="after")
    def _check(self) -> SyslogConfig:
        if (self.listen is None) == (self.path is None):
            raise ValueError("exactly one of listen and path is required")
        if (self.tls is None) == str(self.listen).startswith("tls://"):
            raise ValueError("tls is required for listen: tls://HOST:PORT, and only for that")
        if self.year is not None and (self.path is None or self.follow):
            raise ValueError(
                "year is only for a file that is read once (path and follow: false); else the time of arrival tells it"
            )
        return self


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
        if settings.listen is None:
            return [f"file {settings.path}"]
        return [settings.listen.replace("tls://", "tcp://").replace("://", " ")]


def shell_of(settings: SyslogConfig) -> Shell:
    """What reads the port or the file."""
    if settings.path is not None:
        return TailShell(settings.path, LineFramer, settings.follow)
    transport, _, address = str(settings.listen).partition("://")
    if transport == "unix-dgram":
        return UnixDatagramShell(Path(address))
    where = HostPort.parse(address)
    if transport == "udp":
        return UdpShell(where.host, where.port)
    return TcpShell(where.host, where.port, SyslogFramer, settings.tls)


KIND = SyslogKind()
