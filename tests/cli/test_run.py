"""`ringfence run`: drains on SIGTERM, works as separate processes, and fails with one sentence."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ringfence.errors import ExitCode
from tests.cli.command import command, ringfence
from tests.collectors.encode_pflog import Pflog, file_header, ip4, record, tcp
from tests.eve_lines import flow, topology_file

CONFIG = """
bus: sqlite:bus
topology: topology.yml
batching: {max_delay_ms: 20}
collectors:
  ids: {type: suricata, path: eve.json, follow: true}
sinks:
  files: {type: jsonl, path: out}
"""


def _config(folder: Path, text: str = CONFIG) -> Path:
    topology_file(folder)
    path = folder / "ringfence.yml"
    path.write_text(text)
    return path


@contextmanager
def _running(*arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _wait_for_lines(path: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until a file has so many lines; the process's end ends the wait."""
    for _ in range(600):
        if path.is_file() and path.read_bytes().count(b"\n") >= count:
            return
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError(f"{path} did not reach {count} lines")


def _read_until(text: bytes, process: subprocess.Popen[bytes]) -> bytes:
    """What a process writes to stderr up to this text; its end or a minute of silence ends the wait."""
    assert process.stderr
    said = b""
    while text not in said:
        readable, _, _ = select.select([process.stderr], [], [], 60)
        more = os.read(process.stderr.fileno(), 65_536) if readable else b""
        assert more, f"{text!r} is not in {said!r}"
        said += more
    return said


def test_sigterm_delivers_what_was_taken_and_ends_well(tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "eve.json").write_bytes(b"".join(flow(serial) for serial in range(1000)))
    with _running("run", config) as process:
        _wait_for_lines(tmp_path / "out/events.jsonl", 1, process)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)

    book = json.loads(ringfence("ledger", config, "--json").out)
    assert process.returncode == ExitCode.OK
    assert book["imbalance"] == 0
    assert all(edge["in_flight"] == 0 for edge in book["edges"])
    assert (tmp_path / "out/events.jsonl").read_bytes().count(b"\n") == 1000


def test_the_same_signal_twice_at_once_is_one_wish(tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "eve.json").write_bytes(b"".join(flow(serial) for serial in range(1000)))
    with _running("run", config) as process:
        _wait_for_lines(tmp_path / "out/events.jsonl", 1, process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)

    assert process.returncode == ExitCode.OK
    assert (tmp_path / "out/events.jsonl").read_bytes().count(b"\n") == 1000


def test_stages_work_as_separate_processes_on_the_embedded_bus(tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "eve.json").write_bytes(flow(1) + flow(2, port=22))
    with (
        _running("run", config, "--stage", "sink") as sink,
        _running("run", config, "--stage", "process"),
        _running("run", config, "--stage", "collect"),
    ):
        _wait_for_lines(tmp_path / "out/boundary.jsonl", 2, sink)

    verdicts = [
        json.loads(line)["ringfence"]["boundary"]["verdict"]
        for line in (tmp_path / "out/boundary.jsonl").read_text().splitlines()
    ]
    assert verdicts == ["permitted", "breached"]


def test_a_topology_is_reloaded_live_and_a_faulty_one_is_refused(tmp_path: Path) -> None:
    config = _config(tmp_path)
    eve = tmp_path / "eve.json"
    eve.write_bytes(flow(1, port=22))
    with _running("run", config) as process:
        _wait_for_lines(tmp_path / "out/boundary.jsonl", 1, process)
        (tmp_path / "topology.yml").write_text("segments: {users: {networks: [10.1.0.0/40]}}\n")
        process.send_signal(signal.SIGHUP)
        with eve.open("ab") as file:
            file.write(flow(2, port=22))
        _wait_for_lines(tmp_path / "out/boundary.jsonl", 2, process)
        topology = topology_file(tmp_path)
        topology.write_text(topology.read_text().replace("[https]", "[https, tcp/22]"))
        process.send_signal(signal.SIGHUP)
        for serial in range(3, 100):
            with eve.open("ab") as file:
                file.write(flow(serial, port=22))
            _wait_for_lines(tmp_path / "out/boundary.jsonl", serial, process)
            if b'"permitted"' in (tmp_path / "out/boundary.jsonl").read_bytes():
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)

    verdicts = [
        json.loads(line)["ringfence"]["boundary"]["verdict"]
        for line in (tmp_path / "out/boundary.jsonl").read_text().splitlines()
    ]
    assert verdicts[:2] == ["breached", "breached"]
    assert verdicts[-1] == "permitted"
    assert b"the topology is not reloaded, the last good one stays" in errors
    assert b"topology reloaded: 2 segments and 1 intents" in errors


