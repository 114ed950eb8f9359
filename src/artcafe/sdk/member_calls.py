"""Calls for a tenant's members and invitations."""

from __future__ import annotations

from collections.abc import AsyncIterator

from artcafe.sdk.records import InvitationInfo, MemberInfo
from artcafe.sdk.tenant_calls import TenantCalls


class MemberCalls(TenantCalls):
    """The members of a tenant."""

    def list(self, *, limit: int | None = None) -> AsyncIterator[MemberInfo]:
        return self._http.all_of(MemberInfo, self._path("members"), limit=limit)

    async def invite(self, address: str, *, role: str = "member", key: str | None = None) -> InvitationInfo:
        """Invite an e-mail address. Only this response has the `token` to pass on to the invited person."""
        body = {"address": address, "role": role}
        return await self._http.send(InvitationInfo, "POST", self._path("members"), body, key=key)

    async def set_role(self, user: str, role: str) -> MemberInfo:
        return await self._http.send(MemberInfo, "PATCH", self._path("members", user), {"role": role})

    async def remove(self, user: str) -> None:
        """Remove a member, or the caller."""
        await self._http.remove(self._path("members", user))


class InvitationCalls(TenantCalls):
    """The open invitations of a tenant. `MemberCalls.invite` makes one, and `Client.accept_invitation` accepts it."""

    def list(self, *, limit: int | None = None) -> AsyncIterator[InvitationInfo]:
        return self._http.all_of(InvitationInfo, self._path("invitations"), limit=limit)

    async def revoke(self, invitation: str) -> None:
        await self._http.remove(self._path("invitations", invitation))
