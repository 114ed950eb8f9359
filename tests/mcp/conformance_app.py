"""The application that the conformance suite of the protocol is run against: our protocol layer with the suite's own tools and
resources at `/fixture`, and at `/door` the route of a real server, with an agent's token, which the suite cannot send."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final

import httpx2
import msgspec
import uvicorn
from msgspec import Raw
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from artcafe.rest import mcp_messages, mcp_protocol
from artcafe.rest.mcp_messages import RpcError
from artcafe.rest.mcp_protocol import Offer

MISSING_CAPABILITY: Final = -32021
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # One pixel.
WAV: Final = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA="
TEXT: Final = {"type": "text", "text": "This is a simple text response for testing."}
IMAGE: Final = {"type": "image", "data": PNG, "mimeType": "image/png"}
AUDIO: Final = {"type": "audio", "data": WAV, "mimeType": "audio/wav"}


def embedded(uri: str, mime_type: str, text: str) -> dict[str, Any]:
    """Return a resource as the content of a result."""
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": text}}


TOOLS: Final[Mapping[str, list[dict[str, Any]]]] = {
    "test_simple_text": [TEXT],
    "test_image_content": [IMAGE],
    "test_audio_content": [AUDIO],
    "test_embedded_resource": [embedded("test://embedded-resource", "text/plain", "An embedded resource.")],
    "test_multiple_content_types": [TEXT, IMAGE, embedded("test://mixed-content-resource", "application/json", "{}")],
    "test_error_handling": [{"type": "text", "text": "This tool intentionally returns an error for testing"}],
    "test_missing_capability": [],
    "test_streaming_elicitation": [TEXT],
    "test_logging_tool": [TEXT],
    "json_schema_2020_12_tool": [TEXT],
}
"""The suite's tools, and what each returns."""
CONTENTS: Final = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://template/123/data": {"mimeType": "application/json", "text": '{"id":"123"}'},
}


SCHEMA: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
"""Of the tool of the scenario `json-schema-2020-12`, whose keywords must arrive."""


def _schema(tool: str) -> Mapping[str, object]:
    return SCHEMA if tool == "json_schema_2020_12_tool" else {"type": "object"}


class Fixture(Offer):
    """What the suite's scenarios for tools and resources need."""

    instructions = "These are the fixtures of the conformance suite."
    resources: ClassVar = tuple({"uri": uri, "name": uri.rpartition("/")[2], "description": uri} for uri in CONTENTS)
    notifies: ClassVar = True  # The suite listens only for changes of lists, which ends at once.

    @property
    def tools(self) -> Raw:
        listed = [
            {"name": name, "description": f"Returns the content of {name}.", "inputSchema": _schema(name)} for name in TOOLS
        ]
        return Raw(msgspec.json.encode(listed))

    async def call(self, name: str, arguments: Raw) -> Mapping[str, Any]:
        if name not in TOOLS:
            raise RpcError(mcp_messages.INVALID_PARAMS, f"there is no tool {name!r}")
        if name == "test_missing_capability":
            raise RpcError(MISSING_CAPABILITY, "this tool needs sampling", {"requiredCapabilities": {"sampling": {}}})
        return {"content": TOOLS[name], "isError": name == "test_error_handling"}

    async def read(self, uri: str) -> Mapping[str, str] | None:
        return CONTENTS.get(uri)


async def _fixture(request: Request) -> Response:
    answer = await mcp_protocol.respond(await request.body(), request.headers, Fixture(), {"name": "fixture", "version": "1"})
    if isinstance(answer.body, bytes):
        return Response(answer.body, answer.status, media_type="application/json")
    return StreamingResponse(answer.body, media_type="text/event-stream")


def _door(url: str, token: str, http: httpx2.AsyncClient) -> Callable[[Request], Awaitable[Response]]:
    async def forward(request: Request) -> Response:
        """Pass a request on as it is, with the token."""
        headers = [(name, value) for name, value in request.headers.items() if name != "content-length"]
        headers.append(("authorization", f"Bearer {token}"))
        answer = await http.request(request.method, url, headers=headers, content=await request.body())
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

    return forward


@asynccontextmanager
async def conformance_app(door_url: str, token: str) -> AsyncIterator[str]:
    """Serve the application on loopback, and yield its URL. `door_url`: the route of a server; `token`: an agent's."""
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as http, asyncio.TaskGroup() as group:
        door = Route("/door", _door(door_url, token, http), methods=["GET", "POST", "DELETE"])
        app = Starlette(routes=[Route("/fixture", _fixture, methods=["POST"]), door])
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        server.should_exit = True
