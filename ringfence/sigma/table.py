"""Events as the evaluators see them: columns by name, as text, folded text or numbers, each made once when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence.sigma.budget import Budget

Rows = npt.NDArray[np.int64]
NO_VALUES: Sequence[Any] = ()
"""Of a field that the events do not have."""
WHOLE = "*"
"""The name under which a table gives all text of an event, for keywords."""
_SEPARATOR = "\0"


class Joined(NamedTuple):
    """The folded text of a column end to end: the bounds of each value in it, and the row of each value."""

    data: bytes
    starts: Rows
    ends: Rows
    rows: Rows | None


class Coded(NamedTuple):
    """A text column as places in a list of its few values."""

    values: pl.Series
    codes: npt.NDArray[np.uint16]


class Table:
    """Columns that `find` gives by name; None where the events have no such field. A list column counts as any of its elements.

    `budget` bounds the rule that is tested now. Of some columns there is a cheaper form: `coded`, and the numbers of IPv4 addresses that `ipv4` gives; None where not
    every address is one.
    """

    def __init__(
        self,
        height: int,
        find: Callable[[str], pl.Series | None],
        coded: Mapping[str, Coded] = MappingProxyType({}),
        ipv4: Callable[[str], pl.Series | None] = lambda field: None,
        budget: Budget | None = None,
    ) -> None:
        self.height = height
        self.coded = coded
        self.ipv4 = ipv4
        self.budget = budget or Budget()
        self._find = find
        self._columns: dict[str, pl.Series | None] = {}
        self._texts: dict[str, Sequence[Any]] = {}
        self._folded: dict[str, pl.Series | None] = {}
        self._folded_values: dict[str, Sequence[Any]] = {}

    def at(self, rows: Rows) -> Table:
        """Some rows, in their order."""
        places = pl.Series(rows.astype(np.uint32))

        def find(field: str) -> pl.Series | None:
            column = self.column(field)
            return None if column is None else column.gather(places)

        return Table(len(rows), find, budget=self.budget)

    def column(self, field: str) -> pl.Series | None:
        """The column as it is."""
        if field not in self._columns:
            coded = self.coded.get(field)
            found = self._find(field) if coded is None else coded.values.gather(pl.Series(coded.codes.astype(np.uint32)))
            self._columns[field] = found
        return self._columns[field]

    def is_list(self, field: str) -> bool:
        """True where a row has several values."""
        column = self.column(field)
        return column is not None and isinstance(column.dtype, pl.List)

    def text(self, field: str) -> pl.Series | None:
        """The column as text: numbers as digits, true and false as words."""
        column = self.column(field)
        if column is None or column.dtype in (pl.String, pl.List(pl.String)):
            return column
        if isinstance(column.dtype, pl.List):
            return column.cast(pl.List(pl.String), strict=False)
        return column.cast(pl.String, strict=False)

    def folded(self, field: str) -> pl.Series | None:
        """The column as text without regard to case."""
        if field not in self._folded:
            text = self.text(field)
            if text is not None:
                text = (
                    text.list.eval(_folded(pl.element()))
                    if isinstance(text.dtype, pl.List)
                    else pl.select(_folded(pl.lit(text))).to_series()
                )
            self._folded[field] = text
        return self._folded[field]

    def values(self, field: str, is_folded: bool) -> Sequence[Any]:
        """The text of each row; None where there is none, a list where there are several."""
        known = self._folded_values if is_folded else self._texts
        if field not in known:
            column = self.folded(field) if is_folded else self.text(field)
            known[field] = NO_VALUES if column is None else column.to_list()
        return known[field]

    def joined(self, field: str) -> Joined | None:
        """What a scan for literals reads."""
        text = self.text(field)
        if text is None or not self.height:
            return None
        if text.dtype == pl.String:
            return _ascii(text) or _joined(self.folded(field), None)
        sizes = text.list.len().fill_null(0).to_numpy()
        if not sizes.any():
            return None
        column = self.folded(field)
        return (
            None
            if column is None
            else _joined(column.filter(pl.Series(sizes > 0)).explode(), np.repeat(np.arange(self.height), sizes))
        )


def _ascii(text: pl.Series) -> Joined | None:
    """Folded when it is one text already, which costs less; None where folding may change the length of a value."""
    joined: str = text.fill_null("").str.join(_SEPARATOR).item()
    if not joined.isascii():
        return None
    data = joined.lower().encode()
    ends = np.append(np.flatnonzero(np.frombuffer(data, np.uint8) == 0), len(data))
    return Joined(data, np.append(0, ends[:-1] + 1), ends, None) if len(ends) == len(text) else None


def _joined(folded: pl.Series | None, rows: Rows | None) -> Joined | None:
    if folded is None:
        return None
    folded = folded.fill_null("")
    ends = np.cumsum(folded.str.len_bytes().to_numpy().astype(np.int64) + 1) - 1
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    return Joined(folded.str.join(_SEPARATOR).item().encode(), starts, ends, rows)


def _folded(text: pl.Expr) -> pl.Expr:
    """The same as `tree.fold`."""
    return text.str.to_lowercase().str.replace_all("\u03c2", "\u03c3", literal=True)
