"""sFlow version 5: packets that switches, routers and hosts sampled, in UDP datagrams or in a file of them.

Spec: sflow.org, sflow_version_5.txt (datagram, samples, records), sflow_tunnels.txt (records 1021 to 1030), sflow_pnat.txt
(1020), sflow_drops.txt (sample 5: notices of dropped packets). Everything is XDR (RFC 4506): big-endian, in steps of 4 bytes.

A flow sample, compact or expanded, is one row of class flow. So is a notice of a dropped packet. Counter samples are left out;
a datagram with nothing else is filtered as `counters`. Records that no column has a place for, and those of other enterprises,
are skipped by their length.

Readings that need saying:
- A row is one packet: `source.packets` is 1 and `source.bytes` its IP length, as it was, not multiplied; one packet in
  `ringfence.flow.sampling` was sampled. It is one-way, so a verdict rests on this packet alone: a SYN proves nothing.
- The datagram says how long its agent is up, but not when it is: `@timestamp` is when the datagram arrived, and in a file the
  uptime, counted from 1970.
- `observer.name` is the agent's address in the datagram, not that of the sender.
- An output interface of format 1 says that the packet was dropped. By an ACL or a prohibition that is `drop`; for want
  of a buffer, a route or a TTL it decides nothing. The reason stands in ringfence.flow.reason.
- What is inside a VXLAN or GENEVE packet is read where the switch says that it decapsulates it, or between addresses in
  `vteps`. Otherwise the row is the outer packet: any host can send to port 4789, and must not hide behind what it puts inside.
- A datagram with a sample or record that does not fit is rejected whole, so that replaying it later makes no row twice.

Sample (header without samples): 00000005 00000001 c0000201 00000000 00000001 000003e8 00000000
"""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from collectors import headers
from collectors.datagrams import DatagramFramer
from collectors.elements import Bools, Ints, address_columns, gather, nullable
from collectors.exporters import Allowed, Prefix, PrefixOption, endpoint, listen_option, resource
from collectors.headers import Packets
from collectors.sequences import MAX_EXPORTERS, Sequences
from collectors.udp import MAX_DATAGRAM_BYTES, UdpShell
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode
from ringfence.component import BuildContext, Collector, Decoder, Format, Status
from ringfence.schema import build_frame

VERSION = 5
DEFAULT_PORT = 6343  # IANA
MAX_SAMPLES = 1_024  # a datagram; a flow sample takes at least 40 bytes
MAX_RECORDS = 128  # a sample
RUN_SAMPLES = 64
"""As many samples of one source are followed at once, so that a number falling back by 32 times this is a new start."""
RECEIVE_BUFFER_BYTES = 8 << 20

_ADDRESS_BYTES = {0: 0, 1: 4, 2: 16}
_FLOW, _COUNTERS, _FLOW_EXPANDED, _COUNTERS_EXPANDED, _DROPPED = 1, 2, 3, 4, 5
_FIXED_BYTES = {_FLOW: 32, _FLOW_EXPANDED: 44, _DROPPED: 32}
_HEADER, _ETHERNET, _IPV4, _IPV6 = 1, 2, 3, 4
_SWITCH, _GATEWAY, _NAT, _NAT_PORT = 1001, 1003, 1007, 1020
_DECAPSULATE, _VNI = (1027, 1028), (1029, 1030)
_LEAST = {
    _HEADER: 16, _ETHERNET: 24, _IPV4: 32, _IPV6: 56, _SWITCH: 16, _GATEWAY: 20, _NAT: 8, _NAT_PORT: 8,
    **dict.fromkeys((*_DECAPSULATE, *_VNI), 4),
}  # fmt: skip
"""Bytes that a record has at least, or the datagram is rejected."""
_SINGLE, _DISCARDED = 0, 1
_INTERNAL = 0x3FFFFFFF
_REASONS = {
    0: "net-unreachable", 1: "host-unreachable", 2: "protocol-unreachable", 3: "port-unreachable", 4: "frag-needed",
    5: "src-route-failed", 6: "dst-net-unknown", 7: "dst-host-unknown", 8: "src-host-isolated", 9: "dst-net-prohibited",
    10: "dst-host-prohibited", 11: "dst-net-tos-unreachable", 12: "dst-host-tos-unreachable", 13: "comm-admin-prohibited",
    14: "host-precedence-violation", 15: "precedence-cutoff", 256: "unknown", 257: "ttl-exceeded", 258: "acl",
    259: "no-buffer-space", 260: "red", 261: "traffic-shaping", 262: "pkt-too-big",
}  # fmt: skip
_PROHIBITED = (9, 10, 13, 258)

