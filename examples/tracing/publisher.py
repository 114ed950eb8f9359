"""Publish one order, and then many at once. Usage: publisher.py CHANNEL COUNT, with the agent in ARTCAFE_… variables."""

import asyncio
import sys

from opentelemetry import trace

from artcafe import Agent

tracer = trace.get_tracer("publisher")


async def main(channel: str, count: int) -> None:
    """Publish within the spans `order` and `orders`, as a program with its own spans does."""
    async with Agent() as agent:
        with tracer.start_as_current_span("order"):
            await agent.publish(channel, {"order": 0})
        if count > 1:
            with tracer.start_as_current_span("orders"):
                async with asyncio.TaskGroup() as group:
                    for number in range(1, count):
                        group.create_task(agent.publish(channel, {"order": number}))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
