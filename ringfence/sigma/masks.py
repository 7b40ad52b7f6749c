"""Whole columns: the condition of a rule as one boolean for each row. What a leaf gives is kept while its table is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence import addresses
from ringfence.sigma.rows import metered, program, test_of
from ringfence.sigma.table import Table
from ringfence.sigma.tree import And, Cidr, Compare, Leaf, Node, Not, Number, Or, Reference, Shape, Text, fold, shape_of

Mask = npt.NDArray[np.bool_]


class Masks:
    """The masks of one table. A mask that was given away must not be changed."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[Leaf, Mask] = {}

    def of(self, node: Node) -> Mask:
        """True where the condition holds."""
        match node:
            case And(children):
                mask = np.ones(self._table.height, np.bool_)
                for child in children:
                    mask &= self.of(child)
                    if not mask.any():
                        break
                return mask
            case Or(children):
                mask = np.zeros(self._table.height, np.bool_)
                for child in children:
                    mask |= self.of(child)
                return mask
            case Not(child):
                return ~self.of(child)
            case leaf:
                if leaf not in self._known:
                    self._table.budget.look()
                    self._known[leaf] = self._leaf(leaf)
                return self._known[leaf]

    def _leaf(self, leaf: Leaf) -> Mask:
        table = self._table
        if isinstance(leaf, Reference):
            found = _referred(leaf, table)
            return (
                np.fromiter(map(program(leaf)(table), range(table.height)), np.bool_, table.height) if found is None else found
            )
        field, is_folded, test_alone = test_of(leaf)
        test = metered(test_alone, table.budget)
        if coded := table.coded.get(field):
            return _mask(_folded(coded.values) if is_folded else coded.values, leaf, test)[coded.codes]
        if (typed := _typed(leaf, table)) is not None:
            return typed
        column = table.folded(field) if is_folded else table.text(field)
        if column is None:
            return np.zeros(table.height, np.bool_)
        if isinstance(column.dtype, pl.List):
            return _any_element(column, leaf, test)
        return _mask(column, leaf, test)


def _folded(values: pl.Series) -> pl.Series:
    return pl.Series([None if value is None else fold(value) for value in values.to_list()], dtype=pl.String)


def _typed(leaf: Leaf, table: Table) -> Mask | None:
    """Numbers compared as numbers, addresses as theirs; None where only their text will do."""
    match leaf:
        case Number(field, int(value)):
            column, name = table.column(field), "eq"
        case Compare(field, name, int(value)):
            column = table.column(field)
        case Cidr(field, network) if "." in network:
            column, (base, _, size) = table.ipv4(field), network.partition("/")
            if column is None:
                return None
            shift = 32 - int(size)
            start = addresses.parse(base)
            numbers = column.fill_null(0).to_numpy().astype(np.uint64)
            is_there: Mask = column.is_not_null().to_numpy()
            return ((numbers >> np.uint64(shift)) == np.uint64(start >> shift)) & is_there if isinstance(start, int) else None
        case _:
            return None
    if column is None or column.dtype not in _SIGNED or not -(1 << 63) <= value < 1 << 63:
        return None
    compared = _COMPARED[name](pl.lit(column), pl.lit(value, dtype=pl.Int64)).fill_null(False)
    mask: Mask = pl.select(compared).to_series().to_numpy()
    return mask


_SIGNED = (pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32())
"""Those whose values an Int64 holds."""
_COMPARED: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "eq": pl.Expr.__eq__, "neq": pl.Expr.__ne__, "lt": pl.Expr.__lt__, "lte": pl.Expr.__le__, "gt": pl.Expr.__gt__, "gte": pl.Expr.__ge__,
}  # fmt: skip


def _referred(leaf: Reference, table: Table) -> Mask | None:
    """Two columns of text compared by polars; None where one of them is a list."""
    one, two = table.coded.get(leaf.field), table.coded.get(leaf.other)
    if one and two and leaf.how == "equals":
        number: dict[str, int] = {}
        numbers, others = (
            np.array(
                [none if value is None else number.setdefault(fold(value), len(number)) for value in coded.values], np.int64
            )
            for coded, none in ((one, -1), (two, -2))
        )
        same: Mask = numbers[one.codes] == others[two.codes]
        return same
    column, other = table.folded(leaf.field), table.folded(leaf.other)
    if column is None or other is None or pl.String != column.dtype or pl.String != other.dtype:
        return None
    mask: Mask = pl.select(_REFERRED[leaf.how](pl.lit(column), pl.lit(other)).fill_null(False)).to_series().to_numpy()
    return mask


_REFERRED: Mapping[str, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "equals": pl.Expr.__eq__,
    "starts": lambda column, other: column.str.starts_with(other),
    "ends": lambda column, other: column.str.ends_with(other),
    "contains": lambda column, other: column.str.contains(other, literal=True),
}


def _mask(column: pl.Series, leaf: Leaf, test: object) -> Mask:
    """Shapes of text by polars; any other leaf by its test of each different value."""
    found = _shaped(column, leaf) if isinstance(leaf, Text) else None
    if found is None:
        values = column.unique().drop_nulls()
        good = [value for value in values.to_list() if test(value)]  # type: ignore[operator]
        found = column.is_in(good) if len(good) < len(values) else column.is_not_null()
    mask: Mask = found.fill_null(False).to_numpy()
    return mask


def _shaped(column: pl.Series, leaf: Text) -> pl.Series | None:
    shape, literal = shape_of(leaf.parts)
    literal = literal if leaf.cased else fold(literal)
    match shape:
        case Shape.EQUALS:
            return column == literal
        case Shape.STARTS:
            return column.str.starts_with(literal)
        case Shape.ENDS:
            return column.str.ends_with(literal)
        case Shape.CONTAINS:
            return column.str.contains(literal, literal=True)
        case Shape.ANY:
            return column.is_not_null()
        case _:
            return None


def _any_element(column: pl.Series, leaf: Leaf, test: object) -> Mask:
    """A list counts if one of its elements does."""
    sizes = column.list.len().fill_null(0).to_numpy()
    mask = np.zeros(len(column), np.bool_)
    if sizes.any():
        elements = column.filter(pl.Series(sizes > 0)).explode()
        mask[np.repeat(np.arange(len(column)), sizes)[_mask(elements, leaf, test)]] = True
    return mask
