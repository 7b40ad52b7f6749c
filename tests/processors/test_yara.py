"""Batches of each class are scanned in the columns whose text an attacker can choose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processors.yara import COLUMNS, Yara
from ringfence import bus
from ringfence.batch import EventClass, Micros
from ringfence.rulesets import RuleFiles, Rules
from ringfence.schema import BY_NAME
from ringfence.topology import EMPTY
from tests import frames

RULE = 'rule r : shell { meta: id = "r-1" level = "high" attack = "T1105 T1059.004" strings: $a = "evil" condition: $a and not is_lab }'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.yar").write_text(RULE)
    return tmp_path


def processor(folder: Path, **options: object) -> Yara:
    files = RuleFiles.model_validate({"yara": [folder], "variables": {"is_lab": False}, **options})
    rules = files.load()
    assert not rules.refusals
    return Yara(rules.yara, EMPTY)


@pytest.mark.parametrize(
    ("event_class", "name"), [(event_class, name) for event_class, names in COLUMNS.items() for name in names]
)
def test_every_column_that_is_scanned_exists_in_its_class(event_class: EventClass, name: str) -> None:
    column = BY_NAME[name]

    assert event_class in column.classes or event_class in dict(column.joined)


def test_hits_name_row_and_column(folder: Path) -> None:
    batch = frames.batch(
        EventClass.HTTP,
        [{"url.original": "/"}, {"url.original": "/evil", "user_agent.original": "evil/1.0"}, {"url.domain": "evil.test"}],
    )

    assert [(hit.row, hit.column, hit.rule.id) for hit in processor(folder).hits(batch)] == [
        (1, "url.original", "r-1"),
        (1, "user_agent.original", "r-1"),
        (2, "url.domain", "r-1"),
    ]


def test_classes_without_such_text_are_passed_over(folder: Path) -> None:
    assert processor(folder).hits(frames.batch(EventClass.PF, [{"ringfence.pf.reason": "evil"}])) == []


def test_variables_keep_their_types(folder: Path) -> None:
    batch = frames.batch(EventClass.DNS, [{"dns.question.name": "evil.test"}])

    assert len(processor(folder).hits(batch)) == 1
    assert processor(folder, variables={"is_lab": True}).hits(batch) == []
    assert RuleFiles.model_validate({"variables": {"a": True, "b": 1, "c": 1.5, "d": "1"}}).variables == {
        "a": True,
        "b": 1,
        "c": 1.5,
        "d": "1",
    }


def test_a_row_in_which_a_rule_is_found_is_one_detection(folder: Path) -> None:
    rows = [{}, {"url.original": "/evil", "user_agent.original": "evil/1.0", "source.ip": 1, "ringfence.event.position": 7}]
    batch = frames.batch(EventClass.HTTP, rows)
    processed = processor(folder).process(batch, Micros(0))
    (found,) = processed.outputs[bus.DETECTIONS][0].frame.iter_rows(named=True)

    assert processed.batch is batch
    assert (found["rule.id"], found["ringfence.detection.kind"], found["ringfence.detection.level"]) == ("r-1", "yara", "high")
    assert (found["ringfence.evidence.class"], found["ringfence.evidence.position"], found["source.ip"]) == ("http", 7, 1)
    assert found["threat.technique.id"] == "T1105,T1059.004"
    shown = json.loads(found["ringfence.detection.fields"])
    assert shown["url.original"] == {"$a": [[1, 4]]}
    assert shown["user_agent.original"] == {"$a": [[0, 4]]}
    assert (shown["yara.tags"], shown["yara.meta"]["id"], len(shown["yara.set"])) == (["shell"], "r-1", 16)


def test_no_rules_find_nothing() -> None:
    batch = frames.batch(EventClass.HTTP, [{"url.original": "/evil"}])

    assert Yara(Rules().yara, EMPTY).process(batch, Micros(0)).outputs == {}
