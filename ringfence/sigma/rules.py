"""Sigma rule files to trees. pySigma parses; what it or the evaluators do not know is refused with file, line and reason.

A file may hold several documents. One that is refused leaves the others in force. Correlations and filters are documents
of their own; they refer to rules by id or name, in whichever file of one load these stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, Literal

import re2
import yaml
from sigma.collection import SigmaCollection
from sigma.conditions import (
    ConditionAND,
    ConditionFieldEqualsValueExpression,
    ConditionNOT,
    ConditionOR,
    ConditionValueExpression,
)
from sigma.correlations import SigmaCorrelationRule
from sigma.exceptions import SigmaError
from sigma.filters import SigmaFilter
from sigma.rule import SigmaRule
from sigma.types import (
    Placeholder,
    SigmaBool,
    SigmaCasedString,
    SigmaCIDRExpression,
    SigmaCompareExpression,
    SigmaExists,
    SigmaExpansion,
    SigmaFieldReference,
    SigmaNull,
    SigmaNumber,
    SigmaRegularExpression,
    SigmaRegularExpressionFlag,
    SigmaString,
    SigmaTimestampPart,
    SpecialChars,
)

from ringfence.sigma import limits
from ringfence.sigma.correlations import Correlation, Draft, References, draft, in_order, resolved
from ringfence.sigma.filters import applied, targets
from ringfence.sigma.limits import TooLarge
from ringfence.sigma.reaction import Reaction, reaction_of
from ringfence.sigma.refusals import Place, Refusal, Unsupported
from ringfence.sigma.tree import (
    And,
    Boolean,
    Cidr,
    Compare,
    Exists,
    Keyword,
    Node,
    Not,
    Number,
    Or,
    Parts,
    Reference,
    Regex,
    Text,
    TimePart,
    Wildcard,
    simplified,
)

__all__ = ["Loaded", "LogSource", "Refusal", "Rule", "Unsupported", "load", "loads"]

MAX_FILE_BYTES = 1 << 20
_DOCUMENT = re.compile(r"^---(?:\s|$)", re.MULTILINE)
_WILDCARDS = {SpecialChars.WILDCARD_MULTI: Wildcard.MANY, SpecialChars.WILDCARD_SINGLE: Wildcard.ONE}


@dataclass(frozen=True, slots=True)
class LogSource:
    """Where a rule wants its events from; None stands for any."""

    product: str | None = None
    category: str | None = None
    service: str | None = None

    def __str__(self) -> str:
        parts = ((name, getattr(self, name)) for name in ("product", "category", "service"))
        return ", ".join(f"{name}: {value}" for name, value in parts if value) or "any"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in force. `fields` are its own names, not yet those of columns; `custom` are keys that Sigma does not know.

    `is_reported` is false where the rule is a step of a correlation only, which does not say `generate: true`.
    """

    id: str
    title: str
    name: str | None
    level: str
    status: str | None
    tags: tuple[str, ...]
    source: LogSource
    condition: Node
    path: str
    line: int
    custom: Mapping[str, Any] = field(default_factory=dict)
    is_reported: bool = True
    reaction: Reaction = field(default_factory=Reaction)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules in the order of their files, correlations behind those that they refer to, and what was refused."""

    rules: Sequence[Rule]
    refusals: Sequence[Refusal]
    correlations: Sequence[Correlation] = ()


Placeholders = Mapping[str, Sequence[str]]


def load(paths: Iterable[Path], placeholders: Placeholders | None = None) -> Loaded:
    """Every rule of some files and of the .yml files under some folders. `placeholders` are the values of `%name%`."""
    found = _Documents()
    for path in _files(paths):
        _read_file(path, found)
    return _assembled(found, placeholders or {})


def loads(text: str, path: str = "<text>", placeholders: Placeholders | None = None) -> Loaded:
    """The rules of one text."""
    found = _Documents()
    _read(text, path, found)
    return _assembled(found, placeholders or {})


@dataclass(frozen=True, slots=True)
class _Documents:
    """What pySigma read, in the order of the files, before one document knows of another."""

    parsed: list[tuple[Place, SigmaRule | Draft | SigmaFilter]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    known: References = field(default_factory=References)

    @contextmanager
    def refusing(self, place: Place, document: SigmaRule | Draft | SigmaFilter | None) -> Iterator[None]:
        """Turns what is wrong with a document into its refusal."""
        try:
            yield
        except (SigmaError, Unsupported, TooLarge, RecursionError) as error:
            self.refusals.append(place.refuse(error))
            if isinstance(document, SigmaRule):
                self.known.refuse(document.id, document.name)
            elif isinstance(document, Draft):
                self.known.refuse(document.correlation.id, document.correlation.name)


def _read(text: str, path: str, found: _Documents) -> None:
    for line, part in _documents(text):
        place, document = Place(path, line, path, part), None
        try:
            document = yaml.load(part, yaml.CSafeLoader)
            if document is None:
                continue
            if not isinstance(document, dict):
                raise Unsupported("the document is not a mapping such as title, logsource, detection")
            place = Place(path, line, str(document.get("title", path)), part)
            found.parsed.append((place, _parsed(document, path, line)))
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            reason = f"not YAML: {getattr(error, 'problem', None) or error}"
            found.refusals.append(Refusal(path, line + (mark.line if mark else 0), path, reason))
        except (SigmaError, Unsupported, TooLarge, RecursionError) as error:
            found.refusals.append(place.refuse(error))
            if isinstance(document, dict):
                found.known.refuse(document.get("id"), document.get("name"))


def _parsed(document: dict[str, Any], path: str, line: int) -> SigmaRule | Draft | SigmaFilter:
    if not {"detection", "correlation", "filter"} & document.keys():
        raise Unsupported("there is no 'detection', 'correlation' or 'filter'")
    if "action" in document:
        raise Unsupported("'action' is not supported; write each rule out")
    limits.check_document(document)
    collection = SigmaCollection.from_dicts([document], collect_filters=True, resolve_references=False)
    found = collection.filters[0] if collection.filters else collection.rules[0]
    return draft(found, path, line) if isinstance(found, SigmaCorrelationRule) else found


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.suffix in (".yml", ".yaml") and found.is_file())
        else:
            yield path


def _read_file(path: Path, found: _Documents) -> None:
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            raise Unsupported(f"the file is longer than {MAX_FILE_BYTES} bytes")
        _read(data.decode(), str(path), found)
    except Unsupported as error:
        found.refusals.append(Refusal(str(path), 1, path.name, str(error)))
    except OSError as error:
        found.refusals.append(Refusal(str(path), 1, path.name, f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        found.refusals.append(Refusal(str(path), 1, path.name, f"byte {error.start} is not valid UTF-8"))


def _assembled(found: _Documents, placeholders: Placeholders) -> Loaded:
    """Rules under their filters, then correlations of what is in force."""
    sigma: dict[str, SigmaRule] = {}
    rules: dict[str, Rule] = {}
    drafts: dict[str, Draft] = {}
    places: dict[str, Place] = {}
    for place, each in found.parsed:
        with found.refusing(place, each):
            if isinstance(each, SigmaRule):
                rule = _rule(each, place.path, place.line, placeholders)
                _claim(rule, place, places, found.known)
                rules[rule.id], sigma[rule.id] = rule, each
            elif isinstance(each, Draft):
                _claim(each.correlation, place, places, found.known)
                drafts[each.correlation.id] = each
    for place, each in found.parsed:
        if isinstance(each, SigmaFilter):
            with found.refusing(place, each):
                for id in targets(each, sigma, found.known):
                    copy = applied(each, sigma[id])
                    rules[id], sigma[id] = _rule(copy, rules[id].path, rules[id].line, placeholders), copy
    correlations = _correlations(found, drafts, places)
    silent = {rule for id, correlation in correlations.items() if drafts[id].silences for rule in correlation.rules}
    files = {place: number for number, place in enumerate(dict.fromkeys(refusal.path for refusal in found.refusals))}
    return Loaded(
        tuple(replace(rule, is_reported=rule.id not in silent) for rule in rules.values()),
        sorted(found.refusals, key=lambda refusal: (files[refusal.path], refusal.line)),
        tuple(replace(each, is_reported=each.id not in silent) for each in correlations.values()),
    )


def _claim(rule: Rule | Correlation, place: Place, places: dict[str, Place], known: References) -> None:
    """Of rules with one id the first counts: a detection names its rule by it."""
    if rule.id in places:
        raise Unsupported(f"id {rule.id} is that of {places[rule.id].path}:{places[rule.id].line}")
    places[rule.id] = place
    known.add(rule.id, rule.name)


def _correlations(found: _Documents, drafts: Mapping[str, Draft], places: Mapping[str, Place]) -> dict[str, Correlation]:
    """Those in force, each behind what it refers to."""
    correlations: dict[str, Correlation] = {}
    for id in in_order(drafts, found.known):
        with found.refusing(places[id], drafts[id]):
            below = [reference for reference in drafts[id].references if found.known.resolve(reference) in drafts]
            lost = next((name for name in below if found.known.resolve(name) not in correlations), None)
            if lost is not None:
                raise Unsupported(f"correlation '{lost}' was refused, or refers back to this one")
            correlations[id] = resolved(drafts[id], found.known, correlations)
    return correlations


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a YAML text with the number of their first line."""
    starts = [0, *(found.start() for found in _DOCUMENT.finditer(text)), len(text)]
    for start, stop in pairwise(starts):
        part = _DOCUMENT.sub(lambda found: " " * 3 + found[0][3:], text[start:stop], count=1)
        if part.strip():
            yield text.count("\n", 0, start) + 1, part


