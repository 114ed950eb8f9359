"""Direct messages with the SDK, the command line and pull, against `artcafe up`."""

from __future__ import annotations

import asyncio

import pytest

from artcafe.errors import AgentNotFound
from tests.platform import Platform


async def test_agents_write_to_each_other_and_answer(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=2, channels=1)
    first, second = cast.agents
    async with asyncio.timeout(30), cast.agent(0) as planner, cast.agent(1) as worker:
        await planner.send(second, "by id")
        sent = await planner.publish(f"@{second}", "by publish", reply_to=f"@{first}")
        messages = worker.messages(auto_ack=True)
        received = [await anext(messages) for _ in range(2)]
        assert [(each.data, each.is_direct, each.sender_id) for each in received] == [
            ("by id", True, first),
            ("by publish", True, first),
        ]
        answered = await received[0].reply("to the sender")
        await received[1].reply("to reply_to")
        answers = planner.messages(auto_ack=True)
        found = [await anext(answers) for _ in range(2)]
        assert [(each.data, each.caused_by) for each in found] == [
            ("to the sender", received[0].message_id),
            ("to reply_to", sent.message_id),
        ]
        assert answered.seq == found[0].seq
        with pytest.raises(AgentNotFound):
            await planner.send("agt_none", 1)
