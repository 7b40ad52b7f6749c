"""What routers, firewalls and balancers say when a peer, a tunnel or a host behind them comes or goes.

One table, as in `collectors/auth_messages.py`; rows are of class generic. `ringfence.state.subject` is what changed (an
interface, a virtual router, a session, a host), `.before` and `.after` its states in the program's words; the source is the
peer. The outcome is failure where something was lost, and success otherwise, a change of roles included.

- kernels: CARP and pfsync of OpenBSD and FreeBSD, WireGuard of Linux (dynamic debug) and of the BSDs (debug of the interface);
  on OpenBSD the program is /bsd.
- bgpd of OpenBSD and of FRR (`log-neighbor-changes`), bfdd and vrrpd of FRR, bird (BGP and BFD), keepalived, ifstated.
- relayd: checks of hosts, sessions of relays.

Samples: carp0: state transition: BACKUP -> MASTER
neighbor 192.0.2.1 (transit): state change Established -> Idle, reason: HoldTimer expired
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collectors.message_forms import Form, Values, end_columns, present, reader
from ringfence.addresses import AddressCache

FIELDS = ("reason", "address", "port", "server", "serverport", "subject", "before", "after", "interface")

_IP = r"(?P<address>[0-9A-Fa-f:.]{2,45})(?:%[!-~]{1,16})?"
_ARROW = r"(?P<before>[A-Za-z_]{2,16}) -> (?P<after>[A-Za-z_]{2,16})"
_STAMP = r"(?:<\d{1,3}>)?(?:\[ {0,8}\d{1,10}\.\d{6}\] )?(?=carp|pfsync|wireguard: |wg)"
# OpenBSD sys/netinet/ip_carp.c, FreeBSD sys/netinet/ip_carp.c
_CARP = (
    Form(rf"(?P<subject>(?P<interface>carp\d{{1,5}})): state transition: {_ARROW}", "carp-state"),
    Form(
        rf"carp: (?P<subject>\d{{1,3}}@(?P<interface>[!-~]{{1,32}})): {_ARROW}(?: \((?P<reason>.{{1,256}})\))?",
        "carp-state",
    ),
    Form(
        r"carp: (?P<subject>\S{1,32}) demoted group \S{1,32} by (?P<before>-?\d{1,10}) to (?P<after>-?\d{1,10}) \((?P<reason>.{1,256})\)",
        "carp-demoted",
    ),
    Form(
        r"carp: demoted by (?P<before>-?\d{1,10}) to (?P<after>-?\d{1,10}) \((?P<reason>.{1,256})\)",
        "carp-demoted",
    ),
    Form(r"(?P<subject>pfsync\d{0,5}): (?P<reason>failed to receive bulk update.*)", "pfsync-bulk", "failure"),
)
# Linux drivers/net/wireguard/receive.c, send.c, timers.c, noise.c; OpenBSD sys/net/if_wg.c
_WG = r"(?:wireguard: )?(?P<interface>[A-Za-z][\w.-]{0,15}): "
_ENDPOINT = r"(?: \(\[?(?P<address>[0-9A-Fa-f:.]{2,45}?)(?:%[!-~]{1,16})?\]?:(?P<port>\d{1,5})\)| \(\S{1,64}\))?"
_PEER = r"peer (?P<subject>\d{1,20})"
_WIREGUARD = (
    Form(rf"{_WG}Receiving handshake initiation from {_PEER}{_ENDPOINT}", "wireguard-handshake-received"),
    Form(rf"{_WG}Sending handshake initiation to {_PEER}{_ENDPOINT}", "wireguard-handshake-sent"),
    Form(rf"{_WG}Receiving handshake response from {_PEER}{_ENDPOINT}", "wireguard-handshake-answered"),
    Form(
        rf"{_WG}(?P<reason>Invalid (?:handshake (?:initiation|response)|MAC of handshake, dropping packet)) from \[?(?P<address>[0-9A-Fa-f:.]{{2,45}}?)(?:%[!-~]{{1,16}})?\]?:(?P<port>\d{{1,5}})",
        "wireguard-handshake-refused",
        "failure",
    ),
    Form(
        rf"{_WG}(?P<reason>Invalid (?:handshake (?:initiation|response)|initiation MAC|response MAC))",
        "wireguard-handshake-refused",
        "failure",
    ),
    Form(
        rf"{_WG}Handshake for {_PEER}{_ENDPOINT} (?P<reason>did not complete after .*)",
        "wireguard-handshake-timeout",
        "failure",
    ),
    Form(rf"{_WG}Keypair \d{{1,20}} (?P<after>created) for {_PEER}", "wireguard-keypair"),
    Form(rf"{_WG}Keypair \d{{1,20}} (?P<after>destroyed) for {_PEER}", "wireguard-keypair"),
    Form(
        rf"{_WG}(?P<reason>Packet has unallowed src IP(?: \([0-9A-Fa-f:.]{{2,45}}\))?) from {_PEER}{_ENDPOINT}",
        "wireguard-source-refused",
        "failure",
    ),
)
_KERNEL = (*_CARP, *_WIREGUARD)
# OpenBSD usr.sbin/bgpd/logmsg.c, FRR bgpd/bgp_fsm.c; FRR may put the id of the message first (lib/zlog.c)
_FRR = r"(?:\[[0-9A-Z]{5}-[0-9A-Z]{5}\] ?)?(?:\[EC \d{1,12}\] ?)?"
_BGP_PEER = rf"neighbor {_IP}(?: \((?P<subject>[^)]{{1,256}})\))?"
_BGP = (
    Form(rf"{_BGP_PEER}: state change (?P<before>\w{{2,16}}) -> (?P<after>Established), reason: (?P<reason>.*)", "bgp-state"),
    Form(
        rf"{_BGP_PEER}: state change (?P<before>Established) -> (?P<after>\w{{2,16}}), reason: (?P<reason>.*)",
        "bgp-state",
        "failure",
    ),
    Form(rf"{_BGP_PEER}: state change (?P<before>\w{{2,16}}) -> (?P<after>\w{{2,16}}), reason: (?P<reason>.*)", "bgp-state"),
    Form(rf"{_BGP_PEER}: (?:sending|received) notification: (?P<reason>.*)", "bgp-notification", "failure"),
    Form(
        rf"{_FRR}%ADJCHANGE: neighbor {_IP}(?:\((?P<subject>[^)]{{1,256}})\))?(?: in vrf \S{{1,64}})? (?P<after>Up)",
        "bgp-state",
    ),
    Form(
        rf"{_FRR}%ADJCHANGE: neighbor {_IP}(?:\((?P<subject>[^)]{{1,256}})\))?(?: in vrf \S{{1,64}})? (?P<after>Down)(?: (?P<reason>.*))?",
        "bgp-state",
        "failure",
    ),
)
# FRR bfdd/bfd.c ptm_bfd_sess_up, ptm_bfd_sess_dn, bs_to_string
_BFD_SUBJECT = rf"(?P<subject>[^\]]{{0,64}}?peer:{_IP}[^\]]{{0,256}})"
_BFD = (
    Form(rf"{_FRR}state-change: \[{_BFD_SUBJECT}\] (?P<before>\w{{2,16}}) -> (?P<after>up)", "bfd-state"),
    Form(
        rf"{_FRR}state-change: \[{_BFD_SUBJECT}\] (?P<before>\w{{2,16}}) -> (?P<after>down)(?: reason:(?P<reason>.*))?",
        "bfd-state",
        "failure",
    ),
    Form(rf"{_FRR}state-change: \[{_BFD_SUBJECT}\] (?P<before>\w{{2,16}}) -> (?P<after>\w{{2,16}})(?: .*)?", "bfd-state"),
)
# FRR vrrpd/vrrp.c vrrp_change_state
_VRRPD = (Form(rf"{_FRR}\[CORE\] \[VRID (?P<subject>\d{{1,3}})\] \[\w{{2,8}}\] {_ARROW}", "vrrp-state"),)
# keepalived keepalived/vrrp/vrrp.c, vrrp_notify.c, vrrp_track.c, check/check_bfd.c; before 2.0 `VRRP_Instance(NAME)`
_INSTANCE = r"(?:VRRP_Instance)?\((?P<subject>[^)]{1,256})\)"
_KEEPALIVED = (
    Form(rf"{_INSTANCE} Entering (?P<after>MASTER|BACKUP) STATE(?: \(init\))?", "vrrp-state"),
    Form(rf"{_INSTANCE} Entering (?P<after>FAULT) STATE(?: \(init\))?", "vrrp-state", "failure"),
    Form(r"VRRP_Group\((?P<subject>[^)]{1,256})\) Syncing instances to (?P<after>MASTER|BACKUP) state", "vrrp-state"),
    Form(r"VRRP_Group\((?P<subject>[^)]{1,256})\) Syncing instances to (?P<after>FAULT) state", "vrrp-state", "failure"),
    Form(r"VRRP_Script\((?P<subject>[^)]{1,256})\) (?P<after>succeeded)", "vrrp-check"),
    Form(
        r"VRRP_Script\((?P<subject>[^)]{1,256})\) (?P<after>failed|timed out)(?: \((?P<reason>.{1,256})\))?",
        "vrrp-check",
        "failure",
    ),
)
# BIRD proto/bgp/bgp.c, proto/bfd/bfd.c; needs `debug { states, events }`
_BIRD = (
    Form(r"(?P<subject>[A-Za-z_][\w.]{0,63}): BGP session (?P<after>established)", "bgp-state"),
    Form(r"(?P<subject>[A-Za-z_][\w.]{0,63}): BGP session (?P<after>closed)", "bgp-state", "failure"),
    Form(
        r"(?P<subject>[A-Za-z_][\w.]{0,63}): (?P<reason>Hold timer expired|Connection lost \(.{0,256}\)|Connection closed|BFD session down|Neighbor lost)",
        "bgp-notification",
        "failure",
    ),
    Form(
        rf"(?P<subject>[A-Za-z_][\w.]{{0,63}}): Session to {_IP} changed state from (?P<before>\w{{2,16}}) to (?P<after>Up)",
        "bfd-state",
    ),
    Form(
        rf"(?P<subject>[A-Za-z_][\w.]{{0,63}}): Session to {_IP} changed state from (?P<before>\w{{2,16}}) to (?P<after>\w{{2,16}})",
        "bfd-state",
        "failure",
    ),
)
# OpenBSD usr.sbin/relayd/hce.c hce_notify_done, relay.c relay_close; usr.sbin/ifstated/ifstated.c
_CHECK = r"host (?P<subject>(?P<address>\S{1,256})), check (?P<reason>.{1,64}? \(\d{1,10}ms,[^)]{1,128}\)), state (?P<before>\w{2,16}) -> "
_SESSION = r"relay (?P<subject>\S{1,256}), session \d{1,10} \(\d{1,10} active\), \S{1,64}, (?P<address>[0-9A-Fa-f:.]{2,45}) -> (?P<server>\S{0,256}?):(?P<serverport>\d{1,5}), "
_RELAYD = (
    Form(rf"{_CHECK}(?P<after>up), availability .*", "relay-host-state"),
    Form(rf"{_CHECK}(?P<after>down), availability .*", "relay-host-state", "failure"),
    Form(rf"{_CHECK}(?P<after>\w{{2,16}}), availability .*", "relay-host-state"),
    Form(rf"{_SESSION}(?P<reason>(?:last (?:read|write) \()?done\)?)(?:,.*)?", "relay-session"),
    Form(rf"{_SESSION}(?P<reason>[^,]{{1,256}})(?:,.*)?", "relay-session", "failure"),
)
_IFSTATED = (Form(r"changing state to (?P<after>\S{1,64})", "ifstated-state"),)
READERS = {
    **dict.fromkeys(("kernel", "/bsd"), reader(_KERNEL, FIELDS, _STAMP)),
    "bgpd": reader(_BGP, FIELDS),
    "bfdd": reader(_BFD, FIELDS),
    "vrrpd": reader(_VRRPD, FIELDS),
    **dict.fromkeys(("Keepalived_vrrp", "Keepalived"), reader(_KEEPALIVED, FIELDS)),
    **dict.fromkeys(("bird", "bird6"), reader(_BIRD, FIELDS)),
    "relayd": reader(_RELAYD, FIELDS),
    "ifstated": reader(_IFSTATED, FIELDS),
}
"""What each program's messages are read with; the values are those of FIELDS after action and outcome."""


def columns(rows: Sequence[Values], addresses: AddressCache) -> dict[str, Any]:
    """The columns of class generic of what messages say."""
    action, outcome, reason, address, port, server, server_port, subject, before, after, interface = zip(*rows, strict=True)
    ends: dict[str, Any] = {}
    if any(address):
        ends |= end_columns("source", address, port, addresses)
    if any(server):
        ends |= end_columns("destination", server, server_port, addresses)
    texts = {
        "event.reason": reason,
        "ringfence.state.subject": subject,
        "ringfence.state.before": before,
        "ringfence.state.after": after,
        "observer.ingress.interface.name": interface,
    }
    return ends | present(texts) | {"event.action": action, "event.outcome": outcome}
