"""What the owners declare: segments, assets, services and intents, read from topology.yml.

Validated as a whole: every fault is reported at once with its line. Nothing here touches the hot path; the look-ups
built from it are in `ringfence/segments.py` and `ringfence/intents.py`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from ringfence import yamlfile
from ringfence.errors import ConfigError, ConfigFault

OUTSIDE = "outside"
AMBIGUOUS = "ambiguous"
ANY = "*"
MAX_SEGMENTS = 65_000
"""Codes of segments have 16 bits."""
ALL = "all"
"""Every service, as `any`."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SERVICE = re.compile(r"(tcp|udp|sctp)/(\d{1,5})(?:-(\d{1,5}))?|(icmp|icmpv6|esp|ah|gre|ipip|ospf|vrrp|pfsync|carp|any)")
PROTOCOLS: Mapping[str, int] = {
    "icmp": 1, "ipip": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "ospf": 89,
    "vrrp": 112, "carp": 112, "sctp": 132, "pfsync": 240,
}  # fmt: skip
"""IANA protocol numbers of the names that a service may use."""


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{value!r} is not a name; letters, digits, '.', '_' and '-' are accepted, at most 63, starting with a letter or digit"
        )
    return value


def _network(value: Any) -> Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as error:
        raise ValueError(f"{error}; accepted: an IPv4 or IPv6 prefix such as 10.1.2.0/24") from None


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Name = Annotated[str, AfterValidator(_name)]
Prefix = Annotated[Network, BeforeValidator(_network)]
Names = Annotated[list[str], BeforeValidator(_listed)]
Prefixes = Annotated[list[Prefix], BeforeValidator(_listed)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Segment(_Declared):
    """A named part of the network. `vlan`, `vni`, `interface` and `observer` tell apart segments whose prefixes overlap."""

    networks: Annotated[list[Prefix], Field(min_length=1)]
    id: Name | None = None
    tenant: Name | None = None
    role: Name | None = None
    site: Name | None = None
    vlan: Annotated[int, Field(ge=1, le=4094)] | None = None
    vni: Annotated[int, Field(ge=1, le=0xFFFFFF)] | None = None
    rdomain: Annotated[int, Field(ge=0, le=255)] | None = None
    interface: Names = []
    observer: Names = []
    anchor: str | None = None
    criticality: Literal["low", "medium", "high", "critical"] = "medium"


class Asset(_Declared):
    """A host that matters by itself. `protect` keeps quarantine away from it."""

    addresses: Annotated[list[str], Field(min_length=1)]
    tags: list[str] = []
    protect: bool = False


class Intent(_Declared):
    """What crosses from one set of segments to another: the listed services, all, or nothing.

    An end is a segment name, `outside`, `*`, `tenant:NAME`, `role:NAME` or `site:NAME`. A boundary that any intent names
    is declared: services that no intent allows on it are denied.
    """

    source: Names = Field(alias="from", min_length=1)
    destination: Names = Field(alias="to", min_length=1)
    allow: Names | None = None
    deny: Names | None = None
    why: str | None = None
    controls: list[str] = []


class _File(_Declared):
    default_intent: Literal["deny", "undeclared"] = "deny"
    segments: dict[Name, Segment]
    assets: dict[Name, Asset] = {}
    services: dict[Name, Names] = {}
    intents: list[Intent] = []


@dataclass(frozen=True, slots=True)
class PortRange:
    """Part of a service: an IP protocol and an inclusive range of destination ports; protocol None is everything."""

    protocol: int | None
    low: int = 0
    high: int = 0xFFFF


@dataclass(frozen=True, slots=True)
class Topology:
    """The declared network, as read from `file`."""

    file: str
    default_intent: Literal["deny", "undeclared"]
    segments: Mapping[str, Segment]
    assets: Mapping[str, Asset]
    services: Mapping[str, tuple[PortRange, ...]]
    intents: tuple[Intent, ...]

    def service(self, word: str) -> tuple[PortRange, ...]:
        """The ranges of a declared service name, or of an inline service such as `tcp/443`."""
        return self.services[word] if word in self.services else (parse_service(word),)

    def members(self, end: str) -> list[str]:
        """The segment names, `outside` among them, that one end of an intent stands for."""
        everywhere = [*self.segments, OUTSIDE]
        if end == ANY:
            return everywhere
        kind, colon, wanted = end.partition(":")
        if not colon:
            return [end]
        return [name for name, segment in self.segments.items() if getattr(segment, kind) == wanted]


EMPTY = Topology("(none)", "undeclared", {}, {}, {}, ())


def parse_service(word: str) -> PortRange:
    """`tcp/443`, `udp/5000-5100`, `icmp`, `any`. Raises ValueError with what is accepted."""
    match = _SERVICE.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is neither a declared service nor one such as tcp/443, udp/5000-5100, icmp or any")
    if match[4]:
        return PortRange(None) if match[4] == "any" else PortRange(PROTOCOLS[match[4]])
    low, high = int(match[2]), int(match[3] or match[2])
    if not low <= high <= 0xFFFF:
        raise ValueError(f"{word!r} has a port range that is empty or ends above 65535")
    return PortRange(PROTOCOLS[match[1]], low, high)


def load(path: Path) -> Topology:
    """Read and check a topology file. Raises ConfigError with every fault."""
    document = yamlfile.read(path)
    declared = yamlfile.validate(_File, document, document.data)
    faults = [
        *_services(declared, document),
        *_ends(declared, document),
        *_prefixes(declared, document),
        *_ids(declared, document),
        *_assets(declared, document),
    ]
    if faults:
        raise ConfigError(faults)
    services = {name: tuple(parse_service(word) for word in words) for name, words in declared.services.items()}
    return Topology(str(path), declared.default_intent, declared.segments, declared.assets, services, tuple(declared.intents))


def _services(declared: _File, document: yamlfile.Document) -> Iterator[ConfigFault]:
    for name, words in declared.services.items():
        if name == ALL or _SERVICE.fullmatch(name):
            yield document.fault(("services", name), f"the name {name!r} already means a service by itself")
        for word in words:
            try:
                parse_service(word)
            except ValueError as error:
                yield document.fault(("services", name), str(error))
    for index, intent in enumerate(declared.intents):
        if (intent.allow is None) == (intent.deny is None):
            yield document.fault(("intents", index), "needs exactly one of allow and deny")
        for verb in ("allow", "deny"):
            for word in getattr(intent, verb) or ():
                if word in declared.services:
                    continue
                try:
                    parse_service("any" if word == ALL else word)
                except ValueError as error:
                    yield document.fault(("intents", index, verb), f"{error}{yamlfile.nearest(word, list(declared.services))}")


def _ends(declared: _File, document: yamlfile.Document) -> Iterator[ConfigFault]:
    if len(declared.segments) > MAX_SEGMENTS:
        yield document.fault(("segments",), f"{len(declared.segments)} segments; at most {MAX_SEGMENTS} are accepted")
    names = [*declared.segments, OUTSIDE, ANY]
    for reserved in {OUTSIDE, AMBIGUOUS} & declared.segments.keys():
        yield document.fault(("segments", reserved), f"the name {reserved!r} is taken by ringfence itself")
    for index, intent in enumerate(declared.intents):
        for key, ends in (("from", intent.source), ("to", intent.destination)):
            for end in ends:
                kind, colon, wanted = end.partition(":")
                if not colon and end not in names:
                    yield document.fault(("intents", index, key), f"no segment is called {end!r}{yamlfile.nearest(end, names)}")
                elif colon and kind not in ("tenant", "role", "site"):
                    yield document.fault(
                        ("intents", index, key), f"{end!r} selects by {kind!r}; accepted: tenant:, role:, site:"
                    )
                elif colon:
                    known = sorted({value for segment in declared.segments.values() if (value := getattr(segment, kind))})
                    if wanted not in known:
                        yield document.fault(
                            ("intents", index, key), f"no segment has {kind} {wanted!r}{yamlfile.nearest(wanted, known)}"
                        )


def _prefixes(declared: _File, document: yamlfile.Document) -> Iterator[ConfigFault]:
    """Two segments may own one prefix only if something else tells their traffic apart."""
    owners: dict[Network, list[str]] = {}
    for name, segment in declared.segments.items():
        for index, network in enumerate(segment.networks):
            others = owners.setdefault(network, [])
            other = next((one for one in others if one != name and not told_apart(declared.segments[one], segment)), name)
            others.append(name)
            if other != name:
                message = f"{network} belongs to {other} too (line {document.line(('segments', other, 'networks'))}); give both another vlan, vni, interface or observer"
                yield document.fault(("segments", name, "networks", index), message)


def _ids(declared: _File, document: yamlfile.Document) -> Iterator[ConfigFault]:
    """Each segment has an id of its own; where none is declared it is the name."""
    owners: dict[str, str] = {OUTSIDE: OUTSIDE, AMBIGUOUS: AMBIGUOUS}
    owners.update({name: name for name, segment in declared.segments.items() if segment.id in (None, name)})
    for name, segment in declared.segments.items():
        if segment.id not in (None, name):
            other = owners.setdefault(str(segment.id), name)
            if other != name:
                yield document.fault(("segments", name, "id"), f"{segment.id!r} is the id of {other} already")


def told_apart(one: Segment, two: Segment) -> bool:
    """True when some fact of a packet can show which of two segments with the same prefix it belongs to."""
    return (
        (one.vlan is not None and two.vlan is not None and one.vlan != two.vlan)
        or (one.vni is not None and two.vni is not None and one.vni != two.vni)
        or bool(one.interface and two.interface and not set(one.interface) & set(two.interface))
        or bool(one.observer and two.observer and not set(one.observer) & set(two.observer))
    )


def _assets(declared: _File, document: yamlfile.Document) -> Iterator[ConfigFault]:
    for name, asset in declared.assets.items():
        for index, address in enumerate(asset.addresses):
            try:
                ipaddress.ip_address(address)
            except ValueError as error:
                yield document.fault(("assets", name, "addresses", index), str(error))
