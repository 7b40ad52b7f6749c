"""A capture of whole sessions for an IDS to read: http, dns, tls and ssh, with handshakes, answers and correct checksums."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.certificates import Pair

CLIENT, SERVER = "10.1.0.5", "10.2.0.9"
START_S = 1_795_592_663  # 2026-11-25T07:44:23Z
HTTP_PORT, DNS_PORT, TLS_PORT, SSH_PORT = 80, 53, 443, 22
_FIN, _SYN, _PSH, _ACK = 1, 2, 8, 16
_STEP_US = 1_000

Said = tuple[bool, bytes]
"""What one side says: True when it is the client."""


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _packet(from_client: bool, protocol: int, segment: bytes, checksum_at: int) -> bytes:
    """An Ethernet frame; the checksum of the segment is put into it."""
    source, destination = (socket.inet_aton(end) for end in ((CLIENT, SERVER) if from_client else (SERVER, CLIENT)))
    pseudo = source + destination + struct.pack(">BBH", 0, protocol, len(segment))
    summed = _checksum(pseudo + segment)
    segment = segment[:checksum_at] + struct.pack(">H", summed) + segment[checksum_at + 2 :]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, protocol, 0) + source + destination
    head = head[:10] + struct.pack(">H", _checksum(head)) + head[12:]
    macs = (b"\x02\0\0\0\0\x02" + b"\x02\0\0\0\0\x01") if from_client else (b"\x02\0\0\0\0\x01" + b"\x02\0\0\0\0\x02")
    return macs + b"\x08\0" + head + segment


@dataclass
class _Tcp:
    """One connection: its ports and the next sequence number of each side."""

    client_port: int
    server_port: int
    client_next: int = 1_000
    server_next: int = 9_000

    def segment(self, from_client: bool, flags: int, payload: bytes = b"") -> bytes:
        ports = (self.client_port, self.server_port) if from_client else (self.server_port, self.client_port)
        numbers = (self.client_next, self.server_next) if from_client else (self.server_next, self.client_next)
        acked = numbers[1] if flags & _ACK else 0
        header = struct.pack(">HHIIBBHHH", *ports, numbers[0], acked, 5 << 4, flags, 65_535, 0, 0)
        used = len(payload) + bool(flags & (_SYN | _FIN))
        if from_client:
            self.client_next += used
        else:
            self.server_next += used
        return _packet(from_client, 6, header + payload, 16)


def _session(client_port: int, server_port: int, talk: list[Said]) -> Iterator[bytes]:
    """A connection from handshake to the last ACK; every segment is acknowledged by the other side."""
    tcp = _Tcp(client_port, server_port)
    yield tcp.segment(True, _SYN)
    yield tcp.segment(False, _SYN | _ACK)
    yield tcp.segment(True, _ACK)
    for from_client, said in talk:
        for start in range(0, len(said), 1_400):
            yield tcp.segment(from_client, _PSH | _ACK, said[start : start + 1_400])
            yield tcp.segment(not from_client, _ACK)
    yield tcp.segment(True, _FIN | _ACK)
    yield tcp.segment(False, _FIN | _ACK)
    yield tcp.segment(True, _ACK)


def _datagram(from_client: bool, client_port: int, payload: bytes) -> bytes:
    ports = (client_port, DNS_PORT) if from_client else (DNS_PORT, client_port)
    return _packet(from_client, 17, struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload, 6)


def _http() -> list[Said]:
    body = b"<html>nothing to see</html>"
    answer = b"HTTP/1.1 404 Not Found\r\nServer: small\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body)
    return [(True, b"GET /admin?id=7 HTTP/1.1\r\nHost: intra.test\r\nUser-Agent: probe/1.0\r\n\r\n"), (False, answer + body)]


def _ssh() -> list[Said]:
    """Banners and the key exchange lists of both sides (RFC 4253 7.1)."""
    lists = [b"curve25519-sha256", b"ssh-ed25519", *[b"aes128-ctr"] * 2, *[b"hmac-sha2-256"] * 2, *[b"none"] * 2, b"", b""]
    init = b"\x14" + bytes(16) + b"".join(struct.pack(">I", len(names)) + names for names in lists) + bytes(5)
    padding = 8 - (len(init) + 5) % 8 + 8
    packet = struct.pack(">IB", len(init) + 1 + padding, padding) + init + bytes(padding)
    return [(True, b"SSH-2.0-OpenSSH_9.9\r\n"), (False, b"SSH-2.0-OpenSSH_10.0\r\n"), (True, packet), (False, packet)]


def _tls(server: Pair) -> list[Said]:
    """A real handshake of TLS 1.2, whose certificate can be read on the wire, between two ends in memory."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.check_hostname, ours.verify_mode = False, ssl.CERT_NONE
    ours.maximum_version = ssl.TLSVersion.TLSv1_2
    theirs.load_cert_chain(server.certificate, server.key)
    to_client, from_client, to_server, from_server = (ssl.MemoryBIO() for _ in range(4))
    client = ours.wrap_bio(to_client, from_client, server_hostname="db.test")
    ends = (
        (True, client, from_client, to_server),
        (False, theirs.wrap_bio(to_server, from_server, server_side=True), from_server, to_client),
    )
    talk: list[Said] = []
    while not all(end.version() for _, end, _, _ in ends) or to_client.pending:
        for is_client, end, said, heard in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
            if data := said.read():
                talk.append((is_client, data))
                heard.write(data)
    client.write(b"GET / HTTP/1.0\r\n\r\n")
    return [*talk, (True, from_client.read())]


def _question(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return labels + b"\0\0\1\0\1"


def _dns(name: str, number: int) -> tuple[bytes, bytes]:
    """A question for an address, and its answer (RFC 1035 4)."""
    question = _question(name)
    ask = struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + question
    answer = struct.pack(">HHHHHH", number, 0x8180, 1, 1, 0, 0) + question
    return ask, answer + b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 60, 4) + socket.inet_aton("203.0.113.7")


def capture(server: Pair) -> bytes:
    """The pcap file (DLT_EN10MB)."""
    ask, answer = _dns("www.example.test", 4711)
    packets = [
        *_session(40_001, HTTP_PORT, _http()),
        _datagram(True, 53_001, ask),
        _datagram(False, 53_001, answer),
        *_session(40_002, TLS_PORT, _tls(server)),
        *_session(40_003, SSH_PORT, _ssh()),
    ]
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1)]
    for number, packet in enumerate(packets):
        micros = number * _STEP_US
        parts.append(struct.pack("<IIII", START_S + micros // 1_000_000, micros % 1_000_000, len(packet), len(packet)) + packet)
    return b"".join(parts)
