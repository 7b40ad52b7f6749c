"""Files that grow, rotate, are truncated and are replaced, with and without a reader that watches."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from collectors.lines import LineFramer
from collectors.pcap import PcapFramer
from collectors.tail import TailShell
from ringfence import registry
from ringfence.component import Delivery
from ringfence.errors import EndOfInput, Permanent
from ringfence.files import identity_of
from ringfence.telemetry import REGISTRY
from tests.collectors.encode_pcapng import section
from tests.collectors.encode_pflog import file_header, record

PATIENCE_SECS = 20


class Reader:
    """Reads lines of a file with one shell at a time, and remembers each with its identity and place."""

    def __init__(self, path: Path, follow: bool = True, chunk_bytes: int = 1 << 20) -> None:
        self.path = path
        self.follow = follow
        self.chunk_bytes = chunk_bytes
        self.position = b""
        self.lines: list[bytes] = []
        self.ids: list[tuple[int, int]] = []
        self.last: Delivery | None = None
        self.losses = 0

    async def open(self) -> None:
        self.shell = TailShell(self.path, LineFramer, self.follow, self.chunk_bytes, poll_secs=0.001)
        await self.shell.open(self.position)

    async def take(self, count: int) -> list[bytes]:
        """Read until that many more lines came."""
        before = len(self.lines)
        while len(self.lines) < before + count:
            self._keep(await asyncio.wait_for(self.shell.read(), PATIENCE_SECS))
        return self.lines[before:]

    async def take_all(self) -> list[bytes]:
        """Read a file that is not followed to its end."""
        before = len(self.lines)
        await self.open()
        try:
            while True:
                self._keep(await self.shell.read())
        except EndOfInput:
            await self.shell.close()
        return self.lines[before:]

    def _keep(self, delivery: Delivery) -> None:
        frames = delivery.frames
        self.lines += frames.slices()
        self.ids += [(frames.sources[0].identity, int(place)) for place in frames.positions]
        self.position, self.last = delivery.position, delivery
        self.losses += len(frames.lossy)

    async def close(self) -> None:
        await self.shell.close()


def following(path: Path, story: Callable[[Reader], Awaitable[None]]) -> Reader:
    """Let a story happen to a file that is followed; all that was delivered must have ids of its own."""
    reader = Reader(path)

    async def run() -> None:
        await reader.open()
        try:
            await story(reader)
        finally:
            await reader.close()

    asyncio.run(run())
    assert len(set(reader.ids)) == len(reader.ids)
    return reader


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def move(path: Path, target: Path | str) -> None:
    path.rename(target)


def remove(path: Path) -> None:
    path.unlink()


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def test_a_file_is_read_to_its_end_with_the_last_line_that_lacks_a_newline(log: Path) -> None:
    write(log, b"one\ntwo\nthree")
    reader = Reader(log, follow=False)

    assert asyncio.run(reader.take_all()) == [b"one\n", b"two\n", b"three"]
    assert reader.ids == [(identity_of(b"one\ntwo\nthree", 0), place) for place in (0, 4, 8)]


def test_reading_in_small_chunks_gives_the_same_lines_places_and_identity(log: Path) -> None:
    write(log, b"".join(b"line %d\n" % number for number in range(500)) + b"end")
    whole, pieces = Reader(log, follow=False), Reader(log, follow=False, chunk_bytes=7)

    asyncio.run(whole.take_all())
    asyncio.run(pieces.take_all())

    assert (whole.lines, whole.ids) == (pieces.lines, pieces.ids)


def test_a_file_that_is_read_once_has_no_time_of_arrival(log: Path) -> None:
    write(log, b"one\n")
    reader = Reader(log, follow=False)

    asyncio.run(reader.take_all())

    assert reader.last is not None
    assert reader.last.frames.received_us.tolist() == [0]


def test_a_file_that_was_read_to_its_end_gives_nothing_after_a_restart(log: Path) -> None:
    write(log, b"one\ntwo")
    reader = Reader(log, follow=False)
    asyncio.run(reader.take_all())

    assert asyncio.run(reader.take_all()) == []


def test_an_empty_file_ends_at_once(log: Path) -> None:
    write(log, b"")

    assert asyncio.run(Reader(log, follow=False).take_all()) == []


def test_growth_is_followed_and_an_unfinished_line_waited_for(log: Path) -> None:
    write(log, b"one\ntw")

    async def story(reader: Reader) -> None:
        assert await reader.take(1) == [b"one\n"]
        append(log, b"o\nthree\n")
        assert await reader.take(2) == [b"two\n", b"three\n"]
        assert reader.last is not None
        assert reader.last.frames.received_us.min() > 0

    following(log, story)


def test_an_unfinished_line_is_read_again_after_a_restart(log: Path) -> None:
    write(log, b"one\ntw")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        await reader.close()
        append(log, b"o\n")
        await reader.open()
        assert await reader.take(1) == [b"two\n"]

    assert following(log, story).ids[1][1] == 4


def test_the_identity_stays_when_a_young_file_grows_and_the_reader_restarts(log: Path) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        append(log, b"x" * 2000 + b"\n")
        await reader.take(1)
        await reader.close()
        append(log, b"last\n")
        await reader.open()
        await reader.take(1)

    assert len({identity for identity, _ in following(log, story).ids}) == 1


def test_a_file_that_does_not_exist_yet_is_waited_for(log: Path) -> None:
    async def story(reader: Reader) -> None:
        waiting = asyncio.ensure_future(reader.take(1))
        await asyncio.sleep(0)
        write(log, b"one\n")
        assert await waiting == [b"one\n"]

    following(log, story)


def test_a_rename_finishes_the_old_file_then_goes_on_with_the_new_one(log: Path) -> None:
    write(log, b"old 1\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        move(log, f"{log}.1")
        append(Path(f"{log}.1"), b"old 2\nold 3 unfinished")
        write(log, b"new 1\n")
        assert await reader.take(3) == [b"old 2\n", b"old 3 unfinished", b"new 1\n"]

    assert following(log, story).losses == 0


def test_the_old_file_is_not_left_while_the_new_one_is_empty(log: Path) -> None:
    write(log, b"old 1\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        move(log, f"{log}.1")
        write(log, b"")
        waiting = asyncio.ensure_future(reader.take(1))
        await asyncio.sleep(0)
        append(Path(f"{log}.1"), b"old 2\n")
        assert await waiting == [b"old 2\n"]
        append(log, b"new 1\n")
        assert await reader.take(1) == [b"new 1\n"]

    following(log, story)


def test_two_rotations_between_two_reads_lose_nothing(log: Path) -> None:
    write(log, b"a 1\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        append(log, b"a 2\n")
        move(log, f"{log}.2")
        write(Path(f"{log}.1"), b"b 1\n")
        write(log, b"c 1\n")
        assert await reader.take(3) == [b"a 2\n", b"b 1\n", b"c 1\n"]

    assert following(log, story).losses == 0


def test_files_that_begin_alike_have_identities_of_their_own(log: Path) -> None:
    write(log, b"same\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        move(log, f"{log}.0")
        write(log, b"same\n")
        assert await reader.take(1) == [b"same\n"]

    following(log, story)


def test_copytruncate_reads_the_rest_from_the_copy_and_marks_what_follows_lossy(log: Path) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        append(log, b"two\n")
        shutil.copyfile(log, f"{log}.1")
        write(log, b"")
        append(log, b"three\n")
        assert await reader.take(2) == [b"two\n", b"three\n"]
        assert reader.last is not None
        assert reader.last.frames.lossy == {0}

    assert following(log, story).losses == 1


def counted(path: Path) -> tuple[float, float, float]:
    names = ("ringfence_file_truncations", "ringfence_file_loss_seconds", "ringfence_file_loss_bytes")
    values = [REGISTRY.get_sample_value(f"{name}_total", {"path": str(path)}) or 0.0 for name in names]
    return values[0], values[1], values[2]


def test_the_loss_window_of_copytruncate_goes_from_the_copy_to_the_truncation(
    log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        append(log, b"two\n" * 100)
        await reader.take(100)
        shutil.copyfile(log, f"{log}.1")
        append(log, b"lost\n" * 100)
        copied_ns = os.stat(f"{log}.1").st_mtime_ns
        write(log, b"")
        os.utime(log, ns=(copied_ns, copied_ns + 2_000_000_000))
        waiting = asyncio.ensure_future(reader.take(1))
        for _ in range(PATIENCE_SECS * 1000):
            if "was truncated" in caplog.text:
                break
            await asyncio.sleep(0.001)
        append(log, b"three\n")
        await waiting

    following(log, story)
    truncations, seconds, lost = counted(log)
    assert truncations == 1
    assert 1.9 < seconds <= 2.0
    assert lost > 0
    assert f"{log} was truncated: what was written after its copy was made is lost, {seconds:.3f} s, about" in caplog.text


def test_the_loss_window_without_a_copy_begins_at_the_last_read(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        write(log, b"uno\n")
        await reader.take(1)

    following(log, story)
    assert counted(log)[0] == 1
    assert 0 <= counted(log)[1] < PATIENCE_SECS
    assert f"{log} was truncated: what was written after it was last read is lost, " in caplog.text


def test_a_truncated_file_is_read_from_its_start_with_a_new_identity(log: Path) -> None:
    write(log, b"one\nunfinished")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        write(log, b"uno\n")
        assert await reader.take(2) == [b"unfinished", b"uno\n"]

    reader = following(log, story)
    assert (reader.ids[2][1], reader.losses) == (0, 1)
    assert reader.ids[2][0] != reader.ids[0][0]


def test_a_file_that_was_truncated_and_outgrew_its_old_size_is_noticed(log: Path) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        write(log, b"other content, longer than before\n")
        assert await reader.take(1) == [b"other content, longer than before\n"]

    assert following(log, story).ids[1][1] == 0


def test_a_symlink_that_is_swapped_leads_to_the_new_file(log: Path) -> None:
    first, second = log.with_name("app-1.log"), log.with_name("app-2.log")
    write(first, b"one\n")
    write(second, b"two\n")
    log.symlink_to(first)

    async def story(reader: Reader) -> None:
        await reader.take(1)
        append(first, b"late\n")
        swapped = log.with_name("swapped")
        swapped.symlink_to(second)
        move(swapped, log)
        assert await reader.take(2) == [b"late\n", b"two\n"]

    following(log, story)


def test_a_file_that_was_removed_and_made_again_is_read(log: Path) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        append(log, b"two\n")
        remove(log)
        write(log, b"three\n")
        assert await reader.take(2) == [b"two\n", b"three\n"]

    following(log, story)


@pytest.mark.parametrize("follow", [True, False], ids=["following", "once"])
def test_a_file_that_was_rotated_while_nobody_read_is_found_by_its_beginning(log: Path, follow: bool) -> None:
    write(log, b"a 1\n")

    async def story() -> list[bytes]:
        reader = Reader(log)
        await reader.open()
        await reader.take(1)
        await reader.close()
        append(log, b"a 2\n")
        move(log, f"{log}.2")
        write(Path(f"{log}.1"), b"b 1\n")
        write(Path(f"{log}.gz"), b"no sibling\n")
        write(log, b"c 1\n")
        reader.follow = follow
        if not follow:
            return await reader.take_all()
        await reader.open()
        lines = await reader.take(3)
        await reader.close()
        return lines

    assert asyncio.run(story()) == [b"a 2\n", b"b 1\n", b"c 1\n"]


def test_a_file_that_was_truncated_while_nobody_read_is_read_from_its_start_and_marked_lossy(log: Path) -> None:
    write(log, b"one\ntwo\n")

    async def story(reader: Reader) -> None:
        await reader.take(2)
        await reader.close()
        write(log, b"one\n")
        await reader.open()
        assert await reader.take(1) == [b"one\n"]

    assert following(log, story).losses == 1


def test_a_file_that_was_copied_and_truncated_while_nobody_read_goes_on_in_the_copy(log: Path) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        await reader.close()
        append(log, b"two\n")
        shutil.copyfile(log, f"{log}.1")
        write(log, b"three\n")
        await reader.open()
        assert await reader.take(2) == [b"two\n", b"three\n"]

    following(log, story)
    assert counted(log)[0] == 1


def test_of_files_that_begin_alike_the_one_with_the_same_inode_goes_on(log: Path) -> None:
    write(log, b"same\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        await reader.close()
        append(log, b"old\n")
        move(log, f"{log}.1")
        write(log, b"same\nnew\n")
        await reader.open()
        assert await reader.take(3) == [b"old\n", b"same\n", b"new\n"]

    following(log, story)


def test_going_on_in_the_middle_of_a_capture_gives_its_head_again(log: Path) -> None:
    write(log, file_header() + record(b"first"))

    async def story() -> tuple[Delivery, Delivery]:
        shell = TailShell(log, PcapFramer, True, poll_secs=0.001)
        await shell.open(b"")
        position = (await shell.read()).position
        append(log, record(b"second"))
        await shell.open(position)
        deliveries = await shell.read(), await shell.read()
        await shell.close()
        return deliveries

    head, rest = asyncio.run(story())
    assert (head.frames.slices(), head.frames.positions.tolist()) == ([file_header()], [0])
    assert (rest.frames.slices(), rest.frames.positions.tolist()) == ([record(b"second")], [24 + len(record(b"first"))])


def opened(path: Path, follow: bool = False, position: bytes = b"") -> str:
    async def run() -> None:
        shell = TailShell(path, LineFramer, follow)
        try:
            await shell.open(position)
        finally:
            await shell.close()

    with pytest.raises(Permanent) as raised:
        asyncio.run(run())
    return str(raised.value)


def test_a_missing_file_that_is_not_followed_is_permanent(log: Path) -> None:
    assert opened(log) == f"{log} cannot be read: No such file or directory"


@pytest.mark.parametrize("follow", [True, False], ids=["following", "once"])
def test_a_directory_is_permanent(tmp_path: Path, follow: bool) -> None:
    assert opened(tmp_path, follow) == f"{tmp_path} cannot be read: Is a directory"


def test_a_device_is_permanent() -> None:
    assert opened(Path("/dev/null")) == "/dev/null cannot be read: Not a regular file"


def test_a_fifo_is_permanent_and_not_waited_for(log: Path) -> None:
    os.mkfifo(log)

    assert opened(log) == f"{log} cannot be read: Not a regular file"


def test_a_file_that_may_not_be_read_is_permanent(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)

    assert opened(log, follow=True) == f"{log} cannot be read: Permission denied"


def test_a_saved_position_that_is_none_of_ours_is_permanent(log: Path) -> None:
    write(log, b"one\n")

    assert opened(log, position=b"{}").startswith(f"the saved position of {log} cannot be used: ")


def test_a_read_that_is_cancelled_loses_nothing(log: Path) -> None:
    write(log, b"one\n")

    async def story(reader: Reader) -> None:
        await reader.take(1)
        for _ in range(20):
            waiting = asyncio.ensure_future(reader.shell.read())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        append(log, b"two\n")
        assert await reader.take(1) == [b"two\n"]

    following(log, story)


def test_close_may_come_twice_or_before_open(log: Path) -> None:
    async def run() -> None:
        shell = TailShell(log, LineFramer, True)
        await shell.close()
        await shell.open(b"")
        await shell.close()
        await shell.close()

    asyncio.run(run())


@pytest.mark.parametrize("name", sorted(registry.formats()))
@pytest.mark.parametrize(
    "start", [b"", b"#separator \\x09\n#fields\t", b"{", b"<14>1 ", section(), file_header()[:20] + bytes(200)]
)
def test_no_framer_waits_for_more_than_the_longest_block_of_pcapng(name: str, start: bytes) -> None:
    framer = registry.formats()[name].framer()
    for data in (start, *[b"\x7f" * (1 << 20)] * 20):
        framer.cut(data)

        assert framer.pending <= (16 << 20) + (1 << 20)
