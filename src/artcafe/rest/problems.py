"""Errors as RFC 9457 problems: body, headers, and documentation in OpenAPI."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from fastapi import Response
from pydantic import ConfigDict, Field, ValidationError

from artcafe import errors
from artcafe.errors import ArtcafeError, BadJson, Invalid, NotFound, RouteNotFound
from artcafe.rest.schemas import ResponseModel
from artcafe.wire.replies import limit_of

MEDIA_TYPE: Final = "application/problem+json"
ERROR_PAGE: Final = "/docs/errors"
"""Path of the page that a problem's `type` names (`rest.error_page`)."""
REF: Final = "#/components/schemas/{model}"
"""Reference to a schema in the OpenAPI document."""
RETRY_AFTER_S: Final = 1
"""Long enough to spread retries after a restart, short enough to go unnoticed."""

_LONGEST_ECHO: Final = 200


class FieldProblem(ResponseModel):
    """One missing or invalid field."""

    field: str = Field(description="The field's path in the body, or the query parameter.", examples=["capabilities[0]"])
    problem: str = Field(examples=["is required"])


class LimitResponse(ResponseModel):
    """A limit of the tenant, and what is used of it."""

    name: str = Field(description="The limit's name, as in the catalogue of plans.", examples=["agents"])
    limit: int | None = Field(description="Null: unlimited, or in an error unknown.", examples=[100])
    used: int | None = Field(
        description="Null: unknown, or a limit of one size or age. In an error, what a refused size would have been.",
        examples=[100],
    )
    left: int | None = Field(description="Null: unknown or unlimited.", examples=[0])
    resets_at: str | None = Field(description="When a limit of a period begins again (RFC 3339).", examples=[None])


