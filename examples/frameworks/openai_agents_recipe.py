"""OpenAI Agents SDK: an `agents.Agent` with the tools of an ArtCafe agent."""

from __future__ import annotations

import asyncio

import agents
from agents.testing import ScriptedModel, assistant_message, function_call

from artcafe import Agent
from artcafe.tools import AgentTools
from examples.frameworks.story import CALLS, TASK


async def work(model: agents.Model, task: str) -> None:
    """Let the model do the task with the agent's tools."""
    async with Agent(queues=False) as agent:
        tools = [agents.function_tool(each, strict_mode=False) for each in AgentTools(agent).functions]
        writer = agents.Agent("writer", tools=[*tools], model=model)
        result = await agents.Runner.run(writer, task, run_config=agents.RunConfig(tracing_disabled=True))
        for item in result.to_input_list():
            print(item)


def scripted_model() -> agents.Model:
    """Return the SDK's model for tests, which makes the calls of the story."""
    calls = [[function_call(name, args, call_id=f"{number}")] for number, (name, args) in enumerate(CALLS)]
    return ScriptedModel([*calls, [assistant_message("done")]])


if __name__ == "__main__":
    asyncio.run(work(scripted_model(), TASK))
