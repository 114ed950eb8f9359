"""Routes for scheduled messages of a channel: list them, and cancel one."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response

from artcafe import errors
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Listing, PageQuery
from artcafe.rest.principal import ChannelPath, InTenant
from artcafe.wire import envelopes

router = APIRouter(prefix="/v1/tenants/{tenant_id}/channels/{channel_id}/scheduled", tags=["messages"])

MessagePath = Annotated[str, Path(description="The scheduled message's id.", examples=["msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])]

PAGE: Final[dict[str, Any]] = {
    "title": "ScheduledPage",
    "type": "object",
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {
            "type": "array",
            "items": {"type": "object", "description": "A message as it will be delivered, without `seq` and `prev`."},
        },
        "next_cursor": {"type": ["string", "null"]},
    },
}


@router.get(
    "",
    summary="List a channel's scheduled messages",
    response_class=Response,
    responses={
        200: {"description": "One page of scheduled messages.", "content": {"application/json": {"schema": PAGE}}},
        **problems.responses(*problems.IN_TENANT, errors.ChannelNotFound, *problems.LIST),
    },
)
async def list_scheduled(
    request: Request, services: ServicesDep, principal: InTenant, channel_id: ChannelPath, query: Annotated[PageQuery, Query()]
) -> Response:
    """Return the messages that are to be delivered later, in the order of their delivery. An agent sees its own only."""
    listing = Listing.of(request, principal.tenant_id, query)
    found, page = await services.scheduled.list(principal, channel_id, listing.request)
    channel = envelopes.channel_text(found.id, found.handle)
    items = b",".join(envelopes.scheduled_text(channel, each.envelope) for each in page.items)
    cursor = msgspec.json.encode(listing.next_cursor(page))
    return Response(b'{"items":[%b],"next_cursor":%b}' % (items, cursor), media_type="application/json")


@router.delete(
    "/{message_id}",
    status_code=204,
    summary="Cancel a scheduled message",
    responses=problems.responses(
        *problems.IN_TENANT,
        errors.ChannelNotFound,
        errors.ScheduledNotFound,
        errors.AlreadyDelivered,
        errors.QuotaFull,
    ),
)
async def cancel_scheduled(services: ServicesDep, principal: InTenant, channel_id: ChannelPath, message_id: MessagePath) -> None:
    """Cancel a message that was not delivered yet: it never is. For members, and for the agent that published it. May be
    repeated."""
    await services.scheduled.cancel(principal, channel_id, message_id)
