"""Routes for subscriptions of agents to channels, listed by channel and by agent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, field_validator

from artcafe import errors, model
from artcafe.assembly import Services
from artcafe.model import TenantId
from artcafe.rest import problems
from artcafe.rest.bodies import Items, json_body, optional_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery, Time
from artcafe.rest.principal import AgentPath, ChannelPath, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.rules.inboxes import owner_of
from artcafe.services.cursor_moves import MoveTarget
from artcafe.services.history import parse_position
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants/{tenant_id}", tags=["subscriptions"])

ONE = (*problems.IN_TENANT, errors.SubscriptionNotFound)


class NewSubscription(RequestModel):
    """The permissions of a subscription."""

    permissions: Items[model.Permission] = Field(
        default_factory=lambda: [model.Permission.RECEIVE],
        min_length=1,
        description="In a managed channel: `receive`, `publish`, or both. If omitted: `receive`, or the existing permissions.",
    )


class SubscriptionChange(RequestModel):
    """Changes of a subscription; omitted fields stay unchanged."""

    status: model.SubscriptionStatus = Field(
        default=model.SubscriptionStatus.ACTIVE,
        description="`paused` stops delivery and keeps the cursor; `active` resumes from it.",
    )
    cursor: int | str = Field(
        default=0,
        description=(
            "The new position, forward or back: a sequence up to which everything counts as acknowledged, `first` (before the"
            " oldest stored message), `last` (after the newest), or a time (before the first message stored then or later)."
        ),
        examples=["first", 41, "2026-11-22T16:50:57Z"],
    )


class CursorResponse(ResponseModel):
    """The acknowledged position in the channel's log `epoch`, which is null before the first message."""

    epoch: str | None
    seq: int = Field(examples=[41])


