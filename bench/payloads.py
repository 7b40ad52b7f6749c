"""Corpora for YARA: rules, and the lines of a web server's log in which some of their words stand."""

from __future__ import annotations

import random
from collections.abc import Iterator

from bench.corpus import SEED

YARA_RULES = 500
REQUEST_BYTES = 325
HIT_SHARE = 0.005


def yara_rules(count: int) -> Iterator[bytes]:
    """Rules of three kinds: one word without regard to case, a word or an expression, and two words of three."""
    for number in range(count):
        one, two, three = _marks(number)
        strings, condition = (
            (f'$a = "{one}" nocase', "$a"),
            (f'$a = "{one}" $b = /{two}[a-z0-9]{{1,8}}\\.(php|jsp|aspx)/', "any of them"),
            (f'$a = "{one}" $b = "{two}" wide ascii $c = "{three}"', "2 of them"),
        )[number % 3]
        yield f"rule r{number} {{ strings: {strings} condition: {condition} }}\n".encode()


def _marks(number: int) -> tuple[str, str, str]:
    """Words of a rule, which no request has by chance."""
    draw = random.Random(SEED + number)
    one, two, three = (_word(draw, draw.randint(8, 14)) for _ in range(3))
    return f"{one}{number}", two, three


def requests(lines: int) -> Iterator[bytes]:
    """Lines of a web server's log with long queries and agents; every two hundredth has the words of a rule."""
    draw = random.Random(SEED)
    for number in range(lines):
        path = "/".join(_word(draw, 8) for _ in range(4))
        query = "&".join(f"{_word(draw, 8)}={draw.randrange(10**6)}" for _ in range(8))
        if draw.random() < HIT_SHARE:
            query = f"{'-'.join(_marks(draw.randrange(YARA_RULES)))}&{query}"
        start = f"10.{draw.randrange(60)}.{draw.randrange(64)}.{draw.randrange(250)} - - [25/Nov/2026:07:44:{number % 60:02}] "
        line = f'{start}"GET /{path}?{query} HTTP/1.1" 200 {draw.randrange(10**5)} "Mozilla/5.0 (X11; Linux x86_64) Gecko/2010 '
        yield f"{line:x<{REQUEST_BYTES - 1}}".encode()[: REQUEST_BYTES - 1] + b'"\n'


def _word(draw: random.Random, letters: int) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=letters))
