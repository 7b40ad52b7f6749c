"""Encoders of what firewalls, routers, hosts and an IDS really send, for the demo only.

NetFlow v5 (Cisco, tables B-3 and B-4), syslog (RFC 5424), Suricata EVE JSON, and pcap files of pflog packets with the
100-byte header of OpenBSD (sys/net/if_pflog.h).
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

PASS, BLOCK = 0, 1
SYN, ACK, PSH, FIN = 0x02, 0x10, 0x08, 0x01
WHOLE_SESSION = SYN | ACK | PSH | FIN
TCP, UDP = 6, 17
_NO_SUBRULE = 0xFFFFFFFF
_PROTOCOLS = {TCP: "TCP", UDP: "UDP"}


@dataclass(frozen=True, slots=True)
class Talk:
    """One connection: who, to whom, on which service, and how much; times are microseconds."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    protocol: int
    start_us: int
    end_us: int
    packets: int = 12
    bytes: int = 4_200
    back_packets: int = 14
    back_bytes: int = 18_000


def netflow_v5(talks: list[Talk], sequence: int, boot_us: int, now_us: int) -> bytes:
    """One datagram with two records a talk, one per direction, as an exporter on the path sees it (one if unanswered)."""
    records = []
    for talk in talks:
        flags = (WHOLE_SESSION if talk.back_packets else SYN) if talk.protocol == TCP else 0
        records.append(_v5_record(talk, boot_us, flags, reverse=False))
        if talk.back_packets:
            records.append(_v5_record(talk, boot_us, flags, reverse=True))
    uptime = (now_us - boot_us) // 1000
    header = struct.pack(
        ">HHIIIIBBH", 5, len(records), uptime, now_us // 1_000_000, now_us % 1_000_000 * 1000, sequence, 0, 0, 0
    )
    return header + b"".join(records)


def _v5_record(talk: Talk, boot_us: int, flags: int, reverse: bool) -> bytes:
    ends = [(talk.source, talk.source_port), (talk.destination, talk.destination_port)]
    (source, source_port), (destination, destination_port) = reversed(ends) if reverse else ends
    packets, octets = (talk.back_packets, talk.back_bytes) if reverse else (talk.packets, talk.bytes)
    first, last = (talk.start_us - boot_us) // 1000, (talk.end_us - boot_us) // 1000
    return struct.pack(
        ">4s4sIHHIIIIHHBBBBHHBBH",
        socket.inet_aton(source), socket.inet_aton(destination), 0, 2 if reverse else 1, 1 if reverse else 2, packets, octets,
        first, last, source_port, destination_port, 0, flags, talk.protocol, 0, 0, 0, 24, 24, 0,
    )  # fmt: skip


def syslog_5424(at_us: int, host: str, program: str, pid: int, message: str, severity: int = 6) -> bytes:
    """An RFC 5424 message of facility auth (4)."""
    return f"<{4 * 8 + severity}>1 {iso(at_us)} {host} {program} {pid} - - {message}".encode()


def eve_flow(talk: Talk, flow_id: int, app: str | None = None) -> dict[str, object]:
    """An EVE flow record as Suricata writes it when a flow ends."""
    answered = talk.back_packets > 0
    return {
        **_eve_head(talk, flow_id, "flow", talk.end_us),
        **({"app_proto": app} if app else {}),
        "flow": {
            "pkts_toserver": talk.packets, "pkts_toclient": talk.back_packets, "bytes_toserver": talk.bytes, "bytes_toclient": talk.back_bytes,
            "start": _eve_time(talk.start_us), "end": _eve_time(talk.end_us), "age": (talk.end_us - talk.start_us) // 1_000_000,
            "state": "closed" if answered else "new", "reason": "timeout", "alerted": False,
        },
        **({"tcp": {"tcp_flags_ts": "1b" if answered else "02", "tcp_flags_tc": "1b" if answered else "00"}} if talk.protocol == TCP else {}),
    }  # fmt: skip


