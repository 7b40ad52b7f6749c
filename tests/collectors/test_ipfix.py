"""Headers and files of version 10, and softflowd as a real exporter; sets and templates are in test_flowsets.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors import ipfix
from ringfence.batch import EventClass, ProblemCode, Source, frames_of
from tests.collectors import softflowd
from tests.collectors.encode_flowsets import Ipfix, a_set, flow

EXPORTER = Source("192.0.2.1", 0xBEEF)


def test_a_short_header_and_another_version_are_problems() -> None:
    good = Ipfix.message(Ipfix.template(256), a_set(256, flow()))

    decoded = ipfix.decoder().feed(frames_of([good[:9], b"\0\5" + good[2:], good], EXPORTER))

    assert [problem.code for problem in decoded.problems] == [ProblemCode.TRUNCATED, ProblemCode.UNKNOWN_VERSION]
    assert decoded.taken == 1


def test_a_file_is_recognised() -> None:
    assert ipfix.recognise(Ipfix.message(Ipfix.template(256)))
    assert ipfix.recognise(Ipfix.message(a_set(256, flow())))
    assert not ipfix.recognise(Ipfix.message(b"\0\x07\0\x08abcd"))
    assert not ipfix.recognise(b"")


@pytest.mark.net
def test_softflowd_is_understood(tmp_path: Path) -> None:
    decoded = ipfix.decoder().feed(frames_of(softflowd.export(10, tmp_path), EXPORTER))

    assert (list(decoded.problems), decoded.held) == ([], 0)
    softflowd.check(decoded.rows[EventClass.FLOW].to_dicts())
