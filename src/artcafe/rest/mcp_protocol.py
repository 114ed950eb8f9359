"""The methods of the Model Context Protocol over HTTP, in both of its eras, for whatever a server offers to a caller.

Every request is self-contained: no session, no state between two requests. A server offers tools and resources; the only answer
that lasts is that to `subscriptions/listen` of 2026-07-28, whose events say that a resource has changed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import msgspec
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from msgspec import Raw
from starlette.datastructures import Headers

from artcafe.rest import mcp_messages
from artcafe.rest.mcp_messages import ResourceRead, RpcError, RpcRequest, ToolCall

LIST_TTL_MS: Final = 3_600_000
"""Lists of tools and resources change with a version of the server only."""
LISTEN: Final = "subscriptions/listen"
SUBSCRIPTION: Final = "io.modelcontextprotocol/subscriptionId"

Changes = AsyncIterator[str | None]
"""The addresses of resources after each change, and None after a silence."""


class Offer(ABC):
    """What a server offers to one caller."""

    instructions: str
    """What a model should know before it calls a tool."""
    resources: ClassVar[Sequence[Mapping[str, str]]] = ()
    """The list of resources; without any, the server has no methods for them."""
    notifies: ClassVar[bool] = False
    """Whether `changes` says when a resource changes."""

    @property
    @abstractmethod
    def tools(self) -> Raw:
        """The list of tools, as JSON text."""

    @abstractmethod
    async def call(self, name: str, arguments: Raw) -> Mapping[str, Any]:
        """Return the result of a tool, also of one that fails. Raises `RpcError` for an unknown one."""

    async def read(self, uri: str) -> Mapping[str, str] | None:
        """Return the content of a resource; None for an unknown one."""
        return None

    async def changes(self) -> Changes:
        """Return the changes of resources from now on. Raises why that is not possible."""
        raise NotImplementedError


class Answer(NamedTuple):
    """An HTTP answer: its status, and one JSON text, or server-sent events."""

    status: int
    body: bytes | AsyncIterator[bytes]


class _Filter(msgspec.Struct, frozen=True):
    resources: list[str] | None = msgspec.field(name="resourceSubscriptions", default=None)


class _Listen(msgspec.Struct, frozen=True):
    notifications: _Filter


async def respond(body: bytes, headers: Headers, offer: Offer, server: Mapping[str, str]) -> Answer:
    """Answer one message of a client. `server`: the name and version in answers. Raises what `offer` raises."""
    rpc: RpcRequest | None = None
    try:
        rpc = mcp_messages.parse(body, headers)
        if rpc is None:
            return Answer(202, b"")
        if rpc.is_modern:
            mcp_messages.check_headers(rpc, headers)
            if rpc.method == LISTEN and offer.notifies:
                return Answer(200, await _listen(rpc, offer, server))
        result = await _result(rpc, offer, server)
    except RpcError as exc:
        text = mcp_messages.error_text(exc) if rpc is None else mcp_messages.error_text(exc, rpc.id)
        return Answer(mcp_messages.status_of(exc, rpc), text)
    return Answer(200, mcp_messages.result_text(rpc, result, server))


async def _result(rpc: RpcRequest, offer: Offer, server: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the result of a request. Raises `RpcError`."""
    match rpc.method, rpc.is_modern:
        case "tools/call", _:
            call = mcp_messages.params_of(rpc, ToolCall)
            return await offer.call(call.name, mcp_messages.arguments_of(call))
        case "tools/list", _:
            return {"tools": offer.tools, **_cached(rpc)}
        case "server/discover", True:
            return {"supportedVersions": mcp_messages.MODERN_VERSIONS, **_about(rpc, offer), **_cached(rpc)}
        case "initialize", False:
            version = mcp_messages.params_of(rpc, mcp_messages.Initialize).agreed
            return {"protocolVersion": version, "serverInfo": server, **_about(rpc, offer)}
        case "ping", False:
            return {}
    if offer.resources:
        return await _of_resources(rpc, offer)
    raise _no_method(rpc)


async def _of_resources(rpc: RpcRequest, offer: Offer) -> Mapping[str, Any]:
    """Return the result of a request about resources. Raises `RpcError`."""
    match rpc.method:
        case "resources/list":
            return {"resources": offer.resources, **_cached(rpc)}
        case "resources/templates/list":
            return {"resourceTemplates": [], **_cached(rpc)}
        case "resources/read":
            uri = mcp_messages.params_of(rpc, ResourceRead).uri
            content = await offer.read(uri)
            if content is None:
                code = mcp_messages.INVALID_PARAMS if rpc.is_modern else mcp_messages.RESOURCE_NOT_FOUND
                raise RpcError(code, f"there is no resource {uri!r}; resources/list has all of them", {"uri": uri})
            return {"contents": [{"uri": uri, **content}], **_cached(rpc, ttl_ms=0)}
    raise _no_method(rpc)


def _no_method(rpc: RpcRequest) -> RpcError:
    return RpcError(mcp_messages.METHOD_NOT_FOUND, "this server has no such method for you", rpc.method)


def _cached(rpc: RpcRequest, ttl_ms: int = LIST_TTL_MS) -> Mapping[str, object]:
    """Return how long clients may keep a result; nothing for older clients, which do not know these fields."""
    return {"ttlMs": ttl_ms, "cacheScope": "private"} if rpc.is_modern else {}


def _about(rpc: RpcRequest, offer: Offer) -> Mapping[str, object]:
    """Return what the server offers. Older clients would be notified on a stream of a session, which no server keeps."""
    capabilities: dict[str, Mapping[str, bool]] = {"tools": {}}
    if offer.resources:
        capabilities["resources"] = {"subscribe": True} if rpc.is_modern and offer.notifies else {}
    return {"capabilities": capabilities, "instructions": offer.instructions}


# --- subscriptions/listen ----------------------------------------------------------------------------------------------


async def _listen(rpc: RpcRequest, offer: Offer, server: Mapping[str, str]) -> AsyncIterator[bytes]:
    """Return the events of a subscription; one to nothing that changes ends at once. Raises `RpcError`, and as `offer` does."""
    asked = mcp_messages.params_of(rpc, _Listen).notifications.resources or ()
    known = {each["uri"] for each in offer.resources}
    honored = sorted(known.intersection(asked))
    return _events(rpc, honored, await offer.changes() if honored else None, server)


async def _events(
    rpc: RpcRequest, honored: Sequence[str], changes: Changes | None, server: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Yield the acknowledgement of a subscription, its changes, and its result once the server ends it."""
    meta = {"_meta": {SUBSCRIPTION: rpc.id}}
    filter_ = {"resourceSubscriptions": honored} if honored else {}
    yield _notification("notifications/subscriptions/acknowledged", {"notifications": filter_, **meta})
    if changes is not None:
        async for uri in changes:
            if uri is None:
                yield KEEPALIVE_COMMENT
            elif uri in honored:
                yield _notification("notifications/resources/updated", {"uri": uri, **meta})
    yield _event(mcp_messages.result_text(rpc, meta, server))


def _notification(method: str, params: Mapping[str, object]) -> bytes:
    return _event(msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params}))


def _event(text: bytes) -> bytes:
    return format_sse_event(event="message", data_str=text.decode())
