"""Tetragon events as JSON lines: its export file and `tetra getevents` (api/v1/tetragon/tetragon.proto and events.proto).

A record is `{"process_exec":{...},"node_name":...,"time":...}`; members that are zero or empty may be left out.

- process_exec, process_exit: class process. The command line is the path of the program and its arguments.
- process_kprobe, process_lsm, process_tracepoint, process_uprobe: by their arguments. With a socket or a packet
  (`sock_arg`, `skb_arg`, `sockaddr_arg`) class flow: of `tcp_connect` an attempt by its source, of all others an end that
  nobody says began. With a file (`file_arg`, `path_arg`) class file. `event.action` is the function or tracepoint.
- any other: class generic.

`process.entity_id` is `exec_id`.

Sample: {"process_exec":{"process":{"exec_id":"bjE6MTox","pid":7,"uid":0,"binary":"/bin/ls","arguments":"-l",...}},"time":"..."}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from collectors.host_events import HostEventDecoder, HostEventKind, Kind, base_name, container_id
from collectors.lines import first_line
from collectors.records import TRANSPORTS
from ringfence.batch import EventClass


class _Image(msgspec.Struct, gc=False, frozen=True):
    name: str | None = None


class _Container(msgspec.Struct, gc=False, frozen=True):
    id: str | None = None
    name: str | None = None
    image: _Image = _Image()


class _Pod(msgspec.Struct, gc=False, frozen=True):
    namespace: str | None = None
    name: str | None = None
    container: _Container = _Container()


class _Namespace(msgspec.Struct, gc=False, frozen=True):
    inum: int | None = None


class _Namespaces(msgspec.Struct, gc=False, frozen=True):
    net: _Namespace = _Namespace()


class _User(msgspec.Struct, gc=False, frozen=True):
    name: str | None = None


class _Process(msgspec.Struct, gc=False, frozen=True):
    exec_id: str | None = None
    pid: int | None = None
    uid: int | None = None
    cwd: str | None = None
    binary: str | None = None
    arguments: str | None = None
    docker: str | None = None
    parent_exec_id: str | None = None
    pod: _Pod = _Pod()
    ns: _Namespaces = _Namespaces()
    user: _User = _User()


class _Packet(msgspec.Struct, gc=False, frozen=True):
    """KprobeSock and KprobeSkb."""

    protocol: str | None = None
    saddr: str | None = None
    daddr: str | None = None
    sport: int | None = None
    dport: int | None = None


class _Address(msgspec.Struct, gc=False, frozen=True):
    """KprobeSockaddr."""

    addr: str | None = None
    port: int | None = None


class _File(msgspec.Struct, gc=False, frozen=True):
    path: str | None = None


class _Argument(msgspec.Struct, gc=False, frozen=True):
    sock_arg: _Packet | None = None
    skb_arg: _Packet | None = None
    sockaddr_arg: _Address | None = None
    file_arg: _File | None = None
    path_arg: _File | None = None


class _Event(msgspec.Struct, gc=False, frozen=True):
    process: _Process = _Process()
    parent: _Process = _Process()
    signal: str | None = None
    status: int | None = None
    function_name: str | None = None
    subsys: str | None = None
    event: str | None = None
    symbol: str | None = None
    args: list[_Argument] | None = None


_NOTHING = msgspec.Raw(b"")


class _Record(msgspec.Struct, gc=False, frozen=True):
    process_exec: _Event | None = None
    process_exit: _Event | None = None
    process_kprobe: _Event | None = None
    process_lsm: _Event | None = None
    process_tracepoint: _Event | None = None
    process_uprobe: _Event | None = None
    process_loader: msgspec.Raw = _NOTHING
    process_throttle: msgspec.Raw = _NOTHING
    process_usdt: msgspec.Raw = _NOTHING
    rate_limit_info: msgspec.Raw = _NOTHING
    test: msgspec.Raw = _NOTHING
    node_name: str | None = None
    time: str | None = None


_TRACED = ("process_kprobe", "process_lsm", "process_tracepoint", "process_uprobe")
_OTHERS = ("process_loader", "process_throttle", "process_usdt", "rate_limit_info", "test")
_SYN = 0x02


def _kind_of(record: _Record) -> str | None:
    if record.process_exec is not None:
        return "exec"
    if record.process_exit is not None:
        return "exit"
    for name in _TRACED:
        event: _Event | None = getattr(record, name)
        if event is not None:
            return _traced_kind(event) or name
    return next((name for name in _OTHERS if bytes(getattr(record, name))), None)


def _traced_kind(event: _Event) -> str | None:
    for argument in event.args or ():
        if argument.sock_arg or argument.skb_arg or argument.sockaddr_arg:
            return "flow"
        if argument.file_arg or argument.path_arg:
            return "file"
    return None


def _traced(record: _Record) -> _Event:
    found: _Event = next(event for name in _TRACED if (event := getattr(record, name)) is not None)
    return found


def _command_line(process: _Process) -> str | None:
    parts = [part for part in (process.binary, process.arguments) if part]
    return " ".join(parts) or None


_NAMES = (
    "process.pid", "process.entity_id", "process.name", "process.executable", "process.command_line",
    "process.working_directory", "process.parent.pid", "process.parent.entity_id", "process.parent.name",
    "process.parent.executable", "process.parent.command_line", "user.id", "user.name", "container.id", "container.name",
    "container.image.name", "orchestrator.namespace", "orchestrator.resource.name",
)  # fmt: skip


def _who(event: _Event) -> tuple[Any, ...]:
    """The columns of _NAMES."""
    process, parent = event.process, event.parent
    pod = process.pod
    return (
        process.pid, process.exec_id, base_name(process.binary), process.binary, _command_line(process), process.cwd,
        parent.pid, parent.exec_id or process.parent_exec_id, base_name(parent.binary), parent.binary, _command_line(parent),
        None if process.uid is None else str(process.uid), process.user.name,
        container_id(pod.container.id) or process.docker, pod.container.name, pod.container.image.name, pod.namespace, pod.name,
    )  # fmt: skip


def _exec(record: _Record) -> tuple[Any, ...]:
    event = record.process_exec or _Event()
    return "exec", event.process.ns.net.inum, *_who(event)


def _exit(record: _Record) -> tuple[Any, ...]:
    event = record.process_exit or _Event()
    code = None if event.signal else event.status or 0
    return "exit", code, event.signal or None, *_who(event)


def _flow(record: _Record) -> tuple[Any, ...]:
    event = _traced(record)
    packet, protocol = _Packet(), None
    for argument in event.args or ():
        if argument.sock_arg or argument.skb_arg:
            packet = argument.sock_arg or argument.skb_arg or packet
            protocol = packet.protocol
        elif argument.sockaddr_arg and packet.daddr is None:
            packet = _Packet(daddr=argument.sockaddr_arg.addr, dport=argument.sockaddr_arg.port)
    number = TRANSPORTS[(protocol or "").removeprefix("IPPROTO_")] if protocol else None
    connects = event.function_name == "tcp_connect"
    return (
        packet.saddr or None, packet.sport, packet.daddr or None, packet.dport, 6 if connects else number,
        _SYN if connects else None, "egress" if connects else None, event.function_name or event.event or event.symbol,
        event.process.ns.net.inum, *_who(event),
    )  # fmt: skip


def _file(record: _Record) -> tuple[Any, ...]:
    event = _traced(record)
    found = next(file for argument in event.args or () if (file := argument.file_arg or argument.path_arg))
    return event.function_name or event.event or event.symbol, found.path, base_name(found.path), *_who(event)


_KINDS: Mapping[str, Kind] = {
    "exec": Kind(EventClass.PROCESS, ("event.action", "ringfence.process.network_namespace", *_NAMES), _exec),
    "exit": Kind(EventClass.PROCESS, ("event.action", "process.exit_code", "ringfence.process.signal", *_NAMES), _exit),
    "flow": Kind(
        EventClass.FLOW,
        (
            "source.ip", "source.port", "destination.ip", "destination.port", "network.iana_number",
            "ringfence.tcp.source_flags", "ringfence.flow.direction", "ringfence.flow.state",
            "ringfence.process.network_namespace", *_NAMES,
        ),
        _flow,
    ),
    "file": Kind(EventClass.FILE, ("event.action", "file.path", "file.name", *_NAMES), _file),
}  # fmt: skip
_DECODER = msgspec.json.Decoder(_Record)


class TetragonDecoder(HostEventDecoder):
    """Decoder of Tetragon lines. `observer` names the sensor where a record has no `node_name`."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(
            _DECODER, _KINDS, _kind_of, lambda record: (record.time, record.node_name), "time", observer, keep_original
        )


def _looks_like_tetragon(first: bytes) -> bool:
    return first_line(first).startswith(
        (b'{"process_exec":{', b'{"process_exit":{', *(b'{"%s":{' % n.encode() for n in _TRACED))
    )


KIND = HostEventKind(
    "tetragon",
    "Tetragon events as JSON lines",
    "cluster: {type: tetragon, path: /var/run/cilium/tetragon/tetragon.log}",
    TetragonDecoder,
    _looks_like_tetragon,
)
