"""Shell that reads a FIFO or standard input: `tcpdump -w - | ringfence run`, or a writer that knows files only.

A FIFO is a stream for as long as some program has it open to write. When the last one closes it, the stream ends; with
`follow` the next writer begins another, whose first frames are marked lossy: what its predecessor did not write nobody
knows. A writer that opens it within POLL_SECS of the last one's end may be taken for the same. Standard input is one
stream, and its end is the end of the input.

Nothing is read ahead: while ringfence is busy the pipe fills and the writer waits, or drops by its own rule. Framers have
bounds of their own; should one still wait for more than `max_pending_bytes`, that is delivered as it is, and the rest of
the stream as it comes, for the decoder to reject.

Source: `name` is the path of a FIFO, or the collector's for standard input, `identity` a hash of it and a random id of
each stream, and the position the byte offset in the stream. Nothing can be read again, so saved positions are empty, and
what the pipe holds at close() is lost unless its writer waits.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from collectors.tail import TailShell
from collectors.udp import boot_identity, readable
from ringfence.batch import Frames, Source
from ringfence.component import Delivery, Framer, Shell
from ringfence.errors import EndOfInput, Permanent
from ringfence.yamlfile import STANDARD_INPUT

READ_BYTES = 1 << 20
MAX_PENDING_BYTES = 32 << 20  # the longest block of pcapng has half of that
POLL_SECS = 0.2
_STDIN = 0

Cut = tuple[bytes, npt.NDArray[np.int64]]


class PipeShell:
    """Reads the FIFO at `path`, or standard input where that is `-`. `name` is that of the collector."""

    def __init__(
        self,
        name: str,
        path: Path,
        framer: Callable[[], Framer],
        follow: bool,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        poll_secs: float = POLL_SECS,
    ) -> None:
        self._path = path
        self._is_stdin = path == STANDARD_INPUT
        self._name = name if self._is_stdin else str(path)
        self._framer = framer
        self._follow = follow and not self._is_stdin
        self._max_pending_bytes = max_pending_bytes
        self._poll_secs = poll_secs
        self._descriptor = -1
        self._stream: _Stream | None = None
        self._lossy = False
        self._is_silent = False
        self._has_ended = False

    async def open(self, position: bytes) -> None:
        """Open the pipe; there is nothing to go back to. Raises Permanent when it cannot be read."""
        await self.close()
        self._stream, self._lossy, self._is_silent, self._has_ended = None, False, False, False
        self._open()

    async def read(self) -> Delivery:
        """Return what the pipe holds, waiting for at least one frame."""
        while not self._has_ended:
            data = await self._bytes()
            if data:
                self._stream = self._stream or self._begin()
                delivery = self._take(self._stream, data)
            else:
                delivery = self._end()
            if delivery is not None:
                return delivery
        raise EndOfInput(f"{self._label} was read to its end")

    async def close(self) -> None:
        """Close the pipe; standard input stays open, as it is not ours."""
        if self._descriptor > _STDIN:
            os.close(self._descriptor)
        self._descriptor = -1

    @property
    def _label(self) -> str:
        return "standard input" if self._is_stdin else str(self._path)

    def _open(self) -> None:
        try:
            if self._is_stdin:
                os.fstat(_STDIN)
                self._descriptor = _STDIN
            else:
                # O_NONBLOCK: not to wait for a writer here
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Permanent(f"{self._label} cannot be read: {error.strerror}") from None

    async def _bytes(self) -> bytes:
        """The next bytes; none when no writer has the pipe open."""
        if self._descriptor < 0:
            raise Permanent(f"{self._label} is not open")
        while True:
            if self._is_silent:  # it is always readable then, and gives nothing
                await asyncio.sleep(self._poll_secs)
            else:
                with suppress(PermissionError):  # what cannot be waited for, such as a file, answers at once
                    await readable(self._descriptor)
            with suppress(BlockingIOError):
                data = os.read(self._descriptor, READ_BYTES)
                self._is_silent = not data
                return data
            self._is_silent = False

    def _begin(self) -> _Stream:
        lossy, self._lossy = self._lossy, False
        return _Stream(Source(self._name, boot_identity(f"pipe {self._name}")), self._framer(), lossy)

    def _take(self, stream: _Stream, data: bytes) -> Delivery | None:
        cut = stream.framer.cut(data)
        if stream.framer.pending <= self._max_pending_bytes:
            return self._delivery(stream, cut)
        rest, _ = stream.framer.finish()
        stream.framer = _Uncut()
        return self._delivery(stream, (cut[0] + rest, np.append(cut[1], len(cut[0]) + len(rest))), {"frame": 1})

    def _end(self) -> Delivery | None:
        """The end of a stream; before its beginning, nothing."""
        stream, self._stream = self._stream, None
        self._has_ended = self._is_stdin or (stream is not None and not self._follow)
        if stream is None:
            return None
        delivery = self._delivery(stream, stream.framer.finish())
        self._lossy = True
        return delivery

    def _delivery(self, stream: _Stream, cut: Cut, caps: dict[str, int] | None = None) -> Delivery | None:
        data, offsets = cut
        count = len(offsets) - 1
        if not count:
            return None
        positions = (offsets[:-1] + stream.offset).astype(np.uint64)
        stream.offset += len(data)
        lossy = frozenset({0} if stream.lossy else ())
        stream.lossy = False
        frames = Frames(
            data,
            offsets,
            np.full(count, time.time_ns() // 1000, np.int64),
            np.zeros(count, np.uint16),
            (stream.source,),
            positions,
            lossy,
        )
        return Delivery(frames, b"", caps=caps or {})


class _Stream:
    """What one writer of a pipe says, from opening it to its end. `lossy` is about what came before its next frame."""

    def __init__(self, source: Source, framer: Framer, lossy: bool) -> None:
        self.source = source
        self.framer = framer
        self.lossy = lossy
        self.offset = 0


class _Uncut:
    """What cannot be cut any more: all that comes is a frame."""

    head_bytes = pending = 0

    def cut(self, data: bytes) -> Cut:
        return data, np.array([0, len(data)])

    def finish(self) -> Cut:
        return b"", np.zeros(1, np.int64)


class PathShell:
    """Reads what a path leads to: standard input for `-`, a FIFO, or a file. Which, is asked when it is opened."""

    def __init__(self, name: str, path: Path, framer: Callable[[], Framer], follow: bool) -> None:
        self._pipe: Shell = PipeShell(name, path, framer, follow)
        self._file: Shell = TailShell(path, framer, follow)
        self._path = path
        self._shell: Shell = self._file

    async def open(self, position: bytes) -> None:
        """Open it. Raises Permanent when it cannot be read."""
        await self.close()
        self._shell = self._pipe if is_pipe(self._path) else self._file
        await self._shell.open(position)

    async def read(self) -> Delivery:
        """Return what is there, waiting for at least one frame."""
        return await self._shell.read()

    async def close(self) -> None:
        """Close it."""
        await self._shell.close()


def is_pipe(path: Path) -> bool:
    """True for `-` and for a FIFO that is there."""
    with suppress(OSError):
        return path == STANDARD_INPUT or stat.S_ISFIFO(path.stat().st_mode)
    return False
