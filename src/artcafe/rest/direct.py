"""Routes served without FastAPI's dependency resolution, which costs more than the endpoints themselves.

Such a route has a fixed path and reads its JSON body and nothing else of the request. FastAPI still declares and documents it,
and answers other methods on its path. Decision record 37 has the measurements.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.responses import Response

from artcafe.assembly import Services
from artcafe.rest.bodies import RequestBody, read_json
from artcafe.rest.schemas import RequestModel, ResponseModel

Body = TypeVar("Body", bound=RequestModel)


@dataclass(frozen=True, slots=True)
class DirectRoute(Generic[Body]):
    """One route: its endpoint, and the facts FastAPI derives from the endpoint's signature and decorator."""

    method: str
    path: str
    status: int
    model: type[Body]
    most_bytes: int
    """Largest accepted body."""
    endpoint: Callable[[Services, Body], Awaitable[ResponseModel]]

    async def respond(self, services: Services, body: RequestBody) -> Response:
        """Return the response of the endpoint. Raises what reading the body and the endpoint raise."""
        answer = await self.endpoint(services, await read_json(body, self.model, self.most_bytes))
        return Response(answer.model_dump_json(), self.status, media_type="application/json")
