"""The queue of commands without a reply: sent in order, many in flight, and sent again in that order after a lost connection.

This module selects the commands to send and handles their replies. Sockets, clocks and timeouts belong to `sdk.connection`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from artcafe.errors import ArtcafeError, BadFrame, OutcomeUnknown, RateLimited, RequestLost
from artcafe.sdk import backoff
from artcafe.sdk.tracked_receipts import TrackedReceipts
from artcafe.wire import frames, replies

Reply = (
    replies.PublishReply
    | replies.SubscribeReply
    | replies.UnsubscribeReply
    | replies.StatusReply
    | replies.HistoryReply
    | replies.NakReply
    | replies.ExtendReply
    | replies.RequestPush
    | replies.ReplyReply
    | replies.AcceptReply
)

NOT_REPEATED: Final = frozenset({"request", "reply"})
"""Commands that are sent at most once: a second request is another one, and a new connection cannot answer an older one's."""

MAX_RATE_WAIT_S: Final = 60.0
FIRST_ID: Final = 2
"""The two commands of the login use the ids 0 and 1."""


@dataclass(slots=True, eq=False)
class PendingCommand:
    """A command from its call until its reply. Commands sort in the order of their calls."""

    order: int
    kind: str
    body: msgspec.Raw
    """The encoded body. Encoding happens in the call, so that no value can end the loop that sends all commands."""
    channel: str | None
    """The channel of a `subscribe`; None for other commands."""
    on_done: Callable[[Reply | Exception], None] = field(repr=False)
    """Called once with the reply or the final error."""
    on_part: Callable[[replies.RequestPush], None] | None = field(default=None, repr=False)
    """Called with each answer to a request before the last one."""
    refusals: int = 0
    deadline: float = math.inf
    """The monotonic time at which its caller stops waiting."""
    held_until: float = 0.0
    """The monotonic time before which a refused command is not sent again, in seconds."""
    id: int = -1
    """Its id on the current connection; -1 while it is not in flight."""
    problem: ArtcafeError | None = None
    """Why the last attempt had no final reply. `OutcomeUnknown` stays until a reply arrives."""

    def __lt__(self, other: PendingCommand) -> bool:
        return self.order < other.order

    @property
    def is_in_flight(self) -> bool:
        return self.id >= 0

    def timeout_error(self) -> ArtcafeError | None:
        """Return the error for a caller that stops waiting; None if the command was never sent, so that it had no effect."""
        return self._unknown() if self.is_in_flight else self.problem

    def final_error(self, error: ArtcafeError) -> ArtcafeError:
        """Return the error for the caller after this one of the server. It is about the last attempt: a publish that was repeated
        because its outcome was unknown may have been stored, though the repeat is refused, as after its `expires_at`."""
        if self.kind != "publish" or not isinstance(self.problem, OutcomeUnknown) or error is self.problem:
            return error
        self.problem.__cause__ = error
        return self.problem

    def on_connection_lost(self) -> None:
        """Record that no reply can arrive any more."""
        self.id = -1
        self.problem = self._unknown()

    def _unknown(self) -> ArtcafeError:
        if self.kind == "request":
            return RequestLost("the connection to the server was lost before the answer arrived")
        if self.kind == "publish":
            return OutcomeUnknown()
        return OutcomeUnknown.from_text(f"whether the server has done the {self.kind} command is unknown; it may be repeated")


