"""Blocks and dead letters on the wire: Batch <-> Record, checked before anything large is allocated.

A block is an Arrow IPC stream (lz4) of the columns; its Header travels as record headers named `ringfence-*`, together
with a CRC-32C (RFC 3720 B.4) of the value. A block of at most BLOCK_BYTES is made, and one of at most MAX_VALUE_BYTES is read.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import polars as pl
from crc32c import crc32c

from ringfence import schema
from ringfence.batch import Batch, EventClass, Header, Record

BLOCK_BYTES = 512 * 1024
MAX_VALUE_BYTES = 8 * 1024 * 1024
MAX_ROWS = 1_000_000
BLOCK_TYPE = b"application/vnd.apache.arrow.stream"


_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")


class BadBlock(ValueError):
    """A record is no block that this version can read; the message says why."""


BLOCK_MEMORY_BYTES = 2 * BLOCK_BYTES
"""Columns of this size rarely make more than BLOCK_BYTES (lz4 halves them at least), so that nothing is compressed twice."""


def encode(batch: Batch, key: bytes) -> list[Record]:
    """Make blocks of a batch: parts of equal size by what it takes in memory, halved where one is above BLOCK_BYTES."""
    height = batch.frame.height
    parts = min(int(batch.frame.estimated_size()) // BLOCK_MEMORY_BYTES + 1, max(height, 1))
    size = -(-height // parts)
    if parts == 1:
        return _encode(batch, key)
    pieces = [batch.frame.slice(start, size) for start in range(0, height, size)]
    return [record for index, piece in enumerate(pieces) for record in _encode(_part(batch, piece, index), key)]


def _encode(batch: Batch, key: bytes) -> list[Record]:
    """One block, or those of both halves where it is larger than BLOCK_BYTES (one row may be)."""
    sink = io.BytesIO()
    batch.frame.write_ipc_stream(sink, compression="lz4")
    value = sink.getvalue()
    if len(value) <= BLOCK_BYTES or batch.frame.height <= 1:
        return [Record(key, _headers(batch.header, value), value)]
    middle = batch.frame.height // 2
    halves = (batch.frame.slice(0, middle), batch.frame.slice(middle))
    return [record for index, half in enumerate(halves) for record in _encode(_part(batch, half, index), key)]


def decode(record: Record) -> Batch:
    """Read a block. Raises BadBlock for damage, a foreign record, or a schema of another major version."""
    if record.headers.get("content-type") != BLOCK_TYPE:
        raise BadBlock(f"content-type {record.headers.get('content-type', b'(absent)')!r} is not a ringfence block")
    if len(record.value) > MAX_VALUE_BYTES:
        raise BadBlock(f"the block is {len(record.value)} bytes long, at most {MAX_VALUE_BYTES} are accepted")
    header = read_header(record.headers)
    if int(header.schema.partition(".")[0]) != schema.MAJOR:
        raise BadBlock(f"the block has schema {header.schema}, this version reads {schema.MAJOR}.x")
    stated, found = _number(record.headers, "ringfence-crc32c"), crc32c(record.value)
    if stated != found:
        raise BadBlock(f"checksum mismatch: header says {stated:08x}, the {len(record.value)} bytes give {found:08x}")
    try:
        frame = pl.read_ipc_stream(io.BytesIO(record.value))
        known = schema.conform(header.event_class, frame)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise BadBlock(f"not an Arrow IPC stream of known columns: {error}") from None
    if frame.height != header.rows:
        raise BadBlock(f"header says {header.rows} rows, the block has {frame.height}")
    return Batch(header, known)


def read_header(headers: Mapping[str, bytes]) -> Header:
    """The Header of a block from its record headers. Raises BadBlock when one is absent or out of range."""
    text = {name: headers[name].decode(errors="replace") if name in headers else None for name in _TEXT_HEADERS}
    absent = [name for name, value in text.items() if value is None]
    if absent:
        raise BadBlock(f"the record lacks the header {absent[0]}")
    rows = _number(headers, "ringfence-rows")
    event_class = str(text["ringfence-class"])
    if event_class not in EventClass.__members__.values() or not 0 <= rows <= MAX_ROWS:
        raise BadBlock(f"class {event_class!r} with {rows} rows is not one that this version reads")
    version = str(text["ringfence-schema"])
    if not _VERSION.fullmatch(version):
        raise BadBlock(f"schema {version!r} is not <major>.<minor>")
    return Header(
        batch_id=str(text["ringfence-batch-id"]),
        schema=version,
        tenant=str(text["ringfence-tenant"]),
        event_class=EventClass(event_class),
        collector=str(text["ringfence-collector"]),
        module=str(text["ringfence-module"]),
        sequence=_number(headers, "ringfence-seq"),
        rows=rows,
        time_min_us=_number(headers, "ringfence-time-min"),
        time_max_us=_number(headers, "ringfence-time-max"),
        ingested_us=_number(headers, "ringfence-ingest-ts"),
    )


_TEXT_HEADERS = (
    "ringfence-batch-id",
    "ringfence-schema",
    "ringfence-tenant",
    "ringfence-class",
    "ringfence-collector",
    "ringfence-module",
)


def _headers(header: Header, value: bytes) -> dict[str, bytes]:
    return {
        "content-type": BLOCK_TYPE,
        "ringfence-batch-id": header.batch_id.encode(),
        "ringfence-schema": header.schema.encode(),
        "ringfence-tenant": header.tenant.encode(),
        "ringfence-class": header.event_class.encode(),
        "ringfence-collector": header.collector.encode(),
        "ringfence-module": header.module.encode(),
        "ringfence-seq": b"%d" % header.sequence,
        "ringfence-rows": b"%d" % header.rows,
        "ringfence-time-min": b"%d" % header.time_min_us,
        "ringfence-time-max": b"%d" % header.time_max_us,
        "ringfence-ingest-ts": b"%d" % header.ingested_us,
        "ringfence-crc32c": b"%d" % crc32c(value),
    }


def _number(headers: Mapping[str, bytes], name: str) -> int:
    value = headers.get(name, b"")
    if not value.removeprefix(b"-").isdigit() or len(value) > 20:
        raise BadBlock(f"header {name} is {value[:32]!r}, not a number")
    return int(value)


def _part(batch: Batch, frame: pl.DataFrame, index: int) -> Batch:
    low, high = time_span(frame)
    header = replace(
        batch.header, batch_id=f"{batch.header.batch_id}.{index}", rows=frame.height, time_min_us=low, time_max_us=high
    )
    return Batch(header, frame)


def time_span(frame: pl.DataFrame) -> tuple[int, int]:
    """First and last event time of a frame in microseconds; zeros where it has none."""
    if "@timestamp" not in frame.columns or frame["@timestamp"].null_count() == frame.height:
        return 0, 0
    low, high = frame.select(pl.col("@timestamp").min().alias("low"), pl.col("@timestamp").max().alias("high")).row(0)
    return int(low), int(high)


def rows_in(records: Sequence[Record]) -> int:
    """Rows that some records carry by their headers; a dead letter counts as one."""
    return sum(int(record.headers.get("ringfence-rows", b"1")) for record in records)
