"""Request bodies: limits on size, time and memory, and JSON parsed into a model. Services validate the fields' values."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
from fastapi import Request
from pydantic import FailFast, ValidationError
from starlette.types import Receive, Scope

from artcafe.errors import BadJson, Invalid, Overloaded, RateLimited, RequestTimeout, TooLarge
from artcafe.rest.dependencies import RestSettings, settings_of
from artcafe.rest.problems import REF, of_json
from artcafe.rest.schemas import RequestModel
from artcafe.rules.clients import rate_limit_key
from artcafe.rules.quotas import Quota, QuotaExceeded
from artcafe.wire.frames import MAX_DEPTH

SMALL_BODY_BYTES: Final = 8 * 1024
"""Size of a body read before authentication, and the limit of routes without a token. The longest login, with an RSA signature of
8,192 bits, has 3 KB."""
JSON_BODY_BYTES: Final = 24 * 1024
"""Limit of routes with a JSON model: the longest public key has 16 KB. Validating this size costs at most 2 ms."""
DISCARD_S: Final = 1.0
DISCARD_BYTES: Final = 16 * 1024 * 1024
"""How much of a refused body is read and dropped: a client that sends 10 MB reads the refusal, and fails one call instead of its
connection."""
BODY_MEMORY_BYTES: Final = 64 * 1024 * 1024
"""Memory limit for the bodies of all unfinished requests."""
BODY_MEMORY_BYTES_PER_ADDRESS: Final = BODY_MEMORY_BYTES // 4


class Disconnected(Exception):
    """The client disconnected before its request was complete."""


class RequestBody:
    """The body of a request while it arrives, with limits on size and time, which uvicorn lacks.

    The first `SMALL_BODY_BYTES` are read before routing, so that most requests are complete when they are answered. Routes read
    the rest, after authentication. Until `release`, every byte counts against `memory`, the quota of all requests.
    """

    def __init__(self, scope: Scope, receive: Receive, settings: RestSettings, memory: Quota) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        self._declared_bytes = int(declared) if declared.isdigit() else 0
        self._awaits_continue = b"expect" in headers
        """Whether the client waits for "100 Continue" (RFC 9110, section 10.1.1), which `receive` sends."""
        self._receive, self._settings, self._memory = receive, settings, memory
        self._key = rate_limit_key(scope["client"][0])
        self._body = bytearray()
        self.is_complete = not self._declared_bytes and b"transfer-encoding" not in headers
        """Whether the whole body was read from the connection."""

    async def begin(self) -> None:
        """Read a small body, or the start of one with unknown size. Raises the errors of `read`."""
        if self._declared_bytes > self._settings.max_body_bytes:
            raise TooLarge("the request's body", self._settings.max_body_bytes)
        if self._declared_bytes <= SMALL_BODY_BYTES and not self.is_complete:
            await self._fill(SMALL_BODY_BYTES)

    async def read(self, most_bytes: int) -> bytes:
        """Return the whole body. It may be called again.

        Raises TooLarge above `most_bytes`, before reading more than that; RequestTimeout after the deadline; RateLimited or
        Overloaded when the memory quota of the address or of all requests is used up; and Disconnected.
        """
        if self._declared_bytes > most_bytes:
            raise TooLarge("the request's body", most_bytes)
        if not self.is_complete:
            await self._fill(most_bytes)
        if len(self._body) > most_bytes:
            raise TooLarge("the request's body", most_bytes)
        return bytes(self._body)

    async def disconnected(self) -> None:
        """Wait until the client disconnects. Call it after the whole body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def discard(self) -> None:
        """Read and drop the rest, up to `DISCARD_BYTES` and for at most `DISCARD_S`.

        Closing a connection with unread bytes resets it, and the client may never read its response.
        """
        left_bytes = DISCARD_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                while not self.is_complete and left_bytes > 0 and not self._awaits_continue:
                    message = await self._receive()
                    left_bytes -= len(message.get("body", b""))
                    self.is_complete = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def release(self) -> None:
        """Drop the body, and return its memory to the quota."""
        if self._body:
            self._memory.release(self._key, len(self._body))
            self._body.clear()

    async def _fill(self, most_bytes: int) -> None:
        """Read until the body is complete or larger than `most_bytes`."""
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
    """Return the request's body, started by the request supervisor."""
    return cast(RequestBody, request.state.body)  # Starlette's state is untyped; `app.RequestSupervisor` put it there.


