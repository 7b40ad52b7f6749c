"""Shell that accepts TCP connections and cuts each stream with a framer of its own (RFC 6587 for syslog).

Frames of all connections queue up, bounded by bytes; while the queue is full no socket is read, so that TCP pushes the
senders back. Connections beyond a cap are closed at once and counted as shed `connections_refused`. A connection that is
silent for `idle_secs` is closed, and so is one whose frame does not end within `max_pending_bytes`; when all connections
together hold more than `max_unfinished_bytes` of frames that have not ended, the one that holds most of them is. What a
connection left unfinished is delivered as its last frame, as it is when the peer closes. Each bound that is hit is counted
(`Delivery.caps`): connections, connections_per_peer, idle, frame, unfinished, queue, handshakes.

Source: `name` is the peer's address without its port, `identity` a hash of the listener, a random boot id and a counter
of connections, and the position the byte offset in the connection's stream. Nothing can be read again, so saved
positions are empty, and what is queued at close() is lost: TCP does not tell its sender.

With TLS (`collectors/tls.py`) a connection counts once its handshake is done. One that fails or takes longer than
`handshake_secs` is shed `handshakes_failed`; when `max_handshakes` are under way the oldest gives way to the newest, so
that peers who never finish keep nobody out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from socket import gaierror
from typing import Any

import numpy as np
import numpy.typing as npt

from collectors.tls import Contexts, TlsFiles
from collectors.udp import boot_identity
from ringfence.addresses import HostPort
from ringfence.batch import Frames, Source
from ringfence.component import Delivery, Framer
from ringfence.errors import Permanent

# bounds against many and slow connections
MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_PER_PEER = 64
IDLE_SECS = 300.0
MAX_PENDING_BYTES = 1 << 20
MAX_UNFINISHED_BYTES = 64 << 20
MAX_QUEUED_BYTES = 64 << 20

MAX_DELIVERY_BYTES = 4 << 20
MAX_DELIVERY_CHUNKS = 1024  # also bounds the sources of a delivery
HANDSHAKE_SECS = 10.0
MAX_HANDSHAKES = 256
MAX_REASONS = 64  # of failed handshakes, each logged once
_READ_BYTES = 64 * 1024
_CHUNK_OVERHEAD_BYTES = 512  # what a queued chunk costs beside its bytes, so that many tiny ones are bounded too
_MAPPED = "::ffff:"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Frames of one connection, as one read gave them."""

    source: Source
    data: bytes
    offsets: npt.NDArray[np.int64]
    positions: npt.NDArray[np.uint64]
    received_us: int

    @property
    def cost_bytes(self) -> int:
        return len(self.data) + self.offsets.nbytes + self.positions.nbytes + _CHUNK_OVERHEAD_BYTES


