"""Shell that receives UDP datagrams, many per read, and counts what the kernel had to drop.

A frame is a datagram (RFC 768), an empty one included. One of a unix socket may be longer than MAX_DATAGRAM_BYTES: it is cut
and counted (`Delivery.caps`: datagram). Reading nothing leaves datagrams to the receive buffer; when that
is full the kernel drops and counts. Linux tells its count with each datagram as of when that was queued (socket(7),
SO_RXQ_OVFL), so drops at the end of a burst are known with the first datagram after it, and drops before close() of a
socket that receives nothing more are not. Whose datagrams were dropped nobody knows: all senders of that read are marked
lossy. Other systems do not count.

Source: `name` is the sender's address without its port, `identity` a hash of the listener and a random boot id, and the
position a counter of datagrams, shifted left by 16 bits. Nothing can be read again, so saved positions are empty.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from ringfence.addresses import HostPort
from ringfence.batch import Frames, Source
from ringfence.component import Delivery
from ringfence.errors import Permanent

RECEIVE_BUFFER_BYTES = 16 << 20
MAX_DATAGRAMS = 1024  # a numpy decoder gains little from more
MAX_SOURCES = 65_535  # what an index of 16 bits can tell apart
MAX_DATAGRAM_BYTES = 65_535  # RFC 768: the length field has 16 bits

_SO_RCVBUFFORCE = 33  # Linux asm-generic/socket.h; the socket module has neither name
_SO_RXQ_OVFL = 40
_LINUX = os.uname().sysname == "Linux"
_ANCILLARY_BYTES = socket.CMSG_SPACE(4)
_TRUNCATED = int(socket.MSG_TRUNC)
_MAPPED = "::ffff:"


class DatagramShell(ABC):
    """What listeners of datagrams have in common: many per read, and the kernel's count of drops."""

    def __init__(self, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES, max_datagrams: int = MAX_DATAGRAMS) -> None:
        self._receive_buffer_bytes = receive_buffer_bytes
        self._max_datagrams = min(max_datagrams, MAX_SOURCES)
        self._socket: socket.socket | None = None
        self._identity = 0
        self._received = 0
        self._dropped = 0

    @property
    @abstractmethod
    def _where(self) -> str:
        """What is listened on, such as `udp 127.0.0.1:514`."""

    @abstractmethod
    async def _bind(self) -> socket.socket:
        """A bound socket. Raises Permanent when the address cannot be had."""

    @abstractmethod
    def _names(self, senders: list[Any]) -> list[str]:
        """Names of senders for people."""

    async def open(self, position: bytes) -> None:
        """Bind; there is nothing to go back to. Raises Permanent when the address cannot be had."""
        await self.close()
        self._socket = await self._bind()
        self._identity = boot_identity(self._where)
        self._received = self._dropped = 0

    async def read(self) -> Delivery:
        """Return what the kernel holds, waiting for at least one datagram."""
        listener = self._socket
        if listener is None:
            raise Permanent(f"{self._where} is not open")
        while True:
            delivery = self._drain(listener)
            if delivery is not None:
                return delivery
            await readable(listener.fileno())

    async def close(self) -> None:
        """Close the socket; what it holds is lost."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _drain(self, listener: socket.socket) -> Delivery | None:
        datagrams: list[bytes] = []
        senders: list[Any] = []
        receive = listener.recvmsg
        ancillary: list[tuple[int, int, bytes]] = []
        cut = 0
        with suppress(BlockingIOError):
            while len(datagrams) < self._max_datagrams:
                datagram, ancillary, flags, sender = receive(MAX_DATAGRAM_BYTES, _ANCILLARY_BYTES)
                cut += flags & _TRUNCATED
                datagrams.append(datagram)
                senders.append(sender)
        if not datagrams:
            return None
        delivery = self._delivery(datagrams, self._names(senders), self._kernel_drops(ancillary))
        return replace(delivery, caps={"datagram": cut // _TRUNCATED}) if cut else delivery

    def _kernel_drops(self, ancillary: list[tuple[int, int, bytes]]) -> int:
        """Drops since the last call, from the last datagram's count, which wraps at 32 bits."""
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                before, self._dropped = self._dropped, int.from_bytes(value[:4], sys.byteorder)
                return (self._dropped - before) & 0xFFFFFFFF
        return 0

    def _delivery(self, datagrams: list[bytes], senders: list[str], drops: int) -> Delivery:
        count = len(datagrams)
        index = {name: place for place, name in enumerate(dict.fromkeys(senders))}
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.fromiter(map(len, datagrams), np.int64, count), out=offsets[1:])
        numbers = np.arange(self._received, self._received + count, dtype=np.uint64)
        self._received += count
        frames = Frames(
            b"".join(datagrams),
            offsets,
            np.full(count, time.time_ns() // 1000, np.int64),
            np.fromiter(map(index.__getitem__, senders), np.uint16, count),
            tuple(Source(name.removeprefix(_MAPPED), self._identity) for name in index),
            numbers << np.uint64(16),
            frozenset(index.values()) if drops else frozenset(),
        )
        shed: Mapping[str, int] = {"kernel_drops": drops} if drops else {}
        return Delivery(frames, b"", shed)


class UdpShell(DatagramShell):
    """Listens on one UDP port. Port 0 takes any free one, which `port` tells after open()."""

    def __init__(
        self, host: str, port: int, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES, max_datagrams: int = MAX_DATAGRAMS
    ) -> None:
        super().__init__(receive_buffer_bytes, max_datagrams)
        self._host = host
        self._port = port

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port if self._socket is None else int(self._socket.getsockname()[1])

    @property
    def _where(self) -> str:
        return f"udp {HostPort(self._host, self.port)}"

    async def _bind(self) -> socket.socket:
        try:
            family, _, _, _, address = (await self._resolve())[0]
            return bound(family, address, self._receive_buffer_bytes)
        except OSError as error:
            raise Permanent(f"{self._where} cannot be bound: {error.strerror}") from None

    async def _resolve(self) -> list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
        loop = asyncio.get_running_loop()
        return await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)  # type: ignore[return-value]

    def _names(self, senders: list[Any]) -> list[str]:
        return [sender[0] for sender in senders]


def boot_identity(where: str) -> int:
    """64-bit identity of what one opening of a listener receives."""
    return int.from_bytes(hashlib.blake2b(f"{where} ".encode() + os.urandom(16), digest_size=8).digest(), "big")


def bound(family: int, address: str | tuple[str, int] | tuple[str, int, int, int], receive_buffer_bytes: int) -> socket.socket:
    """A bound datagram socket whose kernel counts what it drops. Raises OSError."""
    made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _raise_buffer(made, receive_buffer_bytes)
        if _LINUX:
            made.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        made.bind(address)
    except OSError:
        made.close()
        raise
    return made


def _raise_buffer(listener: socket.socket, wanted_bytes: int) -> None:
    """Get as large a buffer as the system gives: beyond its limit Linux needs CAP_NET_ADMIN, and BSD refuses."""
    if _LINUX:
        with suppress(PermissionError):
            return listener.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, wanted_bytes)
    size = wanted_bytes
    while size > listener.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF):
        with suppress(OSError):
            return listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        size //= 2


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read, or has ended. Safe to cancel."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
