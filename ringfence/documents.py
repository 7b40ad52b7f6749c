"""Batches to ECS documents, one JSON object a line, nested as they are indexed.

Generated from the column table: each dotted name is a path of nested msgspec Structs, null members are left out, and
what ECS derives from other fields (event.kind, category, type, network.transport, network.type, related.ip) is added
here and nowhere else. Costs about 2 us a row; the segment objects, of which there are few different ones, are rendered
once each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import polars as pl

from ringfence import addresses
from ringfence.batch import Batch, EventClass
from ringfence.schema import BY_NAME, Column
from ringfence.segments import SEGMENT_PARTS
from ringfence.topology import PROTOCOLS

ECS_VERSION = "9.4.0"

_ENCODER = msgspec.json.Encoder()
# C1 controls (ECMA-48), zero-width and bidirectional marks, line and paragraph separators; JSON itself escapes C0
_INVISIBLE = re.compile("[\\x80-\\x9f\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff]")
_CATEGORY: Mapping[EventClass, tuple[str, ...]] = {
    EventClass.ALERT: ("network", "intrusion_detection"),
    EventClass.AUTH: ("authentication",),
    EventClass.PROCESS: ("process",),
    EventClass.FILE: ("file", "network"),
    EventClass.GENERIC: (),
    EventClass.DEAD: (),
}
_KIND: Mapping[EventClass, str] = {EventClass.ALERT: "alert", EventClass.DEAD: "pipeline_error"}
_TRANSPORTS: dict[int | None, str | None] = {number: name for name, number in PROTOCOLS.items() if name not in ("carp", "ipip")}
_TRANSPORTS[58] = "ipv6-icmp"
_NUMBERS: dict[int | None, str] = {number: str(number) for number in range(256)}
_SEGMENTS = ("source.segment", "destination.segment")
_ADDRESS_PAIRS = ("source.ip", "destination.ip", "source.nat.ip", "destination.nat.ip")
_MAY_LACK = frozenset(
    {*_ADDRESS_PAIRS, *_SEGMENTS, "related.ip", "network.transport", "network.type", "event.type", "ringfence.evidence.ids"}
)
"""Members without a column of their own name that a row may lack."""
_DATASETS: Mapping[EventClass, str] = {EventClass.BOUNDARY: "ringfence.boundary", EventClass.DEAD: "ringfence.dead"}

CHUNK_ROWS = 1024
"""Rows that are Python objects at one time: the lists of a chunk stay in the cache (a third faster than whole batches)."""

Values = Iterable[Any]
Leaf = Callable[[int, int], Values]
"""Gives the values of one member of the document for the rows [start, start + count)."""


def render(batch: Batch, hide: frozenset[str] = frozenset()) -> Iterator[bytes]:
    """The documents of a batch as newline-terminated JSON lines, in row order, CHUNK_ROWS at a time.

    `hide` names columns to leave out.
    """
    leaves = _leaves(batch, hide)
    assemble = _assembler(tuple(leaves), _always_there(batch.frame, leaves))
    for start in range(0, batch.frame.height, CHUNK_ROWS):
        count = min(CHUNK_ROWS, batch.frame.height - start)
        rows = assemble({path: leaf(start, count) for path, leaf in leaves.items()})
        lines = _ENCODER.encode_lines(list(rows))
        yield lines if lines.isascii() else _harmless(lines)


def _harmless(lines: bytes) -> bytes:
    """The same JSON with invisible and direction-changing characters escaped, since people look at it on terminals."""
    return _INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", lines.decode()).encode()


def _always_there(frame: pl.DataFrame, paths: Iterable[str]) -> frozenset[str]:
    """Members that no row lacks: an object that has one of them is never empty."""
    return frozenset(
        path for path in paths if path not in _MAY_LACK and (path not in frame.columns or not frame[path].null_count())
    )


def _leaves(batch: Batch, hide: frozenset[str]) -> dict[str, Leaf]:
    """One leaf per member of the document; all-null columns are left out, constants are repeated."""
    frame, header = batch.frame, batch.header
    leaves: dict[str, Leaf] = {}
    for name in frame.columns:
        column = BY_NAME[name]
        skipped = name in hide or column.render in ("hidden", "ipv4", "ipv6") or ".segment." in name
        if not skipped and frame[name].null_count() < frame.height:
            leaves.update(_column_leaves(column, frame))
    leaves.update(_address_leaves(frame))
    leaves.update(_segment_leaves(frame))
    leaves.update(_derived_leaves(frame, header.event_class))
    constants = {
        "ecs.version": ECS_VERSION,
        "event.kind": _KIND.get(header.event_class, "event"),
        "event.module": header.module,
        "event.dataset": _DATASETS.get(header.event_class, "ringfence.events"),
        "ringfence.class": str(header.event_class),
        "ringfence.collector": header.collector,
    }
    leaves.update({path: _constant(value) for path, value in constants.items() if value})
    return leaves


def _constant(value: Any) -> Leaf:
    return lambda start, count: repeat(value, count)


def _plain(series: pl.Series) -> Leaf:
    return lambda start, count: series.slice(start, count).to_list()


def _mapped(series: pl.Series, convert: Callable[[Any], Any]) -> Leaf:
    return lambda start, count: map(convert, series.slice(start, count).to_list())


def _column_leaves(column: Column, frame: pl.DataFrame) -> Iterable[tuple[str, Leaf]]:
    name, series = column.name, frame[column.name]
    if column.render == "time":
        yield name, _plain(rfc3339(series))
    elif column.render == "event_id":
        ids = event_ids(series, frame[name.removesuffix("source") + "position"])
        is_evidence = name == "ringfence.evidence.source"
        path = "ringfence.evidence.ids" if is_evidence else "event.id"
        yield path, lambda start, count: [(text,) if is_evidence and text else text for text in ids[start : start + count]]
    elif column.render == "bytes":
        yield name, _mapped(series, lambda value: None if value is None else value.decode(errors="backslashreplace"))
    elif column.render == "code":
        yield name, _mapped(series, _NUMBERS.get)
        yield "network.transport", _mapped(series, _TRANSPORTS.get)
    else:
        yield name, _plain(series)


def rfc3339(series: pl.Series) -> pl.Series:
    """Microseconds since the epoch as `2026-11-25T07:44:23.123456Z`."""
    return pl.from_epoch(series, time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")


def event_ids(source: pl.Series, position: pl.Series) -> list[str | None]:
    """128-bit ids as 32 hexadecimal digits."""
    pairs = np.empty((len(source), 2), ">u8")
    pairs[:, 0] = source.fill_null(0).to_numpy()
    pairs[:, 1] = position.fill_null(0).to_numpy()
    digits = pairs.tobytes().hex()
    ids: list[str | None] = [digits[start : start + 32] for start in range(0, len(digits), 32)]
    if source.null_count():
        return [text if known else None for text, known in zip(ids, source.is_not_null(), strict=True)]
    return ids


def _address_leaves(frame: pl.DataFrame) -> dict[str, Leaf]:
    """Text of the addresses, and related.ip from both ends."""
    texts: dict[str, pl.Series] = {}
    for name in _ADDRESS_PAIRS:
        text = addresses.text(_column(frame, name), _column(frame, f"{name}6"))
        if text is not None and text.null_count() < len(text):
            texts[name] = text
    leaves = {name: _plain(text) for name, text in texts.items()}
    ends = [texts[name] for name in ("source.ip", "destination.ip") if name in texts]
    if ends:
        complete = not any(end.null_count() for end in ends)
        leaves["related.ip"] = lambda start, count: _related([end.slice(start, count).to_list() for end in ends], complete)
    return leaves


def _related(ends: Sequence[list[str | None]], complete: bool) -> Values:
    pairs = zip(*ends, strict=True)
    return pairs if complete else map(_without_null, pairs)


def _without_null(pair: tuple[str | None, ...]) -> tuple[str, ...] | None:
    return tuple(address for address in pair if address is not None) or None


def _segment_leaves(frame: pl.DataFrame) -> dict[str, Leaf]:
    """The segment objects as ready JSON: there are few, so each is encoded once and shared by its rows."""
    leaves: dict[str, Leaf] = {}
    for side in _SEGMENTS:
        names = [f"{side}.{part}" for part in SEGMENT_PARTS if f"{side}.{part}" in frame.columns]
        if f"{side}.id" not in names:
            continue
        distinct = frame.select(names).unique(subset=f"{side}.id")
        rendered = {row[f"{side}.id"]: _segment_json(row) for row in distinct.iter_rows(named=True)}
        leaves[side] = _mapped(frame[f"{side}.id"], rendered.__getitem__)
    return leaves


def _segment_json(row: Mapping[str, str | None]) -> msgspec.Raw | None:
    parts = {name.rpartition(".")[2]: value for name, value in row.items() if value is not None}
    return msgspec.Raw(_ENCODER.encode(parts)) if parts else None


_TYPES: Mapping[str, tuple[str, ...]] = {
    "blocked": ("connection", "denied"), "passed": ("connection", "allowed"), "unknown": ("connection",),
    "block": ("connection", "denied"), "pass": ("connection", "allowed"),
    "success": ("start",), "failure": ("start",),
}  # fmt: skip
_OUTCOMES: Mapping[str, str] = {
    "blocked": "failure",
    "passed": "success",
    "unknown": "unknown",
    "block": "failure",
    "pass": "success",
}
_DECIDED_BY: Mapping[EventClass, str] = {
    EventClass.BOUNDARY: "ringfence.boundary.outcome", EventClass.PF: "ringfence.pf.action", EventClass.AUTH: "event.outcome",
}  # fmt: skip
_ACTIONS: Mapping[str, str] = {"observed": "boundary-crossing", "simulated": "boundary-test"}


def _derived_leaves(frame: pl.DataFrame, event_class: EventClass) -> dict[str, Leaf]:
    leaves: dict[str, Leaf] = {}
    category = _CATEGORY.get(event_class, ("network",))
    if category:
        leaves["event.category"] = _constant(category)
    decided_by = _DECIDED_BY.get(event_class)
    if decided_by in frame.columns:
        leaves["event.type"] = _mapped(frame[decided_by], _TYPES.get)
        if event_class is not EventClass.AUTH:
            leaves["event.outcome"] = _mapped(frame[decided_by], _OUTCOMES.get)
    if event_class is EventClass.BOUNDARY and "ringfence.boundary.origin" in frame.columns:
        leaves["event.action"] = _mapped(frame["ringfence.boundary.origin"], _ACTIONS.get)
    if "source.ip" in frame.columns or "source.ip6" in frame.columns:
        leaves["network.type"] = _network_type_leaf(frame)
    return leaves


def _network_type_leaf(frame: pl.DataFrame) -> Leaf:
    four, six = _column(frame, "source.ip"), _column(frame, "source.ip6")
    if four is not None and not four.null_count():
        return _constant("ipv4")
    is4 = four.is_not_null() if four is not None else pl.repeat(False, frame.height, eager=True)
    is6 = six.is_not_null() if six is not None else pl.repeat(False, frame.height, eager=True)
    return _plain(pl.select(pl.when(is4).then(pl.lit("ipv4")).when(is6).then(pl.lit("ipv6"))).to_series())


def _column(frame: pl.DataFrame, name: str) -> pl.Series | None:
    return frame[name] if name in frame.columns else None


@cache
def _assembler(paths: tuple[str, ...], always_there: frozenset[str]) -> Callable[[Mapping[str, Values]], Iterable[Any]]:
    """A function from one iterable per leaf to the nested Structs of the rows, without a Python frame per row."""
    tree: dict[str, Any] = {}
    for path in sorted(paths, key=_order):
        node = tree
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = path
    return _build("document", tree, always_there)


def _order(path: str) -> tuple[int, str]:
    """@timestamp first, event second: what a person looks for at the start of a line."""
    return (0 if path.startswith("@") else 1 if path.startswith("event.") else 2, path)


def _build(name: str, tree: Mapping[str, Any], always_there: frozenset[str]) -> Callable[[Mapping[str, Values]], Iterable[Any]]:
    fields = [(f"f{index}", Any, None) for index in range(len(tree))]
    renames = {f"f{index}": key for index, key in enumerate(tree)}
    struct = msgspec.defstruct(name.title(), fields, rename=renames.get, omit_defaults=True, gc=False)
    makers = [_build(key, child, always_there) if isinstance(child, dict) else child for key, child in tree.items()]
    empty = struct()

    def assemble(values: Mapping[str, Values]) -> Iterable[Any]:
        return map(struct, *(values[maker] if isinstance(maker, str) else maker(values) for maker in makers))

    def assemble_or_null(values: Mapping[str, Values]) -> Iterable[Any]:
        return (None if row == empty else row for row in assemble(values))

    return assemble if name == "document" or _never_empty(tree, always_there) else assemble_or_null


def _never_empty(tree: Mapping[str, Any], always_there: frozenset[str]) -> bool:
    return any(
        _never_empty(child, always_there) if isinstance(child, dict) else child in always_there for child in tree.values()
    )
