"""Cutting a file of export datagrams that follow each other with nothing between them.

Each version marks where a datagram ends in its own way, which its framer's `_walk` knows. Where a header is not to be
believed nothing says where the next one begins: all that follows comes in frames of UNCUT_BYTES, counted from there,
the last one shorter, for the decoder to reject.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

from collectors.elements import Ints

UNCUT_BYTES = 64 * 1024  # what a dead letter holds of a frame


class DatagramFramer(ABC):
    """The framer of NetFlow, IPFIX and sFlow: holds the unfinished datagram between two calls."""

    head_bytes = 0

    def __init__(self) -> None:
        self._rest = b""
        self._uncut = False

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Ints]:
        """Take the next bytes; return the bytes of the frames that are complete and their n + 1 boundaries in them."""
        data = self._rest + data
        ends = [0]
        if not self._uncut:
            ends += self._walk(data)
        if self._uncut:
            ends += range(ends[-1] + UNCUT_BYTES, len(data) + 1, UNCUT_BYTES)
        self._rest = data[ends[-1] :]
        return data[: ends[-1]], np.array(ends, np.int64)

    def finish(self) -> tuple[bytes, Ints]:
        """Return what is left at the end of the stream, cut so that no frame is longer than UNCUT_BYTES."""
        rest, self._rest = self._rest, b""
        ends = [*range(0, len(rest), UNCUT_BYTES), len(rest)] if rest else [0]
        return rest, np.array(ends, np.int64)

    @abstractmethod
    def _walk(self, data: bytes) -> Iterator[int]:
        """Yield where each whole datagram of `data` ends; set `_uncut` at a header that is not to be believed."""
