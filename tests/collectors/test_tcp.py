"""The TCP shell: streams cut by their own framers, bounded queues, refused and idle connections."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from collectors.lines import LineFramer
from collectors.rfc6587 import SyslogFramer
from collectors.syslog import SyslogDecoder
from collectors.tcp import TcpShell
from ringfence.batch import EventClass
from ringfence.component import Delivery
from ringfence.errors import Permanent

pytestmark = pytest.mark.net

PATIENCE_SECS = 20
LOGGER = "logger is not installed: apt-get install bsdutils"


def listening(story: Callable[[TcpShell], Awaitable[None]], framer: Any = LineFramer, **options: Any) -> None:
    async def run() -> None:
        shell = TcpShell("127.0.0.1", 0, framer, **options)
        await shell.open(b"")
        try:
            await asyncio.wait_for(story(shell), PATIENCE_SECS)
        finally:
            await shell.close()

    asyncio.run(run())


class Client:
    """One connection to a shell."""

    def __init__(self, shell: TcpShell) -> None:
        self._port = shell.port

    async def __aenter__(self) -> Client:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.transport.abort()

    async def finish(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ended(self) -> bool:
        """Wait until the shell closes the connection."""
        try:
            return await self._reader.read(1) == b""
        except ConnectionError:
            return True


async def hit(shell: TcpShell, cap: str) -> None:
    """Read until this bound, and no other one, was counted."""
    caps: Counter[str] = Counter()
    while not caps:
        caps.update((await shell.read()).caps)
    assert caps == {cap: 1}


async def frames(shell: TcpShell, count: int) -> list[bytes]:
    """Read that many frames."""
    found: list[bytes] = []
    while len(found) < count:
        found += (await shell.read()).frames.slices()
    return found


def test_frames_come_with_their_place_in_the_stream_of_the_connection() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            await client.send(b"one\ntwo\nth")
            first = await shell.read()
            await client.send(b"ree\n")
            second = await shell.read()

        assert first.frames.slices() + second.frames.slices() == [b"one\n", b"two\n", b"three\n"]
        assert first.frames.positions.tolist() + second.frames.positions.tolist() == [0, 4, 8]
        assert first.frames.sources == second.frames.sources
        assert first.frames.sources[0].name == "127.0.0.1"
        assert first.frames.received_us.min() > 0

    listening(story)


def test_each_connection_is_a_stream_of_its_own() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as one, Client(shell) as two:
            await one.send(b"a")
            await two.send(b"b\n")
            assert await frames(shell, 1) == [b"b\n"]
            await one.send(b"a\n")
            await two.send(b"b\n")

            delivery = await shell.read()
            identities = {source.identity for source in delivery.frames.sources}
            while len(identities) < 2:
                identities |= {source.identity for source in (await shell.read()).frames.sources}

    listening(story)


def test_a_connection_that_ends_gives_its_unfinished_frame() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            await client.send(b"one\nrest")
            await client.finish()

            assert await frames(shell, 2) == [b"one\n", b"rest"]

    listening(story)


def test_a_silent_connection_is_closed_and_gives_its_unfinished_frame() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            await client.send(b"half")

            assert await client.ended()
            assert await frames(shell, 1) == [b"half"]

    listening(story, idle_secs=0.01)


@pytest.mark.parametrize("cap", ["max_connections", "max_connections_per_peer"])
def test_connections_beyond_the_cap_are_closed_and_counted(cap: str) -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as kept:
            await kept.send(b"one\n")
            assert await frames(shell, 1) == [b"one\n"]
            async with Client(shell) as refused:
                assert await refused.ended()

            delivery = await shell.read()
            assert (len(delivery.frames), delivery.shed) == (0, {"connections_refused": 1})
            assert delivery.caps == {cap.removeprefix("max_"): 1}
            await kept.send(b"two\n")
            assert await frames(shell, 1) == [b"two\n"]

    listening(story, **{cap: 1})


def test_a_place_is_free_again_when_a_connection_has_ended() -> None:
    async def story(shell: TcpShell) -> None:
        for number in range(3):
            async with Client(shell) as client:
                await client.send(b"%d" % number)
                await client.finish()
                assert await frames(shell, 1) == [b"%d" % number]
                assert await client.ended()

    listening(story, max_connections=1)


def test_a_full_queue_pushes_the_sender_back_and_loses_nothing() -> None:
    line = b"x" * 1023 + b"\n"
    sent = 30_000

    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            sending = asyncio.ensure_future(client.send(line * sent))
            received, at_most = 0, 0
            while received < sent:
                delivery: Delivery = await shell.read()
                received += len(delivery.frames)
                at_most = max(at_most, len(delivery.frames.data))
            await sending

        assert received == sent
        assert at_most < 1 << 18

    listening(story, max_queued_bytes=1 << 16)


def test_a_frame_that_does_not_end_closes_the_connection() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            await client.send(b"x" * 100)

            assert await client.ended()
            assert await frames(shell, 1) == [b"x" * 100]

    listening(story, max_pending_bytes=50)


def test_a_connection_that_is_closed_for_a_bound_is_counted_by_its_name() -> None:
    async def silent(shell: TcpShell) -> None:
        async with Client(shell) as client:
            assert await client.ended()
            await hit(shell, "idle")

    async def endless(shell: TcpShell) -> None:
        async with Client(shell) as client:
            await client.send(b"x" * 100)
            await hit(shell, "frame")

    listening(silent, idle_secs=0.01)
    listening(endless, max_pending_bytes=50)


def test_when_all_hold_too_much_the_connection_that_holds_most_is_closed() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as honest, Client(shell) as greedy, Client(shell) as late:
            await honest.send(b"begun")
            await greedy.send(b"x" * 80)
            await late.send(b"y" * 30)
            assert await greedy.ended()
            given: list[bytes] = []
            caps: Counter[str] = Counter()
            while not given or not caps:
                delivery = await shell.read()
                given += delivery.frames.slices()
                caps.update(delivery.caps)
            assert (given, caps) == ([b"x" * 80], {"unfinished": 1})
            await honest.send(b" and ended\n")
            await late.send(b"\n")

            assert sorted(await frames(shell, 2)) == [b"begun and ended\n", b"y" * 30 + b"\n"]

    listening(story, max_unfinished_bytes=100)


def test_a_full_queue_is_counted() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            await client.send(b"line\n" * 40_000)  # several reads of the socket

            received, caps = 0, Counter[str]()
            while received < 40_000:
                await asyncio.sleep(0.001)
                delivery = await shell.read()
                received += len(delivery.frames)
                caps.update(delivery.caps)
            assert set(caps) == {"queue"}

    listening(story, max_queued_bytes=1)


def test_a_read_that_is_cancelled_loses_nothing() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            reading = asyncio.ensure_future(shell.read())
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await client.send(b"kept\n")

            assert await frames(shell, 1) == [b"kept\n"]

    listening(story)


def test_close_ends_all_connections_even_those_that_wait_for_room() -> None:
    async def story(shell: TcpShell) -> None:
        async with Client(shell) as one, Client(shell) as two:
            for client in (one, two):
                await client.send(b"line\n" * 1000)
            await shell.read()

            await shell.close()

            assert await one.ended()
            assert await two.ended()

    listening(story, max_queued_bytes=1)


def test_octet_counted_messages_are_cut_however_they_arrive() -> None:
    message = b"<13>1 - - app - - - two\nlines"
    stream = b"%d %s" % (len(message), message) + b"<13>plain\n"

    async def story(shell: TcpShell) -> None:
        async with Client(shell) as client:
            for place in range(len(stream)):
                await client.send(stream[place : place + 1])

            assert await frames(shell, 2) == [b"%d %s" % (len(message), message), b"<13>plain\n"]

    listening(story, SyslogFramer)


def test_a_busy_port_is_permanent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        with pytest.raises(Permanent) as raised:
            asyncio.run(TcpShell("127.0.0.1", port, LineFramer).open(b""))

    assert str(raised.value) == f"tcp 127.0.0.1:{port} cannot be bound: Address already in use"


def test_close_may_come_twice_or_before_open() -> None:
    async def run() -> None:
        shell = TcpShell("127.0.0.1", 0, LineFramer)
        await shell.close()
        await shell.open(b"")
        await shell.close()
        await shell.close()

    asyncio.run(run())


@pytest.mark.skipif(shutil.which("logger") is None, reason=LOGGER)
@pytest.mark.parametrize("framing", [[], ["--octet-count"]], ids=["newline", "counted"])
def test_a_message_of_logger_is_decoded(framing: list[str]) -> None:
    async def story(shell: TcpShell) -> None:
        command = [
            "logger",
            "-n",
            "127.0.0.1",
            "-P",
            str(shell.port),
            "-T",
            "--rfc5424",
            *framing,
            "-t",
            "app",
            "-p",
            "auth.info",
        ]
        process = await asyncio.create_subprocess_exec(*command, "hello over tcp")
        assert await process.wait() == 0

        decoded = SyslogDecoder().feed((await shell.read()).frames)

        assert not decoded.problems
        (row,) = decoded.rows[EventClass.GENERIC].to_dicts()
        assert (row["message"], row["process.name"], row["log.syslog.facility.code"]) == ("hello over tcp", "app", 4)

    listening(story, SyslogFramer)
