"""The YARA rules that ship: each has what people need to act, fires on its examples, and not on the near misses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from ringfence.yara import rules
from ringfence.yara.rules import Rule
from ringfence.yara.scan import Scanner

FOLDER = Path(__file__).parents[2] / "rules" / "yara"
LOADED = rules.load([FOLDER])
EXAMPLES: dict[str, dict[str, list[str]]] = {
    name: examples
    for path in sorted((FOLDER / "tests").glob("*.yml"))
    for name, examples in yaml.load(path.read_text(), yaml.CSafeLoader).items()
}
LEVELS = {"low", "medium", "high", "critical"}
RESPONSES = {"alert", "approve-quarantine"}
BY_NAME = pytest.mark.parametrize("rule", LOADED.rules, ids=[rule.identifier for rule in LOADED.rules])


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner(LOADED)


def fired(scanner: Scanner, values: list[str]) -> list[set[str]]:
    """The rules that fire on each value."""
    found: list[set[str]] = [set() for _ in values]
    for hit in scanner.scan(pl.DataFrame({"value": values}), ["value"]):
        found[hit.row].add(hit.rule.identifier)
    return found


def test_all_load() -> None:
    assert list(map(str, LOADED.refusals)) == []
    assert len({rule.identifier for rule in LOADED.rules}) == len(LOADED.rules) >= 25


def test_every_rule_has_its_examples() -> None:
    assert sorted(EXAMPLES) == sorted(rule.identifier for rule in LOADED.rules)


@BY_NAME
def test_a_rule_fires_on_its_examples_and_not_on_near_misses(rule: Rule, scanner: Scanner) -> None:
    fires, misses = EXAMPLES[rule.identifier]["fires"], EXAMPLES[rule.identifier]["misses"]
    assert fires
    assert len(misses) >= 2

    assert [value for value, names in zip(fires, fired(scanner, fires), strict=True) if rule.identifier not in names] == []
    assert [value for value, names in zip(misses, fired(scanner, misses), strict=True) if rule.identifier in names] == []


@BY_NAME
def test_a_rule_says_what_people_need_to_act(rule: Rule) -> None:
    meta: dict[str, Any] = dict(rule.meta)

    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", meta["id"])
    assert re.fullmatch(r"T\d{4}(\.\d{3})?( T\d{4}(\.\d{3})?)*", meta["attack"])
    assert meta["level"] in LEVELS
    assert meta["response"] in RESPONSES
    assert 1 <= meta["score"] <= 100
    assert meta["description"].endswith(".")
    assert meta["false_positives"].endswith(".")


def test_near_misses_fire_no_rule_at_all(scanner: Scanner) -> None:
    values = [value for examples in EXAMPLES.values() for value in examples["misses"]]

    assert [(value, names) for value, names in zip(values, fired(scanner, values), strict=True) if names] == []
