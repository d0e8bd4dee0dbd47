"""Certificates for servers on loopback, made by the openssl command for a day."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest


def make_certificate(directory: Path, *names: str) -> Path:
    """A PEM file with a key and its self-signed certificate for these names.

    A name that starts with a digit is an IP address. Skips the test where there is
    no openssl command.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    pem = directory / f"{names[0]}.pem"
    certificate = pem.with_suffix(".crt")
    kinds = (f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in names)
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", f"/CN={names[0]}", "-keyout", pem, "-out", certificate),
            *("-addext", f"subjectAltName={','.join(kinds)}"),
            *("-addext", "keyUsage=digitalSignature,keyCertSign"),
        ],
        check=True,
        capture_output=True,
    )
    with pem.open("ab") as both:
        both.write(certificate.read_bytes())
    return pem


def subject_hash(pem: Path) -> str:
    """What OpenSSL calls the certificate's file in a directory of certificates."""
    asked = ["openssl", "x509", "-noout", "-hash", "-in", pem]
    return subprocess.run(
        asked, check=True, capture_output=True, text=True
    ).stdout.strip()


def server_side(pem: Path) -> ssl.SSLContext:
    """What a server with this certificate speaks TLS by."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
