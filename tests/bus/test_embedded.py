from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from ringfence.batch import Position, Record, Step
from ringfence.bus import BOUNDARY, EVENTS, BusSettings, Gap
from ringfence.bus.embedded import EmbeddedBus
from ringfence.errors import Permanent, Retryable
from tests.bus.appending import SETTINGS
from tests.bus.contract import MUCH, after, take

SINK: Mapping[str, Sequence[str]] = {"sink": [EVENTS]}


@asynccontextmanager
async def opened(
    path: Path, settings: BusSettings = SETTINGS, required: Mapping[str, Sequence[str]] | None = None
) -> AsyncIterator[EmbeddedBus]:
    bus = EmbeddedBus(str(path), settings, required or {})
    try:
        await bus.open()
        yield bus
    finally:
        await bus.close()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def block(number: int, size: int = 32 * 1024) -> Record:
    return Record(b"actor", {"number": b"%d" % number}, random.Random(number).randbytes(size))


def numbers(found: Sequence[tuple[Position, Record]]) -> list[int]:
    return [int(entry.headers["number"]) for _, entry in found]


async def append(bus: EmbeddedBus, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        await bus.commit(Step("source", {EVENTS: [block(number)]}))


def segment_files(path: Path) -> list[str]:
    return sorted(file.name for file in path.glob("*.db"))


def start_appending(path: Path, group: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bus.appending", str(path), group, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_kill_9_loses_nothing_acknowledged_and_repeats_nothing(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    for survived in (1, 5, 13, 2, 40, 3, 8, 21, 34, 1):
        with start_appending(tmp_path / "bus", "source", 1_000_000) as process:
            assert process.stdout is not None
            acknowledged += [int(process.stdout.readline()) for _ in range(survived)]
            process.kill()
            acknowledged += map(int, process.stdout.read().split())

    async def scenario() -> None:
        async with opened(tmp_path / "bus") as bus:
            state = await bus.join("source", [])
            await bus.join("reader", [EVENTS])
            count = int(state["next"])
            assert count > max(acknowledged)
            assert numbers(await take(bus, "reader", count)) == list(range(count))
            assert not await bus.read("reader", 1, MUCH, 0.0)
            assert not bus.lost_total["reader"]

    run(scenario)
    assert len(segment_files(tmp_path / "bus")) > 1


def test_two_processes_append_while_files_roll_and_a_third_reads(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "bus") as bus:
            await bus.join("reader", [EVENTS])
            writers = [start_appending(tmp_path / "bus", group, 80) for group in ("one", "two")]
            found = await take(bus, "reader", 160)
            for writer in writers:
                writer.communicate()
                assert writer.returncode == 0
            for group in (b"one", b"two"):
                assert numbers([entry for entry in found if entry[1].key == group]) == list(range(80))
            assert [at.offset for at, _ in found] == list(range(160))

    run(scenario)
    assert len(segment_files(tmp_path / "bus")) > 3


def test_the_second_reader_of_a_group_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as first, opened(tmp_path) as second:
            await first.join("sink", [EVENTS])
            with pytest.raises(Permanent, match=f"group sink .* is already read by process {os.getpid()}"):
                await second.join("sink", [EVENTS])
            await first.close()
            await second.join("sink", [EVENTS])

    run(scenario)


def test_steps_that_wait_at_the_same_time_share_a_transaction(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as bus:
            await bus.join("source", [])
            gate = threading.Event()
            held = bus._writer().call(gate.wait)
            commits = [
                asyncio.ensure_future(bus.commit(Step("source", {EVENTS: [block(number, 100)]}))) for number in range(50)
            ]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*commits)
            assert held.result()
            assert (bus.transactions_total, bus.steps_total) == (1, 50)

    run(scenario)


# Retention and the bound.

SMALL = BusSettings(segment_bytes=256 * 1024, retention_bytes=0, max_bytes=2 << 20, ballast_bytes=0)


def test_retention_never_outruns_a_required_group(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, SMALL, SINK) as bus:
            await bus.join("source", [])
            await append(bus, 24)
            assert segment_files(tmp_path)[0] == "00000001.db"
            await bus.join("sink", [EVENTS])
            found = await take(bus, "sink", 24)
            assert numbers(found) == list(range(24))
            await bus.commit(Step("sink", done=after([at for at, _ in found])))
        async with opened(tmp_path, SMALL, SINK):
            assert len(segment_files(tmp_path)) == 1

    run(scenario)


def test_a_full_bus_refuses_sources_and_names_the_slow_group_until_it_catches_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path, SMALL, SINK) as bus:
            await bus.join("source", [])
            await bus.join("sink", [EVENTS])
            with pytest.raises(Retryable, match=r"bus is full .* group sink is behind by \d+ records"):
                await append(bus, 100)
            found = await bus.read("sink", 1000, MUCH, 1.0)
            await bus.commit(Step("sink", {BOUNDARY: [block(0)]}, after([at for at, _ in found])))
            await append(bus, 10, first=len(found))
            assert numbers(await take(bus, "sink", 10)) == list(range(len(found), len(found) + 10))
            assert not bus.lost_total["sink"]

    run(scenario)


def test_drop_oldest_notes_and_counts_what_a_required_group_loses(tmp_path: Path) -> None:
    settings = SMALL.model_copy(update={"when_full": "drop_oldest"})

    async def scenario() -> None:
        async with opened(tmp_path, settings, SINK) as bus:
            await bus.join("source", [])
            await bus.join("sink", [EVENTS])
            first = await take_after(bus, 3)
            await append(bus, 100, first=3)
            (gap,) = await bus.gaps()
            assert (gap.topic, gap.first, gap.cause) == (EVENTS, 3, "dropped")
            rest = await take(bus, "sink", 100 + 3 - gap.next)
            assert numbers([*first, *rest]) == [0, 1, 2, *range(gap.next, 103)]
            assert bus.lost_total["sink"] == gap.next - 3
        async with opened(tmp_path, settings, SINK) as bus:
            assert await bus.gaps() == [gap]

    async def take_after(bus: EmbeddedBus, count: int) -> Sequence[tuple[Position, Record]]:
        await append(bus, count)
        found = await take(bus, "sink", count)
        await bus.commit(Step("sink", done=after([at for at, _ in found])))
        return found

    run(scenario)


# Damage.


def damage(file: Path, where: int, count: int = 4096) -> None:
    with file.open("r+b") as handle:
        handle.seek(where)
        handle.write(random.Random(7).randbytes(count))


def fill(path: Path, count: int = 20) -> None:
    async def scenario() -> None:
        async with opened(path) as bus:
            await bus.join("source", [])
            await append(bus, count)

    run(scenario)


def heads(file: Path, topic: str, kind: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        (value,) = connection.execute("SELECT value FROM facts WHERE kind = ? AND owner = ?", (kind, topic)).fetchone()
    return int(value)


def test_a_damaged_old_file_is_set_aside_and_reported_and_reading_goes_on_behind_it(tmp_path: Path) -> None:
    fill(tmp_path)
    begin, end = (heads(tmp_path / name, EVENTS, "base") for name in ("00000002.db", "00000003.db"))
    damage(tmp_path / "00000002.db", where=0)

    async def scenario() -> None:
        async with opened(tmp_path, required=SINK) as bus:
            await bus.join("sink", [EVENTS])
            found = await take(bus, "sink", 20 - (end - begin))
            assert numbers(found) == [*range(begin), *range(end, 20)]
            assert bus.lost_total["sink"] == end - begin
            (gap,) = await bus.gaps()
            assert (gap.topic, gap.first, gap.next, gap.cause) == (EVENTS, begin, end, "damaged")

    run(scenario)
    assert (tmp_path / "00000002.db.damaged").exists()


def test_a_damaged_active_file_is_replaced_at_the_next_start(tmp_path: Path) -> None:
    fill(tmp_path)
    active = segment_files(tmp_path)[-1]
    begin = heads(tmp_path / active, EVENTS, "base")
    damage(tmp_path / active, where=0)

    async def scenario() -> None:
        for first in (100, 110):
            async with opened(tmp_path) as bus:
                await bus.join("source", [])
                await append(bus, 5, first)
                await bus.join("reader", [EVENTS])
                assert numbers(await take(bus, "reader", begin + 5))[: begin + 1] == [*range(begin), 100]

    run(scenario)
    assert (tmp_path / f"{active}.damaged").exists()


def test_an_active_file_with_broken_records_is_replaced_without_losing_offsets_and_state(tmp_path: Path) -> None:
    async def before() -> None:
        async with opened(tmp_path) as bus:
            await bus.join("source", [])
            await append(bus, 2)
            await bus.commit(Step("source", state={"tail": b"byte 17"}))

    async def afterwards() -> None:
        async with opened(tmp_path) as bus:
            assert await bus.join("source", []) == {"tail": b"byte 17"}
            assert [(gap.topic, gap.first, gap.next) for gap in await bus.gaps()] == [(EVENTS, 0, 2)]
            await append(bus, 1, first=2)
            await bus.join("reader", [EVENTS])
            assert [at.offset for at, _ in await take(bus, "reader", 1)] == [2]

    run(before)
    (tmp_path / "clean").unlink()
    with closing(sqlite3.connect(tmp_path / "00000001.db")) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'records'").fetchone()
    damage(tmp_path / "00000001.db", where=(root - 1) * 32 * 1024)
    run(afterwards)


def test_a_flipped_bit_in_a_record_costs_that_record_only(tmp_path: Path) -> None:
    fill(tmp_path, count=3)
    file = tmp_path / "00000001.db"
    content = bytearray(file.read_bytes())
    content[content.index(block(1).value[200:300])] ^= 1
    file.write_bytes(content)

    async def scenario() -> None:
        async with opened(tmp_path, required=SINK) as bus:
            await bus.join("sink", [EVENTS])
            assert numbers(await take(bus, "sink", 2)) == [0, 2]
            assert bus.lost_total["sink"] == 1
            (gap,) = await bus.gaps()
            assert gap == Gap(EVENTS, 1, 2, "damaged", gap.at_us)

    run(scenario)


@pytest.mark.parametrize("seed", range(8))
def test_random_damage_never_keeps_the_bus_from_starting(tmp_path: Path, seed: int) -> None:
    fill(tmp_path)
    (tmp_path / "clean").unlink()
    chance = random.Random(seed)
    for name in segment_files(tmp_path):
        damage(tmp_path / name, chance.randrange((tmp_path / name).stat().st_size), count=chance.choice((1, 100, 5000)))

    async def scenario() -> None:
        async with opened(tmp_path, required=SINK) as bus:
            await bus.join("source", [])
            await bus.join("sink", [EVENTS])
            await append(bus, 1, first=99)
            found: list[tuple[Position, Record]] = []
            while 99 not in numbers(found):
                found += await take(bus, "sink", 1)
            assert all(entry == block(int(entry.headers["number"])) for _, entry in found)
            assert sorted({at.offset for at, _ in found}) == [at.offset for at, _ in found]

    run(scenario)


# What cannot be opened.


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, count=1)
    with closing(sqlite3.connect(tmp_path / "00000001.db")) as connection:
        connection.execute("PRAGMA user_version=2")

    async def scenario() -> None:
        with pytest.raises(Permanent, match=r"00000001\.db has format 2, this version of ringfence knows 1"):
            async with opened(tmp_path):
                pass

    run(scenario)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus").touch()

    async def scenario() -> None:
        for path in (tmp_path / "bus", tmp_path / "bus" / "below"):
            with pytest.raises(Permanent, match="directory"):
                async with opened(path):
                    pass

    run(scenario)


def test_the_directory_is_for_its_owner_only(tmp_path: Path) -> None:
    fill(tmp_path / "a" / "bus", count=1)
    assert (tmp_path / "a" / "bus").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "bus" / "00000001.db").stat().st_mode & 0o777 == 0o600


