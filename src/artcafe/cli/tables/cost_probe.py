"""Measure the capacity units of each operation, executed once in a temporary tenant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe.assembly import ServiceKeys, ServiceSettings, TableServices
from artcafe.fabric.audit_log import Compose, StoredEntry
from artcafe.model import Agent, Channel, ChannelId, Cursor, Epoch, Role, TenantId, UserId, UserPrincipal
from artcafe.observe.clock import now
from artcafe.rules.subjects import Subject
from artcafe.sdk.keys import FileSigner
from artcafe.services.retention import read_retention
from artcafe.services.tenants import PerPerson
from artcafe.tables.catalog import TENANTS
from artcafe.tables.engine.capacity import Units
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.writes import Delete, ItemKey
from artcafe.tables.store import Store
from artcafe.wire.sshkeys import parse_public_key

USER: Final = UserId("artcafe-tables-cost")
SERVICE: Final = "artcafe.cost"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The DynamoDB capacity units charged for one operation."""

    operation: str
    reads: float
    writes: float


class NoMessages:
    """A log for a tenant without messages. It stores nothing, and no audit."""

    async def position(self, _tenant_id: TenantId) -> Cursor:
        """Return the position of an empty log."""
        return Cursor()

    async def purge(self, _tenant_id: TenantId, _channel_id: ChannelId) -> None:
        """Do nothing: no messages exist."""

    async def is_queue_done(self, _tenant_id: TenantId, _channel_id: ChannelId) -> bool:
        """Return that a queue without messages has none left."""
        return True

    async def drop(self, _tenant_id: TenantId) -> None:
        """Do nothing: no messages exist."""

    async def limit_log(self, _tenant_id: TenantId, _max_bytes: int) -> None:
        """As above."""

    async def append(self, _chain: Subject, compose: Compose) -> bytes:
        """Return the composed entry without storing it."""
        return compose(None)

    async def after(self, _chain: Subject, _seq: int, _most: int) -> list[StoredEntry]:
        """Return no entries."""
        return []

    async def before(self, _chain: Subject, _seq: int | None, _most: int) -> list[StoredEntry]:
        """As above."""
        return []

    async def since(self, _chain: Subject, _time: datetime) -> int | None:
        """As above."""
        return None


class CostProbe:
    """The services on the measured table engine, which adds its charges to `units`."""

    def __init__(self, tables: Tables, units: Units) -> None:
        self._tables, self._units = tables, units
        self.measured: list[Measured] = []
        logs, self._store = NoMessages(), Store(tables)
        keys = ServiceKeys(agent_tokens=bytes(32), invitations=bytes(32))
        settings = ServiceSettings(service_name=SERVICE, per_person=PerPerson(0, 0))
        self._services = TableServices(self._store, logs, logs, keys, now, settings)

    async def measure(self) -> list[Measured]:
        """Measure all operations in order. The temporary tenant is deleted, even after an error."""
        tenant = await self._services.tenants.create(USER, "artcafe tables cost")
        owner = UserPrincipal(user_id=USER, tenant_id=tenant.id, role=Role.OWNER)
        try:
            await self._in_tenant(owner, _key())
        finally:
            await self._measure("delete a tenant", lambda: self._services.tenants.delete(owner))
            # Remove the tombstone too: a temporary tenant needs no record.
            await self._tables.delete(Delete(TENANTS, ItemKey(owner.tenant_id)))
        return self.measured

    async def _in_tenant(self, owner: UserPrincipal, signer: FileSigner) -> None:
        made: list[Agent] = []
        channels: list[Channel] = []

        async def register() -> None:
            made.append(
                await self._services.agents.create(owner, name="agent", public_key=signer.public_key, capabilities=["measure"])
            )

        async def open_channel() -> None:
            channels.append(await self._services.channels.create(owner, name="channel"))

        await self._measure("register an agent", register)
        await self._measure("make a channel", open_channel)
        agent, channel = made[0], channels[0]
        await self._measure("subscribe", lambda: self._services.subscriptions.put(owner, channel.id, agent.id))
        # Load the tenant's row into the cache, where it is after any login of one of its agents.
        await self._services.record_cache.tenant(owner.tenant_id)
        await self._measure("log in over REST", lambda: self._over_rest(agent, signer))
        await self._measure("log in on the socket", lambda: self._on_socket(agent, signer))
        await self._measure(
            "begin the subscriptions", lambda: self._services.subscriptions.for_connect(agent.tenant_id, agent.id)
        )
        cursor = Cursor(epoch=Epoch("probe"), seq=1)
        await self._measure(
            "write a cursor", lambda: self._store.tenant(owner.tenant_id).subscriptions.write_cursor(channel.id, agent.id, cursor)
        )
        await self._measure("watch a tenant for changes", lambda: self._store.versions([owner.tenant_id]))
        rows, plans = self._store.tenant(owner.tenant_id), self._services.plans
        await self._measure("sweep a tenant's messages", lambda: read_retention(rows, plans))
        await self._measure("enter with a person's token", lambda: self._services.tenants.enter(USER, owner.tenant_id))
        await self._measure("list agents", lambda: self._services.agents.list(owner))
        await self._measure("unsubscribe", lambda: self._services.subscriptions.delete(owner, channel.id, agent.id))
        await self._measure("delete a channel", lambda: self._services.channels.delete(owner, channel.id))
        await self._measure("delete an agent", lambda: self._services.agents.delete(owner, agent.id))

    async def _over_rest(self, agent: Agent, signer: FileSigner) -> None:
        challenge = await self._services.login.begin(agent.tenant_id, agent.id)
        await self._services.login.redeem(challenge.id, await signer.sign(challenge.text))

    async def _on_socket(self, agent: Agent, signer: FileSigner) -> None:
        challenge = self._services.login.pose(agent.tenant_id, agent.id)
        await self._services.login.prove(challenge, await signer.sign(challenge.text))

    async def _measure(self, operation: str, do: Callable[[], Awaitable[object]]) -> None:
        reads, writes = self._units.reads, self._units.writes
        await do()
        charged = Measured(operation=operation, reads=self._units.reads - reads, writes=self._units.writes - writes)
        self.measured.append(charged)


def _key() -> FileSigner:
    private = Ed25519PrivateKey.generate()
    line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return FileSigner(parse_public_key(line), private)
