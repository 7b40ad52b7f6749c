"""pflog as tcpdump prints it: OpenBSD's tcpdump and that of tcpdump.org, with -e, one line a packet.

Spec: print-pflog.c, print-ip.c, print-tcp.c, print-icmp.c and util.c of OpenBSD's tcpdump(8); the output of tcpdump 4.99.
Both dialects are read from one grammar. Rows have the columns of `collectors/pflog.py` as far as a line tells them: never
the length of the packet, the end before rewriting, or codes that tcpdump does not name.

Times: seconds since 1970 (-tt), date and time (-tttt; -ttt of OpenBSD, which lacks the year: it comes from `year`, else
from the arrival, as in `ringfence/timestamps.py`), time of day (the default: the day is `day`, else that of the arrival).
tcpdump prints local time and no zone: it is read as UTC. A time that these do not settle, one relative to another line
(-ttt and -ttttt of tcpdump.org, -tttt and -ttttt of OpenBSD; a number of seconds below RELATIVE_SECS) or none at all (-t)
is a Problem in a file that is read once.

A line that starts with white space goes on with the line before it (-v of tcpdump.org, -x): it is left out and counted. So
with -v an IPv4 packet of tcpdump.org keeps its rule and protocol and loses its ends. What a line has beyond `rule ... on
IFNAME: ` costs a field where it cannot be read, never the row: names of hosts and ports (tcpdump without -n), ends that
OpenBSD leaves out (CARP, protocols in GRE). With ports, what is no TCP or SCTP counts as UDP.

A reason is the word that was printed: tcpdump 4.99.3 prints `3(short)` for reason 4, normalize, and `unkn(3)` for short.

Not supported: output without -e (no rule: a Problem), lines behind a syslog header (tcpdump | logger).

Samples: Nov 25 07:44:23.123456 rule 4.tenant1.2/(match) pass in on xl0: 10.0.0.5.40000 > 10.1.0.9.22: S 1:1(0) win 16384
07:44:23.123456 rule 2/0(match): block in on vlan20: 10.1.0.5.40000 > 10.2.0.9.22: Flags [S], seq 1, win 65535, length 0
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from collectors.lines import Continuations, LineFramer, Lines, spread
from collectors.pflog import NO_RULE, SHARED_ACTIONS, SHARED_REASONS
from collectors.tail import TailShell
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.schema import build_frame
from ringfence.timestamps import ARRIVAL, DAY_US, NO_DATE, WHY_NO_TIME, DayTables, TimeTable
from ringfence.yamlfile import ConfigPath

MAX_REMEMBERED = 65_536
RELATIVE_SECS = 100_000_000  # 1973: no pf wrote anything then
NO_PIDS = frozenset({0, 100_000, 32_767})  # what OpenBSD has where there is no process, now and before

Ints = npt.NDArray[np.int64]

_GROUP = r"(?<!\\)\((?!\?)"  # the start of a group in a pattern
# Grammar. Quantifiers are bounded, and no two that follow each other take the same characters for long.
_TIME = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d| ?\d\d:\d\d:\d\d|\d{1,10})(?:\.(\d{1,9}))? "
_RULE = r"rule (def|-?\d{1,10})(?:\.(.{0,64}?)\.(def|-?\d{1,10}))?/"
_REASON = r"(\d{0,3}\([a-z-]{1,20}\)|unkn\(\d{1,3}\)|\(unkn \d{1,3}\))"
_USER = r"\[uid (\d{1,10}), pid (-?\d{1,10})\] "
_NUMBER = r"(?: \[ridentifier (\d{1,10})\])?"
_ACTION = r"([a-z-]{0,20}|unkn\(\d{1,3}\)) (in/out|in|out|unkn\(\d{1,3}\)) on ([^:]{1,64}): "
_V6_TAIL = r"(?:\d{1,3}(?:\.\d{1,3}){3})?"
_ADDRESS = rf"(\d{{1,3}}(?:\.\d{{1,3}}){{3}}|[0-9A-Fa-f:]{{0,40}}:[0-9A-Fa-f:]{{0,40}}{_V6_TAIL})"
_PORT = r"(?:\.(\d{1,5}|[A-Za-z][\w+-]{0,30}))?"
_CUT = r"(?:truncated-ip6? - \d{1,9} bytes missing! ?)?(?:\(hlim [^()]{0,60}\([^()]{0,60}\)[^()]{0,60}\) )?"
_HEADING = rf"{_RULE}{_REASON}{_NUMBER}:? (?:{_USER})?{_ACTION}(?:{_USER})?"
_HEAD = re.compile(_HEADING, re.ASCII | re.DOTALL)
_LINE = re.compile(  # the head as one text: few differ, so its fields are read once for each
    rf"(?: {{0,4}}\d{{1,9}}  )?(?:{_TIME})?({re.sub(_GROUP, '(?:', _HEADING)})"
    rf"(?:{_CUT}{_ADDRESS}{_PORT} > {_ADDRESS}{_PORT}: {{0,2}})?(.*)",
    re.ASCII | re.DOTALL,
)
_HINT = re.compile(r"(?:.{0,40} )?rule (?:def|-?\d{1,10})[./]")

_OPENBSD_FLAGS = re.compile(r"[SFRPWE]{1,6}|\.")
_AFTER_FLAGS = (*"0123456789", "ack ", "win ", "urg ", "[")
_FLAG = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "W": 128}
_TRUNCATED = re.compile(r"\[\|(?:tcp|udp|icmp6?|sctp|ip6?)\]")
_ICMP, _TCP, _UDP, _ICMPV6, _SCTP = 1, 6, 17, 58, 132
_PROTOCOL = re.compile(
    r"(?P<p1>ICMP |icmp: |\[\|icmp\])|(?P<p58>(?:\[[^\]]{1,60}\] )?(?:ICMP6|icmp6:)|\[\|icmp6\])|(?P<p6>\[\|tcp\]|tcp |truncated-tcp)"
    r"|(?P<p17>\[\|udp\]|udp |UDP|truncated-udp)|(?P<p2>igmp)|(?P<p50>ESP\(|esp )|(?P<p51>AH\(|ah )|(?P<p47>GREv|gre)"
    r"|(?P<p112>VRRPv|CARPv|carp|vrrp)|(?P<p103>PIM|pim)|(?P<p89>OSPF)|(?P<p132>sctp|\[\|sctp\])|(?P<p240>PFSYNC)"
    r"|\(tos [^()]{0,100}proto [\w() -]{0,40}?\((?P<proto>\d{1,3})\)|ip-proto-(?P<number>\d{1,3})\b|"
    r"(?P<p4>\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}[^>]{0,10} > )"
)
_ICMP_WORDS = {
    _ICMP: (
        ("8", "echo request"), ("0", "echo reply"), ("3_2", r"protocol \d+ (?:port \d+ )?unreachable"),
        ("3_3", r"(?:tcp|udp|sctp) port \S+ unreachable"), ("3_4", r"\S+ unreachable - need to frag"), ("3_5", r"\S+ unreachable - source route failed"),
        ("3_6", r"net \S+ unreachable - unknown"), ("3_7", r"host \S+ unreachable - unknown"),
        ("3_8", r"\S+ unreachable - source host isolated"), ("3_13", r"host \S+ unreachable - admin prohibited filter"), ("3_9", r"net \S+ unreachable - admin prohib"),
        ("3_10", r"host \S+ unreachable - admin prohib"), ("3_11", r"net \S+ unreachable - tos prohib"),
        ("3_12", r"host \S+ unreachable - tos prohib"), ("3_14", r"host \S+ unreachable - host precedence"),
        ("3_15", r"host \S+ unreachable - precedence cutoff"), ("3_0", r"net \S+ unreachable"), ("3_1", r"host \S+ unreachable"),
        ("3", "unreachable"), ("11_0", "time exceeded in-transit"), ("11_1", "reassembly time exceeded"),
        ("11", "time exceeded"), ("5_0", r"redirect \S+ to net"), ("5_1", r"redirect \S+ to host"),
        ("5_2", r"redirect-tos \S+ to net"), ("5_3", r"redirect-tos \S+ to host"), ("5", "redirect"),
        ("9", "router advertisement"), ("10", "router solicitation"), ("13", r"time ?stamp (?:query|request)"),
        ("14", r"time ?stamp reply"), ("15", "information request"), ("16", "information reply"),
        ("17", "address mask request"), ("18", "address mask is"), ("4", "source quench"), ("12", "parameter problem"),
        ("12_1", "requested option absent"), ("12_2", "bad length"),
    ),
    _ICMPV6: (
        ("128", "echo request"), ("129", "echo reply"), ("135", "neighbor sol"), ("136", "neighbor adv"),
        ("133", "router sol"), ("134", "router adv"), ("137", "redirect"), ("1_0", "unreachable, unreachable route"),
        ("1_1", "unreachable, unreachable prohibited"), ("1_2", "unreachable, beyond scope"), ("1_3", "unreachable, unreachable address"),
        ("1_4", r"unreachable, unreachable port|(?:tcp|udp|sctp) port \S+ unreachable"), ("1", "unreachable"), ("2_0", "too big"),
        ("3_0", "time exceeded in-transit"), ("3_1", "reassembly time exceeded"), ("3", "time exceeded"),
        ("4", "parameter problem"), ("130", "multicast listener query"), ("131", "multicast listener report"),
        ("132", "multicast listener done"), ("143", "multicast listener report v2"),
    ),
}  # fmt: skip
_MEANT = {
    protocol: re.compile("|".join(f"(?P<t{name}>{pattern})" for name, pattern in words) + r"|type-#(?P<number>\d{1,3})")
    for protocol, words in _ICMP_WORDS.items()
}

_ACTIONS = {"synproxy-drop": "synproxy_drop"}


class _Memo(dict[str | None, Any]):
    """Remembers what texts of a closed kind mean."""

    def __missing__(self, text: str | None) -> Any:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        value = self[text] = None if text is None else self.read(text)
        return value

    def read(self, text: str) -> Any:
        """What one text means."""
        raise NotImplementedError


class _Numbers(_Memo):
    """Numbers up to a limit; null beyond it, and for a name."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def read(self, text: str) -> int | None:
        if text in ("def", "-1"):
            return NO_RULE if self._limit == NO_RULE else None
        return int(text) if text.isdecimal() and int(text) <= self._limit else None