# The full disk.


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("needs to mount a small tmpfs: run as root")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_refuses_sources_lets_readers_commit_and_heals(small_disk: Path) -> None:
    settings = BusSettings(segment_bytes=1 << 20, ballast_bytes=2 << 20)

    async def scenario() -> None:
        async with opened(small_disk / "bus", settings, SINK) as bus:
            assert (small_disk / "bus" / "ballast").exists()
            await bus.join("source", [])
            await bus.join("sink", [EVENTS])
            hog = small_disk / "hog"
            hog.write_bytes(b"x" * (14 << 20))
            acknowledged = await append_until_full(bus)
            with pytest.raises(Retryable, match=r"the disk of the bus in .* is full \(\d+ bytes free\)"):
                await append(bus, 1, first=acknowledged)
            found = await take(bus, "sink", acknowledged)
            assert numbers(found) == list(range(acknowledged))
            await bus.commit(Step("sink", done=after([at for at, _ in found[:1]]), state={"sink": b"1"}))
            hog.unlink()
            await append(bus, 20, first=acknowledged)
            assert numbers(await take(bus, "sink", 20)) == list(range(acknowledged, acknowledged + 20))
            assert not bus.lost_total["sink"]
        async with opened(small_disk / "bus", settings, SINK) as bus:
            assert await bus.join("sink", [EVENTS]) == {"sink": b"1"}
            assert numbers(await take(bus, "sink", acknowledged + 19)) == list(range(1, acknowledged + 20))

    async def append_until_full(bus: EmbeddedBus) -> int:
        for number in range(10_000):
            try:
                await append(bus, 1, first=number)
            except Retryable:
                return number
        raise AssertionError("the disk never became full")

    run(scenario)
