"""Bursts of names that do not exist, and service accounts from hosts that are new to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.names import KIND, NameDetector
from ringfence import names
from ringfence.batch import EventClass
from ringfence.component import BuildContext
from ringfence.names import Names, registrable
from tests import frames
from tests.processors.network import DAY, HOUR, MIN, T0, TOPOLOGY, S, Stage, cut, numbered

CLIENT, SERVER = "10.1.0.5", "10.2.0.53"


def detector() -> NameDetector:
    return KIND.build(KIND.settings(), BuildContext("names", TOPOLOGY))


def found(event_class: EventClass, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(Stage(detector()).found(frames.batch(event_class, numbered(rows))))


def asked(at_us: int, name: str, code: str = "NXDOMAIN", answer: bool = False) -> dict[str, Any]:
    ends = frames.ends(SERVER, CLIENT) if answer else frames.ends(CLIENT, SERVER)
    ports = (53, 40_000) if answer else (40_000, 53)
    return {
        "@timestamp": at_us, **ends, "source.port": ports[0], "destination.port": ports[1], "dns.question.name": name,
        "dns.response_code": code,
    }  # fmt: skip


def random_names(count: int, gap_us: int, **facts: Any) -> list[dict[str, Any]]:
    return [asked(T0 + number * gap_us, f"x{number}q{number * 7}.com", **facts) for number in range(count)]


@pytest.mark.parametrize("answer", [False, True])
def test_ten_names_that_do_not_exist_in_ten_minutes(answer: bool) -> None:
    (burst,) = found(EventClass.DNS, random_names(12, 30 * S, answer=answer))

    assert burst["ringfence.detector.name"] == "nxdomain-burst"
    assert burst["source.ip"] == frames.v4(CLIENT)
    assert burst["source.segment.name"] == "users"
    assert burst["ringfence.detector.distinct"] == 10
    assert burst["ringfence.detector.evidence"] == (
        "10 domains that do not exist within 10 min: x0q0.com, x1q7.com, x2q14.com, x3q21.com, x4q28.com, ..."
    )


@pytest.mark.parametrize(
    "rows",
    [
        random_names(9, S),
        random_names(40, 70 * S),
        random_names(40, S, code="NOERROR"),
        [asked(T0 + number, f"host{number}.corp.example") for number in range(40)],
        [asked(T0 + number, f"{number}.2.0.10.in-addr.arpa") for number in range(40)],
        [asked(T0 + number, f"printer{number}") for number in range(40)],
        [asked(T0 + number, f"a{number}.shop.co.uk") for number in range(40)],
    ],
    ids=["nine", "slowly", "they exist", "of one domain", "reverse", "one label", "suffix of two labels"],
)
def test_near_misses_are_no_burst(rows: list[dict[str, Any]]) -> None:
    assert found(EventClass.DNS, rows) == []


def test_a_burst_that_goes_on_is_found_once_an_hour() -> None:
    assert len(found(EventClass.DNS, random_names(150, MIN // 2))) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("www.Example.com.", "example.com"), ("a.b.co.uk", "b.co.uk"), ("co.uk", None), ("host", None), ("", None),
        ("5.0.10.in-addr.arpa", None), ("printer.local", None), ("a..com", None),
    ],
)  # fmt: skip
def test_the_registrable_part_of_a_name(name: str, expected: str | None) -> None:
    assert registrable(name) == expected


def login(at_us: int, user: str, source: str, outcome: str = "success") -> dict[str, Any]:
    return {
        "@timestamp": at_us, "source.ip": frames.v4(source), "host.name": "web-1", "user.name": user, "event.action": "ssh-login",
        "event.outcome": outcome,
    }  # fmt: skip


def test_a_service_account_from_a_new_host_after_a_week() -> None:
    rows = [login(T0, "svc-backup", "10.2.0.1"), login(T0 + 8 * DAY, "CORP\\SVC-Backup", "10.1.0.7"), login(T0 + 9 * DAY, "svc-backup", "10.1.0.7")]  # fmt: skip

    (new,) = found(EventClass.AUTH, rows)

    assert new["ringfence.detector.name"] == "service-account-new-host"
    assert new["@timestamp"] == T0 + 8 * DAY
    assert new["host.name"] == "web-1"
    assert new["ringfence.detector.evidence"] == (
        "svc-backup logged in from 10.1.0.7 for the first time; 1 other hosts are known"
    )


@pytest.mark.parametrize(
    "rows",
    [
        [login(T0, "svc-a", "10.2.0.1"), login(T0 + 6 * DAY, "svc-a", "10.2.0.2")],
        [login(T0, "alice", "10.2.0.1"), login(T0 + 8 * DAY, "alice", "10.2.0.2")],
        [login(T0, "svc-a", "10.2.0.1"), login(T0 + 8 * DAY, "svc-a", "10.2.0.2", "failure")],
        [login(T0, "svc-a", "10.2.0.1"), login(T0 + 8 * DAY, "svc-a", "10.2.0.1")],
        [login(T0 + 8 * DAY, "svc-a", "10.2.0.1")],
    ],
    ids=["warming up", "a person", "refused", "known", "the first login"],
)
def test_near_misses_are_no_new_host(rows: list[dict[str, Any]]) -> None:
    assert found(EventClass.AUTH, rows) == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(-MIN, 2 * MIN)), min_size=1, max_size=60),
    st.lists(st.tuples(st.sampled_from(["svc-a", "sa-b", "eve"]), st.integers(1, 5), st.integers(0, 3 * DAY)), min_size=1, max_size=30),
    st.lists(st.integers(0, 59), max_size=5),
)  # fmt: skip
def test_batches_and_restarts_change_nothing(
    questions: list[tuple[int, int]], logins: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    at_us, asks, comes = T0, [], []
    for number, gap in questions:
        at_us += gap
        asks.append(asked(at_us, f"n{number}.org"))
    for user, host, gap in logins:
        at_us += gap
        comes.append(login(at_us, user, f"10.2.0.{host}"))
    for event_class, rows in ((EventClass.DNS, asks), (EventClass.AUTH, comes)):
        whole = frames.batch(event_class, numbered(rows))
        expected = list(Stage(detector()).found(whole))
        stage, made = Stage(detector()), []
        for part in cut(whole, [place for place in cuts if place < len(rows)]):
            made += list(stage.found(part))
            state = stage.detector.snapshot()  # type: ignore[attr-defined]
            stage.detector = fresh = detector()
            fresh.restore(state)
        assert made == expected


def test_memory_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("MAX_ASKERS", "MAX_NAMES", "MAX_ACCOUNTS", "MAX_ORIGINS"):
        monkeypatch.setattr(names, bound, 5)
    known = Names()
    for number in range(20):
        list(known.not_found(f"10.0.0.{number}", "x.com", T0, "e", 0))
        list(known.not_found("10.0.0.19", f"x{number}.com", T0, "e", 0))
        list(known.login(f"svc-{number}", "10.0.0.1", T0, 0))
        list(known.login("svc-19", f"10.0.0.{number}", T0 + HOUR, 0))

    assert set(known.bounds.hits) == {"askers", "names", "accounts", "origins"}
    assert len(known.snapshot()) < 1_000
