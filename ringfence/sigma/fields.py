"""What a rule's log source and fields mean on our columns: which event classes it wants, which rows of them, which columns.

After the Sigma taxonomy ("Log Sources", "Fields") and, for Zeek and Suricata, the paths in the column table. A field without a
column is looked up in the JSON that the row keeps, where its source keeps one: `winlog.event_data` of Windows events, the
line of a Zeek log of class generic. A log source or field that none of this covers is refused.

`product: ringfence` names our own events: `category` is their class, or `any`, and fields are columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import polars as pl

from ringfence import addresses, documents
from ringfence.batch import Batch, EventClass
from ringfence.jsonlines import REFUSALS
from ringfence.projection import zeek_columns
from ringfence.schema import BY_NAME, COLUMNS, frame_schema
from ringfence.sigma.rules import LogSource, Rule, Unsupported
from ringfence.sigma.table import WHOLE, Coded, Table
from ringfence.sigma.tree import (
    ALWAYS,
    And,
    Exists,
    Keyword,
    Node,
    Not,
    Or,
    Reference,
    Text,
    simplified,
)

JSON_MARK = "#"
"""`winlog.event_data#ServiceName` is a member of the JSON object in a column."""
EVENT_DATA = "winlog.event_data"
_MEMBER = re.compile(r"[A-Za-z0-9_.\- ]{1,64}")
_P, _F, _A, _G = EventClass.PROCESS, EventClass.FLOW, EventClass.AUTH, EventClass.GENERIC
_D, _FI = EventClass.DNS, EventClass.FILE
_EVENTS = frozenset(EventClass) - {EventClass.DEAD, EventClass.ALARM}


@dataclass(frozen=True, slots=True)
class Route:
    """Where a log source is found: classes of events, what their rows must be, columns by field, and where other fields are."""

    classes: frozenset[EventClass]
    rows: Node = ALWAYS
    columns: Mapping[str, str] = field(default_factory=dict)
    json: str | None = None
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Routed:
    """A rule whose fields are columns, and the classes whose events it is for."""

    rule: Rule
    classes: frozenset[EventClass]


def routed(rule: Rule) -> Routed:
    """The rule on columns. Raises Unsupported for a log source or a field that no column has."""
    route = route_of(rule.source)
    condition = simplified(And((_renamed(rule.condition, route, rule), route.rows)))
    return Routed(replace(rule, condition=condition), route.classes)


def column_of(rule: Rule, name: str) -> str:
    """The column that a field of a rule, as it is written, is. Raises Unsupported."""
    return _name(name, route_of(rule.source), rule)


def route_of(source: LogSource) -> Route:
    """Raises Unsupported for a log source that no collector gives."""
    if source.product == "ringfence":
        return _own(source)
    if source.product == "zeek" and source.service:
        return _zeek(source.service)
    if source.product == "suricata":
        return Route(_EVENTS, ALWAYS, _SURICATA)
    for known in (source, replace(source, service=None), replace(source, category=None)):
        if known in _ROUTES:
            return _ROUTES[known]
    raise Unsupported(f"log source '{source}' is not mapped to events; see docs/reference/log-sources.md")


def table_of(batch: Batch, coded: Mapping[str, Coded] | None = None) -> Table:
    """The columns of a batch as rules see them: addresses, times and protocols as text. `coded` are columns beside it."""
    frame = batch.frame
    members = _Members(frame)
    return Table(frame.height, lambda name: _column(frame, members, name), coded or {}, lambda name: _ipv4(frame, name))


def is_text(name: str) -> bool:
    """True for fields that are worth a scan for literals: text, but for the few that are a number or a word of few."""
    column = BY_NAME.get(name)
    return JSON_MARK in name or name == WHOLE or (column is not None and column.dtype == pl.String() and name not in _WORDS)


_WORDS = frozenset(
    {"event.code", "event.action", "event.outcome", "winlog.channel", "winlog.provider_name"}
    | {f"{side}.segment.{part}" for side in ("source", "destination") for part in ("role", "tenant", "site")}
    | {f"ringfence.boundary.{part}" for part in ("intent", "outcome", "verdict", "origin")}
)


class _Members:
    """Members of the JSON objects in columns; each object is decoded once."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._frame = frame
        self._decoded: dict[str, list[Any]] = {}

    def of(self, column: str, name: str) -> pl.Series | None:
        """One member as text: null where there is none."""
        if column not in self._frame.columns or self._frame[column].null_count() == self._frame.height:
            return None
        if column not in self._decoded:
            self._decoded[column] = list(map(_object, self._frame[column].to_list()))
        values = (found and found.get(name) for found in self._decoded[column])
        return pl.Series([value if type(value) is str else _json_text(value) for value in values], dtype=pl.String)


