"""Settings of the collectors that take syslog: one UDP, TCP or TLS port, local socket or file, and the shell that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from collectors.lines import LineFramer
from collectors.rfc6587 import SyslogFramer
from collectors.tail import TailShell
from collectors.tcp import TcpShell
from collectors.tls import TlsFiles
from collectors.udp import UdpShell
from collectors.unix import UnixDatagramShell
from ringfence.addresses import HostPort
from ringfence.component import Shell
from ringfence.yamlfile import ConfigPath


def _listen(value: str) -> str:
    transport, separator, address = value.partition("://")
    if transport in ("udp", "tcp", "tls") and separator:
        return f"{transport}://{HostPort.parse(address)}"
    if transport == "unix-dgram" and address.startswith("/"):
        return value
    raise ValueError(
        f"{value!r} is not udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix-dgram:///PATH, such as udp://127.0.0.1:514"
    )


class SyslogConfig(BaseModel):
    """Listens on one UDP, TCP or TLS port or local socket, or reads one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_listen)] | None = Field(
        default=None, description="udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or unix-dgram:///PATH (such as /dev/log)."
    )
    tls: TlsFiles | None = Field(
        default=None,
        description="PEM files for tls://: `certificate`, `key` and, where senders must show a certificate too, `client_ca`.",
    )
    path: ConfigPath | None = Field(default=None, description="File to read.")
    follow: bool = Field(default=True, description="Go on reading as the file grows and is rotated; else stop at its end.")
    year: int | None = Field(default=None, ge=1970, le=9999, description="Year of times without one; only with follow: false.")
    observer: str | None = Field(default=None, description="Name of the sensor; the sender's address or the path when not set.")
    original: Literal["keep", "drop"] = Field(default="keep", description="Keep each message as it came as event.original.")

    @model_validator(mode="after")
    def _check(self) -> SyslogConfig:
        if (self.listen is None) == (self.path is None):
            raise ValueError("exactly one of listen and path is required")
        if (self.tls is None) == str(self.listen).startswith("tls://"):
            raise ValueError("tls is required for listen: tls://HOST:PORT, and only for that")
        if self.year is not None and (self.path is None or self.follow):
            raise ValueError(
                "year is only for a file that is read once (path and follow: false); else the time of arrival tells it"
            )
        return self


def shell_of(settings: SyslogConfig) -> Shell:
    """What reads the port or the file."""
    if settings.path is not None:
        return TailShell(settings.path, LineFramer, settings.follow)
    transport, _, address = str(settings.listen).partition("://")
    if transport == "unix-dgram":
        return UnixDatagramShell(Path(address))
    where = HostPort.parse(address)
    if transport == "udp":
        return UdpShell(where.host, where.port)
    return TcpShell(where.host, where.port, SyslogFramer, settings.tls)


def claims_of(settings: SyslogConfig) -> Sequence[str]:
    """The port or the file, which no other component may claim."""
    if settings.listen is None:
        return [f"file {settings.path}"]
    return [settings.listen.replace("tls://", "tcp://").replace("://", " ")]
