"""Three NATS servers, as a fleet has them: copies of a log, and copies that lag."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from nats.errors import Error as NatsError

from artcafe.data_dir import read_secret
from artcafe.errors import OurFault, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.audit_log import STREAM as AUDIT_STREAM
from artcafe.fabric.embedded.process import some_free_port
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.nats.cluster import REPLICAS
from artcafe.fabric.nats.configuration import Node
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import TenantId
from artcafe.rules import subjects
from artcafe.rules.secrets import derive
from tests.fabric.nats_clients import connected
from tests.fabric.nats_env import A, Nats, Writer, a_tenant, within
from tests.fabric.test_channel_readers import Sink
from tests.fleet import NatsServers

START_S = 30.0
"""For three servers to find each other and a leader, on a machine that is busy with other tests."""

FAR_S = 0.1
MESSAGE_BYTES = 100
"""At least, of each message on disk."""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServers]:
    servers = NatsServers(tmp_path_factory.mktemp("cluster"), 3)
    servers.start()
    try:
        yield servers
    finally:
        servers.end()


@pytest.fixture(scope="module")
def accounts(servers: NatsServers) -> Accounts:
    return Accounts(derive(read_secret(servers.secret), "nats"), "prod")


@asynccontextmanager
async def fabric_on(urls: list[str], accounts: Accounts, *, is_settled: bool = True) -> AsyncIterator[Fabric]:
    fabric = Fabric(urls, accounts)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        try:
            await fabric.wait_up(START_S)
            async with asyncio.timeout(START_S):
                while is_settled and await fabric.update_replicas(START_S) < REPLICAS:  # noqa: ASYNC110 (the servers find each other)
                    await asyncio.sleep(0.1)
            yield fabric
        finally:
            fabric.close()


async def stream(servers: NatsServers, accounts: Accounts, tenant: TenantId) -> dict[str, Any]:
    """What a tenant's log is, once it has a leader and every copy is level."""
    async with asyncio.timeout(START_S):
        while True:
            for node in servers.nodes:
                try:
                    async with connected(node.url, accounts.user(tenant)) as client:
                        answer = await client.request(f"$JS.API.STREAM.INFO.{STREAM}", b"{}", timeout=2)
                except (NatsError, OSError, TimeoutError):
                    continue
                told: dict[str, Any] = json.loads(answer.data)
                cluster = told.get("cluster", {})
                copies = cluster.get("replicas", [])
                if cluster.get("leader") and all(copy["current"] for copy in copies):
                    return told
            await asyncio.sleep(0.1)


def bytes_of(stream: Path) -> int:
    """How much of a stream is on a server's disk, below its folder."""
    return sum(block.stat().st_size for block in stream.glob("msgs/*.blk"))


async def first_publish(fabric: Fabric, tenant: TenantId, data: bytes = b"0") -> Writer:
    """A writer of the tenant's log, which is there from here on."""
    room = fabric.tenant(tenant)
    await room.connection.wait_up(START_S)
    writer = Writer(room.writer, room.log)
    async with asyncio.timeout(START_S):
        await writer.submit(data)
    return writer


async def test_a_server_alone_keeps_one_copy(nats: Nats) -> None:
    fabric = Fabric([nats.url], nats.accounts)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        assert await within(fabric.update_replicas(5)) == 1
        fabric.close()


async def test_a_cluster_of_three_keeps_three(servers: NatsServers, accounts: Accounts) -> None:
    tenant = a_tenant()
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        await first_publish(fabric, tenant)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 3


async def test_a_log_of_one_copy_gets_the_others_and_never_loses_them_again(servers: NatsServers, accounts: Accounts) -> None:
    tenant, urls = a_tenant(), [servers.nodes[0].url]
    async with fabric_on(urls, accounts, is_settled=False) as before:
        writer = await first_publish(before, tenant)
        for number in range(1, 20):
            await writer.publish(number)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 1
    async with fabric_on(urls, accounts) as fabric:
        room = fabric.tenant(tenant)
        await room.connection.wait_up(START_S)
        await room.log.limit(1 << 20)
        told = await stream(servers, accounts, tenant)
        assert (told["config"]["num_replicas"], told["config"]["max_bytes"]) == (3, 1 << 20)
        assert await Writer(room.writer, room.log).stored() == [str(number).encode() for number in range(20)]
        await TenantLog(room.connection).limit(1 << 20)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 3


