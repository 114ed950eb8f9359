"""Route for what a tenant used. `services.usage` reads it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Listing, PageQuery, Time
from artcafe.rest.principal import InTenant
from artcafe.rest.schemas import ResponseModel
from artcafe.rules.pages import Page
from artcafe.rules.usage import Metric
from artcafe.services import usage

router = APIRouter(prefix="/v1/tenants/{tenant_id}/usage", tags=["usage"])


class UsageQuery(PageQuery):
    """The requested usage."""

    period: str | None = Field(
        None,
        description="A month, day or hour of UTC: `2026-11`, `2026-11-28` or `2026-11-28T10`. Default: the current month.",
        examples=["2026-11"],
    )
    metric: str | None = Field(None, description="Only this metric.", examples=["messages_stored"])
    by: str | None = Field(
        None,
        description="Divide each metric by `agent` (the sender or receiver; `usr:` and an id for a user) or by `channel`. For a"
        " day or month.",
    )
    every: str | None = Field(None, description="List each `day` or `hour` in the period, instead of the period.")


class UsageBound(ResponseModel):
    """How inexact a value is: at most `missing` are missing, or what `servers` servers counted in `seconds` seconds."""

    missing: int | None = Field(None, description="Null if it is unknown how many are missing.")
    servers: int | None = Field(None, examples=[1])
    seconds: int | None = Field(None, examples=[60])

    @classmethod
    def of(cls, bound: usage.Bound) -> UsageBound:
        """Convert a bound of the service."""
        names = ("missing",) if bound.servers is None else ("servers", "seconds")
        return cls(**{name: getattr(bound, name) for name in names})


class UsageItem(ResponseModel):
    """A metric of the tenant in a period, or the part of an agent or a channel in it."""

    name: Metric
    value: int | None = Field(description="Null if it is unknown, because nothing was counted in the period.", examples=[1207])
    period: str = Field(examples=["2026-11"])
    timestamp: Time | None = Field(description="When the value was last written.")
    exact: bool = Field(description="Whether nothing is missing and nothing more can come.")
    bound: UsageBound | None = Field(None, description="Present if the value is known, but not exact.")
    highest: int | None = Field(None, description="The highest value in the period, of a metric that is measured.")
    agent: str | None = Field(None, description="With `by=agent`.", examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    channel: str | None = Field(None, description="With `by=channel`.", examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])

    @classmethod
    def of(cls, item: usage.UsageItem) -> UsageItem:
        """Convert an item of the service."""
        known: dict[str, Any] = {
            "name": item.key.metric,
            "value": item.value,
            "period": item.key.period.text,
            "timestamp": item.timestamp,
            "exact": item.is_exact,
        }
        if item.bound is not None:
            known["bound"] = UsageBound.of(item.bound)
        if item.highest is not None:
            known["highest"] = item.highest
        if item.key.part is not None:
            known[item.key.part.by.value] = item.key.part.id
        return cls(**known)


class UsageResponse(ResponseModel):
    """One page of the tenant's usage."""

    items: list[UsageItem]
    next_cursor: str | None
    as_of: Time | None = Field(description="Everything before this time is counted; null if nothing was counted yet.")


@router.get(
    "",
    summary="Read the usage",
    response_model_exclude_unset=True,
    responses=problems.responses(*problems.IN_TENANT, *problems.LIST),
)
async def read_usage(
    request: Request, services: ServicesDep, principal: InTenant, query: Annotated[UsageQuery, Query()]
) -> UsageResponse:
    """Return what the tenant used: by period and metric, or with `by` by metric and id. For owners and admins.

    Totals trail by at most 60 seconds; `as_of` says up to when everything is counted.
    """
    wanted = services.usage.query(query.period, query.metric, query.by, query.every)
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.usage.page(principal, wanted, listing.request)
    cursor = listing.next_cursor(Page(page.items, page.next))
    return UsageResponse(items=[UsageItem.of(item) for item in page.items], next_cursor=cursor, as_of=page.as_of)
