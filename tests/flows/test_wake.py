"""An idle agent woken by a webhook of `artcafe up`, also after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.platform import running
from tests.webhook_receiver import WebhookReceiver, receiving


async def _arrived(receiver: WebhookReceiver, count: int) -> None:
    async with asyncio.timeout(60):
        while len(receiver.received) < count:  # noqa: ASYNC110 (another thread receives)
            await asyncio.sleep(0.05)


async def test_idle_agent_is_woken_and_a_webhook_that_failed_comes_after_a_restart(tmp_path: Path) -> None:
    with receiving() as receiver, running(tmp_path, ["--webhook-networks", "127.0.0.0/8"]) as platform:
        cast = await platform.tenant_with()
        async with cast.rest() as rest:
            made = await rest.tenant(cast.tenant).wake.set(cast.agents[0], receiver.url, interval_s=1)
            assert made.secret is not None
            await rest.tenant(cast.tenant).messages.publish(cast.channels[0], {"secret": "never in a webhook"})
            await _arrived(receiver, 1)
            async with cast.agent() as agent:
                message = await anext(agent.messages())
                assert receiver.received[0].verified(made.secret)["data"]["channels"][0]["seq"] == message.seq
                await message.ack()
            assert b"never in a webhook" not in receiver.received[0].body

            receiver.statuses[:] = [503]
            await rest.tenant(cast.tenant).messages.publish(cast.channels[0], 2)
            await _arrived(receiver, 2)
        platform.stop()
        platform.start()
        await _arrived(receiver, 3)
        assert receiver.received[2].id == receiver.received[1].id
        assert receiver.received[2].verified(made.secret)["data"]["count"] == 1
        async with cast.rest() as rest:
            assert (await rest.tenant(cast.tenant).wake.get(cast.agents[0])).enabled
            await rest.tenant(cast.tenant).wake.remove(cast.agents[0])
