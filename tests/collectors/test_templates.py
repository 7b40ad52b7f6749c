"""The store's bounds and its snapshot; how the decoders use it is in test_flowsets.py."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from collectors.elements import VARIABLE, Field, Option
from collectors.templates import MAX_DOMAINS, MAX_SAMPLERS, MAX_SNAPSHOT_BYTES, REFRESH_US, Held, TemplateStore
from ringfence.batch import Source

FIELDS = (Field(8, 4), Field(12, 4, 9))


def test_domains_and_samplers_are_bounded() -> None:
    store = TemplateStore(v9=False)
    exporter = store.exporter("a")
    for number in range(MAX_DOMAINS + 2):
        store.domain(exporter, number)
    for number in range(MAX_SAMPLERS + 3):
        store.note(exporter, 5, Option(number, 10, None))

    assert len(exporter.domains) == MAX_DOMAINS
    assert len(exporter.domains[5].samplers) == MAX_SAMPLERS
    assert store.evicted == {"domain": 2, "sampler": 3}


def test_a_snapshot_holds_templates_and_sampling() -> None:
    store, other = TemplateStore(v9=False), TemplateStore(v9=False)
    store.learn(store.exporter("a"), 1, 256, FIELDS, 0, 77)
    store.note(store.exporter("a"), 1, Option(3, 10, None))
    store.note(store.exporter("a"), 1, Option(None, 20, 5))

    other.restore(store.snapshot())

    exporter = other.exporter("a")
    template = other.find(exporter, 1, 256, 78)
    assert template is not None
    assert (template.fields, template.received_us) == (FIELDS, 77)
    assert (exporter.domains[1].rate, exporter.domains[1].samplers, exporter.domains[1].init_ms) == (20, {3: 10}, 5)


def test_a_snapshot_with_any_byte_damaged_is_read_or_left_aside() -> None:
    store = TemplateStore(v9=False)
    store.learn(store.exporter("ä"), 1, 256, (*FIELDS, Field(82, VARIABLE)), 0, 77)
    store.note(store.exporter("ä"), 1, Option(3, 10, None))
    state = store.snapshot()

    for place, value in itertools.product(range(len(state)), (0, 0x7F, 0x80, 0xC0, 0xCF, 0xD3, 0xFF)):
        other = TemplateStore(v9=False)
        other.restore(state[:place] + bytes([value]) + state[place + 1 :])

        assert 0 <= other.lost_held <= 1 << 17


@pytest.mark.parametrize("fields", [[], [(8, 0, 0)], [(8, -4, 0)], [(8, 1 << 16, 0)], [(8, 60_000, 0)] * 2, [(8, 4, 0)] * 513])
def test_a_stored_template_that_no_exporter_can_have_sent_is_left_aside(fields: list[tuple[int, int, int]]) -> None:
    store = TemplateStore(v9=False)
    exporter = msgspec.msgpack.encode(("a", [(0, 256, 1, 0, fields)], []))

    store.restore(b"\x93\1\0\x91" + exporter)

    assert store.find(store.exporter("a"), 0, 256, 1) is None


def test_a_snapshot_is_bounded_and_keeps_the_exporters_heard_last() -> None:
    store, other = TemplateStore(v9=False), TemplateStore(v9=False)
    for number in range(60):
        for template in range(256, 356):
            store.learn(store.exporter(str(number)), 0, template, FIELDS * 10, 0, 1)

    other.restore(store.snapshot())

    assert len(store.snapshot()) <= MAX_SNAPSHOT_BYTES + 100
    assert other.find(other.exporter("59"), 0, 256, 1) is not None
    assert other.find(other.exporter("0"), 0, 256, 1) is None


def test_a_template_that_is_sent_again_stays_fresh() -> None:
    store = TemplateStore(v9=True)
    exporter = store.exporter("a")
    store.learn(exporter, 0, 256, FIELDS, 0, 1)
    first = store.snapshot()
    store.learn(exporter, 0, 256, FIELDS, 0, REFRESH_US // 2)
    assert store.snapshot() is first

    store.learn(exporter, 0, 256, FIELDS, 0, REFRESH_US + 2)

    assert store.snapshot() != first
    assert exporter.templates[0, 256].received_us == REFRESH_US + 2


def test_a_datagram_is_let_go_when_its_last_template_came() -> None:
    store = TemplateStore(v9=True)
    exporter = store.exporter("a")
    held = Held(b"x" * 9, Source("a", 1), 0, 1, 0, {256: [(0, 4)], 257: [(4, 9)]})
    store.hold(exporter, held)

    assert store.learn(exporter, 0, 256, FIELDS, 0, 1) == [(held, 0, 4)]
    assert not store.finished(exporter, held)
    assert store.learn(exporter, 0, 257, FIELDS, 0, 1) == [(held, 4, 9)]
    assert store.finished(exporter, held)
    assert (store.held, exporter.held_bytes, exporter.waiting) == (0, 0, {})
