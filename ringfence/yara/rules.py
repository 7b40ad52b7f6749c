"""YARA rule files to compiled sets. What cannot be used is refused with file, line and reason; the rest stays in force.

Files are namespaces of their own. Nothing is included, and only the modules that are allowed may be imported. A string
that libyara calls slow is refused too: one short pattern costs more than hundreds of good rules.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yara

from ringfence.detections import SEVERITIES, Finding
from ringfence.sigma.reaction import RESPONSES, Reaction
from ringfence.sigma.rules import Refusal
from ringfence.yara.blockwise import reason_against
from ringfence.yara.inquest import DATALESS, inquire, is_over
from ringfence.yara.source import RuleText, SourceText, Unreadable, blanked, parse

Variable = bool | int | float | str
"""Value of an external variable; its type is that of the variable."""
MODULES = frozenset({"hash", "math", "string"})
"""Modules that may be imported unless the owner says otherwise: those that only compute."""
MAX_FILE_BYTES = 1 << 20
_SUFFIXES = (".yar", ".yara")
_LINE = re.compile(r"^line (\d+): ")
_SLOW = "may slow down scanning"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in force. `id` is `meta.id`, or else namespace and identifier.

    `by_value` says why each value must be scanned alone; it is empty where values can be scanned in blocks.
    """

    id: str
    identifier: str
    namespace: str
    tags: tuple[str, ...]
    meta: Mapping[str, Any]
    path: str
    line: int
    by_value: str = ""


