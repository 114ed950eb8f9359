"""Route for the audit of a tenant. `services.audit` writes the entries."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from artcafe import model
from artcafe.errors import Invalid
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
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
    """Filters and order of a list of audit entries."""

    order: Order = Field(Order.NEWEST, description="Which entries come first.")
    agent: str | None = Field(
        None, description="Only entries with this actor or target: an agent's id, or `usr:` and a user's id."
    )
    action: str | None = Field(
        None, description="Only this action, or all actions that start with it and a dot.", examples=["agent.login"]
    )
    since: str | None = Field(None, description="Only entries from this RFC 3339 time on.", examples=["2026-11-22T16:50:57Z"])
    until: str | None = Field(None, description="Only entries before this RFC 3339 time.", examples=["2026-11-23T00:00:00Z"])

    def wanted(self) -> AuditFilter:
        """Return the filter. Raises Invalid for an invalid time."""
        return AuditFilter(self.agent, self.action, _time(self.since, "since"), _time(self.until, "until"))


class EntryResponse(ResponseModel):
    """One audit entry. A change has two entries: one before it, and one with its outcome."""

    number: int = Field(description="Counts from 1 without gaps.", examples=[17])
    id: str = Field(examples=["aud_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    time: Time
    action: str = Field(examples=["agent.create"])
    actor: str = Field(description="The agent's id, or `usr:` and the user's id.", examples=["usr:alice@example.com"])
    outcome: model.Outcome
    target: str | None = Field(description="The id of the affected record.", examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    facts: dict[str, str] = Field(description="Further facts; `count` for an event repeated within a minute.")
    address: str | None = Field(description="The client's IP address, as seen by the server.", examples=["192.0.2.7"])
    request_id: str | None = Field(examples=["req_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    intent: int | None = Field(description="With an outcome: the number of the entry before the change.", examples=[16])
    before: str = Field(description="The digest of the previous entry; empty for the first one.")


class DigestedEntry(EntryResponse):
    """An audit entry with the digest of all its other fields."""

    digest: str = Field(
        description="SHA-256 in hexadecimal of the entry's other fields as JSON: sorted keys, no spaces, UTF-8.",
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    )


class AuditPage(ResponseModel):
    """One page of the tenant's audit."""

    items: list[DigestedEntry]
    next_cursor: str | None


@router.get(
    "",
    summary="List the audit",
    responses=problems.responses(*problems.IN_TENANT, *problems.LIST),
)
async def list_audit(
    request: Request, services: ServicesDep, principal: InTenant, query: Annotated[AuditQuery, Query()]
) -> AuditPage:
    """List logins, failed logins, refused attempts, and changes of access. For owners and admins.

    Entries about deleted records remain.

    Filters are applied while reading, so a page can have fewer entries than `limit`, even none, and still a `next_cursor`.
    """
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.audit.list(principal, listing.request, query.wanted(), oldest_first=query.order is Order.OLDEST)
    items = [DigestedEntry(digest=line.digest, **EntryResponse.model_validate(line.entry).model_dump()) for line in page.items]
    return AuditPage(items=items, next_cursor=listing.next_cursor(page))


def _time(text: str | None, field: str) -> datetime | None:
    try:
        return None if text is None else times.from_text(text)
    except ValueError:
        raise Invalid(field, "must be an RFC 3339 time such as 2026-11-22T16:50:57Z") from None
