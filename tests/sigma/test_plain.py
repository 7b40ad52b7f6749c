"""JSON events whose fields are named as rules name them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ringfence.sigma import rules
from ringfence.sigma.plain import Events, Reader
from ringfence.sigma.table import WHOLE


def read(detection: str, *lines: bytes) -> Events:
    loaded = rules.loads(f"title: t\nlogsource: {{product: x}}\ndetection: {{a: {detection}, condition: a}}\n")
    return Reader(loaded.rules).read(lines)


def texts(events: Events, name: str) -> list[Any] | None:
    column = events.table.text(name)
    return None if column is None else column.to_list()


def test_only_the_fields_of_rules_are_read() -> None:
    events = read("{Image: x}", b'{"Image":"a","Other":{"deep":[1]}}', b'{"Other":1}')

    assert texts(events, "Image") == ["a", None]
    assert texts(events, "Other") is None


def test_numbers_and_booleans_are_text_and_objects_are_no_value() -> None:
    values = (b"1", b"1.5", b"true", b"null", b'"x"', b'{"a":1}', b'["a",2,[3]]')
    events = read("{A: x}", *(b'{"A":%b}' % value for value in values))

    assert texts(events, "A") == [["1"], ["1.5"], ["true"], None, ["x"], [None], ["a", "2", None]]


def test_a_field_with_dots_is_a_key_or_a_path() -> None:
    events = read("{a.b: x}", b'{"a.b":"key"}', b'{"a":{"b":"path"}}', b'{"a":"text"}', b'{"a":{"b":{"c":1}}}', b"{}")

    assert texts(events, "a.b") == ["key", "path", None, None, None]


def test_a_bad_line_is_named_and_the_others_are_read() -> None:
    events = read("{A: x}", b'{"A":"1"}', b'{"A":', b"\n", b"[1]", b'{"A":"2"}')

    assert texts(events, "A") == ["1", "2"]
    assert list(events.rows) == [0, 4]
    assert [(refused.row, refused.offset) for refused in events.refused] == [(1, 5), (3, 0)]


def test_keywords_see_text_without_its_escapes() -> None:
    events = read("[x]", b'{"a":"C:\\\\x","b":["\\u00e9",1]}', b'{"a":"plain"}')

    assert texts(events, WHOLE) == ["C:\\x\n\u00e9\n1", '{"a":"plain"}']


def test_no_good_line_gives_an_empty_table() -> None:
    events = read("{A: x}", b"x")

    assert events.table.height == 0
    assert [refused.row for refused in events.refused] == [0]


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_are_events_or_refused_or_blank(lines: list[bytes]) -> None:
    events = read("{A: x}", *lines)

    blank = sum(not line.strip() for line in lines)
    assert len(events.rows) + len(events.refused) + blank == len(lines)
