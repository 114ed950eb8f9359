"""Members: who is in a tenant, with which role, and out of it again. Coming in by an invitation is `invitations`'.

A membership is read at each request, so a member who was removed is out at the next; the tenant's version, which rises with every
change here, takes them off their open sockets.
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
from artcafe.tables.tenant_store import Count

_TRIES: Final = 5
"""Of a change that met another one of the same people; each try means that somebody else's went through."""


class Members:
    """What admins do with the members of their tenant, and each member with their own membership."""

    def __init__(self, store: Store, changes: Changes, audit: Audit) -> None:
        self._store, self._changes, self._audit = store, changes, audit

    async def list(self, principal: Principal, page: PageRequest = FIRST) -> Page[Member]:
        """The tenant's members in the order of their ids. Raises Forbidden."""
        access.check(principal, Action.READ_MEMBERS)
        return await self._store.people(principal.tenant_id).members(page)

    async def set_role(self, principal: Principal, user_id: str, role: Role) -> Member:
        """Gives a member another role. May be repeated.

        Raises Forbidden (only owners make and unmake owners), MemberNotFound, LastOwner, and Conflict when others keep at it.
        """
        access.check(principal, Action.CHANGE_MEMBERS)
        tenant, people = self._store.tenant(principal.tenant_id), self._store.people(principal.tenant_id)
        for _ in range(_TRIES):
            member = await _there(people, user_id)
            if Role.OWNER in (member.role, role):
                access.check(principal, Action.CHANGE_OWNERS)
            # Repeated, it is written all the same: nothing is told of a role that was not just confirmed.
            stays = await _one_stays(people, member) if member.role is Role.OWNER and role is not Role.OWNER else []
            facts = {"role": role.value, "before": member.role.value}
            try:
                async with self._audit.action(principal, "member.role", user_id, **facts):
                    await self._changes.commit(tenant, tenant.touch(), *people.set_role(member, role), *stays)
            except ConditionFailed:
                continue
            return await _there(people, user_id)
        raise _contested(user_id)

    async def remove(self, principal: Principal, user_id: str) -> None:
        """Ends a membership: an admin somebody's, anybody their own. They are out at their next request.

        Raises Forbidden (only owners remove owners), MemberNotFound, LastOwner, and Conflict when others keep at it.
        """
        is_own = isinstance(principal, UserPrincipal) and principal.user_id == user_id
        access.check(principal, Action.LEAVE if is_own else Action.CHANGE_MEMBERS)
        tenant, people = self._store.tenant(principal.tenant_id), self._store.people(principal.tenant_id)
        for _ in range(_TRIES):
            member = await _there(people, user_id)
            if member.role is Role.OWNER and not is_own:
                access.check(principal, Action.CHANGE_OWNERS)
            stays = await _one_stays(people, member) if member.role is Role.OWNER else []
            try:
                async with self._audit.action(principal, "member.remove", user_id, role=member.role.value):
                    await self._changes.commit(tenant, tenant.count(Count.MEMBERS, -1), *people.delete_member(member), *stays)
            except ConditionFailed:
                continue
            return
        raise _contested(user_id)


async def _there(people: PeopleStore, user_id: str) -> Member:
    """Raises MemberNotFound for an id that is absent, malformed or of somebody who is in other tenants only."""
    member = await people.member(UserId(user_id)) if fields.is_user_id(user_id) else None
    if member is None:
        raise MemberNotFound(user_id)
    return member


async def _one_stays(people: PeopleStore, member: Member) -> list[Write]:
    """What goes into the transaction that takes an owner away: another one is still there. Two who leave at the same moment
    stand in each other's, so that only the first goes. Raises LastOwner."""
    other = await people.other_owner(member.user_id)
    if other is None:
        raise LastOwner
    return [people.check_owner(other)]


def _contested(user_id: str) -> Conflict:
    return Conflict(f"member {user_id} is being changed by others at the same time; try again")
