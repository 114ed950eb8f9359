"""The HTTP application: its routes, what surrounds every request, and its OpenAPI document. Listening is `server`'s."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import quote

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
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
from artcafe.observe.logs import log
from artcafe.rest import (
    agents,
    asyncapi,
    audit,
    auth,
    channels,
    health,
    home,
    invitations,
    keys,
    members,
    messages,
    problems,
    subscriptions,
    tenants,
    terms,
)
from artcafe.rest.bodies import BODY_MEMORY_BYTES, BODY_MEMORY_BYTES_PER_ADDRESS, Disconnected, RequestBody
from artcafe.rest.dependencies import Settings
from artcafe.rest.headers import of_every_answer
from artcafe.rules.clients import rate_limit_key
from artcafe.rules.ids import new_id
from artcafe.rules.quotas import Quota
from artcafe.wire.segments import for_routing, from_routing

__all__ = ["Services", "Settings", "build"]

ROUTERS: Final = (
    home.router,
    terms.router,
    auth.router,
    tenants.router,
    members.router,
    invitations.router,
    agents.router,
    keys.router,
    channels.router,
    subscriptions.router,
    messages.router,
    audit.router,
    health.router,
    asyncapi.router,
)

TAGS: Final = {
    "home": "Where everything is, and who is calling.",
    "auth": "Login of agents, by a signature with their SSH key.",
    "terms": "What people accept before anything else.",
    "tenants": "Organisations, which nothing crosses.",
    "members": "The people in a tenant, and invitations into it.",
    "agents": "The programs of a tenant.",
    "channels": "Named, ordered logs of messages.",
    "subscriptions": "Which agent receives which channel.",
    "messages": "Publishing.",
    "audit": "Who did what.",
    "health": "For operators.",
}

BURST_S: Final = 10
"""So many seconds' worth of an address's requests may come at once."""

MAX_TARGET_BYTES: Final = 8192
"""Of a path and query: several times the longest that anybody needs."""
MAX_PARAMETERS: Final = 32

HASTY: Final = frozenset(error.code for error in (BadRequest, Overloaded, RequestTimeout, RateLimited))
"""Answers that do not wait for the rest of a body: to peers that send too much, too fast, or not what they announced."""

LONGEST_PATH: Final = 200
"""Characters of a path that are logged: twice the longest of ours."""


def build(services: Services, settings: Settings) -> FastAPI:
    """The application. It opens nothing and owns nothing: the services are the caller's to close."""
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
    )
    app.state.services = services
    app.state.settings = settings
    for router in ROUTERS:
        app.include_router(router)
    return app


async def _read_ids(request: Request) -> None:
    """Give every route the ids themselves, in place of what stood in the path. The application's dependencies come first."""
    for name, segment in request.path_params.items():
        request.path_params[name] = from_routing(segment)


class _Api(FastAPI):
    """FastAPI with a document in which bodies and problems have names."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _named(super().openapi())
        return self.openapi_schema


def _named(document: dict[str, Any]) -> dict[str, Any]:
    """Moves the schemas of bodies among the components, under their titles, as generated clients want them, and takes out the
    framework's own error, which we never answer."""
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
    """Name every schema by its title: FastAPI names it by its class."""
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


# --- around every request ----------------------------------------------------------------------------------------------


