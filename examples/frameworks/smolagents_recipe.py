"""smolagents: a ToolCallingAgent with the tools of an ArtCafe agent, without asyncio."""

from __future__ import annotations

import itertools
from typing import Any

import smolagents
from smolagents.models import ChatMessage, ChatMessageToolCall, ChatMessageToolCallFunction, MessageRole

from artcafe.sync import Agent
from artcafe.tools import AgentTools
from examples.frameworks.story import CALLS, TASK


def work(model: smolagents.Model, task: str) -> None:
    """Let the model do the task with the agent's tools."""
    with Agent(queues=False) as agent:
        tools = [smolagents.tool(each) for each in AgentTools(agent).plain_functions]
        writer = smolagents.ToolCallingAgent(tools, model, verbosity_level=0)
        writer.run(task)
        for step in writer.memory.get_full_steps():
            print(step.get("tool_calls"), step.get("observations"))


class ScriptedModel(smolagents.Model):
    """A model that makes the calls of the story: the framework has none for tests."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = itertools.chain(CALLS, [("final_answer", {"answer": "done"})])

    def generate(self, *_: Any, **__: Any) -> ChatMessage:
        name, arguments = next(self._calls)
        call = ChatMessageToolCallFunction(name=name, arguments=arguments)
        return ChatMessage(MessageRole.ASSISTANT, tool_calls=[ChatMessageToolCall(function=call, id=name, type="function")])


if __name__ == "__main__":
    work(ScriptedModel(), TASK)
