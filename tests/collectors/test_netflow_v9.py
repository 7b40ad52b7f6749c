"""Headers and files of version 9, and softflowd as a real exporter; sets and templates are in test_flowsets.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors import netflow_v9
from ringfence.batch import EventClass, ProblemCode, Source, frames_of
from tests.collectors import softflowd
from tests.collectors.encode_flowsets import V9, a_set, flow

EXPORTER = Source("192.0.2.1", 0xBEEF)


def test_a_short_header_and_another_version_are_problems() -> None:
    good = V9.message(V9.template(256), a_set(256, flow()))

    decoded = netflow_v9.decoder().feed(frames_of([good[:9], b"\0\5" + good[2:], good], EXPORTER))

    assert [problem.code for problem in decoded.problems] == [ProblemCode.TRUNCATED, ProblemCode.UNKNOWN_VERSION]
    assert decoded.taken == 1


def test_a_file_is_recognised() -> None:
    assert netflow_v9.recognise(V9.message(V9.template(256)))
    assert netflow_v9.recognise(V9.message(a_set(256, flow())))
    assert not netflow_v9.recognise(V9.message(b"\0\x07\0\x08abcd"))
    assert not netflow_v9.recognise(b"")


@pytest.mark.net
def test_softflowd_is_understood(tmp_path: Path) -> None:
    decoded = netflow_v9.decoder().feed(frames_of(softflowd.export(9, tmp_path), EXPORTER))

    assert (list(decoded.problems), decoded.held) == ([], 0)
    softflowd.check(decoded.rows[EventClass.FLOW].to_dicts())
