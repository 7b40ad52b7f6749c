"""Watches names: many domains that do not exist asked for by one host, and service accounts from a host new to them.

What is found is of class detector: `nxdomain-burst` and `service-account-new-host`. An account is one of a service when its
name begins with svc-, svc_, srv- or sa-. The method is in `ringfence/names.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from ringfence import addresses, bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed, Status
from ringfence.detectors import LOGINS, Finding, account_of, batch_of, event_id
from ringfence.names import SERVICE_PREFIXES, Names, is_service
from ringfence.segments import SegmentMap
from ringfence.telemetry import DETECTOR_BOUNDS
from ringfence.topology import Topology

_DNS_PORT = 53
_SERVICE = rf"(?i)(^|\\)({'|'.join(SERVICE_PREFIXES)})"


class NameDetector:
    """Makes questions and logins of rows, in their order."""

    def __init__(self, topology: Topology) -> None:
        self._segments = SegmentMap(topology)
        self._names = Names()

    def process(self, batch: Batch, now: Micros) -> Processed:
        """Pass the batch on as it is, with what was found beside it."""
        if batch.header.event_class is EventClass.DNS:
            found = list(self._questions(batch.frame))
        elif batch.header.event_class is EventClass.AUTH:
            found = list(self._logins(batch.frame))
        else:
            return Processed(batch)
        self._names.bounds.report("names", DETECTOR_BOUNDS)
        return Processed(batch, {bus.DETECTIONS: [batch_of(found, batch, self._segments)]} if found else {})

    def snapshot(self) -> bytes:
        """Who asked for what lately, and where accounts came from."""
        return self._names.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew."""
        self._names.restore(state)

    def _questions(self, frame: pl.DataFrame) -> Iterator[Finding]:
        if not {"dns.response_code", "dns.question.name"} <= set(frame.columns):
            return
        wanted = (frame["dns.response_code"] == "NXDOMAIN") & frame["dns.question.name"].is_not_null()
        for row, part in _rows(frame, wanted, ("dns.question.name", "source.port", "destination.port")):
            # an answer as a record of its own comes from the server
            is_answer = part["source.port"] == _DNS_PORT and part["destination.port"] != _DNS_PORT
            asker = part["destination" if is_answer else "source"]
            if asker is None:
                continue
            ends = _turned(frame, row) if is_answer else {}
            for finding in self._names.not_found(asker, part["dns.question.name"], part["@timestamp"], part["id"], row):
                yield finding._replace(columns=ends)

    def _logins(self, frame: pl.DataFrame) -> Iterator[Finding]:
        if not {"event.outcome", "event.action", "user.name"} <= set(frame.columns):
            return
        wanted = (frame["event.outcome"] == "success") & frame["event.action"].is_in(LOGINS)
        for row, part in _rows(frame, wanted & frame["user.name"].str.contains(_SERVICE), ("user.name",)):
            account = account_of(part["user.name"])
            if account is not None and is_service(account) and part["source"] is not None:
                yield from self._names.login(account, part["source"], part["@timestamp"], row)


def _rows(frame: pl.DataFrame, wanted: pl.Series, more: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows that are wanted, with their addresses as text and their ids."""
    rows = np.flatnonzero(wanted.fill_null(False).to_numpy())
    if not len(rows):
        return
    some = frame[pl.Series(rows.astype(np.uint32))]
    names = ("@timestamp", *more)
    columns = {name: some[name].to_list() if name in some.columns else [None] * len(rows) for name in names}
    for side in ("source", "destination"):
        text = addresses.text(*(some[name] if name in some.columns else None for name in (f"{side}.ip", f"{side}.ip6")))
        columns[side] = [None] * len(rows) if text is None else text.to_list()
    ids = zip(some["ringfence.event.source"].to_list(), some["ringfence.event.position"].to_list(), strict=True)
    columns["id"] = [event_id(*halves) for halves in ids]
    for index, row in enumerate(rows.tolist()):
        yield row, {name: values[index] for name, values in columns.items()}


def _turned(frame: pl.DataFrame, row: int) -> dict[str, Any]:
    """The ends of a row the other way round."""
    ends = {"source": "destination", "destination": "source"}
    parts = ("ip", "ip6", "port", "segment.code")
    wanted = {f"{side}.{part}": f"{other}.{part}" for side, other in ends.items() for part in parts}
    return {name: frame[other][row] for name, other in wanted.items() if other in frame.columns}


class Settings(BaseModel):
    """No options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NamesKind:
    """Entry point `names`."""

    settings = Settings
    promise = "a replay of the same rows gives the same findings, whatever the batches and restarts"
    status: Status = "experimental"
    event_classes = frozenset({EventClass.DNS, EventClass.AUTH})

    def build(self, settings: Settings, context: BuildContext) -> NameDetector:
        """Make the processor for a topology."""
        return NameDetector(context.topology)


KIND = NamesKind()
