"""What has arrived and what is acknowledged, a channel at a time, over any number of connections: nothing surfaces twice.

Frames in and acknowledgements out, without I/O. Waiting for a message is `sdk.agent`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from artcafe.sdk.acks import Acked
from artcafe.sdk.messages import Gap, Message, warn_of
from artcafe.wire import frames, replies

ROOM: Final = 1024
"""Messages held for the program before the socket is left unread, where no `max_unacked` makes the server wait."""

KNOWN: Final = 256
"""Messages of a channel whose ids are kept, to tell a repeat from another message under the same sequence."""

ANOTHER_LOG: Final = "epoch"
"""The server's word for a gap whose end nobody knows: the log was restored, or begun anew."""


@dataclass(slots=True)
class ChannelState:
    """How far one channel has come: on this socket, and as the program sees it."""

    received: int = 0
    """Everything up to here has been taken in, or will not come: what repeats it is passed over."""
    newest: int = 0
    """The last message that was taken in, or where the channel began."""
    acked: Acked = field(default_factory=Acked)
    """What the program has acknowledged."""
    on_socket: int = 0
    """Up to where the current delivery has sent: the server refuses an ack above it."""
    ack_sent: int = 0
    """The highest ack of the current delivery."""
    written: int = 0
    """The highest ack that was ever sent, also on a connection that broke then: if it got lost, its message comes again."""
    life: int = 0
    epoch: str | None = None
    steered_to: int | None = None
    """Behind which sequence it began, where that was not its cursor: a new connection has to be told where to go on."""
    is_resuming: bool = False
    """It has not been told yet: what comes until then is from the cursor, which may be further on, and is passed over."""
    is_elsewhere: bool = False
    """The new connection said of the cursor that its log is another one; told of that place alone, it could not."""
    gap: tuple[Gap, str | None] | None = None
    """The newest one, and in which log it is told: again and again, until something behind it is acknowledged. Two logs may be
    restored from one backup, and their gaps are alike."""
    recent: deque[tuple[int, str]] = field(default_factory=partial(deque, maxlen=KNOWN))
    """The newest messages that were taken in, by sequence and id."""
    repeats_from: int | None = None
    """The first sequence that the current delivery has repeated."""
    waiting: deque[tuple[int, Message | Gap]] = field(default_factory=deque)
    unacked: deque[int] = field(default_factory=deque)

    def knows(self, gap: Gap, epoch: str | None) -> bool:
        """Whether the program was told of this gap. Without an epoch, as older servers push it, an equal gap is the same."""
        return self.gap is not None and self.gap[0] == gap and (None in (epoch, self.gap[1]) or epoch == self.gap[1])

    def arrive(self, seq: int) -> None:
        """Note that the server has sent `seq`.

        Within a delivery sequences rise. The server begins another one without notice when a member resumes the subscription;
        it then repeats what is above its cursor, and the acks of those messages are due again.
        """
        self.on_socket = seq
        self.ack_sent = min(self.ack_sent, seq - 1)

    def deliver_behind(self, cursor: int) -> None:
        """Note that the server has begun a delivery on this connection: acks count from `cursor`."""
        self.on_socket = self.ack_sent = cursor
        self.repeats_from = None

    def is_repeat(self, seq: int, message_id: str) -> bool:
        """Whether a sequence that was received before comes with the same message, as far as that is known.

        A log whose files were put back gives its sequences again in the same epoch, and the server cannot know what was sent.
        """
        self.repeats_from = seq if self.repeats_from is None else min(self.repeats_from, seq)
        if not self.recent or seq < self.recent[0][0]:
            return True
        return (seq, message_id) in self.recent or all(seq != known for known, _ in self.recent)

    def take_in(self, seq: int, message_id: str) -> None:
        """Note a new message."""
        self.received = self.newest = seq
        self.recent.append((seq, message_id))

    def begin(self, cursor: int) -> None:
        """Begin in another log, or at another place in this one: no sequence seen so far has a meaning now."""
        self.life += 1
        self.received = self.newest = self.written = cursor
        if self.steered_to is not None:
            self.steered_to = cursor
        self.acked.reset(cursor)
        self.deliver_behind(cursor)
        self.unacked.clear()
        self.recent.clear()


