"""The NetFlow v5 decoder against a scalar one, and what it says about bad datagrams and lost flows."""

from __future__ import annotations

import asyncio
import dataclasses
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.datagrams import UNCUT_BYTES
from collectors.netflow import (
    KIND,
    ExportDecoder,
    NetflowConfig,
    NetflowDecoder,
    NetflowFramer,
    recognise,
)
from collectors.sequences import MAX_EXPORTERS, REORDER_DATAGRAMS
from ringfence import bus
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode, Source, frames_of
from ringfence.batching import Batching
from ringfence.bus import BusSettings, open_bus
from ringfence.clock import SystemClock
from ringfence.component import Collector
from ringfence.ledger import Counts
from ringfence.stages import CollectStage
from ringfence.testing import ListShell
from tests.collectors import softflowd
from tests.collectors.encode_flowsets import V9, Ipfix, a_set
from tests.collectors.encode_flowsets import flow as record
from tests.collectors.encode_netflow import HOUR_MS, Export, Flow

READERS = {"ringfence.process": (bus.EVENTS,)}
EXPORTER = Source("192.0.2.1", 0xBEEF)
SECOND_US = 1_000_000
MADE_US = 1_790_000_000 * SECOND_US + 500_000


def decode(
    datagrams: Sequence[bytes], decoder: NetflowDecoder | ExportDecoder | None = None, source: Source = EXPORTER
) -> Decoded:
    positions = [number << 16 for number in range(len(datagrams))]
    return (decoder or NetflowDecoder()).feed(frames_of(datagrams, source, 7, positions))


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    return decoded.rows[EventClass.FLOW].to_dicts() if EventClass.FLOW in decoded.rows else []


def one(flow: Flow, export: Export | None = None) -> dict[str, Any]:
    (row,) = rows(decode([(export or Export()).encode([flow])]))
    return row


def accounted(decoded: Decoded) -> int:
    return decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held


def scalar(datagram: bytes, position: int) -> list[dict[str, Any]]:
    """All records of a datagram, decoded without numpy."""
    _, count, uptime, seconds, nanoseconds, _, _, _, sampling = struct.unpack_from(">HHIIIIBBH", datagram)
    made_us = seconds * SECOND_US + nanoseconds // 1000

    def moment(at_ms: int) -> int:
        age = (uptime - at_ms) & 0xFFFFFFFF
        moment_us: int = made_us - (age if age < 2**32 - 60_000 else age - 2**32) * 1000
        return moment_us

    found = []
    for index in range(count):
        src, dst, _, in_if, out_if, packets, octets, first, last, sport, dport, _, flags, protocol, tos, src_as, dst_as = (
            struct.unpack_from(">IIIHHIIIIHHBBBBHH", datagram, 24 + 48 * index)
        )
        ported, icmp = protocol in (6, 17, 132), protocol == 1
        found.append(
            {
                "@timestamp": moment(last),
                "event.created": 7,
                "ringfence.event.source": EXPORTER.identity,
                "ringfence.event.position": position + index,
                "observer.name": EXPORTER.name,
                "source.ip": src,
                "source.port": sport if ported else None,
                "destination.ip": dst,
                "destination.port": dport if ported else None,
                "network.iana_number": protocol,
                "observer.ingress.interface.id": in_if,
                "observer.egress.interface.id": out_if,
                "ringfence.evidence.lossy": False,
                "event.start": moment(first),
                "event.end": moment(last),
                "source.packets": packets,
                "source.bytes": octets,
                "ringfence.tcp.source_flags": flags if protocol == 6 else None,
                "ringfence.flow.tos": tos,
                "source.as.number": src_as or None,
                "destination.as.number": dst_as or None,
                "ringfence.flow.sampling": sampling & 0x3FFF if sampling & 0x3FFF > 1 else None,
                "ringfence.icmp.type": dport >> 8 if icmp else None,
                "ringfence.icmp.code": dport & 255 if icmp else None,
            }
        )
    return found


