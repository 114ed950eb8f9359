"""Claude Agent SDK: an MCP server in the program, with the tools of an ArtCafe agent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from claude_agent_sdk import ClaudeAgentOptions, SdkMcpTool, Transport, create_sdk_mcp_server, query

from artcafe import Agent
from artcafe.tools import AgentTools, input_schema
from examples.frameworks.scripted_cli import ScriptedCli
from examples.frameworks.story import CALLS, TASK


def tool_of(function: Any) -> SdkMcpTool[Any]:
    """Return a function of `artcafe.tools` as a tool of the SDK."""

    async def call(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": json.dumps(await function(**arguments))}]}

    return SdkMcpTool(function.__name__, function.__doc__, input_schema(function), call)


async def work(transport: Transport | None, task: str) -> None:
    """Let Claude do the task with the agent's tools; through its command-line program without a `transport`."""
    async with Agent(queues=False) as agent:
        server = create_sdk_mcp_server("artcafe", tools=[tool_of(each) for each in AgentTools(agent).functions])
        options = ClaudeAgentOptions(mcp_servers={"artcafe": server}, allowed_tools=["mcp__artcafe__*"])
        async for message in query(prompt=task, options=options, transport=transport):
            print(message)


if __name__ == "__main__":
    asyncio.run(work(ScriptedCli(CALLS), TASK))
