"""The pcap framer: the same frames however the stream is chunked, and no byte lost when it cannot be cut."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.pcap import MAX_PACKET_BYTES, UNCUT_BYTES, Capture, Fault, Order, PcapFramer, read_capture
from ringfence.batch import ProblemCode
from tests.collectors.chunks import chunked
from tests.collectors.encode_pflog import MICROS, NANOS, file_header, record


def frames(chunks: Sequence[bytes]) -> list[bytes]:
    framer = PcapFramer()
    cut: list[bytes] = []
    for data, bounds in [*map(framer.cut, chunks), framer.finish()]:
        assert bounds[0] == 0
        assert bounds[-1] == len(data)
        assert bounds.dtype == np.int64
        cut += [data[start:end] for start, end in zip(bounds.tolist(), bounds[1:].tolist(), strict=False)]
    assert framer.pending == 0
    return cut


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("magic", [MICROS, NANOS], ids=["micro", "nano"])
def test_the_file_header_is_the_first_frame_and_each_record_is_one(order: Order, magic: int) -> None:
    header = file_header(order, magic)
    records = [record(bytes(size), order=order) for size in (0, 1, 700)]

    assert frames([header + b"".join(records)]) == [header, *records]
    assert read_capture(header) == Capture(order, magic == NANOS, 117)


@given(st.lists(st.integers(0, 300), max_size=12), st.lists(st.integers(0, 400), max_size=12), st.integers(0, 30))
def test_any_chunking_gives_the_same_frames(sizes: list[int], chunk_sizes: list[int], cut_off: int) -> None:
    stream = file_header() + b"".join(record(bytes(size)) for size in sizes)
    stream = stream[: max(0, len(stream) - cut_off)]

    assert frames(chunked(stream, chunk_sizes)) == frames([stream])


@given(st.binary(max_size=200), st.lists(st.integers(0, 60), max_size=8), st.booleans())
def test_any_bytes_are_handed_over_completely_and_alike_however_chunked(
    tail: bytes, chunk_sizes: list[int], headed: bool
) -> None:
    stream = (file_header() if headed else b"") + tail

    whole = frames([stream])

    assert b"".join(whole) == stream
    assert frames(chunked(stream, chunk_sizes)) == whole


def test_a_growing_file_gives_each_record_as_soon_as_it_is_complete() -> None:
    framer = PcapFramer()
    first, second = record(b"abc"), record(b"defg")
    framer.cut(file_header() + first[:10])

    data, bounds = framer.cut(first[10:] + second[:-1])

    assert (data, bounds.tolist()) == (first, [0, len(first)])
    assert framer.pending == len(second) - 1
    assert framer.cut(second[-1:])[0] == second


def test_a_new_framer_goes_on_in_the_middle_of_a_file_after_the_head_of_it() -> None:
    first, second = record(b"abc"), record(b"defg")
    stream = file_header() + first + second
    framer = PcapFramer()

    head, _ = framer.cut(stream[: framer.head_bytes])
    rest, bounds = framer.cut(stream[len(file_header() + first) :])

    assert (head, rest, bounds.tolist()) == (file_header(), second, [0, len(second)])


@pytest.mark.parametrize("chunk", [7, 50_000, 1 << 20])
def test_from_an_insane_length_on_everything_is_handed_over_in_blocks(chunk: int) -> None:
    good = record(b"good")
    bad = struct.pack("<IIII", 1, 2, MAX_PACKET_BYTES + 1, MAX_PACKET_BYTES + 1) + bytes(range(256)) * 300
    stream = file_header() + good + bad

    cut = frames([stream[start : start + chunk] for start in range(0, len(stream), chunk)])

    assert cut == [file_header(), good, bad[:UNCUT_BYTES], bad[UNCUT_BYTES:]]


def test_the_largest_packet_is_still_cut() -> None:
    largest = record(bytes(MAX_PACKET_BYTES))

    assert frames([file_header() + largest]) == [file_header(), largest]


def test_more_than_a_stretch_of_records_is_cut_to_the_last_byte() -> None:
    records = [record(bytes(size)) for size in (0, 5, 130, 1500)] * 2000

    assert frames([file_header() + b"".join(records)])[1:] == records


@pytest.mark.parametrize(
    ("header", "code", "offset"),
    [
        (b"", ProblemCode.TRUNCATED, 0),
        (file_header()[:23], ProblemCode.TRUNCATED, 23),
        (b"GET / HTTP/1.1\r\nHost: example\r\n", ProblemCode.MALFORMED, 0),
        (file_header(version=(2, 3)), ProblemCode.UNKNOWN_VERSION, 4),
    ],
    ids=["empty", "cut-off", "http", "version"],
)
def test_a_header_that_cannot_be_used_says_why_and_where(header: bytes, code: ProblemCode, offset: int) -> None:
    fault = read_capture(header)

    assert isinstance(fault, Fault)
    assert (fault.code, fault.offset) == (code, offset)
