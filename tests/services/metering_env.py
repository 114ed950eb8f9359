"""Servers of a fleet on one nats-server and the same tables, which a test can kill, with a clock that it moves."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from msgspec import Raw

from artcafe.assembly import ServiceKeys, Services, ServiceSettings
from artcafe.errors import Unanswered, Unavailable
from artcafe.fabric.accounts import Accounts
from artcafe.fabric.embedded.server import EmbeddedNats
from artcafe.fabric.fabric import Fabric
from artcafe.identity.local import LocalIdentity
from artcafe.model import Channel, Role, UserId, UserPrincipal
from artcafe.rules.usage import Metric, Period
from artcafe.services.meter import Meter
from artcafe.services.recount import Recount, RecountResult
from artcafe.tables.catalog import USAGE_METRICS, Environment
from artcafe.tables.engine.port import Engine
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Update, Write
from artcafe.tables.sqlite.engine import Sqlite
from artcafe.tables.store import Store
from artcafe.tables.usage_rows import UsageKey, UsageRow, usage_row_of
from artcafe.wire.envelopes import envelope
from artcafe.wire.frames import Publish

BOUND_S = 20.0
MONTH_END = datetime.fromisoformat("2026-11-30T23:58:00Z")


class MovedClock:
    """A clock that the test moves."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def pass_s(self, seconds: float) -> None:
        """Advance the clock."""
        self.at += timedelta(seconds=seconds)


class CutTables(Sqlite):
    """A table engine that fails once, at the `fails_at`-th point from now on: before a call or after it, with its answer lost."""

    fails_at: int | None = None

    def reach_point(self, error: Exception) -> None:
        """Count a point at which the engine may fail, and fail there."""
        if self.fails_at is not None:
            self.fails_at -= 1
            if self.fails_at == 0:
                self.fails_at = None
                raise error

    async def update(self, write: Update) -> Item:
        self.reach_point(Unavailable("the tables"))
        done = await super().update(write)
        self.reach_point(Unanswered("the tables"))
        return done

    async def transact(self, writes: Sequence[Write]) -> None:
        self.reach_point(Unavailable("the tables"))
        await super().transact(writes)
        self.reach_point(Unanswered("the tables"))


@dataclass
class MeteredServer:
    """One server of the fleet."""

    services: Services
    task: asyncio.Task[None]

    @property
    def meter(self) -> Meter:
        assert self.services.meter is not None
        return self.services.meter

    async def kill(self) -> None:
        """End the server at once, with everything in its memory."""
        self.task.cancel()
        await asyncio.wait([self.task])


@dataclass
class Metering:
    """A tenant with two channels, the servers of its fleet, and what was published."""

    nats_url: str
    accounts: Accounts
    tables: Engine
    clock: MovedClock
    group: asyncio.TaskGroup
    servers: list[MeteredServer] = field(default_factory=list)
    published: Counter[Period] = field(default_factory=Counter)
    """Acknowledged messages by the hour of their time."""
    owner: UserPrincipal = field(init=False)
    channels: list[Channel] = field(default_factory=list)

    async def start(self, interval_s: float = 25.0) -> MeteredServer:
        """Start a server."""
        ready: asyncio.Future[Services] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            async with asyncio.TaskGroup() as group:
                fabric = Fabric([self.nats_url], self.accounts)
                group.create_task(fabric.run())
                await fabric.wait_up(BOUND_S)
                keys = ServiceKeys(agent_tokens=b"t" * 32, invitations=b"v" * 32)
                settings = ServiceSettings(service_name="test", cursor_s=3600.0, meter_s=interval_s)
                identity = LocalIdentity(b"i" * 32)
                services = Services(Store(self.tables), fabric, identity, keys, self.clock, settings, group)
                ready.set_result(services)
                await services.audiences.run()  # Each publish waits for an audience.

        task = self.group.create_task(serve())
        async with asyncio.timeout(BOUND_S):
            server = MeteredServer(await ready, task)
        self.servers.append(server)
        return server

    async def restart(self, server: MeteredServer) -> MeteredServer:
        """Kill a server, and start another in its place."""
        await server.kill()
        self.servers.remove(server)
        return await self.start()

    async def publish(self, server: MeteredServer, number: int, channel: int = 0) -> None:
        """Publish this many messages at once; all are acknowledged at the clock's present time."""
        hour = Period(self.clock().isoformat()[:13])
        to = self.channels[channel].id
        data = [Publish(to, Raw(b'"%b"' % (b"x" * size))) for size in range(number)]
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            for each in data:
                group.create_task(server.services.messaging.publish(self.owner, to, each))
        self.published[hour] += number

    async def recount(self, period: str, server: MeteredServer | None = None) -> RecountResult:
        """Recount the tenant's log."""
        there = server or self.servers[-1]
        recount = Recount(there.services.store, there.services.fabric, there.meter, self.clock, margin=timedelta(days=500))
        return await recount.recount(self.owner.tenant_id, Period(period))

    async def counted(self, *periods: str, metric: Metric = Metric.MESSAGES_STORED) -> list[int | None]:
        """Return the values of the tenant's rows."""
        keys = [UsageKey(Period(period), metric) for period in periods]
        rows = await Store(self.tables).usage(self.owner.tenant_id).get(keys, self.clock())
        return [None if row is None else row.value for row in rows]

    async def values(self) -> dict[str, object]:
        """Return the value of every row of the tenant, by its key."""
        return {str(row["metric_id"]): row.get("value") for row in await self.usage_rows()}

    async def stored_rows(self) -> list[UsageRow]:
        """Return every row of the tenant's stored messages, by its key."""
        page = await self.tables.query(USAGE_METRICS, self.owner.tenant_id, limit=1000, consistent=True)
        rows = [usage_row_of(item, self.clock()) for item in page.items]
        return [row for row in rows if row is not None and row.key.metric is Metric.MESSAGES_STORED]

    async def usage_rows(self) -> list[dict[str, object]]:
        """Return every usage row of the tenant."""
        page = await self.tables.query(USAGE_METRICS, self.owner.tenant_id, limit=1000, consistent=True)
        return [dict(item) for item in page.items]


@asynccontextmanager
async def metering(
    folder: Path, tables: Engine | None = None, *, at: datetime = MONTH_END, engine: type[Sqlite] = Sqlite
) -> AsyncIterator[Metering]:
    """Run a fleet without servers for one test; the test starts them. `tables` is closed by the caller."""
    accounts = Accounts(b"s" * 32, "dev")
    nats = EmbeddedNats(folder / "nats", accounts)
    await nats.start()
    opened = tables or await engine.open(folder / "tables.db", Environment.DEV)
    try:
        async with asyncio.TaskGroup() as group:
            made = Metering(nats.url, accounts, opened, MovedClock(at), group)
            first = await made.start()
            tenant = await first.services.tenants.create(UserId("alice"), "Alice's")
            made.owner = UserPrincipal(user_id=UserId("alice"), tenant_id=tenant.id, role=Role.OWNER)
            made.channels = [await first.services.channels.create(made.owner, name=name) for name in ("one", "two")]
            try:
                yield made
            finally:
                for server in made.servers:
                    await server.kill()
    finally:
        if tables is None:
            await opened.close()
        await nats.stop()


def message(sender: str, at: str, data: bytes = b"1") -> bytes:
    """Return an envelope of a sender's message of a time."""
    return envelope(Publish("chn_a", Raw(data)), message_id="msg_" + "0" * 26, sender=sender, time=at)
