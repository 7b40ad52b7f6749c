"""Framing of syslog on a stream: octet counting and newlines, whatever the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.rfc6587 import SyslogFramer

SMALL = 40


def cut(chunks: Sequence[bytes], max_bytes: int = SMALL) -> list[bytes]:
    framer = SyslogFramer(max_bytes)
    frames = []
    for data, bounds in [*map(framer.cut, chunks), framer.finish()]:
        assert (bounds[0], bounds[-1]) == (0, len(data))
        assert framer.pending < 2 * (max_bytes + 1)
        frames += [data[start:end] for start, end in pairwise(bounds)]
    return frames


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b"5 <1>ab5 <2>cd", [b"5 <1>ab", b"5 <2>cd"]),
        (b"<1>ab\n<2>cd\n", [b"<1>ab\n", b"<2>cd\n"]),
        (b"6 <1>a\nb<2>cd\n5 <3>ef", [b"6 <1>a\nb", b"<2>cd\n", b"5 <3>ef"]),
        (b"123 text\n05 <1>a\n", [b"123 text\n", b"05 <1>a\n"]),
        (b"9 <1>cut", [b"9 <1>cut"]),
        (b"12345678", [b"12345678"]),
        (b"123456789 <1>a\n", [b"123456789 <1>a\n"]),
        (b"", []),
    ],
)
def test_octet_counting_and_newlines_are_told_apart_for_each_frame(stream: bytes, frames: list[bytes]) -> None:
    assert cut([stream]) == frames


_PARTS = st.sampled_from(
    [b"5 <1>ab", b"<2>cd\n", b"90 <", b"99999999 <", b"1", b"12", b" ", b"<", b"\n", b"x" * 30, b"45 <" + b"y" * 44]
)


@given(st.lists(_PARTS, max_size=12).map(b"".join), st.lists(st.integers(0, 400)))
@settings(max_examples=300)
def test_any_chunking_gives_the_same_frames_and_loses_no_byte(stream: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in cuts)})

    frames = cut([stream[start:end] for start, end in pairwise(places)])

    assert frames == cut([stream])
    assert b"".join(frames) == stream


def test_a_counted_frame_that_is_too_long_comes_in_pieces_and_the_next_one_is_good() -> None:
    message = b"<13>" + b"\n<14>forged" * 20
    long = b"%d %s" % (len(message), message)

    *pieces, last = cut([long + b"5 <1>ab"])

    assert (b"".join(pieces), last) == (long, b"5 <1>ab")
    assert all(len(piece) > SMALL for piece in pieces)
