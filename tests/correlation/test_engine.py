"""What fires when, what ends a window, what a bound costs, and what a detection says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from ringfence.correlation.detections import MAX_SAMPLES
from ringfence.correlation.engine import Correlator
from ringfence.correlation.matches import Matches
from ringfence.correlation.state import Limits
from ringfence.correlation.watermarks import END, START
from tests.correlation.streams import SECOND, Event, correlations, matches, placed, run

THREE = "type: event_count, rules: a, group-by: [user], timespan: 10s, condition: {gte: 3}"
FEW = "type: event_count, rules: a, group-by: [user], timespan: 10s, condition: {lte: 2}"
WITHOUT = "type: temporal, group-by: [user], timespan: 10s, condition: a and not b"


def times(body: str, *secs: float, rule: str = "a") -> list[float]:
    found = run(correlations(body), placed([Event(each, rule) for each in secs]))
    return [each.time_us / SECOND for each in found.detections]


def test_a_count_fires_once_on_crossing() -> None:
    assert times(THREE, 0, 1, 2, 3, 4) == [2]


def test_events_a_whole_span_apart_are_not_in_one_window() -> None:
    assert times(THREE, 0, 1, 10) == []
    assert times(THREE, 0, 1, 9.9) == [9.9]


def test_a_count_is_armed_again_when_the_group_falls_below() -> None:
    assert times(THREE, 0, 1, 2, 11.5, 12, 13) == [2, 13]


def test_a_suppressed_group_is_silent_for_that_long_and_then_fires_while_it_holds() -> None:
    assert times("5s|" + THREE, *range(12)) == [2, 7]
    assert times("30s|" + THREE, 0, 1, 2, 20, 21, 22, 31.9, 32, 33) == [2, 33]


def test_few_is_told_when_the_window_closes() -> None:
    assert times(FEW, 0, 1, 20, 21, 22) == [10]


def test_absence_is_told_when_the_window_closes() -> None:
    events = placed([Event(0, "a", "x"), Event(0, "a", "y"), Event(5, "b", "y"), Event(30, "b", "z")])
    found = run(correlations(WITHOUT), events).detections

    assert [(each.time_us / SECOND, each.group) for each in found] == [(10, (("user", "x"),))]


def test_a_window_closes_by_the_watermark_alone() -> None:
    correlator = Correlator(correlations(FEW))

    assert correlator.feed(matches([Event(0)], [START]), 1 * SECOND) == []
    assert correlator.feed({}, 10 * SECOND) == []
    assert [each.time_us for each in correlator.feed({}, 10 * SECOND + 1)] == [10 * SECOND]


def test_nothing_is_told_before_the_watermark_has_passed() -> None:
    correlator = Correlator(correlations(THREE))

    assert correlator.feed(matches(placed([Event(0), Event(1), Event(2)]), [START] * 3), 2 * SECOND) == []
    assert len(correlator.feed({}, 2 * SECOND + 1)) == 1


def test_order_counts_for_ordered_and_not_for_temporal() -> None:
    events = placed([Event(0, "b"), Event(1, "a")])

    assert not run(correlations("type: temporal_ordered, rules: [a, b], timespan: 10s"), events).detections
    assert len(run(correlations("type: temporal, rules: [a, b], timespan: 10s"), events).detections) == 1


def test_events_without_the_field_of_the_group_or_the_value_do_not_count() -> None:
    body = "type: value_count, rules: a, group-by: [user], timespan: 10s, condition: {gte: 2, field: value}"
    events = placed([Event(0, user=None, value=1), Event(1, value=None), Event(2, value=1), Event(3, value=2)])
    found = run(correlations(body), events)

    assert [each.count for each in found.detections] == [2]
    assert found.drops["c0"] == {"no_group": 1, "no_value": 1}


def fed(body: str, fields: dict[str, list[Any]], rule: str = "a") -> list[tuple[tuple[str, str], ...]]:
    rows = len(next(iter(fields.values())))
    at = np.arange(rows, dtype=np.int64) * SECOND
    given = Matches(
        at, np.full(rows, START), np.ones(rows, np.uint64), at.astype(np.uint64), {n: pl.Series(v) for n, v in fields.items()}
    )
    return [each.group for each in Correlator(correlations(body)).feed({rule: given}, END)]


def test_groups_of_several_fields_do_not_run_together() -> None:
    body = "type: event_count, rules: a, group-by: [x, y], timespan: 1m, condition: {gte: 2}"

    assert fed(body, {"x": ["a", "ab"], "y": ["bc", "c"]}) == []
    assert fed(body, {"x": ["1:é", "1:é"], "y": ["", ""]}) == [(("x", "1:é"), ("y", ""))]
    assert fed(body, {"x": [1, 1], "y": [["p", "q"], ["p", "q"]]}) == [(("x", "1"), ("y", "p\x1fq"))]


def test_a_tuple_of_fields_is_counted_as_one_value() -> None:
    body = "type: value_count, rules: a, timespan: 1m, condition: {gte: 3, field: [ip, port]}"

    assert len(fed(body, {"ip": ["i", "i", "j", "i"], "port": [1, 2, 1, 1]})) == 1


def test_numbers_are_read_from_text_and_what_is_none_does_not_count() -> None:
    body = "type: value_sum, rules: a, timespan: 1m, condition: {gte: 0.3, field: n}"

    assert len(fed(body, {"n": ["0.1", "x", "nan", "0.2"]})) == 1


def test_an_alias_is_the_field_of_each_rule() -> None:
    body = "type: temporal, rules: [a, b], timespan: 10s, group-by: [who], aliases: {who: {a: user, b: value}}"
    events = placed([Event(0, "a", "root"), Event(1, "b", "other", "root"), Event(2, "b", "root", "other")])

    assert [each.group for each in run(correlations(body), events).detections] == [(("who", "root"),)]


def test_a_detection_names_its_evidence() -> None:
    (found,) = run(correlations(THREE), placed([Event(0), Event(1), Event(2)])).detections

    assert (found.rule, found.first_us, found.last_us, found.count) == ("c0", 0, 2 * SECOND, 3)
    assert [(each.rule, each.source, each.position) for each in found.evidence] == [("a", 1, 0), ("a", 1, 1), ("a", 1, 2)]
    assert len(found.id) == 16
    assert msgspec.json.encode(found)


def test_of_many_events_the_first_and_last_are_samples() -> None:
    (found,) = run(correlations(THREE.replace("3", "50")), placed([Event(n / 10) for n in range(50)])).detections

    assert found.count == 50
    assert [each.position for each in found.evidence] == [*range(10), *range(40, 50)]
    assert len(found.evidence) == MAX_SAMPLES


def test_a_chain_names_the_detections_below_it() -> None:
    chain = "type: event_count, rules: c0, group-by: [user], timespan: 1m, condition: {gte: 2}"
    found = run(correlations(THREE, chain), placed([Event(each) for each in (0, 1, 2, 20, 21, 22)])).detections
    below, top = [each for each in found if each.rule == "c0"], found[-1]

    assert [each.is_reported for each in found] == [False, False, True]
    assert [each.source.to_bytes(8) + each.position.to_bytes(8) for each in top.evidence] == [each.id for each in below]
    assert {each.rule for each in top.evidence} == {"c0"}


def late(body: str, *secs: float, at: Sequence[float]) -> tuple[list[float], dict[str, int]]:
    """Times of detections of events that came when the watermark was `at`."""
    correlator = Correlator(correlations(body))
    found = []
    for place, (each, horizon) in enumerate(zip(secs, at, strict=True)):
        mark = int(horizon * SECOND)
        found += correlator.feed(matches([Event(each, position=place)], [mark]), mark)
    found += correlator.feed({}, END)
    return [each.time_us / SECOND for each in found], dict(+correlator.drops["c0"])


def test_a_late_event_counts_while_its_window_is_open() -> None:
    assert late(THREE, 10, 11, 5, at=(0, 0, 14)) == ([14], {"late": 1})
    assert late(THREE, 10, 11, 5, at=(0, 0, 15)) == ([], {"too_late": 1})


def test_a_late_event_before_an_open_window_does_not_count() -> None:
    assert late(FEW, 10, 5, at=(0, 11)) == ([20], {"late": 1, "too_late": 1})


def test_beyond_the_groups_the_quietest_makes_room() -> None:
    events = placed([Event(0, user="x"), Event(1, user="x"), Event(2, user="y"), Event(3, user="z"), Event(4, user="x")])
    found = run(correlations(THREE), events, limits=Limits(groups=2))

    assert not found.detections
    assert found.drops["c0"] == {"groups": 2}


def test_a_group_that_is_over_makes_room_without_loss() -> None:
    events = placed([Event(0, user="x"), Event(20, user="y"), Event(40, user="z")])

    assert run(correlations(THREE), events, limits=Limits(groups=1)).drops["c0"] == {}


def test_a_threshold_above_the_bound_of_entries_still_counts() -> None:
    found = run(correlations(THREE.replace("3", "30")), placed([Event(n / 10) for n in range(40)]), limits=Limits(entries=5))

    assert [each.count for each in found.detections] == [30]
    assert found.drops["c0"] == {"entries": 9}


def test_distinct_values_are_exact_however_many_events_there_are() -> None:
    body = "type: value_count, rules: a, timespan: 1h, condition: {gte: 4, field: value}"
    values = [1, 2, 3] * 100 + [4]
    found = run(correlations(body), placed([Event(n, value=v) for n, v in enumerate(values)]), limits=Limits(entries=5))

    assert [each.count for each in found.detections] == [4]
    assert not found.drops["c0"]


def test_beyond_what_may_wait_the_older_half_is_taken_early() -> None:
    correlator = Correlator(correlations(THREE), Limits(waiting=4))
    found = correlator.feed(matches(placed([Event(n) for n in range(6)]), [START] * 6), START)

    assert [each.time_us / SECOND for each in found] == [2]
    assert correlator.drops["c0"]["early"] == 4


def test_beyond_what_all_groups_may_hold_the_quietest_quarter_goes() -> None:
    correlator = Correlator(correlations(THREE.replace("10s", "1h")), Limits(groups=400_000, held=150_000))
    rows = 200_000
    users = pl.Series(np.arange(rows)).cast(pl.String)
    at = np.arange(rows, dtype=np.int64)
    given = Matches(at, np.full(rows, START), np.ones(rows, np.uint64), at.astype(np.uint64), {"user": users})
    correlator.feed({"a": given}, rows)

    assert correlator.drops["c0"]["groups"] == 50_001
    assert correlator.groups["c0"] == 149_999


def test_what_matches_must_bring_is_told_by_rule() -> None:
    body = "type: value_count, rules: [a, b], group-by: [who], timespan: 1m, condition: {gte: 3, field: value}"
    given = correlations(
        body + ", aliases: {who: {a: user, b: account}}", "type: temporal, rules: [c0, c], group-by: [who], timespan: 1m"
    )

    assert Correlator(given).needs() == {"a": {"user", "value"}, "b": {"account", "value"}, "c": {"who"}}


@pytest.mark.parametrize("snapshot", [b"", b"\xc1", msgspec.msgpack.encode([99, 0, []]), msgspec.msgpack.encode({"a": 1})])
def test_a_snapshot_that_cannot_be_read_is_cleared_and_counted(snapshot: bytes) -> None:
    correlator = Correlator(correlations(THREE, FEW))
    correlator.restore(snapshot)

    assert correlator.cleared == 2
    assert correlator.feed(matches(placed([Event(0), Event(1), Event(2)]), [START] * 3), END)


def test_the_state_of_a_changed_correlation_is_cleared_and_of_others_kept() -> None:
    before, after = Correlator(correlations(THREE, FEW)), Correlator(correlations(THREE.replace("3", "4"), FEW))
    before.feed(matches([Event(0)], [START]), SECOND)
    after.restore(before.snapshot())

    assert after.cleared == 1
    assert [each.rule for each in after.feed({}, END)] == ["c1"]


@pytest.mark.parametrize("damaged", ["last_us", "log", "waiting", "hot"])
def test_damaged_state_is_cleared_and_counted(damaged: str) -> None:
    before, after = Correlator(correlations(THREE)), Correlator(correlations(THREE))
    before.feed(matches(placed([Event(0), Event(1), Event(2), Event(3)]), [START] * 4), 3 * SECOND)
    version, horizon, [[rule, dump]] = msgspec.msgpack.decode(before.snapshot())
    names = ["definition", "keys", "last_us", "log", "waiting", "forced_us", "hot"]
    dump[names.index(damaged)] = [(9, 0, None, None, [[0]])] if damaged == "hot" else b"none"
    after.restore(msgspec.msgpack.encode([version, horizon, [[rule, dump]]]))

    assert after.cleared == 1
    assert len(after.feed(matches(placed([Event(10), Event(11), Event(12)]), [START] * 3), END)) == 1


def test_the_same_feeds_give_the_same_snapshot() -> None:
    def state() -> bytes:
        correlator = Correlator(correlations(THREE, FEW, WITHOUT))
        for start in range(0, 40, 4):
            events = placed([Event(start + n, "ab"[n % 2], f"u{n % 3}") for n in range(4)])
            correlator.feed(matches(events, [START] * 4), start * SECOND)
        return correlator.snapshot()

    assert state() == state()
