"""Pydantic AI: a `pydantic_ai.Agent` with the tools of an ArtCafe agent."""

from __future__ import annotations

import asyncio

import pydantic_ai
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from artcafe import Agent
from artcafe.tools import AgentTools
from examples.frameworks.story import CALLS, TASK


async def work(model: pydantic_ai.models.Model, task: str) -> None:
    """Let the model do the task with the agent's tools."""
    async with Agent(queues=False) as agent:
        writer = pydantic_ai.Agent(model, tools=AgentTools(agent).functions)
        result = await writer.run(task)
        for message in result.all_messages():
            for part in message.parts:
                print(part)


def scripted_model() -> FunctionModel:
    """Return Pydantic AI's model for tests, which makes the calls of the story."""
    parts = iter([*(ToolCallPart(name, args) for name, args in CALLS), TextPart("done")])

    def respond(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        return ModelResponse([next(parts)])

    return FunctionModel(respond)


if __name__ == "__main__":
    asyncio.run(work(scripted_model(), TASK))
