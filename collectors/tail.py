"""Shell that reads a file to its end, or follows it while it grows and is rotated.

A position is JSON: `fingerprint` (hash of the first `fingerprint_bytes` bytes, at most 1024), `inode`, `generation`,
`identity`, and `offset`, the first byte that is not part of a returned frame. So an unfinished last line is read again
after a restart, neither lost nor repeated. `head` holds the lines that a HeadedFramer needs again. The file is found again by its fingerprint: at its path or, rotated while
nobody read, as `path.0`, `path.1`, ...; of several alike (young files with one header) the one with the same inode.

Each file that the path leads to is a stream of its own: `generation` counts them, so that two that begin alike have two
identities. A rename, a new symlink target or a removal ends a file when its successor holds bytes and one more read
found the old one at its end: by then its writer has left it. A file that was cut to a smaller size, or whose beginning
is another one now, was truncated: what was not read yet is looked for in its copy (copytruncate), then the file is read
from its start. What was written between copy and truncation is gone and nobody can know, so the first frames after a
truncation, or after a file that was not found again, are marked lossy. What can be known of it is logged and counted: how
long the window was, from the last byte of the copy (or of what was read, if that is later) to the truncation, and how
much that is at the rate at which the file grew.

Files are regular files in one directory; compressed or dated siblings are not read. With `follow`, a file that does not
exist yet is waited for; without, it is Permanent. Without `follow`, `received_us` is 0: a replay is deterministic.

Sample: {"fingerprint":"52b5...","fingerprint_bytes":1024,"generation":0,"head":"","identity":5959,"inode":131,"offset":81920}
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from ringfence.batch import Frames, Source
from ringfence.component import Delivery, Framer, HeadedFramer
from ringfence.errors import EndOfInput, Permanent, Retryable
from ringfence.files import FINGERPRINT_BYTES, identity_of
from ringfence.telemetry import FILE_LOSS_BYTES, FILE_LOSS_SECONDS, FILE_TRUNCATIONS

CHUNK_BYTES = 4 << 20  # some 5,000 lines of EVE: a decoder wants many at once, the loop wants it back in 50 ms
POLL_SECS = 0.2

_log = logging.getLogger(__name__)


class _Saved(msgspec.Struct, frozen=True):
    """A position as the runtime keeps it."""

    fingerprint: str
    fingerprint_bytes: int
    generation: int
    identity: int
    inode: int
    offset: int
    head: bytes = b""


class TailShell:
    """Reads `path` from its beginning or its saved position. Local files only, which answer at once or not at all.

    A read of 4 MiB from a local file takes 1 ms, a fraction of what decoding it takes in the same loop. `chunk_bytes`, the
    size of the next read, may be changed between two.
    """

    def __init__(
        self,
        path: Path,
        framer: Callable[[], Framer],
        follow: bool,
        chunk_bytes: int = CHUNK_BYTES,
        poll_secs: float = POLL_SECS,
    ) -> None:
        self._path = path
        self._framer = framer
        self._follow = follow
        self.chunk_bytes = chunk_bytes
        self._poll_secs = poll_secs
        self._file: _File | None = None
        self._generation = 0
        self._lossy = False
        self._ended = False
        self._refused: set[Path] = set()

    @property
    def reached(self) -> int:
        """Place in the file of the next byte to be read."""
        return 0 if self._file is None else self._file.offset + self._file.framer.pending

    async def open(self, position: bytes) -> None:
        """Find the file of `position` again, or start at the path. Raises Permanent when it cannot be read."""
        await self.close()
        self._generation, self._lossy, self._ended = 0, False, False
        if position:
            self._resume(self._decode(position))
        else:
            self._file = self._open_path()

    async def read(self) -> Delivery:
        """Return the frames of the next chunk; when following, wait for growth or a successor."""
        while True:
            try:
                delivery = self._next()
            except OSError as error:
                raise Retryable(f"{self._path} cannot be read: {error.strerror}") from None
            if delivery is not None:
                return delivery
            if self._ended:
                raise EndOfInput(f"{self._path} was read to its end")
            await asyncio.sleep(self._poll_secs)

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _next(self) -> Delivery | None:
        """The next frames, or None when there is nothing to read now."""
        while True:
            self._file = file = self._file or self._open_path()
            if file is None:
                return None
            if file.needs_head:
                return self._deliver_head(file)
            chunk = file.read(self.chunk_bytes)
            if self._follow and not file.is_intact():
                delivery = self._on_truncation(file)
            elif chunk:
                delivery = self._deliver(file, file.framer.cut(chunk))
            else:
                successor = self._successor(file)
                if successor is None and self._follow:
                    return None
                delivery = self._finish(file, successor)
            if delivery is not None or self._ended:
                return delivery

    def _finish(self, file: _File, successor: _File | None) -> Delivery | None:
        """Read an ended file once more; if it is at its end, give its last line, and go on with the successor."""
        chunk = file.read(self.chunk_bytes)
        if chunk:
            if successor is not None:
                successor.close()
            return self._deliver(file, file.framer.cut(chunk))
        delivery = self._deliver(file, file.framer.finish())
        if successor is None:
            self._ended = True
            return delivery
        file.close()
        self._generation += 1
        successor.generation, successor.lossy = self._generation, file.is_copy
        self._file = successor
        return delivery

    def _on_truncation(self, file: _File) -> Delivery | None:
        """Go on in the copy if there is one, else give what was held of the old content; then start over."""
        copy = self._find(file.saved(), self._siblings())
        seconds, lost = file.loss(copy)
        FILE_TRUNCATIONS.labels(str(self._path)).inc()
        FILE_LOSS_SECONDS.labels(str(self._path)).inc(seconds)
        FILE_LOSS_BYTES.labels(str(self._path)).inc(lost)
        since = "its copy was made" if copy is not None else "it was last read"
        detail = "%s was truncated: what was written after %s is lost, %.3f s, about %d bytes offset=%d"
        _log.error(detail, self._path, since, seconds, lost, file.offset)
        if copy is not None:
            file.close()
            self._file = copy
            return None
        delivery = self._deliver(file, file.framer.finish())
        self._generation += 1
        file.restart(self._generation, self._framer())
        return delivery

    def _deliver(self, file: _File, cut: tuple[bytes, npt.NDArray[np.int64]]) -> Delivery | None:
        data, offsets = cut
        start = file.offset
        file.offset += len(data)
        return self._delivery(file, data, offsets, start) if len(offsets) > 1 else None

    def _deliver_head(self, file: _File) -> Delivery:
        """Give a framer and decoder that go on in the middle of a file what they need of its beginning, again."""
        file.needs_head = False
        data, offsets = file.framer.cut(file.saved_head or file.head(file.framer.head_bytes))
        if file.framer.pending:  # the beginning of what cannot be cut
            rest, _ = file.framer.finish()
            data, offsets = data + rest, np.append(offsets, len(data) + len(rest))
        return self._delivery(file, data, offsets, 0)

    def _delivery(self, file: _File, data: bytes, offsets: npt.NDArray[np.int64], start: int) -> Delivery:
        count = len(offsets) - 1
        received_us = time.time_ns() // 1000 if self._follow else 0
        lossy, file.lossy = frozenset({0} if file.lossy else ()), False
        frames = Frames(
            data,
            offsets,
            np.full(count, received_us, np.int64),
            np.zeros(count, np.uint16),
            (Source(str(self._path), file.identity),),
            (offsets[:-1] + start).astype(np.uint64),
            lossy,
        )
        return Delivery(frames, msgspec.json.encode(file.saved()))

    def _open_path(self) -> _File | None:
        """The file at the path; None when it is not there and will be waited for."""
        try:
            return _File(self._path, self._framer(), self._generation, self._lossy)
        except FileNotFoundError as error:
            if self._follow:
                return None
            raise self._unreadable(error) from None
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> Permanent:
        return Permanent(f"{self._path} cannot be read: {error.strerror}")

    def _try_open(self, path: Path) -> _File | None:
        """A file that may have gone meanwhile, or whose owner and mode logrotate has yet to set."""
        try:
            return _File(path, self._framer(), self._generation)
        except FileNotFoundError:
            return None
        except OSError as error:
            if path not in self._refused:
                self._refused.add(path)
                _log.warning("%s cannot be read: %s; it is tried again", path, error.strerror)
            return None

    def _decode(self, position: bytes) -> _Saved:
        try:
            return msgspec.json.decode(position, type=_Saved)
        except msgspec.DecodeError as error:
            raise Permanent(f"the saved position of {self._path} cannot be used: {error}") from None

    def _resume(self, saved: _Saved) -> None:
        self._generation = saved.generation
        self._file = self._find(saved, [self._path, *self._siblings()])
        if self._file is not None and self._file.is_copy:
            FILE_TRUNCATIONS.labels(str(self._path)).inc()
            detail = "%s was copied and truncated while nobody read: what was written in between is lost, nobody knows how much"
            _log.error(detail, self._path)
        if self._file is None:
            _log.error("%s is not the file that was read, nor is any sibling: starting over, its rest is lost", self._path)
            self._lossy = True
            self._generation += 1
            self._file = self._open_path()

    def _find(self, saved: _Saved, paths: list[Path]) -> _File | None:
        """The file that begins as the saved one did and is no shorter than what was read of it."""
        found: _File | None = None
        for path in paths:
            file = self._try_open(path)
            if file is None:
                continue
            if not file.continues(saved) or (found is not None and file.inode != saved.inode):
                file.close()
                continue
            if found is not None:
                found.close()
            found = file
            if file.inode == saved.inode:
                break
        return found

    def _siblings(self) -> list[Path]:
        """`path.0`, `path.1`, ... as far as they exist, youngest first."""
        prefix = f"{self._path.name}."
        try:
            names = os.listdir(self._path.parent)
        except OSError:
            return []
        numbers = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        numbered = sorted((int(number), number) for number in numbers if number.isascii() and number.isdigit())
        return [self._path.with_name(prefix + number) for _, number in numbered]

    def _successor(self, file: _File) -> _File | None:
        """The next younger file that holds bytes; None while the path still leads to this one."""
        if file.is_at(self._path):
            return None
        siblings = self._siblings()
        older = next((index for index, path in enumerate(siblings) if file.is_at(path)), 0)
        for path in reversed([self._path, *siblings[:older]]):
            successor = self._try_open(path)
            if successor is not None and not successor.is_empty:
                return successor
            if successor is not None:
                successor.close()
        return None


class _File:
    """One open file: what names it, and how far it was read. `lossy` is about what came before its next frame.

    `is_copy` is true for what copytruncate left of the saved file: it may lack the last bytes of that.
    """

    def __init__(self, path: Path, framer: Framer, generation: int, lossy: bool = False) -> None:
        self.framer = framer
        self.generation = generation
        self.lossy = lossy
        self.is_copy = False
        self.needs_head = False
        self.saved_head = b""
        self.offset = 0
        self._growth: tuple[int, int] | None = None
        self._intact = (0, 0)
        self._identity: int | None = None
        # O_NONBLOCK: a FIFO must be refused, not waited for
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(self._fd)
            _check_regular(status.st_mode)
            self.inode = status.st_ino
            self._device = status.st_dev
            self._head = os.pread(self._fd, FINGERPRINT_BYTES, 0)
        except OSError:
            os.close(self._fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def read(self, size: int) -> bytes:
        """The bytes that follow those that the framer has."""
        return os.pread(self._fd, size, self.offset + self.framer.pending)

    def head(self, size: int) -> bytes:
        """The first bytes."""
        return os.pread(self._fd, size, 0)

    def is_intact(self) -> bool:
        """True when the file was not truncated.

        Asked after a read: were it asked before, the bytes could be those of the new content. The fingerprint grows to
        its full length with the file.
        """
        head = os.pread(self._fd, FINGERPRINT_BYTES, 0)
        size = os.fstat(self._fd).st_size
        if not head.startswith(self._head) or size < self.offset + self.framer.pending:
            return False
        self._head = head
        self._intact = (time.time_ns(), size)
        self._growth = self._growth or self._intact
        return True

    def loss(self, copy: _File | None) -> tuple[float, int]:
        """For how many seconds what was written before a truncation is lost, at most, and how many bytes that may be."""
        status = os.fstat(self._fd)
        # a file that is still empty tells when it was cut; one that has grown again does not
        until = time.time_ns() if status.st_size else status.st_mtime_ns
        read_at, size = self._intact
        since = read_at if copy is None else max(read_at, os.fstat(copy._fd).st_mtime_ns)
        seconds = max(until - since, 0) / 1e9
        first_at, first_size = self._growth or self._intact
        rate = (size - first_size) * 1e9 / (read_at - first_at) if read_at > first_at else 0.0
        return seconds, round(rate * seconds)

    @property
    def is_empty(self) -> bool:
        return not self._head

    def restart(self, generation: int, framer: Framer) -> None:
        """The same file with new content."""
        self.framer, self.generation, self.offset, self._identity, self.lossy = framer, generation, 0, None, True
        self._head = os.pread(self._fd, FINGERPRINT_BYTES, 0)
        self._growth = None

    @property
    def identity(self) -> int:
        """Fixed when the first frame is delivered: a file may be young then, and its fingerprint short."""
        if self._identity is None:
            self._head = self._head or os.pread(self._fd, FINGERPRINT_BYTES, 0)
            self._identity = identity_of(self._head, self.generation)
        return self._identity

    def saved(self) -> _Saved:
        head = self.framer.head if isinstance(self.framer, HeadedFramer) else b""
        return _Saved(_fingerprint(self._head), len(self._head), self.generation, self.identity, self.inode, self.offset, head)

    def continues(self, saved: _Saved) -> bool:
        """True when this file is the saved one, which then goes on where it was."""
        size = saved.fingerprint_bytes
        if not size or _fingerprint(self._head[:size]) != saved.fingerprint or os.fstat(self._fd).st_size < saved.offset:
            return False
        self.generation, self._identity, self.offset = saved.generation, saved.identity, saved.offset
        self.is_copy = self.inode != saved.inode
        self.saved_head = saved.head if isinstance(self.framer, HeadedFramer) else b""
        self.needs_head = bool(self.saved_head) or 0 < self.framer.head_bytes <= saved.offset
        return True

    def is_at(self, path: Path) -> bool:
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == (self._device, self.inode)


def _fingerprint(head: bytes) -> str:
    return hashlib.blake2b(head, digest_size=16).hexdigest()


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(0, "Is a directory")
    if not stat.S_ISREG(mode):
        raise OSError(0, "Not a regular file")
