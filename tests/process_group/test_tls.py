"""TLS of several server processes: the supervisor accepts, and the process that gets the connection speaks TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.certificates import Authority
from tests.platform import Platform, running
from tests.process_group.groups import PROCESSES


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Platform]:
    made = authority.sign("127.0.0.1")
    flags = [*PROCESSES, "--tls-cert", str(made.cert), "--tls-key", str(made.key)]
    with running(tmp_path_factory.mktemp("secure"), flags) as platform:
        yield platform


def test_every_process_serves_rest_over_tls(secure: Platform, authority: Authority) -> None:
    assert secure.url.startswith("https://")
    for _ in range(4):  # Each connection goes to the process with the fewest.
        with httpx2.Client(verify=authority.client()) as client:
            assert client.get(f"{secure.url}/health/ready").json()["processes"] == "ok"


def test_plain_bytes_on_a_tls_connection_end_it_and_no_other(secure: Platform, authority: Authority) -> None:
    for url in (secure.url, secure.gateway_url):
        address = (urlsplit(url).hostname, urlsplit(url).port)
        for _ in range(4):
            with socket.create_connection(address, 10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    assert b"HTTP/1.1" not in plain.recv(1000)
    with httpx2.Client(verify=authority.client()) as client:
        assert client.get(f"{secure.url}/health/live").status_code == 200


async def test_agents_publish_and_receive_over_tls_at_every_process(
    secure: Platform, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert secure.gateway_url.startswith("wss://")
    cast = await secure.tenant_with(agents=3)
    async with cast.agent(0) as writer, cast.agent(1) as one, cast.agent(2) as other:
        await writer.publish(cast.channels[0], {"over": "TLS"})
        async with asyncio.timeout(10):
            for reader in (one, other):
                assert (await anext(reader.messages())).data == {"over": "TLS"}
