"""Gives the segments of a row their names, roles, tenants and sites, for sinks: codes mean nothing outside a process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.segments import SEGMENT_PARTS, SegmentMap
from ringfence.topology import Topology


class Labels:
    """Replaces `source|destination.segment.code` by the five columns of the segment objects."""

    def __init__(self, topology: Topology) -> None:
        self._map = SegmentMap(topology)

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Add the names; batches without codes pass unchanged."""
        sides = [side for side in ("source", "destination") if f"{side}.segment.code" in batch.frame.columns]
        if not sides:
            return Processed(batch)
        columns = [column for side in sides for column in self._columns(side, batch.frame[f"{side}.segment.code"])]
        frame = batch.frame.with_columns(columns).drop(f"{side}.segment.code" for side in sides)
        return Processed(Batch(batch.header, frame))

    def _columns(self, side: str, codes: pl.Series) -> Sequence[pl.Series]:
        index = codes.to_numpy().astype(np.uint16)
        return [self._map.part(part, index).alias(f"{side}.segment.{part}") for part in SEGMENT_PARTS]


class Settings(BaseModel):
    """No options: the topology is all it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelsKind:
    """Entry point `labels`."""

    settings = Settings
    promise = "pure: codes become names"
    status: Status = "experimental"
    event_classes = frozenset(EventClass) - {EventClass.DEAD}

    def build(self, settings: Settings, context: BuildContext) -> Labels:
        """Make the processor for a topology."""
        return Labels(context.topology)


KIND = LabelsKind()
