"""TLS listeners: who is let in, which files are in force, and that peers who never finish keep nobody out."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.lines import LineFramer
from collectors.rfc6587 import SyslogFramer
from collectors.syslog import SyslogDecoder
from collectors.tcp import TcpShell
from collectors.tls import Contexts, TlsFiles, not_after, server_context
from ringfence.batch import EventClass
from ringfence.errors import Permanent
from ringfence.telemetry import CERTIFICATE_EXPIRY
from tests.certificates import Pair, authority, issued, needs_openssl

pytestmark = [pytest.mark.net, needs_openssl]

PATIENCE_SECS = 60
RSYSLOG = "rsyslogd with TLS is not installed: apt-get install rsyslog rsyslog-openssl"


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def server(ca: Pair) -> Pair:
    return issued(ca, "localhost")


@pytest.fixture(scope="session")
def sender(ca: Pair) -> Pair:
    return issued(ca, "sender")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return issued(authority(tmp_path_factory.mktemp("other"), "other"), "stranger")


def files(server: Pair, client_ca: Pair | None = None) -> TlsFiles:
    return TlsFiles(
        certificate=server.certificate, key=server.key, client_ca=None if client_ca is None else client_ca.certificate
    )


def trusting(ca: Pair, own: Pair | None = None) -> ssl.SSLContext:
    """A sender's side."""
    context = ssl.create_default_context(cafile=str(ca.certificate))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


def listening(tls: TlsFiles, story: Callable[[TcpShell], Awaitable[None]], framer: Any = LineFramer, **options: Any) -> None:
    async def run() -> None:
        shell = TcpShell("127.0.0.1", 0, framer, tls, **options)
        await shell.open(b"")
        try:
            await asyncio.wait_for(story(shell), PATIENCE_SECS)
        finally:
            await shell.close()

    asyncio.run(run())


