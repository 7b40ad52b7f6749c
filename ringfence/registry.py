"""Finds components by kind and name through entry points, so that the core never imports one.

Groups: `ringfence.collectors`, `ringfence.processors`, `ringfence.sinks`, `ringfence.shells`. Third-party packages add
theirs by the same groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from ringfence.component import CollectorKind, Format

Group = Literal["collectors", "processors", "sinks", "shells"]


@cache
def names(group: Group) -> tuple[str, ...]:
    """The names that a group has, sorted."""
    return tuple(sorted(entry.name for entry in entry_points(group=f"ringfence.{group}")))


@cache
def load(group: Group, name: str) -> Any:
    """The object that an entry point names. Raises KeyError when there is none of that name."""
    return _entry(group, name).load()


def home(group: Group, name: str) -> str:
    """The module of that object, which says what the component is. Raises KeyError when there is none of that name."""
    return _entry(group, name).module


def _entry(group: Group, name: str) -> EntryPoint:
    for entry in entry_points(group=f"ringfence.{group}", name=name):
        return entry
    raise KeyError(name)


@cache
def formats() -> dict[str, Format]:
    """Every file format that some collector reads, by name."""
    kinds: Sequence[CollectorKind] = [load("collectors", name) for name in names("collectors")]
    return {entry.name: entry for kind in kinds for entry in kind.formats}


def recognise(first: bytes) -> Format | None:
    """The format whose first bytes these are, if exactly one claims them."""
    claims = [entry for entry in formats().values() if entry.recognise(first)]
    return claims[0] if len(claims) == 1 else None
