"""Tracee events as JSON lines (`tracee --output json`; types/trace/trace.go of Tracee 0.20).

A record is `{"timestamp":NANOSECONDS,"eventName":...,"processId":...,"args":[{"name":...,"type":...,"value":...},...]}`.

- sched_process_exec, sched_process_exit: class process.
- security_socket_connect, net_tcp_connect: class flow, an attempt by the process; net_flow_tcp_begin, net_flow_tcp_end and
  net_packet_ipv4, _ipv6, _tcp, _udp, _icmp, _icmpv6: class flow, with the ends that they name.
- net_packet_dns_request, net_packet_dns_response: class dns, the first question.
- events with the name of a file: class file.
- signatures, which have `metadata` with a severity: class alert.
- any other: class generic.

The process is the one that the host sees (`hostProcessId`). `process.entity_id` is `processEntityId`, where there is one.
`timestamp` is that of the wall clock: `option:relative-time` is not understood.

Sample: {"timestamp":1795592663123456789,"processId":7,"processName":"ls","eventName":"sched_process_exec","args":[...],...}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from collectors.host_events import HostEventDecoder, HostEventKind, Kind, base_name
from collectors.lines import first_line
from collectors.records import TRANSPORTS
from ringfence.batch import EventClass


class _Executable(msgspec.Struct, gc=False):
    path: str | None = None


class _Container(msgspec.Struct, gc=False):
    id: str | None = None
    name: str | None = None
    image: str | None = None


class _Kubernetes(msgspec.Struct, gc=False, rename="camel"):
    pod_name: str | None = None
    pod_namespace: str | None = None


class _Argument(msgspec.Struct, gc=False):
    name: str = ""
    value: Any = None


class _Metadata(msgspec.Struct, gc=False, rename="pascal"):
    description: str | None = None
    properties: dict[str, Any] | None = None


class _Record(msgspec.Struct, gc=False, rename="camel"):
    event_name: str
    timestamp: int | None = None
    process_id: int | None = None
    host_process_id: int | None = None
    host_parent_process_id: int | None = None
    user_id: int | None = None
    process_name: str | None = None
    host_name: str | None = None
    container_id: str | None = None
    executable: _Executable | None = None
    container: _Container | None = None
    kubernetes: _Kubernetes | None = None
    process_entity_id: int | None = None
    parent_entity_id: int | None = None
    args: list[_Argument] | None = None
    metadata: _Metadata | None = None


_SYN = 0x02
_TCP = 6
_CONNECTS = frozenset({"security_socket_connect", "net_tcp_connect"})
_PROTOCOLS: Mapping[str, int] = {"tcp": _TCP, "udp": 17, "icmp": 1, "icmpv6": 58}
_FLOWS = (*_CONNECTS, "net_flow_tcp_begin", "net_flow_tcp_end", "net_packet_ipv4", "net_packet_ipv6",
          *(f"net_packet_{name}" for name in _PROTOCOLS))  # fmt: skip
_DNS_EVENTS = ("net_packet_dns_request", "net_packet_dns_response")
_FILES = (
    "security_file_open", "security_inode_unlink", "security_inode_rename", "security_inode_mknod", "magic_write",
    "file_modification", "open", "openat", "creat", "unlink", "unlinkat", "vfs_write", "vfs_read",
)  # fmt: skip
_SEVERITY: Mapping[int, int] = {0: 1, 1: 21, 2: 47, 3: 73, 4: 99}
"""Of signatures (0 informational to 3 critical in Tracee's own) in the bands of Elastic's risk scale."""
_NAMES = (
    "process.pid", "process.entity_id", "process.name", "process.executable", "process.parent.pid", "process.parent.entity_id",
    "user.id", "container.id", "container.name", "container.image.name", "orchestrator.namespace",
    "orchestrator.resource.name",
)  # fmt: skip


def _who(record: _Record, executable: str | None = None) -> tuple[Any, ...]:
    """The columns of _NAMES."""
    container, pod = record.container or _Container(), record.kubernetes or _Kubernetes()
    path = executable or (record.executable.path if record.executable else None)
    return (
        record.host_process_id or record.process_id, _text(record.process_entity_id or None), record.process_name, path or None,
        record.host_parent_process_id, _text(record.parent_entity_id or None), _text(record.user_id),
        container.id or record.container_id or None, container.name or None, container.image or None,
        pod.pod_namespace or None, pod.pod_name or None,
    )  # fmt: skip


def _text(value: Any) -> str | None:
    return None if value is None or isinstance(value, (dict, list)) else str(value)


def _number(value: Any) -> int | None:
    """Ports are numbers or texts."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _arguments(record: _Record) -> dict[str, Any]:
    return {argument.name: argument.value for argument in record.args or ()}


def _kind_of(record: _Record) -> str:
    properties = record.metadata.properties if record.metadata is not None else None
    if properties and "Severity" in properties:
        return "signature"
    if record.event_name == "security_socket_connect" and _address(_arguments(record).get("remote_addr"))[0] is None:
        return "unix_socket_connect"  # of no kind
    return record.event_name


def _exec(record: _Record) -> tuple[Any, ...]:
    values = _arguments(record)
    argv = values.get("argv")
    line = " ".join(map(str, argv)) if isinstance(argv, list) else None
    return "exec", line or None, *_who(record, _text(values.get("pathname")))


def _exit(record: _Record) -> tuple[Any, ...]:
    return "exit", _number(_arguments(record).get("exit_code")), *_who(record)


def _address(value: Any) -> tuple[str | None, int | None]:
    """Of a `struct sockaddr`: {"sa_family":"AF_INET","sin_addr":"10.2.0.9","sin_port":"443"}."""
    if not isinstance(value, dict):
        return None, None
    text = value.get("sin_addr") or value.get("sin6_addr")
    return _text(text), _number(value.get("sin_port") or value.get("sin6_port"))


def _flow(record: _Record) -> tuple[Any, ...]:
    values = _arguments(record)
    name = record.event_name
    meta = values.get("metadata")
    named = {**(meta if isinstance(meta, dict) else {}), **values}
    source, sport = _text(named.get("src") or named.get("src_ip")), _number(named.get("src_port"))
    destination, dport = _text(named.get("dst") or named.get("dst_ip")), _number(named.get("dst_port"))
    if name in _CONNECTS:
        if "remote_addr" in values:
            destination, dport = _address(values["remote_addr"])
        source = sport = None
    protocol = _PROTOCOLS.get(name.rpartition("_")[2]) or (_TCP if "tcp" in name else None)
    if protocol is None and (number := named.get("protocol")) is not None:
        protocol = TRANSPORTS[str(number)]
    is_attempt = name == "net_tcp_connect"
    return (
        source, sport, destination, dport, protocol, _SYN if is_attempt else None, "egress" if name in _CONNECTS else None, name,
        *_who(record),
    )  # fmt: skip


def _dns(record: _Record) -> tuple[Any, ...]:
    values = _arguments(record)
    meta = values.get("metadata")
    ends = meta if isinstance(meta, dict) else {}
    asked, answered = values.get("dns_questions"), values.get("dns_response")
    first = next((entry for entry in (asked or answered or ()) if isinstance(entry, dict)), {})
    question = first.get("query_data", first)
    question = question if isinstance(question, dict) else {}
    is_answer = record.event_name == "net_packet_dns_response"
    near, far = ("dst", "src") if is_answer else ("src", "dst")
    return (
        _text(ends.get(f"{near}_ip")), _number(ends.get(f"{near}_port")), _text(ends.get(f"{far}_ip")),
        _number(ends.get(f"{far}_port")), _text(question.get("query")), _text(question.get("query_type")),
        "answer" if is_answer else "query", *_who(record),
    )  # fmt: skip


def _file(record: _Record) -> tuple[Any, ...]:
    values = _arguments(record)
    path = _text(values.get("pathname") or values.get("file_path") or values.get("file_name"))
    return record.event_name, path, base_name(path), *_who(record)


def _signature(record: _Record) -> tuple[Any, ...]:
    found = record.metadata or _Metadata()
    properties = found.properties or {}
    severity = _number(properties.get("Severity"))
    return (
        _text(properties.get("signatureID")), _text(properties.get("signatureName")) or record.event_name, found.description,
        _text(properties.get("Category")), None if severity is None else _SEVERITY.get(severity), *_who(record),
    )  # fmt: skip


_ENDS = ("source.ip", "source.port", "destination.ip", "destination.port")
_FLOW = Kind(
    EventClass.FLOW,
    (
        *_ENDS, "network.iana_number", "ringfence.tcp.source_flags", "ringfence.flow.direction", "ringfence.flow.state",
        *_NAMES,
    ),
    _flow,
)  # fmt: skip
_DNS = Kind(EventClass.DNS, (*_ENDS, "dns.question.name", "dns.question.type", "dns.type", *_NAMES), _dns)
_FILE = Kind(EventClass.FILE, ("event.action", "file.path", "file.name", *_NAMES), _file)
_KINDS: Mapping[str, Kind] = {
    "sched_process_exec": Kind(EventClass.PROCESS, ("event.action", "process.command_line", *_NAMES), _exec),
    "sched_process_exit": Kind(EventClass.PROCESS, ("event.action", "process.exit_code", *_NAMES), _exit),
    **dict.fromkeys(_FLOWS, _FLOW),
    **dict.fromkeys(_DNS_EVENTS, _DNS),
    **dict.fromkeys(_FILES, _FILE),
    "signature": Kind(
        EventClass.ALERT,
        ("rule.id", "rule.name", "rule.description", "rule.category", "event.severity", *_NAMES),
        _signature,
    ),
}
_DECODER = msgspec.json.Decoder(_Record)


class TraceeDecoder(HostEventDecoder):
    """Decoder of Tracee lines. `observer` names the sensor where a record has no `hostName`."""

    def __init__(self, observer: str | None = None, keep_original: bool = True) -> None:
        super().__init__(
            _DECODER,
            _KINDS,
            _kind_of,
            lambda record: (None if record.timestamp is None else record.timestamp // 1000, record.host_name),
            "timestamp",
            observer,
            keep_original,
        )


def _looks_like_tracee(first: bytes) -> bool:
    line = first_line(first)
    return line.startswith(b'{"timestamp":') and b'"eventName":' in line and b'"processName":' in line


KIND = HostEventKind(
    "tracee",
    "Tracee events as JSON lines",
    "runtime: {type: tracee, path: /var/log/tracee/events.json}",
    TraceeDecoder,
    _looks_like_tracee,
)