async def test_the_audit_of_one_copy_gets_the_others(servers: NatsServers, accounts: Accounts) -> None:
    urls, chain = [servers.nodes[0].url], subjects.audit(a_tenant())
    async with fabric_on(urls, accounts):
        pass  # the servers have found each other now
    async with fabric_on(urls, accounts, is_settled=False) as before:
        await within(before.audit_log.append(chain, lambda _: b"1"))
        assert await audit_copies(before) == 1
    async with fabric_on(urls, accounts) as fabric:
        await within(fabric.audit_log.raise_replicas())
        assert await audit_copies(fabric) == 3
        fabric.audit_log.replicas = 1
        await within(fabric.audit_log.raise_replicas())
        assert await audit_copies(fabric) == 3, "never fewer"
        assert [each.text for each in await fabric.audit_log.after(chain, 0, 2)] == [b"1"]


async def audit_copies(fabric: Fabric) -> int:
    answer = await fabric.audit_log._jetstream.info(AUDIT_STREAM)
    assert answer is not None
    return int(answer["config"]["num_replicas"])


async def test_what_was_acknowledged_is_read_at_every_node_at_once(servers: NatsServers, accounts: Accounts) -> None:
    """A direct get is answered by the node that a server is connected to, which may not have applied the last message yet."""
    tenant = a_tenant()
    async with AsyncExitStack() as stack:
        fabrics = [await stack.enter_async_context(fabric_on([node.url], accounts)) for node in servers.nodes]
        writers = [await first_publish(fabric, tenant) for fabric in fabrics]
        for number in range(100):
            seq = (await writers[number % 3].publish(number)).seq
            assert seq is not None
            for writer in writers:
                assert await writer.log.last_seq_of(A) == seq
                newest, before = await writer.log.before(A, None, most=2)
                assert (newest.seq, before.seq) == (seq, seq - 1)
                assert [one.seq for one in await writer.log.after(A, seq - 1, most=10)] == [seq]
                assert await writer.log.before(A, 1, most=1) == []
                assert await writer.log.after(A, seq, most=10) == []


class Far:
    """A way to a port of this machine on which everything takes its time, in both directions."""

    def __init__(self, port: int) -> None:
        self._to, self._carried = port, 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """The port at this end of it."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        async with server:
            yield int(server.sockets[0].getsockname()[1])
            async with asyncio.timeout(START_S):
                while self._carried:  # noqa: ASYNC110 (whose ends are other processes)
                    await asyncio.sleep(0.01)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        self._carried += 1
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, there_writer))
                group.create_task(self._pass(there_reader, writer))
        except* OSError:
            pass
        finally:
            self._carried -= 1
            for each in (writer, there_writer):
                each.transport.abort()

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await reader.read(65536):
            loop.call_later(FAR_S, writer.write, data)  # in order: the loop keeps that of equal delays
        raise ConnectionAbortedError


@pytest.mark.timeout(120)
async def test_a_node_that_lags_gives_no_older_answer_than_was_acknowledged(tmp_path: Path) -> None:
    """The third node is far from the other two, so a majority acknowledges before it has a message."""
    servers = NatsServers(tmp_path, 3)
    accounts, tenant = Accounts(derive(read_secret(servers.secret), "nats"), "prod"), a_tenant()
    one, two, far = servers.nodes
    async with AsyncExitStack() as stack:
        ways = {node.name: await stack.enter_async_context(Far(node.route_port).open()) for node in servers.nodes}
        for node in (one, two):
            servers.reroute(node, {far.name: ways[far.name]}, ways[node.name])
        servers.reroute(far, ways, ways[far.name])
        stack.callback(servers.end)
        servers.start()
        near = await stack.enter_async_context(fabric_on([one.url, two.url], accounts))
        writer = await first_publish(near, tenant)
        there = await first_publish(await stack.enter_async_context(fabric_on([far.url], accounts)), tenant)
        stale = 0
        async with asyncio.timeout(60):
            while (await stream(servers, accounts, tenant))["cluster"]["leader"] == far.name:
                await step_down(one, accounts, tenant)
            while stale < 10:
                seq = (await writer.publish(stale)).seq
                assert seq is not None
                known = (await there.log.last_seqs([A]))[subjects.stored(A)]
                if known == seq:
                    continue
                stale += 1
                match stale % 5:
                    case 0:
                        assert await there.log.last_seq_of(A) == seq
                    case 1:
                        assert [each.seq for each in await there.log.before(A, None, most=2)] == [seq, seq - 1]
                    case 2:
                        assert [each.seq for each in await there.log.after(A, seq - 1, most=10)] == [seq]
                    case 3:
                        (first, *_), is_whole = await there.log.after_anchor(A, known, known)
                        assert (first.seq, first.prev, is_whole) == (known + 1, known, True)
                    case _:
                        assert await there.log.last_seq_of(A, up_to=seq) == seq


async def step_down(node: Node, accounts: Accounts, tenant: TenantId) -> None:
    """Has another node lead the tenant's log."""
    async with connected(node.url, accounts.user(tenant)) as client:
        await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}", b"{}", timeout=5)


