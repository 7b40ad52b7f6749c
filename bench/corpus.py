"""Deterministic synthetic corpora, which `bench/write.py` writes to a folder once and every measurement reads.

About 5,000 hosts with Zipf-like popularity live in 60 segments or outside; four connections of ten cross a boundary.
EVE records carry the many fields of Suricata's own that nobody projects, so that their size is real (700-800 bytes).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from ringfence.demo.exporters import (
    BLOCK,
    PASS,
    PCAP_HEADER,
    TCP,
    UDP,
    Talk,
    eve_line,
    iso,
    netflow_v5,
    pflog,
    syslog_5424,
)  # fmt: skip

SEED = 20_261_125
START_US = 1_795_592_663_000_000  # 2026-11-25T07:44:23Z
SEGMENTS = 60
HOSTS = 5_000
CROSSING = 0.43  # some that are drawn to cross stay inside by chance
V6_SHARE = 0.08
ROLES = ("users", "servers", "management", "iot", "guest", "voice")
SERVICES = {
    "https": "tcp/443", "http": "tcp/80", "ssh": "tcp/22", "dns": "[udp/53, tcp/53]", "smb": "tcp/445", "rdp": "tcp/3389",
    "postgres": "tcp/5432", "mqtts": "tcp/8883", "ldaps": "tcp/636", "ntp": "udp/123", "syslog": "tcp/6514", "kafka": "tcp/9092",
}  # fmt: skip
PORTS = (
    (443, TCP),
    (80, TCP),
    (53, UDP),
    (22, TCP),
    (445, TCP),
    (3389, TCP),
    (5432, TCP),
    (8883, TCP),
    (123, UDP),
    (9092, TCP),
)
_PORT_WEIGHTS = (30, 14, 22, 6, 8, 3, 5, 4, 4, 4)
EVE_KINDS = {"flow": 45, "dns": 22, "tls": 13, "http": 12, "alert": 6, "ssh": 2}


@dataclass(frozen=True)
class Sizes:
    """How many events of each kind a run uses."""

    eve: int = 50_000
    netflow: int = 300_000
    pflog: int = 200_000
    syslog: int = 50_000
    logs: int = 30_000
    beats: int = 20_000
    processes: int = 40_000


FULL = Sizes()
QUICK = Sizes(10_000, 60_000, 50_000, 10_000, 6_000, 4_000, 4_000)


def topology() -> str:
    """60 segments with 200 prefixes, some of them nested, and 150 intents."""
    draw = random.Random(SEED)
    lines = ["default_intent: deny", "segments:"]
    for number in range(SEGMENTS):
        networks = [f"10.{number}.0.0/18", f"172.{16 + number % 16}.{number // 16 * 16}.0/22", f'"2001:db8:{number:x}::/64"']
        if number % 3 == 0:  # a prefix inside that of the next segment: the longest must win
            networks.append(f"10.{(number + 1) % SEGMENTS}.{number}.0/24")
        tenant, role = f"tenant{number // 6}", ROLES[number % len(ROLES)]
        lines.append(
            f"  {_name(number)}: {{tenant: {tenant}, role: {role}, site: site{number % 3}, networks: [{', '.join(networks)}]}}"
        )
    lines += ["services:", *(f"  {name}: {ports}" for name, ports in SERVICES.items()), "intents:"]
    for _ in range(140):
        source, destination = draw.sample(range(SEGMENTS), 2)
        services = ", ".join(draw.sample(list(SERVICES), draw.randint(1, 4)))
        lines.append(f"  - {{from: {_name(source)}, to: {_name(destination)}, allow: [{services}]}}")
    for number in range(10):
        allowed = draw.choice(("[dns, ntp]", "[https]", "[ssh, syslog]"))
        ends = f'from: {_name(number * 6 + 2)}, to: "*"' if number % 2 else f'from: "role:users", to: {_name(number * 6 + 1)}'
        lines.append(f"  - {{{ends}, allow: {allowed}}}")
    return "\n".join(lines) + "\n"


def _name(number: int) -> str:
    return f"{ROLES[number % len(ROLES)]}-{number}"


class Network:
    """Hosts, and the connections between them."""

    def __init__(self, v6_share: float) -> None:
        self.draw = random.Random(SEED)
        self._v6_share = v6_share
        self._hosts = {False: self._population(False), True: self._population(True)}
        self._weights = {
            v6: list(accumulate(1 / (rank + 5) for rank in range(len(hosts)))) for v6, hosts in self._hosts.items()
        }
        self._members = {v6: self._by_segment(hosts) for v6, hosts in self._hosts.items()}

    def _population(self, v6: bool) -> list[tuple[int, str]]:
        hosts = []
        for rank in range(HOSTS // 10 if v6 else HOSTS * 9 // 10):
            number = self.draw.randrange(50) if rank % 6 else SEGMENTS  # one host of six is outside
            if v6:
                prefix = "2606:2800:220:1" if number == SEGMENTS else f"2001:db8:{number:x}:0"
                hosts.append((number, f"{prefix}:0:0:0:{rank + 1:x}"))
            elif number == SEGMENTS:
                hosts.append(
                    (number, f"{self.draw.choice((23, 45, 104, 151, 198))}.{rank >> 4 & 255}.{rank & 255}.{rank % 250 + 1}")
                )
            else:
                hosts.append((number, f"10.{number}.{rank >> 8 & 63}.{rank & 255}"))
        self.draw.shuffle(hosts)
        return hosts

    @staticmethod
    def _by_segment(hosts: list[tuple[int, str]]) -> dict[int, list[str]]:
        members: dict[int, list[str]] = {}
        for number, address in hosts:
            members.setdefault(number, []).append(address)
        return members

    def talk(self, at_us: int) -> Talk:
        """One connection; one of eight is not answered."""
        draw = self.draw
        v6 = draw.random() < self._v6_share
        number, source = self._popular(v6)
        _, destination = self._popular(v6)
        if draw.random() > CROSSING:
            destination = draw.choice(self._members[v6][number])
        port, protocol = draw.choices(PORTS, _PORT_WEIGHTS)[0]
        packets, back = draw.randint(2, 40), draw.randint(1, 60) if draw.random() < 0.875 else 0
        return Talk(
            source, draw.randint(32_768, 60_999), destination, port, protocol, at_us, at_us + draw.randint(1_000, 9_000_000),
            packets, packets * draw.randint(60, 900), back, back * draw.randint(60, 1_400),
        )  # fmt: skip

    def _popular(self, v6: bool) -> tuple[int, str]:
        return self.draw.choices(self._hosts[v6], cum_weights=self._weights[v6])[0]


def eve(count: int) -> Iterator[bytes]:
    """Suricata EVE JSON lines."""
    network = Network(V6_SHARE)
    kinds = network.draw.choices(list(EVE_KINDS), list(EVE_KINDS.values()), k=count)
    for number, kind in enumerate(kinds):
        talk = network.talk(START_US + number * 200)
        yield eve_line(_EVE[kind](talk, _head(talk, kind, number), network.draw))


_FIXED_PORT = {"dns": (53, UDP), "tls": (443, TCP), "http": (80, TCP), "ssh": (22, TCP)}
_GOLDEN = 0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C834
_Event = dict[str, Any]


def _head(talk: Talk, kind: str, number: int) -> _Event:
    port, protocol = _FIXED_PORT.get(kind, (talk.destination_port, talk.protocol))
    return {
        "timestamp": _eve_time(talk.end_us if kind == "flow" else talk.start_us), "flow_id": 1_000_000_000_000_000 + number * 7_919,
        "in_iface": "ens5f0np0", "event_type": kind, "vlan": [100 + number % 50], "src_ip": talk.source, "src_port": talk.source_port,
        "dest_ip": talk.destination, "dest_port": port, "proto": "TCP" if protocol == TCP else "UDP", "ip_v": 6 if ":" in talk.source else 4,
        "pkt_src": "wire/pcap", "community_id": f"1:{(number + 1) * _GOLDEN % (1 << 108):027x}=", "host": f"sensor-{number % 4}.example.net",
    }  # fmt: skip


def _flow_counts(talk: Talk) -> _Event:
    return {
        "pkts_toserver": talk.packets, "pkts_toclient": talk.back_packets, "bytes_toserver": talk.bytes,
        "bytes_toclient": talk.back_bytes, "start": _eve_time(talk.start_us),
    }  # fmt: skip


def _flow(talk: Talk, head: _Event, draw: random.Random) -> _Event:
    answered = talk.back_packets > 0
    flags = "1b" if answered else "02"
    back = "1b" if answered and draw.random() > 0.04 else "04" if answered else "00"
    flow = {
        **_flow_counts(talk), "end": _eve_time(talk.end_us), "age": (talk.end_us - talk.start_us) // 1_000_000,
        "state": "closed" if answered else "new", "reason": "timeout", "alerted": False, "exception_policy": [],
        **({"action": "drop"} if not answered and draw.random() < 0.4 else {}),
    }  # fmt: skip
    tcp = {
        "tcp_flags": flags, "tcp_flags_ts": flags, "tcp_flags_tc": back, "syn": True, "fin": answered, "psh": answered, "ack": answered,
        "state": "closed" if answered else "syn_sent", "ts_max_regions": 1, "tc_max_regions": 1,
    }  # fmt: skip
    app = {443: "tls", 80: "http", 53: "dns", 22: "ssh", 445: "smb"}.get(talk.destination_port, "failed")
    return {**head, "app_proto": app, "flow": flow, **({"tcp": tcp} if head["proto"] == "TCP" else {})}


def _dns(talk: Talk, head: _Event, draw: random.Random) -> _Event:
    name = f"{_word(draw)}.{_word(draw)}.example.com"
    query = {
        "type": "query",
        "id": draw.randrange(65_536),
        "rrname": name,
        "rrtype": draw.choice(("A", "AAAA", "HTTPS")),
        "tx_id": 0,
        "opcode": 0,
    }
    if not talk.back_packets:
        return {**head, "dns": {"version": 2, **query, "flags": "100", "rd": True}}
    answers = [{"rrname": name, "rrtype": "A", "ttl": 300, "rdata": f"203.0.113.{number}"} for number in range(1, 4)]
    answer = {
        "type": "answer",
        "flags": "8180",
        "qr": True,
        "rd": True,
        "ra": True,
        "rcode": draw.choice(("NOERROR", "NOERROR", "NXDOMAIN")),
    }
    grouped = {"A": ["203.0.113.1", "203.0.113.2", "203.0.113.3"]}
    return {**head, "dns": {"version": 2, **query, **answer, "answers": answers, "grouped": grouped}}


def _tls(talk: Talk, head: _Event, draw: random.Random) -> _Event:
    name = f"{_word(draw)}.example.org"
    server = {
        "subject": f"CN={name}", "issuerdn": "C=US, O=Example Trust Services, CN=Example CA 3", "serial": f"{draw.getrandbits(128):032X}",
        "fingerprint": ":".join(f"{draw.randrange(256):02x}" for _ in range(20)), "notbefore": "2026-01-01T00:00:00", "notafter": "2027-01-01T00:00:00",
        "version": "TLS 1.2", "ja3s": {"hash": f"{draw.getrandbits(128):032x}", "string": "771,49199,65281-0-11-16"},
    }  # fmt: skip
    ja3 = {"hash": f"{draw.getrandbits(128):032x}", "string": "771,4865-4866-4867-49195-49199,0-23-65281-10-11,29-23-24,0"}
    return {**head, "tls": {"sni": name, "ja3": ja3, **(server if talk.back_packets else {})}}


def _http(talk: Talk, head: _Event, draw: random.Random) -> _Event:
    answer = {"http_content_type": "text/html", "status": draw.choice((200, 200, 200, 304, 404)), "length": talk.back_bytes}
    http = {
        "hostname": f"{_word(draw)}.example.net", "url": f"/{_word(draw)}/{_word(draw)}?q={draw.randrange(10**6)}&lang=en", "http_method": "GET",
        "http_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "protocol": "HTTP/1.1",
        "http_refer": f"http://{_word(draw)}.example.net/index.html", **(answer if talk.back_packets else {}),
    }  # fmt: skip
    return {**head, "tx_id": 0, "http": http}


def _alert(talk: Talk, head: _Event, draw: random.Random) -> _Event:
    blocked = draw.random() < 0.2
    number = draw.randrange(400)
    alert = {
        "action": "blocked" if blocked else "allowed", "gid": 1, "signature_id": 2_000_000 + number, "rev": 3,
        "signature": f'ET POLICY "Example" Signature {number} Observed in Traffic', "category": "Potential Corporate Privacy Violation",
        "severity": number % 3 + 1, "metadata": {"created_at": ["2024_01_01"], "signature_severity": ["Informational"]},
    }  # fmt: skip
    direction = "to_client" if draw.random() < 0.25 else "to_server"
    return {**head, "app_proto": "http", "direction": direction, "alert": alert, "flow": _flow_counts(talk)}


def _ssh(talk: Talk, head: _Event, draw: random.Random) -> _Event:
    hassh = {
        "hash": f"{draw.getrandbits(128):032x}",
        "string": "curve25519-sha256,ecdh-sha2-nistp256;chacha20-poly1305;umac-64;none",
    }
    client = {"proto_version": "2.0", "software_version": "OpenSSH_9.9", "hassh": hassh}
    server = {"proto_version": "2.0", "software_version": "OpenSSH_10.0", "hassh": hassh}
    return {**head, "ssh": {"client": client, **({"server": server} if talk.back_packets else {})}}


_EVE = {"flow": _flow, "dns": _dns, "tls": _tls, "http": _http, "alert": _alert, "ssh": _ssh}
_SYLLABLES = ("ba", "ke", "mi", "no", "ru", "sta", "ver", "lin", "dor", "pex")


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(_SYLLABLES, k=3))


def _eve_time(at_us: int) -> str:
    return iso(at_us).replace("Z", "+0000")


def netflow(records: int) -> Iterator[bytes]:
    """NetFlow v5 datagrams of 30 records, two records a connection, one if it is not answered."""
    network = Network(0)
    boot_us, sequence = START_US - 86_400_000_000, 0
    while sequence < records:
        talks: list[Talk] = []
        room = 30
        while room:
            talk = network.talk(START_US + sequence * 100)
            talks.append(talk if room > 1 else replace(talk, back_packets=0))
            room -= 2 if talks[-1].back_packets else 1
        yield netflow_v5(talks, sequence, boot_us, START_US + 10_000_000 + sequence * 100)
        sequence += 30


def pcap(packets: int) -> Iterator[bytes]:
    """A pflog capture: first packets of connections, one of three blocked, one of ten IPv6."""
    network = Network(0.1)
    yield PCAP_HEADER
    for number in range(packets):
        talk = network.talk(START_US + number * 100)
        action = BLOCK if network.draw.random() < 0.33 else PASS
        rule = network.draw.randrange(40)
        yield pflog(talk, action, f"vlan{100 + rule}", f"tenant{rule % 10}", rule, rule % 7 or None, talk.start_us)


def syslog(lines: int) -> Iterator[bytes]:
    """Syslog lines, RFC 5424 and RFC 3164 by turns, one of five from sshd."""
    network = Network(V6_SHARE)
    for number in range(lines):
        talk, at_us = network.talk(START_US + number * 100), START_US + number * 100
        program, message = _message(talk, network.draw)
        host, pid = f"host{number % 200}", 1_000 + number % 30_000
        if number % 2:
            yield syslog_5424(at_us, host, program, pid, message) + b"\n"
        else:
            yield f"<38>Nov 25 {iso(at_us)[11:19]} {host} {program}[{pid}]: {message}\n".encode()


def beats(documents: int) -> Iterator[bytes]:
    """Documents of Winlogbeat of 2 to 3 KB: logons, processes of the audit log and of Sysmon, connections, their text included."""
    network = Network(V6_SHARE)
    for number in range(documents):
        talk, at_us = network.talk(START_US + number * 100), START_US + number * 100
        provider, event_id, data = _windows_event(talk, network.draw, number)
        host = f"ws{number % 200}"
        document = {
            "@timestamp": f"{iso(at_us)[:23]}Z", "@metadata": {"beat": "winlogbeat", "type": "_doc", "version": "9.1.0"},
            "event": {"code": event_id, "kind": "event", "provider": provider, "created": f"{iso(at_us)[:23]}Z"},
            "message": "An event occurred.\n\nSubject:\n" + "\tAccount Name:\t\tVAGRANT-2012-R2$\n" * 30,
            "host": {"name": f"{host}.example.net", "hostname": host, "architecture": "x86_64", "os": {"family": "windows", "version": "10.0"}},
            "agent": {"name": host, "type": "winlogbeat", "version": "9.1.0", "id": f"{number % 200:032x}"}, "ecs": {"version": "8.0.0"},
            "winlog": {
                "channel": "Security", "provider_name": provider, "event_id": event_id, "record_id": number, "computer_name": f"{host}.example.net",
                "opcode": "Info", "task": "Logon", "process": {"pid": 676, "thread": {"id": 720}}, "event_data": data,
            },
        }  # fmt: skip
        yield json.dumps(document, separators=(",", ":")).encode() + b"\n"


def _windows_event(talk: Talk, draw: random.Random, number: int) -> tuple[str, str, dict[str, str]]:
    user = {
        "SubjectUserName": _word(draw),
        "SubjectDomainName": "EXAMPLE",
        "SubjectUserSid": "S-1-5-21-1-2-3-500",
        "SubjectLogonId": "0x3e7",
    }
    image = f"C:\\Program Files\\{_word(draw)}\\{_word(draw)}.exe"
    sysmon = {
        "UtcTime": "2026-11-25 07:44:23.111",
        "ProcessGuid": f"{{{number:032x}}}",
        "ProcessId": str(number),
        "Image": image,
        "User": f"EXAMPLE\\{_word(draw)}",
    }
    logon = {
        "TargetUserName": _word(draw), "TargetDomainName": "EXAMPLE", "TargetUserSid": "S-1-5-21-1-2-3-1104", "LogonType": "3", "LogonProcessName": "NtLmSsp ",
        "AuthenticationPackageName": "NTLM", "WorkstationName": "WS9", "ProcessId": "0x0", "ProcessName": "-", "IpAddress": talk.source, "IpPort": str(talk.source_port),
    }  # fmt: skip
    started = {
        **sysmon, "CommandLine": f'"{image}" -k {number}', "ParentImage": "C:\\Windows\\explorer.exe", "ParentProcessId": "812", "IntegrityLevel": "High",
        "Company": "Example", "Product": _word(draw), "OriginalFileName": "a.exe", "Hashes": f"SHA256={number:064X},IMPHASH={number:032X}",
    }  # fmt: skip
    ends = {
        "SourceIp": talk.source,
        "SourcePort": str(talk.source_port),
        "DestinationIp": talk.destination,
        "DestinationPort": str(talk.destination_port),
    }
    audit, watcher = "Microsoft-Windows-Security-Auditing", "Microsoft-Windows-Sysmon"
    return draw.choice((
        (audit, "4624", {**user, **logon}),
        (audit, "4634", {name: logon[name] for name in ("TargetUserName", "TargetDomainName", "TargetUserSid", "LogonType")}),
        (audit, "4688", {**user, "NewProcessId": hex(number), "NewProcessName": image, "ProcessId": "0x2f4", "CommandLine": image}),
        (watcher, "1", started),
        (watcher, "3", {**sysmon, **ends, "Protocol": "tcp", "Initiated": "true"}),
    ))  # fmt: skip


def _message(talk: Talk, draw: random.Random) -> tuple[str, str]:
    if draw.random() < 0.2:
        word, method = draw.choice((("Accepted", "publickey"), ("Failed", "password")))
        return "sshd", f"{word} {method} for {_word(draw)} from {talk.source} port {talk.source_port} ssh2"
    return draw.choice((
        ("cron", "(root) CMD (run-parts /etc/cron.hourly)"),
        ("named", f"client @0x7f {talk.source}#{talk.source_port}: query: {_word(draw)}.example.com IN A + ({talk.destination})"),
        ("dhcpd", f"DHCPACK on {talk.source} to 52:54:00:12:34:56 via vlan{draw.randrange(4_000)}"),
        ("kernel", f"[{draw.randrange(10**6)}.{draw.randrange(10**6)}] nfs: server {_word(draw)} OK"),
    ))  # fmt: skip
