"""Dead letters: everything about a rejected frame survives the bus, whatever bytes it holds."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import deadletter, documents
from ringfence.batch import EventClass, Problem, ProblemCode, Record, Source
from ringfence.deadletter import MAX_DETAIL_CHARS, MAX_PAYLOAD_BYTES, DeadLetter

SOURCE = Source("/var/log/eve.json", 0xFEED)
PROBLEM = Problem(ProblemCode.WRONG_TYPE, "Expected int", 3, 14, "$.src_port", b'{"src_port":"x"}', SOURCE, 700)


def letter(problem: Problem = PROBLEM) -> DeadLetter:
    return deadletter.from_problem(problem, "collect", "edge", 9)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LETTERS = st.builds(
    DeadLetter,
    stage=TEXT,
    component=TEXT,
    reason=TEXT,
    detail=TEXT,
    payload=st.binary(max_size=40),
    length=st.integers(0, 2**40),
    input=TEXT,
    identity=st.integers(0, 2**64 - 1),
    position=st.integers(0, 2**64 - 1),
    row=st.integers(-1, 2**31),
    offset=st.integers(-1, 2**31),
    path=TEXT,
    failed_us=st.integers(0, 253_402_300_799_999_999),
    attempts=st.integers(1, 1000),
    headers=st.none() | st.dictionaries(TEXT, st.binary(max_size=9), min_size=1, max_size=3),
)


@given(LETTERS)
def test_a_letter_is_read_back_as_it_was(written: DeadLetter) -> None:
    assert deadletter.decode(deadletter.encode(written)) == written


def test_a_problem_is_kept_whole() -> None:
    made = letter()

    assert (made.stage, made.component, made.reason, made.detail, made.path) == (
        "collect",
        "edge",
        "wrong_type",
        "Expected int",
        "$.src_port",
    )
    assert (made.payload, made.length, made.input, made.identity, made.position, made.row, made.offset) == (
        PROBLEM.raw,
        16,
        SOURCE.name,
        0xFEED,
        700,
        3,
        14,
    )


def test_a_letter_is_named_by_stream_and_position() -> None:
    assert letter().id == "000000000000feed00000000000002bc"


def test_what_is_not_known_is_said_to_be_so() -> None:
    made = letter(Problem(ProblemCode.CRASHED, "x", raw=b"y"))

    assert (made.row, made.offset, made.path, made.input) == (-1, -1, "", "")


def test_without_a_source_equal_frames_have_one_name() -> None:
    one, two, other = (letter(Problem(ProblemCode.CRASHED, "x", raw=raw)).id for raw in (b"same", b"same", b"other"))

    assert (one == two, one == other) == (True, False)


def test_a_long_frame_is_cut_but_its_length_kept() -> None:
    made = letter(replace(PROBLEM, raw=bytes(MAX_PAYLOAD_BYTES + 5)))

    assert (len(made.payload), made.length) == (MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 5)


def test_a_long_reason_is_cut() -> None:
    assert len(letter(replace(PROBLEM, detail="x" * 10_000)).detail) == MAX_DETAIL_CHARS


@pytest.mark.parametrize("text", ["\ud800", "eve-\udcff.json"], ids=["surrogate", "file-name-of-bytes"])
def test_text_that_is_no_utf8_is_escaped(text: str) -> None:
    written = letter(replace(PROBLEM, detail=text, path=text, source=replace(SOURCE, name=text)))

    read = deadletter.decode(deadletter.encode(written))

    assert {read.detail, read.path, read.input} == {text.encode(errors="backslashreplace").decode()}


def test_an_unreadable_block_keeps_its_headers() -> None:
    record = Record(b"k", {"ringfence-class": b"flow", "x": b"\xff"}, b"value")

    read = deadletter.decode(
        deadletter.encode(
            deadletter.from_block(record, "checksum mismatch", "process", "codec", "ringfence.events.v1/0", 17, 9)
        )
    )

    assert (read.headers, read.payload, read.input, read.position) == (
        {"ringfence-class": b"flow", "x": b"\xff"},
        b"value",
        "ringfence.events.v1/0",
        17,
    )


def test_one_more_attempt_keeps_the_first_cause() -> None:
    assert deadletter.tried_again(letter()) == replace(letter(), attempts=2)


def test_the_usual_headers_of_kafka_connect_are_there() -> None:
    headers = deadletter.encode(letter()).headers

    assert (headers["__connect.errors.connector.name"], headers["__connect.errors.exception.message"]) == (
        b"edge",
        b"Expected int",
    )


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in deadletter.encode(letter()).headers
        if name not in ("content-type", "ringfence-schema", "ringfence-dlq-version")
    ],
)
def test_a_record_without_a_needed_header_is_no_letter(name: str) -> None:
    record = deadletter.encode(letter())
    headers = {key: value for key, value in record.headers.items() if key != name}

    with pytest.raises(ValueError, match=f"it lacks the header {name}$"):
        deadletter.decode(replace(record, headers=headers))


@given(st.dictionaries(st.sampled_from(sorted(deadletter.encode(letter()).headers)), st.binary(max_size=8), min_size=1))
def test_any_headers_are_read_or_refused(changes: dict[str, bytes]) -> None:
    record = deadletter.encode(letter())
    with suppress(ValueError):
        deadletter.decode(replace(record, headers={**record.headers, **changes}))


def test_letters_become_rows_for_sinks() -> None:
    batch = deadletter.to_batch([letter(), letter(Problem(ProblemCode.CRASHED, "x", raw=b"y"))])

    assert (batch.header.event_class, batch.header.rows, batch.frame["ringfence.dead.row"].to_list()) == (
        EventClass.DEAD,
        2,
        [3, None],
    )


HOSTILE = b'\x1b]0;owned\x07\r\n\x00"\\\xff\xed\xa0\x80'


def test_a_hostile_payload_is_one_line_of_json() -> None:
    batch = deadletter.to_batch([letter(replace(PROBLEM, raw=HOSTILE, detail="\x1b[31m\n", path="$.\u202e"))])

    (line,) = b"".join(documents.render(batch)).splitlines()

    assert json.loads(line)["ringfence"]["dead"]["payload"] == HOSTILE.decode(errors="backslashreplace")
