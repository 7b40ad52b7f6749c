"""Results of osquery: one line may be many rows, and the table decides what they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.osquery import KIND, OsqueryDecoder
from ringfence import registry
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.feeding import fed

SOURCE = Source("osqueryd.results.log", 0xFEED)
TIME = 1_795_592_663


def result(name: Any = "pack_x_process_events", **more: Any) -> bytes:
    return (
        json.dumps({"name": name, "hostIdentifier": "srv3", "unixTime": TIME, **more}, separators=(",", ":")).encode() + b"\n"
    )


def row(name: str, action: str = "added", **columns: Any) -> bytes:
    return result(name, columns=columns, action=action)


def decode(*lines: bytes, received_us: int = 0) -> Decoded:
    return OsqueryDecoder().feed(frames_of(lines, SOURCE, received_us))


def one(line: bytes, event_class: EventClass) -> dict[str, Any]:
    (found,) = decode(line).rows[event_class].to_dicts()
    return {name: value for name, value in found.items() if value is not None}


def test_an_executed_program_is_a_row_of_class_process() -> None:
    line = row(
        "pack_x_process_events",
        pid="77",
        path="/usr/bin/nc",
        cmdline="nc -l",
        cwd="/tmp",
        parent="1",
        uid="33",
        time=str(TIME - 3),
    )

    assert one(line, EventClass.PROCESS) == {
        "@timestamp": (TIME - 3) * 1_000_000, "ringfence.event.source": 0xFEED, "ringfence.event.position": 0, "event.original": line.rstrip(),
        "observer.name": "srv3", "host.name": "srv3", "event.action": "exec", "process.pid": 77, "process.executable": "/usr/bin/nc",
        "process.name": "nc", "process.command_line": "nc -l", "process.working_directory": "/tmp", "process.parent.pid": 1, "user.id": "33",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "ends", "proves"),
    [("connect", ("10.1.0.5", "10.2.0.9"), None), ("accept", ("10.2.0.9", "10.1.0.5"), "pass"), ("accept4", ("10.2.0.9", "10.1.0.5"), "pass")],
)  # fmt: skip
def test_the_initiator_of_a_connection_is_its_source(action: str, ends: tuple[str, str], proves: str | None) -> None:
    columns = {
        "action": action,
        "local_address": "10.1.0.5",
        "local_port": "1",
        "remote_address": "10.2.0.9",
        "remote_port": "2",
        "protocol": "17",
    }
    found = one(result("socket_events", columns=columns), EventClass.FLOW)

    assert (found["source.ip"], found["destination.ip"]) == (frames.v4(ends[0]), frames.v4(ends[1]))
    assert (found.get("ringfence.firewall.action"), found["network.iana_number"]) == (proves, 17)


def test_what_was_not_accepted_proves_nothing() -> None:
    assert "ringfence.firewall.action" not in one(
        result("socket_events", columns={"action": "accept", "status": "failed"}), EventClass.FLOW
    )


def test_a_bound_socket_is_no_flow() -> None:
    assert list(decode(result("socket_events", columns={"action": "bind", "local_port": "4444"})).rows) == [EventClass.GENERIC]


@pytest.mark.parametrize(("action", "word"), [("added", "session-opened"), ("removed", "session-closed"), ("snapshot", "session-seen")])  # fmt: skip
def test_sessions_open_and_close(action: str, word: str) -> None:
    found = one(row("logged_in_users", action, user="ann", host="fd00::9", tty="pts/0"), EventClass.AUTH)

    assert (found["event.action"], found["user.name"], found["source.ip6"], found["ringfence.auth.terminal"]) == (
        word,
        "ann",
        frames.v6("fd00::9"),
        "pts/0",
    )
    assert one(row("logged_in_users", user="ann", host="console"), EventClass.AUTH)["source.domain"] == "console"


def test_an_audited_login_has_account_and_outcome() -> None:
    found = one(row("user_events", type="1112", message='acct="ann" res=failed', address="10.1.0.9"), EventClass.AUTH)

    assert (found["event.action"], found["event.outcome"], found["user.name"]) == ("login", "failure", "ann")


def test_each_row_of_a_line_has_an_id_of_its_own() -> None:
    lines = [
        result("a", snapshot=[{"x": "1"}, {"x": "2"}]),
        result("b", diffResults={"added": [{"y": "1"}], "removed": [{"y": "2"}], "z": 1}),
    ]
    decoded = decode(*lines)
    found = decoded.rows[EventClass.GENERIC].sort("ringfence.event.position")

    assert decoded.taken == 2
    assert found["ringfence.event.position"].to_list() == [0, 1, len(lines[0]), len(lines[0]) + 1]
    assert found["event.action"].to_list() == ["snapshot", "snapshot", "added", "removed"]
    assert found["message"].to_list() == ['{"x":"1"}', '{"x":"2"}', '{"y":"1"}', '{"y":"2"}']


def test_a_result_without_rows_is_left_out_and_counted() -> None:
    decoded = decode(result("a", snapshot=[]), result("b"))

    assert (decoded.taken, dict(decoded.filtered)) == (0, {"no_rows": 2})


def test_a_query_whose_name_tells_nothing_can_be_given_its_table() -> None:
    decoder = OsqueryDecoder(tables={"who ran what": "process_events", "x": "no such table"})
    decoded = decoder.feed(frames_of([row("who ran what", pid="1"), row("x", pid="1")], SOURCE))

    assert set(decoded.rows) == {EventClass.PROCESS, EventClass.GENERIC}


def test_without_a_time_a_line_is_of_its_arrival_if_that_is_known() -> None:
    line = result(unixTime=None, columns={"pid": "1"})
    (problem,) = decode(line).problems

    assert (problem.code, problem.path) == (ProblemCode.WRONG_TYPE, "$.unixTime")
    assert decode(line, received_us=7).rows[EventClass.PROCESS]["@timestamp"].to_list() == [7]


VALUE = st.one_of(st.none(), st.booleans(), st.integers(-1, 1 << 70), st.text(max_size=4), st.just([]), st.just({}))
TABLE = st.sampled_from(["process_events", "socket_events", "user_events", "logged_in_users", "listening_ports", "other"])
COLUMNS = st.dictionaries(
    st.sampled_from(["pid", "path", "action", "time", "protocol", "host", "local_port", "remote_address", "message", "uid"]),
    st.one_of(VALUE, st.sampled_from(["accept", "connect", "10.0.0.1"])),
    max_size=5,
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(lambda name, columns: result(name, columns=columns, action="added"), TABLE, st.one_of(COLUMNS, VALUE)),
        st.builds(lambda name, rows: result(name, snapshot=rows), TABLE, st.lists(st.one_of(COLUMNS, VALUE), max_size=3)),
        st.builds(lambda name, rows: result(name, diffResults={"added": rows}, unixTime=None), TABLE, st.one_of(VALUE, st.lists(COLUMNS, max_size=3))),
        st.dictionaries(st.sampled_from(["name", "hostIdentifier", "unixTime", "decorations", "columns"]), VALUE, max_size=3).map(lambda more: result(**more)),
        st.sampled_from([b"", b"\n", b"{}", result()[:-9]]),
    ),
    max_size=5,
)  # fmt: skip


@given(LINES, st.integers(1, 4))
def test_lines_are_accounted_for_and_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    assert fed(OsqueryDecoder(), lines, size) == fed(OsqueryDecoder(), lines, len(lines) or 1)


@given(st.integers(0, 1 << 31), frames.TEXT, st.integers(1, 1 << 31))
def test_what_is_encoded_is_decoded_again(pid: int, command: str, time: int) -> None:
    found = one(row("process_events", pid=str(pid), cmdline=command, time=str(time)), EventClass.PROCESS)

    assert (found["process.pid"], found.get("process.command_line"), found["@timestamp"]) == (
        pid,
        command or None,
        time * 1_000_000,
    )


def test_results_are_recognised_by_their_first_bytes() -> None:
    found = [registry.recognise(data) for data in (row("x"), b"\n" + row("x"), b'{"hostIdentifier":5}')]

    assert [entry and entry.name for entry in found] == ["osquery", "osquery", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/results.log", "tables": {"q": "process_events"}})

    assert KIND.build(settings, BuildContext("hosts", EMPTY)).module == "osquery"
    assert list(KIND.resources(settings)) == ["file /logs/results.log"]
