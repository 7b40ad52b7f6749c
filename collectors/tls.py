"""TLS of a listener (RFC 5425 for syslog): PEM files that are read again when they change, so that renewing them needs no restart.

TLS 1.2 or newer. With `client_ca` every sender must show a certificate that it signed. Files that cannot be used any more
after a change leave what was read before in force, and say so once. Not supported: revocation lists, encrypted keys.
"""

from __future__ import annotations

import base64
import calendar
import logging
import re
import ssl
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.errors import Permanent
from ringfence.telemetry import CERTIFICATE_EXPIRY
from ringfence.yamlfile import ConfigPath

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_UTC_TIME, _VERSION_TAG = 0x17, 0xA0  # X.690 8.25, RFC 5280 4.1
_Signature = tuple[tuple[int, int, int], ...]

_log = logging.getLogger(__name__)


class TlsFiles(BaseModel):
    """Certificate and key of a listener."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: ConfigPath = Field(description="PEM file: the server's certificate, then those between it and its authority.")
    key: ConfigPath = Field(description="PEM file: its private key, not encrypted.")
    client_ca: ConfigPath | None = Field(
        default=None, description="PEM file: authorities of senders, who must show a certificate then."
    )

    @model_validator(mode="after")
    def _check(self) -> TlsFiles:
        server_context(self)
        return self


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Read the files. Raises ValueError with one sentence."""
    for name, path in (("certificate", files.certificate), ("key", files.key), ("client_ca", files.client_ca)):
        if path is not None and name != "key" and not _PEM.search(_read(name, path)):
            raise ValueError(f"tls {name} {path} holds no PEM certificate")
    _read("key", files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")  # else it asks the terminal
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"tls key {files.key} does not belong to certificate {files.certificate}") from None
        raise ValueError(
            f"tls certificate {files.certificate} with key {files.key} cannot be used: PEM without passphrase is expected"
        ) from None
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError:
            raise ValueError(f"tls client_ca {files.client_ca} holds no PEM certificate") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"tls {name} {path} cannot be read: {error.strerror}") from None


class Contexts:
    """The context for the next connection."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._context: ssl.SSLContext | None = None
        self._signature: _Signature | None = None

    def current(self) -> ssl.SSLContext:
        """That of the files as they are now, or were when they could last be used. Raises Permanent when they never could."""
        signature = self._look()
        if self._context is not None and signature == self._signature:
            return self._context
        self._signature = signature
        try:
            self._context = server_context(self._files)
        except ValueError as error:
            if self._context is None:
                raise Permanent(str(error)) from None
            _log.error("what was read before stays in force: %s", error)
            return self._context
        expiry = _expiry(self._files.certificate)
        if expiry is not None:
            CERTIFICATE_EXPIRY.labels(str(self._files.certificate)).set(expiry)
            if expiry < time.time():
                _log.error("tls certificate %s has expired", self._files.certificate)
        return self._context

    def _look(self) -> _Signature:
        """What changes when a file is written anew or replaced."""
        found = []
        for path in (self._files.certificate, self._files.key, self._files.client_ca):
            try:
                status = None if path is None else path.stat()
            except OSError:
                status = None
            found.append((0, 0, 0) if status is None else (status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


def _expiry(path: Path) -> int | None:
    try:
        return not_after(path.read_bytes())
    except (OSError, ValueError, IndexError):
        return None


def not_after(pem: bytes) -> int:
    """When the first certificate of a PEM file expires, in seconds since the epoch. Raises ValueError or IndexError.

    The ssl module tells it only for certificates of peers.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no PEM certificate")
    der = base64.b64decode(found[1])
    place, _ = _content(der, _content(der, 0)[0])  # Certificate, TBSCertificate
    if der[place] == _VERSION_TAG:
        place = _content(der, place)[1]
    for _ in range(3):  # serial number, signature algorithm, issuer
        place = _content(der, place)[1]
    place = _content(der, _content(der, place)[0])[1]  # in Validity, after notBefore
    start, end = _content(der, place)
    text = der[start:end].decode("ascii")
    if der[place] == _UTC_TIME:
        text = ("19" if text >= "50" else "20") + text  # RFC 5280 4.1.2.5.1
    return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))


def _content(der: bytes, place: int) -> tuple[int, int]:
    """Start and end of the content of the element at a place (X.690 8.1.3)."""
    length, start = der[place + 1], place + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    return start, start + length
