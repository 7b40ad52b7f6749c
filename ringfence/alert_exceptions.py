"""The file of exceptions: which detections make no alert, who answers for that, why, and until when.

    exceptions:
      weekly-scan:
        owner: netops
        reason: "CHG-2041: scan of all servers"
        expires: 2027-03-31
        match: {source: [10.1.0.9], rule: [rf-scan-horizontal]}

All criteria of `match` must hold; of the values of one criterion any. An exception is in force up to the end of the day on which it
expires (UTC), by the time of the detection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence import yamlfile
from ringfence.topology import Name, Names, Network, Prefixes

MAX_EXCEPTIONS = 1_000
_Text = Annotated[str, Field(min_length=1, max_length=500)]


class Match(BaseModel):
    """What an exception is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rule: Names = []
    source: Prefixes = []
    destination: Prefixes = []
    host: Names = []
    user: Names = []
    boundary: Names = []

    @model_validator(mode="after")
    def _names_something(self) -> Match:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(f"an exception for everything is refused; accepted: {', '.join(type(self).model_fields)}")
        return self


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    owner: _Text
    reason: _Text
    expires: date
    match: Match


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    exceptions: Annotated[dict[Name, _Entry], Field(max_length=MAX_EXCEPTIONS)] = {}


@dataclass(frozen=True, slots=True)
class Subject:
    """The parts of a detection that exceptions look at. An address is the integer of IPv4, the bytes of IPv6, or None."""

    rule_id: str
    rule_name: str
    source: int | bytes | None
    destination: int | bytes | None
    host: str | None
    user: str | None
    boundary: str | None


@dataclass(frozen=True, slots=True)
class AlertException:
    """One entry of the file. `until_us` is the first moment at which it is not in force any more."""

    name: str
    owner: str
    reason: str
    until_us: int
    covers: Callable[[Subject], bool]


def load(path: Path) -> tuple[AlertException, ...]:
    """Read and check the file. Raises ConfigError with every fault, such as an entry without owner or expiry."""
    document = yamlfile.read(path)
    declared = yamlfile.validate(_File, document, document.data)
    return tuple(
        AlertException(name, entry.owner, entry.reason, _end_of(entry.expires), _covering(entry.match))
        for name, entry in declared.exceptions.items()
    )


def expired(exceptions: Sequence[AlertException], now_us: int) -> list[AlertException]:
    """Those that are not in force any more."""
    return [each for each in exceptions if now_us >= each.until_us]


def _end_of(day: date) -> int:
    return int((datetime.combine(day, time(), UTC) + timedelta(days=1)).timestamp()) * 1_000_000


def _covering(match: Match) -> Callable[[Subject], bool]:
    rules, hosts, users, boundaries = (
        frozenset(word.casefold() for word in words) for words in (match.rule, match.host, match.user, match.boundary)
    )

    def covers(subject: Subject) -> bool:
        return (
            (not rules or subject.rule_id.casefold() in rules or subject.rule_name.casefold() in rules)
            and _is_in(match.source, subject.source)
            and _is_in(match.destination, subject.destination)
            and _is_one_of(hosts, subject.host)
            and _is_one_of(users, subject.user)
            and _is_one_of(boundaries, subject.boundary)
        )

    return covers


def _is_one_of(words: frozenset[str], value: str | None) -> bool:
    return not words or (value is not None and value.casefold() in words)


def _is_in(networks: Sequence[Network], address: int | bytes | None) -> bool:
    return not networks or (address is not None and any(ipaddress.ip_address(address) in network for network in networks))
