"""A request moves the cursor of a subscription: connections continue there, and acks of earlier deliveries change nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from artcafe.errors import Invalid, SubscriptionNotFound
from artcafe.model import ChannelType, Cursor, SkippedRange, Subscription, SubscriptionStatus
from artcafe.services.cursor_moves import MoveTarget
from artcafe.services.presence import View
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import RawClient


async def move(it: GatewayApp, target: MoveTarget) -> Subscription:
    return await it.services.cursor_moves.move(it.owner, it.channel.id, it.agent.id, target)


async def row(it: GatewayApp) -> Subscription:
    return await it.services.subscriptions.get(it.owner, it.channel.id, it.agent.id)


async def moved(raw: RawClient) -> tuple[int, int]:
    """Return the cursor and the number of the next push of a moved cursor, which precedes the messages above it."""
    frame = await raw.next()
    assert "moved" in frame, frame
    return frame["moved"]["cursor"], frame["moved"]["moves"]


@pytest.mark.promise("m7", "m8", "m9")
async def test_move_back_delivers_again_on_the_same_connection_and_voids_earlier_acks(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        seqs = [await it.publish(b"%d" % number) for number in (1, 2, 3)]
        assert await raw.messages(3) == [1, 2, 3]
        await raw.ack(it.channel.id, seqs[2])
        await until(lambda: it.services.cursors.has_unwritten(it.owner.tenant_id, it.agent.id))

        assert (await move(it, seqs[0])).cursor.seq == seqs[0]
        await it.services.cursors.write_all()  # The ack of before is written after the move.
        assert (await row(it)).cursor.seq == seqs[0]

        assert await moved(raw) == (seqs[0], 1)
        assert await raw.messages(2) == [2, 3]
        await raw.ack(it.channel.id, seqs[1])
        await until(lambda: it.services.cursors.has_unwritten(it.owner.tenant_id, it.agent.id))
        await it.services.cursors.write_all()
        assert (await row(it)).cursor.seq == seqs[1]


@pytest.mark.promise("m8", "m10")
async def test_move_forward_skips_and_is_reported_on_the_next_connection_too(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        seqs = [await it.publish(b"%d" % number) for number in (1, 2, 3)]
        changed = await move(it, seqs[1])
        epoch = changed.cursor.epoch
        assert epoch is not None
        assert changed.skipped == SkippedRange(epoch=epoch, after=0, to=seqs[1])
        async with it.connected() as raw:
            assert await moved(raw) == (seqs[1], 1)
            assert await raw.messages(1) == [3]
        assert (await move(it, seqs[0])).skipped == SkippedRange(epoch=epoch, after=0, to=seqs[0])


@pytest.mark.promise("m5")
async def test_cursor_moves_to_the_first_or_last_message_or_to_a_time(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        assert (await move(it, "last")).cursor == Cursor(moves=1)  # Nothing is stored yet.
        one = await it.publish(b"1")
        between = it.clock()
        two = await it.publish(b"2")

        assert (await move(it, "last")).cursor.seq == two
        assert (await move(it, "first")).cursor.seq == 0
        assert (await move(it, between)).cursor.seq in (one - 1, one)  # The clocks of NATS and of the server are compared.
        assert (await move(it, it.clock().replace(year=2999))).cursor.seq == two
        assert (await row(it)).cursor.moves == 5


async def test_cursor_above_the_newest_message_and_channel_without_cursors_are_refused(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        seq = await it.publish(b"1")
        with pytest.raises(Invalid, match=f"is {seq + 1}, above the newest message"):
            await move(it, seq + 1)
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        await it.services.subscriptions.put(it.owner, live.id, it.agent.id)
        with pytest.raises(Invalid, match="live channel"):
            await it.services.cursor_moves.move(it.owner, live.id, it.agent.id, "first")
        with pytest.raises(SubscriptionNotFound):
            await it.services.cursor_moves.move(it.owner, it.channel.id, "agt_none", "first")


async def test_pause_after_a_move_resumes_at_the_moved_cursor(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw:
        for number in (1, 2):
            await it.publish(b"%d" % number)
        assert await raw.messages(2) == [1, 2]
        await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, SubscriptionStatus.PAUSED)
        await until(lambda: not any(each.deliveries for each in it.gateway.connections()))
        await move(it, "first")
        await it.services.subscriptions.set_status(it.owner, it.channel.id, it.agent.id, SubscriptionStatus.ACTIVE)
        assert await moved(raw) == (0, 1)
        assert await raw.messages(2) == [1, 2]


@pytest.mark.promise("m2")
async def test_agent_was_last_seen_now_while_it_is_connected_and_then_when_it_left(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        view = View(it.services.fabric.tenant(it.owner.tenant_id).presence)
        began = it.clock()
        async with it.connected():
            later = it.clock() + timedelta(hours=1)
            assert view.last_seen(it.agent.id, later, None) == later
        await until(lambda: view.last_seen(it.agent.id, later, None) != later)
        left = view.last_seen(it.agent.id, later, None)
        assert left is not None
        assert began <= left <= it.clock()
        assert view.last_seen(it.agent.id, later, later) == later
