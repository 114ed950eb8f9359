"""One channel's live feed: its members, and the messages of the next flush."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from artcafe.delivery.channel_tracing import ChannelTracing
from artcafe.delivery.expiry import EXPIRED, is_expired
from artcafe.delivery.feed_member import FeedMember
from artcafe.delivery.frame_batch import FrameBatch, write_to_all
from artcafe.delivery.peer import Encoding, Peer
from artcafe.fabric.channel_kinds import ChannelKind
from artcafe.fabric.channel_readers import ChannelReader, LiveChannelReader
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Cursor, Seq, TenantId
from artcafe.observe.clock import Clock
from artcafe.rules.start_position import LogLineage
from artcafe.wire.envelopes import EXPIRING
from artcafe.wire.replies import Gap

RemovedTo = Callable[[TenantId, ChannelId], Awaitable[Cursor]]
"""Read the cursor of a channel's last removed message. It is valid for every earlier read of the log."""


class PendingMessages:
    """Messages of one channel since the last flush. A flush encodes them once per encoding."""

    __slots__ = ("_batches", "_feed", "arrivals", "expired", "messages")

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.messages: list[StoredMessage] = []
        self.arrivals: list[int] = []
        """The number of each message in the order of arrival over all channels."""
        self._batches: dict[Encoding, FrameBatch] = {}
        self.expired: set[Seq] | None = None
        """The sequences of expired messages, if there are any: a gap is sent in place of each."""

    def __len__(self) -> int:
        """Return the number of messages to deliver."""
        return len(self.messages) - (0 if self.expired is None else len(self.expired))

    def mark_expired(self, message: StoredMessage) -> None:
        """Send a gap in place of this message."""
        self.expired = self.expired or set()
        self.expired.add(message.seq)

    def seqs(self, first: int = 0) -> list[Seq]:
        """Return the sequences of the messages to deliver, from index `first` on."""
        found = [message.seq for message in self.messages[first:]]
        return found if self.expired is None else [seq for seq in found if seq not in self.expired]

    def encoded(self, encoding: Encoding) -> FrameBatch:
        """Return the batch in this encoding."""
        batch = self._batches.get(encoding)
        if batch is None:
            feed = self._feed
            epoch = feed.lineage.epoch
            frames = encoding.messages(feed.channel, feed.handle, feed.kind, epoch, self.messages)
            if self.expired is not None:
                frames = [
                    encoding.gap(feed.channel, Gap(one.seq, one.seq, EXPIRED), epoch) if one.seq in self.expired else frame
                    for one, frame in zip(self.messages, frames, strict=True)
                ]
            batch = self._batches[encoding] = FrameBatch(frames, self.arrivals)
        return batch


class _WriteGroup:
    """Caught-up connections of one encoding: `direct` ones with `descriptors`, and `others`, written to by their transport."""

    __slots__ = ("descriptors", "direct", "others")

    def __init__(self) -> None:
        self.direct: list[Peer] = []
        self.descriptors: list[int] = []
        self.others: list[Peer] = []


