"""Delivery through a transport of the test's own, without WebSockets: it imports nothing of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from artcafe.delivery.delivery import Delivery
from artcafe.delivery.frame_batch import FrameBatch
from artcafe.delivery.subscriber import Subscriber
from artcafe.delivery.watcher import Watcher
from artcafe.errors import AckBeyondSent, ArtcafeError
from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, ChannelType, Cursor, Epoch
from artcafe.wire.envelopes import parse_envelope
from artcafe.wire.replies import Gap
from tests.gateway.gateway_app import GatewayApp, gateway_app, until


class PlainEncoding:
    """Messages as lines of data. It counts the encoded messages."""

    def __init__(self) -> None:
        self.count = 0

    def messages(
        self,
        channel_id: ChannelId,
        handle: str | None,
        kind: ChannelKind,
        epoch: Epoch | None,
        messages: Sequence[StoredMessage],
    ) -> list[bytes]:
        """Return one event per message."""
        self.count += len(messages)
        return [b"data: %b\n\n" % bytes(parse_envelope(one.envelope).data) for one in messages]

    def gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None) -> bytes:
        """Return an event without data."""
        return b"event: gap\n\n"


class PlainStream:
    """A connection that keeps everything written to it."""

    encoding: ClassVar[PlainEncoding] = PlainEncoding()

    def __init__(self) -> None:
        self.out: list[FrameBatch] = []
        self.is_paused = False
        self.descriptor: int | None = None
        self.deliveries: dict[ChannelId, Delivery] = {}
        self.resume: Callable[[], None] = lambda: None
        self.written = b""
        self.gaps: list[Gap] = []
        self.errors: list[ArtcafeError] = []

    def write(self, frames: bytes | memoryview) -> None:
        """Keep the bytes."""
        self.written += frames

    def feed_soon(self) -> None:
        """Resume the deliveries in the next turn."""
        asyncio.get_running_loop().call_soon(self.resume)

    def close(self, reason: ArtcafeError) -> None:
        """Keep the reason."""
        self.errors.append(reason)

    def send_gap(self, channel_id: ChannelId, gap: Gap, epoch: Epoch | None = None) -> None:
        """Keep the gap."""
        self.gaps.append(gap)

    def send_moved(self, channel_id: ChannelId, cursor: Cursor) -> None:
        """Ignore it: these tests move no cursor."""

    def send_error(self, error: ArtcafeError, channels: Sequence[ChannelId] = ()) -> None:
        """Keep the error."""
        self.errors.append(error)

    def pause(self) -> None:
        """Take the deliveries out of their feeds, as a transport does for a slow reader."""
        self.is_paused = True
        for delivery in self.deliveries.values():
            delivery.feed.leave(delivery)


def events(*data: int) -> bytes:
    return b"".join(b"data: %d\n\n" % one for one in data)


class NeverWoken:
    """A transport that begins no delivery of the agent's inbox."""

    def wake_inbox(self) -> None:
        raise AssertionError("nobody publishes to the agent")


async def subscribed(it: GatewayApp, group: asyncio.TaskGroup, stream: PlainStream) -> Subscriber:
    """Begin the agent's subscriptions on the stream."""

    def spawn(work: Callable[[], Coroutine[None, None, None]]) -> asyncio.Task[None]:
        return group.create_task(work())

    subscriber = Subscriber(it.services, stream, it.principal, stream.deliveries, spawn, None, NeverWoken())
    stream.resume = subscriber.backlog.resume
    await subscriber.read_subscriptions()
    while subscriber.is_due:
        await subscriber.begin_next()
    subscriber.backlog.resume()
    return subscriber


async def test_door_without_websockets_delivers_the_backlog_and_then_live_messages(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, asyncio.TaskGroup() as group:
        for number in (1, 2, 3):
            await it.publish(b"%d" % number)
        stream = PlainStream()
        subscriber = await subscribed(it, group, stream)
        await until(lambda: stream.written == events(1, 2, 3))
        for number in (4, 5):
            await it.publish(b"%d" % number)
        await until(lambda: stream.written == events(1, 2, 3, 4, 5))

        subscriber.acknowledge(it.channel.id, 5)
        with pytest.raises(AckBeyondSent):
            subscriber.acknowledge(it.channel.id, 6)
        subscriber.end()
        assert (stream.gaps, stream.errors, stream.deliveries) == ([], [], {})

        await it.publish(b"6")
        again = PlainStream()
        subscriber = await subscribed(it, group, again)
        await until(lambda: again.written == events(6))
        subscriber.end()


async def test_flush_encodes_each_message_once_for_all_connections_of_a_door(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected() as raw, asyncio.TaskGroup() as group:
        streams = [PlainStream() for _ in range(3)]
        subscribers = [await subscribed(it, group, stream) for stream in streams]
        await it.caught_up()
        await until(lambda: all(each.is_member for stream in streams for each in stream.deliveries.values()))
        before = PlainStream.encoding.count
        for number in range(5):
            await it.publish(b"%d" % number)

        assert await raw.messages(5) == [0, 1, 2, 3, 4]
        await until(lambda: all(stream.written == events(0, 1, 2, 3, 4) for stream in streams))
        assert PlainStream.encoding.count - before == 5
        for subscriber in subscribers:
            subscriber.end()


async def test_windowed_and_plain_connections_of_two_doors_get_their_own_encodings(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, it.connected(max_unacked=10) as raw, asyncio.TaskGroup() as group:
        stream = PlainStream()
        subscriber = await subscribed(it, group, stream)
        await it.caught_up()
        await until(lambda: all(each.is_member for each in stream.deliveries.values()))
        for number in range(5):
            await it.publish(b"%d" % number)

        assert await raw.messages(5) == [0, 1, 2, 3, 4]
        await until(lambda: stream.written == events(0, 1, 2, 3, 4))
        subscriber.end()


async def test_paused_connection_of_another_door_continues_from_the_log(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it, asyncio.TaskGroup() as group:
        stream = PlainStream()
        subscriber = await subscribed(it, group, stream)
        await it.publish(b"1")
        await until(lambda: stream.written == events(1))
        stream.pause()
        for number in (2, 3):
            await it.publish(b"%d" % number)
        assert stream.written == events(1)

        stream.is_paused = False
        stream.resume()
        await until(lambda: stream.written == events(1, 2, 3))
        subscriber.end()


async def test_person_watches_a_channel_through_another_door(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        live = await it.services.channels.create(it.owner, name="live", type=ChannelType.LIVE)
        await it.publish(b"1")
        stream = PlainStream()
        watcher = Watcher(it.services, stream, stream.deliveries)
        for channel in (it.channel, live):
            await watcher.watch(it.owner, channel.id)
        watcher.resume()
        await it.publish(b"2")
        await until(lambda: stream.written == events(2))
        await it.say(b"3", live)
        await until(lambda: stream.written == events(2, 3))
        watcher.end()
        assert stream.deliveries == {}
