"""Keycloak: login and admin events, as its log (listener `jboss-logging`) and its admin REST API write them.

- the server log in JSON (`--log-console-output=json`), where an event is the text of a record of `org.keycloak.events`,
- the plain server log, whose times have no zone and are read as UTC,
- events of the REST API (`/admin/realms/REALM/events`, `/admin-events`), one object a line.

The type of an event is `event.action`, in lower case with hyphens and without `_ERROR`, which is the outcome failure. A
failed one-time code or key (`credential_type`, or an error that names it) is `mfa`. Of a name that comes twice the first
counts: what users can write, such as `username`, comes behind what the server writes. Successful logins are logged at debug
level, unless `spi-events-listener-jboss-logging-success-level` says otherwise.

Sample: 2026-11-25 08:35:42,956 WARN  [org.keycloak.events] (executor-thread-1) type="LOGIN_ERROR", realmId="...", error="user_not_found", ...
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from collectors.auth_messages import Said
from collectors.message_forms import Values
from collectors.sign_ins import NOTHING, Record, SignInDecoder, SignInKind, of_message, part

_LOGGER = "org.keycloak.events"
_LINE = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d[,.]\d{1,9}) +[A-Z]{4,5} +\[([\w.$]{1,256})\] \([^)]{1,256}\) (.*)", re.DOTALL
)
_FIELD = re.compile(r'([A-Za-z_]\w{0,63})=(?:"((?:[^"\\]++|\\.)*+)"|([^,"]*+))(?:, |\Z)', re.DOTALL)
_METHODS: Mapping[str | None, str] = {
    "otp": "totp",
    "webauthn": "webauthn",
    "webauthn-passwordless": "webauthn",
    "recovery-authn-codes": "recovery-code",
}
_MFA_ERRORS: Mapping[str | None, str] = {"invalid_totp": "totp", "webauthn_error_auth_verification": "webauthn"}


class _Details(msgspec.Struct, gc=False):
    username: str | None = None
    auth_method: str | None = None
    credential_type: str | None = None


class _By(msgspec.Struct, gc=False, rename="camel"):
    client_id: str | None = None
    user_id: str | None = None
    ip_address: str | None = None


class _Line(msgspec.Struct, gc=False, rename="camel"):
    """A record of the log, or an event of the REST API: the members of both."""

    timestamp: str | None = None
    logger_name: str | None = None
    message: str | None = None
    time: int | None = None
    type: str | None = None
    operation_type: str | None = None
    resource_type: str | None = None
    resource_path: str | None = None
    client_id: str | None = None
    user_id: str | None = None
    ip_address: str | None = None
    error: str | None = None
    details: msgspec.Raw = NOTHING
    auth_details: _By | None = None


_DECODER = msgspec.json.Decoder(_Line)


def read_line(text: str) -> Record | None:
    """A line of the log or an event of the API."""
    if text.startswith("{"):
        line = _DECODER.decode(text)
        if line.message is not None:
            said = _event(_fields(line.message)) if line.logger_name == _LOGGER else None
            return Record(line.timestamp, line.message, said)
        return Record(line.time, text, _event(_of_api(line)))
    found = _LINE.match(text)
    if found is None:
        return None
    time, logger, message = found.groups()
    return Record(time, message, _event(_fields(message)) if logger == _LOGGER else None)


_read_json = of_message(read_line)


def read(message: str) -> Values | None:
    """What the message of a syslog record of Keycloak says: JSON or the text of an event."""
    if message.startswith(("type=", "operationType=")):
        return _event(_fields(message))
    return _read_json(message)


def _fields(message: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, quoted, bare in _FIELD.findall(message):
        fields.setdefault(name, quoted or bare)
    return fields


def _of_api(line: _Line) -> dict[str, str]:
    by = line.auth_details or line
    details = part(line.details, _Details)
    found = {
        "type": line.type,
        "operationType": line.operation_type,
        "resourceType": line.resource_type,
        "resourcePath": line.resource_path,
        "clientId": by.client_id,
        "userId": by.user_id,
        "ipAddress": by.ip_address,
        "error": line.error,
        "username": details.username,
        "auth_method": details.auth_method,
        "credential_type": details.credential_type,
    }
    return {name: text for name, text in found.items() if text is not None}


def _event(fields: Mapping[str, str]) -> Values | None:
    known = {name: text for name, text in fields.items() if text not in ("null", "")}
    error = known.get("error")
    address, application = known.get("ipAddress"), known.get("clientId")
    operation, kind = known.get("operationType"), known.get("type")
    if operation is not None:
        action = f"admin-{known.get('resourceType', 'resource')}-{operation}".lower().replace("_", "-")
        outcome = "failure" if error else "success"
        _, _, target = known.get("resourcePath", "").partition("users/")
        return Said(
            action,
            outcome,
            error,
            user=known.get("userId"),
            target=target.partition("/")[0] or None,
            address=address,
            application=application,
        )
    if kind is None:
        return None
    failed = kind.endswith("_ERROR") or error is not None
    second = _METHODS.get(known.get("credential_type")) or _MFA_ERRORS.get(error)
    action = kind.removesuffix("_ERROR").lower().replace("_", "-")
    return Said(
        "mfa" if failed and second and action == "login" else action,
        "failure" if failed else "success",
        error,
        second or known.get("credential_type") or known.get("auth_method"),
        known.get("username") or known.get("userId"),
        address=address,
        application=application,
    )


def recognise(first: bytes) -> bool:
    """True when a file that starts so is Keycloak's log, or events of its API."""
    line = first.split(b"\n", 1)[0]
    return (
        (b"org.keycloak" in line and b"[" in line)
        or (line.startswith(b"{") and b'"loggerClassName"' in line)
        or b'"realmId"' in line
    )


class KeycloakDecoder(SignInDecoder):
    """Rows of class auth, and of class generic for what else the log says."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(read_line, _DECODER, "keycloak", observer, keep_original)


KIND = SignInKind(
    "keycloak",
    "Keycloak's log (JSON or plain) and events of its REST API",
    "/var/log/keycloak/keycloak.log",
    KeycloakDecoder,
    recognise,
)
