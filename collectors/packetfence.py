"""What PacketFence says about access to the network: requests over RADIUS, what they were answered, and FreeRADIUS' logins.

One table, as in `collectors/auth_messages.py`, for the lines of packetfence.log and radius.log, which are syslog; rows are of
class auth. After lib/pf/radius.pm and lib/pf/Switch.pm of PacketFence (10 to 14) and the module linelog of FreeRADIUS. The
device is the source, known by its MAC; the switch or access point that asks for it is the destination. The VLAN or role
that it was given is the reason. A request is of unknown outcome: its answer is another line.

Not supported: lines about security events, nodes and the portal, which are rows of class generic with their text.

Sample: httpd.aaa(7) INFO: [mac:22:22:22:22:22:22] (192.0.2.254) Added VLAN 20 to the returned RADIUS Access-Accept (pf::Switch::...)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collectors.message_forms import Form, Values, end_columns, present, reader
from ringfence.addresses import AddressCache

FIELDS = ("reason", "method", "user", "mac", "switch", "name")

_MAC = r"(?P<mac>[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5})"
_HEAD = rf"(?:httpd\.aaa\(\d{{1,10}}\) [A-Z]{{3,8}}: )?(?:\[mac:{_MAC}\] )?"
_SWITCH = r"(?P<switch>[0-9A-Fa-f:.]{2,45})"
_WHERE = r"(?: \(pf::[!-~]{1,200}\))?"
_PACKETFENCE = (
    Form(
        rf'handling radius autz request: from switch_ip => \({_SWITCH}\), connection_type => (?P<method>[^,]{{0,64}}), ?switch_mac => [^,]{{1,32}}, mac => [^,]{{1,32}}, port => [^,]{{0,64}}, username => "(?P<user>[^"]{{0,256}})"(?:, ssid => .{{0,64}}?)?{_WHERE}',
        "network-access-request",
        "unknown",
    ),
    Form(rf"\({_SWITCH}\) Added (?P<reason>VLAN \S{{1,64}}) to the returned RADIUS Access-Accept{_WHERE}", "network-access"),
    Form(rf"\({_SWITCH}\) Added (?P<reason>role \S{{1,256}}) to the returned RADIUS Access-Accept{_WHERE}", "network-access"),
)
_FROM = rf"\(from client (?P<name>\S{{1,256}}) port \d{{1,10}}(?: cli {_MAC})?(?: via TLS tunnel)?\)"
_NUMBERED = r"(?:\(\d{1,20}\) {1,4})?"
_RADIUS = (
    Form(rf"Login OK: \[(?P<user>[^\]]{{0,256}})\] {_FROM}", "network-login"),
    Form(
        rf"Login incorrect(?: \((?P<reason>.{{0,512}}?)\))?: \[(?P<user>[^\]]{{0,256}})\] {_FROM}", "network-login", "failure"
    ),
)
READERS = {
    **dict.fromkeys(("packetfence_httpd.aaa", "httpd.aaa-docker-wrapper"), reader(_PACKETFENCE, FIELDS, _HEAD)),
    **dict.fromkeys(("auth", "radiusd", "freeradius"), reader(_RADIUS, FIELDS, _NUMBERED)),
}
"""What each program's messages are read with; the values are those of FIELDS after action and outcome."""


def columns(rows: Sequence[Values], addresses: AddressCache) -> dict[str, Any]:
    """The columns of class auth of what messages say."""
    action, outcome, reason, method, user, mac, switch, name = zip(*rows, strict=True)
    return (
        end_columns("destination", switch, [None] * len(rows), addresses)
        | present({"event.reason": reason, "ringfence.auth.method": method, "user.name": user, "destination.domain": name})
        | {
            "event.action": action,
            "event.outcome": outcome,
            "source.mac": [text and text.upper().replace(":", "-") for text in mac],
        }
    )
