"""`ringfence decode FORMAT FILE`: what a decoder makes of a file, one ECS JSON document a line, problems on stderr.

Exit 1 when there were problems, 74 when the file cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ringfence import documents, registry, schema
from ringfence.batch import Batch, Decoded, Frames, Header, Problem, Source
from ringfence.cli.options import Subparsers, add_year, year_of
from ringfence.component import Format
from ringfence.errors import ExitCode, Permanent
from ringfence.files import identity_of
from ringfence.telemetry import printable

CHUNK_BYTES = 1024 * 1024


def add(verbs: Subparsers) -> None:
    """Declare the verb."""
    known = registry.formats()
    verb = verbs.add_parser(
        "decode",
        help="show what a decoder makes of a file",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Formats:\n"
        + "\n".join(f"  {name:12} {entry.meaning}" for name, entry in known.items())
        + "\n\nExample: ringfence decode eve eve.json",
    )
    verb.add_argument("format", choices=sorted(known), metavar="FORMAT", help=f"one of {', '.join(sorted(known))}")
    verb.add_argument("file", metavar="FILE", help="a file, or - for standard input")
    add_year(verb)
    verb.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Decode and print."""
    chosen = registry.formats()[arguments.format]
    if arguments.file == "-":
        found = show(chosen, sys.stdin.buffer, "-", year_of(sys.stdin.buffer, arguments.year))
    else:
        try:
            with Path(arguments.file).open("rb") as stream:
                found = show(chosen, stream, arguments.file, year_of(stream, arguments.year))
        except BrokenPipeError:
            raise  # of our output, not of the file
        except OSError as error:
            raise Permanent(f"{arguments.file} cannot be read: {error.strerror}") from None
    return ExitCode.FOUND if found else ExitCode.OK


def show(chosen: Format, stream: BinaryIO, name: str, year: int) -> int:
    """Print every row and every problem; returns how many problems there were."""
    decoder = chosen.decoder(year)
    problems = rows = 0
    for frames in frames_in(chosen, stream, name):
        decoded = decoder.feed(frames)
        sys.stdout.buffer.writelines(in_order(decoded, chosen.module))
        for problem in decoded.problems:
            sys.stderr.write(printable(_sentence(problem, rows)) + "\n")
        problems += len(decoded.problems)
        rows += len(frames)
    sys.stdout.buffer.flush()
    return problems


def frames_in(chosen: Format, stream: BinaryIO, name: str) -> Iterator[Frames]:
    """The frames of a stream, a chunk at a time; positions are byte offsets."""
    framer = chosen.framer()
    source = None
    at = 0
    while chunk := stream.read(CHUNK_BYTES):
        source = source or Source(name, identity_of(chunk[:1024], 0))
        data, offsets = framer.cut(chunk)
        yield _frames(data, offsets, source, at)
        at += len(data)
    data, offsets = framer.finish()
    yield _frames(data, offsets, source or Source(name, 0), at)


def _frames(data: bytes, offsets: np.ndarray[tuple[int], np.dtype[np.int64]], source: Source, at: int) -> Frames:
    count = len(offsets) - 1
    positions = (offsets[:-1] + at).astype(np.uint64)
    return Frames(data, offsets, np.zeros(count, np.int64), np.zeros(count, np.uint16), (source,), positions)


def in_order(decoded: Decoded, module: str) -> list[bytes]:
    """The documents of all rows in the order of the stream."""
    lines: list[bytes] = []
    places = []
    for event_class, frame in decoded.rows.items():
        header = Header("", schema.VERSION, "", event_class, "", module, 0, frame.height, 0, 0, 0)
        lines += b"".join(documents.render(Batch(header, frame))).splitlines(keepends=True)
        places.append(frame["ringfence.event.position"].to_numpy())
    order = np.argsort(np.concatenate(places), kind="stable") if places else ()
    return [lines[index] for index in order]


def _sentence(problem: Problem, rows_before: int) -> str:
    where = [f"row {rows_before + (problem.row or 0)}"]
    if problem.offset is not None:
        where.append(f"byte {problem.offset} (stream byte {problem.position + problem.offset})")
    if problem.path:
        where.append(problem.path)
    return f"{', '.join(where)}: {problem.code}: {problem.detail}"
