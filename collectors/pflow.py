"""pflow(4): how the flow records of pf are known, which OpenBSD and FreeBSD send as NetFlow v5 or IPFIX when a state ends.

Spec: sys/net/if_pflow.h and if_pflow.c of OpenBSD (templates 256 IPv4, 257 IPv6; later 256 IPv4, 257 IPv4 with NAT, 258 IPv6) and
of FreeBSD (256 IPv4, 257 IPv6, 258 NAT44 events). They decode like those of any exporter; what is peculiar to them:

- A state gives one record for each direction in which bytes went, with the addresses exchanged in the second one, when pf removes
  the state: a long connection is not seen before it ends, and up to 30 seconds later (PFLOW_TIMEOUT).
- TCP flags are not told: 0 in version 5, no element in IPFIX. So only a record that comes from a service proves an answer.
- In records of ICMP the ports hold pf's key of the state: the ICMP id at one end and the type that opened it at the other. They are not
  type and code, which others put into the destination port, so these stay absent.
- `ringfence.flow.tos` is what the rule sets, not what the packets had.
- Times have whole seconds in OpenBSD; a state whose creation is not known (pfsync) starts when the machine booted.
- Version 5 cuts a state of more than 4 GiB into records of which each has all packets.
- The sequence number of IPFIX does not count templates, and counts IPv4 and IPv6 together, as RFC 7011 asks.
"""

from __future__ import annotations

ENGINE = 42 << 8 | 42
"""PFLOW_ENGINE_TYPE and PFLOW_ENGINE_ID of the header of version 5."""

_ENDS4, _ENDS6 = ((8, 4), (12, 4)), ((27, 16), (28, 16))
_COUNTS = ((10, 4), (14, 4), (2, 8), (1, 8), (152, 8), (153, 8))
_NAT = ((225, 4), (226, 4), (227, 2), (228, 2))
_REST = ((7, 2), (11, 2), (5, 1), (4, 1))
IPV4 = (*_ENDS4, *_COUNTS, *_REST)
IPV4_NAT = (*_ENDS4, *_COUNTS, *_NAT, *_REST)
IPV6 = (*_ENDS6, *_COUNTS, *_REST)
TEMPLATES = frozenset({IPV4, IPV4_NAT, IPV6})
"""Element and length of each field, in the order that only pflow(4) has."""
