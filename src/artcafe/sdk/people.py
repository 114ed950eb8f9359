"""REST methods for people: members, invitations, terms. `Client.people` is an instance."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from artcafe.sdk.http import HttpClient, path_of
from artcafe.sdk.records import CurrentTerms, InvitationInfo, MemberInfo, TenantInfo, TermsAcceptance


class People:
    """Members and invitations of a tenant, and the caller's own acceptances."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http

    def members(self, tenant: str, *, limit: int | None = None) -> AsyncIterator[MemberInfo]:
        return self._http.all_of(MemberInfo, path_of(tenant, "members"), limit=limit)

    async def invite(self, tenant: str, address: str, *, role: str = "member", key: str | None = None) -> InvitationInfo:
        """Invite an e-mail address. Only this response has the `token` to pass on to the invited person."""
        body = {"address": address, "role": role}
        return await self._http.send(InvitationInfo, "POST", path_of(tenant, "members"), body, key=key)

    async def set_role(self, tenant: str, user: str, role: str) -> MemberInfo:
        return await self._http.send(MemberInfo, "PATCH", path_of(tenant, "members", user), {"role": role})

    async def remove(self, tenant: str, user: str) -> None:
        """Remove a member, or the caller."""
        await self._http.remove(path_of(tenant, "members", user))

    def invitations(self, tenant: str, *, limit: int | None = None) -> AsyncIterator[InvitationInfo]:
        """List the open invitations."""
        return self._http.all_of(InvitationInfo, path_of(tenant, "invitations"), limit=limit)

    async def revoke(self, tenant: str, invitation: str) -> None:
        await self._http.remove(path_of(tenant, "invitations", invitation))

    async def accept(self, token: str, *, id_token: str | None = None) -> TenantInfo:
        """Join the tenant of an invitation. `id_token` is the identity provider's proof of the address."""
        body: dict[str, Any] = {"token": token} | ({} if id_token is None else {"id_token": id_token})
        return await self._http.send(TenantInfo, "POST", "/v1/invitations/acceptances", body)

    async def terms(self) -> CurrentTerms:
        return await self._http.read(CurrentTerms, "/v1/terms")

    async def accept_terms(self, version: str) -> TermsAcceptance:
        """Accept a version of the terms. Raises `TermsChanged` if it is not the current version."""
        return await self._http.send(TermsAcceptance, "POST", "/v1/terms/acceptances", {"version": version})
