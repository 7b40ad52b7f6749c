"""Shell that reads a file to its end no faster than its events were recorded, times a speed (`ringfence/pace.py`).

It reads ahead with a framer and a decoder of its own, which tell where each frame ends and when its events were: the
latest of them counts, and a frame without any goes with the one before it. Then it lets the file shell read just the frames
that are due, so a position is that of the file shell, and never names what was not given on. Frames keep the order of the
file: one that is older than its predecessor is due with it. What is due is looked for every TICK_SECS, so a frame is at
most that late and never early.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from collectors.tail import CHUNK_BYTES, TailShell
from ringfence.batch import Decoded, Frames
from ringfence.component import Decoder, Delivery, Framer
from ringfence.errors import EndOfInput
from ringfence.pace import Pace

TICK_SECS = 0.01

Ints = npt.NDArray[np.int64]
_NONE: Ints = np.zeros(0, np.int64)


class PacedShell:
    """Reads `path` at the pace that it shares with other inputs; `decoder` makes the one that reads ahead."""

    def __init__(
        self,
        name: str,
        path: Path,
        framer: Callable[[], Framer],
        decoder: Callable[[], Decoder],
        pace: Pace,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        self._name = name
        self._file = TailShell(path, framer, False, chunk_bytes)
        self._ahead = TailShell(path, framer, False, chunk_bytes)
        self._chunk_bytes = chunk_bytes
        self._new_decoder = decoder
        self._decoder = decoder()
        self._pace = pace
        self._ends, self._times = _NONE, _NONE
        self._granted = 0
        self._latest_us: int | None = None
        self._is_over = False

    async def open(self, position: bytes) -> None:
        """Find the file, and start after `position`. Raises Permanent when it cannot be read."""
        self._decoder, self._latest_us, self._is_over = self._new_decoder(), None, False
        self._ends, self._times, self._granted = _NONE, _NONE, 0
        await self._ahead.open(position)
        await self._file.open(position)

    async def read(self) -> Delivery:
        """Wait for the next frame to be due; return it with all that are due by then."""
        while self._granted <= self._file.reached and not self._is_over:
            if len(self._ends):
                await self._grant()
            else:
                await self._look_ahead()
        # at the end that is a last frame without the newline that would end it
        self._file.chunk_bytes = max(self._granted - self._file.reached, 0) or self._chunk_bytes
        return await self._file.read()

    async def close(self) -> None:
        """Close the file."""
        await self._ahead.close()
        await self._file.close()

    async def _grant(self) -> None:
        """Let the frames be read that are due, or wait for the next one."""
        next_us = int(self._times[0])
        count = int(np.searchsorted(self._times, self._pace.due_us(next_us), "right"))
        if not count:
            await self._pace.until(next_us, TICK_SECS)
            return
        self._granted = int(self._ends[count - 1])
        self._pace.reach(int(self._times[count - 1]))
        self._ends, self._times = self._ends[count:], self._times[count:]

    async def _look_ahead(self) -> None:
        """Plan the frames of the next chunk."""
        try:
            frames = (await self._ahead.read()).frames
        except EndOfInput:
            self._is_over = True
            await self._pace.begin(self._name, None)
            return
        times = frame_times(frames, self._decoder.feed(frames))
        known = np.flatnonzero(times)
        if self._latest_us is None and len(known):
            self._latest_us = int(times[known[0]])
            await self._pace.begin(self._name, self._latest_us)
        if self._latest_us is None or not len(frames):
            return  # what has no time yet goes with the first frame that has one
        self._times = np.maximum.accumulate(np.maximum(times, self._latest_us))
        self._latest_us = int(self._times[-1])
        self._ends = frames.positions.astype(np.int64) + np.diff(frames.offsets)


def frame_times(frames: Frames, decoded: Decoded) -> Ints:
    """The latest event time in each frame, in microseconds; 0 where it has none, or it was before 1970."""
    times = np.zeros(len(frames), np.int64)
    starts = frames.positions
    for rows in decoded.rows.values():
        positions = rows["ringfence.event.position"].to_numpy()
        places = np.searchsorted(starts, positions, "right") - 1
        ours = places >= 0  # others belong to frames that were held
        np.maximum.at(times, places[ours], rows["@timestamp"].to_numpy()[ours])
    return times
