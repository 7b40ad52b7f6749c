"""Scans: who is found and when, who is not, and that batches and restarts change nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.scans import KIND, ScanDetector
from processors.sigma import KIND as SIGMA
from ringfence import bus, scans
from ringfence.batch import EventClass, Micros
from ringfence.component import BuildContext
from ringfence.rulesets import BUNDLED, RuleFiles
from tests import frames
from tests.processors.network import DAY, HOUR, MIN, T0, TOPOLOGY, S, Stage, cut, flow, numbered

USER, USER6 = "10.1.0.5", "2001:db8:1::5"


def detector() -> ScanDetector:
    return KIND.build(KIND.settings(), BuildContext("scans", TOPOLOGY))


def found(rows: Sequence[dict[str, Any]], event_class: EventClass = EventClass.FLOW) -> list[dict[str, Any]]:
    return list(Stage(detector()).found(frames.batch(event_class, numbered(rows))))


def names(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [row["ringfence.detector.name"] for row in rows]


def sweep(count: int, gap_us: int, *, port: int = 445, successes: float = 0.0, source: str = USER) -> list[dict[str, Any]]:
    """A scanner of so many hosts of the servers' segment, some of which answer."""
    draw = random.Random(5)
    return [
        flow(T0 + number * gap_us, source, f"10.2.{number // 250}.{number % 250 + 1}", port, draw.random() < successes)
        for number in range(count)
    ]


def test_five_misses_decide() -> None:
    assert names(found(sweep(4, S))) == []

    (scan,) = found(sweep(5, S))

    assert scan["ringfence.detector.name"] == "scan-horizontal"
    assert (scan["ringfence.detector.distinct"], scan["ringfence.detector.missed"]) == (5, 5)
    assert scan["ringfence.boundary.id"] == "users -> servers"
    assert (scan["event.start"], scan["event.end"], scan["@timestamp"]) == (T0, T0 + 4 * S, T0 + 4 * S)
    assert scan["ringfence.detector.evidence"] == (
        "5 of 5 hosts and ports on users -> servers were blocked, refused or silent within 4 s: "
        "10.2.0.1:445, 10.2.0.2:445, 10.2.0.3:445, 10.2.0.4:445, 10.2.0.5:445 (boundary tests)"
    )
    assert len(scan["ringfence.detector.ids"].split(",")) == 5


def test_a_sweep_that_goes_on_is_found_once_an_hour_and_by_the_slow_counter() -> None:
    assert names(found(sweep(200, S))) == ["scan-horizontal", "scan-slow"]
    assert names(found(sweep(200, MIN))).count("scan-horizontal") == 4


def test_a_scan_of_the_ports_of_one_host_is_vertical() -> None:
    rows = [flow(T0 + port, USER, "10.2.0.9", port, False) for port in range(1, 8)]

    (scan,) = found(rows)

    assert scan["ringfence.detector.name"] == "scan-vertical"


def test_ipv6_is_found_too() -> None:
    rows = [flow(T0 + number, USER6, f"2001:db8:2::{number + 1:x}", 22, False) for number in range(5)]

    assert names(found(rows)) == ["scan-horizontal"]


def test_flows_inside_a_segment_count_where_no_firewall_stands() -> None:
    rows = [flow(T0 + number, USER, f"10.1.0.{number + 10}", 445, False) for number in range(5)]

    (scan,) = found(rows)

    assert scan["ringfence.detector.evidence"].endswith("(flows inside the segment)")
    assert (scan["source.segment.name"], scan["destination.segment.name"]) == ("users", "users")


def test_what_a_filter_blocked_counts_and_so_does_a_reset() -> None:
    blocked = [
        {"@timestamp": T0 + number, **frames.ends(USER, f"10.2.0.{number + 1}"), "destination.port": 445, "source.port": 40_000,
         "network.iana_number": 6, "ringfence.pf.action": "block"}
        for number in range(5)
    ]  # fmt: skip
    reset = [
        flow(T0 + number, USER, f"10.2.0.{number + 1}", 445, True, **{"ringfence.tcp.destination_flags": 0x14})
        for number in range(5)
    ]

    assert names(found(blocked, EventClass.PF)) == ["scan-horizontal"]
    assert names(found(reset)) == ["scan-horizontal"]