octets = st.integers(0, 255)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
flows = st.builds(
    Flow,
    src=u32,
    dst=u32,
    nexthop=u32,
    in_if=u16,
    out_if=u16,
    packets=u32,
    octets=u32,
    first=u32,
    last=u32,
    sport=u16,
    dport=u16,
    flags=octets,
    protocol=st.one_of(st.sampled_from([1, 6, 17]), octets),
    tos=octets,
    src_as=u16,
    dst_as=u16,
    src_mask=octets,
)
exports = st.builds(Export, uptime=u32, seconds=u32, nanoseconds=st.integers(0, 999_999_999), engine_id=octets, sampling=u16)
datagrams = st.tuples(exports, st.lists(flows, min_size=1, max_size=4)).map(lambda parts: parts[0].encode(parts[1]))


@given(st.lists(st.tuples(exports, st.lists(flows, min_size=1, max_size=4)), max_size=5))
def test_decoding_gives_what_was_encoded_as_a_scalar_decoder_reads_it(parts: list[tuple[Export, list[Flow]]]) -> None:
    sent = [dataclasses.replace(export, engine_id=number).encode(records) for number, (export, records) in enumerate(parts)]

    decoded = decode(sent)

    assert not decoded.problems
    assert rows(decoded) == [row for number, datagram in enumerate(sent) for row in scalar(datagram, number << 16)]


@settings(max_examples=300)
@given(st.lists(st.one_of(st.binary(max_size=100), datagrams, datagrams.map(lambda datagram: datagram[:-1])), max_size=8))
def test_any_bytes_raise_nothing_and_every_datagram_is_accounted_for(frames: list[bytes]) -> None:
    decoded = decode(frames)

    assert accounted(decoded) == len(frames)
    for problem in decoded.problems:
        assert problem.row is not None
        assert (problem.raw, problem.source, problem.position) == (frames[problem.row], EXPORTER, problem.row << 16)
        assert problem.offset is not None
        assert 0 <= problem.offset <= len(problem.raw)


@given(st.lists(datagrams, max_size=5), st.binary(max_size=60), st.lists(st.integers(0, 120), max_size=8))
def test_any_chunking_of_a_file_gives_the_same_frames_and_loses_no_byte(
    sent: list[bytes], tail: bytes, sizes: list[int]
) -> None:
    stream = b"".join(sent) + tail

    whole = cut(stream, [])

    assert b"".join(whole) == stream
    assert whole[: len(sent)] == sent
    assert cut(stream, sizes) == whole


def cut(stream: bytes, sizes: Sequence[int]) -> list[bytes]:
    framer, chunks, start = NetflowFramer(), [], 0
    for size in sizes:
        chunks.append(stream[start : start + size])
        start += size
    frames = []
    for data, bounds in [*map(framer.cut, [*chunks, stream[start:]]), framer.finish()]:
        frames += [data[begin:end] for begin, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)]
    assert framer.pending == 0
    return frames


def test_what_is_no_version_5_is_handed_over_in_blocks() -> None:
    good, other = Export().encode([Flow()]), b"\0\x09" + bytes(UNCUT_BYTES + 5)

    frames = cut(good + other, [100, 1000])

    assert frames == [good, other[:UNCUT_BYTES], other[UNCUT_BYTES:]]


GOOD = Export().encode([Flow()])


@pytest.mark.parametrize(
    ("datagram", "code", "offset", "detail"),
    [
        (b"", ProblemCode.TRUNCATED, 0, "too few for a version"),
        (GOOD[:20], ProblemCode.TRUNCATED, 20, "header has 20 of 24 bytes"),
        (Export(version=9).encode([Flow()]), ProblemCode.UNKNOWN_VERSION, 0, "NetFlow v9"),
        (Export(version=10).encode([Flow()]), ProblemCode.UNKNOWN_VERSION, 0, "IPFIX"),
        (Export(version=6).encode([Flow()]), ProblemCode.UNKNOWN_VERSION, 0, "version 6"),
        (Export(count=0).encode([]), ProblemCode.MALFORMED, 2, "announces 0 records"),
        (Export(count=31).encode([Flow()] * 31), ProblemCode.MALFORMED, 2, "announces 31 records"),
        (Export(count=2).encode([Flow()]), ProblemCode.BAD_LENGTH, 2, "120 bytes; the datagram has 72"),
        (GOOD + b"x", ProblemCode.BAD_LENGTH, 2, "72 bytes; the datagram has 73"),
        (Export(nanoseconds=1_000_000_000).encode([Flow()]), ProblemCode.MALFORMED, 12, "more than a second"),
    ],
    ids=["empty", "header", "v9", "ipfix", "other", "none", "too-many", "too-short", "too-long", "nanoseconds"],
)
def test_a_bad_datagram_is_one_problem_and_its_neighbours_stay(
    datagram: bytes, code: ProblemCode, offset: int, detail: str
) -> None:
    decoded = decode([Export(engine_id=1).encode([Flow()]), datagram, Export(engine_id=2).encode([Flow(), Flow()])])

    (problem,) = decoded.problems
    assert (problem.code, problem.row, problem.offset, problem.raw) == (code, 1, offset, datagram)
    assert detail in problem.detail
    assert [row["ringfence.event.position"] for row in rows(decoded)] == [0, 2 << 16, (2 << 16) + 1]


