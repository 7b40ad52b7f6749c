"""Alerts out of detections: what is alike becomes one, sensors that agree raise it, and what adds up on a host makes its own.

All times are event times and all windows are cut by the clock (the hour from 07:00 to 08:00), so detections may come in any
order, one file after the other, and however they are grouped: what is known of an alert at the end is the same.

- *Alike* are detections of one rule with the same ends, host, account, program and boundary in one window.
- *Corroborated* is an alert when another kind of sensor gave evidence of one of its techniques between the same ends within
  CORROBORATION_S. That raises its level by one.
- *Risk* is the sum of what alerts add to their host, at most RULE_RISK for each rule, over 24 hours; at RISK_LIMIT, with two
  tactics or more, it makes an alert of its own for the day in which it got there.
- A *kill chain* is discovery, then access to credentials, then lateral movement by one host within two hours.

The host of a detection is its source, or where it has none the host that it happened on.
"""

from __future__ import annotations

import hashlib
from bisect import insort
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

LEVELS = ("informational", "low", "medium", "high", "critical")
RISKS = (1, 10, 25, 50, 75)
"""What an alert adds to the risk of its host by its level, where its rule does not say."""
RULE_RISK = 40
RISK_LIMIT = 100
RISK_TACTICS = 2
SUPPRESS_S = 3_600
CORROBORATION_S = 600
RISK_S = 86_400
CHAIN_S = 7_200
CHAIN = ("Discovery", "Credential Access", "Lateral Movement")
MAX_OPEN = 2_048
MAX_PAIRS = 2_048
MAX_PARTS = 8_192
"""Shares and marks of all hosts. With these bounds a snapshot stays below 6 MiB."""
MAX_WITNESSES = 8
"""Alerts and sensors remembered for two ends, a technique and ten minutes."""
MAX_SHARES = 64
"""Rules and windows that make up the risk of a host."""
MAX_MARKS = 128
"""Minutes and tactics of a host that may become part of a chain."""
MAX_EVIDENCE = 10
MAX_SHARE_EVIDENCE = 3
RISK_RULE = ("ringfence-risk", "Risk of a host adds up")
CHAIN_RULE = ("ringfence-kill-chain", "Discovery, access to credentials, then lateral movement")

_US = 1_000_000
_MINUTE_US = 60 * _US
_TIMES = tuple(10**power for power in range(1, 19))
Evidence = tuple[int, int, int]
"""When, and the two halves of an event id."""
Key = tuple[Any, ...]


class Sighting(NamedTuple):
    """One detection. `entities` make what is alike; `shown` are further columns that depend on these alone.

    `module` is empty where the evidence is of no one kind of sensor, as that of a correlation may be.
    """

    at_us: int
    rule_id: str
    rule_name: str
    level: int
    response: str
    risk: int | None
    suppress_s: int | None
    techniques: tuple[str, ...]
    tactics: tuple[str, ...]
    module: str
    evidence: tuple[int, int]
    ends: tuple[str, str] | None
    actor: str | None
    verdict: int
    port: int | None
    service: str | None
    entities: tuple[Any, ...]
    shown: tuple[Any, ...]


class Alert(msgspec.Struct, array_like=True):
    """What is known of one alert. `verdict` is an index into a list whose first is the worst.

    `id` are 32 hexadecimal digits made of the rule, the window and `entities`, which its detections have in common.
    """

    id: str
    kind: str
    rule_id: str
    entities: tuple[Any, ...]
    window_us: int
    rule_name: str
    level: int
    response: str
    risk: int
    techniques: tuple[str, ...]
    tactics: tuple[str, ...]
    shown: tuple[Any, ...]
    actor: str | None
    first_us: int
    last_us: int
    verdict: int
    ports: tuple[int, int] | None = None
    services: tuple[str, str] | None = None
    count: int = 0
    evidence: list[Evidence] = []
    modules: list[str] = []
    is_corroborated: bool = False
    revision: int = 0

    @property
    def raised(self) -> int:
        """The level, with one more where sensors agree."""
        return min(self.level + self.is_corroborated, len(LEVELS) - 1)

    def add(self, seen: Sighting) -> None:
        """Count one more detection."""
        self.count += 1
        self.first_us, self.last_us = min(self.first_us, seen.at_us), max(self.last_us, seen.at_us)
        self.verdict, self.level = min(self.verdict, seen.verdict), max(self.level, seen.level)
        self.ports, self.services = _span(self.ports, seen.port), _span(self.services, seen.service)
        _keep(self.evidence, (seen.at_us, *seen.evidence), MAX_EVIDENCE)


