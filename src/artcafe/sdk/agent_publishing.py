"""Publishing by an agent: causes, keys, traces, and receipts. `Agent` inherits it."""

from __future__ import annotations

import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Final, overload

import msgspec

from artcafe import errors
from artcafe.sdk import encoding, tracing
from artcafe.sdk.commands import OutgoingCommand
from artcafe.sdk.connection import AgentConnection
from artcafe.sdk.handling import HANDLED, CausedBy, cause_of, handled_in
from artcafe.sdk.messages import Receipt
from artcafe.sdk.outbox import Reply
from artcafe.sdk.publishing import with_times
from artcafe.sdk.tracked_receipts import TrackedReceipt
from artcafe.wire import frames, replies

log = logging.getLogger("artcafe")

MAX_TIMEOUT_S: Final = 540.0
"""A key stores one message within 10 minutes (contract, section 5); retries of a publish end before that."""


class Publishing(ABC):
    """The publishes of an agent over its connection."""

    tenant: str
    agent: str
    _connection: AgentConnection
    _is_warned: bool
    """Whether an unknown cause was logged as a warning."""

    @abstractmethod
    def _check_entered(self) -> None:
        """Raise RuntimeError outside of the agent's block, or on another event loop."""

    @overload
    async def publish(
        self,
        channel: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        caused_by: CausedBy = HANDLED,
        expires_at: datetime | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
        delay_s: float | None = None,
        timeout_s: float = 30.0,
    ) -> Receipt: ...

    @overload
    async def publish(
        self,
        channel: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        caused_by: CausedBy = HANDLED,
        expires_at: datetime | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
        delay_s: float | None = None,
        timeout_s: float = 30.0,
        receipt: frames.ReceiptLevel,
        receipt_s: float = frames.RECEIPT_S,
    ) -> TrackedReceipt: ...

    async def publish(
        self,
        channel: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        caused_by: CausedBy = HANDLED,
        expires_at: datetime | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
        delay_s: float | None = None,
        timeout_s: float = 30.0,
        receipt: frames.ReceiptLevel | None = None,
        receipt_s: float = frames.RECEIPT_S,
    ) -> Receipt | TrackedReceipt:
        """Store a message in a channel; it is on disk when this returns.

        `data` must survive a round trip through msgspec's JSON, so no nan, sets or bytes; or it is `msgspec.Raw` with JSON text,
        which is delivered unchanged. After a lost connection or a temporary error the publish is retried for `timeout_s` (at most
        540) under the same `key`, so that the message is stored once; without `key`, one is generated. Publishes of several tasks
        are sent in the order of their calls, at most 256 in flight, and return as their replies arrive.

        `caused_by` is the message that this one answers, or its id: the server counts the messages of a chain of answers, and
        raises `LoopStopped` above the plan's limits. By default it is the message that the caller handles: the last one yielded
        to its task by a loop over `messages`, until the loop requests the next one or ends; a task inherits it from the task that
        starts it. None publishes a message that answers none. If the server does not know the handled message any more, the
        publish is sent again without it, and a warning is logged; so is a publish that would not fit a frame with it.

        From `expires_at` (an aware time), or `expires_in_s` seconds after this call, the message is not delivered any more:
        subscribers get a `Gap` with the reason `expired` instead. With `deliver_at` or `delay_s` the message is stored now, and
        delivered at that time, at most 30 days ahead: the receipt has no `seq`, and `ScheduledCalls.cancel` cancels it.

        With `receipt` the server reports for each recipient what becomes of the message, for at most `receipt_s` (300) seconds:
        `stored` its state now, `delivered` until all have been sent it, `acked` until all have acknowledged it. Wait for that
        with `TrackedReceipt.wait`. A message of a queue has one state instead: see `TrackedReceipt.outcome`.

        Raises the server's error if a retry cannot help, and the last error after the timeout: `OutcomeUnknown` if the message
        may have been stored (publishing again with the same `key` is safe), any other if it was not. Raises `TooLarge`, `Invalid`
        and TypeError before the message is sent; publishes of other tasks continue.
        """
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise ValueError(f"timeout_s must be above 0 and at most {MAX_TIMEOUT_S:g}")
        self._check_entered()
        text = encoding.data_text(data, self._connection.limits.get("json_depth", frames.MAX_DEPTH))
        cause = handled_in(self.tenant) if caused_by is HANDLED else caused_by
        key, limit_s = uuid.uuid4().hex if key is None else key, None if receipt is None else receipt_s
        body = frames.Publish(channel, text, key, headers, reply_to, receipt=receipt, receipt_s=limit_s)
        body = with_times(body, expires_at, expires_in_s, deliver_at, delay_s)
        if cause is None:
            return await self._publish(body, timeout_s)
        answer = msgspec.structs.replace(body, caused_by=cause_of(cause))
        if caused_by is not HANDLED:
            return await self._publish(answer, timeout_s)
        if not self._fits(answer) and self._fits(body):
            self._warn_of_new_chain(cause, "the message is too large to name it")
            return await self._publish(body, timeout_s)
        ends_at = time.monotonic() + timeout_s
        try:
            return await self._publish(answer, timeout_s)
        except (errors.CauseNotFound, errors.OutcomeUnknown) as exc:  # the latter if an earlier attempt had no answer
            if not isinstance(exc, errors.CauseNotFound) and not isinstance(exc.__cause__, errors.CauseNotFound):
                raise
            self._warn_of_new_chain(cause, "the server does not know it any more")
        return await self._publish(body, max(0.001, ends_at - time.monotonic()))

    async def send(
        self,
        agent: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        caused_by: CausedBy = HANDLED,
        timeout_s: float = 30.0,
    ) -> Receipt:
        """Store a direct message for another agent, in its inbox; it is on disk when this returns.

        The agent receives it like the messages of its channels, now or when it connects, with `is_direct` set; `Message.reply`
        answers it. Arguments and errors are those of `publish`. Raises `AgentNotFound`.
        """
        inbox = frames.INBOX_PREFIX + agent.removeprefix(frames.INBOX_PREFIX)
        return await self.publish(
            inbox, data, key=key, headers=headers, reply_to=reply_to, caused_by=caused_by, timeout_s=timeout_s
        )

    def _warn_of_new_chain(self, cause: object, reason: str) -> None:
        level = logging.DEBUG if self._is_warned else logging.WARNING
        log.log(level, "the answer to %r begins a new chain: %s (more such cases: debug)", cause, reason)
        self._is_warned = True

    def _fits(self, body: frames.Publish) -> bool:
        """Return whether a publish fits a frame of this connection."""
        return encoding.fits("publish", body, self._connection.limits.get("frame_bytes", frames.MAX_FRAME_BYTES))

    async def _publish(self, body: frames.Publish, timeout_s: float) -> Receipt | TrackedReceipt:
        headers = body.headers
        with tracing.start_publish(body.channel, headers, self.agent) as span:
            traced = span.add_context(headers, lambda merged: self._fits(_with_headers(body, merged)))
            tracked: list[TrackedReceipt] = []

            def follow(reply: Reply) -> None:
                assert isinstance(reply, replies.PublishReply)
                if body.receipt is not None:
                    tracked.append(TrackedReceipt(Receipt.of(reply)))
                    self._connection.outbox.receipts.follow(body.channel, tracked[-1])

            sent = body if traced is headers else _with_headers(body, traced)
            reply = await self._connection.request(OutgoingCommand("publish", sent, follow), timeout_s)
            assert isinstance(reply, replies.PublishReply)
            span.set_message_id(reply.message_id)
        return tracked[-1] if tracked else Receipt.of(reply)


def _with_headers(body: frames.Publish, headers: Mapping[str, str] | None) -> frames.Publish:
    return msgspec.structs.replace(body, headers=headers)
