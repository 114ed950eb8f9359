"""The messages of a `queue` channel, one holder at a time: a durable JetStream consumer, shared by all servers.

A server pulls only as many messages as its holders can take now. JetStream redelivers a message that is neither acknowledged nor
extended within `ack_wait_s` and `MARGIN_S` after its delivery; that covers servers that died. A running server enforces
`ack_wait_s` itself (`delivery.queue_feed`): it gives a message back before another server can get it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from nats.aio.msg import Msg

from artcafe.errors import ChannelNotFound, LogRefused, NatsConnectionLost, NoResponder, OurFault, Unavailable
from artcafe.fabric.nats.client import IncomingMessage, OutgoingMessage
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.fabric.queue_acks import ACK, ANSWER_S, PROGRESS, TERM, QueueAcks, nak_body
from artcafe.fabric.queue_consumer import MARGIN_S, PULL_S, QueueConsumer
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import ChannelId, Epoch, QueueSettings, Seq
from artcafe.observe.logs import log
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from artcafe.supervision import Supervisor

PULLS_AT_ONCE: Final = 2
"""Pull requests that may wait at NATS at once, so that one can be answered while the next is on its way."""
MAX_PULL: Final = 1024
"""Messages of one pull request."""
RETRY_S: Final = 0.2
CLOSE_S: Final = 3.0

TIMED_OUT: Final = 408
"""The status with which NATS ends a pull request at its timeout."""


class QueuedMessage(NamedTuple):
    """A message pulled from a queue. `deliveries` counts how often it was delivered, this time included. NATS delivered it at
    `taken_at` of the monotonic clock or earlier."""

    seq: Seq
    deliveries: int
    envelope: bytes
    taken_at: float
    ack_subject: Subject


Confirm = Callable[[], Awaitable[object]]
"""Raise `ChannelNotFound` for a deleted channel."""


class _PullSlot:
    """Holds one pull request at a time, with a subject of its own for the replies."""

    __slots__ = ("asked_at", "inbox", "outstanding", "subscription")

    def __init__(self, inbox: Subject) -> None:
        self.inbox = inbox
        self.subscription: SubjectSubscription | None = None
        self.outstanding = 0
        """Messages that the request may still bring; 0: there is no request."""
        self.asked_at = 0.0
        """When the request was made, by the monotonic clock."""


class QueueSink(Protocol):
    """The receiver of a queue's messages on this server."""

    @property
    def room(self) -> int:
        """How many messages it takes now, those included that were requested. It calls `WorkQueue.wake` when that has grown."""

    def take(self, message: QueuedMessage) -> None:
        """Take the next message, and end it by `ack`, `nak` or `terminate`. It may be more than `room`."""

    def forget(self) -> None:
        """Forget the messages taken before: the log is another one."""

    async def drained(self) -> None:
        """Make the last acks and naks: no message is on its way any more. Raises `Unavailable` if some cannot be made."""


