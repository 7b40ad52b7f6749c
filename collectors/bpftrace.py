"""bpftrace with the programs that come with ringfence, and what they print: `bpftrace -f json` (bpftrace 0.17 and newer).

A line is `{"type":TYPE,"data":DATA}`. Each program (`collectors/probes/linux/`, which say what they watch) prints tuples
whose first member is the kind; their members are listed there. Anything else becomes a row of class generic, such as
`lost_events` and what other programs print; `attached_probes` is left out.

- exec, exit: class process. `process.entity_id` is PID-START, the same for all events of a process until the next boot.
  The command line is cut after 480 octets. bpftrace does not escape `\\x41` in an argument: it is read as `A`.
- tcp: class flow, source is who connected. A connection is one row when it is established or refused and one, with its
  octets, when it is closed. Who connected is known, who accepted is not.
- vxlan, mpls: class flow, the inner packet; VNI and tunnel endpoints, or label. One row for each 10 s and flow and set of
  TCP flags.
- drop: class flow. Reasons that are a rule's decision (POLICY) are `block`; all others, such as NO_SOCKET, decide nothing.

Time: bpftrace stamps with the monotonic clock, and tells at its start and each 10 s by tuples `clock` what the wall clock
was at one of its stamps, to the microsecond. A step of the wall clock, or a suspend, is not seen until bpftrace is started
again. Rows before the first such tuple have the time of their arrival.

After `lost_events`, rows of flows are marked lossy for 10 s. The programs see every network namespace of the machine.

Sample: {"type": "value", "data": ["exec",12405109469015,25850,12405109106716,0,0,15528,11760831662360,4026531833,33,"ls",...]}
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from collectors.command import CommandShell
from collectors.host_events import GENERIC, Found, Kind, container_id, refuse_line, typed_columns
from collectors.lines import MAX_STREAMS, Continuations, LineFramer, first_line
from collectors.records import LineBlock
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Delivery, Format, Status
from ringfence.errors import Misconfigured
from ringfence.jsonlines import REFUSALS
from ringfence.schema import build_frame
from ringfence.timestamps import END_S

Program = Literal["process", "tcp", "vxlan", "mpls", "drop"]

MAX_WAITING = 4_096  # processes whose arguments came and whose exec did not yet
MAX_REASONS = 1_024
LOSSY_US = 10_000_000
TEXT_BYTES = 120
"""Octets of one text: with more, tuples do not fit on the stack of a BPF program (512 octets)."""
MAP_KEYS = 65_536

POLICY = frozenset(
    {
        "NETFILTER_DROP",
        "XDP",
        "TC_INGRESS",
        "TC_EGRESS",
        "BPF_CGROUP_EGRESS",
        "SECURITY_HOOK",
        "XFRM_POLICY",
        "IP_RPFILTER",
    }
)
"""Reasons of drops that somebody decided on (enum skb_drop_reason of the kernel, without SKB_DROP_REASON_)."""

_SIGNALS = (
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV",
    "SIGUSR2", "SIGPIPE", "SIGALRM", "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU",
    "SIGURG", "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO", "SIGPWR", "SIGSYS",
)  # fmt: skip
"""Of Linux, from 1 on (signal(7)): those of the machine that decodes may differ."""
_ERRORS: Mapping[int, str] = {
    101: "ENETUNREACH", 103: "ECONNABORTED", 104: "ECONNRESET", 110: "ETIMEDOUT", 111: "ECONNREFUSED", 113: "EHOSTUNREACH",
}  # fmt: skip
_CONNRESET, _REFUSED = 104, 111
_SYN, _RST, _ACK = 0x02, 0x04, 0x10
_TCP = 6
_PORTS = frozenset({_TCP, 17, 132})
_ICMP = frozenset({1, 58})
_CONNECTED, _FAILED, _ACCEPTED, _CLOSED, _CLOSED_ACCEPTED = range(1, 6)


class _Any(msgspec.Struct, gc=False):
    type: str


def _line(*members: Any) -> msgspec.json.Decoder[Any]:
    """The decoder of a tuple with these members after its kind."""
    data = GenericAlias(tuple, (str, *members))
    return msgspec.json.Decoder(msgspec.defstruct("line", [("data", data)], gc=False))


def _lost() -> msgspec.json.Decoder[Any]:
    events = msgspec.defstruct("events", [("events", int)], gc=False)
    return msgspec.json.Decoder(msgspec.defstruct("lost", [("data", events)], gc=False))


_INT, _STR = int, str
_STAMP = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""Nanoseconds since the machine was started."""
_BETWEEN = "between 1970 and the year 9999"
_END_US = END_S * 1_000_000
_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "clock": _line(_STAMP, float | str),
    "reason": _line(_INT, _STR),
    "args": _line(_INT, _INT, _STR),
    "cgroup": _line(_INT, _STR),
    "exec": _line(_STAMP, *[_INT] * 8, *[_STR] * 3),
    "exit": _line(_STAMP, *[_INT] * 5, _STR),
    "tcp": _line(_STAMP, *[_INT] * 2, _STR, _INT, _STR, *[_INT] * 10, _STR),
    "vxlan": _line(_STAMP, _STR, _INT, *[_STR] * 4, *[_INT] * 6),
    "mpls": _line(_STAMP, _STR, _INT, *[_STR] * 2, *[_INT] * 6),
    "drop": _line(_STAMP, _STR, _INT, *[_STR] * 3, *[_INT] * 5),
}
"""One for each kind of tuple that the programs print."""
_OTHERS = msgspec.json.Decoder(_Any)
_LOST = _lost()
_TAG = re.compile(rb'\s*\{\s*"type"\s*:\s*"(\w+)"\s*(?:,\s*"data"\s*:\s*\[\s*"(\w+)")?')
_OCTETS = re.compile(rb"(?<!\\)((?:\\\\)*)((?:\\uffffff[0-9a-f]{2})+)")
"""How bpftrace 0.17 writes octets from 0x80 on in JSON: sign-extended."""
_HEX = re.compile(r"\\x([0-9a-f]{2})")


