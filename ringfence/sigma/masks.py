"""Whole columns: the condition of a rule as one boolean for each row. What a leaf gives is kept while its table is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

from ringfence.sigma.rows import program, test_of
from ringfence.sigma.table import Table
from ringfence.sigma.tree import And, Leaf, Node, Not, Or, Reference, Shape, Text, fold, shape_of

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
                    self._known[leaf] = self._leaf(leaf)
                return self._known[leaf]

    def _leaf(self, leaf: Leaf) -> Mask:
        if isinstance(leaf, Reference):
            if (found := _referred(leaf, self._table)) is not None:
                return found
            return np.fromiter(map(program(leaf)(self._table), range(self._table.height)), np.bool_, self._table.height)
        field, is_folded, test = test_of(leaf)
        column = self._table.folded(field) if is_folded else self._table.text(field)
        if column is None:
            return np.zeros(self._table.height, np.bool_)
        if isinstance(column.dtype, pl.List):
            return _any_element(column, leaf, test)
        return _mask(column, leaf, test)


def _referred(leaf: Reference, table: Table) -> Mask | None:
    """Two columns of text compared by polars; None where one of them is a list."""
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
