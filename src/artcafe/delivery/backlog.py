"""Feeding a socket from the log: what it missed, in order, at its own pace, until each delivery is level and joins its feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

from artcafe.delivery.frame_batch import text_frame
from artcafe.delivery.hub import Delivery, Socket
from artcafe.errors import LogRenewed, OurFault
from artcafe.fabric.channel_readers import ChannelReader
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Seq
from artcafe.observe.logs import log
from artcafe.rules import start_position
from artcafe.wire import envelopes, replies
from artcafe.wire.replies import Gap

RETRY_S: Final = 0.2
"""Between tries while NATS is away, and while a follower lags behind what the leader has shown us."""

Spawn = Callable[[Callable[[], Coroutine[None, None, None]]], asyncio.Task[None]]


class Backlog:
    """The deliveries of one socket that are not members of their feed. Works while there are any and the socket takes bytes."""

    __slots__ = ("_deliveries", "_socket", "_spawn", "_task")

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
                    if self._is_fed(delivery) and self._is_behind(delivery):
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
        if not self._is_fed(delivery):
            return  # the delivery has ended, and with its last delivery the feed has closed without ever knowing its log
        shown = feed.flushed
        try:
            is_same_log = feed.is_live or await self._is_of_this_log(delivery)
            found = await self._read(delivery, shown) if is_same_log and not feed.is_live else []
        except OurFault as exc:
            log.debug("backlog.waits", channel=feed.channel, error=repr(exc))
            await asyncio.sleep(RETRY_S)
            return
        if not self._is_fed(delivery) or (is_same_log and not feed.is_live and delivery.epoch != feed.life.epoch):
            return  # it has ended, or the log was renewed while it was read
        if not is_same_log:
            log.info("backlog.another_log", channel=feed.channel, epoch=feed.life.epoch, delivered=delivery.epoch)
            self._socket.close(LogRenewed())
            return
        due = [one for one in found if one.seq <= feed.flushed]
        if due:
            self._send(delivery, due)
            return
        # The log has nothing between what this socket and the members were sent: what comes above is left to the feed, so
        # nothing is sent twice and nothing falls between.
        delivery.sent = max(delivery.sent, feed.flushed if found else shown)
        feed.join(delivery)

    def _is_fed(self, delivery: Delivery) -> bool:
        """Return whether the delivery still belongs to this socket and is not a member of its feed."""
        return self._deliveries.get(delivery.feed.channel) is delivery and not delivery.member

    @staticmethod
    async def _is_of_this_log(delivery: Delivery) -> bool:
        """Whether the log is still the one in which the delivery's sequences mean something. Raises `Unavailable`.

        If not, its socket is closed rather than begun anew in place: an ack that is on its way would count in the wrong log.
        """
        feed = delivery.feed
        if delivery.epoch not in (None, feed.life.epoch) and isinstance(feed.reader, ChannelReader):
            await feed.reader.catch_up()  # Of the two it may be the reader that has not seen the new log yet.
        delivery.epoch = delivery.epoch or feed.life.epoch
        return delivery.epoch == feed.life.epoch

    async def _read(self, delivery: Delivery, shown: Seq) -> list[StoredMessage]:
        """The next piece behind a delivery, with the gap before it told; empty only where the log has nothing up to `shown`.

        Raises `Unavailable`.
        """
        channel, room_log = delivery.feed.channel, delivery.feed.tenant_fabric.log
        if not delivery.rooted:
            delivery.anchor = await room_log.last_seq_of(channel, up_to=delivery.sent)
        while not delivery.rooted or delivery.sent < shown:
            found, is_whole = await room_log.behind(channel, delivery.anchor, delivery.sent)
            if not is_whole:
                found = await self._without_removed(delivery, found)
            delivery.rooted = True
            if found or delivery.sent >= shown:
                return found
            if await room_log.is_removed(shown):
                return await self._without_removed(delivery, found)
            await asyncio.sleep(RETRY_S)  # a leader that was cut off answered first
        return []

    async def _without_removed(self, delivery: Delivery, found: list[StoredMessage]) -> list[StoredMessage]:
        """What was found behind a message that is not there: what retention took before it was sent is told first.

        How far that is stands in the channel's row before anything is removed, so a row that is read now has it.
        """
        removed = await delivery.feed.removed_to()
        delivery.anchor = 0
        if removed > delivery.sent and self._is_fed(delivery):
            gap = Gap(delivery.sent + 1, removed, start_position.RETENTION)
            self._socket.write(text_frame(replies.gap(delivery.feed.channel, gap)))
            delivery.sent = removed
        return [one for one in found if one.seq > delivery.sent]

    def _send(self, delivery: Delivery, due: list[StoredMessage]) -> None:
        fits = delivery.may_be_sent()
        due = due if fits is None else due[:fits]
        delivery.owe([one.seq for one in due])
        channel = envelopes.id_text(delivery.feed.channel)
        delivery.stand_on(due[-1].seq)
        self._socket.write(b"".join(text_frame(envelopes.message_frame(channel, one.seq, one.prev, one.envelope)) for one in due))
