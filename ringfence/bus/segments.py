"""One segment file of the embedded bus: an SQLite database that holds records of all topics and the facts of its time.

    records   id = topic number << 48 | offset; key, headers (msgpack), value, crc32c of the three
    facts     small named values, each with its own crc32c, because SQLite itself does not notice a flipped bit in a value:
              topic  <topic>              number of the topic in record ids, the same in all files
              base   <topic>              first offset that belongs to this file
              prior  <topic>              `base` of the file before, which tells what was lost if that file is damaged
              head   <topic>              next offset to be given out
              offset <group> <topic>      next offset that the group has to read
              state  <group> <component>  what the component remembers
              gap    <topic> <first>      records that are gone (msgpack of `Gap`)
              created                     microseconds since the epoch, UTC
              begun                       bytes of the file before its first record; what it has grown by decides when it is full

Only the newest file is written, so only its facts are current; an older one keeps those of the moment when the next was begun.
`PRAGMA user_version` is the version of this format.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from crc32c import crc32c

from ringfence.batch import Record
from ringfence.bus import Gap

FORMAT = 1
PAGE_BYTES = 32 * 1024  # fewer pages per block than the default of 4 KiB
CHECKPOINT_PAGES = 512  # 16 MiB of WAL, the bytes of 4,000 pages of the default size
BUSY_SECS = 30.0  # how long another process may hold the write lock; a roll or a group of steps takes milliseconds
OFFSET_BITS = 48
_SCHEMA = """
CREATE TABLE records (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, headers BLOB NOT NULL, value BLOB NOT NULL, crc INTEGER NOT NULL
);
CREATE TABLE facts (
    kind TEXT NOT NULL, owner TEXT NOT NULL, name TEXT NOT NULL, value NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (kind, owner, name)
);
"""

FactKey = tuple[str, str, str]
Fact = tuple[FactKey, int | bytes]
Row = tuple[bytes, bytes, bytes, int]
"""Key, packed headers, value and checksum of a record, ready to be inserted."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_headers = msgspec.msgpack.Decoder(dict[str, bytes]).decode
_unpack_gap = msgspec.msgpack.Decoder(Gap).decode


class DamagedError(Exception):
    """The file cannot be trusted: its structure or a checksum is wrong."""


class NewerFormatError(Exception):
    """The file was written by a later version of ringfence."""


def now_us() -> int:
    """Microseconds since the epoch, UTC: the age of files and gaps is for people, so it is not event time."""
    return time.time_ns() // 1000


def pack(record: Record) -> Row:
    """Make a record ready for `append`."""
    headers = _pack(dict(record.headers))
    return record.key, headers, record.value, _checksum(record.key, headers, record.value)


def _checksum(key: bytes, headers: bytes, value: bytes) -> int:
    return int(crc32c(value, crc32c(headers, crc32c(key))))


def _fact_checksum(key: FactKey, value: int | bytes) -> int:
    return int(crc32c(value if isinstance(value, bytes) else b"%d" % value, crc32c("\0".join(key).encode())))


class Facts(dict[FactKey, int | bytes]):
    """The facts of one file, by kind, owner and name."""

    def number(self, kind: str, owner: str, name: str = "") -> int | None:
        """A fact that is an integer, or None if there is none."""
        value = self.get((kind, owner, name))
        return value if isinstance(value, int) else None

    def numbers(self, kind: str) -> dict[str, int]:
        """The integers of one kind by owner."""
        return {owner: value for (of, owner, _), value in self.items() if of == kind and isinstance(value, int)}

    def blobs(self, kind: str, owner: str) -> dict[str, bytes]:
        """The byte strings of one kind and owner by name."""
        return {name: value for (of, at, name), value in self.items() if (of, at) == (kind, owner) and isinstance(value, bytes)}

    def gaps(self) -> list[Gap]:
        """Every gap, in order of topic and offset."""
        found = [_unpack_gap(value) for (kind, _, _), value in self.items() if kind == "gap" and isinstance(value, bytes)]
        return sorted(found, key=lambda gap: (gap.topic, gap.first))

    def with_gaps(self, gaps: Iterable[Gap]) -> list[Fact]:
        """The facts to write for new gaps, where one that continues an earlier gap replaces it."""
        known = {(gap.topic, gap.next, gap.cause): gap for gap in self.gaps()}
        changed: list[Fact] = []
        for gap in gaps:
            before = known.get((gap.topic, gap.first, gap.cause))
            joined = gap if before is None else Gap(gap.topic, before.first, gap.next, gap.cause, gap.at_us)
            changed.append((("gap", joined.topic, str(joined.first)), _pack(joined)))
        return changed

    def successor(self, created_us: int) -> Facts:
        """The facts that the next file begins with."""
        following = Facts({key: value for key, value in self.items() if key[0] not in ("base", "prior", "created", "begun")})
        following.update({("prior", topic, ""): base for topic, base in self.numbers("base").items()})
        following.update({("base", topic, ""): head for topic, head in self.numbers("head").items()})
        following["created", "", ""] = created_us
        return following


