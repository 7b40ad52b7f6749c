"""The embedded bus: SQLite segment files in a directory, used by one process or by the stages of one machine.

A commit is on the disk (fsync) when it returns. Steps that wait at the same time share a transaction (`bus/appender.py`). Reads
have a thread and connections of their own, so they never wait for an fsync. Other processes are noticed by polling, every
millisecond at first and then less often; this process' own commits wake its readers at once. There is one partition, 0.

Not supported: network file systems (SQLite's WAL needs shared memory), and a group shared by several processes: the second one
that joins is refused (`Directory.own_group`). A commit that is cancelled may still become durable; `join` tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ringfence.batch import Position, Record, Step
from ringfence.bus import BusSettings, Gap, RequiredGroups, segments
from ringfence.bus.appender import Append, Appender
from ringfence.bus.directory import Directory
from ringfence.bus.segments import Facts, is_damage
from ringfence.errors import Fenced, Permanent

T = TypeVar("T")

POLL_SECS = (0.001, 0.05)  # first and longest pause between two looks for commits of other processes
PAGE_RECORDS, PAGE_BYTES = 64, 8 << 20  # what unread() fetches at a time
OPEN_FILES = 8  # connections that a reader keeps; groups that lag far behind read different files


@dataclass(slots=True)
class _Page:
    """What one look at the files found: the records, where to go on, and what was missing on the way."""

    found: list[tuple[Position, Record]] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    size: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    damaged: list[tuple[str, int]] = field(default_factory=list)

    def takes(self, record: Record, max_records: int, max_bytes: int) -> bool:
        """Whether a record still fits; the first one always does."""
        return len(self.found) < max_records and (not self.found or self.size + record.size <= max_bytes)


@dataclass(slots=True)
class _BrokenFileError(Exception):
    """A segment file that was opened to be read turned out to be damaged."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Segment:
    """What a reader knows of a file: where each topic begins and what number it has in record ids."""

    number: int
    bases: Mapping[str, int]
    topics: Mapping[str, int]


class _Reader:
    """Reads segment files; everything here runs on the one reader thread."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._segments: list[_Segment] = []
        self._open: dict[int, sqlite3.Connection] = {}

    def page(self, cursors: Mapping[str, int], max_records: int, max_bytes: int) -> _Page:
        """The next records of some topics, taken in the order of `cursors`."""
        page = _Page(cursors=dict(cursors))
        for topic in cursors:
            try:
                self._read_topic(topic, page, max_records, max_bytes)
            except sqlite3.OperationalError:
                if not self._refresh():  # else another process dropped the file between our look at the names and the open
                    raise
                self._read_topic(topic, page, max_records, max_bytes)
        return page

    def head(self, group: str, topic: str) -> tuple[int, int]:
        """The committed offset of a group and the next offset of a topic."""
        facts = self.facts("offset", "head")
        return facts.number("offset", group, topic) or 0, facts.number("head", topic) or 0

    def facts(self, *kinds: str) -> Facts:
        """The facts of the active file."""
        self._refresh()
        number = self._segments[-1].number
        try:
            return segments.load(self._connection(number), *kinds)
        except Exception as error:
            raise _broken(error, number) from error

    def close(self) -> None:
        """Close every file."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()
        self._segments.clear()

    def _read_topic(self, topic: str, page: _Page, max_records: int, max_bytes: int) -> None:
        """Add records of one topic to the page, going from file to file until it is full or the head is reached."""
        while True:
            index = self._locate(topic, page)
            if len(page.found) >= max_records or not self._read_file(
                self._segments[index], topic, page, max_records, max_bytes
            ):
                return
            if index < len(self._segments) - 1:
                self._leave_file(topic, self._segments[index + 1].bases.get(topic, 0), page)
            elif not self._refresh():
                return

    def _locate(self, topic: str, page: _Page) -> int:
        """The index of the file in which a topic goes on; skips what was dropped before the first one."""
        if not self._segments or not self._segments[-1].topics.get(topic):
            self._refresh()
        self._leave_file(topic, self._segments[0].bases.get(topic, 0), page)
        cursor = page.cursors[topic]
        return max(index for index, segment in enumerate(self._segments) if segment.bases.get(topic, 0) <= cursor)

    def _leave_file(self, topic: str, following: int, page: _Page) -> None:
        missing = following - page.cursors[topic]
        if missing > 0:
            page.skipped[topic] = page.skipped.get(topic, 0) + missing
            page.cursors[topic] = following

    def _read_file(self, segment: _Segment, topic: str, page: _Page, max_records: int, max_bytes: int) -> bool:
        """Add records from one file; False when the page is full."""
        topic_number = segment.topics.get(topic)
        if topic_number is None:
            return True
        try:
            stored = segments.records(self._connection(segment.number), topic_number, page.cursors[topic])
            with contextlib.closing(stored):
                for entry in stored:
                    if entry.record is None:
                        page.damaged.append((topic, entry.offset))
                        self._leave_file(topic, entry.offset + 1, page)
                        continue
                    if not page.takes(entry.record, max_records, max_bytes):
                        return False
                    page.found.append((Position(topic, 0, entry.offset), entry.record))
                    page.size += entry.record.size
                    page.cursors[topic] = entry.offset + 1
        except Exception as error:
            raise _broken(error, segment.number) from error
        return True

    def _refresh(self) -> bool:
        """Look which files there are; True if that changed."""
        numbers = self._directory.numbers()
        known = {segment.number: segment for segment in self._segments}
        changed = numbers != list(known)
        fresh = []
        for number in numbers:
            # topics are added to the newest file as they are first used, so what is known of it may be out of date
            if number in known and number != numbers[-1] and number != self._segments[-1].number:
                fresh.append(known[number])
                continue
            try:
                facts = segments.load(self._connection(number), "base", "topic")
            except Exception as error:
                raise _broken(error, number) from error
            fresh.append(_Segment(number, facts.numbers("base"), facts.numbers("topic")))
        self._segments = fresh
        for number in [number for number in self._open if number not in numbers]:
            self._open.pop(number).close()
        return changed

    def _connection(self, number: int) -> sqlite3.Connection:
        if number not in self._open:
            if len(self._open) >= OPEN_FILES:
                self._open.pop(next(iter(self._open))).close()
            self._open[number] = segments.connect(self._directory.segment(number))
        return self._open[number]


