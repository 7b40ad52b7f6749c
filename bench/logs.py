"""Corpora of text logs: the connections of `bench/corpus.py` as Zeek, pfSense, Linux, tcpdump and Cilium tell them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from bench.corpus import START_US, V6_SHARE, Network
from ringfence.demo.exporters import TCP, Talk, iso

_Fields = dict[str, Any]
_UID = "CHhAvVGS1DHFjwGM9"
_V6_LENGTH = 60


def _each(count: int, v6_share: float, line: Callable[[Talk, int, random.Random], str]) -> Iterator[bytes]:
    network = Network(v6_share)
    for number in range(count):
        talk = network.talk(START_US + number * 200)
        yield line(talk, number, network.draw).encode() + b"\n"


def zeek_json(lines: int) -> Iterator[bytes]:
    """Zeek logs as JSON lines: of ten six are of conn, two of dns, one each of http and ssl."""
    return _each(lines, V6_SHARE, lambda talk, number, draw: json.dumps(_ZEEK[number % 10](talk, draw), separators=(",", ":")))


def _zeek_head(talk: Talk, port: int, protocol: str) -> _Fields:
    ends = {"id.orig_h": talk.source, "id.orig_p": talk.source_port, "id.resp_h": talk.destination, "id.resp_p": port}
    return {"ts": talk.start_us / 1e6, "uid": _UID, **ends, "proto": protocol}


def _conn(talk: Talk, draw: random.Random) -> _Fields:
    answered = talk.back_packets > 0
    is_tcp = talk.protocol == TCP
    state, history = ("SF", "ShADadFf" if is_tcp else "Dd") if answered else ("S0", "S" if is_tcp else "D")
    sizes = {"duration": (talk.end_us - talk.start_us) / 1e6, "orig_bytes": talk.bytes, "resp_bytes": talk.back_bytes}
    counts = {
        "orig_pkts": talk.packets, "orig_ip_bytes": talk.bytes + 40 * talk.packets,
        "resp_pkts": talk.back_packets, "resp_ip_bytes": talk.back_bytes + 40 * talk.back_packets,
    }  # fmt: skip
    return {
        **_zeek_head(talk, talk.destination_port, "tcp" if is_tcp else "udp"), **(sizes if answered else {}), "conn_state": state,
        "local_orig": True, "local_resp": True, "missed_bytes": 0, "history": history, **counts,
    }  # fmt: skip


def _dns(talk: Talk, draw: random.Random) -> _Fields:
    return {
        **_zeek_head(talk, 53, "udp"), "trans_id": draw.randrange(65_536), "rtt": 0.02, "query": f"www{draw.randrange(9999)}.example.com", "qclass": 1,
        "qclass_name": "C_INTERNET", "qtype": 1, "qtype_name": "A", "rcode": 0, "rcode_name": "NOERROR", "AA": False, "TC": False, "RD": True,
        "RA": True, "Z": 0, "answers": ["192.0.2.7", "192.0.2.8"], "TTLs": [300.0, 300.0], "rejected": False,
    }  # fmt: skip


def _http(talk: Talk, draw: random.Random) -> _Fields:
    head = _zeek_head(talk, 80, "tcp")
    del head["proto"]
    return {
        **head, "trans_depth": 1, "method": "GET", "host": "intra.example", "uri": f"/page/{draw.randrange(10**6)}", "version": "1.1",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "request_body_len": 0, "response_body_len": talk.back_bytes,
        "status_code": 200, "status_msg": "OK", "tags": [], "resp_fuids": ["FMnxxt3xjVcWNS2141"], "resp_mime_types": ["text/html"],
    }  # fmt: skip


def _ssl(talk: Talk, draw: random.Random) -> _Fields:
    head = _zeek_head(talk, 443, "tcp")
    del head["proto"]
    return {
        **head, "version": "TLSv13", "cipher": "TLS_AES_256_GCM_SHA384", "curve": "x25519", "server_name": f"host{draw.randrange(9999)}.example.org",
        "resumed": False, "established": True, "ssl_history": "CsiI",
    }  # fmt: skip


_ZEEK = (*[_conn] * 6, _dns, _dns, _http, _ssl)
_TSV_FIELDS = [
    "ts",
    "uid",
    "id.orig_h",
    "id.orig_p",
    "id.resp_h",
    "id.resp_p",
    "proto",
    "service",
    "duration",
    "orig_bytes",
    "resp_bytes",
    "conn_state",
    "local_orig",
    "local_resp",
    "missed_bytes",
    "history",
    "orig_pkts",
    "orig_ip_bytes",
    "resp_pkts",
    "resp_ip_bytes",
    "tunnel_parents",
]


def zeek_tsv(lines: int) -> Iterator[bytes]:
    """A conn.log, tab-separated, under its header."""
    yield b"#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
    yield f"#fields\t{chr(9).join(_TSV_FIELDS)}\n".encode()
    yield from _each(lines, V6_SHARE, lambda talk, number, draw: "\t".join(map(_cell, _cells(_conn(talk, draw)))))


def _cells(record: _Fields) -> Iterator[Any]:
    return (record.get(name) for name in _TSV_FIELDS)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "F"
    return "-" if value is None else f"{value:.6f}" if isinstance(value, float) else str(value)


def filterlog(lines: int) -> Iterator[bytes]:
    """filterlog of pfSense over syslog (RFC 3164), one of three lines a block."""
    return _each(lines, 0, _filterlog)


def _filterlog(talk: Talk, number: int, draw: random.Random) -> str:
    rule = draw.randrange(40)
    action = "block" if draw.random() < 0.33 else "pass"
    head = f"<134>{_stamp(talk)} filterlog[3542]: {rule},,,{1_000_000_100 + rule},igb{rule % 4},match,{action},in,4,0x0,,64,{number % 65_536},0,DF"
    ends = f"{talk.source},{talk.destination},{talk.source_port},{talk.destination_port}"
    if talk.protocol == TCP:
        return f"{head},6,tcp,60,{ends},0,S,{draw.getrandbits(32)},,65535,,mss;nop;wscale"
    return f"{head},17,udp,72,{ends},52"


def netfilter(lines: int) -> Iterator[bytes]:
    """Log lines of nftables with the prefix that names the action, as a syslog relay writes them."""
    return _each(lines, V6_SHARE, _netfilter)


def _netfilter(talk: Talk, number: int, draw: random.Random) -> str:
    action = "drop" if draw.random() < 0.33 else "accept"
    head = f"<4>{_stamp(talk)} fw{number % 4} kernel: nft {action} IN=eth0.{100 + number % 40} OUT=eth1 MAC=50:00:00:04:00:00:50:00:00:06:00:00:08:00"
    if ":" in talk.source:
        addresses = f"SRC={talk.source} DST={talk.destination} LEN={_V6_LENGTH} TC=0 HOPLIMIT=63 FLOWLBL=0"
    else:
        addresses = f"SRC={talk.source} DST={talk.destination} LEN=60 TOS=0x00 PREC=0x00 TTL=63 ID={number % 65_536} DF"
    ports = f"SPT={talk.source_port} DPT={talk.destination_port}"
    if talk.protocol == TCP:
        return f"{head} {addresses} PROTO=TCP {ports} WINDOW=64240 RES=0x00 SYN URGP=0 "
    return f"{head} {addresses} PROTO=UDP {ports} LEN=40 "


def pflog_text(lines: int) -> Iterator[bytes]:
    """What `tcpdump -n -e -tttt` of tcpdump.org prints of pflog."""
    return _each(lines, 0.1, _pflog_text)


def _pflog_text(talk: Talk, number: int, draw: random.Random) -> str:
    rule = draw.randrange(40)
    action = "block" if draw.random() < 0.33 else "pass"
    when = iso(talk.start_us)[:-1].replace("T", " ")
    ends = f"{talk.source}.{talk.source_port} > {talk.destination}.{talk.destination_port}"
    what = "Flags [S], seq 1, win 65535, length 0" if talk.protocol == TCP else "UDP, length 40"
    return f"{when} rule {rule}.tenant{rule % 10}.{rule % 7}/0(match): {action} in on vlan{100 + rule}: {ends}: {what}"


def hubble(lines: int) -> Iterator[bytes]:
    """Cilium Hubble flows as JSON lines, one of three dropped."""
    return _each(lines, V6_SHARE, lambda talk, number, draw: json.dumps(_hubble(talk, number, draw), separators=(",", ":")))


def _hubble(talk: Talk, number: int, draw: random.Random) -> _Fields:
    dropped = draw.random() < 0.33
    protocol = "TCP" if talk.protocol == TCP else "UDP"
    ports: _Fields = {"source_port": talk.source_port, "destination_port": talk.destination_port}
    node, when = f"kind/worker-{number % 4}", iso(talk.start_us)
    flow = {
        "time": when, "uuid": "6a0a1e2e-0000-4000-8000-000000000001", "verdict": "DROPPED" if dropped else "FORWARDED",
        "ethernet": {"source": "0a:00:00:00:00:01", "destination": "0a:00:00:00:00:02"},
        "IP": {"source": talk.source, "destination": talk.destination, "ipVersion": "IPv6" if ":" in talk.source else "IPv4"},
        "l4": {protocol: {**ports, **({"flags": {"SYN": True}} if protocol == "TCP" else {})}},
        "source": {"ID": 7, "identity": 100, "namespace": "finance", "labels": ["k8s:app=web"], "pod_name": f"web-{number % 50}"},
        "destination": {"ID": 8, "identity": 101, "namespace": "public", "labels": ["k8s:app=api"], "pod_name": f"api-{number % 9}"},
        "Type": "L3_L4", "node_name": node, "event_type": {"type": 1 if dropped else 4}, "traffic_direction": "INGRESS", "is_reply": False,
        **({"drop_reason": 133, "drop_reason_desc": "POLICY_DENIED"} if dropped else {}),
    }  # fmt: skip
    return {"flow": flow, "node_name": node, "time": when}


def _stamp(talk: Talk) -> str:
    return datetime.fromtimestamp(talk.start_us // 1_000_000, UTC).strftime("%b %e %H:%M:%S")
