"""Authelia: first and second factors in its log."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.auth_messages import Said
from collectors.authelia import read, read_line, recognise


def line(message: str, **more: str) -> str:
    return json.dumps(
        {"level": "error", "method": "POST", "msg": message, "remote_ip": "192.0.2.7", "time": "2026-11-25T08:35:42Z"} | more
    )


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            "Successful 1FA authentication attempt made by user 'ann'",
            Said("login", "success", None, "password", "ann", address="192.0.2.7"),
        ),
        (
            "Unsuccessful 1FA authentication attempt by user 'ann'",
            Said("login", "failure", None, "password", "ann", address="192.0.2.7"),
        ),
        (
            "Unsuccessful 1FA authentication attempt by user 'ann' and they are banned until 9:45AM on November 25 2026 (+00:00)",
            Said(
                "login", "failure", "banned until 9:45AM on November 25 2026 (+00:00)", "password", "ann", address="192.0.2.7"
            ),
        ),
        (
            "Successful TOTP authentication attempt made by user 'ann'",
            Said("mfa", "success", None, "totp", "ann", address="192.0.2.7"),
        ),
        (
            "Unsuccessful WebAuthn authentication attempt by user 'ann'",
            Said("mfa", "failure", None, "webauthn", "ann", address="192.0.2.7"),
        ),
        (
            "Unsuccessful Duo authentication attempt by user 'ann'",
            Said("mfa", "failure", None, "duo", "ann", address="192.0.2.7"),
        ),
        ("Mark 1FA authentication attempt made by user 'ann'", None),
        ("Authelia v4.38.0 is starting", None),
    ],
)
def test_a_line_says_who_tried_what(message: str, said: Said | None) -> None:
    assert read(line(message)) == said


def test_the_error_is_the_reason() -> None:
    said = read(line("Unsuccessful 1FA authentication attempt by user 'ann'", error="user not found"))

    assert said is not None
    assert said[2] == "user not found"


def test_text_that_is_no_json_is_no_record() -> None:
    assert read_line('time="2026-11-25T08:35:42Z" level=info msg="Startup complete"') is None
    assert read("{") is None


def test_a_log_is_recognised_by_its_first_line() -> None:
    assert recognise(line("Authelia v4.38.0 is starting").encode())
    assert not recognise(b'{"level":"info","msg":"started","time":"2026-11-25T08:35:42Z"}')


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="'"), max_size=40))
def test_reading_gives_back_what_was_written(user: str) -> None:
    said = read(line(f"Unsuccessful TOTP authentication attempt by user '{user}'"))

    assert said == Said("mfa", "failure", None, "totp", user, address="192.0.2.7")
