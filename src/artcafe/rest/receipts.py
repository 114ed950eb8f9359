"""The route for the receipts of a stored message."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field

from artcafe import errors
from artcafe.model import HandleKind
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import Listing, PageQuery, Time
from artcafe.rest.principal import ChannelPath, InTenant
from artcafe.rest.schemas import ResponseModel
from artcafe.services.delivery_states import DeliveryState

router = APIRouter(prefix="/v1/tenants/{tenant_id}/channels/{channel_id}/messages/{seq}/receipts", tags=["messages"])

MAX_DIGITS: Final = 16
"""The digits of the largest sequence."""


class ReceiptResponse(ResponseModel):
    """What became of a message for one recipient, or in a queue what became of the message."""

    agent_id: str | None = Field(
        description="The recipient. In a queue, the agent that holds the message or has acknowledged it; null: none, or unknown.",
        examples=["agt_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"],
    )
    agent_handle: str | None = Field(examples=["planner"])
    state: DeliveryState = Field(
        description=(
            "`pending`: connected, and not sent yet; `delivered`: sent to an open socket, and not acknowledged; `acked`;"
            " `dead_lettered`; `expired`; `skipped`: its cursor was moved over the message; `away`: not connected; `unknown`:"
            " its server does not answer. In a queue, `pending`: no agent holds it; `delivered`: the agent holds it now."
        )
    )
    reason: str | None = Field(
        description="In a queue, why the message is a dead letter. Null: it is none, or the letter is not stored any more.",
        examples=[None],
    )
    cursor: int | None = Field(
        description="The last acknowledged sequence, as far as it is known. Null in a queue, which has none.", examples=[58]
    )
    cursor_age_s: int | None = Field(
        description="Seconds since the last ack was written; 0 if one is still to be written. Null: there is none.", examples=[7]
    )
    last_seen: Time | None = Field(description="When the agent was last known to be connected. Null: unknown.")


class ReceiptPage(ResponseModel):
    """One page of the recipients of a message."""

    items: list[ReceiptResponse]
    next_cursor: str | None


@router.get(
    "",
    summary="Read the receipts of a message",
    responses=problems.responses(*problems.IN_TENANT, errors.ChannelNotFound, errors.MessageNotFound, *problems.LIST),
)
async def read_receipts(
    request: Request,
    services: ServicesDep,
    principal: InTenant,
    channel_id: ChannelPath,
    seq: Annotated[str, Path(description="The message's sequence.", examples=["59"])],
    query: Annotated[PageQuery, Query()],
) -> ReceiptPage:
    """List the recipients of a stored message, and what became of it; of a message of a queue, its one state. For members, and
    for the agent that sent it."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.message_receipts.list(principal, channel_id, _seq(seq), listing.request)
    agents = [each.agent_id for each in page.items if each.agent_id is not None]
    handles = await services.record_cache.handles_of(principal.tenant_id, HandleKind.AGENT, agents)
    items = [
        ReceiptResponse(
            agent_id=each.agent_id,
            agent_handle=None if each.agent_id is None else handles.get(each.agent_id),
            state=each.state,
            reason=each.reason,
            cursor=each.cursor,
            cursor_age_s=each.cursor_age_s,
            last_seen=each.last_seen,
        )
        for each in page.items
    ]
    return ReceiptPage(items=items, next_cursor=listing.next_cursor(page))


def _seq(text: str) -> int:
    """Return a sequence; 0, which no message has, for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else 0
