"""Changes inputs frame by frame, so that one execution holds many mutated inputs and one bad frame costs not the rest.

A decoder that makes columns costs about a millisecond a call however little it is given; a hundred frames a call, each
changed on its own, are a hundred inputs at little more than the price of one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from ringfence.component import Format

MAX_BYTES = 16 << 10
"""Of one execution; some hundred frames of most formats."""

_EDGES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 20, 31, 32, 40, 63, 64, 127, 128, 254, 255, 256, 32_767, 32_768, 65_535, (1 << 32) - 1)
_WORDS = (
    *(b"", b"-", b"0", b"-1", b"1.5", b"1e999", b"NaN", b"65536", b"4294967296", b"9223372036854775808", b"9" * 40),
    *(
        b"null",
        b"true",
        b"{}",
        b"[]",
        b'""',
        b'"\\ud800"',
        b"\\u0000",
        b"\xff",
        b"\xc3\xbc",
        b"\xe2\x80\xae",
        b"\x00",
        b"\x1b[31m",
    ),
    *(b"::", b"::ffff:1.2.3.4", b"fe80::1%em0", b"256.1.1.1", b"1.2.3", b"0x10", b"9999-12-31T23:59:60Z", b"Feb 30 24:00:00"),
)
_WORD = re.compile(rb"[A-Za-z0-9_.:%+-]+")


def frames_of_stream(chosen: Format, data: bytes) -> list[bytes]:
    """A stream as its framer cuts it."""
    framer = chosen.framer()
    blocks = (framer.cut(data), framer.finish())
    return [block[start:end] for block, bounds in blocks for start, end in pairwise(bounds)]


class Mutator:
    """Makes new inputs of a format out of old ones; `pool` are frames to mix in."""

    def __init__(self, chosen: Format, pool: Sequence[bytes]) -> None:
        self._chosen = chosen
        self._pool = pool or [b"\x00"]

    def mutate(self, data: bytes, dice: random.Random, max_bytes: int = MAX_BYTES) -> bytes:
        """Some frames dropped, repeated, mixed in or moved, and some or most of them changed.

        In most inputs a frame stays as it was where its change would take the frames after it with it.
        """
        parts = frames_of_stream(self._chosen, data) or [dice.choice(self._pool)]
        if len(parts) < 32 and dice.random() < 1 / 2:
            parts += self._others(parts[0], 32, dice)
        for _ in range(dice.randrange(4)):
            self._rearrange(parts, dice)
        share, may_tear = dice.choice((0.05, 0.3, 0.8)), dice.random() < 1 / 8
        for place, part in enumerate(parts):
            if dice.random() < share:
                changed = self._changed(part, dice)
                if may_tear or self._is_cut(b"" if place == 0 else parts[0], changed, part):
                    parts[place] = changed
        return b"".join(parts)[:max_bytes]

    def _others(self, head: bytes, count: int, dice: random.Random) -> list[bytes]:
        """Frames of other inputs that can stand in this one."""
        return [part for part in dice.choices(self._pool, k=count) if self._is_cut(head, part, part)]

    def _is_cut(self, head: bytes, changed: bytes, follower: bytes) -> bool:
        """True when the framer still sees that this frame ends, given the first one of the stream and another after it."""
        _, bounds = self._chosen.framer().cut(head + changed + follower)
        return len(head) + len(changed) in bounds

    def _rearrange(self, parts: list[bytes], dice: random.Random) -> None:
        place = dice.randrange(len(parts))
        match dice.randrange(5):
            case 0 if len(parts) > 1:
                del parts[place]
            case 1:
                parts[place:place] = [parts[place]] * dice.choice((1, 2, 16))
            case 2:
                parts[place:place] = self._others(parts[0], dice.choice((1, 4, 32)), dice)
            case 3:
                other = dice.randrange(len(parts))
                parts[place], parts[other] = parts[other], parts[place]
            case _:
                parts[place] = dice.choice(self._pool)

    def _changed(self, part: bytes, dice: random.Random) -> bytes:
        for _ in range(dice.choice((1, 1, 2, 4))):
            # most changes keep the length: it is what the framers of binary formats go by
            ways = _SAME_LENGTH if dice.random() < 0.7 else _OTHER_LENGTH
            part = dice.choice(ways)(part, dice) if part else dice.choice(self._pool)
        if dice.random() < 1 / 16:
            other = dice.choice(self._pool)
            part = part[: dice.randrange(len(part) + 1)] + other[dice.randrange(len(other) + 1) :]
        return part


def _flip(part: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(part))
    return part[:place] + bytes([part[place] ^ 1 << dice.randrange(8)]) + part[place + 1 :]


def _set_byte(part: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(part))
    return part[:place] + bytes([dice.choice((dice.randrange(256), 0, 255, 10, 34, 44))]) + part[place + 1 :]


def _set_number(part: bytes, dice: random.Random) -> bytes:
    width = dice.choice((1, 2, 4))
    number = (dice.choice(_EDGES) % (1 << 8 * width)).to_bytes(width, dice.choice(("big", "little")))
    place = dice.randrange(len(part))
    return (part[:place] + number + part[place + width :])[: len(part)]


def _copy_over(part: bytes, dice: random.Random) -> bytes:
    size = dice.randrange(1, min(len(part), 32) + 1)
    start, place = dice.randrange(len(part) - size + 1), dice.randrange(len(part) - size + 1)
    return part[:place] + part[start : start + size] + part[place + size :]


def _delete(part: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(part))
    return part[:start] + part[start + dice.choice((1, 2, 4, 16, len(part))) :]


def _insert(part: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(part) + 1)
    return part[:place] + dice.choice((dice.randbytes(dice.choice((1, 2, 4, 16))), dice.choice(_WORDS))) + part[place:]


def _repeat(part: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(len(part))
    piece = part[start : start + dice.choice((1, 4, 16))]
    return part[:start] + piece * dice.choice((2, 8, 100)) + part[start:]


def _replace_word(part: bytes, dice: random.Random) -> bytes:
    words = list(_WORD.finditer(part))
    if not words:
        return part
    chosen = dice.choice(words)
    new = dice.choice((dice.choice(_WORDS), dice.choice(words)[0], str(dice.choice(_EDGES)).encode()))
    return part[: chosen.start()] + new + part[chosen.end() :]


_Way = Callable[[bytes, random.Random], bytes]
_SAME_LENGTH: tuple[_Way, ...] = (_flip, _set_byte, _set_number, _copy_over)
_OTHER_LENGTH: tuple[_Way, ...] = (_delete, _insert, _repeat, _replace_word, _replace_word, _replace_word)
