"""`ringfence ledger`: what came in, went out, died, was shed or is in flight, per stage; exit 1 if it does not balance."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from rich.table import Table

from ringfence import config, ledger
from ringfence.cli.options import Subparsers, add_config, say
from ringfence.config import Config
from ringfence.console import show
from ringfence.errors import ExitCode
from ringfence.ledger import Ledger
from ringfence.runtime import bus_of, groups_of


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "ledger", help="account for every row", description=__doc__, epilog="Example: ringfence ledger ringfence.yml --json"
    )
    add_config(verb)
    verb.add_argument("--json", action="store_true", help="one JSON object")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the ledger and print it."""
    book = asyncio.run(read(config.load(arguments.config)))
    if arguments.json:
        sys.stdout.write(json.dumps(as_json(book)) + "\n")
    else:
        for table in tables(book):
            show(table)
        say("The ledger balances." if not book.imbalance else f"The ledger is off by {book.imbalance:,}.")
    return ExitCode.FOUND if book.imbalance else ExitCode.OK


async def read(loaded: Config) -> Ledger:
    """The ledger of the bus that a configuration names."""
    engine = bus_of(loaded)
    try:
        await engine.open()
        return await ledger.read(engine, groups_of(loaded))
    finally:
        await engine.close()


def as_json(book: Ledger) -> dict[str, object]:
    """Components, edges and the total imbalance."""
    components = {name: {**asdict(counts), "imbalance": counts.imbalance} for name, counts in book.components.items()}
    edges = [{**asdict(edge), "imbalance": edge.imbalance} for edge in book.edges]
    return {"components": components, "edges": edges, "imbalance": book.imbalance}


def tables(book: Ledger) -> list[Table]:
    """For people."""
    parts = Table(title="Stages: received = done + dead + filtered + held", title_justify="left")
    for heading in ("stage", "received", "done", "dead", "filtered", "held", "imbalance", "shed", "merged"):
        parts.add_column(heading, justify="left" if heading == "stage" else "right")
    for name, counts in book.components.items():
        numbers = (
            counts.received, counts.done, counts.dead, counts.filtered, counts.held, counts.imbalance, counts.shed, counts.merged,
        )  # fmt: skip
        parts.add_row(name.removeprefix("ringfence."), *(f"{number:,}" for number in numbers))
    edges = Table(title="Between stages: written = received + in flight", title_justify="left")
    for heading in ("topic", "reader", "written", "received", "in flight", "imbalance"):
        edges.add_column(heading, justify="left" if heading in ("topic", "reader") else "right")
    for edge in book.edges:
        between = (edge.written, edge.received, edge.in_flight, edge.imbalance)
        edges.add_row(edge.topic, edge.reader.removeprefix("ringfence."), *(f"{number:,}" for number in between))
    return [parts, edges]
