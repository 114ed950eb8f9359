"""Copy of a tenant's rows from one engine to another, compared at the end. `fabric.stream_copy` copies its messages.

May be repeated: existing rows of the target are read, at less cost than writing them again. The tenant's own row is
written last, so its absence marks an interrupted copy.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Final

from artcafe.maintenance.id_mapping import IdMapping
from artcafe.model import TenantId, UserId
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TENANTS,
    TERMS_ACCEPTANCE,
    USAGE_METRICS,
    USER_TENANT_INDEX,
    USER_TENANTS,
    Table,
)
from artcafe.tables.counting_servers import SERVERS
from artcafe.tables.engine.checksums import Checksum
from artcafe.tables.engine.port import Engine
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Delete, ItemKey, Put, key_of

PARTITIONS: Final = (AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USAGE_METRICS, USER_TENANT_INDEX)
"""Tables that are read by the tenant's key."""
OF_TENANT: Final = (*PARTITIONS, USER_TENANTS, TENANTS)
"""In the order of copying."""
COPIED: Final = (*OF_TENANT, TERMS_ACCEPTANCE)
"""Not copied: challenges, which expire within minutes, and the rows in their table that expire within 72 hours."""
PAGE: Final = 100
AT_ONCE: Final = 32

OnProgress = Callable[[int], None]
"""Called with the number of rows that were copied since the last call."""


class CopyChecksums:
    """Checksums of the rows read from the source and of those in the target, for each table."""

    def __init__(self) -> None:
        self.here = {table: Checksum() for table in COPIED}
        self.there = {table: Checksum() for table in COPIED}
        self.people: set[UserId] = set()
        """People whose acceptances were copied: each may be a member of several tenants."""

    @property
    def are_equal(self) -> bool:
        return all(self.here[table] == self.there[table] for table in COPIED)


async def members_in(engine: Engine, only: TenantId | None = None) -> dict[TenantId, set[UserId]]:
    """Return the members of each tenant by a scan: the index of an older system may be incomplete."""
    found: defaultdict[TenantId, set[UserId]] = defaultdict(set)
    async for item in engine.scan(USER_TENANTS):
        if only in (None, item["tenant_id"]):
            found[TenantId(str(item["tenant_id"]))].add(UserId(str(item["user_id"])))
    return found


