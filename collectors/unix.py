"""Shells that listen on a unix socket: streams (Suricata's `filetype: unix_stream`) and datagrams (`/dev/log`).

A socket file that nobody listens on any more is replaced; one in use, or a file of another kind, is left alone and is
Permanent. Programs of other users must be able to write, so the mode is the shell's: 660 for streams, whose senders share
a group with ringfence, 666 for datagrams, to which any program may log. The file goes when the shell closes.

A sender of datagrams waits while the buffer is full, or drops by its own choice; on a stream Suricata drops each event
whose write would block. Neither says so: prefer a file for Suricata.

Source: `name` is the path of the socket, `identity` and position are those of `collectors/tcp.py` and `collectors/udp.py`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from collectors.tcp import MAX_CONNECTIONS, StreamShell
from collectors.udp import DatagramShell, boot_identity, bound
from ringfence.component import Framer
from ringfence.errors import Permanent

STREAM_MODE = 0o660
DATAGRAM_MODE = 0o666


class UnixStreamShell(StreamShell):
    """Listens on a stream socket at `path`."""

    def __init__(self, path: Path, framer: Callable[[], Framer], max_connections: int = MAX_CONNECTIONS, **bounds: Any) -> None:
        super().__init__(framer, max_connections, max_connections, **bounds)
        self._path = path
        self._inode = 0

    async def close(self) -> None:
        """Stop listening, end all connections, forget what is queued, and remove the socket file."""
        await super().close()
        _remove(self._path, self._inode)
        self._inode = 0

    async def _listen(self) -> asyncio.Server:
        listener = _listener(self._path, STREAM_MODE, _stream_socket)
        self._inode = self._path.stat().st_ino
        return await asyncio.start_unix_server(self._serve, sock=listener)

    def _boot_identity(self) -> int:
        return boot_identity(f"unix {self._path}")

    def _peer(self, writer: asyncio.StreamWriter) -> str:
        return str(self._path)


class UnixDatagramShell(DatagramShell):
    """Listens on a datagram socket at `path`."""

    def __init__(self, path: Path, **bounds: int) -> None:
        super().__init__(**bounds)
        self._path = path
        self._inode = 0

    async def close(self) -> None:
        """Close the socket and remove its file; what it holds is lost."""
        await super().close()
        _remove(self._path, self._inode)
        self._inode = 0

    @property
    def _where(self) -> str:
        return f"unix-dgram {self._path}"

    async def _bind(self) -> socket.socket:
        size = self._receive_buffer_bytes
        listener = _listener(self._path, DATAGRAM_MODE, lambda path: bound(socket.AF_UNIX, path, size))
        self._inode = self._path.stat().st_ino
        return listener

    def _names(self, senders: list[Any]) -> list[str]:
        return [str(self._path)] * len(senders)


def _stream_socket(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.bind(path)
    except OSError:
        made.close()
        raise
    return made


def _listener(path: Path, mode: int, bind: Callable[[str], socket.socket]) -> socket.socket:
    """Bind at a path that is free or holds a socket that nobody listens on."""
    try:
        if path.is_socket() and _is_abandoned(path):
            path.unlink()
        listener = bind(str(path))
    except OSError as error:
        # a path beyond sun_path has a text but no number
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Permanent(f"unix socket {path} cannot be bound: {reason}") from None
    with suppress(OSError):  # not every file system has modes
        path.chmod(mode)
    return listener


def _is_abandoned(path: Path) -> bool:
    """True when no socket is bound there: whatever its type, a living one does not refuse."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno == errno.ECONNREFUSED
    return False


def _remove(path: Path, inode: int) -> None:
    """Remove our own socket file, not that of a successor."""
    with suppress(OSError):
        found = path.lstat()
        if inode and stat.S_ISSOCK(found.st_mode) and found.st_ino == inode:
            path.unlink()