def _rule(rule: SigmaRule, path: str, line: int, placeholders: Mapping[str, Sequence[str]]) -> Rule:
    trees = [_node(condition.parsed, placeholders) for condition in rule.detection.parsed_condition]
    for tree in trees:
        limits.check_tree(tree)
    source = rule.logsource
    return Rule(
        id=str(rule.id or rule.name or f"{Path(path).stem}:{line}"),
        title=rule.title or "",
        name=rule.name,
        level=str(rule.level or "informational").lower(),
        status=str(rule.status).lower() if rule.status else None,
        tags=tuple(f"{tag.namespace}.{tag.name}" for tag in rule.tags),
        source=LogSource(source.product, source.category, source.service),
        condition=simplified(Or(tuple(trees))),
        path=path,
        line=line,
        custom=rule.custom_attributes,
        reaction=reaction_of(rule.custom_attributes),
    )


def _node(parsed: Any, placeholders: Mapping[str, Sequence[str]]) -> Node:
    match parsed:
        case ConditionAND(args=args):
            return And(tuple(_node(arg, placeholders) for arg in args))
        case ConditionOR(args=args):
            return Or(tuple(_node(arg, placeholders) for arg in args))
        case ConditionNOT(args=[arg]):
            return Not(_node(arg, placeholders))
        case ConditionFieldEqualsValueExpression(field=name, value=value):
            return _value(str(name), value, placeholders)
        case ConditionValueExpression(value=value):
            return _keyword(value, placeholders)
        case _:
            raise Unsupported(f"a condition of kind {type(parsed).__name__} is not known")


