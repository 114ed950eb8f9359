"""Three NATS servers, as in a fleet: replicas of a log, and replicas that lag."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from nats.errors import Error as NatsError
from structlog.testing import capture_logs

from artcafe.data_dir import read_secret
from artcafe.errors import NotStored, OurFault, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.audit_log import STREAM as AUDIT_STREAM
from artcafe.fabric.counters import DAILY, Counters
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.log_ends import read_log_ends
from artcafe.fabric.log_state import NO_LOG
from artcafe.fabric.nats.cluster import REPLICAS
from artcafe.fabric.nats.configuration import Node
from artcafe.fabric.nats.jetstream import JetStream
from artcafe.fabric.nats.server_states import NatsState
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import TenantId
from artcafe.rules import subjects
from artcafe.rules.secrets import derive
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import envelope
from artcafe.wire.frames import Publish
from artcafe.wire.replies import PublishReply
from tests.fabric.nats_clients import connected
from tests.fabric.nats_env import A, Nats, Writer, a_tenant, within
from tests.fabric.test_channel_readers import Sink
from tests.fleet import NatsServers

START_S = 30.0
"""Time for three servers to find each other and a leader, on a machine busy with other tests."""

FAR_S = 0.1


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
    """Return a tenant's stream info once it has a leader and every replica is current."""
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


async def first_publish(fabric: Fabric, tenant: TenantId, data: bytes = b"0") -> Writer:
    """Create the tenant's log, and return its writer."""
    tenant_fabric = fabric.tenant(tenant)
    await tenant_fabric.connection.wait_up(START_S)
    writer = Writer(tenant_fabric.writer, tenant_fabric.log)
    async with asyncio.timeout(START_S):
        await writer.submit(data)
    return writer


async def is_stored(fabric: Fabric, tenant: TenantId) -> bool:
    """Return whether a publish was stored; False if it waited as long as a publish may, in vain."""
    try:
        await first_publish(fabric, tenant)
    except NotStored:
        return False
    return True


async def test_single_server_has_one_replica(nats: Nats) -> None:
    fabric = Fabric([nats.url], nats.accounts)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        assert await within(fabric.update_replicas(5)) == 1
        fabric.close()


async def test_cluster_of_three_has_three_replicas(servers: NatsServers, accounts: Accounts) -> None:
    tenant = a_tenant()
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        await first_publish(fabric, tenant)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 3


async def test_log_with_one_replica_gets_three_and_never_fewer_again(servers: NatsServers, accounts: Accounts) -> None:
    tenant, urls = a_tenant(), [servers.nodes[0].url]
    async with fabric_on(urls, accounts, is_settled=False) as before:
        writer = await first_publish(before, tenant)
        for number in range(1, 20):
            await writer.publish(number)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 1
    async with fabric_on(urls, accounts) as fabric:
        tenant_fabric = fabric.tenant(tenant)
        await tenant_fabric.connection.wait_up(START_S)
        await tenant_fabric.log.limit(1 << 20)
        told = await stream(servers, accounts, tenant)
        assert (told["config"]["num_replicas"], told["config"]["max_bytes"]) == (3, 1 << 20)
        assert await Writer(tenant_fabric.writer, tenant_fabric.log).stored() == [str(number).encode() for number in range(20)]
        await TenantLog(tenant_fabric.connection).limit(1 << 20)
    assert (await stream(servers, accounts, tenant))["config"]["num_replicas"] == 3


async def test_audit_log_with_one_replica_gets_three(servers: NatsServers, accounts: Accounts) -> None:
    urls, chain = [servers.nodes[0].url], subjects.audit(a_tenant())
    async with fabric_on(urls, accounts):
        pass  # the servers have found each other by now
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


async def test_state_of_a_cluster_has_its_leader_and_how_far_the_others_are(servers: NatsServers, accounts: Accounts) -> None:
    names = [node.name for node in servers.nodes]
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        state = await settled_state(fabric)
        assert (state.cluster, state.size, [each.name for each in state.servers]) == ("artcafe-prod", 3, names)
        assert all(each.answers and each.jetstream and each.version and each.started_at for each in state.servers)
        assert sum(each.connections or 0 for each in state.servers) >= 2
        (leader,) = [each for each in state.servers if each.name == state.leader]
        assert (leader.is_leader, leader.is_current, leader.lag, leader.contact_s) == (True, None, None, None)
        others = [each for each in state.servers if each is not leader]
        assert {(each.is_leader, each.is_current, each.lag) for each in others} == {(False, True, 0)}
        assert all(each.contact_s is not None and each.contact_s < START_S for each in others)