class Issued(NamedTuple):
    """One record of an alert, as it was then."""

    alert: Alert
    at_us: int


class _Share(msgspec.Struct, array_like=True):
    """What the alerts of one rule in one window add to the risk of a host."""

    risk: int
    count: int
    first_us: int
    last_us: int
    level: int
    techniques: tuple[str, ...]
    tactics: tuple[str, ...]
    modules: list[str]
    evidence: list[Evidence]

    def see(self, seen: Sighting) -> None:
        self.count += 1
        self.first_us, self.last_us = min(self.first_us, seen.at_us), max(self.last_us, seen.at_us)
        _keep(self.evidence, (seen.at_us, *seen.evidence), MAX_SHARE_EVIDENCE)
        if seen.module and seen.module not in self.modules:
            insort(self.modules, seen.module)


class _Host(msgspec.Struct, array_like=True):
    """What one host did: by rule and window, and by tactic of the chain and minute."""

    shares: dict[str, _Share] = {}
    marks: dict[int, _Share] = {}

    @property
    def size(self) -> int:
        return len(self.shares) + len(self.marks)


class _State(msgspec.Struct, array_like=True):
    alerts: list[Alert]
    pairs: list[tuple[Key, list[tuple[str, str, int, int]]]]
    hosts: dict[str, _Host]