def test_one_way_records_prove_silence_of_tcp_only() -> None:
    def one_way(protocol: int, **facts: Any) -> list[dict[str, Any]]:
        rows = sweep(6, S)
        return [{**row, "destination.packets": None, "network.iana_number": protocol, **facts} for row in rows]

    assert names(found(one_way(6, **{"ringfence.tcp.source_flags": 0x02}))) == ["scan-horizontal"]
    assert names(found(one_way(6, **{"ringfence.tcp.source_flags": 0x02, "ringfence.flow.sampling": 100}))) == []
    assert names(found(one_way(17))) == []


def test_a_probe_every_20_minutes_is_found_within_two_hours_and_by_the_day() -> None:
    rows = found(sweep(72, 20 * MIN))

    assert rows[0]["@timestamp"] - T0 <= 2 * HOUR
    assert "scan-slow" in names(rows)


def test_a_scanner_whose_successes_are_three_of_ten_is_found() -> None:
    rows = found(sweep(60, MIN, successes=0.3))

    assert names(rows)[0] == "scan-horizontal"
    assert "scan-slow" in names(rows)


def test_a_scanner_that_spreads_over_boundaries_for_days_is_left_to_the_slow_counter() -> None:
    networks = ("10.2.0", "10.3.0", "10.8.0")
    rows = [flow(T0 + number * 29_000 * S, USER, f"{networks[number % 3]}.{number + 1}", 443, False) for number in range(20)]

    (scan,) = found(rows)

    assert scan["ringfence.detector.name"] == "scan-slow"
    assert scan["ringfence.detector.evidence"].startswith("20 of 20 hosts and ports of the last 7 days")


def test_monitoring_with_some_dead_hosts_is_no_scan() -> None:
    draw = random.Random(11)
    dead = {draw.randrange(1000) for _ in range(60)}
    rows = [
        flow(T0 + turn * HOUR + host, USER, f"10.2.{host // 250}.{host % 250 + 1}", 443, host not in dead)
        for turn in range(3)
        for host in range(1000)
    ]

    assert names(found(rows)) == []


def test_one_dead_service_asked_for_a_thousand_times_is_no_scan() -> None:
    assert names(found([flow(T0 + number * S, USER, "10.2.0.9", 445, False) for number in range(1000)])) == []


def test_a_miss_a_day_adds_up_to_nothing() -> None:
    assert names(found(sweep(15, DAY + MIN))) == []


def test_a_clean_history_buys_no_credit() -> None:
    clean = [flow(T0 + number, USER, f"10.2.9.{number + 1}", 443, True) for number in range(200)]

    assert names(found([*clean, *sweep(5, S)])) == ["scan-horizontal"]


def test_what_ringfence_simulates_does_not_count() -> None:
    stage = Stage(detector())
    rows = [
        {"@timestamp": T0 + number, **frames.ends(USER, f"10.2.0.{number + 1}"), "destination.port": 445,
         "ringfence.boundary.outcome": "blocked", "ringfence.boundary.origin": origin, "ringfence.boundary.intent": "deny",
         "ringfence.boundary.id": "users -> servers"}
        for origin in ("simulated", "observed") for number in range(5)
    ]  # fmt: skip

    made = list(stage.found(frames.batch(EventClass.BOUNDARY, numbered(rows[:5]))))
    seen = list(stage.found(frames.batch(EventClass.BOUNDARY, numbered(rows[5:]))))

    assert (names(made), names(seen)) == ([], ["scan-horizontal"])


def test_a_bundled_rule_makes_a_detection_of_a_scan() -> None:
    context = BuildContext("sigma", TOPOLOGY, RuleFiles(sigma=[BUNDLED]).load(Path()))
    judge = SIGMA.build(SIGMA.settings(), context)
    batches = [
        made
        for part in Stage(detector()).parts(frames.batch(EventClass.FLOW, numbered(sweep(5, S))))
        for made in judge.process(part, Micros(0)).outputs.get(bus.DETECTIONS, ())
        if part.header.event_class is EventClass.DETECTOR
    ]

    (detection,) = batches[0].frame.to_dicts()
    assert (detection["rule.name"], detection["ringfence.detection.level"]) == ("Scan of many hosts, by first contacts", "high")
    assert detection["ringfence.detector.name"] == "scan-horizontal"
    assert detection["ringfence.detector.evidence"].startswith("5 of 5 hosts and ports on users -> servers")
    assert detection["source.segment.role"] == "users"