class Inbox:
    """Every channel that was heard of. `max_unacked` is the window that the server was given, or None; `on_ack` is called before
    an ack is noted: `acks` may have something to send then."""

    def __init__(self, max_unacked: int | None, on_ack: Callable[[], None] = lambda: None) -> None:
        self._max_unacked, self._on_ack = max_unacked, on_ack
        self._places: dict[str, ChannelState] = {}
        self._to_ack: set[str] = set()
        self._arrivals = 0
        self._held = 0

    def __len__(self) -> int:
        return self._held

    @property
    def is_full(self) -> bool:
        """Whether the socket should be left unread. With a window it never is: the server waits by itself."""
        return self._max_unacked is None and self._held >= ROOM

    # --- from the server ---

    def message(self, pushed: replies.Message) -> None:
        """A message arrived."""
        place = self._place(pushed.channel)
        if pushed.seq is None:  # of a live channel: at most once, so what the program does not keep up with is left out
            if self._held < ROOM:
                self._keep(place, Message(pushed, place.life, 0, self._ack))
            return
        if place.is_resuming:
            return
        place.arrive(pushed.seq)
        if pushed.seq <= place.received:
            if place.is_repeat(pushed.seq, pushed.message_id):
                self._to_ack.add(pushed.channel)  # If it was acknowledged, the server has not heard of that yet.
                return
            self._miss(place, Gap(pushed.channel, place.repeats_from or pushed.seq, None, ANOTHER_LOG))
            place.begin(pushed.seq - 1)
            place.arrive(pushed.seq)
        if self._max_unacked is not None:
            place.unacked.append(pushed.seq)
        self._keep(place, Message(pushed, place.life, place.newest, self._ack))
        place.take_in(pushed.seq, pushed.message_id)

    def gap(self, channel: str, pushed: replies.Gap | replies.GapPush, epoch: str | None = None) -> None:
        """A gap arrived; `epoch` is that of the log it is told in, if it is about another. It is kept for whoever asks for gaps,
        and logged for everybody else."""
        place = self._place(channel)
        if place.is_resuming:
            place.is_elsewhere |= pushed.to is None
            return
        gap = Gap(channel, pushed.from_, pushed.to, pushed.reason)
        if place.knows(gap, epoch) or (gap.last is not None and gap.last <= place.received):
            return
        place.gap = (gap, epoch)
        if gap.last is None:
            place.begin(0)
        else:
            place.received = gap.last
        self._miss(place, gap)

    def _miss(self, place: ChannelState, gap: Gap) -> None:
        warn_of(gap)
        self._keep(place, gap)

    def joined(self, channel: str, start: frames.Start, reply: replies.SubscribeReply) -> None:
        """A `subscribe` of the program was answered: the server has ended the delivery before it and begun another one."""
        place = self._place(channel)
        place.is_resuming = False
        place.epoch = reply.epoch
        if reply.cursor is None:
            return
        if start == "cursor" and place.steered_to is None:
            place.deliver_behind(reply.cursor)
            if reply.gap is not None:
                self.gap(channel, reply.gap, _other_log(reply))
            return
        place.steered_to = None if start == "cursor" else reply.cursor
        place.begin(reply.cursor)
        self._held -= len(place.waiting)
        place.waiting.clear()
        if reply.gap is not None:  # It was pushed too, before the place that it stands at was known.
            self._keep(place, Gap(channel, reply.gap.from_, reply.gap.to, reply.gap.reason))

    def start_again(self, channel: str) -> frames.Start:
        """Return where to subscribe so that the channel goes on where it stands. The reply goes to `joined` where that is the
        cursor, else to `resumed`."""
        place = self._places.get(channel)
        return "cursor" if place is None or place.steered_to is None else self._resume_behind(place) + 1

    def resumed(self, channel: str, reply: replies.SubscribeReply) -> bool:
        """The channel goes on where it stood, on a new connection or by a new loop. False: that was in another log, and the
        channel is to be asked for again, from this log's first message."""
        place = self._place(channel)
        # A log that began after the channel was asked for has an epoch that this end never heard of.
        is_other = place.is_elsewhere if place.epoch is None else reply.epoch != place.epoch
        place.is_elsewhere = False
        if is_other:
            self._miss(place, Gap(channel, place.received + 1, None, ANOTHER_LOG))
            place.begin(0)
            place.epoch = reply.epoch
            return False
        place.is_resuming, place.epoch = False, reply.epoch
        if reply.cursor is not None:
            place.deliver_behind(reply.cursor)
        if reply.gap is not None:
            self.gap(channel, reply.gap, _other_log(reply))
        return True

    def not_resumed(self, channel: str) -> None:
        """The server does not let the channel go on where it stood: from here on it goes on from its cursor, if at all."""
        place = self._place(channel)
        place.is_resuming, place.steered_to = False, None
        if place.is_elsewhere:
            place.is_elsewhere = False
            self._miss(place, Gap(channel, place.received + 1, None, ANOTHER_LOG))
            place.begin(0)

    def lost(self) -> list[tuple[str, int]]:
        """The connection is gone. Returns the channels that the next one must be told to go on with, and from which sequence;
        the others go on from their cursors by themselves. `resumed` is due for each."""
        self._to_ack.clear()
        found: list[tuple[str, int]] = []
        for channel, place in self._places.items():
            place.deliver_behind(0)
            if place.steered_to is not None and not place.is_resuming:
                place.is_resuming = True
                found.append((channel, self._resume_behind(place) + 1))
        return found

    def _resume_behind(self, place: ChannelState) -> int:
        """What was not acknowledged must come again, though it does not surface: a socket acknowledges only what it was sent.

        A program without a window that has acknowledged nothing is taken for one that never does.
        """
        if self._max_unacked is None and place.acked.through == place.steered_to:
            return place.received
        return place.acked.through

    def _place(self, channel: str) -> ChannelState:
        place = self._places.get(channel)
        if place is None:
            place = self._places[channel] = ChannelState()
        return place

    def _keep(self, place: ChannelState, item: Message | Gap) -> None:
        self._arrivals += 1
        self._held += 1
        place.waiting.append((self._arrivals, item))

    # --- for the program ---

    def take(self, channels: Collection[str] = ()) -> Message | Gap | None:
        """The oldest of what waits, of these channels or of all; None where nothing does."""
        places = [place for _, place in self._chosen(channels) if place.waiting]
        if not places:
            return None
        self._held -= 1
        return min(places, key=lambda place: place.waiting[0][0]).waiting.popleft()[1]

    def stalled(self, channels: Collection[str] = ()) -> tuple[str, int] | None:
        """A channel of these, or of all, in which the server waits for acks, and the oldest message that lacks one."""
        for channel, place in self._chosen(channels):
            if len(place.unacked) == self._max_unacked:
                return channel, place.unacked[0]
        return None

    def _chosen(self, channels: Collection[str]) -> Iterable[tuple[str, ChannelState]]:
        if not channels:
            return self._places.items()
        return [(channel, self._places[channel]) for channel in channels if channel in self._places]

    def _ack(self, message: Message, is_cumulative: bool) -> None:
        self._on_ack()
        place = self._places[message.channel]
        if message.seq is None or message.life != place.life:
            return
        if is_cumulative:
            place.acked.add_all(message.seq)
        else:
            place.acked.add(message.before, message.seq)
        while place.unacked and place.unacked[0] <= place.acked.through:
            place.unacked.popleft()
        self._to_ack.add(message.channel)

    def has_unsent_acks(self) -> bool:
        """Whether an ack that may be sent has never been."""
        return any(place.acked.through > place.written for place in self._places.values())

    def acks(self, held: Collection[str] = ()) -> list[bytes]:
        """Return the ack frames to send, at most one for each channel; they count as sent.

        Channels in `held` have a `subscribe` on its way, and the server refuses acks while it restarts their delivery.
        """
        found = []
        for channel in self._to_ack.difference(held):
            place = self._places[channel]
            seq = min(place.acked.through, place.on_socket)
            if seq > place.ack_sent:
                place.ack_sent = seq
                place.written = max(place.written, seq)
                found.append(frames.command("ack", frames.Ack(channel, seq)))
        self._to_ack.intersection_update(held)
        return found


def _other_log(reply: replies.SubscribeReply) -> str | None:
    """The epoch that the gap in this answer is pushed with."""
    return reply.epoch if reply.gap is not None and reply.gap.to is None else None
