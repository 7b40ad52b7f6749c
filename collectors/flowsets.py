"""What NetFlow v9 and IPFIX share: messages made of sets, whose templates come in sets of their own, before or after.

Spec: RFC 7011 3 and 8, RFC 3954 5. `collectors/netflow_v9.py` and `collectors/ipfix.py` say how a header and a template look
and what a sequence number counts.

One pass looks at every set of a block in order of arrival, so each meets the templates of its moment; then all records of one
layout are decoded together, whoever sent them. Records of variable length are cut one by one first. The place of a
record is its first byte, so its event id does not depend on when its template came.

A datagram whose sets do not fit into it is rejected whole. Otherwise every set that can be read is read; a datagram of which
one cannot becomes a Problem as well, beside the rows of the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl

from collectors.elements import VARIABLE, Field, Ints, Layout, Made, columns, gather, nullable, option, sampler_ids
from collectors.sequences import Sequences
from collectors.templates import MAX_FIELDS, MAX_RECORD_BYTES, Domain, Exporter, Held, Template, TemplateStore
from ringfence.batch import Decoded, EventClass, Frames, Problem, ProblemCode, Source
from ringfence.schema import build_frame, together

FIRST_DATA_SET = 256  # RFC 7011 3.3.2
WIDEST_DATAGRAM = 100  # records; larger ones are learnt
MAX_BLOCK_LAYOUTS = 128  # of one block: each costs as much as hundreds of records, and a datagram has room for thousands
_SET_HEADER_BYTES = 4


class Refused(Exception):
    """Inside a decoder only: why a datagram, or a set of it, cannot be read, and the byte where."""

    def __init__(self, code: ProblemCode, detail: str, offset: int) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.offset = offset


class Header(NamedTuple):
    """What both protocols have in their headers. `uptime_ms` is -1 and `booted_ms` 0 where the header does not tell."""

    domain: int
    sequence: int
    seconds: int
    uptime_ms: int = -1
    booted_ms: int = 0


class Announced(NamedTuple):
    """One record of a template set: a template, or with `fields` None the withdrawal of one (of all: `number` is 2 or 3)."""

    number: int
    fields: tuple[Field, ...] | None
    scopes: int


class Wire(Protocol):
    """How one of the protocols differs from the other."""

    v9: bool
    header_bytes: int
    template_set: int
    options_set: int

    def header(self, data: bytes, start: int, end: int) -> Header:
        """Read a header. Raises Refused."""
        ...

    def templates(self, data: bytes, begin: int, end: int, is_options: bool) -> Sequence[Announced]:
        """Read the body of a template set; offsets in Refused count from the start of `data`."""
        ...

    def advance(self, records: int | None) -> int | None:
        """How far a message with this many data records moves the sequence number."""
        ...


class _Said(NamedTuple):
    """What options had said about a domain when a set of it came."""

    rate: int
    init_ms: int
    samplers: Mapping[int, int]


_NOTHING = _Said(0, 0, {})


@dataclass(slots=True)
class _Group:
    """Sets of one layout: of each its message, where its records begin, how many they are, and what options said by then."""

    message: list[int] = field(default_factory=list)
    begin: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    domain: list[_Said] = field(default_factory=list)
    compact: list[bytes] = field(default_factory=list)


class _Message(NamedTuple):
    """A message on the way: its number, its bytes in `data`, and how far those stand behind their place in the block."""

    number: int
    data: bytes
    shift: int


class SetDecoder:
    """Decodes the messages of many exporters. `observer.name` is the exporter's address, or the file's path."""

    def __init__(self, wire: Wire) -> None:
        self.store = TemplateStore(wire.v9)
        self._wire = wire
        self._sequences = Sequences(1 if wire.v9 else WIDEST_DATAGRAM)

    @property
    def sequence_gaps(self) -> Mapping[str, int]:
        """What each remembered exporter sent and that never came, in units of the protocol's sequence number."""
        return self._sequences.lost

    def snapshot(self) -> bytes:
        """Templates and sampling."""
        return self.store.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew."""
        self.store.restore(state)

    def feed(self, frames: Frames) -> Decoded:
        """Decode every message; what waits for a template is held."""
        return _Block(self._wire, self.store, self._sequences, frames).decoded()


class _Block:
    """One block on its way through the decoder."""

    def __init__(self, wire: Wire, store: TemplateStore, sequences: Sequences, frames: Frames) -> None:
        self._wire = wire
        self._store = store
        self._sequences = sequences
        self._frames = frames
        self._groups: dict[Layout, _Group] = {}
        self._problems: list[Problem] = []
        self._taken = 0
        self._seconds = [0] * len(frames)
        self._uptime_ms = [-1] * len(frames)
        self._released: dict[int, _Message] = {}
        self._late: list[tuple[Held, Exporter, Header]] = []
        self._tail: list[bytes] = []
        self._end = len(frames.data)

    def decoded(self) -> Decoded:
        """Everything that came out."""
        frames, store = self._frames, self._store
        received = frames.received_us.tolist()
        for _ in range(store.lost_held):
            detail = "waited for its template when the process before this one ended"
            self._problems.append(Problem(ProblemCode.NO_TEMPLATE, detail))
        store.lost_held = 0
        if received:
            store.age(max(received))
        self._sequences.begin(len(frames))
        bounds, sources = frames.offsets.tolist(), frames.source.tolist()
        held: list[tuple[int, Held]] = []
        for row, source in enumerate(sources):
            self._datagram(row, bounds[row], bounds[row + 1], frames.sources[source], received[row], held)
        for row, waits in held:
            waits.lossy = bool(self._sequences.after_gap[row]) or sources[row] in frames.lossy
        self._problems += [_given_up(waits) for waits in store.take_given_up()]
        rows = self._rows()
        return Decoded({EventClass.FLOW: rows} if rows is not None else {}, self._taken, self._problems, held=store.held)

    def _datagram(self, row: int, start: int, end: int, source: Source, now_us: int, held: list[tuple[int, Held]]) -> None:
        data = self._frames.data
        try:
            header = self._wire.header(data, start, end)
            sets = _sets(data, start, start + self._wire.header_bytes, end)
        except Refused as refusal:
            self._problems.append(_problem(self._frames, row, refusal))
            return
        self._seconds[row], self._uptime_ms[row] = header.seconds, header.uptime_ms
        exporter = self._store.exporter(source.name)
        message = _Message(row, data, 0)
        waiting: dict[int, list[tuple[int, int]]] = {}
        problem: Refused | None = None
        records = 0
        for number, begin, stop in sets:
            try:
                if number >= FIRST_DATA_SET:
                    template = self._store.find(exporter, header.domain, number, now_us)
                    if template is None:
                        waiting.setdefault(number, []).append((begin - start, stop - start))
                    else:
                        records += self._data(message, exporter, header.domain, template, begin, stop, start)
                elif number in (self._wire.template_set, self._wire.options_set):
                    self._learn(exporter, header, number == self._wire.options_set, begin, stop, start, now_us)
            except Refused as refusal:
                problem = problem or refusal
        known = None if waiting or problem else records
        key = (source.identity, source.name, header.domain)
        self._sequences.take(key, row, header.sequence, self._wire.advance(known), header.booted_ms)
        if problem:
            self._problems.append(_problem(self._frames, row, problem))
        elif waiting:
            position = int(self._frames.positions[row])
            waits = Held(data[start:end], source, position, now_us, header.domain, waiting)
            held.append((row, waits))
            self._store.hold(exporter, waits)
        else:
            self._taken += 1

    def _learn(
        self, exporter: Exporter, header: Header, is_options: bool, begin: int, end: int, start: int, now_us: int
    ) -> None:
        store, data = self._store, self._frames.data
        try:
            announced = self._wire.templates(data, begin, end, is_options)
            for template in announced:
                if template.fields is not None:
                    check(template, begin)
        except Refused as refusal:
            raise Refused(refusal.code, refusal.detail, refusal.offset - start) from None
        for number, fields, scopes in announced:
            if fields is not None:
                for held, first, last in store.learn(exporter, header.domain, number, fields, scopes, now_us):
                    self._late_set(exporter, held, header.domain, number, first, last, now_us)
            elif number < FIRST_DATA_SET:
                store.withdraw_all(exporter, header.domain, is_options)
            else:
                store.withdraw(exporter, header.domain, number)

    def _late_set(self, exporter: Exporter, held: Held, domain: int, number: int, begin: int, end: int, now_us: int) -> None:
        """Decode a set that waited: its message joins the block, behind those that arrived in it."""
        message = self._released.get(id(held))
        if message is None:
            header = self._wire.header(held.raw, 0, len(held.raw))
            message = _Message(len(self._frames) + len(self._late), held.raw, self._end)
            self._released[id(held)] = message
            self._late.append((held, exporter, header))
            self._tail.append(held.raw)
            self._end += len(held.raw)
        template = self._store.find(exporter, domain, number, now_us)
        try:
            if template is not None:
                self._data(message, exporter, domain, template, begin, end, 0)
        except Refused as refusal:
            held.broken = held.broken or (refusal.code, refusal.detail, refusal.offset)
        if self._store.finished(exporter, held):
            if held.broken is None:
                self._taken += 1
            else:
                code, detail, offset = held.broken
                self._problems.append(
                    Problem(code, detail, None, offset, raw=held.raw, source=held.source, position=held.position)
                )

    def _data(
        self, message: _Message, exporter: Exporter, domain: int, template: Template, begin: int, end: int, start: int
    ) -> int:
        """Take the records of one set; returns how many there are."""
        layout = template.layout
        if layout.is_variable or template.scopes:
            return self._one_by_one(message, exporter, domain, template, begin, end, start)
        count = (end - begin) // layout.size
        if not count:
            detail = f"set has {end - begin} bytes, too few for a record of {layout.size}"
            raise Refused(ProblemCode.BAD_LENGTH, detail, begin - start)
        if layout.is_flow:
            group = self._group(layout, begin - start)
            group.message.append(message.number)
            group.begin.append(begin + message.shift)
            group.count.append(count)
            group.domain.append(_said(exporter.domains.get(domain)))
        return count

    def _one_by_one(
        self, message: _Message, exporter: Exporter, domain: int, template: Template, begin: int, end: int, start: int
    ) -> int:
        """Records of variable length, and options, which are state and make no rows."""
        layout, data = template.layout, message.data
        count, position = 0, begin
        while end - position >= layout.shortest:
            record, after = _cut(layout, data, position, end, start)
            count += 1
            if template.scopes:
                if layout.has_options:
                    self._store.note(exporter, domain, option(layout, record))
            elif layout.is_flow:
                group = self._group(layout, position - start)
                group.message.append(message.number)
                group.begin.append(position + message.shift)
                group.count.append(1)
                group.domain.append(_said(exporter.domains.get(domain)))
                group.compact.append(record)
            position = after
        if not count:
            detail = f"set has {end - begin} bytes, too few for a record of at least {layout.shortest}"
            raise Refused(ProblemCode.BAD_LENGTH, detail, begin - start)
        return count

    def _group(self, layout: Layout, offset: int) -> _Group:
        group = self._groups.get(layout)
        if group is None:
            if len(self._groups) >= MAX_BLOCK_LAYOUTS:
                detail = f"records of more than {MAX_BLOCK_LAYOUTS} layouts came at once"
                raise Refused(ProblemCode.TOO_LARGE, detail, offset)
            group = self._groups[layout] = _Group()
        return group

    def _rows(self) -> pl.DataFrame | None:
        """All records, layout by layout."""
        if not self._groups:
            return None
        data = b"".join((self._frames.data, *self._tail)) if self._tail else self._frames.data
        origin = self._origin()
        return together([_frame(layout, group, data, origin) for layout, group in self._groups.items()])

    def _origin(self) -> _Origin:
        """What the records of each message share: those of this block, then those that waited."""
        frames, late = self._frames, [held for held, _, _ in self._late]
        headers = [header for _, _, header in self._late]
        lossy = self._sequences.after_gap | np.isin(frames.source, list(frames.lossy))
        starts = np.cumsum([len(frames.data), *(len(held.raw) for held in late)])[:-1]
        return _Origin(
            names=pl.Series(
                [*(source.name for source in frames.sources), *(held.source.name for held in late)], dtype=pl.String
            ),
            identities=np.array([source.identity for source in (*frames.sources, *(held.source for held in late))], np.uint64),
            source=np.concatenate((frames.source.astype(np.int64), np.arange(len(late)) + len(frames.sources))),
            start=np.concatenate((frames.offsets[:-1], starts.astype(np.int64))),
            position=np.concatenate((frames.positions, np.array([held.position for held in late], np.uint64))),
            received_us=np.concatenate((frames.received_us, np.array([held.received_us for held in late], np.int64))),
            lossy=np.concatenate((lossy, np.array([held.lossy for held in late], np.bool_))),
            seconds=np.array([*self._seconds, *(header.seconds for header in headers)], np.int64),
            uptime_ms=np.array([*self._uptime_ms, *(header.uptime_ms for header in headers)], np.int64),
        )


@dataclass(frozen=True, slots=True)
class _Origin:
    """One value per message; `names` and `identities` are indexed by `source`."""

    names: pl.Series
    identities: Any
    source: Ints
    start: Ints
    position: Any
    received_us: Ints
    lossy: Any
    seconds: Ints
    uptime_ms: Ints


def _frame(layout: Layout, group: _Group, data: bytes, origin: _Origin) -> pl.DataFrame:
    """All records of one layout."""
    count = np.array(group.count, np.int64)
    of_set = np.repeat(np.arange(len(count)), count)
    index = np.arange(len(of_set)) - np.repeat(np.cumsum(count) - count, count)
    at = np.array(group.begin, np.int64)[of_set] + index * layout.size
    records = np.frombuffer(b"".join(group.compact), layout.dtype) if layout.is_variable else gather(data, layout.dtype, at)
    of = np.array(group.message, np.int64)[of_set]
    made = _made(layout, group, records, of_set, of, origin)
    source = origin.source[of]
    received = origin.received_us[of]
    found = {
        "event.created": nullable(received, received != 0),
        "ringfence.event.source": pl.Series(origin.identities[source]),
        "ringfence.event.position": origin.position[of] + (at - origin.start[of]).astype(np.uint64),
        "ringfence.evidence.lossy": origin.lossy[of],
        "observer.name": origin.names[pl.Series(source.astype(np.uint32))],
        **columns(layout, records, made),
    }
    return build_frame(EventClass.FLOW, found)


def _made(layout: Layout, group: _Group, records: Any, of_set: Ints, of: Ints, origin: _Origin) -> Made:
    """When, at which uptime and by which sampler each record was made."""
    made_us = origin.seconds[of] * 1_000_000
    uptime_ms = origin.uptime_ms[of]
    init_ms = np.array([init for _, init, _ in group.domain], np.int64)
    if init_ms.any():
        init_ms = init_ms[of_set]
        uptime_ms = np.where((init_ms > 0) & (uptime_ms < 0), made_us // 1000 - init_ms & 0xFFFFFFFF, uptime_ms)
    sampling = np.array([rate for rate, _, _ in group.domain], np.int64)[of_set]
    ids = sampler_ids(layout, records) if layout.has_sampler else None
    if ids is not None:
        known = {id(samplers): samplers for _, _, samplers in group.domain}
        which = np.array([id(samplers) for _, _, samplers in group.domain], np.int64)[of_set]
        for place, samplers in known.items():
            for sampler, rate in samplers.items():
                sampling = np.where((which == place) & (ids == sampler), rate, sampling)
    return Made(made_us, uptime_ms, sampling)


def _said(domain: Domain | None) -> _Said:
    return _NOTHING if domain is None else _Said(domain.rate, domain.init_ms, domain.samplers)


def _sets(data: bytes, start: int, begin: int, end: int) -> list[tuple[int, int, int]]:
    """The sets of a message: id, and begin and end of the body. Fewer than 4 bytes at the end are padding."""
    found = []
    while end - begin >= _SET_HEADER_BYTES:
        number, length = data[begin] << 8 | data[begin + 1], data[begin + 2] << 8 | data[begin + 3]
        if not _SET_HEADER_BYTES <= length <= end - begin:
            detail = f"set {number} announces {length} bytes; accepted: 4 to {end - begin}"
            raise Refused(ProblemCode.BAD_LENGTH, detail, begin + 2 - start)
        found.append((number, begin + _SET_HEADER_BYTES, begin + length))
        begin += length
    return found


def _cut(layout: Layout, data: bytes, position: int, end: int, start: int) -> tuple[bytes, int]:
    """The fixed parts of one record, and where the next one begins. RFC 7011 7: a length of 255 is followed by the true one."""
    parts, first = [], position
    for number, run in enumerate(layout.runs):
        if number:
            length = data[position] if position < end else 0
            position += 1
            if length == 255:
                length = int.from_bytes(data[position : position + 2], "big")
                position += 2
            position += length
        parts.append(data[position : position + run])
        position += run
        if position > end:
            detail = f"record at byte {first - start} goes {position - end} bytes beyond its set"
            raise Refused(ProblemCode.BAD_LENGTH, detail, first - start)
    return b"".join(parts), position


def check(template: Announced, offset: int) -> None:
    """Refuse a template that no record can have. Raises Refused."""
    fields = template.fields or ()
    if template.number < FIRST_DATA_SET:
        detail = f"template has id {template.number}; accepted: {FIRST_DATA_SET} to 65535"
        raise Refused(ProblemCode.MALFORMED, detail, offset)
    if len(fields) > MAX_FIELDS:
        detail = f"template {template.number} has {len(fields)} fields; accepted: up to {MAX_FIELDS}"
        raise Refused(ProblemCode.TOO_LARGE, detail, offset)
    size = sum(field.length for field in fields if field.length != VARIABLE)
    if not fields or (not size and all(field.length != VARIABLE for field in fields)):
        raise Refused(ProblemCode.MALFORMED, f"template {template.number} describes records of no bytes", offset)
    if size >= MAX_RECORD_BYTES:
        detail = f"template {template.number} describes records of {size} bytes; accepted: less than {MAX_RECORD_BYTES}"
        raise Refused(ProblemCode.TOO_LARGE, detail, offset)


def _problem(frames: Frames, row: int, refusal: Refused) -> Problem:
    raw, source = frames.frame(row), frames.sources[int(frames.source[row])]
    offset = min(max(refusal.offset, 0), len(raw))
    return Problem(refusal.code, refusal.detail, row, offset, raw=raw, source=source, position=int(frames.positions[row]))


def _given_up(held: Held) -> Problem:
    wanted = ", ".join(str(number) for number in sorted(held.waiting)[:8])
    detail = f"template {wanted} of domain {held.domain} did not come in time"
    return Problem(ProblemCode.NO_TEMPLATE, detail, None, 0, raw=held.raw, source=held.source, position=held.position)
