"""Framing of syslog on a byte stream (RFC 6587): octet counting and newlines, told apart for each frame.

Samples: `83 <34>1 2026-11-25T22:14:15.003Z mail su - ID47 - 'su root' failed` (the count is that of the octets after it)
<34>Nov 25 22:14:15 mail su: 'su root' failed\n
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from collectors.lines import MAX_LINE_BYTES, NO_FRAMES, pieces

MAX_FRAME_BYTES = MAX_LINE_BYTES

Ints = npt.NDArray[np.int64]

COUNT = re.compile(rb"([1-9][0-9]{0,7}) (?=<)")  # RFC 6587 3.4.1
_COUNT_BEGUN = re.compile(rb"[1-9][0-9]{0,7} ?")


class SyslogFramer:
    """Cuts a TCP stream into messages: octet counting (RFC 6587 3.4.1) or newlines (3.4.2), told apart for each frame.

    A frame that starts with a number, a space and `<` is octet counted and keeps that prefix. What is longer than the
    cap comes in pieces, as those of `collectors/lines.py`.
    """

    head_bytes = 0

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._piece = max_bytes + 1
        self._rest = bytearray()
        self._left = _AT_START
        """What is left of the frame at the start of `_rest`, or one of the two marks below."""

    @property
    def pending(self) -> int:
        """Bytes taken that are not part of a returned frame yet."""
        return len(self._rest)

    def cut(self, data: bytes) -> tuple[bytes, Ints]:
        """Take the next bytes; return the frames that are complete, and the pieces of one that is too long."""
        if self._must_wait(data):
            self._rest += data
            return b"", NO_FRAMES
        if self._rest:
            data = bytes(self._rest) + data
        if self._left <= _AT_START and (lines := self._only_lines(data)) is not None:
            return lines
        bounds = [0]
        while bounds[-1] < len(data):
            if self._left == _AT_START:
                self._left = _frame_length(data, bounds[-1])
            if self._left == _AT_START or not self._cut_one(data, bounds):
                break
        self._rest = bytearray(data[bounds[-1] :])
        return data[: bounds[-1]], np.array(bounds, np.int64)

    def finish(self) -> tuple[bytes, Ints]:
        """Return the last frame, complete or not."""
        rest, self._rest, self._left = bytes(self._rest), bytearray(), _AT_START
        return rest, np.array([0, len(rest)], np.int64) if rest else NO_FRAMES

    def _only_lines(self, data: bytes) -> tuple[bytes, Ints] | None:
        """All frames at once where each ends with a newline and none is counted or in pieces; else None."""
        end = data.rfind(b"\n") + 1
        octets = np.frombuffer(data, np.uint8)
        bounds = np.zeros(data.count(b"\n", 0, end) + 1, np.int64)
        bounds[1:] = np.flatnonzero(octets[:end] == _NEWLINE) + 1
        first = octets[bounds[1:-1] if end == len(data) else bounds[1:]]
        may_be_counted = ((first >= _DIGIT_1) & (first <= _DIGIT_9)).any()
        if self._left == _AT_START and data:
            may_be_counted |= _DIGIT_1 <= data[0] <= _DIGIT_9
        if may_be_counted or np.diff(bounds, append=len(data)).max() >= 2 * self._piece:
            return None
        if end:
            self._left = _TO_NEWLINE if end < len(data) else _AT_START
        elif data:
            self._left = _TO_NEWLINE
        self._rest = bytearray(data[end:])
        return data[:end], bounds

    def _must_wait(self, data: bytes) -> bool:
        """True when nothing can be cut yet; spares joining what is held again and again."""
        held = len(self._rest) + len(data)
        if self._left == _TO_NEWLINE:
            return held < 2 * self._piece and b"\n" not in data
        return held < (self._left if self._left < 2 * self._piece else self._piece)

    def _cut_one(self, data: bytes, bounds: list[int]) -> bool:
        """Add the end of the frame that starts at the last boundary, or those of its pieces; False when it goes on."""
        start = bounds[-1]
        if self._left == _TO_NEWLINE:
            end = data.find(b"\n", start) + 1
            self._cut_pieces(start, end or len(data), bounds, len(data))
        else:
            end = start + self._left
            before = len(bounds)
            self._cut_pieces(start, end, bounds, len(data))
            self._left -= self._piece * (len(bounds) - before)
            end = end if end <= len(data) else 0
        if end:
            bounds.append(end)
            self._left = _AT_START
        return bool(end)

    def _cut_pieces(self, start: int, end: int, bounds: list[int], available: int) -> None:
        if end - start >= 2 * self._piece:
            bounds += pieces(start, end, self._piece, available).tolist()


_AT_START = 0
_TO_NEWLINE = -1
_NEWLINE = ord("\n")
_DIGIT_1, _DIGIT_9 = ord("1"), ord("9")


def _frame_length(data: bytes, start: int) -> int:
    """Length of the counted frame that starts there, `_TO_NEWLINE`, or `_AT_START` when more bytes must tell."""
    if not _DIGIT_1 <= data[start] <= _DIGIT_9:
        return _TO_NEWLINE
    counted = COUNT.match(data, start)
    if counted:
        return counted.end() - start + int(counted[1])
    begun = _COUNT_BEGUN.match(data, start)
    return _AT_START if begun and begun.end() == len(data) else _TO_NEWLINE
