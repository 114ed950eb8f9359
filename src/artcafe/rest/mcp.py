"""The route of the Model Context Protocol, for agents and people, and its metadata for OAuth clients.

Every request is self-contained: no session, no stream, no state between two requests, so any server of a fleet answers any.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from msgspec import Raw

from artcafe.errors import ArtcafeError, OriginRefused, OurFault
from artcafe.observe import metrics
from artcafe.observe.logs import log
from artcafe.rest import mcp_messages, mcp_tools
from artcafe.rest.bodies import body_of
from artcafe.rest.dependencies import ServicesDep, settings_of
from artcafe.rest.mcp_messages import RpcError, RpcRequest
from artcafe.rest.mcp_tools import PrincipalTools
from artcafe.rest.principal import InTenant, TenantPath
from artcafe.toolset.descriptions import escaped, json_text
from artcafe.toolset.results import fault_of
from artcafe.wire.segments import tenant_path

METADATA: Final = "/.well-known/oauth-protected-resource"
"""RFC 9728, section 3.1: the path of a resource follows it."""
LIST_TTL_MS: Final = 3_600_000
"""Lists of tools change with a version of the server only."""
CAPABILITIES: Final[Mapping[str, Mapping[str, bool]]] = {"tools": {}}

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


@router.post("/v1/tenants/{tenant_id}/mcp", dependencies=[Depends(_guard)])
async def call_mcp(
    request: Request, services: ServicesDep, principal: InTenant, body: Annotated[bytes, Depends(_body)]
) -> Response:
    """Answer one message of an MCP client."""
    rpc: RpcRequest | None = None
    try:
        rpc = mcp_messages.parse(body, request.headers)
        if rpc is None:
            return Response(status_code=202)
        if rpc.is_modern:
            mcp_messages.check_headers(rpc, request.headers)
        result = await _answer(rpc, mcp_tools.tools_of(request, services, principal))
    except RpcError as exc:
        text = mcp_messages.error_text(exc) if rpc is None else mcp_messages.error_text(exc, rpc.id)
        return Response(text, mcp_messages.status_of(exc, rpc), media_type="application/json")
    return Response(mcp_messages.result_text(rpc, result, _server(request)), media_type="application/json")


async def _answer(rpc: RpcRequest, tools: PrincipalTools) -> Mapping[str, Any]:
    """Return the result of a request. Raises RpcError."""
    hints: dict[str, object] = {"ttlMs": LIST_TTL_MS, "cacheScope": "private"} if rpc.is_modern else {}
    match rpc.method, rpc.is_modern:
        case "tools/call", _:
            return await _call(rpc, tools)
        case "tools/list", _:
            return {"tools": mcp_tools.list_of(type(tools)).text, **hints}
        case "server/discover", True:
            about = {"capabilities": CAPABILITIES, "instructions": tools.instructions}
            return {"supportedVersions": mcp_messages.MODERN_VERSIONS, **about, **hints}
        case "initialize", False:
            version = mcp_messages.params_of(rpc, mcp_messages.Initialize).agreed
            about = {"capabilities": CAPABILITIES, "instructions": tools.instructions}
            return {"protocolVersion": version, "serverInfo": _server(tools.request), **about}
        case "ping", False:
            return {}
    raise RpcError(mcp_messages.METHOD_NOT_FOUND, "there is no such method here: this server has tools only", rpc.method)


async def _call(rpc: RpcRequest, tools: PrincipalTools) -> Mapping[str, Any]:
    """Call a tool. An error of ArtCafe is a result, and counted as an answer of a route would be."""
    call = mcp_messages.params_of(rpc, mcp_messages.ToolCall)
    description = mcp_tools.list_of(type(tools)).by_name.get(call.name)
    if description is None:
        raise RpcError(mcp_messages.INVALID_PARAMS, f"there is no tool {call.name!r}; tools/list has all of them")
    arguments = mcp_messages.arguments_of(call)
    try:
        found = msgspec.json.encode(await getattr(tools, call.name)(**description.parsed(arguments)))
    except ArtcafeError as exc:
        _record(exc, tools, call.name)
        # As text only: clients compare a structure with the tool's schema of results, even that of an error.
        return {"content": [_text(json_text({"error": fault_of(exc)}))], "isError": True}
    return {"content": [_text(escaped(found.decode()))], "structuredContent": Raw(found), "isError": False}


def _record(error: ArtcafeError, tools: PrincipalTools, tool: str) -> None:
    """Count and log an error of a tool, as an answer with its status would be."""
    metrics.count_error(error)
    if isinstance(error, OurFault):
        log.warning("request.unavailable", code=error.code, problem=str(error))
    refused = f"POST {tenant_path(tools.principal.tenant_id, 'mcp')} {tool}"
    tools.services.audit.counters.count_refusal(tools.principal, error, request=refused)


def _text(text: str) -> Mapping[str, str]:
    return {"type": "text", "text": text}


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
