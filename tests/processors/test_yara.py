"""Batches of each class are scanned in the columns whose text an attacker can choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from processors.yara import COLUMNS, Settings, Yara
from ringfence.batch import EventClass
from ringfence.schema import BY_NAME
from tests import frames

RULE = 'rule r { meta: id = "r-1" strings: $a = "evil" condition: $a and not is_lab }'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.yar").write_text(RULE)
    return tmp_path


def processor(folder: Path, **options: object) -> Yara:
    return Yara(Settings.model_validate({"rules": [folder], "variables": {"is_lab": False}, **options}))


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


def test_columns_can_be_chosen(folder: Path) -> None:
    batch = frames.batch(EventClass.HTTP, [{"url.original": "/evil", "user_agent.original": "evil/1.0"}])
    hits = processor(folder, columns={"http": ["user_agent.original"]}).hits(batch)

    assert [hit.column for hit in hits] == ["user_agent.original"]


def test_classes_without_such_text_are_passed_over(folder: Path) -> None:
    assert processor(folder).hits(frames.batch(EventClass.PF, [{"ringfence.pf.reason": "evil"}])) == []


def test_variables_keep_their_types(folder: Path) -> None:
    batch = frames.batch(EventClass.DNS, [{"dns.question.name": "evil.test"}])

    assert len(processor(folder).hits(batch)) == 1
    assert processor(folder, variables={"is_lab": True}).hits(batch) == []
    assert Settings.model_validate({"rules": [], "variables": {"a": True, "b": 1, "c": 1.5, "d": "1"}}).variables == {
        "a": True,
        "b": 1,
        "c": 1.5,
        "d": "1",
    }
    with pytest.raises(ValidationError):
        Settings.model_validate({"rules": [], "variables": {"a": [1]}})
