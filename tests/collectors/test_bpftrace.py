"""bpftrace: tuples of the programs as rows, its clock, what it lost, and real runs where the kernel allows them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.bpftrace import KIND, BpftraceDecoder, BpftraceShell, Program, program_text
from collectors.command import CommandShell
from ringfence import registry
from ringfence.batch import EventClass, ProblemCode
from ringfence.component import BuildContext
from ringfence.errors import Misconfigured
from ringfence.topology import EMPTY
from tests import frames
from tests.cli.command import command, ringfence
from tests.collectors.json_lines import check_accounts, check_parts, decode, one, rows
from tests.eve_lines import topology_file

PROBES = sorted(path.name for path in files("collectors").joinpath("probes", "linux").iterdir())
PROGRAMS: tuple[Program, ...] = ("process", "tcp", "vxlan", "mpls", "drop")
START_SECS, START_US = 1_795_592_663, 1_795_592_663_000_000


def line(*data: Any) -> bytes:
    return b'{"type": "value", "data": %s}\n' % json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


CLOCK = b'{"type": "value", "data": ["clock",5000000,%d.000005]}\n' % START_SECS
"""5 ms after the boot it was 5 us past the second."""
AT = 5_000_000 + 1_000_000_000


def executed(pid: int = 7, *arguments: str, name: str = "ls", path: str = "/bin/ls") -> list[bytes]:
    text = "".join(f"{argument}\\x00" for argument in arguments)
    parts = [text[start : start + 60] for start in range(0, len(text), 60)]
    told = [line("args", pid, place * 60, part) for place, part in enumerate(parts)]
    return [*told, line("exec", AT, pid, 900, 1000, 100, 3, 300, 4026531833, len(text), name, "sh", path)]


def tcp(what: int, errno: int = 0, local: str = "10.1.0.5", remote: str = "10.2.0.9", port: int = 443) -> bytes:
    ends = (
        ("::ffff:" + local, 40_000, "::ffff:" + remote, port)
        if what in (1, 2, 4)
        else ("::ffff:" + remote, port, "::ffff:" + local, 40_000)
    )
    return line("tcp", AT, what, errno, *ends, 1000, 50, 5, 4, 4026531833, AT - 1_000_000, 7, 900, 1000, "curl")  # fmt: skip


def drop(reason: int, port: int = 22, nanos: int = AT) -> bytes:
    return line("drop", nanos, "eth0", reason, "nft_do_chain", "10.1.0.5", "10.2.0.9", 6, 40_000, port, 2, 4026531833)


def test_an_exec_is_a_process_with_its_parent_and_its_command_line() -> None:
    assert one(BpftraceDecoder("web1"), CLOCK, *executed(7, "ls", "-l", "two words", "\\xc3\\xa9")) == {
        "class": "process", "@timestamp": START_US + 1_000_005, "observer.name": "web1", "event.action": "exec", "process.pid": 7,
        "process.entity_id": "7-900", "process.name": "ls", "process.executable": "/bin/ls", "process.command_line": "ls -l two words é",
        "process.parent.pid": 3, "process.parent.entity_id": "3-300", "process.parent.name": "sh", "user.id": "1000",
        "ringfence.process.network_namespace": 4026531833,
    }  # fmt: skip


def test_a_long_command_line_is_put_together_and_never_mixed_with_that_of_an_earlier_exec() -> None:
    long = "x" * 150
    lost = executed(7, "earlier", "y" * 80)[:-1]
    row = one(BpftraceDecoder(), CLOCK, *lost, *executed(7, "cat", long))

    assert row["process.command_line"] == f"cat {long}"


def test_a_process_in_a_container_has_the_id_of_its_control_group() -> None:
    told = line("cgroup", 7, f"docker-{'ab' * 32}.scope")

    assert one(BpftraceDecoder(), CLOCK, told, *executed())["container.id"] == "ab" * 32


@pytest.mark.parametrize(
    ("status", "code", "name"), [(0, 0, None), (768, 3, None), (9, None, "SIGKILL"), (139, None, "SIGSEGV"), (64, None, "signal 64")]
)  # fmt: skip
def test_an_exit_has_its_code_or_its_signal(status: int, code: int | None, name: str | None) -> None:
    row = one(BpftraceDecoder(), CLOCK, line("exit", AT, 7, 900, 0, 0, status, "ls"))

    assert (row.get("process.exit_code"), row.get("ringfence.process.signal")) == (code, name)
    assert (row["event.action"], row["process.entity_id"]) == ("exit", "7-900")


@pytest.mark.parametrize("what", [1, 3, 4, 5])
def test_who_connects_is_the_source(what: int) -> None:
    row = one(BpftraceDecoder(), CLOCK, tcp(what))

    assert (row["source.ip"], row["source.port"]) == (frames.v4("10.1.0.5"), 40_000)
    assert (row["destination.ip"], row["destination.port"]) == (frames.v4("10.2.0.9"), 443)
    assert row["ringfence.flow.direction"] == ("ingress" if what in (3, 5) else "egress")
    assert row["ringfence.flow.state"] == ("established" if what in (1, 3) else "closed")
    sent = ("destination", "source") if what in (3, 5) else ("source", "destination")
    assert [row[f"{side}.bytes"] for side in sent] == [1000, 50]
    assert row["event.start"] == START_US + 999_005
    assert row.get("event.end") == (START_US + 1_000_005 if what in (4, 5) else None)


@pytest.mark.parametrize(
    ("errno", "reason", "flags"), [(111, "ECONNREFUSED", 0x14), (110, "ETIMEDOUT", 0), (99, "errno 99", 0)]
)
def test_a_connection_that_fails_says_why(errno: int, reason: str, flags: int) -> None:
    row = one(BpftraceDecoder(), CLOCK, tcp(2, errno))

    assert (row["ringfence.flow.state"], row["ringfence.flow.reason"]) == ("failed", reason)
    assert (row["ringfence.tcp.source_flags"], row["ringfence.tcp.destination_flags"]) == (2, flags)


def test_a_vxlan_packet_has_its_vni_and_its_tunnel_endpoints() -> None:
    told = line("vxlan", AT, "eth0", 1010, "198.18.0.1", "198.18.0.2", "10.50.0.1", "fd00::2", 58, 34048, 9, 0, 64, 1)
    row = one(BpftraceDecoder(), CLOCK, told)

    assert (row["ringfence.vxlan.vni"], row["ringfence.vxlan.source.ip"]) == (1010, frames.v4("198.18.0.1"))
    assert (row["source.ip"], row["destination.ip6"]) == (frames.v4("10.50.0.1"), frames.v6("fd00::2"))
    assert (row["ringfence.icmp.type"], row["ringfence.icmp.code"], row.get("source.port")) == (133, 0, None)


@pytest.mark.parametrize(("reason", "action", "flow"), [("NETFILTER_DROP", "block", "drop"), ("NO_SOCKET", "unknown", None)])
def test_a_drop_is_a_block_where_somebody_decided_it(reason: str, action: str, flow: str | None) -> None:
    row = one(BpftraceDecoder(), CLOCK, line("reason", 12, reason), drop(12))

    assert (row["ringfence.flow.reason"], row["ringfence.firewall.action"], row.get("ringfence.flow.action")) == (
        reason,
        action,
        flow,
    )


def test_what_was_lost_is_told_and_marks_the_flows_of_ten_seconds() -> None:
    lost = b'{"type": "lost_events", "data": {"events": 3}}\n'
    found = rows(
        decode(BpftraceDecoder(), CLOCK, drop(12), lost, drop(12, 22, AT + 9_999_999_000), drop(12, 22, AT + 10_000_001_000))
    )

    assert [row.get("ringfence.evidence.lossy", row.get("ringfence.generic.type")) for row in found] == [
        False,
        "lost_events",
        True,
        False,
    ]


def test_without_a_clock_the_time_is_that_of_arrival() -> None:
    found = rows(decode(BpftraceDecoder(), drop(12), CLOCK, drop(12), received_us=77))

    assert [row["@timestamp"] for row in found] == [77, START_US + 1_000_005]


def test_without_a_clock_and_an_arrival_there_is_no_row() -> None:
    (problem,) = decode(BpftraceDecoder(), drop(12)).problems

    assert (problem.code, problem.detail) == (ProblemCode.MALFORMED, "there is no clock before it and its arrival is not known")


def test_a_clock_that_bpftrace_quotes_is_read_too() -> None:
    assert (
        one(BpftraceDecoder(), CLOCK.replace(b"%d.000005" % START_SECS, b'"%d.000005"' % START_SECS), drop(12))["@timestamp"]
        == START_US + 1_000_005
    )


@pytest.mark.parametrize("wall", ["1e999", "-1.5", '"nan"', '"soon"', "99999999999999"])
def test_a_clock_that_tells_no_time_is_refused(wall: str) -> None:
    decoded = decode(BpftraceDecoder(), b'{"type": "value", "data": ["clock",5000000,%s]}\n' % wall.encode())

    assert [problem.row for problem in decoded.problems] == [0]


@pytest.mark.parametrize("stamp", [-1, 2**63, 2**200, 2**63 - 1])
def test_a_stamp_that_gives_no_time_is_refused(stamp: int) -> None:
    late = CLOCK.replace(b"%d" % START_SECS, b"253402300799")
    decoded = decode(BpftraceDecoder(), late, line("exit", stamp, 7, 900, 1000, 3, 0, "ls"))

    assert [problem.row for problem in decoded.problems] == [1]
    assert not decoded.rows


def test_octets_that_bpftrace_extends_are_text_again() -> None:
    told = (
        executed(name="caf\\\\uffffffc3")[0]
        .replace(b'"/bin/ls"', b'"/bin/caf\\uffffffc3\\uffffffa9\\uffffffff"')
        .replace(b"\\\\\\\\", b"\\\\")
    )

    assert one(BpftraceDecoder(), CLOCK, told)["process.executable"] == "/bin/café�"


@pytest.mark.parametrize(
    "other",
    [
        b'{"type": "map", "data": {"@": 1}}',
        b'{"type": "printf", "data": "x"}',
        line("mine", 1).rstrip(),
        b'{"type": "value", "data": 4}',
    ],
)
def test_anything_else_is_a_generic_row_with_its_line(other: bytes) -> None:
    found = rows(decode(BpftraceDecoder(keep_original=False), CLOCK, other, received_us=5))

    assert [(row["class"], row["event.original"]) for row in found] == [("generic", other)]


def test_a_tuple_of_another_shape_is_refused_at_its_place() -> None:
    bad = line("exec", AT, "seven")
    (problem,) = decode(BpftraceDecoder(), CLOCK, bad).problems

    assert (problem.code, problem.path) == (ProblemCode.WRONG_TYPE, "$.data[2]")
    assert problem.raw[problem.offset or 0 :].startswith(b'"seven"')


def test_verdicts_are_judged_end_to_end(tmp_path: Path) -> None:
    log, out = tmp_path / "kernel.json", tmp_path / "out"
    lost = b'{"type": "lost_events", "data": {"events": 3}}\n'
    told = [CLOCK, line("reason", 12, "NETFILTER_DROP"), line("reason", 3, "NO_SOCKET")]
    told += [tcp(1), tcp(3, port=22), tcp(2, 111), drop(12), drop(12, 443), drop(3), lost, drop(12)]
    log.write_bytes(b"".join(told))

    outcome = ringfence("replay", log, "--topology", topology_file(tmp_path), "--out", out)

    assert outcome.code == 0, outcome.err
    tests = [json.loads(text) for text in (out / "boundary.jsonl").read_text().splitlines()]
    verdicts = [test["ringfence"]["boundary"]["verdict"] for test in tests]
    assert verdicts == ["permitted", "breached", "unproven", "held", "overblocked", "unproven"]
    assert {test["ringfence"]["boundary"]["id"] for test in tests} == {"users -> servers"}


NUMBER = st.integers(-1, 2**64)
TUPLES = st.sampled_from(["clock", "reason", "args", "cgroup", "exec", "exit", "tcp", "vxlan", "mpls", "drop", "mine"]).flatmap(
    lambda tag: st.lists(st.one_of(NUMBER, st.text(max_size=4)), max_size=20).map(lambda data: line(tag, *data))
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        TUPLES,
        st.builds(tcp, st.integers(0, 7), st.integers(0, 200), st.sampled_from(["10.1.0.5", "x"]), port=st.integers(-1, 70_000)),
        st.builds(drop, st.sampled_from([3, 12]), NUMBER, NUMBER),
        st.builds(lambda pid, text: b"".join(executed(pid, text)[:1]), st.integers(0, 3), st.text(max_size=9)),
        st.sampled_from([CLOCK, executed()[-1], b"", b"\n", b'{"type": "lost_events", "data": {"events": 3}}', b'{"type": "value"']),
    ),
    max_size=8,
)  # fmt: skip


@given(LINES)
def test_every_line_is_accounted_for_and_every_problem_is_inside_its_line(lines: list[bytes]) -> None:
    check_accounts(decode(BpftraceDecoder(), *lines), lines)


@given(LINES, st.integers(1, 5))
def test_lines_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    check_parts(BpftraceDecoder, lines, size)


@given(st.integers(1, 2**22), st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"], exclude_characters="\\"), min_size=1, max_size=20), max_size=4))  # fmt: skip
def test_what_is_encoded_is_decoded_again(pid: int, arguments: list[str]) -> None:
    row = one(BpftraceDecoder(), CLOCK, *executed(pid, *arguments))

    assert (row["process.pid"], row.get("process.command_line", "")) == (pid, " ".join(arguments))


def test_what_waits_for_its_exec_is_bounded() -> None:
    decoder = BpftraceDecoder()
    decode(decoder, *[line("args", pid, 0, "x") for pid in range(10_000)], *[line("reason", n, "X") for n in range(5_000)])
    (stream,) = decoder._streams.values()

    assert (len(stream.arguments), len(stream.reasons)) == (4096, 1024)


def test_it_is_recognised_by_its_first_bytes() -> None:
    found = [
        registry.recognise(data) for data in (CLOCK, b'\n{"type":"attached_probes","data":{"probes":2}}\n', b'{"type":"x"}')
    ]

    assert [entry and entry.name for entry in found] == ["bpftrace", "bpftrace", None]


def test_the_entry_point_builds_the_collector_and_claims_its_programs() -> None:
    settings = KIND.settings.model_validate({"programs": ["tcp", "drop"]})

    assert KIND.build(settings, BuildContext("kernel", EMPTY)).module == "bpftrace"
    assert list(KIND.resources(settings)) == ["bpftrace program tcp", "bpftrace program drop"]


def test_every_program_can_be_named() -> None:
    assert [f"{name}.bt" for name in sorted(PROGRAMS)] == PROBES


def test_the_program_tells_the_clock_first_and_clears_every_map_at_its_end() -> None:
    text = program_text(("tcp", "drop"), {12: "NETFILTER_DROP"})

    assert text.startswith("BEGIN { $now = nsecs;")
    assert 'print(("reason", (uint64)12, "NETFILTER_DROP"))' in text
    assert "END { clear(@begun); clear(@dropped4); clear(@dropped6); clear(@owner); clear(@taken); }" in text


def test_lost_events_are_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        '{"type": "lost_events", "data": {"events": 3}}\\n{"type":"lost_events","data":{"events":4}}\\n {"type": "lost_events"'
    )
    shell = BpftraceShell("kernel", sys.executable, ("process",))
    monkeypatch.setattr(shell, "_argv", lambda position: [sys.executable, "-c", f"print('''{said}''', flush=True); input()"])

    async def run() -> None:
        await CommandShell.open(shell, b"")
        try:
            assert (await shell.read()).shed == {"lost_events": 7}
        finally:
            await shell.close()

    asyncio.run(run())


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(Misconfigured, match=r"^bpftrace works for root only: run the process of this collector as root$"):
        asyncio.run(BpftraceShell("kernel", "bpftrace", ("process",)).open(b""))


def _why_not() -> str | None:
    """Why bpftrace cannot run here, and what would help."""
    if shutil.which("bpftrace") is None:
        return "bpftrace is not installed: apt-get install bpftrace"
    if os.geteuid() != 0:
        return "bpftrace works for root only: run the tests as root"
    tried = subprocess.run([*_mounted(), "bpftrace", "-e", "BEGIN { exit(); }"], capture_output=True, timeout=60, check=False)
    return (
        f"bpftrace does not run on this kernel: bpftrace -e 'BEGIN {{ exit(); }}' says {tried.stderr[-200:]!r}"
        if tried.returncode
        else None
    )


def _mounted() -> list[str]:
    """Runs a command where tracefs is mounted."""
    if Path("/sys/kernel/tracing/events").is_dir() or Path("/sys/kernel/debug/tracing/events").is_dir():
        return []
    return ["unshare", "-m", "sh", "-c", 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"', "sh"]


@pytest.fixture(scope="module")
def kernel() -> None:
    if reason := _why_not():
        pytest.skip(reason)


@contextmanager
def running(folder: Path, *programs: Program, **options: Any) -> Iterator[Path]:
    """ringfence with the collector, and where its events go; ended by SIGTERM."""
    out, config = folder / "out", folder / "ringfence.yml"
    config.write_text(
        json.dumps({
            "bus": "memory:", "topology": str(topology_file(folder)),
            "collectors": {"kernel": {"type": "bpftrace", "programs": programs, "observer": "web1", **options}},
            "sinks": {"files": {"type": "jsonl", "path": str(out)}},
        })
    )  # fmt: skip
    with subprocess.Popen([*_mounted(), *command("run", config)], stderr=subprocess.PIPE) as process:
        try:
            yield out
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said.decode()


def documents(out: Path, event_class: EventClass) -> list[dict[str, Any]]:
    """What was delivered of a class so far."""
    path = out / "events.jsonl"
    text = path.read_bytes() if path.is_file() else b""
    found = [json.loads(record) for record in text[: text.rfind(b"\n") + 1].splitlines()]
    return [document for document in found if document["ringfence"]["class"] == event_class]


def until(out: Path, event_class: EventClass, wanted: Any) -> list[dict[str, Any]]:
    """The documents of a class, as soon as the wanted ones are among them."""
    for _ in range(600):
        found = documents(out, event_class)
        if kept := wanted(found):
            return list(kept)
        time.sleep(0.05)
    pytest.fail(f"not seen in 30 s; {len(found)} documents of class {event_class} came")


@pytest.mark.usefixtures("kernel")
def test_the_kernel_tells_of_processes_and_connections(tmp_path: Path) -> None:
    mark = f"ringfence-{os.getpid()}"

    def starts(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [row for row in found if mark in row["process"].get("command_line", "")]

    with running(tmp_path, "process", "tcp") as out, socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(300):  # until bpftrace has attached its probes
            if documents(out, EventClass.PROCESS):
                break
            subprocess.run(["/bin/true"], check=True)
            time.sleep(0.1)
        before_us = time.time_ns() // 1000
        subprocess.run(["/bin/sh", "-c", "exit 3", mark], check=False)
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        client.sendall(b"x" * 1000)
        accepted.recv(1000)
        client.close()
        accepted.close()
        port = server.getsockname()[1]
        (start, *_) = until(out, EventClass.PROCESS, starts)
        entity = start["process"]["entity_id"]
        of_it = [
            EventClass.PROCESS,
            lambda found: [row for row in found if row["process"]["entity_id"] == entity and "exit_code" in row["process"]],
        ]
        (end, *_) = until(out, *of_it)  # type: ignore[arg-type]
        flows = until(
            out,
            EventClass.FLOW,
            lambda found: len(ours := [row for row in found if row["destination"]["port"] == port]) >= 4 and ours,
        )

    assert (start["process"]["executable"], start["process"]["parent"]["pid"]) == ("/bin/sh", os.getpid())
    assert start["process"]["command_line"] == f"/bin/sh -c exit 3 {mark}"
    assert (end["process"]["exit_code"], end["process"]["pid"]) == (3, start["process"]["pid"])
    seen = {(row["ringfence"]["flow"]["direction"], row["ringfence"]["flow"]["state"]) for row in flows}
    assert seen == {(direction, state) for direction in ("egress", "ingress") for state in ("established", "closed")}
    ours = [row for row in flows if row["ringfence"]["flow"]["direction"] == "egress"]
    assert {row["process"]["pid"] for row in ours} == {os.getpid()}
    assert max(row["source"]["bytes"] for row in flows) >= 1000
    arrived_us = [_micros(row["event"]["created"]) for row in (start, end)]
    assert before_us <= _micros(start["@timestamp"]) <= arrived_us[0]


def _micros(text: str) -> int:
    return round(time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone) * 1_000_000 + int(text[20:26])


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_kernel_takes_every_program(name: Program) -> None:
    if name == "drop" and tuple(map(int, os.uname().release.split(".")[:2])) < (5, 17):
        pytest.skip("this kernel gives no reasons of drops: Linux 5.17 or newer is needed")
    text = program_text((name,), {}).replace("BEGIN {", "BEGIN { exit();", 1)
    environment = {**os.environ, "BPFTRACE_STRLEN": "120", "BPFTRACE_MAX_STRLEN": "120"}
    done = subprocess.run(
        [*_mounted(), "bpftrace", "-f", "json", "-e", text], capture_output=True, timeout=60, check=False, env=environment
    )

    assert done.returncode == 0, done.stderr.decode()
    assert b'"attached_probes"' in done.stdout


def test_ringfence_ends_with_78_when_bpftrace_is_missing(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not Path("/sys").is_dir():
        pytest.skip("without root another sentence comes first: run the tests as root")
    config = tmp_path / "ringfence.yml"
    config.write_text(
        '{"bus": "memory:", "collectors": {"k": {"type": "bpftrace", "bpftrace": "/no/such"}}, "sinks": {"t": {"type": "terminal"}}}'
    )
    done = subprocess.run([*_mounted(), *command("run", config)], capture_output=True, timeout=60, check=False)

    assert done.returncode == 78
    assert b"/no/such was not found: install it, or set its path in the configuration" in done.stderr
