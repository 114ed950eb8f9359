"""Feeding a connection from the log: missed messages, in order and at its own pace, until each delivery joins its feed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Final

from artcafe.delivery.delivery import Delivery
from artcafe.delivery.delivery_metrics import count_deliveries
from artcafe.delivery.expiry import runs
from artcafe.delivery.peer import Peer
from artcafe.errors import LogRenewed, OurFault
from artcafe.fabric.channel_readers import ChannelReader
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Seq
from artcafe.observe.logs import log
from artcafe.rules import start_position
from artcafe.wire.replies import Gap

RETRY_S: Final = 0.2
"""Between two attempts while NATS is away, or while a NATS follower has not reached a sequence of its leader."""

Spawn = Callable[[Callable[[], Coroutine[None, None, None]]], asyncio.Task[None]]
"""Start work in a task of the connection's supervisor."""


class Backlog:
    """The backlog of one connection: feeds every delivery outside its feed, while the peer reads."""

    __slots__ = ("_deliveries", "_peer", "_spawn", "_suspended", "_task")

    def __init__(self, peer: Peer, deliveries: Mapping[ChannelId, Delivery], spawn: Spawn) -> None:
        """`deliveries`: the connection's own dict, changed by its session."""
        self._peer, self._deliveries, self._spawn = peer, deliveries, spawn
        self._task: asyncio.Task[None] | None = None
        self._suspended: Delivery | None = None

    @contextlib.contextmanager
    def suspended(self, delivery: Delivery | None) -> Iterator[None]:
        """Send a delivery nothing during the block. One delivery at a time."""
        if delivery is not None:
            delivery.feed.leave(delivery)
        self._suspended = delivery
        try:
            yield
        finally:
            self._suspended = None
            self.resume()

    def resume(self) -> None:
        """Start feeding if a delivery has a backlog."""
        if self._task is None and any(self._is_behind(each) for each in self._deliveries.values()):
            self._task = self._spawn(self._run)

    def stop(self) -> None:
        """Cancel the running task. May be repeated."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            # Each round feeds every delivery one batch: a long backlog must not block the other channels.
            while behind := [each for each in self._deliveries.values() if self._is_behind(each)]:
                for delivery in behind:
                    if self._is_fed(delivery) and self._is_behind(delivery):
                        await self._advance(delivery)
        finally:
            self._task = None

    def _is_behind(self, delivery: Delivery) -> bool:
        if delivery.is_member or self._peer.is_paused or delivery is self._suspended:
            return False
        return delivery.has_room_for(1)

    async def _advance(self, delivery: Delivery) -> None:
        """Send the next batch of a delivery's backlog, or make it a member if there is none."""
        feed = delivery.feed
        await feed.opened.wait()
        if not self._is_fed(delivery):
            return  # it has ended; its feed may have closed with it, without an epoch
        if not feed.kind.has_log:
            feed.join(delivery)
            return
        shown = feed.flushed
        try:
            is_same_log = await self._is_of_this_log(delivery)
            found = await self._read(delivery, shown) if is_same_log else []
        except OurFault as exc:
            log.debug("backlog.waits", channel=feed.channel, error=repr(exc))
            await asyncio.sleep(RETRY_S)
            return
        if not self._is_fed(delivery) or (is_same_log and delivery.epoch != feed.lineage.epoch):
            return  # it has ended, or the log was renewed during the read
        if not is_same_log:
            log.info("backlog.another_log", channel=feed.channel, epoch=feed.lineage.epoch, delivered=delivery.epoch)
            self._peer.close(LogRenewed())
            return
        due = [one for one in found if one.seq <= feed.flushed]
        if due:
            self._send(delivery, due)
            return
        # The log has nothing between the positions of this connection and of the members. The feed sends everything above, so no
        # message is sent twice or skipped.
        delivery.sent = max(delivery.sent, feed.flushed if found else shown)
        feed.join(delivery)

    def _is_fed(self, delivery: Delivery) -> bool:
        """Return whether the delivery still belongs to this connection, is no member of its feed, and is not suspended."""
        is_current = self._deliveries.get(delivery.feed.channel) is delivery
        return is_current and not delivery.is_member and delivery is not self._suspended

    @staticmethod
    async def _is_of_this_log(delivery: Delivery) -> bool:
        """Return whether the delivery's sequences belong to the current log. Raises `Unavailable`.

        If they do not, the connection is closed rather than restarted in place: an ack on its way would count in the wrong log.
        """
        feed = delivery.feed
        if delivery.epoch not in (None, feed.lineage.epoch) and isinstance(feed.reader, ChannelReader):
            await feed.reader.catch_up()  # the reader may not have seen the new log yet
        delivery.epoch = delivery.epoch or feed.lineage.epoch
        return delivery.epoch == feed.lineage.epoch

    async def _read(self, delivery: Delivery, shown: Seq) -> list[StoredMessage]:
        """Return the next batch of a backlog, after pushing a gap before it. Raises `Unavailable`.

        The batch is empty only if the log has nothing up to `shown`.
        """
        channel, tenant_log = delivery.feed.channel, delivery.feed.tenant_fabric.log
        if not delivery.has_anchor:
            delivery.anchor = await tenant_log.last_seq_of(channel, up_to=delivery.sent)
        while not delivery.has_anchor or delivery.sent < shown:
            found, is_whole = await tenant_log.after_anchor(channel, delivery.anchor, delivery.sent)
            if not is_whole:
                found = await self._without_removed(delivery, found)
            delivery.has_anchor = True
            if found or delivery.sent >= shown:
                return found
            if await tenant_log.is_removed(shown):
                return await self._without_removed(delivery, found)
            await asyncio.sleep(RETRY_S)  # the answer came from an old leader, cut off from the cluster
        return []

    async def _without_removed(self, delivery: Delivery, found: list[StoredMessage]) -> list[StoredMessage]:
        """Push a gap for messages removed by retention before they were sent, and return the rest of `found`, above the gap.

        The channel's row gets the position before any removal, so a row read now has it.
        """
        removed = await delivery.feed.removed_to()
        delivery.anchor = 0
        if removed > delivery.sent and self._is_fed(delivery):
            self._peer.send_gap(delivery.feed.channel, Gap(delivery.sent + 1, removed, start_position.RETENTION))
            delivery.sent = removed
        return [one for one in found if one.seq > delivery.sent]

    def _send(self, delivery: Delivery, due: Sequence[StoredMessage]) -> None:
        """Send messages as far as they fit the window, and a gap in place of expired ones."""
        for gap, some in runs(due, delivery.feed.clock):
            if gap is not None:
                self._peer.send_gap(delivery.feed.channel, gap)
                delivery.advance_to(some[-1].seq)
            elif fitting := some[: delivery.free_window()]:
                self._write(delivery, fitting)
            if delivery.sent < some[-1].seq:
                return

    def _write(self, delivery: Delivery, due: Sequence[StoredMessage]) -> None:
        feed = delivery.feed
        delivery.track([one.seq for one in due])
        delivery.advance_to(due[-1].seq)
        feed.add_count(delivery.receiver, len(due))
        tracing = feed.tracing
        span = None if tracing is None else tracing.start_deliver(due)
        encoded = self._peer.encoding.messages(feed.channel, feed.handle, feed.kind, delivery.epoch, due)
        self._peer.write(b"".join(encoded))
        if span is not None:
            span.end()
        count_deliveries(feed.tenant_fabric.tenant_id, len(due))
