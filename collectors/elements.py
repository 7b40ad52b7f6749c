"""What the fields of NetFlow v9 and IPFIX records mean: information elements to our columns, many records at once.

Spec: IANA registry "IP Flow Information Export (IPFIX) Entities"; RFC 7011 6.1 (encodings), 6.2 (reduced sizes); RFC 5103
(reverse elements, enterprise 29305); RFC 3954 8 (field types of version 9, of which 1 to 127 are the same elements).
Elements without a column are skipped by their length, as are fields of variable length and of other enterprises.

Readings that need saying:
- OUT_BYTES and OUT_PKTS (23, 24) beside IN_BYTES and IN_PKTS are, in version 9, the other direction; zero means "not counted",
  since FreeBSD's ng_netflow always sends zero. Without the IN fields they are the flow's own. In IPFIX they count the same
  packets once more, after the exporter.
- An all-zero address of NAT, a VLAN id 0, an AS number 0 and a time 0 are absent.
- ICMP type and code stand in the destination port where a template has no elements for them, except in that of pflow(4).
- A flow is dropped when firewallEvent (233, of ASA's NSEL also 40005) is 3 or forwardingStatus (89) is 128 to 191.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from collectors import pflow
from ringfence.addresses import MAPPED_PREFIX
from ringfence.timestamps import END_S

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Void = npt.NDArray[np.void]

VARIABLE = 0xFFFF  # RFC 7011 7: the length of a field whose length stands before each value
SCOPE = -1  # stands for the enterprise of a version 9 scope field, whose types are no elements
REVERSE = 29305  # RFC 5103 6.1
SKEW_MS = 60_000  # how far a flow may end after its datagram was made, before that reads as a wrap of 49.7 days
MAX_LAYOUTS = 10_000

ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132  # IANA protocol numbers
_MAPPED = int.from_bytes(MAPPED_PREFIX[8:], "big")
_LAST_S = END_S - 1
_NTP_EPOCH_S = 2_208_988_800
_NTP_ERA_S = 1 << 32
_VXLAN = 1  # IANA 351: the first octet of layer2SegmentId
_ASA = {40001: 225, 40002: 226, 40003: 227, 40004: 228, 40005: 233}  # Cisco ASA, before it used the IANA numbers

_ADDRESSES = {"source": (8, 27), "destination": (12, 28)}
_PORTS = {"source": (7, 180, 182), "destination": (11, 181, 183)}
_NAT = {"source": (225, 281, 227), "destination": (226, 282, 228)}
_NUMBERS: Mapping[str, tuple[int, ...]] = {
    "observer.ingress.interface.id": (10,),
    "observer.egress.interface.id": (14,),
    "ringfence.flow.tos": (5,),
    "ringfence.flow.ingress_vrf": (234,),
    "ringfence.flow.egress_vrf": (235,),
}
_REASONS = (None, "idle-timeout", "active-timeout", "end-detected", "forced", "lack-of-resources")  # IANA 136
_DIRECTIONS = ("ingress", "egress")  # IANA 61
_ACTIONS = (None, "accept", "drop")
_BY_EVENT = np.array([0, 1, 1, 2, 0, 1], np.int8)  # IANA 233: ignore, created, deleted, denied, alert, update
_BY_STATUS = np.array([0, 1, 2, 0], np.int8)  # IANA 89, upper two bits: unknown, forwarded, dropped, consumed
_SAMPLER, _INIT = (302, 48), 160
_RATES = (34, 50, 305, 306, 309, 310)


class Field(NamedTuple):
    """One field of a template."""

    element: int
    length: int
    enterprise: int = 0


class Part(NamedTuple):
    """Where a field stands in the fixed parts of a record."""

    offset: int
    length: int


class Layout:
    """What the records of a template look like; equal templates share one."""

    def __init__(self, fields: Sequence[Field], v9: bool) -> None:
        self.v9 = v9
        self.runs = _runs(fields)
        self.size = sum(self.runs)
        self.is_variable = len(self.runs) > 1
        self.shortest = self.size + len(self.runs) - 1
        self.parts = _parts(fields, v9)
        names = [f"{enterprise}.{element}" for enterprise, element in self.parts]
        formats = [
            f">u{part.length}" if part.length in (1, 2, 4, 8) else ("u1", (part.length,)) for part in self.parts.values()
        ]
        offsets = [part.offset for part in self.parts.values()]
        self.dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.size})
        self.is_pflow = not v9 and tuple((field.element, field.length) for field in fields) in pflow.TEMPLATES
        self.is_flow = any((0, element) in self.parts for pair in _ADDRESSES.values() for element in pair)
        self.has_sampler = any((0, element) in self.parts for element in _SAMPLER)
        self.has_options = any((0, element) in self.parts for element in (*_RATES, _INIT))


@lru_cache(MAX_LAYOUTS)
def layout_of(fields: tuple[Field, ...], v9: bool) -> Layout:
    """The layout of these fields."""
    return Layout(fields, v9)


def _runs(fields: Sequence[Field]) -> list[int]:
    """Bytes of fixed length before, between and after the fields of variable length."""
    runs = [0]
    for field in fields:
        if field.length == VARIABLE:
            runs.append(0)
        else:
            runs[-1] += field.length
    return runs


def _parts(fields: Sequence[Field], v9: bool) -> dict[tuple[int, int], Part]:
    """The fields that can be read, by enterprise and element; of a repeated one the first."""
    parts: dict[tuple[int, int], Part] = {}
    offset = 0
    for field in fields:
        if field.length == VARIABLE:
            continue
        element = _ASA.get(field.element, field.element) if v9 else field.element
        if field.enterprise in (0, REVERSE) and 0 < field.length <= 16:
            parts.setdefault((field.enterprise, element), Part(offset, field.length))
        offset += field.length
    return parts


@dataclass(frozen=True, slots=True)
class Made:
    """What is known of each record beside its fields: when its message was made, uptime then, rate of its sampler.

    `uptime_ms` is the exporter's uptime as it made the message, modulo 2^32, and -1 where it is not known.
    """

    made_us: Ints
    uptime_ms: Ints
    sampling: Ints


class _Fields:
    """Columns of numbers out of an array of records."""

    def __init__(self, layout: Layout, records: Void) -> None:
        self._parts = layout.parts
        self._records = records
        self.v9 = layout.v9
        self.is_pflow = layout.is_pflow

    def __len__(self) -> int:
        return len(self._records)

    def has(self, *elements: int, enterprise: int = 0) -> bool:
        """True when there is one of these as a number."""
        return any(
            (enterprise, element) in self._parts and self._parts[enterprise, element].length <= 8 for element in elements
        )

    def number(self, *elements: int, enterprise: int = 0) -> Ints | None:
        """The first of these that the template has; more than 2^63 - 1 reads as that."""
        for element in elements:
            part = self._parts.get((enterprise, element))
            if part is not None and part.length <= 8:
                return _integers(self._records[f"{enterprise}.{element}"], part.length)
        return None

    def octets(self, element: int, length: int) -> npt.NDArray[np.uint8] | None:
        """A field of exactly this many bytes, one row a record."""
        part = self._parts.get((0, element))
        return None if part is None or part.length != length else np.ascontiguousarray(self._records[f"0.{element}"])

    def address(self, element: int) -> Ints | None:
        """An IPv4 address."""
        part = self._parts.get((0, element))
        return self.number(element) if part is not None and part.length == 4 else None

    def wide(self, element: int) -> npt.NDArray[np.uint64] | None:
        """A field of 8 bytes, all of its bits."""
        part = self._parts.get((0, element))
        return None if part is None or part.length != 8 else self._records[f"0.{element}"].astype(np.uint64)


def _integers(values: npt.NDArray[Any], length: int) -> Ints:
    if length in (1, 2, 4):
        return values.astype(np.int64)
    if length == 8:
        return np.minimum(values.astype(np.uint64), np.uint64((1 << 63) - 1)).astype(np.int64)
    shifts = np.arange(8 * (length - 1), -1, -8, dtype=np.int64)
    joined: Ints = (values.astype(np.int64) << shifts).sum(axis=1)
    return joined


def columns(layout: Layout, records: Void, made: Made) -> dict[str, Any]:
    """The flow columns of these records."""
    fields = _Fields(layout, records)
    protocol = fields.number(4)
    found: dict[str, Any] = {"ringfence.flow.sampling": _sampling(fields, made)}
    for side in _ADDRESSES:
        found |= _address(fields, side, *_ADDRESSES[side])
        found |= _port(fields, f"{side}.port", _PORTS[side], _ported(protocol))
        found |= _nat(fields, side, *_NAT[side])
        found |= _present(fields, f"{side}.as.number", (16,) if side == "source" else (17,))
    if protocol is not None:
        found["network.iana_number"] = nullable(protocol, protocol <= 0xFF, np.uint8)
    for name, elements in _NUMBERS.items():
        found |= _number(fields, name, elements)
    return (
        found
        | _times(fields, made)
        | _counts(fields)
        | _flags(fields, protocol)
        | _icmp(fields, protocol)
        | _tags(fields)
        | _fate(fields)
    )


def sampler_ids(layout: Layout, records: Void) -> Ints | None:
    """The sampler that each record names."""
    return _Fields(layout, records).number(*_SAMPLER)


@dataclass(frozen=True, slots=True)
class Option:
    """What a record of options says: one packet in `rate` is sampled (by `sampler`), the exporter booted at `init_ms`."""

    sampler: int | None
    rate: int | None
    init_ms: int | None


def option(layout: Layout, record: bytes) -> Option:
    """Read one record of options."""
    found = {
        element: int.from_bytes(record[part.offset : part.offset + part.length], "big")
        for (enterprise, element), part in layout.parts.items()
        if enterprise == 0 and part.length <= 8
    }
    sampler = next((found[element] for element in _SAMPLER if element in found), None)
    init_ms = found.get(_INIT, 0)
    return Option(sampler, _rate(found), init_ms if 0 < init_ms <= _LAST_S * 1000 else None)


def _rate(found: Mapping[int, int]) -> int | None:
    """One packet in this many: by interval and space, by size and population, or as it is."""
    for part, rest in ((305, 306), (309, 310)):
        if found.get(part) and rest in found:
            whole = found[part] + found[rest] if part == 305 else found[rest]
            return max(1, round(whole / found[part]))
    rate = next((found[element] for element in (34, 50) if found.get(element)), found.get(305))
    return min(rate, (1 << 63) - 1) if rate else None


def _sampling(fields: _Fields, made: Made) -> pl.Series:
    rate = made.sampling
    interval, space = fields.number(305), fields.number(306)
    if interval is not None and space is not None:
        rate = np.where(interval > 0, (interval + space) // np.maximum(interval, 1), rate)
    else:
        own = fields.number(34, 50)
        rate = rate if own is None else np.where(own > 0, own, rate)
    return nullable(rate, rate > 1)


def _address(fields: _Fields, name: str, four: int, six: int) -> dict[str, pl.Series]:
    """An address. Where a template has both, the one that is not zero."""
    v4, octets = fields.address(four), fields.octets(six, 16)
    if octets is None:
        return {} if v4 is None else {f"{name}.ip": pl.Series(v4.astype(np.uint32))}
    every = np.ones(len(octets), np.bool_)
    is6 = every if v4 is None else (v4 == 0) & octets.any(axis=1)
    return address_columns(name, v4, octets, is6, every)


def address_columns(
    name: str, v4: Ints | None, octets: npt.NDArray[np.uint8], is6: Bools, known: Bools
) -> dict[str, pl.Series]:
    """The columns of an address that is of either kind. IPv4-mapped ones count as IPv4."""
    words = octets.view(">u4")
    mapped = is6 & (octets.view(">u8")[:, 0] == 0) & (words[:, 2] == _MAPPED)
    is6 = is6 & ~mapped
    found = {f"{name}.ip6": _only(_binary(octets), is6)}
    if v4 is not None or mapped.any():
        other = 0 if v4 is None else v4
        found[f"{name}.ip"] = nullable(np.where(mapped, words[:, 3], other), known & ~is6, np.uint32)
    return found


def _nat(fields: _Fields, side: str, four: int, six: int, port: int) -> dict[str, pl.Series]:
    found = {}
    v4, octets = fields.address(four), fields.octets(six, 16)
    if v4 is not None:
        found[f"{side}.nat.ip"] = nullable(v4, v4 != 0, np.uint32)
    if octets is not None:
        found[f"{side}.nat.ip6"] = _only(_binary(octets), _is(octets.any(axis=1)))
    return found | _present(fields, f"{side}.nat.port", (port,), np.int32, 0xFFFF)


def _is(condition: Any) -> Bools:
    """numpy types reductions as one value or many."""
    mask: Bools = condition
    return mask


def _binary(octets: npt.NDArray[np.uint8]) -> pl.Series:
    return pl.Series(octets).cast(pl.List(pl.UInt8)).cast(pl.Binary)


def _ported(protocol: Ints | None) -> Bools | None:
    return None if protocol is None else (protocol == TCP) | (protocol == UDP) | (protocol == SCTP)


def _port(fields: _Fields, name: str, elements: tuple[int, ...], ported: Bools | None) -> dict[str, pl.Series]:
    port = fields.number(*elements)
    if port is None:
        return {}
    known = port <= 0xFFFF
    return {name: nullable(port, known if ported is None else known & ported, np.int32)}


_LIMITS = {
    "ringfence.flow.tos": (np.uint8, 0xFF),
    "ringfence.flow.ingress_vrf": (np.uint32, 0xFFFFFFFF),
    "ringfence.flow.egress_vrf": (np.uint32, 0xFFFFFFFF),
}


def _number(fields: _Fields, name: str, elements: tuple[int, ...]) -> dict[str, pl.Series]:
    values = fields.number(*elements)
    if values is None:
        return {}
    dtype, limit = _LIMITS.get(name, (np.int64, (1 << 63) - 1))
    return {name: nullable(values, values <= limit, dtype)}


def _present(
    fields: _Fields, name: str, elements: tuple[int, ...], dtype: npt.DTypeLike = np.int64, limit: int = (1 << 63) - 1
) -> dict[str, pl.Series]:
    """A number that is absent where it is 0."""
    values = fields.number(*elements)
    return {} if values is None else {name: nullable(values, (values > 0) & (values <= limit), dtype)}


def _counts(fields: _Fields) -> dict[str, pl.Series]:
    """Packets and bytes of both directions; a reverse element of 0 says that nothing came back."""
    found = {}
    for unit, own, post, responder in (("packets", (2, 86, 298), 24, 299), ("bytes", (1, 85, 231), 23, 232)):
        forth, back = fields.number(*own, post), fields.number(*own[:2], enterprise=REVERSE)
        if forth is not None:
            found[f"source.{unit}"] = pl.Series(forth)
        back = fields.number(responder) if back is None else back
        if back is not None:
            found[f"destination.{unit}"] = pl.Series(back)
        elif fields.v9 and fields.has(*own) and (out := fields.number(post)) is not None:
            found[f"destination.{unit}"] = nullable(out, out > 0)
    return found


def _flags(fields: _Fields, protocol: Ints | None) -> dict[str, pl.Series]:
    found = {}
    for side, enterprise in (("source", 0), ("destination", REVERSE)):
        flags = fields.number(6, enterprise=enterprise)
        if flags is not None:
            known = np.ones(len(flags), np.bool_) if protocol is None else protocol == TCP
            found[f"ringfence.tcp.{side}_flags"] = nullable(flags & 0xFF, known, np.uint8)
    return found


def _icmp(fields: _Fields, protocol: Ints | None) -> dict[str, pl.Series]:
    """Type and code: from elements of their own, joined in one, or where version 5 has them, in the destination port."""
    if protocol is None or fields.is_pflow:
        return {}
    four, six = protocol == ICMP, protocol == ICMP6
    joined = fields.number(11) if fields.has(11) else np.zeros(len(protocol), np.int64)
    known = four | six if fields.has(11) else np.zeros(len(protocol), np.bool_)
    joined = np.zeros(len(protocol), np.int64) if joined is None else joined
    for element, rows in ((32, four), (139, six)):
        both = fields.number(element)
        if both is not None:
            joined, known = np.where(rows, both, joined), known | rows
    kind, code = joined >> 8 & 0xFF, joined & 0xFF
    for types, codes, rows in ((176, 177, four), (178, 179, six)):
        own, detail = fields.number(types), fields.number(codes)
        if own is not None:
            kind, known = np.where(rows, own & 0xFF, kind), known | rows
            code = code if detail is None else np.where(rows, detail & 0xFF, code)
    return {"ringfence.icmp.type": nullable(kind, known, np.uint8), "ringfence.icmp.code": nullable(code, known, np.uint8)}


def _tags(fields: _Fields) -> dict[str, pl.Series]:
    """VLAN ids, VXLAN identifier, MPLS label."""
    found: dict[str, pl.Series] = {}
    for name, elements in (
        ("network.vlan.id", (243, 58)),
        ("network.inner.vlan.id", (245,)),
        ("observer.egress.vlan.id", (254, 59)),
    ):
        found |= _present(fields, name, elements, np.int32, 0xFFF)
    segment = fields.wide(351)
    if segment is not None:
        kind = segment >> np.uint64(56)
        vni = (segment & np.uint64(0xFFFFFF)).astype(np.int64)
        found["ringfence.vxlan.vni"] = nullable(vni, (kind <= _VXLAN) & (segment != 0), np.int32)
    stack = fields.number(70)
    if stack is not None:
        found["ringfence.mpls.label"] = nullable(stack >> 4 & 0xFFFFF, stack != 0)
    return found


def _fate(fields: _Fields) -> dict[str, pl.Series]:
    """What became of the flow, which way it was metered, why it ended."""
    found: dict[str, pl.Series] = {}
    event, status = fields.number(233), fields.number(89)
    if event is not None or status is not None:
        action = np.zeros(len(fields), np.int8)
        if event is not None:
            action = _BY_EVENT[np.where(event < len(_BY_EVENT), event, 0)]
        if status is not None:
            action = np.maximum(action, _BY_STATUS[(status & 0xFF) >> 6])
        found["ringfence.flow.action"] = _words(_ACTIONS, action)
    for name, element, words in (("ringfence.flow.direction", 61, _DIRECTIONS), ("ringfence.flow.reason", 136, _REASONS)):
        index = fields.number(element)
        if index is not None:
            found[name] = _words((*words, None), np.minimum(index, len(words)))
    return found


def _words(words: tuple[str | None, ...], index: npt.NDArray[Any]) -> pl.Series:
    return pl.Series(words, dtype=pl.String)[pl.Series(index.astype(np.uint32))]


class _Moment(NamedTuple):
    """Microseconds since the epoch, and the records in which they are known."""

    at_us: Ints
    known: Bools


def _times(fields: _Fields, made: Made) -> dict[str, Any]:
    start = _moment(fields, made, 22, 150, 152, 154, 156, 158)
    end = _moment(fields, made, 21, 151, 153, 155, 157, 159)
    seen = _moment(fields, made, None, 322, 323, 324, 325, None)
    at_us = made.made_us
    for moment in (start, seen, end):
        if moment is not None:
            at_us = np.where(moment.known, moment.at_us, at_us)
    found: dict[str, Any] = {"@timestamp": at_us}
    for name, moment in (("event.start", start), ("event.end", end)):
        if moment is not None:
            found[name] = nullable(moment.at_us, moment.known)
    return found


def _moment(
    fields: _Fields, made: Made, uptime: int | None, seconds: int, millis: int, micros: int, nanos: int, delta: int | None
) -> _Moment | None:
    """The finest of the clocks that a template has for one moment."""
    for element in (nanos, micros):
        wide = fields.wide(element)
        if wide is not None:
            return _ntp(wide)
    for element, unit_us in ((millis, 1000), (seconds, 1_000_000)):
        count = fields.number(element)
        if count is not None:
            known = (count > 0) & (count <= _LAST_S * (1_000_000 // unit_us))
            return _Moment(np.where(known, count, 0) * unit_us, known)
    before = None if delta is None else fields.number(delta)
    if before is not None:
        return _Moment(made.made_us - np.minimum(before, 0xFFFFFFFF), np.ones(len(before), np.bool_))
    at_ms = None if uptime is None else fields.number(uptime)
    if at_ms is None:
        return None
    up_ms, known = made.uptime_ms, made.uptime_ms >= 0
    init_ms = fields.number(_INIT)
    if init_ms is not None:
        known = (init_ms > 0) & (init_ms <= _LAST_S * 1000)
        up_ms = np.where(known, made.made_us // 1000 - np.where(known, init_ms, 0), 0) & 0xFFFFFFFF
    age = age_ms(up_ms.astype(np.uint32), (at_ms & 0xFFFFFFFF).astype(np.uint32))
    return _Moment(made.made_us - age * 1000, known)


def _ntp(stamp: npt.NDArray[np.uint64]) -> _Moment:
    """RFC 7011 6.1.9: seconds since 1900 and their fraction; those before 1968 are of the era that begins in 2036."""
    seconds = (stamp >> np.uint64(32)).astype(np.int64)
    seconds += np.where(seconds < 1 << 31, _NTP_ERA_S, 0) - _NTP_EPOCH_S
    fraction = (stamp & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return _Moment(seconds * 1_000_000 + (fraction * 1_000_000 + (1 << 31) >> 32), stamp != 0)


def age_ms(uptime: npt.NDArray[np.uint32], moment: npt.NDArray[Any]) -> Ints:
    """How long before the datagram this was. Uptime wraps at 2^32 ms; a moment up to SKEW_MS ahead is in the future."""
    age = (uptime - moment.astype(np.uint32)).astype(np.int64)
    return np.where(age >= (1 << 32) - SKEW_MS, age - (1 << 32), age)


def gather(data: bytes, dtype: np.dtype[Any], at: Ints) -> npt.NDArray[Any]:
    """Copy one item from each of these unaligned places; what lies beyond the data reads as zeroes."""
    size = dtype.itemsize
    if len(at) and int(at.max()) + size > len(data):
        data += bytes(size)
    raw = np.ndarray((max(len(data) - size + 1, 0),), f"V{size}", data, strides=(1,))
    items: npt.NDArray[Any] = raw[at].view(dtype)
    return items


def nullable(values: npt.NDArray[Any], known: Bools, dtype: npt.DTypeLike | None = None) -> pl.Series:
    """A column in native byte order that is null where the value is not known."""
    column = pl.Series(np.ascontiguousarray(values, dtype))
    return column if known.all() else _only(column, known)


def _only(column: pl.Series, known: Bools) -> pl.Series:
    return column.zip_with(pl.Series(known), _null(column.dtype))


@cache
def _null(dtype: pl.DataType) -> pl.Series:
    return pl.Series([None], dtype=dtype)
