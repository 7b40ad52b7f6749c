"""What Windows events mean: by provider and event id, which class they are of and which columns their fields fill.

After Microsoft's reference of advanced security audit events and the manual of Sysmon. Names of fields are those of the
EventData element of an event; readers that spell them otherwise (Wazuh) give them so. An event that is not in the table
is of class generic. `event.action` is a word of ours, the same whatever the reader; `event.outcome` is of the event id.

What they prove at a boundary, as `ringfence.firewall.action`: the filtering platform blocked (5152, 5157), or passed what
came in (5156) where the responder is. What it let out is an attempt, as is a connection that Sysmon saw begin (3); one
over TCP that Sysmon saw accepted has passed. The source is the initiator in all of them, with one exception: of what came
in, older systems call the listener the source (so does Microsoft's own example of 5156). That is taken to be so where only
the source has a port that clients do not take by themselves; with two such ports, or none, the source is the initiator.

Sample: 4625 of Microsoft-Windows-Security-Auditing, {"TargetUserName": "ann", "IpAddress": "10.1.0.5", "SubStatus": "0xc000006a"}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from ringfence.batch import EventClass

AUDIT, SYSMON = "Microsoft-Windows-Security-Auditing", "Microsoft-Windows-Sysmon"
EVENT_LOG, SERVICES, POWERSHELL = "Microsoft-Windows-Eventlog", "Service Control Manager", "Microsoft-Windows-PowerShell"
MAX_REMEMBERED = 65_536
MAX_REMEMBERED_CHARS = 512

Texts = Sequence[str | None]
Columns = dict[str, Sequence[Any]]


class Meaning(NamedTuple):
    """What an event id means. `fields` gives the field for each column; `more` makes columns of several fields, named `needs`."""

    event_class: EventClass = EventClass.GENERIC
    action: str | None = None
    outcome: str | None = None
    fields: Mapping[str, str] = {}
    needs: tuple[str, ...] = ()
    more: Callable[[Mapping[str, Texts]], Columns] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that it reads."""
        return tuple(dict.fromkeys((*self.fields.values(), *self.needs)))


class _Remembered(dict[str, Any]):
    """What texts mean that come again and again; emptied when it holds MAX_REMEMBERED. Long ones are read each time."""

    def __init__(self, read: Callable[[str], Any]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: str) -> Any:
        if len(text) > MAX_REMEMBERED_CHARS:
            return self._read(text)
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        value = self[text] = self._read(text)
        return value


def _number(text: str) -> int | None:
    """Decimal, or hexadecimal as the audit log writes process ids; None for anything else and what is beyond 63 bits."""
    try:
        value = int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    except ValueError:
        return None
    return value if -(1 << 63) < value < 1 << 63 else None


def base_name(path: str) -> str:
    """The last part of a path of Windows or Unix."""
    return path[max(path.rfind("\\"), path.rfind("/")) + 1 :]


def _account(text: str) -> tuple[str | None, str | None]:
    """Domain and name of `DOMAIN\\name`."""
    domain, separator, name = text.rpartition("\\")
    return (domain or None, name or None) if separator else (None, text)


def _hashes(text: str) -> dict[str, str]:
    """The hashes of `SHA1=...,MD5=...` by name in small letters, without those that are all zeros."""
    pairs = (part.partition("=") for part in text.split(","))
    return {name.strip().lower(): value.lower() for name, _, value in pairs if value.strip("0")}


def number(text: str | None) -> int | None:
    """A number as Windows writes it; None for what is none."""
    return None if text is None else _NUMBERS[text]


