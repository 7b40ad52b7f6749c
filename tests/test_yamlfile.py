"""YAML with lines: each fault with its exact place, whatever the file holds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from ringfence import yamlfile
from ringfence.errors import ConfigError
from ringfence.yamlfile import MAX_BYTES, ConfigPath


def read(folder: Path, text: str | bytes) -> yamlfile.Document:
    path = folder / "x.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return yamlfile.read(path)


def faults(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


NESTED = "a" + "[0]" * 64
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [" + ",".join([f"*{before}"] * 9) + "]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)
UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "x.yml: the file is empty"),
    "only a comment": ("# nothing\n", "x.yml: the file is empty"),
    "a list": ("\n- a\n", "x.yml:2: the file must be a mapping of names to values"),
    "not UTF-8": (b"a: 1\nb: \xe9\n", "x.yml:2: byte 8 is not valid UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16-le") + b"\xff", "x.yml:2: byte 10 is not valid UTF-8"),
    "a control character": ("a: 1\nb: x\x07y\n", "x.yml:2: not valid YAML: unacceptable character #x0007: control characters are not allowed"),
    "a tab": ("a:\n\t- b\n", "x.yml:2: not valid YAML: found character that cannot start any token"),
    "two documents": ("a: 1\n---\nb: 2\n", "x.yml:2: not valid YAML: but found another document"),
    "an alias of nothing": ("a: *b\n", "x.yml:1: not valid YAML: found undefined alias"),
    "an unclosed list": ("a: [1,\nb: 2\n", "x.yml:3: not valid YAML: did not find expected ',' or ']'"),
    "a duplicate key": ("a: 1\nb: {c: 1,\n  c: 2}\n", "x.yml:3: b.c: stands twice, first at line 2"),
    "a mapping as a name": ("? {a: 1}\n: 2\n", "x.yml:1: a name must be plain text"),
    "a tag of Python": ("a: 1\nb: !!python/object:os.system x\n", "x.yml:2: b: cannot be read as a value: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object:os.system'"),
    "an unknown tag": ("a: [!secret x]\n", "x.yml:1: a[0]: cannot be read as a value: could not determine a constructor for the tag '!secret'"),
    "an alias of itself": ("a: &a [*a]\n", f"x.yml:1: {NESTED}: more than 1000000 values or 64 levels"),
    "too many levels": ("a: " + "[" * 80 + "]" * 80, f"x.yml:1: {NESTED}: more than 1000000 values or 64 levels"),
    "far too many levels": ("a: " + "[" * 100_000, "x.yml:1: not valid YAML: exceeded maximum nesting depth"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_file_that_cannot_be_read_says_where_and_why(case: str, tmp_path: Path) -> None:
    text, sentence = UNREADABLE[case]

    assert faults(tmp_path, text) == sentence


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    assert faults(tmp_path, BOMB).endswith("more than 1000000 values or 64 levels")


@pytest.mark.parametrize(
    "value", ["!!int ''", "!!float ''", "!!int x", "!!bool perhaps", "!!timestamp soon", "!!binary é", "!!int 0b", "2026-99-99"]
)
def test_a_value_that_does_not_fit_its_tag_is_a_fault(value: str, tmp_path: Path) -> None:
    assert faults(tmp_path, f"a: 1\nb: {value}\n").startswith("x.yml:2: b: cannot be read as a value: ")


def test_all_duplicates_are_named_at_once(tmp_path: Path) -> None:
    text = "a: 1\na: 2\na: 3\n"

    assert faults(tmp_path, text).splitlines() == [
        "x.yml:2: a: stands twice, first at line 1",
        "x.yml:3: a: stands twice, first at line 1",
    ]


def test_an_absent_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read: No such file or directory$"):
        yamlfile.read(tmp_path / "none.yml")


def test_a_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r": cannot be read: Is a directory$"):
        yamlfile.read(tmp_path)


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    assert faults(tmp_path, b"#" * (MAX_BYTES + 1)) == f"x.yml: is {MAX_BYTES + 1} bytes long; at most {MAX_BYTES} are accepted"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_an_alias_means_its_value(tmp_path: Path) -> None:
    assert read(tmp_path, "a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}


def test_names_are_text_even_when_they_look_like_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, "10: a\non: b\n").data == {"10": "a", "on": "b"}


def test_each_path_knows_its_line(tmp_path: Path) -> None:
    document = read(tmp_path, "a:\n  b:\n    - 1\n    - c: 2\n")

    assert [document.line(loc) for loc in ((), ("a",), ("a", "b", 1), ("a", "b", 1, "c"))] == [1, 1, 4, 4]


def test_a_path_that_is_not_there_has_the_line_of_its_parent(tmp_path: Path) -> None:
    assert read(tmp_path, "a: 1\nb:\n  c: 1\n").line(("b", "d", 5)) == 2


def test_a_path_is_written_with_dots_and_brackets() -> None:
    assert yamlfile.dotted(("intents", 2, "from", 0)) == "intents[2].from[0]"


@given(st.text(max_size=40) | st.text("a:-[]{}&*!#|>\"'\n ,?1", max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    with suppress(ConfigError):
        assert isinstance(read(tmp_path, text).data, dict)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    flush_secs: float = 1.0
    mode: Literal["propose", "act"] = "propose"
    size: int = Field(default=1, ge=1)
    folder: ConfigPath = Path("here")
    start: str = Field(default="", alias="from")


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: dict[str, Part]
    more: list[Part] | None = None


def validated(folder: Path, text: str) -> Whole:
    document = read(folder, text)
    return yamlfile.validate(Whole, document, document.data)


WRONG: dict[str, tuple[str, str]] = {
    "a close name": ("parts:\n  a:\n    flush_sec: 1\n", "x.yml:3: parts.a.flush_sec: unknown option; did you mean flush_secs?"),
    "a strange name": ("parts:\n  a:\n    zzz: 1\n", "x.yml:3: parts.a.zzz: unknown option; accepted: flush_secs, folder, from, mode, size"),
    "a name in a list": ("parts: {}\nmore:\n  - {}\n  - mod: act\n", "x.yml:4: more[1].mod: unknown option; did you mean mode?"),
    "an alias by its field": ("parts: {a: {start: x}}\n", "x.yml:1: parts.a.start: unknown option; accepted: flush_secs, folder, from, mode, size"),
    "what is missing": ("more: []\n", "x.yml:1: parts: is required"),
    "a wrong choice": ("parts:\n  a: {mode: acts}\n", "x.yml:2: parts.a.mode: Input should be 'propose' or 'act'; found 'acts'"),
    "a number out of range": ("parts:\n  a:\n    size: 0\n", "x.yml:3: parts.a.size: Input should be greater than or equal to 1; found 0"),
    "YAML's yes": ("parts:\n  a: {from: yes}\n", "x.yml:2: parts.a.from: Input should be a valid string; found True"),
    "a list for a mapping": ("parts: []\n", "x.yml:1: parts: Input should be a valid dictionary"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_the_model_refuses_says_where_and_what(case: str, tmp_path: Path) -> None:
    text, sentence = WRONG[case]

    with pytest.raises(ConfigError) as caught:
        validated(tmp_path, text)

    assert str(caught.value).replace(f"{tmp_path}/", "") == sentence


def test_all_faults_are_reported_in_file_order(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(tmp_path, "parts:\n  a:\n    size: 0\n    mode: x\n  b: {nope: 1}\n")

    assert [fault.line for fault in caught.value.faults] == [3, 4, 5]


def test_a_relative_path_is_relative_to_the_file(tmp_path: Path) -> None:
    assert validated(tmp_path, "parts: {a: {folder: out}}\n").parts["a"].folder == tmp_path / "out"


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    assert validated(tmp_path, "parts: {a: {folder: /var/x}}\n").parts["a"].folder == Path("/var/x")


def test_a_part_that_stands_elsewhere_keeps_its_place(tmp_path: Path) -> None:
    document = read(tmp_path, "sinks:\n  es:\n    flush_sec: 1\n")

    with pytest.raises(ConfigError, match=r"x\.yml:3: sinks\.es\.flush_sec: unknown option; did you mean flush_secs\?$"):
        yamlfile.validate(Part, document, document.data["sinks"]["es"], ("sinks", "es"))
