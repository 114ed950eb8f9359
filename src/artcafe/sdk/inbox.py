"""Received and acknowledged messages of each channel, over any number of connections: no message is yielded twice.

Frames in, acks out, without I/O. Waiting for a message belongs to `sdk.connection`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from artcafe.sdk.acks import Acked
from artcafe.sdk.messages import Gap, Message, PublishAnswer, Settle, warn_of
from artcafe.wire import frames, receipts, replies

MAX_BUFFERED: Final = 1024
"""Messages buffered for the program before the socket is left unread, when no `max_unacked` makes the server wait."""

MAX_RECENT_IDS: Final = 256
"""Ids kept for each channel, to distinguish a repeat from another message with the same sequence."""

OTHER_LOG: Final = "epoch"
"""The reason of a gap without an end: the log was restored from a backup, or begun anew."""


@dataclass(slots=True)
class ChannelState:
    """The progress of one channel: on this connection, and for the program."""

    received: int = 0
    """Messages up to this sequence were received or will never come; a repeat of them is ignored."""
    newest: int = 0
    """The sequence of the last received message, or the start of the channel."""
    acked: Acked = field(default_factory=Acked)
    """The messages that the program has acknowledged."""
    on_socket: int = 0
    """The last sequence of the current delivery: the server refuses an ack above it."""
    ack_sent: int = 0
    """The highest ack of the current delivery."""
    written: int = 0
    """The highest ack ever sent, also on a connection that broke: if that ack was lost, the server sends its message again."""
    life: int = 0
    """The number of logs and starts so far; a sequence is meaningful within one of them."""
    epoch: str | None = None
    moves: int = 0
    """How often requests have moved the subscription's cursor, as far as the server has reported."""
    resume_from: int | None = None
    """The cursor of a channel that did not begin at its stored cursor: a new connection must subscribe to it explicitly."""
    is_resuming: bool = False
    """Whether that `subscribe` has no reply yet. Until then messages come from the stored cursor, which may be further on, and
    are ignored."""
    is_elsewhere: bool = False
    """Whether the new connection reported another log for the stored cursor. A reply to an explicit start cannot report that."""
    gap: tuple[Gap, str | None] | None = None
    """The newest gap and the epoch of its log. The server repeats it until a later message is acknowledged. The epoch is needed
    because two logs restored from one backup have equal gaps."""
    recent: deque[tuple[int, str]] = field(default_factory=partial(deque, maxlen=MAX_RECENT_IDS))
    """Sequence and id of the newest messages."""
    repeats_from: int | None = None
    """The first sequence that the current delivery has repeated."""
    handle: str | None = None
    """The channel's handle, as far as it is known."""
    waiting: deque[tuple[int, Message | Gap]] = field(default_factory=deque)
    unacked: deque[int] = field(default_factory=deque)

    def has_seen(self, gap: Gap, epoch: str | None) -> bool:
        """Return whether the program got this gap before. Older servers push no epoch; then equal gaps count as the same."""
        return self.gap is not None and self.gap[0] == gap and (None in (epoch, self.gap[1]) or epoch == self.gap[1])

    def arrive(self, seq: int) -> None:
        """Record that the server has sent `seq`.

        Sequences rise within a delivery. When a member resumes the subscription, the server begins another delivery without
        notice: it repeats the messages above its cursor, and their acks are due again.
        """
        self.on_socket = seq
        self.ack_sent = min(self.ack_sent, seq - 1)

    def deliver_after(self, cursor: int) -> None:
        """Record that the server has begun a delivery on this connection: acks count from `cursor`."""
        self.on_socket = self.ack_sent = cursor
        self.repeats_from = None

    def is_repeat(self, seq: int, message_id: str) -> bool:
        """Return whether a sequence received before has the same message again, as far as the kept ids can decide.

        A log whose files were restored assigns its sequences again in the same epoch, and the server cannot know what it sent
        before.
        """
        self.repeats_from = seq if self.repeats_from is None else min(self.repeats_from, seq)
        if not self.recent or seq < self.recent[0][0]:
            return True
        return (seq, message_id) in self.recent or all(seq != known for known, _ in self.recent)

    def add(self, seq: int, message_id: str) -> None:
        """Record a new message."""
        self.received = self.newest = seq
        self.recent.append((seq, message_id))

    def restart(self, cursor: int) -> None:
        """Continue at `cursor` in another log, or at another place of this one: earlier sequences lose their meaning."""
        self.life += 1
        self.received = self.newest = self.written = cursor
        if self.resume_from is not None:
            self.resume_from = cursor
        self.acked.reset(cursor)
        self.deliver_after(cursor)
        self.unacked.clear()
        self.recent.clear()


