"""Paths round the declared intent: the story of three hops, near misses, and that batches and restarts change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.paths import KIND, PathDetector
from ringfence import paths
from ringfence.batch import EventClass
from ringfence.component import BuildContext
from ringfence.paths import Contact, Paths
from tests import frames
from tests.processors.network import DAY, HOUR, MIN, T0, TOPOLOGY, S, Stage, cut, flow, numbered

USER, OTHER, SERVER, SECOND, VAULT, JUMP = "10.1.0.5", "10.1.0.6", "10.2.0.9", "10.2.0.10", "10.3.0.7", "10.8.0.1"
AT = 1_795_592_663 * S  # 07:44:23


def detector() -> PathDetector:
    return KIND.build(KIND.settings(), BuildContext("paths", TOPOLOGY))


def login(at_us: int, source: str, host: str, user: str, **facts: Any) -> dict[str, Any]:
    return {
        "@timestamp": at_us, "source.ip": frames.v4(source), "host.hostname": host, "user.name": user,
        "event.action": "ssh-login", "event.outcome": "success", **facts,
    }  # fmt: skip


def found(*batches: tuple[EventClass, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    stage = Stage(detector())
    return [row for event_class, rows in batches for row in stage.found(frames.batch(event_class, numbered(rows)))]


def flows(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    return found((EventClass.FLOW, rows))


def test_a_path_round_the_intent_is_shown_hop_by_hop() -> None:
    (path,) = flows(flow(AT, USER, SERVER, 22, True), flow(AT + 98 * S, SERVER, VAULT, 3389, True))

    assert path["ringfence.detector.name"] == "path-violates-intent"
    assert path["ringfence.detector.evidence"] == "10.1.0.5 -> 10.2.0.9 (ssh, 07:44:23) -> 10.3.0.7 (rdp, 07:46:01)"
    assert (path["source.ip"], path["destination.ip"]) == (frames.v4(USER), frames.v4(VAULT))
    assert (path["source.segment.name"], path["destination.segment.name"]) == ("users", "vault")
    assert (path["ringfence.boundary.id"], path["ringfence.boundary.intent"]) == ("users -> vault", "deny")
    assert (path["event.start"], path["event.end"], path["ringfence.detector.score"]) == (AT, AT + 98 * S, 2)
    assert len(path["ringfence.detector.ids"].split(",")) == 2


def test_three_hops_are_one_path_from_its_beginning() -> None:
    rows = [flow(T0, USER, SERVER, 22, True), flow(T0 + S, SERVER, SECOND, 22, True), flow(T0 + 2 * S, SECOND, VAULT, 22, True)]

    (path,) = flows(*rows)

    assert path["ringfence.detector.evidence"].startswith("10.1.0.5 -> 10.2.0.9 (ssh, ")
    assert path["ringfence.detector.distinct"] == 3


def test_a_login_line_is_a_hop_where_its_host_is_an_asset() -> None:
    (path,) = found(
        (EventClass.AUTH, [login(T0, USER, "web-1.example.org", "alice")]),
        (EventClass.FLOW, [flow(T0 + S, SERVER, VAULT, 22, True)]),
    )

    assert path["ringfence.detector.name"] == "path-violates-intent"


def test_a_hop_that_is_told_late_is_found_all_the_same() -> None:
    (path,) = found(
        (EventClass.FLOW, [flow(AT + 98 * S, SERVER, VAULT, 3389, True)]),
        (EventClass.AUTH, [login(AT, USER, "web-1", "alice")]),
    )

    assert path["ringfence.detector.evidence"] == "10.1.0.5 -> 10.2.0.9 (ssh, 07:44:23) -> 10.3.0.7 (rdp, 07:46:01)"


def test_another_account_on_the_way_is_a_finding() -> None:
    rows = [login(T0, SERVER, "vault-1", "root")]
    came = [login(T0 - MIN, OTHER, "web-1", "EXAMPLE\\Alice"), login(T0 - HOUR, USER, "web-1", "bob")]
    made = found((EventClass.AUTH, [*came, *rows]))

    (switch,) = [row for row in made if row["ringfence.detector.name"] == "path-user-switch"]
    assert " as bob, " in switch["ringfence.detector.evidence"] or " as alice, " in switch["ringfence.detector.evidence"]
    assert " -> 10.3.0.7 (ssh as root, " in switch["ringfence.detector.evidence"]
    assert switch["user.name"] == "root"


def switches(*rows: dict[str, Any]) -> int:
    return [row["ringfence.detector.name"] for row in found((EventClass.AUTH, rows))].count("path-user-switch")


def test_an_account_that_came_to_the_host_may_go_on() -> None:
    assert switches(login(T0, USER, "web-1", "alice"), login(T0 + S, SERVER, "vault-1", "ALICE@example.org")) == 0
    assert switches(login(T0, USER, "web-1", "alice"), login(T0 + S, SERVER, "vault-1", "root")) == 1
    assert switches(login(T0 + S, SERVER, "vault-1", "root")) == 0


NEAR_MISSES: dict[str, list[dict[str, Any]]] = {
    "the second hop was blocked": [flow(T0, USER, SERVER, 22, True), flow(T0 + S, SERVER, VAULT, 22, False)],
    "no port of administration": [flow(T0, USER, SERVER, 22, True), flow(T0 + S, SERVER, VAULT, 443, True)],
    "a day lies between": [flow(T0, USER, SERVER, 22, True), flow(T0 + DAY, SERVER, VAULT, 22, True)],
    "over a jump host": [flow(T0, USER, JUMP, 22, True), flow(T0 + S, JUMP, VAULT, 22, True)],
    "the wrong order and nothing told late": [flow(T0 + S, SERVER, VAULT, 22, True), flow(T0 + MIN, USER, SERVER, 22, True)],
    "back to where it began": [flow(T0, USER, SERVER, 22, True), flow(T0 + S, SERVER, USER, 22, True)],
    "to the own segment": [flow(T0, USER, SERVER, 22, True), flow(T0 + S, SERVER, OTHER, 22, True)],
    "declared for the beginning too": [flow(T0, JUMP, SERVER, 22, True), flow(T0 + S, SERVER, VAULT, 22, True)],
    "UDP": [flow(T0, USER, SERVER, 22, True), flow(T0 + S, SERVER, VAULT, 3389, True, **{"network.iana_number": 17})],
}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_near_misses_are_none(case: str) -> None:
    assert flows(*NEAR_MISSES[case]) == []


def test_a_failed_login_is_no_hop() -> None:
    failed = login(T0, USER, "web-1", "alice", **{"event.outcome": "failure"})

    assert found((EventClass.AUTH, [failed]), (EventClass.FLOW, [flow(T0 + S, SERVER, VAULT, 22, True)])) == []


def test_the_same_path_is_reported_once_a_day() -> None:
    rows = [
        row
        for turn in range(3)
        for row in (flow(T0 + turn * HOUR, USER, SERVER, 22, True), flow(T0 + turn * HOUR + S, SERVER, VAULT, 22, True))
    ]

    assert len(flows(*rows)) == 1


def contact(source: int, target: int, at_us: int, segments: tuple[str, str] = ("a", "b")) -> Contact:
    return Contact(f"h{source}", f"h{target}", *segments, 22, None, at_us, f"{at_us}")


def memory() -> Paths:
    return Paths(lambda source, target, port: "deny", lambda segment: None)


def test_no_more_than_five_hops() -> None:
    known = memory()

    longest = [
        finding.score
        for number in range(9)
        for finding in known.seen(contact(number, number + 1, T0 + number, (f"s{number}", f"s{number + 1}")), 0)
    ]

    assert longest == [2, 3, 4, 5, 5, 5, 5, 5]


def test_contacts_and_hosts_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "MAX_HOSTS", 100)
    known = memory()
    for number in range(200):
        known.seen(contact(number + 10, 1, T0 + number), 0)
    for number in range(200):
        known.seen(contact(2, number + 1000, T0 + number), 0)

    assert known.bounds.hits["contacts"] >= 100 - paths.MAX_INBOUND
    assert known.bounds.hits["hosts"] > 0
    assert len(known.snapshot()) < 64_000


HOSTS = [USER, OTHER, SERVER, SECOND, VAULT, JUMP]
NAMES = ["web-1", "vault-1", "unknown"]
HOP = st.tuples(
    st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.sampled_from([22, 3389, 443]), st.sampled_from([True, True, False]),
    st.integers(-HOUR, 8 * HOUR),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(HOP, min_size=1, max_size=40), st.lists(st.integers(0, 39), max_size=6))
def test_batches_and_restarts_change_nothing(hops: list[tuple[str, str, int, bool, int]], cuts: list[int]) -> None:
    at_us, rows = T0, []
    for source, target, port, answered, gap in hops:
        at_us += gap
        rows.append(flow(at_us, source, target, port, answered))
    inside = [row for row in rows if row["source.ip"] >> 16 == row["destination.ip"] >> 16]
    across = [row for row in rows if row["source.ip"] >> 16 != row["destination.ip"] >> 16]
    for some in (inside, across):
        if some:
            whole = frames.batch(EventClass.FLOW, numbered(some))
            expected = list(Stage(detector()).found(whole))
            stage, made = Stage(detector()), []
            for part in cut(whole, [place for place in cuts if place < len(some)]):
                made += list(stage.found(part))
                state = stage.detector.snapshot()  # type: ignore[attr-defined]
                stage.detector = fresh = detector()
                fresh.restore(state)
            assert made == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from(NAMES), st.sampled_from(["a", "b"]), st.integers(0, HOUR)), max_size=30),
    st.lists(st.integers(0, 29), max_size=4),
)  # fmt: skip
def test_logins_too(logins: list[tuple[str, str, str, int]], cuts: list[int]) -> None:
    rows = [login(T0 + number * MIN + gap, source, host, user) for number, (source, host, user, gap) in enumerate(logins)]
    if not rows:
        return
    whole = frames.batch(EventClass.AUTH, numbered(rows))
    expected = list(Stage(detector()).found(whole))
    stage, made = Stage(detector()), []
    for part in cut(whole, [place for place in cuts if place < len(rows)]):
        made += list(stage.found(part))
        state = stage.detector.snapshot()  # type: ignore[attr-defined]
        stage.detector = fresh = detector()
        fresh.restore(state)
    assert made == expected


@pytest.mark.parametrize("state", [b"", b"\xc1", b"\x92\x90"])
def test_a_state_that_cannot_be_read_is_left_aside(state: bytes) -> None:
    fresh = detector()
    fresh.restore(state)

    assert fresh.snapshot() == detector().snapshot()
