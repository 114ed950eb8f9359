"""Routes to pull an agent's messages and to acknowledge them, for agents without a socket. `delivery.pull` does the work."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from artcafe import errors
from artcafe.assembly import Services
from artcafe.delivery.pull import DEFAULT_LIMIT, MAX_LIMIT, MAX_WAIT_S, PulledPage, PullRequest
from artcafe.delivery.pull_holds import ACK, EXTEND, NAK, REJECT
from artcafe.delivery.pull_page import PAGE_BYTES, ChannelGap
from artcafe.delivery.pull_settling import Settled, SettleEntry
from artcafe.delivery.pull_waits import PullWait
from artcafe.errors import ArtcafeError
from artcafe.model import Principal
from artcafe.rest import problems
from artcafe.rest.bodies import Items, json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Time
from artcafe.rest.principal import AgentPath, InTenant, NeedlessKey
from artcafe.rest.schemas import RequestModel, ResponseModel

router = APIRouter(prefix="/v1/tenants/{tenant_id}/agents/{agent_id}", tags=["inbox"])

MAX_ACKS: Final = 200
"""Maximum number of acks in a request: those of one pull. As many naks, and extensions."""
ACKS_BYTES: Final = 192 * 1024
"""Largest body with them: a receipt has some 400 characters, and ids of an older system have up to 128."""
RECEIPT: Final = "Required for a message of a queue channel: the `receipt` of its pull."


class InboxQuery(BaseModel):
    """The query of a pull."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wait_s: float = Field(0, ge=0, le=MAX_WAIT_S, description="Seconds to wait for a first message; a gap alone ends no wait.")
    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Maximum number of messages.")
    channel: str | None = Field(None, description="Only messages of this channel.")


INBOX: Final[dict[str, Any]] = {
    "title": "Inbox",
    "type": "object",
    "required": ["items", "gaps", "more", "epoch", "moves"],
    "properties": {
        "items": {
            "type": "array",
            "description": f"Messages as the gateway pushes them, in order in a channel; about {PAGE_BYTES >> 10} KiB at most."
            " One of a queue has a `receipt`, to acknowledge it with, and `held_until`: the agent holds it until then.",
            "items": {"type": "object"},
        },
        "gaps": {
            "type": "array",
            "description": "Messages that this agent will not receive, each before the channel's items. Each answer has a gap"
            " again until an ack of its `after`, or of a message above it.",
            "items": {
                "type": "object",
                "required": ["channel", "from", "to", "reason", "after"],
                "properties": {
                    "channel": {"type": "string"},
                    "from": {"type": "integer"},
                    "to": {"type": ["integer", "null"], "description": "Null: their number is unknown."},
                    "reason": {"type": "string", "enum": ["retention", "epoch", "expired"]},
                    "after": {"type": "integer", "description": "The next message is above it; an ack of it ends the gap."},
                },
            },
        },
        "more": {"type": "boolean", "description": "Whether messages are left. They follow once these are acknowledged."},
        "epoch": {
            "type": ["string", "null"],
            "description": "The log's epoch, to be sent with the acks; null before its first message.",
        },
        "moves": {
            "type": "object",
            "description": "By channel id, how often a request has moved its cursor, if one has; to be sent with the acks.",
            "additionalProperties": {"type": "integer"},
        },
    },
}


class AckBody(RequestModel):
    """Acknowledges every message of a channel up to `seq`, or in a queue this one."""

    channel: str
    seq: int = Field(ge=0, examples=[58])
    receipt: str | None = Field(None, description=RECEIPT)


class ExtendBody(RequestModel):
    """Lets the ack deadline of a queue message begin again."""

    channel: str
    seq: int = Field(ge=0, examples=[58])
    receipt: str = Field(description="The `receipt` of its pull, or of its last extension.")


class NakBody(ExtendBody):
    """Gives a queue message back."""

    delay_s: float | None = Field(None, description="Seconds until it is delivered again. Null: the channel's `back_off`.", ge=0)
    dead: bool = Field(False, description="Move it to the dead-letter channel instead of delivering it again.")


class AcksBody(RequestModel):
    """The messages to acknowledge, to give back and to extend."""

    acks: Items[AckBody] = Field(default_factory=list, max_length=MAX_ACKS)
    naks: Items[NakBody] = Field(default_factory=list, max_length=MAX_ACKS)
    extends: Items[ExtendBody] = Field(default_factory=list, max_length=MAX_ACKS)
    epoch: str | None = Field(
        None,
        description="The `epoch` of the pull that returned the messages. With it, no ack counts for the messages of another log;"
        " required after a restore.",
    )
    moves: dict[str, int] | None = Field(
        None,
        description="The `moves` of the pull that returned the messages. With it, no ack counts in a channel whose cursor was"
        " moved since.",
        max_length=MAX_ACKS,
    )


class EntryProblem(ResponseModel):
    """Why an entry had no effect."""

    code: str = Field(examples=["ack_beyond_sent"])
    message: str
    temporary: bool = Field(description="Whether the same entry can succeed later.")


