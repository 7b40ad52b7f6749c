"""Runs ringfence as a user does, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def ringfence(*arguments: str | Path, stdin: bytes = b"", cwd: Path | None = None) -> Outcome:
    """Run a command line to its end."""
    done = subprocess.run(command(*arguments), input=stdin, capture_output=True, cwd=cwd, timeout=120, check=False)
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


def command(*arguments: str | Path) -> Sequence[str]:
    """The argument vector of a command line."""
    return [sys.executable, "-m", "ringfence", *map(str, arguments)]