_NUMBERS, _BASES, _ACCOUNTS = _Remembered(_number), _Remembered(base_name), _Remembered(_account)
_HASHES = _Remembered(_hashes)
_NOBODY: Mapping[str, str] = {
    "user.id": "S-1-0-0",
    "user.target.id": "S-1-0-0",
    "process.entity_id": "{00000000-0000-0000-0000-000000000000}",
    "process.parent.entity_id": "{00000000-0000-0000-0000-000000000000}",
}
"""What stands where there is nobody, beside an empty text and a hyphen, which stand for nothing anywhere."""
_NUMERIC = frozenset(
    {"process.pid", "process.parent.pid", "process.exit_code", "source.port", "destination.port", "ringfence.auth.logon_type"}
)
_NAMED_AFTER = {
    "process.executable": "process.name",
    "process.parent.executable": "process.parent.name",
    "file.path": "file.name",
}

LOGON_TYPES: Mapping[int | None, str] = {
    0: "System", 2: "Interactive", 3: "Network", 4: "Batch", 5: "Service", 7: "Unlock", 8: "NetworkCleartext",
    9: "NewCredentials", 10: "RemoteInteractive", 11: "CachedInteractive", 12: "CachedRemoteInteractive", 13: "CachedUnlock",
}  # fmt: skip
"""SECURITY_LOGON_TYPE of ntsecapi.h."""
_REASONS: Mapping[str, str] = {
    "0xc000005e": "no logon server is available",
    "0xc0000064": "no such user",
    "0xc000006a": "wrong password",
    "0xc000006d": "wrong user name or password",
    "0xc000006e": "account restriction",
    "0xc000006f": "outside of permitted hours",
    "0xc0000070": "not permitted from this workstation",
    "0xc0000071": "password expired",
    "0xc0000072": "account disabled",
    "0xc00000dc": "server in the wrong state",
    "0xc0000133": "clocks differ too much",
    "0xc000015b": "logon type not granted",
    "0xc000018c": "trust relationship failed",
    "0xc0000192": "logon service not started",
    "0xc0000193": "account expired",
    "0xc0000224": "password must be changed",
    "0xc0000234": "account locked",
    "0xc0000413": "not permitted to authenticate to this machine",
    "0x6": "no such client",
    "0x7": "no such server",
    "0xc": "policy refuses it",
    "0xe": "encryption type not supported",
    "0x12": "account disabled, expired or locked",
    "0x17": "password expired",
    "0x18": "wrong password",
    "0x19": "preauthentication required",
    "0x1f": "ticket damaged",
    "0x20": "ticket expired",
    "0x25": "clocks differ too much",
}
"""NTSTATUS (ntstatus.h) of logons and error codes of Kerberos (RFC 4120 7.5.9) in words."""


def _reason(text: str) -> str | None:
    code = text.lower()
    if code.strip("0x") == "":
        return None
    return f"{_REASONS[code]} ({code})" if code in _REASONS else code


_REASONS_OF = _Remembered(_reason)


def _failure(data: Mapping[str, Texts]) -> Columns:
    """Why: the finer code where there is one."""
    pairs = zip(data["Status"], data["SubStatus"], strict=True)
    return {"event.reason": [(sub and _REASONS_OF[sub]) or (main and _REASONS_OF[main]) or None for main, sub in pairs]}


def _judged(data: Mapping[str, Texts]) -> Columns:
    """Outcome and reason of events that have only a status."""
    reasons = [status and _REASONS_OF[status] for status in data["Status"]]
    return {"event.reason": reasons, "event.outcome": ["failure" if reason else "success" for reason in reasons]}


def _account_of(data: Mapping[str, Texts]) -> Columns:
    """The account that Sysmon names in one field."""
    pairs = [_ACCOUNTS[text] if text else (None, None) for text in data["User"]]
    return {"user.domain": [domain for domain, _ in pairs], "user.name": [name for _, name in pairs]}


def _hashed(prefix: str, field: str, names: Mapping[str, str]) -> Callable[[Mapping[str, Texts]], Columns]:
    def columns(data: Mapping[str, Texts]) -> Columns:
        found = [_HASHES[text] if text else {} for text in data[field]]
        return {f"{prefix}.{column}": [hashes.get(name) for hashes in found] for name, column in names.items()}

    return columns


