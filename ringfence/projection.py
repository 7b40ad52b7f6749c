"""msgspec Structs generated from the column table: the typed, slim reading of one kind of JSON record.

Only fields that the table names are built; the rest of a line is skipped by the parser and never becomes a Python
object (measured: decoding 0.8 us a line against 5 us for json.loads). `gc=False` keeps them out of the collector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from types import NoneType
from typing import Any, get_args

import msgspec
import polars as pl
from msgspec.structs import astuple, fields

from ringfence.batch import EventClass
from ringfence.schema import COLUMNS, Column


def eve_columns(event_class: EventClass) -> list[Column]:
    """The columns of a class that have a path in Suricata EVE JSON."""
    return [column for column in COLUMNS if event_class in column.classes and column.eve is not None]


def zeek_columns(event_class: EventClass, log: str) -> list[tuple[Column, tuple[str, ...]]]:
    """The columns of a class that a Zeek log fills, each with its fields in order of preference."""
    pairs = ((column, _zeek_fields(column.zeek, log)) for column in COLUMNS if event_class in column.classes and column.zeek)
    return [(column, fields_of) for column, fields_of in pairs if fields_of]


def _zeek_fields(text: str, log: str) -> tuple[str, ...]:
    """What `FIELD; LOG: FIELD, FIELD` says of one log."""
    found = ""
    for entry in text.split(";"):
        named, colon, own = entry.rpartition(":")
        if not colon:
            found = own
        elif named.strip() == log:
            return tuple(own.replace(" ", "").split(","))
    return tuple(found.replace(" ", "").split(",")) if found else ()


def struct_for(
    name: str, paths: Iterable[tuple[str, Any]], tag_field: str | None = None, tag: str | None = None
) -> type[msgspec.Struct]:
    """A Struct that reads the given dotted paths of a JSON object, each optional, under a tag if there is one.

    `paths` pairs each path with the type of its value. Objects on the way are optional Structs too.
    """
    tree: dict[str, Any] = {}
    for path, kind in paths:
        node = tree
        *parents, leaf = path.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = kind
    return _struct(name, tree, tag_field=tag_field, tag=tag)


def field_path(path: str) -> str:
    """The path under which `columns_of` gives a JSON path: some keys are no names in Python."""
    return path.replace("-", "_dash_").replace("@", "_at_")


def _struct(name: str, tree: dict[str, Any], **tagging: str | None) -> type[msgspec.Struct]:
    named = {key: field_path(key) for key in tree}
    members = [(named[key], _optional(f"{name}_{key}", kind), None) for key, kind in tree.items()]
    options: dict[str, Any] = {**tagging, "rename": {name: key for key, name in named.items()}}
    return msgspec.defstruct(name, members, gc=False, **options)


def _optional(name: str, kind: Any) -> Any:
    """Raw takes any value, null too, and cannot be one of several types."""
    return kind if kind is msgspec.Raw else (_struct(name, kind) if isinstance(kind, dict) else kind) | None


def json_type(dtype: pl.DataType) -> Any:
    """The JSON type that a column is read from, before any conversion."""
    if dtype.is_integer():
        return int
    return str if dtype == pl.String() else bool


def columns_of(
    structs: Sequence[msgspec.Struct], struct: type[msgspec.Struct], prefix: str = "", sparse: bool = False
) -> dict[str, Sequence[Any]]:
    """Every field of some Structs of one type as a column, by dotted path; null where an object on the way is absent.

    `sparse` leaves out what none of them has. Transposed in C by astuple and zip: a third of the cost of reading
    attributes one by one.
    """
    columns: dict[str, Sequence[Any]] = {}
    names = struct.__struct_fields__
    for name, kind, values in zip(names, _kinds(struct), zip(*map(astuple, structs), strict=True), strict=True):
        if sparse and values.count(None) == len(values):
            continue
        if kind is None:
            columns[prefix + name] = values
            continue
        inner = f"{prefix}{name}."
        # by type, not `None in values`: that would call __eq__ of every Struct
        if NoneType not in set(map(type, values)):
            columns.update(columns_of(values, kind, inner, sparse))
            continue
        there = [value for value in values if value is not None]
        parts = columns_of(there, kind, inner, sparse) if there else dict.fromkeys(_paths(kind, inner), ())
        for path, part in parts.items():
            rest = iter(part)
            columns[path] = [None if value is None else next(rest) for value in values]
    return columns


@cache
def _kinds(struct: type[msgspec.Struct]) -> tuple[type[msgspec.Struct] | None, ...]:
    """For each field the Struct type that it holds, or None for a plain value."""
    return tuple(_struct_in(field.type) for field in fields(struct))


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    options = [option for option in get_args(annotation) if isinstance(option, type) and issubclass(option, msgspec.Struct)]
    return options[0] if options else None


def _paths(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    for name, kind in zip(struct.__struct_fields__, _kinds(struct), strict=True):
        if kind is None:
            yield prefix + name
        else:
            yield from _paths(kind, f"{prefix}{name}.")