HOSTS = [USER, "10.1.0.6", USER6]
STEPS = st.tuples(
    st.sampled_from(HOSTS), st.integers(1, 9), st.sampled_from([22, 445, 9999]), st.booleans(), st.integers(-HOUR, 9 * HOUR)
)


def traffic(steps: Sequence[tuple[str, int, int, bool, int]]) -> list[dict[str, Any]]:
    at_us, rows = T0, []
    for source, host, port, answered, gap in steps:
        at_us += gap
        inside = host % 3 == 0
        target = (f"10.1.0.{host + 20}" if inside else f"10.2.0.{host}") if ":" not in source else f"2001:db8:2::{host}"
        rows.append(flow(at_us, source, target, port, answered))
    return numbered(rows)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=120), st.lists(st.integers(0, 119), max_size=6))
def test_batches_and_restarts_change_nothing(steps: list[tuple[str, int, int, bool, int]], cuts: list[int]) -> None:
    whole = frames.batch(EventClass.FLOW, traffic(steps))
    expected = list(Stage(detector()).found(whole))

    stage = Stage(detector())
    pieces = []
    for part in cut(whole, cuts):
        pieces += list(stage.found(part))
        state = stage.detector.snapshot()  # type: ignore[attr-defined]
        assert state == stage.detector.snapshot()  # type: ignore[attr-defined]
        stage.detector = fresh = detector()
        fresh.restore(state)

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["ringfence.evidence.position"], row["ringfence.detector.name"], str(row["ringfence.evidence.class"])

    assert sorted(map(str, pieces)) == sorted(map(str, expected))
    assert [order(row) for row in sorted(pieces, key=order)] == [order(row) for row in sorted(expected, key=order)]


@pytest.mark.parametrize("state", [b"", b"\xc1", b"\x92\xc4\x01\x00\xc4\x00"])
def test_a_state_that_cannot_be_read_is_left_aside(state: bytes) -> None:
    fresh = detector()
    fresh.restore(state)

    assert fresh.snapshot() == detector().snapshot()


def attempts(sources: Sequence[int], targets: Sequence[int], missed: bool, at_us: int = T0) -> scans.Attempts:
    count = len(sources)
    return scans.Attempts(
        np.array(sources, np.uint64), np.array(targets, np.uint64), np.full(count, 80, np.int64), np.full(count, missed),
        np.ones(count, np.bool_), np.full(count, at_us, np.int64), np.zeros(count, np.uint64), np.arange(count, dtype=np.uint64),
        lambda rows: ["a -> b"] * len(rows), lambda rows: [None] * len(rows),
    )  # fmt: skip


def test_sources_beyond_the_bound_push_out_the_one_that_was_quiet_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "MAX_SOURCES", 10)
    memory = scans.Scans("test")

    memory.seen(attempts(range(1, 12), range(1, 12), True))
    state = memory.snapshot()

    assert memory.bounds.hits == {"sources": 1}
    again = scans.Scans("test")
    again.restore(state)
    assert [
        len(again.seen(attempts([1] * 4, range(100, 104), True))),
        len(again.seen(attempts([11] * 4, range(100, 104), True))),
    ] == [0, 1]


def test_a_source_with_too_many_contacts_forgets_successes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "MAX_CONTACTS", 10)
    memory = scans.Scans("test")
    memory.seen(attempts([1], [1], True))

    memory.seen(attempts([1] * 20, range(2, 22), False))
    assert memory.bounds.hits == {"contacts": 11}
    memory.seen(attempts([1], [1], True))  # its miss is remembered
    assert memory.bounds.hits == {"contacts": 11}


def test_contacts_of_all_sources_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "MAX_ALL_CONTACTS", 20)
    memory = scans.Scans("test")

    memory.seen(attempts([number // 10 + 1 for number in range(40)], range(40), True))

    assert memory.bounds.hits["sources"] == 2


def test_times_that_go_backwards_keep_the_counters_bounded() -> None:
    memory = scans.Scans("test")
    for number in range(400):
        memory.seen(attempts([1], [number], True, T0 - number * HOUR))

    assert len(memory.snapshot()) < 40_000