class RowCopier:
    """Copies tenants' rows between two engines."""

    def __init__(self, source: Engine, target: Engine, members: Mapping[TenantId, Collection[UserId]]) -> None:
        """`members` is the result of `members_in` for the source."""
        self._source, self._target, self._members = source, target, members

    async def is_there(self, tenant_id: TenantId) -> bool:
        """Return whether the target has the whole tenant."""
        (row,) = await self._target.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        return row is not None

    async def copy(self, tenant_id: TenantId, mapping: IdMapping, sums: CopyChecksums, on_progress: OnProgress) -> None:
        """Write missing and different rows, delete stale rows of an earlier attempt, and update the sums.

        The target must not be serving the tenant yet. A tenant unknown to the source leaves no row in the target.
        """
        await self._accept(tenant_id, sums, write=True)
        for table in OF_TENANT:
            async for items in self._portions(self._source, table, tenant_id, tenant_id):
                made = [new for item in items if (new := mapping.item(table, item)) is not None]
                for item in made:
                    sums.here[table].add(item)
                await self._write(table, made)
                on_progress(len(items))
            if table in PARTITIONS:
                await self._tidy(table, tenant_id, mapping)
        await self._sum_up(tenant_id, mapping, sums)

    async def compare(self, tenant_id: TenantId, mapping: IdMapping, sums: CopyChecksums) -> None:
        """Add the rows of source and target to the sums, without writing."""
        await self._accept(tenant_id, sums, write=False)
        for table in OF_TENANT:
            async for items in self._portions(self._source, table, tenant_id, tenant_id):
                for item in items:
                    if (new := mapping.item(table, item)) is not None:
                        sums.here[table].add(new)
        await self._sum_up(tenant_id, mapping, sums)

    async def _accept(self, tenant_id: TenantId, sums: CopyChecksums, *, write: bool) -> None:
        """Add the members' missing acceptances to the target, and overwrite none."""
        for user_id in sorted(await self._users(self._source, tenant_id, tenant_id) - sums.people):
            sums.people.add(user_id)
            items = (await self._source.query(TERMS_ACCEPTANCE, user_id, limit=PAGE, consistent=True)).items
            await self._accept_all(items, sums, write=write)

    async def copy_acceptances(self, sums: CopyChecksums) -> None:
        """Copy all other acceptances: of people without a tenant, and of people known only by an address."""
        some: list[Item] = []
        async for item in self._source.scan(TERMS_ACCEPTANCE):
            if item["user_id"] not in sums.people:
                some.append(item)
            if len(some) == PAGE:
                await self._accept_all(some, sums, write=True)
                some = []
        await self._accept_all(some, sums, write=True)

    async def _accept_all(self, items: Sequence[Item], sums: CopyChecksums, *, write: bool) -> None:
        if write:
            await self._write(TERMS_ACCEPTANCE, items, only_missing=True)
        for item in items:
            sums.here[TERMS_ACCEPTANCE].add(item)
        for there in await self._found(TERMS_ACCEPTANCE, items):
            if there is not None:
                sums.there[TERMS_ACCEPTANCE].add(there)

    async def left_behind(self, sums: CopyChecksums) -> dict[Table, int]:
        """Count the source's rows left out of the copy or comparison, by a scan of every table."""
        counted = dict.fromkeys(COPIED, 0)
        for table in COPIED:
            async for item in self._source.scan(table):
                counted[table] += item.get("tenant_id") != SERVERS  # those of the source's own servers
        return {table: max(0, count - sums.here[table].rows) for table, count in counted.items()}

    async def _sum_up(self, tenant_id: TenantId, mapping: IdMapping, sums: CopyChecksums) -> None:
        for table in OF_TENANT:
            async for items in self._portions(self._target, table, mapping.tenant_id(tenant_id), tenant_id):
                for item in items:
                    sums.there[table].add(item)

    async def _found(self, table: Table, items: Sequence[Item]) -> list[Item | None]:
        """Return the target's items with the keys of these."""
        return await self._target.get(table, [key_of(table, item) for item in items], consistent=True) if items else []

    async def _write(self, table: Table, items: Sequence[Item], *, only_missing: bool = False) -> None:
        found = await self._found(table, items)
        limit = asyncio.Semaphore(AT_ONCE)

        async def put(item: Item) -> None:
            async with limit:
                await self._target.put(Put(table, item))

        async with asyncio.TaskGroup() as group:
            for item, there in zip(items, found, strict=True):
                if there is None or not (only_missing or _is_same(item, there)):
                    group.create_task(put(item))

    async def _tidy(self, table: Table, tenant_id: TenantId, mapping: IdMapping) -> None:
        """Delete the target's extra rows: an earlier attempt wrote them."""
        new_id = mapping.tenant_id(tenant_id)
        if await self.is_there(new_id):
            return
        wanted: set[ItemKey] = set()
        async for items in self._portions(self._source, table, tenant_id, tenant_id):
            wanted |= {key_of(table, new) for item in items if (new := mapping.item(table, item)) is not None}
        async for items in self._portions(self._target, table, new_id, tenant_id):
            for item in items:
                if (key := key_of(table, item)) not in wanted:
                    await self._target.delete(Delete(table, key))

    # --- reading ---

    async def _portions(self, engine: Engine, table: Table, tenant_id: TenantId, here: TenantId) -> AsyncIterator[list[Item]]:
        """Yield all items of a tenant in a table. Its id in the source is `here`."""
        if table is TENANTS:
            (row,) = await engine.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
            yield [] if row is None else [row]
            return
        if table not in PARTITIONS:
            keys = [ItemKey(user_id, tenant_id) for user_id in sorted(await self._users(engine, tenant_id, here))]
            for start in range(0, len(keys), PAGE):
                found = await engine.get(table, keys[start : start + PAGE], consistent=True)
                yield [item for item in found if item is not None]
            return
        async for items in self._partition(engine, table, tenant_id):
            yield items

    async def _users(self, engine: Engine, tenant_id: TenantId, here: TenantId) -> set[UserId]:
        """Return the people with a membership in the source, or with a row in this engine's index."""
        users = set(self._members.get(here, ()))
        async for items in self._partition(engine, USER_TENANT_INDEX, tenant_id):
            users |= {UserId(str(item["user_id"])) for item in items}
        return users

    @staticmethod
    async def _partition(engine: Engine, table: Table, partition: str) -> AsyncIterator[list[Item]]:
        after: str | None = None
        while True:
            page = await engine.query(table, partition, after=after, limit=PAGE, consistent=True)
            yield page.items
            after = page.next
            if after is None:
                return


def _is_same(one: Item, other: Item) -> bool:
    left, right = Checksum(), Checksum()
    left.add(one)
    right.add(other)
    return left == right