class Feed:
    """One channel with subscribers on this server: the sink of its reader, and the source of its members.

    Every member has been sent everything up to `flushed`; `pending` came since. Messages of a channel without a log all have
    sequence 0: every member is caught up, and a closed connection misses them.
    """

    __slots__ = (
        "_groups",
        "_next_arrival",
        "_removed_to",
        "_schedule_flush",
        "ahead",
        "caught_up",
        "channel",
        "clock",
        "counts",
        "flushed",
        "handle",
        "kind",
        "lineage",
        "opened",
        "pending",
        "reader",
        "sent_to_all",
        "tenant_fabric",
        "tracing",
        "users",
        "wakers",
        "windowed",
    )

    def __init__(
        self,
        tenant_fabric: TenantFabric,
        channel: ChannelId,
        kind: ChannelKind,
        schedule_flush: Callable[[Feed], None],
        next_arrival: Callable[[], int],
        removed_to: RemovedTo,
        clock: Clock,
        tracing: ChannelTracing | None = None,
    ) -> None:
        """`schedule_flush` is called when the first message is pending; `next_arrival` numbers messages over all channels."""
        self.clock, self.tracing = clock, tracing
        self.tenant_fabric, self.channel, self.kind = tenant_fabric, channel, kind
        self.handle: str | None = None
        """The channel's handle, for its pushes."""
        self._schedule_flush, self._next_arrival, self._removed_to = schedule_flush, next_arrival, removed_to
        self.reader: ChannelReader | LiveChannelReader | None = None
        self.opened = asyncio.Event()
        self.lineage = LogLineage(None)
        """The lineage of the reader's log."""
        self.flushed: Seq = 0
        self.pending = PendingMessages(self)
        self._groups: dict[Encoding, _WriteGroup] | None = None
        """The write groups of `caught_up`, or None after a change of a member or a descriptor."""
        self.caught_up: dict[Peer, FeedMember] = {}
        """Members without a window: each gets every message."""
        self.windowed: dict[Peer, FeedMember] = {}
        """Members with a `max_unacked`: each gets messages as long as they fit its window."""
        self.ahead: dict[Peer, FeedMember] = {}
        """Members with a position above the channel's messages seen by this server, such as the end of the tenant's log. A
        message above its position moves a member to one of the other two."""
        self.sent_to_all = 0
        """Messages sent to every member of `caught_up` since the last `take_counts`: one addition for a flush to a thousand
        members. `join` subtracts it from a member's own `count`, and `leave` adds it again."""
        self.counts: dict[str, int] = {}
        """By receiver: messages sent since the last `take_counts`, except those in `sent_to_all` and in `count` of members."""
        self.users = 0
        """Deliveries of this channel, members or not, and wakers. The hub closes the feed without any."""
        self.wakers: set[Callable[[], None]] = set()
        """Called at each new message, and when the feed begins again: of pulls that wait. They read the log themselves."""

    @property
    def seen(self) -> Seq:
        """The newest message of the channel known to this server; 0 if there is none."""
        return self.pending.messages[-1].seq if self.pending.messages else self.flushed

    def begin(self, last: Seq, lineage: LogLineage) -> None:
        """Start the feed above `last`, because the reader has opened or opened again.

        Earlier members are removed: the backlog reads the messages in between, or finds another log.
        """
        for member in [*self.caught_up.values(), *self.windowed.values(), *self.ahead.values()]:
            self.leave(member)
            member.peer.feed_soon()
        self.pending = PendingMessages(self)
        self.flushed, self.lineage = last, lineage
        if self.tracing is not None:
            self.tracing.forget()
        self.opened.set()
        self._wake()

    def record_first_epoch(self, lineage: LogLineage) -> None:
        """Record the epoch of the tenant's log at its first message."""
        self.lineage = lineage

    async def removed_to(self) -> Seq:
        """Return the sequence of the channel's last message removed, or about to be. Raises `Unavailable`."""
        return self.lineage.to_seq(await self._removed_to(self.tenant_fabric.tenant_id, self.channel))

    def take(self, found: list[StoredMessage]) -> None:
        """Add new messages of the channel, in order."""
        pending = self.pending
        if not pending.messages:
            self._schedule_flush(self)
        pending.messages += found
        next_arrival = self._next_arrival
        for one in found:
            pending.arrivals.append(next_arrival())
            if one.envelope.startswith(EXPIRING) and is_expired(one.envelope, self.clock()):
                pending.mark_expired(one)
        if self.wakers:
            self._wake()

    def _wake(self) -> None:
        for wake in self.wakers:
            wake()

    def join(self, member: FeedMember) -> bool:
        """Add a member, and return whether it was possible.

        It must have been sent everything before the next flush, and its connection must not be paused.
        """
        if not self.opened.is_set() or member.peer.is_paused or member.sent < self.flushed:
            return False
        if member.sent > self.flushed:
            self.ahead[member.peer] = member
        elif member.max_unacked is None:
            self.caught_up[member.peer] = member
            member.count -= self.sent_to_all
            self.regroup()
        else:
            self.windowed[member.peer] = member
        member.is_member = True
        return True

    def leave(self, member: FeedMember) -> None:
        """Remove a member, recording its position and the log's epoch. The backlog feeds it from here on."""
        if not member.is_member:
            return
        if member.peer in self.caught_up:
            member.count += self.sent_to_all
        self.add_count(member.receiver, member.count)
        member.count = 0
        member.epoch = member.epoch or self.lineage.epoch  # it may have joined before the log's first message
        if member.peer not in self.ahead:
            member.advance_to(self.flushed)
        member.is_member = False
        self.regroup()
        for members in (self.caught_up, self.windowed, self.ahead):
            members.pop(member.peer, None)

    @property
    def is_plain(self) -> bool:
        """Whether every member gets every message."""
        return not self.windowed and not self.ahead

    @property
    def has_receivers(self) -> bool:
        """Whether a member gets pending messages in the next flush: others wait for an ack, or are in the backlog."""
        pending = self.pending
        return (
            bool(self.caught_up)
            or any(member.has_room_for(len(pending)) for member in self.windowed.values())
            or any(member.sent < pending.messages[-1].seq for member in self.ahead.values())
        )

    def take_pending(self) -> PendingMessages | None:
        """Return and clear the pending messages, to be sent to every member. None if the feed has begun again."""
        taken = self.pending
        if not taken.messages:
            return None
        self.pending = PendingMessages(self)
        self.flushed = taken.messages[-1].seq
        self.sent_to_all += len(taken)
        return taken

    # --- usage -------------------------------------------------------------------------------------------------------

    def add_count(self, receiver: str, messages: int) -> None:
        """Count messages sent to a connection of this principal."""
        if messages:
            self.counts[receiver] = self.counts.get(receiver, 0) + messages

    def take_counts(self) -> dict[str, int]:
        """Return the messages sent since the last call, by receiver: one for each message and connection."""
        if self.sent_to_all:  # else there was no flush, and no member has a count
            for member in self.caught_up.values():
                self.add_count(member.receiver, member.count + self.sent_to_all)
                member.count = 0
            for member in self.windowed.values():
                self.add_count(member.receiver, member.count)
                member.count = 0
            self.sent_to_all = 0
        counts, self.counts = self.counts, {}
        return counts

    # --- flushes -----------------------------------------------------------------------------------------------------

    def regroup(self) -> None:
        """Invalidate the write groups: a member, or the descriptor of one, has changed."""
        self._groups = None

    def _write_groups(self) -> dict[Encoding, _WriteGroup]:
        if self._groups is None:
            self._groups = {}
            for peer in self.caught_up:
                group = self._groups.get(peer.encoding) or self._groups.setdefault(peer.encoding, _WriteGroup())
                descriptor = peer.descriptor
                if descriptor is None:
                    group.others.append(peer)
                else:
                    group.direct.append(peer)
                    group.descriptors.append(descriptor)
        return self._groups

    def write(self, join: Callable[[Encoding], bytes]) -> None:
        """Write the same bytes to every caught-up member of an encoding, one system call each. `join` returns these bytes.

        Nothing else is looked up per connection, since each lookup for a thousand connections misses the CPU cache. No connection
        may have replies waiting: they would go between two parts of a short write.
        """
        for encoding, group in self._write_groups().items():
            frames, direct = join(encoding), group.direct
            for at, size in write_to_all(group.descriptors, frames):
                direct[at].write(memoryview(frames)[size:])  # no copy: many may be slow at once
            for peer in group.others:
                peer.write(frames)

    def distribute(self, touched: list[Peer]) -> int:
        """Put the pending messages into each member's `out`. Append peers with an empty `out` to `touched`.

        Return the number of deliveries: one for each message and member.
        """
        pending = self.pending
        if not pending.messages:
            return 0  # the feed has begun again since the flush was scheduled
        self.pending = PendingMessages(self)
        encoding: Encoding | None = None
        batch: FrameBatch | None = None
        deliveries = len(self.caught_up) * len(pending)
        for peer in self.caught_up:
            if batch is None or peer.encoding is not encoding:
                encoding = peer.encoding
                batch = pending.encoded(encoding)
            out = peer.out
            if not out:
                touched.append(peer)
            out.append(batch)
        seqs = pending.seqs()
        self.sent_to_all += len(seqs)
        for member in list(self.windowed.values()):
            if member.track(seqs):
                member.count += len(seqs)
                _put(member.peer, pending.encoded(member.peer.encoding), touched)
                deliveries += len(seqs)
            else:
                self.leave(member)
                member.peer.feed_soon()
        self.flushed = pending.messages[-1].seq
        for member in [each for each in self.ahead.values() if each.sent < self.flushed]:
            deliveries += self._catch_up(member, pending, touched)
        return deliveries

    def _catch_up(self, member: FeedMember, pending: PendingMessages, touched: list[Peer]) -> int:
        """Send a member in `ahead` the messages above its position, and move it to the caught-up or windowed members.

        Return the number of these messages.
        """
        del self.ahead[member.peer]
        member.is_member = False
        first = next(at for at, message in enumerate(pending.messages) if message.seq > member.sent)
        seqs = pending.seqs(first)
        if not member.track(seqs):
            member.peer.feed_soon()
            return 0
        _put(member.peer, pending.encoded(member.peer.encoding).since(first), touched)
        self.add_count(member.receiver, len(seqs))
        member.advance_to(self.flushed)
        self.join(member)
        return len(seqs)


def _put(peer: Peer, batch: FrameBatch, touched: list[Peer]) -> None:
    if not peer.out:
        touched.append(peer)
    peer.out.append(batch)