def _value(name: str, value: Any, placeholders: Mapping[str, Sequence[str]]) -> Node:
    """What a field must be; of classes that inherit, the special one first."""
    for kind, make in _VALUES.items():
        if isinstance(value, kind):
            return make(name, value, placeholders)
    raise Unsupported(f"field '{name}' has a value of kind {type(value).__name__}, which is not known")


def _text(name: str, value: SigmaString, placeholders: Mapping[str, Sequence[str]]) -> Node:
    cased = isinstance(value, SigmaCasedString)
    return Or(tuple(Text(name, parts, cased) for parts in _filled(value, placeholders)))


def _keyword(value: Any, placeholders: Mapping[str, Sequence[str]]) -> Node:
    if isinstance(value, SigmaExpansion):
        return Or(tuple(_keyword(one, placeholders) for one in value.values))
    if isinstance(value, SigmaRegularExpression):
        return Regex(None, _pattern(value))
    if isinstance(value, SigmaNumber):
        return Keyword((str(value.number),))
    if isinstance(value, SigmaString):
        cased = isinstance(value, SigmaCasedString)
        return Or(tuple(Keyword(parts, cased) for parts in _filled(value, placeholders)))
    raise Unsupported(f"a keyword of kind {type(value).__name__} is not known; accepted: text, numbers, regular expressions")


