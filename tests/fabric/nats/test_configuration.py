"""A fleet's nats-server with an untrusted certificate."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.process import find_binary, some_free_port
from artcafe.fabric.nats.configuration import Node, NodeTls, fleet_configuration, to_text
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.observe.clock import now

START_S = 15.0


def certified(folder: Path) -> NodeTls:
    """Create a key and its self-signed certificate for this machine."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nats")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - timedelta(hours=1))
        .not_valid_after(now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return NodeTls(folder / "cert.pem", folder / "key.pem", folder / "cert.pem")


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[Node, Accounts]]:
    accounts, node = Accounts(bytes(range(32)), "prod"), Node("n1", "127.0.0.1", some_free_port())
    told = fleet_configuration(accounts, [node], node, folder=tmp_path, bind="127.0.0.1", tls=certified(tmp_path))
    (tmp_path / "nats.conf").write_text(to_text(told | {"log_file": str(tmp_path / "log")}))
    with subprocess.Popen([find_binary(), "-c", tmp_path / "nats.conf"]) as process:
        try:
            yield node, accounts
        finally:
            process.terminate()


async def test_connection_with_an_untrusted_certificate_reports_it_and_keeps_retrying(
    encrypted: tuple[Node, Accounts],
) -> None:
    node, accounts = encrypted
    connection = NatsConnection("system", [node.url.replace("nats:", "tls:")], accounts.system_user)
    async with asyncio.timeout(START_S), asyncio.TaskGroup() as group:
        group.create_task(connection.run())
        for _ in range(2):  # nats-py never comes back by itself
            connection.problem = ""
            while "certificate verify failed" not in connection.problem:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        assert not connection.is_up
        connection.close()