class _Stream:
    """What one run of bpftrace told so far."""

    def __init__(self) -> None:
        self.offset_us: int | None = None
        self.reasons: dict[int, str] = {}
        self.arguments: dict[int, str] = {}
        self.groups: dict[int, str] = {}
        self.last_us = 0
        self.lossy_until_us = 0

    def time_us(self, nanos: int, received_us: int) -> int | None:
        """Wall clock time of a stamp; that of arrival where no clock is known."""
        time = nanos // 1000 + self.offset_us if self.offset_us is not None else received_us or None
        if time is not None and time < _END_US:
            self.last_us = max(self.last_us, time)
        return time

    def learn(self, tag: str, data: tuple[Any, ...]) -> bool:
        """Take a tuple that is about others; False for a clock that tells no time."""
        if tag == "clock":
            wall_us = _wall_us(data[2])
            if wall_us is None:
                return False
            self.offset_us = wall_us - data[1] // 1000
        elif tag == "reason":
            _remember(self.reasons, data[1], data[2], MAX_REASONS)
        elif tag == "args":
            before = self.arguments.get(data[1], "") if data[2] else ""
            _remember(self.arguments, data[1], before + data[3], MAX_WAITING)
        else:
            _remember(self.groups, data[1], data[2], MAX_WAITING)
        return True


def _wall_us(clock: float | str) -> int | None:
    """Seconds since 1970 as bpftrace prints them, in microseconds; None for what is no such time."""
    try:
        found = round(float(clock) * 1e6)
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found < _END_US else None


def _remember(table: dict[int, str], key: int, value: str, most: int) -> None:
    if len(table) >= most and key not in table:
        del table[next(iter(table))]
    table[key] = value


