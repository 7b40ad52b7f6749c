"""Shell that runs a program and cuts what it prints with a framer: `bpftrace -f json`, `journalctl -f -o json`.

The program is an argument vector, never a line for a shell. It runs in a session of its own with no input and an
environment of PATH, LC_ALL and TZ only, plus what the collector gives. When it ends it is started again, after a pause
with full jitter (`ringfence/retry.py`) that is short again once it ran for a while. On close() its whole process group
gets SIGTERM and, `grace_secs` later, SIGKILL; it is always waited for. A program that cannot be had at open() is
Misconfigured; one that cannot be started again later is tried until it can.

Nothing is read ahead: while ringfence is busy the pipe fills and the program waits, or drops by its own rule. A frame
that is longer than `max_pending_bytes` and never ends is delivered as it is, and the program is started again. Of
standard error the last lines are kept, cut to a bound, and logged when the program ends by itself.

Delivery: what the program printed is read once. What it would have printed while it or ringfence was down is lost, so
the first frames after a restart are marked lossy, unless it can go on: with `resume`, which reads a cursor from the last
frame of a delivery, that cursor is the position that is committed with the rows, and `argv` is asked with it. An
unfinished last frame is then left to the next run, which prints it again.

Source: `name` is the collector's, `identity` a hash of the program and a random id of each start, and the position the
byte offset in what that start printed.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

from collectors.udp import boot_identity, readable
from ringfence.batch import Frames, Source
from ringfence.component import Delivery, Framer
from ringfence.errors import Misconfigured, Permanent
from ringfence.retry import LAST_SECS, Backoff
from ringfence.telemetry import COMMAND_CAPS, COMMAND_EXITS, COMMAND_STARTS, printable

READ_BYTES = 1 << 20  # also the size asked for the pipe: some 5,000 lines of JSON at once
MAX_PENDING_BYTES = 1 << 20
MAX_ERROR_LINES = 8
MAX_ERROR_LINE_BYTES = 512
GRACE_SECS = 5.0
CHILDREN_SECS = 0.1
LOOK_SECS = 1.0
"""How often a silent program is looked at: one of its children may hold the pipe open when it has ended."""
_PAUSE_SECS = 0.01
_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)  # Linux

_log = logging.getLogger(__name__)

Cut = tuple[bytes, npt.NDArray[np.int64]]


def _words(value: object) -> object:
    """One sentence for what is no argument vector."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("must be a list of words, such as [tcpdump, -n]; it is never a line for a shell")
    if not value or value[0] == "":
        raise ValueError("must name a program")
    for word in value:
        if not isinstance(word, str) or "\0" in word:
            raise ValueError(f'{word!r} is no text; put words like numbers in quotes: "160"')
    return value


Argv = Annotated[tuple[str, ...], BeforeValidator(_words)]
"""An option that names a program and its arguments."""


