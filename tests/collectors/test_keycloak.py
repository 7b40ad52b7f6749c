"""Keycloak: what its events say, in each form that they are written in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.auth_messages import Said
from collectors.keycloak import read, read_line, recognise

FAILED = 'type="LOGIN_ERROR", realmId="r1", realmName="demo", clientId="shop", userId="null", ipAddress="192.0.2.7", error="user_not_found", username="ann"'
OF_FAILED = Said("login", "failure", "user_not_found", user="ann", address="192.0.2.7", application="shop")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (FAILED, OF_FAILED),
        (FAILED.replace('"', ""), OF_FAILED),
        (
            'type="LOGIN", realmId="r1", clientId="shop", userId="u1", ipAddress="2001:db8::7", auth_method="openid-connect", username="ann"',
            Said("login", "success", None, "openid-connect", "ann", address="2001:db8::7", application="shop"),
        ),
        (
            'type="LOGIN_ERROR", clientId="shop", userId="u1", ipAddress="192.0.2.7", error="invalid_user_credentials", credential_type="otp", username="ann"',
            Said("mfa", "failure", "invalid_user_credentials", "totp", "ann", address="192.0.2.7", application="shop"),
        ),
        (
            'type="UPDATE_CREDENTIAL", clientId="account", userId="u1", ipAddress="192.0.2.7", credential_type="webauthn", username="ann"',
            Said("update-credential", "success", None, "webauthn", "ann", address="192.0.2.7", application="account"),
        ),
        (
            'operationType="CREATE", realmId="r1", clientId="c1", userId="u0", ipAddress="192.0.2.7", resourceType="USER", resourcePath="users/u9"',
            Said("admin-user-create", "success", None, user="u0", target="u9", address="192.0.2.7", application="c1"),
        ),
        (
            'type="LOGIN_ERROR", clientId="shop", userId="null", ipAddress="192.0.2.7", error="user_not_found", username="x", ipAddress="203.0.113.1"',
            Said("login", "failure", "user_not_found", user="x", address="192.0.2.7", application="shop"),
        ),
        ("Keycloak 26.0 on JVM started in 4.2s", None),
    ],
)
def test_the_text_of_an_event_says_who_did_what(message: str, said: Said | None) -> None:
    assert read(message) == said


def test_an_event_reads_the_same_from_each_form() -> None:
    record = {"timestamp": "2026-11-25T08:35:42.956Z", "loggerName": "org.keycloak.events", "level": "WARN", "message": FAILED}
    plain = f"2026-11-25 08:35:42,956 WARN  [org.keycloak.events] (executor-thread-1) {FAILED}"
    api = {
        "time": 1795595742956,
        "type": "LOGIN_ERROR",
        "realmId": "r1",
        "clientId": "shop",
        "ipAddress": "192.0.2.7",
        "error": "user_not_found",
        "details": {"username": "ann"},
    }

    found = [read_line(text) for text in (json.dumps(record), plain, json.dumps(api))]

    assert [line and line.said for line in found] == [OF_FAILED] * 3
    assert [line and line.time for line in found] == ["2026-11-25T08:35:42.956Z", "2026-11-25 08:35:42,956", 1795595742956]
    assert read(json.dumps(record)) == OF_FAILED


def test_an_admin_event_of_the_api_names_who_did_it() -> None:
    event = {
        "time": 1795595742956,
        "operationType": "DELETE",
        "resourceType": "REALM_ROLE",
        "resourcePath": "roles/x",
        "authDetails": {"clientId": "c1", "userId": "u0", "ipAddress": "192.0.2.7"},
    }

    line = read_line(json.dumps(event))

    assert line is not None
    assert line.said == Said("admin-realm-role-delete", "success", user="u0", address="192.0.2.7", application="c1")


def test_what_other_loggers_say_is_no_event() -> None:
    line = read_line(f"2026-11-25 08:35:42,956 INFO  [org.keycloak.services] (main) {FAILED}")

    assert line is not None
    assert line.said is None
    assert read_line("\tat java.base/java.lang.Thread.run(Thread.java:1583)") is None


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"2026-11-25 08:35:42,956 WARN  [org.keycloak.events] (executor-thread-1) type=", True),
        (b'{"timestamp":"2026-11-25T08:35:42Z","sequence":1,"loggerClassName":"org.jboss.logging.Logger"', True),
        (b'{"time":1795595742956,"type":"LOGIN","realmId":"r1"}', True),
        (b'{"timestamp":"2026-11-25T08:35:42Z"}', False),
        (b"", False),
    ],
)
def test_a_log_is_recognised_by_its_first_line(first: bytes, expected: bool) -> None:
    assert recognise(first) is expected


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\\'), min_size=1, max_size=20).filter(
    lambda text: text != "null"
)


@given(_TEXT, _TEXT)
def test_reading_gives_back_what_was_written(user: str, client: str) -> None:
    said = read(f'type="LOGIN", clientId="{client}", ipAddress="192.0.2.7", username="{user}"')

    assert said == Said("login", "success", user=user, address="192.0.2.7", application=client)
