"""Pausing and resuming a subscription while its agent is connected."""

from __future__ import annotations

from pathlib import Path

import pytest

from artcafe.model import SubscriptionStatus
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import RawClient


async def set_status(it: GatewayApp, status: SubscriptionStatus) -> None:
    """Pause or resume the subscription, and wait until the agent's sockets have applied it."""
    await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, status)
    is_delivered = status is SubscriptionStatus.ACTIVE
    deliveries = [each.deliveries for each in it.gateway.connections()]
    await until(lambda: all((it.channel.id in each) is is_delivered for each in deliveries))


async def publish(it: GatewayApp, *numbers: int) -> None:
    for number in numbers:
        await it.publish(b"%d" % number)


async def test_paused_subscription_resumes_after_the_last_message_sent_to_the_socket(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 1, 2)
        assert await raw.messages(2) == [1, 2]
        await set_status(it, SubscriptionStatus.PAUSED)
        await publish(it, 3)
        assert await raw.is_quiet()
        await set_status(it, SubscriptionStatus.ACTIVE)
        message = await raw.message()
        assert (message["data"], message["prev"]) == (3, 2)
        await publish(it, 4)
        assert await raw.messages(1) == [4]


async def test_ack_during_a_pause_moves_the_cursor(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with it.connected() as raw:
            await publish(it, 1, 2)
            assert await raw.messages(2) == [1, 2]
            await set_status(it, SubscriptionStatus.PAUSED)
            await raw.ack(it.channel.id, 1)
            assert await raw.is_quiet()
            await raw.ack(it.channel.id, 3)
            assert (await raw.next())["error"]["code"] == "ack_beyond_sent"
            await set_status(it, SubscriptionStatus.ACTIVE)
            await raw.ack(it.channel.id, 2)
            assert await raw.is_quiet()
        await until(lambda: not it.gateway.connections())
        async with it.connected() as again:
            await it.caught_up()
            assert await again.is_quiet()


async def test_window_counts_messages_sent_before_the_pause(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_unacked=2) as raw:
        await publish(it, 1, 2, 3)
        assert await raw.messages(2) == [1, 2]
        await set_status(it, SubscriptionStatus.PAUSED)
        await set_status(it, SubscriptionStatus.ACTIVE)
        assert await raw.is_quiet()
        await raw.ack(it.channel.id, 1)
        assert await raw.messages(1) == [3]


async def test_subscription_deleted_and_created_again_begins_at_its_own_cursor(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        await publish(it, 1)
        assert await raw.messages(1) == [1]
        await it.services.subscriptions.delete(it.owner, it.channel.id, it.agent.id)
        (connection,) = it.gateway.connections()
        await until(lambda: it.channel.id not in connection.deliveries)
        await raw.ack(it.channel.id, 1)
        assert (await raw.next())["error"]["code"] == "not_subscribed"
        await publish(it, 2)
        await it.services.subscriptions.put(it.owner, it.channel.id, it.agent.id)
        await until(lambda: it.channel.id in connection.deliveries)
        await publish(it, 3)
        assert await raw.messages(1) == [3]


@pytest.mark.parametrize("pauses", [1, 5])
@pytest.mark.promise("12b")
async def test_each_message_is_delivered_once_across_many_pauses(tmp_path: Path, pauses: int) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, it.connected() as other:
        for number in range(pauses):
            await publish(it, 2 * number)
            await set_status(it, SubscriptionStatus.PAUSED)
            await publish(it, 2 * number + 1)
            await set_status(it, SubscriptionStatus.ACTIVE)
        for each in (raw, other):
            assert await all_of(each, 2 * pauses) == list(range(2 * pauses))


async def all_of(raw: RawClient, count: int) -> list[int]:
    found = await raw.messages(count)
    assert await raw.is_quiet()
    return found