def _all_of(*parts: Callable[[Mapping[str, Texts]], Columns]) -> Callable[[Mapping[str, Texts]], Columns]:
    return lambda data: {name: values for part in parts for name, values in part(data).items()}


_THREE = {"md5": "hash.md5", "sha1": "hash.sha1", "sha256": "hash.sha256"}
_TRANSPORTS: Mapping[str | None, int] = {"tcp": 6, "udp": 17, "icmp": 1}
_FIRST_DYNAMIC_PORT = 32_768
"""Below it clients take no port by themselves: Windows begins at 49152 (RFC 6335 6), Linux at 32768."""
_INBOUND = "%%14592"  # message table of the audit log: inbound, as opposed to %%14593


def _connection(data: Mapping[str, Texts]) -> Columns:
    protocols = [_TRANSPORTS.get(text) for text in data["Protocol"]]
    accepted = [text is not None and text.lower() == "false" for text in data["Initiated"]]
    passed = ["pass" if own and number == _TRANSPORTS["tcp"] else None for own, number in zip(accepted, protocols, strict=True)]
    return {"network.iana_number": protocols, "ringfence.firewall.action": passed}


def _filtered(word: str) -> Callable[[Mapping[str, Texts]], Columns]:
    def columns(data: Mapping[str, Texts]) -> Columns:
        inbound = [text == _INBOUND for text in data["Direction"]]
        near, far = ([*map(number, data[name])] for name in ("SourcePort", "DestPort"))
        local_first = [*map(_is_answered, inbound, near, far)]
        addresses = zip(data["SourceAddress"], data["DestAddress"], local_first, strict=True)
        ends = [(two, one) if swap else (one, two) for one, two, swap in addresses]
        ports = [(two, one) if swap else (one, two) for one, two, swap in zip(near, far, local_first, strict=True)]
        return {
            "source.ip": [one for one, _ in ends],
            "destination.ip": [two for _, two in ends],
            "source.port": [one for one, _ in ports],
            "destination.port": [two for _, two in ports],
            "network.iana_number": [*map(number, data["Protocol"])],
            "ringfence.firewall.action": [word if word == "block" or own else None for own in inbound],
        }

    return columns


def _is_answered(inbound: bool, source: int | None, destination: int | None) -> bool:
    """Whether what is called the source is the listener on this host."""
    return inbound and source is not None and destination is not None and source < _FIRST_DYNAMIC_PORT <= destination


def _resolved(data: Mapping[str, Texts]) -> Columns:
    """Windows error codes of DNS (winerror.h) by the names of the response codes that they stand for."""
    return {"dns.response_code": [text and _RESPONSE_CODES.get(text) for text in data["QueryStatus"]]}


_RESPONSE_CODES: Mapping[str, str] = {
    "0": "NOERROR", "9001": "FORMERR", "9002": "SERVFAIL", "9003": "NXDOMAIN", "9004": "NOTIMP", "9005": "REFUSED",
}  # fmt: skip


def _object(data: Mapping[str, Texts]) -> Columns:
    """What was opened: a key of the registry, or a file, device or process by its path."""
    pairs = list(zip(data["ObjectName"], data["ObjectType"], strict=True))
    return {
        "registry.path": [name if kind == "Key" else None for name, kind in pairs],
        "file.path": [None if kind == "Key" else name for name, kind in pairs],
    }


def _signed(data: Mapping[str, Texts]) -> Columns:
    return {"dll.code_signature.exists": [text and text.lower() == "true" for text in data["Signed"]]}


