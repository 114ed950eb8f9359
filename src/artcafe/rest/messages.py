"""Routes to publish messages and to read the history of a channel.

A message's data is forwarded as the original JSON text. `services.messaging` validates messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from artcafe import errors
from artcafe.errors import Invalid
from artcafe.rest import problems, rate_headers
from artcafe.rest.bodies import read_raw_json, shown_as
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Listing, PageQuery
from artcafe.rest.principal import CachedChannelPath, IdempotencyKey, InTenant
from artcafe.rest.schemas import ResponseModel
from artcafe.rules.pages import Page
from artcafe.rules.plans import Limit
from artcafe.services.history import parse_position
from artcafe.wire import envelopes, frames

router = APIRouter(prefix="/v1/tenants/{tenant_id}/channels/{channel_id}/messages", tags=["messages"])


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `frames.Publish` without the channel, which is in the path."""

    data: msgspec.Raw
    key: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None
    caused_by: frames.CausedBy | None = None
    expires_at: str | None = None
    deliver_at: str | None = None


class Published(ResponseModel):
    """The receipt of a published message."""

    seq: int | None = Field(
        description=(
            "The sequence, which increases within a channel and may skip numbers. Null in a `live` channel, and for a scheduled"
            " message, which gets one when it is due."
        ),
        examples=[59],
    )
    message_id: str | None = Field(
        description="Null for a duplicate whose original message was removed.", examples=["msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"]
    )
    duplicate: bool = Field(description="Whether the message was stored by an earlier request with the same key.")
    subscribers: int | None = Field(
        None, description="The active subscriptions that receive the channel. Null: not known at this moment.", examples=[3]
    )
    connected: int | None = Field(
        None, description="How many of these agents are connected now, to any server. Null: not known.", examples=[2]
    )


SCHEMA: Final[dict[str, Any]] = {
    "title": "NewMessage",
    "description": "A message to publish.",
    "type": "object",
    "additionalProperties": False,
    "required": ["data"],
    "properties": {
        "data": {
            "description": "Any JSON value, with numbers below 1.8e308; the text is delivered unchanged.",
            "examples": [{"task": "summarise", "pages": [1, 2]}],
        },
        "key": {
            "type": ["string", "null"],
            "description": "Within 10 minutes, one key stores one message. The Idempotency-Key header does the same.",
            "examples": ["order-42"],
        },
        "headers": {"type": ["object", "null"], "additionalProperties": {"type": "string"}, "examples": [{"trace": "7f3a"}]},
        "reply_to": {"type": ["string", "null"], "description": "Where replies are expected; agents define its meaning."},
        "expires_at": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "Subscribers do not get the message from this RFC 3339 time on: a gap with the reason `expired`.",
        },
        "deliver_at": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": (
                "Store the message now, and deliver it to the channel at this RFC 3339 time, at most 30 days ahead. Until then it"
                " can be listed and cancelled."
            ),
        },
        "caused_by": {
            "description": (
                "The message that this one answers: its position, or its id. The server counts the messages of a chain of"
                " answers, and refuses those above the plan's limits with `loop_stopped`."
            ),
            "examples": [{"channel": "chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2", "seq": 58}],
            "anyOf": [
                {"type": "null"},
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["channel", "seq"],
                    "properties": {
                        "channel": {"type": "string"},
                        "seq": {"type": "integer", "minimum": 1},
                        "message_id": {"type": ["string", "null"], "description": "The id that the message there must have."},
                    },
                },
            ],
        },
    },
}

_new_message: Final = msgspec.json.Decoder(NewMessage)


async def new_message(request: Request) -> NewMessage:
    """Parse the body. Raises as `read_raw_json` does."""
    return await read_raw_json(request, _new_message)


def _one_key(message: NewMessage, header: str | None) -> str | None:
    if message.key is not None and header is not None and message.key != header:
        raise Invalid("key", "differs from the Idempotency-Key header; send one of them, or equal values")
    return message.key if message.key is not None else header


