"""`ringfence dlq`: rejected input is listed, shown byte for byte, and replayed through the stage that rejected it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.errors import ExitCode
from tests.cli.command import ringfence
from tests.eve_lines import flow, topology_file

BROKEN = b'{"timestamp":"2026-11-25T07:44:23.000000+0000","event_type":"flow","src_ip":"10.1.0.5","dest_ip":"10.2.0.9","src_port":70000}\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose run left two dead letters: an address out of range, and junk with terminal escapes."""
    topology_file(tmp_path)
    (tmp_path / "eve.json").write_bytes(flow(1) + BROKEN + b"\x1b[31mjunk\x07[bold]\n" + flow(2))
    path = tmp_path / "ringfence.yml"
    path.write_text(
        "bus: sqlite:bus\ntopology: topology.yml\n"
        "collectors:\n  ids: {type: suricata, path: eve.json, follow: false}\n"
        "sinks:\n  files: {type: jsonl, path: out}\n"
    )
    assert ringfence("run", path).code == ExitCode.OK
    return path


def test_letters_are_listed_with_reason_and_place(config: Path) -> None:
    outcome = ringfence("dlq", "list", "--config", config)

    assert outcome.code == ExitCode.FOUND
    assert "2 dead letters" in outcome.out
    assert "$.src_port" in outcome.out
    assert "Number out of range" in outcome.out
    assert "1  ids  malformed" in outcome.out


def test_letters_are_listed_as_json(config: Path) -> None:
    outcome = ringfence("dlq", "list", "--config", config, "--json", "--reason", "wrong_type")

    letters = [json.loads(line) for line in outcome.out.splitlines()]
    assert [letter["ringfence"]["dead"]["path"] for letter in letters] == ["$.src_port"]
    assert letters[0]["ringfence"]["dead"]["payload"].encode() == BROKEN


def test_a_letter_is_shown_with_the_byte_at_fault_marked(config: Path) -> None:
    listed = ringfence("dlq", "list", "--config", config, "--json", "--reason", "malformed")
    letter = json.loads(listed.out)["event"]["id"]

    outcome = ringfence("dlq", "show", "--config", config, letter)

    assert outcome.code == ExitCode.OK
    assert "[1b] 5b" in outcome.out
    assert "\x1b" not in outcome.out


def test_an_unknown_id_is_one_sentence(config: Path) -> None:
    outcome = ringfence("dlq", "show", "--config", config, "ffff")

    assert outcome.code == ExitCode.IO
    assert outcome.err.startswith("ringfence dlq: no dead letter has an id that begins with 'ffff'")


def test_a_letter_that_fails_again_keeps_its_first_cause_and_counts_the_try(config: Path) -> None:
    outcome = ringfence("dlq", "replay", "--config", config, "--reason", "wrong_type")
    letters = ringfence("dlq", "list", "--config", config, "--json")

    found = {
        letter["ringfence"]["dead"]["reason"]: letter["ringfence"]["dead"]
        for letter in map(json.loads, letters.out.splitlines())
    }
    assert outcome.code == ExitCode.FOUND
    assert outcome.out == "0 replayed, 1 failed again, 1 left as they were\n"
    assert (found["wrong_type"]["attempts"], found["malformed"]["attempts"]) == (2, 1)


def test_a_letter_that_the_decoder_takes_now_goes_on_under_the_id_it_would_have_had(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(flow(1) + b"<34>1 2026-11-25T07:44:23Z host app - - - hello\n")
    path = tmp_path / "ringfence.yml"
    text = "bus: sqlite:bus\ncollectors:\n  log: {type: suricata, path: log, follow: false}\nsinks:\n  files: {type: jsonl, path: out}\n"
    path.write_text(text)
    ringfence("run", path)
    letter = json.loads(ringfence("dlq", "list", "--config", path, "--json").out)["event"]["id"]
    path.write_text(text.replace("suricata", "syslog"))

    outcome = ringfence("dlq", "replay", "--config", path)
    ringfence("run", path)

    events = {
        document["event"]["id"]: document
        for document in map(json.loads, (tmp_path / "out/events.jsonl").read_text().splitlines())
    }
    assert outcome.out == "1 replayed, 0 failed again, 0 left as they were\n"
    assert events[letter]["message"] == "hello"
    assert ringfence("dlq", "list", "--config", path).out == "No dead letters.\n"


def test_the_ledger_balances_after_a_replay(config: Path) -> None:
    ringfence("dlq", "replay", "--config", config)
    ringfence("run", config)

    outcome = ringfence("ledger", config, "--json")

    assert outcome.code == ExitCode.OK
    assert json.loads(outcome.out)["imbalance"] == 0


def test_no_dead_letters_is_good_news(tmp_path: Path) -> None:
    path = tmp_path / "ringfence.yml"
    path.write_text("bus: sqlite:bus\nsinks:\n  files: {type: jsonl, path: out}\n")

    outcome = ringfence("dlq", "list", "--config", path)

    assert (outcome.code, outcome.out) == (ExitCode.OK, "No dead letters.\n")