def eve_tls(talk: Talk, flow_id: int, name: str) -> dict[str, object]:
    """An EVE tls record."""
    tls = {"sni": name, "version": "TLS 1.3", "subject": f"CN={name}", "issuerdn": "CN=Example CA"}
    return {**_eve_head(talk, flow_id, "tls", talk.start_us + 20_000), "tls": tls}


def eve_dns(talk: Talk, flow_id: int, name: str, code: str = "NOERROR") -> dict[str, object]:
    """An EVE dns answer of version 2."""
    dns = {"version": 2, "type": "answer", "id": flow_id & 0xFFFF, "rrname": name, "rrtype": "A", "rcode": code}
    return {**_eve_head(talk, flow_id, "dns", talk.start_us + 3_000), "dns": dns}


def eve_ssh(talk: Talk, flow_id: int) -> dict[str, object]:
    """An EVE ssh record with the banners of both sides."""
    ssh = {
        "client": {"proto_version": "2.0", "software_version": "libssh2_1.10.0"},
        "server": {"proto_version": "2.0", "software_version": "OpenSSH_9.9"},
    }
    return {**_eve_head(talk, flow_id, "ssh", talk.start_us + 40_000), "ssh": ssh}


def eve_alert(talk: Talk, flow_id: int, signature_id: int, signature: str, severity: int) -> dict[str, object]:
    """An EVE alert of an IDS that only watches."""
    alert = {
        "action": "allowed",
        "gid": 1,
        "signature_id": signature_id,
        "rev": 1,
        "signature": signature,
        "category": "Attempted Access",
        "severity": severity,
    }
    return {**_eve_head(talk, flow_id, "alert", talk.start_us + 50_000), "direction": "to_server", "alert": alert}


def _eve_head(talk: Talk, flow_id: int, kind: str, at_us: int) -> dict[str, object]:
    return {
        "timestamp": _eve_time(at_us), "flow_id": flow_id, "in_iface": "tap0", "event_type": kind, "src_ip": talk.source, "src_port": talk.source_port,
        "dest_ip": talk.destination, "dest_port": talk.destination_port, "proto": _PROTOCOLS[talk.protocol],
    }  # fmt: skip


def eve_line(record: dict[str, object]) -> bytes:
    """A record as a line."""
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def iso(at_us: int) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_us % 1_000_000:06d}Z"


def _eve_time(at_us: int) -> str:
    return iso(at_us).replace("Z", "+0000")


PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 117)


def pflog(talk: Talk, action: int, interface: str, anchor: str, rule: int, subrule: int | None, at_us: int) -> bytes:
    """A pcap record: a pflog header, then the first packet of the talk, going in on an interface."""
    packet = _ip(talk)
    header = struct.pack(
        ">BBBB16s16sIIIiIiBBBx16s16sHH",
        100, socket.AF_INET if ":" not in talk.source else 24, action, 0, interface.encode(), anchor.encode(), rule,
        _NO_SUBRULE if subrule is None else subrule, 0xFFFFFFFF, 0, 0, 4711, 1, 0, 2, b"", b"", 0, 0,
    )  # fmt: skip
    data = header + packet
    return struct.pack("<IIII", at_us // 1_000_000, at_us % 1_000_000, len(data), len(data)) + data


def _ip(talk: Talk) -> bytes:
    if talk.protocol == TCP:
        transport = struct.pack(">HHIIBBHHH", talk.source_port, talk.destination_port, 1, 0, 5 << 4, SYN, 65_535, 0, 0)
    else:
        transport = struct.pack(">HHHH", talk.source_port, talk.destination_port, 8, 0)
    if ":" in talk.source:
        head = struct.pack(">IHBB", 6 << 28, len(transport), talk.protocol, 64)
        return (
            head
            + socket.inet_pton(socket.AF_INET6, talk.source)
            + socket.inet_pton(socket.AF_INET6, talk.destination)
            + transport
        )
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(transport), 1, 0, 64, talk.protocol, 0)
    return head + socket.inet_aton(talk.source) + socket.inet_aton(talk.destination) + transport
