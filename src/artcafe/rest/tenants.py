"""Routes for the tenants of a user: create, list, read, rename and delete. `rest.members` has their members."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from artcafe import errors, model
from artcafe.rest import problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery
from artcafe.rest.principal import IdempotencyKey, InTenant, Person
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])


class NewTenant(RequestModel):
    """A tenant to create."""

    name: str = Field(description="1 to 64 characters.", examples=["Example Ltd"])


class TenantUpdate(RequestModel):
    """Changes of a tenant; absent fields stay as they are."""

    name: str = Field("", description="1 to 64 characters.", examples=["Example Ltd"])
    plan: str = Field("", description="The name of a plan on offer. For owners.", examples=["free"])


class TenantResponse(ResponseModel):
    """A tenant, and the caller's role in it."""

    id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    name: str = Field(examples=["Example Ltd"])
    plan: str = Field(examples=["free"])
    limits: dict[str, int] = Field(description="Limits that replace those of the plan.", examples=[{"agents": 100}])
    role: model.Role
    created_at: KnownTime
    updated_at: KnownTime


class TenantPage(ResponseModel):
    """One page of the caller's tenants."""

    items: list[TenantResponse]
    next_cursor: str | None


def to_response(tenant: model.Tenant, role: model.Role) -> TenantResponse:
    """Return the tenant as seen by a member with `role`."""
    return TenantResponse(
        id=tenant.id,
        name=tenant.name,
        plan=tenant.plan,
        limits=dict(tenant.limits),
        role=role,
        created_at=tenant.created_at,
        updated_at=tenant.updated_at,
    )


def to_response_for(principal: model.Principal, tenant: model.Tenant) -> TenantResponse:
    """Return the tenant as seen by the caller."""
    assert isinstance(principal, model.UserPrincipal)  # Services refuse agents.
    return to_response(tenant, principal.role)


@router.get(
    "", summary="List the caller's tenants", responses=problems.responses(*problems.BEARER, errors.Forbidden, *problems.LIST)
)
async def list_tenants(request: Request, services: ServicesDep, user: Person, query: Annotated[PageQuery, Query()]) -> TenantPage:
    """List the tenants of the caller, with the role in each."""
    listing = Listing.of(request, f"usr:{user}", query)
    page = await services.tenants.list(user, listing.request)
    return TenantPage(items=[to_response(each.tenant, each.role) for each in page.items], next_cursor=listing.next_cursor(page))


@router.post(
    "",
    status_code=201,
    summary="Create a tenant",
    responses=problems.responses(*problems.BEARER, errors.Forbidden, errors.TenantLimit, *problems.POST),
    openapi_extra=request_schema(NewTenant),
)
async def create_tenant(
    response: Response,
    services: ServicesDep,
    user: Person,
    body: Annotated[NewTenant, Depends(json_body(NewTenant))],
    key: IdempotencyKey = None,
) -> TenantResponse:
    """Create a tenant with the caller as its owner."""
    tenant = await services.tenants.create(user, body.name, idempotency_key=key)
    response.headers["Location"] = tenant_path(tenant.id)
    return to_response(tenant, model.Role.OWNER)


@router.get("/{tenant_id}", summary="Read a tenant", responses=problems.responses(*problems.IN_TENANT))
async def read_tenant(services: ServicesDep, principal: InTenant) -> TenantResponse:
    """Return the tenant and the caller's role. For members."""
    return to_response_for(principal, await services.tenants.get(principal))


@router.patch(
    "/{tenant_id}",
    summary="Rename a tenant, or choose its plan",
    responses=problems.responses(*problems.IN_TENANT, *problems.BODY),
    openapi_extra=request_schema(TenantUpdate),
)
async def change_tenant(
    services: ServicesDep, principal: InTenant, body: Annotated[TenantUpdate, Depends(json_body(TenantUpdate))]
) -> TenantResponse:
    """Rename the tenant, for owners and admins; or choose one of the plans on offer, for owners. A lower limit than what is used
    refuses new things and removes none, except that a shorter retention applies to stored messages too."""
    return to_response_for(principal, await services.tenants.update(principal, **body.given()))


@router.delete("/{tenant_id}", status_code=204, summary="Delete a tenant", responses=problems.responses(*problems.IN_TENANT))
async def delete_tenant(services: ServicesDep, principal: InTenant) -> None:
    """Delete the tenant with its agents, channels, subscriptions and messages. For owners. Repeat an interrupted request."""
    await services.tenants.delete(principal)
