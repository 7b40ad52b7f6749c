"""Finds who reached a host through another one although the declared intent keeps them apart, and who changed account on the way.

Per host the inbound administration contacts of the last 24 hours are kept: logins, and connections to ports of
administration that passed. A new contact B -> C extends every chain of contacts that led to B before, up to MAX_HOPS hops in the
order of time. It is a finding when the intent from the beginning of a chain to C is deny or undeclared for the service of
the last hop, or when the account on the last hop is none of those that came to B. A chain over a host whose role is
management or jump is none. A contact that is told late is put in its place, and the contacts after it are looked at again.

All times are event times; which rows come together in a batch makes no difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from ringfence.detectors import DAY_US, Bounds, Finding

MAX_HOSTS = 2_048
MAX_INBOUND = 64
MAX_OUTBOUND = 8
MAX_HOPS = 5
MAX_VISITED = 16
"""Hosts before a new contact that are looked at, the nearest and latest first."""
MAX_REPORTED = 4_096
AGAIN_US = 60_000_000
"""The same contact is noted once in this time."""
BRIDGES = frozenset({"management", "jump", "bastion"})
PORTS = {
    22: "ssh", 135: "rpc", 139: "netbios", 445: "smb", 3389: "rdp", 5900: "vnc", 5985: "winrm", 5986: "winrm",
}  # fmt: skip
"""Ports of remote administration."""

Ask = Callable[[str, str, int], str | None]
"""From a segment to a segment by a port of TCP: deny, undeclared, or None where it is allowed or nothing is known."""
RoleOf = Callable[[str], str | None]


class Contact(msgspec.Struct, array_like=True, frozen=True):
    """Somebody went from one host to another; hosts are addresses as text, segments names, port 0 is a login by whatever means."""

    source: str
    target: str
    source_segment: str
    target_segment: str
    port: int
    user: str | None
    at_us: int
    event: str

    @property
    def service(self) -> str:
        """Name of what was used."""
        return PORTS.get(self.port, f"tcp/{self.port}" if self.port else "login")


Chain = tuple[Contact, ...]


class _Host(msgspec.Struct, array_like=True):
    """The latest contacts of a host, oldest first, by the other host, port and account."""

    inbound: dict[str, Contact] = {}
    outbound: dict[str, Contact] = {}


class Paths:
    """The memory of one worker."""

    def __init__(self, ask: Ask, role_of: RoleOf) -> None:
        self._ask = ask
        self._role_of = role_of
        self._hosts: dict[str, _Host] = {}
        self._reported: dict[str, int] = {}
        self._packed: dict[str, bytes] = {}
        self.bounds = Bounds()

    def seen(self, contact: Contact, row: int) -> list[Finding]:
        """Take a contact, told at a row; returns what it completes."""
        if contact.source == contact.target or not self._note(contact):
            return []
        found = list(self._examined(contact, row))
        later = self._hosts[contact.target].outbound
        for after in [
            one for one in later.values() if 0 <= one.at_us - contact.at_us < DAY_US and one.target != contact.source
        ]:
            found += self._examined(after, row)
        return found

    def _note(self, contact: Contact) -> bool:
        """Remember a contact; False where it was noted within AGAIN_US."""
        how = f"{contact.port} {contact.user or ''}"
        target = self._host(contact.target)
        known = target.inbound.get(f"{contact.source} {how}")
        if known is not None and 0 <= contact.at_us - known.at_us < AGAIN_US:
            return False
        self._put(target.inbound, f"{contact.source} {how}", contact, MAX_INBOUND)
        self._put(self._host(contact.source).outbound, f"{contact.target} {how}", contact, MAX_OUTBOUND)
        for host in (contact.source, contact.target):
            self._packed.pop(host, None)
            self._hosts[host] = self._hosts.pop(host)  # the last to be forgotten
        return True

    def _put(self, contacts: dict[str, Contact], name: str, contact: Contact, most: int) -> None:
        contacts.pop(name, None)
        while contacts:
            oldest = next(iter(contacts))
            if contact.at_us - contacts[oldest].at_us < DAY_US and len(contacts) < most:
                break
            if len(contacts) >= most:
                self.bounds.hit("contacts")
            del contacts[oldest]
        contacts[name] = contact

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= MAX_HOSTS:
                self.bounds.hit("hosts")
                oldest = next(iter(self._hosts))
                del self._hosts[oldest]
                self._packed.pop(oldest, None)
            host = self._hosts[name] = _Host()
        return host

    def _examined(self, last: Contact, row: int) -> Iterator[Finding]:
        chains = list(self._chains(last))
        yield from self._violations(last, chains, row)
        yield from self._switches(last, row)

    def _chains(self, last: Contact) -> Iterator[Chain]:
        """What led to the beginning of a contact, the contact itself at the end; to each host before it one chain."""
        visited = {last.source, last.target}
        waiting: deque[Chain] = deque([(last,)])
        while waiting:
            chain = waiting.popleft()
            first = chain[0]
            host = self._hosts.get(first.source)
            if len(chain) == MAX_HOPS or host is None or self._role_of(first.source_segment) in BRIDGES:
                continue
            for before in reversed(host.inbound.values()):
                if before.source in visited or not 0 <= first.at_us - before.at_us < DAY_US:
                    continue
                if len(visited) > MAX_VISITED:
                    self.bounds.hit("visited")
                    return
                visited.add(before.source)
                longer = (before, *chain)
                waiting.append(longer)
                yield longer

    def _violations(self, last: Contact, chains: Sequence[Chain], row: int) -> Iterator[Finding]:
        """The longest chain whose beginning may not reach the end; all of them count as reported."""
        if not last.port:
            return
        found: list[tuple[Chain, str]] = []
        for chain in chains:
            if chain[0].source_segment != last.target_segment:
                intent = self._ask(chain[0].source_segment, last.target_segment, last.port)
                if intent is not None and self._is_news(f"{chain[0].source} {last.target} {last.port}", last.at_us):
                    found.append((chain, intent))
        if found:
            chain, intent = max(found, key=lambda item: len(item[0]))
            yield _finding(row, "path-violates-intent", chain, intent)

    def _switches(self, last: Contact, row: int) -> Iterator[Finding]:
        """An account that did not come to the host that it goes on from."""
        if last.user is None or self._role_of(last.source_segment) in BRIDGES:
            return
        host = self._hosts.get(last.source)
        came = [one for one in host.inbound.values() if 0 <= last.at_us - one.at_us < DAY_US] if host else []
        named = {one.source for one in came if one.user is not None}
        if not came or any(one.user is None and one.source not in named for one in came):
            return
        if last.user in {one.user for one in came}:
            return
        before = [one for one in came if one.user is not None and one.source != last.target]
        if before and self._is_news(f"{last.user}@{last.source} {last.target}", last.at_us):
            yield _finding(row, "path-user-switch", (before[-1], last), None)

    def _is_news(self, name: str, at_us: int) -> bool:
        """True where it was not reported within a day; it counts as reported now."""
        known = self._reported.pop(name, None)
        is_news = known is None or abs(at_us - known) >= DAY_US
        if len(self._reported) >= MAX_REPORTED:
            self.bounds.hit("reported")
            del self._reported[next(iter(self._reported))]
        self._reported[name] = at_us if known is None or is_news else known
        return is_news

    def snapshot(self) -> bytes:
        """All that is known, in the order in which it will be forgotten."""
        for name in self._hosts.keys() - self._packed.keys():
            self._packed[name] = _ENCODER.encode((name, self._hosts[name]))
        return _ENCODER.encode(([msgspec.Raw(self._packed[name]) for name in self._hosts], list(self._reported.items())))

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew; one that cannot be read is left aside."""
        try:
            hosts, reported = _DECODER.decode(state)
        except msgspec.DecodeError:
            return
        self._hosts, self._reported, self._packed = dict(hosts), dict(reported), {}


