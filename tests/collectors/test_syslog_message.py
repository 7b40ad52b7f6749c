"""The fields of one message, and which files begin as syslog does. All the rest is shown by tests/collectors/test_syslog.py."""

from __future__ import annotations

import pytest

from collectors.syslog_message import Fields, read_message, recognise


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("<34>Oct 11 22:14:15 vm su[7]: m", ("34", "Oct 11 22:14:15", "vm", "su", "7", None, None, "m")),
        ("Oct 11 22:14:15 vm su: m", (None, "Oct 11 22:14:15", "vm", "su", None, None, None, "m")),
        ("<34>su: m", ("34", None, None, "su", None, None, None, "m")),
        ("<34>1 - vm su 7 ID - m", ("34", "-", "vm", "su", "7", "ID", "-", "m")),
        ('<34>1 - vm su 7 ID [a b="c"] m', ("34", "-", "vm", "su", "7", "ID", '[a b="c"]', "m")),
        ("plain text", None),
        ("<34>2 - vm su 7 ID - m", None),
    ],
)
def test_a_message_is_read_in_any_of_its_forms(text: str, fields: Fields | None) -> None:
    assert read_message(text) == fields


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"<34>1 2026-11-25T08:35:42Z h a - - -\n", True),
        (b"57 <34>1 2026-11-25T08:35:42Z h a - - -", True),
        (b"Nov 25 08:35:42 vm sshd[1]: m\n", True),
        (b"2026-11-25T08:35:42.1+00:00 vm sshd[1]: m\n", True),
        (b"<html>\n", False),
        (b'{"timestamp":"2026-11-25T08:35:42"}\n', False),
        (b"\xd4\xc3\xb2\xa1", False),
        (b"", False),
    ],
)
def test_syslog_is_recognised_by_its_first_line(first: bytes, expected: bool) -> None:
    assert recognise(first) is expected
