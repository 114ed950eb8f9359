"""A tenant's rows from one engine to another, compared at the end. Its messages are `fabric.stream_copy`'s.

May be repeated: what stands at the other end already is read, which costs less than writing it again, and the tenant's own row
goes last, so that a copy that was cut short is known by its absence.
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
from artcafe.tables.engine.checksums import Checksum
from artcafe.tables.engine.port import Engine
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Delete, ItemKey, Put, key_of

PARTITIONS: Final = (AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USAGE_METRICS, USER_TENANT_INDEX)
"""What is read by the tenant's key."""
OF_TENANT: Final = (*PARTITIONS, USER_TENANTS, TENANTS)
"""In this order."""
COPIED: Final = (*OF_TENANT, TERMS_ACCEPTANCE)
"""Challenges are left, which end within minutes, and the rows beside them, which end within 72 hours."""
PAGE: Final = 100
AT_ONCE: Final = 32

OnProgress = Callable[[int], None]
"""Gets how many more rows are done."""


class CopyChecksums:
    """What was read here and what is there now, for each table."""

    def __init__(self) -> None:
        self.here = {table: Checksum() for table in COPIED}
        self.there = {table: Checksum() for table in COPIED}
        self.people: set[UserId] = set()
        """Those whose acceptances were dealt with, since they may be members of several tenants."""

    @property
    def are_equal(self) -> bool:
        return all(self.here[table] == self.there[table] for table in COPIED)


async def members_in(engine: Engine, only: TenantId | None = None) -> dict[TenantId, set[UserId]]:
    """Return who has a membership in which tenant, by a scan: an older system may have left the index without some of them."""
    found: defaultdict[TenantId, set[UserId]] = defaultdict(set)
    async for item in engine.scan(USER_TENANTS):
        if only in (None, item["tenant_id"]):
            found[TenantId(str(item["tenant_id"]))].add(UserId(str(item["user_id"])))
    return found


class RowCopier:
    """Copies tenants' rows between two engines."""

    def __init__(self, source: Engine, target: Engine, members: Mapping[TenantId, Collection[UserId]]) -> None:
        """`members` is what `members_in` returned of the source."""
        self._source, self._target, self._members = source, target, members

    async def is_there(self, tenant_id: TenantId) -> bool:
        """Whether the other end has the tenant, whole."""
        (row,) = await self._target.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        return row is not None

    async def copy(self, tenant_id: TenantId, mapping: IdMapping, sums: CopyChecksums, on_progress: OnProgress) -> None:
        """Writes what is missing or different, removes what an earlier try left and is no more, and adds to the sums.

        The other end must not be serving the tenant yet. A tenant that is not here leaves nothing there.
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
        """Adds both ends to the sums, and changes nothing."""
        await self._accept(tenant_id, sums, write=False)
        for table in OF_TENANT:
            async for items in self._portions(self._source, table, tenant_id, tenant_id):
                for item in items:
                    if (new := mapping.item(table, item)) is not None:
                        sums.here[table].add(new)
        await self._sum_up(tenant_id, mapping, sums)

    async def _accept(self, tenant_id: TenantId, sums: CopyChecksums, *, write: bool) -> None:
        """What members have accepted: added where it is missing, and never written over."""
        for user_id in sorted(await self._users(self._source, tenant_id, tenant_id) - sums.people):
            sums.people.add(user_id)
            items = (await self._source.query(TERMS_ACCEPTANCE, user_id, limit=PAGE, consistent=True)).items
            await self._accept_all(items, sums, write=write)

    async def copy_acceptances(self, sums: CopyChecksums) -> None:
        """Copy what everybody else has accepted: people who are in no tenant, and those of whom only an address was known."""
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
        """Count the rows of the source that are not among those that were copied or compared, by a scan of every table."""
        counted = dict.fromkeys(COPIED, 0)
        for table in COPIED:
            async for _ in self._source.scan(table):
                counted[table] += 1
        return {table: max(0, count - sums.here[table].rows) for table, count in counted.items()}

    async def _sum_up(self, tenant_id: TenantId, mapping: IdMapping, sums: CopyChecksums) -> None:
        for table in OF_TENANT:
            async for items in self._portions(self._target, table, mapping.tenant_id(tenant_id), tenant_id):
                for item in items:
                    sums.there[table].add(item)

    async def _found(self, table: Table, items: Sequence[Item]) -> list[Item | None]:
        """What stands at the other end in the places of these."""
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
        """Removes at the other end what is not here, which only an earlier try can have written."""
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
        """Yield all that a table has of a tenant, which is called `here` in the source."""
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
        """Return who has a membership in the source, or stands in the index of this engine."""
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
