"""Where fuzzing starts: the inputs of the golden cases of a format."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.mutate import MAX_BYTES

CASES = Path(__file__).parents[1] / "collectors" / "cases"


def seeds(name: str) -> list[bytes]:
    """The golden inputs of a format that are small enough, in a fixed order; one empty input where there are none."""
    inputs = [path.read_bytes() for path in sorted(CASES.glob(f"{name}/*/input.*"))]
    return [data for data in inputs if len(data) <= MAX_BYTES] or [b""]
