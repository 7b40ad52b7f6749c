"""Rule files: what is loaded, and what is refused with its place and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.yara import rules

GOOD = 'rule good : one two { meta: id = "a-1" level = "high" strings: $a = "abcd" condition: $a }'


def refusals(text: str, **options: object) -> list[str]:
    return [str(refusal) for refusal in rules.loads(text, "r.yar", **options).refusals]  # type: ignore[arg-type]


def test_a_rule_is_read_with_what_people_want_to_know_of_it() -> None:
    (rule,) = rules.loads(f"\n{GOOD}", "r.yar", namespace="web").rules

    assert (rule.id, rule.identifier, rule.namespace, rule.tags) == ("a-1", "good", "web", ("one", "two"))
    assert (rule.meta["level"], rule.path, rule.line, rule.by_value) == ("high", "r.yar", 2, "")


def test_a_rule_without_an_id_is_known_by_its_place() -> None:
    assert [rule.id for rule in rules.loads("rule r { condition: true }").rules] == ["text:r"]


def test_files_of_folders_are_namespaces(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    for name in ("web/shells.yar", "tools.yara"):
        (tmp_path / name).write_text("rule same { condition: true }")
    (tmp_path / "notes.txt").write_text("no rule")

    loaded = rules.load([tmp_path])

    assert [rule.id for rule in loaded.rules] == ["tools:same", "web/shells:same"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\nrule b { condition: x }", ['r.yar:2: b: undefined identifier "x"']),
        ('rule b { strings: $a = "abcd" condition: true }', ['r.yar:1: b: unreferenced string "$a"']),
        ("rule b {", ["r.yar:1: text: the file ends inside a rule"]),
        (
            '\ninclude "/etc/passwd"',
            ["r.yar:2: text: include is not allowed: list the other file, or the folder that holds both"],
        ),
        (
            'import "pe"\nrule b { condition: pe.is_pe }',
            [
                "r.yar:1: pe: module 'pe' is not allowed; allowed: hash, math, string",
                'r.yar:2: b: undefined identifier "pe"',
            ],
        ),
        (
            "rule b { strings: $a = /.b/ condition: $a }",
            ['r.yar:1: b: string "$a" may slow down scanning: give it four or more bytes that are always the same'],
        ),
        ("rule b { condition: for all i in (1..1000000000) : ( i > 0 ) }", ["r.yar:1: b: it takes too long on 1024 bytes"]),
    ],
)
def test_a_rule_is_refused_with_its_place_and_reason(text: str, expected: list[str]) -> None:
    assert refusals(text) == expected


def test_of_rules_with_one_id_the_first_counts() -> None:
    text = f'{GOOD}\nrule b {{ meta: id = "a-1" condition: true }}'

    assert refusals(text) == ["r.yar:2: b: id a-1 is that of a rule in r.yar"]


def test_other_rules_of_the_file_stay_in_force() -> None:
    text = f"rule bad {{ condition: x }}\n{GOOD}\nrule refers {{ condition: bad }}\nrule last {{ condition: good }}"
    loaded = rules.loads(text, "r.yar")

    assert [rule.identifier for rule in loaded.rules] == ["good", "last"]
    assert [refusal.title for refusal in loaded.refusals] == ["bad", "refers"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "byte 0 is not valid UTF-8"),
        (b" " * (rules.MAX_FILE_BYTES + 1), "the file is longer than 1048576 bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(data: bytes | None, reason: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "r.yar").write_bytes(data)

    assert [refusal.reason for refusal in rules.load([tmp_path / "r.yar"]).refusals] == [reason]


def test_one_namespace_is_one_file(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.yar").write_text("rule r { condition: true }")

    loaded = rules.load([tmp_path / "a", tmp_path / "b"])

    assert len(loaded.rules) == 1
    assert loaded.refusals[0].reason == f"{tmp_path}/a/r.yar has this namespace: a file's name under its folder"


def test_variables_have_the_type_of_their_value() -> None:
    text = 'rule r { condition: site == "x" and depth > 1 and is_on }'

    assert not refusals(text, variables={"site": "x", "depth": 2, "is_on": True})
    assert refusals(text, variables={"site": 1, "depth": 2, "is_on": True})
    assert refusals(text) == ['r.yar:1: r: undefined identifier "site"']


def test_modules_can_be_allowed() -> None:
    assert not refusals('import "pe" rule b { condition: pe.is_pe }', modules={"pe"})


def test_the_hash_tells_sources_and_variables_apart(tmp_path: Path) -> None:
    (tmp_path / "a.yar").write_text(GOOD)
    (tmp_path / "b.yar").write_text("rule r { condition: true }")
    whole = rules.load([tmp_path]).sha256

    assert len(whole) == 64
    assert rules.load([tmp_path / "b.yar", tmp_path / "a.yar"]).sha256 == whole
    assert rules.load([tmp_path], {"x": 1}).sha256 != whole
    assert rules.load([tmp_path / "a.yar"]).sha256 != whole


def test_a_part_of_the_rules_is_compiled_with_what_it_refers_to() -> None:
    text = """private rule p1 { condition: true }
rule named { condition: p1 }
rule other { condition: true }
global rule g { condition: true }
rule several { condition: any of (p*) and named }
"""
    loaded = rules.loads(text)
    names = {rule.identifier: rule for rule in loaded.rules}

    assert [rule.identifier for rule in loaded.compile([names["several"]])] == ["p1", "named", "g", "several"]
    assert list(names) == ["named", "other", "g", "several"]
