"""The fan-out: one frame, encoded once, to every local socket of a channel that is level with it.

A socket that is not level (it came with a backlog, reads slowly, or owes acknowledgements) is no member here, and is fed from the
log until it is (`delivery.backlog`). The cost is the system call, so frames are written once a socket, in the order in which they
came on all its channels, and joined once for all sockets that get the same (design, decision 6; record 23).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

from artcafe.delivery.frame_batch import FrameBatch, join_batches, text_frame, write_to_all
from artcafe.errors import ArtcafeError, Internal, OurFault
from artcafe.fabric.channel_readers import ChannelReader, LiveChannelReader
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import StoredMessage
from artcafe.model import ChannelId, Cursor, Epoch, Seq, TenantId
from artcafe.observe.logs import log
from artcafe.rules.start_position import LogLineage
from artcafe.supervision import Supervisor
from artcafe.wire.envelopes import id_text, live_frame, message_frame

FLUSH_S: Final = 0.001
"""The first message goes out in the next turn, and then there is at most one flush a millisecond: at a million deliveries a
second to 100 subscribers that takes 0.6 of a core where a flush every turn takes a whole one (design, decision 6)."""

RETRY_S: Final = 0.2


class Socket(Protocol):
    """What the hub needs of a connection. `out` is empty outside a flush; a paused one takes nothing now and is no member."""

    out: list[FrameBatch]
    is_paused: bool
    descriptor: int | None
    """Where bytes may be written past the transport, which has none waiting. When that changes, its feeds are to `regroup`."""

    def write(self, frames: bytes | memoryview) -> None:
        """Sends encoded frames now."""

    def feed_soon(self) -> None:
        """A delivery of this socket has left the live set: go on from the log."""

    def close(self, reason: ArtcafeError) -> None:
        """Ends the connection with the reason's close code."""


_NONE: Final[deque[Seq]] = deque(maxlen=0)
"""Of every delivery that keeps none: an empty deque takes 0.8 KB, and an idle agent 15."""


class Delivery:
    """One channel on one socket: how far it was sent, and what it owes.

    While `member` is set the feed sends it what comes; else its connection reads the log for it, above `sent`, which may be a
    place in the tenant's log where no message of this channel is: `anchor` is the newest one of it up to there, 0 where there is
    none, and means something once the delivery is `rooted`. `epoch` is that of the log its sequences are in, None as long as
    there is no log.
    """

    __slots__ = ("acked", "anchor", "epoch", "feed", "max_unacked", "member", "rooted", "sent", "socket", "unacked")

    def __init__(self, socket: Socket, feed: Feed, start: Seq, epoch: Epoch | None, max_unacked: int | None) -> None:
        self.socket, self.feed, self.epoch, self.max_unacked = socket, feed, epoch, max_unacked
        self.sent = self.acked = start
        self.unacked: deque[Seq] = _NONE if max_unacked is None else deque()
        """The sequences sent and not acknowledged; kept only under a `max_unacked`."""
        self.member = self.rooted = False
        self.anchor: Seq = 0

    def stand_on(self, seq: Seq) -> None:
        """Everything up to this message of the channel has been sent."""
        self.sent = self.anchor = seq
        self.rooted = True

    @property
    def sent_up_to(self) -> Seq:
        """The highest sequence that this socket has been sent, or where it began."""
        return max(self.sent, self.feed.flushed) if self.member else self.sent

    def owe(self, seqs: list[Seq]) -> bool:
        """Notes that these are about to be sent; False, with nothing noted, where that is more than it may owe."""
        if self.max_unacked is None:
            return True
        if len(self.unacked) + len(seqs) > self.max_unacked:
            return False
        self.unacked.extend(seqs)
        return True

    def may_be_sent(self) -> int | None:
        """How many more messages fit its window now. None: any number."""
        return None if self.max_unacked is None else self.max_unacked - len(self.unacked)

    def settle(self, seq: Seq) -> None:
        """Everything up to `seq` is acknowledged."""
        self.acked = seq
        while self.unacked and self.unacked[0] <= seq:
            self.unacked.popleft()