_TELLING = frozenset({"clock", "reason", "args", "cgroup"})


class BpftraceDecoder:
    """Decoder of the lines. `observer` names the machine."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._addresses = AddressCache()
        self._continuations = Continuations()
        self._streams: dict[int, _Stream] = {}

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row, one Problem, blank, or about others."""
        block = LineBlock(frames, self._continuations)
        if b"\\uffffff" in frames.data:
            block.lines = [_OCTETS.sub(_octets, line) for line in block.lines]
        groups: dict[str, Found] = {}
        for row, line in enumerate(block.lines):
            named = _TAG.match(line)
            if named is None:
                refuse_line(block, _OTHERS, row)
            else:
                self._take(block, row, named[1], named[2], groups)
        parts: dict[EventClass, list[pl.DataFrame]] = {}
        for tag, found in groups.items():
            kind = _KINDS.get(tag, GENERIC)
            parts.setdefault(kind.event_class, []).append(self._frame(block, kind, found))
        return block.decoded(parts)

    def _take(self, block: LineBlock, row: int, kind: bytes, member: bytes | None, groups: dict[str, Found]) -> None:
        """Read one line into the group of its kind."""
        tag = member.decode() if kind == b"value" and member is not None else ""
        decoder: msgspec.json.Decoder[Any] = _DECODERS.get(tag) or (_LOST if kind == b"lost_events" else _OTHERS)
        try:
            record = decoder.decode(block.lines[row])
        except REFUSALS:
            return refuse_line(block, decoder, row)
        stream = self._stream(block.stream(row))
        received_us = int(block.frames.received_us[row])
        if kind == b"attached_probes" or tag in _TELLING:
            if tag and not stream.learn(tag, record.data):
                return block.refuse(ProblemCode.MALFORMED, f"the clock tells no time {_BETWEEN}", row, 0, None)
            block.filtered[tag or "attached_probes"] += 1
            return None
        if tag in _KINDS:
            time = stream.time_us(record.data[1], received_us)
            values = _KINDS[tag].read((record.data, stream))
        else:
            if decoder is _LOST:
                stream.lossy_until_us = max(stream.last_us, received_us) + LOSSY_US
            tag, time = "generic", received_us or stream.last_us or None
            values = ((member or kind).decode() if kind == b"value" else kind.decode(),)
        if time is None:
            detail = "there is no clock before it and its arrival is not known"
            return block.refuse(ProblemCode.MALFORMED, detail, row, 0, None)
        if not 0 <= time < _END_US:
            return block.refuse(ProblemCode.MALFORMED, f"its time is not {_BETWEEN}", row, 0, None)
        found = groups.setdefault(tag, Found())
        found.rows.append(row)
        found.values.append((time, time < stream.lossy_until_us, *values))
        return None

    def _stream(self, identity: int) -> _Stream:
        stream = self._streams.get(identity)
        if stream is None:
            if len(self._streams) >= MAX_STREAMS:
                del self._streams[next(iter(self._streams))]
            stream = self._streams[identity] = _Stream()
        return stream

    def _frame(self, block: LineBlock, kind: Kind, found: Found) -> pl.DataFrame:
        rows = np.array(found.rows)
        is_flow = kind.event_class is EventClass.FLOW
        columns = block.origin_columns(rows, self._keep_original or kind is GENERIC, is_flow)
        columns |= typed_columns(kind, [values[2:] for values in found.values], self._addresses)
        columns["@timestamp"] = [values[0] for values in found.values]
        columns["observer.name"] = [self._observer] * len(rows)
        if is_flow:
            lossy = np.array([values[1] for values in found.values])
            if lossy.any():
                columns["ringfence.evidence.lossy"] = lossy | np.array(columns.get("ringfence.evidence.lossy", False))
        return build_frame(kind.event_class, columns)


