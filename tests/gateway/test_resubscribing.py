"""Deliveries ended while their feed opens: the connection stays open, and the next delivery works."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from artcafe.model import SubscriptionStatus
from tests.gateway.gateway_app import GatewayApp, gateway_app
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