class ProblemResponse(ResponseModel):
    """An error (RFC 9457). `code` is stable, for programs; `detail` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="A relative URI for the code.", examples=["/docs/errors#agent_not_found"])
    title: str = Field(examples=["Agent not found"])
    status: int = Field(examples=[404])
    detail: str
    code: str = Field(examples=["agent_not_found"])
    request_id: str = Field(
        description="The id of this request in the server's log.", examples=["req_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2"]
    )
    errors: list[FieldProblem] | None = Field(None, description="Only with `invalid`: every invalid field.")
    chain: str | None = Field(None, description="Only with `loop_stopped`: the id of the chain.")
    hops: int | None = Field(None, description="Only with `loop_stopped`: the number of messages before the refused one.")
    delivered: bool | None = Field(
        None, description="Only in errors of requests to agents: whether the agent was sent the request. Absent if unknown."
    )
    agent_code: str | None = Field(None, description="Only with `agent_error`: the code that the agent chose.")
    seq: int | None = Field(None, description="Only with `already_delivered`: the message's sequence in its channel.")
    limit: LimitResponse | None = Field(None, description="Only in errors of limits: the limit that refused the request.")


@dataclass(eq=False)
class InvalidFields(Invalid):
    """All invalid fields of a body or a query, so that they can be fixed together; `field` and `problem` describe the first."""

    others: tuple[Invalid, ...] = ()

    def __str__(self) -> str:
        return "; ".join(f"{each.field}: {each.problem}" for each in (self, *self.others))


class _ThisId:
    """Placeholder for an unknown id, so that the response is byte for byte the same for a missing and for a foreign record."""

    def __repr__(self) -> str:
        return "of this id"


def answer(
    error: ArtcafeError, request_id: str, more: Mapping[str, object] | None = None, challenge: str | None = None
) -> Response:
    """Return the response for `error`, with `more` as further members of the problem. `challenge`: the value of
    `WWW-Authenticate` in a 401, if it is more than the scheme."""
    body: dict[str, object] = {
        "type": f"{ERROR_PAGE}#{error.code}",
        "title": title(error.code),
        "status": error.status,
        "detail": detail(error),
        "code": error.code,
        "request_id": request_id,
    }
    if isinstance(error, Invalid):
        wrong = (error, *error.others) if isinstance(error, InvalidFields) else (error,)
        body["errors"] = [{"field": each.field, "problem": each.problem} for each in wrong]
    limit = limit_of(error)
    if limit is not None:
        body["limit"] = limit
    if isinstance(error, errors.LoopStopped):
        body["chain"], body["hops"] = error.chain, error.hops
    if isinstance(error, errors.AlreadyDelivered):
        body["seq"] = error.seq
    if isinstance(error, errors.RequestFault) and error.was_delivered is not None:
        body["delivered"] = error.was_delivered
    if isinstance(error, errors.AgentError):
        body["agent_code"] = error.agent_code
    content = msgspec.json.encode({**body, **(more or {})})
    return Response(content, status_code=error.status, headers=_headers(error, challenge), media_type=MEDIA_TYPE)


def title(code: str) -> str:
    """Return a code as a title: `Agent not found` for `agent_not_found`."""
    return code.replace("_", " ").capitalize().replace("json", "JSON")


def detail(error: ArtcafeError) -> str:
    """Return the text of the error, without the id of a missing record."""
    if isinstance(error, RouteNotFound):
        return str(RouteNotFound(error.id[:_LONGEST_ECHO]))
    if isinstance(error, NotFound):
        return error.text.format(id=_ThisId())
    return str(error)


def _headers(error: ArtcafeError, challenge: str | None) -> dict[str, str]:
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = challenge or "Bearer"
    elif isinstance(error, errors.RateLimited):
        headers["Retry-After"] = str(max(RETRY_AFTER_S, math.ceil(error.wait_s)))
    elif error.temporary:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = error.allowed
    return headers


# --- validation errors -------------------------------------------------------------------------------------------------

_PHRASES: Final = {"missing": "is required", "extra_forbidden": "is unknown"}
_PLACES: Final = ("body", "query", "path", "header")


MOST_FIELDS: Final = 20
"""Maximum number of fields in a response. Texts for all errors of a long body would take a hundred times its own cost."""


def of_json(exc: ValidationError) -> ArtcafeError:
    """Return the error for an invalid body."""
    if exc.error_count() > MOST_FIELDS:  # `errors` would build all of them.
        return Invalid("body", f"{exc.error_count()} fields of it are unknown or wrong")
    found = exc.errors(include_url=False, include_input=False)
    for each in found:
        if each["type"] == "json_invalid":
            return BadJson(str(each.get("ctx", {}).get("error", "it cannot be read")))
        if not each["loc"]:
            return BadJson("it must be an object")
    return of_fields(found)


def of_fields(found: Sequence[Mapping[str, Any]]) -> InvalidFields:
    """Return the error for at least one field refused by pydantic, with the first `MOST_FIELDS`."""
    first, *others = [Invalid(_path(each["loc"]), _phrase(each)) for each in found[:MOST_FIELDS]]
    return InvalidFields(first.field, first.problem, tuple(others))


def _path(loc: tuple[int | str, ...]) -> str:
    if loc and loc[0] in _PLACES:
        loc = loc[1:]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
    return path if len(path) <= _LONGEST_ECHO else path[:_LONGEST_ECHO] + "…"


def _phrase(found: Mapping[str, Any]) -> str:
    text = str(found["msg"])
    return _PHRASES.get(found["type"], text[:1].lower() + text[1:])


# --- documentation -----------------------------------------------------------------------------------------------------

Kinds = tuple[type[ArtcafeError], ...]

ANYWHERE: Final[Kinds] = (
    errors.BadRequest,
    errors.RequestTimeout,
    errors.RateLimited,
    errors.TooLarge,
    errors.Internal,
    errors.Overloaded,
    errors.Unavailable,
)
BEARER: Final[Kinds] = (errors.Unauthenticated, errors.CredentialsExpired, errors.Revoked)
IN_TENANT: Final[Kinds] = (*BEARER, errors.TermsRequired, errors.TenantNotFound, errors.Forbidden, errors.TenantSuspended)
BODY: Final[Kinds] = (errors.BadJson, errors.Invalid, errors.RowFull)
POST: Final[Kinds] = (*BODY, errors.IdempotencyMismatch, errors.Conflict)
LIST: Final[Kinds] = (errors.BadCursor, errors.Invalid)


def responses(*kinds: type[ArtcafeError]) -> dict[int | str, dict[str, Any]]:
    """Return `responses=` for a route with these errors, and with those of any route."""
    by_status: defaultdict[int, list[type[ArtcafeError]]] = defaultdict(list)
    for kind in sorted({*kinds, *ANYWHERE}, key=lambda each: (each.status, each.code)):
        by_status[kind.status].append(kind)
    return {status: _documented(kinds) for status, kinds in by_status.items()}


def _documented(kinds: list[type[ArtcafeError]]) -> dict[str, Any]:
    content = {
        "schema": {"$ref": REF.format(model="Problem")},
        "examples": {each.code: {"value": _example(each)} for each in kinds},
    }
    return {"description": ", ".join(f"`{each.code}`" for each in kinds), "content": {MEDIA_TYPE: content}}


def _example(kind: type[ArtcafeError]) -> dict[str, object]:
    return {
        "type": f"{ERROR_PAGE}#{kind.code}",
        "title": title(kind.code),
        "status": kind.status,
        "detail": kind.text.format(id=_ThisId()) if issubclass(kind, NotFound) else re.sub(r"\{[^}]*\}", "…", kind.text),
        "code": kind.code,
        "request_id": "req_01JD8ZK3V7Q5W2X4Y6Z8A0B1C2",
    }
