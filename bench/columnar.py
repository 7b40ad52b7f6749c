"""ringfence's own chains over the corpora, put together from the real parts: framer, decoder, batcher, processors, codec."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
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
from ringfence.schema import together

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

    def __init__(self, collector: str, folder: Path, rows: int, format_name: str = "") -> None:
        kind = import_module(f"collectors.{collector}").KIND
        self._format = next(entry for entry in kind.formats if entry.name == (format_name or entry.name))
        self.decoder: Decoder = self._format.decoder(YEAR)
        self.batcher = Batcher(COLLECTOR, self._format.module, Batching(rows=rows), 1, 0)
        network = topology.load(folder / "topology.yml")
        self._segments, self._boundaries, self._labels = Segments(network), Boundaries(network), Labels(network)
        self.restart()

    def restart(self) -> None:
        """Begin the stream anew; topology, look-ups and caches are those of a process that has run for a while."""
        self.feed = Feed(self._format.framer())
        self.verdicts: Counter[str] = Counter()

    def steps(self, blocks: Iterable[bytes]) -> Iterator[list[Batch]]:
        """The stream in steps, as the runtime makes them: sealed when a class has enough rows, one batch per class."""
        for data in blocks:
            decoded = self.decoder.feed(self.feed.frames(data))
            if decoded.problems:
                raise ValueError(f"the corpus is refused: {decoded.problems[0]}")
            self.batcher.add(decoded.rows, 0.0)
            if self.batcher.due(0.0):
                yield self.take()
        yield self.take()

    def take(self) -> list[Batch]:
        """Everything that the batcher holds."""
        return [batch for _, batch in self.batcher.take(0)]

    def judged(self, batch: Batch) -> tuple[Batch, list[Batch]]:
        """The batch with segment codes, and its boundary tests."""
        now = Micros(batch.header.time_max_us)
        processed = self._boundaries.process(self._segments.process(batch, now).batch, now)
        tests = list(processed.outputs.get(bus.BOUNDARY, ()))
        for test in tests:
            counts = test.frame["ringfence.boundary.verdict"].value_counts()
            self.verdicts.update(dict(counts.iter_rows()))
        return processed.batch, tests

    def documents(self, batches: list[Batch]) -> Iterator[bytes]:
        """The JSON lines of a step: its events, and its boundary tests as one batch."""
        tests = []
        for batch in batches:
            events, made = self.judged(batch)
            tests += made
            yield from documents.render(self._labels.process(events, Micros(0)).batch, HIDDEN)
        for test in one_batch(tests):
            yield from documents.render(test, HIDDEN)

    def records(self, batches: list[Batch]) -> Iterator[Record]:
        """The blocks that the bus would carry for a step."""
        tests = []
        for batch in batches:
            tests += self.judged(batch)[1]
            yield from codec.encode(batch, b"0")
        for test in one_batch(tests):
            yield from codec.encode(test, b"0")


def one_batch(tests: list[Batch]) -> list[Batch]:
    """The boundary tests of a step as the process stage joins them; none when there are none."""
    return [Batch(tests[0].header, together([test.frame for test in tests]))] if tests else []


def line_blocks(path: Path, lines: int) -> list[bytes]:
    """A file of lines in blocks of so many."""
    every = path.read_bytes().splitlines(keepends=True)
    return [b"".join(every[start : start + lines]) for start in range(0, len(every), lines)]


def byte_blocks(path: Path, size: int) -> list[bytes]:
    """A file in blocks of so many bytes."""
    data = path.read_bytes()
    return [data[start : start + size] for start in range(0, len(data), size)]
