"""The shells on unix sockets: what is received, and whose socket file may be replaced."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from collectors.lines import LineFramer
from collectors.suricata import SuricataDecoder
from collectors.syslog import SyslogDecoder
from collectors.udp import MAX_DATAGRAM_BYTES
from collectors.unix import UnixDatagramShell, UnixStreamShell
from ringfence.batch import EventClass
from ringfence.errors import Permanent
from tests.eve_lines import flow

pytestmark = pytest.mark.net

PATIENCE_SECS = 60
Shells = UnixStreamShell | UnixDatagramShell


def stream(path: Path) -> UnixStreamShell:
    return UnixStreamShell(path, LineFramer)


def datagram(path: Path) -> UnixDatagramShell:
    return UnixDatagramShell(path)


both = pytest.mark.parametrize("made", [stream, datagram])


def listening(shell: Shells, story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await shell.open(b"")
        try:
            await asyncio.wait_for(story(), PATIENCE_SECS)
        finally:
            await shell.close()

    asyncio.run(run())


def opened(shell: Shells) -> str:
    """Open and close; the reason when it cannot be opened."""

    async def nothing() -> None:
        pass

    try:
        listening(shell, nothing)
    except Permanent as error:
        return str(error)
    return ""


async def frames(shell: Shells, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += (await shell.read()).frames.slices()
    return found


def send(path: Path, *datagrams: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        for data in datagrams:
            sender.sendto(data, str(path))


def test_lines_of_each_connection_come_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "eve.sock"
    shell = stream(path)

    async def story() -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b"one\ntw")
        first = await shell.read()
        writer.write(b"o\nrest")
        writer.close()
        second = await shell.read()
        rest = [] if len(second.frames) == 2 else await frames(shell, 1)

        assert [*first.frames.slices(), *second.frames.slices(), *rest] == [b"one\n", b"two\n", b"rest"]
        assert first.frames.sources == second.frames.sources
        assert (first.frames.sources[0].name, first.position) == (str(path), b"")
        assert second.frames.positions.tolist()[0] == 4

    listening(shell, story)


def test_connections_of_one_socket_are_told_apart_and_all_taken(tmp_path: Path) -> None:
    shell = stream(tmp_path / "eve.sock")

    async def story() -> None:
        writers = [(await asyncio.open_unix_connection(tmp_path / "eve.sock"))[1] for _ in range(70)]
        for writer in writers:
            writer.write(b"line\n")
        identities: set[int] = set()
        while len(identities) < len(writers):
            identities |= {source.identity for source in (await shell.read()).frames.sources}
        for writer in writers:
            writer.close()

    listening(shell, story)


def test_every_datagram_is_a_frame(tmp_path: Path) -> None:
    shell = datagram(tmp_path / "log")

    async def story() -> None:
        send(tmp_path / "log", b"one", b"two\n", b"three")

        delivery = await shell.read()

        assert delivery.frames.slices() == [b"one", b"two\n", b"three"]
        assert delivery.frames.positions.tolist() == [0, 1 << 16, 2 << 16]
        assert [source.name for source in delivery.frames.sources] == [str(tmp_path / "log")]

    listening(shell, story)


def test_a_datagram_that_is_too_long_is_cut_and_counted(tmp_path: Path) -> None:
    shell = datagram(tmp_path / "log")

    async def story() -> None:
        send(tmp_path / "log", b"short", bytes(MAX_DATAGRAM_BYTES + 1), bytes(MAX_DATAGRAM_BYTES))
        delivery = await shell.read()

        assert [len(frame) for frame in delivery.frames.slices()] == [5, MAX_DATAGRAM_BYTES, MAX_DATAGRAM_BYTES]
        assert delivery.caps == {"datagram": 1}

    listening(shell, story)


@pytest.mark.parametrize(("made", "mode"), [(stream, 0o660), (datagram, 0o666)])
def test_the_socket_file_can_be_written_by_its_senders_and_goes_with_the_shell(
    tmp_path: Path, made: Callable[[Path], Shells], mode: int
) -> None:
    path = tmp_path / "socket"

    async def story() -> None:
        assert stat.S_IMODE(path.stat().st_mode) == mode

    listening(made(path), story)

    assert not path.exists()


@both
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path, made: Callable[[Path], Shells], kind: int) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, kind) as crashed:
        crashed.bind(str(path))

    assert opened(made(path)) == ""


@both
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_in_use_is_left_alone(tmp_path: Path, made: Callable[[Path], Shells], kind: int) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, kind) as living:
        living.bind(str(path))
        if kind == socket.SOCK_STREAM:
            living.listen()

        assert opened(made(path)) == f"unix socket {path} cannot be bound: Address already in use"
        assert path.is_socket()


@both
def test_a_file_of_another_kind_is_left_alone(tmp_path: Path, made: Callable[[Path], Shells]) -> None:
    path = tmp_path / "notes"
    path.write_text("precious")

    assert opened(made(path)) == f"unix socket {path} cannot be bound: Address already in use"
    assert path.read_text() == "precious"


@both
def test_a_folder_that_is_not_there_or_a_long_path_is_permanent(tmp_path: Path, made: Callable[[Path], Shells]) -> None:
    lost, long = tmp_path / "lost" / "socket", tmp_path / ("x" * 120)

    assert opened(made(lost)) == f"unix socket {lost} cannot be bound: No such file or directory"
    assert opened(made(long)) == f"unix socket {long} cannot be bound: AF_UNIX path too long"


@both
def test_the_socket_file_of_a_successor_stays(tmp_path: Path, made: Callable[[Path], Shells]) -> None:
    path = tmp_path / "socket"
    successor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    async def story() -> None:
        path.rename(tmp_path / "old")  # keeps the number of the file from being given again
        successor.bind(str(path))

    with successor:
        listening(made(path), story)

        assert path.exists()


@both
def test_a_shell_may_be_opened_again(tmp_path: Path, made: Callable[[Path], Shells]) -> None:
    shell = made(tmp_path / "socket")

    assert [opened(shell), opened(shell)] == ["", ""]


@pytest.mark.skipif(shutil.which("logger") is None, reason="logger is not installed: apt-get install bsdutils")
def test_a_message_of_logger_to_a_local_socket_is_decoded(tmp_path: Path) -> None:
    shell = datagram(tmp_path / "log")

    async def story() -> None:
        process = await asyncio.create_subprocess_exec(
            "logger", "-u", str(tmp_path / "log"), "-t", "app", "-p", "auth.info", "hello"
        )
        assert await process.wait() == 0

        decoded = SyslogDecoder().feed((await shell.read()).frames)

        assert not decoded.problems
        (row,) = decoded.rows[EventClass.GENERIC].to_dicts()
        assert (row["message"], row["process.name"], row["log.syslog.facility.code"]) == ("hello", "app", 4)

    listening(shell, story)


def one_syn() -> bytes:
    """A capture of one TCP SYN from 10.1.0.5 to 10.2.0.9 (libpcap format, raw IPv4)."""
    tcp = struct.pack("!HHIIBBHHH", 40_000, 22, 1, 0, 5 << 4, 2, 1024, 0, 0)
    ends = bytes([10, 1, 0, 5, 10, 2, 0, 9])
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends + tcp
    return (
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 101) + struct.pack("<IIII", 1_795_592_663, 0, 40, 40) + packet
    )


SURICATA = """%YAML 1.1
---
outputs:
  - eve-log: {{enabled: yes, filetype: unix_stream, filename: {socket}, types: [flow]}}
