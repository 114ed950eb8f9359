"""LangGraph: a graph of a model and the tools of an ArtCafe agent."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolCall
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from artcafe import Agent
from artcafe.tools import AgentTools
from examples.frameworks.story import CALLS, TASK


async def work(model: BaseChatModel, task: str) -> None:
    """Let the model do the task with the agent's tools."""
    async with Agent(queues=False) as agent:
        tools = ToolNode(AgentTools(agent).functions)
        bound = model.bind_tools(list(tools.tools_by_name.values()))

        async def think(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await bound.ainvoke(state["messages"])]}

        graph = StateGraph(MessagesState).add_node("think", think).add_node("tools", tools)
        graph.add_edge(START, "think").add_conditional_edges("think", tools_condition).add_edge("tools", "think")
        result = await graph.compile().ainvoke({"messages": [("user", task)]})
        for message in result["messages"]:
            message.pretty_print()


class ScriptedModel(GenericFakeChatModel):
    """LangChain's model for tests, which ignores the tools that it is given."""

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self


def scripted_model() -> BaseChatModel:
    """Return a model that makes the calls of the story."""
    steps = [AIMessage("", tool_calls=[ToolCall(name=name, args=args, id=f"{n}")]) for n, (name, args) in enumerate(CALLS)]
    return ScriptedModel(messages=iter([*steps, AIMessage("done")]))


if __name__ == "__main__":
    asyncio.run(work(scripted_model(), TASK))
