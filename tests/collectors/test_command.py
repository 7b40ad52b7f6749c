"""The command shell: what a program prints, its restarts, its end with all its children, and every bound."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from collectors.command import MAX_ERROR_LINES, CommandShell
from collectors.lines import LineFramer
from ringfence.component import Delivery
from ringfence.errors import Misconfigured, Permanent
from ringfence.telemetry import REGISTRY

PATIENCE_SECS = 20


def printing(
    program: str,
    story: Callable[[CommandShell], Awaitable[None]],
    position: bytes = b"",
    framer: Any = LineFramer,
    **options: Any,
) -> None:
    """A shell on a small Python program, open for the length of the story."""

    async def run() -> None:
        shell = CommandShell("printer", lambda position: [sys.executable, "-c", program, position.decode()], framer, **options)
        await shell.open(position)
        try:
            await asyncio.wait_for(story(shell), PATIENCE_SECS)
        finally:
            await shell.close()

    asyncio.run(run())


async def frames(shell: CommandShell, count: int) -> list[bytes]:
    """Read that many frames."""
    found: list[bytes] = []
    while len(found) < count:
        found += (await shell.read()).frames.slices()
    return found


def counted(metric: str, registry: CollectorRegistry = REGISTRY, **labels: str) -> float:
    return registry.get_sample_value(metric, {"source": "printer", **labels}) or 0


def is_alive(pid: int) -> bool:
    """A zombie that only init has yet to wait for is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_frames_come_with_their_place_in_what_was_printed() -> None:
    async def story(shell: CommandShell) -> None:
        found: list[Delivery] = []
        while sum(len(delivery.frames) for delivery in found) < 3:
            found.append(await shell.read())

        assert [line for delivery in found for line in delivery.frames.slices()] == [b"one\n", b"two\n", b"three\n"]
        assert [place for delivery in found for place in delivery.frames.positions.tolist()] == [0, 4, 8]
        assert {source.name for delivery in found for source in delivery.frames.sources} == {"printer"}
        assert found[0].position == b""
        assert found[0].frames.received_us.min() > 0
        assert not found[0].frames.lossy

    printing("import time; print('one\\ntwo', flush=True); time.sleep(.02); print('three', flush=True); time.sleep(60)", story)


def test_a_program_that_ends_is_started_again_and_what_follows_is_marked(caplog: pytest.LogCaptureFixture) -> None:
    starts, exits = counted("ringfence_command_starts_total"), counted("ringfence_command_exits_total", status="3")

    async def story(shell: CommandShell) -> None:
        first, rest, again = await shell.read(), await shell.read(), await shell.read()

        assert [first.frames.slices(), rest.frames.slices(), again.frames.slices()] == [[b"one\n"], [b"rest"], [b"one\n"]]
        assert (first.frames.lossy, again.frames.lossy) == (frozenset(), frozenset({0}))
        assert first.frames.sources != again.frames.sources

    with caplog.at_level(logging.WARNING):
        printing(
            "import sys; print('one\\nrest', end='', flush=True); sys.stderr.write('no\\x1b[2J\\nmore'); sys.exit(3)", story
        )

    assert counted("ringfence_command_starts_total") == starts + 2
    assert counted("ringfence_command_exits_total", status="3") >= exits + 1
    assert "ended with 3 and said: no\\x1b[2J | more; it is started again in" in caplog.text


def test_a_signal_is_told_by_its_name() -> None:
    before = counted("ringfence_command_exits_total", status="SIGKILL")

    async def story(shell: CommandShell) -> None:
        await frames(shell, 2)

    printing("import os; print('one', flush=True); os.kill(os.getpid(), 9)", story)

    assert counted("ringfence_command_exits_total", status="SIGKILL") > before


def test_only_the_last_words_are_kept_and_each_bound_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    cut, gone = (counted("ringfence_command_caps_total", cap=cap) for cap in ("error_line", "error_lines"))

    async def story(shell: CommandShell) -> None:
        await frames(shell, 2)

    with caplog.at_level(logging.WARNING):
        printing(
            "import sys; sys.stderr.write('x' * 9_000 + '\\n' + 'early\\n' * 50 + 'last'); sys.stderr.flush(); print('one')",
            story,
        )

    assert "early | last" in caplog.text
    assert caplog.records[0].getMessage().count("early") == MAX_ERROR_LINES
    assert "xxx" not in caplog.text
    assert counted("ringfence_command_caps_total", cap="error_line") > cut
    assert counted("ringfence_command_caps_total", cap="error_lines") > gone


def test_close_ends_the_program_and_its_children() -> None:
    children: list[int] = []

    async def story(shell: CommandShell) -> None:
        children.extend([shell.pid or 0, *map(int, await frames(shell, 1))])
        assert all(map(is_alive, children))

    printing("import subprocess as s; print(s.Popen(['sleep', '60']).pid, flush=True); import time; time.sleep(60)", story)

    assert len(children) == 2
    for _ in range(500):  # a signal takes effect a little later on a busy machine
        if not any(map(is_alive, children)):
            break
        time.sleep(0.01)
    assert not any(map(is_alive, children))


