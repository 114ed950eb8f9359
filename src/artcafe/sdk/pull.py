"""Pull over REST: the messages of an agent without a socket, and their acks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, overload

import msgspec

from artcafe.errors import ArtcafeError, from_wire
from artcafe.sdk.acks import Acked
from artcafe.sdk.event_streams import MessageStream
from artcafe.sdk.http import HttpClient, given, path_of
from artcafe.sdk.messages import Gap, Message, time_of, warn_of
from artcafe.wire import replies

log = logging.getLogger("artcafe")

MAX_LIMIT: Final = 200
MAX_WAIT_S: Final = 25.0
"""The limits of one pull (contract, section 3)."""


class _PulledGap(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    channel: str
    from_: int
    to: int | None
    reason: str
    after: int


class _Page(msgspec.Struct, frozen=True):
    items: list[replies.PulledItem]
    gaps: list[_PulledGap]
    more: bool
    epoch: str | None
    moves: Mapping[str, int] | None = None


class _Outcome(msgspec.Struct, frozen=True):
    error: replies.ErrorBody | None = None
    receipt: str | None = None
    held_until: str | None = None

    def check(self) -> None:
        """Raise the error of the entry, if it has one."""
        if self.error is not None:
            raise from_wire(self.error.code, self.error.message)


class _Outcomes(msgspec.Struct, frozen=True):
    acks: list[_Outcome] = []
    naks: list[_Outcome] = []
    extends: list[_Outcome] = []


@dataclass(frozen=True, slots=True)
class Extended:
    """The new receipt of a message of a queue, and the time until which the agent holds it."""

    receipt: str
    held_until: datetime | None


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An ack, nak or extension. `receipt`: of a message of a queue."""

    channel: str
    seq: int
    receipt: str | None = None
    delay_s: float | None = None
    dead: bool = False


@dataclass(slots=True)
class _ChannelAcks:
    """The acknowledged messages of one channel of a pull. Everything before its first message is acknowledged, or never comes."""

    acked: Acked = field(default_factory=Acked)
    newest: int = 0
    """The sequence of the pull's last message."""
    gap_end: int | None = None
    """The sequence after which the channel continues, if the pull has a gap of it."""
    written: int | None = None
    """The highest ack that the server has written."""


class PullAckSender:
    """The acks of one pull. One request is in flight at a time, with all acks since the one before."""

    def __init__(self, http: HttpClient, path: str, epoch: str | None, moves: Mapping[str, int] | None = None) -> None:
        self._http, self._path, self._epoch, self._moves = http, path, epoch, moves
        self._channels: dict[str, _ChannelAcks] = {}
        self._held: dict[int, _Entry] = {}
        """Acks of queue messages to be sent, by sequence."""
        self._sending = asyncio.Lock()

    def expect(self, item: replies.PulledItem) -> int:
        """Record a message of the pull. Return the sequence before it; 0 for the first of its channel."""
        if item.receipt is not None or item.seq is None:
            return 0
        state = self._channels.setdefault(item.channel, _ChannelAcks())
        before, state.newest = state.newest, item.seq
        return before

    def expect_gap(self, channel: str, end: int) -> None:
        """Record a gap of the pull: the ack of any later message, or of `end`, acknowledges it."""
        self._channels.setdefault(channel, _ChannelAcks()).gap_end = end

    def add(self, entry: _Entry, before: int, *, is_cumulative: bool) -> None:
        """Record an ack of the message after `before`."""
        if entry.receipt is not None:
            self._held[entry.seq] = entry
            return
        acked = self._channels[entry.channel].acked
        if is_cumulative:
            acked.add_all(entry.seq)
        else:
            acked.add(before, entry.seq)

    async def send_gaps(self) -> None:
        """Acknowledge the gaps of channels without messages: the next message would acknowledge them otherwise.

        A failure is logged: the pull has messages to return, and the gap comes again.
        """
        lone = [
            _Entry(name, each.gap_end) for name, each in self._channels.items() if each.gap_end is not None and not each.newest
        ]
        if not lone:
            return
        try:
            outcomes = await self._post("acks", lone)
        except ArtcafeError as exc:
            outcomes = [_Outcome(replies.ErrorBody(exc.code, str(exc), exc.temporary))] * len(lone)
        for entry, outcome in zip(lone, outcomes, strict=False):
            if outcome.error is not None:
                log.warning("the gap of %s comes again: its ack failed (%s)", entry.channel, outcome.error.message)

    async def send(self) -> None:
        """Return when every ack so far is written. Raises the error of the first that was refused."""
        async with self._sending:
            held, self._held = self._held, {}
            due = {
                name: state.acked.through for name, state in self._channels.items() if state.acked.through > (state.written or 0)
            }
            if not due and not held:
                return
            answered = await self._post("acks", [_Entry(*place) for place in due.items()] + list(held.values()))
            for (name, seq), outcome in zip(due.items(), answered, strict=False):
                if outcome.error is None:
                    self._channels[name].written = seq
        for outcome in answered:
            outcome.check()

    async def settle(self, kind: str, entry: _Entry) -> _Outcome:
        """Send a nak or an extension. Raises its error."""
        (outcome,) = await self._post(kind, [entry])
        outcome.check()
        return outcome

    async def _post(self, kind: str, entries: Sequence[_Entry]) -> list[_Outcome]:
        body = {kind: entries, **given(epoch=self._epoch, moves=self._moves)}
        # A second ack with a receipt is refused, since the first has ended the hold.
        repeats = all(entry.receipt is None for entry in entries)
        answered = await self._http.send(_Outcomes, "POST", self._path, body, repeats=repeats)
        outcomes: list[_Outcome] = getattr(answered, kind)
        return outcomes