def create(path: Path, facts: Facts) -> None:
    """Make a new file, on the disk when this returns; the caller gives it its final name."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.executescript(
            f"PRAGMA page_size={PAGE_BYTES}; PRAGMA synchronous=FULL; PRAGMA user_version={FORMAT}; BEGIN; {_SCHEMA}"
        )
        put(connection, facts.items())
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        put(connection, [(("begun", "", ""), pages * PAGE_BYTES)])
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
    os.chmod(path, 0o600)


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing file for writing and reading, on the thread that will use it.

    Readers open it writable too, because whoever reads a WAL database has to be able to make its index. Raises
    NewerFormatError, DamagedError, or sqlite3.OperationalError if there is no such file.
    """
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_SECS, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise NewerFormatError(f"{path} has format {version}, this version of ringfence knows {FORMAT}")
        if version != FORMAT:
            raise DamagedError(f"{path} is not a segment file")
    except BaseException as error:
        connection.close()
        if is_damage(error):
            raise DamagedError(f"{path}: {error}") from error
        raise
    return connection


def is_damage(error: BaseException) -> bool:
    """Whether an error of SQLite means that the file itself is broken."""
    return isinstance(error, DamagedError) or (
        isinstance(error, sqlite3.DatabaseError)
        and getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    )


def check(connection: sqlite3.Connection) -> None:
    """Raise DamagedError if the structure of the file is broken; reads all of it, about 1 GB/s."""
    verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise DamagedError(str(verdict))


def load(connection: sqlite3.Connection, *kinds: str) -> Facts:
    """The facts of some kinds (all if none is named), each compared with its checksum."""
    facts = Facts()
    query = "SELECT kind, owner, name, value, crc FROM facts"
    if kinds:
        query += f" WHERE kind IN ({', '.join('?' * len(kinds))})"
    for kind, owner, name, value, crc in connection.execute(query, kinds):
        key = (kind, owner, name)
        if crc != _fact_checksum(key, value):
            raise DamagedError(f"the checksum of {kind} {owner} {name} is wrong")
        facts[key] = value
    return facts


def put(connection: sqlite3.Connection, facts: Iterable[Fact]) -> None:
    """Add or replace facts; the caller holds the transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?)",
        [(*key, value, _fact_checksum(key, value)) for key, value in facts],
    )


def last_offset(connection: sqlite3.Connection, topic_number: int) -> int | None:
    """The offset of the last record of a topic, or None if the file holds none."""
    bounds = (topic_number << OFFSET_BITS, (topic_number + 1) << OFFSET_BITS)
    (last,) = connection.execute("SELECT max(id) FROM records WHERE id >= ? AND id < ?", bounds).fetchone()
    return None if last is None else int(last) & ((1 << OFFSET_BITS) - 1)


def append(connection: sqlite3.Connection, topic_number: int, offset: int, rows: Sequence[Row]) -> None:
    """Insert records from `offset` on; the caller holds the transaction."""
    first = topic_number << OFFSET_BITS | offset
    connection.executemany(
        "INSERT INTO records VALUES (?, ?, ?, ?, ?)", [(first + index, *row) for index, row in enumerate(rows)]
    )


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it was found; `record` is None when its checksum is wrong."""

    offset: int
    record: Record | None


def records(connection: sqlite3.Connection, topic_number: int, offset: int) -> Generator[Stored, None, None]:
    """The records of a topic from `offset` on; close the iterator to end the read transaction."""
    first = topic_number << OFFSET_BITS | offset
    query = "SELECT id, key, headers, value, crc FROM records WHERE id >= ? AND id < ? ORDER BY id"
    cursor = connection.execute(query, (first, (topic_number + 1) << OFFSET_BITS))
    try:
        for identity, key, headers, value, crc in cursor:
            sound = crc == _checksum(key, headers, value)
            record = Record(key, _unpack_headers(headers), value) if sound else None
            yield Stored(identity & ((1 << OFFSET_BITS) - 1), record)
    finally:
        cursor.close()
