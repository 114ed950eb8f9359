"""Scheduled messages of a real server that is killed, with its nats-server, before they are due."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from artcafe.errors import AlreadyDelivered, ScheduledNotFound
from tests.flows.test_end_to_end import take
from tests.platform import running

BOUND_S = 30


@pytest.mark.promise("s2", "s4", "s5")
async def test_scheduled_messages_survive_kills_and_are_delivered_once_in_order(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        cast = await platform.tenant_with()
        (channel,) = cast.channels
        async with cast.agent() as agent:
            soon = [await agent.publish(channel, number, delay_s=2 + number * 0.01) for number in range(20)]
            os.kill(platform.nats_pid, signal.SIGKILL)
            at = datetime.now(UTC) + timedelta(seconds=4)
            away = await agent.publish(channel, "while the server is away", deliver_at=at)
            later = await agent.publish(channel, "much later", delay_s=3600)
            assert {each.seq for each in (*soon, away, later)} == {None}
            async with asyncio.timeout(BOUND_S):
                messages = await take(agent, 20)
        platform.kill()
        assert [each.message_id for each in messages] == [each.message_id for each in soon]
        assert [each.seq for each in messages] == sorted({each.seq or 0 for each in messages})

        await asyncio.sleep((at - datetime.now(UTC)).total_seconds())
        platform.start()
        async with cast.agent() as agent, cast.rest() as rest:
            async with asyncio.timeout(BOUND_S):
                (last,) = await take(agent, 1)
            assert (last.message_id, last.deliver_at is not None) == (away.message_id, True)
            assert [each.message_id async for each in rest.tenant(cast.tenant).scheduled.list(channel)] == [later.message_id]
            for _ in range(2):
                await rest.tenant(cast.tenant).scheduled.cancel(channel, later.message_id or "")
            with pytest.raises(AlreadyDelivered) as refused:
                await rest.tenant(cast.tenant).scheduled.cancel(channel, last.message_id)
            assert refused.value.seq == last.seq
            with pytest.raises(ScheduledNotFound):
                await rest.tenant(cast.tenant).scheduled.cancel(channel, "msg_none")
            assert [each.message_id async for each in rest.tenant(cast.tenant).scheduled.list(channel)] == []
            stored = [each.message_id async for each in rest.tenant(cast.tenant).messages.list(channel, after=0)]
            assert stored == [each.message_id for each in (*soon, away)]
