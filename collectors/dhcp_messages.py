"""What DHCP servers say about leases: dhcpd of ISC and of OpenBSD, dnsmasq, Kea.

One table, as in `collectors/auth_messages.py`; rows are of class generic. The source is the client: the address that it has,
asks for or is offered, its MAC and the name that it gives itself. The interface is the server's; where a relay's address
stands in its place there is none.

Not supported: DHCPv6, the lines that dnsmasq writes with log-dhcp beside those of messages, Kea's hooks and debug messages.

Samples: DHCPACK on 192.0.2.20 to 52:54:00:12:34:56 (laptop) via vlan20
DHCPACK(eth0) 192.0.2.20 52:54:00:12:34:56 laptop
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collectors.message_forms import Form, Values, end_columns, present, reader
from ringfence.addresses import AddressCache

FIELDS = ("reason", "address", "mac", "name", "server", "interface")

_ADDRESS = r"(?P<address>[0-9.]{7,15})"
_MAC = r"(?P<mac>[0-9a-f:]{11,59})"
_WHO = rf"{_MAC}(?: \((?P<name>[^)]{{1,255}})\))?"
_VIA = r" via (?:(?P<interface>[A-Za-z][^\s:]{0,31})|[0-9.]{7,15}(?:/[!-~]{1,32})?)"
# ISC DHCP server/dhcp.c, OpenBSD usr.sbin/dhcpd/dhcp.c
_DHCPD = (
    Form(rf"DHCPDISCOVER from {_WHO}{_VIA}(?: TransID \S{{1,16}})?(?:: load balance to peer .*)?", "dhcp-discover"),
    Form(rf"DHCPDISCOVER from {_WHO}{_VIA}(?: TransID \S{{1,16}})?: (?P<reason>.*)", "dhcp-discover", "failure"),
    Form(rf"DHCPOFFER on {_ADDRESS} to {_WHO}{_VIA}(?: .*)?", "dhcp-offer"),
    Form(
        rf"DHCPREQUEST for {_ADDRESS}(?: \((?P<server>[0-9.]{{7,15}})\))? from {_WHO}{_VIA}(?: TransID \S{{1,16}})?(?:: load balance to peer .*)?",
        "dhcp-request",
    ),
    Form(
        rf"DHCPREQUEST for {_ADDRESS}(?: \((?P<server>[0-9.]{{7,15}})\))? from {_WHO}{_VIA}(?: TransID \S{{1,16}})?: (?P<reason>.*)",
        "dhcp-request",
        "failure",
    ),
    Form(rf"DHCPACK on {_ADDRESS} to {_WHO}{_VIA}(?: .*)?", "dhcp-ack"),
    Form(rf"DHCPACK to {_ADDRESS} \({_MAC}\){_VIA}", "dhcp-ack"),
    Form(rf"DHCPNAK on {_ADDRESS} to {_WHO}{_VIA}", "dhcp-nak", "failure"),
    Form(rf"DHCPDECLINE (?:of|on) {_ADDRESS} from {_WHO}{_VIA}(?:: (?P<reason>.*))?", "dhcp-decline", "failure"),
    Form(rf"DHCPRELEASE (?:of|on) {_ADDRESS} from {_WHO}{_VIA}(?: \(.{{1,64}}\))?(?: TransID \S{{1,16}})?", "dhcp-release"),
    Form(rf"DHCPINFORM from {_ADDRESS}{_VIA}(?:: (?P<reason>.*))?", "dhcp-inform"),
)
# dnsmasq src/rfc2131.c log_packet
_ON = r"\((?P<interface>[!-~]{1,32})\)"
_SENT = rf"(?: {_ADDRESS})? {_MAC}"
_DNSMASQ = (
    Form(rf"DHCPDISCOVER{_ON}{_SENT} ?", "dhcp-discover"),
    Form(rf"DHCPDISCOVER{_ON}{_SENT} (?P<reason>.{{1,256}})", "dhcp-discover", "failure"),
    Form(rf"DHCPOFFER{_ON}{_SENT} ?", "dhcp-offer"),
    Form(rf"DHCPREQUEST{_ON}{_SENT} ?", "dhcp-request"),
    Form(rf"DHCPACK{_ON}{_SENT}(?: (?P<name>\S{{0,255}}))?", "dhcp-ack"),
    Form(rf"DHCPNAK{_ON}{_SENT} ?(?P<reason>.{{0,256}})", "dhcp-nak", "failure"),
    Form(rf"DHCPDECLINE{_ON}{_SENT} ?(?P<reason>.{{0,256}})", "dhcp-decline", "failure"),
    Form(rf"DHCPRELEASE{_ON}{_SENT} ?(?:.{{0,256}})", "dhcp-release"),
    Form(rf"DHCPINFORM{_ON}{_SENT} ?(?P<name>\S{{0,255}})", "dhcp-inform"),
)
# Kea src/bin/dhcp4/dhcp4_messages.mes; the label of a client is that of Pkt4::makeLabel
_LABEL = rf"\[hwtype=\d{{1,3}} {_MAC}\], cid=\[[^\]]{{0,1024}}\], tid=0x[0-9a-f]{{1,8}}: "
_KEA_HEAD = r"(?:[A-Z]{4,5} {1,2}\[kea-dhcp4\.[^\]]{1,64}\] )?"
_KEA = (
    Form(rf"DHCP4_LEASE_(?:ADVERT|OFFER) {_LABEL}lease {_ADDRESS} will be (?:advertised|offered)", "dhcp-offer"),
    Form(rf"DHCP4_LEASE_(?:ALLOC|REUSE) {_LABEL}lease {_ADDRESS} has been (?:allocated|reused).*", "dhcp-ack"),
    Form(rf"DHCP4_PACKET_NAK_\d{{4}} {_LABEL}(?P<reason>.*)", "dhcp-nak", "failure"),
    Form(rf"DHCP4_RELEASE {_LABEL}address {_ADDRESS} was released properly\.?", "dhcp-release"),
    Form(
        rf"DHCP4_DECLINE_LEASE (?:Received DHCPDECLINE for addr {_ADDRESS} from client {_LABEL[:-2]}\..*)",
        "dhcp-decline",
        "failure",
    ),
)
READERS = {
    "dhcpd": reader(_DHCPD, FIELDS),
    "dnsmasq-dhcp": reader(_DNSMASQ, FIELDS, r"(?:\d{1,10} )?(?=DHCP)"),
    "kea-dhcp4": reader(_KEA, FIELDS, _KEA_HEAD),
}
"""What each program's messages are read with; the values are those of FIELDS after action and outcome."""


def columns(rows: Sequence[Values], addresses: AddressCache) -> dict[str, Any]:
    """The columns of class generic of what messages say."""
    action, outcome, reason, address, mac, name, server, interface = zip(*rows, strict=True)
    none = [None] * len(rows)
    ends = end_columns("source", address, none, addresses)
    if any(server):
        ends |= end_columns("destination", server, none, addresses)
    return (
        ends
        | present({"event.reason": reason, "source.domain": name, "observer.ingress.interface.name": interface})
        | {
            "event.action": action,
            "event.outcome": outcome,
            "source.mac": [text and text.upper().replace(":", "-") for text in mac],
        }
    )
