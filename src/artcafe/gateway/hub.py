"""The fan-out: one frame, encoded once, to every local socket of a channel that is level with it.

A socket that is not level (it came with a backlog, reads slowly, or owes acknowledgements) is no member here; its connection
feeds it from the log until it is (`gateway.connection`). The cost is the system call, so frames are joined once a channel and
written once a socket (design, decision 6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Final, Protocol

from artcafe.errors import OurFault
from artcafe.fabric.fabric import Fabric, Room
from artcafe.fabric.reader import LiveReader, Reader
from artcafe.fabric.streams import Stored
from artcafe.model import ChannelId, Epoch, Seq, TenantId
from artcafe.observe import log
from artcafe.wire.frames import live_frame, message_frame

FLUSH_S: Final = 0.001
"""The first message goes out at once, then at most one flush a millisecond: at a million deliveries a second to 100
subscribers that takes 0.6 of a core where a flush every turn takes a whole one (design, decision 6)."""

RETRY_S: Final = 0.2


class Socket(Protocol):
    """What the hub needs of a connection. `out` is empty outside a flush; a paused one takes nothing now and is no member."""

    out: list[bytes]
    is_paused: bool

    def write(self, frames: bytes) -> None:
        """Sends encoded frames now."""

    def feed_soon(self) -> None:
        """A delivery of this socket has left the live set: go on from the log."""


class Delivery:
    """One channel on one socket: how far it was sent, and what it owes.

    While `member` is set the feed sends it what comes; else its connection reads the log for it, above `sent`. `rooted` says
    that `sent` is a message of this channel (or its beginning), and not only a place in the tenant's log. `epoch` is that of the
    log its sequences are in, None as long as there is no log.
    """

    __slots__ = ("acked", "epoch", "feed", "max_unacked", "member", "rooted", "sent", "socket", "unacked")

    def __init__(self, socket: Socket, feed: Feed, start: Seq, epoch: Epoch | None, max_unacked: int | None) -> None:
        self.socket, self.feed, self.epoch, self.max_unacked = socket, feed, epoch, max_unacked
        self.sent = self.acked = start
        self.unacked: deque[Seq] = deque()
        """The sequences sent and not acknowledged; kept only under a `max_unacked`."""
        self.member = False
        self.rooted = start == 0

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
        "_hub",
        "ahead",
        "channel",
        "flushed",
        "is_live",
        "level",
        "opened",
        "pending",
        "reader",
        "room",
        "seqs",
        "users",
        "windowed",
    )

    def __init__(self, hub: Hub, room: Room, channel: ChannelId, is_live: bool) -> None:
        self._hub, self.room, self.channel, self.is_live = hub, room, channel, is_live
        self.reader: Reader | LiveReader | None = None
        self.opened = asyncio.Event()
        self.flushed: Seq = 0
        self.pending: list[bytes] = []
        self.seqs: list[Seq] = []
        self.level: dict[Socket, Delivery] = {}
        """Members that get whatever comes."""
        self.windowed: dict[Socket, Delivery] = {}
        """Members that get what comes as long as it fits their `max_unacked`."""
        self.ahead: dict[Socket, Delivery] = {}
        """Members whose cursor is above what this server has seen of the channel, such as those who begin at the end of the
        tenant's log; each becomes one of the others when a message above its cursor comes."""
        self.users = 0
        """Deliveries of this channel, members or not: the feed is kept while there are any."""

    def begin(self, last: Seq) -> None:
        """The reader is open: members will get everything above `last`."""
        self.flushed = last
        self.opened.set()

    def take(self, found: list[Stored]) -> None:
        """New messages of the channel, in order."""
        channel = self.channel.encode()
        if not self.pending:
            self._hub.dirty(self)
        for stored in found:
            frame = (
                live_frame(channel, stored.envelope)
                if self.is_live
                else message_frame(channel, stored.seq, stored.prev, stored.envelope)
            )
            self.pending.append(text_frame(frame))
            self.seqs.append(stored.seq)

    def join(self, delivery: Delivery) -> bool:
        """Makes a delivery a member if the log holds nothing between what it was sent and what members get next."""
        if not self.opened.is_set() or delivery.sent < self.flushed:
            return False
        if delivery.sent > self.flushed:
            self.ahead[delivery.socket] = delivery
        elif delivery.max_unacked is None:
            self.level[delivery.socket] = delivery
        else:
            self.windowed[delivery.socket] = delivery
        delivery.member = True
        return True

    def leave(self, delivery: Delivery) -> None:
        """Takes a member out, noting what it was sent; from here on it is fed from the log."""
        if not delivery.member:
            return
        if delivery.socket not in self.ahead:
            delivery.sent, delivery.rooted = self.flushed, True
        delivery.member = False
        for members in (self.level, self.windowed, self.ahead):
            members.pop(delivery.socket, None)

    def spread(self, touched: list[Socket]) -> None:
        """Puts the pending frames, joined once, into every member's `out`; `touched` gains those whose `out` was empty."""
        frames, seqs = self.pending, self.seqs
        self.pending, self.seqs = [], []
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        for socket in self.level:
            out = socket.out
            if not out:
                touched.append(socket)
            out.append(joined)
        for delivery in list(self.windowed.values()):
            if delivery.owe(seqs):
                _put(delivery.socket, joined, touched)
            else:
                self.leave(delivery)
                delivery.socket.feed_soon()
        self.flushed = seqs[-1]
        for delivery in [each for each in self.ahead.values() if each.sent < self.flushed]:
            self._reached(delivery, frames, seqs, touched)

    def _reached(self, delivery: Delivery, frames: list[bytes], seqs: list[Seq], touched: list[Socket]) -> None:
        """What was ahead gets just the frames above its cursor, and is level then."""
        del self.ahead[delivery.socket]
        delivery.member = False
        first = next(at for at, seq in enumerate(seqs) if seq > delivery.sent)
        if not delivery.owe(seqs[first:]):
            delivery.socket.feed_soon()
            return
        _put(delivery.socket, b"".join(frames[first:]), touched)
        delivery.sent, delivery.rooted = self.flushed, True
        self.join(delivery)


