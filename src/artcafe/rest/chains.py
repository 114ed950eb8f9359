"""Routes for chains of answers: read one, and release a stopped one."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import Field

from artcafe import errors
from artcafe.rest import problems
from artcafe.rest.bodies import json_body, request_schema
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.principal import InTenant
from artcafe.rest.schemas import RequestModel, ResponseModel
from artcafe.services.loop_guard import Chain, ChainStatus

router = APIRouter(prefix="/v1/tenants/{tenant_id}/chains/{chain_id}", tags=["messages"])

ChainPath = Annotated[
    str,
    Path(description="The chain's id, which is that of its first message.", examples=["msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"]),
]


class ChainChange(RequestModel):
    """A change of a chain."""

    status: Literal["active"] = Field(description="`active` releases a stopped chain: it may use its limits once more.")


class ChainResponse(ResponseModel):
    """A message that answers none, and all messages that answer it, directly or not."""

    id: str = Field(description="The id of the first message.", examples=["msg_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    tenant_id: str = Field(examples=["ten_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"])
    status: ChainStatus = Field(description="`stopped`: a message above a limit was refused since the last release.")
    messages: int = Field(description="Stored or sent messages, with the first one.", examples=[10000])
    max_messages: int = Field(description="The plan's `chain_messages`, once more for each release.", examples=[10000])
    max_hops: int = Field(description="The plan's `hops`, once more for each release.", examples=[100])
    releases: int = Field(description="How often members released it.", examples=[0])


def _shown(chain: Chain) -> ChainResponse:
    return ChainResponse(
        id=chain.id,
        tenant_id=chain.tenant_id,
        status=chain.status,
        messages=chain.messages,
        max_messages=chain.max_messages,
        max_hops=chain.max_hops,
        releases=chain.releases,
    )


@router.get("", summary="Read a chain of answers", responses=problems.responses(*problems.IN_TENANT, errors.ChainNotFound))
async def read_chain(services: ServicesDep, principal: InTenant, chain_id: ChainPath) -> ChainResponse:
    """Return the state of a chain that had an answer within the last day. For members."""
    return _shown(await services.loop_guard.get(principal, chain_id))


@router.patch(
    "",
    summary="Release a stopped chain",
    responses=problems.responses(*problems.IN_TENANT, errors.ChainNotFound, errors.Conflict, *problems.BODY),
    openapi_extra=request_schema(ChainChange),
)
async def change_chain(
    services: ServicesDep,
    principal: InTenant,
    chain_id: ChainPath,
    _body: Annotated[ChainChange, Depends(json_body(ChainChange))],
) -> ChainResponse:
    """Release a stopped chain, within a second on every server. A chain that is not stopped stays as it is."""
    return _shown(await services.loop_guard.release(principal, chain_id))
