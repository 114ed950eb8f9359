"""Request bodies: how long one may be and take, and JSON read into a model. What a field may hold is a service's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.types import Message, Receive, Scope

from artcafe.errors import BadJson, RequestTimeout, TooLarge
from artcafe.rest.parts import Settings
from artcafe.rest.problems import REF, of_json


class Disconnected(Exception):
    """The client went away before its request was here."""


async def receive_body(scope: Scope, receive: Receive, settings: Settings) -> bytes:
    """The whole body, before anything is done for the request: uvicorn bounds neither its size nor its time.

    Raises TooLarge, before more is read than is allowed, RequestTimeout, or Disconnected.
    """
    declared = dict(scope["headers"]).get(b"content-length", b"")
    if declared.isdigit() and int(declared) > settings.max_body_bytes:
        raise TooLarge("the request's body", settings.max_body_bytes)
    try:
        async with asyncio.timeout(settings.body_deadline_s):
            return await _received(receive, settings.max_body_bytes)
    except TimeoutError as exc:
        raise RequestTimeout(settings.body_deadline_s) from exc


async def _received(receive: Receive, limit_bytes: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise TooLarge("the request's body", limit_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, and then what the connection gives."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def from_memory() -> Message:
        return waiting.pop() if waiting else await receive()

    return from_memory


class Body(BaseModel):
    """A JSON object that a route takes. A field it does not know is refused, so that a misspelt one is never ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def given(self) -> dict[str, Any]:
        """The fields that were sent: a PATCH changes these alone."""
        return {name: getattr(self, name) for name in self.model_fields_set}


B = TypeVar("B", bound=Body)


def json_body(model: type[B]) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads the body as `model`; it raises BadJson and Invalid.

    FastAPI would read a body before it asks who is calling, and answer 400 to somebody who should hear 401. A dependency is
    read in its turn: put it behind the principal.
    """

    async def read(request: Request) -> B:
        body = await request.body()
        if not body:
            raise BadJson("it is empty")
        try:
            return model.model_validate_json(body)
        except ValidationError as exc:
            raise of_json(exc) from None  # Its text quotes the input, which may be a secret.

    return read


def optional_body(model: type[B]) -> Callable[[Request], Awaitable[B]]:
    """As `json_body`, for a model whose fields may all be left out: an absent body and `{}` are equal."""
    read_body = json_body(model)

    async def read(request: Request) -> B:
        return await read_body(request) if await request.body() else model()

    return read


def takes(model: type[Body], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra=` of a route whose body is read by `json_body`, or by `optional_body` where it is not required."""
    return shown_as(model.model_json_schema(ref_template=REF), required=required)


def shown_as(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra=` of a route that reads JSON of this schema; the schema's title is its name in the document."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