_SUBJECT = {
    "user.name": "SubjectUserName",
    "user.domain": "SubjectDomainName",
    "user.id": "SubjectUserSid",
    "winlog.logon.id": "SubjectLogonId",
}
_ACTOR = {"user.name": "SubjectUserName", "user.domain": "SubjectDomainName", "user.id": "SubjectUserSid"}
_TARGET = {"user.name": "TargetUserName", "user.domain": "TargetDomainName", "user.id": "TargetUserSid"}
_DONE_TO = {"user.target.name": "TargetUserName", "user.target.domain": "TargetDomainName", "user.target.id": "TargetSid"}
_PEER = {"source.ip": "IpAddress", "source.port": "IpPort"}
_BY_PROCESS = {"process.executable": "ProcessName", "process.pid": "ProcessId"}
_LOGON = {
    **_TARGET, **_PEER, **_BY_PROCESS, "source.domain": "WorkstationName", "ringfence.auth.method": "AuthenticationPackageName",
    "ringfence.auth.logon_type": "LogonType",
}  # fmt: skip
_TICKET = {**_TARGET, **_PEER, "service.name": "ServiceName"}
_SESSION = {
    "user.name": "AccountName",
    "user.domain": "AccountDomain",
    "winlog.logon.id": "LogonID",
    "source.ip": "ClientAddress",
    "source.domain": "ClientName",
}


def _auth(action: str, outcome: str, fields: Mapping[str, str], *needs: str, more: Any = None) -> Meaning:
    return Meaning(EventClass.AUTH, action, outcome, fields, needs, more)


def _done_to_user(action: str) -> Meaning:
    return _auth(action, "success", {**_SUBJECT, **_DONE_TO})


def _done_to_group(action: str) -> Meaning:
    return _auth(
        action,
        "success",
        {**_SUBJECT, "group.name": "TargetUserName", "user.target.name": "MemberName", "user.target.id": "MemberSid"},
    )


