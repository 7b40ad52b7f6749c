"""The rules in force: loaded from files, put on columns, and by class of events; with what was refused, and a name for it all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.alert_exceptions import AlertException
from ringfence.batch import EventClass
from ringfence.sigma import fields, rules
from ringfence.sigma.rules import Refusal, Rule, Unsupported

BUNDLED = Path("bundled")
"""In place of a path, the bundled rules."""


def located(path: Path, base: Path = Path()) -> Path:
    """A path under a folder, or that of the bundled rules."""
    return _bundled() if path == BUNDLED else base / path


def _bundled() -> Path:
    """In a wheel beside this package, in a checkout at its root."""
    package = Path(__file__).parents[1]
    installed = package / "_data" / "rules"
    return (installed if installed.is_dir() else package.parent / "rules") / "sigma"


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules on columns, by class; `digest` names the set: it changes when any rule does. `exceptions` are those of alerts."""

    by_class: Mapping[EventClass, Sequence[Rule]]
    refusals: Sequence[Refusal]
    count: int
    digest: str
    exceptions: tuple[AlertException, ...] = ()


def load(paths: Sequence[Path], placeholders: Mapping[str, Sequence[str]]) -> RuleSet:
    """Load what is under some paths. A rule that is refused leaves the others in force."""
    loaded = rules.load(paths, placeholders)
    by_class: dict[EventClass, list[Rule]] = {}
    refusals = list(loaded.refusals)
    count = 0
    digest = hashlib.sha256()
    for rule in loaded.rules:
        try:
            routed = fields.routed(rule)
        except Unsupported as error:
            refusals.append(Refusal(rule.path, rule.line, rule.title, str(error)))
            continue
        count += 1
        digest.update(repr((rule.id, rule.level, rule.tags, rule.reaction, routed.rule.condition)).encode())
        for event_class in routed.classes:
            by_class.setdefault(event_class, []).append(routed.rule)
    return RuleSet(by_class, refusals, count, digest.hexdigest()[:16])


EMPTY = RuleSet({}, (), 0, "")
