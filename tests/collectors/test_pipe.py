"""FIFOs and standard input: what writers write is read once, each writer is a stream, and nothing is read ahead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from collectors.lines import LineFramer
from collectors.pipe import PathShell, PipeShell
from collectors.tail import TailShell
from ringfence.component import Delivery
from ringfence.errors import EndOfInput, Permanent
from ringfence.yamlfile import STANDARD_INPUT

PATIENCE_SECS = 20


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def reading(path: Path, story: Callable[[PipeShell], Awaitable[None]], follow: bool = True, **options: Any) -> None:
    """A shell on a pipe, open for the length of the story."""

    async def run() -> None:
        shell = PipeShell("edge", path, options.pop("framer", LineFramer), follow, poll_secs=0.001, **options)
        await shell.open(b"")
        try:
            await asyncio.wait_for(story(shell), PATIENCE_SECS)
        finally:
            await shell.close()

    asyncio.run(run())


def writer(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_NONBLOCK)


def standard_input(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    monkeypatch.setattr("collectors.pipe._STDIN", descriptor)


async def lines(shell: PipeShell, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        found += (await shell.read()).frames.slices()
    return found


def test_what_is_written_comes_with_its_place_and_time_of_arrival(fifo: Path) -> None:
    async def story(shell: PipeShell) -> None:
        end = writer(fifo)
        os.write(end, b"one\ntw")
        first = await shell.read()
        os.write(end, b"o\nthree\n")
        second = await shell.read()
        os.close(end)

        assert (first.frames.slices(), second.frames.slices()) == ([b"one\n"], [b"two\n", b"three\n"])
        assert [*first.frames.positions.tolist(), *second.frames.positions.tolist()] == [0, 4, 8]
        assert first.frames.sources == second.frames.sources
        assert first.frames.sources[0].name == str(fifo)
        assert first.frames.received_us.min() > 0
        assert first.position == b""
        assert not first.frames.lossy

    reading(fifo, story)


def test_each_writer_is_a_stream_and_the_next_one_is_marked(fifo: Path) -> None:
    async def story(shell: PipeShell) -> None:
        waiting = asyncio.ensure_future(shell.read())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        deliveries = []
        for text in (b"first\nunfinished", b"second\n"):
            end = writer(fifo)
            os.write(end, text)
            deliveries.append(await waiting)
            waiting = asyncio.ensure_future(shell.read())
            os.close(end)
            if text.startswith(b"first"):
                deliveries.append(await waiting)
                waiting = asyncio.ensure_future(shell.read())
                await asyncio.sleep(0.01)
        waiting.cancel()

        assert [delivery.frames.slices() for delivery in deliveries] == [[b"first\n"], [b"unfinished"], [b"second\n"]]
        assert [bool(delivery.frames.lossy) for delivery in deliveries] == [False, False, True]
        assert [int(delivery.frames.positions[0]) for delivery in deliveries] == [0, 6, 0]
        identities = [delivery.frames.sources[0].identity for delivery in deliveries]
        assert identities[0] == identities[1] != identities[2]

    reading(fifo, story)


def test_without_follow_the_first_writer_is_all(fifo: Path) -> None:
    async def story(shell: PipeShell) -> None:
        end = writer(fifo)
        os.write(end, b"all\n")
        os.close(end)

        assert await lines(shell, 1) == [b"all\n"]
        with pytest.raises(EndOfInput):
            await shell.read()

    reading(fifo, story, follow=False)


def test_standard_input_is_one_stream_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    standard_input(monkeypatch, ours)

    async def story(shell: PipeShell) -> None:
        os.write(theirs, b"one\ntwo")
        first = await shell.read()
        os.close(theirs)
        last = await shell.read()

        assert (first.frames.slices(), last.frames.slices()) == ([b"one\n"], [b"two"])
        assert first.frames.sources[0].name == "edge"
        with pytest.raises(EndOfInput, match="standard input was read to its end"):
            await shell.read()

    reading(STANDARD_INPUT, story)
    assert os.get_blocking(ours)
    os.close(ours)


def test_a_file_or_nothing_as_standard_input_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").write_bytes(b"one\ntwo\n")
    for path, expected in ((tmp_path / "log", [b"one\n", b"two\n"]), (Path(os.devnull), [])):
        descriptor = os.open(path, os.O_RDONLY)
        standard_input(monkeypatch, descriptor)

        async def story(shell: PipeShell, expected: list[bytes] = expected) -> None:
            assert await lines(shell, len(expected)) == expected
            with pytest.raises(EndOfInput):
                await shell.read()

        reading(STANDARD_INPUT, story)
        os.close(descriptor)


class Endless(LineFramer):
    """Waits for lines of any length."""

    def __init__(self) -> None:
        super().__init__(1 << 30)


def test_a_frame_that_does_not_end_is_delivered_and_counted_and_so_is_what_follows_it(fifo: Path) -> None:
    async def story(shell: PipeShell) -> None:
        end = writer(fifo)
        os.write(end, b"good\n" + bytes(2000))
        endless = await shell.read()
        os.write(end, b"more\nof it")
        more = await shell.read()
        os.close(end)

        assert endless.frames.slices() == [b"good\n", bytes(2000)]
        assert endless.caps == {"frame": 1}
        assert (more.frames.slices(), more.frames.positions.tolist()) == ([b"more\nof it"], [2005])
        assert not more.caps

    reading(fifo, story, framer=Endless, max_pending_bytes=1000)


def test_nothing_is_read_ahead_while_nobody_asks(fifo: Path) -> None:
    async def story(shell: PipeShell) -> None:
        end = writer(fifo)
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += os.write(end, b"x" * 99 + b"\n")
        os.close(end)

        assert sum(map(len, await lines(shell, written // 100))) == written

    reading(fifo, story)


def test_a_read_that_is_cancelled_loses_nothing(fifo: Path) -> None:
    async def story(shell: PipeShell) -> None:
        end = writer(fifo)
        os.write(end, b"begun")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(shell.read(), 0.01)
        os.write(end, b" and ended\n")

        assert await lines(shell, 1) == [b"begun and ended\n"]
        os.close(end)

    reading(fifo, story)


def test_a_pipe_that_cannot_be_read_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standard_input(monkeypatch, 9999)

    for path, reason in ((tmp_path / "none", "No such file or directory"), (STANDARD_INPUT, "Bad file descriptor")):
        with pytest.raises(Permanent, match=f"cannot be read: {reason}"):
            asyncio.run(PipeShell("edge", path, LineFramer, True).open(b""))


def test_a_shell_may_be_closed_twice_and_is_not_read_then(fifo: Path) -> None:
    async def story() -> None:
        shell = PipeShell("edge", fifo, LineFramer, True)
        await shell.close()
        await shell.open(b"")
        await shell.close()
        await shell.close()
        with pytest.raises(Permanent, match="is not open"):
            await shell.read()

    asyncio.run(story())


def test_a_path_is_a_pipe_or_a_file_as_it_is_found(fifo: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"of the file\n")

    async def first(path: Path) -> Delivery:
        shell = PathShell("edge", path, LineFramer, True)
        await shell.close()
        await shell.open(b"")
        end = writer(fifo) if path == fifo else os.open(log, os.O_WRONLY | os.O_APPEND)
        os.write(end, b"written\n")
        os.close(end)
        delivery = await asyncio.wait_for(shell.read(), PATIENCE_SECS)
        await shell.close()
        return delivery

    piped, tailed = asyncio.run(first(fifo)), asyncio.run(first(log))
    assert (piped.frames.slices(), piped.position) == ([b"written\n"], b"")
    assert tailed.frames.slices() == [b"of the file\n", b"written\n"]

    async def resumed() -> Delivery:
        shell = TailShell(log, LineFramer, False)
        await shell.open(tailed.position)
        try:
            return await shell.read()
        finally:
            await shell.close()

    with pytest.raises(EndOfInput):
        asyncio.run(resumed())