class PulledMessage(Message):
    """A message of a pull: `ack`, `nak` and `extend` are done when they return."""

    def __init__(self, item: replies.PulledItem, before: int, acks: PullAckSender) -> None:
        super().__init__(item, 0, before, self._record_ack)
        self._acks = acks
        self._entry = _Entry(item.channel, item.seq or 0, item.receipt)
        self._held_until = item.held_until

    @property
    def receipt(self) -> str | None:
        """In a `queue` channel, what its ack needs (`PullInbox.ack`); another one after `extend`. None in other channels."""
        return self._entry.receipt

    @property
    def held_until(self) -> datetime | None:
        """In a `queue` channel, the time until which the agent holds the message; aware, UTC. None in other channels."""
        return time_of(self._held_until)

    async def ack(self, *, cumulative: bool = False) -> None:
        """Acknowledge this message; with `cumulative`, also every earlier message of its channel. In a queue, only this message.

        When this returns, the server has written it: the cursor moves up to the first unacknowledged message of the pull. Acks of
        several tasks are sent together, and `Pulled.ack` sends one request for all messages. Raises the server's error, such as
        `NotHeld` after the deadline of a queue message, and `Unavailable` or `OutcomeUnknown` without an answer.
        """
        await super().ack(cumulative=cumulative)
        await self._acks.send()

    async def nak(self, delay_s: float | None = None, *, dead: bool = False) -> None:
        """Give a message of a queue back, to be delivered again after `delay_s` seconds, or after the channel's back-off.

        With `dead` it is not delivered again, but moves to the queue's dead-letter channel, with the reason `rejected`. Raises
        `NotHeld` if its ack deadline has passed, and RuntimeError for a message of another channel.
        """
        self._check_held()
        await self._acks.settle("naks", msgspec.structs.replace(self._entry, delay_s=delay_s, dead=dead))
        self._is_acked = True

    async def extend(self) -> None:
        """Let the ack deadline of a message of a queue begin again. Raises as `nak` does."""
        self._check_held()
        outcome = await self._acks.settle("extends", self._entry)
        self._entry = msgspec.structs.replace(self._entry, receipt=outcome.receipt)
        self._held_until = outcome.held_until

    def record_ack(self) -> None:
        """Acknowledge this message with the next request."""
        if not self._is_acked:
            self._acks.add(self._entry, self.before, is_cumulative=False)
            self._is_acked = True

    def _record_ack(self, _: Message, is_cumulative: bool) -> None:
        self._acks.add(self._entry, self.before, is_cumulative=is_cumulative)

    def _check_held(self) -> None:
        if self._entry.receipt is None:
            raise RuntimeError("only a message of a queue channel can be given back or extended")


