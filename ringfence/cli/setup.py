"""`ringfence setup bus`: create what the bus needs before its first use (the topics, on Kafka)."""

from __future__ import annotations

import argparse
import asyncio

from ringfence import config
from ringfence.cli.options import Subparsers, add_config, say
from ringfence.errors import ExitCode
from ringfence.runtime import bus_of


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "setup", help="create topics on the bus", description=__doc__, epilog="Example: ringfence setup bus ringfence.yml"
    )
    verb.add_argument("what", choices=("bus",), help="what to set up")
    add_config(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Create the topics; those that exist are left as they are."""
    loaded = config.load(arguments.config)
    created = asyncio.run(bus_of(loaded).create_topics())
    say(f"created {', '.join(created)}" if created else "nothing to create")
    return ExitCode.OK