_WORD = np.dtype(">u4")
_PAIR = np.dtype([("type", ">u4"), ("length", ">u4")])
_TAIL = np.dtype([("sub", ">u4"), ("sequence", ">u4"), ("uptime", ">u4"), ("samples", ">u4")])
_WORDS = np.dtype((">u4", (11,)))
_RAW = np.dtype([("protocol", ">u4"), ("frame", ">u4"), ("stripped", ">u4"), ("length", ">u4")])
_SAMPLED4 = np.dtype(
    [(name, ">u4") for name in ("length", "protocol", "source", "destination", "sport", "dport", "flags", "tos")]
)
_SAMPLED6 = np.dtype(
    [
        ("length", ">u4"), ("protocol", ">u4"), ("source", "u1", (16,)), ("destination", "u1", (16,)),
        ("sport", ">u4"), ("dport", ">u4"), ("flags", ">u4"), ("tos", ">u4"),
    ]
)  # fmt: skip
_SWITCHED = np.dtype([(name, ">u4") for name in ("vlan", "priority", "out_vlan", "out_priority")])
_PORTS = np.dtype([("source", ">u4"), ("destination", ">u4")])
_PATH = np.dtype((">u4", (6,)))
_ADDRESS = np.dtype([("type", ">u4"), ("octets", "u1", (16,))])


class SflowFramer(DatagramFramer):
    """Cuts a file of datagrams by the lengths of their samples."""

    def _walk(self, data: bytes) -> Iterator[int]:
        position = 0
        while (end := self._end(data, position)) is not None:
            position = end
            yield position

    def _end(self, data: bytes, start: int) -> int | None:
        """Where the datagram ends that begins here; None when that is not there yet, or cannot be known."""
        if len(data) < start + 8:
            return None
        version, kind = struct.unpack_from(">II", data, start)
        if version != VERSION or kind not in _ADDRESS_BYTES:
            self._uncut = True
            return None
        at = start + 24 + _ADDRESS_BYTES[kind]
        if len(data) < at:
            return None
        count = int.from_bytes(data[at - 4 : at], "big")
        if count > MAX_SAMPLES:
            self._uncut = True
            return None
        for _ in range(count):
            if len(data) < at + 8:
                return None
            at += 8 + _padded(int.from_bytes(data[at + 4 : at + 8], "big"))
            if at - start > MAX_DATAGRAM_BYTES:
                self._uncut = True
                return None
        return at if at <= len(data) else None


def _padded(size: int) -> int:
    """RFC 4506 4.10: opaque data is filled up to a multiple of 4."""
    return size + 3 & ~3


class _Blocks(NamedTuple):
    """Samples of datagrams, or records of samples: which one each belongs to, its data format, and where its body is."""

    owner: Ints
    kind: Ints
    begin: Ints
    size: Ints

    def only(self, chosen: Bools | Ints) -> _Blocks:
        """Some of them."""
        return _Blocks(*(part[chosen] for part in self))


def _blocks(data: bytes, at: Ints, ends: Ints, counts: Ints, bad: Bools) -> _Blocks:
    """Walk all lists of (format, length, body) at once; marks in `bad` the lists that do not fit."""
    at = at.copy()
    steps: list[_Blocks] = []
    active = np.flatnonzero(~bad & (counts > 0))
    while len(active):
        fits = at[active] + 8 <= ends[active]
        bad[active[~fits]] = True
        active = active[fits]
        pair = gather(data, _PAIR, at[active])
        begin, size = at[active] + 8, pair["length"].astype(np.int64)
        fits = begin + size <= ends[active]
        bad[active[~fits]] = True
        active, begin, size = active[fits], begin[fits], size[fits]
        steps.append(_Blocks(active, pair["type"][fits].astype(np.int64), begin, size))
        at[active] = begin + (size + 3 & ~3)
        active = active[counts[active] > len(steps)]
    if not steps:
        return _Blocks(*(np.zeros(0, np.int64) for _ in _Blocks._fields))
    found = _Blocks(*(np.concatenate(parts) for parts in zip(*steps, strict=True)))
    order = np.argsort(found.begin, kind="stable")
    return _Blocks(*(part[order] for part in found))


