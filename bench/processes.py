"""Synthetic process creations as recorded on Windows, twelve text fields each, and the rules that they are read with.

One event of fifty is made to suit a rule drawn at random: each literal that the rule asks for stands where it is asked for,
of alternatives one. Many of them still miss, for an exclusion or for two literals that want the same place.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.corpus import SEED
from ringfence.sigma import rules
from ringfence.sigma.rules import Rule
from ringfence.sigma.tree import And, Node, Or, Shape, Text, Wildcard, shape_of

SUITED_SHARE = 0.02
ALL = "sigma-all"
_PROGRAMS = (
    ("svchost.exe", "Host Process for Windows Services", "Microsoft® Windows® Operating System", "Microsoft Corporation"),
    ("chrome.exe", "Google Chrome", "Google Chrome", "Google LLC"),
    ("Code.exe", "Visual Studio Code", "Visual Studio Code", "Microsoft Corporation"),
    ("OUTLOOK.EXE", "Microsoft Outlook", "Microsoft Outlook", "Microsoft Corporation"),
    ("java.exe", "OpenJDK Platform binary", "OpenJDK Platform 21", "Eclipse Adoptium"),
    ("backup-agent.exe", "Backup Agent", "Example Backup", "Example Ltd"),
    ("Teams.exe", "Microsoft Teams", "Microsoft Teams", "Microsoft Corporation"),
    ("SearchIndexer.exe", "Microsoft Windows Search Indexer", "Windows® Search", "Microsoft Corporation"),
)
_FOLDERS = ("C:\\Program Files\\Vendor\\Suite", "C:\\Windows\\System32", "C:\\Program Files (x86)\\Tools", "D:\\apps\\current")
_PARENTS = (
    "C:\\Windows\\System32\\services.exe",
    "C:\\Windows\\explorer.exe",
    "C:\\Program Files\\Vendor\\Suite\\launcher.exe",
)
_LEVELS = ("Medium", "High", "System", "Low")
_FOR_ONE, _FOR_MANY = "x", " mid "


def write(folder: Path, found: Path, events: Mapping[int, int]) -> None:
    """So many of the first rules of windows/process_creation in a folder, with so many events; and a link to all rules."""
    paths = sorted(found.glob("**/rules/windows/process_creation/*.yml"))
    loaded = [(path, one) for path in paths if len(one := rules.load([path]).rules) == 1]
    (folder / ALL).symlink_to(found.resolve())
    for count, size in events.items():
        chosen = loaded[:count]
        target = folder / f"sigma-{count}"
        target.mkdir()
        for path, _ in chosen:
            shutil.copy(path, target)
        with (folder / f"processes-{count}.json").open("wb") as file:
            file.writelines(lines([rule for _, ones in chosen for rule in ones], size))


def lines(for_rules: Sequence[Rule], count: int) -> Iterator[bytes]:
    """Events as JSON lines of some 600 bytes."""
    draw = random.Random(SEED)
    for number in range(count):
        event = _event(draw, number)
        if draw.random() < SUITED_SHARE:
            for text in _wanted(draw.choice(for_rules).condition, draw):
                if text.field in event:
                    event[text.field] = _with(event[text.field], text)
        yield json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _event(draw: random.Random, number: int) -> dict[str, str]:
    name, description, product, company = draw.choice(_PROGRAMS)
    folder, parent = draw.choice(_FOLDERS), draw.choice(_PARENTS)
    image = f"{folder}\\{name}"
    options = (
        f"--id {draw.randrange(10**9)} --profile u{draw.randrange(500)} --port {draw.randrange(1024, 65_535)} --log-level info"
    )
    return {
        "Image": image, "CommandLine": f'"{image}" {options}', "ParentImage": parent,
        "ParentCommandLine": f"{parent} -instance {draw.randrange(10**6)}", "OriginalFileName": name, "Description": description,
        "Product": product, "Company": company, "User": f"EXAMPLE\\user{draw.randrange(2_000)}", "IntegrityLevel": draw.choice(_LEVELS),
        "CurrentDirectory": f"{folder}\\", "Hashes": f"SHA256={draw.getrandbits(256):064X},IMPHASH={number:032X}",
    }  # fmt: skip


def _wanted(node: Node, draw: random.Random) -> Iterator[Text]:
    match node:
        case And(children):
            for child in children:
                yield from _wanted(child, draw)
        case Or(children) if children:
            yield from _wanted(draw.choice(children), draw)
        case Text():
            yield node


def _with(value: str, text: Text) -> str:
    """The value with what a pattern asks for in the place that it names."""
    written = "".join(
        part if isinstance(part, str) else _FOR_MANY if part is Wildcard.MANY else _FOR_ONE for part in text.parts
    )
    shape, literal = shape_of(text.parts)
    match shape:
        case Shape.STARTS:
            return literal + value
        case Shape.ENDS:
            return value + literal
        case Shape.CONTAINS:
            middle = len(value) // 2
            return f"{value[:middle]} {literal} {value[middle:]}"
        case _:
            return written
