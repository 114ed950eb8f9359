"""A transport that plays the command-line program of the Claude Agent SDK: it sends the program's messages for a list of calls.

The SDK has no model for tests. This transport speaks the protocol between the two: the SDK's client, its MCP server and the
tools are the real ones. Neither the program nor a model runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

from claude_agent_sdk import Transport

_IDENTITY = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "scripted", "version": "1"}}


class ScriptedCli(Transport):
    """A transport that calls these tools of the MCP server `artcafe`, and reports their results as messages."""

    def __init__(self, calls: Iterable[tuple[str, dict[str, Any]]]) -> None:
        self._calls = list(calls)
        self._written: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def connect(self) -> None:
        """Do nothing: there is no process."""

    async def write(self, data: str) -> None:
        """Queue a line from the SDK."""
        self._written.put_nowait(json.loads(data))

    async def end_input(self) -> None:
        """Do nothing: the SDK still answers calls."""

    async def close(self) -> None:
        """Do nothing: there is no process."""

    def is_ready(self) -> bool:
        return True

    async def read_messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the program would print for these calls."""
        initialize = await self._written.get()
        yield {
            "type": "control_response",
            "response": {"subtype": "success", "request_id": initialize["request_id"], "response": {}},
        }
        while (await self._written.get())["type"] != "user":
            pass
        requests = [("initialize", _IDENTITY), ("tools/list", {})]
        requests += [("tools/call", {"name": name, "arguments": arguments}) for name, arguments in self._calls]
        for number, (method, parameters) in enumerate(requests):
            if method == "tools/call":
                name = f"mcp__artcafe__{parameters['name']}"
                yield _message(
                    "assistant", {"type": "tool_use", "id": f"{number}", "name": name, "input": parameters["arguments"]}
                )
            rpc = {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
            request = {"subtype": "mcp_message", "server_name": "artcafe", "message": rpc}
            yield {"type": "control_request", "request_id": f"{number}", "request": request}
            result = (await self._written.get())["response"]["response"]["mcp_response"]["result"]
            if method == "tools/call":
                yield _message("user", {"type": "tool_result", "tool_use_id": f"{number}", "content": result["content"]})
        times = {"duration_ms": 0, "duration_api_ms": 0, "num_turns": len(self._calls)}
        yield {"type": "result", "subtype": "success", "is_error": False, "session_id": "scripted", "result": "done", **times}


def _message(role: str, content: dict[str, Any]) -> dict[str, Any]:
    message = {"role": role, "content": [content], "model": "scripted"}
    return {"type": role, "message": message, "parent_tool_use_id": None, "session_id": "scripted"}
