"""Looking through all rows for what an older system left askew, and mending it. What is askew in a tenant says `soundness`.

For an operator's command: it reads, and on DynamoDB pays for, every row. It may run while servers do, and may be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final, Protocol

from artcafe.errors import Conflict
from artcafe.model import Role, TenantId
from artcafe.services.soundness import Askew, Finding, Holdings, Mend, examine, miscounts
from artcafe.tables import people_rows, rows
from artcafe.tables.catalog import (
    AGENTS,
    CHANNEL_SUBSCRIPTIONS,
    CHANNELS,
    TENANTS,
    USER_TENANT_INDEX,
    USER_TENANTS,
    Table,
)
from artcafe.tables.conditions import Absent, And, Condition, Equals, Exists, Not, OfKind, Or
from artcafe.tables.port import (
    Assign,
    Change,
    Check,
    ConditionFailed,
    Delete,
    Key,
    Put,
    Scans,
    Tables,
    Update,
    Write,
    key_of,
)
from artcafe.tables.values import Item, Kind, size_of

PAGE: Final = 200
AT_ONCE: Final = 100
MOST_WRITES: Final = 60
MOST_BYTES: Final = 1024 * 1024
"""Of one transaction, which DynamoDB lets have four times as much; a map is counted again in its condition."""
TRIES: Final = 10
PAUSE_S: Final = 0.2
"""Of mending a tenant that servers change meanwhile: so often, and about so long after the first time, then longer."""


class Engine(Tables, Scans, Protocol):
    """An engine for an operator's commands, which may read all of it."""


class Repair:
    """Looks at, and mends, the tables of one engine."""

    def __init__(self, tables: Engine) -> None:
        self._tables = tables

    async def tenants(self) -> AsyncIterator[TenantId]:
        """Every tenant, in no order."""
        async for item in self._tables.scan(TENANTS):
            yield TenantId(str(item["id"]))

    async def look(self, tenant_id: TenantId) -> list[Finding]:
        """What is askew in the tenant's own rows; nothing in one that is not there."""
        had = await self._holdings(tenant_id)
        if had is None:
            return []
        return [*(mend.finding for mend in examine(had)), *(finding for finding, _ in miscounts(had))]

    async def mend(self, tenant_id: TenantId) -> list[Finding]:
        """Mends what can be mended in the tenant's own rows, and returns it.

        Each transaction holds for the version of the tenant's row that was there when the rows were read, so that nothing is put
        right that was changed since. Raises Conflict where the tenant is changed again and again.
        """
        done: list[Finding] = []
        misses = 0
        while misses < TRIES:
            had = await self._holdings(tenant_id)
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
                return done  # Until nothing is left: one mend may have made room for another.
        raise Conflict(f"tenant {tenant_id} is being changed by others all the time; try again when it is quieter")

    async def _mended(self, tenant_id: TenantId, had: Holdings) -> AsyncIterator[list[Finding]]:
        counts = miscounts(had)
        mends = [mend for mend in examine(had) if mend.writes]
        version = rows.tenant_of(had.tenant).version
        changes = [change for _, change in counts]
        findings = [finding for finding, _ in counts]
        for some in _portions(mends):
            if not some and not changes:
                continue
            writes = [write for mend in some for write in mend.writes]
            await self._tables.transact([_touch(tenant_id, version, changes), *writes])
            yield [*findings, *(mend.finding for mend in some)]
            version, changes, findings = version + 1, [], []

    # --- memberships ---

    async def memberships(self, only: TenantId | None = None) -> AsyncIterator[Mend]:
        """Every membership of which the two directions disagree.

        What a person may enter is read from `artcafe-user-tenants`, so that direction is right: the other one is made like it,
        and a row that stands in the other one alone, which lets nobody in, goes.
        """
        async for both in self._pairs(USER_TENANTS, USER_TENANT_INDEX, only):
            for member, listed in both:
                if not _agree(member, listed):
                    yield _made_alike(member, listed)
        async for both in self._pairs(USER_TENANT_INDEX, USER_TENANTS, only):
            for listed_one, entering in both:
                if entering is None and people_rows.indexed_member_of(listed_one) is not None:
                    yield await self._alone(listed_one)

    async def mend_membership(self, mend: Mend) -> bool:
        """Makes one membership's directions agree; False where it was changed since it was read."""
        try:
            await self._tables.transact(mend.writes)
        except ConditionFailed:
            return False
        return True

    async def _pairs(self, table: Table, other: Table, only: TenantId | None) -> AsyncIterator[list[tuple[Item, Item | None]]]:
        """Every item of a table with the one of the same user and tenant in the other table."""
        some: list[Item] = []
        async for item in self._tables.scan(table):
            if only in (None, item["tenant_id"]):
                some.append(item)
            if len(some) == AT_ONCE:
                yield await self._paired(some, other)
                some = []
        if some:
            yield await self._paired(some, other)

    async def _paired(self, items: Sequence[Item], other: Table) -> list[tuple[Item, Item | None]]:
        found = await self._tables.get(other, [key_of(other, item) for item in items], consistent=True)
        return list(zip(items, found, strict=True))

    async def _alone(self, back: Item) -> Mend:
        """The row of a member who may not enter. Not removed where it is the only trace of who owns the tenant."""
        member = people_rows.member_of(back)
        key = Key(member.user_id, member.tenant_id)
        if member.role is Role.OWNER and not await self._has_owner(member.tenant_id):
            says = (
                f"{member.user_id} is an owner here alone and cannot enter, and nobody else is an owner:"
                f" put the row into {USER_TENANTS.name} too if that is right"
            )
            return Mend(_membership(back, USER_TENANT_INDEX, says, mended=False))
        gone = Delete(USER_TENANT_INDEX, key_of(USER_TENANT_INDEX, back), Exists("user_id"))
        says = f"{member.user_id} stands here alone, and is no member: the row goes"
        return Mend(_membership(back, USER_TENANT_INDEX, says), (gone, Check(USER_TENANTS, key, Absent("user_id"))))

    async def _has_owner(self, tenant_id: TenantId) -> bool:
        owners = [
            Key(member.user_id, tenant_id)
            async for item in self._partition(USER_TENANT_INDEX, tenant_id)
            if (member := people_rows.indexed_member_of(item)) is not None and member.role is Role.OWNER
        ]
        found = await self._tables.get(USER_TENANTS, owners, consistent=True) if owners else []
        return any(item is not None and people_rows.member_of(item).role is Role.OWNER for item in found)

    # --- reading ---

    async def _holdings(self, tenant_id: TenantId) -> Holdings | None:
        # The tenant's row first: whatever is added later raises the version that is read here.
        (tenant,) = await self._tables.get(TENANTS, [Key(tenant_id)], consistent=True)
        if tenant is None or rows.BURIED in tenant:
            return None
        return Holdings(
            tenant,
            agents=[item async for item in self._partition(AGENTS, tenant_id)],
            channels=[item async for item in self._partition(CHANNELS, tenant_id)],
            subscriptions=[item async for item in self._partition(CHANNEL_SUBSCRIPTIONS, tenant_id)],
            members=[item async for item in self._partition(USER_TENANT_INDEX, tenant_id)],
        )

    async def _partition(self, table: Table, partition: str) -> AsyncIterator[Item]:
        after: str | None = None
        while True:
            page = await self._tables.query(table, partition, after=after, limit=PAGE, consistent=True)
            for item in page.items:
                yield item
            after = page.next
            if after is None:
                return


