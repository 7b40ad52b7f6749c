"""ringfence's own chains over the corpora, put together from the real parts: framer, decoder, batcher, processors, codec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np

from processors.boundaries import Boundaries
from processors.labels import Labels
from processors.segments import Segments
from ringfence import bus, codec, documents, topology
from ringfence.batch import Batch, Frames, Micros, Record, Source
from ringfence.batching import Batcher, Batching
from ringfence.component import Decoder, Framer

IDENTITY = 0x5EED
SOURCE = Source("bench", IDENTITY)
COLLECTOR = "bench"
YEAR = 2026
"""Of the corpora: times of RFC 3164 have none."""
HIDDEN = frozenset({"event.original"})
"""What the sinks leave out by default."""


class Feed:
    """Frames of one stream: what a shell does, without the reading."""

    def __init__(self, framer: Framer) -> None:
        self.framer = framer
        self._position = 0

    def frames(self, data: bytes) -> Frames:
        """Cut the next bytes of the stream."""
        whole, offsets = self.framer.cut(data)
        count = len(offsets) - 1
        positions = (offsets[:-1] + self._position).astype(np.uint64)
        self._position += len(whole)
        return Frames(whole, offsets, np.zeros(count, np.int64), np.zeros(count, np.uint16), (SOURCE,), positions)


class Chain:
    """Decodes blocks of one format and runs them through the processors."""

    def __init__(self, collector: str, folder: Path, rows: int) -> None:
        kind = import_module(f"collectors.{collector}").KIND
        self._format = kind.formats[0]
        self.decoder: Decoder = self._format.decoder(YEAR)
        self.batcher = Batcher(COLLECTOR, self._format.module, Batching(rows=rows), 1, 0)
        network = topology.load(folder / "topology.yml")
        self._segments, self._boundaries, self._labels = Segments(network), Boundaries(network), Labels(network)
        self.restart()

    def restart(self) -> None:
        """Begin the stream anew; topology, look-ups and caches are those of a process that has run for a while."""
        self.feed = Feed(self._format.framer())
        self.verdicts: Counter[str] = Counter()

    def batches(self, data: bytes) -> Iterator[Batch]:
        """One batch per event class from the next bytes of the stream."""
        return self.sealed(self.feed.frames(data))

    def sealed(self, frames: Frames) -> Iterator[Batch]:
        """One batch per event class from some frames."""
        decoded = self.decoder.feed(frames)
        if decoded.problems:
            raise ValueError(f"the corpus is refused: {decoded.problems[0]}")
        self.batcher.add(decoded.rows, 0.0)
        return self.take()

    def take(self) -> Iterator[Batch]:
        """Everything that the batcher holds."""
        return (batch for _, batch in self.batcher.take(0))

    def judged(self, batch: Batch) -> tuple[Batch, list[Batch]]:
        """The batch with segment codes, and its boundary tests."""
        now = Micros(batch.header.time_max_us)
        processed = self._boundaries.process(self._segments.process(batch, now).batch, now)
        tests = list(processed.outputs.get(bus.BOUNDARY, ()))
        for test in tests:
            counts = test.frame["ringfence.boundary.verdict"].value_counts()
            self.verdicts.update(dict(counts.iter_rows()))
        return processed.batch, tests

    def documents(self, batch: Batch) -> Iterator[bytes]:
        """The JSON lines of a batch and of its boundary tests."""
        events, tests = self.judged(batch)
        for part in (self._labels.process(events, Micros(0)).batch, *tests):
            yield from documents.render(part, HIDDEN)

    def records(self, batch: Batch) -> Iterator[Record]:
        """The blocks that the bus would carry."""
        _, tests = self.judged(batch)
        for part in (batch, *tests):
            yield from codec.encode(part, b"0")


def line_blocks(path: Path, lines: int) -> list[bytes]:
    """A file of lines in blocks of so many."""
    every = path.read_bytes().splitlines(keepends=True)
    return [b"".join(every[start : start + lines]) for start in range(0, len(every), lines)]


def byte_blocks(path: Path, size: int) -> list[bytes]:
    """A file in blocks of so many bytes."""
    data = path.read_bytes()
    return [data[start : start + size] for start in range(0, len(data), size)]
