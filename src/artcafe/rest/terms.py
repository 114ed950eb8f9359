"""The terms of the service: read, and accepted by people. Beside `/v1/me`, all that somebody may who has not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from artcafe import errors
from artcafe.rest import problems
from artcafe.rest.bodies import optional_body, takes
from artcafe.rest.dependencies import Parts
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import AnyPerson, NeedlessKey
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(prefix="/v1/terms", tags=["terms"])


class CurrentTermsResponse(ResponseModel):
    """What people accept before they do anything. `version` is null where there is nothing to accept."""

    version: str | None = Field(examples=["2026-11"])
    text: str | None = Field(description="The whole text; null where the operator serves it elsewhere.")
    grace_until: Time | None = Field(description="Until then, whoever accepted an earlier version goes on without this one.")


class TermsAcceptanceResponse(ResponseModel):
    """That a person has accepted a version. It never changes."""

    user_id: str = Field(examples=["5d0e1c1e-8f0b-4f5e-9a70-0d6a6f1f8a11"])
    version: str = Field(examples=["2026-11"])
    accepted_at: KnownTime
    ip_address: str = Field(description="Where the call came from, as the server saw it.", examples=["203.0.113.7"])


class AcceptancePage(ResponseModel):
    """A part of what the caller has accepted."""

    items: list[TermsAcceptanceResponse]
    next_cursor: str | None


class NewTermsAcceptance(RequestModel):
    """What is accepted."""

    version: str | None = Field(
        None, description="The version that was read; refused when it is not the current one any more.", examples=["2026-11"]
    )


@router.get("", summary="Read the terms", responses=problems.responses(*problems.BEARER, errors.Forbidden))
async def read_terms(parts: Parts, _user: AnyPerson) -> CurrentTermsResponse:
    """For every person, also before they have accepted."""
    current = parts.terms.current
    if current is None:
        return CurrentTermsResponse(version=None, text=None, grace_until=None)
    return CurrentTermsResponse(version=current.version, text=current.text, grace_until=current.grace_until)


@router.get(
    "/acceptances",
    summary="List what the caller has accepted",
    responses=problems.responses(*problems.BEARER, errors.Forbidden, *problems.LIST),
)
async def list_acceptances(
    request: Request, parts: Parts, user: AnyPerson, query: Annotated[PageQuery, Query()]
) -> AcceptancePage:
    """Every version, with when and from where."""
    listing = Listing.of(request, f"usr:{user}", query)
    page = await parts.terms.list(user, listing.request)
    items = [TermsAcceptanceResponse.model_validate(each) for each in page.items]
    return AcceptancePage(items=items, next_cursor=listing.next_cursor(page))


@router.post(
    "/acceptances",
    status_code=201,
    summary="Accept the terms",
    responses=problems.responses(*problems.BEARER, errors.Forbidden, errors.TermsChanged, errors.Conflict, *problems.BODY),
    openapi_extra=takes(NewTermsAcceptance, required=False),
)
async def accept_terms(
    parts: Parts,
    user: AnyPerson,
    body: Annotated[NewTermsAcceptance, Depends(optional_body(NewTermsAcceptance))],
    _key: NeedlessKey = None,
) -> TermsAcceptanceResponse:
    """Time and address are the server's. What was accepted before is answered as it was noted then."""
    return TermsAcceptanceResponse.model_validate(await parts.terms.accept(user, body.version))
