"""The objects that an agent's program handles: messages, gaps and receipts. `sdk.inbox` creates them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from artcafe import errors
from artcafe.sdk import tracing
from artcafe.sdk.encoding import value_of
from artcafe.wire import frames, replies
from artcafe.wire.envelopes import DeadLetter, Redriven

if TYPE_CHECKING:
    from opentelemetry.context import Context

log = logging.getLogger("artcafe")


def time_of(text: str | None) -> datetime | None:
    """Parse a time of a message, which is aware and in UTC."""
    return None if text is None else datetime.fromisoformat(text)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of a publish: the message is stored on disk. `seq` is None for a `live` channel, because it stores nothing, and
    for a scheduled message, which gets one when it is due.

    `duplicate`: a message with this key was stored before, and this publish stored nothing. `message_id` is None only for a
    duplicate whose first message was removed since.
    """

    seq: int | None
    message_id: str | None
    duplicate: bool
    subscribers: int | None = field(default=None, compare=False)
    """The active subscriptions that receive the channel; None if the server did not know them at that moment."""
    connected: int | None = field(default=None, compare=False)
    """How many of these agents were connected, to any server; None if that was not known."""

    @classmethod
    def of(cls, reply: replies.PublishReply) -> Self:
        """Convert the reply to a publish."""
        return cls(reply.seq, reply.message_id, reply.duplicate, reply.subscribers, reply.connected)


@dataclass(frozen=True, slots=True)
class Subscribed:
    """The result of a `subscribe`: delivery continues after `cursor`; `last` is the newest message's sequence; `epoch`
    identifies the tenant's log (None before its first message). All None for a `live` channel."""

    channel: str
    epoch: str | None
    cursor: int | None
    last: int | None


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of messages of a channel that this agent will not receive: `first` to `last`, both included, and the reason:
    `retention`, `expired` or `epoch`.

    `last` is None if their number is unknown, for example after a restored log. `channel` is the channel's handle, or its id as
    long as the handle is not known.
    """

    channel: str
    first: int
    last: int | None
    reason: str


def warn_of(gap: Gap) -> None:
    """Log a gap as a warning, whether or not the program handles gaps."""
    if gap.last is None:
        text = "the log of %s was replaced (%s): messages of the old log from %s on, if any, will not come"
        log.warning(text, gap.channel, gap.reason, gap.first)
    else:
        log.warning("messages of %s will not come: %s to %s (%s)", gap.channel, gap.first, gap.last, gap.reason)


Settle = Callable[["Message", frames.Nak | frames.Extend], Awaitable[None]]
"""Send a command about a message of a queue. Raises `NotHeld` if this agent's connection does not hold the message any more."""


class PublishAnswer(Protocol):
    """`Agent.publish`, as far as answers use it."""

    async def __call__(
        self,
        channel: str,
        data: object,
        *,
        key: str | None,
        headers: Mapping[str, str] | None,
        reply_to: str | None,
        caused_by: Message,
        timeout_s: float,
    ) -> Receipt: ...


