"""Moves failed messages of queues to the dead-letter channels, and ends them in their queues.

The reason is decided here for a message that gets no holder any more, and by `queue_feed` when a holder's delivery was the last
one (`max_deliveries`) or the holder rejects the message (`rejected`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from artcafe.delivery.queue_feed import QueueFeed
from artcafe.errors import ChannelNotFound, OurFault
from artcafe.fabric.marked_copies import MOST_COPIES
from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import Channel, ChannelId, Epoch, Seq, TenantId
from artcafe.services.dead_letters import DeadLetters, FailedMessage
from artcafe.supervision import Supervisor
from artcafe.wire import envelopes
from artcafe.wire.envelopes import DeadLetterReason

RETRY_S: Final = 20.0
"""Pause before the next attempt to move a message."""
MOST_WAITING: Final = 1000
"""Messages of one queue waiting to be moved on this server. Further ones are given back, and come again after `RETRY_S`."""
MOST_REJECTED: Final = 10_000
"""Rejected messages that this server remembers until they come again. The oldest beyond these go to a subscriber again."""

_Key = tuple[TenantId, ChannelId, Epoch | None, Seq]
"""Identifies a message."""


class DeadLetterMover:
    """The messages of all queues to be moved by this server, in the order of their failures. `group` owns its tasks."""

    def __init__(
        self, dead_letters: DeadLetters, find: Callable[[TenantId, ChannelId], Awaitable[Channel]], group: asyncio.TaskGroup
    ) -> None:
        """`find` returns a channel. It raises `ChannelNotFound` or `Unavailable`."""
        self._dead_letters, self._find, self._group, self._clock = dead_letters, find, group, dead_letters.clock
        self._waiting: dict[QueueFeed, list[tuple[QueuedMessage, FailedMessage]]] = {}
        """The messages to move, for each feed whose task runs."""
        self._rejected: dict[_Key, int] = {}
        """Rejected messages that could not be moved, and how often subscribers got them."""
        self.supervisor = Supervisor("dead_letters")

    def move_undeliverable(self, feed: QueueFeed, message: QueuedMessage) -> bool:
        """Move an expired message, one delivered as often as its channel allows, or one that was rejected here, and return True;
        False for any other."""
        # NATS counts the attempts to move it too.
        before = min(message.deliveries - 1, feed.settings.max_deliveries)
        expires_at = envelopes.expires_at(message.envelope)
        rejected_after = self._rejected.pop(_key(feed, message), None) if self._rejected else None
        if rejected_after is not None:
            self.move(feed, message, DeadLetterReason.REJECTED, rejected_after)
        elif expires_at is not None and expires_at <= self._clock():
            self.move(feed, message, DeadLetterReason.EXPIRED, before)
        elif message.deliveries > feed.settings.max_deliveries:
            self.move(feed, message, DeadLetterReason.MAX_DELIVERIES, before)
        else:
            return False
        return True

    def move(self, feed: QueueFeed, message: QueuedMessage, reason: DeadLetterReason, deliveries: int) -> None:
        """Store a message as a dead letter, and then end it. If it cannot be stored, give it back to try again later.

        Nobody holds the message any more. `deliveries` is how often subscribers got it.
        """
        waiting = self._waiting.get(feed)
        one = message, FailedMessage(message.seq, message.envelope, reason, deliveries)
        if waiting is None:
            self._waiting[feed] = [one]
            self._group.create_task(self.supervisor.keep(partial(self._run, feed)))
        elif len(waiting) < MOST_WAITING:
            waiting.append(one)
        else:
            self._put_off(feed, *one)

    def _put_off(self, feed: QueueFeed, message: QueuedMessage, failed: FailedMessage) -> None:
        """Give a message back, to be moved when it comes again."""
        if failed.reason is DeadLetterReason.REJECTED:  # the others are recognised by themselves
            while len(self._rejected) >= MOST_REJECTED:
                del self._rejected[next(iter(self._rejected))]
            self._rejected[_key(feed, message)] = failed.deliveries
        feed.queue.nak(message, RETRY_S)

    async def _run(self, feed: QueueFeed) -> None:
        """Move the waiting messages of a queue, a batch at a time, until none is left."""
        try:
            while waiting := self._waiting.get(feed):
                some = waiting[:MOST_COPIES]
                del waiting[:MOST_COPIES]
                is_moved = False
                with self.supervisor.contain(tenant=feed.tenant_id, channel=feed.channel):
                    is_moved = await self._store(feed, [failed for _, failed in some])
                for message, one in some:
                    if is_moved:
                        feed.queue.terminate(message)
                    else:
                        self._put_off(feed, message, one)
        finally:
            self._waiting.pop(feed, None)

    async def _store(self, feed: QueueFeed, failed: list[FailedMessage]) -> bool:
        try:
            queue = await self._find(feed.tenant_id, feed.channel)
        except (ChannelNotFound, OurFault):
            return False
        return await self._dead_letters.store(queue, failed)


def _key(feed: QueueFeed, message: QueuedMessage) -> _Key:
    return feed.tenant_id, feed.channel, feed.queue.epoch, message.seq
