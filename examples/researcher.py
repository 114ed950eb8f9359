"""The agent that the recipes ask: it answers, and sends its source to the inbox of the agent that asked."""

from __future__ import annotations

import asyncio
from typing import Any

from artcafe import Agent, Request

agent = Agent(agent="researcher", key="researcher")


@agent.on_request
async def answer(request: Request) -> dict[str, Any]:
    """Answer a question, and send the source."""
    await agent.send(request.sender, {"source": "the archive"})
    return {"papers": 42}


if __name__ == "__main__":
    asyncio.run(agent.run())
