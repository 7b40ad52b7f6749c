"""A writer of numbered lines whose log is rotated under way: `python -m tests.collectors.rotating PATH ROTATIONS SECS WAY`.

A line has 100 bytes. WAY is `rename` (the writer moves its file away, still writes there for a moment, then opens the next one) or
`copytruncate` (the file is copied and cut while the writer goes on, as logrotate does).
Ends SECS after the last of ROTATIONS and prints how many lines it wrote; its writes end at any byte of a line.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path

LINES_PER_SEC = 10_000
BURST_SECS = 0.005
COPY_SECS = 0.02  # longer than it takes, so that something is lost
KEPT = 8
TORN_BYTES = 4001


class Writer:
    """Writes lines as fast as the clock says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._number = 0
        self._started = time.monotonic()
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def burst(self) -> None:
        """The lines that are due, in writes that do not end where lines do."""
        due = int((time.monotonic() - self._started) * LINES_PER_SEC)
        lines = b"".join((b"%010d " % number).ljust(99, b".") + b"\n" for number in range(self._number, due))
        self._number = due
        for start in range(0, len(lines), TORN_BYTES):
            os.write(self._fd, lines[start : start + TORN_BYTES])

    def write_for(self, secs: float) -> None:
        """Write on."""
        until = time.monotonic() + secs
        while time.monotonic() < until:
            self.burst()
            time.sleep(BURST_SECS)

    def rename(self) -> None:
        """Rotate: the old files move up by one, and some more lines go to the file that was the log."""
        make_room(self._path)
        self._path.rename(f"{self._path}.1")
        self.burst()
        os.close(self._fd)
        self._open()

    def end(self) -> int:
        """Write the last lines; returns how many there were in all."""
        self.burst()
        os.close(self._fd)
        return self._number


def make_room(path: Path) -> None:
    """`path.1` becomes `path.2` and so on."""
    for number in range(KEPT, 0, -1):
        old = Path(f"{path}.{number}")
        if old.exists():
            old.rename(f"{path}.{number + 1}")
    Path(f"{path}.{KEPT + 1}").unlink(missing_ok=True)


def copytruncate(path: Path) -> None:
    """What logrotate does to a writer that cannot be told to open its log anew."""
    make_room(path)
    shutil.copyfile(path, f"{path}.1")
    time.sleep(COPY_SECS)
    os.truncate(path, 0)


def copytruncate_again_and_again(path: Path, rotations: int, secs: float) -> None:
    for _ in range(rotations):
        time.sleep(secs)
        copytruncate(path)


def main(path: Path, rotations: int, secs: float, way: str) -> None:
    """Write and rotate."""
    writer = Writer(path)
    if way == "rename":
        for _ in range(rotations):
            writer.write_for(secs)
            writer.rename()
    else:
        rotating = threading.Thread(target=copytruncate_again_and_again, args=(path, rotations, secs))
        rotating.start()
        while rotating.is_alive():
            writer.write_for(0.05)
    writer.write_for(secs)
    sys.stdout.write(f"{writer.end()}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
