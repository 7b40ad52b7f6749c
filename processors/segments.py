"""Adds the segment of both ends to every row that has addresses.

Look-ups are vectorised (`ringfence/segments.py`). Addresses that more than one tenant or site uses are settled by what
the record says about where it was seen: interface, VLAN, VNI and observer, then by the segment of the other end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.segments import UNKNOWN_CODE, Codes, Facts, SegmentMap
from ringfence.topology import Topology

MAX_SETTLED = 65_536
_SIDES = ("source", "destination")
_FACT_COLUMNS = (
    "observer.name",
    "observer.ingress.interface.name",
    "observer.egress.interface.name",
    "network.vlan.id",
    "ringfence.vxlan.vni",
)


class Segments:
    """Adds `source|destination.segment.code`, which `labels` and `boundaries` understand in the same process."""

    def __init__(self, topology: Topology) -> None:
        self.map = SegmentMap(topology)
        self._settled: dict[tuple[Any, ...], tuple[int, int]] = {}

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Add both codes; batches without addresses pass unchanged."""
        frame = batch.frame
        if not any(f"{side}.ip" in frame.columns or f"{side}.ip6" in frame.columns for side in _SIDES):
            return Processed(batch)
        source, destination = (self._codes(frame, side) for side in _SIDES)
        if self.map.contests:
            self._settle(frame, source, destination)
        added = [pl.Series(f"{side}.segment.code", codes) for side, codes in zip(_SIDES, (source, destination), strict=True)]
        return Processed(Batch(batch.header, frame.with_columns(added)))

    def _codes(self, frame: pl.DataFrame, side: str) -> Codes:
        codes = np.full(frame.height, UNKNOWN_CODE, np.int32)
        if f"{side}.ip" in frame.columns:
            four = frame[f"{side}.ip"]
            if four.null_count():
                known = four.is_not_null().to_numpy()
                codes[known] = self.map.codes4(four.drop_nulls().to_numpy())
            else:
                codes = self.map.codes4(four.to_numpy())
        if f"{side}.ip6" in frame.columns and frame[f"{side}.ip6"].null_count() < frame.height:
            six = frame[f"{side}.ip6"]
            codes[six.is_not_null().to_numpy()] = self.map.codes6(six.drop_nulls().to_list())
        return codes

    def _settle(self, frame: pl.DataFrame, source: Codes, destination: Codes) -> None:
        """Settle contested rows in place, once per distinct combination of contest and facts."""
        rows = np.flatnonzero((source < 0) | (destination < 0))
        if not len(rows):
            return
        facts = [_values(frame, name, rows) for name in _FACT_COLUMNS]
        combinations = zip(source[rows].tolist(), destination[rows].tolist(), *facts, strict=True)
        answers = [self._settled_pair(combination) for combination in combinations]
        source[rows], destination[rows] = zip(*answers, strict=True)

    def _settled_pair(self, combination: tuple[Any, ...]) -> tuple[int, int]:
        known = self._settled.get(combination)
        if known is None:
            if len(self._settled) >= MAX_SETTLED:
                self._settled.clear()
            known = self._settled[combination] = self._settle_pair(*combination)
        return known

    def _settle_pair(
        self,
        source: int,
        destination: int,
        observer: str | None,
        ingress: str | None,
        egress: str | None,
        vlan: int | None,
        vni: int | None,
    ) -> tuple[int, int]:
        """The tag of a packet belongs to the side that it was seen on: the ingress, unless only an egress is known."""
        entering = Facts(observer, ingress, vlan if ingress or not egress else None, vni if ingress or not egress else None)
        leaving = Facts(observer, egress, vlan if egress and not ingress else None, vni if egress and not ingress else None)
        if source >= 0 or self._decided(source, entering):
            source = self._one(source, [entering], UNKNOWN_CODE)
            return source, self._one(destination, [leaving], source)
        destination = self._one(destination, [leaving], UNKNOWN_CODE)
        return self._one(source, [entering], destination), destination

    def _decided(self, code: int, facts: Facts) -> bool:
        return self.map.by_facts(self.map.contests[-code - 1], facts) is not None

    def _one(self, code: int, facts: list[Facts], peer: int) -> int:
        return code if code >= 0 else self.map.settle(self.map.contests[-code - 1], facts, peer)


def _values(frame: pl.DataFrame, name: str, rows: npt.NDArray[np.int64]) -> list[Any]:
    return frame[name].gather(rows).to_list() if name in frame.columns else [None] * len(rows)


class Settings(BaseModel):
    """No options: the topology is all it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmentsKind:
    """Entry point `segments`."""

    settings = Settings
    promise = "pure: the same batch and topology give the same codes"
    status: Status = "experimental"
    event_classes = frozenset(EventClass) - {EventClass.DEAD}

    def build(self, settings: Settings, context: BuildContext) -> Segments:
        """Make the processor for a topology."""
        return Segments(context.topology)


KIND = SegmentsKind()
