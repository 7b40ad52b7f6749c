"""Zeek logs, as JSON lines or tab-separated (Zeek 4 to 8: "Log Formats", `LogAscii::use_json`, json-streaming-logs, Corelight).

JSON names the ends `id.orig_h`, `id_orig_h` or `{"id":{"orig_h":...}}`. The log is the value of `_path`, else the first of
MARKERS that the line has as a key. `ts` is seconds or, from 1e11 on, milliseconds since the epoch, or ISO 8601. Lines of a
log that is not in LOGS become rows of class generic with their line kept; so do those of no known log.

A tab-separated log tells its fields in header lines, which may come again in its middle with others. A framer keeps the
header in force, and the shell stores it with the position: reading goes on in the middle of a file. Lines without a
header before them are Problems, and so are those with more or fewer fields than it names. `#types` is not needed.

conn: source is the originator. `history` gives the TCP flags: S SYN, H SYN and ACK, A ACK, F FIN, R RST, D and T payload
(PSH, with ACK when that end sent no SYN: only such payload needs an answer seen before it). Without a history, those that
`conn_state` implies. So S0 holds no answer, REJ an RST alone, S1 or SF both SYNs, and boundaries judge by the same rule as
for any flow record: an S0 whose history shows a handshake of the originator (`SAD`, seen one way) was answered all the
same. Bytes are those of the payload (`orig_bytes`), as Zeek counts them. Of ICMP, the ports are type and code.

files: where the log has no `id` (before Zeek 5.1), the ends are the first of `tx_hosts` and `rx_hosts`, turned round unless
`is_orig` is true. notice, weird and signatures are alerts; their severity is not known.

Samples: {"ts":1795592663.123456,"uid":"CHhAvVGS1DHFjwGM9","id.orig_h":"10.1.0.5","id.orig_p":50000,...,"conn_state":"SF"}
#fields<TAB>ts<TAB>uid<TAB>id.orig_h<TAB>id.orig_p<TAB>...
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collectors.kafka_topic import KafkaTopic, KafkaTopicShell, require_one
from collectors.lines import MAX_STREAMS, Boundaries, Continuations, LineFramer, first_line
from collectors.records import MAX_INT, TRANSPORTS, LineBlock, integers, without
from collectors.tail import TailShell
from ringfence import timestamps
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.jsonlines import decode_lines, explain, locate
from ringfence.projection import columns_of, json_type, zeek_columns
from ringfence.schema import Column, build_frame
from ringfence.yamlfile import ConfigPath

CHUNK_LINES = 512
RUN_LINES = 4096  # their texts as Python objects stay in the cache until they are columns
MAX_HISTORIES = 65_536
MAX_HEAD_BYTES = 64 * 1024

LOGS: Mapping[str, EventClass] = {
    "conn": EventClass.FLOW,
    "dns": EventClass.DNS,
    "http": EventClass.HTTP,
    "ssl": EventClass.TLS,
    "ssh": EventClass.SSH,
    "files": EventClass.FILE,
    "notice": EventClass.ALERT,
    "weird": EventClass.ALERT,
    "signatures": EventClass.ALERT,
}
MARKERS: Mapping[str, str] = {
    "conn_state": "conn",
    "seen_bytes": "files",
    "trans_id": "dns",
    "qtype_name": "dns",
    "rejected": "dns",
    "request_path": "sip",
    "response_body_len": "http",
    "established": "ssl",
    "ssl_history": "ssl",
    "auth_attempts": "ssh",
    "sig_id": "signatures",
    "note": "notice",
    "notice": "weird",
}
"""Keys that tell the log of a line without `_path`, in this order: sip before http and signatures before notice, whose keys they have."""

OTHER = ""
"""Stands for every log that is not in LOGS: however many names there are, they share one plan."""

Ints = npt.NDArray[np.int64]
Values = Mapping[str, Any]
"""The fields of one log by path: lists of what JSON holds, or Series where the decoder has typed them already."""
Where = Callable[[int, str], int]
"""The byte of a field in a line."""

_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_TCP, _ICMP, _ICMP6 = 6, 1, 58
_MILLIS_FROM = 1e11
_MARKED = tuple((f'"{key}":'.encode(), log) for key, log in MARKERS.items())
_PATH_KEY = re.compile(rb'"_path"\s*:\s*"([^"\\]{1,64})"')
_TIMES = frozenset({"ts", "duration"})
_EXTRA: Mapping[str, tuple[tuple[str, Any], ...]] = {
    "files": (("tx_hosts", list[str]), ("rx_hosts", list[str]), ("conn_uids", list[str]), ("is_orig", bool)),
    OTHER: (("_path", str),),
}


class _Plan(NamedTuple):
    """How one log is read."""

    event_class: EventClass
    columns: tuple[tuple[Column, tuple[str, ...]], ...]
    fields: tuple[tuple[str, Any], ...]
    """Every path that is read, with its JSON type."""


@cache
def _plan(log: str) -> _Plan:
    event_class = LOGS.get(log, EventClass.GENERIC)
    columns = tuple(zeek_columns(event_class, log))
    fields = {path: _type(column, path) for column, paths in columns for path in paths} | dict(_EXTRA.get(log, ()))
    return _Plan(event_class, columns, tuple(fields.items()))


def _type(column: Column, path: str) -> Any:
    if path in _TIMES:
        return float | str if path == "ts" else float
    return str if column.render == "ipv4" or path == "proto" else json_type(column.dtype)


class _Reader(NamedTuple):
    """The generated Struct of one log, and under which of its members each path may stand."""

    decoder: msgspec.json.Decoder[Any]
    struct: type[msgspec.Struct]
    members: Mapping[str, tuple[str, ...]]
    may_name_a_file: bool
    """Whether `id` may be text, as in pe.log, and not the object with the ends."""


_Dialects = Literal["dotted", "all"]
_OTHER_DIALECTS = (b'"id_', b'"id"', b"\\u")
"""What a line has that names an end as `id_orig_h`, or in an object `id`, or any key by escapes."""


def _dialects_in(texts: pl.Series) -> _Dialects:
    """The dialects that lines may be in; most files have one, and reading two more costs a tenth of the time."""
    return "all" if any(texts.bin.contains(mark).any() for mark in _OTHER_DIALECTS) else "dotted"


@cache
def _reader(log: str, dialects: _Dialects) -> _Reader:
    """A path with dots is read as one key, and if all dialects are asked for, with underscores and as an object in an object."""
    plain: list[tuple[str, Any, Any]] = []
    rename: dict[str, str] = {}
    members: dict[str, tuple[str, ...]] = {}
    inner: list[tuple[str, Any, Any]] = []
    for path, kind in _plan(log).fields:
        if "." not in path:
            plain.append((path, kind | None, None))
            members[path] = (path,)
            continue
        parent, _, leaf = path.partition(".")
        dotted, scored, leaf_name = path.replace(".", "__"), path.replace(".", "_"), leaf.replace(".", "_")
        plain.append((dotted, kind | None, None))
        rename[dotted] = path
        members[path] = (dotted,)
        if dialects == "all":
            plain.append((scored, kind | None, None))
            inner.append((leaf_name, kind | None, None))
            members[path] = (dotted, scored, f"{parent}.{leaf_name}")
    if dialects == "all":
        nested = msgspec.defstruct(f"{log or 'other'}_id", inner, gc=False)
        plain.append(("id", (nested | str if log == OTHER else nested) | None, None))
    struct = msgspec.defstruct(log or "other", plain, gc=False, rename=rename)
    return _Reader(msgspec.json.Decoder(struct), struct, members, dialects == "all" and log == OTHER)


class _Gathered:
    """The fields of all lines of one log in a block, by path, with the rows that they came from."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.members: dict[str, list[Any]] = {}

    def take(self, columns: Mapping[str, Sequence[Any]], rows: Sequence[int]) -> None:
        for name, values in columns.items():
            self.members.setdefault(name, []).extend(values)
        self.rows += rows

    def values(self, members: Mapping[str, tuple[str, ...]]) -> Values:
        return {path: _first_set([self.members[name] for name in names]) for path, names in members.items()}


