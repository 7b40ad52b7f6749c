"""OpenOTP: the lines of a session together say who logged in, with what, and how it ended."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from collectors import openotp
from collectors.openotp import OpenOtpDecoder, recognise
from ringfence.addresses import parse
from ringfence.batch import EventClass, Source, frames_of


def session(name: str, *messages: str, peer: str = "192.0.2.9:34798") -> list[bytes]:
    return [f"[2026-11-25 08:35:42] [{peer}] [OpenOTP:{name}] {message}\n".encode() for message in messages]


def auth(lines: list[bytes], decoder: OpenOtpDecoder | None = None) -> list[dict[str, Any]]:
    decoded = (decoder or OpenOtpDecoder()).feed(frames_of(lines, Source("webadm.log", 7)))
    assert not decoded.problems
    frame = decoded.rows.get(EventClass.AUTH)
    return [] if frame is None else frame.to_dicts()


START = (
    "New openotpSimpleLogin SOAP request",
    "> Username: ann",
    "> Password: xxxxxxxx",
    "> Client ID: vpn",
    "> Source IP: 203.0.113.7",
)


def test_a_login_that_is_refused_says_who_and_why() -> None:
    (row,) = auth(session("A1", *START, "User invalid or not found", "Sent failure response"))

    assert (row["event.action"], row["event.outcome"], row["user.name"]) == ("login", "failure", "ann")
    assert (row["event.reason"], row["ringfence.auth.application"]) == ("User invalid or not found", "vpn")
    assert row["source.ip"] == parse("203.0.113.7")


def test_each_factor_is_a_row_and_the_response_has_them_all() -> None:
    found = auth(session("A1", *START, "LDAP password Ok", "PUSH response Ok (token #1)", "Sent login success response"))

    assert [(row["event.action"], row["event.outcome"], row["ringfence.auth.method"]) for row in found] == [
        ("first-factor", "success", "ldap"),
        ("mfa", "success", "push"),
        ("login", "success", "ldap+push"),
    ]


def test_a_wrong_code_is_a_failed_second_factor() -> None:
    found = auth(session("A1", *START, "LDAP password Ok", "Wrong OTP password (token #1)", "Sent failure response"))

    assert [(row["event.action"], row["event.outcome"]) for row in found[1:]] == [("mfa", "failure"), ("login", "failure")]
    assert found[-1]["event.reason"] == "Wrong OTP password (token #1)"


def test_sessions_that_overlap_do_not_mix_and_go_on_in_the_next_block() -> None:
    one = session("A1", "> Username: ann", "Sent success response")
    two = session("B2", "> Username: bob", "Sent failure response", peer="192.0.2.8:1")
    decoder = OpenOtpDecoder()

    found = [*auth([one[0], two[0]], decoder), *auth([two[1], one[1]], decoder)]

    assert [(row["user.name"], row["event.outcome"], row["source.ip"]) for row in found] == [
        ("bob", "failure", parse("192.0.2.8")),
        ("ann", "success", parse("192.0.2.9")),
    ]


def test_the_oldest_session_is_forgotten_when_there_are_too_many(monkeypatch: Any) -> None:
    monkeypatch.setattr(openotp, "MAX_SESSIONS", 2)
    lines = [line for name in ("A1", "B2", "C3") for line in session(name, f"> Username: {name}")]

    found = auth([*lines, *session("A1", "Sent success response"), *session("C3", "Sent success response")])

    assert [row["user.name"] for row in found] == [None, "C3"]


def test_a_log_is_recognised_by_its_first_line() -> None:
    assert recognise(session("A1", "New openotpSimpleLogin SOAP request")[0])
    assert not recognise(b"[2026-11-25 08:35:42] something else\n")


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40))
def test_reading_gives_back_what_was_written(user: str) -> None:
    (row,) = auth(session("A1", f"> Username: {user}", "Sent success response"))

    assert row["user.name"] == user
