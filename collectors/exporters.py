"""What the ports that exporters of flows send to have in common: where to listen, and whom to listen to."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, TypeAlias

import numpy as np
from pydantic import AfterValidator, PlainValidator

from collectors.elements import Bools
from collectors.sequences import MAX_EXPORTERS
from ringfence.batch import Decoded, Frames, Problem, ProblemCode

Prefix = IPv4Network | IPv6Network

_LISTEN = re.compile(r"(?:udp://)?(\[[0-9A-Fa-f:.]+\]|[^\s\[\]:/]+)(?::(\d{1,5}))?")


def endpoint(listen: str, default_port: int) -> tuple[str, int]:
    """Host and port of a `listen` option. Raises ValueError that says what is accepted."""
    match = _LISTEN.fullmatch(listen)
    port = int(match[2] or default_port) if match else 0
    if match is None or not 1 <= port <= 65_535:
        raise ValueError(
            f"{listen!r} is no address to listen on; accepted: udp://HOST:PORT or HOST:PORT, such as 0.0.0.0:{default_port}"
        )
    return match[1].strip("[]"), port


def listen_option(default_port: int) -> AfterValidator:
    """Refuses a `listen` option that `endpoint` cannot read."""

    def check(listen: str) -> str:
        endpoint(listen, default_port)
        return listen

    return AfterValidator(check)


def resource(host: str, port: int) -> str:
    """The name of what no second collector may listen on."""
    return f"udp {f'[{host}]' if ':' in host else host}:{port}"


def _prefix(value: object) -> Prefix:
    try:
        return ip_network(str(value))
    except ValueError as error:
        raise ValueError(f"{value!r} is no prefix, such as 192.0.2.0/24 or 2001:db8::/64: {error}") from None


PrefixOption: TypeAlias = Annotated[Prefix, PlainValidator(_prefix, json_schema_input_type=str)]


class Allowed:
    """Which senders are listened to: those in any of the prefixes, all where there are none."""

    def __init__(self, prefixes: Sequence[Prefix]) -> None:
        self._prefixes = prefixes
        self._is_allowed = lru_cache(MAX_EXPORTERS)(self._look_up)

    def _look_up(self, name: str) -> bool:
        try:
            address = ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return any(address in prefix for prefix in self._prefixes)

    def feed(self, feed: Callable[[Frames], Decoded], frames: Frames) -> Decoded:
        """What a decoder makes of the datagrams of those that are allowed; each of the others becomes one Problem."""
        if not self._prefixes:
            return feed(frames)
        allowed = np.array([self._is_allowed(source.name) for source in frames.sources], np.bool_)[frames.source]
        decoded = fed(feed, frames, allowed)
        refused = [_not_allowed(frames, row) for row in np.flatnonzero(~allowed).tolist()]
        return replace(decoded, problems=[*decoded.problems, *refused])


def fed(feed: Callable[[Frames], Decoded], frames: Frames, chosen: Bools) -> Decoded:
    """What a decoder makes of some of the frames; its problems name the rows of all of them."""
    if chosen.all():
        return feed(frames)
    rows = np.flatnonzero(chosen)
    decoded = feed(frames.select(rows))
    problems = [
        problem if problem.row is None else replace(problem, row=int(rows[problem.row])) for problem in decoded.problems
    ]
    return replace(decoded, problems=problems)


def _not_allowed(frames: Frames, row: int) -> Problem:
    source = frames.sources[int(frames.source[row])]
    detail = f"{source.name} is in no prefix of `exporters`"
    raw, position = frames.frame(row), int(frames.positions[row])
    return Problem(ProblemCode.NOT_ALLOWED, detail, row, 0, raw=raw, source=source, position=position)