def _object(text: str | bytes | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text.decode(errors="replace") if isinstance(text, bytes) else text)
    except REFUSALS:
        return None
    return found if isinstance(found, dict) and found else None


def _json_text(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _column(frame: pl.DataFrame, members: _Members, name: str) -> pl.Series | None:
    if name == WHOLE:
        return _whole(frame)
    column, mark, member = name.partition(JSON_MARK)
    if mark:
        return members.of(column, member)
    if name == "network.transport":
        return documents.transport(frame["network.iana_number"]) if "network.iana_number" in frame.columns else None
    declared = BY_NAME.get(name)
    if declared is not None and declared.render == "ipv4":
        six = f"{name}6"
        return addresses.text(frame.get_column(name, default=None), frame.get_column(six, default=None))
    if name not in frame.columns:
        return None
    if declared is not None and declared.render == "time":
        return documents.rfc3339(frame[name])
    return _lossy(frame[name]) if frame[name].dtype == pl.Binary() else frame[name]


def _ipv4(frame: pl.DataFrame, name: str) -> pl.Series | None:
    if name not in frame.columns or frame[name].dtype != pl.UInt32() or BY_NAME[name].render != "ipv4":
        return None
    six = frame.get_column(f"{name}6", default=None)
    return frame[name] if six is None or six.null_count() == len(six) else None


def _lossy(column: pl.Series) -> pl.Series:
    """Bytes as text; what is not UTF-8 is replaced, never refused."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        texts = [None if value is None else value.decode(errors="replace") for value in column.to_list()]
        return pl.Series(texts, dtype=pl.String)


def _whole(frame: pl.DataFrame) -> pl.Series | None:
    """All text of an event: its line where that is kept, and every text column."""
    texts = [frame[name] for name, dtype in frame.schema.items() if dtype == pl.String() and ".segment." not in name]
    if "event.original" in frame.columns:
        texts.append(_lossy(frame["event.original"]))
    if not texts:
        return None
    return pl.select(pl.concat_str([pl.lit(text) for text in texts], separator="\n", ignore_nulls=True)).to_series()


def _renamed(node: Node, route: Route, rule: Rule) -> Node:
    match node:
        case And(children):
            return And(tuple(_renamed(child, route, rule) for child in children))
        case Or(children):
            return Or(tuple(_renamed(child, route, rule) for child in children))
        case Not(child):
            return Not(_renamed(child, route, rule))
        case Reference(name, other):
            return replace(node, field=_name(name, route, rule), other=_name(other, route, rule))
        case Keyword():
            return node
        case leaf:
            return leaf if leaf.field is None else replace(leaf, field=_name(leaf.field, route, rule))


def _name(name: str, route: Route, rule: Rule) -> str:
    if name in route.columns:
        return route.columns[name]
    if route.is_own or name in BY_NAME:
        known = {column for event_class in route.classes for column in frame_schema(event_class)} | _DERIVED
        if name in known:
            return name
    elif route.json is not None and _MEMBER.fullmatch(name):
        return f"{route.json}{JSON_MARK}{name}"
    raise Unsupported(f"field '{name}' has no column in log source '{rule.source}'")


_DERIVED = frozenset({"network.transport"})


def _words(column: str, *texts: str) -> Node:
    return Or(tuple(Text(column, (text,)) for text in texts))


def _own(source: LogSource) -> Route:
    category = source.category or "any"
    if category == "any":
        return Route(_EVENTS, is_own=True)
    if category not in _EVENTS:
        raise Unsupported(f"category '{category}' is none of ringfence's; known: any, {', '.join(sorted(_EVENTS))}")
    return Route(frozenset({EventClass(category)}), is_own=True)


# Windows: the log is `winlog.channel`; categories are those of Sysmon, and of the audit log where that has the same
_IS_WINDOWS = Exists("winlog.channel")
_WINDOWS_FIELDS = {
    "EventID": "event.code", "Channel": "winlog.channel", "Provider_Name": "winlog.provider_name", "Computer": "host.name",
    "ComputerName": "host.name", "Image": "process.executable", "CommandLine": "process.command_line",
    "ParentImage": "process.parent.executable", "ParentCommandLine": "process.parent.command_line", "ProcessId": "process.pid",
    "ParentProcessId": "process.parent.pid", "CurrentDirectory": "process.working_directory",
    "OriginalFileName": "process.pe.original_file_name", "Company": "process.pe.company", "Description": "process.pe.description",
    "Product": "process.pe.product", "FileVersion": "process.pe.file_version", "IntegrityLevel": "ringfence.process.integrity_level",
}  # fmt: skip
_CONNECTION = {
    "SourceIp": "source.ip", "SourcePort": "source.port", "SourceHostname": "source.domain", "DestinationIp": "destination.ip",
    "DestinationPort": "destination.port", "DestinationHostname": "destination.domain",
}  # fmt: skip
_EVENT_COLUMNS = ("EventID", "Channel", "Provider_Name", "Computer", "ComputerName")
_EVENT_FIELDS = {name: _WINDOWS_FIELDS[name] for name in _EVENT_COLUMNS}
_LOADED = {**_EVENT_FIELDS, "Image": "process.executable", "ImageLoaded": "dll.path"}
_SYSMON = "Microsoft-Windows-Sysmon"
_SYSMON_CATEGORIES: Mapping[str, tuple[EventClass, tuple[int, ...], Mapping[str, str]]] = {
    "network_connection": (_F, (3,), {**_EVENT_FIELDS, "Image": "process.executable", **_CONNECTION}),
    "process_termination": (_P, (5,), {**_EVENT_FIELDS, "Image": "process.executable"}),
    "driver_load": (_G, (6,), _LOADED),
    "image_load": (_G, (7,), _LOADED),
    "create_remote_thread": (_G, (8,), {**_EVENT_FIELDS, "SourceImage": "process.executable", "TargetImage": "ringfence.access.target"}),
    "raw_access_thread": (_G, (9,), {**_EVENT_FIELDS, "Image": "process.executable"}),
    "process_access": (
        _G,
        (10,),
        {
            **_EVENT_FIELDS, "SourceImage": "process.executable", "TargetImage": "ringfence.access.target",
            "GrantedAccess": "ringfence.access.mask",
        },
    ),
    "file_event": (_FI, (11,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetFilename": "file.path"}),
    "file_change": (_FI, (2,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetFilename": "file.path"}),
    "file_delete": (_FI, (23, 26), {**_EVENT_FIELDS, "Image": "process.executable", "TargetFilename": "file.path"}),
    "file_executable_detected": (_FI, (29,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetFilename": "file.path"}),
    "file_block_executable": (_G, (27,), _EVENT_FIELDS),
    "file_block_shredding": (_G, (28,), _EVENT_FIELDS),
    "create_stream_hash": (_FI, (15,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetFilename": "file.path"}),
    "registry_add": (_G, (12,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetObject": "registry.path"}),
    "registry_delete": (_G, (12,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetObject": "registry.path"}),
    "registry_set": (
        _G,
        (13,),
        {**_EVENT_FIELDS, "Image": "process.executable", "TargetObject": "registry.path", "Details": "registry.data.strings"},
    ),
    "registry_rename": (_G, (14,), {**_EVENT_FIELDS, "Image": "process.executable", "TargetObject": "registry.path"}),
    "registry_event": (
        _G,
        (12, 13, 14),
        {**_EVENT_FIELDS, "Image": "process.executable", "TargetObject": "registry.path", "Details": "registry.data.strings"},
    ),
    "pipe_created": (_G, (17, 18), {**_EVENT_FIELDS, "Image": "process.executable", "PipeName": "file.name"}),
    "wmi_event": (_G, (19, 20, 21), _EVENT_FIELDS),
    "dns_query": (_D, (22,), {**_EVENT_FIELDS, "Image": "process.executable", "QueryName": "dns.question.name"}),
    "clipboard_capture": (_G, (24,), _EVENT_FIELDS),
    "process_tampering": (_G, (25,), {**_EVENT_FIELDS, "Image": "process.executable"}),
    "sysmon_status": (_G, (4, 16), _EVENT_FIELDS),
    "sysmon_error": (_G, (255,), _EVENT_FIELDS),
}  # fmt: skip
_POWERSHELL = "Microsoft-Windows-PowerShell/Operational"
_POWERSHELL_CATEGORIES: Mapping[str, tuple[str, tuple[int, ...], Mapping[str, str]]] = {
    "ps_module": (_POWERSHELL, (4103,), _EVENT_FIELDS),
    "ps_script": (_POWERSHELL, (4104,), {**_EVENT_FIELDS, "ScriptBlockText": "powershell.file.script_block_text", "Path": "file.path"}),
    "ps_classic_start": ("Windows PowerShell", (400,), _EVENT_FIELDS),
    "ps_classic_provider_start": ("Windows PowerShell", (600,), _EVENT_FIELDS),
    "ps_classic_script": ("Windows PowerShell", (800,), _EVENT_FIELDS),
}  # fmt: skip
_CHANNELS: Mapping[str, Sequence[str]] = {
    "application": ("Application",),
    "applocker": tuple(
        f"Microsoft-Windows-AppLocker/{part}"
        for part in ("MSI and Script", "EXE and DLL", "Packaged app-Deployment", "Packaged app-Execution")
    ),
    "appmodel-runtime": ("Microsoft-Windows-AppModel-Runtime/Admin",),
    "appxdeployment-server": ("Microsoft-Windows-AppXDeploymentServer/Operational",),
    "appxpackaging-om": ("Microsoft-Windows-AppxPackaging/Operational",),
    "bits-client": ("Microsoft-Windows-Bits-Client/Operational",),
    "capi2": ("Microsoft-Windows-CAPI2/Operational",),
    "certificateservicesclient-lifecycle-system": ("Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational",),
    "codeintegrity-operational": ("Microsoft-Windows-CodeIntegrity/Operational",),
    "diagnosis-scripted": ("Microsoft-Windows-Diagnosis-Scripted/Operational",),
    "dns-client": ("Microsoft-Windows-DNS Client Events/Operational", "Microsoft-Windows-DNS-Client/Operational"),
    "dns-server": ("DNS Server",),
    "dns-server-analytic": ("Microsoft-Windows-DNS-Server/Analytical",),
    "driver-framework": ("Microsoft-Windows-DriverFrameworks-UserMode/Operational",),
    "firewall-as": ("Microsoft-Windows-Windows Firewall With Advanced Security/Firewall",),
    "iis-configuration": ("Microsoft-IIS-Configuration/Operational",),
    "ldap": ("Microsoft-Windows-LDAP-Client/Debug",),
    "lsa-server": ("Microsoft-Windows-LSA/Operational",),
    "microsoft-servicebus-client": ("Microsoft-ServiceBus-Client",),
    "msexchange-management": ("MSExchange Management",),
    "ntlm": ("Microsoft-Windows-NTLM/Operational",),
    "openssh": ("OpenSSH/Operational",),
    "powershell": (_POWERSHELL,),
    "powershell-classic": ("Windows PowerShell",),
    "printservice-admin": ("Microsoft-Windows-PrintService/Admin",),
    "printservice-operational": ("Microsoft-Windows-PrintService/Operational",),
    "security": ("Security",),
    "security-mitigations": (
        "Microsoft-Windows-Security-Mitigations/Kernel Mode",
        "Microsoft-Windows-Security-Mitigations/User Mode",
    ),
    "shell-core": ("Microsoft-Windows-Shell-Core/Operational",),
    "smbclient-connectivity": ("Microsoft-Windows-SmbClient/Connectivity",),
    "smbclient-security": ("Microsoft-Windows-SmbClient/Security",),
    "smbserver-connectivity": ("Microsoft-Windows-SMBServer/Connectivity",),
    "sysmon": ("Microsoft-Windows-Sysmon/Operational",),
    "system": ("System",),
    "taskscheduler": ("Microsoft-Windows-TaskScheduler/Operational",),
    "terminalservices-localsessionmanager": ("Microsoft-Windows-TerminalServices-LocalSessionManager/Operational",),
    "windefend": ("Microsoft-Windows-Windows Defender/Operational",),
    "wmi": ("Microsoft-Windows-WMI-Activity/Operational",),
}
_ENDPOINT = frozenset({_P, _F, _A, _G, _D, _FI, EventClass.ALERT})


def _windows() -> dict[LogSource, Route]:
    routes = {
        LogSource("windows"): Route(_ENDPOINT, _IS_WINDOWS, _EVENT_FIELDS, EVENT_DATA),
        LogSource("windows", "process_creation"): Route(
            frozenset({_P}), And((_IS_WINDOWS, _words("event.action", "exec"))), _WINDOWS_FIELDS, EVENT_DATA
        ),
    }
    for category, (event_class, codes, columns) in _SYSMON_CATEGORIES.items():
        rows = And((_words("winlog.provider_name", _SYSMON), _words("event.code", *map(str, codes))))
        routes[LogSource("windows", category)] = Route(frozenset({event_class}), rows, columns, EVENT_DATA)
    for category, (channel, codes, columns) in _POWERSHELL_CATEGORIES.items():
        rows = And((_words("winlog.channel", channel), _words("event.code", *map(str, codes))))
        routes[LogSource("windows", category)] = Route(frozenset({_G}), rows, columns, EVENT_DATA)
    for service, channels in _CHANNELS.items():
        routes[LogSource("windows", None, service)] = Route(
            _ENDPOINT, _words("winlog.channel", *channels), _EVENT_FIELDS, EVENT_DATA
        )
    return routes


# Linux: what is no Windows event; services by the program that wrote
_NOT_WINDOWS = Not(_IS_WINDOWS)
_UNIX_FIELDS = {
    "Image": "process.executable", "CommandLine": "process.command_line", "ParentImage": "process.parent.executable",
    "ParentCommandLine": "process.parent.command_line", "ProcessId": "process.pid", "ParentProcessId": "process.parent.pid",
    "CurrentDirectory": "process.working_directory", "User": "user.name", "TargetFilename": "file.path", **_CONNECTION,
}  # fmt: skip
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "sshd": ("sshd", "sshd-session", "sshd-auth"), "sudo": ("sudo",), "cron": ("cron", "crond", "CRON"), "vsftpd": ("vsftpd",),
    "clamav": ("clamd", "freshclam", "clamscan"), "guacamole": ("guacd", "guacamole"),
}  # fmt: skip
_LOGGED = frozenset({_A, _G})


def _unix() -> dict[LogSource, Route]:
    routes = {
        LogSource("linux"): Route(_LOGGED, _NOT_WINDOWS, _UNIX_FIELDS),
        LogSource("linux", "process_creation"): Route(
            frozenset({_P}), And((_NOT_WINDOWS, _words("event.action", "exec"))), _UNIX_FIELDS
        ),
        LogSource("linux", "file_event"): Route(frozenset({_FI}), And((_NOT_WINDOWS, Exists("process.pid"))), _UNIX_FIELDS),
        LogSource("linux", "network_connection"): Route(
            frozenset({_F}), And((_NOT_WINDOWS, Exists("process.pid"))), _UNIX_FIELDS
        ),
        LogSource("linux", None, "auth"): Route(frozenset({_A}), _NOT_WINDOWS, _UNIX_FIELDS),
        LogSource("linux", None, "syslog"): Route(_LOGGED, _NOT_WINDOWS, _UNIX_FIELDS),
    }
    for service, programs in _PROGRAMS.items():
        routes[LogSource("linux", None, service)] = Route(_LOGGED, _words("process.name", *programs), _UNIX_FIELDS)
    return routes


_WEB_FIELDS = {
    **dict.fromkeys(("c-uri", "cs-uri", "cs-uri-query", "c-uri-query", "cs-uri-stem", "c-uri-stem"), "url.original"),
    **dict.fromkeys(("c-useragent", "cs-user-agent", "cs-useragent"), "user_agent.original"),
    **dict.fromkeys(("cs-host", "r-dns"), "url.domain"),
    "cs-method": "http.request.method", "sc-status": "http.response.status_code", "cs-referer": "http.request.referrer",
    "cs-content-type": "http.response.mime_type", "src_ip": "source.ip", "c-ip": "source.ip", "dst_ip": "destination.ip",
}  # fmt: skip
_WIRE_FIELDS = {"src_ip": "source.ip", "src_port": "source.port", "dst_ip": "destination.ip", "dst_port": "destination.port"}
_DNS_FIELDS = {
    **_WIRE_FIELDS,
    "query": "dns.question.name",
    "QueryName": "dns.question.name",
    "record_type": "dns.question.type",
}
_ROUTES: Mapping[LogSource, Route] = {
    **_windows(),
    **_unix(),
    LogSource(None, "dns"): Route(frozenset({_D}), ALWAYS, _DNS_FIELDS),
    LogSource(None, "proxy"): Route(frozenset({EventClass.HTTP}), ALWAYS, _WEB_FIELDS),
    LogSource(None, "webserver"): Route(frozenset({EventClass.HTTP}), ALWAYS, _WEB_FIELDS),
    LogSource(None, "firewall"): Route(
        frozenset({EventClass.PF, _F}),
        ALWAYS,
        {**_WIRE_FIELDS, "action": "ringfence.pf.action", "protocol": "network.transport"},
    ),
    LogSource(None, None, "netflow"): Route(frozenset({_F}), ALWAYS, _WIRE_FIELDS),
}

_SURICATA = {column.eve: column.name for column in COLUMNS if column.eve}


def _zeek(log: str) -> Route:
    """One log of Zeek: the class that its columns name, or generic with the line as JSON."""
    event_class = _ZEEK_LOGS.get(log)
    if event_class is None:
        return Route(frozenset({_G}), _words("ringfence.generic.type", log), _ZEEK_ENDS, "event.original")
    columns = {name: column.name for column, names in zeek_columns(event_class, log) for name in names}
    return Route(frozenset({event_class}), ALWAYS, columns)


_ZEEK_LOGS: Mapping[str, EventClass] = {
    "conn": _F, "dns": _D, "http": EventClass.HTTP, "ssl": EventClass.TLS, "ssh": EventClass.SSH, "notice": EventClass.ALERT,
    "weird": EventClass.ALERT, "files": _FI,
}  # fmt: skip
_ZEEK_ENDS = {
    "id.orig_h": "source.ip",
    "id.orig_p": "source.port",
    "id.resp_h": "destination.ip",
    "id.resp_p": "destination.port",
}
