"""What name servers say about the queries that they got: BIND's named, unbound and dnsmasq.

One table, as in `collectors/auth_messages.py`. A refused query is a row with the response code REFUSED, one that a policy
answered (response policy zone, local zone) has what the policy did as `event.action`. Names are without the dot at their
end, but for the root.

- named: categories queries, security (denied), query-errors (failed), rpz and xfer-out, with or without category and severity
  before the text. The address in parentheses is the server's; T among the flags says TCP.
- unbound: log-queries, log-replies, log-servfail, log-local-actions and rpz-log, with or without log-tag-queryreply.
- dnsmasq: log-queries, also log-queries=extra.

Not supported: answers of dnsmasq (they do not name the client), responselog of named.

Samples: client @0x7f6c4c0a2b68 192.0.2.1#53124 (example.com): query: example.com IN A +E(0)K (10.0.0.1)
[812:0] info: 192.0.2.1 example.com. A IN NOERROR 0.012345 0 44
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from collectors.message_forms import Form, Values, end_columns, present, reader
from ringfence.addresses import AddressCache

FIELDS = ("reason", "address", "port", "server", "name", "type", "code", "flags", "user")

_ADDRESS = r"(?P<address>[0-9A-Fa-f:.]{2,45})(?:%[!-~]{1,16})?"
# ISC BIND lib/ns/client.c ns_client_logv, lib/ns/query.c, lib/ns/xfrout.c, lib/ns/update.c
_CLIENT = (
    r"(?:(?!client )[a-z-]{1,32}: (?:[a-z]{1,16}(?: \d{1,2})?: )?)?client (?:@0x[0-9a-f]{1,16} )?"
    rf"{_ADDRESS}#(?P<port>\d{{1,5}})(?:/key (?P<user>\S{{1,255}}))?(?: \(\S{{1,1024}}\))?: (?:view \S{{1,255}}: )?"
)
_QUESTION = r"'(?P<name>[^'\s]{1,1024}?)/(?P<type>[A-Z0-9-]{1,16})/[A-Z0-9]{1,16}'"
_NAMED = (
    Form(
        r"query: (?P<name>\S{1,1024}) [A-Z0-9]{1,16} (?P<type>[A-Z0-9-]{1,16}) (?P<flags>[+-]\S{0,32})"
        r"(?: \((?P<server>[0-9A-Fa-f:.]{2,45})(?:%[!-~]{1,16})?\))?(?: \[ECS .{1,64}\])?",
        "dns-query",
    ),
    Form(
        rf"query(?: \(cache\))? {_QUESTION} (?P<reason>denied(?: \(.{{1,256}}\))?)",
        "dns-query",
        "failure",
        {"code": "REFUSED"},
    ),
    Form(
        r"query failed \((?P<reason>(?P<code>[A-Za-z0-9 ]{1,64}))\) for (?P<name>[^\s/]{1,1024})/[A-Z0-9]{1,16}/(?P<type>[A-Z0-9-]{1,16}) at .*",
        "dns-query",
        "failure",
    ),
    Form(
        r"(?:disabled )?rpz (?P<reason>[A-Z-]{1,32} [A-Z-]{1,32} rewrite) (?P<name>[^\s/]{1,1024})/(?P<type>[A-Z0-9-]{1,16})/[A-Z0-9]{1,16} via .*",
        "dns-policy",
    ),
    Form(
        rf"zone transfer {_QUESTION} (?P<reason>denied(?: \(.{{1,256}}\))?)",
        "dns-transfer",
        "failure",
        {"code": "REFUSED"},
    ),
    Form(
        r"transfer of '(?P<name>[^'\s]{1,1024}?)/[A-Z0-9]{1,16}': (?P<type>[AI]XFR)(?:-style IXFR)? started(?::? .*)?",
        "dns-transfer",
    ),
    Form(
        r"update '(?P<name>[^'\s]{1,1024}?)/[A-Z0-9]{1,16}' (?P<reason>denied(?: .{1,256})?)",
        "dns-update",
        "failure",
        {"code": "REFUSED"},
    ),
)
# NLnet Labs unbound util/log.c, util/net_help.c log_query_in, util/data/msgreply.c log_reply_info, services/localzone.c
_HEAD = r"(?:\[\d{1,10}:[0-9a-f]{1,8}\] )?(?:info|query|reply|error): "
_ASKED = r"(?P<name>\S{1,1024}) (?P<type>[A-Z0-9]{1,16}) [A-Z0-9]{1,16}"
_UNBOUND = (
    Form(rf"{_ADDRESS} {_ASKED}", "dns-query"),
    Form(rf"{_ADDRESS} {_ASKED} (?P<code>[A-Z0-9]{{1,16}}) \d{{1,9}}\.\d{{6}} [01] \d{{1,5}}(?: .*)?", "dns-query"),
    Form(rf"{_ADDRESS} - - - (?P<code>FORMERR) - - - ?", "dns-query", "failure"),
    Form(
        rf"\S{{1,1024}} (?P<reason>(?:always_)?(?:refuse|deny)|inform_deny) {_ADDRESS}@(?P<port>\d{{1,5}}) {_ASKED}",
        "dns-policy",
        "failure",
    ),
    Form(
        rf"\S{{1,1024}} (?P<reason>[a-z_]{{3,32}}) {_ADDRESS}@(?P<port>\d{{1,5}}) {_ASKED}",
        "dns-policy",
    ),
    Form(
        rf"rpz: applied (?:\[\S{{1,256}}\] )?\S{{1,1024}} (?P<reason>rpz-\S{{1,64}}) {_ADDRESS}@(?P<port>\d{{1,5}}) {_ASKED}",
        "dns-policy",
    ),
    Form(
        r"SERVFAIL <(?P<name>\S{1,1024}) (?P<type>[A-Z0-9]{1,16}) [A-Z0-9]{1,16}>: (?P<reason>.*)",
        "dns-query",
        "failure",
        {"code": "SERVFAIL"},
    ),
)
# dnsmasq src/cache.c log_query
_DNSMASQ = (
    Form(
        r"(?:\d{1,10} [0-9A-Fa-f:.]{2,45}/(?P<port>\d{1,5}) )?query\[(?P<type>[^\]\s]{1,16})\] (?P<name>\S{1,1024}) from "
        + _ADDRESS,
        "dns-query",
    ),
)
READERS = {
    "named": reader(_NAMED, FIELDS, _CLIENT),
    "unbound": reader(_UNBOUND, FIELDS, _HEAD),
    "dnsmasq": reader(_DNSMASQ, FIELDS),
}
"""What each program's messages are read with; the values are those of FIELDS after action and outcome."""
_TCP, _UDP = 6, 17
_CODES: Mapping[str | None, str] = {"query refused": "REFUSED", "failure": "SERVFAIL"}
"""What BIND calls a result where it does not use the name of the response code."""


def columns(rows: Sequence[Values], addresses: AddressCache) -> dict[str, Any]:
    """The columns of class dns of what messages say."""
    action, outcome, reason, address, port, server, name, kind, code, flags, user = zip(*rows, strict=True)
    ends = end_columns("source", address, port, addresses)
    if any(server):
        ends |= end_columns("destination", server, [None] * len(rows), addresses)
    if any(flags):
        ends["network.iana_number"] = [text and (_TCP if "T" in text else _UDP) for text in flags]
    return (
        ends
        | present({"event.reason": reason, "user.name": user})
        | {
            "event.action": action,
            "event.outcome": outcome,
            "dns.question.name": [text and (text.rstrip(".") or text) for text in name],
            "dns.question.type": kind,
            "dns.response_code": [_CODES.get(text, text) for text in code],
            "dns.type": ["answer" if text else "query" for text in code],
        }
    )