def _filled(value: SigmaString, placeholders: Mapping[str, Sequence[str]]) -> Iterator[Parts]:
    """The pattern of a text; one for each value of a placeholder in it."""
    limits.check_filled(prod(len(placeholders.get(part.name, ())) for part in value.s if isinstance(part, Placeholder)))
    parts: list[str | Wildcard] = []
    for place, part in enumerate(value.s):
        if isinstance(part, Placeholder):
            if part.name not in placeholders:
                known = ", ".join(f"%{name}%" for name in sorted(placeholders)) or "none"
                raise Unsupported(f"placeholder '%{part.name}%' has no values; defined: {known}")
            for filling in placeholders[part.name]:
                rest = SigmaString()
                rest.s = list(value.s[place + 1 :])
                for behind in _filled(rest, placeholders):
                    yield _joined([*parts, filling, *behind])
            return
        parts.append(part if isinstance(part, str) else _WILDCARDS[part])
    yield _joined(parts)


def _joined(parts: Sequence[str | Wildcard]) -> Parts:
    """Neighbouring texts as one."""
    joined: list[str | Wildcard] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(last, str):
            joined[-1] = last + part
        elif part != "":
            joined.append(part)
    limits.check_text(tuple(joined))
    return tuple(joined)


def _pattern(value: SigmaRegularExpression) -> str:
    """The expression with its flags; refused where RE2 refuses it."""
    flags = "".join(sorted(letter for flag, letter in _FLAGS.items() if flag in value.flags))
    pattern = (f"(?{flags})" if flags else "") + value.regexp.original
    try:
        limits.check_program(re2.compile(pattern, _RE2_OPTIONS).programsize)
    except re2.error as error:
        raise Unsupported(f"regular expression '{value.regexp.original}' is none of RE2: {_reason(error)}") from None
    return pattern


def _reason(error: Exception) -> str:
    text = error.args[0] if error.args else error
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


_RE2_OPTIONS = re2.Options()
_RE2_OPTIONS.log_errors = False
_RE2_OPTIONS.max_mem = 8 << 20
_FLAGS = {
    SigmaRegularExpressionFlag.IGNORECASE: "i",
    SigmaRegularExpressionFlag.MULTILINE: "m",
    SigmaRegularExpressionFlag.DOTALL: "s",
}


def _reference(name: str, value: SigmaFieldReference, placeholders: Mapping[str, Sequence[str]]) -> Node:
    both = value.starts_with and value.ends_with
    how: Literal["equals", "starts", "ends", "contains"]
    how = "contains" if both else "starts" if value.starts_with else "ends" if value.ends_with else "equals"
    return Reference(name, value.field, how)


_VALUES: Mapping[type, Callable[[str, Any, Mapping[str, Sequence[str]]], Node]] = {
    SigmaExpansion: lambda name, value, known: Or(tuple(_value(name, one, known) for one in value.values)),
    SigmaString: _text,
    SigmaTimestampPart: lambda name, value, known: TimePart(name, value.timestamp_part.name.lower(), value.number),
    SigmaNumber: lambda name, value, known: Number(name, value.number),
    SigmaBool: lambda name, value, known: Boolean(name, value.boolean),
    SigmaNull: lambda name, value, known: Not(Exists(name)),
    SigmaExists: lambda name, value, known: Exists(name) if value.exists else Not(Exists(name)),
    SigmaRegularExpression: lambda name, value, known: Regex(name, _pattern(value)),
    SigmaCIDRExpression: lambda name, value, known: Cidr(name, str(value.network)),
    SigmaCompareExpression: lambda name, value, known: Compare(name, value.op.name.lower(), value.number.number),
    SigmaFieldReference: _reference,
}
