"""Rules on batches: what a detection carries."""

from __future__ import annotations

import json
from typing import Any

import pytest

from processors.sigma import KIND, Sigma
from ringfence import bus
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext
from ringfence.detections import MAX_FIELDS_BYTES, techniques_of
from ringfence.rulesets import Rules
from ringfence.sigma import budget, fields, rules, ruleset
from ringfence.sigma.ruleset import RuleSet
from ringfence.telemetry import REGISTRY
from ringfence.topology import EMPTY
from tests import frames

RULES = """title: Telnet
id: 6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
level: high
tags: [attack.lateral-movement, attack.t1021, attack.t1021.004]
logsource: {product: ringfence, category: flow}
detection: {a: {destination.port: 23, source.ip|cidr: 10.0.0.0/8}, condition: a}
---
title: Breach
id: 7ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
level: critical
logsource: {product: ringfence, category: boundary}
detection: {a: {ringfence.boundary.verdict: breached}, condition: a}
"""


def sigma(text: str = RULES) -> Sigma:
    by_class: dict[EventClass, list[rules.Rule]] = {}
    for rule in rules.loads(text).rules:
        routed = fields.routed(rule)
        for event_class in routed.classes:
            by_class.setdefault(event_class, []).append(routed.rule)
    built = KIND.build(KIND.settings(), BuildContext("sigma", EMPTY, Rules(RuleSet(by_class, (), 2, ""))))
    return built


def detections(processor: Sigma, batch: Batch) -> list[dict[str, Any]]:
    processed = processor.process(batch, Micros(0))
    assert processed.batch is batch
    return [row for part in processed.outputs.get(bus.DETECTIONS, ()) for row in part.frame.iter_rows(named=True)]


FLOWS = [
    {"@timestamp": 5, "source.ip": 0x0A000001, "destination.ip": 0x0A000002, "destination.port": 23, "ringfence.event.source": 7, "ringfence.event.position": 9},
    {"@timestamp": 6, "source.ip": 0x0B000001, "destination.ip": 0x0A000002, "destination.port": 23, "ringfence.event.source": 7, "ringfence.event.position": 10},
]  # fmt: skip


def test_a_detection_names_rule_evidence_and_ends() -> None:
    (found,) = detections(sigma(), frames.batch(EventClass.FLOW, FLOWS))

    assert (found["rule.id"], found["rule.name"]) == ("6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11", "Telnet")
    assert (found["ringfence.detection.kind"], found["ringfence.detection.level"], found["event.severity"]) == (
        "sigma",
        "high",
        73,
    )
    assert found["threat.technique.id"] == "T1021,T1021.004"
    assert (found["ringfence.evidence.class"], found["ringfence.evidence.source"], found["ringfence.evidence.position"]) == (
        "flow",
        7,
        9,
    )
    assert (found["@timestamp"], found["source.ip"], found["destination.port"]) == (5, 0x0A000001, 23)
    assert json.loads(found["ringfence.detection.fields"]) == {"destination.port": "23", "source.ip": "10.0.0.1"}


def test_the_id_is_the_same_in_every_replay_and_another_for_another_rule() -> None:
    batch = frames.batch(EventClass.FLOW, FLOWS)
    first, second = detections(sigma(), batch), detections(sigma(), batch)
    both = detections(sigma(RULES + "---\n" + RULES.split("---")[0].replace("6ad5", "8ad5")), batch)

    assert first == second
    assert len({(row["ringfence.event.source"], row["ringfence.event.position"]) for row in both}) == 2


def test_boundary_tests_are_matched_too() -> None:
    tests = [{"ringfence.boundary.id": "a -> b", "ringfence.boundary.verdict": verdict} for verdict in ("held", "breached")]

    (found,) = detections(sigma(), frames.batch(EventClass.BOUNDARY, tests))

    assert (found["ringfence.boundary.id"], found["ringfence.boundary.verdict"]) == ("a -> b", "breached")


def test_classes_without_rules_pass() -> None:
    assert detections(sigma(), frames.batch(EventClass.DNS, [{}])) == []


def test_fields_too_long_to_show_are_left_out() -> None:
    rule = (
        RULES.split("---")[0]
        .replace("category: flow", "category: process")
        .replace("{destination.port: 23, source.ip|cidr: 10.0.0.0/8}", "{process.command_line|contains: x, process.name: y}")
    )
    (found,) = detections(
        sigma(rule), frames.batch(EventClass.PROCESS, [{"process.command_line": "x" * MAX_FIELDS_BYTES, "process.name": "y"}])
    )

    assert json.loads(found["ringfence.detection.fields"]) == {"process.name": "y"}


def test_an_empty_set_makes_nothing() -> None:
    assert detections(Sigma(ruleset.EMPTY, EMPTY), frames.batch(EventClass.FLOW, FLOWS)) == []


def test_a_suspended_rule_is_counted_by_its_id_and_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SECS_EACH", -1.0)
    batch, processor = frames.batch(EventClass.FLOW, FLOWS), sigma()

    assert detections(processor, batch) == []
    assert detections(processor, batch) == []
    assert _suspensions("6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11") == 1
    assert "Telnet" in caplog.text

    monkeypatch.undo()
    assert detections(processor, batch) == []
    assert len(detections(sigma(), batch)) == 1


def test_more_suspended_rules_than_labels_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SECS_EACH", -1.0)
    monkeypatch.setattr("processors.sigma.MAX_NAMED", 0)
    monkeypatch.setattr("processors.sigma._NAMED", set())
    detections(sigma(), frames.batch(EventClass.FLOW, FLOWS))

    assert _suspensions("other") == 1


def _suspensions(rule: str) -> float | None:
    return REGISTRY.get_sample_value("ringfence_rules_suspended_total", {"rule": rule})


@pytest.mark.parametrize(
    ("tag", "techniques"),
    [("attack.t1021.002", ["T1021.002"]), ("attack.ta0008", []), ("attack.execution", []), ("cve.t1", [])],
)
def test_techniques_are_read_from_tags(tag: str, techniques: list[str]) -> None:
    assert techniques_of([tag]) == techniques


def test_a_detection_carries_what_the_rule_wants_done() -> None:
    text = RULES.partition("---")[0] + "ringfence.response: approve-quarantine\nringfence.risk: 7\nringfence.suppress: 2h\n"
    (found,) = detections(sigma(text), frames.batch(EventClass.FLOW, FLOWS))

    assert found["threat.tactic.name"] == "Lateral Movement"
    wanted = {"response": "approve-quarantine", "risk": 7, "suppress": 7_200}
    assert {name: found[f"ringfence.detection.{name}"] for name in wanted} == wanted
