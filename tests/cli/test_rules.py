"""`ringfence rules`: for people who write rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.errors import ExitCode
from tests.cli.command import ringfence
from tests.eve_lines import flow

SHELL = """title: Shell
id: 6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
name: shell
level: high
tags: [attack.execution, attack.t1059]
logsource: {product: linux, category: process_creation}
detection:
  a: {Image|endswith: /sh}
  condition: a
"""
WEB = """title: Web port
id: 7ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
level: low
logsource: {product: ringfence, category: flow}
detection: {a: {destination.port: 443}, condition: a}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "shell.yml").write_text(SHELL)
    (rules / "web.yml").write_text(WEB)
    (rules / "bad.yml").write_text(WEB.replace("destination.port", "port").replace("7ad5", "8ad5"))
    return rules


def test_list_shows_the_rules_in_force(folder: Path) -> None:
    outcome = ringfence("rules", "list", folder, "--json")

    assert outcome.code == ExitCode.OK
    assert [(rule["title"], rule["classes"]) for rule in map(json.loads, outcome.out.splitlines())] == [
        ("Shell", ["process"]),
        ("Web port", ["flow"]),
    ]
    assert outcome.err == "2 rules in force, 1 refused\n"


def test_check_names_file_line_and_reason(folder: Path) -> None:
    outcome = ringfence("rules", "check", folder)

    assert outcome.code == ExitCode.FOUND
    assert outcome.out == (
        f"{folder}/bad.yml:1: Web port: field 'port' has no column in log source 'product: ringfence, category: flow'\n"
    )


def test_check_of_good_rules_says_so(folder: Path) -> None:
    outcome = ringfence("rules", "check", folder / "web.yml")

    assert (outcome.code, outcome.out, outcome.err) == (ExitCode.OK, "", "1 rule in force, 0 refused\n")


def test_match_prints_a_line_for_each_hit(folder: Path, tmp_path: Path) -> None:
    events = tmp_path / "eve.json"
    events.write_bytes(flow(1) + b"{}\n" + flow(2))

    outcome = ringfence("rules", "match", folder / "web.yml", "--events", events)

    hits = list(map(json.loads, outcome.out.splitlines()))
    assert outcome.code == ExitCode.FOUND
    assert [hit["event"] for hit in hits] == [{"row": 0, "offset": 0}, {"row": 2, "offset": len(flow(1)) + 3}]
    assert hits[0]["id"] == "7ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11"
    assert hits[0]["fields"] == {"destination.port": "443"}


def test_match_reads_events_named_as_rules_name_them(folder: Path) -> None:
    lines = b'{"Image":"/bin/sh"}\n{"Image":"/bin/ls"}\nx\n'

    outcome = ringfence("rules", "match", folder / "shell.yml", "--events", "-", "--format", "json", stdin=lines)

    assert [json.loads(line)["event"] for line in outcome.out.splitlines()] == [{"row": 0, "offset": 0}]
    assert "row 2, byte 0: " in outcome.err


def test_no_hit_is_exit_code_zero(folder: Path) -> None:
    outcome = ringfence("rules", "match", folder / "shell.yml", "--events", "-", "--format", "json", stdin=b"{}\n")

    assert (outcome.code, outcome.out) == (ExitCode.OK, "")


def test_explain_shows_each_part_of_a_rule(folder: Path) -> None:
    outcome = ringfence(
        "rules",
        "explain",
        folder,
        "--id",
        "shell",
        "--events",
        "-",
        "--format",
        "json",
        "--row",
        "1",
        stdin=b'{}\n{"Image":"/bin/ls"}\n',
    )

    assert outcome.code == ExitCode.OK
    assert outcome.out == "no  Image: '*/sh' (is '/bin/ls')\n"


def test_explain_of_an_unknown_rule_or_event_is_one_sentence(folder: Path) -> None:
    unknown = ringfence("rules", "explain", folder, "--id", "x", "--events", "-", stdin=b"")
    beyond = ringfence(
        "rules", "explain", folder, "--id", "shell", "--events", "-", "--format", "json", "--row", "9", stdin=b"{}\n"
    )

    assert unknown.code == beyond.code == ExitCode.IO
    assert "no rule in force has the id or name 'x'" in unknown.err
    assert "- has no event 9 that the rule is for; count from 0" in beyond.err


def test_coverage_lists_techniques(folder: Path) -> None:
    outcome = ringfence("rules", "coverage", folder, "--json")

    assert [json.loads(line) for line in outcome.out.splitlines()] == [
        {"technique": "T1059", "rules": ["6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11"]}
    ]


def test_placeholders_are_given_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_text(SHELL.replace("Image|endswith: /sh", "Image|expand: '/%shells%'"))
    lines = b'{"Image":"/zsh"}\n'

    refused = ringfence("rules", "check", tmp_path / "r.yml")
    outcome = ringfence(
        "rules", "match", tmp_path / "r.yml", "--placeholder", "shells=sh,zsh", "--events", "-", "--format", "json", stdin=lines
    )

    assert "placeholder '%shells%' has no values; defined: none" in refused.out
    assert outcome.code == ExitCode.FOUND
