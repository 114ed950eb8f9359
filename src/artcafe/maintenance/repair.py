"""Find and fix what an older system left wrong in the rows of tenants; `soundness` decides what is wrong in one.

For an operator's command: it reads, and on DynamoDB pays for, every row. It may run while servers do, and may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Final

from artcafe.errors import Conflict
from artcafe.maintenance.integrity import Finding, Fix, TenantRows, count_defects, examine
from artcafe.maintenance.row_faults import faults, orphan
from artcafe.model import TenantId
from artcafe.tables import agent_rows, rows
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TENANTS,
    USER_TENANT_INDEX,
    USER_TENANTS,
)
from artcafe.tables.engine.conditions import And, Condition, Equals, Exists, Not, OfKind, Or
from artcafe.tables.engine.port import ConditionFailed, Engine
from artcafe.tables.engine.values import ValueKind, size_of
from artcafe.tables.engine.writes import Assign, Change, ItemKey, Put, Update, Write
from artcafe.tables.partition import Partition

MAX_WRITES: Final = 60
MOST_BYTES: Final = 1024 * 1024
"""Of one transaction, which DynamoDB lets have four times as much; a map is counted again in its condition."""
TRIES: Final = 10
PAUSE_S: Final = 0.2
"""Of mending a tenant that servers change meanwhile: so often, and about so long after the first time, then longer."""


class Repair:
    """Looks at, and fixes, the tables of one engine."""

    def __init__(self, tables: Engine) -> None:
        self._tables = tables

    async def tenants(self) -> AsyncIterator[TenantId]:
        """Every tenant, in no order."""
        async for item in self._tables.scan(TENANTS):
            yield TenantId(str(item["id"]))

    async def is_there(self, tenant_id: TenantId) -> bool:
        """Return whether the tenant has a row, also one that message it was deleted."""
        (tenant,) = await self._tables.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        return tenant is not None

    async def look(self, tenant_id: TenantId) -> list[Finding]:
        """What is askew in the tenant's own rows; nothing in one that is not there."""
        had = await self._read_rows(tenant_id)
        if had is None:
            return []
        return [*(fix.finding for fix in examine(had)), *(finding for finding, _ in count_defects(had)), *faults(had)]

    async def orphans(self, elsewhere: Collection[TenantId] = ()) -> list[Finding]:
        """Find the rows of tenants that do not exist, or were deleted. It reads whole tables.

        `elsewhere` are the tenants of the other environment, whose rows stand in the tables that both share.
        """
        here = {str(item["id"]) async for item in self._tables.scan(TENANTS) if rows.TOMBSTONE not in item}
        found: list[Finding] = []
        for table in (AGENTS, CHANNELS, CHANNEL_SUBSCRIPTIONS, USER_TENANTS):
            there = here if table.dev_twin is not None else here.union(elsewhere)
            items = self._tables.scan(table)
            lost = [each async for each in items if each["tenant_id"] not in there and not agent_rows.is_claim(each)]
            found += [orphan(table, item) for item in lost]
        return found

    async def fix(self, tenant_id: TenantId) -> list[Finding]:
        """Mends what can be mended in the tenant's own rows, and returns it.

        Each transaction holds for the version of the tenant's row that was there when the rows were read, so that nothing is put
        right that was changed since. Raises Conflict where the tenant is changed again and again.
        """
        done: list[Finding] = []
        misses = 0
        while misses < TRIES:
            had = await self._read_rows(tenant_id)
            if had is None:
                return done
            before = len(done)
            try:
                async for findings in self._mended(tenant_id, had):
                    done += findings
            except ConditionFailed:
                misses += 1
                await asyncio.sleep(PAUSE_S * misses * random.random())  # noqa: S311 (only so that two repairs don't go in step)
                continue
            if len(done) == before:
                return done  # Until nothing is left: one fix may have made room for another.
        raise Conflict(f"tenant {tenant_id} is being changed by others all the time; try again when it is quieter")

    async def _mended(self, tenant_id: TenantId, had: TenantRows) -> AsyncIterator[list[Finding]]:
        counts = count_defects(had)
        fixes = [fix for fix in examine(had) if fix.writes]
        version = rows.tenant_of(had.tenant).version
        changes = [change for _, change in counts]
        findings = [finding for finding, _ in counts]
        for some in _portions(fixes):
            if not some and not changes:
                continue
            writes = [write for fix in some for write in fix.writes]
            await self._tables.transact([_touch(tenant_id, version, changes), *writes])
            yield [*findings, *(fix.finding for fix in some)]
            version, changes, findings = version + 1, [], []

    # --- reading ---

    async def _read_rows(self, tenant_id: TenantId) -> TenantRows | None:
        # The tenant's row first: whatever is added later raises the version that is read here.
        (tenant,) = await self._tables.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        if tenant is None or rows.TOMBSTONE in tenant:
            return None
        return TenantRows(
            tenant,
            agents=[item async for item in Partition(self._tables, AGENTS, tenant_id).items()],
            channels=[item async for item in Partition(self._tables, CHANNELS, tenant_id).items()],
            subscriptions=[item async for item in Partition(self._tables, CHANNEL_SUBSCRIPTIONS, tenant_id).items()],
            members=[item async for item in Partition(self._tables, USER_TENANT_INDEX, tenant_id).items()],
        )


def _touch(tenant_id: TenantId, version: int, changes: Sequence[Change]) -> Update:
    """The tenant's row with its next version, which tells every server; fails where it has another version than was read."""
    as_read: Condition = Equals("version", version)
    if not version:
        as_read = Or(Not(OfKind("version", ValueKind.NUMBER)), as_read)
    return Update(TENANTS, ItemKey(tenant_id), [*changes, Assign("version", version + 1)], And(Exists("id"), as_read))


def _portions(fixes: Sequence[Fix]) -> Iterator[list[Fix]]:
    """The fixes in portions that fit a transaction; one that is empty where there are none."""
    some: list[Fix] = []
    writes = size = 0
    for fix in fixes:
        more = sum(map(_size_of, fix.writes))
        if some and (writes + len(fix.writes) > MAX_WRITES or size + more > MOST_BYTES):
            yield some
            some, writes, size = [], 0, 0
        some.append(fix)
        writes, size = writes + len(fix.writes), size + more
    yield some


def _size_of(write: Write) -> int:
    match write:
        case Put():
            return size_of(write.item)
        case Update():
            return sum(2 * size_of(change.value) for change in write.changes if isinstance(change, Assign))
        case _:
            return 0
