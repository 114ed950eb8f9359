"""Routes for the channels of a tenant: create, list, read, change and delete. `rest.messages` has their messages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from artcafe import errors, model
from artcafe.rest import problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.paging import KnownTime, Listing, PageQuery
from artcafe.rest.principal import ChannelPath, IdempotencyKey, InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.rules import queues
from artcafe.wire.segments import tenant_path

router = APIRouter(prefix="/v1/tenants/{tenant_id}/channels", tags=["channels"])

HANDLE = "1 to 64 of a-z, 0-9, '.', '_' and '-', first a letter or digit; unique among the tenant's channels. Stands for the id."


class QueueFields(RequestModel):
    """The settings of a `queue` channel, which no other channel has."""

    ack_wait_s: int | None = Field(
        None,
        description="Only for a `queue`: seconds to acknowledge or extend a message before another subscriber gets it; null: 30,"
        " or unchanged.",
        ge=1,
        le=queues.MAX_ACK_WAIT_S,
    )
    back_off: list[int] | None = Field(
        None,
        description="Only for a `queue`: seconds before the second, third, … delivery of a message that failed, the last one for"
        " all further ones; null: none, or unchanged.",
        max_length=queues.MAX_BACK_OFF,
        examples=[[1, 10, 60]],
    )
    max_deliveries: int | None = Field(
        None,
        description="Only for a `queue`: deliveries of a message before it goes to the dead-letter channel; null: 10, or"
        " unchanged.",
        ge=1,
        le=queues.MAX_DELIVERIES,
    )
    key_ordered: bool | None = Field(
        None,
        description="Only for a `queue`: whether messages with the same header `partition` are held one at a time, in order;"
        " null: false, or unchanged. It can be switched on while every message has ended.",
    )
    dead_letter: str | None = Field(
        None,
        description="Only for a `queue`: an existing broadcast channel for its dead letters; null: one is made with the queue, or"
        " unchanged.",
        examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"],
    )

    @property
    def queue(self) -> queues.QueueChange:
        return queues.QueueChange(
            ack_wait_s=self.ack_wait_s,
            back_off=self.back_off,
            max_deliveries=self.max_deliveries,
            key_ordered=self.key_ordered,
        )


class NewChannel(QueueFields):
    """A channel to create."""

    name: str = Field(description="1 to 64 characters.", examples=["Research"])
    handle: str | None = Field(None, description=f"{HANDLE} Null: made from the name.", examples=["research"])
    description: str = Field("", description="At most 1024 characters.")
    type: model.ChannelType = Field(model.ChannelType.BROADCAST, description="How messages are delivered; it cannot be changed.")
    access: model.Access = Field(
        model.Access.OPEN,
        description="`open`: any agent of the tenant can use it; `managed`: only agents subscribed by a member.",
    )
    retention_s: int | None = Field(
        None, description="Retention of messages in seconds, up to the plan's; null for the plan's.", ge=1
    )


class ChannelChange(QueueFields):
    """Changes of a channel; omitted fields stay unchanged."""

    name: str = Field(default_factory=str, description="1 to 64 characters.", examples=["Research"])
    handle: str = Field(default_factory=str, description=HANDLE, examples=["research"])
    description: str = Field(default_factory=str, description="At most 1024 characters.")
    access: model.Access = Field(
        model.Access.OPEN,
        description="`open`: any agent of the tenant can use it; `managed`: only agents subscribed by a member.",
    )
    retention_s: int | None = Field(
        None, description="Retention of messages in seconds, up to the plan's; null for the plan's.", ge=1
    )


class ChannelResponse(ResponseModel):
    """A named, ordered log of messages."""

    id: str = Field(examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    handle: str | None = Field(description="May stand wherever the id stands; null for an older row.", examples=["research"])
    name: str = Field(examples=["Research"])
    description: str
    type: model.ChannelType
    access: model.Access
    retention_s: int | None = Field(description="Retention of messages in seconds; null for the plan's.")
    ack_wait_s: int | None = Field(description="Seconds to acknowledge a message of a `queue`; null for other types.")
    back_off: list[int] | None = Field(description="Seconds between deliveries of a message of a `queue`; null for other types.")
    max_deliveries: int | None = Field(
        description="Deliveries of a message of a `queue` before it goes to the dead-letter channel; null for other types."
    )
    key_ordered: bool | None = Field(
        description="Whether messages of a `queue` with the same header `partition` are held one at a time, in order; null for"
        " other types."
    )
    dead_letter: str | None = Field(description="The dead-letter channel of a `queue`; null for other types.")
    dead_letter_of: str | None = Field(description="The queue that this dead-letter channel was made with; null for others.")
    created_at: KnownTime
    updated_at: KnownTime


class ChannelDetails(ChannelResponse):
    """A channel with the figures of its stored messages. They are null in a `live` channel, and while the log does not answer;
    the last three also for other types than `queue`."""

    first_seq: int | None = Field(None, description="The oldest stored message; 0 without any.", examples=[12])
    last_seq: int | None = Field(None, description="The newest stored message; 0 without any.", examples=[59])
    messages: int | None = Field(None, description="The number of stored messages.", examples=[31])
    pending: int | None = Field(None, description="Messages of a `queue` that were never delivered.", examples=[4])
    held: int | None = Field(
        None,
        description="Messages of a `queue` that were delivered and have not ended: an agent holds them, or they wait for their"
        " next delivery or dead letter.",
        examples=[1],
    )
    oldest_seq: int | None = Field(None, description="The oldest message of both in a `queue`; 0 without any.", examples=[27])


class ChannelPage(ResponseModel):
    """One page of the tenant's channels."""

    items: list[ChannelResponse]
    next_cursor: str | None


