"""Alerts out of detections: what is alike, what raises, what adds up, and that neither order nor restarts change what is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.alerting import (
    CHAIN_RULE,
    MAX_EVIDENCE,
    NO_VERDICT,
    RISK_RULE,
    Alert,
    Alerting,
    Issued,
    Sighting,
)

HOUR = 3_600_000_000
MINUTE = 60_000_000
NOON = 12 * HOUR
DISCOVERY, CREDENTIALS, MOVEMENT = ("Discovery",), ("Credential Access",), ("Lateral Movement",)


def sighting(at_us: int = NOON, **changed: Any) -> Sighting:
    ends = changed.pop("ends", ("10.1.0.5", "10.2.0.9"))
    actor = changed.pop("actor", ends[0] if ends else "web-5")
    given_: dict[str, Any] = {
        "at_us": at_us, "rule_id": "r1", "rule_name": "Rule", "level": 2, "response": "alert", "risk": None, "suppress_s": None,
        "techniques": ("T1021",), "tactics": MOVEMENT, "module": "pflog", "evidence": (7, at_us), "ends": ends, "actor": actor,
        "verdict": NO_VERDICT, "port": 22, "service": "ssh", "entities": (*(ends or ()), actor), "shown": (),
    }  # fmt: skip
    return Sighting(**given_ | changed)


def issued(alerting: Alerting, *sightings: Sighting) -> list[Issued]:
    return [record for each in sightings for record in alerting.see(each)]


def of_rule(records: list[Issued], rule_id: str) -> list[Alert]:
    return [record.alert for record in records if record.alert.rule_id == rule_id]


def test_detections_that_are_alike_are_one_alert() -> None:
    records = issued(Alerting(), *(sighting(NOON + second) for second in range(9)))

    assert [(record.alert.count, record.alert.revision) for record in records] == [(1, 1)]


def test_ten_a_hundred_and_a_thousand_are_told() -> None:
    records = issued(Alerting(), *(sighting(NOON + second) for second in range(1_500)))

    assert [record.alert.count for record in records] == [1, 10, 100, 1_000]
    assert len({record.alert.id for record in records}) == 1
    assert [record.alert.revision for record in records] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "other",
    [{"rule_id": "r2"}, {"ends": ("10.1.0.6", "10.2.0.9")}, {"at_us": NOON + HOUR}, {"at_us": NOON - 1}],
    ids=["rule", "entity", "next hour", "hour before"],
)
def test_what_differs_is_another_alert(other: dict[str, Any]) -> None:
    records = issued(Alerting(), sighting(), sighting(**other))

    assert len({record.alert.id for record in records}) == 2


def test_a_rule_has_its_own_window() -> None:
    day = 24 * 3_600
    records = issued(Alerting(), sighting(suppress_s=day), sighting(NOON + 5 * HOUR, suppress_s=day))

    assert len(records) == 1


def test_it_knows_first_last_and_the_earliest_evidence() -> None:
    alerting = Alerting()
    issued(alerting, *(sighting(NOON + second) for second in reversed(range(30))))

    (alert,) = alerting.alerts
    assert (alert.first_us, alert.last_us, alert.count) == (NOON, NOON + 29, 30)
    assert alert.evidence == [(NOON + second, 7, NOON + second) for second in range(MAX_EVIDENCE)]


def test_another_kind_of_sensor_raises_both_alerts() -> None:
    records = issued(Alerting(), sighting(), sighting(NOON + MINUTE, rule_id="r2", module="suricata", level=3))

    first, second, again = (record.alert for record in records)
    assert (first.rule_id, first.raised, first.is_corroborated) == ("r1", 2, False)
    assert (second.rule_id, second.raised, second.modules) == ("r2", 4, ["pflog", "suricata"])
    assert (again.rule_id, again.raised, again.modules) == ("r1", 3, ["pflog", "suricata"])


def test_the_same_rule_on_two_sensors_is_corroborated() -> None:
    records = issued(Alerting(), sighting(), sighting(NOON + 1, module="zeek"))

    assert [(record.alert.raised, record.alert.modules) for record in records] == [(2, ["pflog"]), (3, ["pflog", "zeek"])]


@pytest.mark.parametrize(
    "other",
    [
        {"module": "pflog"},
        {"techniques": ("T1046",)},
        {"techniques": ()},
        {"ends": ("10.1.0.6", "10.2.0.9")},
        {"at_us": NOON + 10 * MINUTE},
        {"ends": None},
    ],
    ids=["same sensor", "technique", "no technique", "ends", "too late", "no ends"],
)
def test_no_level_is_raised(other: dict[str, Any]) -> None:
    records = issued(Alerting(), sighting(), sighting(**{"rule_id": "r2", "module": "suricata"} | other))

    assert not any(record.alert.is_corroborated for record in records)


def test_sensors_agree_across_the_edge_of_a_stretch() -> None:
    records = issued(Alerting(), sighting(NOON - 1), sighting(NOON + 9 * MINUTE, rule_id="r2", module="suricata"))

    assert [record.alert.is_corroborated for record in records] == [False, True, True]


def test_a_level_never_exceeds_critical() -> None:
    records = issued(Alerting(), sighting(level=4), sighting(level=4, module="zeek"))

    assert {record.alert.raised for record in records} == {4}


def risky(number: int, at_us: int = NOON, risk: int = 40, tactics: tuple[str, ...] = MOVEMENT) -> Sighting:
    return sighting(at_us, rule_id=f"r{number}", risk=risk, tactics=tactics, techniques=())


def test_risk_that_adds_up_makes_an_alert() -> None:
    records = issued(Alerting(), risky(1, tactics=DISCOVERY), risky(2, NOON + 9 * HOUR), risky(3, NOON + 10 * HOUR))

    (alert,) = of_rule(records, RISK_RULE[0])
    assert (alert.kind, alert.risk, alert.actor, alert.count) == ("risk", 120, "10.1.0.5", 3)
    assert alert.tactics == ("Discovery", "Lateral Movement")
    assert (alert.first_us, alert.last_us) == (NOON, NOON + 10 * HOUR)
    assert len(alert.evidence) == 3


@pytest.mark.parametrize(
    "sightings",
    [
        [risky(number) for number in range(5)],
        [risky(1, tactics=DISCOVERY), risky(2)],
        [risky(1, NOON + hour * HOUR, risk=100, tactics=MOVEMENT + DISCOVERY) for hour in range(5)],
        [risky(1, tactics=DISCOVERY), risky(2), risky(3, NOON + 24 * HOUR)],
        [risky(1, tactics=DISCOVERY), risky(2)] + [sighting(NOON + second, rule_id="r3", risk=10) for second in range(9)],
    ],
    ids=["one tactic", "too little", "one rule", "too long", "one alert counts once"],
)
def test_no_risk_alert(sightings: list[Sighting]) -> None:
    assert of_rule(issued(Alerting(), *sightings), RISK_RULE[0]) == []


def test_risk_adds_up_across_midnight() -> None:
    midnight = 24 * HOUR
    records = issued(Alerting(), risky(1, midnight - 2, tactics=DISCOVERY), risky(2, midnight - 1), risky(3, midnight + 1))

    (alert,) = of_rule(records, RISK_RULE[0])
    assert alert.window_us == midnight


def test_hosts_do_not_share_risk() -> None:
    sightings = [sighting(rule_id=f"r{number}", risk=40, tactics=DISCOVERY + MOVEMENT, ends=None, actor=f"h{number}") for number in range(3)]  # fmt: skip

    assert of_rule(issued(Alerting(), *sightings), RISK_RULE[0]) == []


def chain(*steps: tuple[int, tuple[str, ...]]) -> list[Sighting]:
    return [
        sighting(NOON + minutes * MINUTE, rule_id=f"r{place}", tactics=tactics, risk=0)
        for place, (minutes, tactics) in enumerate(steps)
    ]


def test_a_kill_chain_makes_an_alert() -> None:
    records = issued(Alerting(), *chain((0, DISCOVERY), (30, CREDENTIALS), (119, MOVEMENT)))

    (alert,) = of_rule(records, CHAIN_RULE[0])
    assert (alert.kind, alert.raised, alert.count, alert.actor) == ("kill-chain", 4, 3, "10.1.0.5")
    assert (alert.first_us, alert.last_us) == (NOON, NOON + 119 * MINUTE)


def test_a_chain_is_found_whatever_was_read_first() -> None:
    records = issued(Alerting(), *reversed(chain((0, DISCOVERY), (30, CREDENTIALS), (119, MOVEMENT))))

    assert len(of_rule(records, CHAIN_RULE[0])) == 1


@pytest.mark.parametrize(
    "steps",
    [
        [(0, CREDENTIALS), (30, DISCOVERY), (60, MOVEMENT)],
        [(0, DISCOVERY), (30, MOVEMENT), (60, CREDENTIALS)],
        [(0, DISCOVERY), (30, CREDENTIALS), (121, MOVEMENT)],
        [(0, DISCOVERY), (30, MOVEMENT)],
    ],
    ids=["credentials first", "credentials last", "too slow", "no credentials"],
)
def test_no_chain(steps: list[tuple[int, tuple[str, ...]]]) -> None:
    assert of_rule(issued(Alerting(), *chain(*steps)), CHAIN_RULE[0]) == []


def test_open_alerts_are_bounded_and_what_leaves_is_counted() -> None:
    alerting = Alerting(max_open=3)
    issued(alerting, *(sighting(rule_id=f"r{number}", ends=None, actor=None) for number in range(5)))

    assert [alert.rule_id for alert in alerting.alerts] == ["r2", "r3", "r4"]
    assert alerting.evicted == 2


def test_the_alert_that_was_seen_longest_ago_leaves() -> None:
    alerting = Alerting(max_open=2)
    names = ("a", "b", "a", "c")
    issued(alerting, *(sighting(rule_id=name, ends=None, actor=None) for name in names))

    assert [alert.rule_id for alert in alerting.alerts] == ["a", "c"]


def test_nothing_else_grows_without_bound() -> None:
    alerting = Alerting(max_open=4, max_pairs=4, max_parts=40)
    for number in range(300):
        ends = (f"10.1.0.{number}", "10.2.0.9")
        alerting.see(
            sighting(NOON + number * HOUR, rule_id=f"r{number}", tactics=DISCOVERY + CREDENTIALS + MOVEMENT, ends=ends)
        )
        alerting.see(sighting(NOON + number * HOUR, rule_id=f"r{number}", tactics=DISCOVERY + CREDENTIALS + MOVEMENT))

    assert len(alerting.snapshot()) < 100_000


def test_a_snapshot_stays_while_nothing_changes() -> None:
    alerting = Alerting()
    alerting.see(sighting())

    assert alerting.snapshot() is alerting.snapshot()


@pytest.mark.parametrize("state", [b"", b"\xff", b"\x93\x01\x02\x03"])
def test_a_state_that_cannot_be_read_is_left_aside(state: bytes) -> None:
    alerting = Alerting()
    alerting.restore(state)

    assert list(alerting.alerts) == []


_SIGHTINGS = st.lists(
    st.builds(
        lambda at, rule, module, pair, tactic: sighting(
            at * 7 * MINUTE + at % 13, rule_id=f"r{rule}", module=module, level=rule, risk=20 + rule * 5, evidence=(at, rule),
            ends=(f"10.1.0.{pair}", "10.2.0.9"), tactics=tactic, techniques=("T1021", f"T10{rule}")[: 1 + rule % 2],
        ),
        st.integers(0, 400), st.integers(0, 4), st.sampled_from(["pflog", "zeek", "suricata"]), st.integers(0, 1),
        st.sampled_from([DISCOVERY, CREDENTIALS, MOVEMENT]),
    ),
    max_size=40,
)  # fmt: skip


def known(alerting: Alerting) -> dict[str, Any]:
    """Everything that must not depend on the order; what a derived alert counts is that of its latest record."""
    return {
        alert.id: (alert.raised, alert.rule_id, alert.is_corroborated)
        + (
            (alert.count, alert.first_us, alert.last_us, tuple(alert.modules), tuple(alert.evidence), alert.ports)
            if alert.kind == "rule"
            else (alert.risk,)
        )
        for alert in alerting.alerts
    }


@given(_SIGHTINGS, st.randoms(use_true_random=False))
def test_the_order_changes_nothing_of_what_is_known_at_the_end(sightings: list[Sighting], random: Any) -> None:
    # rules keep their tactics, as they do in rule files
    fixed = [seen._replace(tactics=(DISCOVERY, CREDENTIALS, MOVEMENT)[int(seen.rule_id[1]) % 3]) for seen in sightings]
    one, other = Alerting(), Alerting()
    issued(one, *fixed)
    shuffled = list(fixed)
    random.shuffle(shuffled)
    issued(other, *shuffled)

    assert known(other) == known(one)


@given(_SIGHTINGS, st.integers(0, 40))
def test_a_restart_changes_nothing(sightings: list[Sighting], at: int) -> None:
    through, before, after = Alerting(), Alerting(), Alerting()
    expected = issued(through, *sightings)
    records = issued(before, *sightings[:at])
    after.restore(before.snapshot())
    records += issued(after, *sightings[at:])

    assert [(record.alert.id, record.alert.revision, record.alert.count) for record in records] == [
        (record.alert.id, record.alert.revision, record.alert.count) for record in expected
    ]
    assert after.snapshot() == through.snapshot()
