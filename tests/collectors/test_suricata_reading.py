"""Suricata itself reads a capture that we wrote, and its eve.json is decoded without a Problem."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from collectors.suricata import SuricataDecoder
from ringfence import registry
from ringfence.batch import EventClass
from ringfence.cli.decode import frames_in
from tests import certificates
from tests.collectors import sessions

CONFIG = """%YAML 1.1
---
vars:
  address-groups: {HOME_NET: "[10.0.0.0/8]", EXTERNAL_NET: any}
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      community-id: true
      types: [alert: {}, http: {extended: yes}, dns: {version: 2}, tls: {extended: yes}, ssh: {}, files: {}, flow: {}]
app-layer:
  protocols:
    http: {enabled: yes}
    tls: {enabled: yes, detection-ports: {dp: 443}, ja3-fingerprints: yes}
    ssh: {enabled: yes, hassh: yes}
    dns:
      udp: {enabled: yes, detection-ports: {dp: 53}}
flow: {memcap: 16mb, hash-size: 1024, prealloc: 16}
stream: {memcap: 16mb, reassembly: {memcap: 16mb}}
detect: {profile: low}
unix-command: {enabled: no}
"""
RULES = """alert http any any -> any any (msg:"admin page asked for"; flow:to_server,established; http.uri; content:"/admin"; sid:1000001; rev:1;)
alert tls any any -> any any (msg:"database by name"; tls.sni; content:"db.test"; sid:1000002; rev:2;)
"""
NEEDS = "needs suricata: apt-get install -y -t bookworm-backports suricata (Debian 12), else apt-get install -y suricata"
COMMAND = ("suricata", "-c", "suricata.yaml", "-S", "local.rules", "-r", "sessions.pcap", "-l", ".", "--runmode", "single")


def eve_of(folder: Path) -> Path:
    """What Suricata writes about the sessions."""
    server = certificates.issued(certificates.authority(folder / "tls"), "db.test")
    (folder / "sessions.pcap").write_bytes(sessions.capture(server))
    (folder / "suricata.yaml").write_text(CONFIG)
    (folder / "local.rules").write_text(RULES)
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "eve.json"


@certificates.needs_openssl
@pytest.mark.skipif(shutil.which("suricata") is None, reason=NEEDS)
def test_what_suricata_writes_of_whole_sessions_is_decoded_without_a_problem(tmp_path: Path) -> None:
    eve = eve_of(tmp_path)

    with eve.open("rb") as stream:
        decoder = SuricataDecoder()
        decoded = [decoder.feed(frames) for frames in frames_in(registry.formats()["eve"], stream, str(eve))]
    found: dict[EventClass, list[dict[str, Any]]] = {}
    for part in decoded:
        for event_class, frame in part.rows.items():
            found.setdefault(event_class, []).extend(frame.to_dicts())

    assert [problem for part in decoded for problem in part.problems] == []
    client, server = (int.from_bytes(socket.inet_aton(end), "big") for end in (sessions.CLIENT, sessions.SERVER))
    assert {(row["source.ip"], row["destination.ip"]) for row in found[EventClass.FLOW]} == {(client, server)}
    ports = sorted(row["destination.port"] for row in found[EventClass.FLOW])
    assert ports == [sessions.SSH_PORT, sessions.DNS_PORT, sessions.HTTP_PORT, sessions.TLS_PORT]
    (http,) = found[EventClass.HTTP]
    assert (http["url.original"], http["http.response.status_code"]) == ("/admin?id=7", 404)
    (tls,) = found[EventClass.TLS]
    assert (tls["tls.client.server_name"], tls["tls.server.subject"]) == ("db.test", "CN=db.test")
    (ssh,) = found[EventClass.SSH]
    assert (ssh["source.port"], ssh["destination.port"]) == (40_003, sessions.SSH_PORT)
    assert {row["dns.question.name"] for row in found[EventClass.DNS]} == {"www.example.test"}
    alerts = [(row["rule.id"], row["rule.name"], row["source.ip"]) for row in found[EventClass.ALERT]]
    assert sorted(alerts) == [("1000001", "admin page asked for", client), ("1000002", "database by name", client)]