_WFP = {"process.executable": "Application", "process.pid": "ProcessID"}
_FILTERED = ("Protocol", "Direction", "SourceAddress", "SourcePort", "DestAddress", "DestPort")
_HANDLE = {**_ACTOR, **_BY_PROCESS, "ringfence.access.mask": "AccessMask"}
_AUDITED: Mapping[int, Meaning] = {
    4624: _auth("login", "success", {**_LOGON, "winlog.logon.id": "TargetLogonId"}),
    4625: _auth("login", "failure", {**_LOGON, "winlog.logon.id": "SubjectLogonId"}, "Status", "SubStatus", more=_failure),
    4634: _auth("session-closed", "success", {**_TARGET, "winlog.logon.id": "TargetLogonId", "ringfence.auth.logon_type": "LogonType"}),
    4647: _auth("session-closed", "success", {**_TARGET, "winlog.logon.id": "TargetLogonId"}),
    4648: _auth(
        "explicit-credentials-login",
        "success",
        {**_SUBJECT, **_PEER, **_BY_PROCESS, "user.target.name": "TargetUserName", "user.target.domain": "TargetDomainName", "destination.domain": "TargetServerName"},
    ),
    4672: _auth("privileges-assigned", "success", _SUBJECT),
    4768: _auth("kerberos-ticket-requested", "success", {**_TICKET, "user.id": "TargetSid"}, "Status", more=_judged),
    4769: _auth("kerberos-service-ticket-requested", "success", _TICKET, "Status", more=_judged),
    4770: _auth("kerberos-ticket-renewed", "success", _TICKET),
    4771: _auth("kerberos-preauthentication", "failure", {**_TICKET, "user.id": "TargetSid"}, "Status", more=_judged),
    4776: _auth(
        "credentials-validated",
        "success",
        {"user.name": "TargetUserName", "source.domain": "Workstation", "ringfence.auth.method": "PackageName"},
        "Status",
        more=_judged,
    ),
    4778: _auth("session-reconnected", "success", _SESSION),
    4779: _auth("session-disconnected", "success", _SESSION),
    4720: _done_to_user("user-created"), 4722: _done_to_user("user-enabled"), 4723: _done_to_user("password-changed"),
    4724: _done_to_user("password-reset"), 4725: _done_to_user("user-disabled"), 4726: _done_to_user("user-deleted"),
    4738: _done_to_user("user-changed"), 4767: _done_to_user("user-unlocked"),
    4741: _done_to_user("computer-created"), 4742: _done_to_user("computer-changed"), 4743: _done_to_user("computer-deleted"),
    4740: _auth("user-locked", "success", {**_SUBJECT, "user.target.name": "TargetUserName", "user.target.id": "TargetSid", "source.domain": "TargetDomainName"}),
    4781: _auth("user-renamed", "success", {**_SUBJECT, "user.target.name": "OldTargetUserName", "user.target.domain": "TargetDomainName", "user.target.id": "TargetSid"}),
    **{number: _done_to_group("group-created") for number in (4727, 4731, 4754)},
    **{number: _done_to_group("group-member-added") for number in (4728, 4732, 4756)},
    **{number: _done_to_group("group-member-removed") for number in (4729, 4733, 4757)},
    **{number: _done_to_group("group-deleted") for number in (4730, 4734, 4758)},
    **{number: _done_to_group("group-changed") for number in (4735, 4737, 4755)},
    4688: Meaning(
        EventClass.PROCESS,
        "exec",
        None,
        {
            **_SUBJECT, "process.executable": "NewProcessName", "process.pid": "NewProcessId", "process.command_line": "CommandLine",
            "process.parent.executable": "ParentProcessName", "process.parent.pid": "ProcessId",
        },
    ),
    4689: Meaning(EventClass.PROCESS, "exit", None, {**_SUBJECT, **_BY_PROCESS, "process.exit_code": "Status"}),
    5152: Meaning(EventClass.FLOW, None, None, {**_WFP, "process.pid": "ProcessId"}, _FILTERED, _filtered("block")),
    5156: Meaning(EventClass.FLOW, None, None, _WFP, _FILTERED, _filtered("pass")),
    5157: Meaning(EventClass.FLOW, None, None, _WFP, _FILTERED, _filtered("block")),
    4656: Meaning(EventClass.GENERIC, "object-access-requested", None, _HANDLE, ("ObjectName", "ObjectType"), _object),
    4663: Meaning(EventClass.GENERIC, "object-accessed", "success", _HANDLE, ("ObjectName", "ObjectType"), _object),
    4657: Meaning(EventClass.GENERIC, "registry-changed", "success", {**_ACTOR, **_BY_PROCESS, "registry.path": "ObjectName", "registry.data.strings": "NewValue"}),
    4697: Meaning(EventClass.GENERIC, "service-installed", "success", {**_ACTOR, "service.name": "ServiceName", "ringfence.service.command_line": "ServiceFileName"}),
    4698: Meaning(EventClass.GENERIC, "scheduled-task-created", "success", _ACTOR),
    4699: Meaning(EventClass.GENERIC, "scheduled-task-deleted", "success", _ACTOR),
    4700: Meaning(EventClass.GENERIC, "scheduled-task-enabled", "success", _ACTOR),
    4701: Meaning(EventClass.GENERIC, "scheduled-task-disabled", "success", _ACTOR),
    4702: Meaning(EventClass.GENERIC, "scheduled-task-changed", "success", _ACTOR),
    4719: Meaning(EventClass.GENERIC, "audit-policy-changed", "success", _ACTOR),
    4662: Meaning(EventClass.GENERIC, "directory-object-accessed", None, {**_ACTOR, "ringfence.access.mask": "AccessMask"}),
    5136: Meaning(EventClass.GENERIC, "directory-object-changed", "success", _ACTOR),
    5137: Meaning(EventClass.GENERIC, "directory-object-created", "success", _ACTOR),
    5140: Meaning(EventClass.GENERIC, "share-accessed", None, {**_ACTOR, **_PEER, "file.path": "ShareName", "ringfence.access.mask": "AccessMask"}),
    5145: Meaning(EventClass.GENERIC, "share-access-checked", None, {**_ACTOR, **_PEER, "file.path": "RelativeTargetName", "ringfence.access.mask": "AccessMask"}),
}  # fmt: skip
_IMAGE = {"process.executable": "Image", "process.pid": "ProcessId", "process.entity_id": "ProcessGuid"}
_OPENER = {"process.executable": "SourceImage", "process.pid": "SourceProcessId", "ringfence.access.target": "TargetImage"}


