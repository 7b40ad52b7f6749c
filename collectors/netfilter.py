"""Linux firewalls: lines of the LOG target of iptables, of `log` in nftables, and so of VyOS, behind a syslog header or alone.

A line is `PREFIX IN=eth0 OUT=eth1 MAC=... SRC=... DST=... LEN=60 ... PROTO=TCP SPT=... DPT=... SYN URGP=0` (kernel,
nf_log_syslog.c), with `[seconds.micros]` before it where the kernel stamps its messages. The header is read as syslog
(`collectors/syslog.py`); other messages become the rows that syslog makes of them. A line alone has no time but that of
its arrival.

Each line is a row of class flow: one packet of LEN bytes one way, with `ringfence.firewall.action` block, pass or unknown.
Why flow: nothing in the line is pf's own, and a row of class pf would claim rule numbers and an anchor that nobody has.
Boundaries judge a row with that column by the action alone, as they do pf's, and make no test where it is unknown:
the line proves that a packet came, not what became of it. `ringfence.flow.action` says drop or accept too.

The kernel does not log what a rule does, its prefix may. VyOS ends a prefix with the action, `[ipv4-FWD-filter-10-D]`: A
passes, D and R block, the others (C continue, J jump, RET, Q) decide nothing. Elsewhere a word tells: DROP, REJECT, DENY,
BLOCK and ACCEPT, ALLOW, PASS, their past forms too, in any case, between characters that are no letters. A prefix with
words of both kinds is unknown. `actions` names further texts, which are looked for first, in order.

Not read: ARP lines, and those of `log flags` that lack IN=. They stay syslog rows.

Sample: Nov 25 07:44:23 fw1 kernel: [ipv4-FWD-filter-10-D]IN=eth0 OUT=eth1 SRC=10.1.0.5 DST=10.2.0.9 LEN=60 TOS=0x00 PREC=0x00 TTL=63 ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from collectors.records import TRANSPORTS, without
from collectors.rfc6587 import SyslogFramer
from collectors.syslog import SyslogDecoder
from collectors.syslog_message import recognise as looks_like_syslog
from collectors.syslog_settings import SyslogConfig, claims_of, shell_of
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.schema import build_frame, together
from ringfence.timestamps import ARRIVAL, WHY_NO_TIME

MAX_PREFIX = 128  # NF_LOG_PREFIXLEN
MAX_CHARS = 4096  # the kernel cuts a line at 1,024 bytes (LOG_LINE_MAX)
MAX_CACHED = 65_536

Action = Literal["block", "pass"]
Fields = tuple[str | None, ...]

_ADDRESS = "([0-9A-Fa-f:.]{2,45})"
# Groups that skip are atomic, so that matching is linear in the length of the line. Each tries first what is usual there,
# which ends at the same place: stepping through every character costs as much as all the rest.
_TO_SOURCE = r"(?>(?:MAC=[0-9a-f:]* )?SRC=|.*?\bSRC=)"
_TO_PROTOCOL = r"(?>TOS=0x[0-9A-F]{2} PREC=0x[0-9A-F]{2} TTL=\d{1,3} ID=\d{1,5} (?:CE )?(?:DF )?(?:MF )?PROTO=|.*?PROTO=)"
_TO_FLAGS = r"(?>(?:SEQ=\d{1,10} ACK=\d{1,10} )?WINDOW=\d{1,5} RES=0x[0-9A-Fa-f]{2} |.*?RES=0x[0-9A-Fa-f]{2} )"
_LINE = re.compile(
    r"(?:\[ *\d{1,10}\.\d{1,9}\] ?)?"
    rf"(.{{0,{MAX_PREFIX}}}?)IN=([^ ]{{0,32}}) OUT=([^ ]{{0,32}}) ({_TO_SOURCE}){_ADDRESS} DST={_ADDRESS} LEN=(\d{{1,6}}) "
    rf"{_TO_PROTOCOL}([\w-]{{1,16}})"
    rf"(?: SPT=(\d{{1,5}}) DPT=(\d{{1,5}})(?: {_TO_FLAGS}((?:[A-Z]{{3}} )*)URGP=)?"
    r"| TYPE=(\d{1,3})(?: CODE=(\d{1,3}))?)?",
    re.ASCII,
)
_VLAN = re.compile(r"VPROTO=8100 VID=(\d{1,4})\b")
_FLAGS = {"FIN": 0x01, "SYN": 0x02, "RST": 0x04, "PSH": 0x08, "ACK": 0x10, "URG": 0x20, "ECE": 0x40, "CWR": 0x80}
_TCP = 6
_VYOS = re.compile(r"\[\S+-(A|D|R|C|J|Q|RET)\]\s*\Z")
_VYOS_ACTIONS: Mapping[str, Action] = {"A": "pass", "D": "block", "R": "block"}
_BLOCKS = re.compile(r"(?<![a-z])(?:drop(?:ped)?|reject(?:ed)?|den(?:y|ied)|block(?:ed)?)(?![a-z])|-[dr]\]", re.IGNORECASE)
_PASSES = re.compile(r"(?<![a-z])(?:accept(?:ed)?|allow(?:ed)?|pass(?:ed)?)(?![a-z])|-a\]", re.IGNORECASE)
_FLOW_ACTIONS: Mapping[str, str] = {"block": "drop", "pass": "accept"}
_TAKEN = ("@timestamp", "event.created", "ringfence.event.source", "ringfence.event.position", "event.original")


class Actions(dict[str, str]):
    """What a rule did, by the prefix of its lines: block, pass or unknown."""

    def __init__(self, named: Mapping[str, Action]) -> None:
        super().__init__()
        self._named = [(text.lower(), action) for text, action in named.items()]

    def __missing__(self, prefix: str) -> str:
        if len(self) >= MAX_CACHED:
            self.clear()
        action = self[prefix] = self._tell(prefix)
        return action

    def _tell(self, prefix: str) -> str:
        lower = prefix.lower()
        for text, action in self._named:
            if text in lower:
                return action
        vyos = _VYOS.search(prefix)
        if vyos is not None:
            return _VYOS_ACTIONS.get(vyos[1], "unknown")
        blocks, passes = _BLOCKS.search(prefix) is not None, _PASSES.search(prefix) is not None
        return "unknown" if blocks == passes else "block" if blocks else "pass"


class _Flags(dict[str | None, int | None]):
    """TCP flags by their names."""

    def __missing__(self, names: str) -> int:
        value = 0
        for name in names.split():
            value |= _FLAGS.get(name, 0)
        if len(self) < 1024:
            self[names] = value
        return value


class NetfilterDecoder:
    """Decodes firewall lines. `observer.name` is `observer`, else the host in the header, else the sender or path."""

    def __init__(
        self,
        observer: str | None = None,
        keep_original: bool = True,
        year: int | None = None,
        actions: Mapping[str, Action] | None = None,
    ) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._syslog = SyslogDecoder(observer, keep_original, year)
        self._actions = Actions(actions or {})
        self._addresses = AddressCache()
        self._flags = _Flags({None: None})

    def feed(self, frames: Frames) -> Decoded:
        """Decode every frame; each is one row, one Problem, blank, or the rest of a message that was too long."""
        decoded = self._syslog.feed(frames)
        rows = dict(decoded.rows)
        problems, alone = self._alone(frames, decoded.problems)
        flows = [] if alone is None else [self._frame(frames, *alone, problems)]
        messages = rows.pop(EventClass.GENERIC, None)
        if messages is not None:
            found = [_LINE.match(text, 0, MAX_CHARS) for text in messages["message"].to_list()]
            hits = pl.Series([match is not None for match in found])
            if hits.any():
                ours = messages if hits.all() else messages.filter(hits)
                columns, fields = self._behind_header(ours), [match for match in found if match is not None]
                flows.append(self._frame(frames, columns, fields, problems))
            if not hits.all():
                rows[EventClass.GENERIC] = messages.filter(~hits)
        if sum(frame.height for frame in flows):
            rows[EventClass.FLOW] = together(flows).sort("ringfence.event.position")
        taken = sum(frame.height for frame in rows.values())
        return Decoded(rows, taken, sorted(problems, key=lambda problem: problem.row or 0), decoded.filtered)

    def _behind_header(self, messages: pl.DataFrame) -> dict[str, Any]:
        """What the syslog header of some lines says."""
        columns: dict[str, Any] = {name: messages[name] for name in _TAKEN if name in messages.columns}
        names = messages["observer.name"]
        columns["observer.name"] = names if self._observer is not None else messages["host.hostname"].fill_null(names)
        return columns

    def _alone(
        self, frames: Frames, problems: Sequence[Problem]
    ) -> tuple[list[Problem], tuple[dict[str, Any], list[re.Match[str]]] | None]:
        """Of what is no syslog, the lines of a firewall alone; and the Problems that are left."""
        left: list[Problem] = []
        rows: list[int] = []
        matches: list[re.Match[str]] = []
        for problem in problems:
            match = None
            if problem.code is ProblemCode.MALFORMED and problem.row is not None and not problem.raw.startswith(b"<"):
                match = _LINE.match(problem.raw.decode("utf-8", "replace"), 0, MAX_CHARS)
            if match is None or problem.row is None:
                left.append(problem)
            elif not frames.received_us[problem.row]:
                detail = WHY_NO_TIME[ARRIVAL]
                left.append(replace(problem, detail=detail, offset=0, path=None))
            else:
                rows.append(problem.row)
                matches.append(match)
        if not rows:
            return left, None
        sources = frames.source[rows]
        received = frames.received_us[rows]
        columns: dict[str, Any] = {
            "@timestamp": received,
            "event.created": received,
            "ringfence.event.source": np.array([source.identity for source in frames.sources], np.uint64)[sources],
            "ringfence.event.position": frames.positions[rows],
            "observer.name": [self._observer or frames.sources[source].name for source in sources.tolist()],
        }
        if self._keep_original:
            columns["event.original"] = [frames.frame(row).rstrip(b"\r\n") for row in rows]
        return left, (columns, matches)

    def _frame(
        self, frames: Frames, columns: dict[str, Any], matches: list[re.Match[str]], problems: list[Problem]
    ) -> pl.DataFrame:
        """The rows of some lines; those with a value that cannot be are refused."""
        prefix, enters, leaves, before, source, destination, size, protocol, sport, dport, flags, kind, code = zip(
            *(match.groups() for match in matches), strict=True
        )
        bad: dict[int, str] = {}
        for side, texts, name in (("source", source, "SRC"), ("destination", destination, "DST")):
            parsed = self._addresses.column(texts)
            columns[f"{side}.ip"] = parsed.v4
            columns[f"{side}.ip6"] = (
                pl.repeat(None, len(texts), dtype=pl.Binary(), eager=True) if parsed.v6 is None else parsed.v6
            )
            bad.update(dict.fromkeys(parsed.invalid.tolist(), name))
        for column, texts, name, most in (
            ("source.port", sport, "SPT", 65_535),
            ("destination.port", dport, "DPT", 65_535),
            ("ringfence.icmp.type", kind, "TYPE", 255),
            ("ringfence.icmp.code", code, "CODE", 255),
        ):
            numbers = pl.Series(texts, dtype=pl.String).cast(pl.Int64)
            too_large = (numbers > most).fill_null(False)
            bad.update(dict.fromkeys(too_large.arg_true().to_list(), name))
            columns[column] = numbers.set(too_large, None)
        numbers_of = list(map(TRANSPORTS.__getitem__, protocol))
        actions = [self._actions[text] for text in prefix]
        columns |= {
            "network.iana_number": numbers_of,
            "source.packets": [1] * len(matches),
            "source.bytes": pl.Series(size, dtype=pl.String).cast(pl.Int64),
            "ringfence.tcp.source_flags": [
                self._flags[names] if number == _TCP else None for names, number in zip(flags, numbers_of, strict=True)
            ],
            "observer.ingress.interface.name": [name or None for name in enters],
            "observer.egress.interface.name": [name or None for name in leaves],
            "network.vlan.id": [int(tag[1]) if " VID=" in text and (tag := _VLAN.search(text)) else None for text in before],
            "ringfence.firewall.action": actions,
            "ringfence.firewall.rule": [text.strip() or None for text in prefix],
            "ringfence.flow.action": [_FLOW_ACTIONS.get(action) for action in actions],
        }
        if frames.lossy:
            lossy = {frames.sources[index].identity for index in frames.lossy}
            columns["ringfence.evidence.lossy"] = [identity in lossy for identity in list(columns["ringfence.event.source"])]
        frame = build_frame(EventClass.FLOW, columns)
        for index, name in bad.items():
            problems.append(_refused(frames, frame, index, name))
        return without(frame, bad)


def _refused(frames: Frames, frame: pl.DataFrame, index: int, name: str) -> Problem:
    """Why a line with a bad value is no row."""
    place, identity = frame["ringfence.event.position"][index], frame["ringfence.event.source"][index]
    rows = np.flatnonzero((frames.positions == place) & (np.diff(frames.offsets) > 0)).tolist()
    row = next(row for row in rows if frames.sources[frames.source[row]].identity == identity)
    raw = frames.frame(row)
    detail = "Expected an IPv4 or IPv6 address" if name in ("SRC", "DST") else "Number out of range"
    offset = raw.find(f" {name}=".encode()) + len(name) + 2
    return Problem(ProblemCode.WRONG_TYPE, detail, row, offset, f"$.{name}", raw, frames.sources[frames.source[row]], place)


def _looks_like_netfilter(first: bytes) -> bool:
    """Lines alone; with a header a file is syslog by its first bytes, and the format has to be named."""
    lines = [line for line in first.split(b"\n", 20)[:20] if line.strip()]
    return (
        bool(lines)
        and not looks_like_syslog(first)
        and _LINE.match(lines[0].decode("utf-8", "replace"), 0, MAX_CHARS) is not None
    )


class NetfilterConfig(SyslogConfig):
    """Listens for syslog on one UDP or TCP port, or reads one file."""

    actions: dict[str, Action] = Field(
        default={}, description="Text in a log prefix -> block or pass; looked for first, in any case, before the words known."
    )


class NetfilterKind:
    """The collector kind `netfilter`."""

    settings = NetfilterConfig
    promise = "file: every complete line once, across restarts and rotation; tcp: what was read; udp: kernel drops are counted"
    status: Status = "experimental"
    sample = 'gateway: {type: netfilter, listen: "udp://0.0.0.0:5140", actions: {"policy-7": block}}'
    formats: Sequence[Format] = (
        Format(
            "netfilter",
            "log lines of iptables, nftables and VyOS, behind a syslog header or alone",
            SyslogFramer,
            lambda year: NetfilterDecoder(year=year),
            _looks_like_netfilter,
            "netfilter",
        ),
    )

    def build(self, settings: NetfilterConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        decoder = NetfilterDecoder(settings.observer, settings.original == "keep", settings.year, settings.actions)
        return Collector("netfilter", shell_of(settings), decoder)

    def resources(self, settings: NetfilterConfig) -> Sequence[str]:
        """The port or the file."""
        return claims_of(settings)


KIND = NetfilterKind()
