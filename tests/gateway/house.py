"""A gateway in the test's own process, on real tables and a real nats-server, whose patience and clock are the test's."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Raw as Json

from artcafe.delivery.hub import Hub
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.gateway.connection import Connection
from artcafe.gateway.desk import Desk
from artcafe.gateway.listener import Gateway
from artcafe.gateway.upgrade_request import PATH
from artcafe.identity.local import LocalIdentity
from artcafe.model import Agent, AgentPrincipal, Channel, Role, TenantStatus, UserId, UserPrincipal
from artcafe.observe.clock import now
from artcafe.rules.connections import OpenConnections
from artcafe.rules.tokens import Tokens
from artcafe.services.agents import Agents
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.channels import Channels
from artcafe.services.connections import Connections
from artcafe.services.cursors import Cursors
from artcafe.services.history import History
from artcafe.services.invitations import Invitations
from artcafe.services.keys import AgentKeys
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.services.members import Members
from artcafe.services.messaging import Messaging
from artcafe.services.presence import Presence
from artcafe.services.record_cache import RecordCache
from artcafe.services.retention import Retention
from artcafe.services.shares import Shares
from artcafe.services.subscriptions import Subscriptions
from artcafe.services.tenants import Tenants
from artcafe.services.terms import Current, Terms
from artcafe.tables.catalog import Environment
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from artcafe.wire.frames import Publish
from tests import ssh_keygen
from tests.certificates import Authority
from tests.fabric.nats_env import Nats, Proxy
from tests.gateway.raw import BOUND_S, Bare, Raw, bare, dialled

LONG_S = 3600.0


class Clock:
    """The real time, and whatever the test adds."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead


@dataclass
class House:
    """The parts, and a tenant with one agent on one channel."""

    gateway: Gateway
    hub: Hub
    fabric: Fabric
    tables: Sqlite
    cursors: Cursors
    messaging: Messaging
    presence: Presence
    channels: Channels
    agents: Agents
    keys: AgentKeys
    subscriptions: Subscriptions
    login: Login
    tokens: Tokens
    clock: Clock
    identity: LocalIdentity
    tenants: Tenants
    store: Store
    changes: Changes
    terms: Terms
    shares: Shares
    url: str
    folder: Path
    owner: UserPrincipal
    agent: Agent
    key: Path
    channel: Channel
    trust: ssl.SSLContext | None
    """What connects to `url`, where that is one of TLS."""
    nats: Nats = field(init=False)
    proxy: Proxy | None = field(init=False)

    @property
    def principal(self) -> AgentPrincipal:
        return AgentPrincipal(agent_id=self.agent.id, tenant_id=self.agent.tenant_id, epoch=0)

    def token(self) -> str:
        """An access token of the agent, as REST gives it."""
        return self.tokens.mint(self.principal, self.clock())

    @asynccontextmanager
    async def visited(self, role: Role = Role.VIEWER) -> AsyncIterator[Raw]:
        """A new member of the tenant with this role, logged in."""
        user = UserId(f"{role}@example.com")
        await self.join(user, role)
        async with dialled(self.url, self.trust) as raw:
            token = self.identity.issue(user, self.clock())
            reply = await raw.ask("connect", access_token=token, tenant_id=self.owner.tenant_id)
            assert (reply["user_id"], reply["role"]) == (user, role)
            yield raw

    async def join(self, user: UserId, role: Role) -> None:
        """The person becomes a member of the tenant, by an invitation."""
        invitations = Invitations(self.store, self.changes, self.clock, b"v" * 32)
        _, token = await invitations.create(self.owner, address="bob@example.com", role=role)
        await invitations.accept(user, "bob@example.com", token)

    async def remove(self, user: UserId) -> None:
        """The person is no member any more."""
        await Members(self.store, self.changes).remove(self.owner, user)

    async def demote(self, user: UserId, role: Role) -> None:
        """The member has another role."""
        await Members(self.store, self.changes).set_role(self.owner, user, role)

    async def suspend(self, status: TenantStatus = TenantStatus.SUSPENDED) -> None:
        """The tenant is suspended, and everybody hears of it."""
        tenant = self.store.tenant(self.owner.tenant_id)
        await tenant.transact([tenant.set_status(status, self.clock())])
        self.changes.notify(tenant.id)

    @asynccontextmanager
    async def connected(self, **more: object) -> AsyncIterator[Raw]:
        """The agent, logged in with a token."""
        async with dialled(self.url, self.trust) as raw:
            assert "session_id" in await raw.ask("connect", access_token=self.token(), **more)
            yield raw

    @asynccontextmanager
    async def bare(self, **more: object) -> AsyncIterator[Bare]:
        """The agent on bare TCP, logged in by a signature."""
        async with bare(self.url, self.trust) as raw:
            await raw.login(self.owner.tenant_id, self.agent.id, self.key, **more)
            yield raw

    async def level(self) -> None:
        """Returns when whoever is connected has what it subscribed to, and gets whatever comes."""
        await until(lambda: all(_is_level(each) for each in self.gateway.connections()))

    async def publish(self, data: bytes, channel: Channel | None = None) -> int:
        """Stores a message as the owner."""
        seq = await self.say(data, channel or self.channel)
        assert seq is not None
        return seq

    async def say(self, data: bytes, channel: Channel) -> int | None:
        """Publishes a message as the owner, and returns its sequence if it is stored."""
        return (await self.messaging.publish(self.owner, channel.id, Publish(channel.id, Json(data)))).seq