@pytest.mark.net
def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        config = _config(tmp_path, f'bus: "memory:"\ncollectors:\n  router: {{type: netflow, listen: "127.0.0.1:{port}"}}\n')
        outcome = ringfence("run", config)

    assert outcome.code == ExitCode.IO
    assert outcome.err.splitlines()[-1] == f"ringfence run: udp 127.0.0.1:{port} cannot be bound: Address already in use"
    assert "Traceback" not in outcome.err


@pytest.mark.net
def test_a_busy_metrics_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = _config(tmp_path, f'bus: "memory:"\nsinks:\n  metrics: {{type: prometheus, listen: "127.0.0.1:{port}"}}\n')
        outcome = ringfence("run", config)

    assert outcome.code == ExitCode.IO
    assert f"tcp 127.0.0.1:{port} cannot be bound for /metrics: Address already in use" in outcome.err
    assert "Traceback" not in outcome.err


def test_an_unreadable_input_is_one_sentence(tmp_path: Path) -> None:
    config = _config(tmp_path, CONFIG.replace("follow: true", "follow: false"))
    outcome = ringfence("run", config)

    assert outcome.code == ExitCode.IO
    assert outcome.err.splitlines()[-1] == f"ringfence run: {tmp_path}/eve.json cannot be read: No such file or directory"
    assert "Traceback" not in outcome.err


@pytest.mark.net
def test_an_unreachable_broker_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    outcome = ringfence("run", _config(tmp_path, CONFIG.replace("sqlite:bus", f"kafka://127.0.0.1:{port}")))

    assert outcome.code == ExitCode.IO
    assert outcome.err.splitlines()[-1].startswith(f"ringfence run: Kafka at 127.0.0.1:{port} cannot be used: ")
    assert "Traceback" not in outcome.err


def test_a_bus_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bus").write_text("not a folder")
    (tmp_path / "eve.json").write_bytes(flow(1))
    outcome = ringfence("run", _config(tmp_path))

    assert outcome.code == ExitCode.IO
    assert f"{tmp_path}/bus" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_second_owner_of_a_bus_is_refused(tmp_path: Path) -> None:
    config = _config(tmp_path)
    (tmp_path / "eve.json").write_bytes(flow(1))
    with _running("run", config) as process:
        _wait_for_lines(tmp_path / "out/events.jsonl", 1, process)
        outcome = ringfence("run", config)

    assert outcome.code == ExitCode.IO
    assert str(process.pid) in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file: run the tests as another user")
def test_a_file_without_permission_is_one_sentence(tmp_path: Path) -> None:
    config = _config(tmp_path, CONFIG.replace("follow: true", "follow: false"))
    (tmp_path / "eve.json").touch(mode=0o000)

    outcome = ringfence("run", config)

    assert outcome.code == ExitCode.IO
    assert "cannot be read: Permission denied" in outcome.err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root: run the tests as root")
def test_a_full_disk_holds_neither_the_data_nor_the_end(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        config = _config(tmp_path, CONFIG.replace("path: out", "path: small").replace("follow: true", "follow: false"))
        (tmp_path / "eve.json").write_bytes(b"".join(flow(serial) for serial in range(10_000)))
        with _running("run", config) as process:
            errors = _read_until(b"No space left on device", process)
            process.send_signal(signal.SIGTERM)
            errors += process.communicate(timeout=60)[1]
        subprocess.run(["mount", "-o", "remount,size=60m", small], check=True)
        again = ringfence("run", config)
        lines = (small / "events.jsonl").read_bytes().splitlines()
    finally:
        subprocess.run(["umount", small], check=True)

    serials = {json.loads(line)["ringfence"]["flow"]["id"] for line in lines}
    assert b"cannot be written: No space left on device" in errors
    assert b"stays where it is for the next start" in errors
    assert (process.returncode, again.code) == (ExitCode.OK, ExitCode.OK)
    assert len(lines) == len(serials) == 10_000


def test_a_capture_on_standard_input_is_run_to_its_end(tmp_path: Path) -> None:
    text = CONFIG.replace("ids: {type: suricata, path: eve.json, follow: true}", 'edge: {type: pflog, path: "-"}')
    packet = Pflog().encode() + ip4(bytes([10, 1, 0, 5]), bytes([10, 2, 0, 9]), 6, tcp(40000, 22))

    outcome = ringfence("run", _config(tmp_path, text), stdin=file_header() + record(packet) * 2)

    assert outcome.code == ExitCode.OK, outcome.err
    events = (tmp_path / "out" / "events.jsonl").read_bytes().splitlines()
    assert [json.loads(event)["source"]["port"] for event in events] == [40000, 40000]