def test_uptime_that_wrapped_between_flow_and_datagram_gives_the_true_times() -> None:
    row = one(Flow(first=2**32 - 3000, last=2**32 - 1000), Export(uptime=500))

    assert (row["event.start"], row["event.end"]) == (MADE_US - 3_500_000, MADE_US - 1_500_000)
    assert row["@timestamp"] == row["event.end"]


def test_a_flow_that_ends_just_after_its_datagram_was_made_is_not_49_days_old() -> None:
    row = one(Flow(last=HOUR_MS + 40))

    assert row["event.end"] == MADE_US + 40_000


def test_icmp_has_type_and_code_and_no_ports() -> None:
    row = one(Flow(protocol=1, sport=0, dport=3 * 256 + 13))

    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"]) == (3, 13)
    assert (row["source.port"], row["destination.port"], row["ringfence.tcp.source_flags"]) == (None, None, None)


@pytest.mark.parametrize(("sampling", "rate"), [(0, None), (0x4001, None), (0x4064, 100)])
def test_the_sampling_interval_is_the_low_14_bits(sampling: int, rate: int | None) -> None:
    assert one(Flow(), Export(sampling=sampling))["ringfence.flow.sampling"] == rate


def numbered(*sequences: int, **header: int) -> list[bytes]:
    """One datagram of one flow per sequence number."""
    return [dataclasses.replace(Export(sequence=number), **header).encode([Flow()]) for number in sequences]


def lossy(decoded: Decoded) -> list[int]:
    return [index for index, row in enumerate(rows(decoded)) if row["ringfence.evidence.lossy"]]


def test_the_datagram_after_a_gap_is_marked_and_the_lost_flows_are_counted() -> None:
    decoder = NetflowDecoder()

    decoded = decode(numbered(0, 1, 5, *range(6, 6 + REORDER_DATAGRAMS)), decoder)

    assert lossy(decoded) == [2]
    assert decoder.sequence_gaps == {EXPORTER.name: 3}


def test_datagrams_in_another_order_are_no_loss() -> None:
    decoder = NetflowDecoder()

    decoded = decode(numbered(0, 3, 2, 1, *range(4, 100)), decoder)

    assert lossy(decoded) == []
    assert decoder.sequence_gaps == {EXPORTER.name: 0}


def test_a_gap_that_is_filled_in_part_counts_what_is_still_missing() -> None:
    decoder = NetflowDecoder()

    decoded = decode(numbered(0, 5, 2, *range(6, 100)), decoder)

    assert lossy(decoded) == [1]
    assert decoder.sequence_gaps == {EXPORTER.name: 3}


def test_a_datagram_that_is_later_than_the_reorder_window_stays_lost() -> None:
    decoder = NetflowDecoder()

    decode(numbered(0, 2, *range(3, 3 + REORDER_DATAGRAMS), 1), decoder)

    assert decoder.sequence_gaps == {EXPORTER.name: 1}


def test_a_gap_between_two_blocks_is_seen() -> None:
    decoder = NetflowDecoder()
    decode(numbered(0), decoder)

    assert lossy(decode(numbered(2, 3), decoder)) == [0]
    assert lossy(decode(numbered(4), decoder)) == []


def test_a_datagram_sent_twice_is_no_loss() -> None:
    decoder = NetflowDecoder()

    assert lossy(decode(numbered(0, 1, 1, 2, 3), decoder)) == []


def test_the_sequence_may_wrap() -> None:
    assert lossy(decode(numbered(2**32 - 2, 2**32 - 1, 0, 1))) == []


