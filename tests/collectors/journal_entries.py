"""Entries of a journal in the export format, for tests: what sshd, sudo, the kernel and others write."""

from __future__ import annotations

from collections.abc import Iterable

AT_US = 1_795_592_663_123_456
BOOT = "3c2f9d0e5b6a4c1d8e7f60718293a4b5"
TRUSTED = {"_HOSTNAME": "srv3", "_MACHINE_ID": "1f0e2d3c4b5a69788796a5b4c3d2e1f0", "_BOOT_ID": BOOT}
RECORDED: tuple[dict[str, str | bytes], ...] = (
    {"PRIORITY": "6", "SYSLOG_FACILITY": "10", "SYSLOG_IDENTIFIER": "sshd", "_TRANSPORT": "syslog", "_PID": "18225", "_UID": "0", "_COMM": "sshd", "_EXE": "/usr/sbin/sshd", "_CMDLINE": "sshd: ann [priv]", "_SYSTEMD_UNIT": "ssh.service", "SYSLOG_PID": "18225", "_SOURCE_REALTIME_TIMESTAMP": str(AT_US - 7), "MESSAGE": "Accepted password for ann from 192.0.2.7 port 44666 ssh2"},
    {"PRIORITY": "6", "SYSLOG_FACILITY": "10", "SYSLOG_IDENTIFIER": "sshd", "_TRANSPORT": "syslog", "_PID": "18230", "_COMM": "sshd", "MESSAGE": "Failed password for invalid user admin from 198.51.100.9 port 52344 ssh2"},
    {"PRIORITY": "5", "SYSLOG_FACILITY": "10", "SYSLOG_IDENTIFIER": "sudo", "_TRANSPORT": "syslog", "_PID": "18301", "_COMM": "sudo", "_EXE": "/usr/bin/sudo", "_UID": "1000", "MESSAGE": "     ann : TTY=pts/0 ; PWD=/home/ann ; USER=root ; COMMAND=/usr/bin/id"},
    {"PRIORITY": "4", "SYSLOG_IDENTIFIER": "kernel", "_TRANSPORT": "kernel", "MESSAGE": "Out of memory: Killed process 900 (java)"},
    {"PRIORITY": "6", "_TRANSPORT": "journal", "_PID": "512", "_COMM": "app", "_EXE": "/opt/app/bin/app", "_SYSTEMD_UNIT": "app.service", "MESSAGE": b"two lines\nof text"},
    {"PRIORITY": "3", "SYSLOG_IDENTIFIER": "legacy", "_TRANSPORT": "stdout", "_PID": "513", "MESSAGE": b"not UTF-8: \xe9\xff"},
    {"PRIORITY": "6", "SYSLOG_IDENTIFIER": "big", "_TRANSPORT": "journal", "_PID": "514", "MESSAGE": "x" * 5000},
    {"PRIORITY": "6", "SYSLOG_IDENTIFIER": "silent", "_TRANSPORT": "journal", "_PID": "515"},
)  # fmt: skip


def field(name: str, value: str | bytes) -> bytes:
    """A field, as text where it is one line of UTF-8."""
    data = value.encode() if isinstance(value, str) else value
    if b"\n" in data or not is_text(data):
        return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"
    return name.encode() + b"=" + data + b"\n"


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def entry(number: int, fields: dict[str, str | bytes]) -> bytes:
    """One entry as `journalctl -o export` prints it."""
    own = {
        "__CURSOR": f"s=0d2c3b4a59687786950a1b2c3d4e5f60;i={number + 1:x};b={BOOT};m=f4240;t={AT_US + number:x};x={number:x}",
        "__REALTIME_TIMESTAMP": str(AT_US + number),
        "__MONOTONIC_TIMESTAMP": str(1_000_000 + number),
        "_BOOT_ID": BOOT,
    }
    return b"".join(field(name, value) for name, value in {**own, **TRUSTED, **fields}.items()) + b"\n"


def export(entries: Iterable[dict[str, str | bytes]] = RECORDED) -> bytes:
    """Several entries."""
    return b"".join(entry(number, fields) for number, fields in enumerate(entries))
