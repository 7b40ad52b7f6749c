"""One syslog message to its fields: RFC 5424, RFC 3164 with its usual deviations, and why a text is neither.

The deviations are those that `collectors/syslog.py` names. Quantifiers are bounded or possessive: matching is linear in the
length of the message.

Sample: `<86>Nov 25 08:35:42 vm sshd[18225]: m` -> ("86", "Nov 25 08:35:42", "vm", "sshd", "18225", None, None, "m")
"""

from __future__ import annotations

import re
from typing import Any, cast

import msgspec

from collectors.rfc6587 import COUNT
from ringfence.batch import ProblemCode

Fields = tuple[str | None, str | None, str | None, str | None, str | None, str | None, str | None, str | None]
"""PRI, time, hostname, app-name or tag, process id, msgid, structured data, message; the two before last only in RFC 5424."""

_PRI = "<(19[01]|1[0-8][0-9]|[1-9]?[0-9])>"  # RFC 5424 6.2.1
_ISO_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)"  # RFC 5424 6.2.3
_BSD_TIME = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"  # RFC 3164 4.1.2
_TAG = r"([^\s:\[]{1,48})(?:\[([^\s\]]{1,128})\])?:(?: |\Z)"
_SD_NAME = r"[!#-<>-\\^-~]{1,32}"  # RFC 5424 6.3.2: printable but not = ] "
_SD_ELEMENT = rf'\[{_SD_NAME}(?: {_SD_NAME}="(?:[^"\\\]]++|\\.)*+")*+\]'
_HEADER_FIELDS = (  # RFC 5424 section 6
    ("TIMESTAMP", f"-|{_ISO_TIME}", "- or a time such as 2026-11-25T22:14:15.003Z"),
    ("HOSTNAME", "[!-~]{1,255}", "1 to 255 printable characters"),
    ("APP-NAME", "[!-~]{1,48}", "1 to 48 printable characters"),
    ("PROCID", "[!-~]{1,128}", "1 to 128 printable characters"),
    ("MSGID", "[!-~]{1,32}", "1 to 32 printable characters"),
)
_FLAGS = re.ASCII | re.DOTALL
_NOT_HERE = "(?:(?!)()())?"  # two groups that never match: the fields that RFC 3164 lacks
BSD = re.compile(rf"(?:{_PRI})?({_BSD_TIME}|{_ISO_TIME}) ([^\s\[]{{0,254}}[^\s\[:]) {_TAG}{_NOT_HERE}(.*)", _FLAGS)
IETF = re.compile(
    f"{_PRI}1 "
    + "".join(f"({pattern}) " for _, pattern, _ in _HEADER_FIELDS)
    + rf"(-|(?:{_SD_ELEMENT})++)(?: +\ufeff?|\Z)(.*)",
    _FLAGS,
)
_LOOSE = re.compile(rf"(?:{_PRI})?(?:({_BSD_TIME}|{_ISO_TIME})(?: |\Z))?(?:{_TAG})?(.*)", _FLAGS)
_HOST = re.compile(r"([\w.:-]{1,255}) (.+)", _FLAGS)
_VERSIONED = re.compile(rf"<\d{{1,3}}>([1-9]\d{{0,2}}) (?=1 |- |{_ISO_TIME})|<\d{{1,3}}>(1) ", _FLAGS)
_PARAMS = re.compile(rf'\[({_SD_NAME})| ({_SD_NAME})="((?:[^"\\\]]++|\\.)*+)"', _FLAGS)
_ESCAPE = re.compile(r'\\(["\\\]])')  # RFC 5424 6.3.3: any other backslash is one


def unusual(text: str) -> Fields | None:
    """A message of RFC 3164 that lacks hostname, tag or time; None when it is none, or a faulty one of RFC 5424."""
    found = _LOOSE.match(text)
    if found is None or _VERSIONED.match(text):
        return None
    pri, time, tag, pid, message = found.groups()
    if pri is None and time is None:
        return None
    host = None
    if time is not None and tag is None:
        named = _HOST.match(message)
        host, message = named.groups() if named else (None, message)
    return pri, time, host, tag, pid, None, None, message


def read_message(text: str) -> Fields | None:
    """The fields of a message without octet count and newline, in any of the accepted forms; None when it is none."""
    found = BSD.match(text) or IETF.match(text)
    if found is None:
        return unusual(text)
    fields: Any = found.groups()
    return cast(Fields, fields)


def place_of_time(text: str) -> int:
    """Where the time of a message stands, or should."""
    found = re.match(rf"{_PRI}(?:1 )?", text)
    return found.end() if found else 0


def explain(text: str) -> tuple[ProblemCode, str, int]:
    """Why a message is none, and the byte where reading failed; `text` has one character for each byte."""
    if not text.startswith("<"):
        return ProblemCode.MALFORMED, "neither a PRI nor a time", 0
    if not re.match(_PRI, text):
        return ProblemCode.MALFORMED, "PRI is not a number from 0 to 191 in angle brackets", 1
    versioned = _VERSIONED.match(text)
    if versioned is not None and versioned[1] not in (None, "1"):
        return ProblemCode.UNKNOWN_VERSION, f"syslog version is {versioned[1]}; accepted: 1", versioned.start(1)
    return _explain_header(text, text.index(" ") + 1)


def _explain_header(text: str, place: int) -> tuple[ProblemCode, str, int]:
    """Find the faulty field of a message of RFC 5424."""
    for name, pattern, accepted in _HEADER_FIELDS:
        found = re.compile(f"(?:{pattern}) ", _FLAGS).match(text, place)
        if found is None:
            return ProblemCode.MALFORMED, f"{name} is not {accepted}", place
        place = found.end()
    element = re.compile(_SD_ELEMENT, _FLAGS)
    while found := element.match(text, place):
        place = found.end()
    return ProblemCode.MALFORMED, 'STRUCTURED-DATA is not - or [id name="value" ...]', place


def structured_data(text: str | None) -> str | None:
    """Structured data as JSON, id -> name -> value; a name that comes more than once has a list (RFC 5424 6.3.3)."""
    if text is None or text == "-":
        return None
    elements: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {}
    for found in _PARAMS.finditer(text):
        element, name, value = found.groups()
        if element is not None:
            params = elements.setdefault(element, {})
            continue
        value = _ESCAPE.sub(r"\1", value)
        before = params.get(name)
        params[name] = value if before is None else [*before, value] if isinstance(before, list) else [before, value]
    return msgspec.json.encode(elements).decode()


def recognise(first: bytes) -> bool:
    """True when a file that starts so is syslog: a PRI (after an octet count or not), or a time and a hostname.

    Lines of filterlog have a decoder of their own (`collectors/filterlog.py`).
    """
    line = first.split(b"\n", 1)[0].decode("latin-1")
    if re.search(r" filterlog(?:\[\d{1,10}\])?[: ]", line):
        return False
    counted = COUNT.match(first)
    return bool(
        re.match(_PRI, line[counted.end() if counted else 0 :]) or re.match(rf"(?:{_BSD_TIME}|{_ISO_TIME}) [!-~]+ ", line)
    )
