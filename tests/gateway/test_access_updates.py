"""The cost of applying a change to open connections, and the order of changes and revocations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from artcafe.delivery.peer import MAX_SUBSCRIPTIONS
from artcafe.errors import Unavailable
from artcafe.maintenance.adoption import adopt
from artcafe.model import AgentStatus, Channel, Role, TenantChange, TenantId, UserId, UserPrincipal
from artcafe.rules.inboxes import owner_of
from artcafe.services.agents import Agents
from artcafe.services.changes import Changes
from artcafe.services.invalidation import Invalidation
from artcafe.tables.catalog import CHANNEL_SUBSCRIPTIONS, TENANTS, Environment, Table
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from artcafe.tables.sqlite.engine import Sqlite
from tests import ssh_keygen
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, RawClient, open_client

SOCKETS = 20
CHANNELS = 10


class CountingSqlite(Sqlite):
    """The embedded engine, counting the keys of its reads. It can delay the reads of a tenant's subscriptions."""

    keys = 0
    is_away = False
    held: TenantId | None = None
    released: asyncio.Event

    @classmethod
    async def open(cls, path: Path, environment: Environment) -> CountingSqlite:
        """Read like the engine, and count the keys."""
        opened = await super().open(path, environment)
        assert isinstance(opened, CountingSqlite)
        opened.released = asyncio.Event()
        return opened

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Read like the engine, and count the keys."""
        if self.is_away:
            raise Unavailable("the tables")
        self.keys += len(keys)
        if table is CHANNEL_SUBSCRIPTIONS and any(key.partition == self.held for key in keys):
            await self.released.wait()
        return await super().get(table, keys, consistent=consistent)


@asynccontextmanager
async def crowd(
    folder: Path, channels: int = CHANNELS, sockets: int = SOCKETS
) -> AsyncIterator[tuple[GatewayApp, list[RawClient]]]:
    """Connect an agent with this many subscriptions and sockets, all caught up."""
    async with AsyncExitStack() as stack:
        it = await stack.enter_async_context(gateway_app(folder, engine=CountingSqlite))
        limits = Assign("limits", {"channels": channels + 1, "agent_subscriptions": channels + 1})
        await it.tables.update(Update(TENANTS, ItemKey(it.owner.tenant_id), [limits]))
        it.services.invalidation.notify(it.owner.tenant_id)
        for number in range(channels - 1):
            await subscribed(it, f"channel-{number}")
        raws = [await stack.enter_async_context(it.connected()) for _ in range(sockets)]
        connections = it.gateway.connections()
        await until(lambda: all(len(each.deliveries) == min(channels, MAX_SUBSCRIPTIONS) for each in connections))
        await it.caught_up()
        yield it, raws


async def subscribed(it: GatewayApp, name: str) -> Channel:
    channel = await it.services.channels.create(it.owner, name=name)
    await it.services.subscriptions.put(it.owner, channel.id, it.agent.id)
    return channel


async def disabled_elsewhere(it: GatewayApp) -> None:
    """Disable the agent in the tables, as another server does whose announcement is lost."""
    services = it.services
    changes = Changes(Invalidation(), adopt)
    agents = Agents(services.store, changes, services.audit, it.clock, services.plans, services.fabric)
    await agents.update(it.owner, it.agent.id, status=AgentStatus.DISABLED)


async def settled(it: GatewayApp) -> None:
    """Wait until every change is applied."""
    (sockets,) = it.gateway.access_updates._tenants.values()
    await until(lambda: not sockets.is_worked_on)


async def test_change_reads_only_its_own_rows_for_any_number_of_sockets_and_subscriptions(tmp_path: Path) -> None:
    async with crowd(tmp_path) as (it, _):
        assert isinstance(it.tables, CountingSqlite)
        other = await it.services.agents.create(
            it.owner, name="other", public_key=ssh_keygen.public_line(ssh_keygen.make_key(tmp_path / "o"))
        )
        await settled(it)
        it.tables.keys = 0
        await it.services.agents.update(it.owner, other.id, name="Renamed")
        await settled(it)
        elsewhere = it.tables.keys
        it.tables.keys = 0
        await it.services.agents.update(it.owner, it.agent.id, name="Renamed")
        await settled(it)
        assert it.tables.keys <= elsewhere + 2, "its own row and its tenant's are read once, for all its sockets"


async def test_change_of_a_whole_tenant_reads_everything_once_per_agent(tmp_path: Path) -> None:
    async with crowd(tmp_path) as (it, _):
        assert isinstance(it.tables, CountingSqlite)
        await settled(it)
        it.tables.keys = 0
        it.services.invalidation.notify(it.owner.tenant_id)
        await settled(it)
        # Each channel is read for its handle, which pushes have.
        assert it.tables.keys <= 2 * CHANNELS + 3, "the tenant's row, the agent's twice, each subscription and each channel"


async def test_new_subscription_begins_on_every_socket_without_reading_the_others(tmp_path: Path) -> None:
    async with crowd(tmp_path) as (it, raws):
        assert isinstance(it.tables, CountingSqlite)
        await settled(it)
        it.tables.keys = 0
        channel = await subscribed(it, "new")
        connections = it.gateway.connections()
        await until(lambda: all(channel.id in each.deliveries for each in connections))
        await it.caught_up()
        # Each new delivery reads the channel's row for the position of retention, and again with its backlog.
        assert it.tables.keys <= 2 * SOCKETS + 20
        await it.publish(b'"news"', channel)
        for raw in raws:
            assert await raw.messages(1) == ["news"]


async def test_revocation_does_not_wait_for_another_tenants_change(tmp_path: Path) -> None:
    async with crowd(tmp_path, channels=2, sockets=1) as (it, _), AsyncExitStack() as stack:
        assert isinstance(it.tables, CountingSqlite)
        bob = await it.services.tenants.create(UserId("bob"), "Bob's")
        owner = UserPrincipal(user_id=UserId("bob"), tenant_id=bob.id, role=Role.OWNER)
        key = ssh_keygen.make_key(tmp_path / "bob")
        theirs = await it.services.agents.create(owner, name="theirs", public_key=ssh_keygen.public_line(key))
        raw = await stack.enter_async_context(open_client(it.url))
        await raw.login(bob.id, theirs.id, key)

        it.tables.held = it.owner.tenant_id
        it.services.invalidation.notify(it.owner.tenant_id)
        await until(lambda: not it.gateway.access_updates._due)
        await it.services.agents.update(owner, theirs.id, status=AgentStatus.DISABLED)
        assert await raw.closed() == 4503
        it.tables.held = None
        it.tables.released.set()


async def test_revocations_of_a_tenant_are_applied_before_its_subscriptions(tmp_path: Path) -> None:
    async with crowd(tmp_path, channels=2, sockets=2) as (it, raws):
        assert isinstance(it.tables, CountingSqlite)
        it.tables.held = it.owner.tenant_id
        await disabled_elsewhere(it)
        it.services.invalidation.notify(it.owner.tenant_id)
        async with asyncio.timeout(BOUND_S):
            assert [await raw.closed() for raw in raws] == [4503, 4503]
        it.tables.held = None
        it.tables.released.set()


async def test_unreadable_change_is_applied_when_the_tables_are_back(tmp_path: Path) -> None:
    async with crowd(tmp_path, channels=2, sockets=2) as (it, raws):
        assert isinstance(it.tables, CountingSqlite)
        await settled(it)
        (sockets,) = it.gateway.access_updates._tenants.values()
        await disabled_elsewhere(it)
        it.tables.is_away = True
        it.services.invalidation.on_remote_change(TenantChange(tenant_id=it.owner.tenant_id, agents=(it.agent.id,)))
        await until(lambda: sockets.failure is not None)
        assert await raws[0].is_quiet(), "nobody can tell, so delivery goes on"
        it.tables.is_away = False
        assert [await raw.closed() for raw in raws] == [4503, 4503]


async def test_subscriptions_above_the_limit_are_the_same_on_every_socket_and_are_listed_in_the_error(
    tmp_path: Path,
) -> None:
    too_many = 3
    async with crowd(tmp_path, channels=MAX_SUBSCRIPTIONS + too_many, sockets=2) as (it, raws):
        one, two = (sorted(each.deliveries) for each in it.gateway.connections())
        assert one == two
        assert len(one) == MAX_SUBSCRIPTIONS
        rows = await it.services.subscriptions.for_connect(it.owner.tenant_id, it.agent.id)
        channels = {row.channel_id for row in rows if owner_of(row.channel_id) is None}  # without the agent's inbox
        left_out = sorted(channels - set(one))
        assert one + left_out == sorted(one + left_out), "in the order of their ids"
        for raw in raws:
            assert not await raw.is_quiet()
            (push,) = raw.pushes
            assert push["error"]["code"] == "subscription_limit"
            assert push["error"]["channels"] == left_out
        # The end of one delivery makes room for the next one.
        await it.services.subscriptions.delete(it.owner, one[0], it.agent.id)
        connections = it.gateway.connections()
        await until(lambda: all(left_out[0] in each.deliveries for each in connections))
