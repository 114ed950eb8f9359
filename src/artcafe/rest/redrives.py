"""The route that sends dead letters back to their queues."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field

from artcafe import errors
from artcafe.errors import Invalid
from artcafe.rest import problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.principal import ChannelPath, InTenant, NeedlessKey
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.services.redrives import MAX_WAIT_S, LetterStatus, RedriveRange, RedriveResult

router = APIRouter(prefix="/v1/tenants/{tenant_id}/channels/{channel_id}/redrives", tags=["channels"])


class NewRedrive(RequestModel):
    """Which dead letters to send back: the one at `seq`, or `all`."""

    seq: int | None = Field(None, description="The sequence of one letter in the dead-letter channel.", ge=1, examples=[58])
    all: bool = Field(False, description="Every letter that was not sent back yet, oldest first.")
    until_failure: bool = Field(
        False,
        description="With `all`: each letter waits until the message before it is acknowledged, and one that is dead-lettered"
        " again ends the redrive.",
    )
    after: int = Field(0, description="With `all`: continue an answer with `more` by its `after`.", ge=0)
    up_to: int | None = Field(None, description="With `all`: continue an answer with `more` by its `up_to`.", ge=0)
    wait_s: int = Field(
        20, description="With `until_failure`: seconds to wait for outcomes in this request.", ge=0, le=MAX_WAIT_S
    )


class RedrivenLetterResponse(ResponseModel):
    """A dead letter, and the message that was sent back."""

    seq: int = Field(description="The letter's sequence in the dead-letter channel.", examples=[58])
    channel: str = Field(description="The queue.", examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    status: LetterStatus = Field(
        description="`redriven`: sent back; `redriven_before`: by an earlier or another request, and not again; `queue_deleted`:"
        " it stays. With `until_failure`: `done` (acknowledged), `failed` (dead-lettered again) or `waiting`."
    )
    redriven_seq: int | None = Field(
        description="The sequence of the message in the queue; null if none was sent.", examples=[77]
    )
    message_id: str | None = Field(description="The id of that message.", examples=["msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])


class RedriveResponse(ResponseModel):
    """The letters that were looked at, oldest first."""

    dead_letter: str = Field(description="The dead-letter channel.", examples=["chn_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    items: list[RedrivenLetterResponse]
    after: int = Field(description="The letters up to this sequence are handled.", examples=[58])
    up_to: int = Field(description="The end of the log when the redrive began; later letters are left.", examples=[80])
    more: bool = Field(description="Whether to continue, with the same `after` and `up_to`.")


@router.post(
    "",
    summary="Send dead letters back to their queue",
    responses=problems.responses(
        *problems.IN_TENANT,
        errors.ChannelNotFound,
        errors.DeadLetterNotFound,
        errors.Conflict,
        errors.QuotaFull,
        *problems.BODY,
    ),
    openapi_extra=request_schema(NewRedrive),
)
async def redrive(
    services: ServicesDep,
    principal: InTenant,
    channel_id: ChannelPath,
    body: Annotated[NewRedrive, Depends(json_body(NewRedrive))],
    _key: NeedlessKey = None,
) -> RedriveResponse:
    """Send dead letters of a queue, or of a dead-letter channel, back to their queues. For members.

    Each letter is sent back once, however often the request is repeated: no `Idempotency-Key` is needed.
    """
    if (body.seq is None) is not body.all:
        raise Invalid("seq", "give either the sequence of one dead letter, or all: true")
    if body.until_failure and not body.all:
        raise Invalid("until_failure", "has a meaning only with all: true")
    if body.seq is not None:
        return _shown(await services.redrives.redrive_one(principal, channel_id, body.seq))
    wanted = RedriveRange(after=body.after, up_to=body.up_to, until_failure=body.until_failure, wait_s=body.wait_s)
    return _shown(await services.redrives.redrive_all(principal, channel_id, wanted))


def _shown(result: RedriveResult) -> RedriveResponse:
    return RedriveResponse(
        dead_letter=result.dead_letter,
        items=[RedrivenLetterResponse.model_validate(each) for each in result.items],
        after=result.after,
        up_to=result.up_to,
        more=result.has_more,
    )
