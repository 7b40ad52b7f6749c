"""btrace(8) of OpenBSD with the program that comes with ringfence (`collectors/probes/openbsd/process.bt`).

Spec: bt(5), dt(4), and usr.sbin/btrace of OpenBSD 7. Not tested on a device. A line is `KIND NSECS PID VALUE NAME`, and a
row of class process; `event.action` is the kind. Compared with bpftrace on Linux there are no addresses, arguments,
parents, users, paths or signals: network truth on OpenBSD is pflog and pflow.

What dt(4) drops when its buffers are full is not told while btrace runs, so gaps come without notice. btrace reads events
in batches of up to 64: rows may come late, and their time is that of the event.

Sample: exec 1795592663123456789 4711 0 ksh
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from collectors.command import CommandShell
from collectors.lines import Continuations, LineFramer, Lines
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.errors import Misconfigured
from ringfence.schema import build_frame

_LINE = re.compile(r"(exec|exit|connect|accept) (\d{1,19}) (\d{1,10}) (-?\d{1,19}) (.{0,64})")
_FIRST = re.compile(rb"(?:exec|exit|connect|accept) \d{16,19} \d{1,10} -?\d{1,19} ")
_MOST_NANOS = (1 << 63) - 1


class BtraceDecoder:
    """Decoder of the lines. `observer` names the machine; without it the name of the source does."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode every line; each is one row, one Problem or blank."""
        lines = Lines(frames, self._continuations.of(frames))
        rows: list[int] = []
        found: list[tuple[Any, ...]] = []
        for row, text in enumerate(lines.texts):
            if text is None:
                continue
            match = _LINE.fullmatch(text)
            if match is not None and int(match[2]) <= _MOST_NANOS:
                rows.append(row)
                found.append(match.groups())
            elif text.strip():
                lines.refuse(row, ProblemCode.MALFORMED, "expected KIND NSECS PID VALUE NAME")
            else:
                lines.leave_out("blank")
        if not rows:
            return Decoded({}, 0, lines.problems, lines.filtered)
        kinds, nanos, pids, values, names = zip(*found, strict=True)
        columns: dict[str, Any] = lines.columns(rows, self._observer, self._keep_original)
        del columns["ringfence.evidence.lossy"]
        columns |= {
            "@timestamp": np.array(nanos, np.int64) // 1000,
            "event.action": kinds,
            "process.pid": list(map(int, pids)),
            "process.name": [name or None for name in names],
            "process.exit_code": [
                int(value) & 0xFF if kind == "exit" else None for kind, value in zip(kinds, values, strict=True)
            ],
        }
        problems = sorted(lines.problems, key=lambda problem: problem.row or 0)
        return Decoded({EventClass.PROCESS: build_frame(EventClass.PROCESS, columns)}, len(rows), problems, lines.filtered)


def program_text() -> str:
    """The program that btrace runs."""
    return files("collectors").joinpath("probes", "openbsd", "process.bt").read_text("utf-8")


class BtraceShell(CommandShell):
    """Runs btrace."""

    def __init__(self, name: str, btrace: str) -> None:
        super().__init__(name, lambda position: [btrace, "-e", program_text()], LineFramer)

    async def open(self, position: bytes) -> None:
        """Start btrace. Raises Misconfigured when it cannot work here."""
        if os.geteuid() != 0:
            raise Misconfigured("btrace works for root only: run the process of this collector as root")
        await super().open(position)


class Settings(BaseModel):
    """Starts btrace, as root, and starts it again when it ends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    btrace: str = Field(default="btrace", min_length=1, description="Path of btrace, or its name on PATH.")
    observer: str | None = Field(default=None, description="Name of this machine; its host name by default.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each line as event.original.")


class BtraceKind:
    """Entry point `btrace`."""

    settings = Settings
    promise = "what btrace printed, once; what happens while it does not run, and what dt(4) drops (not told), is gone"
    status: Status = "experimental"
    sample = "kernel: {type: btrace}"
    formats = (
        Format(
            "btrace",
            "what the btrace program of this package prints on OpenBSD",
            LineFramer,
            lambda year: BtraceDecoder(),
            lambda first: _FIRST.match(first) is not None,
            "btrace",
        ),
    )

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """btrace through the shell that runs programs."""
        decoder = BtraceDecoder(settings.observer or socket.gethostname(), settings.original == "keep")
        return Collector("btrace", BtraceShell(context.name, settings.btrace), decoder)

    def resources(self, settings: Settings) -> Sequence[str]:
        """Two collectors would report everything twice."""
        return ("btrace",)


KIND = BtraceKind()
