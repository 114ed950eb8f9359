"""Every queue channel with holders on this server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final

from artcafe.delivery.channel_tracing import ChannelTracing
from artcafe.delivery.dead_letter_mover import DeadLetterMover
from artcafe.delivery.hub import SentCount
from artcafe.delivery.other_servers import OtherServers
from artcafe.delivery.queue_feed import QueueFeed
from artcafe.delivery.recent_acks import RecentAcks
from artcafe.errors import ChannelNotFound, OurFault
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.outcome_exchange import KnownOutcome, OutcomeQuestion
from artcafe.model import AgentId, Channel, ChannelId, Epoch, QueueSettings, Seq, TenantChange, TenantId
from artcafe.observe.logs import log
from artcafe.services.dead_letters import DeadLetters
from artcafe.supervision import Supervisor

CLOSE_S: Final = 5.0
"""How long a shutdown waits until every held message is given back."""
REREAD_S: Final = 1.0
"""Pause before changed settings are read again after a failure."""
MOST_LEFT: Final = 256
"""Queues without holders, and with remembered acks."""

FindChannel = Callable[[TenantId, ChannelId], Awaitable[Channel]]
"""Return a channel. Raises `ChannelNotFound` or `Unavailable`."""


class QueueHub:
    """The feeds of this server's queue channels. `group` owns their tasks."""

    def __init__(
        self,
        fabric: Fabric,
        group: asyncio.TaskGroup,
        find: FindChannel,
        dead_letters: DeadLetters,
        tracing_of: Callable[[TenantId, ChannelId], ChannelTracing | None],
    ) -> None:
        self._fabric, self._group, self._find, self._tracing_of = fabric, group, find, tracing_of
        self._mover = DeadLetterMover(dead_letters, find, group)
        self._feeds: dict[tuple[TenantId, ChannelId], QueueFeed] = {}
        self._left_acks: OrderedDict[tuple[TenantId, ChannelId], RecentAcks] = OrderedDict()
        """The last acks of queues without holders, the newest at the end."""
        self._running: set[asyncio.Task[None]] = set()
        self._unread: set[QueueFeed] = set()
        """Feeds whose channels are read again in `REREAD_S`."""
        self._is_closed = False
        self._closed_counts: list[SentCount] = []
        self.supervisor = Supervisor("queue_hub")

    def __len__(self) -> int:
        """Return the number of queue channels with holders on this server."""
        return len(self._feeds)

    def held_by_tenant(self) -> Counter[TenantId]:
        """Return the number of messages held on this server, by tenant."""
        held: Counter[TenantId] = Counter()
        for (tenant_id, _), feed in self._feeds.items():
            held[tenant_id] += len(feed.held)
        return held

    def feed(self, tenant_id: TenantId, channel_id: ChannelId, settings: QueueSettings) -> QueueFeed:
        """Return the channel's feed for one more holder. End its use with `release`. Raises `Unavailable` during a shutdown."""
        feed = self._feeds.get((tenant_id, channel_id))
        if feed is None:
            feed = self._feeds[tenant_id, channel_id] = self._open(tenant_id, channel_id, settings)
        feed.users += 1
        return feed

    def _open(self, tenant_id: TenantId, channel_id: ChannelId, settings: QueueSettings) -> QueueFeed:
        """Make a channel's feed, and run its work queue. Raises `Unavailable` during a shutdown."""
        tenant_fabric = self._fabric.tenant(tenant_id)
        feed = QueueFeed(
            tenant_fabric.log,
            tenant_id,
            channel_id,
            settings,
            partial(self._find, tenant_id, channel_id),
            OtherServers(self._fabric, tenant_fabric),
            self._mover,
            self._spawn,
            self._tracing_of(tenant_id, channel_id),
        )
        feed.recent_acks = self._left_acks.pop((tenant_id, channel_id), feed.recent_acks)
        tenant_fabric.work_queues.add(feed.queue)
        tenant_fabric.outcomes.answer_others()
        task = self._spawn(self.supervisor.keep(feed.queue.run))
        task.add_done_callback(lambda _: tenant_fabric.work_queues.discard(feed.queue))
        return feed

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a feed's work in a task. A shutdown waits for its end."""
        task = self._group.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def release(self, feed: QueueFeed) -> None:
        """End one use of the feed; the last one closes it."""
        feed.users -= 1
        if feed.users == 0:
            del self._feeds[feed.tenant_id, feed.channel]
            self._closed_counts += _counts_of(feed)
            self._remember(feed.tenant_id, feed.channel, feed.recent_acks)
            feed.close()

    def on_change(self, change: TenantChange) -> None:
        """Read the settings and handles of changed channels again."""
        feeds = self._feeds_of(change)
        if feeds:
            self._group.create_task(self.supervisor.keep(partial(self._refresh_each, feeds)))

    def _feeds_of(self, change: TenantChange) -> list[QueueFeed]:
        if change.is_whole:
            return [feed for (tenant_id, _), feed in self._feeds.items() if tenant_id == change.tenant_id]
        found = (self._feeds.get((change.tenant_id, channel_id)) for channel_id in change.channels)
        return [feed for feed in found if feed is not None]

    async def _refresh_each(self, feeds: Sequence[QueueFeed]) -> None:
        """Read one channel after another: a tenant may have thousands, and others' reads must not wait for them."""
        for feed in feeds:
            await self._refresh(feed)

    async def _refresh(self, feed: QueueFeed) -> None:
        """Read a channel's handle and settings again. Close the feed of a deleted channel."""
        try:
            channel = await self._find(feed.tenant_id, feed.channel)
        except ChannelNotFound:
            feed.close()  # its holders get nothing more, and acknowledge nothing
            return
        except OurFault as exc:
            log.warning("queue_hub.settings_unread", tenant=feed.tenant_id, channel=feed.channel, error=str(exc))
            if feed not in self._unread:
                self._unread.add(feed)
                asyncio.get_running_loop().call_later(REREAD_S, self._read_again, feed)
            return
        feed.handle = channel.handle
        if channel.queue is not None:
            feed.change(channel.queue)

    def _read_again(self, feed: QueueFeed) -> None:
        """Read an open feed's channel again after a failure."""
        self._unread.discard(feed)
        if not self._is_closed and self._feeds.get((feed.tenant_id, feed.channel)) is feed:
            self._group.create_task(self.supervisor.keep(partial(self._refresh, feed)))

    # --- receipts ----------------------------------------------------------------------------------------------------

    def note_ack(self, tenant_id: TenantId, channel_id: ChannelId, seq: Seq, receiver: str, epoch: Epoch | None) -> None:
        """Remember an ack of a message delivered by another server that has ended."""
        feed = self._feeds.get((tenant_id, channel_id))
        acks = feed.recent_acks if feed is not None else self._left_acks.pop((tenant_id, channel_id), RecentAcks())
        acks.note(seq, receiver, epoch)
        if feed is None:
            self._remember(tenant_id, channel_id, acks)
        self._fabric.tenant(tenant_id).outcomes.answer_others()

    def _remember(self, tenant_id: TenantId, channel_id: ChannelId, acks: RecentAcks) -> None:
        self._left_acks[tenant_id, channel_id] = acks
        if len(self._left_acks) > MOST_LEFT:
            self._left_acks.popitem(last=False)

    def outcomes(self, tenant_id: TenantId, question: OutcomeQuestion) -> list[KnownOutcome]:
        """Return those of these messages held on this server, or acknowledged here lately."""
        found: list[KnownOutcome] = []
        for channel_id, seqs in question.wanted.items():
            feed = self._feeds.get((tenant_id, channel_id))
            if feed is not None and feed.queue.epoch == question.epoch:
                found += [KnownOutcome(channel_id, seq, agent, False) for seq, agent in _held(feed, seqs)]
                if question.with_waiting:
                    found += [KnownOutcome(channel_id, seq, AgentId(""), False) for seq in seqs if feed.has_waiting(seq)]
            acks = self._left_acks.get((tenant_id, channel_id)) if feed is None else feed.recent_acks
            if acks is not None:
                acked = acks.find(seqs, question.epoch)
                found += [KnownOutcome(channel_id, seq, agent, True) for seq, agent in acked.items()]
        return found

    # --- counts and end ----------------------------------------------------------------------------------------------

    def take_counts(self) -> Iterator[SentCount]:
        """Return the messages handed out since the last call."""
        counts, self._closed_counts = self._closed_counts, []
        yield from counts
        for feed in self._feeds.values():
            yield from _counts_of(feed)

    async def close(self) -> None:
        """Give back every held message, within `CLOSE_S`. May be repeated."""
        self._is_closed = True
        for feed in self._feeds.values():
            feed.close()
        if self._running:
            await asyncio.wait(self._running, timeout=CLOSE_S)


def _held(feed: QueueFeed, seqs: Sequence[Seq]) -> Iterator[tuple[Seq, AgentId]]:
    """Yield those of these messages held by agents, with their holders. The timer of a passed deadline may be late."""
    now = time.monotonic()
    for seq in seqs:
        held = feed.held.get(seq)
        if held is not None and held.deadline > now:
            yield seq, AgentId(held.holder.receiver)


def _counts_of(feed: QueueFeed) -> list[SentCount]:
    return [SentCount(feed.tenant_id, feed.channel, receiver, sent) for receiver, sent in feed.take_counts().items()]
