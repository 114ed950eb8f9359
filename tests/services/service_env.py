"""The table services on a real SQLite engine in a temporary file, with a manual clock and message logs that record calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from artcafe.assembly import ServiceKeys, ServiceSettings, TableServices
from artcafe.fabric.audit_log import Compose, StoredEntry
from artcafe.model import Agent, AgentPrincipal, ChannelId, Cursor, Epoch, Role, Tenant, TenantId, UserId, UserPrincipal
from artcafe.rules import audit_chain
from artcafe.rules.subjects import Subject
from artcafe.rules.tokens import Tokens
from artcafe.services.terms import Current, Terms
from artcafe.tables.catalog import TENANTS, Environment, Table
from artcafe.tables.engine.values import Item, Value
from artcafe.tables.engine.writes import ItemKey, Put
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store

START = datetime(2026, 11, 22, 16, 50, 57, 123_000, tzinfo=UTC)
TOKENS = Tokens(b"t" * 32, "artcafe.test")


class Clock:
    """A manual clock."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_s(self, seconds: float) -> None:
        """Advance the clock."""
        self.now += timedelta(seconds=seconds)


class Logs:
    """Implements the ports of the message logs, which have their own tests. Records removals and audit chains; can fail once."""

    def __init__(self) -> None:
        self.purged: list[ChannelId] = []
        self.dropped: list[TenantId] = []
        self.limited: list[tuple[TenantId, int]] = []
        self.failure: Exception | None = None
        self.is_done = True
        self.chains: dict[Subject, list[StoredEntry]] = {}
        self.audit_failure: Exception | None = None
        self.end = Cursor(epoch=Epoch("epoch-1"), seq=41)
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def position(self, _tenant_id: TenantId) -> Cursor:
        """Return the end of every log, after awaiting `meanwhile` once."""
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return self.end

    async def purge(self, _tenant_id: TenantId, channel_id: ChannelId) -> None:
        """Record the removal of a channel's messages (port `ChannelLogs`)."""
        self._fail()
        self.purged.append(channel_id)

    async def is_queue_done(self, _tenant_id: TenantId, _channel_id: ChannelId) -> bool:
        """Return whether a queue is empty, which a test sets (port `ChannelLogs`)."""
        return self.is_done

    async def append(self, chain: Subject, compose: Compose) -> bytes:
        """Append to a chain (port `Chains`)."""
        if self.audit_failure is not None:
            raise self.audit_failure
        kept = self.chains.setdefault(chain, [])
        kept.append(StoredEntry(len(kept) + 1, compose(kept[-1].text if kept else None)))
        return kept[-1].text

    async def after(self, chain: Subject, seq: int, most: int) -> list[StoredEntry]:
        return self.chains.get(chain, [])[seq:][:most]

    async def before(self, chain: Subject, seq: int | None, most: int) -> list[StoredEntry]:
        return self.chains.get(chain, [])[: None if seq is None else seq - 1][::-1][:most]

    async def since(self, chain: Subject, time: datetime) -> int | None:
        """Return the sequence of the first entry at a time or later (port `Chains`)."""
        return next((kept.seq for kept in self.chains.get(chain, []) if audit_chain.read(kept.text).time >= time), None)

    async def drop(self, tenant_id: TenantId) -> None:
        """Record the removal of a tenant's messages (port `TenantLogs`)."""
        self._fail()
        self.dropped.append(tenant_id)

    async def limit_log(self, tenant_id: TenantId, max_bytes: int) -> None:
        """Record a size limit (port `TenantLogs`)."""
        self.limited.append((tenant_id, max_bytes))

    def _fail(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure


class Server(TableServices):
    """The table services of one server. Several can use the same tables, as in a fleet."""

    def __init__(self, tables: Sqlite, clock: Clock, logs: Logs, terms: Current | None = None) -> None:
        keys = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)
        super().__init__(Store(tables), logs, logs, keys, clock, ServiceSettings(service_name="artcafe.test", terms=terms))
        self.clock: Clock = clock
        self.tables, self.logs = tables, logs
        self.changed: list[TenantId] = []
        """The tenants of the changes so far."""
        self.invalidation.subscribe(lambda change: self.changed.append(change.tenant_id))

    def with_terms(self, current: Current | None) -> Terms:
        """Return the terms service of a server on these tables, on which an operator has set these terms."""
        return Server(self.tables, self.clock, self.logs, current).terms

    def another(self) -> Server:
        """Return a second server on the same tables."""
        return Server(self.tables, self.clock, self.logs)

    async def tenant(self, owner: str = "alice", name: str = "Alice's") -> UserPrincipal:
        """Create a tenant, and return its owner."""
        tenant = await self.tenants.create(UserId(owner), name)
        return as_member(tenant, owner)

    async def agent(self, member: UserPrincipal, name: str = "Planner", public_key: str | None = None) -> Agent:
        """Create an agent, by default with a key that is never used."""
        return await self.agents.create(member, name=name, public_key=public_key or new_key())

    async def put(self, table: Table, **attributes: Value) -> None:
        """Write an item unchanged, like an older system."""
        await self.tables.put(Put(table, attributes))

    async def set_limits(self, tenant_id: TenantId, **limits: int) -> None:
        """Set limits of the tenant's own, as an operator does in its row, and notify the caches."""
        row = await self.item(TENANTS, tenant_id)
        assert row is not None
        version = row["version"]
        assert isinstance(version, int | Decimal)
        await self.put(TENANTS, **{**row, "limits": dict(limits), "version": version + 1})
        self.invalidation.notify(tenant_id)

    async def item(self, table: Table, partition: str, sort: str | None = None) -> Item | None:
        """Read an item unchanged."""
        (found,) = await self.tables.get(table, [ItemKey(partition, sort)], consistent=True)
        return found

    async def items(self, table: Table, partition: str) -> list[Item]:
        """Read a whole partition of a small table."""
        page = await self.tables.query(table, partition, limit=1000, consistent=True)
        assert page.next is None
        return page.items


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Server]:
    """One server on new tables in `folder`."""
    tables = await Sqlite.open(folder / "tables.db", Environment.PROD)
    try:
        yield Server(tables, Clock(), Logs())
    finally:
        await tables.close()


def as_member(tenant: Tenant, user: str, role: Role = Role.OWNER) -> UserPrincipal:
    """Return an authenticated member of the tenant."""
    return UserPrincipal(user_id=UserId(user), tenant_id=tenant.id, role=role)


def with_role(member: UserPrincipal, role: Role) -> UserPrincipal:
    """Return another member of the same tenant."""
    return UserPrincipal(user_id=UserId(f"a {role}"), tenant_id=member.tenant_id, role=role)


def proven(agent: Agent) -> AgentPrincipal:
    """Return the agent's principal after a login."""
    return AgentPrincipal(agent_id=agent.id, tenant_id=agent.tenant_id, epoch=agent.epoch, key=agent.key_serial)


def new_key() -> str:
    """Generate a public key line, faster than ssh-keygen, for tests without signatures."""
    return Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
