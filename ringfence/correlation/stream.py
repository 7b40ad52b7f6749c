"""Correlations on batches: shows every event to the watermarks and every match to the correlator, and makes rows of class
detection of what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence import addresses, detections
from ringfence.batch import Batch, EventClass
from ringfence.correlation.detections import Detection
from ringfence.correlation.engine import Correlator
from ringfence.correlation.matches import Matches
from ringfence.correlation.watermarks import END, Watermarks
from ringfence.detections import Finding
from ringfence.schema import BY_NAME, build_frame, frame_schema
from ringfence.sigma.correlations import Correlation
from ringfence.sigma.engine import Match
from ringfence.sigma.table import Table

AHEAD_US = 300_000_000
"""How far a time may lie after its arrival; what is beyond counts as that, so a clock that is wrong cannot close all windows."""
_DERIVED = frozenset({EventClass.BOUNDARY, EventClass.DETECTION})
_TEXTS = {name for name, dtype in frame_schema(EventClass.DETECTION).items() if dtype == pl.String()}


class CorrelationStream:
    """The correlations of a rule set; their fields are columns."""

    def __init__(self, correlations: Sequence[Correlation]) -> None:
        self._correlations = {each.id: each for each in correlations}
        self._correlator = Correlator(correlations)
        self._needs = self._correlator.needs()
        self._marks = Watermarks()
        self._seen = pl.DataFrame(schema={"source": pl.UInt64, "position": pl.UInt64, "horizon": pl.Int64})

    @property
    def drops(self) -> Mapping[str, Mapping[str, int]]:
        """What did not count, by correlation and reason."""
        return self._correlator.drops

    def feed(self, batch: Batch, table: Table, matches: Sequence[Match]) -> pl.DataFrame | None:
        """Take a batch with its matches; return the detections that are due."""
        if not self._correlations:
            return None
        times, horizons = self._observed(batch)
        wanted = {
            match.rule.id: self._matches(match, batch, table, times, horizons)
            for match in matches
            if match.rule.id in self._needs
        }
        return self._rows(self._correlator.feed(wanted, self._marks.horizon_us))

    def finish(self) -> pl.DataFrame | None:
        """The detections of all windows that are open when nothing more will come."""
        return self._rows(self._correlator.feed({}, END)) if self._correlations else None

    def _observed(self, batch: Batch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Event times, and the watermark before each row; that of a boundary test is that of its evidence."""
        frame = batch.frame
        times = frame["@timestamp"].fill_null(batch.header.time_max_us).to_numpy()
        if batch.header.event_class in _DERIVED:
            keys = {"source": frame["ringfence.evidence.source"], "position": frame["ringfence.evidence.position"]}
            found = pl.DataFrame(keys).join(self._seen, on=["source", "position"], how="left", maintain_order="left")
            return times, found["horizon"].fill_null(self._marks.horizon_us).to_numpy()
        source, position = frame["ringfence.event.source"], frame["ringfence.event.position"]
        ceiling = batch.header.ingested_us + AHEAD_US if batch.header.ingested_us else END
        observed = self._marks.observe(source.to_numpy(), times, ceiling)
        seen = pl.DataFrame({"source": source, "position": position, "horizon": observed.horizon_us})
        self._seen = seen.unique(["source", "position"], keep="first")
        return observed.time_us, observed.horizon_us

    def _matches(
        self, match: Match, batch: Batch, table: Table, times: npt.NDArray[np.int64], horizons: npt.NDArray[np.int64]
    ) -> Matches:
        rows = match.rows
        index = pl.Series(rows.astype(np.uint32))
        columns = ((name, table.column(name)) for name in self._needs[match.rule.id])
        return Matches(
            times[rows],
            horizons[rows],
            batch.frame["ringfence.event.source"].to_numpy()[rows],
            batch.frame["ringfence.event.position"].to_numpy()[rows],
            {name: column[index] for name, column in columns if column is not None},
        )

    def _rows(self, found: Sequence[Detection]) -> pl.DataFrame | None:
        reported = [each for each in found if each.is_reported]
        if not reported:
            return None
        frames = [_row(each, self._correlations[each.rule]) for each in reported]
        return pl.concat(frames, how="diagonal")

    def snapshot(self) -> bytes:
        """What a restart must know."""
        return msgspec.msgpack.encode((self._marks.snapshot(), self._correlator.snapshot())) if self._correlations else b""

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; one that cannot be read is left aside."""
        try:
            marks, correlator = msgspec.msgpack.decode(state, type=tuple[bytes, bytes])
            self._marks.restore(marks)
        except (msgspec.DecodeError, ValueError):
            return
        self._correlator.restore(correlator)


def _row(found: Detection, correlation: Correlation) -> pl.DataFrame:
    """A detection; what it was grouped by fills the columns of that name."""
    finding = Finding(
        "correlation",
        correlation.id,
        correlation.title,
        correlation.level,
        detections.techniques_of(correlation.tags),
        detections.tactics_of(correlation.tags),
        correlation.reaction,
    )
    last = found.evidence[-1]
    columns: dict[str, Any] = {
        "@timestamp": [found.time_us],
        "event.start": [found.first_us],
        "event.end": [found.last_us],
        "ringfence.event.source": [int.from_bytes(found.id[:8], "big")],
        "ringfence.event.position": [int.from_bytes(found.id[8:], "big")],
        "ringfence.evidence.source": [last.source],
        "ringfence.evidence.position": [last.position],
        "ringfence.detection.count": [found.count],
        "ringfence.detection.events": [",".join(f"{each.source:016x}{each.position:016x}" for each in found.evidence)],
        "ringfence.detection.fields": [detections.fitting({**dict(found.group), "measure": found.measure})],
    }
    for name, value in found.group:
        columns |= _group_columns(name, value)
    return build_frame(EventClass.DETECTION, columns | detections.of_rule(finding, 1))


def _group_columns(name: str, value: str) -> dict[str, Any]:
    column = BY_NAME.get(name)
    if column is None or EventClass.DETECTION not in column.classes:
        return {}
    if column.render == "ipv4":
        address = addresses.parse(value)
        if address is None:
            return {}
        return {name: [address]} if isinstance(address, int) else {f"{name}6": [address]}
    if name in _TEXTS:
        return {name: [value]}
    return {name: [int(value)]} if column.dtype.is_integer() and column.render == "plain" and value.isdecimal() else {}