class AckResponse(ResponseModel):
    """The outcome of one entry."""

    channel: str
    seq: int
    error: EntryProblem | None = Field(description="Null: it is done, and written; in a queue, NATS writes it within a second.")


class ExtendedResponse(AckResponse):
    """The outcome of an extension: the new receipt and deadline."""

    receipt: str | None
    held_until: Time | None


class AcksResponse(ResponseModel):
    """The outcome of each entry, in the order of the request."""

    acks: list[AckResponse]
    naks: list[AckResponse]
    extends: list[ExtendedResponse]


@router.get(
    "/inbox",
    summary="Pull messages",
    response_class=Response,
    responses={
        200: {"description": "Messages that wait for the agent.", "content": {"application/json": {"schema": INBOX}}},
        **problems.responses(
            *problems.IN_TENANT,
            errors.SubscriptionNotFound,
            errors.ChannelNotFound,
            errors.Conflict,
            errors.Invalid,
            errors.RateLimited,
            errors.Overloaded,
        ),
    },
)
async def pull_messages(
    request: Request, services: ServicesDep, principal: InTenant, agent_id: AgentPath, query: Annotated[InboxQuery, Query()]
) -> Response:
    """Return messages of the agent's active subscriptions, above their cursors, and acknowledge nothing.

    For that agent only. With `wait_s` the request waits for a first message. An agent may have two waiting requests at a time.
    """
    pulled = await pull(request, services, principal, agent_id, PullRequest.checked(query.limit, query.wait_s, query.channel))
    return Response(_text(pulled), media_type="application/json")


@router.post(
    "/acks",
    summary="Acknowledge messages",
    responses=problems.responses(*problems.IN_TENANT, *problems.BODY),
    openapi_extra=request_schema(AcksBody),
)
async def acknowledge_messages(
    services: ServicesDep,
    principal: InTenant,
    agent_id: AgentPath,
    body: Annotated[AcksBody, Depends(json_body(AcksBody, ACKS_BYTES))],
    _key: NeedlessKey = None,
) -> AcksResponse:
    """Acknowledge messages, give them back or extend them. It is done before the response, or the entry has an `error`.

    For that agent only.
    """
    entries = [SettleEntry(ACK, each.channel, each.seq, each.receipt) for each in body.acks]
    entries += [
        SettleEntry(REJECT if each.dead else NAK, each.channel, each.seq, each.receipt, each.delay_s) for each in body.naks
    ]
    entries += [SettleEntry(EXTEND, each.channel, each.seq, each.receipt) for each in body.extends]
    outcomes = await services.pulls.settle(principal, agent_id, entries, body.epoch, body.moves)
    pairs = list(zip(entries, outcomes, strict=True))
    return AcksResponse(
        acks=[_outcome(*pair) for pair in pairs if pair[0].kind == ACK],
        naks=[_outcome(*pair) for pair in pairs if pair[0].kind in (NAK, REJECT)],
        extends=[_extended(*pair) for pair in pairs if pair[0].kind == EXTEND],
    )


async def pull(request: Request, services: Services, principal: Principal, agent_id: str, asked: PullRequest) -> PulledPage:
    """Return the result of a pull, and end its wait when the client closes the connection. Raises as `Pulls.pull` does."""
    wait = PullWait()
    outcome: PulledPage | ArtcafeError
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_end_when_gone(request, wait))
        try:
            outcome = await services.pulls.pull(principal, agent_id, asked, wait)
        except ArtcafeError as exc:
            outcome = exc  # raised below, because the group would wrap it
        finally:
            watch.cancel()
    if isinstance(outcome, ArtcafeError):
        raise outcome
    return outcome


async def _end_when_gone(request: Request, wait: PullWait) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    wait.abandon()


def _text(pulled: PulledPage) -> bytes:
    gaps = msgspec.json.encode([_gap(each) for each in pulled.gaps])
    rest = (msgspec.json.encode(each) for each in (pulled.has_more, pulled.epoch, pulled.moves))
    return b'{"items":[%b],"gaps":%b,"more":%b,"epoch":%b,"moves":%b}' % (b",".join(pulled.items), gaps, *rest)


def _gap(each: ChannelGap) -> dict[str, object]:
    gap = each.gap
    return {"channel": each.channel_id, "from": gap.from_, "to": gap.to, "reason": gap.reason, "after": each.after}


def _outcome(entry: SettleEntry, outcome: Settled) -> AckResponse:
    return AckResponse(channel=entry.channel, seq=entry.seq, error=_problem(outcome.error))


def _extended(entry: SettleEntry, outcome: Settled) -> ExtendedResponse:
    return ExtendedResponse(
        channel=entry.channel,
        seq=entry.seq,
        error=_problem(outcome.error),
        receipt=outcome.receipt,
        held_until=outcome.held_until,
    )


def _problem(error: ArtcafeError | None) -> EntryProblem | None:
    return None if error is None else EntryProblem(code=error.code, message=str(error), temporary=error.temporary)
