"""What rsyslog forwards and what sshd logs, from the programs themselves, over the transports that take syslog."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from collectors.rfc6587 import SyslogFramer
from collectors.syslog import SyslogDecoder
from collectors.tcp import TcpShell
from collectors.udp import UdpShell
from collectors.unix import UnixDatagramShell
from ringfence.addresses import parse
from ringfence.batch import EventClass

pytestmark = pytest.mark.net

PATIENCE_SECS = 60
Shells = UdpShell | TcpShell | UnixDatagramShell
RSYSLOG = """
module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="{socket}" CreatePath="off")
*.* action(type="omfwd" target="127.0.0.1" port="{port}" {how} action.resumeRetryCount="-1" queue.type="LinkedList")
"""
SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized_keys
TrustedUserCAKeys {folder}/authority.pub
RevokedKeys {folder}/revoked
PermitRootLogin prohibit-password
PidFile none
StrictModes no
UsePAM no
UseDNS no
LogLevel VERBOSE
"""
# a /dev of its own, whose log is our socket, and the empty folder that sshd wants; the machine's stay as they are
PRIVATE = """set -e
mkdir "$1/dev"
mount -t tmpfs -o mode=755 dev "$1/dev"
for name in null zero random urandom tty; do cp -a "/dev/$name" "$1/dev/$name"; done
ln -s "$1/log" "$1/dev/log"
mount --move "$1/dev" /dev
mount -t tmpfs -o mode=755 run /run
mkdir /run/sshd
exec "$2" -D -f "$1/sshd_config"
"""


def listening(shell: Shells, story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await shell.open(b"")
        try:
            await asyncio.wait_for(story(), PATIENCE_SECS)
        finally:
            await shell.close()

    asyncio.run(run())


async def decoded_until(
    shell: Shells, event_class: EventClass, is_last: Callable[[dict[str, Any]], bool]
) -> list[dict[str, Any]]:
    """Rows of a class up to the one that is asked for."""
    decoder = SyslogDecoder()
    rows: list[dict[str, Any]] = []
    while not rows or not is_last(rows[-1]):
        decoded = decoder.feed((await shell.read()).frames)
        assert not decoded.problems
        for row in decoded.rows[event_class].to_dicts() if event_class in decoded.rows else []:
            rows.append(row)
            if is_last(row):
                break
    return rows


@asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[None]:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def call(*command: str | Path) -> int:
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=quiet, stdout=quiet, stderr=quiet)
    return await process.wait()


