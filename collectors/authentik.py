"""authentik: events, as its JSON log (`Created Event` of authentik.events.models) and its REST API (/api/v3/events/events/) write them.

`event.action` is authentik's action, with hyphens; `login_failed` is login with the outcome failure, or `mfa` where the stage
that refused validates authenticators. `ringfence.auth.method` is the method, with the kinds of the devices that confirmed it:
`password+totp`. Actions that say nothing of users (tasks, models, policies) stay rows of class generic.

Sample: {"action": "login_failed", "client_ip": "192.0.2.7", "context": {"username": "ann", ...}, "event": "Created Event", "timestamp": "2026-11-25T08:35:42.123456", ...}
"""

from __future__ import annotations

import msgspec

from collectors.auth_messages import Said
from collectors.message_forms import Values
from collectors.sign_ins import NOTHING, Record, SignInDecoder, SignInKind, of_message, part

_FAILED = {"login_failed": "login"}
_ABOUT_USERS = frozenset(
    {
        "login",
        "login_failed",
        "logout",
        "user_write",
        "suspicious_request",
        "password_set",
        "secret_view",
        "secret_rotate",
        "invitation_used",
        "authorize_application",
        "source_linked",
        "impersonation_started",
        "impersonation_ended",
    }
)
"""Of EventAction in authentik/events/models.py."""


class _Named(msgspec.Struct, gc=False):
    name: str | None = None
    app: str | None = None
    model_name: str | None = None


class _MethodArgs(msgspec.Struct, gc=False):
    mfa_devices: list[_Named] | None = None


class _Context(msgspec.Struct, gc=False):
    username: str | None = None
    auth_method: str | None = None
    auth_method_args: _MethodArgs | None = None
    stage: _Named | None = None
    authorized_application: _Named | None = None
    reason: str | None = None
    device_class: str | None = None


class _User(msgspec.Struct, gc=False):
    username: str | None = None


class _Event(msgspec.Struct, gc=False):
    action: str | None = None
    event: str | None = None
    client_ip: str | None = None
    context: msgspec.Raw = NOTHING
    user: msgspec.Raw = NOTHING
    timestamp: str | None = None
    created: str | None = None


_DECODER = msgspec.json.Decoder(_Event)


def read_line(text: str) -> Record | None:
    """A line of the log or an event of the API."""
    if not text.startswith("{"):
        return None
    event = _DECODER.decode(text)
    return Record(event.timestamp or event.created, event.event or event.action or "", _said(event))


read = of_message(read_line)
"""What the message of a syslog record of authentik says."""


def _said(event: _Event) -> Values | None:
    action = event.action
    if action not in _ABOUT_USERS:
        return None
    context = part(event.context, _Context)
    failed = action in _FAILED
    stage = context.stage or _Named()
    is_mfa = failed and "authenticator" in (stage.app or "")
    user = part(event.user, _User).username
    application = context.authorized_application.name if context.authorized_application is not None else None
    return Said(
        "mfa" if is_mfa else _FAILED.get(action, action).replace("_", "-"),
        "failure" if failed or action == "suspicious_request" else "success",
        context.reason or (stage.name if failed else None),
        context.device_class if is_mfa else _method(context),
        (context.username if failed else None) or user or context.username,
        address=event.client_ip,
        application=application,
    )


def _method(context: _Context) -> str | None:
    devices = context.auth_method_args.mfa_devices if context.auth_method_args is not None else None
    kinds = sorted({device.model_name.removesuffix("device") for device in devices or () if device.model_name})
    return "+".join([context.auth_method or "unknown", *kinds]) if context.auth_method or kinds else None


def recognise(first: bytes) -> bool:
    """True when a file that starts so is authentik's log."""
    line = first.split(b"\n", 1)[0]
    return line.startswith(b"{") and (b'"logger": "authentik.' in line or b'"logger":"authentik.' in line)


class AuthentikDecoder(SignInDecoder):
    """Rows of class auth, and of class generic for what else the log says."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(read_line, _DECODER, "authentik", observer, keep_original)


KIND = SignInKind(
    "authentik", "authentik's JSON log and events of its REST API", "/var/log/authentik.log", AuthentikDecoder, recognise
)
