"""Authentication: find the holder of a bearer token, and the holder's principal in a tenant.

REST, the gateway and any other transport use it, and none tries one kind of token after the other. A transport that answers
requests calls `caller` with each request's token, and `principal` for a request on a tenant. A transport with sessions calls
`open_session` at `connect` and at every renewal of the token, and ends the session at the returned time. Login by challenge and
signature is `services.login`.
"""

from __future__ import annotations

from datetime import datetime

from artcafe.errors import BadCredentials, TenantNotFound
from artcafe.identity.port import Identity
from artcafe.model import AgentPrincipal, Principal, UserId
from artcafe.observe.clock import Clock
from artcafe.rules import access
from artcafe.rules.tokens import is_agent_token
from artcafe.services.audit_counters import AuditCounters
from artcafe.services.login import Login
from artcafe.services.member_login import MemberLogin
from artcafe.services.tenants import Tenants
from artcafe.services.terms import Terms

Caller = UserId | AgentPrincipal
"""The holder of a token. An agent belongs to one tenant; a person acts in a tenant by a membership."""


class Authentication:
    """Verifies tokens of agents and people. Fails closed."""

    def __init__(
        self,
        login: Login,
        member_login: MemberLogin,
        identity: Identity,
        tenants: Tenants,
        terms: Terms,
        counters: AuditCounters,
        clock: Clock,
    ) -> None:
        self._login, self._member_login, self._identity = login, member_login, identity
        self._tenants, self._terms, self._counters, self._clock = tenants, terms, counters, clock

    async def caller(self, token: str) -> Caller:
        """Return the holder of the token.

        Raises Unauthenticated, CredentialsExpired and Unavailable, and for an agent Revoked and TenantSuspended.
        """
        if is_agent_token(token):
            return (await self._login.verify_token(token)).principal
        return (await self._identity.verify(token, self._clock())).user_id

    async def expires_at(self, token: str) -> datetime:
        """Return when a token expires: a stream ends then. Raises as `caller` does."""
        if is_agent_token(token):
            return (await self._login.verify_token(token)).expires_at
        return (await self._identity.verify(token, self._clock())).expires_at

    async def principal(self, caller: Caller, tenant_id: str) -> Principal:
        """Return the caller as a principal of a tenant, and count an attempt on another tenant in the audit.

        Raises TermsRequired, and TenantNotFound alike for a foreign and an unknown tenant.
        """
        if isinstance(caller, AgentPrincipal):
            if caller.tenant_id != tenant_id:
                self._counters.count_cross_tenant(caller.tenant_id, caller.sender, tenant_id)
            access.require_tenant(caller, tenant_id)
            return caller
        await self._terms.check(caller)
        try:
            return await self._tenants.enter(caller, tenant_id)
        except TenantNotFound:
            self._counters.count_cross_tenant(None, f"usr:{caller}", tenant_id)
            raise

    async def open_session(self, token: str, tenant_id: str | None) -> tuple[Principal, datetime]:
        """Return the principal of a session and when its token expires. A person must name a tenant; an agent need not.

        Raises as `caller` does; BadCredentials for an agent that names another tenant; TermsRequired, TenantSuspended and
        NotAMember for a person.
        """
        if not is_agent_token(token):
            person = await self._identity.verify(token, self._clock())
            return await self._member_login.enter(person.user_id, tenant_id), person.expires_at
        claims = await self._login.verify_token(token)
        if tenant_id not in (None, claims.principal.tenant_id):
            raise BadCredentials
        return claims.principal, claims.expires_at
