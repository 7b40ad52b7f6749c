"""The command line: one module per verb, each with `add(subparsers)` and a `run(arguments)` that returns the exit code.

Whatever goes wrong ends as one sentence on standard error and an exit code of `ringfence.errors.ExitCode`; a traceback
means a bug in ringfence.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ringfence import __version__
from ringfence.cli import check, decode, demo, dlq, ledger, replay, run, setup
from ringfence.errors import ConfigError, ExitCode, Misconfigured, RingfenceError
from ringfence.telemetry import printable, set_up_log

_VERBS = (demo, run, check, decode, replay, dlq, ledger, setup)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="ringfence",
        description="Watches the boundaries of segmented networks: where, when and which boundary was tested, and whether it held.",
        epilog="Exit codes: 0 ok, 1 found something, 2 usage, 74 input or output failed, 78 configuration.",
    )
    top.add_argument("--version", action="version", version=f"ringfence {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add(verbs)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    arguments = parser().parse_args(argv)
    set_up_log("DEBUG" if os.environ.get("RINGFENCE_DEBUG") else "INFO")
    try:
        return int(arguments.run(arguments))
    except ConfigError as error:
        for fault in error.faults:
            _complain(str(fault))
        return ExitCode.CONFIG
    except RingfenceError as error:
        _complain(f"ringfence {arguments.verb}: {error}")
        return ExitCode.CONFIG if isinstance(error, Misconfigured) else ExitCode.IO
    except BrokenPipeError:
        # the reader of our output has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.IO
    except KeyboardInterrupt:
        return ExitCode.FOUND


def _complain(text: str) -> None:
    sys.stderr.write(printable(text, keep="\n") + "\n")