async def test_killed_node_of_a_cluster_is_known_and_the_rest_of_it_unknown(servers: NatsServers, accounts: Accounts) -> None:
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        state = await settled_state(fabric)
        killed = next(each.name for each in state.servers if not each.is_leader)
        servers.kill(killed)
        try:
            state = await settled_state(fabric, answering=2)
            (gone,) = [each for each in state.servers if not each.answers]
            assert (gone.name, gone.is_leader, state.size) == (killed, False, 3)
            assert gone.is_current is not True
            assert gone.contact_s is not None
            unknown = (gone.version, gone.started_at, gone.connections, gone.jetstream, gone.streams, gone.stored_bytes)
            assert unknown == (None,) * 6
        finally:
            servers.start(servers.node(killed))
            await settled_state(fabric)


async def settled_state(fabric: Fabric, answering: int = 3) -> NatsState:
    """Return the state of the cluster once a leader and this many nodes answer, and the others of them are current."""
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(OurFault):
                state = await fabric.nats_state(1.0)
                answers = [] if state is None else [each for each in state.servers if each.answers]
                is_settled = len(answers) == answering and all(each.is_leader or each.is_current for each in answers)
                if state is not None and is_settled and state.leader in {each.name for each in answers}:
                    return state
            await asyncio.sleep(0.1)


async def test_state_of_a_single_server_has_no_cluster_and_no_leader(nats: Nats) -> None:
    fabric = Fabric([nats.url], nats.accounts)
    async with asyncio.TaskGroup() as group:
        group.create_task(fabric.run())
        await fabric.wait_up(5)
        state = await within(fabric.nats_state(1.0))
        fabric.close()
    assert state is not None
    (server,) = state.servers
    assert (state.cluster, state.size, state.leader) == (None, 1, None)
    assert (server.answers, server.jetstream, server.is_leader, server.is_current, server.lag) == (True, True, None, None, None)
    assert server.streams is not None
    assert server.stored_bytes is not None


@pytest.mark.promise("1b")
async def test_acknowledged_message_is_readable_at_every_node_at_once(servers: NatsServers, accounts: Accounts) -> None:
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
    """A slow proxy to a port of this machine: it delays everything, in both directions."""

    def __init__(self, port: int) -> None:
        self._to, self._carried = port, 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Start it, and return its port."""
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
            loop.call_later(FAR_S, writer.write, data)  # in order, since the loop preserves the order of equal delays
        raise ConnectionAbortedError


@pytest.mark.timeout(120)
@pytest.mark.promise("4a")
async def test_lagging_node_never_hides_an_acknowledged_message(tmp_path: Path) -> None:
    """The third node is far from the other two, so a majority acknowledges a message before it arrives there."""
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
    """Move the leadership of the tenant's log to another node."""
    async with connected(node.url, accounts.user(tenant)) as client:
        await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}", b"{}", timeout=5)


@pytest.mark.promise("5a", "5b")
async def test_readers_at_every_node_receive_every_message_once_and_in_order(servers: NatsServers, accounts: Accounts) -> None:
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
        first, *others = [[(one.seq, one.prev, one.envelope) for one in sink.got] for sink in sinks]
        assert others == [first, first]
        assert len(first) == count


async def stored_once_led(writer: Writer) -> list[bytes] | None:
    """Return the messages of the log; None while it has no leader that could tell whether there are more."""
    try:
        return await writer.stored()
    except Unavailable:
        return None


async def jetstream_leader(node: Node, accounts: Accounts) -> str:
    """Return the NATS server that places new streams."""
    async with connected(node.url, accounts.system_user()) as client:
        told = json.loads((await client.request("$SYS.REQ.SERVER.PING.JSZ", b"{}", timeout=5)).data)
    return str(told["data"]["meta_cluster"]["leader"])


async def until_known_to_each_other(servers: NatsServers, accounts: Accounts) -> None:
    """Wait until each node has heard of every other: JetStream's leader places no log while one of them is unknown to it."""

    async def heard_at(node: Node) -> None:
        async with connected(node.url, accounts.system_user()) as client:
            heard = await client.subscribe("$SYS.SERVER.*.STATSZ")
            names = set[str]()
            while len(names) < len(servers.nodes):
                names.add(json.loads((await heard.next_msg(START_S)).data)["server"]["name"])

    async with asyncio.timeout(START_S), asyncio.TaskGroup() as group:
        for node in servers.nodes:
            group.create_task(heard_at(node))


@pytest.mark.faults
@pytest.mark.timeout(120)
async def test_first_publishes_of_new_tenants_are_stored_while_a_node_is_down(tmp_path: Path) -> None:
    """JetStream elects another leader first, and so do the logs that are placed on the node that has just been killed."""
    servers = NatsServers(tmp_path, 3)
    accounts = Accounts(derive(read_secret(servers.secret), "nats"), "prod")
    servers.start()
    try:
        async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
            await first_publish(fabric, a_tenant())
            await until_known_to_each_other(servers, accounts)
            servers.kill(await jetstream_leader(servers.nodes[0], accounts))
            async with asyncio.TaskGroup() as group:
                for _ in range(6):
                    group.create_task(first_publish(fabric, a_tenant()))
    finally:
        servers.end()


