"""The holders of a queue's messages on this server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from artcafe.fabric.work_queue import QueuedMessage
from artcafe.model import Seq


class Holder(ABC):
    """A receiver of queue messages in one channel: a delivery to a socket, or a pull.

    It joins one feed, takes up to `max_unacked` messages, and leaves.
    """

    __slots__ = ("counted_room", "held", "max_unacked", "receiver")

    def __init__(self, receiver: str, max_unacked: int) -> None:
        """`receiver`: its principal, as in `Principal.sender`."""
        self.receiver, self.max_unacked = receiver, max_unacked
        self.held: dict[Seq, HeldMessage] = {}
        self.counted_room = 0
        """Its room as the feed has counted it."""

    @property
    def is_open(self) -> bool:
        """Whether it can take messages now. Call `QueueFeed.update` when it can again."""
        return True

    @property
    def room(self) -> int:
        """How many more messages it takes now."""
        return max(0, self.max_unacked - len(self.held)) if self.is_open else 0

    @abstractmethod
    def hand(self, messages: Sequence[QueuedMessage]) -> None:
        """Pass on messages, held by it from now on."""


class HeldMessage:
    """A message and its holder, until `deadline` of the monotonic clock."""

    __slots__ = ("deadline", "holder", "message")

    def __init__(self, message: QueuedMessage, holder: Holder, deadline: float) -> None:
        self.message, self.holder, self.deadline = message, holder, deadline
