"""authentik: which of its events say what of users."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.auth_messages import Said
from collectors.authentik import read, read_line, recognise

TOTP = {"app": "authentik_stages_authenticator_totp", "model_name": "totpdevice", "name": "TOTP", "pk": 3}


def event(action: str, context: dict[str, Any], user: Any = None) -> str:
    line = {
        "action": action,
        "client_ip": "192.0.2.7",
        "context": context,
        "event": "Created Event",
        "logger": "authentik.events.models",
    }
    return json.dumps(line | {"timestamp": "2026-11-25T08:35:42.123456", "user": user or {"username": "ann", "pk": 4}})


@pytest.mark.parametrize(
    ("action", "context", "said"),
    [
        (
            "login",
            {"auth_method": "password", "auth_method_args": {}},
            Said("login", "success", None, "password", "ann", address="192.0.2.7"),
        ),
        (
            "login",
            {"auth_method": "password", "auth_method_args": {"mfa_devices": [TOTP]}},
            Said("login", "success", None, "password+totp", "ann", address="192.0.2.7"),
        ),
        (
            "login_failed",
            {"stage": {"app": "authentik_stages_password", "name": "default-password"}, "username": "bob"},
            Said("login", "failure", "default-password", None, "bob", address="192.0.2.7"),
        ),
        (
            "login_failed",
            {"stage": {"app": "authentik_stages_authenticator_validate", "name": "mfa"}, "device_class": "totp"},
            Said("mfa", "failure", "mfa", "totp", "ann", address="192.0.2.7"),
        ),
        (
            "authorize_application",
            {"authorized_application": {"name": "Wiki", "pk": "1"}},
            Said("authorize-application", "success", None, None, "ann", address="192.0.2.7", application="Wiki"),
        ),
        ("logout", {}, Said("logout", "success", user="ann", address="192.0.2.7")),
        ("suspicious_request", {}, Said("suspicious-request", "failure", user="ann", address="192.0.2.7")),
        ("model_updated", {"model": {"name": "x"}}, None),
    ],
)
def test_an_event_says_who_did_what(action: str, context: dict[str, Any], said: Said | None) -> None:
    assert read(event(action, context)) == said


def test_a_member_of_another_form_costs_that_member() -> None:
    line = read_line('{"event": "/api/v3/root/config/", "user": "ann", "context": 7, "timestamp": "2026-11-25T08:35:42.1"}')

    assert line is not None
    assert (line.said, line.message) == (None, "/api/v3/root/config/")
    assert read('{"action": "login", "client_ip": "192.0.2.7", "user": "ann", "context": 7}') == Said(
        "login", "success", address="192.0.2.7"
    )


def test_text_that_is_no_json_is_no_record() -> None:
    assert read_line("### authentik starting") is None
    assert read("{") is None


def test_a_log_is_recognised_by_its_first_line() -> None:
    assert recognise(event("login", {}).encode())
    assert not recognise(b'{"event": "x"}')


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_reading_gives_back_what_was_written(user: str) -> None:
    assert read(event("logout", {}, {"username": user})) == Said("logout", "success", user=user, address="192.0.2.7")