class Pulled(Sequence[PulledMessage]):
    """The messages of one pull, in order within a channel. Those that are not acknowledged are pulled again.

    `gaps` has the messages that will not come, which were also logged as warnings. With `has_more`, further messages follow once
    these are acknowledged. `epoch` identifies the log of the sequences; None before the tenant's first message. `moves` has how
    often the cursors of channels were moved; None from an older server.
    """

    def __init__(
        self,
        messages: Sequence[PulledMessage],
        gaps: Sequence[Gap],
        has_more: bool,
        epoch: str | None,
        moves: Mapping[str, int] | None = None,
    ) -> None:
        self._messages, self.gaps, self.has_more, self.epoch = tuple(messages), tuple(gaps), has_more, epoch
        self.moves = moves

    def __repr__(self) -> str:
        return f"Pulled({len(self)} messages, gaps={self.gaps!r}, has_more={self.has_more})"

    @overload
    def __getitem__(self, index: int) -> PulledMessage: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[PulledMessage]: ...

    def __getitem__(self, index: int | slice) -> PulledMessage | Sequence[PulledMessage]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    async def ack(self) -> None:
        """Acknowledge every message of this pull in one request. May be repeated. Raises as `PulledMessage.ack` does."""
        for message in self._messages:
            message.record_ack()
        if self._messages:
            await self._messages[-1].ack()


class PullInbox:
    """What waits for the agent whose token a client has, over REST."""

    def __init__(self, http: HttpClient, tenant: str, agent: str) -> None:
        self._http = http
        self._inbox, self._acks = path_of(tenant, "agents", agent, "inbox"), path_of(tenant, "agents", agent, "acks")

    async def pull(self, *, limit: int = 50, wait_s: float = 0, channel: str | None = None) -> Pulled:
        """Return messages as `Agent.pull` does. Gaps of channels without messages are acknowledged."""
        page = await self._http.read(_Page, self._inbox, {"limit": limit, "wait_s": wait_s, **given(channel=channel)})
        acks = PullAckSender(self._http, self._acks, page.epoch, page.moves)
        gaps = [Gap(each.channel, each.from_, each.to, each.reason) for each in page.gaps]
        for gap, pushed in zip(gaps, page.gaps, strict=True):
            warn_of(gap)
            acks.expect_gap(pushed.channel, pushed.after)
        messages = [PulledMessage(each, acks.expect(each), acks) for each in page.items]
        await acks.send_gaps()
        return Pulled(messages, gaps, page.more, page.epoch, page.moves)

    def follow(self, *, last_id: str | None = None) -> MessageStream:
        """Iterate over the messages of the agent's active subscriptions and its inbox as they come, by server-sent events.

        It begins at the cursors, which only `ack` moves, or with the `last_id` of an earlier stream where that one was. Messages
        of queues are left out.
        """
        return MessageStream(self._http, f"{self._inbox}/stream", {}, last_id)

    async def ack(
        self,
        channel: str,
        seq: int,
        *,
        receipt: str | None = None,
        epoch: str | None = None,
        moves: Mapping[str, int] | None = None,
    ) -> None:
        """Acknowledge a channel up to `seq`, or with its `receipt` one message of a queue. Raises the server's error.

        With the `epoch` of its pull, raises `LogRenewed` if the log was replaced since. With its `moves`, changes nothing if the
        cursor was moved since.
        """
        await self._settle("acks", _Entry(channel, seq, receipt), epoch, moves)

    async def nak(
        self, channel: str, seq: int, *, receipt: str, delay_s: float | None = None, dead: bool = False, epoch: str | None = None
    ) -> None:
        """Give a message of a queue back, as `PulledMessage.nak` does. Raises the server's error."""
        await self._settle("naks", _Entry(channel, seq, receipt, delay_s, dead), epoch)

    async def extend(self, channel: str, seq: int, *, receipt: str, epoch: str | None = None) -> Extended:
        """Let the ack deadline of a message of a queue begin again. Raises the server's error."""
        outcome = await self._settle("extends", _Entry(channel, seq, receipt), epoch)
        return Extended(outcome.receipt or receipt, time_of(outcome.held_until))

    async def _settle(self, kind: str, entry: _Entry, epoch: str | None, moves: Mapping[str, int] | None = None) -> _Outcome:
        return await PullAckSender(self._http, self._acks, epoch, moves).settle(kind, entry)