async def connected(shell: TcpShell, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", shell.port, ssl=context, server_hostname="localhost")


async def frames(shell: TcpShell, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += (await shell.read()).frames.slices()
    return found


async def shed(shell: TcpShell, reason: str, count: int = 1) -> Counter[str]:
    """Wait until that many were counted; returns the bounds that were hit meanwhile."""
    caps: Counter[str] = Counter()
    while count > 0:
        delivery = await shell.read()
        count -= delivery.shed.get(reason, 0)
        caps.update(delivery.caps)
    assert count == 0
    return caps


async def served(shell: TcpShell, context: ssl.SSLContext) -> bytes:
    """The certificate that the listener shows now."""
    _, writer = await connected(shell, context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.write(b"line\n")
    await frames(shell, 1)
    writer.transport.abort()
    return shown


async def refused(shell: TcpShell, context: ssl.SSLContext) -> bool:
    """True when the listener does not take what such a sender says; with TLS 1.3 it learns that on reading."""
    try:
        reader, writer = await connected(shell, context)
    except OSError:
        return True
    try:
        writer.write(b"line\n")
        return await reader.read(1) == b""
    except OSError:
        return True
    finally:
        writer.transport.abort()


def test_frames_come_decrypted_with_their_places(ca: Pair, server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        _, writer = await connected(shell, trusting(ca))
        writer.write(b"one\ntwo\nrest")
        writer.close()

        assert await frames(shell, 3) == [b"one\n", b"two\n", b"rest"]

    listening(files(server), story)


def test_a_long_stream_arrives_whole_and_pushes_the_sender_back(ca: Pair, server: Pair) -> None:
    sent = 20_000

    async def story(shell: TcpShell) -> None:
        _, writer = await connected(shell, trusting(ca))
        writer.write(b"x" * 1023 + b"\n")
        sending = asyncio.ensure_future(_send(writer, (b"x" * 1023 + b"\n") * (sent - 1)))

        assert set(await frames(shell, sent)) == {b"x" * 1023 + b"\n"}
        await sending
        writer.transport.abort()

    listening(files(server), story, max_queued_bytes=1 << 16)


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_versions_from_1_2_are_spoken(ca: Pair, server: Pair, version: ssl.TLSVersion) -> None:
    context = trusting(ca)
    context.minimum_version = context.maximum_version = version

    async def story(shell: TcpShell) -> None:
        assert await served(shell, context)

    listening(files(server), story)


def test_older_versions_are_not_spoken(server: Pair) -> None:
    assert server_context(files(server)).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_sender_without_tls_is_refused_and_counted(server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)
        writer.write(b"<13>plain text, more than a record of TLS has in its header\n")

        await shed(shell, "handshakes_failed")
        assert await _ended(reader)
        writer.transport.abort()

    listening(files(server), story)


def test_a_sender_that_leaves_during_the_handshake_is_counted(server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", shell.port)
        writer.transport.abort()

        await shed(shell, "handshakes_failed")

    listening(files(server), story)


def test_with_a_client_authority_its_senders_are_let_in(ca: Pair, server: Pair, sender: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        assert await served(shell, trusting(ca, sender))

    listening(files(server, ca), story)


def test_with_a_client_authority_all_others_are_refused(ca: Pair, server: Pair, stranger: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        for own in (None, stranger):
            assert await refused(shell, trusting(ca, own))
            await shed(shell, "handshakes_failed")

    listening(files(server, ca), story)


def test_a_handshake_that_stalls_is_ended_and_counted(server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", shell.port)

        await shed(shell, "handshakes_failed")
        assert await _ended(reader)
        writer.transport.abort()

    listening(files(server), story, handshake_secs=0.01)


async def _ended(reader: asyncio.StreamReader) -> bool:
    with suppress(OSError):
        await reader.read()  # an alert at most
    return True


def test_stalled_handshakes_keep_nobody_out(ca: Pair, server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        stalled = [(await asyncio.open_connection("127.0.0.1", shell.port))[1] for _ in range(200)]

        assert await served(shell, trusting(ca))
        for writer in stalled:
            writer.transport.abort()

    listening(files(server), story, max_handshakes=16, max_connections=1, max_connections_per_peer=1)


def test_the_oldest_handshake_gives_way_to_the_newest(server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        first, _ = opened = await asyncio.open_connection("127.0.0.1", shell.port)
        second, writer = await asyncio.open_connection("127.0.0.1", shell.port)

        assert await shed(shell, "handshakes_failed") == {"handshakes": 1}
        assert await _ended(first)
        assert not second.at_eof()
        for each in (opened[1], writer):
            each.transport.abort()

    listening(files(server), story, max_handshakes=1)


def test_connections_beyond_the_cap_are_refused_after_their_handshake(ca: Pair, server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        _, kept = await connected(shell, trusting(ca))
        kept.write(b"one\n")
        assert await frames(shell, 1) == [b"one\n"]

        assert await refused(shell, trusting(ca))
        await shed(shell, "connections_refused")
        kept.transport.abort()

    listening(files(server), story, max_connections=1)


def test_close_ends_connections_and_handshakes(ca: Pair, server: Pair) -> None:
    async def story(shell: TcpShell) -> None:
        done, writer = await connected(shell, trusting(ca))
        writer.write(b"one\n")
        await frames(shell, 1)
        stalled, other = await asyncio.open_connection("127.0.0.1", shell.port)

        await shell.close()

        assert await _ended(done)
        assert await _ended(stalled)
        for each in (writer, other):
            each.transport.abort()

    listening(files(server), story)


# Files that change


def put(source: Pair, target: Pair) -> None:
    """Replace files as tools that renew certificates do."""
    for old, new in ((target.certificate, source.certificate), (target.key, source.key)):
        fresh = old.with_suffix(".new")
        shutil.copy(new, fresh)
        fresh.replace(old)


def copied(pair: Pair, folder: Path) -> Pair:
    made = Pair(folder / "server.pem", folder / "server.key")
    shutil.copy(pair.certificate, made.certificate)
    shutil.copy(pair.key, made.key)
    return made


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())


def test_a_renewed_certificate_is_served_without_a_restart(ca: Pair, server: Pair, tmp_path: Path) -> None:
    renewed, in_use = issued(ca, "renewed"), copied(server, tmp_path)
    context = trusting(ca)
    context.check_hostname = False

    async def story(shell: TcpShell) -> None:
        assert await served(shell, context) == der(server)
        _, kept = await connected(shell, context)

        put(renewed, in_use)

        assert await served(shell, context) == der(renewed)
        kept.write(b"still here\n")
        assert await frames(shell, 1) == [b"still here\n"]
        kept.transport.abort()

    listening(files(in_use), story)


def test_a_changed_client_authority_counts_from_the_next_connection_on(
    ca: Pair, server: Pair, sender: Pair, stranger: Pair, tmp_path: Path
) -> None:
    trusted = Pair(tmp_path / "clients.pem", tmp_path / "unused")
    shutil.copy(ca.certificate, trusted.certificate)

    async def story(shell: TcpShell) -> None:
        assert await served(shell, trusting(ca, sender))
        shutil.copy(stranger.certificate.parent / "other.pem", trusted.certificate)
        assert await served(shell, trusting(ca, stranger))
        assert await refused(shell, trusting(ca, sender))

    listening(files(server, trusted), story)


@pytest.mark.parametrize("damage", ["empty", "gone", "another key"])
def test_files_that_cannot_be_used_leave_the_old_ones_in_force(
    damage: str, ca: Pair, server: Pair, sender: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_use = copied(server, tmp_path)

    async def story(shell: TcpShell) -> None:
        if damage == "gone":
            in_use.certificate.unlink()
        elif damage == "empty":
            in_use.certificate.write_text("")
        else:
            shutil.copy(sender.key, in_use.key)
        for _ in range(2):
            assert await served(shell, trusting(ca)) == der(server)

    listening(files(in_use), story)

    assert [record.getMessage().partition(":")[0] for record in caplog.records if record.name == "collectors.tls"] == [
        "what was read before stays in force"
    ]


# What is said


def test_what_is_wrong_with_the_files_is_one_sentence(server: Pair, sender: Pair, tmp_path: Path) -> None:
    lost, text, locked = tmp_path / "lost.pem", tmp_path / "text.pem", tmp_path / "locked.key"
    text.write_text("no certificate")
    command = ["openssl", "pkey", "-in", str(server.key), "-aes128", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    cases: list[tuple[dict[str, Path], str]] = [
        ({"certificate": lost, "key": server.key}, f"tls certificate {lost} cannot be read: No such file or directory"),
        ({"certificate": server.certificate, "key": lost}, f"tls key {lost} cannot be read: No such file or directory"),
        ({"certificate": text, "key": server.key}, f"tls certificate {text} holds no PEM certificate"),
        ({"certificate": server.certificate, "key": sender.key}, f"tls key {sender.key} does not belong to certificate {server.certificate}"),
        ({"certificate": server.certificate, "key": locked}, f"tls certificate {server.certificate} with key {locked} cannot be used: PEM without passphrase is expected"),
        ({"certificate": server.certificate, "key": text}, f"tls certificate {server.certificate} with key {text} cannot be used: PEM without passphrase is expected"),
        ({"certificate": server.certificate, "key": server.key, "client_ca": text}, f"tls client_ca {text} holds no PEM certificate"),
    ]  # fmt: skip

    for options, sentence in cases:
        with pytest.raises(ValidationError) as raised:
            TlsFiles.model_validate(options)
        assert [error["msg"] for error in raised.value.errors()] == [f"Value error, {sentence}"]


def test_files_that_are_gone_at_start_are_permanent(server: Pair, tmp_path: Path) -> None:
    in_use = copied(server, tmp_path)
    tls = files(in_use)
    in_use.key.unlink()

    with pytest.raises(Permanent) as raised:
        asyncio.run(TcpShell("127.0.0.1", 0, LineFramer, tls).open(b""))

    assert str(raised.value) == f"tls key {in_use.key} cannot be read: No such file or directory"


def test_why_handshakes_fail_is_said_once_for_each_reason(server: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def story(shell: TcpShell) -> None:
        for _ in range(3):
            _, writer = await asyncio.open_connection("127.0.0.1", shell.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await shed(shell, "handshakes_failed")
            writer.transport.abort()

    listening(files(server), story)

    (said,) = [record.getMessage() for record in caplog.records if record.name == "collectors.tcp"]
    assert "HTTP_REQUEST" in said


def test_the_expiry_of_the_certificate_is_a_metric(server: Pair, caplog: pytest.LogCaptureFixture) -> None:
    Contexts(files(server)).current()

    (sample,) = [
        sample
        for family in CERTIFICATE_EXPIRY.collect()
        for sample in family.samples
        if sample.labels == {"certificate": str(server.certificate)}
    ]
    assert sample.value == not_after(server.certificate.read_bytes())
    assert 29 * 86_400 < sample.value - datetime.now(UTC).timestamp() <= 30 * 86_400


@pytest.mark.parametrize("days", [1, 30, 10_000, 40_000])
def test_the_expiry_is_read_as_openssl_reads_it(ca: Pair, days: int) -> None:
    made = issued(ca, f"days{days}", days)
    command = ["openssl", "x509", "-in", str(made.certificate), "-noout", "-enddate"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    expected = datetime.strptime(told.strip(), "notAfter=%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
    assert not_after(made.certificate.read_bytes()) == expected.timestamp()


@given(st.binary(max_size=60))
def test_any_bytes_have_an_expiry_or_are_refused(junk: bytes) -> None:
    with suppress(ValueError, IndexError):
        not_after(ssl.DER_cert_to_PEM_cert(junk).encode())


# Real senders

RSYSLOG_CONF = """
global(workDirectory="{folder}" defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imfile" mode="polling" pollingInterval="1")
input(type="imfile" File="{folder}/app.log" Tag="app:" Severity="info" Facility="auth")
*.* action(type="omfwd" target="127.0.0.1" port="{port}" protocol="tcp" template="RSYSLOG_SyslogProtocol23Format" tcp_framing="octet-counted"
  StreamDriver="{driver}" StreamDriverMode="1" StreamDriverAuthMode="x509/name" StreamDriverPermittedPeers="localhost" action.resumeRetryCount="-1")
"""


def has_driver(driver: str) -> bool:
    folders = ("/usr/lib", "/usr/local/lib")
    return shutil.which("rsyslogd") is not None and any(
        next(Path(folder).glob(f"**/rsyslog/lmnsd_{driver}.so"), None) for folder in folders if Path(folder).is_dir()
    )


@pytest.mark.parametrize(
    "driver",
    [pytest.param(name, marks=pytest.mark.skipif(not has_driver(name), reason=RSYSLOG), id=name) for name in ("ossl", "gtls")],
)
def test_what_rsyslog_forwards_over_mutual_tls_is_decoded(
    driver: str, ca: Pair, server: Pair, sender: Pair, tmp_path: Path
) -> None:
    (tmp_path / "app.log").write_text("hello over tls\n")
    configuration = tmp_path / "rsyslog.conf"

    async def story(shell: TcpShell) -> None:
        configuration.write_text(
            RSYSLOG_CONF.format(
                folder=tmp_path,
                ca=ca.certificate,
                certificate=sender.certificate,
                key=sender.key,
                port=shell.port,
                driver=driver,
            )
        )
        process = await asyncio.create_subprocess_exec(
            *("rsyslogd", "-n", "-f", configuration, "-i", tmp_path / "rsyslog.pid"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            rows: list[dict[str, Any]] = []
            while not any(row["message"] == "hello over tls" for row in rows):
                decoded = SyslogDecoder().feed((await shell.read()).frames)
                assert not decoded.problems
                rows += [row for frame in decoded.rows.values() for row in frame.to_dicts()]
        finally:
            process.terminate()
            await process.wait()

    listening(files(server, ca), story, SyslogFramer)


def test_octet_counted_messages_of_a_python_sender_are_decoded(ca: Pair, server: Pair) -> None:
    message = b"<38>1 2026-11-25T08:35:41Z vm sshd 42 - - Accepted password for ann from 192.0.2.7 port 44 ssh2"

    async def story(shell: TcpShell) -> None:
        _, writer = await connected(shell, trusting(ca))
        writer.write(b"%d %s" % (len(message), message))

        decoded = SyslogDecoder().feed((await shell.read()).frames)
        writer.transport.abort()

        assert [row["user.name"] for row in decoded.rows[EventClass.AUTH].to_dicts()] == ["ann"]

    listening(files(server), story, SyslogFramer)