def _octets(run: re.Match[bytes]) -> bytes:
    """The octets as UTF-8; those that are none become U+FFFD."""
    octets = bytes.fromhex(run[2].replace(b"\\uffffff", b"").decode())
    return run[1] + octets.decode("utf-8", "replace").encode()


def _text(escaped: str) -> str | None:
    """Arguments, each ended by NUL and escaped, as one line."""
    if not escaped:
        return None
    plain = _HEX.sub(lambda octet: chr(int(octet[1], 16)), escaped.encode("utf-8").decode("latin-1"))
    octets = plain.encode("latin-1").rstrip(b"\0").replace(b"\0", b" ")
    return octets.decode("utf-8", "replace") or None


def _entity(pid: int, start: int) -> str | None:
    return f"{pid}-{start}" if pid else None


def _exec(record: Any) -> tuple[Any, ...]:
    data, stream = record
    _, _, pid, start, uid, _, ppid, pstart, netns, _, name, parent, path = data
    arguments, group = stream.arguments.pop(pid, ""), stream.groups.pop(pid, "")
    return (
        "exec", pid, _entity(pid, start), name, path or None, _text(arguments),
        ppid, _entity(ppid, pstart), parent, str(uid), container_id(group), netns,
    )  # fmt: skip


def _exit(record: Any) -> tuple[Any, ...]:
    data, _ = record
    _, _, pid, start, uid, _, status, name = data
    signal = status & 0x7F
    code = None if signal else status >> 8 & 0xFF
    named = _SIGNALS[signal - 1] if 0 < signal <= len(_SIGNALS) else f"signal {signal}" if signal else None
    return "exit", pid, _entity(pid, start), name, str(uid), code, named


def _tcp(record: Any) -> tuple[Any, ...]:
    data, stream = record
    (_, nanos, what, errno, local, lport, remote, rport, sent, got, segs_out, segs_in, netns, begun, pid, start, uid,
     name) = data  # fmt: skip
    offset = stream.offset_us
    start_us = None if offset is None or not begun else begun // 1000 + offset
    is_end = what in (_CLOSED, _CLOSED_ACCEPTED)
    end_us = nanos // 1000 + offset if is_end and offset is not None else None
    reason = (_ERRORS.get(errno) or f"errno {errno}") if errno and (what == _FAILED or errno == _CONNRESET) else None
    forth, back = (_SYN | _ACK, _SYN | _ACK) if what != _FAILED else (_SYN, _RST | _ACK if errno == _REFUSED else 0)
    ours, theirs = (local, lport, sent, segs_out), (remote, rport, got, segs_in)
    inward = what in (_ACCEPTED, _CLOSED_ACCEPTED)
    source, destination = (theirs, ours) if inward else (ours, theirs)
    state = {_CONNECTED: "established", _ACCEPTED: "established", _FAILED: "failed"}.get(what, "closed")
    return (
        *source, *destination, _TCP, forth, back, state, reason, "ingress" if inward else "egress", f"{lport}-{rport}-{begun}",
        start_us, end_us, netns, pid or None, _entity(pid, start), name or None, str(uid) if pid else None,
    )  # fmt: skip


def _packet(source: str, destination: str, protocol: int, sport: int, dport: int, flags: int, netns: int) -> tuple[Any, ...]:
    """The columns of PACKET."""
    has_ports, is_icmp = protocol in _PORTS, protocol in _ICMP
    return (
        source, destination, sport if has_ports else None, dport if has_ports else None, protocol,
        flags if protocol == _TCP else None, sport >> 8 if is_icmp else None, sport & 0xFF if is_icmp else None, 1, netns,
    )  # fmt: skip


def _vxlan(record: Any) -> tuple[Any, ...]:
    _, _, device, vni, near, far, source, destination, protocol, sport, dport, flags, size, netns = record[0]
    return (
        *_packet(source, destination, protocol, sport, dport, flags, netns), device or None, "ingress", size, vni, near, far
    )  # fmt: skip


