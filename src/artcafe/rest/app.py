"""The HTTP application: routes, supervision of every request, and the OpenAPI document. `rest.server` listens."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import quote

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artcafe.assembly import Services
from artcafe.errors import (
    ArtcafeError,
    BadRequest,
    Internal,
    Invalid,
    MethodNotAllowed,
    OurFault,
    Overloaded,
    RateLimited,
    RequestTimeout,
    RouteNotFound,
    TooLarge,
    Unanswered,
)
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.rest import (
    agents,
    asyncapi,
    audit,
    auth,
    chains,
    channels,
    console,
    console_codes,
    error_page,
    health,
    home,
    inbox,
    invitations,
    keys,
    limits,
    mcp,
    members,
    messages,
    operator,
    problems,
    rate_headers,
    receipts,
    redrives,
    requests,
    scheduled,
    streams,
    subscriptions,
    tenants,
    terms,
    usage,
    wake,
)
from artcafe.rest.bodies import BODY_MEMORY_BYTES, BODY_MEMORY_BYTES_PER_ADDRESS, Disconnected, RequestBody
from artcafe.rest.dependencies import RestSettings
from artcafe.rest.headers import response_headers
from artcafe.rules.clients import rate_limit_key
from artcafe.rules.ids import new_id
from artcafe.rules.quotas import Quota
from artcafe.wire.segments import for_routing, from_routing

__all__ = ["RestSettings", "Services", "build"]

ROUTERS: Final = (
    home.router,
    terms.router,
    auth.router,
    console_codes.router,
    tenants.router,
    limits.router,
    members.router,
    invitations.router,
    agents.router,
    keys.router,
    wake.router,
    requests.router,
    channels.router,
    subscriptions.router,
    messages.router,
    streams.router,
    scheduled.router,
    inbox.router,
    receipts.router,
    chains.router,
    redrives.router,
    audit.router,
    usage.router,
    operator.router,
    health.router,
    asyncapi.router,
    error_page.router,
    mcp.router,
    console.router,
)

TAGS: Final = {
    "home": "Addresses of the service, and the current caller.",
    "auth": "Login of agents, by a signature with their SSH key, and of people in the console.",
    "terms": "Terms of service, which users accept before anything else.",
    "tenants": "Organisations, isolated from each other.",
    "limits": "A tenant's plan and limits, and what is used of them.",
    "members": "Users with a role in a tenant, and invitations.",
    "agents": "Programs of a tenant, and their SSH keys.",
    "channels": "Named, ordered logs of messages.",
    "subscriptions": "Agents that receive a channel, and their positions.",
    "messages": "Publish messages, and read the history of a channel.",
    "inbox": "Pull an agent's messages without a socket, and acknowledge them.",
    "usage": "What a tenant used, by period.",
    "audit": "Record of logins, refused attempts and changes.",
    "operator": "The state of the platform, for its operators.",
    "health": "Liveness and readiness, for operators.",
}

BURST_S: Final = 10
"""Burst size of the rate limit, in seconds of an address's permitted requests."""

MAX_TARGET_BYTES: Final = 8192
"""Maximum size of path and query: several times the longest valid one."""
MAX_PARAMETERS: Final = 32

HASTY: Final = frozenset(error.code for error in (BadRequest, Overloaded, RequestTimeout, RateLimited))
"""Errors sent without reading the rest of a body: the peer sends too much, too fast, or not what it declared."""

NO_TELEMETRY: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own spans continue the trace of any client, with its sampling decision, and record query strings; its logs have
rejected values. `observe.tracing` has the spans of publishes."""

LONGEST_PATH: Final = 200
"""Maximum length of a logged path, twice the longest route."""


def build(services: Services, settings: RestSettings) -> FastAPI:
    """Return the application. It opens no resources; the caller owns and closes the services."""
    app = _Api(
        title="ArtCafe",
        version=settings.version,
        summary="Carries messages between fleets of AI agents.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        generate_unique_id_function=lambda route: route.name,
        dependencies=[Depends(_read_ids)],
        middleware=[Middleware(RequestSupervisor, settings=settings)],
        exception_handlers={StarletteHTTPException: _refused, RequestValidationError: _invalid},
        telemetry=NO_TELEMETRY,
    )
    app.state.services = services
    app.state.settings = settings
    for router in ROUTERS:
        app.include_router(router)
    return app


async def _read_ids(request: Request) -> None:
    """Decode the ids in the path for every route. Dependencies of the application run before those of a route."""
    for name, segment in request.path_params.items():
        request.path_params[name] = from_routing(segment)


class _Api(FastAPI):
    """FastAPI with an OpenAPI document that names the schemas of bodies and problems."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _named(super().openapi())
        return self.openapi_schema


