"""People at the gateway: their token, and the membership that must bear out the tenant they name."""

from __future__ import annotations

from datetime import datetime

from artcafe.errors import MembershipEnded, NotAMember, RoleChanged, TenantNotFound, TenantSuspended
from artcafe.identity.port import Identity
from artcafe.model import Outcome, UserPrincipal
from artcafe.observe.clock import Clock
from artcafe.services.audit import Audit
from artcafe.services.tenants import Tenants
from artcafe.services.terms import Terms


class MemberLogin:
    """Lets people in, and knows who may stay. Everything is read anew: a membership may end at any moment."""

    def __init__(self, identity: Identity, tenants: Tenants, terms: Terms, audit: Audit, clock: Clock) -> None:
        self._identity, self._tenants, self._terms, self._audit, self._clock = identity, tenants, terms, audit, clock

    async def enter(self, token: str, tenant_id: str | None) -> tuple[UserPrincipal, datetime]:
        """The person as a member of the tenant that they name, and until when the token proves it. Fails closed.

        Raises Unauthenticated, CredentialsExpired, TermsRequired, Unavailable, and NotAMember alike for a tenant that is absent,
        another's or not named; TenantSuspended where it is theirs.
        """
        person = await self._identity.verify(token, self._clock())
        await self._terms.check(person.user_id)
        try:
            principal = await self._tenants.enter(person.user_id, tenant_id or "")
        except TenantNotFound as exc:
            self._audit.counters.count_cross_tenant(None, f"usr:{person.user_id}", tenant_id or "")
            raise NotAMember from exc
        if principal.is_suspended:
            self._audit.counters.count(
                principal.tenant_id, principal.sender, "member.connect", Outcome.REFUSED, reason=TenantSuspended.code
            )
            raise TenantSuspended
        self._audit.counters.count(principal.tenant_id, principal.sender, "member.connect")
        return principal, person.expires_at

    async def check(self, principal: UserPrincipal) -> None:
        """Returns while the person is in the tenant as they came. Raises MembershipEnded, RoleChanged, TenantSuspended
        and Unavailable."""
        try:
            now = await self._tenants.enter(principal.user_id, principal.tenant_id)
        except TenantNotFound as exc:
            raise MembershipEnded from exc
        if now.role is not principal.role:
            raise RoleChanged
        if now.is_suspended:
            raise TenantSuspended
