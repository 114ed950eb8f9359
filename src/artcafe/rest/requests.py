"""The route to send a request to an agent, and to wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Header, Request, Response

from artcafe import errors
from artcafe.assembly import Services
from artcafe.errors import Invalid
from artcafe.model import Principal
from artcafe.rest import problems, rate_headers
from artcafe.rest.bodies import Disconnected, body_of, read_raw_json, shown_as
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.principal import AgentPath, InTenant
from artcafe.rules.plans import Limit
from artcafe.services.pending_request import PendingRequest
from artcafe.wire import frames

router = APIRouter(prefix="/v1/tenants/{tenant_id}/agents/{agent_id}/requests", tags=["agents"])


class NewRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of `frames.Request` without the agent, which is in the path, for one answer."""

    data: msgspec.Raw
    timeout_s: frames.TimeoutS = frames.DEFAULT_TIMEOUT_S
    headers: Mapping[str, str] | None = None


SCHEMA: Final[dict[str, Any]] = {
    "title": "NewRequest",
    "description": "A request to an agent.",
    "type": "object",
    "additionalProperties": False,
    "required": ["data"],
    "properties": {
        "data": {
            "description": "Any JSON value, with numbers below 1.8e308; the text is passed on unchanged.",
            "examples": [{"task": "summarise", "pages": [1, 2]}],
        },
        "timeout_s": {
            "type": "number",
            "minimum": frames.MIN_TIMEOUT_S,
            "maximum": frames.MAX_TIMEOUT_S,
            "default": frames.DEFAULT_TIMEOUT_S,
            "description": "How long to wait for the answer, in seconds.",
        },
        "headers": {"type": ["object", "null"], "additionalProperties": {"type": "string"}, "examples": [{"trace": "7f3a"}]},
    },
}
ANSWER: Final[dict[str, Any]] = {
    "title": "RequestAnswer",
    "type": "object",
    "required": ["request_id", "from", "data"],
    "properties": {
        "request_id": {"type": "string"},
        "from": {"type": "string", "description": "The agent that has answered."},
        "data": {"description": "The answer, any JSON."},
    },
}

_new_request: Final = msgspec.json.Decoder(NewRequest)


async def new_request(request: Request) -> NewRequest:
    """Parse the body. Raises as `read_raw_json` does."""
    return await read_raw_json(request, _new_request)


@router.post(
    "",
    summary="Send a request to an agent",
    response_class=Response,
    responses={
        200: {"description": "The agent's answer.", "content": {"application/json": {"schema": ANSWER}}},
        **problems.responses(
            *problems.IN_TENANT,
            errors.AgentNotFound,
            errors.AgentAway,
            errors.AgentBusy,
            errors.AgentError,
            errors.RequestTimedOut,
            errors.RequestLost,
            errors.TooManyPending,
            errors.LimitReached,
            *problems.BODY,
        ),
    },
    openapi_extra=shown_as(SCHEMA),
)
async def ask_agent(
    request: Request,
    services: ServicesDep,
    principal: InTenant,
    agent_id: AgentPath,
    new: Annotated[NewRequest, Depends(new_request)],
    key: Annotated[
        str | None,
        Header(alias="Idempotency-Key", description="Refused: a repeat of a request is another request, whatever its key."),
    ] = None,
) -> Response:
    """Send a request to an agent, at most once, and return its answer. It is cancelled if the client disconnects.

    An error says whether the request was delivered (`delivered`); nothing is stored, and nothing is sent a second time.
    """
    if key is not None:
        raise Invalid("Idempotency-Key", "is not possible here: a request is sent at most once, and a repeat is another request")
    rate_headers.show(request.scope, services.rate_limits, principal.tenant_id, Limit.MESSAGES_A_MINUTE)
    body = frames.Request(agent_id, new.data, new.timeout_s, new.headers)
    pending, answer = await ask(request, services, principal, body)
    content = {"request_id": pending.id, "from": pending.agent_id, "data": answer}
    return Response(msgspec.json.encode(content), media_type="application/json")


async def ask(
    request: Request, services: Services, principal: Principal, body: frames.Request
) -> tuple[PendingRequest, msgspec.Raw]:
    """Send a request to an agent, and return it with its answer. It is cancelled if the client disconnects.

    Raises as `Requests.ask` does, and `Disconnected`.
    """
    pending, answered = await services.requests.ask(principal, body)
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_fail_on_disconnect(request, answered))
            await asyncio.wait([answered])
            watching.cancel()
    finally:
        services.requests.abandon(pending)
    return pending, answered.result()


async def _fail_on_disconnect(request: Request, answered: asyncio.Future[msgspec.Raw]) -> None:
    await body_of(request).disconnected()
    if not answered.done():
        answered.set_exception(Disconnected())
