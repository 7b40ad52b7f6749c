"""JSON lines: one ECS document a line, one file per topic: events.jsonl, boundary.jsonl, detections.jsonl, alerts.jsonl, dead.jsonl.

Exactly once: the length of each file is committed with the offsets, and a start cuts each file back to its committed
length, so a crash between writing and committing leaves neither gaps nor repeats. Files are synced before the commit.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from ringfence import bus, documents
from ringfence.batch import Batch, EventClass, Problem
from ringfence.component import BuildContext, Status
from ringfence.errors import Permanent, Retryable
from ringfence.yamlfile import ConfigPath

_FILES: Mapping[str, str] = {
    bus.EVENTS: "events.jsonl",
    bus.BOUNDARY: "boundary.jsonl",
    bus.DETECTIONS: "detections.jsonl",
    bus.ALERTS: "alerts.jsonl",
    bus.DEAD: "dead.jsonl",
}
_TOPICS: Mapping[str, str] = {name.removesuffix(".jsonl"): topic for topic, name in _FILES.items()}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ORIGINAL = frozenset({"event.original"})


class JsonLines:
    """Writes documents to files in one folder."""

    def __init__(self, folder: Path, topics: Sequence[str], keep_original: bool) -> None:
        self.topics = topics
        self._folder = folder
        self._keep_original = keep_original
        self._files: dict[str, FileIO] = {}
        self._begun: set[str] = set()
        """Topics whose file was empty when this sink first opened it: until a commit says more, it may be cut to nothing."""

    async def open(self, state: bytes) -> None:
        """Open the files and cut them back to their committed lengths."""
        await self.close()
        lengths: dict[str, int] = msgspec.json.decode(state) if state else {}
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for topic in self.topics:
                path = self._folder / _FILES[topic]
                file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
                self._files[topic] = file
                self._cut(file, path, lengths.get(topic, 0), topic not in lengths and topic not in self._begun)
                self._begun.add(topic)
        except OSError as error:
            raise Permanent(f"{error.filename or self._folder} cannot be written: {error.strerror}") from None

    def _cut(self, file: FileIO, path: Path, length: int, fresh: bool) -> None:
        found = file.seek(0, os.SEEK_END)
        if fresh and found:
            raise Permanent(f"{path} exists and is not of this bus; move it away or choose another folder")
        if found < length:
            raise Permanent(f"{path} is {found} bytes long, but {length} were committed: somebody else shortened it")
        file.truncate(length)
        file.seek(length)

    async def write(self, topic: str, batch: Batch) -> Mapping[int, Problem]:
        """Append the documents of a batch."""
        hide = frozenset() if self._keep_original or batch.header.event_class is EventClass.GENERIC else _ORIGINAL
        file = self._files[topic]
        try:
            for chunk in documents.render(batch, hide):
                _write_all(file, chunk)
        except OSError as error:
            raise _failed(self._folder / _FILES[topic], error) from None
        return {}

    async def flush(self) -> bytes:
        """Sync the files; their lengths are the state."""
        for topic, file in self._files.items():
            try:
                os.fdatasync(file.fileno())
            except OSError as error:
                raise _failed(self._folder / _FILES[topic], error) from None
        return msgspec.json.encode({topic: file.tell() for topic, file in self._files.items()})

    async def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _failed(path: Path, error: OSError) -> Exception:
    message = f"{path} cannot be written: {error.strerror}"
    return Retryable(message) if error.errno in _FULL else Permanent(message)


class Settings(BaseModel):
    """Where to write, and what. `original` keeps the line as it arrived in event.original."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: ConfigPath
    topics: list[Literal["events", "boundary", "detections", "alerts", "dead"]] = Field(
        default=["events", "boundary", "detections", "alerts", "dead"], min_length=1
    )
    original: Literal["keep", "drop"] = "drop"


class JsonLinesKind:
    """Entry point `jsonl`."""

    settings = Settings
    promise = "exactly once: file lengths are committed with the offsets"
    status: Status = "experimental"
    sample = "files: {type: jsonl, path: /var/lib/ringfence/out}"

    def build(self, settings: Settings, context: BuildContext) -> JsonLines:
        """Make the sink."""
        return JsonLines(settings.path, [_TOPICS[name] for name in settings.topics], settings.original == "keep")

    def resources(self, settings: Settings) -> Sequence[str]:
        """Files are written by one sink only."""
        return [f"file {settings.path / _FILES[_TOPICS[name]]}" for name in settings.topics]


KIND = JsonLinesKind()
