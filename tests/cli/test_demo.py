"""The demo is the end-to-end test: real datagrams and files, every stage, one story whose outcome is known."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import ExitCode
from tests.cli.command import Outcome, ringfence

pytestmark = pytest.mark.net

EXPECTED = {
    ("finance-users", "finance-servers", "permitted"): 40,
    ("finance-users", "public-servers", "permitted"): 242,
    ("iot", "finance-servers", "held"): 180,
    ("iot", "public-servers", "breached"): 40,
    ("iot", "public-servers", "permitted"): 30,
    ("mgmt", "finance-servers", "permitted"): 2,
    ("mgmt", "iot", "overblocked"): 2,
    ("mgmt", "public-servers", "permitted"): 2,
    ("outside", "public-servers", "permitted"): 24,
    ("public-servers", "finance-servers", "held"): 9,
    ("public-servers", "finance-servers", "unproven"): 1,
    ("public-servers", "mgmt", "held"): 2,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, ringfence("demo", "--out", out)


def _documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_ends_well_and_tells_what_was_held_and_what_was_breached(demo: tuple[Path, Outcome]) -> None:
    _, outcome = demo

    assert outcome.code == ExitCode.OK, outcome.err
    assert "BREACHED iot -> public-servers: 10.10.30.66 reached 10.10.20.5 on ssh" in outcome.out
    assert "The ledger balances: nothing was lost." in outcome.out


def test_the_story_ends_in_alerts(demo: tuple[Path, Outcome]) -> None:
    out, outcome = demo
    records = _documents(out / "alerts.jsonl")

    assert {record["rule"]["name"] for record in records} >= {
        "Boundary breached",
        "Traffic passed between tenants",
        "Scan of many hosts, by first contacts",
        "Passwords of an account are tried",
        "Sign-in after many failures",
    }
    assert outcome.out.index("Alerts: ") > outcome.out.index("Verdicts:")
    assert (
        "CRITICAL: 10.10.30.66 looked around, got at credentials and moved on to other hosts within two hours; " in outcome.out
    )
    assert (
        "CRITICAL: Boundary breached: 10.10.30.66 (iot) reached 10.10.20.5:22 (public-servers) by ssh, which no intent allows; "
        "seen 10 times by 1 sensor at "
    ) in outcome.out


def test_every_boundary_has_the_verdicts_that_the_story_implies(demo: tuple[Path, Outcome]) -> None:
    tests = Counter(
        (test["source"]["segment"]["name"], test["destination"]["segment"]["name"], test["ringfence"]["boundary"]["verdict"])
        for test in _documents(demo[0] / "boundary.jsonl")
    )

    assert tests == EXPECTED


def test_the_breach_that_firewall_and_ids_saw_counts_once(demo: tuple[Path, Outcome]) -> None:
    breaches = [
        test for test in _documents(demo[0] / "boundary.jsonl") if test["ringfence"]["boundary"]["verdict"] == "breached"
    ]

    book = json.loads(ringfence("ledger", demo[0] / "ringfence.yml", "--json").out)
    assert len({test["source"]["port"] for test in breaches}) == len(breaches) == 40
    assert book["components"]["ringfence.process"]["merged"] >= 80  # by pf, and twice by Suricata: as ssh and as flow


def test_the_login_that_worked_is_among_those_that_failed(demo: tuple[Path, Outcome]) -> None:
    logins = [event for event in _documents(demo[0] / "events.jsonl") if event["ringfence"]["class"] == "auth"]
    guesses = [event for event in logins if event["source"]["ip"] == "10.10.30.66"]

    assert Counter(event["event"]["outcome"] for event in guesses) == {"failure": 39, "success": 1}
    assert [event["user"]["name"] for event in guesses if event["event"]["outcome"] == "success"] == ["deploy"]


def test_broken_records_are_kept_with_reason_and_place(demo: tuple[Path, Outcome]) -> None:
    dead = _documents(demo[0] / "dead.jsonl")

    reasons = {letter["ringfence"]["dead"]["component"]: letter["ringfence"]["dead"] for letter in dead}
    assert reasons["ids"]["reason"] == "wrong_type"
    assert reasons["ids"]["path"] == "$.timestamp"
    assert reasons["ids"]["offset"] == 13
    assert reasons["router"]["reason"] == "bad_length"


def test_prometheus_would_have_scraped_the_same_numbers(demo: tuple[Path, Outcome]) -> None:
    metrics = (demo[0] / "metrics.txt").read_text()

    wanted = 'ringfence_boundary_tests_total{boundary="iot -> public-servers",origin="observed",tenant="building",verdict="breached"} 40.0'
    assert wanted in metrics
    assert 'ringfence_dlq_messages_total{reason="wrong_type",stage="collect"} 1.0' in metrics


def test_the_ledger_of_what_it_leaves_balances(demo: tuple[Path, Outcome]) -> None:
    outcome = ringfence("ledger", demo[0] / "ringfence.yml", "--json")

    book = json.loads(outcome.out)
    assert outcome.code == ExitCode.OK
    assert book["imbalance"] == 0
    assert book["components"]["ringfence.collect.ids"]["dead"] == 1


def test_a_folder_that_is_not_of_a_demo_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")

    outcome = ringfence("demo", "--out", tmp_path)

    assert outcome.code == ExitCode.IO
    assert (
        outcome.err == f"ringfence demo: {tmp_path} is not empty and not of an earlier demo; choose another folder with --out\n"
    )
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
