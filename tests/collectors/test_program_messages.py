"""Messages of many programs become rows of the class that their text has; the others stay as they are."""

from __future__ import annotations

import polars as pl

from collectors.program_messages import tables
from ringfence.addresses import AddressCache
from ringfence.batch import EventClass

LINES = [
    ("sshd-session", "Invalid user x from 192.0.2.7 port 44"),
    ("named", "client @0x1 192.0.2.1#5 (a.example): query: a.example IN A + (10.0.0.1)"),
    ("dhcpd", "DHCPACK on 192.0.2.20 to 52:54:00:12:34:56 via eth0"),
    ("bgpd", "%ADJCHANGE: neighbor 192.0.2.1 Up"),
    ("cron", "(root) CMD (true)"),
    (None, "Invalid user x from 192.0.2.7 port 44"),
    ("cron", "pam_unix(cron:session): session closed for user root"),
    ("named", "running"),
]


def made(lines: list[tuple[str | None, str]]) -> dict[EventClass, pl.DataFrame]:
    messages = [message for _, message in lines]
    columns = {
        "message": pl.Series(messages, dtype=pl.String),
        "ringfence.event.position": pl.Series(range(len(lines)), dtype=pl.UInt64),
    }
    return tables([program for program, _ in lines], messages, columns, "journal", AddressCache())


def test_every_row_is_in_the_class_that_its_text_has() -> None:
    found = {name: frame["message"].to_list() for name, frame in made(LINES).items()}

    assert found == {
        EventClass.AUTH: [LINES[0][1], LINES[6][1]],
        EventClass.DNS: [LINES[1][1]],
        EventClass.GENERIC: [LINES[row][1] for row in (2, 3, 4, 5, 7)],
    }


def test_generic_rows_have_the_kind_of_their_carrier_and_what_their_text_says() -> None:
    frame = made(LINES)[EventClass.GENERIC]

    assert frame["ringfence.generic.type"].to_list() == ["journal"] * 5
    assert frame["event.action"].to_list() == ["dhcp-ack", "bgp-state", None, None, None]
    assert frame["source.mac"].to_list() == ["52-54-00-12-34-56", None, None, None, None]


def test_a_block_of_one_class_is_one_frame() -> None:
    assert list(made(LINES[:1])) == [EventClass.AUTH]
    assert list(made(LINES[4:6])) == [EventClass.GENERIC]
