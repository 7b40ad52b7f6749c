"""Newline framing: the same frames however a stream is chunked, and over-long lines that never pass for records."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collectors.lines import MAX_STREAMS, Continuations, LineFramer
from ringfence.batch import Frames, Source, frames_of

SMALL = 8


def frames(chunks: list[bytes], max_bytes: int = SMALL) -> list[bytes]:
    framer = LineFramer(max_bytes)
    return [frame for data, bounds in [*map(framer.cut, chunks), framer.finish()] for frame in split(data, bounds.tolist())]


def split(data: bytes, bounds: list[int]) -> list[bytes]:
    assert (bounds[0], bounds[-1]) == (0, len(data))
    return [data[start:end] for start, end in pairwise(bounds)]


def chunked(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in pairwise(places)]


def test_a_line_keeps_its_newline_and_the_last_one_may_lack_it() -> None:
    assert frames([b"a\n\nbc\nd"]) == [b"a\n", b"\n", b"bc\n", b"d"]


def test_an_unfinished_line_is_pending() -> None:
    framer = LineFramer()

    data, _ = framer.cut(b"one\ntw")

    assert (data, framer.pending) == (b"one\n", 2)
    assert framer.finish()[0] == b"tw"
    assert framer.pending == 0


@given(st.text("ab\n").map(str.encode), st.lists(st.integers(0, 200)))
def test_any_chunking_gives_the_same_frames_and_loses_no_byte(data: bytes, cuts: list[int]) -> None:
    cut = frames(chunked(data, cuts))

    assert cut == frames([data])
    assert b"".join(cut) == data


@given(st.integers(0, 100), st.lists(st.integers(0, 200)))
def test_every_piece_of_an_over_long_line_is_longer_than_the_cap(length: int, cuts: list[int]) -> None:
    line = b"x" * length + b"\n"

    pieces = frames(chunked(b"ok\n" + line + b"ok\n", cuts))[1:-1]

    assert b"".join(pieces) == line
    if len(line) > SMALL:
        assert all(SMALL < len(piece) < 2 * (SMALL + 1) for piece in pieces)


def test_no_more_than_two_pieces_are_held() -> None:
    framer = LineFramer(SMALL)

    held = []
    for _ in range(1000):
        framer.cut(b"xyz")
        held.append(framer.pending)

    assert max(held) < 2 * (SMALL + 1)


def test_continuations_tell_the_rest_of_a_long_line_from_the_next_line() -> None:
    cut = frames([b"ok\n" + b"x" * 40 + b"\nok\n" + b"y" * 12 + b"\n"])

    rows = Continuations(SMALL).of(frames_of(cut, Source("file", 1)))

    assert [cut[row] for row in sorted(rows)] == cut[2:5]
    assert b"".join(cut[1:5]) == b"x" * 40 + b"\n"


def test_continuations_follow_a_line_over_blocks_and_keep_streams_apart() -> None:
    continuations = Continuations(SMALL)
    piece = b"x" * (SMALL + 1)

    def of(*named: tuple[int, bytes]) -> frozenset[int]:
        sources = tuple(Source(str(identity), identity) for identity, _ in named)
        joined = frames_of([data for _, data in named], sources[0])
        index = np.arange(len(named), dtype=np.uint16)
        return continuations.of(Frames(joined.data, joined.offsets, joined.received_us, index, sources, joined.positions))

    assert of((1, piece), (2, piece), (1, piece)) == {2}
    assert of((2, piece + b"\n"), (1, piece)) == {0, 1}
    assert of((2, piece), (1, b"ok\n")) == frozenset()


def test_continuations_forget_the_oldest_of_too_many_streams() -> None:
    continuations = Continuations(SMALL)
    piece = b"x" * (SMALL + 1)

    for identity in range(MAX_STREAMS + 1):
        continuations.of(frames_of([piece], Source("peer", identity)))

    assert continuations.of(frames_of([piece], Source("peer", 0))) == frozenset()
    assert continuations.of(frames_of([piece], Source("peer", MAX_STREAMS))) == {0}
