"""The UDP shell: every datagram is delivered or counted."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable

import pytest

from collectors.syslog import SyslogDecoder
from collectors.udp import UdpShell
from ringfence.batch import EventClass
from ringfence.component import Delivery
from ringfence.errors import Permanent

pytestmark = pytest.mark.net

PATIENCE_SECS = 20
SMALL_BUFFER_BYTES = 4096
LOGGER = "logger is not installed: apt-get install bsdutils"


def listening(story: Callable[[UdpShell], Awaitable[None]], shell: UdpShell | None = None) -> None:
    async def run() -> None:
        listener = shell or UdpShell("127.0.0.1", 0)
        await listener.open(b"")
        try:
            await asyncio.wait_for(story(listener), PATIENCE_SECS)
        finally:
            await listener.close()

    asyncio.run(run())


def send(port: int, *datagrams: bytes, host: str = "127.0.0.1") -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, (host, port))


def test_one_read_gives_all_datagrams_that_came_with_their_places() -> None:
    async def story(shell: UdpShell) -> None:
        send(shell.port, b"one", b"", b"three")

        delivery = await shell.read()

        assert delivery.frames.slices() == [b"one", b"", b"three"]
        assert delivery.frames.positions.tolist() == [0, 1 << 16, 2 << 16]
        assert delivery.frames.received_us.min() > 0
        assert [source.name for source in delivery.frames.sources] == ["127.0.0.1"]
        assert (delivery.shed, delivery.frames.lossy, delivery.position) == ({}, frozenset(), b"")

    listening(story)


def test_a_read_waits_for_the_first_datagram() -> None:
    async def story(shell: UdpShell) -> None:
        reading = asyncio.ensure_future(shell.read())
        await asyncio.sleep(0)
        assert not reading.done()

        send(shell.port, b"late")

        assert (await reading).frames.slices() == [b"late"]

    listening(story)


def test_a_read_takes_no_more_than_its_limit_and_the_next_goes_on() -> None:
    async def story(shell: UdpShell) -> None:
        send(shell.port, *(b"%d" % number for number in range(5)))

        first, second = await shell.read(), await shell.read()

        assert (len(first.frames), second.frames.slices()) == (3, [b"3", b"4"])
        assert second.frames.positions.tolist() == [3 << 16, 4 << 16]
        assert first.frames.sources == second.frames.sources

    listening(story, UdpShell("127.0.0.1", 0, max_datagrams=3))


def test_a_read_that_is_cancelled_loses_nothing() -> None:
    async def story(shell: UdpShell) -> None:
        reading = asyncio.ensure_future(shell.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        send(shell.port, b"kept")

        assert (await shell.read()).frames.slices() == [b"kept"]

    listening(story)


def test_each_opening_has_an_identity_of_its_own() -> None:
    async def identity(shell: UdpShell) -> int:
        await shell.open(b"")
        send(shell.port, b"x")
        return (await shell.read()).frames.sources[0].identity

    async def story(shell: UdpShell) -> None:
        assert await identity(shell) != await identity(shell)

    listening(story)


@pytest.mark.skipif(not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"), reason="this machine has no IPv6")
def test_an_ipv6_sender_is_named_by_its_address() -> None:
    async def story(shell: UdpShell) -> None:
        send(shell.port, b"six", host="::1")

        assert [source.name for source in (await shell.read()).frames.sources] == ["::1"]

    listening(story, UdpShell("::1", 0))


def test_a_busy_port_is_permanent() -> None:
    async def story(shell: UdpShell) -> None:
        with pytest.raises(Permanent) as raised:
            await UdpShell("127.0.0.1", shell.port).open(b"")

        assert str(raised.value) == f"udp 127.0.0.1:{shell.port} cannot be bound: Address already in use"

    listening(story)


def test_a_name_that_is_no_host_is_permanent() -> None:
    with pytest.raises(Permanent, match=r"^udp nosuch\.invalid:514 cannot be bound: "):
        asyncio.run(UdpShell("nosuch.invalid", 514).open(b""))


def test_close_may_come_twice_or_before_open() -> None:
    async def run() -> None:
        shell = UdpShell("127.0.0.1", 0)
        await shell.close()
        await shell.open(b"")
        await shell.close()
        await shell.close()

    asyncio.run(run())


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux tells drops (SO_RXQ_OVFL)")
def test_in_a_flood_what_was_sent_is_what_was_delivered_and_what_the_kernel_dropped() -> None:
    sent, last = 5_000, b"last"

    async def story(shell: UdpShell) -> None:
        send(shell.port, *(b"datagram %d" % number for number in range(sent - 1)))
        deliveries: list[Delivery] = [await shell.read()]
        send(shell.port, last)  # the kernel tells its count with the next datagram that it queues
        while not deliveries[-1].frames.data.endswith(last):
            deliveries.append(await shell.read())

        delivered = sum(len(delivery.frames) for delivery in deliveries)
        dropped = sum(delivery.shed.get("kernel_drops", 0) for delivery in deliveries)
        assert dropped > 0
        assert delivered + dropped == sent
        assert all(bool(delivery.frames.lossy) == bool(delivery.shed) for delivery in deliveries)

    listening(story, UdpShell("127.0.0.1", 0, SMALL_BUFFER_BYTES, max_datagrams=65_535))


@pytest.mark.skipif(shutil.which("logger") is None, reason=LOGGER)
def test_a_message_of_logger_is_decoded() -> None:
    async def story(shell: UdpShell) -> None:
        command = ["logger", "-n", "127.0.0.1", "-P", str(shell.port), "-d", "--rfc5424", "-t", "app", "-p", "local0.err"]
        process = await asyncio.create_subprocess_exec(*command, "hello over udp")
        assert await process.wait() == 0

        decoded = SyslogDecoder().feed((await shell.read()).frames)

        (row,) = decoded.rows[EventClass.GENERIC].to_dicts()
        assert (row["message"], row["process.name"], row["log.syslog.severity.code"]) == ("hello over udp", "app", 3)
        assert (row["log.syslog.version"], row["log.syslog.facility.code"]) == ("1", 16)
        assert row["event.created"] is not None

    listening(story)
