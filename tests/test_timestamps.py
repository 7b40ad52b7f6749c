"""ISO 8601 text to microseconds: the fast path and the slow one agree."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import timestamps

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=ZONES)  # noqa: DTZ001 - hypothesis adds the zone
GOOD = "2026-11-25T07:44:23.123456+0000"
BAD = [
    "", "x", "2026-02-29T00:00:00.000000+0000", "2026-13-01T00:00:00.000000+0000", "2026-00-01T00:00:00.000000+0000",
    "2026-01-00T00:00:00.000000+0000", "2026-01-01T00:60:00.000000+0000", "2026-01-01T00:00:60.000000+0000",
    "0000-01-01T00:00:00.000000+0000", "2026-01-01T00:00:00.000000+2400", "2026-01-01T00:00:00.000000*0000",
    "2026-01-01T00:00:00.00000/+0000", "\uff12026-01-01T00:00:00.000000+00", "2026-01-01T25:00:00.000000+0000",
]  # fmt: skip


def micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def written(moment: datetime) -> str:
    return f"{moment.year:04d}" + moment.strftime("-%m-%dT%H:%M:%S.%f%z")


@given(st.lists(MOMENTS, min_size=1, max_size=5))
def test_the_form_of_machines_is_read_exactly(moments: list[datetime]) -> None:
    values, invalid = timestamps.parse([written(moment) for moment in moments])

    assert (values.tolist(), invalid.tolist()) == ([micros(moment) for moment in moments], [])


@given(st.lists(MOMENTS, max_size=3), st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]))
def test_other_iso_forms_are_read_exactly(moments: list[datetime], precision: str) -> None:
    texts = [moment.isoformat(timespec=precision) for moment in moments]

    assert timestamps.parse(texts)[0].tolist() == [micros(datetime.fromisoformat(text)) for text in texts]


@pytest.mark.parametrize(
    "text", ["2026-11-25T07:44:23.123456Z", "2026-11-25 07:44:23.123456", "2026-11-25T08:44:23.123456+01:00", GOOD]
)
def test_zulu_naive_and_offset_forms_are_the_same_moment(text: str) -> None:
    assert timestamps.parse([text])[0].tolist() == [micros(datetime(2026, 11, 25, 7, 44, 23, 123_456, UTC))]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_timestamp_is_named(text: str) -> None:
    values, invalid = timestamps.parse([GOOD, text, GOOD])

    assert (values.tolist()[1], invalid.tolist()) == (0, [1])


@pytest.mark.parametrize("text", BAD)
def test_a_bad_neighbour_changes_no_good_one(text: str) -> None:
    assert timestamps.parse([GOOD, text])[0][0] == timestamps.parse([GOOD])[0][0]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_one_alone_is_as_bad(text: str) -> None:
    assert timestamps.parse([text])[1].tolist() == [0]


def test_texts_that_only_together_have_the_right_length_are_refused() -> None:
    assert timestamps.parse([GOOD[:-1], "0" + GOOD])[1].tolist() == [0, 1]


def test_an_absent_text_is_named() -> None:
    assert timestamps.parse([None, GOOD])[1].tolist() == [0]


def test_nothing_gives_nothing() -> None:
    values, invalid = timestamps.parse([])

    assert (values.tolist(), invalid.tolist()) == ([], [])


ALMOST = st.lists(st.sampled_from("0123459-T:.+Zx "), min_size=31, max_size=31).map("".join)
EDITED = st.tuples(st.integers(0, 30), st.sampled_from("0129-+:T. Zx\u0663")).map(
    lambda edit: GOOD[: edit[0]] + edit[1] + GOOD[edit[0] + 1 :]
)


@given(st.lists(st.one_of(st.none(), st.text(max_size=8), ALMOST, EDITED, MOMENTS.map(written)), max_size=5))
def test_a_text_means_the_same_among_any_others(texts: list[str | None]) -> None:
    values, invalid = timestamps.parse(texts)
    alone = [timestamps.parse([text]) for text in texts]

    assert values.tolist() == [int(value[0]) for value, _ in alone]
    assert invalid.tolist() == [row for row, (_, bad) in enumerate(alone) if len(bad)]
