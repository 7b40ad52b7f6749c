"""Tenzir's `sigma` operator on the same events and rules: the PyPI package `tenzir` in an environment of its own.

Its CPU time is that of its processes less what one event costs, which is its start-up with the loading of the rules.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "tenzir==6.20.0"
ENVIRONMENT = Path(__file__).parents[1] / ".tenzir"
_PROGRAM = ENVIRONMENT / "bin" / "tenzir"
_INSTALL_SECS = 900


def lacks() -> str:
    """Why it cannot run here; empty when it can. Installs it on first use: about 1 GB."""
    if not _PROGRAM.exists():
        print(f"installing {PACKAGE} into {ENVIRONMENT} ...", file=sys.stderr)
        python = shutil.which("python3") or sys.executable
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", "--without-pip", str(ENVIRONMENT)],
            [python, "-m", "pip", "--python", str(ENVIRONMENT / "bin" / "python"), "install", "--quiet", PACKAGE],
        ):
            try:
                subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_SECS)  # noqa: S603 -- fixed words
            except (OSError, subprocess.SubprocessError):
                return f"{PACKAGE} does not install here"
    try:
        subprocess.run([str(_PROGRAM), "version"], check=True, capture_output=True, timeout=60)  # noqa: S603 -- as above
    except (OSError, subprocess.SubprocessError):
        return f"{PACKAGE} does not start here"
    return ""


class Tenzir:
    """Counts the hits of each rule in a file."""

    def __init__(self, rules: Path, events: Path) -> None:
        self._secs = 0.0
        self._rules, self._events = rules, events
        one = events.with_suffix(".one")
        with events.open("rb") as file:
            one.write_bytes(file.readline())
        self._start_secs = min(self._run(one)[1] for _ in range(2))

    def __call__(self) -> tuple[int, dict[str, int]]:
        """Read the whole file."""
        hits, secs = self._run(self._events)
        self._secs += secs - self._start_secs
        with self._events.open("rb") as file:
            return sum(1 for _ in file), hits

    def clock(self) -> float:
        """CPU seconds that it took so far."""
        return self._secs

    def _run(self, events: Path) -> tuple[dict[str, int], float]:
        # without `raw` it would read numbers and addresses out of text
        program = (
            f"from_file {_quoted(events)} {{ read_ndjson raw=true }} | sigma path={_quoted(self._rules)}"
            " | summarize id=policy.uid, hits=count() | write_ndjson"
        )
        before = _child_secs()
        done = subprocess.run([str(_PROGRAM), program], check=True, capture_output=True)  # noqa: S603 -- as above
        rows = map(json.loads, done.stdout.splitlines())
        return {row["id"]: row["hits"] for row in rows}, _child_secs() - before


def _quoted(path: Path) -> str:
    return json.dumps(str(path))


def _child_secs() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
