"""What must hold whatever the bytes: no exception, every frame accounted for, the same rows however chunked, bounded cost.

`examine` is a function of the format and the bytes alone: where the stream is cut, which frames arrive damaged and which of
the dearer checks are made all follow from a checksum of the input, so a file that fails once fails again.
"""

from __future__ import annotations

import random
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from ringfence.batch import Decoded, Frames, Source
from ringfence.cli.decode import in_order
from ringfence.component import Decoder, Format, Resumable

YEAR = 2026
AT_US = 1_790_000_000_123_456
SOURCES = (Source("192.0.2.1", 1), Source("192.0.2.2", 2))

CPU_SECONDS, CPU_SECONDS_PER_BYTE = 1.0, 5e-6
"""Of one pass over an input. Ten times what the dearest inputs need, so that a slow machine fails nothing and quadratic work does."""
PEAK_BYTES, PEAK_BYTES_PER_BYTE = 4 << 20, 64
"""Python and numpy memory of one pass."""
REPEATED_BYTES = 64 << 10
"""To what size an input is repeated before its cost is looked at."""


class Broken(AssertionError):
    """An input that breaks a promise of decoders."""


def cut(chosen: Format, chunks: Sequence[bytes]) -> list[Frames]:
    """The frames of a stream that arrives in these chunks, placed as a file's are."""
    framer, blocks, at = chosen.framer(), [], 0
    for data, offsets in (*map(framer.cut, chunks), framer.finish()):
        count = len(offsets) - 1
        if int(offsets[0]) != 0 or int(offsets[-1]) != len(data) or (np.diff(offsets) <= 0).any():
            raise Broken(f"the framer returned boundaries {offsets.tolist()} of {len(data)} bytes")
        positions = (offsets[:-1] + at).astype(np.uint64)
        nothing = np.zeros(count, np.int64)
        blocks.append(Frames(data, offsets, nothing, np.zeros(count, np.uint16), SOURCES[:1], positions))
        at += len(data)
    if b"".join(block.data for block in blocks) != b"".join(chunks):
        raise Broken("the framer lost or changed bytes")
    return blocks


def feed(decoder: Decoder, blocks: Sequence[Frames], held: int | None = 0) -> list[Decoded]:
    """What a decoder makes of blocks; raises Broken when it does not account for each frame.

    `held` is how many frames the decoder was restored with; None when that is not known.
    """
    found: list[Decoded] = []
    frames, accounted = held or 0, 0
    for block in blocks:
        decoded = decoder.feed(block)
        found.append(decoded)
        frames += len(block)
        accounted += decoded.taken + len(decoded.problems) + sum(decoded.filtered.values())
        if held is not None and accounted + decoded.held != frames:
            raise Broken(f"of {frames} frames {accounted} are accounted for and {decoded.held} held")
        if any(problem.row is not None and not 0 <= problem.row < len(block) for problem in decoded.problems):
            raise Broken(f"a problem is of a row that is not among {len(block)}: {decoded.problems}")
    return found


def examine(chosen: Format, data: bytes) -> int:
    """Check one input; returns how many frames were decoded. Raises Broken, or whatever a decoder raises."""
    dice = random.Random(zlib.crc32(data))
    blocks = cut(chosen, list(_chunks(data, dice)))
    frames = sum(map(len, blocks))
    _within_cpu(chosen, len(data), lambda: feed(chosen.decoder(YEAR), blocks))
    if dice.random() < 1 / 4:
        frames += _as_datagrams(chosen, blocks, dice)
    if dice.random() < 1 / 8:
        _same_rows(chosen, data, blocks)
    if dice.random() < 1 / 8:
        _restored(chosen, data, blocks, dice)
    if dice.random() < 1 / 512:
        _within_limits(chosen, blocks)
    return frames


def _chunks(data: bytes, dice: random.Random) -> Iterator[bytes]:
    """The stream in one to four pieces."""
    places = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(4)))
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


