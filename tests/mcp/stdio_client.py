"""A real MCP client of `artcafe mcp`, which it starts as coding agents do: the command's standard input and output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from mcp.client import Client
from mcp.client.extension import ClientExtension, NotificationBinding
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel

from artcafe.mcp.channel_events import METHOD
from tests.platform import Cast

BOUND_S = 60


class ChannelEvent(BaseModel):
    """The parameters of a channel event."""

    content: str
    meta: dict[str, str]


class ChannelListener(ClientExtension):
    """Collects channel events, as Claude Code does."""

    identifier = "dev.artcafe/tests"

    def __init__(self, events: asyncio.Queue[ChannelEvent]) -> None:
        self._events = events

    def notifications(self) -> Sequence[NotificationBinding[Any]]:
        async def collect(event: ChannelEvent) -> None:
            self._events.put_nowait(event)

        return [NotificationBinding(method=METHOD, params_type=ChannelEvent, handler=collect)]


def identity(cast: Cast, number: int) -> list[str]:
    """Return the options of `artcafe mcp` that name an agent."""
    return ["--url", cast.url, "--tenant", cast.tenant, "--agent", cast.agents[number], "--key", str(cast.keys[number])]


@asynccontextmanager
async def client_of(
    cast: Cast, number: int, folder: Path, *options: str, mode: str = "auto", **client: Any
) -> AsyncIterator[Client]:
    """Start `artcafe mcp` for an agent, and yield a connected client. Its notes go to a file in `folder`."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "artcafe", "mcp", *identity(cast, number), *options])
    with (folder / f"mcp-{number}").open("a+") as notes:
        async with Client(stdio_client(server, notes), mode=mode, **client) as connected:
            yield connected


async def call(client: Client, tool: str, **arguments: object) -> Any:
    """Call a tool, and return its result, which is the same as a structure and as text."""
    result: CallToolResult = await client.call_tool(tool, dict(arguments))
    assert not result.is_error, result
    assert _parsed(result) == result.structured_content
    return result.structured_content


async def fault(client: Client, tool: str, **arguments: object) -> Mapping[str, Any]:
    """Call a tool that fails, and return its error, which is text."""
    result: CallToolResult = await client.call_tool(tool, dict(arguments))
    assert result.is_error, result
    assert result.structured_content is None, "it would not match the tool's schema"
    error: Mapping[str, Any] = _parsed(result)["error"]
    return error


def _parsed(result: CallToolResult) -> Any:
    (text,) = result.content
    assert isinstance(text, TextContent)
    return msgspec.json.decode(text.text)