class StreamShell(ABC):
    """What listeners of streams have in common: connections, their framers, bounds, and the queue of frames."""

    def __init__(
        self,
        framer: Callable[[], Framer],
        max_connections: int = MAX_CONNECTIONS,
        max_connections_per_peer: int = MAX_CONNECTIONS_PER_PEER,
        idle_secs: float = IDLE_SECS,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        max_unfinished_bytes: int = MAX_UNFINISHED_BYTES,
    ) -> None:
        self._framer = framer
        self._max_connections = max_connections
        self._max_connections_per_peer = max_connections_per_peer
        self._idle_secs = idle_secs
        self._max_pending_bytes = max_pending_bytes
        self._max_queued_bytes = max_queued_bytes
        self._max_unfinished_bytes = max_unfinished_bytes
        self._server: asyncio.Server | None = None
        self._identity = 0
        self._accepted = 0
        self._refused = 0
        self._failed = 0
        self._caps: Counter[str] = Counter()
        self._unfinished: dict[asyncio.StreamWriter, int] = {}
        self._unfinished_bytes = 0
        self._handshakes: dict[asyncio.StreamWriter, asyncio.Event] = {}
        self._peers: Counter[str] = Counter()
        self._writers: dict[asyncio.StreamWriter, asyncio.Event] = {}
        self._queue: deque[_Chunk] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()

    @abstractmethod
    async def _listen(self) -> asyncio.Server:
        """Listen, with `_serve` for each connection. Raises Permanent when the address cannot be had."""

    @abstractmethod
    def _boot_identity(self) -> int:
        """Identity of what this opening of the listener receives."""

    @abstractmethod
    def _peer(self, writer: asyncio.StreamWriter) -> str:
        """Name of the peer of a connection."""

    async def open(self, position: bytes) -> None:
        """Listen; there is nothing to go back to. Raises Permanent when the address cannot be had."""
        await self.close()
        self._server = await self._listen()
        self._identity = self._boot_identity()
        self._accepted = self._refused = self._failed = 0
        self._caps.clear()

    async def read(self) -> Delivery:
        """Return what is queued, waiting for at least one frame or a bound that was hit."""
        await self._filled.wait()
        chunks: list[_Chunk] = []
        size = 0
        while self._queue and size < MAX_DELIVERY_BYTES and len(chunks) < MAX_DELIVERY_CHUNKS:
            chunks.append(self._queue.popleft())
            size += len(chunks[-1].data)
        self._queued_bytes -= sum(chunk.cost_bytes for chunk in chunks)
        self._emptied.set()
        if not self._queue:
            self._filled.clear()
        counted = {"connections_refused": self._refused, "handshakes_failed": self._failed}
        shed = {reason: count for reason, count in counted.items() if count}
        self._refused = self._failed = 0
        caps, self._caps = self._caps, Counter()
        return Delivery(_joined(chunks), b"", shed, caps)

    async def close(self) -> None:
        """Stop listening, end all connections and forget what is queued."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        ended = [*self._writers.values(), *self._handshakes.values()]
        for writer in (*self._writers, *self._handshakes):
            writer.transport.abort()
        self._emptied.set()
        for event in ended:
            await event.wait()
        await server.wait_closed()
        self._queue.clear()
        self._queued_bytes = 0
        self._filled.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = self._peer(writer)
        cap = self._cap_for(peer)
        if self._server is None or cap:
            self._refused += 1
            self._hit(cap or "connections")
            writer.transport.abort()
            return
        self._accepted += 1
        self._peers[peer] += 1
        ended = self._writers[writer] = asyncio.Event()
        try:
            await self._receive(reader, writer, Source(peer, self._connection_identity()))
        finally:
            writer.transport.abort()
            self._hold(writer, 0)
            del self._writers[writer]
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]
            ended.set()

    def _cap_for(self, peer: str) -> str:
        """The bound that one more connection of a peer would hit, if any."""
        if len(self._writers) >= self._max_connections:
            return "connections"
        return "connections_per_peer" if self._peers[peer] >= self._max_connections_per_peer else ""

    def _hit(self, cap: str) -> None:
        self._caps[cap] += 1
        self._filled.set()

    def _connection_identity(self) -> int:
        name = self._identity.to_bytes(8, "big") + self._accepted.to_bytes(8, "big")
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Source) -> None:
        """Queue the frames of one connection until it ends, stays silent, or holds too much for one frame."""
        framer = self._framer()
        start = 0
        while True:
            data = await self._received(reader)
            if not data:
                break
            start += await self._enqueue_cut(source, framer.cut(data), start)
            if framer.pending > self._max_pending_bytes:
                self._hit("frame")
                break
            self._hold(writer, framer.pending)
        await self._enqueue_cut(source, framer.finish(), start)

    def _hold(self, writer: asyncio.StreamWriter, size: int) -> None:
        """Note how much of an unfinished frame a connection holds; when all hold too much, end the one that holds most."""
        self._unfinished_bytes += size - self._unfinished.pop(writer, 0)
        if size:
            self._unfinished[writer] = size
        if self._unfinished_bytes > self._max_unfinished_bytes:
            greatest = max(self._unfinished, key=self._unfinished.__getitem__)
            self._hit("unfinished")
            self._hold(greatest, 0)
            greatest.transport.abort()

    async def _received(self, reader: asyncio.StreamReader) -> bytes:
        """The next bytes; none when the connection has ended, was lost, or is idle."""
        try:
            async with asyncio.timeout(self._idle_secs) as patience:
                return await reader.read(_READ_BYTES)
        except OSError:  # includes TimeoutError, which is that of TCP too
            if patience.expired():
                self._hit("idle")
            return b""

    async def _enqueue_cut(self, source: Source, cut: tuple[bytes, npt.NDArray[np.int64]], start: int) -> int:
        """Queue frames that begin at a place in their stream; returns their length."""
        data, offsets = cut
        if len(offsets) > 1:
            await self._enqueue(source, data, offsets, (offsets[:-1] + start).astype(np.uint64))
        return len(data)

    async def _enqueue(
        self, source: Source, data: bytes, offsets: npt.NDArray[np.int64], positions: npt.NDArray[np.uint64]
    ) -> None:
        """Wait for room in the queue and add frames."""
        received_us = time.time_ns() // 1000
        if self._queued_bytes >= self._max_queued_bytes:
            self._hit("queue")
        while self._queued_bytes >= self._max_queued_bytes and self._server is not None:
            self._emptied.clear()
            await self._emptied.wait()
        self._put(source, data, offsets, positions, received_us)

    def _put(
        self,
        source: Source,
        data: bytes,
        offsets: npt.NDArray[np.int64],
        positions: npt.NDArray[np.uint64],
        received_us: int,
    ) -> None:
        """Add frames to the queue, whether there is room or not."""
        chunk = _Chunk(source, data, offsets, positions, received_us)
        self._queue.append(chunk)
        self._queued_bytes += chunk.cost_bytes
        self._filled.set()


class TcpShell(StreamShell):
    """Listens on one TCP port. Port 0 takes any free one, which `port` tells after open()."""

    def __init__(
        self,
        host: str,
        port: int,
        framer: Callable[[], Framer],
        tls: TlsFiles | None = None,
        handshake_secs: float = HANDSHAKE_SECS,
        max_handshakes: int = MAX_HANDSHAKES,
        **bounds: Any,
    ) -> None:
        super().__init__(framer, **bounds)
        self._host = host
        self._port = port
        self._contexts = None if tls is None else Contexts(tls)
        self._handshake_secs = handshake_secs
        self._max_handshakes = max_handshakes
        self._reasons: set[str] = set()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def _listen(self) -> asyncio.Server:
        if self._contexts is not None:
            self._contexts.current()
        try:
            return await asyncio.start_server(self._accept, self._host, self._port)
        except OSError as error:
            reason = error.strerror if isinstance(error, gaierror) else os.strerror(error.errno or 0)
            raise Permanent(f"tcp {HostPort(self._host, self._port)} cannot be bound: {reason}") from None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Awaitable[None]:
        if self._contexts is None:
            return self._serve(reader, writer)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # what comes first is the handshake's
        return self._serve_tls(self._contexts, writer)

    async def _serve_tls(self, contexts: Contexts, writer: asyncio.StreamWriter) -> None:
        if len(self._handshakes) >= self._max_handshakes:
            self._hit("handshakes")
            next(iter(self._handshakes)).transport.abort()
        ended = self._handshakes[writer] = asyncio.Event()
        try:
            decrypted = await self._shake_hands(contexts, writer)
            if decrypted is not None:
                del self._handshakes[writer]
                await self._serve(*decrypted)
            elif self._server is not None:
                self._failed += 1
                self._filled.set()
        finally:
            self._handshakes.pop(writer, None)
            writer.transport.abort()
            ended.set()

    async def _shake_hands(
        self, contexts: Contexts, writer: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The decrypted side of a connection; None when it is no good."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(_READ_BYTES, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            transport = await loop.start_tls(
                writer.transport, protocol, contexts.current(), server_side=True, ssl_handshake_timeout=self._handshake_secs
            )
        except OSError as error:  # includes SSLError
            self._say(self._peer(writer), getattr(error, "reason", None) or str(error) or type(error).__name__)
            return None
        if transport is None:  # the connection was lost
            return None
        protocol.connection_made(transport)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def _say(self, peer: str, reason: str) -> None:
        if reason not in self._reasons and len(self._reasons) < MAX_REASONS:
            self._reasons.add(reason)
            where = HostPort(self._host, self.port)
            _log.warning("tls handshake of %s on %s failed: %s; more of the kind are only counted", peer, where, reason)

    def _boot_identity(self) -> int:
        return boot_identity(f"tcp {HostPort(self._host, self.port)}")

    def _peer(self, writer: asyncio.StreamWriter) -> str:
        return str(writer.get_extra_info("peername", ("unknown",))[0]).removeprefix(_MAPPED)


def _joined(chunks: list[_Chunk]) -> Frames:
    """One Frames of many chunks; each connection is one source."""
    index: dict[Source, int] = {}
    for chunk in chunks:
        index.setdefault(chunk.source, len(index))
    counts = [len(chunk.offsets) - 1 for chunk in chunks]
    sizes = [np.diff(chunk.offsets) for chunk in chunks]
    offsets = np.zeros(sum(counts) + 1, np.int64)
    positions = [chunk.positions for chunk in chunks]
    if chunks:
        np.cumsum(np.concatenate(sizes), out=offsets[1:])
    return Frames(
        b"".join(chunk.data for chunk in chunks),
        offsets,
        np.repeat(np.array([chunk.received_us for chunk in chunks], np.int64), counts),
        np.repeat(np.array([index[chunk.source] for chunk in chunks], np.uint16), counts),
        tuple(index),
        np.concatenate(positions) if positions else np.zeros(0, np.uint64),
    )
