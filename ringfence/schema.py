"""The one versioned column table: every name that a row may carry, its type, its meaning, and where it comes from.

polars schemas, the msgspec Structs of the JSON decoders (`ringfence/projection.py`), the ECS documents
(`ringfence/documents.py`) and docs/reference/fields.md are generated from it. Names are ECS 9 names; ours are under
`ringfence.*` and `source|destination.segment.*`.

Compatibility: the minor version rises when a column is added, and a reader takes blocks of any minor version of its
major: columns that it does not know are ignored, columns that the writer did not know are absent. A column is never
renamed, retyped or removed within a major version; the major version is part of every topic name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from ringfence.batch import EventClass

MAJOR = 1
MINOR = 3
VERSION = f"{MAJOR}.{MINOR}"

Render = Literal["plain", "time", "ipv4", "ipv6", "bytes", "event_id", "hidden", "code", "list"]
"""How a column becomes JSON: as it is, as RFC 3339 time, as address text, as escaped text, as words between commas; hidden ones are not shown.

`event_id` is the upper half of a 128-bit id whose lower half is the column of the same name ending in `position`.
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One row of the table. `since` is the schema version that brought it; `eve` its path in Suricata EVE JSON.

    `zeek` names its fields in Zeek logs: `FIELD` in any log, `LOG: FIELD` in that one, more entries after a semicolon. A
    log's own entry replaces the general one; of several fields with commas between them the first that is set counts.

    `joined` names the classes that got it later, each with the version that did so.
    """

    name: str
    dtype: pl.DataType
    classes: frozenset[EventClass]
    meaning: str
    since: str = "1.0"
    eve: str | None = None
    render: Render = "plain"
    zeek: str | None = None
    joined: tuple[tuple[EventClass, str], ...] = ()


_PF, _FLOW, _DNS, _HTTP, _TLS, _SSH = (
    EventClass.PF,
    EventClass.FLOW,
    EventClass.DNS,
    EventClass.HTTP,
    EventClass.TLS,
    EventClass.SSH,
)
_ALERT, _AUTH, _PROCESS, _FILE, _GENERIC = (
    EventClass.ALERT,
    EventClass.AUTH,
    EventClass.PROCESS,
    EventClass.FILE,
    EventClass.GENERIC,
)
_BOUNDARY, _DETECTION, _DETECTOR = EventClass.BOUNDARY, EventClass.DETECTION, EventClass.DETECTOR
_ALARM, _DEAD = EventClass.ALARM, EventClass.DEAD
_FOUND = frozenset({_DETECTION, _DETECTOR, _ALARM})

_EVERY = frozenset(EventClass)
_EVENTS = _EVERY - {_BOUNDARY, _DETECTION, _DETECTOR, _ALARM, _DEAD}
_WIRE = frozenset({_PF, _FLOW, _DNS, _HTTP, _TLS, _SSH, _ALERT, _FILE})
_EVE = frozenset({_FLOW, _DNS, _HTTP, _TLS, _SSH, _ALERT, _FILE})
_ADDRESSED = _WIRE | {_AUTH, _GENERIC, _BOUNDARY} | _FOUND
_COUNTED = frozenset({_FLOW, _ALERT})
_HOST = frozenset({_AUTH, _PROCESS, _GENERIC, _DNS})
_SAID = frozenset({_AUTH, _DNS, _GENERIC})
_DNS_LATER = ((_DNS, "1.3"),)
_BOTH_LATER = ((_DNS, "1.3"), (_GENERIC, "1.3"))
_WATCHED = frozenset({_FLOW, _DNS, _ALERT, _FILE})
"""Beside `process`, what a sensor inside a host reports: it knows the process that did it."""
_WATCHED_13 = tuple((event_class, "1.3") for event_class in (_FLOW, _DNS, _ALERT, _FILE))
_ENDPOINT = _HOST | _WATCHED
_TEXT = pl.String()
_INT = pl.Int64()
_PORT = pl.Int32()
_U32 = pl.UInt32()
_U64 = pl.UInt64()
_U8 = pl.UInt8()
_RAW = pl.Binary()
_BOOL = pl.Boolean()


def _only(*classes: EventClass) -> frozenset[EventClass]:
    return frozenset(classes)


def _nat(side: str, title: str) -> tuple[tuple[str, pl.DataType, str, Render], ...]:
    return (
        ("ip", _U32, f"{title} address after rewriting.", "ipv4"),
        ("ip6", _RAW, f"IPv6 {side} address after rewriting; shown as {side}.nat.ip.", "ipv6"),
        ("port", _PORT, f"{title} port after rewriting.", "plain"),
    )


def _tunnel(side: str) -> tuple[tuple[str, pl.DataType, str, Render], ...]:
    return (
        ("ip", _U32, f"{side.capitalize()} address of the VXLAN packet: a tunnel endpoint.", "ipv4"),
        ("ip6", _RAW, f"The same of IPv6; shown as ringfence.vxlan.{side}.ip.", "ipv6"),
    )


def _of_alerts() -> tuple[tuple[str, pl.DataType, str, Render], ...]:
    return (
        ("id", _TEXT, "Id of the alert, the same in each of its records.", "plain"),
        ("kind", _TEXT, "What made it: rule, risk or kill-chain.", "plain"),
        ("status", _TEXT, "new, or updated: this record replaces the one before it.", "plain"),
        ("level", _TEXT, "informational, low, medium, high or critical.", "plain"),
        ("count", _INT, "How many detections it stands for.", "plain"),
        ("evidence", _TEXT, "Event ids of the first of these.", "list"),
        ("modules", _TEXT, "Kinds of sensors that saw it.", "list"),
        ("corroborated", _BOOL, "Whether two kinds of sensors saw it, which raises the level by one.", "plain"),
        ("response", _TEXT, "What is recommended: alert, approve-quarantine or auto-quarantine.", "plain"),
        ("risk", _INT, "What it adds to the risk of its host; of kind risk their sum.", "plain"),
    )


COLUMNS: tuple[Column, ...] = (
    # every row
    Column(
        "@timestamp",
        _INT,
        _EVERY,
        "When it happened, by the source's clock; microseconds since the epoch, UTC.",
        eve="timestamp",
        render="time",
        zeek="ts",
    ),
    Column(
        "event.created",
        _INT,
        _EVENTS | {_DEAD},
        "When the collector received it; absent for files that are read once.",
        render="time",
    ),
    Column(
        "ringfence.event.source", _U64, _EVERY, "Upper half of event.id: the stream that the row came from.", render="event_id"
    ),
    Column("ringfence.event.position", _U64, _EVERY, "Lower half of event.id: the place in that stream.", render="hidden"),
    Column("event.original", _RAW, _EVENTS, "The line or packet as it arrived, where the collector keeps it.", render="bytes"),
    Column(
        "observer.name",
        _TEXT,
        _EVENTS | {_BOUNDARY} | _FOUND,
        "The sensor that saw it: exporter address, firewall, IDS or host.",
        eve="host",
        zeek="_system_name",
    ),
    # both ends
    Column(
        "source.ip",
        _U32,
        _ADDRESSED,
        "Initiator's IPv4 address.",
        eve="src_ip",
        render="ipv4",
        zeek="id.orig_h; notice: id.orig_h, src; signatures: src_addr",
    ),
    Column("source.ip6", _RAW, _ADDRESSED, "Initiator's IPv6 address, 16 bytes; shown as source.ip.", render="ipv6"),
    Column("source.port", _PORT, _ADDRESSED, "Initiator's port.", eve="src_port", zeek="id.orig_p; signatures: src_port"),
    Column(
        "destination.ip",
        _U32,
        _ADDRESSED,
        "Responder's IPv4 address.",
        eve="dest_ip",
        render="ipv4",
        zeek="id.resp_h; notice: id.resp_h, dst; signatures: dst_addr",
    ),
    Column("destination.ip6", _RAW, _ADDRESSED, "Responder's IPv6 address, 16 bytes; shown as destination.ip.", render="ipv6"),
    Column(
        "destination.port",
        _PORT,
        _ADDRESSED,
        "Responder's port.",
        eve="dest_port",
        zeek="id.resp_p; notice: id.resp_p, p; signatures: dst_port",
    ),
    Column(
        "network.iana_number",
        _U8,
        _WIRE | {_BOUNDARY} | _FOUND,
        "IP protocol number; network.transport is its name.",
        eve="proto",
        render="code",
        zeek="proto",
    ),
    Column(
        "network.protocol",
        _TEXT,
        _EVE | {_BOUNDARY} | _FOUND,
        "Application protocol as the sensor named it.",
        eve="app_proto",
        zeek="conn: service",
    ),
    Column(
        "network.community_id",
        _TEXT,
        _EVE | {_BOUNDARY},
        "Community ID of the connection, where the sensor computes it.",
        eve="community_id",
        zeek="community_id",
    ),
    Column("network.bytes", _INT, _only(_PF), "Length of the packet on the wire in bytes."),
    Column("network.vlan.id", _PORT, _WIRE | {_BOUNDARY}, "Outermost 802.1Q VLAN id.", eve="vlan", zeek="vlan, id.ctx.vlan"),
    Column(
        "network.inner.vlan.id",
        _PORT,
        _WIRE | {_BOUNDARY},
        "Inner 802.1Q VLAN id (QinQ).",
        since="1.1",
        zeek="inner_vlan, id.ctx.inner_vlan",
    ),
    Column("ringfence.vxlan.vni", _PORT, _WIRE | {_BOUNDARY}, "VXLAN network identifier that the packet travelled in."),
    *(
        Column(f"ringfence.vxlan.{side}.{part}", dtype, _only(_FLOW), meaning, since="1.3", render=render)
        for side in ("source", "destination")
        for part, dtype, meaning, render in _tunnel(side)
    ),
    Column(
        "observer.ingress.interface.name",
        _TEXT,
        _WIRE | {_BOUNDARY, _GENERIC},
        "Interface on which it entered the observer.",
        eve="in_iface",
        joined=((_GENERIC, "1.3"),),
    ),
    Column("observer.egress.interface.name", _TEXT, _WIRE | {_BOUNDARY}, "Interface on which it left the observer."),
    Column("observer.ingress.interface.id", _INT, _only(_FLOW, _BOUNDARY), "SNMP ifIndex of the input interface."),
    Column("observer.egress.interface.id", _INT, _only(_FLOW, _BOUNDARY), "SNMP ifIndex of the output interface."),
    Column("ringfence.evidence.lossy", _BOOL, _only(_PF, _FLOW, _ALERT), "The source was losing records just before this one."),
    Column(
        "ringfence.flow.id",
        _TEXT,
        _EVE,
        "The sensor's own id of the flow: flow_id of Suricata, uid of Zeek.",
        eve="flow_id",
        zeek="uid",
    ),
    # flows
    Column(
        "event.start",
        _INT,
        _COUNTED | _FOUND,
        "First packet of the flow; of what was found, the first thing that counted.",
        eve="flow.start",
        render="time",
        zeek="conn: ts",
    ),
    Column(
        "event.end",
        _INT,
        _COUNTED | _FOUND,
        "Last packet of the flow; of what was found, the last thing that counted.",
        eve="flow.end",
        render="time",
        zeek="conn: duration",
    ),
    Column(
        "source.packets",
        _INT,
        _COUNTED,
        "Packets from source to destination.",
        eve="flow.pkts_toserver",
        zeek="conn: orig_pkts",
    ),
    Column(
        "source.bytes", _INT, _COUNTED, "Bytes from source to destination.", eve="flow.bytes_toserver", zeek="conn: orig_bytes"
    ),
    Column(
        "destination.packets",
        _INT,
        _COUNTED,
        "Packets back; absent in one-way records.",
        eve="flow.pkts_toclient",
        zeek="conn: resp_pkts",
    ),
    Column(
        "destination.bytes",
        _INT,
        _COUNTED,
        "Bytes back; absent in one-way records.",
        eve="flow.bytes_toclient",
        zeek="conn: resp_bytes",
    ),
    Column(
        "ringfence.tcp.source_flags",
        _U8,
        _only(_PF, _FLOW),
        "TCP flags sent by source, OR of all packets (RFC 9293 3.1).",
        eve="tcp.tcp_flags_ts",
    ),
    Column(
        "ringfence.tcp.destination_flags",
        _U8,
        _only(_FLOW),
        "TCP flags sent by destination, OR of all packets.",
        eve="tcp.tcp_flags_tc",
    ),
    Column(
        "ringfence.flow.state",
        _TEXT,
        _only(_FLOW),
        "State in the sensor's words: new, established, closed, bypassed; of Zeek S0, SF, REJ and so on.",
        eve="flow.state",
        zeek="conn: conn_state",
    ),
    Column("ringfence.flow.reason", _TEXT, _only(_FLOW), "Why the sensor ended or dropped the flow.", eve="flow.reason"),
    Column(
        "ringfence.flow.action",
        _TEXT,
        _only(_FLOW, _ALERT),
        "What an inline sensor did with the flow: drop, accept or pass.",
        eve="flow.action",
    ),
    Column(
        "ringfence.flow.history",
        _TEXT,
        _only(_FLOW),
        "What Zeek saw of the connection, a letter for each kind of packet, capitals for the source.",
        since="1.2",
        zeek="conn: history",
    ),
    Column(
        "ringfence.firewall.action",
        _TEXT,
        _only(_FLOW, _BOUNDARY),
        "What a packet filter did with the packet that it logged: block, pass or, where it does not say, unknown.",
        since="1.2",
    ),
    Column(
        "ringfence.firewall.rule",
        _TEXT,
        _only(_FLOW, _BOUNDARY),
        "What the packet filter calls the rule that decided: log prefix, name of a policy.",
        since="1.2",
    ),
    Column("ringfence.flow.tos", _U8, _only(_FLOW), "IP type of service."),
    Column("source.as.number", _INT, _only(_FLOW), "Autonomous system of the source, where the exporter knows it."),
    Column("destination.as.number", _INT, _only(_FLOW), "Autonomous system of the destination, where the exporter knows it."),
    Column("ringfence.flow.sampling", _INT, _only(_FLOW), "One packet in this many was sampled; absent when unsampled."),
    Column("ringfence.flow.direction", _TEXT, _only(_FLOW), "ingress or egress, as the exporter metered it.", since="1.2"),
    Column("ringfence.flow.ingress_vrf", _U32, _only(_FLOW), "Id of the VRF that it came from.", since="1.2"),
    Column("ringfence.flow.egress_vrf", _U32, _only(_FLOW), "Id of the VRF that it went to.", since="1.2"),
    Column("ringfence.mpls.label", _INT, _only(_FLOW), "Label on top of the MPLS stack.", since="1.2"),
    Column("observer.egress.vlan.id", _PORT, _only(_FLOW), "802.1Q VLAN id with which it left the observer.", since="1.2"),
    Column("ringfence.icmp.type", _U8, _only(_PF, _FLOW), "ICMP or ICMPv6 type.", eve="icmp_type"),
    Column("ringfence.icmp.code", _U8, _only(_PF, _FLOW), "ICMP or ICMPv6 code.", eve="icmp_code"),
    # pf
    Column("ringfence.pf.action", _TEXT, _only(_PF, _BOUNDARY), "pf's word for what it did: pass, block, match, ..."),
    Column("ringfence.pf.reason", _TEXT, _only(_PF, _BOUNDARY), "pf's reason: match, bad-offset, fragment, ..."),
    Column("ringfence.pf.direction", _TEXT, _only(_PF, _BOUNDARY), "in or out, as the interface saw it."),
    Column("ringfence.pf.rule", _U32, _only(_PF, _BOUNDARY), "Rule number in the main ruleset, or of the anchor call."),
    Column("ringfence.pf.subrule", _U32, _only(_PF, _BOUNDARY), "Rule number inside the anchor; absent outside of one."),
    Column("rule.ruleset", _TEXT, _only(_PF, _BOUNDARY), "pf anchor (its last component, as pf logs it)."),
    Column("ringfence.pf.uid", _U32, _only(_PF), "User id of the socket on this host, where pf looked it up."),
    Column("ringfence.pf.pid", _INT, _only(_PF), "Process id of the socket on this host."),
    Column("ringfence.pf.rule_uid", _U32, _only(_PF), "User that inserted the rule."),
    Column("ringfence.pf.rule_pid", _INT, _only(_PF), "pfctl process that inserted the rule: a generation id of the ruleset."),
    Column(
        "ringfence.pf.ridentifier",
        _U32,
        _only(_PF),
        "Number that the ruleset gives the rule for good (FreeBSD ridentifier, pfSense tracker); absent when 0.",
        since="1.2",
    ),
    Column(
        "ringfence.pf.tracker",
        _TEXT,
        _only(_PF),
        "Id that the owner's configuration gives the rule: tracker of pfSense (a number), label of OPNsense (a hash or UUID).",
        since="1.2",
    ),
    *(
        Column(f"{side}.nat.{part}", dtype, _only(_PF, _FLOW), meaning, render=render, joined=((_FLOW, "1.2"),))
        for side, title in (("source", "Source"), ("destination", "Destination"))
        for part, dtype, meaning, render in _nat(side, title)
    ),
    Column("ringfence.pf.truncated", _BOOL, _only(_PF), "The capture was cut before the transport header ended."),
    # application records of the IDS
    Column("dns.question.name", _TEXT, _only(_DNS) | _FOUND, "Name that was asked for.", eve="dns.rrname", zeek="dns: query"),
    Column(
        "dns.question.type", _TEXT, _only(_DNS), "Record type that was asked for.", eve="dns.rrtype", zeek="dns: qtype_name"
    ),
    Column("dns.response_code", _TEXT, _only(_DNS), "NOERROR, NXDOMAIN, ...", eve="dns.rcode", zeek="dns: rcode_name"),
    Column("dns.type", _TEXT, _only(_DNS), "query or answer.", eve="dns.type"),
    Column("dns.id", _INT, _only(_DNS), "Transaction id.", eve="dns.id", zeek="dns: trans_id"),
    Column("url.domain", _TEXT, _only(_HTTP), "Host that was asked for.", eve="http.hostname", zeek="http: host"),
    Column("url.original", _TEXT, _only(_HTTP, _DETECTION), "Request target as sent.", eve="http.url", zeek="http: uri"),
    Column("http.request.method", _TEXT, _only(_HTTP), "Request method.", eve="http.http_method", zeek="http: method"),
    Column(
        "http.response.status_code",
        _INT,
        _only(_HTTP),
        "Status of the response; absent when none was seen.",
        eve="http.status",
        zeek="http: status_code",
    ),
    Column(
        "http.response.body.bytes",
        _INT,
        _only(_HTTP),
        "Size of the response body.",
        eve="http.length",
        zeek="http: response_body_len",
    ),
    Column(
        "user_agent.original", _TEXT, _only(_HTTP), "User-Agent as sent.", eve="http.http_user_agent", zeek="http: user_agent"
    ),
    Column(
        "tls.client.server_name",
        _TEXT,
        _only(_TLS),
        "Server name that the client asked for.",
        eve="tls.sni",
        zeek="ssl: server_name",
    ),
    Column(
        "tls.version", _TEXT, _only(_TLS), "Protocol version as the sensor names it.", eve="tls.version", zeek="ssl: version"
    ),
    Column(
        "tls.server.subject", _TEXT, _only(_TLS), "Subject of the server certificate.", eve="tls.subject", zeek="ssl: subject"
    ),
    Column(
        "tls.server.issuer", _TEXT, _only(_TLS), "Issuer of the server certificate.", eve="tls.issuerdn", zeek="ssl: issuer"
    ),
    Column("tls.server.hash.sha1", _TEXT, _only(_TLS), "Fingerprint of the server certificate.", eve="tls.fingerprint"),
    Column("tls.client.ja3", _TEXT, _only(_TLS), "JA3 hash of the client hello.", eve="tls.ja3.hash", zeek="ssl: ja3"),
    Column(
        "ringfence.ssh.client",
        _TEXT,
        _only(_SSH),
        "Software of the client.",
        eve="ssh.client.software_version",
        zeek="ssh: client",
    ),
    Column("tls.server.ja3s", _TEXT, _only(_TLS), "JA3S hash of the server hello.", since="1.2", eve="tls.ja3s.hash"),
    Column("ringfence.tls.ja4", _TEXT, _only(_TLS), "JA4 fingerprint of the client hello.", since="1.2", eve="tls.ja4"),
    Column("http.request.referrer", _TEXT, _only(_HTTP), "Referer as sent.", since="1.2", eve="http.http_refer"),
    Column(
        "http.response.mime_type",
        _TEXT,
        _only(_HTTP),
        "Content-Type of the response, without its parameters.",
        since="1.2",
        eve="http.http_content_type",
    ),
    Column(
        "ringfence.ssh.server",
        _TEXT,
        _only(_SSH),
        "Software of the server; absent when it never answered.",
        eve="ssh.server.software_version",
        zeek="ssh: server",
    ),
    Column(
        "ringfence.ssh.auth_success",
        _BOOL,
        _only(_SSH),
        "Whether the login succeeded, as the sensor infers it; absent when it cannot tell.",
        since="1.2",
        zeek="ssh: auth_success",
    ),
    Column(
        "ringfence.ssh.auth_attempts",
        _INT,
        _only(_SSH),
        "How many logins were tried, as far as the sensor saw.",
        since="1.2",
        zeek="ssh: auth_attempts",
    ),
    Column(
        "file.name",
        _TEXT,
        _only(_FILE, _GENERIC),
        "File name as the protocol carried it, or of the file or pipe on a host.",
        joined=((_GENERIC, "1.3"),),
        eve="fileinfo.filename",
        zeek="files: filename",
    ),
    Column("file.path", _TEXT, _only(_ALERT, _FILE, _GENERIC), "Path of the file, as the sensor gives it.", since="1.3"),
    Column("file.size", _INT, _only(_FILE), "Bytes seen of the file.", eve="fileinfo.size", zeek="files: seen_bytes"),
    Column("file.hash.sha256", _TEXT, _only(_FILE), "SHA-256 of the content.", eve="fileinfo.sha256", zeek="files: sha256"),
    Column("file.hash.sha1", _TEXT, _only(_FILE), "SHA-1 of the content.", since="1.2", eve="fileinfo.sha1"),
    Column("file.hash.md5", _TEXT, _only(_FILE), "MD5 of the content.", since="1.2", eve="fileinfo.md5"),
    # IDS alerts and drops
    Column(
        "rule.id",
        _TEXT,
        _only(_ALERT, _BOUNDARY, _DETECTION, _ALARM),
        "Signature id; for pf the rule path ruleset.rule.subrule.",
        eve="alert.signature_id",
        zeek="signatures: sig_id",
    ),
    Column(
        "rule.name",
        _TEXT,
        _only(_ALERT, _DETECTION, _ALARM),
        "Signature text.",
        eve="alert.signature",
        zeek="notice: note; weird: name; signatures: sig_id",
    ),
    Column(
        "rule.description",
        _TEXT,
        _only(_ALERT),
        "What the sensor says about this event.",
        since="1.2",
        zeek="notice: msg; weird: addl; signatures: event_msg",
    ),
    Column("rule.category", _TEXT, _only(_ALERT), "Class of the signature.", eve="alert.category", zeek="signatures: note"),
    Column("rule.version", _TEXT, _only(_ALERT), "Revision of the signature.", eve="alert.rev"),
    Column(
        "event.severity",
        _INT,
        _only(_ALERT, _DETECTION, _ALARM),
        "0 to 99, higher is worse (Suricata counts the other way).",
        eve="alert.severity",
    ),
    Column(
        "ringfence.ids.action",
        _TEXT,
        _only(_ALERT),
        "allowed or blocked, as the signature's action was carried out.",
        eve="alert.action",
    ),
    Column(
        "ringfence.ids.verdict",
        _TEXT,
        _only(_ALERT),
        "Final verdict on the packet: drop, alert, accept or pass.",
        eve="verdict.action",
    ),
    Column("ringfence.ids.reason", _TEXT, _only(_ALERT), "Why the packet was dropped.", eve="drop.reason"),
    Column(
        "ringfence.ids.reject",
        _TEXT,
        _only(_ALERT),
        "How the sensor refused the connection: tcp-reset, icmp-prohib.",
        since="1.2",
        eve="verdict.reject",
    ),
    Column(
        "ringfence.ids.reject_target",
        _TEXT,
        _only(_ALERT),
        "Who was told so: to_server, to_client or both.",
        since="1.2",
        eve="verdict.reject_target",
    ),
    Column("threat.tactic.name", _TEXT, _FOUND | {_ALERT}, "ATT&CK tactics of the rule.", since="1.3", render="list"),
    Column("threat.technique.id", _TEXT, _FOUND | {_ALERT}, "Ids of its ATT&CK techniques.", since="1.3", render="list"),
    Column(
        "threat.technique.name", _TEXT, _only(_ALERT), "Names of its ATT&CK techniques, with commas between them.", since="1.3"
    ),
    # hosts and people
    Column(
        "event.code",
        _TEXT,
        _ENDPOINT,
        "The source's own number for this kind of event, such as the Windows event id.",
        since="1.3",
    ),
    Column("host.hostname", _TEXT, _HOST, "Host that wrote the log line.", joined=_DNS_LATER),
    Column("host.name", _TEXT, _ENDPOINT | _FOUND, "Host on which it happened.", since="1.3"),
    Column(
        "source.domain",
        _TEXT,
        _only(_AUTH, _FLOW, _ALERT, _GENERIC),
        "Name of the initiator's host, as the source gives it; of DHCP the name that the client gives itself.",
        since="1.3",
    ),
    Column(
        "destination.domain",
        _TEXT,
        _only(_AUTH, _FLOW, _ALERT),
        "Name of the responder's host, as the source gives it.",
        since="1.3",
    ),
    Column(
        "process.name",
        _TEXT,
        _HOST | _WATCHED | _FOUND,
        "Program that wrote the log line, or that acts.",
        joined=_WATCHED_13,
    ),
    Column("process.pid", _INT, _HOST | _WATCHED, "Its process id.", joined=_WATCHED_13),
    Column(
        "process.command_line",
        _TEXT,
        _ENDPOINT | {_DETECTION},
        "Command line as executed, or asked for with sudo or doas.",
        joined=((_AUTH, "1.2"), (_GENERIC, "1.3"), *_WATCHED_13),
    ),
    Column(
        "user.name",
        _TEXT,
        _ENDPOINT | _FOUND,
        "Account concerned: who acts, or is logged in or refused; of a DNS query the TSIG key.",
        joined=((_GENERIC, "1.3"), *_WATCHED_13),
    ),
    # of processes, and of those that did what a sensor inside a host reports
    Column("container.id", _TEXT, _WATCHED | {_PROCESS}, "Id of the container, as its runtime gives it.", since="1.3"),
    Column("container.image.name", _TEXT, _WATCHED | {_PROCESS}, "Image of the container, with its tag.", since="1.3"),
    Column("container.name", _TEXT, _WATCHED | {_PROCESS}, "Name of the container.", since="1.3"),
    Column("orchestrator.namespace", _TEXT, _WATCHED | {_PROCESS}, "Kubernetes namespace of the pod.", since="1.3"),
    Column("orchestrator.resource.name", _TEXT, _WATCHED | {_PROCESS}, "Name of the Kubernetes pod.", since="1.3"),
    Column("process.entity_id", _TEXT, _ENDPOINT, "The sensor's own id of the process, never used again.", since="1.3"),
    Column("process.executable", _TEXT, _ENDPOINT | _FOUND, "Path of the program.", since="1.3"),
    Column("process.exit_code", _INT, _only(_PROCESS), "Exit code of the process that ended.", since="1.3"),
    Column("process.hash.md5", _TEXT, _WATCHED | {_PROCESS}, "MD5 of the program.", since="1.3"),
    Column("process.hash.sha1", _TEXT, _WATCHED | {_PROCESS}, "SHA-1 of the program.", since="1.3"),
    Column("process.hash.sha256", _TEXT, _WATCHED | {_PROCESS}, "SHA-256 of the program.", since="1.3"),
    Column(
        "process.parent.command_line", _TEXT, _WATCHED | {_PROCESS}, "Command line of the process that started it.", since="1.3"
    ),
    Column("process.parent.entity_id", _TEXT, _WATCHED | {_PROCESS}, "The sensor's own id of the parent.", since="1.3"),
    Column("process.parent.executable", _TEXT, _WATCHED | {_PROCESS}, "Path of the parent's program.", since="1.3"),
    Column("process.parent.name", _TEXT, _WATCHED | {_PROCESS}, "Name of the parent.", since="1.3"),
    Column("process.parent.pid", _INT, _WATCHED | {_PROCESS}, "Process id of the parent.", since="1.3"),
    *(
        Column(f"process.pe.{part}", _TEXT, _only(_PROCESS, _ALERT), meaning, since="1.3")
        for part, meaning in (
            ("company", "Company that the program names in its resources."),
            ("description", "What the program calls itself in its resources."),
            ("file_version", "Version in the resources of the program."),
            ("imphash", "Hash of the imports of the program."),
            ("original_file_name", "Name that the program was built with."),
            ("product", "Product in the resources of the program."),
        )
    ),
    Column("process.working_directory", _TEXT, _WATCHED | {_PROCESS}, "Directory that the process is in.", since="1.3"),
    Column(
        "ringfence.process.integrity_level",
        _TEXT,
        _only(_PROCESS, _ALERT),
        "Windows integrity level: Low, Medium, High, System.",
        since="1.3",
    ),
    Column(
        "ringfence.process.network_namespace",
        _INT,
        _only(_PROCESS, _FLOW),
        "Inode of the Linux network namespace of the process or packet, as `stat -L /run/netns/NAME` shows it.",
        since="1.3",
    ),
    Column("ringfence.process.signal", _TEXT, _only(_PROCESS), "Signal that ended the process, such as SIGKILL.", since="1.3"),
    Column("user.domain", _TEXT, _ENDPOINT, "Domain or host that the account belongs to.", since="1.3"),
    Column("user.id", _TEXT, _ENDPOINT, "Number of the account: uid or SID.", since="1.3"),
    Column("user.target.domain", _TEXT, _only(_AUTH), "Domain of the account that it is done to or as.", since="1.3"),
    Column("user.target.id", _TEXT, _only(_AUTH), "Number of that account: uid or SID.", since="1.3"),
    Column("user.target.name", _TEXT, _only(_AUTH), "Account that it is done to or as: of sudo, su, useradd, ...", since="1.2"),
    Column("group.name", _TEXT, _only(_AUTH), "Group that is made, removed, or got or lost a member.", since="1.2"),
    Column(
        "event.action",
        _TEXT,
        _HOST | {_FILE},
        "What was attempted or happened: ssh-login, sudo, user-created, mfa, dns-query, dhcp-ack, bgp-state; of processes exec, exit.",
        joined=(*_BOTH_LATER, (_PROCESS, "1.3"), (_FILE, "1.3")),
    ),
    Column("event.outcome", _TEXT, _SAID, "success, failure or unknown, from the actor's view.", joined=_BOTH_LATER),
    Column("event.reason", _TEXT, _SAID, "Why, in the program's words.", joined=_BOTH_LATER),
    Column("ringfence.auth.method", _TEXT, _only(_AUTH), "password, publickey, ..."),
    Column(
        "ringfence.auth.key", _TEXT, _only(_AUTH), "Fingerprint of the key that was offered, such as SHA256:....", since="1.3"
    ),
    Column(
        "ringfence.auth.application", _TEXT, _only(_AUTH), "Application or client that a single sign-on was for.", since="1.3"
    ),
    Column("ringfence.auth.certificate", _TEXT, _only(_AUTH), "Id that the certificate authority gave it.", since="1.3"),
    Column(
        "ringfence.state.subject",
        _TEXT,
        _only(_GENERIC),
        "What changed: interface, virtual router, session, host.",
        since="1.3",
    ),
    Column("ringfence.state.before", _TEXT, _only(_GENERIC), "State that it was in, in the program's words.", since="1.3"),
    Column("ringfence.state.after", _TEXT, _only(_GENERIC), "State that it is in now, in the program's words.", since="1.3"),
    Column("source.mac", _TEXT, _only(_AUTH, _GENERIC), "MAC of the client, as ECS writes it: 52-54-00-12-34-56.", since="1.3"),
    Column(
        "ringfence.auth.logon_type",
        _INT,
        _only(_AUTH),
        "Windows logon type: 2 interactive, 3 network, 10 remote interactive, ...",
        since="1.3",
    ),
    Column("ringfence.auth.terminal", _TEXT, _only(_AUTH), "Terminal that it came from, as the program names it.", since="1.2"),
    Column(
        "message",
        _TEXT,
        _HOST | {_ALARM},
        "The text of the message; of an alert what happened, as one sentence.",
        joined=_DNS_LATER,
    ),
    Column("log.syslog.facility.code", _U8, _HOST, "Facility (RFC 5424 6.2.1).", joined=_DNS_LATER),
    Column("log.syslog.severity.code", _U8, _HOST, "Severity, 0 is worst (RFC 5424 6.2.1).", joined=_DNS_LATER),
    Column("log.syslog.appname", _TEXT, _HOST, "APP-NAME or the tag of RFC 3164.", joined=_DNS_LATER),
    Column("log.syslog.procid", _TEXT, _HOST, "PROCID.", joined=_DNS_LATER),
    Column("log.syslog.msgid", _TEXT, _HOST, "MSGID (RFC 5424 only).", joined=_DNS_LATER),
    Column("log.syslog.version", _TEXT, _HOST, "1 for RFC 5424, absent for RFC 3164.", joined=_DNS_LATER),
    Column(
        "ringfence.syslog.structured_data",
        _TEXT,
        _HOST,
        "Structured data as a JSON object, id -> name -> value (RFC 5424 6.3).",
        joined=_DNS_LATER,
    ),
    Column("ringfence.generic.type", _TEXT, _only(_GENERIC), "The source's own name for the kind of record.", eve="event_type"),
    # modules, registry and services of hosts, and the event log of Windows
    Column("dll.code_signature.exists", _BOOL, _only(_GENERIC), "Whether the loaded module is signed.", since="1.3"),
    Column(
        "dll.code_signature.status",
        _TEXT,
        _only(_GENERIC),
        "What became of checking its signature: Valid, Expired, ...",
        since="1.3",
    ),
    Column("dll.hash.sha256", _TEXT, _only(_GENERIC), "SHA-256 of the loaded module.", since="1.3"),
    Column("dll.path", _TEXT, _only(_GENERIC), "Path of the loaded module or driver.", since="1.3"),
    Column("dll.pe.original_file_name", _TEXT, _only(_GENERIC), "Name that the loaded module was built with.", since="1.3"),
    Column("log.file.path", _TEXT, _only(_GENERIC), "File that the line was read from.", since="1.3"),
    Column("powershell.file.script_block_text", _TEXT, _only(_GENERIC), "Text of a block of PowerShell.", since="1.3"),
    Column("registry.data.strings", _TEXT, _only(_GENERIC), "Value that was set, as text.", since="1.3"),
    Column("registry.path", _TEXT, _only(_GENERIC), "Key of the Windows registry, with the name of the value.", since="1.3"),
    Column(
        "ringfence.access.mask",
        _TEXT,
        _only(_GENERIC),
        "Access rights that were asked for, as Windows writes the mask.",
        since="1.3",
    ),
    Column(
        "ringfence.access.target",
        _TEXT,
        _only(_GENERIC),
        "Path of the program whose process was opened or got a thread.",
        since="1.3",
    ),
    Column("ringfence.service.command_line", _TEXT, _only(_GENERIC), "What a service that was installed runs.", since="1.3"),
    Column(
        "service.name",
        _TEXT,
        _SAID,
        "Service that was installed, that a ticket is for, or whose program wrote the line.",
        since="1.3",
    ),
    Column("winlog.channel", _TEXT, _ENDPOINT, "Windows event log that it was in.", since="1.3"),
    Column(
        "winlog.event_data", _TEXT, _ENDPOINT, "The fields of the Windows event as a JSON object, as they came.", since="1.3"
    ),
    Column("winlog.logon.id", _TEXT, _only(_AUTH, _PROCESS), "Logon session, as Windows writes its number.", since="1.3"),
    Column(
        "winlog.logon.type",
        _TEXT,
        _only(_AUTH),
        "Kind of logon in words: Interactive, Network, RemoteInteractive, ...",
        since="1.3",
    ),
    Column("winlog.provider_name", _TEXT, _ENDPOINT, "Program that wrote the Windows event.", since="1.3"),
    Column("winlog.record_id", _TEXT, _ENDPOINT, "Number of the event in its Windows event log.", since="1.3"),
    # boundary tests
    Column("ringfence.boundary.id", _TEXT, _only(_BOUNDARY) | _FOUND, "from -> to, by segment names."),
    Column("ringfence.boundary.intent", _TEXT, _only(_BOUNDARY) | _FOUND, "allow, deny or undeclared, for this service."),
    Column("ringfence.boundary.outcome", _TEXT, _only(_BOUNDARY, _DETECTION), "blocked, passed or unknown."),
    Column(
        "ringfence.boundary.verdict",
        _TEXT,
        _only(_BOUNDARY, _DETECTION, _ALARM),
        "held, breached, permitted, overblocked, undeclared or unproven.",
    ),
    Column(
        "ringfence.boundary.origin",
        _TEXT,
        _only(_BOUNDARY, _DETECTION, _ALARM),
        "observed in traffic or simulated by ringfence.",
    ),
    Column("ringfence.boundary.service", _TEXT, _only(_BOUNDARY) | _FOUND, "Declared name of the service, else protocol/port."),
    Column(
        "ringfence.evidence.silent",
        _BOOL,
        _only(_BOUNDARY),
        "Of flows with an unknown outcome: no answer came, or only RST, though the record would have told of one.",
        since="1.3",
    ),
    Column("ringfence.evidence.class", _TEXT, _only(_BOUNDARY) | _FOUND, "Event class of the evidence."),
    Column("ringfence.evidence.module", _TEXT, _only(_BOUNDARY) | _FOUND, "Kind of sensor that gave the evidence."),
    Column(
        "ringfence.evidence.source",
        _U64,
        _only(_BOUNDARY) | _FOUND,
        "Upper half of the evidence's event.id.",
        render="event_id",
    ),
    Column("ringfence.evidence.position", _U64, _only(_BOUNDARY) | _FOUND, "Lower half of it.", render="hidden"),
    *(
        Column(f"{side}.segment.{part}", _TEXT, _ADDRESSED, f"{meaning} of the {side}'s segment.")
        for side in ("source", "destination")
        for part, meaning in (("id", "Stable id"), ("name", "Name"), ("role", "Role"), ("tenant", "Tenant"), ("site", "Site"))
    ),
    *(
        Column(
            f"{side}.segment.code",
            pl.Int32(),
            _ADDRESSED,
            f"Code of the {side}'s segment inside this process; never stored.",
            render="hidden",
        )
        for side in ("source", "destination")
    ),
    # what detectors found, and detections
    Column("ringfence.detector.name", _TEXT, _FOUND, "What was found: scan-horizontal, path-violates-intent, ...", since="1.3"),
    Column(
        "ringfence.detector.score",
        _INT,
        _FOUND,
        "How strong it is, higher is worse; what it counts depends on the detector.",
        since="1.3",
    ),
    Column("ringfence.detector.evidence", _TEXT, _FOUND, "Why, in words: counts, or the path.", since="1.3"),
    Column(
        "ringfence.detector.distinct", _INT, _FOUND, "Distinct hosts with ports, names or hops that were counted.", since="1.3"
    ),
    Column("ringfence.detector.missed", _INT, _FOUND, "How many of them were blocked, refused or not answered.", since="1.3"),
    Column(
        "ringfence.detector.ids",
        _TEXT,
        _FOUND,
        "Ids of events that it counted, at most 16, with the last.",
        since="1.3",
        render="list",
    ),
    Column("ringfence.detection.kind", _TEXT, _only(_DETECTION), "What found it: sigma, correlation or yara.", since="1.3"),
    Column("ringfence.detection.level", _TEXT, _only(_DETECTION), "informational, low, medium, high or critical.", since="1.3"),
    Column(
        "ringfence.detection.fields",
        _TEXT,
        _only(_DETECTION),
        "The fields that matched with their values, as a JSON object.",
        since="1.3",
    ),
    Column("ringfence.detection.count", _INT, _only(_DETECTION), "How many events a correlation counted.", since="1.3"),
    Column(
        "ringfence.detection.events",
        _TEXT,
        _only(_DETECTION),
        "Ids of the events of a correlation, with commas between them; of many the first and the last ten.",
        since="1.3",
        render="list",
    ),
    *(
        Column(f"ringfence.detection.{part}", dtype, _only(_DETECTION), meaning, since="1.3")
        for part, dtype, meaning in (
            ("response", _TEXT, "What the rule recommends: alert, approve-quarantine or auto-quarantine."),
            ("risk", _INT, "Risk that the rule gives its alerts, where it says so."),
            ("suppress", _INT, "Seconds in which its detections are one alert, where the rule says so."),
        )
    ),
    # alerts
    *(
        Column(f"ringfence.alert.{part}", dtype, _only(_ALARM), meaning, since="1.3", render=render)
        for part, dtype, meaning, render in _of_alerts()
    ),
    # dead letters
    Column("ringfence.dead.stage", _TEXT, _only(_DEAD), "collect, process or sink."),
    Column("ringfence.dead.component", _TEXT, _only(_DEAD), "Component that rejected it."),
    Column("ringfence.dead.reason", _TEXT, _only(_DEAD), "Reason code, from a closed set."),
    Column("error.message", _TEXT, _only(_DEAD), "The exact reason."),
    Column("ringfence.dead.path", _TEXT, _only(_DEAD), "Field that was wrong, such as $.src_port."),
    Column("ringfence.dead.row", _INT, _only(_DEAD), "Index of the frame in its block, from 0."),
    Column("ringfence.dead.offset", _INT, _only(_DEAD), "Byte in the frame where reading failed, from 0."),
    Column("ringfence.dead.input", _TEXT, _only(_DEAD), "Name of the stream: file or sender."),
    Column("ringfence.dead.attempts", _INT, _only(_DEAD), "How often it was tried."),
    Column("ringfence.dead.length", _INT, _only(_DEAD), "Size of the frame in bytes."),
    Column("ringfence.dead.payload", _RAW, _only(_DEAD), "The frame as it arrived, up to 64 KiB.", render="bytes"),
)

BY_NAME: Mapping[str, Column] = {column.name: column for column in COLUMNS}


def frame_schema(event_class: EventClass) -> dict[str, pl.DataType]:
    """Every column that a frame of this class may have, in table order."""
    return {column.name: column.dtype for column in COLUMNS if event_class in column.classes}


_SCHEMAS: Mapping[EventClass, dict[str, pl.DataType]] = {event_class: frame_schema(event_class) for event_class in EventClass}


def build_frame(event_class: EventClass, columns: Mapping[str, Any]) -> pl.DataFrame:
    """Make a frame from columns (lists, numpy arrays or Series), typed as the table says and in its order.

    Raises KeyError for a name that the class does not have: a spelling mistake in a component must not pass.
    """
    schema = _SCHEMAS[event_class]
    unknown = columns.keys() - schema.keys()
    if unknown:
        raise KeyError(f"the schema has no column {sorted(unknown)} in class {event_class}")
    return pl.DataFrame([_series(name, columns[name], dtype) for name, dtype in schema.items() if name in columns])


def _series(name: str, values: Any, dtype: pl.DataType) -> pl.Series:
    if isinstance(values, pl.Series):
        return values.alias(name) if values.dtype == dtype else values.cast(dtype).alias(name)
    return pl.Series(name, values, dtype=dtype)


def conform(event_class: EventClass, frame: pl.DataFrame) -> pl.DataFrame:
    """Keep only the columns that this version knows, with their types (for blocks of other minor versions)."""
    schema = _SCHEMAS[event_class]
    known = [name for name in frame.columns if name in schema]
    return frame.select(
        pl.col(name) if frame.schema[name] == schema[name] else pl.col(name).cast(schema[name]) for name in known
    )


def together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate frames of one class; a column that only some of them have is null in the others."""
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal", rechunk=True)
