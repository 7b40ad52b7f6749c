"""`ringfence run`: collect, process and deliver as a configuration says, until stopped."""

from __future__ import annotations

import argparse
import asyncio

from ringfence import config
from ringfence.cli.options import Subparsers, add_config
from ringfence.errors import ExitCode
from ringfence.runtime import STAGES, Options, Runtime


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "run",
        help="run a configuration",
        description=__doc__,
        epilog="Example: ringfence run ringfence.yml --stage collect. SIGTERM drains and ends; SIGHUP reloads the topology.",
    )
    add_config(verb)
    verb.add_argument("--stage", choices=STAGES, default="all", help="run only this stage in this process (default: all)")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run until the inputs end or a signal comes."""
    loaded = config.load(arguments.config)

    async def main() -> None:
        await Runtime(loaded, Options(stage=arguments.stage)).run()

    asyncio.run(main())
    return ExitCode.OK
