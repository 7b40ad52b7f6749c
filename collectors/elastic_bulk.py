"""The HTTP form in which Beats and other clients send documents to Elasticsearch: POST /_bulk, answered when they are safe.

After the reference of the Elasticsearch bulk API (8 and 9). HTTP/1.1 is read by h11. A document is answered with status
201 once the row, or dead letter, that came of it is committed; where that takes longer than `answer_secs` the request is
answered 503 and the client sends it again. The event id is made of the index and `_id` of the document, or of its bytes,
so what is sent again gets the same id. Two documents without `_id` that are the same to the byte are one event to a
sink that goes by ids.

Served beside: GET / and /_license (what clients ask first), GET, HEAD and PUT of templates, policies, pipelines, data
streams (always there, never kept). Not served: search, reading back, actions other than create and index (status 400 for
that document). Encodings: identity and gzip.

Bounds: a body larger than `max_body_bytes`, unpacked or as sent, is answered 413 and not read on; when the bodies being
read and the documents that wait to be decoded take more than `max_held_bytes` the answer is 429; both are counted as shed.
Connections are bounded as those of `collectors/tcp.py`. Credentials are compared before the body is read and never logged.

Sample: {"create":{"_index":"winlogbeat"}}\\n{"@timestamp":"2026-11-25T07:44:23.123Z",...}\\n
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
import zlib
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import h11
import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from collectors.beats import BeatsDecoder
from collectors.lines import LineFramer
from collectors.tcp import HANDSHAKE_SECS, TcpShell
from collectors.tls import TlsFiles
from ringfence.addresses import HostPort
from ringfence.batch import Source
from ringfence.component import BuildContext, Collector, Delivery, Format, Status
from ringfence.errors import Permanent
from ringfence.yamlfile import ConfigPath

MAX_BODY_BYTES = 32 << 20
MAX_HELD_BYTES = 128 << 20
PIECE_BYTES = 2 << 20  # documents that are decoded at once
ANSWER_SECS = 60.0
LINGER_SECS = 2.0  # for a client that still sends to read why it was refused
MAX_REMEMBERED = 1024
VERSION = "9.4.0"
"""Version that clients are told; Beats want one that is no older than theirs."""
_READ_BYTES = 256 * 1024
_JSON = ("content-type", "application/json")
_PRODUCT = ("x-elastic-product", "Elasticsearch")
_KINDS = ("_index_template", "_component_template", "_template", "_ilm", "_data_stream", "_ingest", "_security")

_log = logging.getLogger(__name__)


class Refused(Exception):
    """A request is answered with an error; `reason` counts it as shed, and the connection ends where its body was not read."""

    def __init__(self, status: int, kind: str, detail: str, reason: str = "", ends: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.reason = reason
        self.ends = ends


class _Target(msgspec.Struct, frozen=True, gc=False):
    _index: str | None = None
    _id: str | None = None


class _Action(msgspec.Struct, forbid_unknown_fields=True, frozen=True, gc=False):
    """The line before a document."""

    create: _Target | None = None
    index: _Target | None = None
    update: _Target | None = None
    delete: _Target | None = None


_ACTIONS = msgspec.json.Decoder(_Action)


class Item(NamedTuple):
    """What becomes of one action: its word, target index and id, and why it is refused, if it is."""

    action: str
    target: str
    id: str | None
    refusal: str | None = None


@dataclass(frozen=True)
class Bulk:
    """The body of a bulk request: an item for each action, and the documents with the numbers that name them."""

    items: Sequence[Item]
    documents: Sequence[bytes]
    numbers: npt.NDArray[np.uint64]


def parse_bulk(body: bytes, index: str) -> Bulk:
    """Read actions and documents; `index` is that of the path. Raises Refused when an action cannot be read."""
    items: list[Item] = []
    documents: list[bytes] = []
    numbers: list[int] = []
    known: dict[bytes, Item] = {}
    lines = enumerate(body.split(b"\n"), 1)
    for number, line in lines:
        if not line.strip():
            continue
        item = known.get(line)
        if item is None:
            item = _item(line, number, index)
            if len(known) < MAX_REMEMBERED:
                known[line] = item
        items.append(item)
        _, document = (number, None) if item.action == "delete" else next(lines, (number, None))
        if document is None and item.action != "delete":
            raise Refused(400, "illegal_argument_exception", f"line {number} has an action and no document")
        if item.refusal is None and document is not None:
            documents.append(document)
            numbers.append(_number(document) if item.id is None else _number(f"{item.target}\0{item.id}".encode()))
    return Bulk(items, documents, np.array(numbers, np.uint64))


def _item(line: bytes, number: int, index: str) -> Item:
    try:
        action = _ACTIONS.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        detail = f"line {number} is no action; expected create, index, update or delete"
        raise Refused(400, "illegal_argument_exception", detail) from None
    named = [name for name in _Action.__struct_fields__ if getattr(action, name) is not None]
    if len(named) != 1:
        raise Refused(400, "illegal_argument_exception", f"line {number} has {len(named)} actions instead of one")
    target = getattr(action, named[0])
    refusal = f"{named[0]} is not supported: documents are only added" if named[0] in ("update", "delete") else None
    return Item(named[0], target._index or index, target._id, refusal)


def _number(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def answer(bulk: Bulk, took_ms: int) -> bytes:
    """What a client is told when the documents are safe."""
    numbers = iter(bulk.numbers.tolist())
    items = []
    for item in bulk.items:
        if item.refusal is None:
            number = next(numbers)
            said: dict[str, Any] = {
                "_index": item.target,
                "_id": item.id or f"{number:016x}",
                "result": "created",
                "status": 201,
            }
        else:
            error = {"type": "illegal_argument_exception", "reason": item.refusal}
            said = {"_index": item.target, "_id": item.id, "status": 400, "error": error}
        items.append({item.action: said})
    refused = any(item.refusal is not None for item in bulk.items)
    return msgspec.json.encode({"took": took_ms, "errors": refused, "items": items})


class Credentials:
    """Who may send: a file of lines `basic USER:PASSWORD`, `apikey ID:KEY` or `bearer TOKEN`, read again when it changes."""

    def __init__(self, path: ConfigPath) -> None:
        self._path = path
        self._signature: tuple[int, int, int] | None = None
        self._accepted: list[bytes] = []

    def load(self) -> None:
        """Read the file if it changed. Raises Permanent when it can be read no more, or holds no credential."""
        try:
            status = self._path.stat()
            signature = (status.st_ino, status.st_mtime_ns, status.st_size)
            if signature == self._signature:
                return
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Permanent(
                f"credentials {self._path} cannot be read: {getattr(error, 'strerror', 'it is no UTF-8')}"
            ) from None
        accepted = [_header(line.strip()) for line in lines if line.strip() and not line.startswith("#")]
        if not accepted or b"" in accepted:
            raise Permanent(f"credentials {self._path}: expected lines basic USER:PASSWORD, apikey ID:KEY or bearer TOKEN")
        self._accepted, self._signature = accepted, signature

    def allow(self, header: bytes) -> bool:
        """Whether the value of an Authorization header is one of them, in a time that tells nothing."""
        try:
            self.load()
        except Permanent as error:
            _log.error("what was read before stays in force: %s", error)
        scheme, _, value = header.partition(b" ")
        sent = scheme.lower() + b" " + value.strip()
        found = False
        for accepted in self._accepted:  # all of them, whichever it is
            found |= hmac.compare_digest(sent, accepted)
        return found


def _header(line: str) -> bytes:
    """What a client sends for one line of the file; empty for what is none."""
    scheme, _, value = line.partition(" ")
    if scheme == "bearer" and value:
        return f"bearer {value}".encode()
    if scheme in ("basic", "apikey") and ":" in value:
        return scheme.encode() + b" " + base64.b64encode(value.encode())
    return b""


@dataclass
class _Request:
    """One request: its line, what matters of its headers, and its body as far as it was read."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: bytearray = field(default_factory=bytearray)

    @property
    def parts(self) -> list[str]:
        """The path without its query, at the slashes."""
        return [part for part in self.path.partition("?")[0].split("/") if part]


