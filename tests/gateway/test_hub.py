from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from artcafe.delivery.delivery import Delivery
from artcafe.delivery.frame_batch import FrameBatch
from artcafe.errors import ArtcafeError, Internal
from artcafe.fabric.channel_kinds import LOGGED
from artcafe.gateway.encoding import WebSocketEncoding
from artcafe.model import ChannelId, Cursor, Epoch, SubscriptionStatus
from artcafe.wire.replies import Gap
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import RawClient, open_client


async def all_of(raw: RawClient, count: int) -> list[tuple[str, int]]:
    """Return channel and sequence of the next messages."""
    got = [await raw.message() for _ in range(count)]
    return [(message["channel"], message["seq"]) for message in got]


async def publish_many(it: GatewayApp, count: int) -> list[int]:
    async with asyncio.TaskGroup() as group:
        storing = [group.create_task(it.publish(b"%d" % number)) for number in range(count)]
    return [task.result() for task in storing]


async def test_switch_from_backlog_to_live_loses_and_repeats_nothing(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish_many(it, 700)
        async with asyncio.TaskGroup() as group:
            storing = group.create_task(publish_many(it, 3000))
            for _ in range(8):
                group.create_task(_whole(it, 3700))
        assert storing.result()


async def _whole(it: GatewayApp, count: int) -> None:
    async with it.connected() as raw:
        got = [await raw.message() for _ in range(count)]
        assert [message["seq"] for message in got] == list(range(1, count + 1))
        assert [message["prev"] for message in got] == [None, *range(1, count)]
        assert await raw.is_quiet()


async def test_window_of_any_size_gets_every_message_once_and_in_order_under_load(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        await publish_many(it, 50)
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_many(it, 250))
            for window in (1, 2, 7, 64, 500):
                group.create_task(_windowed(it, window, 300))


async def _windowed(it: GatewayApp, window: int, count: int) -> None:
    async with it.connected(max_unacked=window) as raw:
        for expected in range(1, count + 1):
            message = await raw.message()
            assert (message["seq"], message["prev"]) == (expected, expected - 1 or None)
            await raw.ack(it.channel.id, expected)
        assert await raw.is_quiet()


async def test_subscribe_begins_each_channel_once_with_the_requested_window(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        for number in range(10):
            channel = await it.services.channels.create(it.owner, name=f"channel {number}")
            await raw.ask("subscribe", channel=channel.id, max_unacked=2)
            seqs = [await it.publish(b"0", channel) for _ in range(3)]
            assert await all_of(raw, 2) == [(channel.id, seq) for seq in seqs[:2]]
            assert await raw.is_quiet()
            feed = it.services.hub._feeds[it.owner.tenant_id, channel.id]
            assert feed.users == 1
            assert await raw.ask("unsubscribe", channel=channel.id) == {"channel": channel.id}


async def test_subscription_paused_while_it_begins_does_not_begin(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        for steps in range(40):
            async with open_client(it.url) as raw:
                await raw.say("connect", access_token=it.token())
                for _ in range(steps):
                    await asyncio.sleep(0)  # one step further each time
                await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, SubscriptionStatus.PAUSED)
                assert "connect" in await raw.next()
                await until(lambda: not it.services.hub._feeds)
                assert await raw.is_quiet()
                assert not it.services.hub._feeds
            await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, SubscriptionStatus.ACTIVE)


async def test_feed_released_before_it_opens_wakes_its_waiters(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        feed = it.services.hub.feed(it.owner.tenant_id, it.channel.id, LOGGED)
        it.services.hub.release(feed)

        async with asyncio.timeout(20):
            await feed.opened.wait()
        tenant_fabric = it.services.fabric.tenant(it.owner.tenant_id)
        await until(lambda: len(tenant_fabric.readers) == 0)


async def test_sockets_opened_and_closed_under_load_each_get_consecutive_messages(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        async with asyncio.TaskGroup() as group:
            group.create_task(publish_many(it, 2000))
            for number in range(20):
                group.create_task(_run_of(it, 50 + 10 * number))
        await until(lambda: not it.services.hub._feeds)


async def _run_of(it: GatewayApp, count: int) -> None:
    async with it.connected() as raw:
        seqs = [seq for _, seq in await all_of(raw, count)]
        assert seqs == list(range(seqs[0], seqs[0] + count))


async def test_two_sockets_of_one_agent_each_get_every_message(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as one, it.connected() as other:
        seqs = await publish_many(it, 300)
        expected = [(it.channel.id, seq) for seq in sorted(seqs)]

        assert await all_of(one, 300) == expected
        assert await all_of(other, 300) == expected


class FailingPeer:
    """A connection whose writes fail."""

    encoding = WebSocketEncoding()

    def __init__(self) -> None:
        self.out: list[FrameBatch] = []
        self.is_paused = False
        self.descriptor: int | None = None
        self.reason: ArtcafeError | None = None

    def write(self, frames: bytes | memoryview) -> None:
        raise ValueError(bytes(frames))

    def feed_soon(self) -> None:
        """Do nothing: it has no backlog."""

    def close(self, reason: ArtcafeError) -> None:
        self.reason = reason

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        raise AssertionError

    def send_moved(self, channel_id: ChannelId, cursor: Cursor) -> None:
        """Ignore it: these tests move no cursor."""

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = ()) -> None:
        raise AssertionError


@pytest.mark.parametrize("max_unacked", [None, 64], ids=["same channels", "own channels"])
async def test_failed_flush_closes_its_tenants_sockets_and_loses_nothing(tmp_path: Path, max_unacked: int | None) -> None:
    async with gateway_app(tmp_path) as it:
        async with it.connected() as raw:
            await it.caught_up()
            feed = it.services.hub.feed(it.owner.tenant_id, it.channel.id, LOGGED)
            broken = FailingPeer()
            assert feed.join(Delivery(broken, feed, feed.flushed, feed.lineage.epoch, max_unacked, "agt_broken"))
            seqs = [await it.publish(b"1")]
            assert await raw.closed() == 4000
            assert isinstance(broken.reason, Internal)
            it.services.hub.release(feed)
        async with it.connected() as raw:
            seqs.append(await it.publish(b"2"))
            assert await all_of(raw, 2) == [(it.channel.id, seq) for seq in seqs]
