"""Publishing over HTTP, and reading what is kept. A message's data is passed on as the text it was; what a message may be is
`services.messaging`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from artcafe import errors
from artcafe.errors import BadJson, Invalid
from artcafe.rest import problems
from artcafe.rest.bodies import body_of, shown_as
from artcafe.rest.dependencies import Parts, settings_of
from artcafe.rest.paging import Listing, PageQuery
from artcafe.rest.principal import ChannelPath, IdempotencyKey, InTenant
from artcafe.rest.schemas import ResponseModel
from artcafe.rules.pages import Page
from artcafe.services.history import place
from artcafe.wire import envelopes, frames

router = APIRouter(prefix="/v1/tenants/{tenant_id}/channels/{channel_id}/messages", tags=["messages"])


class NewMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`frames.Publish` without the channel, which is in the path."""

    data: msgspec.Raw
    key: str | None = None
    headers: Mapping[str, str] | None = None
    reply_to: str | None = None


class Published(ResponseModel):
    """Where the message stands."""

    seq: int | None = Field(description="Rises in a channel and may skip numbers. Null in a `live` channel.", examples=[59])
    message_id: str | None = Field(
        description="Null for a repeat whose first message has been removed since.", examples=["msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"]
    )
    duplicate: bool = Field(description="The message was stored before, under the same key; nothing was stored now.")


SCHEMA: Final[dict[str, Any]] = {
    "title": "NewMessage",
    "description": "A message to publish.",
    "type": "object",
    "additionalProperties": False,
    "required": ["data"],
    "properties": {
        "data": {
            "description": "Any JSON, with numbers below 1.8e308; it is delivered as the text it was.",
            "examples": [{"task": "summarise", "pages": [1, 2]}],
        },
        "key": {
            "type": ["string", "null"],
            "description": "Within 10 minutes one key stores one message. The Idempotency-Key header does the same.",
            "examples": ["order-42"],
        },
        "headers": {"type": ["object", "null"], "additionalProperties": {"type": "string"}, "examples": [{"trace": "7f3a"}]},
        "reply_to": {"type": ["string", "null"], "description": "Where an answer is awaited; its meaning is the agents' own."},
    },
}

_new_message: Final = msgspec.json.Decoder(NewMessage)


async def new_message(request: Request) -> NewMessage:
    """Raises BadJson for a body that is no JSON object, Invalid for a wrong field, and what `RequestBody.read` does."""
    body = await body_of(request).read(settings_of(request).max_body_bytes)
    try:
        str(body, "utf-8")  # msgspec does not look inside a Raw.
        return _new_message.decode(body)
    except UnicodeDecodeError:
        raise BadJson("it is not UTF-8") from None
    except RecursionError:
        raise Invalid("data", f"is nested deeper than {frames.MAX_DEPTH}") from None
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except msgspec.DecodeError as exc:
        raise BadJson(str(exc) if body else "it is empty") from None


def _invalid(text: str) -> BadJson | Invalid:
    """msgspec tells where it stopped at the end of its text: "Expected `str`, got `int` - at `$.key`"."""
    problem, _, place = text.partition(" - at `$")
    problem = problem[:1].lower() + problem[1:]
    if place:
        return Invalid(place.rstrip("`").lstrip("."), problem)
    if "`" not in problem or problem.startswith("expected"):
        return BadJson("it must be an object")
    return Invalid(problem.split("`")[1], "is required" if "missing" in problem else "is not known here")


def _one_key(message: NewMessage, header: str | None) -> str | None:
    if message.key is not None and header is not None and message.key != header:
        raise Invalid("key", "differs from the Idempotency-Key header; send one of them, or both alike")
    return message.key if message.key is not None else header


class HistoryQuery(PageQuery):
    """Which part of the history."""

    after: str | None = Field(None, description="Forward: above this sequence, or from this RFC 3339 time on.", examples=["41"])
    before: str | None = Field(None, description="Below this sequence, or before this RFC 3339 time.")


HISTORY: Final[dict[str, Any]] = {
    "title": "MessagePage",
    "type": "object",
    "required": ["items", "next_cursor"],
    "properties": {
        "items": {"type": "array", "items": {"type": "object", "description": "A message as it is delivered, without `prev`."}},
        "next_cursor": {"type": ["string", "null"]},
        "gap": {
            "type": "object",
            "description": "Only where some of what was asked for is gone: which, both ends included, and why.",
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
        200: {"description": "Messages that are kept.", "content": {"application/json": {"schema": HISTORY}}},
        **problems.responses(*problems.IN_TENANT, errors.ChannelNotFound, *problems.LIST),
    },
)
async def read_history(
    request: Request, parts: Parts, principal: InTenant, channel_id: ChannelPath, query: Annotated[HistoryQuery, Query()]
) -> Response:
    """With `after` oldest first from there; without it newest first, back from `before` or from the end. For every member, and
    for agents that may receive the channel."""
    listing = Listing.of(request, principal.tenant_id, query)
    behind = listing.request.after
    after = None if query.after is None else place(query.after, "after")
    before = None if query.before is None else place(query.before, "before")
    if behind is not None:  # where the page before this one ended
        after, before = (None, int(behind)) if after is None else (int(behind), before)
    past = await parts.history.page(principal, channel_id, after, before, listing.request.limit)
    page = Page(tuple(past.messages), str(past.messages[-1].seq) if past.has_more else None)
    items = b",".join(envelopes.message_text(channel_id, one.seq, one.envelope) for one in page.items)
    cursor = msgspec.json.encode(listing.next_cursor(page))
    told = b"" if past.gap is None else b',"gap":' + msgspec.json.encode(past.gap)
    return Response(b'{"items":[%b],"next_cursor":%b%b}' % (items, cursor, told), media_type="application/json")


@router.post(
    "",
    status_code=201,
    summary="Publish a message",
    response_description="The message is on disk.",
    responses={
        200: {"description": "The message was stored before, under the same key.", "model": Published},
        **problems.responses(
            *problems.BEARER,
            errors.TenantNotFound,
            errors.Forbidden,
            errors.ChannelNotFound,
            errors.KeyReused,
            errors.QuotaFull,
            errors.NotStored,
            errors.OutcomeUnknown,
            *problems.BODY,
        ),
    },
    openapi_extra=shown_as(SCHEMA),
)
async def publish(
    response: Response,
    parts: Parts,
    principal: InTenant,
    channel_id: ChannelPath,
    message: Annotated[NewMessage, Depends(new_message)],
    key: IdempotencyKey = None,
) -> Published:
    """Every subscribed agent gets it. An error says whether it was stored; with a key, publishing again is always safe."""
    reply = await parts.messaging.publish(
        principal,
        channel_id,
        frames.Publish(
            channel=channel_id,
            data=message.data,
            key=_one_key(message, key),
            headers=message.headers,
            reply_to=message.reply_to,
        ),
    )
    if reply.duplicate:
        response.status_code = 200
    return Published(seq=reply.seq, message_id=reply.message_id, duplicate=reply.duplicate)
