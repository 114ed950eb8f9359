"""Detection of changes without an announcement, by the versions of the tenants' rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest

from artcafe.errors import Unavailable
from artcafe.model import TenantChange, TenantId, UserId
from artcafe.services.version_watch import READ_AT_ONCE, READ_EVERY_S, VersionWatch
from artcafe.tables.catalog import TENANTS, Environment, Table
from artcafe.tables.engine.values import Item, Value
from artcafe.tables.engine.writes import Assign, ItemKey, Update
from artcafe.tables.sqlite.engine import Sqlite
from tests.services.service_env import Clock, Logs, Server

WAIT_S = 20


class Counted(Sqlite):
    """The SQLite engine with a count of the requested keys. It can be unavailable."""

    keys = 0
    is_away = False

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        """Read items, as the port describes."""
        if self.is_away:
            raise Unavailable("the tables")
        self.keys += len(keys)
        return await super().get(table, keys, consistent=consistent)


class Hearing:
    """Completeness of announcements, set by the test."""

    is_complete = True
    losses = 0


class Watch:
    """A server that watches some tenants, on tables that other servers change."""

    def __init__(self, tables: Counted) -> None:
        self.tables, self.server = tables, Server(tables, Clock(), Logs())
        self.hearing, self.served = Hearing(), list[TenantId]()
        self.watch = VersionWatch(self.server.store, self.server.invalidation, self.hearing)
        self.watch.add_served(lambda: self.served)
        self.published = self.server.changed
        self.now = 0.0

    async def tenant(self, name: str = "alice") -> TenantId:
        """Create a tenant that is served and was read once."""
        tenant_id = (await self.server.tenant(name)).tenant_id
        self.served.append(tenant_id)
        await self.watch.read([tenant_id])
        self.published.clear()
        return tenant_id

    async def look(self, after_s: float = READ_EVERY_S) -> list[TenantId]:
        """Look after some seconds, and return the tenants of the published changes."""
        self.published.clear()
        self.now += after_s
        await self.watch.look(self.now)
        return list(self.published)

    async def change(self, tenant_id: TenantId, *, is_heard: bool) -> None:
        """Make a change on another server."""
        other = self.server.another()
        tenant = other.store.tenant(tenant_id)
        await other.changes.commit(tenant, tenant.touch())
        if is_heard:
            self.server.invalidation.on_remote_change(TenantChange(tenant_id=tenant_id, raised=1))


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Watch]:
    tables = await Counted.open(tmp_path / "tables.db", Environment.PROD)
    assert isinstance(tables, Counted)
    yield Watch(tables)
    await tables.close()


async def test_only_changes_without_an_announcement_are_published(it: Watch) -> None:
    one, two = await it.tenant("alice"), await it.tenant("bob")
    assert await it.look() == []
    await it.change(one, is_heard=False)
    await it.change(two, is_heard=True)
    assert await it.look() == [one]
    assert await it.look() == [one], "it may have been another one that was lost"
    assert await it.look() == []


async def test_announcement_that_arrives_after_the_read_hides_no_other_change(it: Watch) -> None:
    tenant_id = await it.tenant()
    await it.change(tenant_id, is_heard=False)
    assert await it.look() == [tenant_id]
    it.server.invalidation.on_remote_change(TenantChange(tenant_id=tenant_id, raised=1))
    assert await it.look() == []
    await it.change(tenant_id, is_heard=False)
    assert await it.look() == [tenant_id]


async def test_first_read_of_a_tenant_is_published(it: Watch) -> None:
    tenant_id = await it.tenant()
    it.served.clear()
    assert await it.look() == []
    it.served.append(tenant_id)
    assert await it.look() == [tenant_id], "it may have changed after something of it was kept"


async def test_number_of_reads_is_independent_of_the_tenants_while_every_announcement_arrives(it: Watch) -> None:
    for number in range(3 * READ_AT_ONCE):
        await it.tenant(f"user-{number}")
    it.tables.keys = 0
    for _ in range(3):
        await it.look()
    assert it.tables.keys == 3 * READ_AT_ONCE
    assert await it.look(READ_EVERY_S / 4) == []
    assert it.tables.keys == 3 * READ_AT_ONCE


async def test_tenants_are_read_in_rotation(it: Watch) -> None:
    tenants = [await it.tenant(f"user-{number}") for number in range(3 * READ_AT_ONCE)]
    for tenant_id in tenants:
        await it.change(tenant_id, is_heard=False)
    assert {tenant_id for _ in range(3) for tenant_id in await it.look()} == set(tenants)


async def test_all_tenants_are_read_at_once_after_a_possible_loss(it: Watch) -> None:
    tenants = [await it.tenant(f"user-{number}") for number in range(2 * READ_AT_ONCE)]
    for tenant_id in tenants:
        await it.change(tenant_id, is_heard=False)
    it.hearing.losses += 1
    assert set(await it.look(0.1)) == set(tenants)


async def test_all_tenants_are_read_periodically_while_announcements_are_missing(it: Watch) -> None:
    tenants = [await it.tenant(f"user-{number}") for number in range(2 * READ_AT_ONCE)]
    it.hearing.is_complete = False
    for _ in range(2):
        for tenant_id in tenants:
            await it.change(tenant_id, is_heard=False)
        assert set(await it.look()) == set(tenants)


async def test_loss_is_handled_after_the_tables_were_unavailable(it: Watch) -> None:
    tenant_id = await it.tenant()
    await it.change(tenant_id, is_heard=False)
    it.hearing.losses += 1
    it.tables.is_away = True
    with pytest.raises(Unavailable):
        await it.look(0.1)
    it.tables.is_away = False
    assert await it.look(0.1) == [tenant_id]


@pytest.mark.parametrize("changed", [{"plan": "team"}, {"limits": {"connections": 3}}, {"status": "suspended"}])
async def test_operators_edit_of_a_row_is_published_without_a_new_version(it: Watch, changed: Mapping[str, Value]) -> None:
    tenant_id = await it.tenant()
    before = await it.server.record_cache.tenant(tenant_id)
    await it.tables.update(Update(TENANTS, ItemKey(tenant_id), [Assign(name, value) for name, value in changed.items()]))
    assert await it.server.record_cache.tenant(tenant_id) is before
    assert await it.look() == [tenant_id]
    after = await it.server.record_cache.tenant(tenant_id)
    assert after.version == before.version
    assert {name: getattr(after, name) for name in changed} == changed


async def test_deleted_tenant_is_published_once(it: Watch) -> None:
    tenant_id = await it.tenant()
    other = it.server.another()
    await other.tenants.delete(await other.tenants.enter(UserId("alice"), tenant_id))
    assert await it.look() == [tenant_id]
    assert await it.look() == []


async def test_older_tenant_without_a_version_is_watched(it: Watch) -> None:
    await it.server.put(TENANTS, id="acme")
    acme = TenantId("acme")
    it.served.append(acme)
    await it.look()
    await it.change(acme, is_heard=False)
    assert await it.look() == [acme]


async def test_loop_continues_after_the_tables_were_unavailable(it: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("artcafe.services.version_watch.LOOK_EVERY_S", 0.001)
    tenant_id = await it.tenant()
    it.hearing.losses, it.tables.is_away = 1, True
    published = asyncio.Event()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        running = group.create_task(it.watch.run())
        await asyncio.sleep(0.01)
        it.tables.is_away = False
        await it.change(tenant_id, is_heard=False)
        it.server.invalidation.subscribe(lambda _: published.set())
        it.hearing.losses += 1
        await published.wait()
        running.cancel()


async def test_malformed_tenant_row_does_not_block_the_others(it: Watch) -> None:
    impossible = [TenantId("x" * 2049 + str(number)) for number in range(READ_AT_ONCE)]
    it.served.extend(impossible)
    tenant_id = await it.tenant()
    await it.change(tenant_id, is_heard=False)
    assert await it.look() == []
    assert await it.look() == [tenant_id]


async def test_subscriber_that_raises_does_not_block_the_others(it: Watch) -> None:
    def fail(change: TenantChange) -> None:
        raise ValueError(change)

    later: list[TenantId] = []
    it.server.invalidation.subscribe(fail)
    it.server.invalidation.subscribe(lambda change: later.append(change.tenant_id))
    it.server.invalidation.notify(TenantId("ten_a"))
    assert later == ["ten_a"]
    assert it.server.invalidation.supervisor.failures == 1
