"""`ringfence dlq list|show|replay`: what was rejected, why, and a second try.

A replay sends a frame back through the decoder of the collector that rejected it, under the id that it would have had, and
a block that could not be read back to its topic. A letter that fails again stays, keeps its first cause, and is tried at most MAX_ATTEMPTS times.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from rich.table import Table

from ringfence import bus, codec, config, deadletter, documents
from ringfence.batch import Frames, Position, Record, Source, Step
from ringfence.batching import Batcher
from ringfence.cli.options import Subparsers, add_config, counted, say
from ringfence.component import Bus, Decoder
from ringfence.config import Config
from ringfence.console import show
from ringfence.deadletter import DeadLetter
from ringfence.errors import ExitCode, Permanent
from ringfence.ledger import LEDGER_STATE, Counts
from ringfence.runtime import bus_of
from ringfence.stages import SEQUENCE_STATE, TOPICS_STATE, next_offsets
from ringfence.telemetry import printable

GROUP = "ringfence.dlq"
MAX_ATTEMPTS = 5


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    verb = verbs.add_parser(
        "dlq",
        help="look at rejected input and try it again",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = verb.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="one line per dead letter, and totals by reason")
    showing = actions.add_parser("show", help="one dead letter whole, with its bytes")
    again = actions.add_parser("replay", help="send dead letters back through the stage that rejected them")
    showing.add_argument("id", help="id of the letter, or its beginning")
    for action in (listing, showing, again):
        add_config(action, positional=False)
    for action in (listing, again):
        action.add_argument("--component", help="only letters of this collector, processor or sink")
        action.add_argument("--reason", help="only letters with this reason")
    for action in (listing, showing):
        action.add_argument("--json", action="store_true", help="JSON lines")
    listing.set_defaults(run=_list)
    showing.set_defaults(run=_show)
    again.set_defaults(run=_replay)


async def letters_of(engine: Bus) -> AsyncIterator[DeadLetter]:
    """Every letter that was not replayed yet, oldest first."""
    async for _, record in engine.unread(GROUP, bus.DEAD):
        yield deadletter.decode(record)


async def _collected(loaded: Config) -> list[DeadLetter]:
    engine = bus_of(loaded)
    try:
        await engine.open()
        return [letter async for letter in letters_of(engine)]
    finally:
        await engine.close()


def _list(arguments: argparse.Namespace) -> int:
    letters = [letter for letter in asyncio.run(_collected(config.load(arguments.config))) if _wanted(letter, arguments)]
    if arguments.json:
        if letters:
            sys.stdout.buffer.writelines(documents.render(deadletter.to_batch(letters)))
            sys.stdout.buffer.flush()
        return ExitCode.FOUND if letters else ExitCode.OK
    if not letters:
        say("No dead letters.")
        return ExitCode.OK
    table = Table(title=counted(len(letters), "dead letter"), title_justify="left")
    for heading in ("id", "stage", "component", "reason", "where", "what", "tries"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "id")
    for letter in letters:
        cells = (letter.id, letter.stage, letter.component, letter.reason, _where(letter), letter.detail, str(letter.attempts))
        table.add_row(*(printable(cell).replace("[", "\\[") for cell in cells))
    show(table)
    for (component, reason), count in Counter((letter.component, letter.reason) for letter in letters).most_common():
        say(f"{count:8,}  {component}  {reason}")
    return ExitCode.FOUND


def _where(letter: DeadLetter) -> str:
    place = f" byte {letter.offset}" if letter.offset >= 0 else ""
    return f"{letter.input} at {letter.position}{place}{' ' + letter.path if letter.path else ''}"


def _wanted(letter: DeadLetter, arguments: argparse.Namespace) -> bool:
    return arguments.component in (None, letter.component) and arguments.reason in (None, letter.reason)


def _show(arguments: argparse.Namespace) -> int:
    letters = asyncio.run(_collected(config.load(arguments.config)))
    found = [letter for letter in letters if letter.id.startswith(arguments.id)]
    if not found:
        raise Permanent(f"no dead letter has an id that begins with {arguments.id!r}; `ringfence dlq list` names them")
    if arguments.json:
        sys.stdout.buffer.writelines(documents.render(deadletter.to_batch(found)))
        sys.stdout.buffer.flush()
        return ExitCode.OK
    for letter in found:
        lines = {
            "id": letter.id, "stage": letter.stage, "component": letter.component, "reason": letter.reason, "detail": letter.detail,
            "input": letter.input, "position": letter.position, "row": letter.row, "byte": letter.offset, "path": letter.path,
            "first failed": documents.rfc3339(pl.Series([letter.failed_us]))[0], "attempts": letter.attempts, "length": letter.length,
        }  # fmt: skip
        for name, value in lines.items():
            if value not in ("", -1):
                say(f"{name:>12}: {value}")
        say(hex_dump(letter.payload, letter.offset))
    return ExitCode.OK


def hex_dump(payload: bytes, marked: int, most: int = 1024) -> str:
    """Sixteen bytes a line in hexadecimal and text, the byte at fault between brackets."""
    lines = []
    for start in range(0, min(len(payload), most), 16):
        row = payload[start : start + 16]
        digits = "".join(f"[{byte:02x}]" if start + index == marked else f" {byte:02x} " for index, byte in enumerate(row))
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{start:08x} {digits:<64} {text}")
    if len(payload) > most:
        lines.append(f"... {len(payload) - most:,} more bytes")
    return "\n".join(lines)


@dataclass
class _Outcome:
    replayed: int = 0
    failed: int = 0
    kept: int = 0


def _replay(arguments: argparse.Namespace) -> int:
    outcome = asyncio.run(_replayed(config.load(arguments.config), arguments))
    say(f"{outcome.replayed:,} replayed, {outcome.failed:,} failed again, {outcome.kept:,} left as they were")
    return ExitCode.FOUND if outcome.failed else ExitCode.OK


async def _replayed(loaded: Config, arguments: argparse.Namespace) -> _Outcome:
    engine = bus_of(loaded)
    outcome = _Outcome()
    try:
        await engine.open()
        state = await engine.join(GROUP, (bus.DEAD,))
        # letters that fail or are not wanted are written again behind the end: read only what is there now
        left = len([letter async for letter in letters_of(engine)])
        second = _SecondTry(loaded, state)
        while left > 0:
            records = (await engine.read(GROUP, min(left, 1000), 8 * 1024 * 1024, 1.0))[:left]
            if not records:
                break
            left -= len(records)
            await engine.commit(second.step(records, arguments, outcome))
    finally:
        await engine.close()
    return outcome


def _can_be_replayed(letter: DeadLetter) -> bool:
    """A whole frame that a decoder refused, or a whole block of the events topic that could not be read."""
    is_block = letter.stage == "process" and letter.headers is not None
    return (is_block or letter.stage == "collect") and letter.attempts < MAX_ATTEMPTS and letter.length == len(letter.payload)


class _SecondTry:
    """Decodes dead letters again and makes the steps that move them on."""

    def __init__(self, loaded: Config, kept: Mapping[str, bytes]) -> None:
        self._loaded = loaded
        self._decoders: dict[str, tuple[Decoder, str]] = {}
        self._sequence = int(kept.get(SEQUENCE_STATE, b"0"))
        self._counts = Counts.decode(kept.get(LEDGER_STATE))
        self._topics = Counts.decode(kept.get(TOPICS_STATE))

    def step(self, records: Sequence[tuple[Position, Record]], arguments: argparse.Namespace, outcome: _Outcome) -> Step:
        events: list[Record] = []
        back: list[Record] = []
        for _, record in records:
            letter = deadletter.decode(record)
            if not _wanted(letter, arguments) or not _can_be_replayed(letter):
                outcome.kept += 1
                back.append(record)
                continue
            made = self._again(letter)
            if made:
                outcome.replayed += 1
                events += made
            else:
                outcome.failed += 1
                back.append(deadletter.encode(deadletter.tried_again(letter)))
        self._counts.received += len(records)
        self._counts.done += len(records) - len(back)
        self._counts.dead += len(back)
        self._counts.wrote(bus.EVENTS, codec.rows_in(events))
        self._counts.wrote(bus.DEAD, len(back))
        self._topics.wrote(bus.DEAD, len(records))
        state = {
            SEQUENCE_STATE: b"%d" % self._sequence,
            LEDGER_STATE: self._counts.encode(),
            TOPICS_STATE: self._topics.encode(),
        }
        outputs = {topic: part for topic, part in ((bus.EVENTS, events), (bus.DEAD, back)) if part}
        return Step(GROUP, outputs, next_offsets(records), state)

    def _again(self, letter: DeadLetter) -> list[Record]:
        """The records that the letter becomes; none when it fails again."""
        return [Record(b"0", letter.headers, letter.payload)] if letter.headers else self._decoded(letter)

    def _decoded(self, letter: DeadLetter) -> list[Record]:
        build = self._loaded.collectors.get(letter.component)
        if build is None:
            raise Permanent(
                f"collector {letter.component!r} of a dead letter is not in the configuration; name its letters away with --component"
            )
        if letter.component not in self._decoders:
            collector = build()
            self._decoders[letter.component] = (collector.decoder, collector.module)
        decoder, module = self._decoders[letter.component]
        decoded = decoder.feed(_frame_of(letter))
        if decoded.problems or not decoded.taken:
            return []
        batcher = Batcher(letter.component, module, self._loaded.batching, 1, self._sequence)
        batcher.add(decoded.rows, 0.0)
        records = [record for key, batch in batcher.take(letter.failed_us) for record in codec.encode(batch, key)]
        self._sequence = batcher.sequence
        return records


def _frame_of(letter: DeadLetter) -> Frames:
    return Frames(
        letter.payload,
        np.array([0, len(letter.payload)], np.int64),
        np.array([letter.failed_us], np.int64),
        np.zeros(1, np.uint16),
        (Source(letter.input, letter.identity),),
        np.array([letter.position], np.uint64),
    )
