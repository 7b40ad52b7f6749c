"""`ringfence decode` prints one document a line in the order of the file, and every problem with its place."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ringfence.errors import ExitCode
from tests.cli.command import command, ringfence
from tests.eve_lines import flow


def test_documents_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    dns = b'{"timestamp":"2026-11-25T07:44:23.000000+0000","event_type":"dns","src_ip":"10.1.0.5","dest_ip":"10.2.0.9","dns":{"rrname":"a.b"}}\n'
    path = tmp_path / "eve.json"
    path.write_bytes(flow(1) + dns + flow(2) + dns + flow(3))

    outcome = ringfence("decode", "eve", path)

    classes = [json.loads(line)["ringfence"]["class"] for line in outcome.out.splitlines()]
    assert outcome.code == ExitCode.OK
    assert classes == ["flow", "dns", "flow", "dns", "flow"]


def test_problems_go_to_stderr_with_row_byte_and_reason() -> None:
    outcome = ringfence("decode", "eve", "-", stdin=flow(1) + b'{"event_type":"flow", "timestamp": 5}\n' + flow(2))

    assert outcome.code == ExitCode.FOUND
    assert len(outcome.out.splitlines()) == 2
    at = len(flow(1)) + 35
    assert outcome.err == f"row 1, byte 35 (stream byte {at}), $.timestamp: wrong_type: Expected `str | null`, got `int`\n"


def test_an_unreadable_file_is_one_sentence(tmp_path: Path) -> None:
    outcome = ringfence("decode", "eve", tmp_path / "absent.json")

    assert outcome.code == ExitCode.IO
    assert outcome.err == f"ringfence decode: {tmp_path}/absent.json cannot be read: No such file or directory\n"


def test_an_unknown_format_names_those_that_are_known(tmp_path: Path) -> None:
    outcome = ringfence("decode", "netflow-v4", tmp_path)

    assert outcome.code == ExitCode.USAGE
    assert "netflow-v5" in outcome.err


def test_control_characters_of_the_input_do_not_reach_the_terminal() -> None:
    outcome = ringfence("decode", "eve", "-", stdin=b"\x1b]0;owned\x07{\n")

    assert "\x1b" not in outcome.err


def test_a_reader_that_leaves_is_no_error_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "eve.json"
    path.write_bytes(b"".join(flow(serial) for serial in range(20_000)))
    with subprocess.Popen(command("decode", "eve", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()

    assert errors == b""
