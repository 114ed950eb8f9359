"""The HTTP application: its routes, what surrounds every request, and its OpenAPI document. Listening is `server`'s."""

from __future__ import annotations

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

from artcafe.errors import ArtcafeError, Internal, MethodNotAllowed, OurFault, RouteNotFound, TooFast
from artcafe.observe import log
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
from artcafe.rest.bodies import Disconnected, receive_body, replayed
from artcafe.rest.parts import Services, Settings
from artcafe.rules.clients import counted_as
from artcafe.rules.ids import new_id
from artcafe.rules.throttle import Buckets
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

LONGEST_PATH: Final = 200
"""Characters of a path that are logged: twice the longest of ours."""

HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""On every answer, and no header of CORS on any. They are JSON for programs: a browser that is lured here shall neither keep,
frame nor run one."""


TLS_ONLY: Final = (b"strict-transport-security", b"max-age=31536000")
"""A year, on answers over TLS of ours (RFC 6797). Behind a proxy that ends TLS it is the proxy's to say."""


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
        middleware=[Middleware(Supervisor, settings=settings)],
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
    schemas["Problem"] = problems.Problem.model_json_schema(ref_template=problems.REF)
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
    return document


# --- around every request ----------------------------------------------------------------------------------------------


class Supervisor:
    """Gives each request its id, takes in its body under a limit and a deadline, and answers whatever goes wrong.

    Raw ASGI: Starlette's own middleware class would run the rest in another task, where a context variable set by a route is
    lost to the log.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._buckets = Buckets(settings.requests_per_s, settings.requests_per_s * BURST_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        address = self._observed(scope)
        scope["client"] = (address, 0)
        request = _Request(scope, receive, send)
        try:
            self._bound(address)
            await request.serve(self._app, self._settings)
        except Disconnected:
            request.code = "disconnected"
        except ArtcafeError as error:
            if isinstance(error, OurFault):
                log.warning("request.unavailable", code=error.code, problem=str(error))
            await request.refuse(error)
        except Exception:  # noqa: BLE001 (the supervisor of requests: logged here once, and the caller is told)
            log.exception("request.failed", method=scope["method"], path=request.path)
            await request.refuse(Internal())
        request.tell()

    def _observed(self, scope: Scope) -> str:
        peer, _ = scope.get("client") or (None, 0)
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return self._settings.proxies.observed(peer, forwarded)

    def _bound(self, address: str) -> None:
        """Raises TooFast, before anything is read or looked up for the request."""
        wait_s = self._buckets.take(counted_as(address), time.monotonic())
        if wait_s:
            raise TooFast("requests", wait_s)


class _Request:
    """One request on its way through, and what was answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._started = time.monotonic()
        self._is_received = False
        self.path = quote(scope["path"][:LONGEST_PATH])  # Encoded, so that no line break of a client's begins a line of the log.
        self.status: int | None = None
        self.code: str | None = None
        self.id = new_id("req")  # Never the client's: it would be a way into the log.
        scope.setdefault("state", {})["request_id"] = self.id
        structlog.contextvars.bind_contextvars(request_id=self.id, address=scope["client"][0])

    async def serve(self, app: ASGIApp, settings: Settings) -> None:
        body = await receive_body(self._scope, self._receive, settings)
        self._is_received = True
        # Routed by the path as it came: the server's own decoding makes two segments of an id with a slash in it.
        self._scope["path"] = for_routing(self._scope["raw_path"].decode("ascii", "replace"))
        await app(self._scope, replayed(body, self._receive), self._answer)

    async def refuse(self, error: ArtcafeError) -> None:
        """Answers with the error, if nothing was answered yet."""
        self.code = error.code
        if self.status is not None:
            return
        response = problems.answer(error, self.id)
        if not self._is_received:
            response.headers["Connection"] = "close"  # What comes next on it is the rest of this body, not a request.
        await response(self._scope, self._receive, self._answer)

    async def _answer(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode()), *self._headers()]
        await self._send(message)

    def _headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (*HEADERS, TLS_ONLY) if self._scope.get("scheme") == "https" else HEADERS

    def tell(self) -> None:
        log.debug(
            "request.done",
            method=self._scope["method"],
            path=self.path,
            status=self.status,
            code=self.code,
            duration_s=round(time.monotonic() - self._started, 6),
        )


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
    return ", ".join(sorted(methods))
