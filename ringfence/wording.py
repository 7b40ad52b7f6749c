"""One plain sentence for each alert. What comes from the network in it is cut and cannot move the cursor of a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from ringfence.telemetry import printable

MAX_WORD = 80
"""Characters of a name that comes from outside."""
_SERVICES: Mapping[int, str] = {
    21: "ftp", 22: "ssh", 23: "telnet", 53: "dns", 80: "http", 135: "Windows RPC", 139: "NetBIOS", 389: "LDAP", 443: "https",
    445: "SMB", 1433: "SQL Server", 3306: "MySQL", 3389: "remote desktop", 5432: "PostgreSQL", 5900: "VNC",
    5985: "Windows remote management", 5986: "Windows remote management",
}  # fmt: skip
_VERDICTS: Mapping[str, tuple[str, str]] = {
    "breached": ("reached", ", which no intent allows"),
    "undeclared": ("reached", ", for which no intent is declared"),
    "overblocked": ("was kept from", ", though intent allows it"),
    "unproven": ("may have reached", ", which is not proven"),
    "held": ("tried to reach", " and was blocked"),
    "permitted": ("reached", ", which intent allows"),
}


@dataclass(frozen=True, slots=True)
class Story:
    """What the sentence tells; texts are as they came."""

    kind: str
    level: str
    rule: str
    source: str | None = None
    source_segment: str | None = None
    destination: str | None = None
    destination_segment: str | None = None
    port: int | None = None
    service: str | None = None
    verdict: str | None = None
    is_simulated: bool = False
    host: str | None = None
    user: str | None = None
    process: str | None = None
    actor: str | None = None
    risk: int = 0
    tactics: tuple[str, ...] = ()
    count: int = 1
    sensors: int = 1
    first_us: int = 0
    last_us: int = 0


def sentence(story: Story) -> str:
    """For example: `HIGH: Boundary breached: 10.1.0.5 (users) reached 10.2.0.9:3389 (servers) by remote desktop, ...`."""
    what = {"risk": _risk, "kill-chain": _chain}.get(story.kind, _event)(story)
    times = "once" if story.count == 1 else f"{story.count:,} times"
    sensors = f" by {story.sensors} sensor" + ("s" if story.sensors != 1 else "") if story.sensors else ""
    return f"{story.level.upper()}: {what}; seen {times}{sensors} {_when(story.first_us, story.last_us)}."


def _risk(story: Story) -> str:
    tactics = ", ".join(story.tactics)
    return f"What {_plain(story.actor)} did adds up to a risk of {story.risk} in 24 hours ({tactics})"


def _chain(story: Story) -> str:
    return f"{_plain(story.actor)} looked around, got at credentials and moved on to other hosts within two hours"


def _event(story: Story) -> str:
    parts = [_connection(story)] if story.source or story.destination else []
    parts += [f"on {_plain(story.host)}"] if story.host else []
    parts += [f"by account {_plain(story.user)}"] if story.user else []
    parts += [f"in program {_plain(story.process)}"] if story.process else []
    what = ", ".join(parts) or "no host is named"
    return f"{_plain(story.rule)}: {what}{' (simulated by ringfence)' if story.is_simulated else ''}"


def _connection(story: Story) -> str:
    source = _end(story.source, None, story.source_segment)
    if not story.destination:
        return f"from {source}"
    destination = _end(story.destination, story.port, story.destination_segment)
    verb, tail = _VERDICTS.get(story.verdict or "", ("to", ""))
    begins = source if story.verdict in _VERDICTS else f"from {source}"
    return f"{begins} {verb} {destination}{_by(story)}{tail}"


def _by(story: Story) -> str:
    word = _SERVICES.get(story.port or 0, story.service)
    if word is None:
        return "" if story.port is not None or story.verdict is None else " by several services"
    return f" by {_plain(word)}"


def _end(address: str | None, port: int | None, segment: str | None) -> str:
    text = _plain(address)
    if port is not None:
        text = f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
    return f"{text} ({_plain(segment)})" if segment else text


def _plain(text: str | None) -> str:
    """Harmless, and not longer than MAX_WORD."""
    if not text:
        return "an unknown host"
    shown = printable(text[:MAX_WORD])
    return shown + "..." if len(text) > MAX_WORD else shown


def _when(first_us: int, last_us: int) -> str:
    first, last = _minute(first_us), _minute(last_us)
    if first == last:
        return f"at {first[11:]} UTC"
    if first[:10] == last[:10]:
        return f"from {first[11:]} to {last[11:]} UTC"
    return f"from {first} to {last} UTC"


def _minute(at_us: int) -> str:
    try:
        return datetime.fromtimestamp(at_us // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "????-??-?? ??:??"
