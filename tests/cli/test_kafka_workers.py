"""Two workers share a stage on Kafka: partitions are divided, one worker is killed, nothing is lost or judged twice."""

from __future__ import annotations

import json
import signal
import subprocess
import uuid
from collections import Counter
from pathlib import Path

from ringfence.errors import ExitCode
from tests.bus.broker import ADDRESS, NEEDS_KAFKA
from tests.cli.command import command, ringfence
from tests.eve_lines import flow, topology_file

pytestmark = list(NEEDS_KAFKA)

EVENTS = 6_000


def _config(folder: Path, name: str, prefix: str, instance: str) -> Path:
    path = folder / f"{name}-{instance}.yml"
    path.write_text(
        f"bus: kafka://{ADDRESS}/{prefix}\nbus_options: {{partitions: 4, instance: '{instance}'}}\ntopology: topology.yml\n"
        "batching: {rows: 200}\n"
        "collectors:\n  ids: {type: suricata, path: eve.json, follow: false}\n"
        f"sinks:\n  files: {{type: jsonl, path: out}}\n"
    )
    return path


def _start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(900):
        if path.is_file() and path.read_bytes().count(b"\n") >= count:
            return
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"{path} did not reach {count} lines")


def test_two_workers_judge_every_event_once_though_one_is_killed(tmp_path: Path) -> None:
    topology_file(tmp_path)
    (tmp_path / "eve.json").write_bytes(b"".join(flow(serial, source=f"10.1.{serial % 200}.7") for serial in range(EVENTS)))
    prefix = f"t-{uuid.uuid4().hex[:8]}"
    one, two = (_config(tmp_path, "ringfence", prefix, instance) for instance in ("1", "2"))
    assert ringfence("setup", "bus", one).code == ExitCode.OK
    assert ringfence("run", one, "--stage", "collect").code == ExitCode.OK
    boundary = tmp_path / "out/boundary.jsonl"

    sink = _start("run", one, "--stage", "sink")
    workers = [_start("run", config, "--stage", "process") for config in (one, two)]
    try:
        _wait_for_lines(boundary, 1, sink)
        workers[0].kill()
        workers[0].wait()
        workers[0] = _start("run", one, "--stage", "process")
        _wait_for_lines(boundary, EVENTS, sink)
        for process in (*workers, sink):
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=60) for process in (*workers, sink)]
    finally:
        for process in (*workers, sink):
            process.kill()
            process.wait()

    tests = Counter(json.loads(line)["ringfence"]["evidence"]["ids"][0] for line in boundary.read_text().splitlines())
    assert codes[1:] == [ExitCode.OK] * 2  # the first may still be starting, and be ended by the signal itself
    assert len(tests) == EVENTS
    assert max(tests.values()) == 1


def test_a_missing_topic_is_one_sentence_that_names_the_command(tmp_path: Path) -> None:
    topology_file(tmp_path)
    (tmp_path / "eve.json").write_bytes(flow(1))

    outcome = ringfence("run", _config(tmp_path, "ringfence", f"t-{uuid.uuid4().hex[:8]}", "1"))

    assert outcome.code == ExitCode.IO
    assert "make the topics with the command ringfence setup bus" in outcome.err
    assert "Traceback" not in outcome.err