@asynccontextmanager
async def house(
    folder: Path,
    *,
    sweep_s: float = 0.02,
    connect_s: float = LONG_S,
    stall_s: float = LONG_S,
    is_cuttable: bool = False,
    terms: Current | None = None,
    authority: Authority | None = None,
    engine: type[Sqlite] = Sqlite,
    connections: OpenConnections | None = None,
) -> AsyncIterator[House]:
    """Everything up; whatever the test left behind, it must end when the test does.

    `terms`: what people must accept. `is_cuttable`: the server reaches NATS by a way that the test can cut, `house.proxy`.
    `authority`: sockets are of TLS, by a certificate of this one. `engine`: the tables' one. `connections`: how many may be open.
    """
    accounts = Accounts(b"s" * 32, "dev")
    nats = EmbeddedNats(folder / "nats", accounts)
    await nats.start()
    tables = await engine.open(folder / "tables.db", Environment.DEV)
    try:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            there = Nats(nats.url, accounts)
            proxy = await stack.enter_async_context(there.proxy()) if is_cuttable else None
            fabric = Fabric([proxy.url if proxy else nats.url], accounts)
            running = group.create_task(fabric.run())
            await fabric.wait_up(BOUND_S)
            made, loops = await _make(folder, group, tables, fabric, sweep_s, connect_s, stall_s, terms, authority, connections)
            made.nats, made.proxy = there, proxy
            try:
                yield made
            finally:
                await made.gateway.drain()
                for loop in loops:
                    loop.cancel()
                fabric.close()
                await running
    finally:
        await tables.close()
        await nats.stop()


async def _make(
    folder: Path,
    group: asyncio.TaskGroup,
    tables: Sqlite,
    fabric: Fabric,
    sweep_s: float,
    connect_s: float,
    stall_s: float,
    current: Current | None,
    authority: Authority | None,
    connections: OpenConnections | None,
) -> tuple[House, list[asyncio.Task[None]]]:
    clock, store, tokens = Clock(), Store(tables), Tokens(b"t" * 32, "test")
    audit, identity = Audit(fabric.audit_log, store, clock), LocalIdentity(b"i" * 32)
    changes = Changes(audit)
    record_cache, cursors, retention = RecordCache(store, changes), Cursors(store, LONG_S), Retention(store, fabric, clock)
    fabric.limit_storage(retention.storage_bytes)
    hub = Hub(fabric, group, retention.removed_to)
    login = Login(store, record_cache, tokens, clock, "test", audit)
    tenants = Tenants(store, changes, clock, fabric, record_cache)
    subscriptions = Subscriptions(store, changes, clock, fabric.position)
    messaging = Messaging(record_cache, fabric, clock)
    shares = Shares()
    fabric.set_group_limit(lambda: shares.most_a_group)
    presence, terms = Presence(fabric, clock), Terms(store, audit, clock, current)
    desk = Desk(
        login,
        record_cache,
        subscriptions,
        messaging,
        cursors,
        hub,
        clock,
        presence,
        History(record_cache, fabric, retention),
        Connections(record_cache),
        MemberLogin(identity, tenants, terms, audit, clock),
        audit.counters,
        shares,
    )
    gateway = Gateway(desk, group, sweep_s=sweep_s, connect_s=connect_s, stall_s=stall_s, recheck_s=0.01, connections=connections)
    changes.subscribe(gateway.access_updates.changed)
    port = await gateway.listen("127.0.0.1", 0, _tls(authority))

    tenant = await tenants.create(UserId("alice"), "Alice's")
    owner = UserPrincipal(user_id=UserId("alice"), tenant_id=tenant.id, role=Role.OWNER)
    agents, channels = Agents(store, changes, clock), Channels(store, changes, clock, fabric)
    key = ssh_keygen.make_key(folder / "key")
    agent = await agents.create(owner, name="agent", public_key=ssh_keygen.public_line(key))
    channel = await channels.create(owner, name="channel")
    await subscriptions.put(owner, channel.id, agent.id)
    made = House(
        gateway, hub, fabric, tables, cursors, messaging, presence, channels, agents, AgentKeys(store, changes, clock),
        subscriptions, login, tokens, clock, identity, tenants, store, changes, terms, shares,
        f"{'wss' if authority else 'ws'}://127.0.0.1:{port}{PATH}", folder, owner, agent, key, channel,
        authority.client() if authority else None,
    )  # fmt: skip
    return made, [group.create_task(loop) for loop in (gateway.run(), gateway.access_updates.run())]


def _tls(authority: Authority | None) -> ssl.SSLContext | None:
    if authority is None:
        return None
    made, context = authority.sign("gateway"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    return context


def _is_level(connection: Connection) -> bool:
    deliveries = connection.deliveries.values()
    return bool(deliveries) and all(each.member for each in deliveries)


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await asyncio.sleep(0.001)