def _seen(
    action: str, fields: Mapping[str, str], *needs: str, more: Any = None, event_class: EventClass = EventClass.GENERIC
) -> Meaning:
    """An event of Sysmon: what most have is the process and its account (since version 13)."""
    parts = (_account_of,) if more is None else (_account_of, more)
    return Meaning(event_class, action, None, fields, ("User", *needs), _all_of(*parts))


_FILED = {**_IMAGE, "file.path": "TargetFilename"}
_OBSERVED: Mapping[int, Meaning] = {
    1: _seen(
        "exec",
        {
            **_IMAGE, "process.command_line": "CommandLine", "process.working_directory": "CurrentDirectory", "winlog.logon.id": "LogonId",
            "process.parent.executable": "ParentImage", "process.parent.command_line": "ParentCommandLine", "process.parent.pid": "ParentProcessId",
            "process.parent.entity_id": "ParentProcessGuid", "process.pe.original_file_name": "OriginalFileName", "process.pe.company": "Company",
            "process.pe.description": "Description", "process.pe.product": "Product", "process.pe.file_version": "FileVersion",
            "ringfence.process.integrity_level": "IntegrityLevel",
        },
        "Hashes",
        more=_hashed("process", "Hashes", {**_THREE, "imphash": "pe.imphash"}),
        event_class=EventClass.PROCESS,
    ),
    2: _seen("file-changed", _FILED, event_class=EventClass.FILE),
    3: _seen(
        "",
        {
            **_IMAGE, "source.ip": "SourceIp", "source.port": "SourcePort", "source.domain": "SourceHostname", "destination.ip": "DestinationIp",
            "destination.port": "DestinationPort", "destination.domain": "DestinationHostname",
        },
        "Protocol",
        "Initiated",
        more=_connection,
        event_class=EventClass.FLOW,
    ),
    5: _seen("exit", _IMAGE, event_class=EventClass.PROCESS),
    6: _seen("driver-loaded", {"dll.path": "ImageLoaded", "dll.code_signature.status": "SignatureStatus"}, "Hashes", "Signed", more=_all_of(_signed, _hashed("dll", "Hashes", {"sha256": "hash.sha256"}))),
    7: _seen(
        "module-loaded",
        {**_IMAGE, "dll.path": "ImageLoaded", "dll.pe.original_file_name": "OriginalFileName", "dll.code_signature.status": "SignatureStatus"},
        "Hashes",
        "Signed",
        more=_all_of(_signed, _hashed("dll", "Hashes", {"sha256": "hash.sha256"})),
    ),
    8: _seen("remote-thread-created", {**_OPENER, "process.entity_id": "SourceProcessGuid"}),
    9: _seen("disk-read", _IMAGE),
    10: _seen("process-accessed", {**_OPENER, "process.entity_id": "SourceProcessGUID", "ringfence.access.mask": "GrantedAccess"}),
    11: _seen("file-created", _FILED, event_class=EventClass.FILE),
    12: _seen("registry-key-changed", {**_IMAGE, "registry.path": "TargetObject"}),
    13: _seen("registry-changed", {**_IMAGE, "registry.path": "TargetObject", "registry.data.strings": "Details"}),
    14: _seen("registry-renamed", {**_IMAGE, "registry.path": "TargetObject"}),
    15: _seen("file-created", _FILED, "Hash", more=_hashed("file", "Hash", _THREE), event_class=EventClass.FILE),
    17: _seen("pipe-created", {**_IMAGE, "file.name": "PipeName"}),
    18: _seen("pipe-connected", {**_IMAGE, "file.name": "PipeName"}),
    19: _seen("wmi-filter-changed", {}),
    20: _seen("wmi-consumer-changed", {}),
    21: _seen("wmi-binding-changed", {}),
    22: _seen("dns-query", {**_IMAGE, "dns.question.name": "QueryName"}, "QueryStatus", more=_resolved, event_class=EventClass.DNS),
    23: _seen("file-deleted", _FILED, "Hashes", more=_hashed("file", "Hashes", _THREE), event_class=EventClass.FILE),
    25: _seen("process-tampered", _IMAGE),
    26: _seen("file-deleted", _FILED, "Hashes", more=_hashed("file", "Hashes", _THREE), event_class=EventClass.FILE),
    29: _seen("file-created", _FILED, "Hashes", more=_hashed("file", "Hashes", _THREE), event_class=EventClass.FILE),
}  # fmt: skip
_MEANINGS: Mapping[tuple[str, int], Meaning] = {
    **{(AUDIT, number): meaning for number, meaning in _AUDITED.items()},
    **{(SYSMON, number): meaning for number, meaning in _OBSERVED.items()},
    (EVENT_LOG, 1102): Meaning(action="audit-log-cleared", outcome="success", fields=_ACTOR),
    (EVENT_LOG, 104): Meaning(action="event-log-cleared", outcome="success", fields=_ACTOR),
    (SERVICES, 7045): Meaning(
        action="service-installed",
        outcome="success",
        fields={"service.name": "ServiceName", "ringfence.service.command_line": "ImagePath"},
    ),
    (SERVICES, 7040): Meaning(action="service-changed", outcome="success", fields={"service.name": "param4"}),
    (SERVICES, 7036): Meaning(action="service-state-changed", fields={"service.name": "param1"}),
    (POWERSHELL, 4104): Meaning(
        action="script-block", fields={"powershell.file.script_block_text": "ScriptBlockText", "file.path": "Path"}
    ),
}
UNKNOWN = Meaning()


