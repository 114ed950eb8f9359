"""Sessions of people: admission to a tenant by a membership, and later checks of it."""

from __future__ import annotations

from artcafe.errors import MembershipEnded, NotAMember, RoleChanged, TenantNotFound, TenantSuspended
from artcafe.model import Outcome, UserId, UserPrincipal
from artcafe.services.audit import Audit
from artcafe.services.tenants import Tenants
from artcafe.services.terms import Terms


class MemberLogin:
    """Admits people to a tenant, and checks their memberships later. Reads the tables at every call: memberships end any time."""

    def __init__(self, tenants: Tenants, terms: Terms, audit: Audit) -> None:
        self._tenants, self._terms, self._audit = tenants, terms, audit

    async def enter(self, user_id: UserId, tenant_id: str | None) -> UserPrincipal:
        """Return an authenticated person as a member of the tenant they name, and count the login in its audit. Fails closed.

        Raises TermsRequired, Unavailable, TenantSuspended for a member of a suspended tenant, and NotAMember alike for a tenant
        that is absent, another's or not named.
        """
        await self._terms.check(user_id)
        try:
            principal = await self._tenants.enter(user_id, tenant_id or "")
        except TenantNotFound as exc:
            self._audit.counters.count_cross_tenant(None, f"usr:{user_id}", tenant_id or "")
            raise NotAMember from exc
        if principal.is_suspended:
            self._audit.counters.count(
                principal.tenant_id, principal.sender, "member.connect", Outcome.REFUSED, reason=TenantSuspended.code
            )
            raise TenantSuspended
        self._audit.counters.count(principal.tenant_id, principal.sender, "member.connect")
        return principal

    async def check(self, principal: UserPrincipal) -> None:
        """Check the membership for changes. Raises MembershipEnded, RoleChanged, TenantSuspended, Unavailable."""
        try:
            now = await self._tenants.enter(principal.user_id, principal.tenant_id)
        except TenantNotFound as exc:
            raise MembershipEnded from exc
        if now.role is not principal.role:
            raise RoleChanged
        if now.is_suspended:
            raise TenantSuspended
