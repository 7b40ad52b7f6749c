"""One story in five scenes, told by four sensors: a firewall (pflog), a router (NetFlow), hosts (syslog), an IDS (EVE).

A camera in the segment `iot` scans the finance servers (every boundary holds), guesses ssh passwords on a public server
(the boundary iot -> public-servers fails: a rule is too wide), logs in, and tries to hop on from there (held again).
Everything before and beside it is ordinary work. The story is the same in every run, but for its start time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

from ringfence.demo import exporters
from ringfence.demo.exporters import BLOCK, PASS, TCP, UDP, Talk

CAMERA = "10.10.30.66"
WEB = "10.10.20.5"
RESOLVER = "10.10.20.53"
DATABASE = "10.10.11.7"
_SECOND = 1_000_000
_SCANNED_PORTS = (21, 22, 23, 25, 80, 110, 135, 139, 143, 443, 445, 1433, 3306, 3389, 5432, 5900, 8080, 8443)
_GUESSES = 40


@dataclass
class Scene:
    """What every sensor writes during one part of the story."""

    title: str
    pflog: list[bytes] = field(default_factory=list)
    netflow: list[Talk] = field(default_factory=list)
    syslog: list[bytes] = field(default_factory=list)
    eve: list[bytes] = field(default_factory=list)
    broken_netflow: bytes = b""


class Storyteller:
    """Makes the scenes for a start time."""

    def __init__(self, start_us: int) -> None:
        self._now = start_us
        self._random = random.Random(1066)
        self._flow_id = 1_000_000_000_000

    def scenes(self) -> Iterator[Scene]:
        """The scenes in order."""
        yield self._ordinary_work("An ordinary hour of work in three tenants")
        yield self._scan("A camera in iot scans the finance servers")
        yield self._password_guessing("It guesses ssh passwords on a public server, and gets in")
        yield self._hop("From there it tries to hop on to the finance servers and to management")
        yield self._ordinary_work("Work goes on; two records arrive broken", broken=True)

    def _ordinary_work(self, title: str, broken: bool = False) -> Scene:
        scene = Scene(title)
        for index in range(60):
            user = f"10.10.10.{20 + index % 40}"
            self._web(scene, self._talk(user, WEB, 443), "www.example.org")
            self._lookup(scene, self._talk(user, RESOLVER, 53, UDP), "www.example.org")
            if index % 3 == 0:
                self._passed(scene, self._talk(user, DATABASE, 5432), "vlan10", "finance", 4, 1)
            if index % 4 == 0:
                self._passed(scene, self._talk(f"10.10.30.{10 + index % 20}", "10.10.20.8", 8883), "vlan30", "building", 6, 0)
            if index % 5 == 0:
                self._web(scene, self._talk(f"198.51.100.{index}", WEB, 443), "www.example.org")
        visitor = self._talk("2001:db8:10::25", "2001:db8:20::5", 443)
        scene.pflog.append(exporters.pflog(visitor, PASS, "vlan10", "finance", 4, 0, visitor.start_us))
        for host in (WEB, DATABASE):
            self._administration(scene, host)
        # management is let down: the firewall blocks what intent allows
        refused = self._talk("192.168.1.10", "10.10.30.20", 22, answered=False)
        scene.pflog.append(exporters.pflog(refused, BLOCK, "em0", "", 12, None, refused.start_us))
        if broken:
            scene.eve.append(
                b'{"timestamp":"2026-13-45T99:00:00.000000+0000","event_type":"flow","src_ip":"10.10.10.20","proto":"TCP"}\n'
            )
            talk = self._talk("10.10.10.20", WEB, 443)
            scene.broken_netflow = exporters.netflow_v5([talk], 0, talk.start_us - 60 * _SECOND, talk.end_us)[:-7]
        return scene

    def _administration(self, scene: Scene, host: str) -> None:
        talk = self._talk("192.168.1.10", host, 22)
        self._passed(scene, talk, "em0", "", 3, None)
        line = f"Accepted publickey for ops from 192.168.1.10 port {talk.source_port} ssh2: ED25519 SHA256:Zm9v"
        scene.syslog.append(exporters.syslog_5424(talk.start_us, f"host-{host.rsplit('.', 1)[1]}", "sshd", 4000, line))

    def _scan(self, scene_title: str) -> Scene:
        scene = Scene(scene_title)
        for host in range(5, 15):
            for port in _SCANNED_PORTS:
                attempt = self._talk(CAMERA, f"10.10.11.{host}", port, answered=False)
                scene.pflog.append(exporters.pflog(attempt, BLOCK, "vlan30", "building", 6, 9, attempt.start_us))
        alert = self._talk(CAMERA, "10.10.11.5", 3389, answered=False)
        scene.eve.append(
            exporters.eve_line(
                exporters.eve_alert(alert, self._next_flow(), 2_010_935, "SCAN suspicious inbound to many ports", 2)
            )
        )
        return scene

    def _password_guessing(self, title: str) -> Scene:
        scene = Scene(title)
        for index in range(_GUESSES):
            talk = self._talk(CAMERA, WEB, 22)
            self._breach(scene, talk)
            user = ("root", "admin", "deploy", "pi")[index % 4]
            last = index == _GUESSES - 1
            words = (
                "Accepted password for deploy"
                if last
                else f"Failed password for {'invalid user ' if user == 'pi' else ''}{user}"
            )
            line = f"{words} from {CAMERA} port {talk.source_port} ssh2"
            scene.syslog.append(exporters.syslog_5424(talk.start_us, "web-5", "sshd", 5000 + index, line, 6 if last else 5))
        return scene

    def _breach(self, scene: Scene, talk: Talk) -> None:
        scene.pflog.append(exporters.pflog(talk, PASS, "vlan30", "building", 6, 3, talk.start_us))
        flow = self._next_flow()
        scene.eve += [
            exporters.eve_line(exporters.eve_ssh(talk, flow)),
            exporters.eve_line(exporters.eve_flow(talk, flow, "ssh")),
        ]

    def _hop(self, title: str) -> Scene:
        scene = Scene(title)
        targets = [(DATABASE, port) for port in (22, 445, 3389, 5985)] + [(f"10.10.11.{host}", 22) for host in range(8, 13)]
        targets += [("192.168.1.1", 22), ("192.168.1.10", 22)]
        for host, port in targets:
            attempt = self._talk(WEB, host, port, answered=False)
            scene.pflog.append(exporters.pflog(attempt, BLOCK, "vlan20", "public", 8, 5, attempt.start_us))
        # the router saw a probe that nobody answered: one-sided evidence, so nothing is proven
        scene.netflow.append(self._talk(WEB, DATABASE, 161, UDP, answered=False))
        return scene

    def _web(self, scene: Scene, talk: Talk, name: str) -> None:
        flow = self._next_flow()
        scene.netflow.append(talk)
        scene.eve += [
            exporters.eve_line(exporters.eve_tls(talk, flow, name)),
            exporters.eve_line(exporters.eve_flow(talk, flow, "tls")),
        ]

    def _lookup(self, scene: Scene, talk: Talk, name: str) -> None:
        scene.eve.append(exporters.eve_line(exporters.eve_dns(talk, self._next_flow(), name)))

    def _passed(self, scene: Scene, talk: Talk, interface: str, anchor: str, rule: int, subrule: int | None) -> None:
        scene.netflow.append(talk)
        scene.pflog.append(exporters.pflog(talk, PASS, interface, anchor, rule, subrule, talk.start_us))

    def _talk(self, source: str, destination: str, port: int, protocol: int = TCP, answered: bool = True) -> Talk:
        self._now += self._random.randrange(10_000, 200_000)
        lasts = self._random.randrange(50_000, 900_000)
        back = (14, 18_000) if answered else (0, 0)
        return Talk(
            source,
            self._random.randrange(32_768, 60_999),
            destination,
            port,
            protocol,
            self._now,
            self._now + lasts,
            12,
            4_200,
            *back,
        )

    def _next_flow(self) -> int:
        self._flow_id += self._random.randrange(1, 1_000_000)
        return self._flow_id
