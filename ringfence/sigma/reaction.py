"""What a rule wants done when it holds: the keys `ringfence.response`, `ringfence.risk` and `ringfence.suppress` of its file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.sigma.refusals import Unsupported

RESPONSES = ("alert", "approve-quarantine", "auto-quarantine")
"""What is recommended, from the mildest on."""
MAX_RISK = 100
MAX_SUPPRESS_S = 7 * 86_400
_SPAN = re.compile(r"([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Reaction:
    """The recommended response; the risk that an alert adds, and the seconds for which one covers all that is alike. None: the default."""

    response: str = "alert"
    risk: int | None = None
    suppress_s: int | None = None


def reaction_of(custom: Mapping[str, Any]) -> Reaction:
    """Read the keys of a rule or correlation. Raises Unsupported with what is accepted."""
    response = custom.get("ringfence.response", "alert")
    if response not in RESPONSES:
        raise Unsupported(f"'ringfence.response' is {response!r}; accepted: {', '.join(RESPONSES)}")
    risk = custom.get("ringfence.risk")
    if risk is not None and (not isinstance(risk, int) or isinstance(risk, bool) or not 0 <= risk <= MAX_RISK):
        raise Unsupported(f"'ringfence.risk' is {risk!r}; accepted: a number from 0 to {MAX_RISK}")
    suppress = custom.get("ringfence.suppress")
    return Reaction(response, risk, None if suppress is None else _seconds(suppress))


def _seconds(suppress: object) -> int:
    found = _SPAN.fullmatch(str(suppress))
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_SUPPRESS_S:
        raise Unsupported(f"'ringfence.suppress' is {suppress!r}; accepted: a time such as 30m, 1h or 1d, at most 7d")
    return seconds
