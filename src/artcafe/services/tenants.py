"""Tenants: created by a person, entered by a membership, deleted with everything in them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from artcafe.errors import Forbidden, Invalid, OurFault, TenantLimit, TenantNotFound
from artcafe.model import Member, Principal, Record, Role, Tenant, TenantId, TenantStatus, UserId, UserPrincipal
from artcafe.observe.clock import Clock
from artcafe.rules import access, fields, ids, times
from artcafe.rules.access import Action
from artcafe.rules.idempotency import KeyedRequest, check_repeat, repeat_of_deleted
from artcafe.rules.pages import FIRST, Page, PageRequest
from artcafe.rules.plans import Limit, Plans
from artcafe.services.audit import Audit
from artcafe.services.changes import Changes
from artcafe.services.record_cache import RecordCache
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Assign
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore


class TenantLogs(Protocol):
    """Stores the messages of tenants."""

    async def drop(self, tenant_id: TenantId) -> None:
        """Delete everything stored for the tenant. May be repeated, and does nothing for a tenant without messages."""
        ...

    async def limit_log(self, tenant_id: TenantId, max_bytes: int) -> None:
        """Set the most bytes of the tenant's messages; remove none. May be repeated."""
        ...


class Membership(Record, frozen=True, kw_only=True):
    """A tenant, and the role of one of its members."""

    tenant: Tenant
    role: Role
    joined_at: datetime | None


@dataclass(frozen=True, slots=True)
class PerPerson:
    """Limits on one person's tenants at a time, and new ones in a day of UTC. 0 is unlimited."""

    owned: int = 100
    made_a_day: int = 100


