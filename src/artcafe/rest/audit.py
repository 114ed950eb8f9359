"""A tenant's audit over HTTP: who did what, newest first. What is told there, `services.audit` says."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from artcafe import model
from artcafe.errors import Invalid
from artcafe.rest import problems
from artcafe.rest.dependencies import Parts
from artcafe.rest.paging import Listing, PageQuery, Time
from artcafe.rest.principal import InTenant
from artcafe.rest.schemas import ResponseModel
from artcafe.rules import times
from artcafe.rules.audit_filters import AuditFilter

router = APIRouter(prefix="/v1/tenants/{tenant_id}/audit", tags=["audit"])


class Order(StrEnum):
    NEWEST = "newest"
    OLDEST = "oldest"


class AuditQuery(PageQuery):
    """Which entries to list, and which way to read."""

    order: Order = Field(Order.NEWEST, description="Which comes first.")
    agent: str | None = Field(None, description="Only what this agent, or person as `usr:` and the sub, did or had done to it.")
    action: str | None = Field(
        None, description="Only this action, or all that begin with it and a dot.", examples=["agent.login"]
    )
    since: str | None = Field(None, description="Only from this RFC 3339 time on.", examples=["2026-11-22T16:50:57Z"])
    until: str | None = Field(None, description="Only before this RFC 3339 time.", examples=["2026-11-23T00:00:00Z"])

    def wanted(self) -> AuditFilter:
        """Raises Invalid for a time that is none."""
        return AuditFilter(self.agent, self.action, _time(self.since, "since"), _time(self.until, "until"))


class EntryResponse(ResponseModel):
    """One line of the audit. A change has two: that it is intended, and what became of it."""

    number: int = Field(description="Counts from 1 without a hole.", examples=[17])
    id: str = Field(examples=["aud_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    time: Time
    action: str = Field(examples=["agent.create"])
    actor: str = Field(description="The agent, or `usr:` and the person's sub.", examples=["usr:alice@example.com"])
    outcome: model.Outcome
    target: str | None = Field(description="What it was done to.", examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    facts: dict[str, str] = Field(description="What else is known; `count` where it happened more than once in a minute.")
    address: str | None = Field(description="From where, as the server saw it.", examples=["192.0.2.7"])
    request_id: str | None = Field(examples=["req_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    intent: int | None = Field(description="The number of the entry whose outcome this one tells.", examples=[16])
    before: str = Field(description="The digest of the entry before; empty for the first one.")


class DigestedEntry(EntryResponse):
    """An entry with its digest, which is made of all the others' fields and is not one of them."""

    digest: str = Field(
        description="SHA-256, in hexadecimal, of the entry's other fields as JSON: keys in order, no spaces, UTF-8.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class AuditPage(ResponseModel):
    """A part of the tenant's audit."""

    items: list[DigestedEntry]
    next_cursor: str | None


@router.get(
    "",
    summary="List the audit",
    responses=problems.responses(*problems.IN_TENANT, *problems.LIST),
)
async def list_audit(request: Request, parts: Parts, principal: InTenant, query: Annotated[AuditQuery, Query()]) -> AuditPage:
    """Logins and their failures, refused attempts, and every change of who may do what. Deleting things leaves their entries.

    Entries are found by reading the others, so a page with filters may have fewer than `limit`, or none, and a `next_cursor`.
    """
    listing = Listing.of(request, principal.tenant_id, query)
    page = await parts.audit.page(principal, listing.request, query.wanted(), oldest_first=query.order is Order.OLDEST)
    items = [DigestedEntry(digest=line.digest, **EntryResponse.model_validate(line.entry).model_dump()) for line in page.items]
    return AuditPage(items=items, next_cursor=listing.next_cursor(page))


def _time(text: str | None, field: str) -> datetime | None:
    try:
        return None if text is None else times.from_text(text)
    except ValueError:
        raise Invalid(field, "must be an RFC 3339 time such as 2026-11-22T16:50:57Z") from None
