"""Rule files: what is loaded, and what is refused with its place and reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence.sigma import rules, tree

GOOD = """title: Shell
id: 6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11
level: high
status: test
tags: [attack.execution, attack.t1059]
logsource: {product: linux, category: process_creation}
ringfence.risk: 30
detection:
  a: {Image|endswith: /sh}
  condition: a
"""


def reasons(text: str) -> list[str]:
    return [str(refusal) for refusal in rules.loads(text, "r.yml").refusals]


def test_a_rule_is_read_with_what_people_want_to_know_of_it() -> None:
    (rule,) = rules.loads(GOOD, "r.yml").rules

    assert (rule.id, rule.title, rule.level, rule.status) == ("6ad5ba1f-1d5e-4d0b-9f3a-0d0c5a9a7c11", "Shell", "high", "test")
    assert rule.tags == ("attack.execution", "attack.t1059")
    assert str(rule.source) == "product: linux, category: process_creation"
    assert rule.condition == tree.Text("Image", (tree.Wildcard.MANY, "/sh"))
    assert rule.custom == {"ringfence.risk": 30}
    assert (rule.path, rule.line) == ("r.yml", 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("Image|endswith: /sh", "Image|endwith: /sh"), "r.yml:9: Shell: Unknown modifier 'endwith'"),
        (
            ("Image|endswith: /sh", "Image|re: '(?=a)b'"),
            "r.yml:9: Shell: Regular expression '(?=a)b' is invalid: invalid perl operator: (?=",
        ),
        (("Image|endswith: /sh", "Image|expand: '%who%'"), "r.yml:9: Shell: placeholder '%who%' has no values; defined: none"),
        (("condition: a", "condition: a and b"), "r.yml:10: Shell: Detection 'b' not defined in detections"),
        (("logsource: {product: linux, category: process_creation}", ""), "r.yml:1: Shell: "),
        (("  a: {Image|endswith: /sh}", "  a: {Image: [}"), "r.yml:9: r.yml: not YAML: "),
        (("detection:", "detect:"), "r.yml:1: Shell: there is no 'detection'"),
        (("Image|endswith: /sh", "Image|cidr: 10.0.0/8"), "r.yml:"),
    ],
)
def test_a_refusal_says_where_and_why(change: tuple[str, str], reason: str) -> None:
    (found,) = reasons(GOOD.replace(*change))

    assert found.startswith(reason), found


def test_one_bad_document_leaves_the_others_in_force() -> None:
    loaded = rules.loads("---\n" + GOOD + "---\ntitle: bad\n---\n" + GOOD.replace("6ad5", "7ad5"), "r.yml")

    assert [(rule.id[:4], rule.line) for rule in loaded.rules] == [("6ad5", 1), ("7ad5", 14)]
    assert [(refusal.title, refusal.line) for refusal in loaded.refusals] == [("bad", 12)]


def test_a_document_that_is_no_mapping_is_refused() -> None:
    assert reasons("- a\n- b\n") == ["r.yml:1: r.yml: the document is not a mapping such as title, logsource, detection"]


def test_files_are_read_from_folders_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(GOOD)
    (tmp_path / "a.yml").write_text(GOOD.replace("6ad5", "5ad5"))
    (tmp_path / "note.txt").write_text("no rule")

    assert [rule.id[:4] for rule in rules.load([tmp_path]).rules] == ["5ad5", "6ad5"]


def test_of_two_rules_with_one_id_the_first_counts(tmp_path: Path) -> None:
    for name in ("a.yml", "b.yml"):
        (tmp_path / name).write_text(GOOD)
    loaded = rules.load([tmp_path])

    assert [Path(rule.path).name for rule in loaded.rules] == ["a.yml"]
    assert [refusal.reason for refusal in loaded.refusals] == [f"id {loaded.rules[0].id} is that of {tmp_path}/a.yml:1"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff", "byte 0 is not valid UTF-8"), (b"#" * (rules.MAX_FILE_BYTES + 1), "the file is longer than 1048576 bytes")],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.yml").write_bytes(content)

    assert [refusal.reason for refusal in rules.load([tmp_path / "a.yml"]).refusals] == [reason]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    (refusal,) = rules.load([tmp_path / "none.yml"]).refusals

    assert refusal.reason == "cannot be read: No such file or directory"