class _Datagrams(NamedTuple):
    """The headers of some datagrams."""

    agent: Ints
    """Bytes of the agent's address."""
    sub: Ints
    sequence: Ints
    uptime_ms: Ints
    begin: Ints
    """Where the samples begin."""
    samples: Ints


class SflowDecoder:
    """Decodes datagrams of many agents. Inner packets of tunnels between `vteps` are read instead of the outer ones."""

    def __init__(self, exporters: Sequence[Prefix] = (), vteps: Sequence[Prefix] = ()) -> None:
        self._allowed = Allowed(exporters)
        self._vteps = vteps
        self._datagrams = Sequences(1)
        self._samples = Sequences(RUN_SAMPLES)
        self._drops: OrderedDict[tuple[Any, ...], int] = OrderedDict()
        self._dropped: dict[str, int] = {}

    @property
    def sequence_gaps(self) -> Mapping[str, int]:
        """Datagrams that each remembered agent sent and that never came."""
        return self._datagrams.lost

    @property
    def sample_gaps(self) -> Mapping[str, int]:
        """Samples that each remembered agent took and that never came, in lost datagrams or without having been sent."""
        return self._samples.lost

    @property
    def agent_drops(self) -> Mapping[str, int]:
        """How often each agent could not take a sample that was due, as it says itself."""
        return self._dropped

    def feed(self, frames: Frames) -> Decoded:
        """Decode every datagram that can be read, of agents that are allowed; each of the others becomes one Problem."""
        return self._allowed.feed(self._decoded, frames)

    def _decoded(self, frames: Frames) -> Decoded:
        starts, ends = frames.offsets[:-1], frames.offsets[1:]
        header, bad = _datagrams(frames.data, starts, ends)
        samples = _blocks(frames.data, header.begin, ends, header.samples, bad)
        flows = samples.only(np.isin(samples.kind, tuple(_FIXED_BYTES)) & ~bad[samples.owner])
        read = _Samples(frames.data, flows, bad)
        good = np.flatnonzero(~bad)
        problems = [_problem(frames, row) for row in np.flatnonzero(bad).tolist()]
        if bad.any():
            read = _Samples(frames.data, flows.only(~bad[flows.owner]), bad)
        names, agent, lossy = self._follow(frames, header, good)
        with_rows = np.zeros(len(frames), np.bool_)
        with_rows[read.of] = True
        taken = int(with_rows.sum())
        left_out = len(good) - taken
        filtered = {"counters": left_out} if left_out else {}
        if not taken:
            return Decoded({}, 0, problems, filtered)
        lossy = lossy | np.isin(frames.source, list(frames.lossy))
        lossy = lossy[read.of] | self._follow_samples(frames, read, names, agent, header.sub)
        frame = build_frame(EventClass.FLOW, self._columns(frames, header, read, names, agent, lossy))
        return Decoded({EventClass.FLOW: frame}, taken, problems, filtered)

    def _follow(self, frames: Frames, header: _Datagrams, rows: Ints) -> tuple[list[str], Ints, Bools]:
        """Follow the datagrams; returns the names of agents, which one each datagram is of, and which came after a gap."""
        agent = np.zeros(len(frames), np.int64)
        index: dict[str, int] = {}
        starts = frames.offsets[:-1][rows]
        facts = zip(
            rows.tolist(), starts.tolist(), header.agent[rows].tolist(), frames.source[rows].tolist(),
            header.sub[rows].tolist(), header.sequence[rows].tolist(), strict=True,
        )  # fmt: skip
        self._datagrams.begin(len(frames))
        data, sources, take = frames.data, frames.sources, self._datagrams.take
        for row, start, size, number, sub, sequence in facts:
            source = sources[number]
            name = _agent(data[start + 8 : start + 8 + size]) or source.name
            agent[row] = index.setdefault(name, len(index))
            take((source.identity, name, sub), row, sequence, 1)
        return list(index), agent, self._datagrams.after_gap

    def _follow_samples(self, frames: Frames, read: _Samples, names: list[str], agent: Ints, sub: Ints) -> Bools:
        """Follow the samples of every data source, a run of numbers at a time; returns which came after a loss."""
        of = read.of
        stream = np.stack((frames.source[of].astype(np.int64), agent[of], sub[of], read.source_class, read.source_index))
        same = _codes(stream)
        order = np.argsort(same, kind="stable")
        key, sequence, drops = same[order], read.sequence[order], read.drops[order]
        change = np.ones(len(order), np.bool_)
        change[1:] = key[1:] != key[:-1]
        breaks = change.copy()
        breaks[1:] |= sequence[1:] != (sequence[:-1] + 1 & 0xFFFFFFFF)
        breaks |= np.arange(len(order)) % RUN_SAMPLES == 0
        first = np.flatnonzero(breaks)
        counts = np.diff(np.append(first, len(order)))
        self._samples.begin(len(order))
        keys = {}
        for place, count in zip(first.tolist(), counts.tolist(), strict=True):
            row = int(order[place])
            if change[place]:
                number, which, *rest = stream[:, row].tolist()
                keys[int(key[place])] = (frames.sources[number].identity, names[which], tuple(rest))
            self._samples.take(keys[int(key[place])], row, int(sequence[place]), count)
        lossy = self._samples.after_gap
        lossy[order[self._more_drops(keys, key, drops, change)]] = True
        return lossy

    def _more_drops(self, keys: Mapping[int, tuple[Any, ...]], key: Ints, drops: Ints, change: Bools) -> Bools:
        """In which samples the count of drops of their source has risen, which adds to `agent_drops`."""
        rise = np.zeros(len(drops), np.int64)
        rise[1:] = drops[1:] - drops[:-1]
        last = np.append(change[1:], np.True_)
        for begin, end in zip(np.flatnonzero(change).tolist(), np.flatnonzero(last).tolist(), strict=True):
            source = keys[int(key[begin])]
            rise[begin] = drops[begin] - self._drops.pop(source, int(drops[begin]))
            self._drops[source] = int(drops[end])
            if len(self._drops) > MAX_EXPORTERS:
                self._drops.popitem(last=False)
            risen = int(np.maximum(rise[begin : end + 1], 0).sum())
            if risen and (source[1] in self._dropped or len(self._dropped) < MAX_EXPORTERS):
                self._dropped[source[1]] = self._dropped.get(source[1], 0) + risen
        more: Bools = rise > 0
        return more

    def _columns(
        self, frames: Frames, header: _Datagrams, read: _Samples, names: list[str], agent: Ints, lossy: Bools
    ) -> dict[str, Any]:
        of = read.of
        received = frames.received_us[of]
        identities = np.array([source.identity for source in frames.sources], np.uint64)
        packets = read.packets(self._is_vtep)
        return {
            "@timestamp": np.where(received != 0, received, header.uptime_ms[of] * 1000),
            "event.created": nullable(received, received != 0),
            "ringfence.event.source": pl.Series(identities[frames.source[of]]),
            "ringfence.event.position": frames.positions[of] + (read.place - frames.offsets[of]).astype(np.uint64),
            "observer.name": pl.Series(names, dtype=pl.String)[pl.Series(agent[of].astype(np.uint32))],
            "ringfence.evidence.lossy": lossy,
            "source.packets": np.ones(len(of), np.int64),
            **packets.columns(),
            **read.interfaces(),
            **read.extended(),
        }

    def _is_vtep(self, v4: Ints, v6: headers.Octets, is6: Bools) -> Bools:
        """Which of these addresses lie in `vteps`."""
        inside = np.zeros(len(v4), np.bool_)
        for prefix in self._vteps:
            network = int(prefix.network_address)
            if prefix.version == 4:
                inside |= ~is6 & (v4 >> (32 - prefix.prefixlen) == network >> (32 - prefix.prefixlen))
                continue
            octets = np.frombuffer(prefix.network_address.packed, np.uint8)
            mask = np.frombuffer(prefix.netmask.packed, np.uint8)
            inside |= is6 & ((v6 & mask) == octets).all(axis=1)
        return inside


