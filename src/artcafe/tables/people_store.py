"""The members and invitations of one tenant; a transaction writes both directions of a membership.

Invitations are stored in the members' index, separated by the prefix of their sort keys (decision record 14).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from artcafe.errors import BadCursor
from artcafe.model import Invitation, Member, Role, TenantId, UserId
from artcafe.rules import times
from artcafe.rules.pages import Page, PageRequest
from artcafe.tables import people_rows
from artcafe.tables.catalog import USER_TENANT_INDEX, USER_TENANTS
from artcafe.tables.engine.conditions import Absent, And, Equals, Exists, Greater, Not, NotEquals, Or
from artcafe.tables.engine.port import Tables
from artcafe.tables.engine.writes import (
    Assign,
    AssignIfAbsent,
    Change,
    Check,
    Delete,
    ItemKey,
    Put,
    Remove,
    Update,
    Write,
    key_of,
)
from artcafe.tables.partition import ALL_AT_ONCE, Partition


class PeopleStore:
    """The people of one tenant; its key is in every read and write. Builders return writes for `TenantStore.transact`."""

    def __init__(self, tables: Tables, tenant_id: TenantId) -> None:
        self._tables = tables
        self.tenant_id = tenant_id
        self._index = Partition(tables, USER_TENANT_INDEX, tenant_id, apart=people_rows.INVITATION_PREFIX)

    # --- members ---

    async def member(self, user_id: UserId) -> Member | None:
        """Return the user's membership; None also for a person removed by an older system (`people_rows.is_withdrawn`)."""
        (item,) = await self._tables.get(USER_TENANTS, [ItemKey(user_id, self.tenant_id)], consistent=True)
        return None if item is None else people_rows.member_of(item)

    async def members(self, page_request: PageRequest) -> Page[Member]:
        """Return a page of members, ordered by id."""
        return await self._index.page(page_request, people_rows.member_of)

    async def all_members(self) -> list[Member]:
        """Return every member."""
        return [member async for item in self._index.items() if (member := people_rows.member_of(item)) is not None]

    async def other_owner(self, user_id: UserId) -> UserId | None:
        """Return another owner than this user, or None."""
        async for item in self._index.items():
            member = people_rows.member_of(item)
            if member is not None and member.role is Role.OWNER and member.user_id != user_id:
                return member.user_id
        return None

    def insert_member(self, member: Member) -> list[Write]:
        """Return the writes of a new membership, replacing a withdrawn one; they fail if a membership is in force."""
        item = people_rows.member_item(member)
        free = Or(Absent("user_id"), Not(people_rows.IS_IN_FORCE))
        return [Put(USER_TENANTS, item, free), Put(USER_TENANT_INDEX, item)]

    def set_role(self, member: Member, role: Role) -> list[Write]:
        """Return the writes of a role change; they fail unless the role is still the one read."""
        changes: list[Change] = [Assign("role", role.value)]
        # An older row may name these differently, and its row in the index may be missing; the update creates it.
        if member.joined_at is not None:
            changes.append(AssignIfAbsent("joined_at", times.to_text(member.joined_at)))
        if member.address is not None:
            changes.append(AssignIfAbsent("address", member.address))
        return [
            Update(USER_TENANTS, ItemKey(member.user_id, self.tenant_id), changes, self._same_role(member)),
            Update(USER_TENANT_INDEX, ItemKey(self.tenant_id, member.user_id), [*changes, Remove("active")]),
        ]

    def delete_member(self, member: Member) -> list[Write]:
        """Return the writes that delete a membership; they fail unless it exists with the role read."""
        return [
            Delete(USER_TENANTS, ItemKey(member.user_id, self.tenant_id), self._same_role(member)),
            Delete(USER_TENANT_INDEX, ItemKey(self.tenant_id, member.user_id)),
        ]

    def check_owner(self, user_id: UserId) -> Check:
        """Return a check that fails unless the user is an owner."""
        is_owner = And(Equals("role", Role.OWNER.value), people_rows.IS_IN_FORCE)
        return Check(USER_TENANTS, ItemKey(user_id, self.tenant_id), is_owner)

    def remove_member(self, user_id: UserId) -> list[Write]:
        """Return the writes that delete a membership, existing or not."""
        return [
            Delete(USER_TENANTS, ItemKey(user_id, self.tenant_id)),
            Delete(USER_TENANT_INDEX, ItemKey(self.tenant_id, user_id)),
        ]

    @staticmethod
    def _same_role(member: Member) -> And:
        # An unknown role was read as viewer, so viewer matches any role except the others.
        others = [NotEquals("role", role.value) for role in Role if role is not member.role]
        same = others if member.role is Role.VIEWER else [Equals("role", member.role.value)]
        return And(Exists("user_id"), people_rows.IS_IN_FORCE, *same)

    # --- invitations ---

    async def invitation(self, invitation_id: str) -> Invitation | None:
        """Return the invitation, expired or not."""
        (item,) = await self._tables.get(USER_TENANT_INDEX, [self._key(invitation_id)], consistent=True)
        return None if item is None else people_rows.invitation_of(item)

    async def invitations(self, page_request: PageRequest, keep: Callable[[Invitation], bool]) -> Page[Invitation]:
        """Return a page of invitations, ordered by id. Raises BadCursor for the sort key of another list."""
        if page_request.after is not None and not page_request.after.startswith(people_rows.INVITATION_PREFIX):
            raise BadCursor
        return await self._index.page(page_request, people_rows.invitation_of, keep, people_rows.INVITATION_PREFIX)

    async def all_invitations(self) -> list[Invitation]:
        """Return every invitation, expired or not, in the order of creation."""
        return [people_rows.invitation_of(item) async for item in self._index.items(people_rows.INVITATION_PREFIX)]

    async def remove_invitations(self) -> None:
        """Remove every invitation. May be repeated."""
        async for items in self._index.queries(people_rows.INVITATION_PREFIX):
            await self._tables.transact([Delete(USER_TENANT_INDEX, key_of(USER_TENANT_INDEX, item)) for item in items])

    async def remove_expired(self, invitations: list[Invitation], now: datetime) -> None:
        """Remove the expired ones of these invitations."""
        expired = [each for each in invitations if each.expires_at <= now]
        for start in range(0, len(expired), ALL_AT_ONCE):
            writes = [Delete(USER_TENANT_INDEX, self._key(each.id)) for each in expired[start : start + ALL_AT_ONCE]]
            await self._tables.transact(writes)

    def insert_invitation(self, invitation: Invitation) -> Put:
        """Return the write of a new invitation; fails if its id is taken."""
        return Put(USER_TENANT_INDEX, people_rows.invitation_item(invitation), Absent("user_id"))

    def take_invitation(self, invitation: Invitation, now: datetime) -> Delete:
        """Return the write that redeems the invitation; fails unless it exists and is open, so that only the first redeems it."""
        is_open = Greater("expires_at", times.to_text(now))
        return Delete(USER_TENANT_INDEX, self._key(invitation.id), And(Exists("user_id"), is_open))

    def delete_invitation(self, invitation_id: str) -> Delete:
        """Return the write that deletes an invitation; fails if it does not exist."""
        return Delete(USER_TENANT_INDEX, self._key(invitation_id), Exists("user_id"))

    def _key(self, invitation_id: str) -> ItemKey:
        return ItemKey(self.tenant_id, people_rows.INVITATION_PREFIX + invitation_id)
