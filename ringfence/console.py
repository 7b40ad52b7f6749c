"""Tables on a terminal, or in a pipe, which is as wide as they need."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

MAX_WIDTH = 10_000


def natural_width(console: Console, table: Table) -> int:
    """The width in columns that a table has when nothing is wrapped."""
    return console.measure(table, options=console.options.update(max_width=MAX_WIDTH)).maximum


def wide_enough(console: Console, table: Table) -> Console:
    """A console on the same output that does not cut the table short, unless a terminal is narrower."""
    if console.is_terminal:
        return console
    return Console(file=console.file, width=max(natural_width(console, table), console.width), color_system=None)


def show(table: Table) -> None:
    """Print a table on standard output."""
    console = Console()
    wide_enough(console, table).print(table, highlight=False)
