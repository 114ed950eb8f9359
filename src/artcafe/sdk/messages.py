"""What an agent's program gets in its hands: messages, gaps and receipts. Where they come from is `sdk.inbox`'s."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from artcafe.sdk.encoding import value_of
from artcafe.wire import replies

log = logging.getLogger("artcafe")


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a published message stands: stored, on disk. `seq` is None for a `live` channel, which stores nothing.

    `message_id` is None only for a repeat whose first message has been removed since; `duplicate` says that this key had
    stored the message before, and nothing was stored now.
    """

    seq: int | None
    message_id: str | None
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Subscribed:
    """What the server said to `subscribe`: delivery goes on behind `cursor`; `last` is the newest message's sequence, and
    `epoch` names this life of the tenant's log (None before its first message). All None for a `live` channel."""

    channel: str
    epoch: str | None
    cursor: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of a channel that this agent will not get: `first` to `last`, both included, and why.

    `last` is None where nobody can say how many there were, such as behind a log that was begun anew.
    """

    channel: str
    first: int
    last: int | None
    reason: str


def warn_of(gap: Gap) -> None:
    """Logs what will not come: a gap is never silent, also where nobody asks for it."""
    if gap.last is None:
        text = "the log of %s was begun anew (%s): what the one before it had from %s on, if anything, will not come"
        log.warning(text, gap.channel, gap.reason, gap.first)
    else:
        log.warning("messages of %s will not come: %s to %s (%s)", gap.channel, gap.first, gap.last, gap.reason)


class Message:
    """A message of a channel. Acknowledge it when it has been dealt with; until then it comes again after a new start."""

    def __init__(self, pushed: replies.Message, life: int, before: int, on_ack: Callable[[Message, bool], None]) -> None:
        self._pushed, self._on_ack = pushed, on_ack
        self._is_acked = False
        self.life = life
        """Counts the logs that the channel was seen to have; a sequence means something in its own life only."""
        self.before = before
        """The sequence of the message that came before it in its channel; 0 for the first one."""

    def __repr__(self) -> str:
        return f"Message(channel={self.channel!r}, seq={self.seq}, message_id={self.message_id!r}, sender={self.sender!r})"

    @property
    def channel(self) -> str:
        return self._pushed.channel

    @property
    def seq(self) -> int | None:
        """Rises in a channel, and may skip numbers. None in a `live` channel, where nothing is stored or acknowledged."""
        return self._pushed.seq

    @property
    def prev(self) -> int | None:
        """The sequence of the message before it in the channel; None where there is none, or none any more."""
        return self._pushed.prev

    @property
    def message_id(self) -> str:
        return self._pushed.message_id

    @property
    def sender(self) -> str:
        """Who published it, proven to the server: an agent's id, or `usr:` and a person's."""
        return self._pushed.sender

    @cached_property
    def time(self) -> datetime:
        """When the server took it in; aware, UTC."""
        return datetime.fromisoformat(self._pushed.time)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._pushed.headers

    @property
    def reply_to(self) -> str | None:
        return self._pushed.reply_to

    @property
    def json(self) -> bytes:
        """The whole message as a JSON object, with the names it has on the wire."""
        return msgspec.json.encode(self._pushed)

    @property
    def raw(self) -> bytes:
        """The data as the JSON text that was published."""
        return bytes(self._pushed.data)

    @cached_property
    def data(self) -> Any:
        """The data, parsed when it is first asked for: None, bool, int, float, str, list or dict.

        Raises nothing: a number that no float holds is inf or -inf, and stands in `raw` as it was published.
        """
        return value_of(self._pushed.data)

    async def ack(self, *, cumulative: bool = False) -> None:
        """Acknowledge this message; with `cumulative`, every message before it in its channel too.

        Messages may be acknowledged in any order, by several tasks. The server's cursor moves up to the first message that lacks
        an ack: that one, and those behind it, come again after the next start.

        Return at once: the ack leaves with the next ones, and is kept over a lost connection. `Agent.flush` waits until it has
        left, and leaving the agent's block does the same. May be repeated. Raise RuntimeError on another event loop than the
        agent's.
        """
        if not self._is_acked or cumulative:
            self._on_ack(self, cumulative)
            self._is_acked = True
