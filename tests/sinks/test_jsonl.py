"""JSON lines on disk: no repeats and no gaps after a crash, and nobody else's file is touched."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ringfence import bus
from ringfence.batch import Batch, EventClass
from ringfence.component import BuildContext
from ringfence.errors import Permanent, Retryable
from ringfence.topology import EMPTY
from sinks import jsonl
from sinks.jsonl import KIND, JsonLines
from tests import frames


def batch(*ports: int) -> Batch:
    return frames.batch(EventClass.FLOW, [{"source.port": port, "event.original": b"line"} for port in ports])


def sink(folder: Path, **options: Any) -> JsonLines:
    return KIND.build(KIND.settings.model_validate({"path": folder, **options}), BuildContext("out", EMPTY))


def ports(folder: Path) -> list[int]:
    return [json.loads(line)["source"]["port"] for line in (folder / "events.jsonl").read_bytes().splitlines()]


@contextmanager
def opened(folder: Path, state: bytes = b"", **options: Any) -> Iterator[JsonLines]:
    made = sink(folder, **options)
    try:
        asyncio.run(made.open(state))
        yield made
    finally:
        asyncio.run(made.close())


def deliver(made: JsonLines, *numbers: int) -> bytes:
    async def work() -> bytes:
        await made.write(bus.EVENTS, batch(*numbers))
        return await made.flush()

    return asyncio.run(work())


def test_each_row_is_a_line(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        deliver(made, 1, 2)

    assert ports(tmp_path) == [1, 2]


def test_each_topic_has_a_file(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "alerts.jsonl",
            "boundary.jsonl",
            "dead.jsonl",
            "detections.jsonl",
            "events.jsonl",
        ]


def test_only_the_chosen_topics_have_files(tmp_path: Path) -> None:
    with opened(tmp_path, topics=["boundary"]):
        assert [path.name for path in tmp_path.iterdir()] == ["boundary.jsonl"]


def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_restart_goes_on_after_the_committed_length(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        state = deliver(made, 1)
    with opened(tmp_path, state) as made:
        deliver(made, 2)

    assert ports(tmp_path) == [1, 2]


def test_a_crash_between_write_and_commit_leaves_no_repeats(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        state = deliver(made, 1)
        deliver(made, 2)
    with opened(tmp_path, state) as made:
        deliver(made, 2)

    assert ports(tmp_path) == [1, 2]


def test_a_crash_within_a_line_leaves_no_half_line(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        state = deliver(made, 1)
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"half')
    with opened(tmp_path, state):
        assert ports(tmp_path) == [1]


def test_a_crash_before_the_first_write_was_committed_starts_over(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        state = asyncio.run(made.flush())
        deliver(made, 1)
    with opened(tmp_path, state) as made:
        deliver(made, 1)

    assert ports(tmp_path) == [1]


def test_the_first_step_can_be_tried_again(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        deliver(made, 1)
        asyncio.run(made.open(b""))
        deliver(made, 1)

    assert ports(tmp_path) == [1]


def refused(tmp_path: Path, state: bytes = b"") -> str:
    with pytest.raises(Permanent) as caught, opened(tmp_path, state):
        pass
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("mine\n")

    assert refused(tmp_path) == "events.jsonl exists and is not of this bus; move it away or choose another folder"


def test_a_foreign_file_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("mine\n")
    refused(tmp_path)

    assert (tmp_path / "events.jsonl").read_text() == "mine\n"


def test_a_foreign_file_of_a_topic_that_was_added_later_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, topics=["boundary"]) as made:
        state = asyncio.run(made.flush())
    (tmp_path / "events.jsonl").write_text("mine\n")

    assert refused(tmp_path, state) == "events.jsonl exists and is not of this bus; move it away or choose another folder"


def test_a_file_that_was_shortened_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        state = deliver(made, 1)
    os.truncate(tmp_path / "events.jsonl", 5)

    assert refused(tmp_path, state).startswith("events.jsonl is 5 bytes long, but ")


def test_a_symlink_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "target")

    assert refused(tmp_path) == f"events.jsonl cannot be written: {os.strerror(errno.ELOOP)}"


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(Permanent, match="cannot be written: File exists"), opened(tmp_path / "file"):
        pass


def failing(code: int, after: int) -> Callable[[Any, bytes], None]:
    def write_all(file: Any, data: bytes) -> None:
        file.write(data[:after])
        raise OSError(code, os.strerror(code))

    return write_all


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=["no-space", "quota", "file-limit"])
def test_a_full_disk_is_worth_another_try(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_write_all", failing(code, 3))

    with opened(tmp_path) as made, pytest.raises(Retryable, match=rf"events\.jsonl cannot be written: {os.strerror(code)}$"):
        deliver(made, 1)


def test_another_error_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_write_all", failing(errno.EIO, 3))

    with opened(tmp_path) as made, pytest.raises(Permanent, match="Input/output error"):
        deliver(made, 1)


@pytest.mark.parametrize("first_step", [True, False], ids=["first-step", "later-step"])
def test_after_a_full_disk_the_step_is_written_once(first_step: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as made:
        state = b"" if first_step else deliver(made, 1)
        with monkeypatch.context() as full:
            full.setattr(jsonl, "_write_all", failing(errno.ENOSPC, 20))
            with pytest.raises(Retryable):
                deliver(made, 2)
        asyncio.run(made.close())
        asyncio.run(made.open(state))
        deliver(made, 2)

    assert ports(tmp_path) == ([2] if first_step else [1, 2])


def original(folder: Path, made: Batch, **options: Any) -> object:
    with opened(folder, **options) as out:
        asyncio.run(out.write(bus.EVENTS, made))
    return json.loads((folder / "events.jsonl").read_bytes())["event"].get("original")


def test_the_original_line_is_left_out_unless_asked_for(tmp_path: Path) -> None:
    assert original(tmp_path, batch(1)) is None


def test_the_original_line_is_kept_when_asked_for(tmp_path: Path) -> None:
    assert original(tmp_path, batch(1), original="keep") == "line"


def test_a_generic_event_keeps_its_line_which_is_all_it_has(tmp_path: Path) -> None:
    assert original(tmp_path, frames.batch(EventClass.GENERIC, [{"event.original": b"line"}])) == "line"


def test_closing_twice_or_unopened_is_allowed(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        asyncio.run(made.close())
    asyncio.run(sink(tmp_path).close())


def test_each_file_is_claimed() -> None:
    settings = KIND.settings.model_validate({"path": "/out", "topics": ["events", "dead"]})

    assert list(KIND.resources(settings)) == ["file /out/events.jsonl", "file /out/dead.jsonl"]
