"""The page on adding a collector is true: its file works as it stands, from a package outside of this repository."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from ringfence.errors import ExitCode
from tests.cli.command import command

PAGE = Path(__file__).parents[1] / "docs/how-to/add-a-collector.md"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder as pip would leave it: the module of the page, and metadata with the entry point of the page."""
    blocks = dict(re.findall(r"```(python|toml)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    (tmp_path / "doors.py").write_text(blocks["python"])
    metadata = tmp_path / "doors-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: doors\nVersion: 1.0\n")
    group, line = re.findall(r'"(ringfence\.collectors)"\]\n(.*)\n', blocks["toml"])[0]
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{line.replace(chr(34), '')}\n")
    return tmp_path


def _ringfence(package: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment, check=False)


def test_decode_knows_the_new_format(package: Path) -> None:
    log = package / "doors.log"
    log.write_text(
        "2026-11-25T07:44:23Z door7 badge=4711 result=denied\nknock knock\n2026-11-25T07:44:24Z door7 badge=12 result=granted\n"
    )

    done = _ringfence(package, "decode", "doors", log)

    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == ExitCode.FOUND
    assert [document["event"]["outcome"] for document in documents] == ["failure", "success"]
    assert [document["user"]["name"] for document in documents] == ["4711", "12"]
    assert done.stderr.startswith("row 1, byte 0 (stream byte 52): malformed: expected TIME DOOR")


def test_check_knows_the_new_type_and_its_options(package: Path) -> None:
    config = package / "ringfence.yml"
    config.write_text("collectors:\n  entrance: {type: doors, path: doors.log, folow: true}\n")

    done = _ringfence(package, "check", config)

    assert done.returncode == ExitCode.CONFIG
    assert "collectors.entrance.folow: unknown option; did you mean follow?" in done.stderr


def test_its_rows_go_through_the_whole_chain(package: Path) -> None:
    (package / "doors.log").write_text("2026-11-25T07:44:23Z door7 badge=4711 result=denied\n")
    (package / "topology.yml").write_text("segments: {hall: {networks: [10.0.0.0/24]}}\n")

    done = _ringfence(
        package,
        "replay",
        package / "doors.log",
        "--format",
        "doors",
        "--topology",
        package / "topology.yml",
        "--out",
        package / "out",
    )

    assert done.returncode == ExitCode.OK, done.stderr
    assert json.loads((package / "out/events.jsonl").read_text())["observer"]["name"] == "door7"