def _broken(error: Exception, number: int) -> Exception:
    return _BrokenFileError(number, str(error)) if is_damage(error) else error


@dataclass(slots=True)
class _Group:
    """A joined group: the lock that makes it ours, and the next offset to read of each topic."""

    lock: int
    cursors: dict[str, int] = field(default_factory=dict)
    counts_skips: dict[str, bool] = field(default_factory=dict)


class EmbeddedBus:
    """A `Bus` in a directory. `lost_total` counts, per group, records that were gone before it could read them."""

    def __init__(self, path: str, settings: BusSettings, required_groups: RequiredGroups) -> None:
        self.lost_total: Counter[str] = Counter()
        self._settings = settings
        self._required = required_groups
        self._directory = Directory(Path(path))
        self._groups: dict[str, _Group] = {}
        self._changed = asyncio.Event()
        self._appender: Appender | None = None
        self._reader = _Reader(self._directory)
        self._executor: ThreadPoolExecutor | None = None

    @property
    def transactions_total(self) -> int:
        """Transactions that this process committed."""
        return self._appender.transactions_total if self._appender else 0

    @property
    def steps_total(self) -> int:
        """Steps inside those transactions."""
        return self._appender.steps_total if self._appender else 0

    async def open(self) -> None:
        """Create or check the directory and the active file; sets a damaged one aside."""
        self._directory.prepare()
        loop = asyncio.get_running_loop()

        def announce() -> None:
            loop.call_soon_threadsafe(self._notify)

        self._appender = Appender(self._directory, self._settings, self._required, announce)
        self._executor = ThreadPoolExecutor(1, "ringfence-bus-reader")
        try:
            await asyncio.wrap_future(self._appender.start())
        except BaseException:
            await self.close()
            raise

    async def create_topics(self) -> Sequence[str]:
        """Nothing to make: a topic begins with its first record."""
        return ()

    async def join(self, group: str, topics: Sequence[str]) -> Mapping[str, bytes]:
        """Take the lock of the group, and read its state after everything that was committed before."""
        if group not in self._groups:
            self._groups[group] = _Group(self._directory.own_group(group))
        member = self._groups[group]
        appender = self._writer()
        facts = await asyncio.wrap_future(appender.call(lambda: appender.facts("offset", "state")))
        committed = {topic: facts.number("offset", group, topic) for topic in topics}
        member.cursors = {topic: offset or 0 for topic, offset in committed.items()}
        # what was dropped before a group began to read is no loss to it, unless it is one that must read everything
        required = self._required.get(group, ())
        member.counts_skips = {topic: offset is not None or topic in required for topic, offset in committed.items()}
        return facts.blobs("state", group)

    async def read(self, group: str, max_records: int, max_bytes: int, wait_secs: float) -> Sequence[tuple[Position, Record]]:
        """Return the next records; at least one if there is any, even if it alone exceeds `max_bytes`."""
        loop = asyncio.get_running_loop()
        member = self._member(group)
        deadline = loop.time() + wait_secs
        pause, longest = POLL_SECS
        while True:
            changed = self._changed
            page = await self._page(member.cursors, max_records, max_bytes)
            self._advance(group, member, page)
            if page.found or loop.time() >= deadline:
                return page.found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(min(deadline, loop.time() + pause)):
                    await changed.wait()
            pause = min(2 * pause, longest)

    def _advance(self, group: str, member: _Group, page: _Page) -> None:
        """Move the cursors past a page; the topic that came first comes last the next time, so that none is starved."""
        topics = list(page.cursors)
        member.cursors = {topic: page.cursors[topic] for topic in topics[1:] + topics[:1]}
        self.lost_total[group] += sum(count for topic, count in page.skipped.items() if member.counts_skips[topic])
        member.counts_skips = dict.fromkeys(topics, True)

    async def _page(self, cursors: Mapping[str, int], max_records: int, max_bytes: int) -> _Page:
        """Read a page; a damaged file is set aside and a damaged record noted, and reading goes on behind it."""
        while True:
            try:
                page = await self._on_reader(lambda: self._reader.page(cursors, max_records, max_bytes))
            except _BrokenFileError as broken:
                await self._set_aside(broken)
                continue
            if page.damaged:
                await self._note([Gap(topic, at, at + 1, "damaged", segments.now_us()) for topic, at in page.damaged])
            return page

    async def _set_aside(self, broken: _BrokenFileError) -> None:
        appender = self._writer()
        await asyncio.wrap_future(appender.call(lambda: appender.set_aside(broken.number, broken.reason)))
        await self._on_reader(self._reader.close)  # an open file can be read on after it was renamed

    async def _note(self, gaps: Sequence[Gap]) -> None:
        appender = self._writer()
        await asyncio.wrap_future(appender.call(lambda: appender.note_gaps(gaps)))

    async def commit(self, step: Step) -> None:
        """Put a step on the disk, together with the others that wait at this moment."""
        self._member(step.group)
        append = Append.of(step)
        self._writer().submit(append)
        await asyncio.wrap_future(append.outcome)

    async def states(self) -> Mapping[str, Mapping[str, bytes]]:
        """The committed state of every group that has any."""
        facts = await self._on_reader(lambda: self._reader.facts("state"))
        groups = {owner for kind, owner, _ in facts if kind == "state"}
        return {group: facts.blobs("state", group) for group in groups}

    async def gaps(self) -> Sequence[Gap]:
        """Records that are gone for ever, as noted on the disk."""
        return (await self._on_reader(lambda: self._reader.facts("gap"))).gaps()

    def unread(self, group: str, topic: str) -> AsyncIterator[tuple[Position, Record]]:
        """What a group has not committed yet, up to the head as of the call."""
        return self._unread(self._on_reader(lambda: self._reader.head(group, topic)), topic)

    async def _unread(self, bounds: asyncio.Future[tuple[int, int]], topic: str) -> AsyncIterator[tuple[Position, Record]]:
        cursor, head = await bounds
        while cursor < head:
            page = await self._page({topic: cursor}, PAGE_RECORDS, PAGE_BYTES)
            for position, record in page.found:
                if position.offset >= head:
                    return
                yield position, record
            if page.cursors[topic] == cursor:
                return
            cursor = page.cursors[topic]

    async def close(self) -> None:
        """Finish queued commits, leave all groups and close every file."""
        if self._executor is not None:
            await self._on_reader(self._reader.close)
            self._executor.shutdown(wait=False)
            self._executor = None
        if self._appender is not None:
            await asyncio.to_thread(self._appender.stop)
            self._appender = None
        for member in self._groups.values():
            os.close(member.lock)
        self._groups.clear()

    def _on_reader(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._executor is None:
            raise Permanent(f"the bus in {self._directory.path} is not open")
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _writer(self) -> Appender:
        if self._appender is None:
            raise Permanent(f"the bus in {self._directory.path} is not open")
        return self._appender

    def _member(self, group: str) -> _Group:
        if group not in self._groups:
            raise Fenced(f"group {group} has not been joined here")
        return self._groups[group]

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
