"""The fan-out: each message encoded once, and written to every caught-up connection of this server.

Other connections (with a backlog, a slow reader or a full window) are fed from the log instead (`delivery.backlog`). The cost is
the system call: messages are written once per connection and flush, in the order of their arrival over all channels, and joined
once for all connections with the same channels (design, decision 6; decision record 23).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from artcafe.delivery.channel_tracing import ChannelTracing
from artcafe.delivery.delivery_metrics import count_flush
from artcafe.delivery.feed import Feed, RemovedTo
from artcafe.delivery.frame_batch import FrameBatch, join_batches
from artcafe.delivery.peer import Peer
from artcafe.errors import Internal, OurFault
from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.inbox_router import InboxWaiter
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import AgentPrincipal, ChannelId, Cursor, TenantChange, TenantId
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.observe.tracing import Tracing
from artcafe.rules.inboxes import InboxSubscription
from artcafe.services.record_cache import RecordCache
from artcafe.supervision import Supervisor

FLUSH_S: Final = 0.001
"""Least time between two flushes. After a pause, the first message is flushed in the next turn of the event loop. A million
deliveries per second to 100 subscribers take 0.6 of a core; with a flush every turn, a whole one (design, decision 6)."""

RETRY_S: Final = 0.2
"""Between two attempts to follow a channel while NATS is away."""


class SentCount(NamedTuple):
    """Messages of a channel sent to the connections of one principal."""

    tenant_id: TenantId
    channel_id: ChannelId
    receiver: str
    messages: int


class Hub:
    """Every feed of this server, and their common flush. `group` owns the tasks for opening and closing feeds."""

    def __init__(
        self,
        fabric: Fabric,
        group: asyncio.TaskGroup,
        removed_to: RemovedTo,
        clock: Clock,
        record_cache: RecordCache,
        tracing: Tracing | None = None,
    ) -> None:
        self._fabric, self._group, self.removed_to, self._clock = fabric, group, removed_to, clock
        self._record_cache = record_cache
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[tuple[TenantId, ChannelId], Feed] = {}
        self._unflushed: list[Feed] = []
        self._next_flush = 0.0
        self._tracing = tracing
        self._deliver = self._send if tracing is None else self._send_traced
        self.supervisor = Supervisor("hub")
        self.with_replies: set[Peer] = set()
        """Connections with replies waiting for the end of the turn: a reply goes before the messages caused by its command."""
        self._next_arrival: Callable[[], int] = itertools.count().__next__
        self._closed_counts: list[SentCount] = []

    def tracing_of(self, tenant_id: TenantId, channel: ChannelId) -> ChannelTracing | None:
        """Return new spans of a channel, or None if the server does not trace."""
        return None if self._tracing is None else ChannelTracing(self._tracing, tenant_id, channel)

    def feed(self, tenant_id: TenantId, channel: ChannelId, kind: ChannelKind, handle: str | None = None) -> Feed:
        """Return the channel's feed for one more delivery. It opens in the background and sets `opened`."""
        feed = self._feeds.get((tenant_id, channel))
        if feed is None:
            tenant_fabric = self._fabric.tenant(tenant_id)
            tracing = self.tracing_of(tenant_id, channel)
            feed = Feed(
                tenant_fabric, channel, kind, self._schedule_flush, self._next_arrival, self.removed_to, self._clock, tracing
            )
            self._feeds[tenant_id, channel] = feed
            self._spawn(partial(self._open, feed))
        feed.handle = handle
        feed.users += 1
        return feed

    def on_change(self, change: TenantChange) -> None:
        """Read the handles of changed channels again, for their next messages."""
        changed = [(change.tenant_id, channel) for channel in change.channels]
        if change.is_whole:
            changed = [key for key in self._feeds if key[0] == change.tenant_id]
        feeds = [feed for key in changed if (feed := self._feeds.get(key)) is not None]
        if feeds:
            self._spawn(partial(self._read_handles, feeds))

    async def _read_handles(self, feeds: Sequence[Feed]) -> None:
        """Read one channel after another: a tenant may have thousands, and others' reads must not wait for them.

        While the tables are away, the messages have the earlier handle until the next change or delivery.
        """
        with contextlib.suppress(OurFault):
            for feed in feeds:
                channel = await self._record_cache.find_channel(feed.tenant_fabric.tenant_id, feed.channel)
                if channel is not None:
                    feed.handle = channel.handle

    def __len__(self) -> int:
        """Return the number of channels with deliveries on this server."""
        return len(self._feeds)

    def behind_by_tenant(self) -> Counter[TenantId]:
        """Return the number of deliveries outside their feeds, fed from the log instead, by tenant with any."""
        behind: Counter[TenantId] = Counter()
        for (tenant_id, _), feed in self._feeds.items():
            if outside := feed.users - len(feed.caught_up) - len(feed.windowed) - len(feed.ahead) - len(feed.wakers):
                behind[tenant_id] += outside
        return behind

    async def check_log(self, tenant_id: TenantId) -> None:
        """Raise `Unavailable` unless NATS answers for the tenant's log."""
        await (await self._fabric.tenant(tenant_id).connected_log()).state()

    def await_inbox(self, waiter: InboxWaiter, row: InboxSubscription, cursor: Cursor) -> None:
        """Wake a connection as soon as its agent's inbox has something above the cursor. Raises `Unavailable` at shutdown."""
        self._fabric.tenant(row.tenant_id).readers.inboxes.wait(waiter, row.agent_id, cursor, row.removed_to)

    def leave_inbox(self, waiter: InboxWaiter, agent: AgentPrincipal) -> None:
        """Wake a connection no more. May be repeated."""
        tenant_fabric = self._fabric.peek(agent.tenant_id)
        if tenant_fabric is not None:
            tenant_fabric.readers.inboxes.leave(waiter, agent.agent_id)

    def release(self, feed: Feed) -> None:
        """Remove one delivery of the feed; the last one closes it."""
        feed.users -= 1
        if feed.users == 0:
            feed.opened.set()  # wake the waiters of a feed that will never open
            del self._feeds[feed.tenant_fabric.tenant_id, feed.channel]
            self._closed_counts += _counts_of(feed)
            if feed.reader is not None:
                self._spawn(partial(feed.tenant_fabric.readers.unfollow, feed.reader))

    def take_counts(self) -> list[SentCount]:
        """Return the messages sent to connections since the last call."""
        counts, self._closed_counts = self._closed_counts, []
        for feed in self._feeds.values():
            counts += _counts_of(feed)
        return counts

    async def _open(self, feed: Feed) -> None:
        """Follow the channel, retrying until it succeeds or the feed has no deliveries."""
        while feed.users > 0:
            self._fabric.peek(feed.tenant_fabric.tenant_id)  # marks the tenant as in use, before it has a reader
            try:
                reader = await feed.kind.follow(feed.tenant_fabric, feed.channel, feed)
            except OurFault as exc:
                log.debug("hub.feed_waits", channel=feed.channel, error=repr(exc))
                await asyncio.sleep(RETRY_S)
                continue
            if feed.users == 0:
                await feed.tenant_fabric.readers.unfollow(reader)
            feed.reader = reader
            return

    def _schedule_flush(self, feed: Feed) -> None:
        """Flush the feed's messages as soon as a flush is due, or in one turn if it is due now.

        A large flush takes milliseconds. Messages already in NATS's socket are read in that turn and go with it; otherwise half
        of the messages arriving during a flush would be read after the next one (decision record 23).
        """
        if not self._unflushed:
            now = self._loop.time()
            if now >= self._next_flush:
                self._next_flush = now + FLUSH_S
                self._loop.call_soon(self._loop.call_soon, self._flush)
            else:
                self._loop.call_at(self._next_flush, self._flush)
                self._next_flush += FLUSH_S
        self._unflushed.append(feed)

    def _flush(self) -> None:
        """Send pending messages, one tenant after the other: a connection has channels of one tenant only."""
        unflushed, self._unflushed = self._unflushed, []
        tenants: dict[TenantId, list[Feed]] = {}
        for feed in unflushed:
            tenants.setdefault(feed.tenant_fabric.tenant_id, []).append(feed)
        oldest, deliveries = _oldest_stored(unflushed), dict.fromkeys(tenants, 0)
        for tenant_id, feeds in tenants.items():
            with self.supervisor.contain(tenant=tenant_id):
                deliveries[tenant_id] = self._deliver(feeds)
                continue
            self._close_all(feeds)
        count_flush(deliveries, oldest)

    def _send_traced(self, feeds: list[Feed]) -> int:
        """Send within a span for each feed with traced messages and a receiver. Return what `_send` does.

        A message without a receiver in this flush gets its span from the backlog.
        """
        spans = [
            feed.tracing.start_deliver(feed.pending.messages)
            for feed in feeds
            if feed.tracing is not None and feed.pending.messages and feed.has_receivers
        ]
        try:
            return self._send(feeds)
        finally:
            for span in spans:
                if span is not None:
                    span.end()

    def _send(self, feeds: list[Feed]) -> int:
        """Send a tenant's feeds. Return the number of deliveries: one for each message and connection."""
        caught_up = feeds[0].caught_up.keys()
        if all(feed.is_plain for feed in feeds) and all(feed.caught_up.keys() == caught_up for feed in feeds[1:]):
            return self._send_same(feeds)
        return self._send_each(feeds)

    def _close_all(self, feeds: list[Feed]) -> None:
        """Close every connection of a tenant's feeds after a failed flush, because the position of each is unknown.

        Agents connect again and resume at their cursors.
        """
        for feed in feeds:
            feed.take_pending()
            for peer in [*feed.caught_up, *feed.windowed, *feed.ahead]:
                with self.supervisor.contain(channel=feed.channel):
                    peer.close(Internal())

    def _send_same(self, feeds: list[Feed]) -> int:
        """Send feeds with the same members, such as a single one: each connection of an encoding gets the same bytes."""
        for peer in [each for each in self.with_replies if each in feeds[0].caught_up]:
            peer.write(b"")  # before `take_pending`: this may pause the connection, and then it gets no messages
        taken = [pending for feed in feeds if (pending := feed.take_pending()) is not None]
        members = len(feeds[0].caught_up)
        if taken:
            feeds[0].write(lambda encoding: join_batches([pending.encoded(encoding) for pending in taken]))
        return members * sum([len(pending) for pending in taken])

    def _send_each(self, feeds: list[Feed]) -> int:
        """Send each connection the messages of its own channels. Joined bytes are kept by their batches: most share them."""
        touched: list[Peer] = []
        deliveries = sum([feed.distribute(touched) for feed in feeds])
        joined: dict[tuple[FrameBatch, ...], bytes] = {}
        for peer in touched:
            batches = tuple(peer.out)
            peer.out.clear()
            frames = joined.get(batches)
            if frames is None:
                frames = joined[batches] = join_batches(batches)
            peer.write(frames)
        return deliveries

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start work, safe to repeat, under the supervisor."""
        self._group.create_task(self.supervisor.keep(work))


def _oldest_stored(feeds: list[Feed]) -> StoredMessage | None:
    """Return the first pending message of the first feed with stored ones: the oldest, as feeds come in the order of arrival."""
    return next((feed.pending.messages[0] for feed in feeds if feed.kind.has_log and feed.pending.messages), None)


def _counts_of(feed: Feed) -> list[SentCount]:
    tenant_id = feed.tenant_fabric.tenant_id
    return [SentCount(tenant_id, feed.channel, receiver, messages) for receiver, messages in feed.take_counts().items()]
