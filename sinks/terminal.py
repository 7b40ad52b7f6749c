"""A summary for people: the boundary matrix, what was breached and by whom, and the alerts, printed when the sink closes.

The counts are committed with the offsets, so they are exact across crashes and restarts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict
from rich.console import Console

from ringfence import bus
from ringfence.batch import Batch, Problem
from ringfence.component import BuildContext, Status
from ringfence.summary import Summary


class TerminalSummary:
    """Counts boundary tests and alerts into a Summary."""

    def __init__(self, order: Sequence[str], output: Literal["stdout", "stderr", "none"]) -> None:
        self.topics = (bus.BOUNDARY, bus.ALERTS)
        self._order = order
        self._output = output
        self._summary: Summary | None = None

    async def open(self, state: bytes) -> None:
        """Go on from the committed counts."""
        self._summary = Summary.decode(state)

    async def write(self, topic: str, batch: Batch) -> Mapping[int, Problem]:
        """Count a batch."""
        if self._summary is not None:
            counted = self._summary.alerts if topic == bus.ALERTS else self._summary.matrix
            counted.add(batch.frame)
        return {}

    async def flush(self) -> bytes:
        """The counts are the state."""
        return self._summary.encode() if self._summary is not None else b""

    async def close(self) -> None:
        """Print it, once."""
        if self._summary is not None and self._output != "none":
            self._summary.print(Console(stderr=self._output == "stderr"), self._order)
        self._summary = None


class Settings(BaseModel):
    """Where to print; `none` only keeps the counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: Literal["stdout", "stderr", "none"] = "stdout"


class TerminalKind:
    """Entry point `terminal`."""

    settings = Settings
    promise = "exact counts across restarts, printed at the end"
    status: Status = "experimental"
    sample = "summary: {type: terminal}"

    def build(self, settings: Settings, context: BuildContext) -> TerminalSummary:
        """Rows and columns are in the order of the topology."""
        return TerminalSummary(list(context.topology.segments), settings.output)

    def resources(self, settings: Settings) -> Sequence[str]:
        """Claims nothing."""
        return ()


KIND = TerminalKind()
