"""Options and output that several verbs share."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ringfence.config import DEFAULT_FILE
from ringfence.telemetry import printable

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse.Action


def add_config(verb: argparse.ArgumentParser, positional: bool = True) -> None:
    """The configuration file, `ringfence.yml` in this folder unless another is named."""
    if positional:
        verb.add_argument(
            "config", nargs="?", type=Path, default=DEFAULT_FILE, help=f"configuration file (default: {DEFAULT_FILE})"
        )
    else:
        verb.add_argument("--config", type=Path, default=DEFAULT_FILE, help=f"configuration file (default: {DEFAULT_FILE})")


def add_year(verb: argparse.ArgumentParser) -> None:
    """The year of times that lack one."""
    verb.add_argument(
        "--year", type=int, help="year of times without one, as in RFC 3164 (default: the year the file was last changed)"
    )


def add_placeholders(verb: argparse.ArgumentParser) -> None:
    """Values for what Sigma rules leave open."""
    verb.add_argument(
        "--placeholder",
        type=_placeholder,
        action="append",
        default=[],
        metavar="NAME=VALUE,VALUE",
        help="values of %%NAME%% in rules; may be given several times",
    )


def _placeholder(text: str) -> tuple[str, list[str]]:
    name, equals, values = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,VALUE")
    return name.strip("%"), values.split(",")


def placeholders_of(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """The values by name."""
    return dict(arguments.placeholder)


def year_of(stream: BinaryIO, named: int | None) -> int:
    """The year that was named, else that of the last change of a file; of a pipe, this year."""
    return named or datetime.fromtimestamp(os.fstat(stream.fileno()).st_mtime, UTC).year


def counted(count: int, thing: str) -> str:
    """`1 dead letter`, `2,000 dead letters`."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def say(text: str) -> None:
    """A line on standard output with control characters of foreign text escaped."""
    sys.stdout.write(printable(text, keep="\n") + "\n")
