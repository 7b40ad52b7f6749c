"""What a run came to, for people: the boundary matrix and below it the alerts. Its state is kept with the offsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from rich.console import Console

from ringfence.alert_list import AlertList
from ringfence.matrix import Matrix


class _State(msgspec.Struct):
    matrix: msgspec.Raw
    alerts: msgspec.Raw


@dataclass
class Summary:
    """Additive, as its parts are."""

    matrix: Matrix = field(default_factory=Matrix)
    alerts: AlertList = field(default_factory=AlertList)

    def print(self, console: Console, order: Sequence[str]) -> None:
        """Print both; `order` is that of the segments."""
        self.matrix.print(console, order)
        self.alerts.print(console)

    def encode(self) -> bytes:
        """For the state of a step."""
        return msgspec.json.encode(_State(msgspec.Raw(self.matrix.encode()), msgspec.Raw(self.alerts.encode())))

    @classmethod
    def decode(cls, state: bytes) -> Summary:
        """From the state of a step; before there were alerts, that was the matrix alone."""
        if not state.startswith(b"{"):
            return cls(Matrix.decode(state))
        found = msgspec.json.decode(state, type=_State)
        return cls(Matrix.decode(bytes(found.matrix)), AlertList.decode(bytes(found.alerts)))
