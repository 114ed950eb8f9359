"""Process and acknowledge a number of messages. Usage: subscriber.py COUNT, with the agent in ARTCAFE_… variables."""

import asyncio
import sys

from artcafe import Agent


async def main(count: int) -> None:
    """Process each message within a span, which is linked to the publisher's."""
    async with Agent() as agent:
        async for message in agent.messages():
            with message.processing():
                await message.ack()
            count -= 1
            if count == 0:
                break


asyncio.run(main(int(sys.argv[1])))
