"""`ringfence replay` runs files through the whole chain and leaves its results in a folder."""

from __future__ import annotations

import json
import signal
import subprocess
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.batch import Source, frames_of
from ringfence.cli import replay
from ringfence.cli.replay import put_in_order, reached
from ringfence.demo import exporters
from ringfence.demo.exporters import BLOCK, TCP, Talk
from ringfence.errors import ExitCode
from tests.cli.command import command, ringfence
from tests.collectors.encode_netflow import Export, Flow
from tests.eve_lines import flow, topology_file

AT_US = 1_790_000_000_000_000


def _files(folder: Path, at_us: int = AT_US) -> tuple[Path, Path]:
    eve = folder / "eve.json"
    eve.write_bytes(flow(1) + flow(2, port=22) + b"broken\n" + flow(3, port=22, answered=False))
    pflog = folder / "pflog"
    attempt = Talk("10.1.0.7", 40_000, "10.2.0.9", 3389, TCP, at_us, at_us)
    pflog.write_bytes(exporters.PCAP_HEADER + exporters.pflog(attempt, BLOCK, "vlan10", "a", 4, 2, attempt.start_us))
    return eve, pflog


def test_files_of_several_formats_give_events_verdicts_dead_letters_and_a_summary(tmp_path: Path) -> None:
    eve, pflog = _files(tmp_path)
    out = tmp_path / "out"

    outcome = ringfence("replay", eve, pflog, "--topology", topology_file(tmp_path), "--out", out)

    summary = json.loads((out / "summary.json").read_text())
    assert outcome.code == ExitCode.OK, outcome.err
    assert summary["verdicts"] == {"breached": 1, "undeclared": 0, "overblocked": 0, "unproven": 1, "held": 1, "permitted": 1}
    assert (summary["events"], summary["boundary_tests"], summary["dead"]) == (4, 4, 1)
    assert summary["ledger"]["imbalance"] == 0
    assert len((out / "events.jsonl").read_bytes().splitlines()) == 4
    assert len((out / "dead.jsonl").read_bytes().splitlines()) == 1
    assert "BREACHED users -> servers: 10.1.0.5 reached 10.2.0.9 on tcp/22" in outcome.out


