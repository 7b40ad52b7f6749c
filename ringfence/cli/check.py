"""`ringfence check`: every fault of a configuration and its topology at once, with file and line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ringfence import config
from ringfence.cli.options import Subparsers, add_config, say
from ringfence.errors import ConfigError, ExitCode


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "check",
        help="report all faults of a configuration",
        description=__doc__,
        epilog="Example: ringfence check ringfence.yml",
    )
    add_config(verb)
    verb.add_argument("--json", action="store_true", help="one JSON object: faults with file, line, path and message")
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Check, and say what would run."""
    path: Path = arguments.config
    try:
        loaded = config.load(path)
    except ConfigError as error:
        if not arguments.json:
            raise
        faults = [
            {"file": fault.file, "line": fault.line, "path": fault.path, "message": fault.message} for fault in error.faults
        ]
        sys.stdout.write(json.dumps({"ok": False, "faults": faults}) + "\n")
        return ExitCode.CONFIG
    if arguments.json:
        sys.stdout.write(json.dumps({"ok": True, "faults": []}) + "\n")
        return ExitCode.OK
    say(
        f"{path}: ok ({len(loaded.collectors)} collectors, {len(loaded.sinks)} sinks, "
        f"{len(loaded.topology.segments)} segments, {len(loaded.topology.intents)} intents)"
    )
    return ExitCode.OK