class WorkQueue:
    """This server's part of one queue channel. Call other methods only while `run` runs."""

    def __init__(
        self,
        tenant_log: TenantLog,
        channel: ChannelId,
        settings: QueueSettings,
        sink: QueueSink,
        confirm: Confirm,
    ) -> None:
        """`confirm` is called before the consumer is made."""
        self.channel, self.settings = channel, settings
        self.connection, self._consumer = tenant_log.connection, QueueConsumer(tenant_log, channel)
        self._sink, self._confirm = sink, confirm
        self.epoch: Epoch | None = None
        """The epoch of the log that the taken messages belong to; None before the consumer was made."""
        self.pull_subject = subjects.queue_pull(STREAM, self._consumer.name)
        self.slots = [_PullSlot(Subject(f"{self.connection.new_inbox()}.{at}")) for at in range(PULLS_AT_ONCE)]
        self._acks = QueueAcks(self.connection)
        self._wake, self._consumer_made = asyncio.Event(), asyncio.Event()
        self._has_consumer = False
        """Whether the consumer exists in the current log, with the present settings."""
        self._is_refused = False
        """Whether NATS has ended a pull request for another reason than its timeout: the next one waits for `RETRY_S`."""
        self._is_closing = False
        self._may_ask_too_much = False
        """Whether a receiver has left since the pull requests were made."""
        self.supervisor = Supervisor("work_queue")

    # --- settings and life -------------------------------------------------------------------------------------------

    def change(self, settings: QueueSettings) -> None:
        """Use other settings from now on; the consumer is changed before the next pull. May be repeated."""
        if settings != self.settings:
            self.settings, self._has_consumer = settings, False
            self.wake()

    @property
    def has_asked(self) -> bool:
        """Whether a pull request waits at NATS."""
        return self._has_consumer and any(slot.outstanding for slot in self.slots)

    def wake(self) -> None:
        """Pull messages if there is room, and send waiting acks."""
        self._wake.set()

    def shrink(self) -> None:
        """Note that the sink's room may be smaller than the pull requests. They are ended before the next acks and naks are sent:
        NATS would answer them with the messages that are given back."""
        self._may_ask_too_much = True
        self.wake()

    async def run(self) -> None:
        """Exchange messages and acks with NATS until `close`."""
        self.connection.on_up(self._restart)
        self.wake()
        try:
            await self._until_closed()
        finally:
            self.connection.off_up(self._restart)
            await self._leave()

    async def wait_consumer(self, *, again: bool = False) -> None:
        """Return once the consumer exists; with `again`, after it was made again. Raise `Unavailable` after `ANSWER_S`."""
        self._has_consumer = self._has_consumer and not again
        if self._has_consumer:
            return
        self._consumer_made.clear()
        self.wake()
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._consumer_made.wait()
        except TimeoutError as exc:
            raise unreachable() from exc

    async def flushed(self) -> None:
        """Return once NATS has every ack and nak so far. Raise `Unavailable` after `ANSWER_S`."""
        await self._acks.flushed()

    def close(self) -> None:
        """End `run`, which sends the waiting acks first, and gives back the messages that arrive meanwhile. May be repeated."""
        self._is_closing = True
        self.wake()

    async def _until_closed(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._next_check_s()):
                    await self._wake.wait()
            self._wake.clear()
            if self._is_closing:
                return  # the requests must end before the naks are sent: NATS would answer them with the same messages
            with self.supervisor.contain(channel=self.channel):
                try:
                    await self._exchange()
                except ChannelNotFound:
                    self.close()
                except (OurFault, TimeoutError) as exc:
                    log.debug("work_queue.waits", channel=self.channel, error=repr(exc))
                    self._has_consumer = self._has_consumer and not isinstance(exc, NoResponder | LogRefused)
                    await asyncio.sleep(RETRY_S)
                    self._wake.set()

    async def _leave(self) -> None:
        """Unsubscribe, give back the messages that were on their way, and send the last acks."""
        try:
            async with asyncio.timeout(CLOSE_S):
                for slot in self.slots:
                    subscription, slot.subscription = slot.subscription, None
                    if subscription is not None:
                        await self.connection.drain(subscription)
                await self._sink.drained()
                while self._acks and self.connection.is_up:
                    await self._acks.send()
        except (OurFault, TimeoutError) as exc:
            log.debug("work_queue.left_unsent", channel=self.channel, acks=len(self._acks), error=repr(exc))

    def _restart(self) -> None:
        """Pull again over a new connection: NATS has dropped the requests of the lost one."""
        for slot in self.slots:
            slot.outstanding = 0
        self._has_consumer = False  # the log, and with it the consumer, may be another one
        self.wake()

    # --- acks --------------------------------------------------------------------------------------------------------

    def ack(self, message: QueuedMessage) -> None:
        """Remove a message from the queue. It is sent again after a lost connection, until NATS has confirmed it."""
        self._put(message, ACK)

    def nak(self, message: QueuedMessage, delay_s: float = 0.0) -> None:
        """Give a message back, to be delivered again after `delay_s`.

        It is not sent once another server may hold the message; NATS redelivers it by itself then.
        """
        self._put(message, nak_body(delay_s), self.exclusive_until(message))

    def exclusive_until(self, message: QueuedMessage) -> float:
        """Return until when no other server can have a message, by the monotonic clock."""
        return message.taken_at + self.settings.ack_wait_s + MARGIN_S - PULL_S

    def terminate(self, message: QueuedMessage) -> None:
        """Remove a message from the queue that no subscriber acknowledged, because it is stored elsewhere."""
        self._put(message, TERM)

    async def extend(self, message: QueuedMessage) -> QueuedMessage:
        """Return the message as if it was taken now, once NATS has confirmed it. Raise `Unavailable`: its deadline is
        unchanged."""
        return message._replace(taken_at=await self.extend_each([message]))

    async def extend_each(self, messages: Sequence[QueuedMessage]) -> float:
        """Let the deadlines of messages begin again, and return when, by the monotonic clock. Raise `Unavailable`."""
        now = time.monotonic()
        progress = [OutgoingMessage(message.ack_subject, "", PROGRESS) for message in messages]
        try:
            await self.connection.request_last(progress, timeout_s=ANSWER_S)
        except (NatsConnectionLost, NoResponder, TimeoutError) as exc:
            raise unreachable() from exc
        return now

    def _put(self, message: QueuedMessage, body: bytes, until: float | None = None) -> None:
        self._acks.put(message.ack_subject, body, until)
        self.wake()

    # --- the exchange ------------------------------------------------------------------------------------------------

    async def _exchange(self) -> None:
        """Send the waiting acks, and requests for as many messages as there is room for."""
        if self._is_refused:
            self._is_refused = False
            await asyncio.sleep(RETRY_S)
        await self._end_excess()
        if not self._has_consumer:
            await self._make_consumer()
        pulls = b"".join(self._pull_requests())
        try:
            await self._acks.send(pulls)
        except Unavailable:
            self._restart()
            raise
        if self._acks:
            self.wake()

    async def _end_excess(self) -> None:
        """End the pull requests if they ask for more than there is room for since a receiver has left."""
        if not self._may_ask_too_much:
            return
        if sum(slot.outstanding for slot in self.slots) > self._sink.room:
            for slot in self.slots:
                subscription, slot.subscription = slot.subscription, None
                if subscription is not None:
                    await self.connection.drain(subscription)
                # NATS keeps the request until its timeout, and would send to a new subscription to the same subject.
                slot.inbox, slot.outstanding = Subject(self.connection.new_inbox()), 0
        await self._subscribe()
        self._may_ask_too_much = False

    def _pull_requests(self) -> list[bytes]:
        """Return encoded pull requests for the room that no request covers yet."""
        now = time.monotonic()
        pulls: list[bytes] = []
        for slot in self.slots:
            if slot.outstanding and now > slot.asked_at + PULL_S + RETRY_S:
                slot.outstanding = 0  # NATS has ended it, and its answer was lost
        for slot in self.slots:
            if slot.outstanding:
                continue
            missing = min(MAX_PULL, self._sink.room - sum(each.outstanding for each in self.slots))
            if missing > 0:
                slot.outstanding, slot.asked_at = missing, now
                body = b'{"batch":%d,"expires":%d}' % (missing, int(PULL_S * 1e9))
                pulls.append(OutgoingMessage(self.pull_subject, "", body).encoded(slot.inbox))
        return pulls

    def _next_check_s(self) -> float | None:
        """Return the seconds until a request for messages must be replaced; None without one."""
        waiting = [slot.asked_at for slot in self.slots if slot.outstanding]
        return max(0.0, min(waiting) + PULL_S + 2 * RETRY_S - time.monotonic()) if waiting else None

    # --- messages ----------------------------------------------------------------------------------------------------

    def on_message(self, slot: _PullSlot, message: IncomingMessage) -> bool:
        """Take a message of a request, or note its end."""
        if not message.reply:
            self._on_status(slot, message)
            return True
        slot.outstanding = max(0, slot.outstanding - 1)
        # Read late, the message may have been delivered long ago, but no later than the request's end.
        taken_at = min(time.monotonic(), slot.asked_at + PULL_S)
        queued = parse(message, taken_at)
        if self._is_closing:
            self.nak(queued)
        else:
            self._sink.take(queued)
        if not slot.outstanding:
            self.wake()
        return True

    def _on_status(self, slot: _PullSlot, message: IncomingMessage) -> None:
        """Note the end of a request: by its timeout, or because the consumer or its leader has changed."""
        status, description = message.status, message.description
        slot.outstanding = 0
        if status != TIMED_OUT:
            log.debug("work_queue.pull_ended", channel=self.channel, status=status, description=description)
            self._has_consumer, self._is_refused = False, True
        self.wake()

    async def _on_slow_message(self, slot: _PullSlot, message: Msg) -> None:
        raise AssertionError("the fast path takes every message")

    # --- the consumer ------------------------------------------------------------------------------------------------

    async def _make_consumer(self) -> None:
        """Create the consumer, or give it the present settings, and subscribe to its messages. May be repeated. Raise
        `Unavailable` or `LogRefused`."""
        await self.connection.wait_up()
        await self._subscribe()
        await self._confirm()
        settings = self.settings
        made = await self._consumer.make(settings)
        if made.is_new_log or self.epoch not in (None, made.epoch):
            self._acks.clear()
            self._sink.forget()
        self.epoch, self._has_consumer = made.epoch, settings == self.settings
        self._consumer_made.set()

    async def _subscribe(self) -> None:
        """Subscribe to the messages of each slot. May be repeated."""
        for slot in self.slots:
            if slot.subscription is None:
                slow, fast = partial(self._on_slow_message, slot), partial(self.on_message, slot)
                slot.subscription = await self.connection.subscribe(slot.inbox, slow, fast)


def parse(message: IncomingMessage, taken_at: float) -> QueuedMessage:
    """Parse a message of a pull request. Its reply subject has its place (nats-server, ADR 15): `$JS.ACK.{stream}.{consumer}.
    {deliveries}.{stream sequence}.…`, with the domain and the account in front of the stream in newer servers."""
    words = message.reply.split(b".")
    at = 4 if len(words) <= 9 else 6
    return QueuedMessage(int(words[at + 1]), int(words[at]), message.data, taken_at, Subject(message.reply.decode()))
