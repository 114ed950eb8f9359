"""Whether every NATS server has each stream completely: also one that is paused, or that returns empty."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from artcafe.data_dir import read_secret
from artcafe.errors import OutcomeUnknown
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.nats.configuration import Node
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.stream_copies import StreamCopies, _behind, check_copies
from artcafe.fabric.tenant_log import STREAM
from artcafe.model import TenantId
from artcafe.rules.secrets import derive
from tests.fabric.nats_env import A, Nats, Writer, a_tenant
from tests.fabric.test_cluster import START_S, fabric_on, first_publish, is_stored, stored_once_led, stream
from tests.fleet import NatsServers

MESSAGES = 50
MESSAGE_BYTES = 100
"""Minimum size of each message on disk."""


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    servers = NatsServers(tmp_path, 3)
    servers.start()
    try:
        yield servers
    finally:
        servers.end()


@pytest.fixture
def accounts(servers: NatsServers) -> Accounts:
    return Accounts(derive(read_secret(servers.secret), "nats"), "prod")


@asynccontextmanager
async def system_connection(urls: Sequence[str], accounts: Accounts) -> AsyncIterator[NatsConnection]:
    system = NatsConnection("system", urls, accounts.system_user)
    async with asyncio.TaskGroup() as group:
        group.create_task(system.run())
        try:
            await system.wait_up(START_S)
            yield system
        finally:
            system.close()


async def complete_copies(system: NatsConnection) -> StreamCopies:
    """Return the first check that finds everything complete."""
    async with asyncio.timeout(START_S):
        while not (found := await check_copies(system)).is_complete:
            pass
    return found


async def is_published(fabric: Fabric, tenant: TenantId) -> bool:
    """Return whether a publish was stored; False if that is unknown, or it waited in vain for another leader of the log."""
    try:
        return await is_stored(fabric, tenant)
    except OutcomeUnknown:
        return False


def incomplete(copies: StreamCopies) -> list[str]:
    return [each.name for each in copies.servers if not each.is_complete]


def urls_of(nodes: Sequence[Node]) -> list[str]:
    return [node.url for node in nodes]


def bytes_of(stream: Path) -> int:
    """Return the size of a stream on a server's disk, below its folder."""
    return sum(block.stat().st_size for block in stream.glob("msgs/*.blk"))


async def test_single_server_is_complete(nats: Nats) -> None:
    async with system_connection([nats.url], nats.accounts) as system:
        found = await check_copies(system)
    (server,) = found.servers
    assert (found.is_complete, found.few_copies) == (True, 0)
    assert (server.streams, server.behind, server.problem) == (found.streams, 0, None)


@pytest.mark.timeout(120)
async def test_paused_server_is_incomplete_until_it_has_the_messages_published_meanwhile(
    servers: NatsServers, accounts: Accounts
) -> None:
    tenant, (paused, *others) = a_tenant(), servers.nodes
    async with fabric_on(urls_of(others), accounts) as fabric, system_connection(urls_of(others), accounts) as system:
        await first_publish(fabric, tenant)
        found = await complete_copies(system)
        assert [each.name for each in found.servers] == ["nats-1", "nats-2", "nats-3"]
        assert {(each.streams, each.behind, each.problem) for each in found.servers} == {(1, 0, None)}
        assert (found.streams, found.few_copies) == (1, 0)
        os.kill(servers.pid(paused.name), signal.SIGSTOP)
        try:
            async with asyncio.timeout(START_S):
                while not await is_published(fabric, tenant):
                    pass
            found = await check_copies(system)
            silent = next(each for each in found.servers if each.name == paused.name)
            assert (silent.streams, silent.behind, silent.problem) == (None, 1, "no answer")
            assert not found.is_complete
        finally:
            os.kill(servers.pid(paused.name), signal.SIGCONT)
        await complete_copies(system)


@pytest.mark.timeout(120)
async def test_node_that_returns_empty_is_restored_from_the_others(servers: NatsServers, accounts: Accounts) -> None:
    """The check calls it complete once it has every message, so that another server can be stopped then."""
    tenant, (lost, *others) = a_tenant(), servers.nodes
    async with fabric_on(urls_of(servers.nodes), accounts) as fabric:
        writer = await first_publish(fabric, tenant)
        for number in range(1, MESSAGES):
            await writer.publish(number)
    servers.kill(lost.name)
    (servers.folder / lost.name).rename(servers.folder / "lost")
    copied = servers.folder / lost.name / "jetstream" / "jetstream" / accounts.account_key(tenant) / "streams" / STREAM
    async with system_connection(urls_of(others), accounts) as system:
        assert lost.name in incomplete(await check_copies(system))
        servers.start(lost)
        await complete_copies(system)
    async with asyncio.timeout(START_S):
        while bytes_of(copied) < MESSAGES * MESSAGE_BYTES:  # noqa: ASYNC110 (another process writes it soon)
            await asyncio.sleep(0.01)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 3
    servers.kill(others[0].name)  # so that every majority includes the returned node
    async with fabric_on([lost.url], accounts) as fabric:
        tenant_fabric = fabric.tenant(tenant)
        await tenant_fabric.connection.wait_up(START_S)
        async with asyncio.timeout(START_S):
            while await tenant_fabric.log.after(A, 0, most=1) == []:  # noqa: ASYNC110 (another process has it soon)
                await asyncio.sleep(0.1)
            while (found := await stored_once_led(Writer(tenant_fabric.writer, tenant_fabric.log))) is None:
                pass
        assert found == [str(number).encode() for number in range(MESSAGES)]


def test_copy_is_behind_if_it_is_missing_or_lacks_a_message_of_the_earlier_report() -> None:
    log, audit = ("A", "log"), ("A", "audit")
    members = {log: {"one", "two"}, audit: {"one", "two"}}
    has_all = {log: 7, audit: 3}
    assert _behind(has_all, members, {"one": has_all, "two": has_all}) == {"one": 0, "two": 0}
    assert _behind(has_all, members, {"one": {log: 9, audit: 3}, "two": {log: 7, audit: 3}})["two"] == 0
    assert _behind(has_all, members, {"one": has_all, "two": {log: 6, audit: 3}}) == {"one": 0, "two": 1}
    assert _behind(has_all, members, {"one": has_all, "two": {log: 6}}) == {"one": 0, "two": 2}
    assert _behind(has_all, members, {"one": has_all}) == {"one": 0, "two": 2}


def test_stream_that_was_deleted_or_rewritten_since_the_earlier_report_is_compared_as_it_is_now() -> None:
    log, gone = ("A", "log"), ("A", "gone")
    members = {log: {"one", "two"}, gone: {"one", "two"}}
    rewritten = {log: 2}
    assert _behind({log: 7, gone: 3}, members, {"one": rewritten, "two": rewritten}) == {"one": 0, "two": 0}
    assert _behind({log: 7, gone: 3}, members, {"one": rewritten, "two": {log: 1}}) == {"one": 0, "two": 1}