def test_a_restarted_exporter_has_lost_nothing() -> None:
    decoder = NetflowDecoder()
    decode(numbered(500, 501), decoder)

    decoded = decode(numbered(0, 1, uptime=1000, seconds=1_790_000_100), decoder)

    assert lossy(decoded) == []


def test_uptime_that_wraps_is_no_restart() -> None:
    decoder = NetflowDecoder()
    decode(numbered(0, uptime=2**32 - 1000), decoder)

    assert lossy(decode(numbered(9, uptime=1000, seconds=1_790_000_002), decoder)) == [0]


def test_each_exporter_and_each_engine_has_its_own_sequence() -> None:
    decoder = NetflowDecoder()
    decode(
        [*numbered(0, engine_id=1), *numbered(70, engine_id=2), *numbered(1, engine_id=1), *numbered(71, engine_id=2)], decoder
    )

    assert lossy(decode(numbered(900), decoder, Source("192.0.2.2", EXPORTER.identity))) == []
    assert decoder.sequence_gaps == {"192.0.2.1": 0, "192.0.2.2": 0}


def test_a_source_that_the_shell_saw_losing_frames_is_marked() -> None:
    frames = dataclasses.replace(frames_of(numbered(0, 1), EXPORTER), lossy=frozenset({0}))

    assert lossy(NetflowDecoder().feed(frames)) == [0, 1]


def test_only_so_many_exporters_are_remembered() -> None:
    decoder = NetflowDecoder()
    sources = tuple(Source(str(number), 1) for number in range(MAX_EXPORTERS + 1))
    base = frames_of(numbered(*[0] * len(sources)), EXPORTER)
    decoder.feed(dataclasses.replace(base, sources=sources, source=np.arange(len(sources), dtype=np.uint16)))

    assert len(decoder.sequence_gaps) == MAX_EXPORTERS
    assert "0" not in decoder.sequence_gaps


@given(st.lists(st.tuples(u32, st.sampled_from([0, 500, HOUR_MS]), st.integers(0, 1)), max_size=80))
def test_no_sequence_of_datagrams_makes_the_counters_fall_or_raise(parts: list[tuple[int, int, int]]) -> None:
    decoder, before = NetflowDecoder(), 0
    for sequence, uptime, engine in parts:
        decode(numbered(sequence % 40, uptime=uptime, engine_id=engine), decoder)
        after = sum(decoder.sequence_gaps.values())
        assert after >= before
        before = after


def test_a_file_of_datagrams_is_recognised() -> None:
    assert recognise(GOOD)
    assert not recognise(Export(version=9).encode([Flow()]))
    assert not recognise(b"")


def test_rows_of_a_file_have_no_time_of_receipt() -> None:
    decoded = NetflowDecoder().feed(frames_of([GOOD, GOOD], EXPORTER))

    assert [row["event.created"] for row in rows(decoded)] == [None, None]
    assert [row["ringfence.event.position"] for row in rows(decoded)] == [0, 72]


@pytest.mark.parametrize(
    ("listen", "claimed"),
    [
        ("udp://0.0.0.0:9995", "udp 0.0.0.0:9995"),
        ("127.0.0.1", "udp 127.0.0.1:2055"),
        ("collector.example:2055", "udp collector.example:2055"),
        ("udp://[::1]:2055", "udp [::1]:2055"),
    ],
)
def test_the_collector_claims_its_port(listen: str, claimed: str) -> None:
    assert KIND.resources(NetflowConfig(listen=listen)) == [claimed]


@pytest.mark.parametrize("listen", ["tcp://0.0.0.0:2055", "0.0.0.0:0", "0.0.0.0:70000", "", ":2055"])
def test_an_address_that_cannot_be_listened_on_is_refused(listen: str) -> None:
    with pytest.raises(ValidationError, match="no address to listen on"):
        NetflowConfig(listen=listen)


def test_frames_without_a_single_datagram_give_nothing() -> None:
    empty = np.zeros(0, np.int64)
    frames = Frames(b"", np.zeros(1, np.int64), empty, empty.astype(np.uint16), (EXPORTER,), empty.astype(np.uint64))

    assert accounted(NetflowDecoder().feed(frames)) == 0