@pytest.mark.timeout(120)
async def test_log_of_a_new_tenant_is_refused_while_a_node_is_unknown_to_the_others_and_its_reason_logged(tmp_path: Path) -> None:
    servers, tenant = NatsServers(tmp_path, 3), a_tenant()
    accounts = Accounts(derive(read_secret(servers.secret), "nats"), "prod")
    *two, third = servers.nodes
    servers.start(*two)
    try:
        async with fabric_on([node.url for node in servers.nodes], accounts, is_settled=False) as fabric:
            tenant_fabric = fabric.tenant(tenant)
            await tenant_fabric.connection.wait_up(START_S)
            with capture_logs() as logs, pytest.raises(Unavailable):
                await tenant_fabric.log.ensure()
            (line,) = [each for each in logs if each["event"] == "jetstream.not_ready"]
            assert line["request"] == "STREAM.CREATE.log"
            assert "no suitable peers for placement" in line["reason"]
            servers.start(third)
            async with asyncio.timeout(START_S):
                while not await is_stored(fabric, tenant):
                    pass
    finally:
        servers.end()


@pytest.mark.promise("1b", "2a")
async def test_with_two_of_three_servers_down_publishes_and_the_storage_check_fail(
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


async def test_counter_returns_no_total_twice_while_its_leader_is_killed(servers: NatsServers, accounts: Accounts) -> None:
    counter = subjects.chain_counter(a_tenant(), "msg_1")
    totals: list[int] = []
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        counters = fabric.daily_counters
        totals += await added(counters, counter, 20)
        info = await JetStream(fabric._platform).info(DAILY.name)
        assert info is not None
        assert info["config"]["num_replicas"] == REPLICAS
        leader = servers.node(info["cluster"]["leader"])
        servers.kill(leader.name)
        try:
            totals += await added(counters, counter, 20)
        finally:
            servers.start(leader)
        totals += await added(counters, counter, 20)
        last = await counters.add(counter, 1)
    assert len(set(totals)) == len(totals) == 60
    assert sorted(totals) == totals
    assert last > totals[-1]


async def added(counters: Counters, counter: Subject, count: int) -> list[int]:
    """Add 1 until `count` additions are acknowledged, and return their totals. Others may have counted too."""
    totals: list[int] = []
    async with asyncio.timeout(START_S):
        while len(totals) < count:
            try:
                totals.append(await counters.add(counter, 1))
            except (OurFault, TimeoutError):
                await asyncio.sleep(0.05)
    return totals


async def publish_again(writer: Writer) -> None:
    """Publish one message with a key, again until it is stored: the server that led the log was killed."""
    while True:
        with contextlib.suppress(OurFault, TimeoutError):
            await writer.publish(1, "k")
            return


async def test_ends_of_logs_are_read_from_their_leaders_also_after_one_was_killed(
    servers: NatsServers, accounts: Accounts
) -> None:
    tenant, absent = a_tenant(), a_tenant()
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        writer = await first_publish(fabric, tenant)
        info, state = await stream(servers, accounts, tenant), await writer.log.state()
        assert state is not None
        ends = await read_log_ends(fabric._system)
        assert ends.of(accounts.account_key(tenant)) == state.end
        assert ends.of(accounts.account_key(absent)) == NO_LOG

        leader = servers.node(info["cluster"]["leader"])
        servers.kill(leader.name)
        try:
            await fabric.wait_up(START_S)
            async with asyncio.timeout(START_S):
                await publish_again(writer)
                ends = await read_log_ends(fabric._system)
                while ends.of(accounts.account_key(tenant)) != (state.epoch, 2):
                    with contextlib.suppress(OurFault):
                        ends = await read_log_ends(fabric._system)
                    await asyncio.sleep(0.1)
            assert ends.of(accounts.account_key(absent)) is None, "the killed server might know of its log"
        finally:
            servers.start(leader)


async def test_key_of_a_message_with_three_replicas_is_found_without_storing_anything(
    servers: NatsServers, accounts: Accounts
) -> None:
    tenant = a_tenant()
    async with fabric_on([node.url for node in servers.nodes], accounts) as fabric:
        writer = await first_publish(fabric, tenant)
        first = await writer.publish(1, "k")
        for key, is_there in (("k", True), ("unused", False)) * 3:
            stored = envelope(Publish(A, Raw(b"1")), message_id="msg_new", sender="agt_1", time="now")
            dedupe_id = subjects.dedupe_id(A, "agt_1", key)
            found = await writer.log_writer.find_repeat(subjects.stored(A), stored, "msg_new", dedupe_id)
            assert (found is not None) is is_there
            if found is not None:
                assert await within(found) == PublishReply(first.seq, first.message_id, duplicate=True)
        assert await writer.stored() == [b"0", b"1"]
        assert (await writer.publish(2, "unused")).duplicate is False


async def until_stored(fabric: Fabric) -> None:
    """Wait until NATS has stored a message."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                return await fabric.check_storage(2)
            except (OurFault, TimeoutError):
                await asyncio.sleep(0.1)
