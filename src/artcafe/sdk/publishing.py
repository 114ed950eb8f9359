"""Publishing over REST, and the scheduled messages that can be listed and cancelled: a part of `Client`."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from artcafe.sdk import encoding, tracing
from artcafe.sdk.encoding import value_of
from artcafe.sdk.handling import cause_of
from artcafe.sdk.http import HttpClient, given, path_of
from artcafe.sdk.messages import Message, Receipt, time_of
from artcafe.sdk.records import KeptMessage
from artcafe.wire import frames, replies

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


class PublishRoutes:
    """The methods of `Client` that publish, and those for scheduled messages."""

    _http: HttpClient

    async def publish(
        self,
        tenant: str,
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
        path = path_of(tenant, "channels", channel, "messages")
        with tracing.start_publish(channel, headers) as span:
            body["headers"] = span.add_context(headers, lambda merged: encoding.fits_request({**body, "headers": merged}))
            found = await self._http.send(replies.PublishReply, "POST", path, body)
            span.set_message_id(found.message_id)
        return Receipt.of(found)

    def scheduled(self, tenant: str, channel: str, *, limit: int | None = None) -> AsyncIterator[ScheduledInfo]:
        """List a channel's scheduled messages in the order of their delivery: all of them, or with an agent's token its own."""
        return self._http.all_of(ScheduledInfo, path_of(tenant, "channels", channel, "scheduled"), limit=limit)

    async def cancel_scheduled(self, tenant: str, channel: str, message_id: str) -> None:
        """Cancel a scheduled message: after the return it is not delivered. May be repeated.

        Raises `AlreadyDelivered` if it is in the channel already, and `ScheduledNotFound`.
        """
        await self._http.remove(path_of(tenant, "channels", channel, "scheduled", message_id))


def with_times(
    body: frames.Publish,
    expires_at: datetime | None,
    expires_in_s: float | None,
    deliver_at: datetime | None,
    delay_s: float | None,
) -> frames.Publish:
    """Return a publish with its times. Raises as `moment` does."""
    return msgspec.structs.replace(
        body,
        expires_at=moment("expires_at", expires_at, "expires_in_s", expires_in_s),
        deliver_at=moment("deliver_at", deliver_at, "delay_s", delay_s),
    )


def moment(name: str, at: datetime | None, relative: str, in_s: float | None) -> str | None:
    """Return a time of a message as text: `at`, or `in_s` seconds from now; None without either.

    `name` and `relative` are the names of both arguments. Raises ValueError if both are given, or `at` has no zone.
    """
    if at is not None and in_s is not None:
        raise ValueError(f"give {name} or {relative}, not both")
    if in_s is not None:
        at = datetime.now(UTC) + timedelta(seconds=in_s)
    if at is not None and at.tzinfo is None:
        raise ValueError(f"{name} needs a time zone, such as datetime.UTC")
    return None if at is None else at.isoformat()
