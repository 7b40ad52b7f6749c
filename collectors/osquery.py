"""Results of osquery, one JSON object a line: `osqueryd.results.log` and what its other loggers write.

After the osquery documentation ("Logging", the schema of its tables). A line is one row that was added or removed, several in
batch form (`diffResults`), or all rows of a snapshot; each becomes a row, with the place in the line added to the position of
the line. Which table a query reads is told by its name, which usually ends in it, or by the setting `tables`:

- process_events, bpf_process_events, es_process_events: class process.
- socket_events, bpf_socket_events: class flow for connect and accept. What was accepted has passed; a connect is an attempt.
- user_events (of the Linux audit system) and logged_in_users: class auth.
- listening_ports and all others: class generic, with the columns of the row as `message`.

`@timestamp` is when it happened by the column `time`, where there is one, else when the query ran.

Sample: {"name":"pack_x_process_events","hostIdentifier":"srv3","unixTime":1795592663,"columns":{"pid":"77",...},"action":"added"}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from pydantic import Field

from collectors import windows
from collectors.json_documents import Gathered, Reader, read, reader_of, typed_columns
from collectors.kafka_topic import FileOrTopic
from collectors.lines import Continuations, LineFramer, first_line
from collectors.records import LineBlock
from ringfence.addresses import AddressCache
from ringfence.batch import Decoded, EventClass, Frames, ProblemCode
from ringfence.component import BuildContext, Collector, Format, Status
from ringfence.jsonlines import locate
from ringfence.schema import build_frame

CHUNK_LINES = 512

Row = Mapping[str, Any]
_AUDIT_USER: Mapping[str, str] = {
    "1100": "authentication",
    "1105": "session-opened",
    "1106": "session-closed",
    "1112": "login",
    "1113": "logout",
}
"""Types of Linux audit records about users (linux/audit.h) by our words."""
_ACCOUNT = re.compile(r'acct="([^"]{1,256})"')
_RESULT = re.compile(r"res=(success|failed)")
_PROTOCOLS = frozenset(map(str, range(256)))


@cache
def _lines() -> Reader:
    texts = ("name", "hostIdentifier", "action", "decorations.hostname")
    return reader_of(
        "result",
        [
            *((name, str) for name in texts),
            ("unixTime", int),
            ("columns", dict[str, Any]),
            ("snapshot", list[Any]),
            ("diffResults", dict[str, Any]),
        ],
    )


class _Found(NamedTuple):
    """One row of a table, and the line that it came from."""

    line: int
    place: int
    table: str
    query: str
    host: str | None
    action: str
    time: int | None
    columns: Row


class OsqueryDecoder:
    """Decoder of results. `tables` names the table of queries whose name does not tell it."""

    def __init__(
        self, observer: str | None = None, keep_original: bool = True, tables: Mapping[str, str] | None = None
    ) -> None:
        self._observer = observer
        self._keep_original = keep_original
        self._tables = dict(tables or {})
        self._addresses = AddressCache()
        self._continuations = Continuations()

    def feed(self, frames: Frames) -> Decoded:
        """Decode all lines; each is one row or more, one Problem, blank, or a result without rows."""
        block = LineBlock(frames, self._continuations)
        parts: dict[EventClass, tuple[Gathered, list[_Found]]] = {}
        taken = 0
        for start in range(0, len(block.lines), CHUNK_LINES):
            for line, result in enumerate(read(block, _lines(), start, start + CHUNK_LINES), start):
                if result is not None:
                    taken += self._take(block, line, result, parts)
        rows = {event_class: self._frame(block, event_class, *part) for event_class, part in parts.items()}
        return Decoded(rows, taken, sorted(block.problems, key=lambda problem: problem.row or 0), +block.filtered)

    def _take(self, block: LineBlock, line: int, result: Any, parts: dict[EventClass, tuple[Gathered, list[_Found]]]) -> bool:
        """Add the rows of one line; False when it has none, which is accounted for."""
        query = result.name or ""
        named = self._tables.get(query, query)
        table = next((name for name in _READERS if name in named), "")
        arrived = int(block.frames.received_us[line])
        ran = _micros(result.unixTime) or arrived or None
        host = result.hostIdentifier or (result.decorations.hostname if result.decorations else None)
        rows: list[_Found] = []
        for action, columns in _rows_of(result):
            happened = _micros(windows.number(_text(columns.get("time")))) if table.endswith("_events") else None
            rows.append(_Found(line, len(rows), table, query, host, action, happened or ran, columns))
        if any(row.time is None for row in rows):
            detail = "there is no unixTime and the time of arrival is not known"
            block.refuse(ProblemCode.WRONG_TYPE, detail, line, locate(block.lines[line], "$.unixTime"), "$.unixTime")
            return False
        for row in rows:
            event_class, values = _READERS.get(table, _other)(row)
            gathered, own = parts.setdefault(event_class, (Gathered(), []))
            gathered.take({name: (value,) for name, value in values.items()}, (line,))
            own.append(row)
        if not rows:
            block.filtered["no_rows"] += 1
        return bool(rows)

    def _frame(self, block: LineBlock, event_class: EventClass, gathered: Gathered, found: Sequence[_Found]) -> Any:
        lines = np.array(gathered.rows, np.int64)
        columns = block.origin_columns(lines, self._keep_original or event_class is EventClass.GENERIC, False)
        columns["ringfence.event.position"] += np.array([row.place for row in found], np.uint64)
        hosts = [row.host for row in found]
        columns |= {
            "@timestamp": [row.time for row in found],
            "host.name": hosts,
            "observer.name": hosts if self._observer is None else [self._observer] * len(found),
        }
        columns |= typed_columns(event_class, gathered.columns(), self._addresses)
        return build_frame(event_class, columns)


def _rows_of(result: Any) -> Iterator[tuple[str, Row]]:
    """Each row of a line with what happened to it."""
    if result.columns is not None:
        yield result.action or "added", result.columns
    for columns in result.snapshot or ():
        if isinstance(columns, dict):
            yield "snapshot", columns
    for action, several in (result.diffResults or {}).items():
        if action in ("added", "removed") and isinstance(several, list):
            yield from ((action, columns) for columns in several if isinstance(columns, dict))


def _micros(seconds: int | None) -> int | None:
    """Seconds since the epoch as microseconds; None for what is no time."""
    return seconds * 1_000_000 if seconds is not None and 0 < seconds < 1 << 40 else None


def _text(value: Any) -> str | None:
    """A value of a table as text; an empty one is none."""
    if value is None or value == "" or isinstance(value, bool | dict | list):
        return None
    return value if isinstance(value, str) else str(value)


def _number(found: _Found, name: str) -> int | None:
    return windows.number(_text(found.columns.get(name)))


def _process(found: _Found) -> tuple[EventClass, dict[str, Any]]:
    """Columns of process_events, of the audit system, of eBPF and of Endpoint Security."""
    path = _text(found.columns.get("path"))
    folder = _text(found.columns.get("cwd"))  # quoted, as the audit system writes it
    kind = _text(found.columns.get("event_type")) or _text(found.columns.get("syscall")) or "exec"
    return EventClass.PROCESS, {
        "event.action": "exec" if kind.startswith("exec") else kind,
        "process.pid": _number(found, "pid"),
        "process.executable": path,
        "process.name": path and windows.base_name(path),
        "process.command_line": _text(found.columns.get("cmdline")),
        "process.working_directory": folder and folder.strip('"'),
        "process.parent.pid": _number(found, "parent"),
        "process.exit_code": _number(found, "exit_code") if kind == "exit" else None,
        "user.id": _text(found.columns.get("uid")),
        "user.name": _text(found.columns.get("username")),
    }


def _socket(found: _Found) -> tuple[EventClass, dict[str, Any]]:
    """Columns of socket_events: who connected, or was connected to."""
    action = _text(found.columns.get("action")) or _text(found.columns.get("syscall")) or ""
    if action not in ("connect", "accept", "accept4"):
        return _other(found)
    near, far = ("source", "destination") if action == "connect" else ("destination", "source")
    path, protocol = _text(found.columns.get("path")), _text(found.columns.get("protocol"))
    failed = _text(found.columns.get("status")) == "failed" or _text(found.columns.get("success")) == "0"
    return EventClass.FLOW, {
        f"{near}.ip": _text(found.columns.get("local_address")),
        f"{near}.port": _port(found, "local_port"),
        f"{far}.ip": _text(found.columns.get("remote_address")),
        f"{far}.port": _port(found, "remote_port"),
        "network.iana_number": int(protocol) if protocol in _PROTOCOLS and protocol != "0" else 6,
        "ringfence.firewall.action": "pass" if near == "destination" and not failed else None,
        "process.pid": _number(found, "pid"),
        "process.executable": path,
        "process.name": path and windows.base_name(path),
        "user.id": _text(found.columns.get("uid")),
    }


def _port(found: _Found, name: str) -> int | None:
    """A port; 0 where osquery does not know it."""
    return _number(found, name) or None


def _audited_user(found: _Found) -> tuple[EventClass, dict[str, Any]]:
    """Columns of user_events: records of the audit system about users."""
    message = _text(found.columns.get("message")) or ""
    account, result = _ACCOUNT.search(message), _RESULT.search(message)
    kind = _text(found.columns.get("type"))
    path = _text(found.columns.get("path"))
    return EventClass.AUTH, {
        "event.action": _AUDIT_USER.get(kind or "", "user-event"),
        "event.outcome": None if result is None else {"success": "success", "failed": "failure"}[result[1]],
        "event.code": kind,
        "user.name": None if account is None else account[1],
        "user.id": _text(found.columns.get("auid")),
        "source.ip": _text(found.columns.get("address")),
        "ringfence.auth.terminal": _text(found.columns.get("terminal")),
        "process.pid": _number(found, "pid"),
        "process.executable": path,
        "process.name": path and windows.base_name(path),
        "message": message or None,
    }


def _logged_in(found: _Found) -> tuple[EventClass, dict[str, Any]]:
    """Columns of logged_in_users: sessions that began, ended or are there."""
    host = _text(found.columns.get("host"))
    words = {"added": "session-opened", "removed": "session-closed"}
    is_address = host is not None and re.fullmatch(r"[0-9a-fA-F:]*[:.][0-9a-fA-F:.]+", host) is not None
    return EventClass.AUTH, {
        "event.action": words.get(found.action, "session-seen"),
        "event.outcome": "success",
        "user.name": _text(found.columns.get("user")),
        "source.ip": host if is_address else None,
        "source.domain": None if is_address else host,
        "ringfence.auth.terminal": _text(found.columns.get("tty")),
        "process.pid": _number(found, "pid"),
    }


def _other(found: _Found) -> tuple[EventClass, dict[str, Any]]:
    """A row of any other table, whole."""
    listens = found.table == "listening_ports"
    return EventClass.GENERIC, {
        "ringfence.generic.type": found.query or "osquery",
        "event.action": found.action,
        "message": msgspec.json.encode(found.columns).decode(),
        "destination.ip": _text(found.columns.get("address")) if listens else None,
        "destination.port": _port(found, "port") if listens else None,
        "process.pid": _number(found, "pid") if listens else None,
    }


_READERS: Mapping[str, Callable[[_Found], tuple[EventClass, dict[str, Any]]]] = {
    "process_events": _process,
    "socket_events": _socket,
    "user_events": _audited_user,
    "logged_in_users": _logged_in,
    "listening_ports": _other,
}


def recognise(first: bytes) -> bool:
    """True when a file that begins so holds results of osquery."""
    line = first_line(first)
    return (
        line.startswith(b"{")
        and b'"hostIdentifier"' in line
        and any(name in line for name in (b'"calendarTime"', b'"unixTime"', b'"columns"'))
    )


class Settings(FileOrTopic):
    """Results of osquery in a file or a topic of Kafka."""

    tables: dict[str, str] = Field(
        default_factory=dict, description="Table that a query reads, by the name of the query, where the name does not tell it."
    )


class OsqueryKind:
    """Entry point `osquery`."""

    settings = Settings
    promise = "file, Kafka: every complete line once, across restarts and rotation by rename"
    status: Status = "experimental"
    sample = "osquery: {type: osquery, path: /var/log/osquery/osqueryd.results.log}"
    formats = (
        Format("osquery", "results of osquery as JSON lines", LineFramer, lambda year: OsqueryDecoder(), recognise, "osquery"),
    )

    def build(self, settings: Settings, context: BuildContext) -> Collector:
        """Results through the shell that their file or topic asks for."""
        return Collector(
            "osquery", settings.shell(), OsqueryDecoder(settings.observer, settings.keeps_original, settings.tables)
        )

    def resources(self, settings: Settings) -> Sequence[str]:
        """A file or a topic may be read by one collector only."""
        return settings.claims()


KIND = OsqueryKind()