@cache
def _by_text() -> Mapping[tuple[str, str], Meaning]:
    return {(provider, str(number)): meaning for (provider, number), meaning in _MEANINGS.items()}


def meaning_of(provider: str | None, event_id: str | None) -> Meaning:
    """What an event is; UNKNOWN for what is not in the table."""
    return _by_text().get((provider or "", event_id or ""), UNKNOWN)


def columns_of(meaning: Meaning, data: Mapping[str, Texts], count: int) -> Columns:
    """The columns of `count` events of one meaning, made of the fields that it reads; numbers are ints, texts as they are."""
    there = {name: [text if text and text != "-" else None for text in values] for name, values in data.items()}
    columns: Columns = {}
    for column, field in meaning.fields.items():
        values: Sequence[Any] = there[field]
        if column in _NUMERIC:
            values = [*map(number, values)]
            if column == "process.pid":
                values = [value or None for value in values]  # 0 where no process took part
        elif column in _NOBODY:
            nobody = _NOBODY[column]
            values = [None if text == nobody else text for text in values]
        columns[column] = values
    if meaning.more is not None:
        columns |= meaning.more(there)
    for path, name in _NAMED_AFTER.items():
        if path in columns and name not in columns and not (name == "file.name" and meaning.event_class is EventClass.GENERIC):
            columns[name] = [None if text is None else _BASES[text] for text in columns[path]]
    if "ringfence.auth.logon_type" in columns:
        columns["winlog.logon.type"] = [LOGON_TYPES.get(number) for number in columns["ringfence.auth.logon_type"]]
    if meaning.action:
        columns["event.action"] = [meaning.action] * count
    if meaning.outcome and "event.outcome" not in columns:
        columns["event.outcome"] = [meaning.outcome] * count
    return columns
