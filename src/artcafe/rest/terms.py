"""Routes for the terms of service. Users who have not accepted them can use only these routes and `/v1/me`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from artcafe import errors
from artcafe.rest import problems
from artcafe.rest.bodies import optional_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import AnyPerson, NeedlessKey
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(prefix="/v1/terms", tags=["terms"])


class CurrentTermsResponse(ResponseModel):
    """The current terms, which users accept before anything else. `version` is null if there are none."""

    version: str | None = Field(examples=["2026-11"])
    text: str | None = Field(description="The complete text; null if the operator publishes it elsewhere.")
    grace_until: Time | None = Field(
        description="Until this time, users who accepted an earlier version can continue without this one."
    )


class TermsAcceptanceResponse(ResponseModel):
    """The acceptance of a version by a user. It is immutable."""

    user_id: str = Field(examples=["5d0e1c1e-8f0b-4f5e-9a70-0d6a6f1f8a11"])
    version: str = Field(examples=["2026-11"])
    accepted_at: KnownTime
    ip_address: str = Field(description="The caller's IP address, as seen by the server.", examples=["203.0.113.7"])


class AcceptancePage(ResponseModel):
    """One page of the caller's acceptances."""

    items: list[TermsAcceptanceResponse]
    next_cursor: str | None


class NewTermsAcceptance(RequestModel):
    """The version to accept."""

    version: str | None = Field(
        None, description="The version that the user read; refused if it is no longer the current one.", examples=["2026-11"]
    )


@router.get("", summary="Read the terms", responses=problems.responses(*problems.BEARER, errors.Forbidden))
async def read_terms(services: ServicesDep, _user: AnyPerson) -> CurrentTermsResponse:
    """Return the current terms. For all users, also before they accepted."""
    current = services.terms.current
    if current is None:
        return CurrentTermsResponse(version=None, text=None, grace_until=None)
    return CurrentTermsResponse(version=current.version, text=current.text, grace_until=current.grace_until)


@router.get(
    "/acceptances",
    summary="List the caller's acceptances",
    responses=problems.responses(*problems.BEARER, errors.Forbidden, *problems.LIST),
)
async def list_acceptances(
    request: Request, services: ServicesDep, user: AnyPerson, query: Annotated[PageQuery, Query()]
) -> AcceptancePage:
    """List every accepted version, with time and IP address."""
    listing = Listing.of(request, f"usr:{user}", query)
    page = await services.terms.list(user, listing.request)
    items = [TermsAcceptanceResponse.model_validate(each) for each in page.items]
    return AcceptancePage(items=items, next_cursor=listing.next_cursor(page))


@router.post(
    "/acceptances",
    status_code=201,
    summary="Accept the terms",
    responses=problems.responses(*problems.BEARER, errors.Forbidden, errors.TermsChanged, errors.Conflict, *problems.BODY),
    openapi_extra=request_schema(NewTermsAcceptance, required=False),
)
async def accept_terms(
    services: ServicesDep,
    user: AnyPerson,
    body: Annotated[NewTermsAcceptance, Depends(optional_body(NewTermsAcceptance))],
    _key: NeedlessKey = None,
) -> TermsAcceptanceResponse:
    """Accept the terms. The server records time and IP address; a repeated acceptance returns the first record."""
    return TermsAcceptanceResponse.model_validate(await services.terms.accept(user, body.version))
