"""The route of the Model Context Protocol, for agents and people, and its metadata for OAuth clients.

Any server of a fleet answers any request (`rest.mcp_protocol`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials
from fastapi.sse import EventSourceResponse

from artcafe.errors import OriginRefused
from artcafe.rest import mcp_offers, mcp_protocol
from artcafe.rest.bodies import body_of
from artcafe.rest.dependencies import ServicesDep, settings_of
from artcafe.rest.principal import InTenant, TenantPath, bearer
from artcafe.wire.segments import tenant_path

METADATA: Final = "/.well-known/oauth-protected-resource"
"""RFC 9728, section 3.1: the path of a resource follows it."""

router = APIRouter(include_in_schema=False)  # Another protocol: its clients read tools/list in place of OpenAPI.


def _base_url(request: Request) -> str:
    """Return the URL of this listener, as the client knows it."""
    settings, host = settings_of(request), request.headers.get("host", "")
    if settings.public_url is not None:
        return settings.public_url
    return f"{request.url.scheme}://{host}" if settings.origins.is_own(host) else settings.local_url


async def _guard(request: Request, tenant_id: TenantPath) -> None:
    """Refuse pages of foreign origins, and name the metadata in a 401. It runs before authentication. Raises OriginRefused."""
    path = tenant_path(tenant_id, "mcp")
    request.state.challenge = f'Bearer resource_metadata="{_base_url(request)}{METADATA}{path}"'
    origins = request.headers.getlist("origin")
    if not settings_of(request).origins.is_allowed(origins, request.headers.get("host", "")):
        raise OriginRefused(", ".join(origins))


async def _body(request: Request) -> bytes:
    """Return the body, as large as that of a publish may be. Raises as `RequestBody.read` does."""
    return await body_of(request).read(settings_of(request).max_body_bytes)


async def _stack() -> AsyncIterator[AsyncExitStack]:
    """Yield what is left when the answer has ended."""
    async with AsyncExitStack() as stack:
        yield stack


@router.post("/v1/tenants/{tenant_id}/mcp", dependencies=[Depends(_guard)])
async def call_mcp(
    request: Request,
    services: ServicesDep,
    principal: InTenant,
    body: Annotated[bytes, Depends(_body)],
    credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)],
    stack: Annotated[AsyncExitStack, Depends(_stack)],
) -> Response:
    """Answer one message of an MCP client."""
    offer = mcp_offers.offer_to(request, services, principal, credentials.credentials, stack)
    answer = await mcp_protocol.respond(body, request.headers, offer, _server(request))
    if isinstance(answer.body, bytes):
        return Response(answer.body, answer.status, media_type="application/json" if answer.body else None)
    request.state.is_stream = True
    return EventSourceResponse(answer.body, headers={"X-Accel-Buffering": "no"})


def _server(request: Request) -> Mapping[str, str]:
    return {"name": "artcafe", "title": "ArtCafe", "version": settings_of(request).version}


@router.get(METADATA + "/v1/tenants/{tenant_id}/mcp")
async def read_mcp_metadata(request: Request, tenant_id: TenantPath) -> Response:
    """Return where clients get tokens of people for a tenant's MCP (RFC 9728): the same for every text in the tenant's place."""
    settings = settings_of(request)
    found: dict[str, object] = {
        "resource": _base_url(request) + tenant_path(tenant_id, "mcp"),
        "resource_name": "ArtCafe",
        "bearer_methods_supported": ["header"],
    }
    if settings.issuer is not None:
        found["authorization_servers"] = [settings.issuer]
    return Response(msgspec.json.encode(found), media_type="application/json")
