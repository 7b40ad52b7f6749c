"""Tables of the messages that programs write: forms of text, each with what it means, read by one regular expression.

The tables stand in files of their own (`collectors/auth_messages.py`, `dns_messages.py`, `dhcp_messages.py`,
`state_messages.py`), `collectors/program_messages.py` chooses between them by the name of the program.

Sample: Form(r"LOGIN ON (?P<terminal>\\S+) BY (?P<user>\\S+)", "login") reads `LOGIN ON tty1 BY ann`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from ringfence.addresses import AddressCache

Text = str | None
Values = tuple[Text, ...]
Reader = Callable[[str], Values | None]


class Form(NamedTuple):
    """One form of message: groups are named as the fields that they fill, `fixed` gives others."""

    pattern: str
    action: str
    outcome: str = "success"
    fixed: Mapping[str, str] = {}


_NAME = re.compile(r"\(\?P<([a-z]+)>")


def reader(forms: Sequence[Form], fields: Sequence[str], head: str = "") -> Reader:
    """A function that matches all forms at once and returns action, outcome and the fields, or None.

    `head` stands before every form and is matched once. Group names of a form get its number, since they must differ
    inside one expression.
    """
    numbered = [_NAME.sub(rf"(?P<\g<1>{number}>", form.pattern) for number, form in enumerate(forms)]
    parts = "|".join(f"(?P<form{number}>{part})" for number, part in enumerate(numbered))
    pattern = re.compile(rf"(?:(?!)())?{head}(?:{parts})\Z", re.ASCII)  # group 1 never matches: fields that a form lacks
    match, places = pattern.match, pattern.groupindex
    known = {
        places[f"form{number}"]: (
            (form.action, form.outcome),
            tuple(places.get(f"{field}{number}", places.get(field, 1)) for field in fields),
            [(2 + fields.index(field), value) for field, value in form.fixed.items()],
        )
        for number, form in enumerate(forms)
    }

    def read(message: str) -> Values | None:
        found = match(message)
        if found is None:
            return None
        ends, groups, fixed = known[found.lastindex or 0]
        values: Values = ends + found.group(*groups)
        return _with(values, fixed) if fixed else values

    return read


def _with(values: Values, fixed: Sequence[tuple[int, str]]) -> Values:
    changed = list(values)
    for place, value in fixed:
        changed[place] = value
    return tuple(changed)


def end_columns(side: str, texts: Sequence[Text], ports: Sequence[Text], addresses: AddressCache) -> dict[str, Any]:
    """The columns of one end, source or destination; a text that is no address, such as a host name, gives none."""
    ends = addresses.column(texts)
    return {
        f"{side}.ip": ends.v4,
        f"{side}.ip6": ends.v6 if ends.v6 is not None else pl.Series([None] * len(texts), dtype=pl.Binary),
        f"{side}.port": [int(text) if text else None for text in ports],
    }


def present(columns: Mapping[str, Sequence[Text]]) -> dict[str, Any]:
    """The columns that have any text."""
    return {name: values for name, values in columns.items() if any(values)}
