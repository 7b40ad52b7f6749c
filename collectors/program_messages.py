"""Rows of what programs wrote, whatever carried it (syslog, journal): the name of a program chooses how its text is read.

The tables are in `collectors/auth_messages.py` and `packetfence.py` (class auth), `dns_messages.py` (dns), `dhcp_messages.py` and
`state_messages.py` (generic); single sign-on servers write their records in JSON (`keycloak.py`, `authentik.py`, `authelia.py`). What matches no form is a row of class generic with the text as `message`.

Sample: `tables(["sshd"], ["Invalid user x from 192.0.2.7 port 44"], columns, "syslog", addresses)` -> one row of class auth
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from collectors import auth_messages, authelia, authentik, dhcp_messages, dns_messages, keycloak, packetfence, state_messages
from collectors.message_forms import Reader, Text, Values
from ringfence.addresses import AddressCache
from ringfence.batch import EventClass
from ringfence.schema import build_frame


class _Family(NamedTuple):
    """Messages that fill the same columns of one class."""

    event_class: EventClass
    readers: Mapping[str, Reader]
    columns: Callable[[Sequence[Values], AddressCache], dict[str, Any]]


_SIGN_INS: Mapping[str, Reader] = {"keycloak": keycloak.read, "authentik": authentik.read, "authelia": authelia.read}
"""Servers whose record, in JSON, is the text of a message."""
_FAMILIES = (
    _Family(EventClass.AUTH, {**auth_messages.READERS, **_SIGN_INS}, auth_messages.columns),
    _Family(EventClass.AUTH, packetfence.READERS, packetfence.columns),
    _Family(EventClass.DNS, dns_messages.READERS, dns_messages.columns),
    _Family(EventClass.GENERIC, dhcp_messages.READERS, dhcp_messages.columns),
    _Family(EventClass.GENERIC, state_messages.READERS, state_messages.columns),
)
_READERS: Mapping[Text, tuple[int, Reader]] = {
    program: (number, read) for number, family in enumerate(_FAMILIES) for program, read in family.readers.items()
}
_PAM = (0, auth_messages.read_pam)


def tables(
    programs: Sequence[Text], messages: Sequence[str], columns: Mapping[str, pl.Series], kind: str, addresses: AddressCache
) -> dict[EventClass, pl.DataFrame]:
    """A frame for each class that there are rows of. `columns` are those of every row that do not depend on its text, and
    `message` with the text itself.

    `kind` is the `ringfence.generic.type` of rows of class generic.
    """
    shared = pl.DataFrame(dict(columns))
    rows: list[list[int]] = [[] for _ in _FAMILIES]
    values: list[list[Values]] = [[] for _ in _FAMILIES]
    rest: list[int] = []
    for row, chosen in enumerate(_choose(programs, shared["message"])):
        if chosen is not None:
            number, read = chosen
            found = read(messages[row])
            if found is not None:
                rows[number].append(row)
                values[number].append(found)
                continue
        rest.append(row)
    parts: dict[EventClass, list[pl.DataFrame]] = {}
    for family, own_rows, own_values in zip(_FAMILIES, rows, values, strict=True):
        if own_rows:
            own = family.columns(own_values, addresses)
            parts.setdefault(family.event_class, []).append(_frame(family.event_class, shared, own_rows, kind, own))
    if rest:
        parts.setdefault(EventClass.GENERIC, []).append(_frame(EventClass.GENERIC, shared, rest, kind, {}))
    return {event_class: pl.concat(frames, how="diagonal") for event_class, frames in parts.items()}


def _choose(programs: Sequence[Text], messages: pl.Series) -> list[tuple[int, Reader] | None]:
    """How each message is read: by its program, but what PAM says by its own name, in whatever program."""
    chosen = list(map(_READERS.get, programs))
    for row in messages.str.starts_with(auth_messages.PAM_PREFIX).arg_true().to_list():
        chosen[row] = _PAM
    return chosen


def _frame(event_class: EventClass, shared: pl.DataFrame, rows: list[int], kind: str, own: dict[str, Any]) -> pl.DataFrame:
    # rows of a frame at once: taking them from each column costs ten times as much
    taken = shared if len(rows) == shared.height else shared[pl.Series(rows, dtype=pl.UInt32)]
    if event_class is EventClass.GENERIC:
        own = {"ringfence.generic.type": pl.Series([kind]).new_from_index(0, len(rows))} | own
    return build_frame(event_class, taken.to_dict() | own)