def _datagrams(data: bytes, starts: Ints, ends: Ints) -> tuple[_Datagrams, Bools]:
    """The headers, and which of them cannot be read."""
    sizes = ends - starts
    front = gather(data, _PAIR, starts)
    kind = front["length"].astype(np.int64)
    agent = np.select((kind == 1, kind == 2), (4, 16), 0)
    bad = (front["type"] != VERSION) | (kind > 2) | (sizes < 24 + agent)
    tail = gather(data, _TAIL, np.where(bad, 0, starts + 8 + agent))
    count = tail["samples"].astype(np.int64)
    bad |= count > MAX_SAMPLES
    sub, sequence, uptime = (tail[name].astype(np.int64) for name in ("sub", "sequence", "uptime"))
    return _Datagrams(agent, sub, sequence, uptime, starts + 24 + agent, np.where(bad, 0, count)), bad


@lru_cache(MAX_EXPORTERS)
def _agent(octets: bytes) -> str:
    """An agent's address as text; empty where it does not tell."""
    if len(octets) == 4:
        return socket.inet_ntop(socket.AF_INET, octets)
    return socket.inet_ntop(socket.AF_INET6, octets) if octets else ""


def _codes(streams: Ints) -> Ints:
    """A number for each distinct column."""
    code = np.zeros(streams.shape[1], np.int64)
    for part in streams:
        if (part != part[0]).any():
            _, code = np.unique(code << 33 | np.unique(part, return_inverse=True)[1], return_inverse=True)
    return code