def _first_set(lists: Sequence[list[Any]]) -> list[Any]:
    """Row by row the first value that is there."""
    nothing = [None] * len(lists[0])
    found = [values for values in lists if values != nothing] or [nothing]
    if len(found) == 1:
        return found[0]
    return [next((value for value in row if value is not None), None) for row in zip(*found, strict=True)]


class _Rows:
    """Turns gathered fields into the typed rows of an event class, whatever format they came in."""

    def __init__(self, observer: str | None, keep_original: bool) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._histories = _Histories()

    def frame(self, block: LineBlock, log: str, rows: Ints, values: Values, where: Where) -> pl.DataFrame:
        """The rows of one log; `where` finds the byte of a field in a line that has to be refused."""
        plan = _plan(log)
        columns: dict[str, Any] = {}
        bad: dict[int, tuple[str, str]] = {}
        for column, paths in plan.columns:
            self._convert(column, paths, values, columns, bad)
        self._finish(log, values, columns)
        is_generic = plan.event_class is EventClass.GENERIC
        lossy = plan.event_class in (EventClass.FLOW, EventClass.ALERT)
        columns |= block.origin_columns(rows, self._keep_original or is_generic, lossy)
        if is_generic:
            columns["ringfence.generic.type"] = values["_path"]
        if self._observer is not None:
            columns["observer.name"] = pl.Series(columns["observer.name"], dtype=pl.String).fill_null(self._observer)
        for index, (path, detail) in bad.items():
            row = int(rows[index])
            block.refuse(ProblemCode.WRONG_TYPE, detail, row, where(row, path), f"$.{path}")
        return without(build_frame(plan.event_class, columns), bad)

    def _convert(
        self, column: Column, paths: tuple[str, ...], values: Values, columns: dict[str, Any], bad: dict[int, tuple[str, str]]
    ) -> None:
        """One column from its fields; the rows that cannot be are noted in `bad` with the field and the reason."""
        found = values[paths[0]] if len(paths) == 1 else _first_set([_listed(values[path]) for path in paths])
        wrong: dict[int, str] = {}
        if column.render == "ipv4":
            parsed = self._addresses.column(found)
            columns[column.name] = parsed.v4
            columns[f"{column.name}6"] = _or_nulls(parsed.v6, len(found))
            wrong = dict.fromkeys(parsed.invalid.tolist(), "Expected an IPv4 or IPv6 address")
        elif column.name == "event.end":
            columns[column.name] = _ends(columns["event.start"], found)
        elif column.render == "time":
            columns[column.name], absent = _micros(found)
            wrong = dict.fromkeys(absent.tolist(), "Expected seconds or milliseconds since the epoch, or ISO 8601")
        elif column.name == "network.iana_number":
            columns[column.name] = list(map(TRANSPORTS.__getitem__, found))
        elif column.name in _VLANS:
            columns[column.name] = [tag if tag is not None and 0 <= tag <= 4095 else None for tag in found]
        elif column.dtype.is_integer():
            low, high = (0, 65_535) if column.name.endswith(".port") else (-MAX_INT, MAX_INT)
            columns[column.name] = integers(found, low, high, "", wrong)
            wrong = dict.fromkeys(wrong, "Number out of range")
        else:
            columns[column.name] = found
        for index, detail in wrong.items():
            path = next((path for path in paths if values[path][index] is not None), paths[0])
            bad.setdefault(index, (path, detail))

    def _finish(self, log: str, values: Values, columns: dict[str, Any]) -> None:
        """What more than one field says."""
        if log == "conn":
            self._finish_conn(columns)
        elif log == "dns":
            answered = columns["dns.response_code"]
            columns["dns.type"] = ["query" if code is None else "answer" for code in answered]
        elif log == "files":
            self._finish_files(values, columns)

    def _finish_conn(self, columns: dict[str, Any]) -> None:
        protocol = columns["network.iana_number"]
        histories, states = columns["ringfence.flow.history"], columns["ringfence.flow.state"]
        seen = self._histories
        flags = [
            seen[letters] if letters else _IMPLIED.get(state, _NO_FLAGS)
            for letters, state in zip(histories, states, strict=True)
        ]
        is_tcp = [number == _TCP for number in protocol]
        for place, name in enumerate(("ringfence.tcp.source_flags", "ringfence.tcp.destination_flags")):
            columns[name] = [pair[place] if tcp else None for pair, tcp in zip(flags, is_tcp, strict=True)]
        if _ICMP in protocol:
            _icmp(columns, protocol)

    def _finish_files(self, values: Values, columns: dict[str, Any]) -> None:
        """The ends of a log without `id`."""
        sent, got, from_originator = ([*values[name]] for name in ("tx_hosts", "rx_hosts", "is_orig"))
        columns["ringfence.flow.id"] = [
            uid if uid is not None or not several else several[0]
            for uid, several in zip(columns["ringfence.flow.id"], values["conn_uids"], strict=True)
        ]
        ends = [(tx, rx) if forth else (rx, tx) for tx, rx, forth in zip(sent, got, from_originator, strict=True)]
        absent = columns["source.ip"].is_null() & columns["source.ip6"].is_null()
        absent &= columns["destination.ip"].is_null() & columns["destination.ip6"].is_null()
        for place, side in enumerate(("source", "destination")):
            parsed = self._addresses.column([hosts[place][0] if hosts[place] else None for hosts in ends])
            columns[f"{side}.ip"] = parsed.v4.zip_with(absent, columns[f"{side}.ip"])
            v6 = _or_nulls(parsed.v6, len(ends))
            columns[f"{side}.ip6"] = v6.zip_with(absent, columns[f"{side}.ip6"])