class HistoryQuery(PageQuery):
    """The requested range of the history."""

    after: str | None = Field(
        None, description="Read forward: above this sequence, or from this RFC 3339 time on.", examples=["41"]
    )
    before: str | None = Field(None, description="Messages below this sequence, or before this RFC 3339 time.")


HISTORY: Final[dict[str, Any]] = {
    "title": "MessagePage",
    "type": "object",
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {
            "type": "array",
            "items": {"type": "object", "description": "A message as delivered by the gateway, without `prev`."},
        },
        "next_cursor": {"type": ["string", "null"]},
        "gap": {
            "type": "object",
            "description": "Present if requested messages are no longer stored: their inclusive range, and the reason.",
            "required": ["from", "to", "reason"],
            "properties": {"from": {"type": "integer"}, "to": {"type": ["integer", "null"]}, "reason": {"type": "string"}},
        },
    },
}


@router.get(
    "",
    summary="Read a channel's history",
    response_class=Response,
    responses={
        200: {"description": "One page of stored messages.", "content": {"application/json": {"schema": HISTORY}}},
        **problems.responses(*problems.IN_TENANT, errors.ChannelNotFound, *problems.LIST),
    },
)
async def read_history(
    request: Request,
    services: ServicesDep,
    principal: InTenant,
    channel_id: CachedChannelPath,
    query: Annotated[HistoryQuery, Query()],
) -> Response:
    """Return stored messages: oldest first with `after`, otherwise newest first, back from `before` or from the end.

    For members, and for agents that may receive the channel.
    """
    listing = Listing.of(request, principal.tenant_id, query)
    previous_end = listing.request.after
    after = None if query.after is None else parse_position(query.after, "after")
    before = None if query.before is None else parse_position(query.before, "before")
    if previous_end is not None:
        after, before = (None, int(previous_end)) if after is None else (int(previous_end), before)
    past = await services.history.list(principal, channel_id, after, before, listing.request.limit)
    page = Page(tuple(past.messages), str(past.messages[-1].seq) if past.has_more else None)
    channel = envelopes.channel_text(past.channel.id, past.channel.handle)
    items = b",".join(envelopes.message_text(channel, one.seq, one.envelope) for one in page.items)
    cursor = msgspec.json.encode(listing.next_cursor(page))
    gap = b"" if past.gap is None else b',"gap":' + msgspec.json.encode(past.gap)
    return Response(b'{"items":[%b],"next_cursor":%b%b}' % (items, cursor, gap), media_type="application/json")


@router.post(
    "",
    status_code=201,
    summary="Publish a message",
    response_description="The message is on disk.",
    responses={
        200: {"description": "The message was stored by an earlier request with the same key.", "model": Published},
        **problems.responses(
            *problems.BEARER,
            errors.TenantNotFound,
            errors.Forbidden,
            errors.ChannelNotFound,
            errors.KeyReused,
            errors.CauseNotFound,
            errors.LoopStopped,
            errors.LimitReached,
            errors.ScheduledLimit,
            errors.QuotaFull,
            errors.NotStored,
            errors.OutcomeUnknown,
            *problems.BODY,
        ),
    },
    openapi_extra=shown_as(SCHEMA),
)
async def publish(
    request: Request,
    response: Response,
    services: ServicesDep,
    principal: InTenant,
    channel_id: CachedChannelPath,
    message: Annotated[NewMessage, Depends(new_message)],
    key: IdempotencyKey = None,
) -> Published:
    """Publish a message to all subscribed agents. An error says whether it was stored; with a key, a retry is always safe."""
    rate_headers.show(request.scope, services.rate_limits, principal.tenant_id, Limit.MESSAGES_A_MINUTE)
    reply = await services.messaging.publish(
        principal,
        channel_id,
        frames.Publish(
            channel=channel_id,
            data=message.data,
            key=_one_key(message, key),
            headers=message.headers,
            reply_to=message.reply_to,
            caused_by=message.caused_by,
            expires_at=message.expires_at,
            deliver_at=message.deliver_at,
        ),
    )
    if reply.duplicate:
        response.status_code = 200
    return Published.model_validate(reply)
