"""The REST routes about people: members, invitations, terms; `Rest.people` is one of these. `sdk.routes` sends them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from artcafe.sdk.records import CurrentTerms, Invitation, Member, Tenant, TermsAcceptance
from artcafe.sdk.routes import Routes, path_of


class People:
    """Members and invitations of a tenant, and the caller's own acceptances."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def members(self, tenant: str, *, limit: int | None = None) -> AsyncIterator[Member]:
        return self._routes.all_of(Member, path_of(tenant, "members"), limit=limit)

    async def invite(self, tenant: str, address: str, *, role: str = "member", key: str | None = None) -> Invitation:
        """Invites an e-mail address. The answer alone has the `token`, which is handed over to whoever is invited."""
        body = {"address": address, "role": role}
        return await self._routes.send(Invitation, "POST", path_of(tenant, "members"), body, key=key)

    async def set_role(self, tenant: str, user: str, role: str) -> Member:
        return await self._routes.send(Member, "PATCH", path_of(tenant, "members", user), {"role": role})

    async def remove(self, tenant: str, user: str) -> None:
        """Removes a member, or the caller themselves."""
        await self._routes.remove(path_of(tenant, "members", user))

    def invitations(self, tenant: str, *, limit: int | None = None) -> AsyncIterator[Invitation]:
        """Those that are open."""
        return self._routes.all_of(Invitation, path_of(tenant, "invitations"), limit=limit)

    async def revoke(self, tenant: str, invitation: str) -> None:
        await self._routes.remove(path_of(tenant, "invitations", invitation))

    async def accept(self, token: str, *, id_token: str | None = None) -> Tenant:
        """Comes into the tenant of an invitation. `id_token` is the identity provider's, which proves the address."""
        body: dict[str, Any] = {"token": token} | ({} if id_token is None else {"id_token": id_token})
        return await self._routes.send(Tenant, "POST", "/v1/invitations/acceptances", body)

    async def terms(self) -> CurrentTerms:
        return await self._routes.read(CurrentTerms, "/v1/terms")

    async def accept_terms(self, version: str) -> TermsAcceptance:
        """Raises `TermsChanged` where that is not the current version any more."""
        return await self._routes.send(TermsAcceptance, "POST", "/v1/terms/acceptances", {"version": version})
