"""One connection in one channel: its position, and the messages waiting for acks."""

from __future__ import annotations

from collections import deque
from typing import Final

from artcafe.delivery.peer import Peer
from artcafe.model import Epoch, Seq

_NO_SEQS: Final[deque[Seq]] = deque(maxlen=0)
"""Shared by deliveries without a window: an empty deque costs 0.8 KB, and an idle agent 15."""


class FeedMember:
    """One connection in one channel: its position, `sent`, and its window. `delivery.Delivery` adds the channel's feed.

    While `is_member` is set, the feed sends it new messages. Otherwise `delivery.backlog` reads the log for it, above `sent`. The
    position may be a sequence of another channel; `anchor` is the channel's newest message up to it, or 0 without one, and is
    valid once `has_anchor` is set. Sequences belong to the log of `epoch`, None before the log's first message.
    """

    __slots__ = ("anchor", "count", "epoch", "has_anchor", "is_member", "max_unacked", "peer", "receiver", "sent", "unacked")

    def __init__(self, peer: Peer, start: Seq, epoch: Epoch | None, max_unacked: int | None, receiver: str) -> None:
        """`receiver`: the principal of the connection, as in `Principal.sender`."""
        self.peer, self.epoch, self.max_unacked, self.receiver = peer, epoch, max_unacked, receiver
        self.count = 0
        """Messages sent and not yet counted for the receiver by the feed, less `Feed.sent_to_all` while it is in `caught_up`."""
        self.sent = start
        self.unacked: deque[Seq] = _NO_SEQS if max_unacked is None else deque()
        """Sequences sent and not acknowledged; kept only with a `max_unacked`."""
        self.is_member = self.has_anchor = False
        self.anchor: Seq = 0

    def advance_to(self, seq: Seq) -> None:
        """Record everything up to `seq`, a message of this channel, as sent."""
        self.sent = self.anchor = seq
        self.has_anchor = True

    def track(self, seqs: list[Seq]) -> bool:
        """Add messages to the window before they are sent. Return False, and add nothing, if they do not fit."""
        if not self.has_room_for(len(seqs)):
            return False
        if self.max_unacked is not None:
            self.unacked.extend(seqs)
        return True

    def has_room_for(self, messages: int) -> bool:
        """Return whether this many more messages fit the window."""
        return self.max_unacked is None or len(self.unacked) + messages <= self.max_unacked

    def free_window(self) -> int | None:
        """Return how many more messages fit the window, or None for any number."""
        return None if self.max_unacked is None else self.max_unacked - len(self.unacked)