def _as_datagrams(chosen: Format, blocks: Sequence[Frames], dice: random.Random) -> int:
    """No framer promises what one datagram holds: frames cut short, run together, empty or out of order, of two senders."""
    parts = [part for block in blocks for part in block.slices()]
    if dice.random() < 1 / 2:
        dice.shuffle(parts)
    for place, part in enumerate(parts):
        if dice.random() < 1 / 4:
            at = dice.randrange(len(part) + 1)
            other_byte = part[:at] + dice.randbytes(1) + part[at + 1 :]
            parts[place] = dice.choice((part[:at], part + dice.choice(parts), b"", part[1:], other_byte, other_byte))
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    source = np.array([dice.randrange(2) for _ in parts], np.uint16)
    positions = np.arange(len(parts), dtype=np.uint64) << np.uint64(16)
    lossy = frozenset({1}) if dice.random() < 1 / 4 else frozenset()
    received = np.full(len(parts), AT_US, np.int64)
    feed(chosen.decoder(YEAR), [Frames(b"".join(parts), offsets, received, source, SOURCES, positions, lossy)])
    return len(parts)


def _same_rows(chosen: Format, data: bytes, blocks: Sequence[Frames]) -> None:
    """The stream in one chunk gives the same documents and problems as in several; each document is strict JSON."""
    ways = []
    for way in (blocks, cut(chosen, [data])):
        decoded = feed(chosen.decoder(YEAR), way)
        lines = sorted(line for part in decoded for line in in_order(_without_loss(part), chosen.module))
        problems = sorted(
            (item.position, item.code, item.detail, item.offset or 0) for part in decoded for item in part.problems
        )
        ways.append((lines, problems, decoded[-1].held))
    for line in ways[0][0]:
        msgspec.json.decode(line)  # refuses NaN, infinity and what is no UTF-8
    for chunked, whole in zip(*ways, strict=True):
        if chunked != whole:
            raise Broken(f"in chunks {_first_difference(chunked, whole)}")


def _without_loss(decoded: Decoded) -> Decoded:
    """Whether a gap was filled in time depends on what else is in the block."""
    rows = {name: frame.drop("ringfence.evidence.lossy", strict=False) for name, frame in decoded.rows.items()}
    return replace(decoded, rows=rows)


def _first_difference(chunked: object, whole: object) -> str:
    if isinstance(chunked, list) and isinstance(whole, list):
        only = [item for item in chunked if item not in whole][:1], [item for item in whole if item not in chunked][:1]
        return f"there is {only[0]}, as a whole {only[1]}; {len(chunked)} and {len(whole)} in all"
    return f"{chunked} frames are held, as a whole {whole}"


def _restored(chosen: Format, data: bytes, blocks: Sequence[Frames], dice: random.Random) -> None:
    """A decoder goes on from the snapshot of another, and none is stopped by one that is damaged."""
    decoder = chosen.decoder(YEAR)
    if not isinstance(decoder, Resumable):
        return
    before = sum(part.held for part in feed(decoder, blocks)[-1:])
    state = decoder.snapshot()
    place = dice.randrange(len(state) + 1)
    damaged = state[:place] + dice.randbytes(1) + state[place + 1 :]
    for stored, held in ((state, before), (damaged, None), (data, None)):
        resumed = chosen.decoder(YEAR)
        assert isinstance(resumed, Resumable)
        resumed.restore(stored)
        feed(resumed, blocks, held)


def _within_limits(chosen: Format, blocks: Sequence[Frames]) -> None:
    """The input after its first frame again and again, as a sender could: cost must grow with the bytes and no faster."""
    parts = [part for block in blocks for part in block.slices()]
    rest = b"".join(parts[1:])
    if not rest:
        return
    data = parts[0] + rest * (REPEATED_BYTES // len(rest) + 1)
    _within_cpu(chosen, len(data), lambda: feed(chosen.decoder(YEAR), cut(chosen, [data])))
    tracemalloc.start()
    try:
        feed(chosen.decoder(YEAR), cut(chosen, [data]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > PEAK_BYTES + PEAK_BYTES_PER_BYTE * len(data):
        raise Broken(f"{len(data)} bytes took {peak} bytes of memory")


def _within_cpu(chosen: Format, size: int, work: Callable[[], object]) -> None:
    """Slow three times over, or it was the machine."""
    limit = CPU_SECONDS + CPU_SECONDS_PER_BYTE * size
    spent = []
    for _ in range(3):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
        if spent[-1] <= limit:
            return
    raise Broken(f"{size} bytes of {chosen.name} took {min(spent):.2f} s of CPU; at most {limit:.2f} s are allowed")
