"""Kunai events as JSON lines (kunai.rocks, "Events"; kunai/src/events.rs of 0.5).

A record is `{"data":{...},"info":{"host":...,"event":{"name":...},"task":...,"parent_task":...,"utc_time":...}}`.

- execve, execve_script, exit, exit_group, clone, kill, ptrace and the like: class process, `event.action` is the name.
- connect, send_data: class flow. A `connect` whose `connected` is true had an answer.
- dns_query: class dns. Only a response that holds addresses is known to have been one: the response code is not told.
- read, write, file_create, file_unlink, file_rename and their kin: class file.
- any other: class generic.

`process.pid` is `tgid`, `process.entity_id` is `guuid`. What Kunai's own rules detected stays in the line.

Sample: {"data":{"command_line":"ls -l","exe":{"path":"/usr/bin/ls","md5":...}},"info":{"event":{"name":"execve"},...}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from collectors.host_events import HostEventDecoder, HostEventKind, Kind, base_name
from collectors.lines import first_line
from collectors.records import TRANSPORTS
from ringfence.batch import EventClass


class _Executable(msgspec.Struct, gc=False, frozen=True):
    path: str | None = None
    md5: str | None = None
    sha1: str | None = None
    sha256: str | None = None


class _Socket(msgspec.Struct, gc=False, frozen=True):
    proto: str | None = None
    type: str | None = None


class _End(msgspec.Struct, gc=False, frozen=True):
    ip: str | None = None
    port: int | None = None


class _Data(msgspec.Struct, gc=False, frozen=True):
    command_line: str | None = None
    exe: _Executable = _Executable()
    parent_exe: str | None = None
    error_code: int | None = None
    socket: _Socket = _Socket()
    src: _End = _End()
    dst: _End = _End()
    dns_server: _End = _End()
    community_id: str | None = None
    connected: bool | None = None
    data_size: int | None = None
    query: str | None = None
    response: str | None = None
    path: str | None = None
    new: str | None = None


class _Container(msgspec.Struct, gc=False, frozen=True):
    name: str | None = None


class _Host(msgspec.Struct, gc=False, frozen=True):
    name: str | None = None
    hostname: str | None = None
    container: _Container | str | None = None


class _EventName(msgspec.Struct, gc=False, frozen=True):
    name: str | None = None


class _Task(msgspec.Struct, gc=False, frozen=True):
    name: str | None = None
    tgid: int | None = None
    guuid: str | None = None
    uid: int | None = None
    user: str | None = None


class _Info(msgspec.Struct, gc=False, frozen=True):
    host: _Host = _Host()
    event: _EventName = _EventName()
    task: _Task = _Task()
    parent_task: _Task = _Task()
    utc_time: str | None = None


class _Record(msgspec.Struct, gc=False, frozen=True):
    info: _Info
    data: _Data = _Data()


_SYN, _ACK = 0x02, 0x10
_TCP = 6
_UNKNOWN_USER = "?"
_PROCESS_EVENTS = (
    "execve", "execve_script", "exit", "exit_group", "clone", "kill", "ptrace", "prctl", "mmap_exec", "mprotect_exec",
)  # fmt: skip
_FILE_EVENTS = (
    "read", "read_config", "write", "write_config", "write_close", "file_create", "file_unlink", "file_rename",
)  # fmt: skip
_NAMES = (
    "process.pid", "process.entity_id", "process.name", "process.executable", "process.command_line", "process.hash.md5",
    "process.hash.sha1", "process.hash.sha256", "process.parent.pid", "process.parent.entity_id", "process.parent.name",
    "process.parent.executable", "user.id", "user.name", "container.name",
)  # fmt: skip


def _who(record: _Record) -> tuple[Any, ...]:
    """The columns of _NAMES."""
    task, parent, data = record.info.task, record.info.parent_task, record.data
    container = record.info.host.container
    return (
        task.tgid, task.guuid, task.name, data.exe.path, data.command_line, data.exe.md5 or None, data.exe.sha1 or None,
        data.exe.sha256 or None, parent.tgid, parent.guuid, parent.name, data.parent_exe,
        None if task.uid is None else str(task.uid), task.user if task.user != _UNKNOWN_USER else None,
        container.name if isinstance(container, _Container) else container,
    )  # fmt: skip


def _process(record: _Record) -> tuple[Any, ...]:
    return record.info.event.name, record.data.error_code, *_who(record)


def _protocol(record: _Record) -> int | None:
    return TRANSPORTS[record.data.socket.proto] if record.data.socket.proto else None


def _flow(record: _Record) -> tuple[Any, ...]:
    data = record.data
    protocol = _protocol(record)
    is_connect, is_tcp = record.info.event.name == "connect", protocol == _TCP
    forth = (_SYN | _ACK if data.connected else _SYN) if is_connect and is_tcp else None
    return (
        data.src.ip, data.src.port, data.dst.ip, data.dst.port, protocol, data.community_id or None, forth,
        _SYN | _ACK if is_connect and is_tcp and data.connected else None, "egress", record.info.event.name, data.data_size,
        *_who(record),
    )  # fmt: skip


def _dns(record: _Record) -> tuple[Any, ...]:
    data = record.data
    return (
        data.src.ip, data.src.port, data.dns_server.ip, data.dns_server.port, _protocol(record), data.community_id or None,
        data.query, "NOERROR" if data.response else None, "answer" if data.response else "query", *_who(record),
    )  # fmt: skip


def _file(record: _Record) -> tuple[Any, ...]:
    path = record.data.path or record.data.new
    return record.info.event.name, path, base_name(path), *_who(record)


_ENDS = (
    "source.ip", "source.port", "destination.ip", "destination.port", "network.iana_number", "network.community_id",
)  # fmt: skip
_PROCESS = Kind(EventClass.PROCESS, ("event.action", "process.exit_code", *_NAMES), _process)
_FLOW = Kind(
    EventClass.FLOW,
    (
        *_ENDS, "ringfence.tcp.source_flags", "ringfence.tcp.destination_flags", "ringfence.flow.direction",
        "ringfence.flow.state", "source.bytes", *_NAMES,
    ),
    _flow,
)  # fmt: skip
_DNS = Kind(EventClass.DNS, (*_ENDS, "dns.question.name", "dns.response_code", "dns.type", *_NAMES), _dns)
_FILE = Kind(EventClass.FILE, ("event.action", "file.path", "file.name", *_NAMES), _file)
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(_PROCESS_EVENTS, _PROCESS),
    **dict.fromkeys(_FILE_EVENTS, _FILE),
    "connect": _FLOW,
    "send_data": _FLOW,
    "dns_query": _DNS,
}
_DECODER = msgspec.json.Decoder(_Record)


class KunaiDecoder(HostEventDecoder):
    """Decoder of Kunai lines. `observer` names the sensor where a record does not name its host."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(
            _DECODER,
            _KINDS,
            lambda record: record.info.event.name,
            lambda record: (record.info.utc_time, record.info.host.name or record.info.host.hostname),
            "info.utc_time",
            observer,
            keep_original,
        )


def _looks_like_kunai(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b'{"data":{') and (b'"parent_task":' in line or b'"ancestors":' in line)


KIND = HostEventKind(
    "kunai",
    "Kunai events as JSON lines",
    "host: {type: kunai, path: /var/log/kunai/events.log}",
    KunaiDecoder,
    _looks_like_kunai,
)
