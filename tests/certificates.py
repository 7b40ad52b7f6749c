"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install openssl")
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str = "ca") -> Pair:
    """A self-signed authority."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    _openssl("req", "-x509", *_CURVE, "-days", "30", "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.certificate)
    return made


def issued(by: Pair, name: str, days: int = 30) -> Pair:
    """A certificate for a name and 127.0.0.1."""
    folder = by.certificate.parent
    made = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    request, extensions = folder / f"{name}.csr", folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName=DNS:{name},IP:127.0.0.1\n")
    _openssl("req", *_CURVE, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
    signer = ("-CA", by.certificate, "-CAkey", by.key, "-CAcreateserial", "-days", str(days))
    _openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", made.certificate)
    return made


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