def _mpls(record: Any) -> tuple[Any, ...]:
    _, _, device, label, source, destination, protocol, sport, dport, flags, size, netns = record[0]
    return *_packet(source, destination, protocol, sport, dport, flags, netns), device or None, "ingress", size, label


def _drop(record: Any) -> tuple[Any, ...]:
    data, stream = record
    _, _, device, number, _, source, destination, protocol, sport, dport, flags, netns = data
    reason = stream.reasons.get(number) or f"reason {number}"
    decided = reason in POLICY
    return (
        *_packet(source, destination, protocol, sport, dport, flags, netns), device or None, reason,
        "drop" if decided else None, "block" if decided else "unknown",
    )  # fmt: skip


_PACKET = (
    "source.ip", "destination.ip", "source.port", "destination.port", "network.iana_number", "ringfence.tcp.source_flags",
    "ringfence.icmp.type", "ringfence.icmp.code", "source.packets", "ringfence.process.network_namespace",
    "observer.ingress.interface.name",
)  # fmt: skip
_INGRESS = (*_PACKET, "ringfence.flow.direction", "source.bytes")
_KINDS: Mapping[str, Kind] = {
    "exec": Kind(
        EventClass.PROCESS,
        (
            "event.action", "process.pid", "process.entity_id", "process.name", "process.executable", "process.command_line",
            "process.parent.pid", "process.parent.entity_id", "process.parent.name", "user.id", "container.id",
            "ringfence.process.network_namespace",
        ),
        _exec,
    ),
    "exit": Kind(
        EventClass.PROCESS,
        (
            "event.action", "process.pid", "process.entity_id", "process.name", "user.id", "process.exit_code",
            "ringfence.process.signal",
        ),
        _exit,
    ),
    "tcp": Kind(
        EventClass.FLOW,
        (
            "source.ip", "source.port", "source.bytes", "source.packets",
            "destination.ip", "destination.port", "destination.bytes", "destination.packets",
            "network.iana_number", "ringfence.tcp.source_flags", "ringfence.tcp.destination_flags", "ringfence.flow.state",
            "ringfence.flow.reason", "ringfence.flow.direction", "ringfence.flow.id", "event.start", "event.end",
            "ringfence.process.network_namespace", "process.pid", "process.entity_id", "process.name", "user.id",
        ),
        _tcp,
    ),
    "vxlan": Kind(
        EventClass.FLOW,
        (*_INGRESS, "ringfence.vxlan.vni", "ringfence.vxlan.source.ip", "ringfence.vxlan.destination.ip"),
        _vxlan,
    ),
    "mpls": Kind(EventClass.FLOW, (*_INGRESS, "ringfence.mpls.label"), _mpls),
    "drop": Kind(
        EventClass.FLOW, (*_PACKET, "ringfence.flow.reason", "ringfence.flow.action", "ringfence.firewall.action"), _drop
    ),
}  # fmt: skip


_CLOCK = '{ $now = nsecs; print(("clock", (uint64)$now, strftime("%s.%f", $now))); }'
_TRACEFS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_MAP = re.compile(r"@\w+")
_SYMBOL = re.compile(r"\{ (\d+), \"([A-Z0-9_]+)\" \}")
_LOST_LINE = re.compile(rb'^\{"type": ?"lost_events", ?"data": ?\{"events": ?(\d{1,18})\}\}', re.MULTILINE)


def program_text(names: Sequence[Program], reasons: Mapping[int, str]) -> str:
    """The bpftrace program of some probes, which tells the clock and the names of `reasons` first."""
    prints = "".join(f' print(("reason", (uint64){number}, "{name}"));' for number, name in reasons.items())
    texts = [files("collectors").joinpath("probes", "linux", f"{name}.bt").read_text("utf-8") for name in names]
    # at its end bpftrace prints every map that is not empty
    clears = " ".join(f"clear({name});" for name in sorted(set(_MAP.findall("\n".join(texts)))))
    return "\n".join([f"BEGIN {_CLOCK[:-1]}{prints} }}", f"interval:s:10 {_CLOCK}", f"END {{ {clears} }}", *texts])