@pytest.mark.skipif(
    shutil.which("rsyslogd") is None or shutil.which("logger") is None,
    reason="rsyslogd or logger is not installed: apt-get install rsyslog bsdutils",
)
@pytest.mark.parametrize(
    ("how", "version"),
    [
        ('protocol="udp" template="RSYSLOG_TraditionalForwardFormat"', None),
        ('protocol="udp" template="RSYSLOG_SyslogProtocol23Format"', "1"),
        ('protocol="tcp" template="RSYSLOG_TraditionalForwardFormat"', None),
        ('protocol="tcp" tcp_framing="octet-counted" template="RSYSLOG_ForwardFormat"', None),
        ('protocol="tcp" tcp_framing="octet-counted" template="RSYSLOG_SyslogProtocol23Format"', "1"),
    ],
    ids=["udp-3164", "udp-5424", "tcp-lines-3164", "tcp-counted-iso", "tcp-counted-5424"],
)
def test_what_rsyslog_forwards_is_decoded(tmp_path: Path, how: str, version: str | None) -> None:
    shell = UdpShell("127.0.0.1", 0) if "udp" in how else TcpShell("127.0.0.1", 0, SyslogFramer)
    local, configuration = tmp_path / "local", tmp_path / "rsyslog.conf"

    async def story() -> None:
        configuration.write_text(RSYSLOG.format(socket=local, port=shell.port, how=how))
        async with running("rsyslogd", "-n", "-f", configuration, "-i", tmp_path / "pid"):
            while not local.exists():  # noqa: ASYNC110 -- another process makes it
                await asyncio.sleep(0.02)
            for text in ("Invalid user x from 192.0.2.7 port 44", "Invalid user y from 2001:db8::7 port 45"):
                assert await call("logger", "-u", local, "-t", "sshd", "-p", "auth.info", text) == 0

            rows = await decoded_until(shell, EventClass.AUTH, lambda row: row["user.name"] == "y")

        assert [(row["user.name"], row["source.port"]) for row in rows] == [("x", 44), ("y", 45)]
        assert [row["source.ip"] for row in rows] == [parse("192.0.2.7"), None]
        assert {row["log.syslog.facility.code"] for row in rows} == {4}
        assert {row.get("log.syslog.version") for row in rows} == {version}
        assert all(row["host.hostname"] for row in rows)

    listening(shell, story)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _why_no_sshd() -> str:
    if os.name != "posix" or os.geteuid():
        return "sshd with a log socket of its own needs root"
    missing = [name for name in ("ssh", "ssh-keygen", "unshare") if shutil.which(name) is None]
    if missing or not Path("/usr/sbin/sshd").exists():
        return "sshd is not installed: apt-get install openssh-server openssh-client"
    own_mounts = ("unshare", "-m", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt")
    if subprocess.run(own_mounts, capture_output=True).returncode:
        return "this machine lets nobody mount a /dev for sshd: run with CAP_SYS_ADMIN"
    return ""


WHY_NO_SSHD = _why_no_sshd()


@pytest.mark.skipif(bool(WHY_NO_SSHD), reason=WHY_NO_SSHD)
def test_what_sshd_says_of_logins_is_decoded(tmp_path: Path) -> None:
    shell, port = UnixDatagramShell(tmp_path / "log"), _free_port()

    async def key(name: str) -> Path:
        path = tmp_path / name
        assert await call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path) == 0
        return path

    async def login(user: str, identity: Path, *options: str) -> int:
        quiet = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={tmp_path}/known", "BatchMode=yes", "IdentitiesOnly=yes")
        given = [part for option in (*quiet, *options) for part in ("-o", option)]
        return await call("ssh", "-F", "/dev/null", *given, "-p", str(port), "-i", identity, f"{user}@127.0.0.1", "true")

    async def answering() -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)

    async def story() -> None:
        good, bad, revoked, signed, authority, _ = [
            await key(name) for name in ("good", "bad", "revoked_key", "signed", "authority", "host")
        ]
        public = [path.with_suffix(".pub").read_text() for path in (good, revoked)]
        (tmp_path / "authorized_keys").write_text("".join(public))
        (tmp_path / "revoked").write_text(public[1])
        assert (
            await call("ssh-keygen", "-q", "-s", authority, "-I", "ann@example", "-n", "root", "-z", "7", f"{signed}.pub") == 0
        )
        (tmp_path / "sshd_config").write_text(SSHD.format(port=port, folder=tmp_path))
        async with running(
            "unshare", "-m", "--propagation", "private", "bash", "-c", PRIVATE, "sshd", tmp_path, "/usr/sbin/sshd"
        ):
            await answering()
            # read all the while: a socket that is full makes its senders wait
            reading = asyncio.ensure_future(
                decoded_until(shell, EventClass.AUTH, lambda row: row["event.action"] == "ssh-negotiation")
            )
            results = [
                await login("root", good),
                await login("root", signed),
                await login("root", bad),
                await login("root", revoked),
                await login("nobody-such", bad),
                await login("root", good, "KexAlgorithms=diffie-hellman-group1-sha1"),
            ]
            rows = await reading

        assert [result == 0 for result in results] == [True, True, False, False, False, False]
        check(rows)

    def check(rows: Sequence[dict[str, Any]]) -> None:
        logins = [row for row in rows if row["event.action"] == "ssh-login" and row["ringfence.auth.method"] == "publickey"]
        accepted = [row for row in logins if row["event.outcome"] == "success"]
        assert [row["user.name"] for row in accepted] == ["root", "root"]
        assert all(row["ringfence.auth.key"].startswith("SHA256:") for row in accepted)
        assert [row.get("ringfence.auth.certificate") for row in accepted] == [None, "ann@example"]
        assert {row["user.name"] for row in logins if row["event.outcome"] == "failure"} == {"root"}
        assert {row["user.name"] for row in rows if row["event.action"] == "ssh-invalid-user"} == {"nobody-such"}
        assert {"ssh-key-refused", "ssh-invalid-user", "ssh-disconnect", "ssh-session-started"} <= {
            row["event.action"] for row in rows
        }
        assert {row["source.ip"] for row in rows if row["event.action"] != "ssh-key-refused"} == {parse("127.0.0.1")}

    listening(shell, story)