def test_one_port_takes_all_versions_and_names_the_rows_of_problems() -> None:
    v9, v10 = (
        V9.message(V9.template(256), a_set(256, record(sport=9))),
        Ipfix.message(Ipfix.template(256), a_set(256, record(sport=10))),
    )
    sent = [GOOD, v9, b"\0\x07junk", v10, b"\0", v10[:-1]]

    decoded = ExportDecoder().feed(frames_of(sent, EXPORTER, 7, [number << 16 for number in range(6)]))

    assert sorted(row["source.port"] for row in rows(decoded)) == [9, 10, 40000]
    assert {problem.row: problem.code for problem in decoded.problems} == {
        2: ProblemCode.UNKNOWN_VERSION, 4: ProblemCode.TRUNCATED, 5: ProblemCode.BAD_LENGTH,
    }  # fmt: skip
    assert all(problem.row is not None and problem.raw == sent[problem.row] for problem in decoded.problems)
    assert "NetFlow v5, NetFlow v9, IPFIX" in decoded.problems[0].detail
    assert accounted(decoded) == 6


def test_a_restarted_collector_decodes_at_once() -> None:
    items: list[list[bytes]] = [[V9.message(V9.template(256)), Ipfix.message(Ipfix.template(256))]]

    async def main() -> Counts:
        engine = open_bus("memory:", BusSettings(), READERS)
        await engine.open()
        try:
            for _ in range(2):
                stage = CollectStage(
                    "router",
                    lambda: Collector("netflow", ListShell(list(items)), ExportDecoder()),
                    engine,
                    Batching(),
                    1,
                    SystemClock(),
                )
                await stage.run(asyncio.Event())
                items.append([V9.message(a_set(256, record()), sequence=1), Ipfix.message(a_set(256, record()))])
            return Counts.decode((await engine.states())["ringfence.collect.router"]["ledger"])
        finally:
            await engine.close()

    counts = asyncio.run(main())

    assert (counts.received, counts.done, counts.held, counts.written[bus.EVENTS]) == (4, 4, 0, 2)


@pytest.mark.net
def test_softflowd_is_understood(tmp_path: Path) -> None:
    decoded = decode(softflowd.export(5, tmp_path))

    assert not decoded.problems
    found = {(row["network.iana_number"], row["source.port"], row["destination.port"]) for row in rows(decoded)}
    assert found == {(6, 40000, 22), (6, 22, 40000), (17, 5000, 53), (17, 53, 5000), (1, None, None)}


def test_only_exporters_that_are_allowed_are_decoded() -> None:
    config = NetflowConfig(exporters=("192.0.2.0/28", "2001:db8::/64"))  # type: ignore[arg-type]
    decoder = ExportDecoder(config.exporters)
    sent = {
        name: decode([GOOD], decoder, Source(name, 1))
        for name in ("192.0.2.1", "192.0.2.16", "2001:db8::1", "fe80::1%eth0", "file")
    }

    assert {name: decoded.taken for name, decoded in sent.items()} == {
        "192.0.2.1": 1, "192.0.2.16": 0, "2001:db8::1": 1, "fe80::1%eth0": 0, "file": 0,
    }  # fmt: skip
    (problem,) = sent["192.0.2.16"].problems
    assert (problem.code, problem.row, problem.raw) == (ProblemCode.NOT_ALLOWED, 0, GOOD)
    assert problem.detail == "192.0.2.16 is in no prefix of `exporters`"


def test_a_refused_exporter_between_allowed_ones_leaves_the_rows_of_problems_right() -> None:
    base = frames_of([GOOD, GOOD, b"x"], EXPORTER, 7, [0, 1 << 16, 2 << 16])
    frames = dataclasses.replace(base, sources=(EXPORTER, Source("203.0.113.9", 1)), source=np.array([1, 0, 0], np.uint16))

    decoded = ExportDecoder(NetflowConfig(exporters=("192.0.2.0/24",)).exporters).feed(frames)  # type: ignore[arg-type]

    assert decoded.taken == 1
    assert {problem.row: problem.code for problem in decoded.problems} == {0: ProblemCode.NOT_ALLOWED, 2: ProblemCode.TRUNCATED}


def test_prefixes_with_host_bits_are_refused() -> None:
    with pytest.raises(ValidationError, match="host bits"):
        NetflowConfig(exporters=("192.0.2.1/24",))  # type: ignore[arg-type]