def _touch(tenant_id: TenantId, version: int, changes: Sequence[Change]) -> Update:
    """The tenant's row with its next version, which tells every server; fails where it has another version than was read."""
    as_read: Condition = Equals("version", version)
    if not version:
        as_read = Or(Not(OfKind("version", Kind.NUMBER)), as_read)
    return Update(TENANTS, Key(tenant_id), [*changes, Assign("version", version + 1)], And(Exists("id"), as_read))


def _portions(mends: Sequence[Mend]) -> Iterator[list[Mend]]:
    """The mends in portions that fit a transaction; one that is empty where there are none."""
    some: list[Mend] = []
    writes = size = 0
    for mend in mends:
        more = sum(map(_size_of, mend.writes))
        if some and (writes + len(mend.writes) > MOST_WRITES or size + more > MOST_BYTES):
            yield some
            some, writes, size = [], 0, 0
        some.append(mend)
        writes, size = writes + len(mend.writes), size + more
    yield some


def _size_of(write: Write) -> int:
    match write:
        case Put():
            return size_of(write.item)
        case Update():
            return sum(2 * size_of(change.value) for change in write.changes if isinstance(change, Assign))
        case _:
            return 0


def _agree(forward: Item, back: Item | None) -> bool:
    return back is not None and all(forward.get(name) == back.get(name) for name in USER_TENANTS.attributes)


def _made_alike(forward: Item, back: Item | None) -> Mend:
    member = people_rows.member_of(forward)
    as_read: Condition = Absent("user_id")
    says = f"{member.user_id} is a member, and is not listed among them"
    if back is not None:
        role = back.get("role")
        as_read = Absent("role") if "role" not in back else Equals("role", role)
        says = f"{member.user_id} has role {forward.get('role')!r}, and is listed as {role!r}, or with another time of joining"
    alike = Put(USER_TENANT_INDEX, {**(back or {}), **forward}, as_read)
    still = Check(USER_TENANTS, key_of(USER_TENANTS, forward), _same(forward, "role"))
    return Mend(_membership(forward, USER_TENANT_INDEX, says), (alike, still))


def _same(item: Item, name: str) -> Condition:
    there = Exists("user_id")
    return And(there, Equals(name, item[name])) if name in item else And(there, Absent(name))


def _membership(item: Item, table: Table, says: str, *, mended: bool = True) -> Finding:
    member = people_rows.member_of(item)
    return Finding(
        what=Askew.MEMBERSHIP,
        tenant_id=member.tenant_id,
        table=table.name,
        key=f"{member.tenant_id} {member.user_id}",
        says=says,
        is_mended=mended,
    )
