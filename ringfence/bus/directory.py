"""The directory of the embedded bus: file names, who uses it, who owns which group, and room on the disk.

00000001.db ...   segment files (`ringfence/bus/segments.py`), the highest number is the active one
bus.lock          held shared by every process that uses the directory; whoever gets it exclusively is alone
clean             exists while no process has the bus open and the last one closed it in order
groups/X.lock     held by the process that reads group X
ballast           takes up room that is freed when the disk is full
*.damaged         files that were set aside, kept for people to look at
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from urllib.parse import quote

from ringfence.errors import Permanent, Retryable

AMPLE = 10  # the ballast is made only where this many times its size is free
START_SECS = 60.0  # how long another process may take to check the bus at its start before we stop waiting for it


class Directory:
    """Files and locks. Not safe for several threads, except `segment`, `numbers` and `has`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._presence: int | None = None

    def prepare(self) -> None:
        """Make the directory, or raise Permanent with the reason why it cannot be used."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "groups").mkdir(mode=0o700, exist_ok=True)
            self.numbers()
        except FileExistsError as error:
            raise Permanent(f"{self.path} is not a directory, so the bus cannot be kept there") from error
        except OSError as error:
            raise _refusal(f"the bus directory {self.path} cannot be used", error) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise Permanent(f"the bus directory {self.path} may not be read and written by this user")

    def segment(self, number: int) -> Path:
        """The path of a segment file, whether it exists or not."""
        return self.path / f"{number:08d}.db"

    def has(self, number: int) -> bool:
        """Whether a segment file exists."""
        return self.segment(number).exists()

    def numbers(self) -> list[int]:
        """The numbers of all segment files in ascending order."""
        return sorted(int(entry[:-3]) for entry in os.listdir(self.path) if entry.endswith(".db") and entry[:-3].isdecimal())

    def sizes(self) -> dict[int, int]:
        """Bytes of every segment file by number; one that another process drops just now is left out."""
        sizes: dict[int, int] = {}
        for number in self.numbers():
            try:
                sizes[number] = self.segment(number).stat().st_size
            except FileNotFoundError:
                continue
        return sizes

    def publish(self, draft: Path, number: int) -> None:
        """Give a finished file its final name, durably."""
        _flush(draft)
        draft.rename(self.segment(number))
        self.sync()

    def draft(self, number: int) -> Path:
        """A fresh path for a file in the making; only whoever holds the write lock of the file before may use it."""
        path = self.path / f"{number:08d}.new"
        for name in (path, *_companions(path), path.with_name(f"{path.name}-journal")):
            name.unlink(missing_ok=True)
        return path

    def drop(self, number: int) -> None:
        """Unlink a segment file. Who still reads it keeps reading: its inode lives until the last of them closes it."""
        path = self.segment(number)
        for name in (path, *_companions(path)):
            name.unlink(missing_ok=True)

    def set_aside(self, number: int) -> None:
        """Rename a damaged file so that nobody opens it again; done already by another process is done."""
        path = self.segment(number)
        for name in (*_companions(path), path):
            if name.exists():
                name.rename(name.with_name(f"{name.name}.damaged"))
        self.sync()

    def sync(self) -> None:
        """Make names durable."""
        _flush(self.path)

    def enter(self) -> bool:
        """Take part; True if no other process does, which then holds out all others until `admit_others`."""
        self._presence = os.open(self.path / "bus.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if _lock(self._presence, fcntl.LOCK_EX):
            return True
        deadline = time.monotonic() + START_SECS
        while not _lock(self._presence, fcntl.LOCK_SH):
            if time.monotonic() > deadline:
                raise Retryable(f"another process has been checking the bus in {self.path} for {START_SECS:.0f} s")
            time.sleep(0.01)
        return False

    @property
    def is_clean(self) -> bool:
        """Whether the last process closed the bus in order."""
        return (self.path / "clean").exists()

    def admit_others(self) -> None:
        """From here on a crash is an unclean stop, and other processes may open the bus."""
        if self._presence is None:
            raise RuntimeError("admit_others() without enter()")
        (self.path / "clean").unlink(missing_ok=True)
        self.sync()
        fcntl.flock(self._presence, fcntl.LOCK_SH)

    def leave(self, clean: bool) -> None:
        """Stop taking part; the last process to leave in order says so on disk."""
        if self._presence is None:
            return
        if clean and _lock(self._presence, fcntl.LOCK_EX):
            (self.path / "clean").touch(0o600)
            self.sync()
        os.close(self._presence)
        self._presence = None

    def own_group(self, group: str) -> int:
        """Become the owner of a consumer group in this directory; the returned descriptor is closed to give it up.

        The owner holds flock(2) on a file, and the kernel frees it when the process is gone, by kill -9 too. That is why
        commits need no epoch, as they would with a lease: there is no timeout after which another may take over while a paused
        owner still believes in its ownership. A paused owner keeps the lock, so two owners can never exist. (A child made by
        fork without exec would inherit it; ringfence makes none.)
        """
        path = self.path / "groups" / f"{quote(group, safe='')}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock(handle, fcntl.LOCK_EX):
            holder = os.read(handle, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise Permanent(f"group {group} of the bus in {self.path} is already read by process {holder}")
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        return handle

    def free_bytes(self) -> int:
        """Bytes that this user can still write to the file system."""
        facts = os.statvfs(self.path)
        return facts.f_bavail * facts.f_frsize

    def keep_ballast(self, size: int) -> bool:
        """Make the ballast file if there is ample room; returns whether it is there."""
        path = self.path / "ballast"
        if path.exists():
            return True
        if not size or self.free_bytes() < AMPLE * size:
            return False
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                path.unlink()
                return False
        return True

    def release_ballast(self) -> None:
        """Free the room that the ballast takes up."""
        (self.path / "ballast").unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether a system call failed for want of room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refusal(what: str, error: OSError) -> Permanent | Retryable:
    kind = Retryable if is_disk_full(error) else Permanent
    return kind(f"{what}: {error.strerror}")


def _companions(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
