"""What DHCP servers say about leases: their forms, and what becomes of them."""

from __future__ import annotations

import pytest

from collectors.dhcp_messages import FIELDS, READERS, columns
from ringfence.addresses import AddressCache, parse
from tests.collectors.message_tables import read_any_words, said

SAID: list[tuple[str, str, str, str, dict[str, str]]] = [
    ("dhcpd", "DHCPDISCOVER from 52:54:00:12:34:56 via vlan20", "dhcp-discover", "success", {"mac": "52:54:00:12:34:56", "interface": "vlan20"}),
    ("dhcpd", "DHCPDISCOVER from 52:54:00:12:34:56 (laptop) via 192.0.2.1", "dhcp-discover", "success", {"mac": "52:54:00:12:34:56", "name": "laptop"}),
    ("dhcpd", "DHCPDISCOVER from 52:54:00:12:34:56 via eth0: network 192.0.2.0/24: no free leases", "dhcp-discover", "failure",
     {"mac": "52:54:00:12:34:56", "interface": "eth0", "reason": "network 192.0.2.0/24: no free leases"}),
    ("dhcpd", "DHCPDISCOVER from 52:54:00:12:34:56 via eth0: load balance to peer failover", "dhcp-discover", "success",
     {"mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dhcpd", "DHCPOFFER on 192.0.2.20 to 52:54:00:12:34:56 (laptop) via eth0.20", "dhcp-offer", "success",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "name": "laptop", "interface": "eth0.20"}),
    ("dhcpd", "DHCPREQUEST for 192.0.2.20 (192.0.2.2) from 52:54:00:12:34:56 (laptop) via eth0", "dhcp-request", "success",
     {"address": "192.0.2.20", "server": "192.0.2.2", "mac": "52:54:00:12:34:56", "name": "laptop", "interface": "eth0"}),
    ("dhcpd", "DHCPREQUEST for 192.0.2.20 from 52:54:00:12:34:56 via eth0: wrong network.", "dhcp-request", "failure",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0", "reason": "wrong network."}),
    ("dhcpd", "DHCPACK on 192.0.2.20 to 52:54:00:12:34:56 via eth0", "dhcp-ack", "success", {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dhcpd", "DHCPACK to 192.0.2.20 (52:54:00:12:34:56) via eth0", "dhcp-ack", "success", {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dhcpd", "DHCPNAK on 192.0.2.20 to 52:54:00:12:34:56 via eth0", "dhcp-nak", "failure", {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dhcpd", "DHCPDECLINE of 192.0.2.20 from 52:54:00:12:34:56 via eth0: abandoned", "dhcp-decline", "failure",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0", "reason": "abandoned"}),
    ("dhcpd", "DHCPRELEASE of 192.0.2.20 from 52:54:00:12:34:56 (laptop) via eth0 (found) TransID 1a2b", "dhcp-release", "success",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "name": "laptop", "interface": "eth0"}),
    ("dhcpd", "DHCPINFORM from 192.0.2.20 via eth0", "dhcp-inform", "success", {"address": "192.0.2.20", "interface": "eth0"}),
    ("dnsmasq-dhcp", "DHCPDISCOVER(eth0) 52:54:00:12:34:56 ", "dhcp-discover", "success", {"mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dnsmasq-dhcp", "DHCPDISCOVER(eth0) 52:54:00:12:34:56 no address available", "dhcp-discover", "failure",
     {"mac": "52:54:00:12:34:56", "interface": "eth0", "reason": "no address available"}),
    ("dnsmasq-dhcp", "DHCPOFFER(eth0) 192.0.2.20 52:54:00:12:34:56 ", "dhcp-offer", "success", {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dnsmasq-dhcp", "DHCPREQUEST(eth0) 192.0.2.20 52:54:00:12:34:56 ", "dhcp-request", "success",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("dnsmasq-dhcp", "4077 DHCPACK(eth0) 192.0.2.20 52:54:00:12:34:56 laptop", "dhcp-ack", "success",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "name": "laptop", "interface": "eth0"}),
    ("dnsmasq-dhcp", "DHCPNAK(eth0) 192.0.2.20 52:54:00:12:34:56 wrong address", "dhcp-nak", "failure",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0", "reason": "wrong address"}),
    ("dnsmasq-dhcp", "DHCPRELEASE(eth0) 192.0.2.20 52:54:00:12:34:56 ", "dhcp-release", "success",
     {"address": "192.0.2.20", "mac": "52:54:00:12:34:56", "interface": "eth0"}),
    ("kea-dhcp4", "INFO  [kea-dhcp4.leases.139] DHCP4_LEASE_ALLOC [hwtype=1 08:00:27:72:c6:76], cid=[no info], tid=0xf192aa47: lease 192.0.2.10 has been allocated for 3600 seconds",
     "dhcp-ack", "success", {"address": "192.0.2.10", "mac": "08:00:27:72:c6:76"}),
    ("kea-dhcp4", "INFO  [kea-dhcp4.leases.139] DHCP4_LEASE_ADVERT [hwtype=1 08:00:27:72:c6:76], cid=[01:08:00:27:72:c6:76], tid=0xf192aa47: lease 192.0.2.10 will be advertised",
     "dhcp-offer", "success", {"address": "192.0.2.10", "mac": "08:00:27:72:c6:76"}),
    ("kea-dhcp4", "DHCP4_RELEASE [hwtype=1 08:00:27:72:c6:76], cid=[no info], tid=0x1: address 192.0.2.10 was released properly.", "dhcp-release", "success",
     {"address": "192.0.2.10", "mac": "08:00:27:72:c6:76"}),
    ("kea-dhcp4", "DHCP4_PACKET_NAK_0002 [hwtype=1 08:00:27:72:c6:76], cid=[no info], tid=0x1: invalid address 192.0.2.99 requested by INIT-REBOOT", "dhcp-nak", "failure",
     {"mac": "08:00:27:72:c6:76", "reason": "invalid address 192.0.2.99 requested by INIT-REBOOT"}),
]  # fmt: skip
OTHER = [
    ("dhcpd", "Internet Systems Consortium DHCP Server 4.4.3-P1"),
    ("dhcpd", "already acking lease 192.0.2.20"),
    ("dnsmasq-dhcp", "DHCP, IP range 192.0.2.10 -- 192.0.2.90, lease time 1h"),
    ("kea-dhcp4", "INFO  [kea-dhcp4.dhcp4.1] DHCP4_STARTED Kea DHCPv4 server version 2.2.0 started"),
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


def test_a_lease_becomes_columns_of_its_client() -> None:
    values = READERS["dhcpd"]("DHCPREQUEST for 192.0.2.20 (192.0.2.2) from 52:54:00:12:34:5a (laptop) via eth0")

    assert values is not None
    found = columns([values], AddressCache())
    assert (found["source.ip"][0], found["destination.ip"][0]) == (parse("192.0.2.20"), parse("192.0.2.2"))
    assert (found["source.mac"], list(found["source.domain"])) == (["52-54-00-12-34-5A"], ["laptop"])
