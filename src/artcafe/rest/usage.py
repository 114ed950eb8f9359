"""Route for what a tenant used. `services.usage` reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from artcafe import errors
from artcafe.model import USER_PREFIX, HandleKind
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Listing, PageQuery, Time
from artcafe.rest.principal import InTenant
from artcafe.rest.schemas import ResponseModel
from artcafe.rest.slow_json import SlowJsonResponse
from artcafe.rules.pages import Page
from artcafe.rules.usage import Metric
from artcafe.services import usage
from artcafe.services.recount import RecountResult, Verdict

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
    exact: bool = Field(description="Whether everything before `as_of` is certainly counted, once.")
    bound: UsageBound | None = Field(None, description="Present if the value is known, but not exact.")
    highest: int | None = Field(None, description="The highest value in the period, of a metric that is measured.")
    agent: str | None = Field(None, description="With `by=agent`.", examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    agent_handle: str | None = Field(None, description="With `by=agent`, if the agent has one now.", examples=["planner"])
    channel: str | None = Field(None, description="With `by=channel`.", examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    channel_handle: str | None = Field(None, description="With `by=channel`, if the channel has one now.", examples=["news"])

    @classmethod
    def of(cls, item: usage.UsageItem, handles: Mapping[str, str]) -> UsageItem:
        """Convert an item of the service. `handles`: of agents or channels, by id."""
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
            name, id = item.key.part.by.value, item.key.part.id
            known |= {name: id} | ({f"{name}_handle": handles[id]} if id in handles else {})
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
    page = await services.usage.list(principal, wanted, listing.request)
    cursor = listing.next_cursor(Page(page.items, page.next))
    kind = HandleKind.CHANNEL if query.by == "channel" else HandleKind.AGENT
    parts = [each.key.part.id for each in page.items if each.key.part and not each.key.part.id.startswith(USER_PREFIX)]
    handles = await services.record_cache.handles_of(principal.tenant_id, kind, parts)
    return UsageResponse(items=[UsageItem.of(item, handles) for item in page.items], next_cursor=cursor, as_of=page.as_of)


class RecountQuery(BaseModel):
    """The period to recount."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    period: str | None = Field(None, description="As in `GET …/usage`.", examples=["2026-11"])


class RecountComparison(ResponseModel):
    """A period as counted in its row, and as found in the log. A count of null: there is no row."""

    period: str = Field(examples=["2026-11-28T10"])
    verdict: Verdict = Field(
        description="`removed`: fewer messages are stored than were counted, and at least as many were removed. `uncertain`: the"
        " row is not exact, and the difference is within its bound."
    )
    counted_messages: int | None
    found_messages: int
    counted_bytes: int | None
    found_bytes: int
    removed: int = Field(description="Sequences without a message between the first and the last counted one.")
    counted_first_seq: int | None
    counted_last_seq: int | None
    found_first_seq: int | None
    found_last_seq: int | None


class RecountResponse(ResponseModel):
    """The comparison of the tenant's log with its usage."""

    period: str = Field(examples=["2026-11"])
    equal: bool = Field(description="Whether no period is `different`.")
    whole: bool = Field(description="Whether every message of the period is still in the log.")
    as_of: Time | None
    up_to: int = Field(description="The last sequence that is counted and compared.")
    messages_read: int
    compared: list[RecountComparison] = Field(description="By hour, or by day or month where rows of hours have expired.")
    sums: list[RecountComparison] = Field(description="Longer periods whose rows are not the sum of these.")

    @classmethod
    def of(cls, result: RecountResult) -> RecountResponse:
        """Convert a result of the service."""
        return cls(
            period=result.period,
            equal=not result.differences,
            whole=result.is_whole,
            as_of=result.as_of,
            up_to=result.up_to,
            messages_read=result.messages_read,
            compared=[RecountComparison.model_validate(each) for each in result.compared],
            sums=[RecountComparison.model_validate(each) for each in result.sums],
        )


@router.get(
    "/recount",
    summary="Check the usage by a recount",
    response_class=Response,
    response_model=None,
    responses={
        200: {"description": "The comparison. White space precedes it while it is made.", "model": RecountResponse},
        **problems.responses(*problems.IN_TENANT, errors.Invalid),
    },
)
async def recount(services: ServicesDep, principal: InTenant, query: Annotated[RecountQuery, Query()]) -> Response:
    """Return a comparison of the usage with the messages in the tenant's log, counted again. For owners and admins.

    A million messages take about a minute. Changes nothing.
    """

    async def work() -> bytes:
        result = await services.usage_recounts.recount(principal, query.period)
        return RecountResponse.of(result).model_dump_json().encode()

    return SlowJsonResponse(work)