class Outbox:
    """All commands of an agent without a reply, over any number of connections.

    Commands of one kind are sent strictly in order: a temporarily refused command holds back later ones that were not sent yet.
    So the order of messages can change only among those that were in flight together.
    """

    def __init__(self, delay_s: Callable[[int], float] = backoff.delay_s, max_rate_wait_s: float = MAX_RATE_WAIT_S) -> None:
        """`max_rate_wait_s`: a command refused by a rate limit is retried if the server asks for a wait of at most this long."""
        self._delay_s, self._max_rate_wait_s = delay_s, max_rate_wait_s
        self.receipts = TrackedReceipts()
        """The receipts of stored messages that the server follows on this connection."""
        self.limits: dict[str, replies.LimitState] = {}
        """The last known state of the tenant's limits, by name."""
        self._unsent: list[PendingCommand] = []
        self._in_flight: dict[int, PendingCommand] = {}
        self._cancelled: dict[int, PendingCommand] = {}
        """Commands in flight that no caller waits for. The effects of their replies (`on_done`) still apply."""
        self._to_cancel: list[int] = []
        """Requests in flight to be cancelled at the server."""
        self.subscribing: list[str] = []
        """The channels of the `subscribe` commands in flight: until the reply, the server refuses acks for the channel."""
        self._next_id = FIRST_ID
        self._added = 0

    def __len__(self) -> int:
        return len(self._unsent) + len(self._in_flight)

    def add(
        self,
        kind: str,
        body: msgspec.Raw,
        on_done: Callable[[Reply | Exception], None],
        *,
        channel: str | None = None,
        first: bool = False,
        deadline: float = math.inf,
        on_part: Callable[[replies.RequestPush], None] | None = None,
    ) -> PendingCommand:
        """Queue a command. `on_done` is called once with its reply or final error, unless it is cancelled before it was sent.

        `channel` is that of a `subscribe`. `first` puts the command before all others: a new connection needs it first.
        A command is not held back beyond its `deadline` (monotonic): then it fails at once.
        """
        self._added += 1
        command = PendingCommand(0 if first else self._added, kind, body, channel, on_done, on_part, deadline=deadline)
        heapq.heappush(self._unsent, command)
        return command

    def cancel(self, command: PendingCommand) -> None:
        """Stop waiting for a command; it is not sent again."""
        if command.is_in_flight:
            self._cancelled[command.id] = self._in_flight.pop(command.id)
            if command.kind == "request":
                self._to_cancel.append(command.id)
        elif command in self._unsent:
            self._unsent.remove(command)
            heapq.heapify(self._unsent)

    def due(self, now: float) -> list[PendingCommand]:
        """Return the commands to send now, in order, and count them as sent. `now` is monotonic, in seconds."""
        found: list[PendingCommand] = []
        kept: list[PendingCommand] = []
        blocked: set[str] = set()
        while self._unsent:
            command = heapq.heappop(self._unsent)
            if command.held_until > now or command.kind in blocked:
                blocked.add(command.kind)
                kept.append(command)
                continue
            command.id, self._next_id = self._next_id, self._next_id + 1
            self._in_flight[command.id] = command
            if command.channel is not None:
                self.subscribing.append(command.channel)
            found.append(command)
        self._unsent = kept  # They were popped in order, and a sorted list is a heap.
        return found

    def cancels(self) -> list[frames.Cancel]:
        """Return the `cancel` commands to send now, and count them as sent."""
        ids, self._to_cancel = self._to_cancel, []
        return [frames.Cancel(id) for id in ids]

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until a held command is due, or None if none is held."""
        held = [command.held_until for command in self._unsent if command.held_until > now]
        return min(held) - now if held else None

    def on_reply(self, id: int, kind: str, reply: Reply) -> None:
        """Finish a command of this connection. Raises `BadFrame` for a reply of another kind than the command."""
        if isinstance(reply, replies.RequestPush) and reply.more:
            self._on_part(id, reply)
        elif command := self._take(id):
            if command.kind != kind:
                raise BadFrame(f"a reply of {kind} to {command.kind}", example="a reply of the command's kind")
            command.on_done(reply)

    def _on_part(self, id: int, part: replies.RequestPush) -> None:
        command = self._in_flight.get(id)
        if command is not None and command.on_part is not None:
            command.on_part(part)

    def on_error(self, id: int, error: ArtcafeError, *, temporary: bool, now: float) -> None:
        """Finish a command with the server's error, or retry it after a delay if the error is `temporary`.

        The delay after a refusal by a rate limit is the server's, and some more, so that many agents do not return at once.
        """
        is_cancelled = id in self._cancelled
        command = self._take(id)
        if command is None:
            return
        wait_s = error.wait_s if isinstance(error, RateLimited) else 0.0
        is_too_long = wait_s > 0 and (wait_s > self._max_rate_wait_s or now + wait_s > command.deadline)
        is_final = command.kind == "request" and not isinstance(error, RateLimited)  # which says that nothing was sent
        if not temporary or is_cancelled or is_too_long or is_final:
            command.on_done(command.final_error(error))
            return
        if not isinstance(command.problem, OutcomeUnknown):
            command.problem = error
        command.refusals += 1
        command.held_until = now + wait_s + self._delay_s(command.refusals)
        heapq.heappush(self._unsent, command)

    def _take(self, id: int) -> PendingCommand | None:
        command = self._in_flight.pop(id, None) or self._cancelled.pop(id, None)
        if command is not None:
            command.id = -1
            if command.channel is not None:
                self.subscribing.remove(command.channel)
        return command

    def on_connection_lost(self) -> None:
        """Queue the commands in flight again, before all younger ones. Finish those that are never repeated."""
        lost = list(self._in_flight.values())
        self._forget_in_flight()
        self.receipts.end_all()
        self._next_id = FIRST_ID
        for command in lost:
            command.on_connection_lost()
            if command.kind in NOT_REPEATED and command.problem is not None:
                command.on_done(command.problem)
            else:
                heapq.heappush(self._unsent, command)

    def _forget_in_flight(self) -> None:
        self._in_flight.clear()
        self._cancelled.clear()
        self._to_cancel.clear()
        self.subscribing.clear()

    def fail(self, error: Exception) -> None:
        """Finish every command with `error`, or with `OutcomeUnknown` caused by it: there will be no further connection."""
        waiting = sorted([*self._unsent, *self._in_flight.values()])
        self._unsent.clear()
        self._forget_in_flight()
        self.receipts.end_all()
        for command in waiting:
            unknown = command.timeout_error()
            if unknown is not None:
                unknown.__cause__ = error
            command.on_done(unknown or error)
