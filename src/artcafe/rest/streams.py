"""Routes that stream messages as server-sent events. `delivery.streams` does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field

from artcafe import errors
from artcafe.delivery.event_stream import EventStream, StreamTransport
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.event_encoding import ServerSentEvents
from artcafe.rest.principal import AgentPath, CachedChannelPath, InTenant, TokenExpiry

router = APIRouter(prefix="/v1/tenants/{tenant_id}")

ENCODING: Final = ServerSentEvents()

LastEventId = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="The `id` of the last event of an earlier stream: this one continues after it."),
]


class StreamQuery(BaseModel):
    """Where a channel's stream begins without a `Last-Event-ID`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: int | None = Field(
        None,
        ge=0,
        le=2**53,
        description="Begin with the messages above this sequence that are stored, 0 for all. Without it: with new messages.",
    )


async def _transport(request: Request, until: TokenExpiry) -> StreamTransport:
    socket = request.state.transport
    return StreamTransport(ENCODING, until, socket.get_write_buffer_size, socket.abort)


async def _channel_stream(
    services: ServicesDep,
    principal: InTenant,
    channel_id: CachedChannelPath,
    transport: Annotated[StreamTransport, Depends(_transport)],
    query: Annotated[StreamQuery, Query()],
    last_event_id: LastEventId = None,
) -> AsyncIterator[EventStream]:
    """Yield an open stream, which ends with the response."""
    async with services.streams.channel(principal, channel_id, transport, query.after, last_event_id) as stream:
        yield stream


async def _inbox_stream(
    services: ServicesDep,
    principal: InTenant,
    agent_id: AgentPath,
    transport: Annotated[StreamTransport, Depends(_transport)],
    last_event_id: LastEventId = None,
) -> AsyncIterator[EventStream]:
    """Yield an open stream, which ends with the response."""
    async with services.streams.inbox(principal, agent_id, transport, last_event_id) as stream:
        yield stream


def _event(name: str, description: str, **data: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of one kind of event."""
    content = {"type": "object", "required": list(data), "properties": data} if data else {"type": "object"}
    return {
        "type": "object",
        "description": description,
        "required": ["event", "data"],
        "properties": {
            "event": {"const": name},
            "id": {"type": "string", "description": "The position after this event, for `Last-Event-ID`."},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": content},
        },
    }


_CHANNEL: Final = {"type": "string", "description": "The channel's id."}
_SEQ: Final[dict[str, Any]] = {"type": ["integer", "null"]}
_GAP: Final[dict[str, dict[str, Any]]] = {
    "from": {"type": "integer"},
    "to": _SEQ,
    "reason": {"type": "string", "enum": ["retention", "epoch", "expired"]},
}
_ERROR: Final[dict[str, dict[str, Any]]] = {
    "code": {"type": "string", "description": "The code of an error."},
    "message": {"type": "string"},
    "temporary": {"type": "boolean", "description": "Whether it can succeed later."},
}
_MESSAGE: Final = _event("message", "A message, as the gateway pushes it.")
_GAP_EVENT: Final = _event(
    "gap",
    "Messages that are not sent, in the place of the first one. A `to` of null: their number is unknown.",
    channel=_CHANNEL,
    **_GAP,
)
_END: Final = _event("end", "The last event: why the stream ends. A temporary one can be continued from the last id.", **_ERROR)
_POSITION: Final = {"epoch": {"type": ["string", "null"]}, "seq": _SEQ}
CHANNEL_EVENTS: Final[dict[str, Any]] = {
    "title": "ChannelStreamEvent",
    "description": "One event. A comment, `: ping`, follows 15 s without an event.",
    "oneOf": [
        _event("start", "The first event: where the stream begins.", channel=_CHANNEL, **_POSITION),
        _MESSAGE,
        _GAP_EVENT,
        _END,
    ],
}
INBOX_EVENTS: Final[dict[str, Any]] = {
    "title": "InboxStreamEvent",
    "description": CHANNEL_EVENTS["description"],
    "oneOf": [
        _event("start", "The first event.", agent={"type": "string", "description": "The agent's id."}),
        _MESSAGE,
        _GAP_EVENT,
        _event("moved", "A request has set the cursor of a channel, whose delivery begins after it.", channel=_CHANNEL),
        _event("problem", "An error that does not end the stream, such as channels that are not delivered.", **_ERROR),
        _END,
    ],
}
REFUSALS: Final = (
    *problems.IN_TENANT,
    errors.BadEventId,
    errors.Invalid,
    errors.RateLimited,
    errors.ConnectionLimit,
    errors.Overloaded,
    errors.ShuttingDown,
)


def _streamed(events: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the documentation of a successful response."""
    description = "Server-sent events, until the client or the last event, `end`, ends them."
    return {200: {"description": description, "content": {EventSourceResponse.media_type: {"itemSchema": events}}}}


@router.get(
    "/channels/{channel_id}/messages/stream",
    tags=["messages"],
    summary="Read a channel's messages as a stream",
    response_class=Response,
    responses={**_streamed(CHANNEL_EVENTS), **problems.responses(*REFUSALS, errors.ChannelNotFound)},
)
async def stream_messages(request: Request, stream: Annotated[EventStream, Depends(_channel_stream)]) -> Response:
    """Send messages as they are published, and first those after `Last-Event-ID` or `after`. Nothing is acknowledged by it.

    For members, and for agents that may receive the channel. It ends when the token expires, the access is revoked, or the server
    stops; any server continues it from the last `id`.
    """
    return _respond(request, stream)


@router.get(
    "/agents/{agent_id}/inbox/stream",
    tags=["inbox"],
    summary="Read an agent's inbox as a stream",
    response_class=Response,
    responses={**_streamed(INBOX_EVENTS), **problems.responses(*REFUSALS)},
)
async def stream_inbox(request: Request, stream: Annotated[EventStream, Depends(_inbox_stream)]) -> Response:
    """Send messages of the agent's active subscriptions, and its direct messages, from its cursors on. Nothing is acknowledged by
    it, and no message of a queue is sent.

    For that agent only. An `id` has the position in every channel, sealed for the agent: any server continues from it.
    """
    return _respond(request, stream)


def _respond(request: Request, stream: EventStream) -> Response:
    """Return the response that writes a stream's events. No proxy may keep them back; a HEAD request gets the head only."""
    request.state.is_stream = True
    events: Any = () if request.state.is_head else stream.chunks()
    return EventSourceResponse(events, headers={"X-Accel-Buffering": "no"})
