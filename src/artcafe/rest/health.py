"""Routes for liveness and readiness, for operators and load balancers. They reveal nothing about tenants."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from artcafe.errors import Unavailable
from artcafe.rest import problems
from artcafe.rest.dependencies import ServicesDep
from artcafe.rest.schemas import ResponseModel
from artcafe.services.readiness import unready

router = APIRouter(prefix="/health", tags=["health"])

OK = "ok"


class LiveResponse(ResponseModel):
    """The server is running."""

    status: Literal["live"] = "live"


class ReadyResponse(ResponseModel):
    """The server is ready; the state of each dependency is a further field with its name."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": {"status": "ready", "tables": OK, "nats": OK}})

    status: Literal["ready"] = "ready"


@router.get("/live", summary="Check liveness", responses=problems.responses())
async def read_live() -> LiveResponse:
    """Report that the server is running, without checking its dependencies."""
    return LiveResponse()


@router.get("/ready", summary="Check readiness", response_model=ReadyResponse, responses=problems.responses(Unavailable))
async def read_ready(request: Request, services: ServicesDep) -> Response | ReadyResponse:
    """Check what agents need, at most once a second: store a message in NATS, write a row, and read every table.

    If a dependency is down, the response is 503, and the problem has a field with the state of each dependency. With tables on
    DynamoDB there is also `permissions`: `ok`, or those that the server lacks, each with its action and table. They do not make
    the response a 503.
    """
    states = await services.readiness.states()
    down = unready(states)
    if down:
        return problems.answer(Unavailable(", ".join(down)), request.state.request_id, states)
    return ReadyResponse.model_validate({"status": "ready", **states})
