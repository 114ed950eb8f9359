"""Agents without a socket: the SDK's and the command line's pulls, and a server that is killed between a pull and its acks."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from artcafe.cli.commands import artcafe
from artcafe.errors import LogRenewed, NotHeld, Revoked
from tests.platform import Cast, Platform, running

BOUND_S = 60


async def subscribed(cast: Cast, type: str) -> str:
    """Create a channel that the first agent is subscribed to, and return its id."""
    async with cast.rest() as rest:
        channel = (await rest.tenant(cast.tenant).channels.create(f"{type} channel", type=type)).id
        await rest.tenant(cast.tenant).subscriptions.create(channel, cast.agents[0])
        return channel


async def publish(cast: Cast, channel: str, *data: int) -> None:
    async with cast.rest() as rest:
        for one in data:
            await rest.tenant(cast.tenant).messages.publish(channel, one)


async def test_agent_pulls_and_acknowledges_without_a_socket(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    news, tasks = await subscribed(cast, "broadcast"), await subscribed(cast, "queue")
    await publish(cast, news, 1, 2, 3)
    agent = cast.agent()
    try:
        pulled = await agent.pull(channel=news)
        assert [message.data for message in pulled] == [1, 2, 3]
        await pulled[1].ack()
        assert [message.data for message in await agent.pull(channel=news)] == [1, 2, 3], "the first is not acknowledged"
        await pulled[0].ack()
        pulled = await agent.pull(channel=news)
        assert [message.data for message in pulled] == [3]
        with pytest.raises(RuntimeError):
            await pulled[0].nak()
        await pulled.ack()
        assert len(await agent.pull()) == 0

        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(agent.pull(wait_s=20))
            await publish(cast, tasks, 4)
        (task,) = waiting.result()
        assert (task.data, task.deliveries) == (4, 1)
        held_until = task.held_until
        await task.extend()
        assert held_until is not None
        assert task.held_until is not None
        assert task.held_until >= held_until
        await task.nak()
        (again,) = await agent.pull(wait_s=20)
        assert again.deliveries == 2
        with pytest.raises(NotHeld):
            await task.extend()
        await again.ack()
        assert len(await agent.pull()) == 0
    finally:
        await agent.aclose()


async def test_agent_that_was_disabled_for_a_while_pulls_again_with_a_new_login(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    agent = cast.agent()
    try:
        assert len(await agent.pull()) == 0
        first = (await agent.client()).token
        async with cast.rest() as rest:
            agents = rest.tenant(cast.tenant).agents
            await agents.update(cast.agents[0], status="disabled")
            with pytest.raises(Revoked):
                await agent.pull()
            await agents.update(cast.agents[0], status="active")
        assert len(await agent.pull()) == 0
        assert (await agent.client()).token != first
    finally:
        await agent.aclose()


async def test_agent_connected_without_queues_pulls_their_messages(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    news, tasks = await subscribed(cast, "broadcast"), await subscribed(cast, "queue")
    async with asyncio.timeout(BOUND_S), cast.agent(queues=False) as agent:
        await publish(cast, tasks, 1)
        await publish(cast, news, 2)
        pushed = await anext(agent.messages())
        assert (pushed.channel_id, pushed.data) == (news, 2), "the connection receives its other channels"
        await agent.subscribe(tasks)

        inbox = (await agent.client()).tenant(cast.tenant).inbox(cast.agents[0])
        pulled = await inbox.pull(channel=tasks, wait_s=20)
        (task,) = pulled
        assert (task.data, task.deliveries) == (1, 1), "the connection never held it"
        assert task.receipt is not None
        extended = await inbox.extend(tasks, task.seq or 0, receipt=task.receipt, epoch=pulled.epoch)
        assert extended.held_until is not None
        assert task.held_until is not None
        assert extended.held_until >= task.held_until
        await inbox.nak(tasks, task.seq or 0, receipt=extended.receipt, epoch=pulled.epoch)
        (again,) = await inbox.pull(channel=tasks, wait_s=20)
        assert (again.seq, again.deliveries) == (task.seq, 2)
        with pytest.raises(LogRenewed):
            await inbox.ack(news, pushed.seq or 0, epoch="another-log")
        await inbox.ack(tasks, again.seq or 0, receipt=again.receipt)
        await inbox.ack(news, pushed.seq or 0, epoch=pulled.epoch)
        assert len(await inbox.pull()) == 0


async def test_command_prints_pulled_messages_and_acknowledges_them(platform: Platform) -> None:
    cast = await platform.tenant_with(agents=1, channels=0)
    news = await subscribed(cast, "broadcast")
    await publish(cast, news, 1, 2)
    options = ["--url", cast.url, "--tenant", cast.tenant, "--agent", cast.agents[0], "--key", str(cast.keys[0]), "--json"]

    def run(*arguments: str) -> list[object]:
        done = CliRunner().invoke(artcafe, ["agent", *arguments, *options])
        assert done.exit_code == 0, done.output
        return [json.loads(line) for line in done.stdout.splitlines()]

    first = await asyncio.to_thread(run, "pull", news, "--limit", "1")
    assert [message["data"] for message in first if isinstance(message, dict)] == [1]
    assert await asyncio.to_thread(run, "ack", news, str(first[0]["seq"])) == []  # type: ignore[index]  # asserted above
    last = await asyncio.to_thread(run, "pull", "--ack")
    assert [message["data"] for message in last if isinstance(message, dict)] == [2]
    assert await asyncio.to_thread(run, "pull") == []


async def test_messages_pulled_before_the_server_was_killed_come_again_unless_acknowledged(tmp_path: Path) -> None:
    with running(tmp_path) as platform:
        cast = await platform.tenant_with(agents=1, channels=0)
        news, tasks = await subscribed(cast, "broadcast"), await subscribed(cast, "queue")
        await publish(cast, news, 1, 2)
        await publish(cast, tasks, 10, 11)
        agent = cast.agent()
        before = {message.data: message for message in await agent.pull()}
        assert sorted(before) == [1, 2, 10, 11]
        await before[1].ack()
        await before[10].ack()

        platform.kill()
        platform.start()

        await before[11].ack()
        assert [message.data for message in await agent.pull()] == [2], "the held task was acknowledged by its receipt"
        await agent.aclose()