class CommandShell:
    """Runs what `argv` gives for a position and reads its standard output.

    `name` is that of the collector. `resume` gives the cursor of a frame, or b"" where it has none; without it the
    position is always b"".
    """

    def __init__(
        self,
        name: str,
        argv: Callable[[bytes], Sequence[str]],
        framer: Callable[[], Framer],
        environment: Mapping[str, str] | None = None,
        resume: Callable[[bytes], bytes] | None = None,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        grace_secs: float = GRACE_SECS,
    ) -> None:
        self._name = name
        self._argv = argv
        self._framer = framer
        self._environment = environment or {}
        self._resume = resume
        self._max_pending_bytes = max_pending_bytes
        self._grace_secs = grace_secs
        self._position = b""
        self._backoff = Backoff()
        self._start_at = 0.0
        self._lossy = False
        self._running: _Running | None = None
        self._is_open = False

    @property
    def pid(self) -> int | None:
        """The process that runs, if one does."""
        return None if self._running is None else self._running.process.pid

    async def open(self, position: bytes) -> None:
        """Start the program after `position`. Raises Misconfigured when it cannot be had."""
        await self.close()
        self._position, self._lossy, self._start_at = position, False, 0.0
        self._backoff.reset()
        argv = self._argv(position)
        if shutil.which(argv[0], path=_path()) is None:
            raise Misconfigured(_missing(argv[0]))
        try:
            self._running = self._start(argv)
        except OSError as error:
            raise Misconfigured(f"{argv[0]} cannot be started: {error.strerror}") from None
        self._is_open = True

    async def read(self) -> Delivery:
        """Return what the program printed, waiting for at least one frame; start it again when it has ended."""
        while self._is_open:
            running = self._running
            if running is None:
                await self._restart()
            elif running.is_over:
                await self._end(running)
            else:
                delivery = self._delivery(running, await self._cut(running))
                if delivery is not None:
                    return delivery
        raise Permanent(f"the program of collector {self._name} is not open")

    async def close(self) -> None:
        """End the program and its children; what they printed and nobody read is lost."""
        running, self._running = self._running, None
        self._is_open = False
        if running is not None:
            await running.end(0, self._grace_secs)

    def _start(self, argv: Sequence[str]) -> _Running:
        environment = {"PATH": _path(), "LC_ALL": "C.UTF-8", "TZ": "UTC", **self._environment}
        running = _Running(self._name, argv, environment, self._framer())
        COMMAND_STARTS.labels(self._name).inc()
        return running

    async def _restart(self) -> None:
        """Start the program again when its pause is over."""
        await asyncio.sleep(max(0.0, self._start_at - time.monotonic()))
        argv = self._argv(self._position)
        try:
            self._running = self._start(argv)
        except OSError as error:
            self._pause(f"{argv[0]} cannot be started: {error.strerror}")

    async def _end(self, running: _Running) -> None:
        """Wait for a program that printed all it will, and say how it ended."""
        status = await running.end(0 if running.is_refused else self._grace_secs, self._grace_secs)
        self._running = None
        COMMAND_EXITS.labels(self._name, status).inc()
        self._lossy = self._resume is None
        if time.monotonic() - running.started_at >= LAST_SECS:
            self._backoff.reset()
        words = running.last_words()
        self._pause(f"{running.program} ended with {status}" + (f" and said: {words}" if words else ""))

    def _pause(self, reason: str) -> None:
        secs = self._backoff.next_secs()
        self._start_at = time.monotonic() + secs
        _log.warning("collector %s: %s; it is started again in %.1f s", self._name, reason, secs)

    async def _cut(self, running: _Running) -> Cut:
        """The next frames; at the end of the output, and of what is no frame, all that is left."""
        if running.framer.pending > self._max_pending_bytes:
            COMMAND_CAPS.labels(self._name, "frame").inc()
            running.is_over, running.is_refused = True, True
            return running.framer.finish()
        data = await running.output()
        if data:
            return running.framer.cut(data)
        running.is_over = True
        return (b"", np.zeros(1, np.int64)) if self._resume is not None else running.framer.finish()

    def _delivery(self, running: _Running, cut: Cut) -> Delivery | None:
        data, offsets = cut
        count = len(offsets) - 1
        if not count:
            return None
        positions = (offsets[:-1] + running.offset).astype(np.uint64)
        running.offset += len(data)
        received_us = np.full(count, time.time_ns() // 1000, np.int64)
        lossy, self._lossy = frozenset({0} if self._lossy else ()), False
        frames = Frames(data, offsets, received_us, np.zeros(count, np.uint16), (running.source,), positions, lossy)
        if self._resume is not None:
            self._position = self._resume(frames.frame(count - 1)) or self._position
        return Delivery(frames, self._position)


class _Running:
    """One run of a program: its process, its pipes, and what it said on standard error."""

    def __init__(self, name: str, argv: Sequence[str], environment: Mapping[str, str], framer: Framer) -> None:
        self.program = argv[0]
        self.framer = framer
        self.offset = 0
        self.is_over = False
        self.is_refused = False
        self.source = Source(name, boot_identity(f"command {name}"))
        self.started_at = time.monotonic()
        self._name = name
        self._words: deque[bytes] = deque(maxlen=MAX_ERROR_LINES)
        self._word = b""
        self.process = subprocess.Popen(  # noqa: S603  # argv is the collector's own, never a shell's
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            env=dict(environment), start_new_session=True,
        )  # fmt: skip
        self._output, self._errors = _descriptor(self.process.stdout), _descriptor(self.process.stderr)
        if _PIPE_SIZE is not None:
            with suppress(OSError):  # beyond the limit of an unprivileged user
                fcntl.fcntl(self._output, _PIPE_SIZE, READ_BYTES)
        asyncio.get_running_loop().add_reader(self._errors, self._hear)

    async def output(self) -> bytes:
        """The next bytes; none when there will be no more. Safe to cancel."""
        while True:
            had_ended = self.process.poll() is not None
            with suppress(BlockingIOError):
                return os.read(self._output, READ_BYTES)
            if had_ended:
                return b""
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECS):
                    await readable(self._output)

    async def end(self, patience_secs: float, grace_secs: float) -> str:
        """Wait for the program, then signal it until it is gone, and all of its group; returns how it ended.

        What outlives SIGKILL, such as a process of another user, is left.
        """
        await self._wait(patience_secs)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is None:
                self._signal(number)
                await self._wait(grace_secs)
        if self.process.poll() is None:
            _log.error("%s (process %d) cannot be ended and is left", self.program, self.process.pid)
        elif self._signal(signal.SIGTERM):  # children that it left behind
            await asyncio.sleep(CHILDREN_SECS)
            self._signal(signal.SIGKILL)
        self._hear()
        asyncio.get_running_loop().remove_reader(self._errors)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        return _status(self.process.returncode)

    async def _wait(self, secs: float) -> None:
        """Until the program has ended, at most so long. Its output is thrown away: while it waits for its pipe it hears nothing."""
        until = time.monotonic() + secs
        while self.process.poll() is None and time.monotonic() < until:
            with suppress(OSError):
                os.read(self._output, READ_BYTES)
            await asyncio.sleep(_PAUSE_SECS)

    def last_words(self) -> str:
        """The end of standard error as one printable line."""
        lines = [*self._words, self._word]
        return " | ".join(printable(line.decode("utf-8", "replace").strip()) for line in lines if line.strip())

    def _signal(self, number: int) -> bool:
        """Signal the group; False when there is none."""
        try:
            os.killpg(self.process.pid, number)
        except PermissionError:  # another user's, as with sudo
            return True
        except ProcessLookupError:
            return False
        return True

    def _hear(self) -> None:
        """Keep the last lines of standard error."""
        try:
            data = os.read(self._errors, READ_BYTES)
        except OSError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._errors)
            return
        *lines, rest = (self._word + data).split(b"\n")
        cut = [line for line in (*lines, rest) if len(line) > MAX_ERROR_LINE_BYTES]
        forgotten = len(self._words) + len(lines) - MAX_ERROR_LINES
        for cap, count in (("error_line", len(cut)), ("error_lines", forgotten)):
            if count > 0:
                COMMAND_CAPS.labels(self._name, cap).inc(count)
        self._words.extend(line[:MAX_ERROR_LINE_BYTES] for line in lines[-MAX_ERROR_LINES:])
        self._word = rest[:MAX_ERROR_LINE_BYTES]


def _descriptor(pipe: object) -> int:
    descriptor = int(pipe.fileno())  # type: ignore[attr-defined]
    os.set_blocking(descriptor, False)
    return descriptor


def _path() -> str:
    return os.environ.get("PATH", os.defpath)


def _missing(program: str) -> str:
    if os.path.exists(program):
        return f"{program} may not be executed by this user"
    return f"{program} was not found: install it, or set its path in the configuration"


def _status(code: int | None) -> str:
    """An exit code in digits, or the name of the signal that ended the process."""
    if code is None:
        return "nothing"
    if code >= 0:
        return str(code)
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
