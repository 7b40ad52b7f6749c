"""All correlations in force: matches of rules in, detections out.

    marks = Watermarks()
    correlator = Correlator(loaded.correlations)
    observed = marks.observe(source, time_us)                # every event of the batch, matched or not
    found = correlator.feed({rule.id: Matches(...)}, marks.horizon_us)

Detections come in the order of their time. They are made once the watermark has passed, so as long after the last event as
the allowed lateness says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np
import polars as pl

from ringfence.correlation.detections import Detection
from ringfence.correlation.matches import Matches
from ringfence.correlation.state import Dump, Limits, State
from ringfence.correlation.watermarks import START
from ringfence.sigma.correlations import Correlation

VERSION = 1


class _Snapshot(msgspec.Struct, frozen=True, array_like=True):
    version: int
    horizon_us: int
    states: list[tuple[str, Dump]]


class Correlator:
    """`correlations` stand behind those that they refer to, as `rules.load` gives them."""

    def __init__(self, correlations: Iterable[Correlation], limits: Limits | None = None) -> None:
        self._states = [State(correlation, limits or Limits()) for correlation in correlations]
        self._horizon_us = START
        self.cleared = 0
        """Correlations whose state was given up at a restore."""

    def needs(self) -> Mapping[str, frozenset[str]]:
        """For each rule the fields that its matches must bring, by the names that the rule uses."""
        found: dict[str, frozenset[str]] = {}
        for state in self._states:
            for wanted in state.correlation.inputs:
                found[wanted.rule] = found.get(wanted.rule, frozenset()).union(wanted.group_by, wanted.values)
        return {rule: fields for rule, fields in found.items() if rule not in {each.correlation.id for each in self._states}}

    def feed(self, matches: Mapping[str, Matches], horizon_us: int) -> list[Detection]:
        """Matches by id of their rule, and the watermark after them. Without matches, timers run."""
        self._horizon_us = max(self._horizon_us, horizon_us)
        made: dict[str, list[Detection]] = {}
        for state in self._states:
            for place, rule in enumerate(state.correlation.rules):
                if rule in matches:
                    state.add(matches[rule], place)
                elif made.get(rule):
                    state.add(_as_matches(made[rule]), place)
            made[state.correlation.id] = state.advance(self._horizon_us)
        rank = {id: place for place, id in enumerate(made)}
        return sorted(
            (each for found in made.values() for each in found), key=lambda each: (each.time_us, rank[each.rule], each.id)
        )

    @property
    def drops(self) -> Mapping[str, Counter[str]]:
        """For each correlation what did not count, since the start of the process: see docs/explanation/correlation.md."""
        return {state.correlation.id: state.drops for state in self._states}

    @property
    def groups(self) -> Mapping[str, int]:
        """How many groups each correlation holds."""
        return {state.correlation.id: state.groups for state in self._states}

    def snapshot(self) -> bytes:
        """All state after what was fed. The same feeds give the same bytes."""
        states = [(state.correlation.id, state.dump(self._horizon_us)) for state in self._states]
        return msgspec.msgpack.encode(_Snapshot(VERSION, self._horizon_us, states))

    def restore(self, snapshot: bytes) -> None:
        """Go on from a snapshot. What cannot be read, or is of a correlation that has changed, is cleared and counted."""
        try:
            found = msgspec.msgpack.decode(snapshot, type=_Snapshot)
            if found.version != VERSION:
                raise ValueError(f"version {found.version} of the snapshot is not {VERSION}")
            dumps = dict(found.states)
            self._horizon_us = found.horizon_us
        except (msgspec.DecodeError, ValueError):
            self.cleared += len(self._states)
            return
        for state in self._states:
            dump = dumps.get(state.correlation.id)
            self.cleared += dump is not None and not state.load(dump)


def _as_matches(detections: Sequence[Detection]) -> Matches:
    """Detections as events: their time is when they were made, their fields are what they were grouped by."""
    times = np.array([each.time_us for each in detections], np.int64)
    halves = np.frombuffer(b"".join(each.id for each in detections), ">u8").astype(np.uint64).reshape(-1, 2)
    names = [name for name, _ in detections[0].group]
    fields = {
        name: pl.Series(name, [each.group[place][1] for each in detections], pl.String) for place, name in enumerate(names)
    }
    return Matches(times, times, halves[:, 0], halves[:, 1], fields)
