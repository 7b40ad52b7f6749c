"""Sigma rule files to trees. pySigma parses; what it or the evaluators do not know is refused with file, line and reason.

A file may hold several documents. One that is refused leaves the others in force. Correlations and filters are documents
of their own; a filter is added by pySigma to the rules that it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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
from sigma.exceptions import SigmaError
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

from ringfence.sigma.reaction import Reaction, reaction_of
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
    """One rule in force. `fields` are its own names, not yet those of columns; `custom` are keys that Sigma does not know."""

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
    reaction: Reaction = field(default_factory=Reaction)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a document is no rule: one sentence that says what is accepted, where there is such a thing."""

    path: str
    line: int
    title: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.title}: {self.reason}"


class Unsupported(Exception):
    """A construct that no evaluator knows."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules in the order of their files, and what was refused."""

    rules: Sequence[Rule]
    refusals: Sequence[Refusal]


def load(paths: Iterable[Path], placeholders: Mapping[str, Sequence[str]] | None = None) -> Loaded:
    """Every rule of some files and of the .yml files under some folders. `placeholders` are the values of `%name%`."""
    rules: list[Rule] = []
    refusals: list[Refusal] = []
    for path in _files(paths):
        found = _load_file(path, placeholders or {})
        rules += found.rules
        refusals += found.refusals
    return _without_repeated_ids(rules, refusals)


def loads(text: str, path: str = "<text>", placeholders: Mapping[str, Sequence[str]] | None = None) -> Loaded:
    """The rules of one text."""
    rules: list[Rule] = []
    refusals: list[Refusal] = []
    for line, part in _documents(text):
        title = path
        try:
            document = yaml.load(part, yaml.CSafeLoader)
            if document is None:
                continue
            if not isinstance(document, dict):
                raise Unsupported("the document is not a mapping such as title, logsource, detection")
            title = str(document.get("title", path))
            rules += _rules_of(document, path, line, placeholders or {})
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = line + (mark.line if mark else 0)
            refusals.append(Refusal(path, place, title, f"not YAML: {getattr(error, 'problem', None) or error}"))
        except (SigmaError, Unsupported, RecursionError) as error:
            refusals.append(Refusal(path, line + _line_of(part, str(error)), title, _sentence(error)))
    return Loaded(rules, refusals)


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(found for found in path.rglob("*") if found.suffix in (".yml", ".yaml") and found.is_file())
        else:
            yield path


def _load_file(path: Path, placeholders: Mapping[str, Sequence[str]]) -> Loaded:
    try:
        data = path.read_bytes()
        if len(data) > MAX_FILE_BYTES:
            return Loaded((), (Refusal(str(path), 1, path.name, f"the file is longer than {MAX_FILE_BYTES} bytes"),))
        return loads(data.decode(), str(path), placeholders)
    except OSError as error:
        return Loaded((), (Refusal(str(path), 1, path.name, f"cannot be read: {error.strerror}"),))
    except UnicodeDecodeError as error:
        return Loaded((), (Refusal(str(path), 1, path.name, f"byte {error.start} is not valid UTF-8"),))


def _without_repeated_ids(rules: Sequence[Rule], refusals: list[Refusal]) -> Loaded:
    """Of rules with one id the first counts: a detection names its rule by it."""
    first: dict[str, Rule] = {}
    for rule in rules:
        if rule.id in first:
            other = first[rule.id]
            refusals.append(Refusal(rule.path, rule.line, rule.title, f"id {rule.id} is that of {other.path}:{other.line}"))
        else:
            first[rule.id] = rule
    return Loaded(tuple(first.values()), refusals)


def _documents(text: str) -> Iterator[tuple[int, str]]:
    """The documents of a YAML text with the number of their first line."""
    starts = [0, *(found.start() for found in _DOCUMENT.finditer(text)), len(text)]
    for start, stop in pairwise(starts):
        part = _DOCUMENT.sub(lambda found: " " * 3 + found[0][3:], text[start:stop], count=1)
        if part.strip():
            yield text.count("\n", 0, start) + 1, part


def _line_of(part: str, reason: str) -> int:
    """Lines from the start of the document to the first word that the reason quotes; 0 when it quotes none."""
    for quoted in re.findall(r"'([^']+)'", reason):
        found = re.search(rf"(?<!\w){re.escape(quoted)}(?!\w)", part)
        if found:
            return part.count("\n", 0, found.start())
    return 0


def _sentence(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "the condition is nested too deeply"
    return re.sub(r"(?<=: )b'([^']*)'", r"\1", " ".join(str(error).split())) or type(error).__name__


def _rules_of(document: dict[str, Any], path: str, line: int, placeholders: Mapping[str, Sequence[str]]) -> list[Rule]:
    if "detection" not in document:
        kind = next((key for key in ("correlation", "filter") if key in document), None)
        raise Unsupported(f"{kind} documents are not evaluated yet" if kind else "there is no 'detection'")
    collection = SigmaCollection.from_dicts([document])
    return [_rule(rule, path, line, placeholders) for rule in collection.rules if isinstance(rule, SigmaRule)]


def _rule(rule: SigmaRule, path: str, line: int, placeholders: Mapping[str, Sequence[str]]) -> Rule:
    trees = [_node(condition.parsed, placeholders) for condition in rule.detection.parsed_condition]
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
        reaction=_reaction(rule),
    )


def _reaction(rule: SigmaRule) -> Reaction:
    try:
        return reaction_of(rule.custom_attributes)
    except ValueError as error:
        raise Unsupported(str(error)) from None


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
    return tuple(joined)


def _pattern(value: SigmaRegularExpression) -> str:
    """The expression with its flags; refused where RE2 refuses it."""
    flags = "".join(sorted(letter for flag, letter in _FLAGS.items() if flag in value.flags))
    pattern = (f"(?{flags})" if flags else "") + value.regexp.original
    try:
        re2.compile(pattern, _RE2_OPTIONS)
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