class RequestSupervisor:
    """Gives each request its id, bounds what it may bring, begins to read its body, and answers whatever goes wrong.

    Raw ASGI: Starlette's own middleware class would run the rest in another task, where a context variable set by a route is
    lost to the log.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
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
        except asyncio.CancelledError:  # by uvicorn, whose drain has lasted long enough; the task ends here either way
            log.warning("request.cut_off", method=scope["method"], path=request.path)
            await request.refuse(Unanswered("this server, which is shutting down,"))
        except Exception:  # noqa: BLE001 (the supervisor of requests: logged here once, and the caller is told)
            log.exception("request.failed", method=scope["method"], path=request.path)
            await request.refuse(Internal())
        finally:
            request.body.release()
        request.tell()

    def _observed(self, scope: Scope) -> str:
        peer, _ = scope.get("client") or (None, 0)
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return self._settings.proxies.client_address(peer, forwarded)

    def _bound(self, address: str) -> None:
        """Raises RateLimited, before anything is read or looked up for the request."""
        wait_s = self._buckets.take(rate_limit_key(address), time.monotonic())
        if wait_s:
            raise RateLimited("requests", wait_s)


class _Request:
    """One request on its way through, and what was answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body: RequestBody) -> None:
        self._scope, self._receive, self._send, self.body = scope, receive, send, body
        self._started = time.monotonic()
        self.path = quote(scope["path"][:LONGEST_PATH])  # Encoded, so that no line break of a client's begins a line of the log.
        self.status: int | None = None
        self.code: str | None = None
        self.id = new_id("req")  # Never the client's: it would be a way into the log.
        scope.setdefault("state", {}).update(request_id=self.id, body=body)
        structlog.contextvars.bind_contextvars(request_id=self.id, address=scope["client"][0])

    async def serve(self, app: ASGIApp) -> None:
        await self.body.begin()
        # Routed by the path as it came: the server's own decoding makes two segments of an id with a slash in it.
        self._scope["path"] = for_routing(self._scope["raw_path"].decode("ascii", "replace"))
        # HEAD is answered as GET (RFC 9110, section 9.3.2). uvicorn leaves the body out, by the method in the scope that it made.
        scope = {**self._scope, "method": "GET"} if self._scope["method"] == "HEAD" else self._scope
        await app(scope, self._receive, self._answer)

    async def refuse(self, error: ArtcafeError) -> None:
        """Answers with the error, if nothing was answered yet."""
        self.code = error.code
        if self.status is not None:
            return
        await problems.answer(error, self.id)(self._scope, self._receive, self._answer)

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.code not in HASTY:
                await self.body.discard()
            own = [(b"x-request-id", self.id.encode()), *of_every_answer(self._scope.get("scheme"))]
            if self._is_last():
                own.append((b"connection", b"close"))
            message["headers"] = [*message.get("headers", ()), *own]
        await self._send(message)

    def _is_last(self) -> bool:
        """Whether the connection ends behind this answer: because what comes next is the rest of a body and no request, because
        nobody knows where the next request begins, or because others need its place."""
        return not self.body.is_complete or self.code == BadRequest.code or "is_spare" in self._scope["state"]

    def tell(self) -> None:
        log.debug(
            "request.done",
            method=self._scope["method"],
            path=self.path,
            status=self.status,
            code=self.code,
            duration_s=round(time.monotonic() - self._started, 6),
        )


def _check_spare(scope: Scope) -> None:
    """Raise Overloaded on a connection beyond all others, unless it asks for health."""
    if scope["state"].get("is_spare") and not scope["path"].startswith(health.router.prefix + "/"):
        raise Overloaded("connections")


def _check_head(scope: Scope) -> None:
    """Raise BadRequest, TooLarge or Invalid for a head that costs or means more than ours do."""
    names = {name for name, _ in scope["headers"]}
    if b"content-length" in names and b"transfer-encoding" in names:  # RFC 9112, section 6.1: an attempt at smuggling, or a bug
        raise BadRequest("it has both Content-Length and Transfer-Encoding")
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET_BYTES:
        raise TooLarge("the request's path and query", MAX_TARGET_BYTES)
    if scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        raise Invalid("query", f"has more than {MAX_PARAMETERS} parameters")


# --- what the framework refuses, in our words --------------------------------------------------------------------------


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
    """Every method of this path: the framework looks at one route, and a path has one for each method."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path and compile_path(route.path)[0].match(request.scope["path"]):
            methods |= route.methods or set()
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
