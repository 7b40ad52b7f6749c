"""Writes one block of every event class under the schema of this checkout: `python -m tests.blocks.write tests/blocks/1.0`.

Run once for each schema version and committed; tests/test_schema.py reads them with every later version. A file is one
msgpack map: `key`, `headers` and `value` of the record, and `columns`, the values as they were when it was written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from ringfence import codec, schema
from ringfence.batch import Batch, EventClass, Header

ROWS = 3


def values(dtype: pl.DataType, name: str) -> list[Any]:
    """Something, something at the edge of the type, and null."""
    edges: dict[pl.DataType, list[Any]] = {
        pl.Int64(): [1_790_000_000_123_456, -(1 << 62), None],
        pl.Int32(): [443, 65_535, None],
        pl.UInt64(): [0xFEED_FACE_CAFE_BEEF, (1 << 64) - 1, None],
        pl.UInt32(): [0x0A0A_0A05, (1 << 32) - 1, None],
        pl.UInt8(): [6, 255, None],
        pl.String(): [name, "höst \u202e\x1b[31m \U0001f525", None],
        pl.Binary(): [bytes(range(16)), b"\xff\x00line", None],
        pl.Boolean(): [True, False, None],
    }
    return edges[dtype]


def block(event_class: EventClass) -> dict[str, Any]:
    columns = {name: values(dtype, name) for name, dtype in schema.frame_schema(event_class).items()}
    header = Header(
        f"fixture-{event_class}", schema.VERSION, "acme", event_class, "edge", "fixture", 7, ROWS, -1, 1_790_000_000_123_456, 9
    )
    (record,) = codec.encode(Batch(header, schema.build_frame(event_class, columns)), b"3")
    return {"key": record.key, "headers": dict(record.headers), "value": record.value, "columns": columns}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for event_class in EventClass:
        (folder / f"{event_class}.block").write_bytes(msgspec.msgpack.encode(block(event_class)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
