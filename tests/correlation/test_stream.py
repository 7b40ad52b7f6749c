"""Correlations on batches of events and boundary tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from processors.sigma import Sigma
from ringfence import bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.sigma import ruleset
from ringfence.topology import EMPTY
from tests import frames

RULES = """title: Failed sign-in
name: failed
level: low
logsource: {product: ringfence, category: auth}
detection: {a: {event.outcome: failure}, condition: a}
---
title: Breach
name: breach
level: high
logsource: {product: ringfence, category: boundary}
detection: {a: {ringfence.boundary.verdict: breached}, condition: a}
---
title: Many failures
id: 2ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
level: high
tags: [attack.t1110]
correlation: {type: event_count, rules: [failed], group-by: [source.ip, user.name], timespan: 5m, condition: {gte: 3}}
---
title: Failures, then a breach
id: 3ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
level: critical
correlation: {type: temporal_ordered, rules: [failed, breach], group-by: [source.ip], timespan: 10m}
"""
MINUTE = 60_000_000
START = 1_789_990_000_000_000


def sigma(tmp_path: Path, text: str = RULES) -> Sigma:
    (tmp_path / "r.yml").write_text(text)
    rules = ruleset.load([tmp_path / "r.yml"], {})
    assert not rules.refusals, rules.refusals
    return Sigma(rules, EMPTY)


def failures(*minutes: int, user: str = "ann", first: int = 0) -> Batch:
    return frames.batch(
        EventClass.AUTH,
        [
            {"@timestamp": START + minute * MINUTE, "source.ip": 7, "user.name": user, "event.outcome": "failure", "ringfence.event.source": 1, "ringfence.event.position": first + number}
            for number, minute in enumerate(minutes)
        ],
    )  # fmt: skip


def found(outputs: Any) -> list[dict[str, Any]]:
    return [row for part in outputs.get(bus.DETECTIONS, ()) for row in part.frame.iter_rows(named=True)]


def run(processor: Sigma, *batches: Batch) -> list[dict[str, Any]]:
    rows = [row for batch in batches for row in found(processor.process(batch, Micros(0)).outputs)]
    return rows + found(processor.finish())


def test_a_correlation_is_a_detection_with_its_group_and_events(tmp_path: Path) -> None:
    (row,) = run(sigma(tmp_path), failures(0, 1, 2))

    assert (row["rule.id"][:4], row["ringfence.detection.kind"], row["ringfence.detection.level"]) == (
        "2ad5",
        "correlation",
        "high",
    )
    assert (row["source.ip"], row["user.name"], row["ringfence.detection.count"]) == (7, "ann", 3)
    assert (row["event.start"], row["event.end"], row["@timestamp"]) == (START, START + 2 * MINUTE, START + 2 * MINUTE)
    assert row["ringfence.detection.events"].split(",") == [f"{1:016x}{position:016x}" for position in range(3)]
    assert (row["ringfence.evidence.source"], row["ringfence.evidence.position"]) == (1, 2)
    assert row["threat.technique.id"] == "T1110"


def test_its_steps_are_no_detections_of_their_own(tmp_path: Path) -> None:
    assert run(sigma(tmp_path), failures(0, 1)) == []


def test_batches_and_restarts_change_nothing(tmp_path: Path) -> None:
    whole = run(sigma(tmp_path), failures(0, 1, 2, 3))
    first, second = sigma(tmp_path), sigma(tmp_path)
    rows = [row for batch in (failures(0), failures(1, first=1)) for row in found(first.process(batch, Micros(0)).outputs)]
    second.restore(first.snapshot())
    rows += run(second, failures(2, 3, first=2))

    assert rows == whole
    assert len(whole) == 1


def test_boundary_tests_take_part_at_the_time_of_their_evidence(tmp_path: Path) -> None:
    breach = frames.batch(
        EventClass.BOUNDARY,
        [{"@timestamp": START + 2 * MINUTE, "source.ip": 7, "ringfence.boundary.verdict": "breached", "ringfence.event.source": 9, "ringfence.evidence.source": 1, "ringfence.evidence.position": 0}],
    )  # fmt: skip

    assert [row["rule.name"] for row in run(sigma(tmp_path), failures(0), breach)] == ["Failures, then a breach"]
    assert run(sigma(tmp_path), failures(20), breach) == []


def test_a_group_is_shown_in_the_columns_of_its_names(tmp_path: Path) -> None:
    processor = sigma(tmp_path, RULES.replace("[source.ip, user.name]", "[source.ip6]").replace("{gte: 3}", "{gte: 1}"))
    batch = frames.batch(EventClass.AUTH, [{"@timestamp": START, "event.outcome": "failure", "source.ip6": bytes(15) + b"\1"}])

    assert [row["rule.id"][:4] for row in run(processor, batch)] == ["2ad5"]


def test_a_snapshot_that_is_damaged_is_left_aside(tmp_path: Path) -> None:
    processor = sigma(tmp_path)
    processor.restore(b"x")

    assert len(run(processor, failures(0, 1, 2))) == 1


def test_without_correlations_nothing_is_kept() -> None:
    processor = Sigma(ruleset.EMPTY, EMPTY)

    assert (processor.snapshot(), processor.finish()) == (b"", {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("group-by: [source.ip, user.name]", "group-by: [mac]"), "field 'mac' has no column in log source"),
        (("category: auth", "category: authn"), "rule '"),
    ],
)
def test_a_correlation_that_no_column_serves_is_refused(tmp_path: Path, change: tuple[str, str], reason: str) -> None:
    (tmp_path / "r.yml").write_text(RULES.replace(*change))
    rules = ruleset.load([tmp_path / "r.yml"], {})

    assert any(reason in refusal.reason and refusal.title == "Many failures" for refusal in rules.refusals)
    assert "2ad5" not in {correlation.id[:4] for correlation in rules.correlations}
