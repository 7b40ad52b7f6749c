"""filterlog: what pf of pfSense and OPNsense logged, as comma-separated values, alone or behind a syslog header.

Spec: sysutils/filterlog of pfSense and opnsense/filterlog of OPNsense (description.txt, filterlog.c, print-*.c); Netgate,
Raw Filter Log Format. The syslog header is read by `collectors/syslog_message.py`, in all the forms that it takes, such as pfSense's
without a hostname; lines of other programs are left out and counted.

    rule, subrule, anchor, tracker, interface, reason, action, direction, IP version, then
    IPv4: tos, ecn, ttl, id, offset, flags, protocol number, name, length, source, destination
    IPv6: class, flow label, hop limit, protocol name, number, length, source, destination
    TCP, UDP, SCTP: source port, destination port, data length; TCP: flags, ...
    ICMP: type and more (pfSense), or datalength=N, type, code, ... (OPNsense since 2026); nothing of others is read

The tracker becomes `ringfence.pf.tracker` as it stands (pfSense: a number; OPNsense: a hash or UUID), and a number also
`ringfence.pf.ridentifier`; 0 means none. No rule number, or 4294967295, is the default rule. 16777216 without an anchor is
what FreeBSD 10 writes for no subrule. A field that cannot be read is null; only a line without action and direction is a
Problem. An extension header of IPv6 (0, 43, 44, 60) is no protocol: pfSense names none behind it.

The line itself holds no time: alone it has that of its arrival, and is a Problem in a file that is read once. Times of
RFC 3164 are read as there. `observer.name` is `observer`, else the hostname of the header, else the sender or path.

Sample: Nov 25 07:44:23 fw1 filterlog[3542]: 5,,,1000000103,igb0,match,block,in,4,0x0,,64,1,0,DF,6,tcp,60,10.1.0.5,10.2.0.9,
40000,22,0,S,1,,65535,,mss
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel

from collectors.lines import Continuations, Lines, spread
from collectors.pflog import NO_RULE, SHARED_ACTIONS, SHARED_REASONS
from collectors.rfc6587 import SyslogFramer
from collectors.syslog_message import read_message
from collectors.syslog_settings import SyslogConfig, claims_of, shell_of
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.schema import build_frame, together
from ringfence.timestamps import ARRIVAL, DAY_US, WHY_NO_TIME, DayTables, TimeTable

MAX_REMEMBERED = 65_536
RUN_LINES = 4096  # their fields as Python objects stay in the cache until they are columns
MAX_FIELDS = 32  # more than any that is read
NO_SUBRULE_FREEBSD_10 = 16_777_216

_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_PORTED = frozenset({_TCP, _UDP, _SCTP})
_EXTENSIONS = frozenset({0, 43, 44, 60})
_FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128, "W": 128}
_COUNT = re.compile(r"[1-9]\d{0,7} (?=<)", re.ASCII)  # octet count of RFC 6587
_BARE = re.compile(r"(?a:\d{0,10}),(?a:\d{0,10}),[^,]{0,64},[^,]{0,64},[^,]{0,64},")
_USUAL = re.compile(
    r"(?:<(?:19[01]|1[0-8][0-9]|[1-9]?[0-9])>)?([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (?:([^\s\[]{0,254}[^\s\[:]) )?"
    r"filterlog(?:\[[^\s\]]{1,128}\])?: (.*)",
    re.ASCII | re.DOTALL,
)
"""What `read_message` reads most often, in one step: a header of RFC 3164, with a hostname or without."""
_DIRECTIONS = {"in": "in", "out": "out", "in/out": "unknown(0)"}
_TYPES = {
    _ICMP: {
        "request": 8, "reply": 0, "unreachproto": 3, "unreachport": 3, "needfrag": 3, "unreach": 3, "redirect": 5,
        "routeradv": 9, "timexceed": 11, "paramprob": 12, "maskreply": 18, "tstamp": 13, "tstampreply": 14, "echorep": 0,
        "squench": 4, "redir": 5, "althost": 6, "echoreq": 8, "routersol": 10, "timex": 11, "timereq": 13, "timerep": 14,
        "inforeq": 15, "inforep": 16, "maskreq": 17, "maskrep": 18, "trace": 30, "dataconv": 31, "mobredir": 32,
        "ipv6-where": 33, "ipv6-here": 34, "mobregreq": 35, "mobregrep": 36, "skip": 39, "photuris": 40,
    },
    _ICMPV6: {
        "unreach": 1, "toobig": 2, "timex": 3, "paramprob": 4, "echoreq": 128, "echorep": 129, "listqry": 130,
        "listenrep": 131, "listendone": 132, "routersol": 133, "routeradv": 134, "neighbrsol": 135, "neighbradv": 136,
        "redir": 137, "routrrenum": 138, "niqry": 139, "nirep": 140, "listenrepv2": 143, "mtraceresp": 200, "mtrace": 201,
    },
}  # fmt: skip
_CODES = {
    (_ICMP, 3): (
        "net-unr", "host-unr", "proto-unr", "port-unr", "needfrag", "srcfail", "net-unk", "host-unk", "isolate",
        "net-prohib", "host-prohib", "net-tos", "host-tos", "filter-prohib", "host-preced", "cutoff-preced",
    ),
    (_ICMP, 5): ("redir-net", "redir-host", "redir-tos-net", "redir-tos-host"),
    (_ICMP, 11): ("transit", "reassemb"),
    (_ICMP, 12): ("badhead", "optmiss", "badlen"),
    (_ICMPV6, 1): ("noroute-unr", "admin-unr", "beyond-unr", "addr-unr", "port-unr"),
    (_ICMPV6, 3): ("transit", "reassemb"),
    (_ICMPV6, 4): ("badhead", "nxthdr"),
    (_ICMPV6, 137): ("redironlink", "redirrouter"),
}  # fmt: skip
_CODE_OF_TYPE = {"unreachproto": 2, "unreachport": 3, "needfrag": 4}

_HEAD_COLUMNS = (
    "ringfence.pf.rule", "ringfence.pf.subrule", "rule.ruleset", "ringfence.pf.tracker", "ringfence.pf.ridentifier",
    "observer.ingress.interface.name", "observer.egress.interface.name", "ringfence.pf.reason", "ringfence.pf.action",
    "ringfence.pf.direction",
)  # fmt: skip
_REST_COLUMNS = ("network.iana_number", "ringfence.tcp.source_flags", "ringfence.icmp.type", "ringfence.icmp.code",
                 "ringfence.pf.truncated")  # fmt: skip

Packet = tuple[str | None, int | None, str | None, int | None, int | None, tuple[Any, ...]]
"""Source, its port, destination, its port, length, and the values of _REST_COLUMNS."""


def _number(text: str, limit: int) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 and int(text) <= limit else None


def _name(text: str, shared: Sequence[str]) -> str | None:
    """A word of pf. `unkn(%u)` is what pfSense writes for a code without a name."""
    code = re.fullmatch(r"(?:unknown|unkn)\((\d{1,3})\)", text, re.ASCII)
    if code is not None:
        return shared[int(code[1])] if int(code[1]) < len(shared) else f"unknown({int(code[1])})"
    return None if "%" in text else text.replace("synproxy-drop", "synproxy_drop") or None


def _head(fields: tuple[str, ...]) -> tuple[Any, ...]:
    """The values of _HEAD_COLUMNS from the first eight fields."""
    rule, subrule, anchor, tracker, interface, reason, action, direction = fields
    within = _number(subrule, NO_RULE - 1)
    if within == NO_SUBRULE_FREEBSD_10 and not anchor:
        within = None
    way = _DIRECTIONS.get(direction) or _name(direction, ())
    label = None if tracker in ("", "0") else tracker
    return (
        NO_RULE if rule in ("", "-1") else _number(rule, NO_RULE), within, anchor or None, label,
        None if label is None else _number(label, NO_RULE), (interface or None) if way == "in" else None,
        (interface or None) if way == "out" else None, _name(reason, SHARED_REASONS), _name(action, SHARED_ACTIONS), way,
    )  # fmt: skip


class _Heads(dict[tuple[str, ...], tuple[Any, ...]]):
    """What `_head` made of the first eight fields that were seen: a rule logs the same ones again and again."""

    def __missing__(self, fields: tuple[str, ...]) -> tuple[Any, ...]:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        value = self[fields] = _head(fields)
        return value


class _Numbers(dict[str, int | None]):
    """Numbers of 16 bits that were seen; null beyond, and for other text."""

    def __missing__(self, text: str) -> int | None:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        value = self[text] = _number(text, 65_535)
        return value


class _Usual(dict[tuple[str, str], tuple[Any, ...]]):
    """The values of _REST_COLUMNS for the protocol and the flags of whole TCP and UDP packets that were seen."""

    def __missing__(self, key: tuple[str, str]) -> tuple[Any, ...]:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        protocol, flags = key
        value = self[key] = (int(protocol), _tcp_flags(flags) if protocol == "6" else None, None, None, False)
        return value


class _Packets:
    """Reads the fields from the IP version on; the usual packets by table, all others by `_packet`."""

    def __init__(self) -> None:
        self._numbers, self._usual = _Numbers(), _Usual()

    def read(self, fields: list[str]) -> Packet:
        """What the fields say, as `_packet` would."""
        if len(fields) > 22 and fields[9].startswith("0x"):
            numbers = self._numbers
            if fields[8] == "4" and fields[13] == "0" and fields[15] in ("6", "17") and fields[20].isdecimal():
                rest = self._usual[fields[15], fields[23] if len(fields) > 23 else ""]
                if len(fields) > 23 or fields[15] == "17":
                    ends = fields[18] or None, numbers[fields[20]], fields[19] or None, numbers[fields[21]]
                    return *ends, numbers[fields[17]], rest
            elif fields[8] == "6" and fields[13] in ("6", "17") and fields[17].isdecimal():
                size = numbers[fields[14]]
                ends = fields[15] or None, numbers[fields[17]], fields[16] or None, numbers[fields[18]]
                return *ends, None if size is None else size + 40, self._usual[fields[13], fields[20]]
        return _packet(fields)


def _packet(fields: list[str]) -> Packet:
    """What the fields from the IP version on say."""
    version = fields[8] if len(fields) > 8 else ""
    truncated = False
    while len(fields) > 9 and fields[9].startswith(("error", "truncated-ip", "[|ip", "bad-")):
        truncated = True
        del fields[9]
    if version == "4" and len(fields) > 15:
        protocol, length, ends, rest = _number(fields[15], 255), fields[17:18], fields[18:20], fields[20:]
        fragment, extra = fields[13] not in ("0", ""), 0
    elif version == "6" and len(fields) > 13:
        protocol, length, ends, rest = _number(fields[13], 255), fields[14:15], fields[15:17], fields[17:]
        fragment, extra = False, 40
        protocol = None if protocol in _EXTENSIONS else protocol
    else:
        return None, None, None, None, None, (None, None, None, None, truncated or version not in ("4", "6"))
    size = _number(length[0], 65_535) if length else None
    source, destination = (*ends, "", "")[:2]
    sport = dport = flags = kind = code = None
    if protocol in _PORTED and rest and not fragment:
        if rest[0].startswith("errormsg"):
            truncated = True
        elif len(rest) > 1:
            sport, dport = _number(rest[0], 65_535), _number(rest[1], 65_535)
            if protocol == _TCP and len(rest) > 3:
                flags = _tcp_flags(rest[3])
    elif protocol in _TYPES and rest and not fragment:
        truncated = truncated or any(part.startswith("truncated-icmp") for part in rest[:2])
        kind, code = _icmp(protocol, rest)
    bytes_on_wire = None if size is None else size + extra
    return source or None, sport, destination or None, dport, bytes_on_wire, (protocol, flags, kind, code, truncated)


def _tcp_flags(letters: str) -> int | None:
    if len(letters) > len(_FLAGS) or not set(letters) <= _FLAGS.keys():
        return None
    return sum(_FLAGS[letter] for letter in set(letters))


def _icmp(protocol: int | None, rest: list[str]) -> tuple[int | None, int | None]:
    named = _TYPES[protocol or 0]
    told = rest[0].startswith("datalength")
    word = rest[1] if told and len(rest) > 1 else rest[0]
    unknown = re.fullmatch(r"unknown\((\d{1,3})\)", word, re.ASCII)
    kind = _number(unknown[1], 255) if unknown else named.get(word)
    if kind is None:
        return None, None
    if not told:
        return kind, _CODE_OF_TYPE.get(word)
    text = rest[2] if len(rest) > 2 else ""
    codes = _CODES.get((protocol or 0, kind), ())
    return kind, codes.index(text) if text in codes else _number(text, 255)


class FilterlogDecoder:
    """Decodes lines of any number of senders. `year` is that of times without one in a file that is read once."""

    def __init__(self, observer: str | None = None, keep_original: bool = True, year: int | None = None) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._times = DayTables(lambda day: TimeTable(year, day))
        self._addresses = AddressCache()
        self._continuations = Continuations()
        self._packets = _Packets()
        self._heads = _Heads()

    def feed(self, frames: Frames) -> Decoded:
        """Decode every line; each is one row, one Problem, blank, or of another program."""
        lines = Lines(frames, self._continuations.of(frames))
        arrived = frames.received_us.tolist()
        tables: list[pl.DataFrame] = []
        for start in range(0, len(lines.texts), RUN_LINES):
            rows: list[int] = []
            found: list[tuple[int, str | None, list[str]]] = []
            for row, text in enumerate(lines.texts[start : start + RUN_LINES], start):
                record = None if text is None else self._record(lines, row, text, arrived[row])
                if record is not None:
                    rows.append(row)
                    found.append(record)
            if rows:
                tables.append(self._table(lines, rows, found))
        problems = sorted(lines.problems, key=lambda problem: problem.row or 0)
        taken = sum(table.height for table in tables)
        return Decoded({EventClass.PF: together(tables)} if tables else {}, taken, problems, lines.filtered)

    def _record(self, lines: Lines, row: int, text: str, arrived: int) -> tuple[int, str | None, list[str]] | None:
        """Time, hostname and fields of a line; None when it was accounted for otherwise."""
        if not text or text.isspace():
            lines.leave_out("blank")
            return None
        time: str | None = None
        host: str | None = None
        values = text
        usual = _USUAL.match(text)
        if usual is not None:
            time, host, values = usual.groups()
        elif _BARE.match(text) is None:
            if not text[0].isalpha():
                counted = _COUNT.match(text)
                if counted and not _is_whole(lines, row, counted):
                    return None
                text = text[counted.end() :] if counted else text
            message = read_message(text)
            if message is None:
                lines.refuse(row, ProblemCode.MALFORMED, "neither filterlog's values nor a syslog header")
                return None
            _, time, host, app, _, _, _, values = message  # type: ignore[assignment]
            if app != "filterlog":
                lines.leave_out("another program")
                return None
        fields = values.split(",", MAX_FIELDS)
        if len(fields) < 8 or not fields[7]:
            detail = f"filterlog's line has {len(fields)} values; at least 8 are needed, the last of them the direction"
            lines.refuse(row, ProblemCode.MALFORMED, detail)
            return None
        micros = self._times[arrived // DAY_US][time]
        if micros == ARRIVAL and arrived:
            micros = arrived
        if micros <= ARRIVAL:
            lines.refuse(row, ProblemCode.MALFORMED, WHY_NO_TIME[micros])
            return None
        return micros, host, fields

    def _table(self, lines: Lines, rows: list[int], found: list[tuple[int, str | None, list[str]]]) -> pl.DataFrame:
        micros, hosts, fields = zip(*found, strict=True)
        heads = [tuple(parts[:8]) for parts in fields]
        source, sport, destination, dport, length, rest = zip(*map(self._packets.read, fields), strict=True)
        columns: dict[str, Any] = {
            **lines.columns(rows, self._observer, self._keep_original),
            **spread(EventClass.PF, _HEAD_COLUMNS, heads, self._heads.__getitem__),
            **spread(EventClass.PF, _REST_COLUMNS, rest, tuple),
            "@timestamp": np.array(micros, np.int64),
            **self._end("source", source, sport),
            **self._end("destination", destination, dport),
            "network.bytes": length,
        }
        if self._observer is None:
            named = pl.Series([None if host == "-" else host for host in hosts], dtype=pl.String)
            columns["observer.name"] = named.zip_with(named.is_not_null(), columns["observer.name"])
        return build_frame(EventClass.PF, columns)

    def _end(self, name: str, texts: Sequence[str | None], ports: Sequence[int | None]) -> dict[str, Any]:
        addresses = self._addresses.column(texts)
        invalid: npt.NDArray[np.int64] = addresses.invalid
        v4 = addresses.v4.scatter(invalid, None) if len(invalid) else addresses.v4
        v6 = addresses.v6 if addresses.v6 is not None else pl.repeat(None, len(texts), dtype=pl.Binary(), eager=True)
        return {f"{name}.ip": v4, f"{name}.ip6": v6, f"{name}.port": ports}


def _is_whole(lines: Lines, row: int, counted: re.Match[str]) -> bool:
    """False when an octet count is not that of the octets that follow, which makes the line a Problem."""
    announced, arrived = int(counted[0]), int(lines.frames.offsets[row + 1] - lines.frames.offsets[row]) - counted.end()
    if announced == arrived:
        return True
    code = ProblemCode.TRUNCATED if arrived < announced else ProblemCode.BAD_LENGTH
    lines.refuse(row, code, f"octet count is {announced}, but {arrived} octets follow")
    return False


def recognise(first: bytes) -> bool:
    """True when a file that starts so is filterlog."""
    line = first.split(b"\n", 1)[0].decode("latin-1").rstrip("\r")
    if _BARE.match(line) is not None:
        return line.count(",") >= 8
    counted = _COUNT.match(line)
    message = read_message(line[counted.end() if counted else 0 :])
    return message is not None and message[3] == "filterlog"


class FilterlogConfig(SyslogConfig):
    """Receives filterlog from a pfSense or OPNsense firewall by syslog on one UDP or TCP port, or reads one file."""


class FilterlogKind:
    """The collector kind `filterlog`."""

    settings: type[BaseModel] = FilterlogConfig
    promise = "file: every complete line once, across restarts and rotation; tcp: what was read; udp: kernel drops are counted"
    status: Status = "experimental"
    sample = 'edge: {type: filterlog, listen: "udp://0.0.0.0:5514", observer: fw1}'
    formats: Sequence[Format] = (
        Format(
            "filterlog",
            "filterlog of pfSense and OPNsense, alone or behind a syslog header",
            SyslogFramer,
            lambda year: FilterlogDecoder(year=year),
            recognise,
            "pf",
        ),
    )

    def build(self, settings: FilterlogConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        decoder = FilterlogDecoder(settings.observer, settings.original == "keep", settings.year)
        return Collector("pf", shell_of(settings), decoder)

    def resources(self, settings: FilterlogConfig) -> Sequence[str]:
        """The port or the file."""
        return claims_of(settings)


KIND = FilterlogKind()
