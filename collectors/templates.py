"""What exporters of NetFlow v9 and IPFIX said earlier: templates, sampling, and datagrams that wait for a template.

Spec: RFC 7011 8 (management of templates), RFC 3954 5.1, 9. Everything belongs to one exporter (by name: its address) and
one domain (source id) of it, so equal template ids of two exporters never meet. Everything is bounded, since UDP senders can
be forged: what is used least recently goes first, and is counted. Time is that of arrival; in files, which have none, nothing
grows old.

A snapshot holds templates and sampling, those of the exporters heard last first, up to MAX_SNAPSHOT_BYTES. Datagrams
that wait are not in it, only their number: after a restart each becomes a Problem.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from collectors.elements import VARIABLE, Field, Layout, Option, layout_of
from ringfence.batch import ProblemCode, Source

MAX_EXPORTERS = 10_000
MAX_TEMPLATES = 1_000  # of one exporter
MAX_ALL_TEMPLATES = 50_000
MAX_DOMAINS = 1_000  # of one exporter
MAX_SAMPLERS = 256  # of one domain
MAX_FIELDS = 512
MAX_RECORD_BYTES = 64 * 1024
MAX_HELD_BYTES = 1 << 20  # of one exporter
MAX_ALL_HELD_BYTES = 64 << 20
HELD_OVERHEAD_BYTES = 512  # what the book-keeping of one costs
HELD_US = 5 * 60 * 1_000_000
TEMPLATE_US = 30 * 60 * 1_000_000
REFRESH_US = 60 * 1_000_000  # a template that is sent again unchanged makes a new snapshot after so long
MAX_SNAPSHOT_BYTES = 512 * 1024  # a Kafka record of state may have 1 MiB
SNAPSHOT_VERSION = 1


@dataclass(slots=True)
class Template:
    """A template as it was received last. `scopes` is 0 for data and the number of scope fields for options."""

    fields: tuple[Field, ...]
    scopes: int
    layout: Layout
    received_us: int


@dataclass(slots=True)
class Domain:
    """What options said about a domain. `samplers` is replaced, never changed, so data may keep the one of its time."""

    rate: int = 0
    samplers: Mapping[int, int] = field(default_factory=dict)
    init_ms: int = 0


@dataclass(slots=True, eq=False)
class Held:
    """A datagram with sets whose template is not known yet: begin and end of each in `raw`, by template id."""

    raw: bytes
    source: Source
    position: int
    received_us: int
    domain: int
    waiting: dict[int, list[tuple[int, int]]]
    lossy: bool = False
    broken: tuple[ProblemCode, str, int] | None = None


@dataclass(slots=True)
class Exporter:
    """Everything about one exporter."""

    templates: OrderedDict[tuple[int, int], Template] = field(default_factory=OrderedDict)
    domains: OrderedDict[int, Domain] = field(default_factory=OrderedDict)
    held: OrderedDict[int, Held] = field(default_factory=OrderedDict)
    waiting: dict[tuple[int, int], dict[int, Held]] = field(default_factory=dict)
    held_bytes: int = 0

    @property
    def oldest(self) -> Held:
        """The datagram that has waited longest."""
        return next(iter(self.held.values()))


_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Length = Annotated[int, msgspec.Meta(ge=0, le=VARIABLE)]


class _StoredTemplate(msgspec.Struct, array_like=True):
    domain: int
    id: int
    received_us: _Count
    scopes: _Count
    fields: Annotated[list[tuple[int, _Length, int]], msgspec.Meta(max_length=MAX_FIELDS)]

    @property
    def is_possible(self) -> bool:
        """False of one that no exporter can have sent: records of no bytes, or of too many."""
        fixed = sum(length for _, length, _ in self.fields if length != VARIABLE)
        has_variable = any(length == VARIABLE for _, length, _ in self.fields)
        return (fixed > 0 or has_variable) and fixed < MAX_RECORD_BYTES


class _StoredDomain(msgspec.Struct, array_like=True):
    domain: int
    rate: _Count
    samplers: dict[int, _Count]
    init_ms: _Count


class _StoredExporter(msgspec.Struct, array_like=True):
    name: str
    templates: list[_StoredTemplate]
    domains: list[_StoredDomain]


class _Snapshot(msgspec.Struct, array_like=True):
    version: int
    held: Annotated[int, msgspec.Meta(ge=0, le=MAX_ALL_HELD_BYTES // HELD_OVERHEAD_BYTES)]
    exporters: list[msgspec.Raw]


class TemplateStore:
    """The memory of a decoder of version 9 or IPFIX. `evicted` counts what bounds pushed out, by reason."""

    def __init__(self, v9: bool) -> None:
        self.evicted: dict[str, int] = {}
        self.given_up: list[Held] = []
        self.lost_held = 0
        self._v9 = v9
        self._exporters: OrderedDict[str, Exporter] = OrderedDict()
        self._templates = 0
        self._held_bytes = 0
        self._snapshot: bytes | None = None

    @property
    def held(self) -> int:
        """How many datagrams wait."""
        return sum(len(exporter.held) for exporter in self._exporters.values()) if self._held_bytes else 0

    def exporter(self, name: str) -> Exporter:
        """What is known of this exporter, which is now the one that was heard last."""
        exporter = self._exporters.get(name)
        if exporter is None:
            exporter = self._exporters[name] = Exporter()
            if len(self._exporters) > MAX_EXPORTERS:
                self._forget_quietest()
        self._exporters.move_to_end(name)
        return exporter

    def domain(self, exporter: Exporter, number: int) -> Domain:
        """What options said about a domain."""
        domain = exporter.domains.get(number)
        if domain is None:
            domain = exporter.domains[number] = Domain()
            if len(exporter.domains) > MAX_DOMAINS:
                exporter.domains.popitem(last=False)
                self._count("domain")
        exporter.domains.move_to_end(number)
        return domain

    def find(self, exporter: Exporter, domain: int, number: int, now_us: int) -> Template | None:
        """The template, unless it is too old."""
        key = (domain, number)
        template = exporter.templates.get(key)
        if template is None:
            return None
        if now_us - template.received_us > TEMPLATE_US and template.received_us:
            self._drop(exporter, key, "template_expired")
            return None
        exporter.templates.move_to_end(key)
        return template

    def learn(
        self, exporter: Exporter, domain: int, number: int, fields: tuple[Field, ...], scopes: int, now_us: int
    ) -> list[tuple[Held, int, int]]:
        """Take a template; return the sets that waited for it: datagram, begin, end."""
        key = (domain, number)
        known = exporter.templates.get(key)
        if known is not None and known.fields == fields and known.scopes == scopes:
            if now_us - known.received_us > REFRESH_US:
                self._snapshot = None
                known.received_us = now_us
            exporter.templates.move_to_end(key)
            return []
        self._templates += known is None
        exporter.templates[key] = Template(fields, scopes, layout_of(fields, self._v9), now_us)
        exporter.templates.move_to_end(key)
        self._snapshot = None
        if len(exporter.templates) > MAX_TEMPLATES:
            self._drop(exporter, next(iter(exporter.templates)), "template")
        while self._templates > MAX_ALL_TEMPLATES and len(self._exporters) > 1:
            self._forget_quietest()
        return self._release(exporter, domain, number) if exporter.held else []

    def withdraw(self, exporter: Exporter, domain: int, number: int) -> None:
        """Forget a template (RFC 7011 8.1)."""
        if (domain, number) in exporter.templates:
            self._drop(exporter, (domain, number), "")

    def withdraw_all(self, exporter: Exporter, domain: int, is_options: bool) -> None:
        """Forget all templates of a domain, either those of data or those of options."""
        for key, template in list(exporter.templates.items()):
            if key[0] == domain and (template.scopes > 0) == is_options:
                self._drop(exporter, key, "")

    def note(self, exporter: Exporter, number: int, said: Option) -> None:
        """Take a record of options."""
        domain = self.domain(exporter, number)
        before = (domain.rate, domain.samplers, domain.init_ms)
        domain.init_ms = domain.init_ms if said.init_ms is None else said.init_ms
        if said.rate is not None and said.sampler is None:
            domain.rate = said.rate
        elif said.rate is not None and said.sampler is not None:
            kept = {key: rate for key, rate in domain.samplers.items() if key != said.sampler}
            while len(kept) >= MAX_SAMPLERS:
                kept.pop(next(iter(kept)))
                self._count("sampler")
            domain.samplers = kept | {said.sampler: said.rate}
        if before != (domain.rate, domain.samplers, domain.init_ms):
            self._snapshot = None

    def hold(self, exporter: Exporter, held: Held) -> None:
        """Keep a datagram until its templates come; the oldest are given up for it."""
        exporter.held[id(held)] = held
        for number in held.waiting:
            exporter.waiting.setdefault((held.domain, number), {})[id(held)] = held
        self._weigh(exporter, len(held.raw) + HELD_OVERHEAD_BYTES)
        while exporter.held_bytes > MAX_HELD_BYTES:
            self._give_up(exporter, exporter.oldest, "held_bytes")
        while self._held_bytes > MAX_ALL_HELD_BYTES:
            other = next(other for other in self._exporters.values() if other.held)
            self._give_up(other, other.oldest, "held_bytes")

    def age(self, now_us: int) -> None:
        """Give up what has waited too long."""
        if not self._held_bytes:
            return
        for exporter in self._exporters.values():
            while exporter.held and exporter.oldest.received_us and now_us - exporter.oldest.received_us > HELD_US:
                self._give_up(exporter, exporter.oldest, "held_timeout")

    def finished(self, exporter: Exporter, held: Held) -> bool:
        """True when no set of this datagram waits any more; it is then let go."""
        if held.waiting or id(held) not in exporter.held:
            return False
        self._let_go(exporter, held)
        return True

    def take_given_up(self) -> list[Held]:
        """Datagrams that were given up since the last call."""
        given_up, self.given_up = self.given_up, []
        return given_up

    def snapshot(self) -> bytes:
        """Everything that a restarted process needs; the same object while nothing changed."""
        if self._snapshot is None:
            room = MAX_SNAPSHOT_BYTES
            exporters: list[msgspec.Raw] = []
            for part in self._stored():
                room -= len(part)
                if room < 0:
                    break
                exporters.append(msgspec.Raw(part))
            self._snapshot = msgspec.msgpack.encode(_Snapshot(SNAPSHOT_VERSION, self.held + self.lost_held, exporters[::-1]))
        return self._snapshot

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; one of another version, or a damaged one, is left aside."""
        try:
            stored = msgspec.msgpack.decode(state, type=_Snapshot)
            exporters = [msgspec.msgpack.decode(part, type=_StoredExporter) for part in stored.exporters]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        if stored.version != SNAPSHOT_VERSION or not all(entry.is_possible for part in exporters for entry in part.templates):
            return
        self.lost_held = stored.held
        for part in exporters:
            exporter = self.exporter(part.name)
            for entry in part.templates:
                fields = tuple(Field(*stored_field) for stored_field in entry.fields)
                self.learn(exporter, entry.domain, entry.id, fields, entry.scopes, entry.received_us)
            for said in part.domains:
                exporter.domains[said.domain] = Domain(said.rate, said.samplers, said.init_ms)

    def _stored(self) -> Iterator[bytes]:
        for name, exporter in reversed(self._exporters.items()):
            templates = [
                _StoredTemplate(
                    domain,
                    number,
                    template.received_us,
                    template.scopes,
                    [(part.element, part.length, part.enterprise) for part in template.fields],
                )
                for (domain, number), template in exporter.templates.items()
            ]
            domains = [
                _StoredDomain(number, domain.rate, dict(domain.samplers), domain.init_ms)
                for number, domain in exporter.domains.items()
                if domain.rate or domain.samplers or domain.init_ms
            ]
            if templates or domains:
                yield msgspec.msgpack.encode(_StoredExporter(name, templates, domains))

    def _release(self, exporter: Exporter, domain: int, number: int) -> list[tuple[Held, int, int]]:
        waited = exporter.waiting.pop((domain, number), {})
        return [(held, begin, end) for held in waited.values() for begin, end in held.waiting.pop(number)]

    def _forget_quietest(self) -> None:
        _, exporter = self._exporters.popitem(last=False)
        self._count("exporter")
        self._templates -= len(exporter.templates)
        for held in list(exporter.held.values()):
            self._give_up(exporter, held, "exporter")
        self._snapshot = None

    def _drop(self, exporter: Exporter, key: tuple[int, int], reason: str) -> None:
        del exporter.templates[key]
        self._templates -= 1
        self._snapshot = None
        if reason:
            self._count(reason)

    def _give_up(self, exporter: Exporter, held: Held, reason: str) -> None:
        for number in held.waiting:
            waiting = exporter.waiting[held.domain, number]
            del waiting[id(held)]
            if not waiting:
                del exporter.waiting[held.domain, number]
        self._let_go(exporter, held)
        self.given_up.append(held)
        self._count(reason)

    def _let_go(self, exporter: Exporter, held: Held) -> None:
        del exporter.held[id(held)]
        self._weigh(exporter, -len(held.raw) - HELD_OVERHEAD_BYTES)

    def _weigh(self, exporter: Exporter, change: int) -> None:
        exporter.held_bytes += change
        self._held_bytes += change
        self._snapshot = None

    def _count(self, reason: str) -> None:
        self.evicted[reason] = self.evicted.get(reason, 0) + 1
