"""Messages of PacketFence and its FreeRADIUS: which device asked, by whom, and what it got."""

from __future__ import annotations

import pytest

from collectors.packetfence import FIELDS, READERS
from collectors.syslog import SyslogDecoder
from ringfence.batch import EventClass, Source, frames_of
from tests import frames
from tests.collectors import message_tables

WRAPPER, MAC = "httpd.aaa-docker-wrapper", "22:22:22:22:22:0a"
REQUEST = f'httpd.aaa(7) INFO: [mac:{MAC}] handling radius autz request: from switch_ip => (192.0.2.254), connection_type => Ethernet-NoEAP,switch_mac => (11:00:11:00:11:00), mac => [{MAC}], port => 1, username => "ann" (pf::radius::authorize)'
VLAN = f"httpd.aaa(20139) INFO: [mac:{MAC}] (192.0.2.254) Added VLAN 20 to the returned RADIUS Access-Accept (pf::Switch::returnRadiusAccessAccept)"
SAID: list[tuple[str, str, tuple[str, str, dict[str, str]]]] = [
    (WRAPPER, REQUEST, ("network-access-request", "unknown", {"method": "Ethernet-NoEAP", "user": "ann", "mac": MAC, "switch": "192.0.2.254"})),
    (WRAPPER, REQUEST.replace(' (pf', ', ssid => Staff (pf'), ("network-access-request", "unknown", {"method": "Ethernet-NoEAP", "user": "ann", "mac": MAC, "switch": "192.0.2.254"})),
    ("packetfence_httpd.aaa", VLAN, ("network-access", "success", {"reason": "VLAN 20", "mac": MAC, "switch": "192.0.2.254"})),
    (WRAPPER, VLAN.replace("VLAN 20", "role guests"), ("network-access", "success", {"reason": "role guests", "mac": MAC, "switch": "192.0.2.254"})),
    ("auth", f"(12)   Login OK: [EXAMPLE\\ann] (from client SW-Access-01 port 65551 cli {MAC} via TLS tunnel)", ("network-login", "success", {"user": "EXAMPLE\\ann", "mac": MAC, "name": "SW-Access-01"})),
    ("radiusd", f"Login incorrect (mschap: Program returned code (5) and output ''): [bob] (from client ap port 0 cli {MAC})", ("network-login", "failure", {"reason": "mschap: Program returned code (5) and output ''", "user": "bob", "mac": MAC, "name": "ap"})),
]  # fmt: skip


@pytest.mark.parametrize(("program", "message", "meaning"), SAID)
def test_each_form_says_what_it_means(program: str, message: str, meaning: tuple[str, str, dict[str, str]]) -> None:
    assert message_tables.said(READERS, FIELDS, program, message) == meaning


@pytest.mark.parametrize(
    "message", ["", "httpd.aaa(7) INFO: Instantiate profile default", "Login OK: []", VLAN.replace("VLAN 20", "VLAN")]
)
def test_other_messages_are_left(message: str) -> None:
    assert all(message_tables.said(READERS, FIELDS, program, message) is None for program in READERS)


def test_a_long_message_takes_no_longer_than_its_length() -> None:
    assert message_tables.said(READERS, FIELDS, "auth", "Login incorrect (" + "(a): [" * 20_000) is None


def test_a_line_of_the_log_is_a_row_of_class_auth() -> None:
    line = f"2026-11-25T07:44:23.123456+00:00 packetfence {WRAPPER}[3695]: {VLAN}\n".encode()
    (row,) = SyslogDecoder().feed(frames_of([line], Source("packetfence.log", 1))).rows[EventClass.AUTH].to_dicts()

    wanted = {
        "event.action": "network-access",
        "event.outcome": "success",
        "source.mac": "22-22-22-22-22-0A",
        "destination.ip": frames.v4("192.0.2.254"),
        "event.reason": "VLAN 20",
    }
    assert {name: row[name] for name in wanted} == wanted
