"""Find and fix memberships whose rows in `artcafe-user-tenants` and `artcafe-user-tenant-index` disagree.

Authorization reads `artcafe-user-tenants`, so its row is right: the index is made equal to it, and an index row without one is
deleted. A membership withdrawn by the older system is reported, and never restored (decision record 27).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from artcafe.maintenance.integrity import Defect, Finding, Fix
from artcafe.model import Role, TenantId
from artcafe.tables import people_rows
from artcafe.tables.catalog import USER_TENANT_INDEX, USER_TENANTS, Table
from artcafe.tables.engine.conditions import Absent, And, Condition, Equals, Exists, Not
from artcafe.tables.engine.port import ConditionFailed, Engine
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Check, Delete, ItemKey, Put, key_of
from artcafe.tables.partition import Partition

AT_ONCE: Final = 100

STATED: Final = ("role", "active", "joined_at", "created_at", "address", "user_email", "invitation_id")
"""Attributes of a membership. A fixed index row has those of the right row, and keeps its other attributes."""

_WORDS: Final = {"role": "role", "joined_at": "time of joining", "address": "address", "invitation_id": "invitation"}


class MembershipRepair:
    """Compares and fixes the memberships of all tenants, or of one."""

    def __init__(self, tables: Engine) -> None:
        self._tables = tables

    async def inspect(self, only: TenantId | None = None) -> AsyncIterator[Fix]:
        """Yield a fix for every membership whose rows disagree, and one without writes for every withdrawn membership."""
        async for both in self._pairs(USER_TENANTS, USER_TENANT_INDEX, only):
            for row, listed in both:
                for fix in _compared(row, listed):
                    yield fix
        async for both in self._pairs(USER_TENANT_INDEX, USER_TENANTS, only):
            for listed_one, right in both:
                if right is None and not people_rows.is_invitation(listed_one):
                    yield await self._alone(listed_one)

    async def fix(self, fix: Fix) -> bool:
        """Make the two rows of one membership agree. Return False if they were changed since they were read."""
        try:
            await self._tables.transact(fix.writes)
        except ConditionFailed:
            return False
        return True

    async def _pairs(self, table: Table, other: Table, only: TenantId | None) -> AsyncIterator[list[tuple[Item, Item | None]]]:
        """Yield every item of a table, paired with the item of the same user and tenant in the other table."""
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

    async def _alone(self, listed: Item) -> Fix:
        """Return the fix for an index row without a membership: delete it, unless it is the tenant's only row of an owner."""
        member = people_rows.stated_member_of(listed)
        key = ItemKey(member.user_id, member.tenant_id)
        if member.role is Role.OWNER and not await self._has_owner(member.tenant_id):
            message = (
                f"{member.user_id} is an owner only in this row, so cannot enter the tenant, and there is no other owner:"
                f" add the row to {USER_TENANTS.name} too if it is right"
            )
            return Fix(_finding(listed, USER_TENANT_INDEX, message))
        gone = Delete(USER_TENANT_INDEX, key_of(USER_TENANT_INDEX, listed), Exists("user_id"))
        message = f"{member.user_id} is only in this row, and is no member: the row is deleted"
        finding = _finding(listed, USER_TENANT_INDEX, message, fixable=True)
        return Fix(finding, (gone, Check(USER_TENANTS, key, Absent("user_id"))))

    async def _has_owner(self, tenant_id: TenantId) -> bool:
        owners = [
            ItemKey(member.user_id, tenant_id)
            async for item in Partition(self._tables, USER_TENANT_INDEX, tenant_id).items()
            if (member := people_rows.member_of(item)) is not None and member.role is Role.OWNER
        ]
        found = await self._tables.get(USER_TENANTS, owners, consistent=True) if owners else []
        members = [people_rows.member_of(item) for item in found if item is not None]
        return any(member is not None and member.role is Role.OWNER for member in members)


def _compared(row: Item, listed: Item | None) -> list[Fix]:
    """Return the defects of a row of `artcafe-user-tenants` and its row in the index."""
    if people_rows.is_withdrawn(row):
        return _withdrawn(row, listed)
    found = []
    if row.get("role") not in list(Role):
        message = f"the role {row.get('role')!r} is unknown, so {row['user_id']!r} can read and change nothing"
        found.append(Fix(_finding(row, USER_TENANTS, message, what=Defect.ROLE)))
    if listed is not None and people_rows.member_of(listed) == people_rows.member_of(row):
        return found
    kept = {name: value for name, value in (listed or {}).items() if name not in STATED}
    put = Put(USER_TENANT_INDEX, {**kept, **row}, _as_read(listed))
    still = Check(USER_TENANTS, key_of(USER_TENANTS, row), _as_read(row))
    return [*found, Fix(_finding(row, USER_TENANT_INDEX, _difference(row, listed), fixable=True), (put, still))]


def _withdrawn(row: Item, listed: Item | None) -> list[Fix]:
    user_id = people_rows.stated_member_of(row).user_id
    message = (
        f"{user_id} is no member: an older system removed the membership (active is {row['active']!r});"
        " delete the row, or invite the person again"
    )
    fixes = [Fix(_finding(row, USER_TENANTS, message))]
    if listed is not None:
        gone = Delete(USER_TENANT_INDEX, key_of(USER_TENANT_INDEX, listed), Exists("user_id"))
        still = Check(USER_TENANTS, key_of(USER_TENANTS, row), Not(people_rows.IS_IN_FORCE))
        message = f"{user_id} was removed by an older system, but is still listed: the row is deleted"
        fixes.append(Fix(_finding(listed, USER_TENANT_INDEX, message, fixable=True), (gone, still)))
    return fixes


def _difference(row: Item, listed: Item | None) -> str:
    member = people_rows.stated_member_of(row)
    if listed is None:
        return f"{member.user_id} is a member, but is not listed"
    if people_rows.is_withdrawn(listed):
        return f"{member.user_id} is a member, but is listed as removed (active is {listed['active']!r})"
    other = people_rows.stated_member_of(listed)
    differing = [word for name, word in _WORDS.items() if getattr(member, name) != getattr(other, name)]
    return f"{member.user_id} is listed with another {' and another '.join(differing)} than the membership has"


def _as_read(item: Item | None) -> Condition:
    """Return the condition for a row with unchanged rights."""
    if item is None:
        return Absent("user_id")
    same = [Equals(name, item[name]) if name in item else Absent(name) for name in ("role", "active")]
    return And(Exists("user_id"), *same)


def _finding(item: Item, table: Table, message: str, *, fixable: bool = False, what: Defect = Defect.MEMBERSHIP) -> Finding:
    member = people_rows.stated_member_of(item)
    return Finding(
        what=what,
        tenant_id=member.tenant_id,
        table=table.name,
        key=f"{member.tenant_id} {member.user_id}",
        message=message,
        is_fixable=fixable,
    )
