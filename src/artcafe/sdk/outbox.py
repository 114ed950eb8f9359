"""Commands that wait for their answer: sent in order, many at once, and sent again in that order when an answer got lost.

Which frames go out and what comes back is decided here; sockets, clocks and timeouts are `sdk.agent`'s.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from artcafe.errors import ArtcafeError, BadFrame, OutcomeUnknown
from artcafe.sdk import backoff
from artcafe.wire import frames, replies

Reply = replies.PublishReply | replies.SubscribeReply | replies.UnsubscribeReply | replies.StatusReply | replies.HistoryReply

FIRST_ID: Final = 2
"""The two commands of the login take 0 and 1."""


@dataclass(slots=True, eq=False)
class PendingCommand:
    """A command, from the call that made it until its answer. Commands are ordered as they were made."""

    order: int
    kind: str
    body: msgspec.Raw
    """Encoded before it came here, so that no value can end the loop that sends everybody's commands."""
    channel: str | None
    """Whose delivery it begins; None for all but `subscribe`."""
    settle: Callable[[Reply | Exception], None] = field(repr=False)
    refusals: int = 0
    held_until: float = 0.0
    id: int | None = None
    """Under which it is on its way now."""
    problem: ArtcafeError | None = None
    """Why the last attempt brought no answer that counts; an unknown outcome stays unknown until an answer settles it."""

    def __lt__(self, other: PendingCommand) -> bool:
        return self.order < other.order

    def unanswered(self) -> ArtcafeError | None:
        """What to tell a caller who stops waiting: None where nothing was ever sent, so that nothing can have happened."""
        return self.problem if self.id is None else self._unknown()

    def lose(self) -> None:
        """Its answer will not come any more."""
        self.id = None
        self.problem = self._unknown()

    def _unknown(self) -> OutcomeUnknown:
        if self.kind == "publish":
            return OutcomeUnknown()
        return OutcomeUnknown.from_text(f"whether the server has done the {self.kind} command is unknown; it may be repeated")


class Outbox:
    """Every unanswered command of an agent, over any number of connections.

    Commands of a kind leave strictly in order: one that was refused for now holds back those behind it that have not left
    yet, so that an order among messages breaks only between those that were on the way together.
    """

    def __init__(self, delay_s: Callable[[int], float] = backoff.delay_s) -> None:
        self._delay_s = delay_s
        self._unsent: list[PendingCommand] = []
        self._sent: dict[int, PendingCommand] = {}
        self._dropped: dict[int, PendingCommand] = {}
        """On their way, and nobody waits for the reply any more; what the reply changes (`settle`) it changes all the same."""
        self.subscribing: list[str] = []
        """The channels of the `subscribe` commands on their way: until each reply, the server takes no ack for its channel."""
        self._next_id = FIRST_ID
        self._made = 0

    def __len__(self) -> int:
        return len(self._unsent) + len(self._sent)

    def add(
        self,
        kind: str,
        body: msgspec.Raw,
        settle: Callable[[Reply | Exception], None],
        *,
        channel: str | None = None,
        first: bool = False,
    ) -> PendingCommand:
        """Take a command in. `settle` gets its reply, or the error that ends it, once, unless it is dropped before it was sent.

        `channel` is that of a `subscribe`. `first` puts it before all others: a connection must know it before it goes on.
        """
        self._made += 1
        ask = PendingCommand(0 if first else self._made, kind, body, channel, settle)
        heapq.heappush(self._unsent, ask)
        return ask

    def drop(self, ask: PendingCommand) -> None:
        """Stop waiting for a command: it is not sent again."""
        if ask.id is not None:
            self._dropped[ask.id] = self._sent.pop(ask.id)
        elif ask in self._unsent:
            self._unsent.remove(ask)
            heapq.heapify(self._unsent)

    def due(self, now: float) -> list[bytes]:
        """The frames to send now, in order; they count as sent. `now` is monotonic, in seconds."""
        found: list[bytes] = []
        kept: list[PendingCommand] = []
        blocked: set[str] = set()
        while self._unsent:
            ask = heapq.heappop(self._unsent)
            if ask.held_until > now or ask.kind in blocked:
                blocked.add(ask.kind)
                kept.append(ask)
                continue
            ask.id, self._next_id = self._next_id, self._next_id + 1
            self._sent[ask.id] = ask
            if ask.channel is not None:
                self.subscribing.append(ask.channel)
            found.append(frames.command(ask.kind, ask.body, ask.id))
        self._unsent = kept  # They came out sorted, which is a heap.
        return found

    def wait_s(self, now: float) -> float | None:
        """Seconds until `due` has something again by itself, or None."""
        held = [ask.held_until for ask in self._unsent if ask.held_until > now]
        return min(held) - now if held else None

    def answered(self, id: int, kind: str, reply: Reply) -> None:
        """The reply to a command of this connection. Raises `BadFrame` for one of another kind than the command."""
        if ask := self._taken(id):
            if ask.kind != kind:
                raise BadFrame(f"a reply of {kind} to {ask.kind}", example="a reply of the command's kind")
            ask.settle(reply)

    def refused(self, id: int, error: ArtcafeError, *, temporary: bool, now: float) -> None:
        """An error instead of a reply: final, or if `temporary` a reason to send the command again a little later."""
        is_dropped = id in self._dropped
        ask = self._taken(id)
        if ask is None:
            return
        if not temporary or is_dropped:
            ask.settle(error)
            return
        if not isinstance(ask.problem, OutcomeUnknown):
            ask.problem = error
        ask.refusals += 1
        ask.held_until = now + self._delay_s(ask.refusals)
        heapq.heappush(self._unsent, ask)

    def _taken(self, id: int) -> PendingCommand | None:
        ask = self._sent.pop(id, None) or self._dropped.pop(id, None)
        if ask is not None:
            ask.id = None
            if ask.channel is not None:
                self.subscribing.remove(ask.channel)
        return ask

    def lost(self) -> None:
        """The connection is gone: what was on the way is sent again on the next one, before anything younger."""
        for ask in self._sent.values():
            ask.lose()
            heapq.heappush(self._unsent, ask)
        self._forget_sent()
        self._next_id = FIRST_ID

    def _forget_sent(self) -> None:
        self._sent.clear()
        self._dropped.clear()
        self.subscribing.clear()

    def fail(self, error: Exception) -> None:
        """There will be no further connection: everything that waits ends, with what is known of it."""
        waiting = sorted([*self._unsent, *self._sent.values()])
        self._unsent.clear()
        self._forget_sent()
        for ask in waiting:
            unknown = ask.unanswered()
            if unknown is not None:
                unknown.__cause__ = error
            ask.settle(unknown or error)
