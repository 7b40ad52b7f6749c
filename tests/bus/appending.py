"""A process that appends to an embedded bus until it is killed: `python -m tests.bus.appending DIRECTORY GROUP COUNT`.

It prints the number of every step once that is committed, and goes on after the number in its committed state.
"""

from __future__ import annotations

import asyncio
import sys

from ringfence.batch import Record, Step
from ringfence.bus import EVENTS, BusSettings, open_bus

SETTINGS = BusSettings(segment_bytes=256 * 1024, ballast_bytes=0)


async def append(directory: str, group: str, count: int) -> None:
    """Commit records of 8 KiB whose headers tell who wrote them and in which order."""
    bus = open_bus(f"sqlite:{directory}", SETTINGS)
    await bus.open()
    state = await bus.join(group, [])
    for number in range(int(state.get("next", b"0")), count):
        block = Record(group.encode(), {"number": b"%d" % number}, b"x" * 8192)
        await bus.commit(Step(group, {EVENTS: [block]}, state={"next": b"%d" % (number + 1)}))
        print(number, flush=True)  # noqa: T201  # the acknowledgement that the parent process counts on
    await bus.close()


if __name__ == "__main__":
    asyncio.run(append(sys.argv[1], sys.argv[2], int(sys.argv[3])))
