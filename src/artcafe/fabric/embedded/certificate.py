"""The certificate of the embedded nats-server, derived from the installation's secret on both sides."""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from artcafe.fabric.accounts import Accounts

HOST = "127.0.0.1"


def server_pem(accounts: Accounts) -> str:
    """Return the certificate with its private key, in the file format of nats-server. The key is valid for this listener only."""
    key = accounts.server_key()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (private + _certificate(accounts)).decode()


def client_context(accounts: Accounts) -> ssl.SSLContext:
    """Return a TLS context that accepts only that certificate, no system authority, and no version before TLS 1.3."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=_certificate(accounts).decode())
    return context


def _certificate(accounts: Accounts) -> bytes:
    """Return the self-signed certificate, the same bytes each time. It does not expire, and is replaced with the secret."""
    key = accounts.server_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "artcafe nats-server")])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        # A machine without a battery-backed clock may start in 1970.
        not_valid_before=datetime(1970, 1, 1, tzinfo=UTC),
        not_valid_after=datetime(9999, 12, 31, tzinfo=UTC),
    )
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    return builder.add_extension(host, critical=False).sign(key, None).public_bytes(Encoding.PEM)
