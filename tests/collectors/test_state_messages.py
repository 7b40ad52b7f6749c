"""What routers, firewalls and balancers say of peers and tunnels: their forms, and what becomes of them."""

from __future__ import annotations

import pytest

from collectors.state_messages import FIELDS, READERS, columns
from ringfence.addresses import AddressCache, parse
from tests.collectors.message_tables import read_any_words, said

SAID: list[tuple[str, str, str, str, dict[str, str]]] = [
    ("/bsd", "carp0: state transition: BACKUP -> MASTER", "carp-state", "success", {"subject": "carp0", "interface": "carp0", "before": "BACKUP", "after": "MASTER"}),
    ("kernel", "carp: 1@em0: BACKUP -> MASTER (master timed out)", "carp-state", "success",
     {"subject": "1@em0", "interface": "em0", "before": "BACKUP", "after": "MASTER", "reason": "master timed out"}),
    ("kernel", "<6>carp: 1@em0: MASTER -> INIT (hardware interface down)", "carp-state", "success",
     {"subject": "1@em0", "interface": "em0", "before": "MASTER", "after": "INIT", "reason": "hardware interface down"}),
    ("kernel", "carp: demoted by 240 to 240 (pfsync bulk start)", "carp-demoted", "success", {"before": "240", "after": "240", "reason": "pfsync bulk start"}),
    ("/bsd", "carp: pfsync0 demoted group carp by 1 to 1 (pfsync bulk start)", "carp-demoted", "success",
     {"subject": "pfsync0", "before": "1", "after": "1", "reason": "pfsync bulk start"}),
    ("kernel", "[6305964.569633] wireguard: wg0: Receiving handshake initiation from peer 18 (192.0.2.7:61795)", "wireguard-handshake-received", "success",
     {"interface": "wg0", "subject": "18", "address": "192.0.2.7", "port": "61795"}),
    ("kernel", "wireguard: wg0: Sending handshake initiation to peer 18 ([2001:db8::7%0]:51820)", "wireguard-handshake-sent", "success",
     {"interface": "wg0", "subject": "18", "address": "2001:db8::7", "port": "51820"}),
    ("kernel", "wireguard: wg0: Invalid handshake initiation from 192.0.2.7:61795", "wireguard-handshake-refused", "failure",
     {"interface": "wg0", "address": "192.0.2.7", "port": "61795", "reason": "Invalid handshake initiation"}),
    ("kernel", "wireguard: wg0: Invalid MAC of handshake, dropping packet from 192.0.2.7:61795", "wireguard-handshake-refused", "failure",
     {"interface": "wg0", "address": "192.0.2.7", "port": "61795", "reason": "Invalid MAC of handshake, dropping packet"}),
    ("kernel", "wireguard: wg0: Handshake for peer 3 (192.0.2.7:51820) did not complete after 20 attempts, giving up", "wireguard-handshake-timeout", "failure",
     {"interface": "wg0", "subject": "3", "address": "192.0.2.7", "port": "51820", "reason": "did not complete after 20 attempts, giving up"}),
    ("kernel", "[6305964.569893] wireguard: wg0: Keypair 42371 created for peer 18", "wireguard-keypair", "success", {"interface": "wg0", "subject": "18", "after": "created"}),
    ("kernel", "wireguard: wg0: Packet has unallowed src IP (10.66.0.2) from peer 5 (192.0.2.7:51831)", "wireguard-source-refused", "failure",
     {"interface": "wg0", "subject": "5", "address": "192.0.2.7", "port": "51831", "reason": "Packet has unallowed src IP (10.66.0.2)"}),
    ("/bsd", "wg0: Receiving handshake initiation from peer 1", "wireguard-handshake-received", "success", {"interface": "wg0", "subject": "1"}),
    ("/bsd", "wg0: Invalid handshake initiation", "wireguard-handshake-refused", "failure", {"interface": "wg0", "reason": "Invalid handshake initiation"}),
    ("/bsd", "wg0: Packet has unallowed src IP from peer 1", "wireguard-source-refused", "failure",
     {"interface": "wg0", "subject": "1", "reason": "Packet has unallowed src IP"}),
    ("bgpd", "neighbor 192.0.2.1 (transit): state change Established -> Idle, reason: HoldTimer expired", "bgp-state", "failure",
     {"address": "192.0.2.1", "subject": "transit", "before": "Established", "after": "Idle", "reason": "HoldTimer expired"}),
    ("bgpd", "neighbor 2001:db8::1: state change OpenConfirm -> Established, reason: KEEPALIVE message received", "bgp-state", "success",
     {"address": "2001:db8::1", "before": "OpenConfirm", "after": "Established", "reason": "KEEPALIVE message received"}),
    ("bgpd", "neighbor 192.0.2.1 (transit): received notification: Cease, administratively down", "bgp-notification", "failure",
     {"address": "192.0.2.1", "subject": "transit", "reason": "Cease, administratively down"}),
    ("bgpd", "[M59KS-A3ZXZ] %ADJCHANGE: neighbor 192.0.2.1(router2) in vrf default Up", "bgp-state", "success",
     {"address": "192.0.2.1", "subject": "router2", "after": "Up"}),
    ("bgpd", "%ADJCHANGE: neighbor 192.0.2.1 Down BGP Notification received", "bgp-state", "failure",
     {"address": "192.0.2.1", "after": "Down", "reason": "BGP Notification received"}),
    ("bfdd", "[SEY1D-NT8EQ] state-change: [mhop:no peer:192.0.2.1 local:192.0.2.2 vrf:default ifname:eth0] up -> down reason:control-expired", "bfd-state", "failure",
     {"subject": "mhop:no peer:192.0.2.1 local:192.0.2.2 vrf:default ifname:eth0", "address": "192.0.2.1", "before": "up", "after": "down", "reason": "control-expired"}),
    ("bfdd", "state-change: [mhop:no peer:192.0.2.1 local:192.0.2.2 vrf:default ifname:eth0] init -> up", "bfd-state", "success",
     {"subject": "mhop:no peer:192.0.2.1 local:192.0.2.2 vrf:default ifname:eth0", "address": "192.0.2.1", "before": "init", "after": "up"}),
    ("vrrpd", "[CORE] [VRID 5] [IPv4] Backup -> Master", "vrrp-state", "success", {"subject": "5", "before": "Backup", "after": "Master"}),
    ("Keepalived_vrrp", "(VI_1) Entering MASTER STATE", "vrrp-state", "success", {"subject": "VI_1", "after": "MASTER"}),
    ("Keepalived_vrrp", "VRRP_Instance(VI_1) Entering BACKUP STATE", "vrrp-state", "success", {"subject": "VI_1", "after": "BACKUP"}),
    ("Keepalived_vrrp", "(VI_1) Entering FAULT STATE", "vrrp-state", "failure", {"subject": "VI_1", "after": "FAULT"}),
    ("Keepalived_vrrp", "VRRP_Script(chk_haproxy) failed (exited with status 1)", "vrrp-check", "failure",
     {"subject": "chk_haproxy", "after": "failed", "reason": "exited with status 1"}),
    ("Keepalived_vrrp", "VRRP_Script(chk_haproxy) succeeded", "vrrp-check", "success", {"subject": "chk_haproxy", "after": "succeeded"}),
    ("bird", "uplink: BGP session established", "bgp-state", "success", {"subject": "uplink", "after": "established"}),
    ("bird", "uplink: BGP session closed", "bgp-state", "failure", {"subject": "uplink", "after": "closed"}),
    ("bird", "bfd1: Session to 192.0.2.1 changed state from Up to Down", "bfd-state", "failure",
     {"subject": "bfd1", "address": "192.0.2.1", "before": "Up", "after": "Down"}),
    ("relayd", "host 10.0.0.5, check http code use tls (12ms,http code ok), state down -> up, availability 96.55%", "relay-host-state", "success",
     {"subject": "10.0.0.5", "address": "10.0.0.5", "reason": "http code use tls (12ms,http code ok)", "before": "down", "after": "up"}),
    ("relayd", "host web1.example, check tcp (202ms,tcp connect timeout), state up -> down, availability 90.00%", "relay-host-state", "failure",
     {"subject": "web1.example", "address": "web1.example", "reason": "tcp (202ms,tcp connect timeout)", "before": "up", "after": "down"}),
    ("relayd", "relay www, session 7 (1 active), 0, 192.0.2.7 -> 10.0.0.5:8080, done, GET", "relay-session", "success",
     {"subject": "www", "address": "192.0.2.7", "server": "10.0.0.5", "serverport": "8080", "reason": "done"}),
    ("relayd", "relay www, session 8 (1 active), 0, 192.0.2.7 -> :0, session failed", "relay-session", "failure",
     {"subject": "www", "address": "192.0.2.7", "serverport": "0", "reason": "session failed"}),
    ("ifstated", "changing state to primary", "ifstated-state", "success", {"after": "primary"}),
]  # fmt: skip
OTHER = [
    ("kernel", "[456732.736443] nfs: server files OK"),
    ("kernel", "wireguard: WireGuard 1.0.0 loaded. See www.wireguard.com for information."),
    ("/bsd", "em0: link state changed"),
    ("bgpd", "startup"),
    ("bgpd", "rtr 192.0.2.1: state change Idle -> Established, reason: connection open"),
    ("Keepalived_vrrp", "Registering Kernel netlink reflector"),
    ("relayd", "startup"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("program", "message", "action", "outcome", "fields"),
    SAID,
    ids=[f"{program}-{message[:60]}" for program, message, *_ in SAID],
)
def test_a_message_says_what_happened(program: str, message: str, action: str, outcome: str, fields: dict[str, str]) -> None:
    assert said(READERS, FIELDS, program, message) == (action, outcome, fields)


@pytest.mark.parametrize(("program", "message"), OTHER)
def test_what_else_programs_say_is_left_to_others(program: str, message: str) -> None:
    assert said(READERS, FIELDS, program, message) is None


def test_any_words_are_read_or_left() -> None:
    read_any_words(READERS, FIELDS, [message for _, message, *_ in SAID])


def test_a_change_becomes_columns_of_its_subject_and_peer() -> None:
    values = READERS["bgpd"]("neighbor 192.0.2.1 (transit): state change Established -> Idle, reason: HoldTimer expired")

    assert values is not None
    found = columns([values], AddressCache())
    assert found["source.ip"][0] == parse("192.0.2.1")
    assert [found[f"ringfence.state.{part}"][0] for part in ("subject", "before", "after")] == [
        "transit",
        "Established",
        "Idle",
    ]
    assert (found["event.reason"][0], "destination.ip" in found) == ("HoldTimer expired", False)
