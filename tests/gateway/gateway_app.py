"""A gateway in the test's own process, on real tables and a real nats-server, with the test's timeouts and clock."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Raw as Json

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.gateway.connection import Connection
from artcafe.gateway.listener import Gateway
from artcafe.gateway.upgrade_request import PATH
from artcafe.identity.local import LocalIdentity
from artcafe.model import Agent, AgentPrincipal, Channel, Role, TenantStatus, UserId, UserPrincipal
from artcafe.observe.clock import now
from artcafe.observe.tracing import Tracing
from artcafe.rules.open_connections import OpenConnections
from artcafe.services.terms import Current
from artcafe.tables.catalog import TENANTS, Environment
from artcafe.tables.engine.writes import Add, Assign, ItemKey, Update
from artcafe.tables.rows import IS_PRESENT
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from artcafe.wire.frames import Publish
from tests import ssh_keygen
from tests.certificates import Authority
from tests.fabric.nats_env import Nats, Proxy
from tests.gateway.raw_client import BOUND_S, BareSocket, RawClient, open_client, open_socket

LONG_S = 3600.0
OPERATOR = UserId("operator@example.com")
"""The operator of the platform."""


class ShiftedClock:
    """The real time plus an offset set by the test."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return now() + self.ahead


@dataclass
class GatewayApp:
    """A running gateway with its services, and a tenant with one agent subscribed to one channel."""

    gateway: Gateway
    services: Services
    tables: Sqlite
    clock: ShiftedClock
    identity: LocalIdentity
    url: str
    folder: Path
    owner: UserPrincipal
    agent: Agent
    key: Path
    channel: Channel
    trust: ssl.SSLContext | None
    """The client's TLS context, if `url` is a wss one."""
    nats: Nats = field(init=False)
    broker: EmbeddedNats = field(init=False)
    """The nats-server's parent. It restarts it only while the test has `run` run."""
    proxy: Proxy | None = field(init=False)

    @property
    def principal(self) -> AgentPrincipal:
        return AgentPrincipal(agent_id=self.agent.id, tenant_id=self.agent.tenant_id, epoch=0)

    def token(self) -> str:
        """Return an access token of the agent, as REST issues it."""
        return self.services.tokens.mint(self.principal, self.clock())

    @asynccontextmanager
    async def connected_person(self, role: Role = Role.VIEWER) -> AsyncIterator[RawClient]:
        """Connect a new member of the tenant with this role."""
        user = UserId(f"{role}@example.com")
        await self.add_member(user, role)
        async with open_client(self.url, self.trust) as raw:
            token = self.identity.issue(user, self.clock())
            reply = await raw.ask("connect", access_token=token, tenant_id=self.owner.tenant_id)
            assert (reply["user_id"], reply["role"]) == (user, role)
            yield raw

    async def add_member(self, user: UserId, role: Role) -> None:
        """Make the person a member of the tenant, by an invitation."""
        _, token = await self.services.invitations.create(self.owner, address="bob@example.com", role=role)
        await self.services.invitations.accept(user, "bob@example.com", token)

    async def remove_member(self, user: UserId) -> None:
        """Remove the person from the tenant."""
        await self.services.members.remove(self.owner, user)

    async def set_role(self, user: UserId, role: Role) -> None:
        """Change the member's role."""
        await self.services.members.set_role(self.owner, user, role)

    async def suspend(self, status: TenantStatus = TenantStatus.SUSPENDED) -> None:
        """Set the tenant's status, and notify every subscriber of changes."""
        tenant = self.services.store.tenant(self.owner.tenant_id)
        await tenant.transact([tenant.set_status(status, self.clock())])
        self.services.invalidation.notify(tenant.id)

    @asynccontextmanager
    async def connected(self, **more: object) -> AsyncIterator[RawClient]:
        """Connect the agent with a token."""
        async with open_client(self.url, self.trust) as raw:
            assert "session_id" in await raw.ask("connect", access_token=self.token(), **more)
            yield raw

    @asynccontextmanager
    async def connected_socket(self, **more: object) -> AsyncIterator[BareSocket]:
        """Connect the agent on a bare TCP socket, by a signature."""
        async with open_socket(self.url, self.trust) as raw:
            await raw.login(self.owner.tenant_id, self.agent.id, self.key, **more)
            yield raw

    async def caught_up(self) -> None:
        """Wait until every delivery of every connection has caught up."""
        await until(self.is_caught_up)

    def is_caught_up(self) -> bool:
        """Return whether every delivery of every connection has caught up."""
        return all(_has_caught_up(each) for each in self.gateway.connections())

    async def changes_applied(self) -> None:
        """Wait until the changes so far are applied to the open connections."""
        tenants = self.gateway.access_updates._tenants
        await until(lambda: not any(each.pending or each.is_worked_on for each in tenants.values()))

    async def set_limits(self, **limits: int) -> None:
        """Set limits of the tenant's own, as an operator does in its row."""
        key = ItemKey(self.owner.tenant_id)
        await self.tables.update(Update(TENANTS, key, [Assign("limits", dict(limits)), Add("version", 1)], IS_PRESENT))
        self.services.invalidation.notify(self.owner.tenant_id)

    async def publish(self, data: bytes, channel: Channel | None = None) -> int:
        """Store a message as the owner, and return its sequence."""
        seq = await self.say(data, channel or self.channel)
        assert seq is not None
        return seq

    async def say(self, data: bytes, channel: Channel) -> int | None:
        """Publish a message as the owner, and return its sequence, or None in a `live` channel."""
        return (await self.services.messaging.publish(self.owner, channel.id, Publish(channel.id, Json(data)))).seq