def _named(document: dict[str, Any]) -> dict[str, Any]:
    """Move the schemas of bodies to the components, named by their titles, as client generators expect, and remove the
    framework's own error, which is never sent."""
    schemas = document["components"]["schemas"]
    schemas["Problem"] = problems.ProblemResponse.model_json_schema(ref_template=problems.REF)
    for operation in (each for operations in document["paths"].values() for each in operations.values()):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content:
            schema = content["schema"]
            schemas[schema["title"]] = schema
            content["schema"] = {"$ref": problems.REF.format(model=schema["title"])}
        if problems.MEDIA_TYPE not in operation["responses"].get("422", {}).get("content", {}):
            operation["responses"].pop("422", None)
    for schema in [*schemas.values()]:
        schemas.update(schema.pop("$defs", {}))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    _rename_to_titles(document)
    return document


def _rename_to_titles(document: dict[str, Any]) -> None:
    """Name every schema by its title, where FastAPI uses the name of its class."""
    schemas = document["components"]["schemas"]
    renamed = {problems.REF.format(model=name): problems.REF.format(model=each["title"]) for name, each in schemas.items()}
    document["components"]["schemas"] = {each["title"]: each for each in schemas.values()}
    todo: list[Any] = [document]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            if isinstance(reference := part.get("$ref"), str):
                part["$ref"] = renamed.get(reference, reference)
            todo.extend(part.values())
        elif isinstance(part, list):
            todo.extend(part)


_DIRECT: Final = {(route.method, route.path): route for route in auth.DIRECT}


# --- around every request ----------------------------------------------------------------------------------------------


