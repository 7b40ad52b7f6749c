"""Text that must occur wherever a regular expression matches.

Read from the tree of Python's own parser, which knows what RE2 knows, but for a few forms that it refuses: then nothing
is known. `(?:powershell|pwsh)\\.exe -e` needs `.exe -e`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from re import _constants, _parser  # type: ignore[attr-defined]  # the only parser of regular expressions at hand
from typing import Any


def literal_of(pattern: str) -> str:
    """The longest such text, as it is written; empty when there is none."""
    try:
        parsed = _parser.parse(pattern)
    except (re.error, OverflowError, RecursionError):
        return ""
    return max(_runs(list(parsed)), key=len, default="")


def _runs(items: Sequence[tuple[Any, Any]]) -> Iterator[str]:
    """Texts of neighbouring literals in a sequence, and of the groups in it that must occur."""
    run = ""
    for operator, value in items:
        if operator is _constants.LITERAL:
            run += chr(value)
            continue
        if operator is _constants.AT:
            continue  # a place, not a character
        yield run
        run = ""
        if operator is _constants.SUBPATTERN or (operator is _constants.MAX_REPEAT and value[0] > 0):
            yield from _runs(list(value[-1]))
    yield run
