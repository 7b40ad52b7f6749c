"""RCDevs OpenOTP: logins and their factors, from the log of WebADM (webadm.log).

A login is many lines with one session in brackets: who, from where, each factor, the response. Every line is a row: a factor
that was right or wrong is `mfa` (`first-factor` for the LDAP password), the response is `login` with its outcome, the others are of
class generic. What an earlier line of the session said (user, client, source) is on the rows of the later ones; 10,000
sessions are remembered, the oldest is forgotten and costs later rows those columns. Times have no zone and are read as UTC.

After the examples in RCDevs' documentation (docs.rcdevs.com, Troubleshooting), not compared with a server.

Sample: [2026-11-25 08:35:42] [192.0.2.9:34798] [OpenOTP:D8XVEJEG] > Username: ann
"""

from __future__ import annotations

import re

from collectors.auth_messages import Said
from collectors.message_forms import Values
from collectors.sign_ins import Record, SignInDecoder, SignInKind

MAX_SESSIONS = 10_000

_LINE = re.compile(
    r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] \[([^\]]{1,64})\] \[(?:OpenOTP|SpanKey|OpenSSO|OpenID):(\w{1,32})\] (.*)", re.DOTALL
)
_OTHER = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\] (.*)", re.DOTALL)
_PARAMETER = re.compile(r"> {1,2}(Username|Client ID|Source|Source IP): (.{1,512})\Z")
_RIGHT = re.compile(r"(\w{2,16}) (?:password|response|factor) Ok\b.{0,256}\Z", re.IGNORECASE)
_WRONG = re.compile(r"(Wrong (\w{2,16}) (?:password|response)\b.{0,256})\Z", re.IGNORECASE)
_REFUSED = re.compile(
    r"User invalid or not found|User account (?:is )?(?:blocked|disabled|expired|locked).{0,128}|Account blocked.{0,128}|No usable .{1,128}",
    re.IGNORECASE,
)
_RESPONSE = re.compile(r"Sent (?:login )?(success|failure) response\Z")


class _Session:
    """What the lines of a session have said."""

    __slots__ = ("application", "method", "reason", "source", "user")

    def __init__(self) -> None:
        self.user: str | None = None
        self.application: str | None = None
        self.source: str | None = None
        self.method: str | None = None
        self.reason: str | None = None


class OpenOtpDecoder(SignInDecoder):
    """Rows of class auth and generic; remembers sessions from line to line."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(self._line, None, "openotp", observer, keep_original)
        self._sessions: dict[str, _Session] = {}

    def _line(self, text: str) -> Record | None:
        found = _LINE.match(text)
        if found is None:
            other = _OTHER.match(text)
            return None if other is None else Record(other[1], other[2], None)
        time, peer, name, message = found.groups()
        session = self._sessions.get(name)
        if session is None:
            if len(self._sessions) >= MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            session = self._sessions[name] = _Session()
        said = _said(session, message, peer.rpartition(":")[0] or peer)
        if _RESPONSE.match(message):
            del self._sessions[name]
        return Record(time, message, said)


def _said(session: _Session, message: str, peer: str) -> Values | None:
    if parameter := _PARAMETER.match(message):
        name, text = parameter.groups()
        if name == "Username":
            session.user = text
        elif name == "Client ID":
            session.application = text
        else:
            session.source = text.partition(" ")[0]
        return None
    if refused := _REFUSED.match(message):
        session.reason = refused[0]
        return None
    if right := _RIGHT.match(message):
        factor = right[1].lower()
        session.method = factor if session.method is None else f"{session.method}+{factor}"
        return _factor(session, factor, "success", None, peer)
    if wrong := _WRONG.match(message):
        session.reason = wrong[1]
        return _factor(session, wrong[2].lower(), "failure", wrong[1], peer)
    response = _RESPONSE.match(message)
    if response is None:
        return None
    reason = session.reason if response[1] == "failure" else None
    return _row(session, "login", response[1], reason, session.method, peer)


def _factor(session: _Session, factor: str, outcome: str, reason: str | None, peer: str) -> Values:
    return _row(session, "first-factor" if factor == "ldap" else "mfa", outcome, reason, factor, peer)


def _row(session: _Session, action: str, outcome: str, reason: str | None, method: str | None, peer: str) -> Values:
    address = session.source or peer
    return Said(action, outcome, reason, method, session.user, address=address, application=session.application)


def recognise(first: bytes) -> bool:
    """True when a file that starts so is the log of WebADM."""
    return re.match(rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] \[[^\]]{1,64}\] \[\w{2,16}:\w{1,32}\] ", first) is not None


KIND = SignInKind("openotp", "RCDevs OpenOTP in the log of WebADM", "/opt/webadm/log/webadm.log", OpenOtpDecoder, recognise)