@router.get("", summary="List channels", responses=problems.responses(*problems.IN_TENANT, *problems.LIST))
async def list_channels(
    request: Request, services: ServicesDep, principal: InTenant, query: Annotated[PageQuery, Query()]
) -> ChannelPage:
    """List the channels of the tenant. For members; an agent gets the open channels, and the managed ones that it is subscribed
    to."""
    listing = Listing.of(request, principal.tenant_id, query)
    page = await services.channels.list(principal, listing.request)
    return ChannelPage(items=[ChannelResponse.model_validate(each) for each in page.items], next_cursor=listing.next_cursor(page))


@router.post(
    "",
    status_code=201,
    summary="Create a channel",
    responses=problems.responses(
        *problems.IN_TENANT, errors.ChannelNotFound, errors.HandleTaken, errors.LimitReached, *problems.POST
    ),
    openapi_extra=request_schema(NewChannel),
)
async def create_channel(
    response: Response,
    services: ServicesDep,
    principal: InTenant,
    body: Annotated[NewChannel, Depends(json_body(NewChannel))],
    key: IdempotencyKey = None,
) -> ChannelResponse:
    """Create a channel without messages and subscriptions; with a `queue`, also its dead-letter channel."""
    channel = await services.channels.create(
        principal,
        name=body.name,
        handle=body.handle,
        description=body.description,
        type=body.type,
        access=body.access,
        retention_s=body.retention_s,
        queue=body.queue,
        dead_letter=body.dead_letter,
        idempotency_key=key,
    )
    response.headers["Location"] = tenant_path(channel.tenant_id, "channels", channel.id)
    return ChannelResponse.model_validate(channel)


@router.get("/{channel_id}", summary="Read a channel", responses=problems.responses(*problems.IN_TENANT, errors.ChannelNotFound))
async def read_channel(services: ServicesDep, principal: InTenant, channel_id: ChannelPath) -> ChannelDetails:
    """Return the channel, with the figures of its log. For members, and for agents that find it in the list."""
    channel = await services.channels.get(principal, channel_id)
    figures = await services.figures.of_channel(channel)
    return ChannelDetails.model_validate(channel).model_copy(update=figures._asdict())


@router.patch(
    "/{channel_id}",
    summary="Change a channel",
    responses=problems.responses(
        *problems.IN_TENANT, errors.ChannelNotFound, errors.HandleTaken, errors.LimitReached, *problems.BODY
    ),
    openapi_extra=request_schema(ChannelChange),
)
async def change_channel(
    services: ServicesDep,
    principal: InTenant,
    channel_id: ChannelPath,
    body: Annotated[ChannelChange, Depends(json_body(ChannelChange))],
) -> ChannelResponse:
    """Change the given fields. Messages and subscriptions stay unchanged."""
    changes = {name: value for name, value in body.given().items() if name not in QueueFields.model_fields}
    changes |= {"queue": body.queue, "dead_letter": body.dead_letter}
    return ChannelResponse.model_validate(await services.channels.update(principal, channel_id, **changes))


@router.delete(
    "/{channel_id}",
    status_code=204,
    summary="Delete a channel",
    responses=problems.responses(*problems.IN_TENANT, errors.ChannelNotFound, errors.Conflict),
)
async def delete_channel(services: ServicesDep, principal: InTenant, channel_id: ChannelPath) -> None:
    """Delete the channel with its subscriptions and messages, and with a `queue` the dead-letter channel that was made with it,
    unless another queue has it too. The dead-letter channel of a queue answers `conflict`."""
    await services.channels.delete(principal, channel_id)
