"""Watches names: domains that do not exist, by who asks for them, and service accounts that come from a host new to them.

Neither learns a baseline: the first counts distinct names in ten minutes, the second remembers where an account came from.
All times are event times; which rows come together in a batch makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import msgspec

from ringfence.detectors import DAY_US, MAX_IDS, Bounds, Finding

WINDOW_US = 600_000_000
BURST = 10
"""Distinct registrable names without an address, in WINDOW_US, that are a finding."""
REARM_US = 3_600_000_000
WARM_UP_US = 7 * DAY_US
"""An account is only learnt for so long after its first login."""
MAX_ASKERS = 4_096
MAX_NAMES = 32
MAX_ACCOUNTS = 1_024
MAX_ORIGINS = 64
SERVICE_PREFIXES = ("svc-", "svc_", "srv-", "sa-")
SUFFIXES = frozenset(
    f"{second}.{country}"
    for country, seconds in {
        "uk": "co org ac gov me net nhs ltd plc sch", "jp": "co or ne ac go ed gr lg", "au": "com net org edu gov id",
        "nz": "co net org govt ac", "br": "com net org gov", "in": "co net org gov ac", "za": "co org gov ac", "kr": "co or go ac re",
        "cn": "com net org gov edu ac", "tw": "com net org gov edu", "tr": "com net org gov edu", "mx": "com net org gob edu",
        "ar": "com net org gob", "il": "co org ac gov", "th": "co or ac go in", "id": "co or ac go web", "at": "co or ac gv", "pl": "com net org",
        "ua": "com net org gov", "sg": "com net org edu gov", "hk": "com net org edu gov", "my": "com net org edu gov",
    }.items()
    for second in seconds.split()
)  # fmt: skip
"""Public suffixes of two labels, the frequent ones; under another one all names count as one."""
_LOCAL = frozenset({"arpa", "local", "localhost", "internal", "lan", "home", "invalid", "test"})


def registrable(name: str) -> str | None:
    """What somebody can register: the last two labels, three under a suffix of two. None of local and reverse names."""
    labels = name.rstrip(".").lower().split(".")
    if len(labels) < 2 or labels[-1] in _LOCAL or not all(labels[-2:]):
        return None
    kept = 3 if ".".join(labels[-2:]) in SUFFIXES else 2
    return ".".join(labels[-kept:]) if len(labels) >= kept else None


def is_service(account: str) -> bool:
    """By the way that it is named."""
    return account.startswith(SERVICE_PREFIXES)


class _Asker(msgspec.Struct, array_like=True):
    """Names with the time and the event of the latest question, the latest last."""

    names: dict[str, tuple[int, str]] = {}
    silent_until_us: int = -(1 << 62)


class _Account(msgspec.Struct, array_like=True):
    first_us: int
    origins: dict[str, int]


Known = TypeVar("Known", _Asker, _Account)


class Names:
    """The memory of one worker."""

    def __init__(self) -> None:
        self._askers: dict[str, _Asker] = {}
        self._accounts: dict[str, _Account] = {}
        self._packed: dict[tuple[str, str], bytes] = {}
        self.bounds = Bounds()

    def not_found(self, asker: str, question: str, at_us: int, event: str, row: int) -> Iterator[Finding]:
        """Somebody asked for a name that does not exist."""
        name = registrable(question)
        if name is None:
            return
        known = self._latest(self._askers, asker, MAX_ASKERS, "askers") or _Asker()
        self._askers[asker] = known
        names = known.names
        names.pop(name, None)
        for old in [one for one, (when, _) in names.items() if at_us - when >= WINDOW_US]:
            del names[old]
        if len(names) >= MAX_NAMES:
            self.bounds.hit("names")
            del names[next(iter(names))]
        names[name] = (at_us, event)
        within = [(when, one) for one, (when, _) in names.items() if abs(at_us - when) < WINDOW_US]
        if len(within) >= BURST and at_us >= known.silent_until_us:
            known.silent_until_us = at_us + REARM_US
            text = f"{len(within)} domains that do not exist within 10 min: {', '.join(one for _, one in within[:5])}, ..."
            ids = [names[one][1] for _, one in within[-MAX_IDS:]]
            yield Finding(row, "nxdomain-burst", len(within), text, len(within), None, min(within)[0], at_us, ids)

    def login(self, account: str, origin: str, at_us: int, row: int) -> Iterator[Finding]:
        """A service account logged in from somewhere."""
        known = self._latest(self._accounts, account, MAX_ACCOUNTS, "accounts") or _Account(at_us, {})
        self._accounts[account] = known
        is_new = origin not in known.origins
        if is_new and len(known.origins) >= MAX_ORIGINS:
            self.bounds.hit("origins")
            del known.origins[next(iter(known.origins))]
        others = len(known.origins)
        known.origins.pop(origin, None)
        known.origins[origin] = at_us
        if is_new and others and at_us - known.first_us >= WARM_UP_US:
            text = f"{account} logged in from {origin} for the first time; {others} other hosts are known"
            yield Finding(row, "service-account-new-host", 1, text, others + 1, None, known.first_us, at_us, ())

    def _latest(self, table: dict[str, Known], name: str, most: int, bound: str) -> Known | None:
        """What is known of a name, taken out to be put back as the last to be forgotten."""
        self._packed.pop((bound, name), None)
        known = table.pop(name, None)
        if known is None and len(table) >= most:
            self.bounds.hit(bound)
            oldest = next(iter(table))
            del table[oldest]
            self._packed.pop((bound, oldest), None)
        return known

    def snapshot(self) -> bytes:
        """All that is known, in the order in which it will be forgotten."""
        return _ENCODER.encode((self._parts(self._askers, "askers"), self._parts(self._accounts, "accounts")))

    def _parts(self, table: dict[str, _Asker] | dict[str, _Account], bound: str) -> list[msgspec.Raw]:
        for name, known in table.items():
            if (bound, name) not in self._packed:
                self._packed[bound, name] = _ENCODER.encode((name, known))
        return [msgspec.Raw(self._packed[bound, name]) for name in table]

    def restore(self, state: bytes) -> None:
        """Go on with what a snapshot knew; one that cannot be read is left aside."""
        try:
            askers, accounts = _DECODER.decode(state)
        except msgspec.DecodeError:
            return
        self._askers, self._accounts, self._packed = dict(askers), dict(accounts), {}


_State = tuple[list[tuple[str, _Asker]], list[tuple[str, _Account]]]
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[_State] = msgspec.msgpack.Decoder(_State)
