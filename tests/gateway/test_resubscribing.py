"""Deliveries ended, replaced or waiting for NATS while they begin: the connection stays open, nothing is lost or repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from artcafe.model import Cursor, SubscriptionStatus
from artcafe.tables.store import Store
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, RawClient

TURNS = 60


async def publish_all_the_time(it: GatewayApp) -> None:
    while True:
        await it.publish(b"1")


async def answered(raw: RawClient, kind: str, **body: object) -> None:
    """Wait for the reply to a command, skipping messages."""
    reply = await raw.ask(kind, **body)
    assert "code" not in reply, reply
    raw.pushes.clear()


async def deliver_the_next(it: GatewayApp, raw: RawClient) -> None:
    """Store a message, and wait until it is delivered."""
    seq = await it.publish(b'"last"')
    async with asyncio.timeout(BOUND_S):
        while (await raw.message())["seq"] != seq:
            pass


@pytest.mark.parametrize("ends", ["unsubscribe", "subscribe", "pause", "delete"])
async def test_delivery_ended_while_it_begins_keeps_the_connection_open(tmp_path: Path, ends: str) -> None:
    async with gateway_app(tmp_path) as it, asyncio.TaskGroup() as group:
        channel, agent = it.channel.id, it.agent.id
        await it.publish(b"1")
        publishing = group.create_task(publish_all_the_time(it))
        async with it.connected() as raw:
            for turn in range(TURNS):
                await answered(raw, "subscribe", channel=channel)
                await asyncio.sleep((turn % 5) / 1000)
                if ends == "unsubscribe":
                    await answered(raw, "unsubscribe", channel=channel)
                elif ends == "pause":
                    await it.services.subscriptions.set_status(it.owner, channel, agent, SubscriptionStatus.PAUSED)
                    await it.services.subscriptions.set_status(it.owner, channel, agent, SubscriptionStatus.ACTIVE)
                elif ends == "delete":
                    await it.services.subscriptions.delete(it.owner, channel, agent)
            await answered(raw, "subscribe", channel=channel)
            publishing.cancel()
            await deliver_the_next(it, raw)


NATS_BOUND_S = 15
"""Above the 5 s that a command waits for NATS."""


@asynccontextmanager
async def without_nats(it: GatewayApp) -> AsyncIterator[None]:
    """Cut the server from NATS."""
    assert it.proxy is not None
    connection = it.services.fabric.tenant(it.owner.tenant_id).connection
    it.proxy.is_open = False
    it.proxy.cut()
    await until(lambda: not connection.is_up)
    yield
    it.proxy.is_open = True
    await connection.wait_up(NATS_BOUND_S)


async def slow_reply(raw: RawClient, kind: str, **body: object) -> dict[str, Any]:
    """Send a command that may wait for NATS, and return its reply or error."""
    id = await raw.say(kind, **body)
    async with asyncio.timeout(NATS_BOUND_S):
        while (frame := json.loads(await raw.socket.recv())).get("id") != id:
            raw.pushes.append(frame)
    reply: dict[str, Any] = frame[kind] if kind in frame else frame["error"]
    return reply


async def test_failed_subscribe_keeps_the_current_delivery(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it, it.connected() as raw:
        await it.publish(b"1")
        assert await raw.messages(1) == [1]
        async with without_nats(it):
            assert (await slow_reply(raw, "subscribe", channel=it.channel.id))["code"] == "unavailable"

        it.services.invalidation.notify(it.owner.tenant_id)  # The subscriptions are read again, as after a lost announcement.
        await it.publish(b"2")
        assert (await raw.message())["seq"] == 2


async def test_ack_received_while_a_subscribe_waits_for_nats_moves_its_start(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it, it.connected() as raw:
        await it.publish(b"1")
        assert await raw.messages(1) == [1]
        await it.caught_up()
        async with without_nats(it):
            id = await raw.say("subscribe", channel=it.channel.id)
            await until(lambda: not it.is_caught_up())  # the current delivery is suspended, and the new one waits
            await raw.ack(it.channel.id, 1)
            await until(lambda: it.services.cursors.has_unwritten(it.owner.tenant_id, it.agent.id))
        reply = await raw.next()
        assert (reply.get("id"), reply["subscribe"]["cursor"]) == (id, 1)
        assert await raw.is_quiet()


async def test_channel_waiting_for_nats_can_be_unsubscribed(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it:
        await it.publish(b"1")
        async with AsyncExitStack() as stack:
            async with without_nats(it):
                raw = await stack.enter_async_context(it.connected())
                assert await slow_reply(raw, "unsubscribe", channel=it.channel.id) == {"channel": it.channel.id}
            await deliver_the_next(it, await stack.enter_async_context(it.connected()))
            assert await raw.is_quiet()


async def test_delivery_that_waited_for_nats_begins_at_the_cursor_written_meanwhile(tmp_path: Path) -> None:
    async with gateway_app(tmp_path, has_proxy=True) as it, AsyncExitStack() as stack:
        await it.publish(b"1")
        await it.publish(b"2")
        state = await it.services.fabric.tenant(it.owner.tenant_id).log.state()
        assert state is not None
        async with without_nats(it):
            raw = await stack.enter_async_context(it.connected())
            assert (await slow_reply(raw, "unsubscribe", channel="chn_none"))["code"] == "not_subscribed"
            subscriptions = Store(it.tables).tenant(it.owner.tenant_id).subscriptions
            await subscriptions.write_cursor(it.channel.id, it.agent.id, Cursor(epoch=state.epoch, seq=1))
        assert (await raw.message())["seq"] == 2
