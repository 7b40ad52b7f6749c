"""Declared intent, asked for whole columns at once: may this service cross from this segment to that one?

Each boundary has one policy; equal policies are stored once. A policy is a set of disjoint ranges over the number
line protocol * 65536 + port, so a look-up is one binary search over all policies end to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from ringfence.segments import OUTSIDE_CODE, SegmentMap
from ringfence.topology import ALL, ANY, PROTOCOLS, Intent, PortRange, Topology

_LINE = 256 * 65_536
_PORTED = frozenset({6, 17, 132})
_EVERYTHING = (0, _LINE - 1)


class Allowed(IntEnum):
    """What the owners declared for one crossing; the values index INTENTS."""

    UNDECLARED = 0
    DENY = 1
    ALLOW = 2


INTENTS = ("undeclared", "deny", "allow")
Ranges = tuple[tuple[int, int, int], ...]


class IntentTable:
    """The intent of every boundary of one topology. Immutable, swapped as a whole on reload."""

    def __init__(self, topology: Topology, segments: SegmentMap) -> None:
        self._topology = topology
        self._segments = segments
        self._service_names = _service_names(topology)
        count = len(segments.names)
        default: Ranges = ((*_EVERYTHING, Allowed.DENY if topology.default_intent == "deny" else Allowed.UNDECLARED),)
        policies: dict[Ranges, int] = {default: 0}
        self._policy = np.zeros((count, count), np.int64)
        for (source, destination), ranges in self._declared().items():
            self._policy[source, destination] = policies.setdefault(ranges, len(policies))
        starts, answers = [], []
        for policy, index in policies.items():
            for start, answer in _steps(policy):
                starts.append(index * _LINE + start)
                answers.append(answer)
        self._starts = np.array(starts, np.int64)
        self._answers = np.array(answers, np.int8)

    def ask(
        self,
        source: npt.NDArray[np.int32],
        destination: npt.NDArray[np.int32],
        protocol: npt.NDArray[np.uint8],
        port: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int8]:
        """The Allowed value of each crossing; `port` is the responder's and counts for TCP, UDP and SCTP only.

        A port below 0 is unknown; it is asked as port 0, and `is_certain` says whether that was a guess.
        """
        ported = np.isin(protocol, list(_PORTED))
        place = protocol.astype(np.int64) * 65_536 + np.where(ported, np.maximum(port, 0), 0)
        keys = self._policy[source, destination] * _LINE + place
        return self._answers[np.searchsorted(self._starts, keys, side="right") - 1]

    def is_certain(
        self,
        source: npt.NDArray[np.int32],
        destination: npt.NDArray[np.int32],
        protocol: npt.NDArray[np.uint8],
        port: npt.NDArray[np.int32],
        protocol_known: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """True where the answer of `ask` is the same for every port or protocol that the crossing may have had."""
        any_port = np.isin(protocol, list(_PORTED)) & (port < 0)
        base = self._policy[source, destination] * _LINE
        first = np.where(protocol_known, protocol.astype(np.int64) * 65_536, 0)
        last = np.where(protocol_known, first + np.where(any_port, 65_535, 0), _LINE - 1)
        low, high = (np.searchsorted(self._starts, base + place, side="right") for place in (first, last))
        certain: npt.NDArray[np.bool_] = (protocol_known & ~any_port) | (low == high)
        return certain

    def service(self, protocol: int, port: int) -> str:
        """The declared name of a service, else `tcp/8443`."""
        known = self._service_names.get((protocol, port))
        if known is not None:
            return known
        name = _PROTOCOL_NAMES.get(protocol, f"ip/{protocol}")
        return f"{name}/{port}" if protocol in _PORTED and port >= 0 else name

    def is_service(self, protocol: npt.NDArray[np.uint8], port: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """True where a port belongs to a declared service or is a well-known one (RFC 6335: below 1024)."""
        declared = np.array(sorted(proto * 65_536 + number for proto, number in self._service_names), np.int64)
        keys = protocol.astype(np.int64) * 65_536 + port
        return np.isin(keys, declared) | ((port >= 0) & (port < 1024))

    def _declared(self) -> dict[tuple[int, int], Ranges]:
        """The ranges of every boundary that some intent names.

        An intent that names both ends beats one with a wildcard or selector at one end, which beats one with both; at
        the same rank allow and deny add up and deny wins. Services that are not named stay denied.
        """
        ranked: dict[tuple[int, int], dict[int, list[tuple[Intent, Ranges]]]] = {}
        for intent in self._topology.intents:
            ranges = self._ranges(intent)
            for source_end in intent.source:
                for destination_end in intent.destination:
                    rank = _is_exact(source_end) + _is_exact(destination_end)
                    for pair in self._pairs(source_end, destination_end):
                        ranked.setdefault(pair, {}).setdefault(rank, []).append((intent, ranges))
        return {
            pair: _combine([ranges for rank in sorted(ranks) for _, ranges in _deny_last(ranks[rank])])
            for pair, ranks in ranked.items()
        }

    def _pairs(self, source_end: str, destination_end: str) -> Iterable[tuple[int, int]]:
        code = {name: index for index, name in enumerate(self._segments.names) if index >= OUTSIDE_CODE}
        for source in self._topology.members(source_end):
            for destination in self._topology.members(destination_end):
                if source != destination:
                    yield code[source], code[destination]

    def _ranges(self, intent: Intent) -> Ranges:
        words = intent.allow if intent.allow is not None else intent.deny or []
        answer = Allowed.ALLOW if intent.allow is not None else Allowed.DENY
        parts = [part for word in words for part in self._topology.service("any" if word in (ALL, ANY) else word)]
        return tuple((*_span(part), answer) for part in parts)


_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items() if name != "vrrp"}


def _is_exact(end: str) -> bool:
    return end != ANY and ":" not in end


def _deny_last(entries: Sequence[tuple[Intent, Ranges]]) -> list[tuple[Intent, Ranges]]:
    return sorted(entries, key=lambda entry: entry[0].deny is not None)


def _span(part: PortRange) -> tuple[int, int]:
    if part.protocol is None:
        return _EVERYTHING
    base = part.protocol * 65_536
    return (base + part.low, base + part.high) if part.protocol in _PORTED else (base, base)


def _combine(layers: Sequence[Ranges]) -> Ranges:
    """Lay ranges over a ground of deny, the later over the earlier."""
    return ((*_EVERYTHING, Allowed.DENY), *(piece for layer in layers for piece in layer))


def _steps(policy: Ranges) -> list[tuple[int, int]]:
    """The policy as (first key, answer) steps in order, later pieces over earlier ones."""
    edges = sorted({edge for low, high, _ in policy for edge in (low, high + 1) if edge < _LINE})
    steps: list[tuple[int, int]] = []
    for edge in edges:
        answer = next(int(answer) for low, high, answer in reversed(policy) if low <= edge <= high)
        if not steps or steps[-1][1] != answer:
            steps.append((edge, answer))
    return steps


def _service_names(topology: Topology) -> dict[tuple[int, int], str]:
    """Names of declared services by protocol and port; a range of more than 1,024 ports names nothing."""
    names: dict[tuple[int, int], str] = {}
    for name, parts in topology.services.items():
        for part in parts:
            if part.protocol is not None and part.protocol in _PORTED and part.high - part.low < 1024:
                for port in range(part.low, part.high + 1):
                    names.setdefault((part.protocol, port), name)
    return names