_State = tuple[list[tuple[str, _Host]], list[tuple[str, int]]]
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[_State] = msgspec.msgpack.Decoder(_State)


def shown(chain: Chain, with_users: bool = False) -> str:
    """A path as text: `10.1.0.5 -> 10.2.0.9 (ssh, 07:44:23) -> 10.3.0.7 (rdp, 07:46:01)`, times in UTC."""
    hops = [
        f"{hop.target} ({hop.service}{f' as {hop.user}' if with_users and hop.user else ''}, {_clock(hop.at_us)})"
        for hop in chain
    ]
    return " -> ".join([chain[0].source, *hops])


def _clock(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000 % 86_400, UTC).strftime("%H:%M:%S")


def _finding(row: int, name: str, chain: Chain, intent: str | None) -> Finding:
    first, last = chain[0], chain[-1]
    columns = {
        "source.host": first.source,
        "destination.host": last.target,
        "source.segment": first.source_segment,
        "destination.segment": last.target_segment,
        "destination.port": last.port or None,
        "user.name": last.user,
        "ringfence.boundary.intent": intent,
        "ringfence.boundary.service": last.service,
    }
    ids = [hop.event for hop in chain]
    text = shown(chain, with_users=name == "path-user-switch")
    return Finding(row, name, len(chain), text, len(chain), None, first.at_us, last.at_us, ids, columns)
