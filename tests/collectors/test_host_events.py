"""What decoders of host sensors share: a bad value costs its field, a missing time the row."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collectors.host_events import HostEventDecoder, Kind, base_name, container_id
from ringfence.batch import EventClass, ProblemCode
from tests import frames
from tests.collectors.json_lines import decode, rows


class Record(msgspec.Struct):
    kind: str | None = None
    time: str | int | None = None
    ip: str | None = None
    port: int | None = None


KINDS = {"seen": Kind(EventClass.FLOW, ("source.ip", "source.port"), lambda record: (record.ip, record.port))}
TIME_US = 1_795_592_663_123_456


def decoder() -> HostEventDecoder:
    reader: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Record)
    return HostEventDecoder(
        reader, KINDS, lambda record: record.kind, lambda record: (record.time, None), "time", "host1", keep_original=False
    )


@pytest.mark.parametrize("time", [b'"2026-11-25T07:44:23.123456789Z"', b"%d" % TIME_US])
def test_a_time_is_text_or_microseconds(time: bytes) -> None:
    (row,) = rows(decode(decoder(), b'{"kind":"seen","time":%s,"ip":"10.1.0.5","port":80}' % time))

    assert (row["@timestamp"], row["source.ip"], row["source.port"]) == (TIME_US, frames.v4("10.1.0.5"), 80)
    assert row["observer.name"] == "host1"


@pytest.mark.parametrize("value", [b'"ip":"x"', b'"port":65536', b'"port":-1', b'"port":%d' % 2**70])
def test_a_value_that_has_no_place_costs_only_its_field(value: bytes) -> None:
    (row,) = rows(decode(decoder(), b'{"kind":"seen","time":1,%s}' % value))

    assert not row.keys() & {"source.ip", "source.port"}


@pytest.mark.parametrize("time", [b'"never"', b"null", b"-1"])
def test_without_a_time_there_is_no_row(time: bytes) -> None:
    decoded = decode(decoder(), b'{"kind":"seen","time":1}', b'{"kind":"seen","time":%s}' % time)

    assert [(problem.code, problem.row, problem.path) for problem in decoded.problems] == [
        (ProblemCode.WRONG_TYPE, 1, "$.time")
    ]
    assert decoded.problems[0].raw[decoded.problems[0].offset or 0 :].startswith(time)


def test_texts_and_numbers_may_stand_side_by_side() -> None:
    found = rows(decode(decoder(), b'{"kind":"seen","time":1}', b'{"kind":"seen","time":"2026-11-25T07:44:23.123456Z"}'))

    assert [row["@timestamp"] for row in found] == [1, TIME_US]


def test_an_unknown_kind_is_generic_and_keeps_its_line() -> None:
    (row,) = rows(decode(decoder(), b'{"kind":"new","time":1}'))

    assert (row["class"], row["ringfence.generic.type"], row["event.original"]) == (
        "generic",
        "new",
        b'{"kind":"new","time":1}',
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"docker-{'ab' * 32}.scope", "ab" * 32),
        (f"cri-containerd-{'0f' * 32}.scope", "0f" * 32),
        (f"containerd://{'0f' * 32}", "0f" * 32),
        ("ab" * 32, "ab" * 32),
        ("user@1000.service", None),
        ("session-3.scope", None),
        ("host", None),
        ("", None),
        (None, None),
    ],
)
def test_a_container_id_is_found_in_what_runtimes_write(text: str | None, found: str | None) -> None:
    assert container_id(text) == found


@pytest.mark.parametrize(("path", "name"), [("/bin/ls", "ls"), ("ls", "ls"), ("/", None), ("", None), (None, None)])
def test_a_base_name_is_the_last_part_of_a_path(path: str | None, name: str | None) -> None:
    assert base_name(path) == name
