"""pcapng: the same rows as from classic pcap, whatever the sections, interfaces and units of time, and any bytes."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.pcap import UNCUT_BYTES, Order
from collectors.pcapng import MAX_BLOCK_BYTES, MAX_INTERFACES, CaptureFramer, Interface, PcapngFramer
from collectors.pflog import KIND, PflogDecoder, recognise
from collectors.tail import TailShell
from ringfence.batch import ProblemCode, Source, frames_of
from tests.collectors.chunks import chunked, pf_rows, read_chunks
from tests.collectors.encode_pcapng import block, enhanced, interface, option, section, simple
from tests.collectors.encode_pflog import Pflog, file_header, ip4, record, tcp

SOURCE = Source("capture.pcapng", 0xFEED)
A4, B4 = socket.inet_aton("10.1.0.5"), socket.inet_aton("10.2.0.9")
PLAIN = Pflog().encode() + ip4(A4, B4, 6, tcp(40000, 22))
NOW = 1_790_000_000_000_005


def frames(chunks: Sequence[bytes], framer: CaptureFramer | PcapngFramer | None = None) -> list[bytes]:
    framer = framer or CaptureFramer()
    cut: list[bytes] = []
    for data, bounds in [*map(framer.cut, chunks), framer.finish()]:
        assert (int(bounds[0]), int(bounds[-1])) == (0, len(data))
        cut += [data[start:end] for start, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)]
    assert framer.pending == 0
    return cut


def read(
    stream: bytes, sizes: Sequence[int] = (), received_us: int = 0
) -> tuple[list[dict[str, Any]], list[Any], dict[str, int]]:
    return read_chunks(CaptureFramer(), PflogDecoder(), SOURCE, stream, sizes, received_us)


ORDERS: tuple[Order, ...] = ("<", ">")
orders = st.sampled_from(ORDERS)
resolutions = st.sampled_from([None, 0, 3, 6, 9, 12, 0x80, 0x80 | 10, 0x80 | 30, 0x80 | 33])


@st.composite
def sections(draw: st.DrawFn) -> bytes:
    order = draw(orders)
    blocks = [section(order, option(4, b"test", order) if draw(st.booleans()) else b"")]
    for _ in range(draw(st.integers(0, 3))):
        resolution = draw(resolutions)
        options = [] if resolution is None else [(2, b"pflog0"), (9, bytes([resolution]))]
        blocks.append(interface(order, draw(st.sampled_from([117, 117, 1])), draw(st.sampled_from([0, 110])), options))
        packets = st.one_of(
            st.builds(enhanced, st.just(Pflog().encode(order) + PLAIN[100:]), st.integers(0, 1 << 51), st.integers(0, 3), st.just(order)),
            st.builds(simple, st.just(PLAIN), st.just(order)),
            st.builds(block, st.sampled_from([2, 4, 5, 10, 0x80000001]), st.binary(max_size=40), st.just(order)),
        )  # fmt: skip
        blocks += draw(st.lists(packets, max_size=5))
    return b"".join(blocks)


@settings(max_examples=150)
@given(st.lists(sections(), min_size=1, max_size=3), st.lists(st.integers(0, 300), max_size=8), st.integers(0, 40))
def test_any_chunking_gives_the_same_rows(parts: list[bytes], sizes: list[int], cut_off: int) -> None:
    stream = b"".join(parts)
    stream = stream[: max(0, len(stream) - cut_off)]

    assert read(stream, sizes) == read(stream)


@settings(max_examples=200)
@given(
    st.lists(sections(), min_size=1, max_size=2),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.lists(st.integers(0, 300), max_size=6),
    st.booleans(),
)
def test_any_bytes_raise_nothing_and_are_accounted_for(
    parts: list[bytes], changes: list[tuple[int, int]], sizes: list[int], arrived: bool
) -> None:
    stream = bytearray(b"".join(parts))
    for at, value in changes:
        stream[at % len(stream)] = value
    received = NOW if arrived else 0

    whole = frames([bytes(stream)])

    assert b"".join(whole) == bytes(stream)
    assert frames(chunked(bytes(stream), sizes)) == whole
    assert read(bytes(stream), sizes, received) == read(bytes(stream), (), received)


def went_on(stream: bytes, at: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """Rows and problems of what follows `at`, read by a framer and a decoder that have but the head of what came before."""
    before, framer, decoder = CaptureFramer(), CaptureFramer(), PflogDecoder()
    before.cut(stream[:at])
    assert before.pending == 0
    assert len(before.head) <= 40 + 40 * MAX_INTERFACES
    head = frames([before.head], framer)
    decoder.feed(frames_of(head, SOURCE))
    rest = frames([stream[at:]], framer)
    starts = at + np.cumsum([0, *map(len, rest)])[:-1]
    decoded = decoder.feed(replace(frames_of(rest, SOURCE), positions=starts.astype(np.uint64)))
    return pf_rows(decoded), [(found.code, found.detail, found.position, found.offset) for found in decoded.problems]


@settings(max_examples=100)
@given(st.lists(sections(), min_size=1, max_size=2), st.lists(st.tuples(st.integers(4, 2000), st.integers(0, 255)), max_size=3))
def test_going_on_at_any_block_gives_the_rows_that_follow(parts: list[bytes], changes: list[tuple[int, int]]) -> None:
    stream = bytearray(b"".join(parts))
    for at, value in changes:
        if at < len(stream):
            stream[at] = value
    found, problems, _ = read(bytes(stream))

    for at in np.cumsum([len(frame) for frame in frames([bytes(stream)])])[:-1].tolist():
        after = [row for row in found if row["ringfence.event.position"] >= at]
        assert went_on(bytes(stream), at) == (after, [problem for problem in problems if problem[2] >= at])


def test_the_head_of_many_long_interfaces_is_short() -> None:
    framer = PcapngFramer()
    framer.cut(section(options=option(1, bytes(60_000))))
    for _ in range(MAX_INTERFACES + 5):
        framer.cut(interface(options=[(1, bytes(500)), (9, b"\x09")]))

    assert len(framer.head) == 28 + 40 * MAX_INTERFACES


@given(st.binary(max_size=120), st.lists(st.integers(0, 30), max_size=6))
def test_random_bytes_after_the_magic_are_handed_over_completely(tail: bytes, sizes: list[int]) -> None:
    for start in (b"\x0a\x0d\x0d\x0a", section(), b""):
        stream = start + tail

        assert b"".join(frames(chunked(stream, sizes))) == stream
        assert read(stream, sizes) == read(stream)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_a_capture_gives_the_same_rows_in_either_format(order: Order) -> None:
    packets = [Pflog(rulenr=number, uid=1000, ruleset=b"blue").encode(order) + PLAIN[100:] for number in range(50)]
    classic = file_header(order) + b"".join(
        record(packet, fraction=number, order=order) for number, packet in enumerate(packets)
    )
    blocks = b"".join(enhanced(packet, 1_790_000_000_000_000 + number, order=order) for number, packet in enumerate(packets))

    found, problems, filtered = read(section(order) + interface(order) + blocks)

    assert (problems, filtered) == ([], {"capture header": 2})
    for row in (*found, *(expected := read(classic)[0])):
        del row["ringfence.event.position"]
    assert found == expected


@given(st.integers(0, 253_402_300_799), st.integers(0, 999_999), st.integers(-1000, 1000))
def test_every_unit_of_time_gives_microseconds(seconds: int, micros: int, offset: int) -> None:
    for exponent in range(6, 20):
        ticks = (seconds * 1_000_000 + micros) * 10 ** (exponent - 6)
        if ticks < 1 << 64:
            unit = Interface(117, 0, exponent, offset)
            assert unit.micros(np.array([ticks], np.uint64)).tolist() == [(seconds + offset) * 1_000_000 + micros]
    for exponent in range(64):
        ticks = seconds << exponent | (micros & ((1 << exponent) - 1))
        if ticks < 1 << 64:
            exact = ticks * 1_000_000 >> exponent
            found = Interface(117, 0, 0x80 | exponent, 0).micros(np.array([ticks], np.uint64)).tolist()[0]
            assert exact - found in (0, 1)
            assert exponent > 40 or exact == found


def test_each_interface_and_section_has_its_own_unit_of_time_and_byte_order() -> None:
    nano = [(9, b"\x09")]
    stream = (
        section() + interface() + interface(options=nano) + enhanced(PLAIN, NOW) + enhanced(PLAIN, NOW * 1000 + 7, 1)
        + section(">") + interface(">", options=[(9, b"\x00"), (14, struct.pack(">q", 3600))])
        + enhanced(Pflog(uid=1001).encode(">") + PLAIN[100:], NOW // 1_000_000, 0, ">")
    )  # fmt: skip

    found, problems, _ = read(stream)

    assert problems == []
    assert [row["@timestamp"] for row in found] == [NOW, NOW, (NOW // 1_000_000 + 3600) * 1_000_000]
    assert [row["ringfence.pf.uid"] for row in found] == [None, None, 1001]


def test_what_is_no_pflog_packet_is_counted() -> None:
    ethernet = interface(linktype=1)
    stream = section() + interface() + ethernet + enhanced(b"frame", number=1) + block(5, bytes(16)) + enhanced(PLAIN)

    found, problems, filtered = read(stream)

    assert (len(found), problems) == (1, [])
    assert filtered == {"capture header": 3, "other link type": 1, "pcapng block": 1}


def test_a_simple_packet_has_the_time_of_arrival_or_none() -> None:
    stream = section() + interface(snaplen=110) + simple(PLAIN[:110], wirelen=len(PLAIN))

    assert [row["@timestamp"] for row in read(stream, received_us=NOW)[0]] == [NOW]
    assert read(stream)[1][0][:2] == (
        ProblemCode.MALFORMED, "Simple Packet Block has no time and its arrival is not known"
    )  # fmt: skip


HEAD = section() + interface()


@pytest.mark.parametrize(
    ("bad", "code", "offset"),
    [
        (enhanced(PLAIN, number=1), ProblemCode.MALFORMED, 8),
        (enhanced(PLAIN, wirelen=10), ProblemCode.MALFORMED, 24),
        (enhanced(PLAIN, ticks=(1 << 64) - 1), ProblemCode.MALFORMED, 12),
        (block(6, bytes(4)), ProblemCode.BAD_LENGTH, 4),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 300, 300) + PLAIN), ProblemCode.TRUNCATED, 20),
        (block(6, struct.pack("<IIIII", 0, 0, 0, 300_000, 300_000) + PLAIN), ProblemCode.BAD_LENGTH, 20),
        (block(2, bytes(20) + PLAIN), ProblemCode.UNKNOWN_VERSION, 0),
        (simple(PLAIN, wirelen=400), ProblemCode.TRUNCATED, 8),
        (enhanced(PLAIN)[:-4] + bytes(4), ProblemCode.BAD_LENGTH, len(enhanced(PLAIN)) - 4),
        (block(1, bytes(4)), ProblemCode.BAD_LENGTH, 4),
        (interface(options=[(9, b"\x20")]), ProblemCode.MALFORMED, 20),
        (block(1, struct.pack("<HHIHH", 117, 0, 0, 2, 99)), ProblemCode.BAD_LENGTH, 18),
        (interface(options=[(14, b"\x7f" * 8)]), ProblemCode.MALFORMED, 20),
    ],
    ids=[
        "interface", "wirelen", "time", "short", "cut", "huge", "obsolete", "simple", "tail", "description", "resolution",
        "option", "offset",
    ],
)  # fmt: skip
def test_a_bad_block_is_one_problem_and_its_neighbours_stay(bad: bytes, code: ProblemCode, offset: int) -> None:
    found, problems, _ = read(HEAD + enhanced(PLAIN) + bad + enhanced(PLAIN))

    assert [(problem[0], problem[2], problem[3]) for problem in problems] == [(code, len(HEAD + enhanced(PLAIN)), offset)]
    assert len(found) == 2


def test_a_packet_of_an_unusable_interface_says_so_and_the_numbers_stay() -> None:
    bad = interface(options=[(9, b"\x20")])

    found, problems, _ = read(section() + bad + interface() + enhanced(PLAIN, number=0) + enhanced(PLAIN, number=1))

    assert [problem[1] for problem in problems][1] == "the description of interface 0 cannot be used"
    assert len(found) == 1


def test_only_so_many_interfaces_are_remembered() -> None:
    _, problems, filtered = read(section() + interface() * (MAX_INTERFACES + 2))

    assert (len(problems), filtered) == (2, {"capture header": MAX_INTERFACES + 1})


@pytest.mark.parametrize("size", [0, 8, 13, MAX_BLOCK_BYTES + 4])
def test_from_an_insane_length_on_everything_is_handed_over_in_blocks(size: int) -> None:
    bad = struct.pack("<II", 6, size) + bytes(UNCUT_BYTES + 100)

    cut = frames([HEAD + enhanced(PLAIN) + bad])
    found, problems, _ = read(HEAD + enhanced(PLAIN) + bad, [1000, 70000])

    assert cut[-2:] == [bad[:UNCUT_BYTES], bad[UNCUT_BYTES:]]
    assert [problem[0] for problem in problems] == [ProblemCode.TOO_LARGE] * 2
    assert "unreadable" in problems[1][1]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("start", "code"),
    [
        (section(major=2), ProblemCode.UNKNOWN_VERSION),
        (section()[:8] + b"\x00\x01\x02\x03" + section()[12:], ProblemCode.TOO_LARGE),
        (section()[:10], ProblemCode.TRUNCATED),
        (block(0x0A0D0D0A, struct.pack("<IHH", 0x1A2B3C4D, 1, 0)), ProblemCode.BAD_LENGTH),
    ],
    ids=["version", "byte-order", "cut-off", "short"],
)
def test_a_section_header_that_cannot_be_used_makes_its_section_unreadable(start: bytes, code: ProblemCode) -> None:
    rest = interface() + enhanced(PLAIN) if len(start) >= 12 else b""

    found, problems, _ = read(start + rest)

    assert found == []
    assert problems[0][0] == code


def test_a_pcapng_file_is_recognised_by_the_link_type_of_its_interfaces() -> None:
    assert recognise(section() + interface(linktype=1) + interface())
    assert recognise(section(">") + interface(">") + b"\0")
    assert not recognise(section() + interface(linktype=1))
    assert not recognise(section() + block(1, bytes(2)))
    assert isinstance(KIND.formats[0].framer(), CaptureFramer)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump: apt-get install -y tcpdump")
def test_tcpdump_reads_what_the_encoder_writes(tmp_path: Path) -> None:
    capture = tmp_path / "pflog.pcapng"
    nano = interface(options=[(9, b"\x09")])
    capture.write_bytes(
        section() + nano + block(5, bytes(16)) + enhanced(PLAIN, NOW * 1000) + enhanced(PLAIN, NOW * 1000 + 1_000_000)
    )

    lines = subprocess.run(
        ["tcpdump", "-n", "-e", "-tt", "-r", str(capture)], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert [line.split()[0] for line in lines] == ["1790000000.000005", "1790000000.001005"]
    assert [row["@timestamp"] for row in read(capture.read_bytes())[0]] == [NOW, NOW + 1000]


def followed(path: Path, *changes: Callable[[], object]) -> list[list[tuple[int, bool]]]:
    """The times, and which of them are lossy, that each change of a followed file brings; it is opened again before each."""

    async def run() -> list[list[tuple[int, bool]]]:
        position = b""
        found: list[list[tuple[int, bool]]] = []
        for change in changes:
            change()
            shell, decoder = TailShell(path, CaptureFramer, True, poll_secs=0.001), PflogDecoder()
            await shell.open(position)
            found.append([])
            while not found[-1]:
                delivery = await asyncio.wait_for(shell.read(), 20)
                position = delivery.position
                decoded = decoder.feed(delivery.frames)
                assert not decoded.problems
                found[-1] += [(row["@timestamp"] - NOW, row["ringfence.evidence.lossy"]) for row in pf_rows(decoded)]
            await shell.close()
        return found

    return asyncio.run(run())


def test_a_growing_file_is_followed_across_restarts_rotation_and_truncation(tmp_path: Path) -> None:
    path = tmp_path / "pflog.pcapng"
    nano = section() + interface(options=[(9, b"\x09")])

    def packet(number: int) -> bytes:
        return enhanced(PLAIN, (NOW + number) * 1000)

    def append(data: bytes) -> None:
        with path.open("ab") as file:
            file.write(data)

    def rotate() -> None:
        append(packet(3)[40:])
        path.rename(path.with_name("pflog.pcapng.0"))
        append(section(">") + interface(">") + enhanced(Pflog().encode(">") + PLAIN[100:], NOW + 4, order=">"))

    found = followed(
        path,
        lambda: append(nano + packet(0) + packet(1)),
        lambda: append(packet(2) + packet(3)[:40]),
        rotate,
        lambda: None,
        lambda: append(enhanced(Pflog().encode(">") + PLAIN[100:], NOW + 5, order=">")),
        lambda: append(section() + interface() + enhanced(PLAIN, NOW + 6)),
        lambda: append(enhanced(PLAIN, NOW + 7)),
        lambda: path.write_bytes(nano + packet(8)),
    )

    assert found == [
        [(0, False), (1, False)], [(2, False)], [(3, False)], [(4, False)],
        [(5, False)], [(6, False)], [(7, False)], [(8, True)],
    ]  # fmt: skip


def test_a_file_that_cannot_be_cut_is_rejected_again_where_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"GET / HTTP/1.1\r\n" * 8200)

    async def run() -> list[Any]:
        position = b""
        found: list[Any] = []
        for _ in range(2):
            shell, decoder = TailShell(path, CaptureFramer, False, chunk_bytes=UNCUT_BYTES), PflogDecoder()
            await shell.open(position)
            for _ in range(2):
                delivery = await shell.read()
                position = delivery.position
                found += [(problem.position, len(problem.raw or b"")) for problem in decoder.feed(delivery.frames).problems]
            await shell.close()
        return found

    assert asyncio.run(run()) == [(0, UNCUT_BYTES), (UNCUT_BYTES, UNCUT_BYTES), (0, 24), (2 * UNCUT_BYTES, 128)]