def _put(socket: Socket, frames: bytes, touched: list[Socket]) -> None:
    if not socket.out:
        touched.append(socket)
    socket.out.append(frames)


class Hub:
    """Every feed of this gateway, and the flush that they share. `group` owns the tasks that open and close feeds."""

    def __init__(self, fabric: Fabric, group: asyncio.TaskGroup) -> None:
        self._fabric, self._group = fabric, group
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[tuple[TenantId, ChannelId], Feed] = {}
        self._dirty: list[Feed] = []
        self._next_flush = 0.0

    def feed(self, tenant_id: TenantId, channel: ChannelId, *, is_live: bool = False) -> Feed:
        """The channel's feed, for one more delivery. It opens by itself; `opened` tells when."""
        feed = self._feeds.get((tenant_id, channel))
        if feed is None:
            feed = Feed(self, self._fabric.room(tenant_id), channel, is_live)
            self._feeds[tenant_id, channel] = feed
            self._spawn(self._open(feed))
        feed.users += 1
        return feed

    def let_go(self, feed: Feed) -> None:
        """One delivery less; the last one closes the feed."""
        feed.users -= 1
        if feed.users == 0:
            feed.opened.set()  # nobody is to wait for a feed that does not open any more
            del self._feeds[feed.room.tenant_id, feed.channel]
            if feed.reader is not None:
                self._spawn(feed.room.tail.unfollow(feed.reader))

    async def _open(self, feed: Feed) -> None:
        """Follows the channel, trying until it succeeds or nobody wants it any more."""
        while feed.users > 0:
            self._fabric.peek(feed.room.tenant_id)  # keeps the room, which has no reader yet that would tell that it is in use
            try:
                await feed.room.link.wait_up()
                follow = feed.room.tail.follow_live if feed.is_live else feed.room.tail.follow
                reader = await follow(feed.channel, feed)
            except OurFault as exc:
                log.debug("hub.feed_waits", channel=feed.channel, error=repr(exc))
                await asyncio.sleep(RETRY_S)
                continue
            if feed.users == 0:
                await feed.room.tail.unfollow(reader)
            feed.reader = reader
            return

    def dirty(self, feed: Feed) -> None:
        """The feed has frames to send."""
        if not self._dirty:
            now = self._loop.time()
            if now >= self._next_flush:
                self._next_flush = now + FLUSH_S
                self._loop.call_soon(self._flush)
            else:
                self._loop.call_at(self._next_flush, self._flush)
                self._next_flush += FLUSH_S
        self._dirty.append(feed)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        touched: list[Socket] = []
        for feed in dirty:
            feed.spread(touched)
        for socket in touched:
            out, socket.out = socket.out, []
            socket.write(out[0] if len(out) == 1 else b"".join(out))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        self._group.create_task(work)


def text_frame(payload: bytes) -> bytes:
    """An unmasked WebSocket text frame, as a server sends it (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"%c%c%b" % (0x81, size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)
