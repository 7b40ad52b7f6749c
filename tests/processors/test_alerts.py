"""Detections in, alerts out: what a record carries, exceptions, and that batching changes nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.alerts import KIND, Alerts
from ringfence import alert_exceptions, bus, documents
from ringfence.batch import Batch, EventClass, Micros
from ringfence.component import BuildContext, Processed
from ringfence.rulesets import Rules
from ringfence.topology import EMPTY
from tests import frames

AT = 1_795_592_663_000_000  # 2026-11-25 07:44:23 UTC
RDP: dict[str, Any] = {
    "@timestamp": AT,
    **frames.ends("10.10.10.5", "10.10.20.9"),
    "destination.port": 3389,
    "source.segment.name": "finance-users",
    "destination.segment.name": "public-servers",
    "rule.id": "r1",
    "rule.name": "Remote desktop",
    "ringfence.detection.level": "medium",
    "ringfence.detection.response": "approve-quarantine",
    "threat.technique.id": "T1021,T1021.001",
    "threat.tactic.name": "Lateral Movement",
    "ringfence.boundary.id": "finance-users -> public-servers",
    "ringfence.boundary.verdict": "breached",
    "ringfence.boundary.origin": "observed",
    "ringfence.boundary.service": "tcp/3389",
    "ringfence.evidence.module": "pflog",
    "ringfence.evidence.source": 1,
    "ringfence.evidence.position": 2,
}
EXCEPTIONS = """
exceptions:
  jump:
    owner: netops
    reason: CHG-7
    expires: 2026-11-25
    match: {rule: remote desktop, source: 10.10.10.0/24, boundary: finance-users -> public-servers}