class Feed:
    """One channel that sockets of this gateway receive: the sink of its reader.

    `flushed` is the sequence up to which every member has been sent everything; `pending` are the frames since, `seqs` theirs.
    In a `live` channel, of which nothing is stored, every sequence is 0: whoever is here is level, and who is not misses it.
    """

    __slots__ = (
        "_group",
        "_hub",
        "ahead",
        "channel",
        "flushed",
        "is_live",
        "level",
        "life",
        "opened",
        "pending",
        "reader",
        "seqs",
        "tenant_fabric",
        "users",
        "windowed",
    )

    def __init__(self, hub: Hub, tenant_fabric: TenantFabric, channel: ChannelId, is_live: bool) -> None:
        self._hub, self.tenant_fabric, self.channel, self.is_live = hub, tenant_fabric, channel, is_live
        self.reader: ChannelReader | LiveChannelReader | None = None
        self.opened = asyncio.Event()
        self.life = LogLineage(None)
        """Which log the reader reads."""
        self.flushed: Seq = 0
        self.pending = FrameBatch()
        self.seqs: list[Seq] = []
        self._group: tuple[list[Socket], list[int], list[Socket]] | None = None
        """The sockets of `level` that have a descriptor, these, and the other sockets; None when something of it has changed."""
        self.level: dict[Socket, Delivery] = {}
        """Members that get whatever comes."""
        self.windowed: dict[Socket, Delivery] = {}
        """Members that get what comes as long as it fits their `max_unacked`."""
        self.ahead: dict[Socket, Delivery] = {}
        """Members whose cursor is above what this server has seen of the channel, such as those who begin at the end of the
        tenant's log; each becomes one of the others when a message above its cursor comes."""
        self.users = 0
        """Deliveries of this channel, members or not: the feed is kept while there are any."""

    def begin(self, last: Seq, life: LogLineage) -> None:
        """The reader is open: members will get everything above `last`. When this comes again, whoever is one looks in the log
        for what is missing, or finds that there is another log."""
        for delivery in [*self.level.values(), *self.windowed.values(), *self.ahead.values()]:
            self.leave(delivery)
            delivery.socket.feed_soon()
        self.pending, self.seqs = FrameBatch(), []
        self.flushed, self.life = last, life
        self.opened.set()

    def begun(self, life: LogLineage) -> None:
        """The tenant's log has begun."""
        self.life = life

    async def removed_to(self) -> Seq:
        """Up to which sequence the channel's messages are gone, or about to be. Raises `Unavailable`."""
        return self.life.seq_of(await self._hub.removed_to(self.tenant_fabric.tenant_id, self.channel))

    def take(self, found: list[StoredMessage]) -> None:
        """New messages of the channel, in order."""
        channel = id_text(self.channel)
        if not self.seqs:
            self._hub.dirty(self)
        for stored in found:
            frame = (
                live_frame(channel, stored.envelope)
                if self.is_live
                else message_frame(channel, stored.seq, stored.prev, stored.envelope)
            )
            self.pending.frames.append(text_frame(frame))
            self.pending.turns.append(self._hub.turn())
            self.seqs.append(stored.seq)

    def join(self, delivery: Delivery) -> bool:
        """Makes a delivery a member if its socket takes what it is sent, and the log holds nothing between what it was sent and
        what members get next."""
        if not self.opened.is_set() or delivery.socket.is_paused or delivery.sent < self.flushed:
            return False
        if delivery.sent > self.flushed:
            self.ahead[delivery.socket] = delivery
        elif delivery.max_unacked is None:
            self.level[delivery.socket] = delivery
            self.regroup()
        else:
            self.windowed[delivery.socket] = delivery
        delivery.member = True
        return True

    def leave(self, delivery: Delivery) -> None:
        """Takes a member out, noting what it was sent, and of which log; from here on it is fed from the log."""
        if not delivery.member:
            return
        delivery.epoch = delivery.epoch or self.life.epoch  # where it joined before there was one
        if delivery.socket not in self.ahead:
            delivery.stand_on(self.flushed)
        delivery.member = False
        self.regroup()
        for members in (self.level, self.windowed, self.ahead):
            members.pop(delivery.socket, None)

    @property
    def is_plain(self) -> bool:
        """Whether every member gets whatever comes."""
        return not self.windowed and not self.ahead

    def drawn(self) -> FrameBatch:
        """Takes the pending frames, all of which every member is about to be sent. None are there when it began again since."""
        piece, seqs = self.pending, self.seqs
        self.pending, self.seqs = FrameBatch(), []
        self.flushed = seqs[-1] if seqs else self.flushed
        return piece

    def regroup(self) -> None:
        """Who is level has changed, or how one of them is written to."""
        self._group = None

    def write(self, frames: bytes) -> None:
        """Sends every socket in `level` the same: one system call each and nothing else, since each thing that is looked up of
        a thousand sockets misses the cache. None may have replies waiting, which would go between two parts of a short write."""
        if self._group is None:
            known = {socket: descriptor for socket in self.level if (descriptor := socket.descriptor) is not None}
            self._group = list(known), list(known.values()), [socket for socket in self.level if socket not in known]
        direct, descriptors, others = self._group
        for at, taken in write_to_all(descriptors, frames):
            direct[at].write(memoryview(frames)[taken:])  # no copy: they may be many who fall behind at once
        for socket in others:
            socket.write(frames)

    def spread(self, touched: list[Socket]) -> None:
        """Puts the pending frames into every member's `out`; `touched` gains those whose `out` was empty."""
        piece, seqs = self.pending, self.seqs
        if not seqs:
            return  # it began again since it had frames to send
        self.pending, self.seqs = FrameBatch(), []
        for socket in self.level:
            out = socket.out
            if not out:
                touched.append(socket)
            out.append(piece)
        for delivery in list(self.windowed.values()):
            if delivery.owe(seqs):
                _put(delivery.socket, piece, touched)
            else:
                self.leave(delivery)
                delivery.socket.feed_soon()
        self.flushed = seqs[-1]
        for delivery in [each for each in self.ahead.values() if each.sent < self.flushed]:
            self._reached(delivery, piece, seqs, touched)

    def _reached(self, delivery: Delivery, piece: FrameBatch, seqs: list[Seq], touched: list[Socket]) -> None:
        """What was ahead gets just the frames above its cursor, and is level then."""
        del self.ahead[delivery.socket]
        delivery.member = False
        first = next(at for at, seq in enumerate(seqs) if seq > delivery.sent)
        if not delivery.owe(seqs[first:]):
            delivery.socket.feed_soon()
            return
        _put(delivery.socket, piece.since(first), touched)
        delivery.stand_on(self.flushed)
        self.join(delivery)