_VLANS = frozenset({"network.vlan.id", "network.inner.vlan.id"})
_NO_FLAGS = (None, None)
_LETTERS: Mapping[str, int] = {"s": _SYN, "h": _SYN | _ACK, "a": _ACK, "f": _FIN, "r": _RST, "d": _PSH, "t": _PSH, "q": _SYN}
"""Flags by the letter of `history` (Conn::Info); of q, SYN with FIN or RST, the SYN is sure."""
_OPEN, _BOTH = _SYN | _ACK, _SYN | _ACK | _FIN
_IMPLIED: Mapping[str | None, tuple[int | None, int | None]] = {
    "S0": (_SYN, 0),
    "S1": (_OPEN, _OPEN),
    "S2": (_BOTH, _OPEN),
    "S3": (_OPEN, _BOTH),
    "SF": (_BOTH, _BOTH),
    "REJ": (_SYN, _RST | _ACK),
    "RSTO": (_OPEN | _RST, _OPEN),
    "RSTR": (_OPEN, _OPEN | _RST),
    "RSTOS0": (_SYN | _RST, 0),
    "RSTRH": (0, _OPEN | _RST),
    "SH": (_SYN | _FIN, 0),
    "SHR": (0, _OPEN | _FIN),
}
"""Flags that a `conn_state` stands for (Conn::Info); OTH stands for none."""


