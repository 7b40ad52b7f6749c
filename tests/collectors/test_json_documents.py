"""JSON documents: what a field of an unexpected type costs, and how rows of several kinds come together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collectors.json_documents import Gathered, first_set, read, reader_of, six_digits, texts_of, typed_columns, value_of
from collectors.lines import Continuations
from collectors.records import LineBlock
from ringfence.addresses import AddressCache
from ringfence.batch import EventClass, ProblemCode, Source, frames_of

READER = reader_of("sample", [("a.text", str), ("a.number", int), ("words", list[str]), ("raw", msgspec.Raw), ("@at", str)])


def found(line: bytes) -> Any:
    block = LineBlock(frames_of([line], Source("x", 1)), Continuations())
    (document,) = read(block, READER, 0, 1)
    return document, block


@pytest.mark.parametrize(
    ("line", "text", "number", "words"),
    [
        (b'{"a":{"text":"x","number":1},"words":["y"]}', "x", 1, ["y"]),
        (b'{"a":{"text":5,"number":"7"},"words":"y"}', "5", 7, None),
        (b'{"a":{"text":1.5,"number":[]},"words":[1]}', "1.5", None, None),
        (b'{"a":{"text":true,"number":1e400},"words":null}', None, None, None),
    ],
)
def test_a_field_that_does_not_fit_costs_itself(
    line: bytes, text: str | None, number: int | None, words: list[str] | None
) -> None:
    document, block = found(line)

    if b"1e400" in line:  # no number at all
        assert [problem.code for problem in block.problems] == [ProblemCode.WRONG_TYPE]
        return
    assert (document.a.text, document.a.number, document.words) == (text, number, words)


def test_an_object_where_a_value_is_expected_and_the_other_way_round_are_left_out() -> None:
    document, _ = found(b'{"a":"x","words":{"y":1},"raw":[1],"@at":"now"}')

    assert (document.a, document.words, bytes(document.raw), document._at_at) == (None, None, b"[1]", "now")


@pytest.mark.parametrize("line", [b"[]", b"5", b'"x"', b"{", b"nonsense"])
def test_what_is_no_document_is_a_problem(line: bytes) -> None:
    document, block = found(line)

    assert document is None
    assert len(block.problems) == 1


def test_rows_that_lack_a_column_have_null_in_it() -> None:
    gathered = Gathered()
    gathered.take({"a": [1, 2]}, [0, 1])
    gathered.take({"b": ["x"]}, [5])
    gathered.take({"a": [3]}, [7])

    assert (gathered.columns(), gathered.rows) == ({"a": [1, 2, None, 3], "b": [None, None, "x", None]}, [0, 1, 5, 7])


def test_values_that_have_no_place_in_their_column_are_left_out_and_so_are_columns_that_the_class_lacks() -> None:
    values: dict[str, list[Any]] = {
        "source.ip": ["10.0.0.1", "x", "::1"],
        "source.port": [1, 70_000, -1],
        "file.size": [1, 2, 3],
        "event.start": ["soon", None, None],
    }
    columns = typed_columns(EventClass.FLOW, values, AddressCache())

    assert columns.keys() == {"source.ip", "source.ip6", "source.port", "event.start"}
    assert columns["source.port"].to_list() == [1, None, None]
    assert columns["source.ip"].to_list() == [0x0A000001, None, None]
    assert columns["event.start"].to_list() == [None] * 3


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2026-11-25T07:44:23.123Z", "2026-11-25T07:44:23.123000+0000"),
        ("2026-11-25T07:44:23.1234567Z", "2026-11-25T07:44:23.123456+0000"),
        ("2026-11-25T07:44:23.123+0100", "2026-11-25T07:44:23.123000+0100"),
        ("2026-11-25T07:44:23Z", "2026-11-25T07:44:23Z"),
        ("", ""),
        (None, None),
    ],
)
def test_times_get_six_decimals(text: str | None, wanted: str | None) -> None:
    assert six_digits(text) == wanted


def test_the_first_value_that_is_there_counts() -> None:
    assert (list(first_set([1, None, None], [2, 3, None])), first_set(None, [1])) == ([1, 3, None], [1])


def test_texts_of_values_that_are_none_are_their_json() -> None:
    struct = reader_of("texts", [("a", str), ("b", str), ("c", str)]).struct

    assert msgspec.structs.astuple(texts_of(b'{"a":1,"b":[1],"c":null}', struct)) == ("1", "[1]", None)
    assert (value_of(b"1e999"), value_of(b'{"a":1}')) == (None, {"a": 1})
