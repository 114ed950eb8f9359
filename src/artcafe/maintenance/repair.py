"""Repair of wrong rows of an older system. `integrity` and `row_faults` find the defects of one tenant.

For an operator command: it reads every row, which DynamoDB charges for. It can run beside servers, and may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Final

from artcafe.errors import Conflict
from artcafe.maintenance.handle_defects import examine_handles
from artcafe.maintenance.integrity import Finding, Fix, TenantRows, count_defects, examine
from artcafe.maintenance.row_faults import faults, orphan
from artcafe.model import TenantId
from artcafe.rules.plans import Plans
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
"""Limits of one transaction. DynamoDB allows four times as many bytes; a map in a condition is counted again."""
TRIES: Final = 10
PAUSE_S: Final = 0.2
"""Attempts at a tenant that servers change at the same time, and the mean pause after the first one, which grows linearly."""


class Repair:
    """Inspects and fixes the tables of one engine."""

    def __init__(self, tables: Engine) -> None:
        self._tables = tables

    async def tenants(self) -> AsyncIterator[TenantId]:
        """Yield the id of every tenant, unordered."""
        async for item in self._tables.scan(TENANTS):
            yield TenantId(str(item["id"]))

    async def is_there(self, tenant_id: TenantId) -> bool:
        """Return whether the tenant has a row or a tombstone."""
        (tenant,) = await self._tables.get(TENANTS, [ItemKey(tenant_id)], consistent=True)
        return tenant is not None

    async def inspect(self, tenant_id: TenantId, plans: Plans) -> list[Finding]:
        """Return the defects in a tenant's rows; none for an unknown tenant. `plans`: the catalogue that the row's plan is in."""
        had = await self._read_rows(tenant_id)
        if had is None:
            return []
        return [*(fix.finding for fix in _examine(had)), *(finding for finding, _ in count_defects(had)), *faults(had, plans)]

    async def orphans(self, elsewhere: Collection[TenantId] = ()) -> list[Finding]:
        """Return a finding for each row whose tenant does not exist or was deleted. Reads whole tables.

        `elsewhere`: the tenants of the other environment, which has rows in the shared tables.
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
        """Fix a tenant's rows where possible, and return the fixed findings.

        Each transaction requires the tenant's version at the time of the read, so no changed row is fixed.
        Raises Conflict after `TRIES` conflicts.
        """
        done: list[Finding] = []
        misses = 0
        while misses < TRIES:
            had = await self._read_rows(tenant_id)
            if had is None:
                return done
            before = len(done)
            try:
                async for findings in self._fix_rows(tenant_id, had):
                    done += findings
            except ConditionFailed:
                misses += 1
                await asyncio.sleep(PAUSE_S * misses * random.random())  # noqa: S311 (only spreads concurrent repairs)
                continue
            if len(done) == before:
                return done  # Repeat until nothing is left: one fix may enable another.
        raise Conflict(f"tenant {tenant_id} is being changed by others all the time; try again when it is quieter")

    async def _fix_rows(self, tenant_id: TenantId, had: TenantRows) -> AsyncIterator[list[Finding]]:
        counts = count_defects(had)
        fixes = [fix for fix in _examine(had) if fix.writes]
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
        # Read the tenant's row first: every later addition raises its version.
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


def _examine(had: TenantRows) -> list[Fix]:
    """Return the defects with a fix. No two fixes write the same row."""
    fixes = examine(had)
    return [*fixes, *examine_handles(had, {write.key for fix in fixes for write in fix.writes if write.table is AGENTS})]


def _touch(tenant_id: TenantId, version: int, changes: Sequence[Change]) -> Update:
    """Raise the tenant's version, which notifies every server. Fails if the version is not the one that was read."""
    as_read: Condition = Equals("version", version)
    if not version:
        as_read = Or(Not(OfKind("version", ValueKind.NUMBER)), as_read)
    return Update(TENANTS, ItemKey(tenant_id), [*changes, Assign("version", version + 1)], And(Exists("id"), as_read))


def _portions(fixes: Sequence[Fix]) -> Iterator[list[Fix]]:
    """Split fixes into portions for a transaction; yield one empty portion if there are none."""
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