class _Histories(dict[str, tuple[int, int]]):
    """The flags of both ends by `history`."""

    def __missing__(self, letters: str) -> tuple[int, int]:
        if len(self) >= MAX_HISTORIES:
            self.clear()
        flags = [0, 0]
        for letter in letters:
            flags[letter.islower()] |= _LETTERS.get(letter.lower(), 0)
        source, destination = (side | _ACK if side & _PSH and not side & _SYN else side for side in flags)
        found = self[letters] = (source, destination)
        return found


def _icmp(columns: dict[str, Any], protocol: list[int | None]) -> None:
    """Zeek writes type and code of ICMP where the ports stand, and `icmp` for ICMPv6 too."""
    is_icmp = pl.Series([number == _ICMP for number in protocol])
    no_ports = pl.Series([None], dtype=pl.Int64)
    for side, name in (("source", "type"), ("destination", "code")):
        ports = columns[f"{side}.port"]
        columns[f"ringfence.icmp.{name}"] = ports.zip_with(is_icmp & (ports < 256).fill_null(False), no_ports)
        columns[f"{side}.port"] = no_ports.zip_with(is_icmp, ports)
    is_v6 = (columns["source.ip6"].is_not_null() & is_icmp).to_list()
    columns["network.iana_number"] = [_ICMP6 if v6 else number for v6, number in zip(is_v6, protocol, strict=True)]


def _or_nulls(series: pl.Series | None, count: int) -> pl.Series:
    return pl.repeat(None, count, dtype=pl.Binary(), eager=True) if series is None else series


def _listed(values: Any) -> list[Any]:
    return values.to_list() if isinstance(values, pl.Series) else values


def _micros(values: Any) -> tuple[pl.Series, Ints]:
    """Event times, and the rows that have none."""
    if isinstance(values, pl.Series):
        return _from_numbers(values.to_numpy())
    texts = [row for row, value in enumerate(values) if type(value) is str]
    if not texts:
        return _from_numbers(np.array(values, np.float64))
    if len(texts) == len(values):
        return _nulled(*_from_texts(values))
    numbers = [np.nan if type(value) is str else value for value in values]
    series, absent = _from_numbers(np.array(numbers, np.float64))
    micros, wrong = _from_texts([values[row] for row in texts])
    series = series.scatter(texts, micros).scatter([texts[index] for index in wrong.tolist()], None)
    return series, np.flatnonzero(series.is_null().to_numpy()) if len(absent) else absent


