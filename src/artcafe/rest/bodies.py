"""Request bodies: how large one may be, how long it may take, and JSON read into a model. Services check what fields hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar, cast

from fastapi import Request
from pydantic import FailFast, ValidationError
from starlette.types import Receive, Scope

from artcafe.errors import BadJson, Overloaded, RateLimited, RequestTimeout, TooLarge
from artcafe.rest.dependencies import Settings
from artcafe.rest.problems import REF, of_json
from artcafe.rest.schemas import RequestModel
from artcafe.rules.clients import rate_limit_key
from artcafe.rules.quotas import Quota, QuotaExceeded

SMALL_BODY_BYTES: Final = 8 * 1024
"""What is read of a body before its caller is known, and the most that a route without a token takes. The longest login, an RSA
signature of 8,192 bits, has 3 KB."""
JSON_BODY_BYTES: Final = 24 * 1024
"""The most that a route takes which reads fields: the longest public key has 16 KB. Checking as much costs 2 ms at most."""
DISCARD_S: Final = 1.0
BODY_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""What all unfinished requests together may hold of their bodies."""
BODY_MEMORY_BYTES_PER_ADDRESS: Final = BODY_MEMORY_BYTES // 4


class Disconnected(Exception):
    """The client went away before its request was here."""


class RequestBody:
    """The body of one request as it arrives. uvicorn bounds neither its size nor its time.

    Its first `SMALL_BODY_BYTES` are read before anything is done for the request, so that most requests are complete by the time
    they are answered. The rest is read by the route that wants it, which is behind authentication. Until `release`, every byte
    counts against `memory`, which all requests share.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: Settings, memory: Quota) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        self._declared_bytes = int(declared) if declared.isdigit() else 0
        self._awaits_continue = b"expect" in headers
        """Whether the client sends nothing before it is asked to go on, which `receive` does."""
        self._receive, self._settings, self._memory = receive, settings, memory
        self._key = rate_limit_key(scope["client"][0])
        self._body = bytearray()
        self.is_complete = not self._declared_bytes and b"transfer-encoding" not in headers
        """Whether nothing of the body is left on the connection."""

    async def begin(self) -> None:
        """Read a small body, or the first part of one whose size is unknown. Raises as `read` does."""
        if self._declared_bytes > self._settings.max_body_bytes:
            raise TooLarge("the request's body", self._settings.max_body_bytes)
        if self._declared_bytes <= SMALL_BODY_BYTES and not self.is_complete:
            await self._fill(SMALL_BODY_BYTES)

    async def read(self, most_bytes: int) -> bytes:
        """Return the whole body. May be repeated.

        Raises TooLarge above `most_bytes`, before more than that is read; RequestTimeout when it does not arrive in time;
        RateLimited or Overloaded when there is no memory for it; and Disconnected.
        """
        if self._declared_bytes > most_bytes:
            raise TooLarge("the request's body", most_bytes)
        await self._fill(most_bytes)
        if len(self._body) > most_bytes:
            raise TooLarge("the request's body", most_bytes)
        return bytes(self._body)

    async def discard(self) -> None:
        """Take in the rest without keeping it, as far as a body may be long, for `DISCARD_S` at most.

        A connection that is closed over bytes which are still coming is reset, and the client may never read its answer.
        """
        left_bytes = self._settings.max_body_bytes
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                while not self.is_complete and left_bytes > 0 and not self._awaits_continue:
                    message = await self._receive()
                    left_bytes -= len(message.get("body", b""))
                    self.is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def release(self) -> None:
        """Forget the body, and give its memory back."""
        if self._body:
            self._memory.release(self._key, len(self._body))
            self._body.clear()

    async def _fill(self, most_bytes: int) -> None:
        """Read until the body is complete or has more than `most_bytes`."""
        try:
            async with asyncio.timeout(self._settings.body_deadline_s):
                while not self.is_complete and len(self._body) <= most_bytes:
                    await self._receive_part()
        except TimeoutError as exc:
            raise RequestTimeout(self._settings.body_deadline_s) from exc

    async def _receive_part(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part = message.get("body", b"")
        if part:
            refusal = self._memory.take(self._key, len(part))
            if refusal is QuotaExceeded.KEY:
                raise RateLimited("unfinished request bodies", 1)
            if refusal is QuotaExceeded.TOTAL:
                raise Overloaded("request bodies")
            self._body += part
        self.is_complete = not message.get("more_body", False)


def body_of(request: Request) -> RequestBody:
    """Return the request's body, which the supervisor of requests began to read."""
    return cast(RequestBody, request.state.body)  # Starlette's state is untyped; `app.RequestSupervisor` put it there.


T = TypeVar("T")
Items = Annotated[list[T], FailFast()]
"""A list in a body, checked up to its first wrong item: naming 10,000 wrong ones would take 4 ms."""

B = TypeVar("B", bound=RequestModel)


def json_body(model: type[B], most_bytes: int = JSON_BODY_BYTES) -> Callable[[Request], Awaitable[B]]:
    """A dependency that reads the body as `model`; it raises BadJson, Invalid, and what `RequestBody.read` does.

    FastAPI would read a body before it asks who is calling, and answer 400 to somebody who should hear 401. A dependency is
    read in its turn: put it behind the principal.
    """

    async def read(request: Request) -> B:
        body = await body_of(request).read(most_bytes)
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
        return await read_body(request) if await body_of(request).read(JSON_BODY_BYTES) else model()

    return read


def takes(model: type[RequestModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra=` of a route whose body is read by `json_body`, or by `optional_body` where it is not required."""
    return shown_as(model.model_json_schema(ref_template=REF), required=required)


def shown_as(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra=` of a route that reads JSON of this schema; the schema's title is its name in the document."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
