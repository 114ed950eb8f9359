"""Routes for invitations: list, revoke and accept. `rest.members` creates them."""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import Field

from artcafe import errors, model
from artcafe.assembly import Services
from artcafe.errors import AddressUnproven, Unauthenticated
from artcafe.rest import problems, tenants
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import InTenant, NeedlessKey, Person, bearer
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(tags=["members"])

InvitationPath = Annotated[str, Path(description="The invitation's id.", examples=["inv_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])]


class InvitationResponse(ResponseModel):
    """An invitation into a tenant, open until it is used, revoked or expired."""

    id: str = Field(examples=["inv_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    address: str = Field(examples=["bob@example.com"])
    role: model.Role
    invited_by: str = Field(examples=["usr:5d0e1c1e-8f0b-4f5e-9a70-0d6a6f1f8a11"])
    created_at: KnownTime
    expires_at: Time


class NewInvitation(InvitationResponse):
    """A new invitation, with the token for the invited person."""

    token: str = Field(examples=["artcafe-invitation.dGVuXzAx….inv_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2.q8Jz…"])

    @classmethod
    def of(cls, invitation: model.Invitation, token: str) -> Self:
        return cls(**InvitationResponse.model_validate(invitation).model_dump(), token=token)


class InvitationPage(ResponseModel):
    """One page of the tenant's open invitations."""

    items: list[InvitationResponse]
    next_cursor: str | None


class AcceptanceBody(RequestModel):
    """The token of an invitation to accept."""

    token: str = Field(description="The token of the invitation.")
    id_token: str | None = Field(
        None,
        description="An ID token of the same user from the identity provider, with the verified e-mail address. Optional only"
        " with the local identity, whose access tokens contain the address.",
    )


@router.get(
    "/v1/tenants/{tenant_id}/invitations",
    summary="List open invitations",
    responses=problems.responses(*problems.IN_TENANT, *problems.LIST),
)
async def list_invitations(
    request: Request, services: ServicesDep, principal: InTenant, query: Annotated[PageQuery, Query()]
) -> InvitationPage:
    """List the open invitations. For owners and admins."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.invitations.list(principal, listing.request)
    items = [InvitationResponse.model_validate(each) for each in page.items]
    return InvitationPage(items=items, next_cursor=listing.next_cursor(page))


@router.delete(
    "/v1/tenants/{tenant_id}/invitations/{invitation_id}",
    status_code=204,
    summary="Revoke an invitation",
    responses=problems.responses(*problems.IN_TENANT, errors.TenantSuspended, errors.InvitationNotFound),
)
async def revoke_invitation(services: ServicesDep, principal: InTenant, invitation_id: InvitationPath) -> None:
    """Revoke the invitation: its token becomes invalid. For owners and admins."""
    await services.invitations.revoke(principal, invitation_id)


@router.post(
    "/v1/invitations/acceptances",
    status_code=201,
    summary="Accept an invitation",
    responses=problems.responses(
        *problems.BEARER,
        errors.Forbidden,
        errors.InvitationRefused,
        errors.AddressUnproven,
        errors.TenantSuspended,
        errors.LimitReached,
        errors.Conflict,
        *problems.BODY,
    ),
    openapi_extra=request_schema(AcceptanceBody),
)
async def accept_invitation(
    services: ServicesDep,
    user: Person,
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
    body: Annotated[AcceptanceBody, Depends(json_body(AcceptanceBody))],
    _key: NeedlessKey = None,
) -> tenants.TenantResponse:
    """Make the caller a member, if the identity provider verified the invitation's address as theirs.

    The request may be repeated: the member who accepted the invitation gets the same response again.
    """
    address = await _proven_address(services, user, body.id_token or credentials.credentials)
    tenant, member = await services.invitations.accept(user, address, body.token)
    return tenants.to_response(tenant, member.role)


async def _proven_address(services: Services, user: model.UserId, id_token: str) -> str:
    """Return the caller's verified address from their own ID token. Raises AddressUnproven; fails closed."""
    try:
        address = await services.identity.verify_id_token(id_token, services.clock())
    except (Unauthenticated, errors.CredentialsExpired) as exc:
        raise AddressUnproven("send your identity provider's ID token, a current one, as id_token (--id-token)") from exc
    if address.user_id != user:
        raise AddressUnproven("the ID token is another person's than the access token")
    if not address.email or not address.is_verified:
        raise AddressUnproven("your identity provider has verified no e-mail address of yours; verify it there")
    return address.email
