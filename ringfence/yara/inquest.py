"""Which rules made a scan slow: found by their time on a sample, or by halving the set on the data itself.

libyara cannot say it: it only ends a scan after whole seconds, and looks at the clock once in 4,096 bytes. This takes
seconds in the worst case, so the scanner runs it beside itself and does not wait for long.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Generic, TypeVar

import yara

ALLOWED_SECS = 0.05
ALLOWED_SECS_PER_BYTE = 1e-7
"""A hundred times what a good rule set needs (performance: 225 MB/s)."""
TIMEOUT_SECS = 1
DATALESS = bytes(range(256)) * 4
_PIECES = 16
_SAMPLE_BYTES = (512, 2_048, 8_192)
_OUTLIER, _OUTLIER_SECS = 10, 0.0005
_MAX_OUTLIERS = 8
_MAX_SCANS = 48

T = TypeVar("T")
Compile = Callable[[Sequence[T]], yara.Rules]


@dataclass(frozen=True, slots=True)
class Finding(Generic[T]):
    """The rules at fault, and the others compiled; none at fault where the data is scanned in time after all."""

    culprits: Sequence[T]
    rest: yara.Rules


def allowed_secs(size: int) -> float:
    """How long a scan of so many bytes may take."""
    return ALLOWED_SECS + size * ALLOWED_SECS_PER_BYTE


def inquire(compile: Compile[T], rules: Sequence[T], data: bytes) -> Finding[T]:
    """Find the rules without which `data` is scanned in the time allowed."""
    suspects = _outliers(compile, rules, data)
    for number in range(1, min(len(suspects), _MAX_OUTLIERS) + 1):
        finding = _without(compile, rules, suspects[:number])
        if not is_over(finding.rest, data):
            return finding
    search = _Search(compile, data)
    return _without(compile, rules, search.guilty(rules))


def _without(compile: Compile[T], rules: Sequence[T], culprits: Sequence[T]) -> Finding[T]:
    return Finding(culprits, compile([rule for rule in rules if rule not in culprits]))


def is_over(compiled: yara.Rules, data: bytes) -> bool:
    """Whether a scan takes more than the time allowed, or fails."""
    return _secs(compiled, data) > allowed_secs(len(data))


def _secs(compiled: yara.Rules, data: bytes) -> float:
    """CPU time of a scan; endless where libyara gave up."""
    start = time.thread_time()
    try:
        compiled.match(data=data, timeout=TIMEOUT_SECS, fast=True, warnings_callback=lambda *_: yara.CALLBACK_CONTINUE)
    except yara.Error:
        return float("inf")
    return time.thread_time() - start


def _sample(data: bytes, size: int) -> bytes:
    """Pieces from all over the data, so many bytes together."""
    if len(data) <= size:
        return data
    piece = size // _PIECES
    step = (len(data) - piece) // (_PIECES - 1)
    return b"".join(data[start : start + piece] for start in range(0, _PIECES * step, step))


def _outliers(compile: Compile[T], rules: Sequence[T], data: bytes) -> Sequence[T]:
    """Rules that take far longer than their neighbours, the slowest first: groups are timed, then the rules of slow groups."""
    size = max(isqrt(len(rules)), 1)
    groups = [rules[start : start + size] for start in range(0, len(rules), size)]
    samples = [_sample(data, size) for size in _SAMPLE_BYTES]
    single = [(rule,) for group in _slow(compile, groups, samples) for rule in group]
    return [rule for (rule,) in _slow(compile, single, samples)]


def _slow(compile: Compile[T], groups: Sequence[Sequence[T]], samples: Sequence[bytes]) -> Sequence[Sequence[T]]:
    """Groups that stand out on the smallest sample that shows any, the slowest first."""
    curves = [_curve(compile(group), samples) for group in groups]
    for times in zip(*curves, strict=True):
        limit = max(_OUTLIER * statistics.median_low(times), _OUTLIER_SECS) if len(times) > 2 else _OUTLIER_SECS
        slow = [(-secs, number) for number, secs in enumerate(times) if secs >= limit]
        if slow:
            return [groups[number] for _, number in sorted(slow)]
    return ()


def _curve(compiled: yara.Rules, samples: Sequence[bytes]) -> Sequence[float]:
    """Seconds for each sample; endless for those after one that took very long."""
    times: list[float] = []
    for sample in samples:
        times.append(float("inf") if times and times[-1] > _OUTLIER * _OUTLIER_SECS else _secs(compiled, sample))
    return times


class _Search(Generic[T]):
    """Halves a set until single rules are left, with a bound on the scans that this may take."""

    def __init__(self, compile: Compile[T], data: bytes) -> None:
        self._compile = compile
        self._data = data
        self._scans = 0

    def guilty(self, rules: Sequence[T]) -> Sequence[T]:
        """Those that are too slow alone; all of these where the bound is hit."""
        self._scans += 1
        if not rules or not is_over(self._compile(rules), self._data):
            return ()
        if len(rules) == 1 or self._scans >= _MAX_SCANS:
            return rules
        middle = len(rules) // 2
        return (*self.guilty(rules[:middle]), *self.guilty(rules[middle:]))