class Inbox:
    """The states of all channels.

    `max_unacked` is the window that the server was given, or None. `on_ack` is called before an ack is recorded, since `acks` may
    then have something to send. `settle` is called by messages of queues.
    """

    def __init__(self, max_unacked: int | None, on_ack: Callable[[], None] = lambda: None, settle: Settle | None = None) -> None:
        self._max_unacked, self._on_ack, self._settle = max_unacked, on_ack, settle
        self.publish: PublishAnswer | None = None
        """Publishes the answers to messages."""
        self.on_reported: Callable[[Gap], None] = lambda _: None
        """Called with each new gap."""
        self.connections = 0
        """The number of lost connections: the messages of queues that they held were given back."""
        self._held_acks: list[frames.Ack] = []
        """Acks of messages of queues to be sent on this connection."""
        self._channels: dict[str, ChannelState] = {}
        """By id."""
        self._ids: dict[str, str] = {}
        """The ids of channels by the handles in their pushes, and by those that the program uses."""
        self._to_ack: set[str] = set()
        self._arrivals = 0
        self._buffered = 0

    def __len__(self) -> int:
        return self._buffered

    @property
    def is_full(self) -> bool:
        """Whether the socket should be left unread. Never with a window: the server then waits by itself."""
        return self._max_unacked is None and self._buffered >= MAX_BUFFERED

    # --- events of the connection ---

    def on_message(self, pushed: replies.Message) -> None:
        """Buffer a new message; ignore a repeat."""
        state = self._channel(pushed.channel)
        if pushed.channel_handle != state.handle:
            self._learn(pushed.channel, pushed.channel_handle)
        if pushed.seq is None:  # A `live` channel delivers at most once: messages beyond the buffer are dropped.
            if self._buffered < MAX_BUFFERED:
                self._buffer(state, Message(pushed, state.life, 0, self._ack, publish=self.publish))
            return
        if pushed.deliveries is not None:
            self._buffer(state, Message(pushed, self.connections, 0, self._ack_held, self._settle, self.publish))
            return
        if state.is_resuming:
            return
        state.arrive(pushed.seq)
        if pushed.seq <= state.received:
            if state.is_repeat(pushed.seq, pushed.message_id):
                self._to_ack.add(pushed.channel)  # If it was acknowledged, the server has not received that ack.
                return
            self._report(state, Gap(state.handle or pushed.channel, state.repeats_from or pushed.seq, None, OTHER_LOG))
            state.restart(pushed.seq - 1)
            state.arrive(pushed.seq)
        if self._max_unacked is not None:
            state.unacked.append(pushed.seq)
        self._buffer(state, Message(pushed, state.life, state.newest, self._ack, publish=self.publish))
        state.add(pushed.seq, pushed.message_id)

    def on_gap(self, channel: str, pushed: replies.Gap | replies.GapPush, epoch: str | None = None) -> None:
        """Log a new gap, and buffer it for loops that yield gaps. `epoch` names the log if it is another one."""
        state = self._channel(channel)
        if state.is_resuming:
            state.is_elsewhere |= pushed.to is None
            return
        gap = Gap(state.handle or channel, pushed.from_, pushed.to, pushed.reason)
        if state.has_seen(gap, epoch) or (gap.last is not None and gap.last <= state.received):
            return
        state.gap = (gap, epoch)
        if gap.last is None:
            state.restart(0)
        else:
            state.received = gap.last
        self._report(state, gap)

    def on_moved(self, pushed: receipts.MovedPush) -> None:
        """Continue at a cursor that a request has set. Drop the channel's buffered messages: those above it come again."""
        state = self._channel(pushed.channel)
        if pushed.moves <= state.moves:
            return
        state.moves = pushed.moves
        if state.is_resuming:  # The program has chosen another place for this connection.
            return
        state.epoch = pushed.epoch if state.epoch is not None else None
        state.restart(pushed.cursor)
        self._buffered -= len(state.waiting)
        state.waiting.clear()

    def _report(self, state: ChannelState, gap: Gap) -> None:
        warn_of(gap)
        self.on_reported(gap)
        self._buffer(state, gap)

    def on_subscribed(self, channel: str, start: frames.Start, reply: replies.SubscribeReply) -> None:
        """Apply the reply to a `subscribe` of the program: the server has ended the previous delivery and begun another.

        The program may use the channel's id or handle in every call; the reply has the id.
        """
        if reply.channel is not None and channel != reply.channel:
            self._learn(reply.channel, channel)
        state = self._channel(channel)
        state.is_resuming = False
        state.epoch = reply.epoch
        if reply.cursor is None:
            return
        if start == "cursor" and state.resume_from is None:
            state.deliver_after(reply.cursor)
            if reply.gap is not None:
                self.on_gap(channel, reply.gap, _epoch_of_gap(reply))
            return
        state.resume_from = None if start == "cursor" else reply.cursor
        state.restart(reply.cursor)
        self._buffered -= len(state.waiting)
        state.waiting.clear()
        if reply.gap is not None:  # The server pushed it too, but before this reply gave its place.
            self._buffer(state, Gap(state.handle or channel, reply.gap.from_, reply.gap.to, reply.gap.reason))

    def resume_start(self, channel: str) -> frames.Start:
        """Return the start of a `subscribe` that continues the channel where it is.

        The reply goes to `on_subscribed` if the start is the cursor, else to `on_resumed`.
        """
        state = self._channels.get(self._ids.get(channel, channel))
        return "cursor" if state is None or state.resume_from is None else self._resume_after(state) + 1

    def on_resumed(self, channel: str, reply: replies.SubscribeReply) -> bool:
        """Apply the reply to a `subscribe` that continues a channel, on a new connection or for a new loop.

        Return False if the channel's place was in another log: subscribe again, from the first message of this log.
        """
        state = self._channel(channel)
        # A log that began after the channel was subscribed to has an epoch that this client has not received yet.
        is_other = state.is_elsewhere if state.epoch is None else reply.epoch != state.epoch
        state.is_elsewhere = False
        if is_other:
            self._report(state, Gap(state.handle or channel, state.received + 1, None, OTHER_LOG))
            state.restart(0)
            state.epoch = reply.epoch
            return False
        state.is_resuming, state.epoch = False, reply.epoch
        if reply.cursor is not None:
            state.deliver_after(reply.cursor)
        if reply.gap is not None:
            self.on_gap(channel, reply.gap, _epoch_of_gap(reply))
        return True

    def on_resume_refused(self, channel: str) -> None:
        """Apply a refusal to continue a channel: it continues from its stored cursor, if at all."""
        state = self._channel(channel)
        state.is_resuming, state.resume_from = False, None
        if state.is_elsewhere:
            state.is_elsewhere = False
            self._report(state, Gap(state.handle or channel, state.received + 1, None, OTHER_LOG))
            state.restart(0)

    def on_connection_lost(self) -> list[tuple[str, int]]:
        """Return the channels to subscribe to on the next connection, with their starts; `on_resumed` is due for each.

        The other channels continue from their cursors by themselves.
        """
        self._to_ack.clear()
        self._held_acks.clear()
        self.connections += 1
        found: list[tuple[str, int]] = []
        for channel, state in self._channels.items():
            self._drop_held(state)
            state.deliver_after(0)
            if state.resume_from is not None and not state.is_resuming:
                state.is_resuming = True
                found.append((channel, self._resume_after(state) + 1))
        return found

    def _drop_held(self, state: ChannelState) -> None:
        """Drop the buffered messages of a queue: the lost connection held them, so the server delivers them again."""
        kept = deque(each for each in state.waiting if not (isinstance(each[1], Message) and each[1].deliveries is not None))
        self._buffered -= len(state.waiting) - len(kept)
        state.waiting = kept

    def _resume_after(self, state: ChannelState) -> int:
        """Return the sequence after which to resume: unacknowledged messages must be sent again, though the program does not get
        them twice, because a connection can acknowledge only what it was sent.

        A program without a window that has acknowledged nothing counts as one that never acknowledges.
        """
        if self._max_unacked is None and state.acked.through == state.resume_from:
            return state.received
        return state.acked.through

    def _channel(self, channel: str) -> ChannelState:
        """Return the state of the channel with this id, or with this handle if it is known."""
        id = self._ids.get(channel, channel)
        state = self._channels.get(id)
        if state is None:
            state = self._channels[id] = ChannelState()
            if id.startswith(frames.INBOX_PREFIX):  # Of this agent: it gets no other.
                self._ids[frames.INBOX_PREFIX] = id
        return state

    def _learn(self, id: str, handle: str | None) -> None:
        """Record the handle of a channel."""
        self._channel(id).handle = handle
        if handle is not None:
            self._ids[handle] = id

    def is_in(self, message: Message, channels: Collection[str]) -> bool:
        """Return whether a message is in one of these channels, named by id or handle; in any if there are none."""
        return not channels or any(self._ids.get(channel, channel) == message.channel_id for channel in channels)

    def _buffer(self, state: ChannelState, item: Message | Gap) -> None:
        self._arrivals += 1
        self._buffered += 1
        state.waiting.append((self._arrivals, item))

    # --- calls of the program ---

    def take(self, channels: Collection[str] = ()) -> Message | Gap | None:
        """Return the oldest buffered item of these channels, or of all; None if there is none."""
        states = [state for _, state in self._chosen(channels) if state.waiting]
        if not states:
            return None
        self._buffered -= 1
        return min(states, key=lambda state: state.waiting[0][0]).waiting.popleft()[1]

    def stalled(self, channels: Collection[str] = ()) -> tuple[str, int] | None:
        """Return a channel with a full window, of these or of all, and its oldest unacknowledged sequence."""
        for channel, state in self._chosen(channels):
            if len(state.unacked) == self._max_unacked:
                return channel, state.unacked[0]
        return None

    def _chosen(self, channels: Collection[str]) -> Iterable[tuple[str, ChannelState]]:
        if not channels:
            return self._channels.items()
        ids = ((channel, self._ids.get(channel, channel)) for channel in channels)
        return [(channel, self._channels[id]) for channel, id in ids if id in self._channels]

    def _ack(self, message: Message, is_cumulative: bool) -> None:
        self._on_ack()
        state = self._channels[message.channel_id]
        if message.seq is None or message.life != state.life:
            return
        if is_cumulative:
            state.acked.add_all(message.seq)
        else:
            state.acked.add(message.before, message.seq)
        while state.unacked and state.unacked[0] <= state.acked.through:
            state.unacked.popleft()
        self._to_ack.add(message.channel_id)

    def _ack_held(self, message: Message, _is_cumulative: bool) -> None:
        """Acknowledge one message of a queue, unless its connection has ended: it was given back then."""
        self._on_ack()
        if message.life == self.connections and message.seq is not None:
            self._held_acks.append(frames.Ack(message.channel_id, message.seq))

    def has_unsent_acks(self) -> bool:
        """Return whether an ack that may be sent never was."""
        return bool(self._held_acks) or any(state.acked.through > state.written for state in self._channels.values())

    def acks(self, held: Collection[str] = ()) -> list[frames.Ack]:
        """Return the acks to send, at most one for each channel but queues, and count them as sent.

        Channels in `held` have a `subscribe` in flight: the server refuses their acks while it restarts the delivery.
        """
        held = {self._ids.get(channel, channel) for channel in held}
        found, self._held_acks = self._held_acks, []
        for channel in self._to_ack.difference(held):
            state = self._channels[channel]
            seq = min(state.acked.through, state.on_socket)
            if seq > state.ack_sent:
                state.ack_sent = seq
                state.written = max(state.written, seq)
                found.append(frames.Ack(channel, seq))
        self._to_ack.intersection_update(held)
        return found


def _epoch_of_gap(reply: replies.SubscribeReply) -> str | None:
    """Return the epoch with which the server pushes the gap of this reply."""
    return reply.epoch if reply.gap is not None and reply.gap.to is None else None
