"""Routes for the members of a tenant: list, invite, change roles and remove. `rest.invitations` accepts invitations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import Field

from artcafe import errors, model
from artcafe.rest import problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.invitations import NewInvitation
from artcafe.rest.paging import KnownTime, Listing, PageQuery
from artcafe.rest.principal import IdempotencyKey, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants/{tenant_id}/members", tags=["members"])

UserPath = Annotated[str, Path(description="The member's `user_id`.", examples=["5d0e1c1e-8f0b-4f5e-9a70-0d6a6f1f8a11"])]


class NewMember(RequestModel):
    """The address and role of a user to invite."""

    address: str = Field(description="The e-mail address, which the invited user must prove.", examples=["bob@example.com"])
    role: model.Role = Field(model.Role.MEMBER, description="Only owners can grant the role of owner.")


class RoleChange(RequestModel):
    """A member's new role."""

    role: model.Role


class MemberResponse(ResponseModel):
    """A user with a role in a tenant."""

    user_id: str = Field(
        description="The `sub` claim of the identity provider.", examples=["5d0e1c1e-8f0b-4f5e-9a70-0d6a6f1f8a11"]
    )
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    role: model.Role
    address: str | None = Field(description="The address of the accepted invitation.", examples=["bob@example.com"])
    joined_at: KnownTime


class MemberPage(ResponseModel):
    """One page of the tenant's members."""

    items: list[MemberResponse]
    next_cursor: str | None


@router.get("", summary="List members", responses=problems.responses(*problems.IN_TENANT, *problems.LIST))
async def list_members(
    request: Request, services: ServicesDep, principal: InTenant, query: Annotated[PageQuery, Query()]
) -> MemberPage:
    """List the members of the tenant. For owners and admins."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.members.list(principal, listing.request)
    return MemberPage(items=[MemberResponse.model_validate(each) for each in page.items], next_cursor=listing.next_cursor(page))


@router.post(
    "",
    status_code=201,
    summary="Invite a user",
    responses=problems.responses(*problems.IN_TENANT, errors.TenantSuspended, errors.InvitationLimit, *problems.POST),
    openapi_extra=request_schema(NewMember),
)
async def invite_member(
    response: Response,
    services: ServicesDep,
    principal: InTenant,
    body: Annotated[NewMember, Depends(json_body(NewMember))],
    key: IdempotencyKey = None,
) -> NewInvitation:
    """Create an invitation. For owners and admins.

    The response has the token for the invited user, which is shown nowhere else: ArtCafe sends no e-mail. The token is valid once
    within 72 hours, for a user who proves the address.
    """
    invitation, token = await services.invitations.create(principal, address=body.address, role=body.role, idempotency_key=key)
    response.headers["Location"] = tenant_path(invitation.tenant_id, "invitations", invitation.id)
    return NewInvitation.of(invitation, token)


@router.patch(
    "/{user_id}",
    summary="Change a member's role",
    responses=problems.responses(
        *problems.IN_TENANT, errors.TenantSuspended, errors.MemberNotFound, errors.LastOwner, errors.Conflict, *problems.BODY
    ),
    openapi_extra=request_schema(RoleChange),
)
async def change_member(
    services: ServicesDep, principal: InTenant, user_id: UserPath, body: Annotated[RoleChange, Depends(json_body(RoleChange))]
) -> MemberResponse:
    """Change a member's role. For owners and admins; only owners can grant or revoke the role of owner. One owner must remain."""
    return MemberResponse.model_validate(await services.members.set_role(principal, user_id, body.role))


@router.delete(
    "/{user_id}",
    status_code=204,
    summary="Remove a member, or leave",
    responses=problems.responses(
        *problems.IN_TENANT, errors.TenantSuspended, errors.MemberNotFound, errors.LastOwner, errors.Conflict
    ),
)
async def remove_member(services: ServicesDep, principal: InTenant, user_id: UserPath) -> None:
    """Remove a member. For owners and admins, and for members to leave; only owners can remove owners, and one owner must remain.

    The member's next request is refused, and their connections end within 5 seconds.
    """
    await services.members.remove(principal, user_id)