class RequestSupervisor:
    """Middleware that assigns the request id, applies limits, starts reading the body, and answers every error.

    It is raw ASGI, because Starlette's middleware class runs the application in another task, whose context variables, set by
    a route, are missing in this one's log lines.
    """

    def __init__(self, app: ASGIApp, settings: RestSettings) -> None:
        self._app, self._settings = app, settings
        self._buckets = settings.make_buckets(settings.requests_per_s, settings.requests_per_s * BURST_S)
        self._body_memory = Quota(BODY_MEMORY_BYTES, BODY_MEMORY_BYTES_PER_ADDRESS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        address = self._observed(scope)
        scope["client"] = (address, 0)
        request = _Request(scope, receive, send, RequestBody(scope, receive, self._settings, self._body_memory))
        try:
            self._bound(address)
            _check_spare(scope)
            _check_head(scope)
            await request.serve(self._app)
        except Disconnected:
            request.code = "disconnected"
        except ArtcafeError as error:
            if isinstance(error, OurFault):
                log.warning("request.unavailable", code=error.code, problem=str(error))
            await request.refuse(error)
        except asyncio.CancelledError:  # By uvicorn, at the end of its drain timeout; the task ends here in any case.
            log.warning("request.cut_off", method=scope["method"], path=request.path)
            await request.refuse(Unanswered("this server, which is shutting down,"))
        except Exception:  # noqa: BLE001 (the supervisor of requests: the error is logged once and answered)
            log.exception("request.failed", method=scope["method"], path=request.path)
            await request.refuse(Internal())
        finally:
            request.body.release()
        request.log_done()

    def _observed(self, scope: Scope) -> str:
        peer, _ = scope.get("client") or (None, 0)
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return self._settings.proxies.client_address(peer, forwarded)

    def _bound(self, address: str) -> None:
        """Apply the rate limit before any other work for the request. Raises RateLimited."""
        wait_s = self._buckets.take(rate_limit_key(address), time.monotonic())
        if wait_s:
            raise RateLimited("requests", wait_s)


class _Request:
    """One request and the status of its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body: RequestBody) -> None:
        self._scope, self._receive, self._send, self.body = scope, receive, send, body
        self._started = time.monotonic()
        self.path = quote(scope["path"][:LONGEST_PATH])  # Encoded, so that a line break in it cannot forge a line of the log.
        self.status: int | None = None
        self.code: str | None = None
        self.id = new_id("req")  # Never a client's id, which could inject text into the log.
        scope.setdefault("state", {}).update(request_id=self.id, body=body)
        structlog.contextvars.bind_contextvars(request_id=self.id, address=scope["client"][0])

    async def serve(self, app: ASGIApp) -> None:
        await self.body.begin()
        # Route by the raw path: the server's decoding would split an id with a slash into two segments.
        self._scope["path"] = for_routing(self._scope["raw_path"].decode("ascii", "replace"))
        # HEAD is handled as GET (RFC 9110, section 9.3.2). uvicorn omits the body, by the method in its own scope.
        is_head = self._scope["state"]["is_head"] = self._scope["method"] == "HEAD"
        scope = {**self._scope, "method": "GET"} if is_head else self._scope
        direct = _DIRECT.get((scope["method"], scope["path"]))
        if direct is None:
            await app(scope, self._receive, self._answer)
            return
        response = await direct.respond(scope["app"].state.services, self.body)
        await response(scope, self._receive, self._answer)

    async def refuse(self, error: ArtcafeError) -> None:
        """Send the error, unless a response has started."""
        self.code = error.code
        if self.status is not None:
            return
        metrics.count_error(error)
        response = problems.answer(error, self.id, challenge=self._scope["state"].get("challenge"))
        await response(self._scope, self._receive, self._answer)

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if not self.body.is_complete and self.code not in HASTY:
                await self.body.discard()
            given = message.get("headers", ())
            own = [(b"x-request-id", self.id.encode()), *response_headers(self._scope.get("scheme"), given)]
            own += rate_headers.headers(self._scope)
            if self._is_last():
                own.append((b"connection", b"close"))
            message["headers"] = [*given, *own]
        await self._send(message)

    def _is_last(self) -> bool:
        """Whether to close the connection after this response: the rest of a body follows instead of a request, the start of the
        next request is unknown, or the connection is a spare one."""
        return not self.body.is_complete or self.code == BadRequest.code or "is_spare" in self._scope["state"]

    def log_done(self) -> None:
        duration_s = time.monotonic() - self._started
        metrics.HTTP_REQUESTS.of("none" if self.status is None else f"{self.status // 100}xx").add()
        if "is_stream" not in self._scope["state"]:
            metrics.HTTP_SECONDS.of().observe(duration_s)
        log.debug(
            "request.done",
            method=self._scope["method"],
            path=self.path,
            status=self.status,
            code=self.code,
            duration_s=round(duration_s, 6),
        )


def _check_spare(scope: Scope) -> None:
    """Raise Overloaded on a spare connection, which serves only health requests."""
    if scope["state"].get("is_spare") and not scope["path"].startswith(health.router.prefix + "/"):
        raise Overloaded("connections")


def _check_head(scope: Scope) -> None:
    """Raise BadRequest, TooLarge or Invalid for an ambiguous or oversized head."""
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names and b"transfer-encoding" in names:  # RFC 9112, section 6.1: request smuggling, or a bug.
        raise BadRequest("it has both Content-Length and Transfer-Encoding")
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        raise TooLarge("the request's path and query", MAX_TARGET_BYTES)
    if scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise Invalid("query", f"has more than {MAX_PARAMETERS} parameters")


# --- errors of the framework -------------------------------------------------------------------------------------------


async def _refused(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, StarletteHTTPException)
    match exc.status_code:
        case 404:
            raise RouteNotFound(request.scope["path"]) from None
        case 405:
            raise MethodNotAllowed(request.method, _allowed(request)) from None
        case _:
            raise Internal from exc


async def _invalid(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    raise problems.of_fields(exc.errors()) from None


def _allowed(request: Request) -> str:
    """Return all methods of a path. The framework looks at one route, but each method has its own."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path and compile_path(route.path)[0].match(request.scope["path"]):
            methods |= route.methods or set()
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
