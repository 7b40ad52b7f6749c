"""The boundary matrix: for each pair of segments how many tests there were, by verdict, and who made them.

Additive, so its state can be kept with the offsets and merged across workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringfence import addresses
from ringfence.console import natural_width, wide_enough
from ringfence.telemetry import printable

MAX_TESTERS = 10_000
MAX_LISTED = 1_000
VERDICTS = ("breached", "undeclared", "overblocked", "unproven", "held", "permitted")
"""Worst first: the word that a cell shows is the first of these that occurred."""
_STYLES: Mapping[str, str] = {
    "breached": "bold red", "undeclared": "yellow", "overblocked": "magenta", "unproven": "dim", "held": "green", "permitted": "cyan",
}  # fmt: skip
Key = tuple[str, str, str]


class Matrix:
    """Counts of boundary tests by (from, to, verdict), and of breaches by who, what and rule."""

    def __init__(self) -> None:
        self.tests: Counter[Key] = Counter()
        self.breaches: Counter[tuple[str, str, str, str]] = Counter()
        self.not_listed = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Count the boundary tests of a frame."""
        keys = ["source.segment.name", "destination.segment.name", "ringfence.boundary.verdict"]
        for source, destination, verdict, count in frame.group_by(keys).len().iter_rows():
            self.tests[source, destination, verdict] += count
        breached = frame.filter(pl.col("ringfence.boundary.verdict") == "breached")
        if breached.height:
            self._add_breaches(breached)

    def _add_breaches(self, frame: pl.DataFrame) -> None:
        ends = {
            side: addresses.text(*(frame[name] if name in frame.columns else None for name in (f"{side}.ip", f"{side}.ip6")))
            for side in ("source", "destination")
        }
        who = frame.select(
            pl.col("ringfence.boundary.id").alias("boundary"),
            pl.col("ringfence.boundary.service").alias("service"),
            **{side: pl.lit(text) for side, text in ends.items()},
        )
        for boundary, service, source, destination, count in (
            who.group_by("boundary", "service", "source", "destination").len().iter_rows()
        ):
            key = (boundary, source or "?", destination or "?", service)
            if key in self.breaches or len(self.breaches) < MAX_TESTERS:
                self.breaches[key] += count
            else:
                self.not_listed += count

    def totals(self) -> dict[str, int]:
        """Number of tests by verdict, all verdicts named."""
        totals = dict.fromkeys(VERDICTS, 0)
        for (_, _, verdict), count in self.tests.items():
            totals[verdict] = totals.get(verdict, 0) + count
        return totals

    def as_json(self) -> dict[str, object]:
        """A list of boundaries with their counts by verdict, and the breaches, in a stable order."""
        boundaries: dict[tuple[str, str], dict[str, int]] = {}
        for (source, destination, verdict), count in sorted(self.tests.items()):
            boundaries.setdefault((source, destination), {})[verdict] = count
        listed = sorted(self.breaches.items(), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]
        return {
            "verdicts": self.totals(),
            "boundaries": [{"from": ends[0], "to": ends[1], "tests": counts} for ends, counts in boundaries.items()],
            "breaches": [
                {"boundary": key[0], "source": key[1], "destination": key[2], "service": key[3], "tests": count}
                for key, count in listed
            ],
            "breaches_not_listed": sum(self.breaches.values()) - sum(count for _, count in listed) + self.not_listed,
        }

    def encode(self) -> bytes:
        """For the state of a step."""
        return msgspec.json.encode([list(self.tests.items()), list(self.breaches.items()), self.not_listed])

    @classmethod
    def decode(cls, state: bytes) -> Matrix:
        """From the state of a step; empty when there is none."""
        matrix = cls()
        if state:
            tests, breaches, matrix.not_listed = msgspec.json.decode(state)
            matrix.tests.update({(key[0], key[1], key[2]): count for key, count in tests})
            matrix.breaches.update({(key[0], key[1], key[2], key[3]): count for key, count in breaches})
        return matrix

    def print(self, console: Console, order: Sequence[str] = ()) -> None:
        """Print the matrix, as a list where the terminal is too narrow for it; a pipe is as wide as it needs."""
        seen = {name for source, destination, _ in self.tests for name in (source, destination)}
        names = [name for name in order if name in seen] + sorted(seen - set(order))
        table = self._table(names)
        console = wide_enough(console, table)
        if seen:
            fits = natural_width(console, table) <= console.width
            console.print(table if fits else self._list(names), highlight=False)
        for line in (self._summary(), *self._breach_lines()):
            console.print(line, highlight=False, soft_wrap=True)

    def _table(self, names: Sequence[str]) -> Table:
        table = Table(title="Boundary tests, from row to column", title_justify="left", pad_edge=False)
        table.add_column("from \\ to", no_wrap=True)
        for name in names:
            table.add_column(Text(printable(name)), justify="center", no_wrap=True)
        for source in names:
            if any(self._counts(source, destination) for destination in names):
                table.add_row(Text(printable(source)), *(self._cell(source, destination) for destination in names))
        return table

    def _list(self, names: Sequence[str]) -> Table:
        table = Table(title="Boundary tests", title_justify="left", box=None, pad_edge=False)
        table.add_column("boundary", no_wrap=True)
        table.add_column("tests")
        for source in names:
            for destination in names:
                if self._counts(source, destination):
                    table.add_row(Text(printable(f"{source} -> {destination}")), self._cell(source, destination))
        return table

    def _counts(self, source: str, destination: str) -> dict[str, int]:
        return {verdict: count for verdict in VERDICTS if (count := self.tests[source, destination, verdict])}

    def _cell(self, source: str, destination: str) -> Text:
        if source == destination:
            return Text("—", style="dim")
        counts = self._counts(source, destination)
        lines = [Text(f"{verdict} {count:,}", style=_STYLES[verdict]) for verdict, count in counts.items()]
        return Text("\n").join(lines) if lines else Text("·", style="dim")

    def _summary(self) -> Text:
        totals = self.totals()
        parts = [Text(f"{totals[verdict]:,} {verdict}", style=_STYLES[verdict]) for verdict in VERDICTS if totals[verdict]]
        return Text("Verdicts: ").append_text(Text(" · ").join(parts)) if parts else Text("No boundary was tested.")

    def _breach_lines(self) -> list[Text]:
        lines = []
        for (boundary, source, destination, service), count in sorted(self.breaches.items(), key=lambda item: -item[1])[:10]:
            records = "1 record proves" if count == 1 else f"{count:,} records prove"
            line = f"BREACHED {boundary}: {source} reached {destination} on {service}, though intent denies it; {records} it."
            lines.append(Text(printable(line), style=_STYLES["breached"]))
        left = len(self.breaches) - len(lines)
        return [*lines, Text(f"... and {left:,} more, see boundary.jsonl.")] if left > 0 else lines
