"""Alerts of Wazuh: rule, agent, what the decoders found, and Windows events as Winlogbeat's are read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.wazuh import KIND, WazuhDecoder
from collectors.windows import AUDIT, SYSMON
from ringfence import registry
from ringfence.batch import Decoded, EventClass, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import EMPTY
from tests import frames
from tests.collectors.feeding import fed

SOURCE = Source("alerts.json", 0xFEED)
TIME, TIME_US = "2026-11-25T07:44:23.123+0000", 1_795_592_663_123_000


def alert(level: Any = 5, **more: Any) -> bytes:
    rule = {"level": level, "description": "sshd: failed", "id": "5710", "groups": ["syslog", "sshd"]}
    own = {"timestamp": TIME, "rule": rule, "agent": {"id": "001", "name": "srv3"}, "manager": {"name": "wazuh"}}
    return json.dumps({**own, **more}, separators=(",", ":")).encode() + b"\n"


def windows(provider: str, event_id: Any, **data: Any) -> bytes:
    return alert(data={"win": {"system": {"providerName": provider, "eventID": event_id}, "eventdata": data}})


def decode(*lines: bytes) -> Decoded:
    return WazuhDecoder().feed(frames_of(lines, SOURCE))


def one(data: bytes) -> dict[str, Any]:
    (row,) = decode(data).rows[EventClass.ALERT].to_dicts()
    return {name: value for name, value in row.items() if value is not None}


def test_an_alert_is_its_rule_its_agent_and_what_was_found() -> None:
    line = alert(
        data={
            "srcip": "10.1.0.5",
            "srcport": "40000",
            "dstip": "10.2.0.9",
            "dstport": "22",
            "protocol": "TCP",
            "dstuser": "ann",
        }
    )

    assert one(line) == {
        "@timestamp": TIME_US, "ringfence.event.source": 0xFEED, "ringfence.event.position": 0, "event.original": line.rstrip(),
        "observer.name": "wazuh", "host.name": "srv3", "rule.id": "5710", "rule.name": "sshd: failed", "rule.category": "syslog, sshd",
        "event.severity": 21, "source.ip": frames.v4("10.1.0.5"), "source.port": 40000, "destination.ip": frames.v4("10.2.0.9"),
        "destination.port": 22, "network.iana_number": 6, "user.name": "ann",
    }  # fmt: skip


@pytest.mark.parametrize(("level", "severity"), [(0, 21), (6, 21), (7, 47), (11, 47), (12, 73), (14, 73), (15, 99), (16, 99), (-1, None)])  # fmt: skip
def test_the_severity_is_by_the_bands_of_the_dashboard(level: int, severity: int | None) -> None:
    assert one(alert(level)).get("event.severity") == severity


def test_who_acts_comes_before_whom_it_is_done_to() -> None:
    assert one(alert(data={"srcuser": "ann", "dstuser": "root"}))["user.name"] == "ann"


def test_a_windows_event_is_read_as_that_of_winlogbeat_is() -> None:
    row = one(windows(SYSMON, "1", image="C:\\\\a\\\\b.exe", user="EXAMPLE\\\\ann", processId="12", hashes="MD5=AA"))

    wanted = {
        "process.executable": "C:\\a\\b.exe",
        "process.name": "b.exe",
        "user.name": "ann",
        "process.pid": 12,
        "process.hash.md5": "aa",
    }
    assert {name: row[name] for name in wanted} == wanted
    assert json.loads(row["winlog.event_data"])["Image"] == "C:\\a\\b.exe"


def test_several_kinds_of_events_do_not_mix() -> None:
    lines = [
        windows(AUDIT, "4625", targetUserName="bob"),
        alert(),
        windows(SYSMON, "5", image="x.exe"),
        windows("other", 7, a="b"),
    ]
    found = decode(*lines).rows[EventClass.ALERT]

    assert found["user.name"].to_list() == ["bob", None, None, None]
    assert found["process.name"].to_list() == [None, None, "x.exe", None]
    assert found["event.code"].to_list() == ["4625", None, "5", "7"]


def test_an_alert_without_a_time_is_refused_with_its_place() -> None:
    (problem,) = decode(alert(timestamp="soon")).problems

    assert (problem.code, problem.path) == (ProblemCode.WRONG_TYPE, "$.timestamp")
    assert problem.raw[problem.offset or 0 :].startswith(b'"soon"')


VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 1 << 70), st.text(max_size=4), st.just({}), st.just([]), st.just(["x"])
)
LINES = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.dictionaries(st.sampled_from(["timestamp", "rule", "agent", "data", "syscheck", "manager"]), VALUE, max_size=3).map(lambda more: alert(**more)),
        st.builds(lambda level, data: alert(level, data=data), VALUE, st.dictionaries(st.sampled_from(["srcip", "srcport", "protocol", "win", "srcuser"]), VALUE)),
        st.builds(windows, st.sampled_from([AUDIT, SYSMON]), st.sampled_from(["4625", 1, "3"]), image=VALUE, ipAddress=VALUE),
        st.sampled_from([b"", b"\n", b"{}", alert()[:-9]]),
    ),
    max_size=6,
)  # fmt: skip


@given(LINES, st.integers(1, 5))
def test_lines_are_accounted_for_and_mean_the_same_however_they_are_fed(lines: list[bytes], size: int) -> None:
    assert fed(WazuhDecoder(), lines, size) == fed(WazuhDecoder(), lines, len(lines) or 1)


@given(frames.TEXT, st.ip_addresses(v=4), st.integers(0, 65_535), st.integers(0, 16))
def test_what_is_encoded_is_decoded_again(user: str, address: Any, port: int, level: int) -> None:
    row = one(alert(level, data={"srcuser": user, "srcip": str(address), "srcport": str(port)}))

    assert (row["user.name"], row["source.ip"], row["source.port"]) == (user, int(address), port)


def test_alerts_are_recognised_by_their_first_bytes() -> None:
    found = [registry.recognise(data) for data in (alert(), b"\n" + alert(), b'{"timestamp":5}')]

    assert [entry and entry.name for entry in found] == ["wazuh", "wazuh", None]


def test_the_entry_point_builds_the_collector_and_claims_its_file() -> None:
    settings = KIND.settings.model_validate({"path": "/logs/alerts.json"})

    assert KIND.build(settings, BuildContext("wazuh", EMPTY)).module == "wazuh"
    assert list(KIND.resources(settings)) == ["file /logs/alerts.json"]