class _Samples:
    """Flow samples: their fixed part, and where their records are. Marks in `bad` the datagrams that cannot be read."""

    def __init__(self, data: bytes, flows: _Blocks, bad: Bools) -> None:
        self._data = data
        short = flows.size < np.select([flows.kind == kind for kind in _FIXED_BYTES], list(_FIXED_BYTES.values()))
        bad[flows.owner[short]] = True
        flows = flows.only(~bad[flows.owner])
        self.of, self._begin, self._end = flows.owner, flows.begin, flows.begin + flows.size
        self._kind = flows.kind
        words = gather(data, _WORDS, flows.begin).reshape(-1, 11).astype(np.int64)
        self._fixed(words)
        self._records(np.where(flows.kind == _FLOW_EXPANDED, words[:, 10], words[:, 7]), bad)

    @property
    def place(self) -> Ints:
        """Where each sample begins in the data."""
        return self._begin - 8

    def _fixed(self, words: Ints) -> None:
        """What stands before the records. A compact source or interface has its class or format in the upper bits."""
        kind = self._kind
        compact, expanded = kind == _FLOW, kind == _FLOW_EXPANDED
        self.sequence = words[:, 0]
        self.source_class = np.where(compact, words[:, 1] >> 24, words[:, 1]) | np.where(kind == _DROPPED, 1 << 32, 0)
        self.source_index = np.where(compact, words[:, 1] & 0xFFFFFF, words[:, 2])
        self._rate = np.select((compact, expanded), (words[:, 2], words[:, 3]), 0)
        self.drops = np.select((compact, expanded), (words[:, 4], words[:, 5]), words[:, 3])
        self._in = np.select((compact, expanded), (words[:, 5] & _INTERNAL, words[:, 7]), words[:, 4])
        self._in_format = np.select((compact, expanded), (words[:, 5] >> 30, words[:, 6]), _SINGLE)
        self._out = np.select((compact, expanded), (words[:, 6] & _INTERNAL, words[:, 9]), words[:, 5])
        self._out_format = np.select((compact, expanded), (words[:, 6] >> 30, words[:, 8]), _SINGLE)
        self._reason = np.where(kind == _DROPPED, words[:, 6], np.where(self._out_format == _DISCARDED, self._out, -1))

    def _records(self, counts: Ints, bad: Bools) -> None:
        """Find the first record of each kind in every sample."""
        wrong = counts > MAX_RECORDS
        at = self._begin + np.where(self._kind == _FLOW_EXPANDED, 44, 32)
        records = _blocks(self._data, at, self._end, counts, wrong)
        self._place: dict[int, Ints] = {}
        self._record = records
        for kind, least in _LEAST.items():
            chosen = np.flatnonzero(records.kind == kind)
            if not len(chosen):
                continue
            wrong[records.owner[chosen[records.size[chosen] < least]]] = True
            place = np.full(len(self.of), -1, np.int64)
            place[records.owner[chosen[::-1]]] = chosen[::-1]
            self._place[kind] = place
        raw = np.flatnonzero((records.kind == _HEADER) & (records.size >= _LEAST[_HEADER]))
        length = gather(self._data, _RAW, records.begin[raw])["length"].astype(np.int64)
        wrong[records.owner[raw[length > records.size[raw] - _LEAST[_HEADER]]]] = True
        bad[self.of[wrong]] = True

    def _with(self, kind: int) -> _Blocks:
        """The records of this kind, the first one of each sample."""
        place = self._place.get(kind)
        return self._record.only(np.zeros(0, np.int64) if place is None else place[place >= 0])

    def packets(self, is_vtep: Callable[[Ints, headers.Octets, Bools], Bools]) -> Packets:
        """The sampled packets: from the captured header, else from what the agent read out of it."""
        raw = self._with(_HEADER)
        fixed = gather(self._data, _RAW, raw.begin)
        starts = raw.begin + _LEAST[_HEADER]
        ends = starts + fixed["length"]
        found = headers.read(self._data, starts, ends, fixed["protocol"].astype(np.int64))
        if len(raw.owner) < len(self.of):
            all_ends = np.zeros(len(self.of), np.int64)
            all_ends[raw.owner] = ends
            found, ends = found.spread(raw.owner, len(self.of)), all_ends
        self._sampled(found)
        self._enter(found, ends, is_vtep)
        switch = self._with(_SWITCH)
        tags = gather(self._data, _SWITCHED, switch.begin)["vlan"].astype(np.int64)
        untagged = (found.vlan[switch.owner] < 0) & _is_vlan(tags)
        found.vlan[switch.owner[untagged]] = tags[untagged]
        for kind in _VNI:
            vni = self._with(kind)
            numbers = gather(self._data, _WORD, vni.begin).astype(np.int64)
            found.vni[vni.owner] = np.where((numbers > 0) & (numbers <= 0xFFFFFF), numbers, found.vni[vni.owner])
        return found

    def _sampled(self, found: Packets) -> None:
        """Records that hold the fields of the IP header instead of the header."""
        for kind, dtype in ((_IPV4, _SAMPLED4), (_IPV6, _SAMPLED6)):
            rows = self._with(kind)
            rows = rows.only(~(found.is4 | found.is6)[rows.owner])
            if len(rows.owner):
                found.fill(rows.owner, gather(self._data, dtype, rows.begin), kind == _IPV6)

    def _enter(self, found: Packets, ends: Ints, is_vtep: Callable[[Ints, headers.Octets, Bools], Bools]) -> None:
        """Go into the tunnels that end at this switch, and into those between tunnel endpoints."""
        tunnels = np.flatnonzero(found.inner >= 0)
        if not len(tunnels):
            return
        ours = np.zeros(len(self.of), np.bool_)
        for kind in _DECAPSULATE:
            ours[self._with(kind).owner] = True
        is6 = found.is6[tunnels]
        between = is_vtep(found.source[tunnels], found.source6[tunnels], is6)
        between &= is_vtep(found.destination[tunnels], found.destination6[tunnels], is6)
        found.enter(self._data, tunnels[ours[tunnels] | between], ends)

    def interfaces(self) -> dict[str, pl.Series]:
        """Interfaces, the rate of sampling, and what became of the packet."""
        entered = (self._in_format == _SINGLE) & (self._in > 0) & (self._in != _INTERNAL)
        left = (self._out_format == _SINGLE) & (self._out > 0) & (self._out != _INTERNAL)
        found = {
            "observer.ingress.interface.id": nullable(self._in, entered),
            "observer.egress.interface.id": nullable(self._out, left),
            "ringfence.flow.sampling": nullable(self._rate, self._rate > 1),
        }
        if (self._reason >= 0).any():
            reasons = [_REASONS.get(reason, str(reason)) if reason >= 0 else None for reason in self._reason.tolist()]
            found["ringfence.flow.reason"] = pl.Series(reasons, dtype=pl.String)
            drops = np.isin(self._reason, _PROHIBITED).astype(np.uint32)
            found["ringfence.flow.action"] = pl.Series([None, "drop"], dtype=pl.String)[pl.Series(drops)]
        return found

    def extended(self) -> dict[str, pl.Series]:
        """What records beside the packet say: the VLAN that it left with, autonomous systems, addresses after NAT."""
        found: dict[str, pl.Series] = {}
        switch = self._with(_SWITCH)
        if len(switch.owner):
            tags = gather(self._data, _SWITCHED, switch.begin)["out_vlan"].astype(np.int64)
            found["observer.egress.vlan.id"] = self._spread(switch.owner, np.where(_is_vlan(tags), tags, -1), np.int32)
        return found | self._systems() | self._rewritten()

    def _systems(self) -> dict[str, pl.Series]:
        """extended_gateway: the source's autonomous system, and the last one of a path of one segment."""
        rows = self._with(_GATEWAY)
        if not len(rows.owner):
            return {}
        kind = gather(self._data, _WORD, rows.begin).astype(np.int64)
        at = rows.begin + 4 + np.select((kind == 1, kind == 2), (4, 16), 0)
        words = gather(self._data, _PATH, at).astype(np.int64)
        end = rows.begin + rows.size
        source = np.where((at + 12 <= end) & (words[:, 1] > 0), words[:, 1], -1)
        last = at + 24 + (words[:, 5] - 1) * 4
        single = (words[:, 3] == 1) & (words[:, 5] > 0) & (last + 4 <= end)
        target = np.full(len(rows.owner), -1, np.int64)
        target[single] = gather(self._data, _WORD, last[single])
        target = np.where(target == 0, -1, target)
        return {
            "source.as.number": self._spread(rows.owner, source),
            "destination.as.number": self._spread(rows.owner, target),
        }

    def _rewritten(self) -> dict[str, pl.Series]:
        """extended_nat and extended_nat_port. What was not rewritten stands there as it was (sflow_version_5.txt)."""
        found: dict[str, pl.Series] = {}
        rows, ports = self._with(_NAT), self._with(_NAT_PORT)
        at, ends = rows.begin, rows.begin + rows.size
        for side in ("source", "destination"):
            if len(rows.owner):
                where = np.minimum(at, ends)
                address = gather(self._data, _ADDRESS, where)
                kind = address["type"].astype(np.int64)
                size = np.select((kind == 1, kind == 2), (4, 16), 0)
                at = where + 4 + size
                known = (size > 0) & (at <= ends)
                found |= self._address(f"{side}.nat", rows.owner[known], address["octets"][known], kind[known] == 2)
            if len(ports.owner):
                numbers = gather(self._data, _PORTS, ports.begin)[side].astype(np.int64)
                found[f"{side}.nat.port"] = self._spread(ports.owner, np.where(numbers <= 0xFFFF, numbers, -1), np.int32)
        return found

    def _address(self, name: str, rows: Ints, octets: headers.Octets, six: Bools) -> dict[str, pl.Series]:
        count = len(self.of)
        all_octets, is6, known = np.zeros((count, 16), np.uint8), np.zeros(count, np.bool_), np.zeros(count, np.bool_)
        all_octets[rows], is6[rows], known[rows] = octets, six, True
        v4 = all_octets.view(">u4")[:, 0].astype(np.int64)
        return address_columns(name, v4, all_octets, is6, known)

    def _spread(self, rows: Ints, values: Ints, dtype: npt.DTypeLike = np.int64) -> pl.Series:
        """A column that has these values in these rows; -1 is null."""
        spread = np.full(len(self.of), -1, np.int64)
        spread[rows] = values
        return nullable(spread, spread >= 0, dtype)