async def test_followers_at_every_node_are_shown_every_message_once_and_in_order(
    servers: NatsServers, accounts: Accounts
) -> None:
    tenant, count = a_tenant(), 300
    async with AsyncExitStack() as stack:
        fabrics = [await stack.enter_async_context(fabric_on([node.url], accounts)) for node in servers.nodes]
        writers = [await first_publish(fabric, tenant) for fabric in fabrics]
        sinks = [Sink() for _ in fabrics]
        for fabric, sink in zip(fabrics, sinks, strict=True):
            await fabric.tenant(tenant).readers.follow(A, sink)
        async with asyncio.timeout(START_S):
            for number in range(0, count, 3):
                await asyncio.wait([writer.submit(number + offset) for offset, writer in enumerate(writers)])
            while any(len(sink.got) < count for sink in sinks):  # noqa: ASYNC110 (another process tells the sinks)
                await asyncio.sleep(0.01)
        assert sinks[0].got == sinks[1].got == sinks[2].got
        assert len(sinks[0].got) == count


async def is_well(http: httpx.AsyncClient, port: int) -> bool:
    """Whether a NATS server says that it has everything; one that does not listen yet does not."""
    try:
        answer = await http.get(f"http://127.0.0.1:{port}/healthz")
    except httpx.TransportError:
        return False
    return bool(answer.json()["status"] == "ok")


async def stored_once_led(writer: Writer) -> list[bytes] | None:
    """What the log holds; None while nobody can say that there is no more, because it has no leader."""
    try:
        return await writer.stored()
    except Unavailable:
        return None


async def jetstream_leader(node: Node, accounts: Accounts) -> str:
    """The NATS server that places new streams."""
    async with connected(node.url, accounts.system_user()) as client:
        told = json.loads((await client.request("$SYS.REQ.SERVER.PING.JSZ", b"{}", timeout=5)).data)
    return str(told["data"]["meta_cluster"]["leader"])


@pytest.mark.faults
@pytest.mark.timeout(120)
async def test_new_tenants_first_publishes_are_stored_while_a_node_is_down(tmp_path: Path) -> None:
    """JetStream elects another leader first, and so do the logs that are given to the node that has just been killed."""
    servers = NatsServers(tmp_path, 3)
    accounts = Accounts(derive(read_secret(servers.secret), "nats"), "prod")
    servers.start()
    try:
        async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
            await first_publish(fabric, a_tenant())
            servers.kill(await jetstream_leader(servers.nodes[0], accounts))
            async with asyncio.timeout(3 * START_S), asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(first_publish(fabric, a_tenant()))
    finally:
        servers.end()


@pytest.mark.timeout(120)
async def test_a_node_that_comes_back_empty_copies_everything_from_the_others(tmp_path: Path) -> None:
    servers = NatsServers(tmp_path, 3)
    accounts = Accounts(derive(read_secret(servers.secret), "nats"), "prod")
    servers.start()
    try:
        tenant, (lost, *others) = a_tenant(), servers.nodes
        async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
            writer = await first_publish(fabric, tenant)
            for number in range(1, 50):
                await writer.publish(number)
        servers.kill(lost.name)
        (servers.folder / lost.name).rename(servers.folder / "lost")
        servers.start(lost, monitor=(port := some_free_port()))
        copied = servers.folder / lost.name / "jetstream" / "jetstream" / accounts.account_key(tenant) / "streams" / STREAM
        async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as http:
            while not await is_well(http, port):  # noqa: ASYNC110 (another process has it soon)
                await asyncio.sleep(0.1)
        assert bytes_of(copied) >= 50 * MESSAGE_BYTES
        assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 3
        servers.kill(others[0].name)  # so that no majority is without the node that came back
        async with fabric_on([lost.url], accounts) as fabric:
            room = fabric.tenant(tenant)
            await room.connection.wait_up(START_S)
            async with asyncio.timeout(START_S):
                while await room.log.after(A, 0, most=1) == []:  # noqa: ASYNC110 (another process has it soon)
                    await asyncio.sleep(0.1)
                while (found := await stored_once_led(Writer(room.writer, room.log))) is None:
                    pass
            assert found == [str(number).encode() for number in range(50)]
    finally:
        servers.end()


async def test_with_two_of_three_servers_down_nothing_is_stored_and_the_check_says_so(
    servers: NatsServers, accounts: Accounts
) -> None:
    alive, *down = servers.nodes
    async with fabric_on([alive.url], accounts) as fabric:
        await until_stored(fabric)
        for node in down:
            servers.kill(node.name)
        try:
            with pytest.raises((OurFault, TimeoutError)):
                await fabric.check_storage(2)
        finally:
            servers.start(*down)
        await until_stored(fabric)


async def until_stored(fabric: Fabric) -> None:
    """Returns when NATS has stored a message."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                return await fabric.check_storage(2)
            except (OurFault, TimeoutError):
                await asyncio.sleep(0.1)
