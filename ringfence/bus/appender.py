"""The writing side of the embedded bus: one thread that puts every waiting step into one transaction of the active file.

Several processes may append to one directory. Each transaction begins with BEGIN IMMEDIATE, which is the lock between them, and
then looks whether a next file exists: if so, another process rolled, and this one follows. Whoever finds the active file too
big makes the next one while it holds that lock, so that no commit can fall between the two.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from queue import SimpleQueue
from typing import TypeVar

from ringfence.batch import Step
from ringfence.bus import BusSettings, Gap, RequiredGroups, segments
from ringfence.bus.directory import Directory, is_disk_full
from ringfence.bus.segments import DamagedError, Fact, Facts, NewerFormatError, Row, is_damage
from ringfence.errors import Permanent, Retryable, RingfenceError

log = logging.getLogger(__name__)
T = TypeVar("T")

GROUP_BYTES = 16 << 20  # a transaction takes no more than about this many bytes of waiting steps, so that none waits for long
OVERSHOOT = 1.25  # of max_bytes: room for what the stages make of a backlog that fills it, else nothing could drain it
RETAIN_SECS = 10.0  # how often a commit also looks for files that are old enough to go
SPARE_BYTES = 1 << 20  # without a ballast: this much room must be free again before sources may go on after a full disk


@dataclass(slots=True)
class Append:
    """A step made ready on the caller's thread, and where to report its outcome."""

    group: str
    rows: Mapping[str, Sequence[Row]]
    facts: Sequence[Fact]
    size: int
    consumes: bool
    outcome: Future[None] = field(default_factory=Future)

    @classmethod
    def of(cls, step: Step) -> Append:
        """Pack the records of a step, which costs a checksum and no copy of the values."""
        facts: list[Fact] = [(("offset", step.group, position.topic), position.offset) for position in step.done]
        facts += [(("state", step.group, component), value) for component, value in step.state.items()]
        size = sum(record.size for records in step.outputs.values() for record in records)
        rows = {topic: [segments.pack(record) for record in records] for topic, records in step.outputs.items()}
        return cls(step.group, rows, facts, size, bool(step.done))

    @property
    def only_adds(self) -> bool:
        """Whether it can be refused without holding up whoever drains the bus."""
        return self.size > 0 and not self.consumes


@dataclass(slots=True)
class _Call:
    work: Callable[[], None]


_IDLE = _Call(lambda: None)