class _Pids(_Memo):
    def read(self, text: str) -> int | None:
        return None if int(text) in NO_PIDS else int(text)


class _Words(_Memo):
    """Actions, or reasons: `0(match)`, `(match)`, `unkn(15)`, `(unkn 15)`. Codes that all systems share get their name."""

    def __init__(self, shared: Sequence[str]) -> None:
        super().__init__()
        self._shared = dict(enumerate(shared))

    def read(self, text: str) -> str | None:
        number = re.fullmatch(r"\(?unkn[( ](\d+)\)", text)
        if number is not None:
            return self._shared.get(int(number[1]), f"unknown({int(number[1])})")
        word = text[text.find("(") + 1 :].rstrip(")")
        return _ACTIONS.get(word, word) or None


class _Heads(_Memo):
    """The fields of the part from `rule` to the interface."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers, self._pids = _Numbers(NO_RULE), _Pids()
        self._actions, self._reasons = _Words(SHARED_ACTIONS), _Words(SHARED_REASONS)

    def read(self, text: str) -> tuple[Any, ...]:
        found = _HEAD.match(text)
        if found is None:  # not reached: the line has matched the same pattern
            return (None,) * len(_HEAD_COLUMNS)
        rule, ruleset, subrule, reason, label, rule_uid, rule_pid, action, direction, interface, uid, pid = found.groups()
        way = "unknown(0)" if direction == "in/out" else direction.replace("unkn(", "unknown(")
        number = self._numbers
        return (
            interface if way == "in" else None, interface if way == "out" else None, self._actions[action],
            self._reasons[reason], way, number[rule], _known(number[subrule]), ruleset or None, _known(number[uid]),
            self._pids[pid], _known(number[rule_uid]), self._pids[rule_pid], number[label] or None,
        )  # fmt: skip


_HEAD_COLUMNS = (
    "observer.ingress.interface.name", "observer.egress.interface.name", "ringfence.pf.action", "ringfence.pf.reason",
    "ringfence.pf.direction", "ringfence.pf.rule", "ringfence.pf.subrule", "rule.ruleset", "ringfence.pf.uid",
    "ringfence.pf.pid", "ringfence.pf.rule_uid", "ringfence.pf.rule_pid", "ringfence.pf.ridentifier",
)  # fmt: skip


_TRANSPORT_COLUMNS = (
    "network.iana_number", "ringfence.tcp.source_flags", "ringfence.icmp.type", "ringfence.icmp.code",
    "ringfence.pf.truncated",
)  # fmt: skip


def _known(number: int | None) -> int | None:
    return None if number == NO_RULE else number


class _Clock(TimeTable):
    """Times to the second as tcpdump prints them; those of a day are of `day`, or of the day of arrival."""

    def __init__(self, year: int | None, day: date | None, arrival_day: int) -> None:
        super().__init__(year, arrival_day)
        self._start = None if day is None else int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
        if day is None and arrival_day:
            self._start = arrival_day * DAY_US

    def parse(self, text: str) -> int:
        """What one text means."""
        if text.isdecimal():
            return int(text) * 1_000_000 if int(text) >= RELATIVE_SECS else RELATIVE
        if text[0] == " ":
            return RELATIVE
        if text[2] != ":":
            return super().parse(text + "+00:00" if text[0].isdigit() else text)
        hour, minute, second = int(text[:2]), int(text[3:5]), int(text[6:])
        if hour > 23 or minute > 59 or second > 59:
            return NO_DATE
        return NO_DAY if self._start is None else self._start + ((hour * 60 + minute) * 60 + second) * 1_000_000


RELATIVE = ARRIVAL - 3
NO_DAY = ARRIVAL - 4
_WHY = {
    **WHY_NO_TIME,
    RELATIVE: "the time is relative to another line; accepted: tcpdump -tt, -tttt, OpenBSD's -ttt",
    NO_DAY: "the time has no date and its arrival is not known; set the option day, or use tcpdump -tt",
}


class PflogTextDecoder:
    """Decodes lines of any number of streams. `year` and `day` are those of times without, in a file that is read once."""

    def __init__(
        self, observer: str | None = None, keep_original: bool = True, year: int | None = None, day: date | None = None
    ) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._day = day
        self._clocks = DayTables(lambda arrival_day: _Clock(year, day, arrival_day))
        self._addresses = AddressCache()
        self._continuations = Continuations()
        self._ports, self._heads = _Numbers(65_535), _Heads()

    def feed(self, frames: Frames) -> Decoded:
        """Decode every line; each is one row, one Problem, blank, or goes on with the line before it."""
        lines = Lines(frames, self._continuations.of(frames))
        match = _LINE.match
        found: list[Any] = [None if text is None else match(text) for text in lines.texts]
        rows = []
        for row, line in enumerate(found):
            if line is not None:
                rows.append(row)
            elif lines.texts[row] is not None:
                _account(lines, row)
        groups = [found[row].groups() for row in rows]
        micros = self._micros(groups, frames.received_us[rows])
        bad = micros <= ARRIVAL
        if bad.any():
            for place in np.flatnonzero(bad).tolist():
                lines.refuse(rows[place], ProblemCode.MALFORMED, _WHY[int(micros[place])])
            good = np.flatnonzero(~bad).tolist()
            rows, groups, micros = [rows[place] for place in good], [groups[place] for place in good], micros[good]
        tables = {EventClass.PF: self._table(lines, rows, groups, micros)} if rows else {}
        problems = sorted(lines.problems, key=lambda problem: problem.row or 0)
        return Decoded(tables, len(rows), problems, lines.filtered)

    def _micros(self, groups: list[Any], arrived: Ints) -> Ints:
        """Event time of each line; a mark at or below `ARRIVAL` where it cannot be known."""
        if not groups:
            return np.zeros(0, np.int64)
        seconds, fractions = [group[0] for group in groups], [group[1] for group in groups]
        days = arrived // DAY_US
        if days.min() == days.max():
            values: Iterable[int] = map(self._clocks[int(days[0])].__getitem__, seconds)
        else:
            values = [self._clocks[day][text] for day, text in zip(days.tolist(), seconds, strict=True)]
        micros = np.fromiter(values, np.int64, len(groups))
        known = micros > ARRIVAL
        parts = [0 if text is None else int(text if len(text) == 6 else (text + "000000")[:6]) for text in fractions]
        micros[known] += np.array(parts, np.int64)[known]
        at_arrival = (micros == ARRIVAL) & (arrived != 0)
        micros[at_arrival] = arrived[at_arrival]
        if self._day is None:  # written before midnight, arrived after it
            of_day = np.fromiter(
                (text is not None and len(text) == 8 and text[2] == ":" for text in seconds), np.bool_, len(seconds)
            )
            micros[known & of_day & (arrived != 0) & (micros > arrived + DAY_US // 2)] -= DAY_US
        return micros

    def _table(self, lines: Lines, rows: list[int], groups: list[Any], micros: Ints) -> pl.DataFrame:
        _, _, heads, source, sport, destination, dport, rest = zip(*groups, strict=True)
        port = self._ports.__getitem__
        columns: dict[str, Any] = {
            **lines.columns(rows, self._observer, self._keep_original),
            **spread(EventClass.PF, _HEAD_COLUMNS, heads, self._heads.__getitem__),
            **spread(EventClass.PF, _TRANSPORT_COLUMNS, list(map(_transport, sport, rest)), tuple),
            "@timestamp": micros,
            **self._end("source", source, list(map(port, sport))),
            **self._end("destination", destination, list(map(port, dport))),
        }
        return build_frame(EventClass.PF, columns)

    def _end(self, name: str, texts: Sequence[str | None], ports: list[int | None]) -> dict[str, Any]:
        addresses = self._addresses.column(texts)
        v4 = addresses.v4.scatter(addresses.invalid, None) if len(addresses.invalid) else addresses.v4
        v6 = addresses.v6 if addresses.v6 is not None else pl.repeat(None, len(texts), dtype=pl.Binary(), eager=True)
        return {f"{name}.ip": v4, f"{name}.ip6": v6, f"{name}.port": ports}


def _account(lines: Lines, row: int) -> None:
    """Say what became of a line that is no record."""
    text = lines.texts[row] or ""
    if not text.strip():
        lines.leave_out("blank")
    elif text[0] in " \t":
        lines.leave_out("continuation")
    elif text.startswith("reading from file ") or text.startswith("tcpdump: ") or text.startswith("listening on "):
        lines.leave_out("tcpdump's own message")
    elif _HINT.match(text):
        lines.refuse(row, ProblemCode.MALFORMED, "not RULE/REASON ACTION in|out on IFNAME: behind `rule`", text.index("rule "))
    else:
        lines.refuse(row, ProblemCode.MALFORMED, "no `rule` behind the time: not tcpdump -e of a pflog file")


Transport = tuple[int | None, int | None, int | None, int | None, bool]
"""Protocol, TCP flags, ICMP type and code, and whether the transport header was cut off."""


class _Flags(_Memo):
    """TCP flags in brackets, or as OpenBSD prints them, as the transport of a line."""

    def read(self, text: str) -> Transport | None:
        if text[0] == "[":
            letters = text[1:]
            return _TCP, 0 if letters == "none" else sum(_FLAG.get(letter, 0) for letter in set(letters)), None, None, False
        if _OPENBSD_FLAGS.fullmatch(text) is None:
            return None
        return _TCP, sum(_FLAG[letter] for letter in set(text) - {"."}), None, None, False


_SEEN_FLAGS = _Flags()


def _transport(sport: str | None, rest: str) -> Transport:
    """What a line says behind the addresses."""
    if rest.startswith("Flags ["):
        end = rest.find("]", 7, 17)
        if end > 0:
            upstream: Transport = _SEEN_FLAGS[rest[6:end]]
            return upstream
    truncated = "[|" in rest and _TRUNCATED.search(rest) is not None
    if sport is not None:
        word, _, tail = rest.partition(" ")
        known: Transport | None = _SEEN_FLAGS[word] if word and len(word) < 7 and tail.startswith(_AFTER_FLAGS) else None
        if known is not None:
            ack = 16 if " ack " in rest[:80] else 0
            return _TCP, (known[1] or 0) | ack | (32 if " urg " in rest[:100] else 0), None, None, truncated
    found = _PROTOCOL.match(rest)
    if sport is not None:
        named = {"p6": _TCP, "p132": _SCTP}.get(str(found.lastgroup)) if found else None
        return named or _UDP, None, None, None, truncated
    if found is None:
        return None, None, None, None, truncated
    group = str(found.lastgroup)
    protocol = int(found[group]) if group in ("proto", "number") else int(group[1:])
    kind, code = _icmp(protocol, rest) if protocol in _MEANT else (None, None)
    return protocol if protocol < 256 else None, None, kind, code, truncated


def _icmp(protocol: int, rest: str) -> tuple[int | None, int | None]:
    found = _MEANT[protocol].search(rest, 0, 200)
    if found is None:
        return None, None
    group = str(found.lastgroup)
    if group == "number":
        return (int(found[group]) if int(found[group]) < 256 else None), None
    kind, _, code = group[1:].partition("_")
    return int(kind), int(code) if code else None


def recognise(first: bytes) -> bool:
    """True when a file that starts so is pflog as text."""
    text = first.decode("latin-1")
    return any(_LINE.match(line) is not None for line in text.split("\n")[:2])


class PflogTextConfig(BaseModel):
    """Reads what `tcpdump -n -e -l` prints of pflog0 or of a pflog file, from a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath = Field(description="File to read.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    year: int | None = Field(default=None, ge=1970, le=9999, description="Year of times without one; only with follow: false.")
    day: date | None = Field(default=None, description="Day of times without a date, YYYY-MM-DD; only with follow: false.")
    observer: str | None = Field(default=None, description="Name of the firewall; its file's path when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each line as it came as event.original.")

    @model_validator(mode="after")
    def _check(self) -> PflogTextConfig:
        if (self.year is not None or self.day is not None) and self.follow:
            raise ValueError("year and day are only for a file that is read once (follow: false); else the arrival tells them")
        return self


class PflogTextKind:
    """The collector kind `pflog-text`."""

    settings: type[BaseModel] = PflogTextConfig
    promise = "every complete line once, across restarts and rotation"
    status: Status = "experimental"
    sample = "printed: {type: pflog-text, path: /var/log/pflog.txt, observer: fw1}"
    formats: Sequence[Format] = (
        Format(
            "pflog-text",
            "what tcpdump -e prints of pflog, of OpenBSD or tcpdump.org",
            LineFramer,
            lambda year: PflogTextDecoder(year=year),
            recognise,
            "pf",
        ),
    )

    def build(self, settings: PflogTextConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        decoder = PflogTextDecoder(settings.observer, settings.original == "keep", settings.year, settings.day)
        return Collector("pf", TailShell(settings.path, LineFramer, settings.follow), decoder)

    def resources(self, settings: PflogTextConfig) -> Sequence[str]:
        """The file: a second reader would make every event twice."""
        return [f"file {settings.path}"]


KIND = PflogTextKind()
