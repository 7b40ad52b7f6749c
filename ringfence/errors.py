"""The error classes that the runtime tells apart. Anything else that escapes a component is a ringfence bug.

Each message is one sentence that says what went wrong and where, fit to be printed to a person as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command returns to the shell (74 and 78 are EX_IOERR and EX_CONFIG of sysexits(3))."""

    OK = 0
    FOUND = 1
    USAGE = 2
    IO = 74
    CONFIG = 78


class RingfenceError(Exception):
    """Root of everything that ringfence raises on purpose."""


class Retryable(RingfenceError):
    """The same call may succeed later: the runtime keeps the data, backs off and calls again."""


class Permanent(RingfenceError):
    """The same call would always fail: the runtime dead-letters the data or, at start, gives up."""


class Misconfigured(Permanent):
    """The configuration asks for what this machine does not have or does not allow: only its owner can help."""


class Fenced(RingfenceError):
    """Another process owns this consumer group now: nothing may be committed, state must be read again."""


class EndOfInput(RingfenceError):
    """A shell has delivered all that its source will ever hold."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing that is wrong in a configuration file, where `line` counts from 1 and 0 means the whole file."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(RingfenceError):
    """A configuration cannot be used; carries every fault that was found, in file order."""

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.file, fault.line, fault.path)))
        super().__init__("\n".join(map(str, self.faults)))