class Alerting:
    """The alerts of one worker. Bounded; `evicted` counts what had to leave before its time."""

    def __init__(self, max_open: int = MAX_OPEN, max_pairs: int = MAX_PAIRS, max_parts: int = MAX_PARTS) -> None:
        self._max_open, self._max_pairs, self._max_parts = max_open, max_pairs, max_parts
        self._open: dict[str, Alert] = {}
        self._pairs: dict[Key, dict[tuple[str, str], tuple[int, int]]] = {}
        self._hosts: dict[str, _Host] = {}
        self._parts = 0
        self._stored: bytes | None = None
        self.evicted = 0

    @property
    def alerts(self) -> Iterator[Alert]:
        """Those that are open, the one seen last at the end."""
        return iter(self._open.values())

    def see(self, seen: Sighting) -> list[Issued]:
        """Take one detection; what people should hear now."""
        self._stored = None
        window_us = (seen.suppress_s or SUPPRESS_S) * _US
        since_us = seen.at_us // window_us * window_us
        name = _id_of(seen.rule_id, since_us, seen.entities)
        alert = self._open.pop(name, None)
        is_new = alert is None
        if alert is None:
            alert = _alert_of(seen, name, since_us)
            self.evicted += _make_room(self._open, self._max_open)
        self._open[name] = alert
        alert.add(seen)
        changed = [alert] if is_new or alert.count in _TIMES else []
        if seen.module and seen.module not in alert.modules:
            insort(alert.modules, seen.module)
            changed = [alert]
        for other in self._corroborated(seen, name):
            if other not in changed:
                changed.append(other)
        changed += self._adding_up(seen, alert, is_new)
        return [_issue(each, seen.at_us) for each in changed]

    def _corroborated(self, seen: Sighting, name: str) -> list[Alert]:
        """The alerts that this detection, or this detection's alert that others, just confirmed."""
        found: list[Alert] = []
        if seen.ends is None or not seen.module:
            return found
        stretch = seen.at_us // (CORROBORATION_S * _US)
        me = (seen.module, name)
        for technique in seen.techniques:
            witnesses = self._witnesses((*seen.ends, technique, stretch))
            low, high = witnesses.get(me, (seen.at_us, seen.at_us))
            if me in witnesses and low <= seen.at_us <= high:
                continue
            if me not in witnesses and len(witnesses) >= MAX_WITNESSES:
                self.evicted += 1
                continue
            witnesses[me] = (min(low, seen.at_us), max(high, seen.at_us))
            for place in (stretch - 1, stretch, stretch + 1):
                for (module, other), (first, last) in self._pairs.get((*seen.ends, technique, place), {}).items():
                    if module != seen.module and _is_near(first, last, seen.at_us):
                        found += [each for each in self._confirm(name, other, (module, seen.module)) if each not in found]
        return found

    def _witnesses(self, place: Key) -> dict[tuple[str, str], tuple[int, int]]:
        witnesses = self._pairs.pop(place, None)
        if witnesses is None:
            witnesses = {}
            self.evicted += _make_room(self._pairs, self._max_pairs)
        self._pairs[place] = witnesses
        return witnesses

    def _confirm(self, one: str, other: str, modules: tuple[str, str]) -> Iterator[Alert]:
        for name in (one, other):
            alert = self._open.get(name)
            if alert is not None and not (alert.is_corroborated and set(modules) <= set(alert.modules)):
                alert.is_corroborated = True
                alert.modules = sorted({*alert.modules, *modules})
                yield alert

    def _adding_up(self, seen: Sighting, alert: Alert, is_new: bool) -> list[Alert]:
        """Alerts of the host that this detection makes, or brings further."""
        if seen.actor is None:
            return []
        host = self._hosts.pop(seen.actor, None) or _Host()
        self._hosts[seen.actor] = host
        before = host.size
        made = [*self._risks(host, seen, alert, is_new), *self._chains(host, seen)]
        self._parts += host.size - before
        while self._parts > self._max_parts and len(self._hosts) > 1:
            self._parts -= self._hosts.pop(next(iter(self._hosts))).size
            self.evicted += 1
        return made

    def _risks(self, host: _Host, seen: Sighting, alert: Alert, is_new: bool) -> Iterator[Alert]:
        name = f"{alert.window_us} {seen.rule_id}"
        share = host.shares.get(name)
        if share is None:
            share = host.shares[name] = _share_of(seen)
            self.evicted += _make_room(host.shares, MAX_SHARES + 1)
        before = share.risk
        share.see(seen)
        if is_new:
            share.risk = min(share.risk + alert.risk, RULE_RISK)
        if share.risk == before:
            return
        entries = _entries(host)
        for day_us in _risky_days(entries, alert.window_us):
            members, risk = _risk_members(entries, day_us)
            yield from self._derive(RISK_RULE, "risk", day_us, seen, members, risk)

    def _chains(self, host: _Host, seen: Sighting) -> Iterator[Alert]:
        for tactic in seen.tactics:
            if tactic not in CHAIN:
                continue
            name = _mark(seen.at_us, tactic)
            mark = host.marks.get(name)
            is_new, is_within = mark is None, mark is not None and mark.first_us <= seen.at_us <= mark.last_us
            if mark is None:
                mark = host.marks[name] = _share_of(seen)
                self.evicted += _make_room(host.marks, MAX_MARKS + 1)
            mark.see(seen)
            if is_within or len({name % len(CHAIN) for name in host.marks}) < len(CHAIN):
                continue
            ends = _chain_ends(host.marks, seen.at_us)
            for window_us in sorted({_chain_window(end) for end in ends}):
                # what only widens a mark cannot add to a chain that is known
                if is_new or _id_of(CHAIN_RULE[0], window_us, (seen.actor,)) not in self._open:
                    members = _chain_members(host.marks, window_us)
                    if members:
                        yield from self._derive(CHAIN_RULE, "kill-chain", window_us, seen, members, 0)

    def _derive(
        self, rule: tuple[str, str], kind: str, window_us: int, seen: Sighting, members: Sequence[_Share], risk: int
    ) -> Iterator[Alert]:
        """The alert of a host, if it is new or says something new."""
        alert = _sum_of(members, rule, kind, window_us, risk, seen.actor)
        known = self._open.pop(alert.id, None)
        if known is None:
            self.evicted += _make_room(self._open, self._max_open)
        else:
            alert.revision = known.revision
        self._open[alert.id] = alert
        if known is None or len(str(known.count)) < len(str(alert.count)) or known.modules != alert.modules:
            yield alert

    def snapshot(self) -> bytes:
        """Everything, for the next start."""
        if self._stored is None:
            pairs = [(place, [(*me, *times) for me, times in found.items()]) for place, found in self._pairs.items()]
            self._stored = msgspec.msgpack.encode(_State([*self._open.values()], pairs, self._hosts))
        return self._stored

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew; one that cannot be read is left aside."""
        try:
            found = msgspec.msgpack.decode(state, type=_State)
        except msgspec.DecodeError:
            return
        self._stored = None
        self._open = {alert.id: alert for alert in found.alerts}
        self._pairs = {
            tuple(place): {(module, name): (low, high) for module, name, low, high in entries} for place, entries in found.pairs
        }
        self._hosts = found.hosts
        self._parts = sum(host.size for host in found.hosts.values())


def _id_of(rule_id: str, window_us: int, entities: tuple[Any, ...]) -> str:
    return hashlib.blake2b(repr((rule_id, window_us, *entities)).encode(), digest_size=16).hexdigest()


def _alert_of(seen: Sighting, name: str, since_us: int) -> Alert:
    return Alert(
        id=name, kind="rule", rule_id=seen.rule_id, entities=seen.entities, window_us=since_us, rule_name=seen.rule_name, level=seen.level, response=seen.response,
        risk=RISKS[seen.level] if seen.risk is None else seen.risk, techniques=seen.techniques, tactics=seen.tactics,
        shown=seen.shown, actor=seen.actor, first_us=seen.at_us, last_us=seen.at_us, verdict=seen.verdict,
    )  # fmt: skip


def _share_of(seen: Sighting) -> _Share:
    return _Share(0, 0, seen.at_us, seen.at_us, seen.level, seen.techniques, seen.tactics, [], [])


def _sum_of(members: Sequence[_Share], rule: tuple[str, str], kind: str, window_us: int, risk: int, actor: str | None) -> Alert:
    evidence = sorted({each for share in members for each in share.evidence})[:MAX_EVIDENCE]
    return Alert(
        id=_id_of(rule[0], window_us, (actor,)), kind=kind, rule_id=rule[0], entities=(actor,), window_us=window_us,
        rule_name=rule[1], level=LEVELS.index("high" if kind == "risk" else "critical"),
        response="approve-quarantine", risk=risk,
        techniques=tuple(sorted({word for share in members for word in share.techniques})),
        tactics=tuple(sorted({word for share in members for word in share.tactics})),
        shown=(), actor=actor, first_us=min(share.first_us for share in members),
        last_us=max(share.last_us for share in members), verdict=NO_VERDICT, count=sum(share.count for share in members),
        evidence=evidence, modules=sorted({module for share in members for module in share.modules}),
    )  # fmt: skip


NO_VERDICT = 99


def _issue(alert: Alert, at_us: int) -> Issued:
    alert.revision += 1
    copy = msgspec.structs.replace(alert, evidence=list(alert.evidence), modules=list(alert.modules))
    return Issued(copy, at_us)


def _make_room(table: dict[Any, Any], most: int) -> int:
    """Forget what was seen longest ago, so that one more fits; how many that were."""
    forgotten = 0
    while len(table) >= most:
        del table[next(iter(table))]
        forgotten += 1
    return forgotten


def _keep(evidence: list[Evidence], one: Evidence, most: int) -> None:
    """The earliest of all."""
    if len(evidence) < most or one < evidence[-1]:
        insort(evidence, one)
        del evidence[most:]


def _span(known: Any, value: Any) -> Any:
    """The least and the greatest of the values so far."""
    if value is None:
        return known
    return (value, value) if known is None else (min(known[0], value), max(known[1], value))


def _is_near(first_us: int, last_us: int, at_us: int) -> bool:
    """Whether one of the two is less than CORROBORATION_S away; all between them lie in one stretch of that length."""
    within = CORROBORATION_S * _US
    return abs(first_us - at_us) < within or abs(last_us - at_us) < within


_Entries = list[tuple[int, str, _Share]]


def _entries(host: _Host) -> _Entries:
    """The shares of a host with their window and rule, in order."""
    return sorted(
        ((int(window), rule, share) for name, share in host.shares.items() for window, _, rule in [name.partition(" ")]),
        key=lambda entry: entry[:2],
    )


def _until(entries: _Entries, end_us: int) -> tuple[list[_Share], int] | None:
    """The shares of the 24 hours up to a window and their risk, where that is enough."""
    by_rule: dict[str, int] = {}
    members = []
    for window_us, rule, share in entries:
        if end_us - RISK_S * _US < window_us <= end_us:
            by_rule[rule] = min(by_rule.get(rule, 0) + share.risk, RULE_RISK)
            members.append(share)
    risk = sum(by_rule.values())
    is_enough = risk >= RISK_LIMIT and len({tactic for share in members for tactic in share.tactics}) >= RISK_TACTICS
    return (members, risk) if is_enough else None


def _risky_days(entries: _Entries, window_us: int) -> list[int]:
    """The days in which the risk of a host is at the limit after something was added in a window."""
    if sum(share.risk for _, _, share in entries) < RISK_LIMIT:
        return []
    day = RISK_S * _US
    ends = {end_us for end_us, _, _ in entries if window_us <= end_us < window_us + day}
    return sorted({end_us // day * day for end_us in ends if _until(entries, end_us) is not None})


def _risk_members(entries: _Entries, day_us: int) -> tuple[list[_Share], int]:
    """All that counts on a day: the shares, and the greatest sum."""
    members: dict[int, _Share] = {}
    most = 0
    for end_us in {end_us for end_us, _, _ in entries if day_us <= end_us < day_us + RISK_S * _US}:
        found = _until(entries, end_us)
        if found is not None:
            members.update({id(share): share for share in found[0]})
            most = max(most, found[1])
    return list(members.values()), most


_Marks = dict[int, _Share]
"""By minute and tactic: minute * 3 + the place of the tactic in CHAIN."""
_LAST = len(CHAIN) - 1


def _mark(at_us: int, tactic: str) -> int:
    return at_us // _MINUTE_US * len(CHAIN) + CHAIN.index(tactic)


def _chain_up_to(marks: _Marks, end: int) -> list[_Share]:
    """The chain that ends with a mark of lateral movement; empty when there is none."""
    last = marks[end]
    since = end // len(CHAIN) - CHAIN_S // 60
    near = [(name % len(CHAIN), share) for name, share in marks.items() if since <= name // len(CHAIN) and name <= end]
    first = [share for place, share in near if place == 0 and share.first_us <= last.last_us]
    if not first:
        return []
    begun = min(share.first_us for share in first)
    then = [share for place, share in near if place == 1 and begun <= share.last_us and share.first_us <= last.last_us]
    return [*first, *then, last] if then else []


def _chain_ends(marks: _Marks, at_us: int) -> list[int]:
    """The marks of lateral movement with which a chain may end that something at a time is part of."""
    minute = at_us // _MINUTE_US
    low, high = minute * len(CHAIN), (minute + CHAIN_S // 60 + 1) * len(CHAIN)
    return sorted(name for name in marks if name % len(CHAIN) == _LAST and low <= name < high)


def _chain_window(end: int) -> int:
    """The window of two hours in which a mark lies."""
    return end // len(CHAIN) * 60 // CHAIN_S * CHAIN_S * _US


def _chain_members(marks: _Marks, window_us: int) -> list[_Share]:
    """All that is part of a chain which ends in a window."""
    ends = [name for name in marks if name % len(CHAIN) == _LAST and _chain_window(name) == window_us]
    return list({id(share): share for end in ends for share in _chain_up_to(marks, end)}.values())
