"""What the decoders of single sign-on logs share: wrapping, times, what is left out and refused, and their settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from collectors.authelia import KIND, AutheliaDecoder
from collectors.authentik import AuthentikDecoder
from collectors.keycloak import KeycloakDecoder
from collectors.lines import LineFramer
from collectors.openotp import OpenOtpDecoder
from collectors.sign_ins import SignInDecoder, SignInSettings
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from ringfence.batch import Decoded, ProblemCode, Source, frames_of
from ringfence.component import BuildContext
from ringfence.topology import Topology

CASES = Path(__file__).parent / "cases"
DECODERS: dict[str, Callable[[], SignInDecoder]] = {
    "keycloak": KeycloakDecoder,
    "authentik": AuthentikDecoder,
    "authelia": AutheliaDecoder,
    "openotp": OpenOtpDecoder,
}
LINES = {name: (CASES / name / "sign_ins" / "input.log").read_bytes().splitlines(keepends=True) for name in DECODERS}
ARRIVAL = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()) * 1_000_000
LINE = {
    "level": "error",
    "msg": "Unsuccessful 1FA authentication attempt by user 'ann'",
    "remote_ip": "192.0.2.7",
    "time": "2026-11-25T08:35:42Z",
}


def decode(lines: Sequence[bytes], received_us: int = 0, decoder: SignInDecoder | None = None) -> Decoded:
    return (decoder or AutheliaDecoder()).feed(frames_of(lines, Source("sso.log", 7), received_us))


def rows(decoded: Decoded) -> list[dict[str, Any]]:
    found = [row for frame in decoded.rows.values() for row in frame.to_dicts()]
    return sorted(found, key=lambda row: int(row["ringfence.event.position"]))


def when(time: str | None, received_us: int = 0) -> int | None:
    (row,) = rows(decode([json.dumps(LINE | {"time": time}).encode()], received_us))
    micros: int = row["@timestamp"]
    return micros


@pytest.mark.parametrize(
    ("time", "micros"),
    [
        ("2026-11-25T08:35:42Z", 0),
        ("2026-11-25T08:35:42.5Z", 500_000),
        ("2026-11-25T08:35:42.123456789Z", 123_456),
        ("2026-11-25T09:35:42+01:00", 0),
        ("2026-11-25T03:35:42-05:00", 0),
        ("2026-11-25T08:35:42.123456", 123_456),
        ("2026-11-25 08:35:42,250", 250_000),
    ],
)
def test_times_of_any_form_are_exact(time: str, micros: int) -> None:
    whole = int(datetime(2026, 11, 25, 8, 35, 42, tzinfo=UTC).timestamp()) * 1_000_000

    assert when(time) == whole + micros


def test_a_record_without_a_time_has_that_of_its_arrival() -> None:
    assert when(None, ARRIVAL) == ARRIVAL


@pytest.mark.parametrize(
    ("time", "detail"),
    [(None, "there is no time and its arrival is not known"), ("2026-13-45T08:35:42Z", "the time is none of the calendar")],
)
def test_a_time_that_cannot_be_known_is_a_problem(time: str | None, detail: str) -> None:
    decoded = decode([json.dumps(LINE | {"time": time}).encode()])

    (problem,) = decoded.problems
    assert (problem.code, problem.detail, decoded.taken) == (ProblemCode.MALFORMED, detail, 0)


def test_a_line_that_docker_wrapped_is_the_line_in_it() -> None:
    inner = json.dumps(LINE)
    wrapped = json.dumps({"log": inner + "\n", "stream": "stdout", "time": "2026-11-25T08:35:43.5Z"}, separators=(",", ":"))

    (row,) = rows(decode([wrapped.encode()]))

    assert (row["user.name"], row["event.original"]) == ("ann", wrapped.encode())
    assert rows(decode([inner.encode()]))[0]["@timestamp"] == row["@timestamp"]


@pytest.mark.parametrize(
    ("line", "code", "detail", "offset", "path"),
    [
        (b'{"msg":', ProblemCode.MALFORMED, "the line ends inside a JSON value", 7, None),
        (b'{"msg":7}', ProblemCode.WRONG_TYPE, "Expected `str | null`, got `int`", 7, "$.msg"),
        (b'{"log":7}', ProblemCode.WRONG_TYPE, "Expected `str | null`, got `int`", 7, "$.log"),
        (b'{"log":"{\\"msg\\":7}"}', ProblemCode.WRONG_TYPE, "Expected `str | null`, got `int`", 0, "$.log.msg"),
        (b'{"msg":"\xff"}', ProblemCode.MALFORMED, "byte 0xff is not valid UTF-8", 8, None),
    ],
)
def test_what_is_no_record_is_a_problem_with_its_place(
    line: bytes, code: ProblemCode, detail: str, offset: int, path: str | None
) -> None:
    (problem,) = decode([line]).problems

    assert (problem.code, problem.detail, problem.offset, problem.path, problem.raw) == (code, detail, offset, path, line)


def test_lines_that_are_no_record_are_left_out_and_counted() -> None:
    decoded = decode([b"   at java.base/java.lang.Thread.run\n", b"\n", json.dumps(LINE).encode() + b"\n"])

    assert (decoded.taken, dict(decoded.filtered)) == (1, {"no_record": 1, "blank": 1})


def accounted(decoded: Decoded) -> int:
    return decoded.taken + len(decoded.problems) + sum(decoded.filtered.values()) + decoded.held


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_any_bytes_are_accounted_for(name: str, data: st.DataObject) -> None:
    pieces = st.one_of(
        st.binary(max_size=60), st.sampled_from(LINES[name]), st.sampled_from(LINES[name]).map(lambda line: line[:40])
    )
    lines = data.draw(st.lists(pieces, max_size=8))

    assert accounted(decode(lines, data.draw(st.sampled_from([0, ARRIVAL])), DECODERS[name]())) == len(lines)


@pytest.mark.parametrize("name", DECODERS)
@given(data=st.data())
def test_any_chunking_gives_the_same_rows(name: str, data: st.DataObject) -> None:
    stream = b"".join(LINES[name])
    cuts = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=5))})
    framer, decoder, found, at = LineFramer(), DECODERS[name](), [], 0
    for block, bounds in [*(framer.cut(stream[start:end]) for start, end in pairwise(cuts)), framer.finish()]:
        lines = [block[start:end] for start, end in pairwise(bounds)]
        places = [at + int(start) for start in bounds[:-1]]
        at += len(block)
        found += rows(decoder.feed(frames_of(lines, Source("sso.log", 7), 0, places)))

    whole = rows(decode(LINES[name], 0, DECODERS[name]()))
    names = ("@timestamp", "message", "event.original", "ringfence.event.position", "event.action", "user.name")
    assert [[row.get(column) for column in names] for row in found] == [[row.get(column) for column in names] for row in whole]


def test_a_path_or_a_port_chooses_the_shell_and_is_claimed() -> None:
    context = BuildContext("sso", Topology("", "deny", {}, {}, {}, ()))
    file = SignInSettings.model_validate({"path": "/var/log/sso.log"})
    port = SignInSettings.model_validate({"listen": "tcp://127.0.0.1:5170"})

    assert isinstance(KIND.build(file, context).shell, TailShell)
    assert isinstance(KIND.build(port, context).shell, TcpShell)
    assert (KIND.resources(file), KIND.resources(port)) == (("file /var/log/sso.log",), ("tcp 127.0.0.1:5170",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of listen and path is required"),
        ({"path": "/x", "listen": "tcp://h:1"}, "exactly one of listen and path is required"),
        ({"listen": "udp://h:1"}, "'udp://h:1' is not tcp://HOST:PORT"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SignInSettings(**options)