def finding_of(rule: Rule) -> Finding:
    """What a rule says of what it finds: `meta` of id, description, level, attack and response."""
    meta = rule.meta
    level, response = str(meta.get("level", "medium")).lower(), meta.get("response")
    return Finding(
        "yara",
        rule.id,
        rule.identifier,
        level if level in SEVERITIES else "medium",
        str(meta.get("attack", "")).replace(",", " ").split(),
        reaction=Reaction(response) if response in RESPONSES else Reaction(),
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that compiles, without the rules that were refused."""

    namespace: str
    path: str
    read: SourceText


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in the order of their files, what was refused, and the SHA-256 of all sources and variables."""

    rules: Sequence[Rule]
    refusals: Sequence[Refusal]
    sha256: str
    _sources: Sequence[_Source] = ()
    _variables: Mapping[str, Variable] = field(default_factory=dict)

    def compile(self, rules: Iterable[Rule]) -> yara.Rules:
        """These rules and those that they refer to."""
        wanted: dict[str, set[str]] = {}
        for rule in rules:
            wanted.setdefault(rule.namespace, set()).add(rule.identifier)
        sources = {
            source.namespace: _only(source.read, wanted[source.namespace])
            for source in self._sources
            if source.namespace in wanted
        }
        return yara.compile(sources=sources, includes=False, externals=dict(self._variables))


def load(paths: Iterable[Path], variables: Mapping[str, Variable] | None = None, modules: Collection[str] = MODULES) -> RuleSet:
    """Every rule of some files and of the .yar and .yara files under some folders."""
    files: list[tuple[str, str, str]] = []
    refusals: list[Refusal] = []
    for namespace, path in _files(paths):
        try:
            data = path.read_bytes()
            if len(data) > MAX_FILE_BYTES:
                refusals.append(Refusal(str(path), 1, path.name, f"the file is longer than {MAX_FILE_BYTES} bytes"))
            else:
                files.append((namespace, str(path), data.decode()))
        except OSError as error:
            refusals.append(Refusal(str(path), 1, path.name, f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError as error:
            refusals.append(Refusal(str(path), 1, path.name, f"byte {error.start} is not valid UTF-8"))
    return _loaded(files, refusals, variables or {}, modules)


def loads(
    text: str,
    path: str = "<text>",
    variables: Mapping[str, Variable] | None = None,
    modules: Collection[str] = MODULES,
    namespace: str = "text",
) -> RuleSet:
    """The rules of one text."""
    return _loaded([(namespace, path, text)], [], variables or {}, modules)


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Each file with its namespace: its path from the folder that was named, without the suffix."""
    for path in paths:
        if not path.is_dir():
            yield path.stem, path
            continue
        for found in sorted(found for found in path.rglob("*") if found.suffix in _SUFFIXES and found.is_file()):
            yield found.relative_to(path).with_suffix("").as_posix(), found


def _loaded(
    files: Sequence[tuple[str, str, str]],
    refusals: list[Refusal],
    variables: Mapping[str, Variable],
    modules: Collection[str],
) -> RuleSet:
    sources: dict[str, _Source] = {}
    rules: dict[str, Rule] = {}
    for namespace, path, text in files:
        if namespace in sources:
            other = sources[namespace].path
            refusals.append(Refusal(path, 1, namespace, f"{other} has this namespace: a file's name under its folder"))
            continue
        try:
            source, compiled = _checked(_Source(namespace, path, parse(text)), variables, modules, refusals)
        except Unreadable as error:
            refusals.append(Refusal(path, text.count("\n", 0, error.place) + 1, namespace, str(error)))
            continue
        sources[namespace] = source
        for rule in _rules_of(source, compiled, variables):
            if rule.id in rules:
                other = rules[rule.id].path
                refusals.append(Refusal(path, rule.line, rule.identifier, f"id {rule.id} is that of a rule in {other}"))
            else:
                rules[rule.id] = rule
    everything = RuleSet(tuple(rules.values()), (), _digest(sources.values(), variables), tuple(sources.values()), variables)
    return _without_endless(everything, refusals)


def _digest(sources: Iterable[_Source], variables: Mapping[str, Variable]) -> str:
    digest = hashlib.sha256()
    for part in (*sorted(f"{source.namespace}\0{source.read.text}" for source in sources), repr(sorted(variables.items()))):
        digest.update(hashlib.sha256(part.encode()).digest())
    return digest.hexdigest()


def _checked(
    source: _Source, variables: Mapping[str, Variable], modules: Collection[str], refusals: list[Refusal]
) -> tuple[_Source, yara.Rules]:
    """The source with all that libyara would not compile blanked out."""
    text, left = source.read.text, list(source.read.rules)
    for wanted in source.read.imports:
        if wanted.module not in modules:
            reason = f"module '{wanted.module}' is not allowed; allowed: {', '.join(sorted(modules)) or 'none'}"
            refusals.append(Refusal(source.path, source.read.line(wanted.start), wanted.module, reason))
            text = blanked(text, [(wanted.start, wanted.end)])
    while True:
        fault, compiled = _fault(text, variables)
        if compiled is not None and not fault:
            break
        rule = _rule_at(source.read, left, fault)
        if rule is None:
            raise Unreadable(_LINE.sub("", fault), 0)
        refusals.append(Refusal(source.path, source.read.line(rule.start), rule.name, _LINE.sub("", fault)))
        left.remove(rule)
        text = blanked(text, [(rule.start, rule.end)])
    if [rule.identifier for rule in compiled] != [rule.name for rule in left]:
        raise Unreadable("the file cannot be cut into its rules", 0)
    return _Source(source.namespace, source.path, SourceText(text, tuple(left), source.read.imports)), compiled


def _fault(text: str, variables: Mapping[str, Variable]) -> tuple[str, yara.Rules | None]:
    """The first thing that is wrong, as libyara says it."""
    try:
        compiled = yara.compile(source=text, includes=False, externals=dict(variables))
    except yara.Error as error:
        return str(error), None
    slow = next((warning for warning in compiled.warnings if warning.endswith(_SLOW)), "")
    return slow and f"{slow}: give it four or more bytes that are always the same", compiled


def _rule_at(read: SourceText, rules: Sequence[RuleText], fault: str) -> RuleText | None:
    """The rule that a message of libyara is about; it may name a line between that rule and the next."""
    found = _LINE.match(fault)
    line = int(found[1]) if found else 0
    return next((rule for rule in reversed(rules) if read.line(rule.start) <= line), None)


def _rules_of(source: _Source, compiled: yara.Rules, variables: Mapping[str, Variable]) -> Iterator[Rule]:
    proven: set[str] = set()
    for text, rule in zip(source.read.rules, compiled, strict=True):
        by_value = reason_against(text, proven, variables, source.read.rules)
        if not by_value:
            proven.add(text.name)
        if text.is_private:
            continue  # never reported: it only serves the rules that name it
        name = f"{source.namespace}:{rule.identifier}"
        id = str(rule.meta.get("id", name))
        line = source.read.line(text.start)
        yield Rule(id, rule.identifier, source.namespace, tuple(rule.tags), dict(rule.meta), source.path, line, by_value)


def _only(read: SourceText, wanted: set[str]) -> str:
    """A source with these rules, the global ones, and all that they refer to."""
    kept: set[str] = set()
    for rule in reversed(read.rules):
        if rule.name in wanted or rule.name in kept or rule.is_global:
            kept.add(rule.name)
            kept |= _references(rule, read.rules)
    return blanked(read.text, [(rule.start, rule.end) for rule in read.rules if rule.name not in kept])


def _references(rule: RuleText, rules: Sequence[RuleText]) -> set[str]:
    """Names in a condition that are those of rules before it; `name*` stands for all that begin so."""
    found: set[str] = set()
    words = [token.text for token in rule.condition]
    for word, behind in zip(words, [*words[1:], ""], strict=True):
        found |= {other.name for other in rules if other.name == word or (behind == "*" and other.name.startswith(word))}
    return found


def _without_endless(loaded: RuleSet, refusals: list[Refusal]) -> RuleSet:
    """Refuse rules that take their time on hardly any data: no budget helps against those."""
    slow: Sequence[Rule] = ()
    if loaded.rules and is_over(loaded.compile(loaded.rules), DATALESS):
        slow = inquire(loaded.compile, loaded.rules, DATALESS).culprits
    reason = f"it takes too long on {len(DATALESS)} bytes"
    refusals += [Refusal(rule.path, rule.line, rule.identifier, reason) for rule in slow]
    return replace(loaded, rules=tuple(rule for rule in loaded.rules if rule not in slow), refusals=tuple(refusals))