def _is_vlan(tags: Ints) -> Bools:
    result: Bools = (tags > 0) & (tags < 0xFFF)
    return result


def diagnose(datagram: bytes) -> tuple[ProblemCode, str, int]:
    """Say why a datagram cannot be decoded: code, reason, and the byte where what is wrong begins."""
    if len(datagram) < 8:
        return ProblemCode.TRUNCATED, f"datagram has {len(datagram)} bytes, too few for an address type", len(datagram)
    version, kind = struct.unpack_from(">II", datagram)
    if version != VERSION:
        return ProblemCode.UNKNOWN_VERSION, f"datagram is version {version}; accepted: sFlow version 5", 0
    if kind not in _ADDRESS_BYTES:
        return ProblemCode.MALFORMED, f"agent has an address of type {kind}; accepted: 0, 1 (IPv4), 2 (IPv6)", 4
    at = 24 + _ADDRESS_BYTES[kind]
    if len(datagram) < at:
        return ProblemCode.TRUNCATED, f"header has {len(datagram)} of {at} bytes", len(datagram)
    count = int.from_bytes(datagram[at - 4 : at], "big")
    if count > MAX_SAMPLES:
        return ProblemCode.TOO_LARGE, f"header announces {count} samples; accepted: up to {MAX_SAMPLES}", at - 4
    for number in range(1, count + 1):
        where = f"sample {number} of {count}"
        found = _outside(datagram, at, len(datagram), where)
        if found is not None:
            return found
        form, size = struct.unpack_from(">II", datagram, at)
        if form in _FIXED_BYTES:
            found = _diagnose_sample(datagram, form, at + 8, at + 8 + size, where)
            if found is not None:
                return found
        at += 8 + _padded(size)
    return ProblemCode.MALFORMED, "datagram cannot be read", 0


