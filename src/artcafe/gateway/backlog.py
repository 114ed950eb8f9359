"""Feeding a socket from the log: what it missed, in order, at its own pace, until each delivery is level and joins its feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

from artcafe.errors import OurFault
from artcafe.fabric.streams import Stored
from artcafe.gateway.hub import Delivery, Socket, text_frame
from artcafe.model import ChannelId, Seq
from artcafe.observe import log
from artcafe.wire.frames import message_frame

RETRY_S: Final = 0.2
"""Between tries while NATS is away, and while a follower lags behind what the leader has shown us."""

Spawn = Callable[[Callable[[], Coroutine[None, None, None]]], asyncio.Task[None]]


class Backlog:
    """The deliveries of one socket that are not members of their feed. Works while there are any and the socket takes bytes."""

    def __init__(self, socket: Socket, deliveries: Mapping[ChannelId, Delivery], spawn: Spawn) -> None:
        """`deliveries` are the socket's, as they come and go; `spawn` starts the work under the connection's supervisor."""
        self._socket, self._deliveries, self._spawn = socket, deliveries, spawn
        self._task: asyncio.Task[None] | None = None

    def soon(self) -> None:
        """There may be something to feed."""
        if self._task is None and any(self._is_behind(each) for each in self._deliveries.values()):
            self._task = self._spawn(self._work)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        try:
            # A round feeds each delivery one piece, so that a long backlog does not keep the other channels waiting.
            while behind := [each for each in self._deliveries.values() if self._is_behind(each)]:
                for delivery in behind:
                    if self._is_behind(delivery):
                        await self._advance(delivery)
        finally:
            self._task = None

    def _is_behind(self, delivery: Delivery) -> bool:
        if delivery.member or self._socket.is_paused:
            return False
        return delivery.max_unacked is None or len(delivery.unacked) < delivery.max_unacked

    async def _advance(self, delivery: Delivery) -> None:
        """Sends the next piece of a delivery's backlog, or makes it a member where there is none."""
        feed = delivery.feed
        await feed.opened.wait()
        shown = feed.flushed
        try:
            found = await self._read(delivery, shown)
        except OurFault as exc:
            log.debug("backlog.waits", channel=feed.channel, error=repr(exc))
            await asyncio.sleep(RETRY_S)
            return
        if self._deliveries.get(feed.channel) is not delivery or delivery.member:
            return
        due = [one for one in found if one.seq <= feed.flushed]
        if due:
            self._send(delivery, due)
            return
        # The log has nothing between what this socket and the members were sent: what comes above is left to the feed, so
        # nothing is sent twice and nothing falls between.
        level = feed.flushed if found else shown
        if level > delivery.sent:
            delivery.sent, delivery.rooted = level, True
        feed.join(delivery)

    async def _read(self, delivery: Delivery, shown: Seq) -> list[Stored]:
        """The next piece behind a delivery; empty only where the log has nothing up to `shown`. Raises `Unavailable`."""
        feed, room_log = delivery.feed, delivery.feed.room.log
        if delivery.sent >= shown:
            return []
        while not (found := await room_log.after(feed.channel, delivery.sent)):
            # The oldest are removed first: without the message at `shown` there is none before it either.
            if await room_log.read(shown) is None:
                return []
            await asyncio.sleep(RETRY_S)  # a follower that lags behind the leader answered first
        if not delivery.rooted:
            found[0] = found[0]._replace(prev=await room_log.last_of(feed.channel, up_to=delivery.sent) or None)
        return found

    def _send(self, delivery: Delivery, due: list[Stored]) -> None:
        fits = delivery.may_be_sent()
        due = due if fits is None else due[:fits]
        delivery.owe([one.seq for one in due])
        channel = delivery.feed.channel.encode()
        delivery.sent, delivery.rooted = due[-1].seq, True
        self._socket.write(b"".join(text_frame(message_frame(channel, one.seq, one.prev, one.envelope)) for one in due))
