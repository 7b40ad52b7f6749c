"""What NetFlow v9 and IPFIX share: templates of the moment, data that waits for one, the three properties."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors import ipfix, netflow_v9
from collectors.elements import VARIABLE, Field
from collectors.flowsets import MAX_BLOCK_LAYOUTS, SetDecoder
from collectors.sequences import REORDER_DATAGRAMS
from collectors.templates import HELD_US, MAX_HELD_BYTES, MAX_TEMPLATES, TEMPLATE_US
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import Framer
from tests.collectors.encode_flowsets import KEYS, SECONDS, V9, Ipfix, a_set, flow

EXPORTER = Source("192.0.2.1", 0xBEEF)
Encoder = type[V9] | type[Ipfix]
BOTH: list[Any] = [pytest.param(V9, netflow_v9.decoder, id="v9"), pytest.param(Ipfix, ipfix.decoder, id="ipfix")]
FRAMED: list[Any] = [pytest.param(V9, netflow_v9.V9Framer, id="v9"), pytest.param(Ipfix, ipfix.IpfixFramer, id="ipfix")]
Make = Callable[[], SetDecoder]


def feed(decoder: SetDecoder, *messages: bytes, source: Source = EXPORTER, at_us: int = 7) -> Decoded:
    return decoder.feed(frames_of(messages, source, at_us, [number << 16 for number in range(len(messages))]))


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    return decoded.rows[EventClass.FLOW].to_dicts() if EventClass.FLOW in decoded.rows else []


def ports(decoded: Decoded) -> list[int]:
    return [row["source.port"] for row in rows(decoded)]


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_records_of_many_messages_are_decoded_with_their_origin(encode: Encoder, make: Make) -> None:
    decoded = feed(
        make(), encode.message(encode.template(256)), encode.message(a_set(256, flow(sport=1) + flow(sport=2), 3), sequence=1)
    )

    assert (decoded.taken, decoded.problems, decoded.held) == (2, [], 0)
    assert ports(decoded) == [1, 2]
    first = rows(decoded)[0]
    assert (first["source.ip"], first["destination.ip"], first["destination.port"]) == (0x0A010005, 0x0A020009, 22)
    assert (first["source.packets"], first["source.bytes"], first["ringfence.tcp.source_flags"]) == (10, 840, 0x1B)
    assert (first["observer.name"], first["event.created"], first["@timestamp"]) == ("192.0.2.1", 7, SECONDS * 1_000_000)


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_the_place_of_a_record_is_its_first_byte(encode: Encoder, make: Make) -> None:
    message = encode.message(encode.template(256), a_set(256, flow(sport=0x1234)))

    (row,) = rows(feed(make(), encode.message(), message))

    at = row["ringfence.event.position"] - (1 << 16)
    assert message[at : at + len(flow())] == flow(sport=0x1234)


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_a_template_that_changes_in_the_middle_changes_only_what_follows(encode: Encoder, make: Make) -> None:
    turned = (KEYS[1], KEYS[0], *KEYS[2:])
    body = a_set(256, flow(src=1, dst=2))

    decoded = feed(make(), encode.message(encode.template(256), body, encode.template(256, turned), body))

    assert [(row["source.ip"], row["destination.ip"]) for row in rows(decoded)] == [(1, 2), (2, 1)]


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_equal_ids_of_two_exporters_or_domains_never_meet(encode: Encoder, make: Make) -> None:
    decoder = make()
    feed(decoder, encode.message(encode.template(256), domain=1))

    assert feed(decoder, encode.message(a_set(256, flow()), domain=2)).held == 1
    assert feed(decoder, encode.message(a_set(256, flow()), domain=1), source=Source("192.0.2.2", 1)).held == 2


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_data_before_its_template_is_held_and_decoded_later(encode: Encoder, make: Make) -> None:
    decoder = make()
    early = encode.message(encode.template(300), a_set(300, flow(sport=1)), a_set(256, flow(sport=2)))

    first = feed(decoder, early)
    second = feed(decoder, encode.message(encode.template(256), sequence=1), at_us=9)

    assert (first.taken, first.held, ports(first)) == (0, 1, [1])
    assert (second.taken, second.held, ports(second)) == (2, 0, [2])
    (row,) = rows(second)
    assert (row["event.created"], row["ringfence.event.position"]) == (7, early.index(flow(sport=2)))


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_data_whose_template_does_not_come_is_given_up(encode: Encoder, make: Make) -> None:
    decoder = make()
    message = encode.message(a_set(256, flow()))
    feed(decoder, message)

    decoded = feed(decoder, encode.message(sequence=1), at_us=HELD_US + 8)

    (problem,) = decoded.problems
    assert (problem.code, problem.raw, problem.source, problem.row) == (ProblemCode.NO_TEMPLATE, message, EXPORTER, None)
    assert (decoded.taken, decoded.held, decoder.store.evicted) == (1, 0, {"held_timeout": 1})


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_held_data_is_bounded_and_the_oldest_goes_first(encode: Encoder, make: Make) -> None:
    decoder = make()
    messages = [encode.message(a_set(256, flow(sport=number) * 1000)) for number in range(60)]

    decoded = feed(decoder, *messages)

    assert decoded.held + len(decoded.problems) == 60
    assert decoded.held * len(messages[0]) <= MAX_HELD_BYTES
    assert [problem.raw for problem in decoded.problems] == messages[: len(decoded.problems)]


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_a_template_that_was_not_sent_again_is_too_old(encode: Encoder, make: Make) -> None:
    decoder = make()
    feed(decoder, encode.message(encode.template(256)))

    assert feed(decoder, encode.message(a_set(256, flow()), sequence=1), at_us=TEMPLATE_US + 8).held == 1
    assert decoder.store.evicted == {"template_expired": 1}


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_templates_are_bounded_and_the_one_used_longest_ago_goes_first(encode: Encoder, make: Make) -> None:
    decoder = make()
    feed(decoder, *(encode.message(encode.template(256 + number)) for number in range(MAX_TEMPLATES)))
    feed(decoder, encode.message(a_set(256, flow())), encode.message(encode.template(5000)))

    assert ports(feed(decoder, encode.message(a_set(256, flow())))) == [40000]
    assert feed(decoder, encode.message(a_set(257, flow()))).held == 1
    assert decoder.store.evicted == {"template": 1}


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_sampling_of_options_fills_the_flows_that_follow(encode: Encoder, make: Make) -> None:
    decoder = make()
    told = encode.options(400, [Field(143 if encode is Ipfix else 1, 4)], [Field(34, 4), Field(35, 1)])
    said = a_set(400, bytes(4) + (100).to_bytes(4, "big") + b"\2")

    decoded = feed(decoder, encode.message(encode.template(256), a_set(256, flow()), told, said, a_set(256, flow())))

    assert [row["ringfence.flow.sampling"] for row in rows(decoded)] == [None, 100]


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_each_sampler_has_its_rate(encode: Encoder, make: Make) -> None:
    decoder = make()
    fields = (*KEYS, Field(48, 1))
    told = encode.options(400, [Field(143 if encode is Ipfix else 1, 4)], [Field(48, 1), Field(50, 4)])
    said = a_set(400, b"".join(bytes(4) + bytes([name]) + rate.to_bytes(4, "big") for name, rate in ((1, 10), (2, 1000))))
    body = a_set(256, flow() + b"\1" + flow() + b"\2" + flow() + b"\3")

    decoded = feed(decoder, encode.message(encode.template(256, fields), told, said, body))

    assert [row["ringfence.flow.sampling"] for row in rows(decoded)] == [10, 1000, None]


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_layouts_of_one_block_are_bounded_and_those_beyond_can_be_sent_again(encode: Encoder, make: Make) -> None:
    decoder = make()
    numbers = range(256, 256 + MAX_BLOCK_LAYOUTS + 2)
    sets = [encode.template(number, [Field(8, 4), Field(30_000 + number, 1)]) for number in numbers]
    data = {number: encode.message(a_set(number, bytes(5))) for number in numbers}

    decoded = feed(decoder, encode.message(*sets), *data.values())
    again = feed(decoder, *list(data.values())[-2:])

    assert (decoded.taken, len(rows(decoded))) == (1 + MAX_BLOCK_LAYOUTS, MAX_BLOCK_LAYOUTS)
    assert [(problem.code, problem.row) for problem in decoded.problems] == [
        (ProblemCode.TOO_LARGE, 1 + MAX_BLOCK_LAYOUTS),
        (ProblemCode.TOO_LARGE, 2 + MAX_BLOCK_LAYOUTS),
    ]
    assert (again.taken, len(rows(again)), again.problems) == (2, 2, [])


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_a_restored_decoder_decodes_at_once_and_owns_up_to_what_was_held(encode: Encoder, make: Make) -> None:
    before, after = make(), make()
    told = encode.options(400, [Field(143 if encode is Ipfix else 1, 4)], [Field(34, 4)])
    feed(before, encode.message(encode.template(256), told, a_set(400, bytes(7) + b"\x09")), encode.message(a_set(999, flow())))

    after.restore(before.snapshot())
    decoded = feed(after, encode.message(a_set(256, flow(sport=5))), source=Source(EXPORTER.name, 2))

    assert [(row["source.port"], row["ringfence.flow.sampling"]) for row in rows(decoded)] == [(5, 9)]
    assert [(problem.code, problem.raw) for problem in decoded.problems] == [(ProblemCode.NO_TEMPLATE, b"")]


@pytest.mark.parametrize(("encode", "make"), BOTH)
def test_a_snapshot_stays_the_same_while_nothing_changes(encode: Encoder, make: Make) -> None:
    decoder = make()
    feed(decoder, encode.message(encode.template(256)))
    first = decoder.snapshot()
    feed(decoder, encode.message(encode.template(256), a_set(256, flow())))

    assert decoder.snapshot() is first


@pytest.mark.parametrize("state", [b"", b"x", b"\x93\x63\0\x90", b"\x93\1\0\x91\xc0"])
def test_a_snapshot_that_cannot_be_read_is_left_aside(state: bytes) -> None:
    decoder = ipfix.decoder()

    decoder.restore(state)

    assert feed(decoder, Ipfix.message(a_set(256, flow()))).held == 1


@pytest.mark.parametrize(("encode", "make"), BOTH)
@pytest.mark.parametrize(
    ("sets", "code", "detail"),
    [
        ([b"\1\0\0\3"], ProblemCode.BAD_LENGTH, "announces 3 bytes"),
        ([b"\1\0\xff\xff"], ProblemCode.BAD_LENGTH, "announces 65535 bytes"),
        (["template", a_set(256, b"abc")], ProblemCode.BAD_LENGTH, "too few for a record of 22"),
        (["empty"], ProblemCode.MALFORMED, "records of no bytes"),
        (["low"], ProblemCode.MALFORMED, "accepted: 256 to 65535"),
        (["many"], ProblemCode.TOO_LARGE, "513 fields"),
    ],
)
def test_what_cannot_be_read_is_one_problem(
    encode: Encoder, make: Make, sets: list[bytes | str], code: ProblemCode, detail: str
) -> None:
    named = {
        "template": encode.template(256), "empty": encode.template(256, [Field(1, 0)]), "low": encode.template(99),
        "many": encode.template(256, [Field(1, 1)] * 513),
    }  # fmt: skip
    bad = encode.message(*(named[part] if isinstance(part, str) else part for part in sets), domain=5)

    decoded = feed(make(), bad, encode.message(encode.template(256), a_set(256, flow())))

    (problem,) = decoded.problems
    assert (problem.code, problem.row, problem.raw) == (code, 0, bad)
    assert detail in problem.detail
    assert (decoded.taken, ports(decoded)) == (1, [40000])


fields = st.lists(
    st.builds(
        Field,
        st.one_of(st.integers(0, 400), st.integers(0, 0x7FFF)),
        st.one_of(st.integers(0, 20), st.just(VARIABLE)),
        st.sampled_from([0, 0, 0, 29305, 9]),
    ),
    min_size=1,
    max_size=12,
)


@st.composite
def messages(draw: st.DrawFn, encode: Encoder) -> bytes:
    sets = []
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.integers(0, 3))
        number = draw(st.integers(256, 258))
        if kind == 0:
            sets.append(encode.template(number, draw(fields)))
        elif kind == 1:
            sets.append(encode.options(number, draw(fields), draw(fields)))
        else:
            sets.append(a_set(draw(st.sampled_from([number, number, 2, 3, 0, 1, 7])), draw(st.binary(max_size=120))))
    return encode.message(*sets, sequence=draw(st.integers(0, 9)), domain=draw(st.integers(0, 1)))


@pytest.mark.parametrize(("encode", "make"), BOTH)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_raise_nothing_and_every_message_is_accounted_for(encode: Encoder, make: Make, data: st.DataObject) -> None:
    decoder, received, done = make(), 0, 0
    for _ in range(2):
        whole = messages(encode)
        sent = data.draw(st.lists(st.one_of(st.binary(max_size=60), whole, whole.map(lambda part: part[:-1])), max_size=6))
        decoded = feed(decoder, *sent)
        received += len(sent)
        done += decoded.taken + len(decoded.problems)
        assert received == done + decoded.held
        for problem in decoded.problems:
            assert problem.row is None or problem.raw == sent[problem.row]


@pytest.mark.parametrize(("encode", "framer"), FRAMED)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_chunking_gives_the_same_frames_and_loses_no_byte(
    encode: Encoder, framer: Callable[[], Framer], data: st.DataObject
) -> None:
    sent = [encode.message(encode.template(256), a_set(256, flow() * data.draw(st.integers(1, 3)))) for _ in range(3)]
    stream = b"".join(sent) + data.draw(st.binary(max_size=40))
    sizes = data.draw(st.lists(st.integers(0, 150), max_size=8))

    whole = cut(framer(), stream, [])

    assert b"".join(whole) == stream
    assert whole[:2] == sent[:2]
    assert cut(framer(), stream, sizes) == whole


def cut(framer: Framer, stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    chunks, start = [], 0
    for size in sizes:
        chunks.append(stream[start : start + size])
        start += size
    frames = []
    for data, bounds in [*map(framer.cut, [*chunks, stream[start:]]), framer.finish()]:
        frames += [data[begin:end] for begin, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)]
    assert framer.pending == 0
    return frames


u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)


@pytest.mark.parametrize(("encode", "make"), BOTH)
@settings(max_examples=50, deadline=None)
@given(sent=st.lists(st.lists(st.tuples(u32, u32, u16, u16, u32.map(lambda n: n // 84)), min_size=1, max_size=5), max_size=5))
def test_decoding_gives_what_was_encoded(encode: Encoder, make: Make, sent: list[list[tuple[int, int, int, int, int]]]) -> None:
    parts = [encode.message(a_set(256, b"".join(flow(*one) for one in some))) for some in sent]

    decoded = feed(make(), encode.message(encode.template(256)), *parts)

    names = ("source.ip", "destination.ip", "source.port", "destination.port", "source.packets")
    assert [tuple(row[name] for name in names) for row in rows(decoded)] == [one for some in sent for one in some]


def test_variable_lengths_are_walked_over() -> None:
    fields = (KEYS[0], Field(82, VARIABLE), KEYS[1], Field(83, VARIABLE), KEYS[2])
    record = b"\x0a\0\0\1" + b"\3abc" + b"\x0a\0\0\2" + b"\xff\0\2xy" + b"\0\7"

    decoded = feed(ipfix.decoder(), Ipfix.message(Ipfix.template(256, fields), a_set(256, record * 2)))

    found = [(row["source.ip"], row["destination.ip"], row["source.port"]) for row in rows(decoded)]
    assert found == [(0x0A000001, 0x0A000002, 7)] * 2


def test_a_record_that_leaves_its_set_is_a_problem_beside_those_before_it() -> None:
    fields = (KEYS[0], Field(82, VARIABLE))
    message = Ipfix.message(Ipfix.template(256, fields), a_set(256, b"\x0a\0\0\1\1a" + b"\x0a\0\0\2\x09b"))

    decoded = feed(ipfix.decoder(), message)

    assert [row["source.ip"] for row in rows(decoded)] == [0x0A000001]
    assert [problem.code for problem in decoded.problems] == [ProblemCode.BAD_LENGTH]


def test_a_withdrawn_template_is_forgotten() -> None:
    decoder = ipfix.decoder()

    assert feed(decoder, Ipfix.message(Ipfix.template(256), Ipfix.withdrawal(256), a_set(256, flow()))).held == 1
    assert feed(decoder, Ipfix.message(Ipfix.template(257), Ipfix.withdrawal(2), a_set(257, flow()))).held == 2


def gap(decoder: SetDecoder, decoded: Decoded) -> tuple[list[int], int]:
    lossy = [index for index, row in enumerate(rows(decoded)) if row["ringfence.evidence.lossy"]]
    return lossy, decoder.sequence_gaps[EXPORTER.name]


def test_version_9_counts_datagrams() -> None:
    decoder = netflow_v9.decoder()
    sent = [V9.message(V9.template(256)), *(V9.message(a_set(256, flow() * 2), sequence=n) for n in (1, 4, *range(5, 40)))]

    assert gap(decoder, feed(decoder, *sent)) == ([2, 3], 2)


def test_ipfix_counts_data_records() -> None:
    decoder = ipfix.decoder()
    sent = [
        Ipfix.message(Ipfix.template(256)),
        Ipfix.message(a_set(256, flow() * 2)),
        Ipfix.message(a_set(256, flow()), sequence=5),
    ]
    sent += [Ipfix.message(a_set(256, flow()), sequence=number) for number in range(6, 6 + REORDER_DATAGRAMS)]

    assert gap(decoder, feed(decoder, *sent)) == ([2], 3)


def test_a_source_that_the_shell_saw_losing_frames_is_marked() -> None:
    frames = frames_of([V9.message(V9.template(256), a_set(256, flow()))], EXPORTER)

    decoded = netflow_v9.decoder().feed(dataclasses.replace(frames, lossy=frozenset({0})))

    assert [row["ringfence.evidence.lossy"] for row in rows(decoded)] == [True]
