"""The alerts for people: how many there were, and the sentences of the worst, highest first. Its state is kept with the offsets."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import polars as pl
from rich.console import Console
from rich.text import Text

from ringfence.telemetry import printable

MAX_KEPT = 1_000
"""Alerts whose sentence is remembered; of more, those of the highest level, and of these the earliest."""
MAX_SHOWN = 20
_STYLES: Mapping[str, str] = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "informational": "dim"}
_COLUMNS = ("ringfence.alert.id", "event.severity", "event.start", "ringfence.alert.status", "ringfence.alert.level", "message")


class _Entry(msgspec.Struct, array_like=True):
    severity: int
    start_us: int
    level: str
    message: str


class AlertList:
    """The latest record of each alert."""

    def __init__(self) -> None:
        self.count = 0
        self._entries: dict[str, _Entry] = {}

    def add(self, frame: pl.DataFrame) -> None:
        """Take the records of a frame; each replaces the one before it of the same alert."""
        for name, severity, start_us, status, level, message in frame.select(_COLUMNS).iter_rows():
            self.count += status == "new"
            self._entries[name] = _Entry(severity, start_us, level, message)
        if len(self._entries) > MAX_KEPT:
            self._entries = dict(self._ordered()[:MAX_KEPT])

    def print(self, console: Console) -> None:
        """Print the sentences of the worst MAX_SHOWN; nothing where there is none."""
        if not self.count:
            return
        console.print(f"Alerts: {self.count:,}", highlight=False)
        shown = self._ordered()[:MAX_SHOWN]
        for _, entry in shown:
            console.print(Text(printable(entry.message), style=_STYLES.get(entry.level, "")), soft_wrap=True)
        if (left := self.count - len(shown)) > 0:
            console.print(f"... and {left:,} more, see alerts.jsonl.", highlight=False)

    def encode(self) -> bytes:
        """For the state of a step."""
        return msgspec.json.encode([self.count, self._entries])

    @classmethod
    def decode(cls, state: bytes) -> AlertList:
        """From the state of a step; empty when there is none."""
        known = cls()
        if state:
            known.count, known._entries = msgspec.json.decode(state, type=tuple[int, dict[str, _Entry]])
        return known

    def _ordered(self) -> list[tuple[str, _Entry]]:
        return sorted(self._entries.items(), key=lambda item: (-item[1].severity, item[1].start_us, item[0]))
