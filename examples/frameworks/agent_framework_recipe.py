"""Microsoft Agent Framework: an `agent_framework.Agent` with the tools of an ArtCafe agent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import agent_framework
from agent_framework import BaseChatClient, ChatResponse, Content, FunctionInvocationLayer, Message

from artcafe import Agent
from artcafe.tools import AgentTools
from examples.frameworks.story import CALLS, TASK


async def work(client: BaseChatClient, task: str) -> None:
    """Let the model do the task with the agent's tools."""
    async with Agent(queues=False) as agent:
        tools = [agent_framework.tool(each) for each in AgentTools(agent).functions]
        writer = agent_framework.Agent(client, tools=tools)
        result = await writer.run(task)
        for message in result.messages:
            for content in message.contents:
                print(content.to_dict())


class ScriptedClient(FunctionInvocationLayer, BaseChatClient):
    """A chat client that makes the calls of the story: the framework has none for tests."""

    def __init__(self) -> None:
        super().__init__()
        calls = [Content.from_function_call(f"{n}", name, arguments=args) for n, (name, args) in enumerate(CALLS)]
        self._contents = iter([*calls, Content.from_text("done")])

    async def _inner_get_response(
        self, *, messages: Sequence[Message], stream: bool, options: Mapping[str, Any], **_: Any
    ) -> ChatResponse:
        return ChatResponse(messages=[Message("assistant", [next(self._contents)])])


if __name__ == "__main__":
    asyncio.run(work(ScriptedClient(), TASK))
