"""The short form of fuzzing: some thousand mutated inputs for every format, and that broken promises are noticed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collectors.lines import LineFramer
from ringfence import registry
from ringfence.batch import Decoded, Frames
from ringfence.component import Format
from tests.fuzz import __main__ as command
from tests.fuzz import check
from tests.fuzz.check import Broken, examine
from tests.fuzz.mutate import Mutator, frames_of_stream
from tests.fuzz.seeds import seeds

EXECUTIONS = 80
FORMATS = sorted(registry.formats())


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_inputs_break_no_promise(name: str) -> None:
    chosen = registry.formats()[name]
    starts = seeds(name)
    mutator = Mutator(chosen, [part for data in starts for part in frames_of_stream(chosen, data)])
    dice = random.Random(f"ringfence {name}")
    inputs = 0
    for _ in range(EXECUTIONS):
        inputs += examine(chosen, mutator.mutate(dice.choice(starts), dice))

    assert inputs > EXECUTIONS


class Counting:
    """A decoder that takes every frame, or as the test says."""

    def feed(self, frames: Frames) -> Decoded:
        return Decoded({}, len(frames))


class Raising(Counting):
    def feed(self, frames: Frames) -> Decoded:
        raise ZeroDivisionError


class Losing(Counting):
    def feed(self, frames: Frames) -> Decoded:
        return Decoded({}, max(len(frames) - 1, 0))


class Greedy(Counting):
    def feed(self, frames: Frames) -> Decoded:
        np.ones(64 << 20, np.uint8)
        return super().feed(frames)


class Quadratic(Counting):
    def feed(self, frames: Frames) -> Decoded:
        parts = frames.slices()
        sum(a == b for a in parts for b in parts)
        return super().feed(frames)


class Forgetful(LineFramer):
    """A framer that loses the last line."""

    def finish(self) -> tuple[bytes, np.ndarray[tuple[int], np.dtype[np.int64]]]:
        return b"", np.zeros(1, np.int64)


def made(decoder: type[Counting], framer: type[LineFramer] = LineFramer) -> Format:
    return Format("made", "made for tests", framer, lambda year: decoder(), lambda first: False, "made")


def all_checks(chosen: Format, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the checks that a real run makes of few inputs, too."""
    monkeypatch.setattr(random.Random, "random", lambda self: 0.0)
    examine(chosen, data)


def test_a_sound_decoder_passes_all_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    all_checks(made(Counting), b"a\nb\nc", monkeypatch)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        (made(Raising), None),
        (made(Losing), "accounted for"),
        (made(Counting, Forgetful), "lost or changed bytes"),
        (made(Greedy), "of memory"),
    ],
    ids=["raises", "loses a frame", "loses bytes", "takes too much memory"],
)
def test_a_broken_promise_is_noticed(chosen: Format, reason: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Broken if reason else ZeroDivisionError, match=reason):
        all_checks(chosen, b"a\nb\nc", monkeypatch)


def test_work_that_grows_faster_than_its_input_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CPU_SECONDS", 0.0)
    monkeypatch.setattr(check, "CPU_SECONDS_PER_BYTE", 1e-6)

    with pytest.raises(Broken, match="of CPU"):
        all_checks(made(Quadratic), b"a\n" * 2000, monkeypatch)


def test_an_input_is_examined_in_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[tuple[bytes, list[int]]]] = [[], []]

    for calls in seen:

        class Noting(Counting):
            noted = calls

            def feed(self, frames: Frames) -> Decoded:
                self.noted.append((frames.data, frames.offsets.tolist()))
                return super().feed(frames)

        examine(made(Noting), b"".join(b"%d\n" % number for number in range(100)))

    assert seen[0] == seen[1]
    assert seen[0]


@pytest.mark.parametrize("name", FORMATS)
def test_golden_inputs_pass_all_checks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = registry.formats()[name]
    parts: Sequence[bytes] = seeds(name)
    all_checks(chosen, max(parts, key=len), monkeypatch)


def test_a_found_input_can_be_looked_at_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "crash"
    found.write_bytes(b"{}\n{}\n")

    assert command.main(["eve", str(found)]) == 0
    assert "breaks nothing" in capsys.readouterr().out


def test_a_found_input_that_breaks_a_promise_shows_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tmp_path / "crash"
    found.write_bytes(b"x\n")
    known = {"made": replace(made(Raising))}
    monkeypatch.setattr(registry, "formats", lambda: known)

    with pytest.raises(ZeroDivisionError):
        command.main(["made", str(found)])
