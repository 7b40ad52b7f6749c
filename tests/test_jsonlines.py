"""Lines of JSON: one bad line touches no other, and the exact byte and path of what was refused is named."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import jsonlines
from ringfence.batch import ProblemCode
from ringfence.projection import struct_for

PATHS: list[tuple[str, Any]] = [("src_port", int), ("vlan", list[int]), ("flow.start", str), ("note", str)]
FLOW = struct_for("flow", PATHS, "event_type", "flow")
DNS = struct_for("dns", [("src_port", int)], "event_type", "dns")
DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(FLOW | DNS)
START = b'{"event_type":"flow",'
GOOD = START + b'"src_port":5}'

MALFORMED, WRONG_TYPE = ProblemCode.MALFORMED, ProblemCode.WRONG_TYPE
DEEP = START + b'"skipped":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
REFUSED: dict[str, tuple[bytes, ProblemCode, str, int, str | None]] = {
    "unknown tag": (b'{"event_type":"gossip"}', WRONG_TYPE, "Invalid value 'gossip'", 14, "$.event_type"),
    "no tag": (b'{"src_port":5}', WRONG_TYPE, "Object missing required field `event_type`", 0, "$"),
    "not an object": (b"5", WRONG_TYPE, "Expected `object`, got `int`", 0, "$"),
    "text for a number": (START + b'"src_port": "x"}', WRONG_TYPE, "Expected `int | null`, got `str`", 33, "$.src_port"),
    "1.0 for an integer": (START + b'"src_port":1.0}', WRONG_TYPE, "Expected `int | null`, got `float`", 32, "$.src_port"),
    "inside a list": (START + b'"vlan":[1, "a"]}', WRONG_TYPE, "Expected `int`, got `str`", 32, "$.vlan[1]"),
    "inside an object": (START + b'"flow": {"x": [{}], "start":5}}', WRONG_TYPE, "Expected `str | null`, got `int`", 49, "$.flow.start"),
    "list for an object": (START + b'"flow":[]}', WRONG_TYPE, "Expected `object | null`, got `array`", 28, "$.flow"),
    "wrong type, then garbage": (START + b'"src_port":"x", garb', WRONG_TYPE, "Expected `int | null`, got `str`", 32, "$.src_port"),
    "wrong type, then cut": (START + b'"src_port":"x"', WRONG_TYPE, "Expected `int | null`, got `str`", 32, "$.src_port"),
    "key beyond ascii before it": (START + b'"\xc3\xa9":1,"src_port":"x"}', WRONG_TYPE, "Expected `int | null`, got `str`", 39, "$.src_port"),
    "NaN": (START + b'"src_port":NaN}', MALFORMED, "JSON is malformed: invalid character", 32, None),
    "trailing": (GOOD + b" x", MALFORMED, "JSON is malformed: trailing characters", len(GOOD) + 1, None),
    "two objects": (GOOD + GOOD, MALFORMED, "JSON is malformed: trailing characters", len(GOOD), None),
    "control character": (START + b'"note":"a\x01b"}', MALFORMED, "JSON is malformed: invalid character", 30, None),
    "cut": (GOOD[:-1] + b"\n", MALFORMED, "the line ends inside a JSON value", len(GOOD) - 1, None),
    "cut after an escaped backslash": (START + b'"note":"\\\\ud800', MALFORMED, "the line ends inside a JSON value", 36, None),
    "empty": (b"", MALFORMED, "the line ends inside a JSON value", 0, None),
    "high surrogate": (START + b'"note":"\\ud800"}', MALFORMED, "half of a surrogate pair in a string", 29, None),
    "high surrogate after a pair": (START + b'"note":"\\ud83d\\ude00\\ud800"}', MALFORMED, "half of a surrogate pair in a string", 41, None),
    "high surrogate in a skipped field": (START + b'"skipped":"\\ud800"}', MALFORMED, "half of a surrogate pair in a string", 32, None),
    "invalid UTF-8 in a field": (START + b'"note":"\xff"}', MALFORMED, "byte 0xff is not valid UTF-8", 29, None),
    "deep nesting in a skipped field": (DEEP, MALFORMED, "objects nest too deeply", 0, None),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_line_says_what_and_where(case: str) -> None:
    line, *expected = REFUSED[case]

    assert list(jsonlines.explain(DECODER, line)) == expected


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_line_touches_no_neighbour(case: str) -> None:
    structs, refused = jsonlines.decode_lines(DECODER, [GOOD, REFUSED[case][0], GOOD])

    assert refused == [1]
    assert [struct is None for struct in structs] == [False, True, False]


def test_a_lone_low_surrogate_is_refused() -> None:
    assert jsonlines.explain(DECODER, START + b'"note":"\\udc00"}')[:2] == (
        MALFORMED,
        "JSON is malformed: invalid utf-16 surrogate pair",
    )


def test_invalid_utf8_in_a_skipped_field_is_seen_when_explained() -> None:
    line = START + b'"skipped":"\xff"}'

    assert jsonlines.explain(DECODER, line)[1:3] == ("byte 0xff is not valid UTF-8", 32)


def test_a_line_beyond_the_limit_is_too_large() -> None:
    line = START + b'"note":"' + b"a" * jsonlines.MAX_LINE_BYTES

    assert jsonlines.explain(DECODER, line)[0] is ProblemCode.TOO_LARGE


def test_an_integer_beyond_64_bits_is_left_to_the_decoder_above() -> None:
    structs, refused = jsonlines.decode_lines(DECODER, [START + b'"src_port":99999999999999999999}'])

    assert (structs[0].src_port, refused) == (99_999_999_999_999_999_999, [])


def test_of_duplicate_keys_the_last_wins() -> None:
    structs, _ = jsonlines.decode_lines(DECODER, [START + b'"src_port":1,"src_port":2}'])

    assert structs[0].src_port == 2


def test_of_duplicate_keys_the_last_is_located() -> None:
    assert jsonlines.locate(b'{"a":1, "a":2}', "$.a") == 12


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.booleans(), st.sampled_from([None, 1]))
def test_the_located_byte_is_where_the_value_begins(before: dict[str, Any], escaped: bool, indent: int | None) -> None:
    wanted = {"deep": [0, {"x": "the value"}]}
    line = json.dumps({**before, "found": wanted}, ensure_ascii=escaped, indent=indent).encode()

    assert line[jsonlines.locate(line, "$.found.deep[1].x") :].startswith(b'"the value"')


@given(st.binary(max_size=60), st.sampled_from(["$", "$.a", "$.a.b", "$[0]", "$.vlan[3]", "$[...]", ""]))
def test_any_place_can_be_asked_for_in_any_bytes(line: bytes, path: str) -> None:
    assert 0 <= jsonlines.locate(line, path) <= len(line)


@given(
    st.binary(max_size=80)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=20).map(lambda tail: START + tail)
)
def test_any_bytes_are_decoded_or_explained(line: bytes) -> None:
    _, refused = jsonlines.decode_lines(DECODER, [line])
    _, detail, offset, _ = jsonlines.explain(DECODER, line)

    assert not refused or (detail and 0 <= offset <= len(line))


def test_a_key_with_dots_is_found() -> None:
    assert jsonlines.locate(b'{"id":5,"id.orig_p":"x"}', "$.id.orig_p") == 20


def test_a_key_with_dots_inside_an_object_is_found() -> None:
    assert jsonlines.locate(b'{"id":{"ctx.vlan":[1, 2]}}', "$.id.ctx.vlan[1]") == 22