def _put(socket: Socket, piece: FrameBatch, touched: list[Socket]) -> None:
    if not socket.out:
        touched.append(socket)
    socket.out.append(piece)


RemovedTo = Callable[[TenantId, ChannelId], Awaitable[Cursor]]
"""How far a channel's messages are gone, read anew: what it says holds for everything that was read of the log before."""


class Hub:
    """Every feed of this gateway, and the flush that they share. `group` owns the tasks that open and close feeds."""

    def __init__(self, fabric: Fabric, group: asyncio.TaskGroup, removed_to: RemovedTo) -> None:
        self._fabric, self._group, self.removed_to = fabric, group, removed_to
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[tuple[TenantId, ChannelId], Feed] = {}
        self._dirty: list[Feed] = []
        self._next_flush = 0.0
        self.supervisor = Supervisor("hub")
        self.talking: set[Socket] = set()
        """Sockets with replies that wait for the end of the loop turn; what they answer comes before what it set off."""
        self.turn: Callable[[], int] = itertools.count().__next__
        """Numbers frames as they come, over all channels."""

    def feed(self, tenant_id: TenantId, channel: ChannelId, *, is_live: bool = False) -> Feed:
        """The channel's feed, for one more delivery. It opens by itself; `opened` tells when."""
        feed = self._feeds.get((tenant_id, channel))
        if feed is None:
            feed = Feed(self, self._fabric.tenant(tenant_id), channel, is_live)
            self._feeds[tenant_id, channel] = feed
            self._spawn(partial(self._open, feed))
        feed.users += 1
        return feed

    def let_go(self, feed: Feed) -> None:
        """One delivery less; the last one closes the feed."""
        feed.users -= 1
        if feed.users == 0:
            feed.opened.set()  # nobody is to wait for a feed that does not open any more
            del self._feeds[feed.tenant_fabric.tenant_id, feed.channel]
            if feed.reader is not None:
                self._spawn(partial(feed.tenant_fabric.readers.unfollow, feed.reader))

    async def _open(self, feed: Feed) -> None:
        """Follows the channel, trying until it succeeds or nobody wants it any more."""
        while feed.users > 0:
            # Keeps the tenant's fabric open: it has no reader yet that would count as use.
            self._fabric.peek(feed.tenant_fabric.tenant_id)
            try:
                await feed.tenant_fabric.connection.wait_up()
                follow = feed.tenant_fabric.readers.follow_live if feed.is_live else feed.tenant_fabric.readers.follow
                reader = await follow(feed.channel, feed)
            except OurFault as exc:
                log.debug("hub.feed_waits", channel=feed.channel, error=repr(exc))
                await asyncio.sleep(RETRY_S)
                continue
            if feed.users == 0:
                await feed.tenant_fabric.readers.unfollow(reader)
            feed.reader = reader
            return

    def dirty(self, feed: Feed) -> None:
        """The feed has frames to send. Where a flush is due, they go a turn later, so that what is there to be read then goes
        with them: a large flush takes milliseconds, and half of what came meanwhile is to be read behind it (record 23)."""
        if not self._dirty:
            now = self._loop.time()
            if now >= self._next_flush:
                self._next_flush = now + FLUSH_S
                self._loop.call_soon(self._loop.call_soon, self._flush)
            else:
                self._loop.call_at(self._next_flush, self._flush)
                self._next_flush += FLUSH_S
        self._dirty.append(feed)

    def _flush(self) -> None:
        """Sends what is pending, tenant by tenant, since no socket has channels of two."""
        dirty, self._dirty = self._dirty, []
        tenants: dict[TenantId, list[Feed]] = {}
        for feed in dirty:
            tenants.setdefault(feed.tenant_fabric.tenant_id, []).append(feed)
        for tenant_id, feeds in tenants.items():
            with self.supervisor.contain(tenant=tenant_id):
                self._send(feeds)
                continue
            self._give_up(feeds)

    def _send(self, feeds: list[Feed]) -> None:
        level = feeds[0].level.keys()
        if all(feed.is_plain for feed in feeds) and all(feed.level.keys() == level for feed in feeds[1:]):
            self._send_alike(feeds)
        else:
            self._send_each(feeds)

    def _give_up(self, feeds: list[Feed]) -> None:
        """Close every socket of a tenant's feeds after a flush that failed: what each was sent is unknown. When their agents
        connect again, they go on from their cursors."""
        for feed in feeds:
            feed.drawn()
            for socket in [*feed.level, *feed.windowed, *feed.ahead]:
                with self.supervisor.contain(channel=feed.channel):
                    socket.close(Internal())

    def _send_alike(self, feeds: list[Feed]) -> None:
        """The feeds have the same members, as one alone has."""
        for socket in [each for each in self.talking if each in feeds[0].level]:
            socket.write(b"")  # first: with that it may leave all of them, and must not be taken for one that was sent the frames
        if frames := join_batches([feed.drawn() for feed in feeds]):
            feeds[0].write(frames)

    def _send_each(self, feeds: list[Feed]) -> None:
        """Each socket gets a choice of the channels. Most get what others get, so what is joined is kept by its pieces."""
        touched: list[Socket] = []
        for feed in feeds:
            feed.spread(touched)
        known: dict[tuple[FrameBatch, ...], bytes] = {}
        for socket in touched:
            pieces = tuple(socket.out)
            socket.out.clear()
            frames = known.get(pieces)
            if frames is None:
                frames = known[pieces] = join_batches(pieces)
            socket.write(frames)

    def _spawn(self, work: Callable[[], Awaitable[None]]) -> None:
        """Start work that may be repeated."""
        self._group.create_task(self.supervisor.keep(work))