@asynccontextmanager
async def gateway_app(
    folder: Path,
    *,
    sweep_s: float = 0.02,
    connect_s: float = LONG_S,
    stall_s: float = LONG_S,
    has_proxy: bool = False,
    terms: Current | None = None,
    authority: Authority | None = None,
    engine: type[Sqlite] = Sqlite,
    connections: OpenConnections | None = None,
    tracing: Tracing | None = None,
) -> AsyncIterator[GatewayApp]:
    """Run a gateway for one test. Every task must end with the test, whatever it leaves open.

    `terms`: required of people. `has_proxy`: the server reaches NATS through `GatewayApp.proxy`, which the test can cut.
    `authority`: signs the certificate of TLS sockets. `engine`: of the tables. `connections`: the limits of open connections.
    `tracing`: records spans.
    """
    accounts = Accounts(b"s" * 32, "dev")
    nats = EmbeddedNats(folder / "nats", accounts)
    await nats.start()
    tables = await engine.open(folder / "tables.db", Environment.DEV)
    try:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            there = Nats(nats.url, accounts)
            proxy = await stack.enter_async_context(there.proxy()) if has_proxy else None
            fabric = Fabric([proxy.url if proxy else nats.url], accounts)
            running = group.create_task(fabric.run())
            await fabric.wait_up(BOUND_S)
            made, loops = await _make(
                folder, group, tables, fabric, sweep_s, connect_s, stall_s, terms, authority, connections, tracing
            )
            made.nats, made.broker, made.proxy = there, nats, proxy
            try:
                yield made
            finally:
                await made.gateway.drain()
                await made.services.queue_hub.close()  # pulls leave queues behind
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
    tracing: Tracing | None,
) -> tuple[GatewayApp, list[asyncio.Task[None]]]:
    clock, identity = ShiftedClock(), LocalIdentity(b"i" * 32)
    keys = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)
    settings = ServiceSettings(service_name="test", cursor_s=LONG_S, terms=current, tracing=tracing, operators=(OPERATOR,))
    services = Services(Store(tables), fabric, identity, keys, clock, settings, group)
    gateway = Gateway(
        services, group, sweep_s=sweep_s, connect_s=connect_s, stall_s=stall_s, apply_interval_s=0.01, connections=connections
    )
    port = await gateway.listen("127.0.0.1", 0, _tls(authority))

    tenant = await services.tenants.create(UserId("alice"), "Alice's")
    owner = UserPrincipal(user_id=UserId("alice"), tenant_id=tenant.id, role=Role.OWNER)
    key = ssh_keygen.make_key(folder / "key")
    agent = await services.agents.create(owner, name="agent", public_key=ssh_keygen.public_line(key))
    channel = await services.channels.create(owner, name="channel")
    await services.subscriptions.put(owner, channel.id, agent.id)
    made = GatewayApp(
        gateway, services, tables, clock, identity, f"{'wss' if authority else 'ws'}://127.0.0.1:{port}{PATH}", folder, owner,
        agent, key, channel, authority.client() if authority else None,
    )  # fmt: skip
    loops = (
        gateway.run(),
        gateway.access_updates.run(),
        services.rate_limits.run(),
        services.audiences.run(),
        services.receipts.run(),
        services.pulls.revocation.run(),
    )
    return made, [group.create_task(loop) for loop in loops]


def _tls(authority: Authority | None) -> ssl.SSLContext | None:
    if authority is None:
        return None
    made, context = authority.sign("gateway"), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.cert, made.key)
    return context


def _has_caught_up(connection: Connection) -> bool:
    deliveries = connection.deliveries.values()
    return bool(deliveries) and all(each.is_member for each in deliveries)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(BOUND_S):
        while not condition():  # noqa: ASYNC110 (the condition has no event)
            await asyncio.sleep(0.001)