def _outside(datagram: bytes, at: int, end: int, where: str) -> tuple[ProblemCode, str, int] | None:
    """What is wrong when the sample or record that begins here does not fit in what it is part of."""
    if at + 8 > end:
        return ProblemCode.TRUNCATED, f"{where} is not there", min(at, end)
    size = int.from_bytes(datagram[at + 4 : at + 8], "big")
    if at + 8 + size > end:
        return ProblemCode.BAD_LENGTH, f"{where} announces {size} bytes; {end - at - 8} are left", at + 4
    return None


def _diagnose_sample(datagram: bytes, form: int, at: int, end: int, where: str) -> tuple[ProblemCode, str, int] | None:
    fixed = _FIXED_BYTES[form]
    if end - at < fixed:
        return ProblemCode.BAD_LENGTH, f"{where} has {end - at} bytes; its fixed part takes {fixed}", at - 4
    count = int.from_bytes(datagram[at + fixed - 4 : at + fixed], "big")
    if count > MAX_RECORDS:
        detail = f"{where} announces {count} records; accepted: up to {MAX_RECORDS}"
        return ProblemCode.TOO_LARGE, detail, at + fixed - 4
    at += fixed
    for number in range(1, count + 1):
        which = f"record {number} of {count} in {where}"
        found = _outside(datagram, at, end, which)
        if found is not None:
            return found
        kind, size = struct.unpack_from(">II", datagram, at)
        least = _LEAST.get(kind, 0)
        if size < least:
            return ProblemCode.BAD_LENGTH, f"{which} has {size} bytes; format {kind} takes at least {least}", at + 4
        if kind == _HEADER and (length := int.from_bytes(datagram[at + 20 : at + 24], "big")) > size - least:
            return ProblemCode.BAD_LENGTH, f"{which} announces a header of {length} bytes; {size - least} are left", at + 20
        at += 8 + _padded(size)
    return None