def drop_reasons() -> dict[int, str]:
    """What the running kernel calls its reasons of drops; empty where it does not tell."""
    for folder in _TRACEFS:
        try:
            text = (folder / "events/skb/kfree_skb/format").read_text()
        except OSError:
            continue
        return {int(number): name for number, name in _SYMBOL.findall(text)}
    return {}


class BpftraceShell(CommandShell):
    """Runs bpftrace with some of the programs; counts what it says it lost."""

    def __init__(self, name: str, bpftrace: str, programs: Sequence[Program]) -> None:
        environment = {
            # two names of one setting: the second is of bpftrace 0.20 and newer
            "BPFTRACE_STRLEN": str(TEXT_BYTES),
            "BPFTRACE_MAX_STRLEN": str(TEXT_BYTES),
            "BPFTRACE_MAP_KEYS_MAX": str(MAP_KEYS),
            "BPFTRACE_MAX_MAP_KEYS": str(MAP_KEYS),
        }
        super().__init__(name, self._arguments, LineFramer, environment)
        self._bpftrace = bpftrace
        self._programs = programs

    async def open(self, position: bytes) -> None:
        """Start bpftrace. Raises Misconfigured when it cannot work here."""
        if os.geteuid() != 0:
            raise Misconfigured("bpftrace works for root only: run the process of this collector as root")
        if not any((folder / "events").is_dir() for folder in _TRACEFS):
            raise Misconfigured("tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing")
        await super().open(position)

    async def read(self) -> Delivery:
        """Return what bpftrace printed; `shed` counts the events that it lost."""
        delivery = await super().read()
        lost = sum(map(int, _LOST_LINE.findall(delivery.frames.data)))
        return replace(delivery, shed={"lost_events": lost}) if lost else delivery

    def _arguments(self, position: bytes) -> Sequence[str]:
        reasons = drop_reasons() if "drop" in self._programs else {}
        return [self._bpftrace, "-f", "json", "-B", "line", "-e", program_text(self._programs, reasons)]


def _looks_like_bpftrace(first: bytes) -> bool:
    return re.match(rb'\{"type": ?"(attached_probes|value|lost_events|printf|map)", ?"data": ?', first_line(first)) is not None


class Settings(BaseModel):
    """Starts bpftrace, as root, and starts it again when it ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    programs: tuple[Program, ...] = Field(
        default=("process", "tcp"),
        min_length=1,
        description="What to watch: process (exec, exit), tcp (connections), vxlan and mpls (packets that come in), drop (packets dropped).",
    )
    bpftrace: str = Field(default="bpftrace", min_length=1, description="Path of bpftrace, or its name on PATH.")
    observer: str | None = Field(default=None, description="Name of this machine; its host name by default.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each line as event.original.")


class BpftraceKind:
    """Entry point `bpftrace`."""

    settings = Settings
    promise = "what bpftrace printed, once; what happens while it does not run, and what it lost (counted), is gone"
    status: Status = "experimental"
    sample = "kernel: {type: bpftrace, programs: [process, tcp, drop]}"
    formats = (
        Format(
            "bpftrace",
            "what the bpftrace programs of this package print with -f json",
            LineFramer,
            lambda year: BpftraceDecoder(),
            _looks_like_bpftrace,
            "bpftrace",
        ),
    )

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """bpftrace through the shell that runs programs."""
        decoder = BpftraceDecoder(settings.observer or socket.gethostname(), settings.original == "keep")
        return Collector("bpftrace", BpftraceShell(context.name, settings.bpftrace, settings.programs), decoder)

    def resources(self, settings: Settings) -> Sequence[str]:
        """Two collectors with one program would report everything twice."""
        return tuple(f"bpftrace program {name}" for name in settings.programs)


KIND = BpftraceKind()
