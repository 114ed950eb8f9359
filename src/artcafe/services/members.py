"""Members of a tenant and their roles. People join by an invitation (`invitations`).

Every request reads the membership, so a removed member is refused at the next request. Every change here also raises the tenant's
version, and the servers then check the open sockets of its members.
"""

from __future__ import annotations

from typing import Final

from artcafe.errors import Conflict, LastOwner, MemberNotFound
from artcafe.model import Member, Principal, Role, UserId, UserPrincipal
from artcafe.rules import access, fields
from artcafe.rules.access import Action
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Write
from artcafe.tables.people_store import PeopleStore
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import RecordCount

_TRIES: Final = 5
"""Attempts at a change that conflicts with changes of the same members. Each failure means that another change succeeded."""


class Members:
    """Operations of admins on the members of their tenant, and of each member on their own membership."""

    def __init__(self, store: Store, changes: Changes, audit: Audit) -> None:
        self._store, self._changes, self._audit = store, changes, audit

    async def list(self, principal: Principal, page_request: PageRequest = FIRST) -> Page[Member]:
        """Return a page of the tenant's members in id order. Raises Forbidden."""
        access.check(principal, Action.READ_MEMBERS)
        return await self._store.people(principal.tenant_id).members(page_request)

    async def set_role(self, principal: Principal, user_id: str, role: Role) -> Member:
        """Set a member's role. May be repeated.

        Raises Forbidden (only owners promote to and demote from owner), MemberNotFound, LastOwner, and Conflict after `_TRIES`
        conflicts.
        """
        access.check(principal, Action.CHANGE_MEMBERS)
        tenant, people = self._store.tenant(principal.tenant_id), self._store.people(principal.tenant_id)
        for _ in range(_TRIES):
            member = await _require_member(people, user_id)
            if Role.OWNER in (member.role, role):
                access.check(principal, Action.CHANGE_OWNERS)
            # Write an unchanged role too: the response must reflect a role that a transaction has just confirmed.
            stays = await _one_stays(people, member) if member.role is Role.OWNER and role is not Role.OWNER else []
            facts = {"role": role.value, "before": member.role.value}
            try:
                async with self._audit.action(principal, "member.role", user_id, **facts):
                    await self._changes.commit(tenant, tenant.touch(), *people.set_role(member, role), *stays)
            except ConditionFailed:
                continue
            return await _require_member(people, user_id)
        raise _contested(user_id)

    async def remove(self, principal: Principal, user_id: str) -> None:
        """End a membership: admins any, members their own. The person is refused at the next request.

        Raises Forbidden (only owners remove owners), MemberNotFound, LastOwner, and Conflict after `_TRIES` conflicts.
        """
        is_own = isinstance(principal, UserPrincipal) and principal.user_id == user_id
        access.check(principal, Action.LEAVE if is_own else Action.CHANGE_MEMBERS)
        tenant, people = self._store.tenant(principal.tenant_id), self._store.people(principal.tenant_id)
        for _ in range(_TRIES):
            member = await _require_member(people, user_id)
            if member.role is Role.OWNER and not is_own:
                access.check(principal, Action.CHANGE_OWNERS)
            stays = await _one_stays(people, member) if member.role is Role.OWNER else []
            try:
                async with self._audit.action(principal, "member.remove", user_id, role=member.role.value):
                    await self._changes.commit(
                        tenant, tenant.count(RecordCount.MEMBERS, -1), *people.delete_member(member), *stays
                    )
            except ConditionFailed:
                continue
            return
        raise _contested(user_id)


async def _require_member(people: PeopleStore, user_id: str) -> Member:
    """Return a member. Raises MemberNotFound for an unknown or malformed id, and for a person of other tenants only."""
    member = await people.member(UserId(user_id)) if fields.is_user_id(user_id) else None
    if member is None:
        raise MemberNotFound(user_id)
    return member


async def _one_stays(people: PeopleStore, member: Member) -> list[Write]:
    """Return the writes to require another owner in the transaction that removes this one. Raises LastOwner.

    The transactions of two owners leaving at the same time require each other's owner, so only the first succeeds.
    """
    other = await people.other_owner(member.user_id)
    if other is None:
        raise LastOwner
    return [people.check_owner(other)]


def _contested(user_id: str) -> Conflict:
    return Conflict(f"member {user_id} is being changed by other requests at the same time; try again")
