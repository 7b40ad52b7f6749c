"""kill -9 at random moments of a replay: nothing is lost, nothing appears twice, and rules detect the same.

The short form replays 60,000 events through 4 kills; RINGFENCE_LONG=1 replays 1,000,000 through 20, and over Kafka with broker
restarts in between (services/kafka.sh restarts it) 3 times.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.eve_lines import flow, topology_file

LONG = os.environ.get("RINGFENCE_LONG") == "1"
EVENTS = 1_000_000 if LONG else 60_000
KILLS = 20 if LONG else 4
BROKEN_EVERY = 1_000
ROOT = Path(__file__).parents[1]
SUMMARY = "out/summary.json"
BROKER = os.environ.get("RINGFENCE_TEST_KAFKA", "")
NEEDS_BROKER = "no Kafka: start one with services/kafka.sh start and set RINGFENCE_TEST_KAFKA=127.0.0.1:19092"


def _corpus(folder: Path, events: int) -> Path:
    """Serial numbers in flow_id; every thousandth line is broken."""
    path = folder / "eve.json"
    with path.open("wb") as file:
        for serial in range(events):
            line = flow(serial, source=f"10.1.{serial % 200}.{serial % 250}", port=443 if serial % 3 else 22)
            file.write(b"broken " + line if serial % BROKEN_EVERY == 0 else line)
    return path


def _replay(folder: Path, eve: Path, *options: str) -> list[str]:
    topology = topology_file(folder)
    command = ["replay", str(eve), "--topology", str(topology), "--out", str(folder / "out"), *options]
    return [sys.executable, "-m", "ringfence", *command]


def _run_with_kills(command: list[str], finished: Path, kills: int, chance: random.Random, between: list[list[str]]) -> int:
    """Start, kill and start again until `finished` exists; returns how many kills hit a running process.

    A kill may land after the last file is written and before the process has left: that replay is finished too.
    """
    hits = 0
    for kill in range(kills):
        if finished.exists():
            return hits
        hits += _killed_while_running(command, chance.uniform(0.8, 2.5))
        for extra in between if kill == kills // 2 else []:
            subprocess.run(extra, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not finished.exists():
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return hits


def _killed_while_running(command: list[str], seconds: float) -> bool:
    """Run for so many seconds, then kill; False if it ended by itself, which must then be without an error."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            _, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return True
        assert process.returncode == 0, errors.decode()
        return False


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from map(json.loads, file)


def _check(out: Path, events: int) -> None:
    broken = range(0, events, BROKEN_EVERY)
    serials = Counter(int(document["ringfence"]["flow"]["id"]) for document in _documents(out / "events.jsonl"))
    tests = Counter(document["ringfence"]["evidence"]["ids"][0] for document in _documents(out / "boundary.jsonl"))
    dead = Counter(document["event"]["id"] for document in _documents(out / "dead.jsonl"))
    summary = json.loads((out / "summary.json").read_text())

    assert [serial for serial, count in serials.items() if count > 1] == []
    assert set(range(events)) - serials.keys() == set(broken)
    assert len(tests) == events - len(broken)
    assert max(tests.values()) == 1
    assert len(dead) == len(broken)
    assert max(dead.values()) == 1
    assert summary["ledger"]["imbalance"] == 0
    assert sum(summary["verdicts"].values()) == events - len(broken)


def test_killing_a_replay_loses_and_repeats_nothing(tmp_path: Path) -> None:
    eve = _corpus(tmp_path, EVENTS)
    hits = _run_with_kills(_replay(tmp_path, eve), tmp_path / SUMMARY, KILLS, random.Random(7), [])

    _check(tmp_path / "out", EVENTS)
    assert hits > 0


RULES = """title: Breach
id: 5b8f0f0e-8f0a-4c7e-9f51-0d3c5c2b6a01
level: high
logsource: {product: ringfence, category: boundary}
detection: {a: {ringfence.boundary.verdict: breached}, condition: a}
---
title: Some hosts
id: 5b8f0f0e-8f0a-4c7e-9f51-0d3c5c2b6a02
level: low
logsource: {product: ringfence, category: flow}
detection: {a: {source.ip|endswith: '.7'}, b: {destination.port: 22}, condition: a or b}
"""


def test_killing_a_replay_with_rules_leaves_the_same_detections_byte_by_byte(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yml"
    rules.write_text(RULES)
    eve = _corpus(tmp_path, EVENTS // 2)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    subprocess.run(_replay(whole, eve, "--rules", str(rules)), check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    hits = _run_with_kills(_replay(killed, eve, "--rules", str(rules)), killed / SUMMARY, KILLS, random.Random(11), [])

    expected = (whole / "out" / "detections.jsonl").read_bytes()
    assert hits > 0
    assert expected.count(b"\n") > EVENTS // 4
    assert {json.loads(line)["rule"]["name"] for line in expected.splitlines()[:10_000]} == {"Breach", "Some hosts"}
    assert (killed / "out" / "detections.jsonl").read_bytes() == expected


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.skipif(not BROKER, reason=NEEDS_BROKER)
@pytest.mark.parametrize("turn", range(3 if LONG else 1))
def test_killing_a_replay_over_kafka_with_a_broker_restart_loses_and_repeats_nothing(tmp_path: Path, turn: int) -> None:
    events = EVENTS if LONG else 20_000
    eve = _corpus(tmp_path, events)
    command = _replay(tmp_path, eve, "--bus", f"kafka://{BROKER}")
    restart = [["bash", str(ROOT / "services/kafka.sh"), verb] for verb in ("kill", "start")]
    _run_with_kills(command, tmp_path / SUMMARY, 4, random.Random(turn), restart)

    _check(tmp_path / "out", events)
