"""Golden cases: a folder holds an input, where it came from, and what its decoder makes of it: rows, problems and counters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ringfence import registry
from ringfence.batch import Frames, Source
from ringfence.cli.decode import in_order
from ringfence.component import Format
from ringfence.files import identity_of

CASES = Path(__file__).parent / "cases"
YEAR = 2026
"""Of times that lack one."""
FOLDERS = sorted(path for path in CASES.glob("*/*") if path.is_dir())


def _input(folder: Path) -> Path:
    found = sorted(folder.glob("input.*"))
    assert len(found) == 1, f"{folder} needs exactly one input file"
    return found[0]


def _decoded(chosen: Format, data: bytes) -> list[str]:
    """One JSON line per row in stream order, then one per problem, then the counters."""
    framer, decoder = chosen.framer(), chosen.decoder(YEAR)
    source = Source("input", identity_of(data, 0))
    lines: list[str] = []
    problems: list[str] = []
    frames_in = taken = held = filtered = at = 0
    for block, offsets in (framer.cut(data), framer.finish()):
        count = len(offsets) - 1
        positions = (offsets[:-1] + at).astype(np.uint64)
        frames = Frames(block, offsets, np.zeros(count, np.int64), np.zeros(count, np.uint16), (source,), positions)
        at += len(block)
        decoded = decoder.feed(frames)
        lines += [line.decode().rstrip("\n") for line in in_order(decoded, chosen.module)]
        for problem in decoded.problems:
            row = frames_in + (problem.row or 0)
            fields = {"row": row, "position": problem.position, "offset": problem.offset, "path": problem.path}
            problems.append(json.dumps({"problem": str(problem.code), "detail": problem.detail, **fields}))
        frames_in += count
        taken += decoded.taken
        held = decoded.held
        filtered += sum(decoded.filtered.values())
    counters = {"frames": frames_in, "taken": taken, "problems": len(problems), "filtered": filtered, "held": held}
    return [*lines, *problems, json.dumps({"counters": counters})]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_decodes_to_what_was_reviewed(folder: Path, request: pytest.FixtureRequest) -> None:
    chosen = registry.formats()[folder.parent.name]
    found = _decoded(chosen, _input(folder).read_bytes())

    expected = folder / "expected.jsonl"
    if request.config.getoption("--update-golden"):
        expected.write_text("\n".join(found) + "\n")

    assert expected.is_file(), "no expected.jsonl: run make golden and review it"
    assert found == expected.read_text().splitlines()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_says_where_its_input_came_from(folder: Path) -> None:
    origin = folder / "origin.txt"

    assert origin.is_file()
    assert len(origin.read_text().strip()) > 20


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_accounts_for_every_frame(folder: Path) -> None:
    chosen = registry.formats()[folder.parent.name]
    counters = json.loads(_decoded(chosen, _input(folder).read_bytes())[-1])["counters"]

    assert counters["frames"] == counters["taken"] + counters["problems"] + counters["filtered"] + counters["held"]


def test_every_format_has_golden_cases() -> None:
    assert {folder.parent.name for folder in FOLDERS} == set(registry.formats())
