"""Calls for the messages of a tenant's channels: publish, history, receipts, and scheduled messages."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from artcafe.sdk import encoding, tracing
from artcafe.sdk.encoding import value_of
from artcafe.sdk.event_streams import MessageStream
from artcafe.sdk.handling import cause_of
from artcafe.sdk.http import given, place
from artcafe.sdk.messages import Gap, Message, Receipt, time_of, warn_of
from artcafe.sdk.publishing import moment
from artcafe.sdk.records import KeptMessage
from artcafe.sdk.tenant_calls import TenantCalls
from artcafe.wire import replies

_NAMES: Final = {
    "sender": "from",
    "raw": "data",
    "time_text": "time",
    "deliver_at_text": "deliver_at",
    "expires_at_text": "expires_at",
}


class ScheduledInfo(msgspec.Struct, frozen=True, omit_defaults=True, rename=_NAMES):
    """A message that is not delivered to its channel yet. Encoding it gives the JSON object of the response."""

    channel: str
    message_id: str
    sender: str
    """The authenticated publisher: an agent's id, or `usr:` and a person's."""
    time_text: str
    deliver_at_text: str
    headers: Mapping[str, str]
    raw: msgspec.Raw
    """The data as the published JSON text."""
    reply_to: str | None = None
    expires_at_text: str | None = None

    @property
    def time(self) -> datetime:
        """The time at which the server accepted it; aware, UTC."""
        return datetime.fromisoformat(self.time_text)

    @property
    def deliver_at(self) -> datetime:
        """The time at which it is to be delivered; aware, UTC."""
        return datetime.fromisoformat(self.deliver_at_text)

    @property
    def expires_at(self) -> datetime | None:
        """The time from which it is not delivered any more; None if it does not expire."""
        return time_of(self.expires_at_text)

    @property
    def data(self) -> Any:
        """The parsed data, as that of a `KeptMessage`."""
        return value_of(self.raw)


class ReceiptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message for one recipient: `pending`, `delivered`, `acked`, `dead_lettered`, `skipped`, `away` or
    `unknown`. `cursor_age_s` is the time since its last ack was written; None without one.

    A message of a queue has one, without a cursor: `agent_id` is the agent that holds it or has acknowledged it, None if there is
    none or it is unknown, and `reason` says why it is a dead letter (`max_deliveries`, `expired` or `rejected`).
    """

    agent_id: str | None
    agent_handle: str | None = None
    state: str
    reason: str | None = None
    cursor: int | None = None
    cursor_age_s: int | None = None
    last_seen: datetime | None = None


class MessageCalls(TenantCalls):
    """The messages of a tenant's channels."""

    async def publish(
        self,
        channel: str,
        data: object,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        reply_to: str | None = None,
        caused_by: Message | KeptMessage | str | None = None,
        expires_at: datetime | None = None,
        expires_in_s: float | None = None,
        deliver_at: datetime | None = None,
        delay_s: float | None = None,
    ) -> Receipt:
        """Store a message; it is on disk when this returns. `data` and the times are as for `Agent.publish`.

        `caused_by` is the message that this one answers, or its id. Raises `Invalid` and TypeError before the request is sent,
        `CauseNotFound`, and `LoopStopped` above the limits of a chain of answers.
        """
        made = uuid.uuid4().hex if key is None else key
        body: dict[str, object] = {"data": encoding.data_text(data), "key": made, "headers": headers, "reply_to": reply_to}
        if caused_by is not None:
            body["caused_by"] = cause_of(caused_by)
        body |= given(expires_at=moment("expires_at", expires_at, "expires_in_s", expires_in_s))
        body |= given(deliver_at=moment("deliver_at", deliver_at, "delay_s", delay_s))
        path = self._path("channels", channel, "messages")
        with tracing.start_publish(channel, headers) as span:
            body["headers"] = span.add_context(headers, lambda merged: encoding.fits_request({**body, "headers": merged}))
            found = await self._http.send(replies.PublishReply, "POST", path, body, repeats=True)
            span.set_message_id(found.message_id)
        return Receipt.of(found)

    def list(
        self,
        channel: str,
        *,
        after: int | datetime | str | None = None,
        before: int | datetime | str | None = None,
        limit: int | None = None,
        on_gap: Callable[[Gap], None] | None = None,
    ) -> AsyncIterator[KeptMessage]:
        """List a channel's stored messages. With `after` (a sequence, or an aware time) oldest first from there; without it
        newest first, back from `before` or from the end. Text is sent unchanged.

        The missing part of the requested range is logged as a warning, or passed to `on_gap`.
        """
        query = given(after=place(after), before=place(before))

        def report(gap: replies.Gap) -> None:
            (on_gap or warn_of)(Gap(channel, gap.from_, gap.to, gap.reason))

        return self._http.all_of(KeptMessage, self._path("channels", channel, "messages"), query, limit=limit, on_gap=report)

    def follow(self, channel: str, *, after: int | None = None, last_id: str | None = None) -> MessageStream:
        """Iterate over a channel's messages as they come, without a socket or a subscription, by server-sent events.

        With `after` it begins above that sequence, 0 for the oldest stored message; with the `last_id` of an earlier stream where
        that one was; otherwise with new messages. A queue's messages are shown, not held.

            async for item in client.tenant("ten_…").messages.follow("news"):
                print(item)
        """
        return MessageStream(self._http, self._path("channels", channel, "messages", "stream"), given(after=after), last_id)

    def receipts(self, channel: str, seq: int, *, limit: int | None = None) -> AsyncIterator[ReceiptInfo]:
        """List the recipients of a stored message, and what became of it; for members, and for the agent that sent it.

        A message of a queue has one item.
        """
        path = self._path("channels", channel, "messages", str(seq), "receipts")
        return self._http.all_of(ReceiptInfo, path, limit=limit)


class ScheduledCalls(TenantCalls):
    """The scheduled messages of a tenant's channels: those with a `deliver_at` that has not come."""

    def list(self, channel: str, *, limit: int | None = None) -> AsyncIterator[ScheduledInfo]:
        """List a channel's scheduled messages in the order of their delivery: all of them, or with an agent's token its own."""
        return self._http.all_of(ScheduledInfo, self._path("channels", channel, "scheduled"), limit=limit)

    async def cancel(self, channel: str, message_id: str) -> None:
        """Cancel a scheduled message: after the return it is not delivered. May be repeated.

        Raises `AlreadyDelivered` if it is in the channel already, whose `seq` is the message's; and `ScheduledNotFound`.
        """
        # A cancelled message is not absent: the server answers a second cancellation like the first.
        await self._http.remove(self._path("channels", channel, "scheduled", message_id), absence_is_success=False)
