"""The journal: both its forms mean the same, and journalctl itself is followed without loss across restarts."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.command import CommandShell
from collectors.journald import KIND, ExportFramer, JournalExportDecoder, JournalJsonDecoder, cursor_of, read_export
from collectors.tail import TailShell
from ringfence import registry
from ringfence.batch import Decoded, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.feeding import fed
from tests.collectors.journal_entries import AT_US, RECORDED, entry, export, field

SOURCE = Source("journal", 0xFEED)
REMOTE = Path("/lib/systemd/systemd-journal-remote")
needs_journal = pytest.mark.skipif(
    shutil.which("journalctl") is None or not REMOTE.exists(), reason="not installed: apt-get install systemd systemd-journal-remote"
)  # fmt: skip


def line(**fields: Any) -> bytes:
    return (
        json.dumps({"__REALTIME_TIMESTAMP": str(AT_US), "_HOSTNAME": "srv3", **fields}, separators=(",", ":")).encode() + b"\n"
    )


def cut(data: bytes, sizes: Sequence[int] = (), max_bytes: int = 1 << 18) -> list[bytes]:
    """The frames of a stream that comes in pieces of some sizes, then whole."""
    framer, found, at = ExportFramer(max_bytes), [], 0
    for size in [*sizes, len(data)]:
        block, offsets = framer.cut(data[at : at + size])
        found += [block[a:b] for a, b in pairwise(offsets)]
        at += size
    block, _ = framer.finish()
    return [*found, block] if block else found


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    """Rows in the order of the stream, without what depends on the form."""
    found = [{**row, "class": str(kind)} for kind, frame in decoded.rows.items() for row in frame.to_dicts()]
    hidden = {"event.original", "ringfence.event.position"}
    ordered = sorted(found, key=lambda row: int(row["ringfence.event.position"]))
    return [{name: value for name, value in row.items() if value is not None and name not in hidden} for row in ordered]


def from_json(*lines: bytes) -> Decoded:
    return JournalJsonDecoder().feed(frames_of(lines, SOURCE))


def from_export(data: bytes) -> Decoded:
    return JournalExportDecoder().feed(frames_of(cut(data), SOURCE))


def test_a_login_is_the_row_that_syslog_gives() -> None:
    (row,) = rows(from_export(entry(0, RECORDED[0])))

    assert row == {
        "class": "auth", "@timestamp": AT_US - 7, "ringfence.event.source": 0xFEED, "observer.name": "srv3", "host.hostname": "srv3",
        "host.name": "srv3", "process.name": "sshd", "process.pid": 18225, "process.executable": "/usr/sbin/sshd", "service.name": "ssh.service",
        "log.syslog.appname": "sshd", "log.syslog.procid": "18225", "log.syslog.severity.code": 6, "log.syslog.facility.code": 10,
        "message": "Accepted password for ann from 192.0.2.7 port 44666 ssh2", "event.action": "ssh-login", "event.outcome": "success",
        "ringfence.auth.method": "password", "user.name": "ann", "source.ip": frames.v4("192.0.2.7"), "source.port": 44666,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ([110, 233], "n\ufffd"),
        (["first", "second"], "first"),
        ([[110, 111], "second"], "no"),
        ([None, "second"], "second"),
        (None, ""),
        ([], ""),
        (7, "7"),
        ([300], ""),
        ([[[]]], ""),
        ([True], ""),
    ],
)
def test_a_value_of_json_may_have_any_of_its_forms(value: Any, text: str) -> None:
    assert rows(from_json(line(MESSAGE=value)))[0]["message"] == text


def test_numbers_that_cannot_be_are_left_out() -> None:
    (row,) = rows(from_json(line(MESSAGE="x", _PID="-1", PRIORITY="8", SYSLOG_FACILITY="x", SYSLOG_IDENTIFIER="app")))

    assert not row.keys() & {"process.pid", "log.syslog.severity.code", "log.syslog.facility.code"}


def test_an_entry_without_a_time_is_refused() -> None:
    problems = [*from_json(b'{"MESSAGE":"x"}').problems, *from_export(b"MESSAGE=x\n\n").problems]

    assert [(problem.code, problem.path) for problem in problems] == [(ProblemCode.MALFORMED, "$.__REALTIME_TIMESTAMP")] * 2


def test_a_field_that_is_too_long_costs_its_entry_and_no_other() -> None:
    insane = b"MESSAGE\n" + (1 << 50).to_bytes(8, "little") + b"x\n\n"
    long = entry(1, {"MESSAGE": "y" * (1 << 19)})
    decoded = from_export(insane + entry(0, RECORDED[0]) + long + entry(2, RECORDED[1]))

    assert [row["user.name"] for row in rows(decoded)] == ["ann", "admin"]
    assert [problem.code for problem in decoded.problems] == [ProblemCode.MALFORMED, ProblemCode.TOO_LARGE]
    assert decoded.filtered.keys() <= {"too_large_rest"}


FIELDS = st.dictionaries(
    st.sampled_from(["MESSAGE", "_COMM", "SYSLOG_IDENTIFIER", "PRIORITY", "X"]), st.one_of(st.binary(max_size=12), frames.TEXT), max_size=4
)  # fmt: skip
STREAMS = st.lists(
    st.one_of(
        st.binary(max_size=40),
        FIELDS.map(lambda fields: entry(0, fields)),
        st.sampled_from([b"\n", b"MESSAGE\n", b"MESSAGE\n\xff\xff\xff\xff\xff\xff\xff\x7f", entry(0, RECORDED[0])[:-20]]),
    ),
    max_size=5,
).map(b"".join)


@given(STREAMS, st.lists(st.integers(1, 60), max_size=6), st.sampled_from([60, 1 << 18]))
def test_a_stream_is_cut_the_same_however_it_comes_and_no_byte_is_lost(data: bytes, sizes: list[int], max_bytes: int) -> None:
    found = cut(data, sizes, max_bytes)

    assert found == cut(data, (), max_bytes)
    assert b"".join(found) == data


@given(STREAMS)
def test_every_entry_is_accounted_for(data: bytes) -> None:
    parts = cut(data)
    decoded = JournalExportDecoder().feed(frames_of(parts, SOURCE))

    assert decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held == len(parts)
    for problem in decoded.problems:
        assert 0 <= (problem.offset or 0) <= len(problem.raw)


VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 400), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.dictionaries(st.sampled_from(["MESSAGE", "_PID", "SYSLOG_IDENTIFIER", "__REALTIME_TIMESTAMP", "_HOSTNAME"]), VALUE, max_size=4).map(lambda more: line(**more)),
        st.sampled_from([b"", b"\n", b"{}", line(MESSAGE="x")[:-5]]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES, st.integers(1, 4))
def test_lines_are_accounted_for_and_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    assert fed(JournalJsonDecoder(), lines, size) == fed(JournalJsonDecoder(), lines, len(lines) or 1)


@given(st.lists(FIELDS, max_size=4))
def test_what_is_encoded_is_decoded_again_from_both_forms(entries: list[dict[str, str | bytes]]) -> None:
    def as_json(number: int, fields: dict[str, str | bytes]) -> bytes:
        values = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
        return line(**{name: [*value] or "" for name, value in values.items()}, _SOURCE_REALTIME_TIMESTAMP=str(AT_US + number))

    data = export({**fields, "_SOURCE_REALTIME_TIMESTAMP": str(AT_US + number)} for number, fields in enumerate(entries))

    assert rows(from_export(data)) == rows(from_json(*[as_json(number, fields) for number, fields in enumerate(entries)]))


@given(FIELDS)
def test_the_fields_of_an_entry_are_read_back(fields: dict[str, str | bytes]) -> None:
    data = b"".join(field(name, value) for name, value in fields.items())
    wanted = {name.encode(): value.encode() if isinstance(value, str) else value for name, value in fields.items()}

    assert {name: value for name, value, _ in read_export(data + b"\n")} == wanted


def journal_of(folder: Path, data: bytes) -> Path:
    """A real journal with these entries."""
    (folder / "in.export").write_bytes(data)
    subprocess.run([REMOTE, f"--output={folder / 'remote.journal'}", folder / "in.export"], check=True, capture_output=True)
    return folder


@needs_journal
def test_what_journalctl_prints_of_a_real_journal_means_the_same_in_both_forms(tmp_path: Path) -> None:
    folder = journal_of(tmp_path, export())
    said = {
        form: subprocess.run(
            ["journalctl", f"--directory={folder}", f"--output={form}", "--all", "--quiet"], check=True, capture_output=True
        ).stdout
        for form in ("json", "export")
    }

    found = rows(from_json(*said["json"].splitlines(keepends=True)))
    assert found == rows(from_export(said["export"])) == rows(from_export(export()))
    assert len(found) == len(RECORDED)


@needs_journal
@pytest.mark.net
def test_journalctl_is_followed_and_goes_on_after_the_committed_cursor(tmp_path: Path) -> None:
    async def scenario() -> None:
        journal_of(tmp_path, export(RECORDED[:3]))
        settings = KIND.settings.model_validate({"directory": tmp_path, "start": "beginning"})
        shell = KIND.build(settings, BuildContext("journal", EMPTY)).shell
        async with asyncio.timeout(30):
            await shell.open(b"")
            first = await read(shell, 3)
            await shell.close()
            journal_of(tmp_path, b"".join(entry(number, RECORDED[number]) for number in range(3, 6)))
            await shell.open(first[-1])
            assert len(await read(shell, 3)) == 4
            journal_of(tmp_path, entry(6, RECORDED[6]))
            await read(shell, 1)
            await shell.close()

    async def read(shell: Any, count: int) -> list[bytes]:
        """Read so many entries and no more; returns them and the position."""
        found: list[bytes] = []
        while len(found) < count:
            delivery = await shell.read()
            found += delivery.frames.slices()
        assert len(found) == count
        assert cursor_of(found[-1]) == delivery.position
        return [*found, delivery.position]

    asyncio.run(scenario())


def test_a_cursor_that_a_message_quotes_is_none() -> None:
    assert cursor_of(line(MESSAGE='"__CURSOR":"s=1"')) == b""
    assert cursor_of(line(MESSAGE='"__CURSOR":"s=1"', __CURSOR="s=2;i=3")) == b"s=2;i=3"


def test_both_forms_are_recognised_by_their_first_bytes() -> None:
    found = [registry.recognise(data) for data in (line(MESSAGE="x"), export(), b"\n" + export(), b"MESSAGE=x\n")]

    assert [known and known.name for known in found] == ["journald", "journal-export", "journal-export", None]


@pytest.mark.parametrize(
    ("given_settings", "shell", "claimed"),
    [
        ({}, CommandShell, "journal of this host"),
        ({"directory": "/var/log/journal/remote"}, CommandShell, "journal /var/log/journal/remote"),
        ({"path": "/x.json"}, TailShell, "file /x.json"),
        ({"path": "/x.export", "format": "export", "follow": False}, TailShell, "file /x.export"),
    ],
)
def test_the_entry_point_builds_what_reads_the_journal(given_settings: dict[str, Any], shell: type, claimed: str) -> None:
    settings = KIND.settings.model_validate(given_settings)

    assert isinstance(KIND.build(settings, BuildContext("journal", EMPTY)).shell, shell)
    assert list(KIND.resources(settings)) == [claimed]


@pytest.mark.parametrize(
    ("given_settings", "sentence"),
    [({"path": "/x", "directory": "/y"}, "exclude each other"), ({"format": "export"}, "format is for path")],
)
def test_settings_that_contradict_are_refused(given_settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        KIND.settings.model_validate(given_settings)
