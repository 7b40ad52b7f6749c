"""`python -m bench [--quick] [--sigma-rules DIR] [--json FILE]`: one table of rates and memory. See docs/reference/performance.md.

Every measurement runs in a process of its own, pinned to one core, with one polars thread; CPU time is counted, so that a
busy machine disturbs little. This process imports nothing heavy: on Linux a child starts with the peak memory of its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import tenzir

RUNS, QUICK_RUNS = 5, 2
MB_LIMIT = 400


@dataclass(frozen=True)
class Target:
    """What a measurement should reach: events per CPU-second, times the per-event code, MB at its peak, and to lose none."""

    rate: float | None = None
    ratio: float | None = None
    peak_mb: float | None = None
    lossless: bool = False

    def is_met(self, reading: dict[str, Any], ratio: float | None) -> bool | None:
        """None where there is no target."""
        checks = [
            (self.rate, reading["rate"]), (self.ratio, ratio), (-self.peak_mb if self.peak_mb else None, -reading["peak_mb"]),
        ]  # fmt: skip
        judged = [found is not None and found >= wanted for wanted, found in checks if wanted is not None]
        judged += [not reading["counts"].get("lost")] if self.lossless else []
        return all(judged) if judged else None

    def __str__(self) -> str:
        parts = [
            f">= {_short(self.rate)}/s" if self.rate else "", f">= {self.ratio:g}x" if self.ratio else "", f"< {self.peak_mb} MB" if self.peak_mb else "",
            "no loss" if self.lossless else "",
        ]  # fmt: skip
        return ", ".join(part for part in parts if part)


PLAN: tuple[tuple[str, str | None, Target], ...] = (
    ("eve decode", "per event: eve decode", Target()),
    ("eve chain, 10,000 rows", "per event: eve chain", Target(180_000, 3)),
    ("eve chain, 5,000 rows", "per event: eve chain", Target(180_000, 3)),
    ("eve chain up to the bus", None, Target()),
    ("eve worker", None, Target(peak_mb=MB_LIMIT)),
    ("netflow v5 decode", "per event: netflow v5 decode", Target()),
    ("netflow v5 + segments + boundaries", "per event: netflow v5 chain", Target(1_000_000)),
    ("netflow v9 decode", None, Target()),
    ("IPFIX decode", None, Target()),
    ("netflow v5 from the socket", None, Target(1_500_000)),
    ("netflow v5 from the socket, 1 M/s offered", None, Target(1_500_000, lossless=True)),
    ("netflow v9 from the socket, 1 M/s offered", None, Target(1_500_000, lossless=True)),
    ("IPFIX from the socket, 1 M/s offered", None, Target(1_500_000, lossless=True)),
    ("pflog decode", "per event: pflog decode", Target(3_000_000)),
    ("pflog cut + decode", "per event: pflog decode", Target()),
    ("pflog + segments + boundaries", "per event: pflog chain", Target()),
    ("syslog decode", None, Target()),
    ("beats decode", None, Target(150_000)),
    ("filterlog decode", None, Target()),
    ("pflog-text decode", None, Target()),
    ("netfilter decode", None, Target()),
    ("zeek json decode", None, Target()),
    ("zeek tsv decode", None, Target()),
    ("hubble decode", None, Target()),
    ("yara, 500 rules", "per event: yara, 500 rules", Target(400_000, 3)),
    ("block encode", None, Target()),
    ("block decode", None, Target()),
    ("segment look-up v4", "per event: look-up v4", Target()),
    ("segment look-up v6", "per event: look-up v6", Target()),
    ("correlation event_count", None, Target(1_000_000)),
    ("correlation event_count, Zipf", None, Target()),
    ("correlation value_count", None, Target(500_000)),
    ("correlation value_count, Zipf", None, Target()),
    ("sigma, bundled on flows", None, Target(3_300_000)),
    ("sigma, bundled on boundary tests", None, Target(3_300_000)),
    ("sigma, bundled on a mixed stream", None, Target(100_000, peak_mb=512)),
    ("sigma, SigmaHQ on a mixed stream", None, Target()),
    ("sigma, 100 rules", "per event: sigma, 100 rules", Target(90_000)),
    ("sigma, 100 rules", "Tenzir: sigma, 100 rules", Target(ratio=30)),
    ("sigma, 1,000 rules", "per event: sigma, 1,000 rules", Target(50_000)),
    ("sigma, 1,000 rules", "Tenzir: sigma, 1,000 rules", Target(ratio=60)),
)
"""What is measured, the per-event code that it is compared with, and what it should reach."""
ONE_RUN = frozenset(
    {"eve worker", *(f"{who}: sigma, {count} rules" for who in ("per event", "Tenzir") for count in ("100", "1,000"))}
)
OF_SIGMAHQ = ("sigma, SigmaHQ", "sigma, 100 rules", "sigma, 1,000 rules")


class Failed(Exception):
    """A measurement did not come to its end."""


def main(arguments: list[str] | None = None) -> int:
    """Measure everything and print the table; 1 when a measurement failed, else 0."""
    parser = argparse.ArgumentParser(prog="bench", description="Events per CPU-second of one core, and peak memory.")
    parser.add_argument("--quick", action="store_true", help="small corpora and two runs: shows that it works, not how fast")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every reading to this file too")
    parser.add_argument(
        "--sigma-rules", metavar="DIR", help="SigmaHQ's rules; without them what is measured with them is left out"
    )
    options = parser.parse_args(arguments)
    if options.sigma_rules and not any(Path(options.sigma_rules).glob("**/rules/windows/process_creation/*.yml")):
        parser.error(f"{options.sigma_rules} has no folder rules/windows/process_creation as SigmaHQ's has")
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as folder:
        _python("bench.write", folder, options.sigma_rules or "", *(["--quick"] if options.quick else []))
        rows, readings, failures = _measure(folder, options.quick, bool(options.sigma_rules))
    print(_table(rows), _conditions(), sep="\n\n")
    print(*failures, sep="\n", end="\n" if failures else "")
    if options.json:
        options.json.write_text(json.dumps(readings, indent=1) + "\n")
    return 1 if failures else 0


def _measure(folder: str, is_quick: bool, has_rules: bool) -> tuple[list[list[str]], dict[str, Any], list[str]]:
    rows: list[list[str]] = []
    readings: dict[str, Any] = {}
    failures: list[str] = []
    for name, compared, target in PLAN:
        if lack := _lack(name, compared, has_rules):
            rows.append([_title(name, compared), f"skipped: {lack}", *[""] * 7])
            continue
        try:
            for each in filter(None, (name, compared)):
                if each not in readings:
                    print(f"measuring {each} ...", file=sys.stderr)
                    readings[each] = _gauge(each, folder, is_quick)
            _compare_counts(name, readings, compared)
        except Failed as error:
            failures.append(f"{name} failed: {error}")
            continue
        rows.append(_row(_title(name, compared), readings[name], readings[compared] if compared else None, target))
    return rows, readings, failures


def _lack(name: str, compared: str | None, has_rules: bool) -> str:
    """What is missing to measure it; empty when nothing is."""
    if name.startswith(OF_SIGMAHQ) and not has_rules:
        return "no --sigma-rules (make bench SIGMA_RULES=DIR)"
    return tenzir.lacks() if compared and compared.startswith("Tenzir") else ""


def _title(name: str, compared: str | None) -> str:
    who = (compared or "").partition(":")[0]
    return name if who in ("", "per event") else f"{name}, beside {who}"


def _gauge(name: str, folder: str, is_quick: bool) -> dict[str, Any]:
    runs = 0 if name in ONE_RUN else QUICK_RUNS if is_quick else RUNS
    reading: dict[str, Any] = json.loads(_python("bench.gauge", name, folder, str(runs)))
    return reading


def _python(module: str, *arguments: str) -> str:
    environment = {**os.environ, "POLARS_MAX_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", module, *arguments], env=environment, capture_output=True, text=True)  # noqa: S603 -- our own modules
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


def _compare_counts(name: str, readings: dict[str, Any], compared: str | None) -> None:
    """Both chains must have come to the same verdicts, or hits of each rule."""
    if compared and readings[name]["counts"] != readings[compared]["counts"]:
        ours, theirs = ({*readings[which]["counts"].items()} for which in (name, compared))
        raise Failed(f"counted {dict(ours - theirs)}, but by '{compared}' {dict(theirs - ours)}")


def _row(name: str, reading: dict[str, Any], reference: dict[str, Any] | None, target: Target) -> list[str]:
    ratio = reading["rate"] / reference["rate"] if reference else None
    met = target.is_met(reading, ratio)
    return [
        name, _short(reading["rate"]), f"{reading['spread']:.1%}", f"{reading['peak_mb']:.0f} MB", f"+{max(reading['growth_mb'], 0):.0f} MB",
        _short(reference["rate"]) if reference else "", f"{ratio:.1f}x" if ratio else "", str(target), {None: "", True: "yes", False: "no"}[met],
    ]  # fmt: skip


def _short(rate: float) -> str:
    return f"{rate / 1e6:.3g} M" if rate >= 999_500 else f"{rate / 1e3:.3g} k"


def _conditions() -> str:
    libraries = ", ".join(f"{name} {version(name)}" for name in ("polars", "numpy", "msgspec"))
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {libraries}"


_HEADINGS = ["measurement", "events/CPU-s", "spread", "peak RSS", "growth", "other", "ratio", "target", "met"]


def _table(rows: list[list[str]]) -> str:
    """A table that Markdown reads too."""
    lines = [_HEADINGS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (lines[0], rule, *rows)
    )


if __name__ == "__main__":
    sys.exit(main())