def _from_texts(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """ISO 8601 as Zeek writes it: microseconds and Z."""
    if all(len(text) == 27 and text[26] == "Z" for text in texts):
        texts = [text[:26] + "+0000" for text in texts]
    return timestamps.parse(texts)


def _from_numbers(seconds: npt.NDArray[np.float64]) -> tuple[pl.Series, Ints]:
    seconds = np.where(seconds >= _MILLIS_FROM, seconds / 1000, seconds)
    good = (seconds >= 0) & (seconds < timestamps.END_S)
    return _nulled(np.rint(np.where(good, seconds, 0) * 1e6).astype(np.int64), np.flatnonzero(~good))


def _nulled(micros: Ints, absent: Ints) -> tuple[pl.Series, Ints]:
    series = pl.Series(micros)
    return (series.scatter(absent.tolist(), None) if len(absent) else series), absent


def _ends(starts: pl.Series, durations: Any) -> pl.Series:
    """When the last packet came: absent without a duration, as of a single packet."""
    seconds = durations.to_numpy() if isinstance(durations, pl.Series) else np.array(durations, np.float64)
    good = (seconds >= 0) & (seconds < _MILLIS_FROM)
    micros = pl.Series(np.rint(np.where(good, seconds, 0) * 1e6).astype(np.int64))
    return (starts + micros).set(pl.Series(~good), None)


class ZeekJsonDecoder:
    """Decoder of JSON lines of any logs. `observer` names the sensor where a line has no `_system_name`."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._rows = _Rows(observer, keep_original)
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem or blank."""
        block = LineBlock(frames, self._continuations)
        dialects = _dialects_in(block.original())
        parts: dict[EventClass, list[pl.DataFrame]] = {}
        for log, rows in _rows_by_log(block.original(), block.lines):
            for start in range(0, len(rows), RUN_LINES):
                frame = self._run(block, log, _reader(log, dialects), rows[start : start + RUN_LINES])
                if frame is not None and frame.height:
                    parts.setdefault(_plan(log).event_class, []).append(frame)
        return block.decoded(parts)

    def _run(self, block: LineBlock, log: str, reader: _Reader, rows: Sequence[int]) -> pl.DataFrame | None:
        """The rows of some lines of one log."""
        gathered = _Gathered()
        for start in range(0, len(rows), CHUNK_LINES):
            self._take(block, reader, rows[start : start + CHUNK_LINES], gathered)
        if not gathered.rows:
            return None

        def where(row: int, path: str) -> int:
            line = block.lines[row]
            return locate(line, f"$.{path}") or locate(line, f"$.{path.replace('.', '_')}")

        return self._rows.frame(block, log, np.array(gathered.rows), gathered.values(reader.members), where)

    def _take(self, block: LineBlock, reader: _Reader, rows: Sequence[int], gathered: _Gathered) -> None:
        """Decode some lines of one log and copy their fields into lists, while the Structs are in the cache."""
        structs, refused = decode_lines(reader.decoder, [block.lines[row] for row in rows])
        for index in refused:
            self._refuse(block, reader, rows[index])
        if refused:
            rows = [row for row, struct in zip(rows, structs, strict=True) if struct is not None]
            structs = [struct for struct in structs if struct is not None]
        if reader.may_name_a_file:
            for struct in structs:
                struct.id = None if isinstance(struct.id, str) else struct.id
        if structs:
            gathered.take(columns_of(structs, reader.struct), rows)

    def _refuse(self, block: LineBlock, reader: _Reader, row: int) -> None:
        line = block.lines[row]
        if not line.strip():
            block.filtered["blank"] += row not in block.left_out
            return
        code, detail, offset, path = explain(reader.decoder, line)
        block.refuse(code, detail, row, offset, path)


def _rows_by_log(texts: pl.Series, lines: Sequence[bytes]) -> Iterator[tuple[str, Sequence[int]]]:
    """The rows that `_log_of` gives each log, the log of the first row first; told for all lines at once."""
    codes = np.full(len(lines), len(_MARKED))
    open_rows = ~texts.bin.contains(b'"_path"').to_numpy()
    named = np.flatnonzero(~open_rows)
    for code, (marker, _) in enumerate(_MARKED):
        if not open_rows.any():
            break
        found = open_rows & texts.bin.contains(marker).to_numpy()
        codes[found] = code
        open_rows &= ~found
    logs = [*(log if log in LOGS else OTHER for _, log in _MARKED), OTHER]
    numbers = {log: number for number, log in enumerate(dict.fromkeys(logs))}
    numbered = np.array([numbers[log] for log in logs]).take(codes)
    for row in named.tolist():
        numbered[row] = numbers.setdefault(_log_of(lines[row]), len(numbers))
    names = list(numbers)
    found_numbers, firsts = np.unique(numbered, return_index=True)
    for number in found_numbers[np.argsort(firsts)].tolist():
        rows = np.flatnonzero(numbered == number)
        yield names[number], range(len(lines)) if len(rows) == len(lines) else rows.tolist()


def _log_of(line: bytes) -> str:
    """The log that a line is read as: a name from LOGS, or OTHER."""
    if b'"_path"' in line:
        named = _PATH_KEY.search(line)
        if named is not None:
            name = named[1].decode("latin-1")
            return name if name in LOGS else OTHER
    for marker, log in _MARKED:
        if marker in line:
            return log if log in LOGS else OTHER
    return OTHER


class ZeekTsvFramer(LineFramer):
    """Cuts lines, and remembers the header in force: `head` is what a framer needs that goes on after them."""

    def __init__(self) -> None:
        super().__init__()
        self._head: dict[bytes, bytes] = {}

    @property
    def head(self) -> bytes:
        """The header lines that hold for what comes next."""
        return b"".join(self._head.values())

    def cut(self, data: bytes) -> tuple[bytes, Boundaries]:
        """Take the next bytes; return the lines that are complete."""
        data, bounds = super().cut(data)
        if data.startswith(b"#") or b"\n#" in data:
            first = np.frombuffer(data, np.uint8)[bounds[:-1]]
            for row in np.flatnonzero(first == _HASH).tolist():
                self._keep(data[bounds[row] : bounds[row + 1]])
        return data, bounds

    def _keep(self, line: bytes) -> None:
        name = _DIRECTIVE.match(line)
        if name is None or name[1] not in _IN_FORCE:
            return
        if name[1] == b"separator":
            self._head.clear()
        self._head.pop(name[1], None)
        if len(line) <= MAX_HEAD_BYTES:
            self._head[name[1]] = line


_HASH = ord("#")
_DIRECTIVE = re.compile(rb"#([a-z_]{1,32})")
_IN_FORCE = frozenset({b"separator", b"set_separator", b"empty_field", b"unset_field", b"path", b"fields"})
_HEX = re.compile(r"\\x([0-9a-fA-F]{2})")
_ESCAPED_RUN = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")


class _Header(NamedTuple):
    """What the header lines of a stream say, as far as they came."""

    separator: str = "\t"
    set_separator: str = ","
    empty: str = "(empty)"
    unset: str = "-"
    path: str = ""
    fields: tuple[str, ...] = ()

    def after(self, line: str) -> _Header:
        """With one more header line. Raises ValueError that says what is wrong with it."""
        if line.startswith("#separator"):
            separator = _unescaped(line.removeprefix("#separator").strip(" "))
            if len(separator) != 1 or separator in "\r\n#":
                raise ValueError("#separator is not one character, such as \\x09")
            return _Header(separator)
        name, *values = line[1:].split(self.separator)
        if name == "fields":
            if not values or "" in values:
                raise ValueError("#fields names no field, or one without a name")
            return self._replace(fields=tuple(values))
        text = _unescaped(values[0]) if values else ""
        place = {"set_separator": "set_separator", "empty_field": "empty", "unset_field": "unset", "path": "path"}.get(name)
        if place is None:
            return self
        if place == "set_separator" and not text:
            raise ValueError("#set_separator is empty")
        said: dict[str, Any] = {place: text}
        return self._replace(**said)


class ZeekTsvDecoder:
    """Decoder of tab-separated lines of any logs, with their headers. `observer` is as of ZeekJsonDecoder."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._rows = _Rows(observer, keep_original)
        self._continuations = Continuations()
        self._headers: dict[int, _Header] = {}

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem, blank or of a header."""
        block = LineBlock(frames, self._continuations)
        parts: dict[EventClass, list[pl.DataFrame]] = {}
        for header, rows in self._runs(block).items():
            log = header.path if header.path in LOGS else OTHER
            for start in range(0, len(rows), RUN_LINES):
                frame = self._run(block, header, log, rows[start : start + RUN_LINES])
                if frame is not None and frame.height:
                    parts.setdefault(_plan(log).event_class, []).append(frame)
        return block.decoded(parts)

    def _runs(self, block: LineBlock) -> Mapping[_Header, list[int]]:
        """The lines of records by their header."""
        runs: dict[_Header, list[int]] = {}
        lines = block.lines
        several = len(block.frames.sources) > 1
        special = range(len(lines)) if several else [row for row, line in enumerate(lines) if not line or line[0] == _HASH]
        start = 0
        for row in [*special, len(lines)]:
            self._assign(block, range(start, row), runs)
            start = row + 1
            if row == len(lines):
                break
            if not lines[row]:
                block.filtered["blank"] += row not in block.left_out
            elif lines[row][0] == _HASH:
                self._read_header(block, row)
            else:
                self._assign(block, range(row, row + 1), runs)
        return runs

    def _assign(self, block: LineBlock, rows: range, runs: dict[_Header, list[int]]) -> None:
        """Give lines of one stream the header in force."""
        if not rows:
            return
        header = self._headers.get(block.stream(rows[0]), _NO_HEADER)
        if header.fields:
            runs.setdefault(header, []).extend(rows)
            return
        for row in rows:
            block.refuse(ProblemCode.MALFORMED, "no #fields line came before it", row, 0, None)

    def _read_header(self, block: LineBlock, row: int) -> None:
        stream = block.stream(row)
        header = self._headers.get(stream, _NO_HEADER)
        try:
            known = header.after(block.lines[row].decode())
        except ValueError as error:
            block.refuse(ProblemCode.MALFORMED, str(error), row, 0, None)
            known = header._replace(fields=())
        else:
            block.filtered["header"] += 1
        self._headers.pop(stream, None)
        if len(self._headers) >= MAX_STREAMS:
            del self._headers[next(iter(self._headers))]
        self._headers[stream] = known

    def _run(self, block: LineBlock, header: _Header, log: str, rows: list[int]) -> pl.DataFrame | None:
        """The rows of lines under one header; a line with another number of fields is refused."""
        places = {name: place for place, name in reversed(list(enumerate(header.fields)))}
        cells: dict[str, list[str]] = {path: [] for path, _ in _plan(log).fields if path in places}
        taken: list[int] = []
        escaped = False
        for start in range(0, len(rows), CHUNK_LINES):
            chunk = rows[start : start + CHUNK_LINES]
            lines = [block.lines[row] for row in chunk]
            text = b"\n".join(lines).decode()
            escaped = escaped or "\\" in text
            texts = text.split("\n")
            if len(texts) != len(lines):  # a frame is more than a line
                texts = [line.decode() for line in lines]
            found = [line.split(header.separator) for line in texts]
            if set(map(len, found)) != {len(header.fields)}:
                chunk, found = _of_width(block, header, chunk, found)
            if chunk:
                columns = list(zip(*found, strict=True))
                for path, values_of in cells.items():
                    values_of += columns[places[path]]
                taken += chunk
        rows = taken
        if not rows:
            return None

        def where(row: int, path: str) -> int:
            parts = block.lines[row].decode().split(header.separator)
            before = parts[: header.fields.index(path)] if path in header.fields else []
            return len(header.separator.join([*before, ""]).encode())

        values, wrong = _typed(header, log, cells, len(rows), escaped)
        if wrong:
            for index, (path, detail) in wrong.items():
                block.refuse(ProblemCode.WRONG_TYPE, detail, rows[index], where(rows[index], path), f"$.{path}")
            good = [index for index in range(len(rows)) if index not in wrong]
            if not good:
                return None
            values = {
                path: column.gather(good) if isinstance(column, pl.Series) else [column[index] for index in good]
                for path, column in values.items()
            }
            rows = [rows[index] for index in good]
        return self._rows.frame(block, log, np.array(rows), values, where)


_NO_HEADER = _Header()


def _of_width(block: LineBlock, header: _Header, rows: list[int], cells: list[list[str]]) -> tuple[list[int], list[list[str]]]:
    """Those lines that have as many fields as the header; the others are refused."""
    width = len(header.fields)
    for row, parts in zip(rows, cells, strict=True):
        if len(parts) != width:
            offset = len(header.separator.join(parts[:width]).encode())
            code = ProblemCode.TRUNCATED if len(parts) < width else ProblemCode.BAD_LENGTH
            block.refuse(code, f"the line has {len(parts)} fields, #fields names {width}", row, offset, None)
    good = [(row, parts) for row, parts in zip(rows, cells, strict=True) if len(parts) == width]
    return [row for row, _ in good], [parts for _, parts in good]


def _typed(
    header: _Header, log: str, cells: Mapping[str, list[str]], count: int, escaped: bool
) -> tuple[dict[str, Any], dict[int, tuple[str, str]]]:
    """The columns of text as the values that JSON would have; rows whose text is none, with the field and the reason."""
    values: dict[str, Any] = {}
    wrong: dict[int, tuple[str, str]] = {}
    for path, kind in _plan(log).fields:
        texts = cells.get(path)
        if texts is None:
            values[path] = [header.path or None if path == "_path" else None] * count
            continue
        known = [None if text == header.unset else text for text in texts] if header.unset in texts else texts
        values[path], bad = _parsed(kind, known, header, escaped)
        for index in bad:
            wrong.setdefault(index, (path, f"Expected {_WORDS[kind]}, got {texts[index][:64]!r}"))
    return values, wrong


_WORDS: Mapping[Any, str] = {int: "a whole number", float: "a number", float | str: "seconds since the epoch", bool: "T or F"}
_BOOLS: Mapping[str | None, bool | None] = {None: None, "T": True, "F": False}


def _parsed(kind: Any, texts: Sequence[str | None], header: _Header, escaped: bool) -> tuple[Any, Sequence[int]]:
    """One column of text, typed, and the rows whose text is not of that type."""
    if kind in (int, float, float | str):
        column = pl.Series(texts, dtype=pl.String)
        numbers = column.cast(pl.Int64 if kind is int else pl.Float64, strict=False)
        bad = numbers.is_null() & column.is_not_null() if numbers.null_count() > column.null_count() else None
        return numbers, [] if bad is None else bad.arg_true().to_list()
    if kind is bool:
        return [_BOOLS.get(text) for text in texts], [index for index, text in enumerate(texts) if text not in _BOOLS]
    if kind is str:
        if not escaped and header.empty not in texts:
            return texts, []
        return [text if text is None else _text(text, header) for text in texts], []
    return [None if text is None else _several(text, header) for text in texts], []


def _text(text: str, header: _Header) -> str:
    return "" if text == header.empty else _unescaped(text)


def _several(text: str, header: _Header) -> list[str]:
    return [] if text == header.empty else [_unescaped(part) for part in text.split(header.set_separator)]


def _unescaped(text: str) -> str:
    """Bytes that Zeek wrote as `\\xHH`; those that are no UTF-8 stay as they are written."""
    return _ESCAPED_RUN.sub(_of_hex, text) if "\\x" in text else text


def _of_hex(run: re.Match[str]) -> str:
    octets = bytes(int(digits, 16) for digits in _HEX.findall(run[0]))
    return octets.decode("utf-8", "backslashreplace")


def _looks_like_json(first: bytes) -> bool:
    line = first_line(first)
    if not line.startswith(b"{") or b'"event_type"' in line:
        return False
    return (b'"ts":' in line or b'"ts" :' in line) and (b'"_path"' in line or b'"uid":' in line or _log_of(line) != OTHER)


def _looks_like_tsv(first: bytes) -> bool:
    return first.startswith(b"#separator ") or first.startswith(b"#fields\t")


class Settings(BaseModel):
    """A Zeek log, read once or followed across rotation, or a topic of Kafka with one log line a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath | None = Field(default=None, description="File to read.")
    kafka: KafkaTopic | None = Field(
        default=None, description="Topic of Kafka to read, as JSON; exactly one of path and kafka."
    )
    format: Literal["json", "tsv"] = Field(default="json", description="json with LogAscii::use_json, else tsv.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    observer: str | None = Field(default=None, description="Name of the sensor where a line has no _system_name.")
    original: Literal["keep", "drop"] = Field(
        default="keep", description="Keep each line as event.original; generic rows keep it always."
    )

    @model_validator(mode="after")
    def _check(self) -> Settings:
        require_one(self, "path", "kafka")
        if self.kafka is not None and self.format != "json":
            raise ValueError("a topic of Kafka is read as json")
        return self


class ZeekKind:
    """Entry point `zeek`."""

    settings = Settings
    promise = "every complete line once, across restarts and rotation by rename"
    status: Status = "experimental"
    sample = "zeek: {type: zeek, path: /opt/zeek/logs/current/conn.log, format: json, observer: tap1}"
    formats = (
        Format("zeek-json", "Zeek logs as JSON lines", LineFramer, lambda year: ZeekJsonDecoder(), _looks_like_json, "zeek"),
        Format("zeek-tsv", "Zeek logs, tab-separated", ZeekTsvFramer, lambda year: ZeekTsvDecoder(), _looks_like_tsv, "zeek"),
    )

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """A log through the shell that its file or topic asks for."""
        original = settings.original == "keep"
        if settings.kafka is not None:
            return Collector("zeek", KafkaTopicShell(settings.kafka), ZeekJsonDecoder(settings.observer, original))
        path = Path(settings.path or "")
        if settings.format == "tsv":
            return Collector(
                "zeek", TailShell(path, ZeekTsvFramer, settings.follow), ZeekTsvDecoder(settings.observer, original)
            )
        return Collector("zeek", TailShell(path, LineFramer, settings.follow), ZeekJsonDecoder(settings.observer, original))

    def resources(self, settings: Settings) -> Sequence[str]:
        """A file or a topic may be read by one collector only."""
        return (f"file {settings.path}",) if settings.kafka is None else settings.kafka.claims()


KIND = ZeekKind()