class Appender:
    """The writer thread of one process. `transactions_total` counts commits, `steps_total` the steps inside them."""

    def __init__(
        self, directory: Directory, settings: BusSettings, required: RequiredGroups, committed: Callable[[], None]
    ) -> None:
        self.transactions_total = 0
        self.steps_total = 0
        self._directory = directory
        self._settings = settings
        self._required = required
        self._committed = committed
        # with a bound of only a few files there would be nothing to drop before the active one alone reaches it
        self._segment_bytes = min(settings.segment_bytes, settings.max_bytes // 8)
        self._queue: SimpleQueue[Append | _Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ringfence-bus-writer", daemon=True)
        self._file: sqlite3.Connection | None = None
        self._number = 0
        self._begun_bytes = 0
        self._sealed_bytes = 0
        self._reserve_bytes = SPARE_BYTES
        self._starved = False
        self._retained_at = 0.0
        self._fault: Permanent | None = None

    # What other threads call.

    def start(self) -> Future[None]:
        """Start the thread; the future tells when the directory is open."""
        self._thread.start()
        return self.call(self._open)

    def submit(self, step: Append) -> None:
        """Queue a step; its outcome is set once it is on the disk or refused."""
        self._queue.put(step)

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Run something on the writer thread, after the steps that were queued before."""
        outcome: Future[T] = Future()

        def run() -> None:
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                outcome.set_result(work())
            except Exception as error:  # raised where the future is awaited
                outcome.set_exception(self._explain(error))

        self._queue.put(_Call(run))
        return outcome

    def stop(self) -> None:
        """Finish what is queued, close the file and end the thread. Blocks."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    # What runs on the thread.

    def _run(self) -> None:
        item = self._queue.get()
        while item is not None:
            following: Append | _Call | None = _IDLE
            if isinstance(item, _Call):
                item.work()
            else:
                batch, following = self._gather(item)
                self._settle([step for step in batch if step.outcome.set_running_or_notify_cancel()])
            item = self._queue.get() if following is _IDLE else following
        self._close()

    def _gather(self, first: Append) -> tuple[list[Append], Append | _Call | None]:
        """The steps that wait now and share the next transaction, and the item that ended the search for them."""
        batch, size = [first], first.size
        while size < GROUP_BYTES and not self._queue.empty():
            following = self._queue.get()
            if not isinstance(following, Append):
                return batch, following
            batch.append(following)
            size += following.size
        return batch, _IDLE

    def _settle(self, batch: Sequence[Append]) -> None:
        try:
            self._write(self._admit(batch))
        except Exception as error:  # every step has to get an outcome, whatever it is
            waiting = [step for step in batch if not step.outcome.done()]
            if self._lacks_room(error):
                self._starve(waiting)
            else:
                _refuse(waiting, self._explain(error))
        self._committed()

    def _write(self, batch: Sequence[Append]) -> None:
        """One transaction for all steps, and one fsync."""
        if not batch:
            return
        with self._transaction() as connection:
            facts = segments.load(connection, "topic", "head")
            changed: dict[segments.FactKey, int | bytes] = {}
            for step in batch:
                for topic, rows in step.rows.items():
                    self._append_rows(connection, facts, topic, rows, changed)
                changed.update(step.facts)
            segments.put(connection, changed.items())
        self.transactions_total += 1
        self.steps_total += len(batch)
        for step in batch:
            step.outcome.set_result(None)
        if time.monotonic() - self._retained_at > RETAIN_SECS:
            self._retain()

    def _append_rows(
        self,
        connection: sqlite3.Connection,
        facts: Facts,
        topic: str,
        rows: Sequence[Row],
        changed: dict[segments.FactKey, int | bytes],
    ) -> None:
        number, head = facts.number("topic", topic), facts.number("head", topic) or 0
        if number is None:
            number = len(facts.numbers("topic")) + 1
            changed["topic", topic, ""] = facts["topic", topic, ""] = number
            changed["base", topic, ""] = 0
        segments.append(connection, number, head, rows)
        changed["head", topic, ""] = facts["head", topic, ""] = head + len(rows)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """A transaction of the active file, whichever that is by the time that the lock is ours."""
        if self._fault is not None:
            raise self._fault
        while True:
            connection = self._active()
            connection.execute("BEGIN IMMEDIATE")
            try:
                if self._directory.has(self._number + 1):
                    following = self._directory.numbers()[-1]
                elif self._active_bytes() - self._begun_bytes < self._segment_bytes:
                    yield connection
                    connection.execute("COMMIT")
                    return
                else:
                    following = self._begin_next(segments.load(connection), self._number + 1)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            self._attach(following)

    def _begin_next(self, facts: Facts, number: int) -> int:
        """Make the file `number` that continues one with `facts`."""
        draft = self._directory.draft(number)
        try:
            segments.create(draft, facts.successor(segments.now_us()))
            self._directory.publish(draft, number)
        except BaseException:
            self._directory.draft(number)  # removes what was begun; on a full disk it would keep the room from others
            raise
        return number

    # Opening and closing.

    def _open(self) -> None:
        alone = self._directory.enter()
        numbers = self._directory.numbers()
        if not numbers:
            self._begin_next(Facts(), 1)
        elif alone:
            self._verify(numbers[-1], thorough=not self._directory.is_clean)
        self._attach(self._directory.numbers()[-1])
        if self._directory.keep_ballast(self._settings.ballast_bytes):
            self._reserve_bytes = self._settings.ballast_bytes
        if alone:
            self._directory.admit_others()
        self._retain()

    def _verify(self, number: int, thorough: bool) -> None:
        """Put a sound file in the place of the active one if that is damaged."""
        try:
            with contextlib.closing(segments.connect(self._directory.segment(number))) as connection:
                if thorough:
                    segments.check(connection)
                segments.load(connection)
        except Exception as error:
            if not is_damage(error):
                raise
            self._replace(number, str(error))

    def _replace(self, number: int, reason: str) -> None:
        """Go on in a new file after a damaged one, as if every record of that had been dropped."""
        facts = self._salvage(number)
        lost = [
            Gap(topic, facts.number("base", topic) or 0, head, "damaged", segments.now_us())
            for topic, head in facts.numbers("head").items()
        ]
        lost = [gap for gap in lost if gap.first < gap.next]
        facts.update(facts.with_gaps(lost))
        self._begin_next(facts, number + 1)
        self._directory.set_aside(number)
        log.error("a damaged bus file was set aside file=%s reason=%r lost=%s", self._directory.segment(number), reason, lost)

    def _salvage(self, number: int) -> Facts:
        """The facts of a damaged file, else those of the end of the file before with what the records tell."""
        with contextlib.suppress(DamagedError, sqlite3.DatabaseError):
            return self._facts_of(number)
        before = [other for other in self._directory.numbers() if other < number]
        facts = self._facts_of(before[-1]) if before else Facts()
        for topic, topic_number in facts.numbers("topic").items():
            facts["base", topic, ""] = facts.number("head", topic) or 0
            with (
                contextlib.suppress(DamagedError, sqlite3.DatabaseError),
                contextlib.closing(segments.connect(self._directory.segment(number))) as connection,
            ):
                last = segments.last_offset(connection, topic_number)
                if last is not None:
                    facts["head", topic, ""] = last + 1
        return facts

    def _attach(self, number: int) -> None:
        connection = segments.connect(self._directory.segment(number))
        try:
            begun_bytes = segments.load(connection, "begun").number("begun", "") or 0
        except BaseException:  # a full disk has no room for the index of the log: stay with the file before, and try again
            connection.close()
            raise
        self._detach()
        self._file, self._number, self._begun_bytes = connection, number, begun_bytes
        self._measure()

    def _detach(self) -> None:
        if self._file is not None:
            with contextlib.suppress(sqlite3.Error):  # a reader may hold the log; the last one to close it finishes this
                self._file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._file.close()
            self._file = None

    def _close(self) -> None:
        sound = self._file is not None and self._fault is None
        self._detach()
        self._directory.leave(sound)

    def _active(self) -> sqlite3.Connection:
        if self._file is None:
            raise Permanent(f"the bus in {self._directory.path} is not open")
        return self._file

    def _facts_of(self, number: int, *kinds: str) -> Facts:
        with contextlib.closing(segments.connect(self._directory.segment(number))) as connection:
            return segments.load(connection, *kinds)

    # What other parts of the bus want to know or to note.

    def facts(self, *kinds: str) -> Facts:
        """Facts as of the last commit; run it by `call`."""
        with self._transaction() as connection:
            return segments.load(connection, *kinds)

    def note_gaps(self, gaps: Sequence[Gap]) -> None:
        """Record lost records durably; run it by `call`."""
        with self._transaction() as connection:
            segments.put(connection, segments.load(connection, "gap").with_gaps(gaps))

    def set_aside(self, number: int, reason: str) -> None:
        """Take a damaged file out of use and record what was in it; run it by `call`."""
        if number == self._number:
            self._fault = Permanent(f"{self._directory.segment(number)} is damaged ({reason}): start again to set it aside")
            raise self._fault
        if not self._directory.has(number):
            return
        following, facts = self._first_sound(number + 1)
        # only the next file knows where this one began; if that is gone too, its own word has to do
        begins = facts.numbers("prior") if following == number + 1 else self._bases_of(number)
        ends = facts.numbers("base")
        gaps = [Gap(topic, begins.get(topic, 0), end, "damaged", segments.now_us()) for topic, end in ends.items()]
        gaps = [gap for gap in gaps if gap.first < gap.next]
        self.note_gaps(gaps)
        self._directory.set_aside(number)
        self._measure()
        log.error("a damaged bus file was set aside file=%s reason=%r lost=%s", self._directory.segment(number), reason, gaps)

    # Room: retention, the bound, the full disk.

    def _active_bytes(self) -> int:
        (pages,) = self._active().execute("PRAGMA page_count").fetchone()
        return int(pages) * segments.PAGE_BYTES

    def _measure(self) -> None:
        sizes = self._directory.sizes()
        self._sealed_bytes = sum(size for number, size in sizes.items() if number != self._number)

    def _total_bytes(self) -> int:
        return self._sealed_bytes + self._active_bytes()

    def _admit(self, batch: Sequence[Append]) -> Sequence[Append]:
        """The steps for which there is room; the others are refused."""
        if self._file is None or self._fault is not None:
            return batch
        incoming = sum(step.size for step in batch)
        if self._starved:
            self._recover()
        if incoming and self._total_bytes() + incoming > self._settings.max_bytes:
            self._make_room(incoming)
        admitted = []
        total = self._total_bytes()
        for step in batch:
            bound = self._settings.max_bytes * (1 if step.only_adds else OVERSHOOT)
            if step.only_adds and self._starved:
                step.outcome.set_exception(self._disk_full())
            elif step.size and total + step.size > bound:
                step.outcome.set_exception(self._bus_full(total))
            else:
                admitted.append(step)
                total += step.size
        return admitted

    def _bus_full(self, total: int) -> Retryable:
        facts = segments.load(self._active(), "head", "offset")
        behind = {
            group: sum((facts.number("head", topic) or 0) - (facts.number("offset", group, topic) or 0) for topic in topics)
            for group, topics in self._required.items()
        }
        group, count = max(behind.items(), key=lambda item: item[1], default=("(none)", 0))
        used = f"{total} of {self._settings.max_bytes} bytes"
        return Retryable(f"bus is full ({used} in {self._directory.path}): group {group} is behind by {count} records")

    def _disk_full(self) -> Retryable:
        return Retryable(f"the disk of the bus in {self._directory.path} is full ({self._directory.free_bytes()} bytes free)")

    def _make_room(self, incoming: int) -> None:
        """Drop what nobody needs any more, and then, if that is wanted, what is needed."""
        self._measure()
        self._retain(incoming)
        if self._settings.when_full == "drop_oldest":
            while self._total_bytes() + incoming > self._settings.max_bytes and self._drop_oldest():
                pass

    def _retain(self, incoming: int = 0) -> None:
        """Drop the oldest files that no required group needs: those too old, and more until retention and bound are kept."""
        self._retained_at = time.monotonic()
        sizes = self._directory.sizes()
        offsets = segments.load(self._active(), "offset")
        surplus = sum(sizes.values()) - self._settings.retention_bytes
        excess = self._total_bytes() + incoming - self._settings.max_bytes
        for number, following in pairwise(sorted(sizes)):
            try:
                end = self._facts_of(following, "base", "created")
            except Exception as error:
                if not is_damage(error):
                    raise
                self.set_aside(following, str(error))
                break
            age_secs = (segments.now_us() - (end.number("created", "") or 0)) / 1e6
            if max(surplus, excess) <= 0 and age_secs <= self._settings.retention_age_secs:
                break
            if following > self._number or self._needed(number, end, offsets):
                break
            self._directory.drop(number)
            surplus -= sizes[number]
            excess -= sizes[number]
        self._measure()

    def _needed(self, number: int, end: Facts, offsets: Facts) -> bool:
        """Whether a file, whose records end where `end` begins, holds some that a required group has not committed."""
        return any(self._unread_from(topic, offsets) < until for topic, _, until in self._spans(number, end))

    def _spans(self, number: int, end: Facts) -> list[tuple[str, int, int]]:
        """The topics that have records in a file, each with the offset of its first and that after its last."""
        begins = self._bases_of(number)
        spans = [(topic, begins.get(topic, 0), until) for topic, until in end.numbers("base").items()]
        return [span for span in spans if span[1] < span[2]]

    def _bases_of(self, number: int) -> Mapping[str, int]:
        """Where each topic begins in a file; nothing if it is damaged, as if it held all that came before the next one."""
        try:
            return self._facts_of(number, "base").numbers("base")
        except Exception as error:
            if not is_damage(error):
                raise
            return {}

    def _first_sound(self, number: int) -> tuple[int, Facts]:
        """The first file from `number` on whose facts can be read."""
        for candidate in self._directory.numbers():
            if number <= candidate < self._number:
                with contextlib.suppress(DamagedError, sqlite3.DatabaseError):
                    return candidate, self._facts_of(candidate, "base", "prior")
        return self._number, self._facts_of(self._number, "base", "prior")

    def _unread_from(self, topic: str, offsets: Facts) -> int:
        """The lowest offset of a topic that a required group still has to read."""
        readers = [group for group, topics in self._required.items() if topic in topics]
        return min((offsets.number("offset", group, topic) or 0 for group in readers), default=1 << segments.OFFSET_BITS)

    def _drop_oldest(self) -> bool:
        """Give up the oldest file although it is needed: first the note of what is lost on the disk, then the file."""
        numbers = self._directory.numbers()
        if len(numbers) < 2:
            return False
        spans = self._spans(numbers[0], self._first_sound(numbers[1])[1])
        offsets = segments.load(self._active(), "offset")
        gaps = [
            Gap(topic, max(begin, self._unread_from(topic, offsets)), until, "dropped", segments.now_us())
            for topic, begin, until in spans
        ]
        gaps = [gap for gap in gaps if gap.first < gap.next]
        self.note_gaps(gaps)
        self._directory.drop(numbers[0])
        self._measure()
        log.error("the oldest bus file was dropped unread file=%s lost=%s", self._directory.segment(numbers[0]), gaps)
        return True

    def _starve(self, batch: Sequence[Append]) -> None:
        """The disk is full: free what can be freed, refuse sources, and let those who drain the bus go on."""
        self._starved = True
        self._directory.release_ballast()
        refused = self._disk_full()
        _refuse([step for step in batch if step.only_adds], refused)
        draining = [step for step in batch if not step.only_adds]
        try:
            self._retain(self._settings.max_bytes)
            if self._settings.when_full == "drop_oldest":
                self._drop_oldest()
            self._write(draining)
        except Exception as error:  # every step has to get an outcome, whatever it is
            _refuse(draining, refused if self._lacks_room(error) else self._explain(error))

    def _recover(self) -> None:
        """Let sources go on once there is room for them and for the ballast."""
        if self._directory.free_bytes() >= 2 * self._reserve_bytes:
            self._directory.keep_ballast(self._settings.ballast_bytes)
            self._starved = False

    # Errors.

    def _lacks_room(self, error: Exception) -> bool:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if (
            code == sqlite3.SQLITE_IOERR
        ):  # the index of the log is a memory map, and SQLite has only this word if it cannot grow
            return self._directory.free_bytes() < SPARE_BYTES
        return code == sqlite3.SQLITE_FULL or is_disk_full(error)

    def _explain(self, error: Exception) -> Exception:
        """The error for the caller. After an I/O error it is unknown what the disk holds: nothing is written any more."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = self._directory.segment(self._number) if self._number else self._directory.path
        if isinstance(error, RingfenceError):
            return error
        if self._lacks_room(error):
            return self._disk_full()
        if isinstance(error, NewerFormatError):
            return Permanent(f"the bus cannot be opened: {error}")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Retryable(f"another process has kept {where} locked for {segments.BUSY_SECS:.0f} s")
        if is_damage(error):
            self._fault = Permanent(f"{where} is damaged ({error}): start again to set it aside")
            return self._fault
        if code == sqlite3.SQLITE_IOERR:
            self._fault = Permanent(
                f"{where} cannot be written or flushed to the disk ({error}): check the disk, then start again"
            )
            return self._fault
        if isinstance(error, OSError | sqlite3.OperationalError):
            return Permanent(f"the bus in {self._directory.path} cannot be used: {error}")
        return error


def _refuse(steps: Sequence[Append], reason: Exception) -> None:
    for step in steps:
        if not step.outcome.done():
            step.outcome.set_exception(reason)