def test_a_boundary_test_says_where_when_which_who_what_and_on_which_evidence(tmp_path: Path) -> None:
    eve, pflog = _files(tmp_path)
    out = tmp_path / "out"
    ringfence("replay", eve, pflog, "--topology", topology_file(tmp_path), "--out", out)

    events = {json.loads(line)["event"]["id"] for line in (out / "events.jsonl").read_text().splitlines()}
    tests = [json.loads(line) for line in (out / "boundary.jsonl").read_text().splitlines()]
    held = next(test for test in tests if test["ringfence"]["boundary"]["verdict"] == "held")

    assert held["@timestamp"] == "2026-09-21T14:13:20.000000Z"
    assert held["ringfence"]["boundary"]["id"] == "users -> servers"
    assert held["source"]["segment"] == {"id": "users", "name": "users", "tenant": "a"}
    assert (held["source"]["ip"], held["destination"]["ip"], held["destination"]["port"]) == ("10.1.0.7", "10.2.0.9", 3389)
    assert held["observer"]["ingress"]["interface"]["name"] == "vlan10"
    assert (held["rule"]["ruleset"], held["ringfence"]["pf"]["rule"], held["ringfence"]["pf"]["subrule"]) == ("a", 4, 2)
    assert all(evidence in events for test in tests for evidence in test["ringfence"]["evidence"]["ids"])
    assert len({test["event"]["id"] for test in tests} | events) == len(tests) + len(events)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    eve, pflog = _files(tmp_path)
    topology = topology_file(tmp_path)
    for name in ("one", "two"):
        ringfence("replay", eve, pflog, "--topology", topology, "--out", tmp_path / name)

    for file in ("events.jsonl", "boundary.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_finished_replay_is_not_overwritten(tmp_path: Path) -> None:
    eve, _ = _files(tmp_path)
    topology, out = topology_file(tmp_path), tmp_path / "out"
    ringfence("replay", eve, "--topology", topology, "--out", out)

    outcome = ringfence("replay", eve, "--topology", topology, "--out", out)

    assert outcome.code == ExitCode.IO
    assert (
        outcome.err == f"ringfence replay: {out} holds the result of a finished replay; choose another folder, or remove it\n"
    )


def test_a_file_of_no_known_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0" * 100)

    outcome = ringfence("replay", path, "--topology", topology_file(tmp_path), "--out", tmp_path / "out")

    assert outcome.code == ExitCode.IO
    assert "photo.jpg is not recognised by its first bytes; name it with --format" in outcome.err


def test_a_faulty_topology_is_a_configuration_error(tmp_path: Path) -> None:
    eve, _ = _files(tmp_path)
    topology = topology_file(tmp_path)
    topology.write_text("segments: {}\nintents: [{from: a, to: b, allow: [ssh]}]\n")

    outcome = ringfence("replay", eve, "--topology", topology, "--out", tmp_path / "out")

    assert outcome.code == ExitCode.CONFIG
    assert "topology.yml:2: intents[0].from: no segment is called 'a'" in outcome.err


def test_a_bus_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    eve, _ = _files(tmp_path)

    outcome = ringfence("replay", eve, "--topology", topology_file(tmp_path), "--out", tmp_path / "out", "--bus", "memory:")

    assert outcome.code == ExitCode.IO
    assert "a replay needs a bus that outlives a crash" in outcome.err


def test_a_replay_that_is_stopped_says_so_and_goes_on_with_the_same_command(tmp_path: Path) -> None:
    eve, out = tmp_path / "eve.json", tmp_path / "out"
    eve.write_bytes(b"".join(flow(serial) for serial in range(100_000)))
    arguments = ("replay", eve, "--topology", topology_file(tmp_path), "--out", out)
    with subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (out / "events.jsonl").is_file():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finished_early = (out / "summary.json").exists()

    again = ringfence(*arguments)

    assert errors.decode().splitlines()[-1] == "ringfence replay: stopped before the end; the same command goes on from here"
    assert (process.returncode, finished_early, again.code) == (ExitCode.IO, False, ExitCode.OK)
    assert json.loads((out / "summary.json").read_text())["events"] == 100_000


def test_a_flow_that_two_exporters_saw_is_one_crossing(tmp_path: Path) -> None:
    """NetFlow v5 of two routers on the way of three connections, one of which only the second one saw."""
    common = [Flow(sport=40_001), Flow(sport=40_002, dport=443)]
    (tmp_path / "r1").write_bytes(Export().encode(common))
    (tmp_path / "r2").write_bytes(Export(seconds=1_790_000_003, engine_id=7).encode([*common, Flow(sport=40_003)]))
    out = tmp_path / "out"

    outcome = ringfence("replay", tmp_path / "r1", tmp_path / "r2", "--topology", topology_file(tmp_path), "--out", out)

    summary = json.loads((out / "summary.json").read_text())
    tests = [json.loads(line) for line in (out / "boundary.jsonl").read_text().splitlines()]
    assert (summary["events"], summary["boundary_tests"], summary["merged"]) == (5, 3, 2)
    assert summary["verdicts"]["breached"] == 2
    assert {(test["observer"]["name"], test["source"]["port"]) for test in tests} == {
        (str(tmp_path / "r1"), 40_001),
        (str(tmp_path / "r1"), 40_002),
        (str(tmp_path / "r2"), 40_003),
    }
    assert summary["ledger"]["components"]["ringfence.process"]["merged"] == 2
    assert summary["ledger"]["imbalance"] == 0
    assert "5 events, 3 boundary tests, 0 dead letters, 2 merged; the ledger balances" in outcome.out


def test_at_a_speed_files_are_read_side_by_side_with_the_same_results(tmp_path: Path) -> None:
    first = json.loads(flow(1))["timestamp"]
    eve, pflog = _files(tmp_path, int(datetime.fromisoformat(first).timestamp()) * 1_000_000)
    topology = topology_file(tmp_path)

    for out, more in ((tmp_path / "fast", ()), (tmp_path / "paced", ("--speed", "20"))):
        outcome = ringfence("replay", eve, pflog, "--topology", topology, "--out", out, *more)
        assert outcome.code == ExitCode.OK, outcome.err
        assert "could not be kept" not in outcome.err

    for name in ("events.jsonl", "boundary.jsonl"):
        fast, paced = ((tmp_path / folder / name).read_bytes().splitlines() for folder in ("fast", "paced"))
        assert sorted(paced) == sorted(fast)
    assert json.loads((tmp_path / "paced" / "summary.json").read_text())["ledger"]["imbalance"] == 0


def test_a_speed_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    for speed in ("0", "-1", "nan", "fast"):
        outcome = ringfence("replay", "a", "--topology", "t", "--out", tmp_path / "out", f"--speed={speed}")
        assert outcome.code == ExitCode.USAGE
        assert "--speed" in outcome.err


@given(lines=st.lists(st.text("ab", max_size=3).map(lambda text: f"{text}\n".encode())), at_once=st.integers(1, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_larger_than_what_is_sorted_at_once_is_put_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[bytes], at_once: int
) -> None:
    monkeypatch.setattr(replay, "SORTED_BYTES", at_once)
    path = tmp_path / "detections.jsonl"
    path.write_bytes(b"".join(lines))

    put_in_order(path)

    assert path.read_bytes() == b"".join(sorted(lines))
    assert list(tmp_path.iterdir()) == [path]


def test_progress_is_the_place_in_the_file_that_was_reached() -> None:
    frames = frames_of([b"one\n", b"three\n"], Source("file", 1))

    assert reached(frames) == 10
    assert reached(replace(frames, positions=frames.positions + np.uint64(100))) == 110
    assert reached(frames_of([], Source("file", 1))) == 0


def _story(folder: Path) -> list[str | Path]:
    """The arguments of a replay with the bundled rules: one source reaches a server by ssh, forty times."""
    eve = folder / "eve.json"
    eve.write_bytes(b"".join(flow(serial, port=22) for serial in range(40)))
    return ["replay", eve, "--topology", topology_file(folder), "--rules", "bundled", "--out"]


def test_rules_end_in_alerts(tmp_path: Path) -> None:
    out = tmp_path / "out"

    outcome = ringfence(*_story(tmp_path), out)

    summary = json.loads((out / "summary.json").read_text())
    records = [json.loads(line) for line in (out / "alerts.jsonl").read_text().splitlines()]
    breached = [record["ringfence"]["alert"] for record in records if record["rule"]["name"] == "Boundary breached"]
    assert outcome.code == ExitCode.OK, outcome.err
    assert summary["ledger"]["imbalance"] == 0
    assert (summary["alerts"], summary["alert_records"]) == (len({record["ringfence"]["alert"]["id"] for record in records}), len(records))  # fmt: skip
    assert [(alert["status"], alert["count"]) for alert in breached] == [("new", 1), ("updated", 10)]
    assert (
        "CRITICAL: Boundary breached: 10.1.0.5 (users) reached 10.2.0.9:22 (servers) by ssh, which no intent allows; "
        "seen 10 times by 1 sensor at 07:44 UTC."
    ) in outcome.out


def test_the_same_input_and_rules_give_the_same_alerts(tmp_path: Path) -> None:
    story = _story(tmp_path)
    ringfence(*story, tmp_path / "one")
    ringfence(*story, tmp_path / "two")

    alerts = (tmp_path / "one" / "alerts.jsonl").read_bytes()
    assert alerts
    assert alerts == (tmp_path / "two" / "alerts.jsonl").read_bytes()


def test_an_exception_keeps_alerts_away(tmp_path: Path) -> None:
    entry = "{owner: ann, reason: CHG-1, expires: %s, match: {source: 10.1.0.5}}"
    exceptions = tmp_path / "exceptions.yml"
    exceptions.write_text(
        f"exceptions:\n  now: {entry % '2099-12-31'}\n  past: {entry.replace('10.1.0.5', '10.9.0.0/16') % '2020-01-31'}\n"
    )

    outcome = ringfence(*_story(tmp_path), tmp_path / "out", "--exceptions", exceptions)

    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["alerts"], summary["excepted"]) == (0, {"now": summary["detections"]})
    assert (tmp_path / "out" / "detections.jsonl").stat().st_size > 0
    assert "exception past of ann has expired and applies no more: CHG-1" in outcome.err
    assert "exception now" not in outcome.err
