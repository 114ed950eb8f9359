"""Whether this server lives, and whether it can do its work. For operators and load balancers; shows nothing of any tenant."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from artcafe.errors import Unavailable
from artcafe.rest import problems
from artcafe.rest.dependencies import Parts
from artcafe.rest.schemas import ResponseModel

router = APIRouter(prefix="/health", tags=["health"])

OK = "ok"


class Live(ResponseModel):
    """The server answers."""

    status: Literal["live"] = "live"


class Ready(ResponseModel):
    """The server can do its work; each part it needs stands beside the status, by name."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"example": {"status": "ready", "tables": OK, "nats": OK}})

    status: Literal["ready"] = "ready"


@router.get("/live", summary="Say that the server runs", responses=problems.responses())
async def read_live() -> Live:
    """Asks nothing of the parts behind the server."""
    return Live()


@router.get("/ready", summary="Say whether the server can work", response_model=Ready, responses=problems.responses(Unavailable))
async def read_ready(request: Request, parts: Parts) -> Response | Ready:
    """Tries what agents need: a message is stored in NATS, a row written, and every table read, at most once a second.

    With one part down it answers 503, and each part's state stands in the problem by the part's name.
    """
    states = await parts.readiness.states()
    down = [name for name, state in states.items() if state != OK]
    if down:
        return problems.answer(Unavailable(", ".join(down)), request.state.request_id, states)
    return Ready.model_validate({"status": "ready", **states})
