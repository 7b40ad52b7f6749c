"""Lines of JSON to typed Structs, one bad line never touching its neighbours; exact places for what was refused.

A line is decoded once by msgspec. Only a refused line is looked at again, to name the byte and the field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

import msgspec

from ringfence.batch import ProblemCode

REFUSALS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a bad line: invalid UTF-8 in a text that it builds is a UnicodeDecodeError, deep nesting a RecursionError."""
MAX_LINE_BYTES = 256 * 1024
_BYTE = re.compile(r"\(byte (\d+)\)")
_PATH = re.compile(r" - at `?(?:key in )?(\$[^`]*)`?$")
_SURROGATE = re.compile(rb"(?<!\\)(?:\\\\)*(\\u[dD][89abAB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F])")
"""A high half that no low half follows, its backslash not escaped itself; msgspec names the place of a lone low half."""
_SPACE = re.compile(r"[ \t\r\n]*")
_SKIPPER = json.JSONDecoder()


def decode_lines(decoder: msgspec.json.Decoder[Any], lines: Sequence[bytes]) -> tuple[list[Any], list[int]]:
    """One Struct per line in order; None stands for a refused line, and the indices of those are returned beside."""
    decode = decoder.decode
    try:
        return list(map(decode, lines)), []
    except REFUSALS:
        pass  # some line is refused: one by one, to know which
    structs: list[Any] = []
    refused: list[int] = []
    for line in lines:
        try:
            structs.append(decode(line))
        except REFUSALS:
            refused.append(len(structs))
            structs.append(None)
    return structs, refused


def explain(decoder: msgspec.json.Decoder[Any], line: bytes) -> tuple[ProblemCode, str, int, str | None]:
    """Why a line is refused: code, reason, byte offset in the line (from 0), and the path of the field if it was one."""
    if len(line) > MAX_LINE_BYTES:
        return ProblemCode.TOO_LARGE, f"the line is longer than {MAX_LINE_BYTES} bytes", MAX_LINE_BYTES, None
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return ProblemCode.MALFORMED, f"byte 0x{line[error.start]:02x} is not valid UTF-8", error.start, None
    try:
        decoder.decode(line)
    except RecursionError:
        return ProblemCode.MALFORMED, "objects nest too deeply", 0, None
    except msgspec.ValidationError as error:
        path = match[1] if (match := _PATH.search(str(error))) else "$"
        return ProblemCode.WRONG_TYPE, _PATH.sub("", str(error)), locate(line, path), path
    except msgspec.DecodeError as error:
        return ProblemCode.MALFORMED, *_syntax(line, str(error)), None
    return ProblemCode.MALFORMED, "the line was refused", 0, None


def _syntax(line: bytes, message: str) -> tuple[str, int]:
    if "truncated" in message:
        lone = _SURROGATE.search(line)
        return (
            ("half of a surrogate pair in a string", lone.start(1))
            if lone
            else ("the line ends inside a JSON value", len(line.rstrip()))
        )
    place = _BYTE.search(message)
    offset = int(place[1]) if place else 0
    # msgspec has read the first trailing character when it complains of it
    return _BYTE.sub("", message).strip(), offset - 1 if offset and "trailing characters" in message else offset


def locate(line: bytes, path: str) -> int:
    """Byte offset of the value at a path such as `$.flow.start` or `$.vlan[1]`; 0 when it is not there.

    A key that has dots itself (`id.orig_h` of Zeek) is found where there is no object to look into.
    """
    text = line.decode("latin-1")
    steps: list[str | int] = [int(index) if index else name for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path)]
    try:
        return _descend(text, _skip(text, 0), steps)
    except (ValueError, IndexError, RecursionError):
        return 0


def _descend(text: str, place: int, steps: list[str | int]) -> int:
    """Where the steps lead; the first few names may be one key with dots."""
    if not steps:
        return place
    for width in range(1, len(steps) + 1):
        names = steps[:width]
        key = names[0] if width == 1 else ".".join(map(str, names))
        try:
            return _descend(text, _member(text, place, key), steps[width:])
        except (ValueError, IndexError):
            continue
    raise ValueError("no such member")


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _member(text: str, place: int, step: str | int) -> int:
    """Where the value of one key (the last one of that name, as msgspec reads it) or index begins.

    What follows the member need not be JSON: the line may have been refused before it was read to its end.
    """
    found = -1
    try:
        for key, value_at in _members(text, place):
            if key == step:
                found = value_at
    except (ValueError, IndexError):
        if found < 0:
            raise
    if found < 0:
        raise ValueError(f"no member {step!r}")
    return found


def _members(text: str, place: int) -> Iterator[tuple[str | int, int]]:
    """Keys or indices of an object or array that begins at a place, each with the place of its value."""
    is_object = text[place] == "{"
    place = _skip(text, place + 1)
    index = 0
    while text[place] not in "]}":
        key: str | int = index
        if is_object:
            key, place = scanstring(text, place + 1, False)
            place = _skip(text, _skip(text, place) + 1)
        yield key, place
        _, place = _SKIPPER.raw_decode(text, place)
        place = _skip(text, place)
        place = _skip(text, place + 1) if text[place] == "," else place
        index += 1