T = TypeVar("T")
Items = Annotated[list[T], FailFast()]
"""A list in a body, validated up to its first invalid item: reporting 10,000 invalid items would take 4 ms."""

B = TypeVar("B", bound=RequestModel)
RawT = TypeVar("RawT", bound=msgspec.Struct)


async def read_json(body: RequestBody, model: type[B], most_bytes: int = JSON_BODY_BYTES) -> B:
    """Return the body as `model`. Raises BadJson, Invalid, and what `RequestBody.read` does."""
    content = await body.read(most_bytes)
    if not content:
        raise BadJson("it is empty")
    try:
        return model.model_validate_json(content)
    except ValidationError as exc:
        raise of_json(exc) from None  # Its text quotes the input, which may be a secret.


def json_body(model: type[B], most_bytes: int = JSON_BODY_BYTES) -> Callable[[Request], Awaitable[B]]:
    """Return a dependency that parses the body as `model`. It raises BadJson, Invalid, and the errors of `RequestBody.read`.

    FastAPI itself reads a body before authentication, and would answer 400 instead of 401. Dependencies run in order: declare
    this one after the principal.
    """

    async def read(request: Request) -> B:
        return await read_json(body_of(request), model, most_bytes)

    return read


def optional_body(model: type[B]) -> Callable[[Request], Awaitable[B]]:
    """Return `json_body` for a model with only optional fields: a missing body equals `{}`."""
    read_body = json_body(model)

    async def read(request: Request) -> B:
        return await read_body(request) if await body_of(request).read(JSON_BODY_BYTES) else model()

    return read


async def read_raw_json(request: Request, decoder: msgspec.json.Decoder[RawT]) -> RawT:
    """Return the body of a message, whose data stays as its text.

    Raises BadJson for other JSON than an object, Invalid for a field, and what `RequestBody.read` does.
    """
    body = await body_of(request).read(settings_of(request).max_body_bytes)
    try:
        str(body, "utf-8")  # msgspec does not validate the content of a Raw.
        return decoder.decode(body)
    except UnicodeDecodeError:
        raise BadJson("it is not UTF-8") from None
    except RecursionError:
        raise Invalid("data", f"is nested deeper than {MAX_DEPTH}") from None
    except msgspec.ValidationError as exc:
        raise _invalid(str(exc)) from None
    except msgspec.DecodeError as exc:
        raise BadJson(str(exc) if body else "it is empty") from None


def _invalid(text: str) -> BadJson | Invalid:
    """Convert msgspec's message, which ends with the field: "Expected `str`, got `int` - at `$.key`"."""
    problem, _, place = text.partition(" - at `$")
    problem = problem[:1].lower() + problem[1:]
    if place:
        return Invalid(place.rstrip("`").lstrip("."), problem)
    if "`" not in problem or problem.startswith("expected"):
        return BadJson("it must be an object")
    return Invalid(problem.split("`")[1], "is required" if "missing" in problem else "is unknown")


def request_schema(model: type[RequestModel], *, required: bool = True) -> dict[str, Any]:
    """Return `openapi_extra=` for a route with `json_body`, or with `optional_body` if not `required`."""
    return shown_as(model.model_json_schema(ref_template=REF), required=required)


def shown_as(schema: dict[str, Any], *, required: bool = True) -> dict[str, Any]:
    """Return `openapi_extra=` for a route with a JSON body of this schema, named in the document by its title."""
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}