"""


@pytest.mark.skipif(
    shutil.which("suricata") is None, reason="suricata is not installed: apt-get install suricata (Debian: from backports)"
)
def test_what_suricata_writes_to_its_socket_is_decoded(tmp_path: Path) -> None:
    path, capture, configuration = tmp_path / "eve.sock", tmp_path / "syn.pcap", tmp_path / "suricata.yaml"
    capture.write_bytes(one_syn())
    configuration.write_text(SURICATA.format(socket=path))
    shell = stream(path)

    async def story() -> None:
        process = await asyncio.create_subprocess_exec(
            *("suricata", "-c", configuration, "-S", "/dev/null", "-l", tmp_path, "-k", "none", "--runmode", "single"),
            *("-r", capture),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        decoded = SuricataDecoder().feed((await shell.read()).frames)
        await process.wait()

        (row,) = decoded.rows[EventClass.FLOW].to_dicts()
        assert (row["source.port"], row["destination.port"], row["source.packets"]) == (40_000, 22, 1)

    listening(shell, story)


def test_eve_over_a_socket_is_what_it_is_in_a_file(tmp_path: Path) -> None:
    shell = stream(tmp_path / "eve.sock")

    async def story() -> None:
        _, writer = await asyncio.open_unix_connection(tmp_path / "eve.sock")
        writer.write(flow(1) + flow(2))
        writer.close()
        decoder, taken = SuricataDecoder(), 0
        while taken < 2:
            taken += decoder.feed((await shell.read()).frames).taken

    listening(shell, story)