class Message:
    """A message of a channel. Acknowledge it after processing: until then it is delivered again after a restart.

    In a `queue` channel this agent holds the message until it is acknowledged, given back by `nak`, its ack deadline passes, or
    the connection ends; then another subscriber gets it, or this one again.
    """

    def __init__(
        self,
        pushed: replies.Message,
        life: int,
        before: int,
        on_ack: Callable[[Message, bool], None],
        settle: Settle | None = None,
        publish: PublishAnswer | None = None,
    ) -> None:
        """`settle`: of a message of a queue. `publish`: publishes answers."""
        self._pushed, self._on_ack, self._settle, self._publish = pushed, on_ack, settle, publish
        self._is_acked = False
        self.life = life
        """The number of logs and starts of the channel so far; a sequence is valid within one of them. In a queue, the number of
        connections before the one that holds the message."""
        self.before = before
        """The sequence of the previously received message of its channel; 0 for the first one."""

    def __repr__(self) -> str:
        return f"Message(channel={self.channel!r}, seq={self.seq}, message_id={self.message_id!r}, sender={self.sender!r})"

    @property
    def channel(self) -> str:
        """The channel's handle; its id if it has none."""
        return self._pushed.channel_handle or self._pushed.channel

    @property
    def channel_id(self) -> str:
        return self._pushed.channel

    @property
    def is_direct(self) -> bool:
        """Whether it was sent to this agent alone: its channel is the agent's inbox."""
        return self._pushed.channel.startswith(frames.INBOX_PREFIX)

    @property
    def seq(self) -> int | None:
        """The sequence in the channel: it rises, and may skip numbers. None in a `live` channel: it stores nothing, and needs
        no ack."""
        return self._pushed.seq

    @property
    def prev(self) -> int | None:
        """The sequence of the previous message in the channel; None if there is none, or none any more."""
        return self._pushed.prev

    @property
    def message_id(self) -> str:
        return self._pushed.message_id

    @property
    def sender(self) -> str:
        """The handle that the publishing agent had then; `sender_id` for a person, and for an agent without a handle.

        An agent may be given another handle: compare `sender_id` where it matters who it was.
        """
        return self._pushed.sender_handle or self._pushed.sender

    @property
    def sender_id(self) -> str:
        """The authenticated publisher: an agent's id, or `usr:` and a person's."""
        return self._pushed.sender

    @cached_property
    def time(self) -> datetime:
        """The time at which the server accepted it; aware, UTC."""
        return datetime.fromisoformat(self._pushed.time)

    @property
    def caused_by(self) -> str | None:
        """The id of the message that this one answers; None if it answers none."""
        return self._pushed.caused_by

    @property
    def deliveries(self) -> int | None:
        """In a `queue` channel: how often the message was delivered, this time included. None in other channels."""
        return self._pushed.deliveries

    @property
    def hops(self) -> int:
        """The number of messages before this one in its chain of answers."""
        return self._pushed.hops

    @property
    def chain(self) -> str | None:
        """The id of the first message of its chain of answers; None for that message itself."""
        return self._pushed.chain

    @cached_property
    def expires_at(self) -> datetime | None:
        """The time from which it is not delivered any more; None if it does not expire."""
        return time_of(self._pushed.expires_at)

    @cached_property
    def deliver_at(self) -> datetime | None:
        """The time at which it was to be delivered; None if it was not scheduled."""
        return time_of(self._pushed.deliver_at)

    @property
    def dead_letter(self) -> DeadLetter | None:
        """In a dead-letter channel, the message that this one was in its queue, and why it was moved."""
        return self._pushed.dead_letter

    @property
    def redriven(self) -> Redriven | None:
        """The dead letter that this message was, if it was sent back to its queue."""
        return self._pushed.redriven

    @property
    def is_settled(self) -> bool:
        """Whether the program has acknowledged this message, or given it back."""
        return self._is_acked

    @property
    def headers(self) -> Mapping[str, str]:
        return self._pushed.headers

    @property
    def reply_to(self) -> str | None:
        return self._pushed.reply_to

    @property
    def trace_context(self) -> Context | None:
        """The OpenTelemetry context of the publish, to link or continue its trace. None if the message has no valid `traceparent`
        header, or without OpenTelemetry (`artcafe[otel]`)."""
        return tracing.context_of(self.headers)

    def processing(self, *, continue_trace: bool = False) -> AbstractContextManager[None]:
        """Surround the processing of this message with an OpenTelemetry span `process`, linked to the publisher's span.

        It is a child of the current span; with `continue_trace`, of the publisher's span, so that both programs share a trace.
        Publishes and acks in the block are its children. Without OpenTelemetry it does nothing.
        """
        return tracing.start_processing(self, continue_trace=continue_trace)

    @property
    def json(self) -> bytes:
        """The whole message as a JSON object, with the wire's field names."""
        return msgspec.json.encode(self._pushed)

    @property
    def raw(self) -> bytes:
        """The data as the published JSON text."""
        return bytes(self._pushed.data)

    @cached_property
    def data(self) -> Any:
        """The data, parsed on first access: None, bool, int, float, str, list or dict.

        Never raises: a number beyond Python's floats becomes inf or -inf; `raw` has the published text.
        """
        return value_of(self._pushed.data)

    async def reply(
        self,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        timeout_s: float = 30.0,
    ) -> Receipt:
        """Publish an answer: to the message's `reply_to`, or to the inbox of its sender. It is on disk when this returns.

        The answer names this message as its cause. Arguments and errors are those of `Agent.publish`. Raises `Invalid` for a
        message of a person, who has no inbox, without a `reply_to`.
        """
        if self._publish is None:
            raise RuntimeError("this message was not received by an Agent")
        target = self._pushed.reply_to or frames.INBOX_PREFIX + self._pushed.sender
        if target.startswith(f"{frames.INBOX_PREFIX}usr:"):
            raise errors.Invalid("reply_to", "the message is of a person, who has no inbox, and names no reply_to")
        return await self._publish(target, data, key=key, headers=headers, reply_to=reply_to, caused_by=self, timeout_s=timeout_s)

    async def ack(self, *, cumulative: bool = False) -> None:
        """Acknowledge this message; with `cumulative`, also every earlier message of its channel. In a queue, only this message.

        Several tasks may acknowledge messages in any order. The server's cursor moves up to the first unacknowledged message:
        that message and all after it are delivered again after a restart.

        Returns at once: the ack is sent together with others, and survives a lost connection. `Agent.flush` waits until it is
        sent, as does leaving the agent's block. May be repeated. Raises RuntimeError on another event loop than the agent's.
        """
        if not self._is_acked or cumulative:
            self._on_ack(self, cumulative)
            self._is_acked = True
            if self.seq is not None:
                tracing.record_ack(self)

    async def nak(self, delay_s: float | None = None, *, dead: bool = False) -> None:
        """Give a message of a queue back, to be delivered again after `delay_s` seconds, or after the channel's back-off.

        With `dead` it is not delivered again, but moves to the queue's dead-letter channel, with the reason `rejected`.
        A later `ack`, also that of a loop with `auto_ack`, does nothing. Returns when the server has it, and also if the
        connection has ended, since that gives the message back too. Raises `NotHeld` if its ack deadline has passed, and
        RuntimeError for a message of another channel.
        """
        await self._settle_by(frames.Nak(self.channel_id, self.seq or 0, delay_s, dead))
        self._is_acked = True

    async def extend(self) -> None:
        """Let the ack deadline of a message of a queue begin again. Call it regularly during long work.

        Raises `NotHeld` if another subscriber may get the message: its deadline has passed, or the connection has ended. Raises
        `Unavailable` if the deadline is unchanged, and RuntimeError for a message of another channel.
        """
        await self._settle_by(frames.Extend(self.channel_id, self.seq or 0))

    async def _settle_by(self, body: frames.Nak | frames.Extend) -> None:
        if self._settle is None:
            raise RuntimeError("only a message of a queue channel can be given back or extended")
        await self._settle(self, body)
