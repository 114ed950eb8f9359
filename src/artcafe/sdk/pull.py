"""Pull over REST: the messages of an agent without a socket, and their acks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, overload

import msgspec

from artcafe.errors import ArtcafeError, from_wire
from artcafe.sdk.acks import Acked
from artcafe.sdk.http import HttpClient, given, path_of
from artcafe.sdk.messages import Gap, Message, warn_of
from artcafe.wire import replies

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
    items: list[replies.Message]
    gaps: list[_PulledGap]
    more: bool
    epoch: str | None


class _Outcome(msgspec.Struct, frozen=True):
    error: replies.ErrorBody | None = None


class _Outcomes(msgspec.Struct, frozen=True):
    acks: list[_Outcome]


@dataclass(slots=True)
class _ChannelAcks:
    """The acknowledged messages of one channel of a pull. Everything before its first message is acknowledged, or never comes."""

    acked: Acked = field(default_factory=Acked)
    newest: int = 0
    """The sequence of the pull's last message."""
    gap_end: int = 0
    """The sequence after which the channel continues, if the pull has a gap of it."""
    written: int | None = None
    """The highest ack that the server has written."""


class PullAcks:
    """The acks of one pull. One request is in flight at a time, with all acks since the one before."""

    def __init__(self, http: HttpClient, path: str, epoch: str | None) -> None:
        self._http, self._path, self._epoch = http, path, epoch
        self._channels: dict[str, _ChannelAcks] = {}
        self._sending = asyncio.Lock()

    def expect(self, channel: str, seq: int) -> int:
        """Record a message of the pull. Return the sequence before it; 0 for the first of its channel."""
        state = self._channels.setdefault(channel, _ChannelAcks())
        before, state.newest = state.newest, seq
        return before

    def expect_gap(self, channel: str, end: int) -> None:
        """Record a gap of the pull: the ack of any later message, or of `end`, acknowledges it."""
        self._channels.setdefault(channel, _ChannelAcks()).gap_end = end

    def add(self, message: Message, is_cumulative: bool) -> None:
        """Record an ack."""
        assert message.seq is not None, "a pull returns stored messages only"
        acked = self._channels[message.channel_id].acked
        if is_cumulative:
            acked.add_all(message.seq)
        else:
            acked.add(message.before, message.seq)

    def add_all(self) -> None:
        """Record acks of every message and gap."""
        for state in self._channels.values():
            state.acked.add_all(max(state.newest, state.gap_end))

    async def send(self, *, with_gaps: bool = False) -> None:
        """Return when every ack so far is written. Raises the error of the first that was refused."""
        async with self._sending:
            due = {
                channel: state.acked.through
                for channel, state in self._channels.items()
                if state.written is None or state.acked.through > state.written
                if state.acked.through or with_gaps
            }
            if not due:
                return
            outcomes = await acknowledge(self._http, self._path, due, self._epoch)
            for channel, refused in outcomes.items():
                if refused is None:
                    self._channels[channel].written = due[channel]
        for refused in outcomes.values():
            if refused is not None:
                raise refused


class PulledMessage(Message):
    """A message of a pull: its ack is written when `ack` returns."""

    def __init__(self, pushed: replies.Message, before: int, acks: PullAcks) -> None:
        super().__init__(pushed, 0, before, acks.add)
        self._acks = acks

    async def ack(self, *, cumulative: bool = False) -> None:
        """Acknowledge this message; with `cumulative`, also every earlier message of its channel.

        When this returns, the server has written the cursor, which moves up to the first unacknowledged message of the pull. Acks
        of several tasks are sent together, and `Pulled.ack` sends one request for all messages. May be repeated. Raises the
        server's error, and `Unavailable` or `OutcomeUnknown` without an answer.
        """
        await super().ack(cumulative=cumulative)
        await self._acks.send()


class Pulled(Sequence[PulledMessage]):
    """The messages of one pull, in order within a channel. Those that are not acknowledged are pulled again.

    `gaps` has the messages that will not come, which were also logged as warnings. With `has_more`, further messages follow once
    these are acknowledged.
    """

    def __init__(self, messages: Sequence[PulledMessage], gaps: Sequence[Gap], has_more: bool, acks: PullAcks) -> None:
        self._messages, self.gaps, self.has_more, self._acks = tuple(messages), tuple(gaps), has_more, acks

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
        """Acknowledge every message and gap of this pull. May be repeated. Raises as `PulledMessage.ack` does."""
        self._acks.add_all()
        await self._acks.send(with_gaps=True)


async def acknowledge(
    http: HttpClient, path: str, acks: Mapping[str, int], epoch: str | None = None
) -> dict[str, ArtcafeError | None]:
    """Acknowledge each channel up to a sequence, and return the error of each; None if it is written."""
    body = {"acks": [{"channel": channel, "seq": seq} for channel, seq in acks.items()], **given(epoch=epoch)}
    answered = await http.send(_Outcomes, "POST", path, body)
    errors = [None if each.error is None else from_wire(each.error.code, each.error.message) for each in answered.acks]
    return dict(zip(acks, errors, strict=True))


async def pull(http: HttpClient, tenant: str, agent: str, *, limit: int, wait_s: float, channel: str | None) -> Pulled:
    """Pull messages of the agent whose token `http` has."""
    query = {"limit": limit, "wait_s": wait_s, **given(channel=channel)}
    page = await http.read(_Page, path_of(tenant, "agents", agent, "inbox"), query)
    acks = PullAcks(http, path_of(tenant, "agents", agent, "acks"), page.epoch)
    gaps = [Gap(each.channel, each.from_, each.to, each.reason) for each in page.gaps]
    for gap, pushed in zip(gaps, page.gaps, strict=True):
        warn_of(gap)
        acks.expect_gap(pushed.channel, pushed.after)
    messages = [PulledMessage(each, acks.expect(each.channel, each.seq or 0), acks) for each in page.items]
    return Pulled(messages, gaps, page.more, acks)