def _problem(frames: Frames, row: int) -> Problem:
    raw, source = frames.frame(row), frames.sources[int(frames.source[row])]
    code, detail, offset = diagnose(raw)
    return Problem(code, detail, row, offset, raw=raw, source=source, position=int(frames.positions[row]))


class SflowConfig(BaseModel):
    """Receives sFlow version 5 datagrams."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, listen_option(DEFAULT_PORT)] = Field(
        default=f"udp://127.0.0.1:{DEFAULT_PORT}", validate_default=True, description="Address and UDP port to receive on."
    )
    exporters: tuple[PrefixOption, ...] = Field(
        default=(), description="Prefixes of the senders to listen to; datagrams of others are dead-lettered. Empty: all."
    )
    vteps: tuple[PrefixOption, ...] = Field(
        default=(),
        description="Prefixes of tunnel endpoints: of VXLAN and GENEVE between them the inner packet is judged. Empty: none.",
    )


def recognise(start: bytes) -> bool:
    """True when a file that starts so holds sFlow version 5 datagrams."""
    if len(start) < 24 or start[:4] != b"\0\0\0\5":
        return False
    kind = int.from_bytes(start[4:8], "big")
    count = start[20 + _ADDRESS_BYTES.get(kind, 0) : 24 + _ADDRESS_BYTES.get(kind, 0)]
    return kind in _ADDRESS_BYTES and int.from_bytes(count, "big") <= MAX_SAMPLES


def _decoder(year: int) -> Decoder:
    return SflowDecoder()


class SflowKind:
    """The collector kind `sflow`."""

    settings: type[BaseModel] = SflowConfig
    promise = "every datagram that the kernel hands over; its drops and sequence gaps are counted"
    status: Status = "experimental"
    sample = 'fabric: {type: sflow, listen: "0.0.0.0:6343"}'
    formats: Sequence[Format] = (
        Format("sflow", "sFlow version 5 datagrams, one after the other", SflowFramer, _decoder, recognise, "sflow"),
    )

    def build(self, settings: SflowConfig, context: BuildContext) -> Collector:
        """Make the collector; touches neither network nor disk."""
        host, port = endpoint(settings.listen, DEFAULT_PORT)
        decoder = SflowDecoder(settings.exporters, settings.vteps)
        return Collector("sflow", UdpShell(host, port, RECEIVE_BUFFER_BYTES), decoder)

    def resources(self, settings: SflowConfig) -> Sequence[str]:
        """The UDP port."""
        return [resource(*endpoint(settings.listen, DEFAULT_PORT))]


KIND = SflowKind()
