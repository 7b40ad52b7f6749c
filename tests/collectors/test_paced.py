"""Files at the speed they were recorded at: every frame at its time, none twice, none early, whatever interrupts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.paced import TICK_SECS, PacedShell, frame_times
from collectors.pcapng import CaptureFramer
from collectors.pflog import PflogDecoder
from ringfence.batch import EventClass, Source, frames_of
from ringfence.clock import HandClock
from ringfence.errors import EndOfInput, Permanent
from ringfence.pace import Pace
from tests.collectors.encode_pcapng import enhanced, interface, section
from tests.collectors.encode_pflog import Pflog, file_header, ip4, record, tcp

FIRST = 1_700_000_000
PLAIN = Pflog().encode() + ip4(bytes([10, 1, 0, 5]), bytes([10, 2, 0, 9]), 6, tcp(40000, 22))


def packet(millis: int) -> bytes:
    return record(PLAIN, FIRST + millis // 1000, millis % 1000 * 1000)


def capture(millis: list[int]) -> bytes:
    return file_header() + b"".join(map(packet, millis))


class Replay:
    """Reads a file with one shell at a time, and remembers when each row came, in milliseconds since the beginning."""

    def __init__(self, path: Path, speed: float = 1, chunk_bytes: int = 1 << 20, work_ms: int = 0) -> None:
        self.clock = HandClock()
        self.pace = Pace(speed, ["file"], self.clock)
        self.shell = PacedShell("file", path, CaptureFramer, PflogDecoder, self.pace, chunk_bytes)
        self.decoder = PflogDecoder()
        self.work_ms = work_ms
        self.position = b""
        self.rows: list[tuple[float, int]] = []
        self.places: list[int] = []
        self.problems = 0
        self.started_us = self.clock.now_us

    def run(self, deliveries: int = 1 << 30) -> Replay:
        asyncio.run(self._run(deliveries))
        return self

    async def _run(self, deliveries: int) -> None:
        await self.shell.open(self.position)
        try:
            for _ in range(deliveries):
                delivery = await self.shell.read()
                decoded = self.decoder.feed(delivery.frames)
                self.position = delivery.position
                self.problems += len(decoded.problems)
                self.clock.now_us += self.work_ms * 1000
                for row in decoded.rows[EventClass.PF].to_dicts() if decoded.taken else []:
                    at_ms = (self.clock.now_us - self.started_us) / 1000 - self.work_ms
                    self.rows.append((at_ms, row["@timestamp"] // 1000 - FIRST * 1000))
                    self.places.append(row["ringfence.event.position"])
        except EndOfInput:
            pass
        finally:
            await self.shell.close()


@pytest.mark.parametrize("speed", [0.5, 1, 10])
def test_each_frame_comes_at_its_time_and_at_most_a_tick_later(tmp_path: Path, speed: float) -> None:
    times = [0, 100, 100, 105, 2000, 2001, 60_000]
    path = tmp_path / "pflog"
    path.write_bytes(capture(times))

    rows = Replay(path, speed).run().rows

    assert [recorded for _, recorded in rows] == times
    for at, recorded in rows:
        assert recorded / speed - 0.01 <= at <= recorded / speed + TICK_SECS * 1000 + 0.01


def test_slow_work_does_not_add_up(tmp_path: Path) -> None:
    times = list(range(0, 20_000, 10))
    path = tmp_path / "pflog"
    path.write_bytes(capture(times))

    replay = Replay(path, chunk_bytes=4000, work_ms=15).run()

    assert [recorded for _, recorded in replay.rows] == times
    assert max(at - recorded for at, recorded in replay.rows) <= 2 * (15 + TICK_SECS * 1000)
    assert replay.pace.late_secs == 0


@given(
    st.lists(st.integers(0, 30_000), min_size=1, max_size=12),
    st.integers(200, 2000),
    st.lists(st.integers(1, 4), max_size=4),
    st.integers(0, 30),
    st.booleans(),
)
def test_any_times_chunks_and_interruptions_give_every_row_once_and_none_early(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], chunk_bytes: int, stops: list[int], cut: int, pcapng: bool
) -> None:
    path = tmp_path_factory.mktemp("paced") / "capture"
    blocks = [enhanced(PLAIN, FIRST * 1_000_000 + millis * 1000) for millis in times]
    whole = section() + interface() + b"".join(blocks) if pcapng else capture(times)
    path.write_bytes(whole[: len(whole) - cut])
    expected = times if not cut else times[:-1]

    found: list[tuple[int, int]] = []
    position, problems = b"", 0
    for stop in [*stops, 1 << 30]:
        replay = Replay(path, 1, chunk_bytes)
        replay.position = position
        replay.run(stop)
        position, problems = replay.position, problems + replay.problems
        found += zip(replay.places, [recorded for _, recorded in replay.rows], strict=True)
        if replay.rows:
            began = replay.rows[0][1]
            assert all(at >= recorded - began - 0.01 for at, recorded in replay.rows)

    assert [recorded for _, recorded in found] == expected
    assert len({place for place, _ in found}) == len(expected)
    assert problems == bool(cut)


def test_a_frame_without_a_time_goes_with_the_one_before_it(tmp_path: Path) -> None:
    path = tmp_path / "pflog"
    path.write_bytes(file_header() + record(b"bad") + packet(0) + record(b"bad") + packet(5000) + record(b"bad"))

    replay = Replay(path).run()

    assert [recorded for _, recorded in replay.rows] == [0, 5000]
    assert replay.problems == 3


@pytest.mark.parametrize("content", [b"", file_header(), file_header() + record(b"bad"), b"no capture"])
def test_a_file_without_any_time_is_read_to_its_end(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pflog"
    path.write_bytes(content)

    replay = Replay(path).run()

    assert (replay.rows, replay.clock.slept) == ([], [])
    assert replay.problems == (content != b"" and content != file_header())


def test_the_latest_event_of_a_frame_is_its_time() -> None:
    frames = frames_of([file_header(), packet(7), record(b"bad"), packet(3)], Source("file", 1))

    assert (frame_times(frames, PflogDecoder().feed(frames)) // 1000).tolist() == [0, FIRST * 1000 + 7, 0, FIRST * 1000 + 3]


def test_a_file_that_cannot_be_read_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="cannot be read: No such file or directory"):
        Replay(tmp_path / "none").run()
