"""Authelia: first and second factors, from its log in JSON (`log.format: json`).

`1FA` is a login by password, `TOTP`, `WebAuthn` and `Duo` are `mfa` with the method totp, webauthn or duo (Authelia 4.34 to
4.39, internal/handlers/response.go, internal/regulation/const.go). Successes are logged at debug level only. What else the
log says stays rows of class generic.

Sample: {"level":"error","method":"POST","msg":"Unsuccessful 1FA authentication attempt by user 'ann'","path":"/api/firstfactor","remote_ip":"192.0.2.7","time":"2026-11-25T08:35:42Z"}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from collectors.auth_messages import Said
from collectors.message_forms import Values
from collectors.sign_ins import Record, SignInDecoder, SignInKind, of_message

_ATTEMPT = re.compile(
    r"(Successful|Unsuccessful) (\w{2,16}) authentication attempt (?:made )?by user '(.{0,512}?)'(?: and they are (banned until .{1,64}))?\Z",
    re.DOTALL,
)
_METHODS: Mapping[str, str] = {"1FA": "password"}


class _Line(msgspec.Struct, gc=False):
    msg: str | None = None
    remote_ip: str | None = None
    error: str | None = None
    time: str | None = None


_DECODER = msgspec.json.Decoder(_Line)


def read_line(text: str) -> Record | None:
    """A line of the log."""
    if not text.startswith("{"):
        return None
    line = _DECODER.decode(text)
    return Record(line.time, line.msg or "", _said(line))


read = of_message(read_line)
"""What the message of a syslog record of Authelia says."""


def _said(line: _Line) -> Values | None:
    found = _ATTEMPT.match(line.msg or "")
    if found is None:
        return None
    result, factor, user, banned = found.groups()
    return Said(
        "login" if factor == "1FA" else "mfa",
        "success" if result == "Successful" else "failure",
        banned or line.error,
        _METHODS.get(factor, factor.lower()),
        user,
        address=line.remote_ip,
    )


def recognise(first: bytes) -> bool:
    """True when a file that starts so is Authelia's log."""
    line = first.split(b"\n", 1)[0]
    is_log = line.startswith(b"{") and b'"level":' in line and b'"msg":' in line and b'"time":' in line
    return is_log and (b"Authelia" in line or b"authentication attempt" in line)


class AutheliaDecoder(SignInDecoder):
    """Rows of class auth, and of class generic for what else the log says."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(read_line, _DECODER, "authelia", observer, keep_original)


KIND = SignInKind("authelia", "Authelia's log in JSON", "/var/log/authelia/authelia.log", AutheliaDecoder, recognise)
