"""`ringfence check` names every fault at once, with its line and the nearest valid name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.errors import ExitCode
from tests.cli.command import ringfence
from tests.eve_lines import topology_file

GOOD = """
bus: sqlite:bus
topology: topology.yml
collectors:
  ids: {type: suricata, path: eve.json}
sinks:
  files: {type: jsonl, path: out}
"""
FAULTY = """
bus: redis://localhost
topologie: topology.yml
batching: {rows: 0}
collectors:
  one: {type: netflow, listen: "127.0.0.1:2055"}
  two: {type: netflow, listen: "127.0.0.1:2055"}
  three: {type: suricatta, path: eve.json}
  four: {type: suricata, paht: eve.json}
sinks:
  files: {path: out}
  metrics: {type: prometheus, listen: "localhost"}
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "ringfence.yml"
    path.write_text(text.lstrip("\n"))
    return path


def test_a_good_configuration_is_ok(tmp_path: Path) -> None:
    topology_file(tmp_path)
    outcome = ringfence("check", _file(tmp_path, GOOD))

    assert outcome.code == ExitCode.OK
    assert "ok (1 collectors, 1 sinks, 2 segments, 1 intents)" in outcome.out


def test_all_faults_are_reported_at_once_with_their_lines(tmp_path: Path) -> None:
    path = _file(tmp_path, FAULTY)
    outcome = ringfence("check", path)

    expected = {
        2: "topologie: unknown option; did you mean topology?",
        3: "batching.rows: Input should be greater than or equal to 1; found 0",
        6: "collectors.two: udp 127.0.0.1:2055 is already used by collectors.one (line 5)",
        7: "collectors.three.type: unknown type 'suricatta'; did you mean suricata?",
        8: "collectors.four.paht: unknown option; did you mean path?",
        10: "sinks.files: type is required; accepted: jsonl, prometheus, terminal",
        11: "sinks.metrics.listen: 'localhost' is not HOST:PORT, such as 127.0.0.1:2055 or [::1]:2055",
    }
    assert outcome.code == ExitCode.CONFIG
    assert outcome.out == ""
    for line, message in expected.items():
        assert f"{path}:{line}: {message}" in outcome.err.splitlines()


def test_faults_as_json(tmp_path: Path) -> None:
    outcome = ringfence("check", _file(tmp_path, FAULTY), "--json")

    report = json.loads(outcome.out)
    assert outcome.code == ExitCode.CONFIG
    assert not report["ok"]
    assert {"file", "line", "path", "message"} == set(report["faults"][0])


def test_a_bad_bus_url_says_what_is_accepted(tmp_path: Path) -> None:
    topology_file(tmp_path)
    outcome = ringfence("check", _file(tmp_path, GOOD.replace("sqlite:bus", "redis://localhost")))

    assert outcome.code == ExitCode.CONFIG
    assert "bus: 'redis://localhost' names no bus: accepted are memory:, sqlite:PATH and kafka://" in outcome.err


def test_faults_of_the_topology_are_reported_with_those_of_the_configuration(tmp_path: Path) -> None:
    topology_file(tmp_path).write_text("segments:\n  a: {networks: [10.0.0.1/8]}\n")
    outcome = ringfence("check", _file(tmp_path, GOOD.replace("jsonl", "json")))

    assert outcome.code == ExitCode.CONFIG
    assert f"{tmp_path}/topology.yml:2: segments.a.networks[0]" in outcome.err
    assert "sinks.files.type: unknown type 'json'; did you mean jsonl?" in outcome.err


@pytest.mark.parametrize("verb", ["check", "run", "ledger"])
def test_a_missing_file_is_one_sentence(tmp_path: Path, verb: str) -> None:
    outcome = ringfence(verb, tmp_path / "absent.yml")

    assert outcome.code == ExitCode.CONFIG
    assert outcome.err == f"{tmp_path}/absent.yml: cannot be read: No such file or directory\n"


def test_an_empty_configuration_has_nothing_to_run(tmp_path: Path) -> None:
    outcome = ringfence("check", _file(tmp_path, "bus: 'memory:'\n"))

    assert outcome.code == ExitCode.CONFIG
    assert "declares neither collectors, nor sinks, nor a topology" in outcome.err


def test_an_exception_without_owner_or_expiry_is_refused(tmp_path: Path) -> None:
    topology_file(tmp_path)
    (tmp_path / "exceptions.yml").write_text("exceptions:\n  scan:\n    reason: CHG-1\n    match: {rule: r}\n")

    outcome = ringfence("check", _file(tmp_path, GOOD + "rules: {exceptions: exceptions.yml}\n"))

    assert outcome.code == ExitCode.CONFIG
    assert "exceptions.yml:2: exceptions.scan.owner: is required" in outcome.err
    assert "exceptions.yml:2: exceptions.scan.expires: is required" in outcome.err