class ElasticBulkShell(TcpShell):
    """Listens for bulk requests; each answer waits for the commit of what came of its documents."""

    def __init__(
        self,
        host: str,
        port: int,
        tls: TlsFiles | None = None,
        credentials: Credentials | None = None,
        version: str = VERSION,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_held_bytes: int = MAX_HELD_BYTES,
        answer_secs: float = ANSWER_SECS,
        **bounds: Any,
    ) -> None:
        super().__init__(host, port, LineFramer, tls, HANDSHAKE_SECS, max_queued_bytes=max_held_bytes, **bounds)
        self._credentials = credentials
        self._version = version
        self._max_body_bytes = max_body_bytes
        self._max_held_bytes = max_held_bytes
        self._answer_secs = answer_secs
        self._source = Source("elastic-bulk", _number(b"elastic-bulk"))
        self._held_bytes = 0
        self._refusals: Counter[str] = Counter()
        self._enqueued = self._delivered = 0
        self._waiting: deque[tuple[int, asyncio.Future[None], _Exchange]] = deque()
        self._answering: set[_Exchange] = set()
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    async def open(self, position: bytes) -> None:
        """Listen. Raises Permanent when the address or the credentials cannot be had."""
        if self._credentials is not None:
            self._credentials.load()
        await super().open(position)
        self._enqueued = self._delivered = 0
        self._held_bytes = 0

    async def read(self) -> Delivery:
        """Return documents, waiting for at least one; the position counts those of this listener."""
        delivery = await super().read()
        self._delivered += len(delivery.frames)
        shed = {**delivery.shed, **self._refusals}
        self._refusals.clear()
        return replace(delivery, position=self._position(self._delivered), shed=shed)

    def settle(self, position: bytes) -> None:
        """Answer the requests whose documents are all committed."""
        boot, _, count = position.partition(b" ")
        if boot != b"%016x" % self._identity:
            return
        while self._waiting and self._waiting[0][0] <= int(count):
            _, answered, exchange = self._waiting.popleft()
            if not answered.done():
                answered.set_result(None)
                self._answering.add(exchange)
                self._all_sent.clear()

    async def close(self) -> None:
        """Send the answers that are due and stop listening; other requests are sent again by their clients."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECS):
                await self._all_sent.wait()
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        await super().close()

    def _position(self, count: int) -> bytes:
        return b"%016x %d" % (self._identity, count)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: Source) -> None:
        """Serve the requests of one connection, one after the other."""
        connection = h11.Connection(h11.SERVER)
        with suppress(OSError, h11.RemoteProtocolError):  # the client left, or speaks something else
            while await self._exchange(connection, reader, writer) and self._server is not None:
                connection.start_next_cycle()
            if writer.can_write_eof():
                writer.write_eof()
            async with asyncio.timeout(LINGER_SECS):
                while await reader.read(_READ_BYTES):
                    pass

    async def _exchange(self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is to end."""
        exchange = _Exchange(connection, reader, writer, self)
        try:
            request = await exchange.head()
            if request is None:
                return False
            status, body = await self._respond(exchange, request)
            await exchange.send(status, body, False)
        except h11.RemoteProtocolError as error:
            if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await exchange.send(
                    error.error_status_hint, _error(error.error_status_hint, "parse_exception", "this is no HTTP/1.1"), True
                )
            return False
        except Refused as refusal:
            if refusal.reason:
                self._refusals[refusal.reason] += 1
                self._filled.set()
            await exchange.send(refusal.status, _error(refusal.status, refusal.kind, str(refusal)), refusal.ends)
            return not refusal.ends
        finally:
            self._held_bytes -= exchange.held_bytes
            self._answering.discard(exchange)
            if not self._answering:
                self._all_sent.set()
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _respond(self, exchange: _Exchange, request: _Request) -> tuple[int, bytes]:
        """Status and body of the answer. Raises Refused."""
        if self._credentials is not None and not self._credentials.allow(request.headers.get(b"authorization", b"")):
            raise Refused(401, "security_exception", "unable to authenticate", "not_authenticated", ends=True)
        await exchange.take_body(request)
        parts = request.parts
        if request.method in ("POST", "PUT") and parts[-1:] == ["_bulk"] and len(parts) <= 2:
            return 200, await self._bulk(exchange, request, parts[0] if len(parts) == 2 else "")
        if request.method in ("GET", "HEAD") and not parts:
            return 200, msgspec.json.encode(_info(self._version))
        if request.method == "GET" and parts in (["_license"], ["_xpack"]):
            return 200, msgspec.json.encode(_LICENSE)
        if parts and parts[0] in _KINDS and request.method in ("GET", "HEAD", "PUT", "POST"):
            return 200, b"{}" if request.method in ("GET", "HEAD") else b'{"acknowledged":true}'
        raise Refused(405 if parts == [] else 404, "illegal_argument_exception", f"{request.method} of this path is not served")

    async def _bulk(self, exchange: _Exchange, request: _Request, index: str) -> bytes:
        """Hand the documents over and wait until they are safe."""
        started = time.monotonic()
        bulk = parse_bulk(bytes(request.body), index)
        request.body.clear()
        if bulk.documents:
            self._hand_over(bulk)
            exchange.release()
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((self._enqueued, answered, exchange))
            try:
                async with asyncio.timeout(self._answer_secs):
                    await answered
            except TimeoutError:
                detail = f"the documents were not safe after {self._answer_secs:.0f} s"
                raise Refused(503, "process_cluster_event_timeout_exception", detail, "answered_too_late") from None
        return answer(bulk, int((time.monotonic() - started) * 1000))

    def _hand_over(self, bulk: Bulk) -> None:
        """Queue all documents, in pieces; no other request comes between, so that counting them is enough."""
        received_us = time.time_ns() // 1000
        sizes = np.array([len(document) + 1 for document in bulk.documents], np.int64)
        ends = np.cumsum(sizes)
        start = 0
        while start < len(sizes):
            before = int(ends[start - 1]) if start else 0
            stop = max(int(np.searchsorted(ends, before + PIECE_BYTES, "right")), start + 1)
            data = b"\n".join(bulk.documents[start:stop]) + b"\n"
            offsets = np.concatenate([np.zeros(1, np.int64), ends[start:stop] - before])
            self._put(self._source, data, offsets, bulk.numbers[start:stop], received_us)
            self._enqueued += stop - start
            start = stop

    def hold(self, size: int) -> None:
        """Count bytes of a body. Raises Refused when there are too many."""
        if self._held_bytes + self._queued_bytes + size > self._max_held_bytes:
            raise Refused(429, "es_rejected_execution_exception", "too much is waiting to be read", "too_busy", ends=True)
        self._held_bytes += size

    @property
    def max_body_bytes(self) -> int:
        """How large a body may be."""
        return self._max_body_bytes

    @property
    def idle_secs(self) -> float:
        """How long a client may be silent."""
        return self._idle_secs