"""


def alerts(tmp_path: Path | None = None, text: str = EXCEPTIONS) -> Alerts:
    exceptions: tuple[alert_exceptions.AlertException, ...] = ()
    if tmp_path is not None:
        (tmp_path / "exceptions.yml").write_text(text)
        exceptions = alert_exceptions.load(tmp_path / "exceptions.yml")
    return KIND.build(KIND.settings(), BuildContext("alerts", EMPTY, Rules(exceptions=exceptions)))


def detection(**changed: Any) -> dict[str, Any]:
    return {**RDP, **changed}


def process(processor: Alerts, *rows: dict[str, Any]) -> Processed:
    return processor.process(frames.batch(EventClass.DETECTION, rows), Micros(0))


def records(processed: Processed) -> list[dict[str, Any]]:
    """As sinks would write them."""
    lines = [line for batch in processed.outputs.get(bus.ALERTS, ()) for chunk in documents.render(batch) for line in chunk.splitlines()]  # fmt: skip
    return [json.loads(line) for line in lines]


def test_an_alert_says_what_happened_in_one_sentence() -> None:
    rows = [detection(**{"@timestamp": AT + second * 1_000_000}) for second in range(12)]
    rows[11]["ringfence.evidence.module"] = "suricata"
    last = records(process(alerts(), *rows))[-1]

    assert last["message"] == (
        "HIGH: Remote desktop: 10.10.10.5 (finance-users) reached 10.10.20.9:3389 (public-servers) by remote desktop, "
        "which no intent allows; seen 12 times by 2 sensors at 07:44 UTC."
    )


def test_an_alert_carries_what_a_responder_needs() -> None:
    (document,) = records(process(alerts(), detection()))

    assert document["event"] == {
        "category": ["intrusion_detection"], "dataset": "ringfence.alerts", "kind": "alert", "module": "ringfence", "severity": 47,
        "start": "2026-11-25T07:44:23.000000Z", "end": "2026-11-25T07:44:23.000000Z", "id": document["event"]["id"],
    }  # fmt: skip
    assert document["ringfence"]["alert"] == {
        "corroborated": False, "count": 1, "evidence": ["00000000000000010000000000000002"], "kind": "rule", "level": "medium",
        "id": document["ringfence"]["alert"]["id"], "modules": ["pflog"], "response": "approve-quarantine", "risk": 25,
        "status": "new",
    }  # fmt: skip
    assert document["rule"] == {"id": "r1", "name": "Remote desktop"}
    assert document["threat"] == {"tactic": {"name": ["Lateral Movement"]}, "technique": {"id": ["T1021", "T1021.001"]}}
    assert document["ringfence"]["boundary"]["verdict"] == "breached"
    assert (document["source"]["ip"], document["destination"]["port"]) == ("10.10.10.5", 3389)


def test_an_update_replaces_the_record_before_it() -> None:
    first, second = records(process(alerts(), *[detection()] * 10))

    assert [each["ringfence"]["alert"]["status"] for each in (first, second)] == ["new", "updated"]
    assert first["ringfence"]["alert"]["id"] == second["ringfence"]["alert"]["id"]
    assert first["event"]["id"] != second["event"]["id"]


def test_the_worst_verdict_is_told_and_a_port_only_where_it_is_the_same() -> None:
    rows = [detection(**{"ringfence.boundary.verdict": "held", "destination.port": 22})] * 9
    (_, last) = records(process(alerts(), *rows, detection()))

    assert last["ringfence"]["boundary"]["verdict"] == "breached"
    assert "port" not in last["destination"]


def test_what_a_detector_found_is_of_no_one_port() -> None:
    (document,) = records(process(alerts(), detection(**{"ringfence.detector.name": "scan-vertical"})))

    assert "port" not in document["destination"]
    assert "10.10.20.9 (public-servers)" in document["message"]


def test_evidence_of_no_one_sensor_corroborates_nothing() -> None:
    found = records(process(alerts(), detection(), detection(**{"rule.id": "r2", "ringfence.evidence.module": None})))

    assert [document["ringfence"]["alert"]["corroborated"] for document in found] == [False, False]
    assert "modules" not in found[1]["ringfence"]["alert"]


def test_a_detection_of_a_host_needs_no_addresses() -> None:
    row = {"rule.id": "r", "host.name": "web-5", "user.name": "deploy", "ringfence.detection.level": "low"}
    (document,) = records(process(alerts(), {"@timestamp": AT, **row}))

    assert document["message"] == "LOW: r: on web-5, by account deploy; seen once at 07:44 UTC."
    assert document["host"] == {"name": "web-5"}


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"host.name": "\x1b[31mweb\u202e"}, "\\x1b[31mweb\\u202e"),
        ({"host.name": "h" * 300}, "h" * 80 + "..."),
        ({"user.name": "a\nb"}, "account a\\nb"),
    ],
    ids=["escape", "long", "line"],
)
def test_text_from_the_network_is_harmless(changed: dict[str, Any], shown: str) -> None:
    (document,) = records(process(alerts(), detection(**changed)))

    assert document["message"].isprintable()
    assert shown in document["message"]


def test_risk_of_a_host_names_its_address() -> None:
    rows = [detection(**{"rule.id": f"r{n}", "ringfence.detection.risk": 40, "threat.tactic.name": tactic}) for n, tactic in enumerate(("Discovery", "Execution", "Impact"))]  # fmt: skip
    last = records(process(alerts(), *rows))[-1]

    assert last["source"] == {"ip": "10.10.10.5"}
    assert last["rule"]["id"] == "ringfence-risk"
    assert last["message"] == (
        "HIGH: What 10.10.10.5 did adds up to a risk of 120 in 24 hours (Discovery, Execution, Impact); "
        "seen 3 times by 1 sensor at 07:44 UTC."
    )


def test_the_suppression_of_the_rule_counts() -> None:
    rows = [
        detection(**{"@timestamp": AT + hour * 3_600_000_000, "ringfence.detection.suppress": 172_800}) for hour in range(3)
    ]

    assert len(records(process(alerts(), *rows))) == 1


def test_only_detections_are_read() -> None:
    batch = frames.batch(EventClass.FLOW, [frames.ends("10.0.0.1", "10.0.0.2")])

    assert alerts().process(batch, Micros(0)) == Processed(batch)


def test_an_exception_makes_no_alert_and_is_counted(tmp_path: Path) -> None:
    processed = process(alerts(tmp_path), *[detection()] * 3)

    assert (processed.outputs, processed.excepted) == ({}, {"jump": 3})


@pytest.mark.parametrize(
    "changed",
    [
        {"rule.id": "r2", "rule.name": "Other"},
        {"source.ip": frames.v4("10.10.11.5")},
        {"source.ip": None},
        {"ringfence.boundary.id": "a -> b"},
        {"@timestamp": AT + 86_400_000_000},
    ],
    ids=["rule", "source", "no source", "boundary", "expired"],
)
def test_an_exception_covers_only_what_it_names(changed: dict[str, Any], tmp_path: Path) -> None:
    processed = process(alerts(tmp_path), detection(**changed))

    assert (len(records(processed)), processed.excepted) == (1, {})


def test_a_flood_of_entities_is_bounded_and_counted() -> None:
    text = dict.fromkeys(("host.name", "user.name", "process.executable", "process.name"), "é" * 5000)
    processor = alerts()
    rows = [detection(**{"source.ip": number, "threat.technique.id": None}, **text) for number in range(1, 2_200)]

    assert process(processor, *rows).evicted == 151  # above 2,048
    assert len(processor.snapshot()) < 6 * 1024 * 1024


_ROWS = st.lists(
    st.builds(
        lambda at, rule, module, source, tactic: detection(
            **{
                "@timestamp": AT + at * 100_000_000, "rule.id": f"r{rule}", "ringfence.evidence.module": module, "source.ip": source,
                "ringfence.evidence.position": at, "ringfence.detection.risk": 30, "threat.tactic.name": tactic,
            }
        ),
        st.integers(0, 100), st.integers(0, 3), st.sampled_from(["pflog", "zeek"]), st.integers(1, 2),
        st.sampled_from(["Discovery", "Credential Access", "Lateral Movement"]),
    ),
    min_size=1,
    max_size=40,
)  # fmt: skip


def rendered(processed: list[Processed]) -> bytes:
    return b"".join(
        chunk for each in processed for batch in each.outputs.get(bus.ALERTS, ()) for chunk in documents.render(batch)
    )


def without_nulls(lines: bytes) -> list[Any]:
    return [json.loads(line) for line in lines.splitlines()]


@given(_ROWS, st.lists(st.integers(0, 40), max_size=6))
def test_batching_changes_no_alert(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    whole = frames.batch(EventClass.DETECTION, rows)
    one, other = alerts(), alerts()
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    parts: list[pl.DataFrame] = [whole.frame.slice(low, high - low) for low, high in pairwise(edges)]
    processed = [other.process(Batch(whole.header, part), Micros(0)) for part in parts]

    assert without_nulls(rendered(processed)) == without_nulls(rendered([one.process(whole, Micros(0))]))
    assert other.snapshot() == one.snapshot()


def test_a_replay_gives_the_same_bytes() -> None:
    rows = [detection(**{"@timestamp": AT + number, "source.ip": number % 7 + 1}) for number in range(300)]

    assert rendered([process(alerts(), *rows)]) == rendered([process(alerts(), *rows)])


def test_a_restart_goes_on_with_the_open_alerts() -> None:
    before, after = alerts(), alerts()
    process(before, *[detection()] * 9)
    after.restore(before.snapshot())
    (document,) = records(process(after, detection()))

    assert (document["ringfence"]["alert"]["count"], document["ringfence"]["alert"]["status"]) == (10, "updated")