def test_a_program_that_does_not_hear_is_killed() -> None:
    pids: list[int] = []

    async def story(shell: CommandShell) -> None:
        await frames(shell, 1)
        pids.append(shell.pid or 0)

    printing(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
        story,
        grace_secs=0.05,
    )

    assert pids[0]
    assert not is_alive(pids[0])


def test_a_child_that_holds_the_pipe_does_not_keep_a_dead_program_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collectors.command.LOOK_SECS", 0.02)

    async def story(shell: CommandShell) -> None:
        pids = [int(line) for line in await frames(shell, 2)]
        assert not is_alive(pids[0])

    printing("import subprocess as s; print(s.Popen(['sleep', '60']).pid, flush=True)", story)


def test_nothing_is_read_ahead_while_nobody_asks() -> None:
    line = b"x" * 1023 + b"\n"

    async def story(shell: CommandShell) -> None:
        await shell.read()
        await asyncio.sleep(0.1)
        assert shell._running is not None
        assert shell._running.framer.pending < 1 << 20

        received = 0
        while received < 20_000:
            delivery: Delivery = await shell.read()
            received += len(delivery.frames)
            assert len(delivery.frames.data) < 1 << 21

    printing(f"import os, time\nfor _ in range(25_000): os.write(1, {line!r})\ntime.sleep(60)", story)


class Endless(LineFramer):
    """A frame that never ends, as of a framer that waits for a length."""

    def cut(self, data: bytes) -> Any:
        self._rest += data
        return b"", np.zeros(1, np.int64)


def test_a_frame_that_does_not_end_is_delivered_and_the_program_started_again() -> None:
    before = counted("ringfence_command_caps_total", cap="frame")

    async def story(shell: CommandShell) -> None:
        pid = shell.pid
        found = await frames(shell, 1)
        await frames(shell, 1)

        assert found == [b"x" * 100]
        assert shell.pid != pid

    printing("import os, time; os.write(1, b'x' * 100); time.sleep(60)", story, framer=Endless, max_pending_bytes=50)

    assert counted("ringfence_command_caps_total", cap="frame") >= before + 1


def cursor(frame: bytes) -> bytes:
    return frame.strip() if frame.strip().isdigit() else b""


COUNTER = "import sys; first = int(sys.argv[1] or 0) + 1\nprint(*range(first, first + 3), sep='\\n'); print(first, end='')"


def test_a_program_that_can_resume_goes_on_after_the_last_frame() -> None:
    async def story(shell: CommandShell) -> None:
        found: list[Delivery] = []
        while sum(len(delivery.frames) for delivery in found) < 9:
            found.append(await shell.read())

        lines = [int(line) for delivery in found for line in delivery.frames.slices()]
        assert lines == list(range(8, 8 + len(lines)))
        assert found[-1].position == str(lines[-1]).encode()
        assert not any(delivery.frames.lossy for delivery in found)

    printing(COUNTER, story, b"7", resume=cursor)


def test_a_read_that_is_cancelled_loses_nothing() -> None:
    async def story(shell: CommandShell) -> None:
        for _ in range(40):
            reading = asyncio.ensure_future(shell.read())
            await asyncio.sleep(0.002)
            if reading.done():
                assert reading.result().frames.slices()[0] == b"one\n"
                return
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert (await frames(shell, 1))[0] == b"one\n"

    printing("import time; time.sleep(.1); print('one', flush=True); time.sleep(60)", story)


def test_the_environment_is_what_the_collector_gives() -> None:
    async def story(shell: CommandShell) -> None:
        (line,) = await frames(shell, 1)
        assert msgspec.json.decode(line) == {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "TZ": "UTC", "EXTRA": "1"}

    program = "import json, os, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(60)"
    printing(program, story, environment={"EXTRA": "1"})


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("no-such-program", "no-such-program was not found: install it, or set its path in the configuration"),
        (__file__, f"{__file__} may not be executed by this user"),
    ],
)
def test_a_program_that_cannot_be_had_is_one_clear_sentence(program: str, reason: str) -> None:
    shell = CommandShell("printer", lambda position: [program], LineFramer)

    with pytest.raises(Misconfigured) as refusal:
        asyncio.run(shell.open(b""))

    assert str(refusal.value) == reason


def test_a_program_that_goes_missing_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho one\n")
    program.chmod(0o755)

    async def run() -> None:
        shell = CommandShell("printer", lambda position: [str(program)], LineFramer)
        await shell.open(b"")
        try:
            assert await frames(shell, 1) == [b"one\n"]
            program.rename(tmp_path / "moved")
            reading = asyncio.ensure_future(shell.read())
            await asyncio.sleep(0.3)
            (tmp_path / "moved").rename(program)
            assert (await asyncio.wait_for(reading, PATIENCE_SECS)).frames.slices() == [b"one\n"]
        finally:
            await shell.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "cannot be started: No such file" in caplog.text


def test_a_shell_may_be_closed_twice_and_is_not_read_then() -> None:
    async def run() -> None:
        shell = CommandShell("printer", lambda position: ["sleep", "60"], LineFramer)
        await shell.close()
        await shell.open(b"")
        await shell.close()
        await shell.close()
        with pytest.raises(Permanent):
            await shell.read()

    asyncio.run(run())