class SubscriptionResponse(ResponseModel):
    """The subscription of an agent to a channel, with the progress of the agent."""

    id: str = Field(examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2#agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    channel_id: str = Field(examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    channel_handle: str | None = Field(None, description="Null for an inbox, and without a handle.", examples=["news"])
    agent_id: str = Field(examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    agent_handle: str | None = Field(None, examples=["planner"])
    status: model.SubscriptionStatus
    permissions: list[model.Permission]
    cursor: CursorResponse
    lag: int | None = Field(
        None,
        description="The number of the channel's messages above the cursor; null if it is unknown or there is no cursor.",
        examples=[3],
    )
    last_seen: Time | None = Field(
        None,
        description="When the agent was last known to be connected to any server; now, if it is. Null: unknown.",
    )
    created_at: KnownTime
    updated_at: KnownTime

    @field_validator("permissions", mode="before")
    @classmethod
    def _in_order(cls, permissions: frozenset[model.Permission]) -> list[model.Permission]:
        return sorted(permissions)


async def details(services: Services, tenant_id: TenantId, found: Sequence[model.Subscription]) -> list[SubscriptionResponse]:
    """Return subscriptions with handles, and the progress of their agents: one batch for all of them."""
    handles_of = partial(services.record_cache.handles_of, tenant_id)
    channels = await handles_of(model.HandleKind.CHANNEL, [each.channel_id for each in found if not owner_of(each.channel_id)])
    agents = await handles_of(model.HandleKind.AGENT, [each.agent_id for each in found])
    lags = await services.figures.lags(tenant_id, found)
    view, now = await services.presence.view(tenant_id), services.clock()
    seen = [None if view is None else view.last_seen(each.agent_id, now, each.acked_at) for each in found]
    return [
        SubscriptionResponse.model_validate(each).model_copy(
            update={
                "lag": lag,
                "last_seen": at,
                "channel_handle": channels.get(each.channel_id),
                "agent_handle": agents.get(each.agent_id),
            }
        )
        for each, lag, at in zip(found, lags, seen, strict=True)
    ]


async def _detailed(services: Services, subscription: model.Subscription) -> SubscriptionResponse:
    (shown,) = await details(services, subscription.tenant_id, [subscription])
    return shown


class SubscriptionPage(ResponseModel):
    """One page of the subscriptions of a channel or an agent."""

    items: list[SubscriptionResponse]
    next_cursor: str | None


@router.get(
    "/channels/{channel_id}/subscriptions",
    summary="List a channel's subscriptions",
    responses=problems.responses(*problems.IN_TENANT, errors.ChannelNotFound, *problems.LIST),
)
async def list_channel_subscriptions(
    request: Request, services: ServicesDep, principal: InTenant, channel_id: ChannelPath, query: Annotated[PageQuery, Query()]
) -> SubscriptionPage:
    """List the subscriptions to the channel. For members."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.subscriptions.list_of_channel(principal, channel_id, listing.request)
    items = await details(services, principal.tenant_id, page.items)
    return SubscriptionPage(items=items, next_cursor=listing.next_cursor(page))


@router.get(
    "/agents/{agent_id}/subscriptions",
    summary="List an agent's subscriptions",
    responses=problems.responses(*problems.IN_TENANT, errors.AgentNotFound, *problems.LIST),
)
async def list_agent_subscriptions(
    request: Request, services: ServicesDep, principal: InTenant, agent_id: AgentPath, query: Annotated[PageQuery, Query()]
) -> SubscriptionPage:
    """List the subscriptions of the agent. For members and the agent itself."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.subscriptions.list_of_agent(principal, agent_id, listing.request)
    items = await details(services, principal.tenant_id, page.items)
    return SubscriptionPage(items=items, next_cursor=listing.next_cursor(page))


@router.get("/channels/{channel_id}/subscriptions/{agent_id}", summary="Read a subscription", responses=problems.responses(*ONE))
async def read_subscription(
    services: ServicesDep, principal: InTenant, channel_id: ChannelPath, agent_id: AgentPath
) -> SubscriptionResponse:
    """Return the subscription. For members and the agent itself."""
    found = await services.subscriptions.get(principal, channel_id, agent_id)
    return await _detailed(services, found)


@router.put(
    "/channels/{channel_id}/subscriptions/{agent_id}",
    summary="Subscribe an agent to a channel",
    responses={
        201: {"description": "The subscription was created.", "model": SubscriptionResponse},
        **problems.responses(
            *problems.IN_TENANT, errors.ChannelNotFound, errors.AgentNotFound, errors.LimitReached, *problems.BODY
        ),
    },
    response_description="The subscription existed; only its permissions may have changed.",
    openapi_extra=request_schema(NewSubscription, required=False),
)
async def put_subscription(
    response: Response,
    services: ServicesDep,
    principal: InTenant,
    channel_id: ChannelPath,
    agent_id: AgentPath,
    body: Annotated[NewSubscription, Depends(optional_body(NewSubscription))],
) -> SubscriptionResponse:
    """Create the subscription, or change its permissions. It starts after the newest message, and the request may be repeated.

    For members except viewers, and for the agent itself if the channel is open; an agent cannot grant permissions.
    """
    given = body.given()
    permissions = frozenset(body.permissions) if given else None
    subscription, made = await services.subscriptions.put(principal, channel_id, agent_id, permissions)
    if made:
        response.status_code = 201
        response.headers["Location"] = tenant_path(
            subscription.tenant_id, "channels", subscription.channel_id, "subscriptions", subscription.agent_id
        )
    return await _detailed(services, subscription)


@router.patch(
    "/channels/{channel_id}/subscriptions/{agent_id}",
    summary="Change a subscription",
    responses=problems.responses(*ONE, *problems.BODY),
    openapi_extra=request_schema(SubscriptionChange),
)
async def change_subscription(
    services: ServicesDep,
    principal: InTenant,
    channel_id: ChannelPath,
    agent_id: AgentPath,
    body: Annotated[SubscriptionChange, Depends(json_body(SubscriptionChange))],
) -> SubscriptionResponse:
    """Pause or resume delivery, or move its cursor. Messages published during a pause are delivered afterwards.

    After a move, every connection of the agent continues at the new position within 5 s, and acks of messages sent before change
    nothing. For members except viewers, and for the agent itself.
    """
    given = body.given()
    if not given:
        raise errors.Invalid("status", "or cursor is required")
    if "cursor" in given:
        target = _move_target(body.cursor)
        changed = await services.cursor_moves.move(principal, channel_id, agent_id, target)
    if "status" in given:
        changed = await services.subscriptions.set_status(principal, channel_id, agent_id, body.status)
    return await _detailed(services, changed)


def _move_target(cursor: int | str) -> MoveTarget:
    match cursor:
        case "first" | "last":
            return cursor
        case _:
            return parse_position(str(cursor), "cursor")


@router.delete(
    "/channels/{channel_id}/subscriptions/{agent_id}",
    status_code=204,
    summary="Unsubscribe an agent from a channel",
    responses=problems.responses(*ONE),
)
async def delete_subscription(services: ServicesDep, principal: InTenant, channel_id: ChannelPath, agent_id: AgentPath) -> None:
    """Delete the subscription and its cursor. A new subscription starts after the newest message."""
    await services.subscriptions.delete(principal, channel_id, agent_id)