class _Exchange:
    """One request and its answer on a connection."""

    def __init__(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, shell: ElasticBulkShell
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._shell = shell
        self._is_head = False
        self.held_bytes = 0

    async def head(self) -> _Request | None:
        """The line and headers of the next request; None when there is none."""
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        self._is_head = event.method == b"HEAD"
        return _Request(event.method.decode("ascii"), event.target.decode("ascii", "replace"), dict(event.headers))

    async def take_body(self, request: _Request) -> None:
        """Read the body, unpacked. Raises Refused when it is too large, or cannot be unpacked."""
        encoding = request.headers.get(b"content-encoding", b"identity").lower()
        if encoding not in (b"identity", b"gzip"):
            raise Refused(415, "illegal_argument_exception", "expected Content-Encoding identity or gzip", ends=True)
        if int(request.headers.get(b"content-length", b"0")) > self._shell.max_body_bytes:
            raise self._too_large()
        if self._connection.they_are_waiting_for_100_continue:
            await self._write(self._connection.send(h11.InformationalResponse(status_code=100, headers=[])))
        unpacker = zlib.decompressobj(31) if encoding == b"gzip" else None
        received = 0
        while isinstance(event := await self._event(), h11.Data):
            received += len(event.data)
            if received > self._shell.max_body_bytes:
                raise self._too_large()
            self._append(request.body, bytes(event.data), unpacker)
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionResetError
        if unpacker is not None and received and not unpacker.eof:
            raise Refused(400, "parse_exception", "the gzip body ends too early")
        if unpacker is not None and unpacker.unused_data:
            raise Refused(400, "parse_exception", "something follows the gzip body")

    def _append(self, body: bytearray, data: bytes, unpacker: Any) -> None:
        """Add bytes of the body, never more than there may be."""
        if unpacker is not None:
            room = self._shell.max_body_bytes - len(body)
            try:
                data = unpacker.decompress(data, room + 1)
            except zlib.error:
                raise Refused(400, "parse_exception", "the body is no gzip", ends=True) from None
            if len(data) > room:
                raise self._too_large()
        self._shell.hold(len(data))
        self.held_bytes += len(data)
        body += data

    def release(self) -> None:
        """The body is held elsewhere now."""
        self._shell.hold(-self.held_bytes)
        self.held_bytes = 0

    def _too_large(self) -> Refused:
        detail = f"the body is larger than {self._shell.max_body_bytes} bytes"
        return Refused(413, "content_too_long_exception", detail, "too_large", ends=True)

    async def send(self, status: int, body: bytes, ends: bool) -> None:
        """Write an answer."""
        headers = [_JSON, _PRODUCT, ("content-length", str(len(body)))]
        headers += [("www-authenticate", 'Basic realm="security", ApiKey, Bearer')] if status == 401 else []
        headers += [("retry-after", "5")] if status in (429, 503) else []
        headers += [("connection", "close")] if ends else []
        send = self._connection.send
        pieces = [send(h11.Response(status_code=status, headers=headers))]
        if not self._is_head:
            pieces.append(send(h11.Data(data=body)))
        pieces.append(send(h11.EndOfMessage()))
        await self._write(b"".join(piece for piece in pieces if piece))

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        async with asyncio.timeout(self._shell.idle_secs):
            await self._writer.drain()

    async def _event(self) -> Any:
        """The next event of the client; ConnectionClosed when it is idle too long."""
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            try:
                async with asyncio.timeout(self._shell.idle_secs):
                    data = await self._reader.read(_READ_BYTES)
            except OSError:
                return h11.ConnectionClosed()
            self._connection.receive_data(data)
        return event


def _error(status: int, kind: str, detail: str) -> bytes:
    """An error as Elasticsearch writes it."""
    cause = {"type": kind, "reason": detail}
    return msgspec.json.encode({"error": {"root_cause": [cause], **cause}, "status": status})


def _info(version: str) -> dict[str, Any]:
    """What GET / tells of a cluster."""
    numbers = {"number": version, "build_flavor": "default", "minimum_wire_compatibility_version": "8.19.0"}
    return {
        "name": "ringfence",
        "cluster_name": "ringfence",
        "cluster_uuid": "_na_",
        "version": numbers,
        "tagline": "You Know, for Search",
    }


_LICENSE: Mapping[str, Any] = {"license": {"status": "active", "uid": "ringfence", "type": "basic", "mode": "basic"}}


class Settings(BaseModel):
    """Listens on one port for bulk requests."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: HostPort = Field(description="HOST:PORT to listen on, such as 127.0.0.1:9200.")
    tls: TlsFiles | None = Field(
        default=None,
        description="PEM files for https: `certificate`, `key` and, where clients must show a certificate, `client_ca`.",
    )
    credentials: ConfigPath | None = Field(
        default=None,
        description="File of lines `basic USER:PASSWORD`, `apikey ID:KEY` or `bearer TOKEN`; without it anyone may send.",
    )
    version: str = Field(
        default=VERSION, pattern=r"^\d+\.\d+\.\d+$", description="Version of Elasticsearch that clients are told."
    )
    max_body_bytes: int = Field(default=MAX_BODY_BYTES, ge=1024, description="Largest body of a request, unpacked.")
    observer: str | None = Field(default=None, description="Name of the sensor; the host of the document when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each document as event.original.")


class ElasticBulkKind:
    """Entry point `elastic-bulk`."""

    settings = Settings
    promise = "every document at least once, with the same event id each time: clients are answered after the commit"
    status: Status = "experimental"
    sample = 'winlogbeat: {type: elastic-bulk, listen: "0.0.0.0:9200", credentials: /etc/ringfence/senders}'
    formats: Sequence[Format] = ()

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """Documents of Beats from the port."""
        credentials = None if settings.credentials is None else Credentials(settings.credentials)
        where = settings.listen
        shell = ElasticBulkShell(
            where.host,
            where.port,
            settings.tls,
            credentials,
            settings.version,
            settings.max_body_bytes,
            max(MAX_HELD_BYTES, 2 * settings.max_body_bytes),
        )
        return Collector("beats", shell, BeatsDecoder(settings.observer, settings.original == "keep"))

    def resources(self, settings: Settings) -> Sequence[str]:
        """The port."""
        return (f"tcp {settings.listen}",)


KIND = ElasticBulkKind()
