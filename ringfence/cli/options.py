"""Options and output that several verbs share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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


def say(text: str) -> None:
    """A line on standard output with control characters of foreign text escaped."""
    sys.stdout.write(printable(text, keep="\n") + "\n")
