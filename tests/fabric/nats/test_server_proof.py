"""An impostor that listens on the port of our nats-server, and what it receives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from artcafe.errors import Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.server_proof import ServerProof, Unproven
from artcafe.model import TenantId
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, until

ACCOUNTS = Accounts(bytes(range(32)), "dev")
TENANT = TenantId("ten_a")


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[EmbeddedNats]:
    nats = EmbeddedNats(tmp_path / "nats", ACCOUNTS)
    await nats.start()
    try:
        yield nats
    finally:
        await nats.stop()


class Impostor:
    """Sends nats-server's greeting, without TLS, and records what it receives."""

    def __init__(self, client_id: int) -> None:
        self._info = {"server_id": "N", "version": "2.15.1", "nonce": "n", "max_payload": 1 << 20, "client_id": client_id}
        self._info["auth_required"] = True
        self.heard: list[bytes] = []
        self.ended = 0

    async def greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO %b\r\n" % json.dumps(self._info).encode())
        with suppress(OSError):
            while data := await reader.read(65536):
                self.heard.append(data)
                writer.write(b"PONG\r\n")
        self.ended += 1
        writer.close()


@asynccontextmanager
async def impostor(client_id: int = 1) -> AsyncIterator[tuple[Impostor, int]]:
    """Start an impostor, and return it with its port."""
    made = Impostor(client_id)
    server = await asyncio.start_server(made.greet, "127.0.0.1", 0)
    async with server:
        yield made, server.sockets[0].getsockname()[1]


@asynccontextmanager
async def up(*connections: NatsConnection) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(connection.run())
        try:
            yield
        finally:
            for connection in connections:
                connection.close()


async def test_every_connection_is_proven_and_only_the_system_accounts_is_encrypted(nats: EmbeddedNats) -> None:
    fabric = Fabric(nats.urls, ACCOUNTS, tls=nats.tls, is_embedded=True)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric.wait_up(BOUND_S)
        await fabric.tenant(TENANT).connection.wait_up(BOUND_S)
        answer = json.loads((await fabric._system.request(Subject("$SYS.REQ.SERVER.PING.CONNZ"), b"{}")).data)
        fabric.close()
    is_encrypted = {each["name"]: "tls_version" in each for each in answer["data"]["connections"]}
    assert is_encrypted.pop("artcafe health")
    assert is_encrypted == {"artcafe system": True, "artcafe platform": False, "artcafe tenant ten_a": False}


async def test_impostor_on_the_port_receives_only_the_start_of_a_handshake(nats: EmbeddedNats) -> None:
    async with impostor() as (heard, port):
        urls = [f"tls://127.0.0.1:{port}"]
        system = NatsConnection("system", urls, ACCOUNTS.system_user, tls=nats.tls)
        tenant = NatsConnection("tenant", urls, lambda: ACCOUNTS.user(TENANT), proof=ServerProof(system))
        async with up(system, tenant):
            await until(lambda: heard.ended >= 2)
            assert not system.is_up
            assert not tenant.is_up
    assert {data[:1] for data in heard.heard} == {b"\x16"}, "a TLS handshake record"


async def test_impostor_on_another_port_is_detected_with_any_claimed_client_id(nats: EmbeddedNats) -> None:
    system = NatsConnection("system", nats.urls, ACCOUNTS.system_user, tls=nats.tls)
    other = NatsConnection("other", nats.urls, ACCOUNTS.platform_user, proof=ServerProof(system))
    async with up(system, other):
        await other.wait_up(BOUND_S)
        async with impostor(other.endpoints().client_id) as (heard, port):
            tenant = NatsConnection(
                "tenant", [f"tls://127.0.0.1:{port}"], lambda: ACCOUNTS.user(TENANT), proof=ServerProof(system)
            )
            async with up(tenant):
                await until(lambda: heard.ended >= 2)
                assert "is not our nats-server" in (tenant.problem or "")
                with pytest.raises(Unavailable):
                    tenant.client()
    assert heard.heard == []


async def test_transparent_proxy_is_detected(nats: EmbeddedNats) -> None:
    system = NatsConnection("system", nats.urls, ACCOUNTS.system_user, tls=nats.tls)
    async with up(system), Nats(nats.url, ACCOUNTS).proxy() as between:
        tenant = NatsConnection(
            "tenant", [between.url.replace("nats:", "tls:")], ACCOUNTS.platform_user, proof=ServerProof(system)
        )
        async with up(tenant):
            await until(lambda: "is not our nats-server" in (tenant.problem or ""))
            assert not tenant.is_up


async def test_connection_unknown_to_nats_server_is_refused_on_the_right_port(nats: EmbeddedNats) -> None:
    system = NatsConnection("system", nats.urls, ACCOUNTS.system_user, tls=nats.tls)
    async with up(system):
        await system.wait_up(BOUND_S)
        proof, ends = ServerProof(system), system.endpoints()
        await proof.check(ends)
        address, port = ends.local
        for wrong in (
            ends._replace(client_id=9999),
            ends._replace(local=(address, 1)),
            ends._replace(local=("127.0.0.2", port)),
            ends._replace(remote=(address, 1)),
        ):
            with pytest.raises(Unproven, match="is not our nats-server"):
                await proof.check(wrong)


async def test_tls_address_is_never_used_in_plain_text() -> None:
    """A fleet's server, verified by the system's authorities."""
    async with impostor() as (heard, port):
        connection = NatsConnection("system", [f"tls://127.0.0.1:{port}"], ACCOUNTS.system_user)
        async with up(connection):
            await until(lambda: heard.ended >= 1)
    assert {data[:1] for data in heard.heard} == {b"\x16"}


async def test_nats_server_with_another_certificate_is_refused(tmp_path: Path) -> None:
    theirs = EmbeddedNats(tmp_path / "nats", Accounts(b"t" * 32, "dev"))
    await theirs.start()
    try:
        connection = NatsConnection(
            "system", theirs.urls, ACCOUNTS.system_user, tls=EmbeddedNats(tmp_path / "ours", ACCOUNTS).tls
        )
        async with up(connection):
            await until(lambda: "certificate verify failed" in (connection.problem or ""))
            assert not connection.is_up
    finally:
        await theirs.stop()
