"""What the options of a syslog collector may be, the shell that they choose, and the port or file that they claim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from collectors.syslog import KIND
from collectors.syslog_settings import SyslogConfig
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from collectors.udp import UdpShell
from collectors.unix import UnixDatagramShell
from ringfence.component import BuildContext, Collector
from ringfence.topology import Topology
from tests.certificates import authority, needs_openssl


def build(**options: Any) -> Collector:
    return KIND.build(SyslogConfig(**options), BuildContext("hosts", Topology("", "deny", {}, {}, {}, ())))


def test_an_url_or_a_path_chooses_the_shell() -> None:
    assert isinstance(build(listen="udp://127.0.0.1:514").shell, UdpShell)
    assert isinstance(build(listen="tcp://[::1]:601").shell, TcpShell)
    assert isinstance(build(path="/var/log/auth.log").shell, TailShell)
    assert isinstance(build(listen="unix-dgram:///dev/log").shell, UnixDatagramShell)


@needs_openssl
def test_tls_needs_its_files_and_claims_the_tcp_port(tmp_path: Path) -> None:
    made = authority(tmp_path)
    tls = {"certificate": made.certificate, "key": made.key}

    collector = build(listen="tls://127.0.0.1:6514", tls=tls)

    assert isinstance(collector.shell, TcpShell)
    assert KIND.resources(SyslogConfig.model_validate({"listen": "tls://127.0.0.1:6514", "tls": tls})) == ["tcp 127.0.0.1:6514"]
    with pytest.raises(ValidationError, match="tls is required for listen: tls://HOST:PORT, and only for that"):
        build(listen="tcp://127.0.0.1:6514", tls=tls)
    with pytest.raises(ValidationError, match="tls certificate /lost cannot be read: No such file or directory"):
        build(listen="tls://127.0.0.1:6514", tls=tls | {"certificate": "/lost"})


def test_the_collector_claims_its_port_or_file() -> None:
    assert KIND.resources(SyslogConfig(listen="udp://127.0.0.1:514")) == ["udp 127.0.0.1:514"]
    assert KIND.resources(SyslogConfig(listen="unix-dgram:///dev/log")) == ["unix-dgram /dev/log"]
    assert KIND.resources(SyslogConfig(path=Path("/var/log/auth.log"))) == ["file /var/log/auth.log"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of listen and path is required"),
        ({"listen": "udp://h:1", "path": "/x"}, "exactly one of listen and path is required"),
        (
            {"listen": "http://h:1"},
            "'http://h:1' is not udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix-dgram:///PATH",
        ),
        ({"listen": "unix-dgram://log"}, "'unix-dgram://log' is not udp://HOST:PORT"),
        ({"listen": "tls://h:1"}, "tls is required for listen: tls://HOST:PORT, and only for that"),
        ({"listen": "udp://h"}, "'h' is not HOST:PORT"),
        ({"listen": "udp://h:1", "year": 2026}, "year is only for a file that is read once"),
        ({"path": "/x", "year": 2026}, "year is only for a file that is read once"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SyslogConfig(**options)