class Tenants:
    """Operations on tenants themselves, and the check of memberships."""

    def __init__(
        self,
        store: Store,
        changes: Changes,
        audit: Audit,
        clock: Clock,
        fabric: TenantLogs,
        record_cache: RecordCache,
        plans: Plans,
        per_person: PerPerson | None = None,
    ) -> None:
        self._store, self._changes, self._audit, self._clock, self._fabric = store, changes, audit, clock, fabric
        self._record_cache, self._plans, self._per_person = record_cache, plans, per_person or PerPerson()

    async def create(self, user_id: UserId, name: str, idempotency_key: str | None = None) -> Tenant:
        """Create a tenant with the user as its owner. With a key the request may be repeated, and returns the same tenant.

        Raises Invalid, TenantLimit, IdempotencyMismatch if the key belongs to another request, and Conflict if the tenant of this
        request was deleted. Concurrent requests may exceed the limit of owned tenants by a few.
        """
        name, user_id = fields.name(name), UserId(fields.user_id(user_id))
        request = KeyedRequest(idempotency_key, f"usr:{user_id}", "tenants")
        tenant_id, now = TenantId(request.new_id("ten")), self._clock()
        hashed = request.hash(name)
        tenant = Tenant(
            id=tenant_id,
            name=name,
            plan=self._plans.default,
            created_at=now,
            updated_at=now,
            member_count=1,
            request_hash=hashed,
        )
        owner = Member(user_id=user_id, tenant_id=tenant.id, role=Role.OWNER, joined_at=now)
        # Check the limit before the audit is written: audits are never deleted, so a refused request must not create one.
        reached = await self._limit_reached(user_id, now)
        if reached is None and await self._insert(tenant, owner, now):
            return tenant
        existing = await self._store.tenant(tenant.id).tenant()
        if existing is not None:
            check_repeat(existing.request_hash, tenant.request_hash)
            return existing
        if await self._store.tenant(tenant.id).is_deleted():
            raise repeat_of_deleted("a tenant that was deleted")
        raise reached or self._day_is_full()

    async def _insert(self, tenant: Tenant, owner: Member, now: datetime) -> bool:
        """Write the tenant with its owner, and count it for the day. Return False if it exists, or the day's limit is reached."""
        writes = [self._store.insert_tenant(tenant), *self._store.people(tenant.id).insert_member(owner)]
        if self._per_person.made_a_day:
            writes.append(self._store.ownership(owner.user_id).count_created(now, self._per_person.made_a_day))
        try:
            async with self._audit.change(tenant.id, f"usr:{owner.user_id}", "tenant.create", tenant.id, name=tenant.name):
                await self._store.transact(writes)
        except ConditionFailed:
            return False
        return True

    async def _limit_reached(self, user_id: UserId, now: datetime) -> TenantLimit | None:
        owned, made, theirs = self._per_person.owned, self._per_person.made_a_day, self._store.ownership(user_id)
        if owned and await theirs.owned(owned) >= owned:
            return TenantLimit(owned, "owned by one person")
        return self._day_is_full() if made and await theirs.created_on(now) >= made else None

    def _day_is_full(self) -> TenantLimit:
        return TenantLimit(self._per_person.made_a_day, "made by one person in a day (UTC)")

    async def list(self, user_id: UserId, page_request: PageRequest = FIRST) -> Page[Membership]:
        """Return a page of the user's tenants in id order."""
        found = await self._store.memberships(user_id, page_request)
        items = (Membership(tenant=tenant, role=member.role, joined_at=member.joined_at) for tenant, member in found.items)
        return Page(tuple(items), found.next)

    async def enter(self, user_id: UserId, tenant_id: str) -> UserPrincipal:
        """Return the user as a member of the tenant. Raises TenantNotFound for every other tenant; fails closed.

        The membership is read from the table at each call, so a removed member is refused at once. Only owners can enter a tenant
        that is being deleted, to repeat the deletion. A suspension is visible within 5 s.
        """
        member = await self._membership(user_id, tenant_id)
        tenant = None if member is None else await self._record_cache.tenant(member.tenant_id)
        if member is None or tenant is None or (tenant.is_deleting and member.role is not Role.OWNER):
            raise TenantNotFound(tenant_id)
        is_suspended = tenant.status is not TenantStatus.ACTIVE
        return UserPrincipal(user_id=user_id, tenant_id=member.tenant_id, role=member.role, is_suspended=is_suspended)

    async def _membership(self, user_id: UserId, tenant_id: str) -> Member | None:
        if not ids.is_possible(tenant_id):
            return None
        return await self._store.people(TenantId(tenant_id)).member(user_id)

    async def get(self, principal: Principal) -> Tenant:
        """Return the principal's tenant. Raises Forbidden and TenantNotFound."""
        access.check(principal, Action.READ_TENANT)
        return await self._require_tenant(principal.tenant_id)

    async def update(self, principal: Principal, *, name: str | None = None, plan: str | None = None) -> Tenant:
        """Rename the tenant, or move it to another plan offered by the operator. May be repeated.

        A plan with limits below the present use refuses new things, and removes nothing but messages older than its retention.
        Raises Forbidden, Invalid and TenantNotFound.
        """
        facts: dict[str, str] = {}
        if name is not None or plan is None:
            access.check(principal, Action.RENAME_TENANT)
        if name is not None:
            facts["name"] = fields.name(name)
        if plan is not None:
            access.check(principal, Action.CHANGE_PLAN)
            facts["plan"] = self._offered(plan)
        if not facts:
            return await self.get(principal)
        tenant, now = self._store.tenant(principal.tenant_id), times.to_text(self._clock())
        changes = [Assign(attribute, text) for attribute, text in facts.items()]
        async with self._audit.action(principal, "tenant.change", tenant.id, **facts):
            await self._changes.commit(tenant, tenant.touch(*changes, Assign("updated_at", now)))
        row = await self._require_tenant(principal.tenant_id)
        if plan is not None:
            with suppress(OurFault):  # The row is written; the sweep of retention sets the limit too.
                await self._fabric.limit_log(row.id, self._plans.limit_of(row, Limit.STORAGE_BYTES))
        return row

    def _offered(self, plan: str) -> str:
        """Return the plan's name. Raises Invalid for an unknown plan, and Forbidden for one that only an operator gives."""
        if plan not in self._plans:
            names = ", ".join(each.name for each in self._plans if each.self_serve)
            raise Invalid("plan", f"must be one of the plans on offer: {names or 'there are none'}")
        if not self._plans.plans[plan].self_serve:
            raise Forbidden(f"choose the plan {plan}: only the operator of this service gives it", "an owner")
        return plan

    async def delete(self, principal: Principal) -> None:
        """Delete the tenant with everything in it, and keep a tombstone. Raises Forbidden.

        From the first write on its agents are refused, and nothing can be added to it. A repeat continues a deletion that was
        interrupted: the owner's membership is deleted last, in the transaction that replaces the tenant's row by the tombstone.
        """
        access.check(principal, Action.DELETE_TENANT)
        assert isinstance(principal, UserPrincipal)  # `access` admits owners only.
        async with (
            self._audit.action(principal, "tenant.delete", principal.tenant_id),
            self._audit.change(None, principal.sender, "tenant.delete", principal.tenant_id),
        ):
            await self._remove(self._store.tenant(principal.tenant_id), principal.user_id)

    async def _remove(self, tenant: TenantStore, owner: UserId) -> None:
        people = self._store.people(tenant.id)
        try:
            await tenant.transact([tenant.begin_deletion()])
        except ConditionFailed as failed:
            raise TenantNotFound(tenant.id) from failed
        finally:
            self._changes.invalidation.notify(tenant.id)
        await tenant.remove_all()
        await self._fabric.drop(tenant.id)
        await people.remove_invitations()
        for member in await people.all_members():
            if member.user_id != owner:
                await tenant.transact(people.remove_member(member.user_id))
        row = await self._require_tenant(tenant.id)
        await tenant.transact([tenant.write_tombstone(row, owner, self._clock()), *people.remove_member(owner)])
        self._changes.invalidation.notify(tenant.id)

    async def _require_tenant(self, tenant_id: TenantId) -> Tenant:
        tenant = await self._store.tenant(tenant_id).tenant()
        if tenant is None:
            raise TenantNotFound(tenant_id)
        return tenant
