"""Routes that stream messages as server-sent events. `delivery.streams` does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, ConfigDict, Field

from artcafe import errors
from artcafe.delivery.event_stream import EventStream, StreamTransport
from artcafe.errors import Unauthenticated
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.event_encoding import ServerSentEvents
from artcafe.rest.principal import CachedChannelPath, InTenant, bearer

router = APIRouter(prefix="/v1/tenants/{tenant_id}", tags=["messages"])

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


async def _transport(
    request: Request, services: ServicesDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> StreamTransport:
    if credentials is None:
        raise Unauthenticated
    socket = request.state.transport
    until = await services.authentication.expires_at(credentials.credentials)
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
EVENTS: Final[dict[str, Any]] = {
    "title": "StreamEvent",
    "description": "One event. A comment, `: ping`, follows 15 s without an event.",
    "oneOf": [
        _event(
            "start", "The first event: where the stream begins.", channel=_CHANNEL, epoch={"type": ["string", "null"]}, seq=_SEQ
        ),
        _event("message", "A message, as the gateway pushes it."),
        _event(
            "gap",
            "Messages that are not sent, in the place of the first one. A `to` of null: their number is unknown.",
            channel=_CHANNEL,
            **_GAP,
        ),
        _event(
            "end",
            "The last event: why the stream ends, by the code of an error.",
            code={"type": "string"},
            message={"type": "string"},
            temporary={"type": "boolean", "description": "Whether a stream from the last id can be opened again."},
        ),
    ],
}


@router.get(
    "/channels/{channel_id}/messages/stream",
    summary="Read a channel's messages as a stream",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events, until the client or the last event, `end`, ends them.",
            "content": {EventSourceResponse.media_type: {"itemSchema": EVENTS}},
        },
        **problems.responses(
            *problems.IN_TENANT,
            errors.ChannelNotFound,
            errors.BadEventId,
            errors.Invalid,
            errors.RateLimited,
            errors.ConnectionLimit,
            errors.Overloaded,
        ),
    },
)
async def stream_messages(request: Request, stream: Annotated[EventStream, Depends(_channel_stream)]) -> Response:
    """Send messages as they are published, and first those after `Last-Event-ID` or `after`. Nothing is acknowledged by it.

    For members, and for agents that may receive the channel. It ends when the token expires, the access is revoked, or the server
    stops; any server continues it from the last `id`.
    """
    return _respond(request, stream)


def _respond(request: Request, stream: EventStream) -> Response:
    """Return the response that writes a stream's events. No proxy may keep them back; a HEAD request gets the head only."""
    request.state.is_stream = True
    events: Any = () if request.state.is_head else stream.chunks()
    return EventSourceResponse(events, headers={"X-Accel-Buffering": "no"})
