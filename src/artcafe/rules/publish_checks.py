"""Check the fields of a message to be published, or of a request to an agent. `message_times` checks the times."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from artcafe.errors import Invalid, LimitExceeded, TooLarge
from artcafe.model import Channel
from artcafe.rules import fields
from artcafe.rules.plans import Limit
from artcafe.wire import payloads
from artcafe.wire.envelopes import PARTITION
from artcafe.wire.frames import Publish


def check_publish(publish: Publish, max_bytes: int) -> None:
    """Raise `Invalid` with the name of the first invalid field, `TooLarge` for data above the protocol's limit, or
    `LimitExceeded` for data above `max_bytes`, the tenant's limit."""
    if publish.key is not None:
        fields.idempotency_key(publish.key, "key")
    if publish.reply_to is not None and len(publish.reply_to) > fields.REPLY_TO_CHARS:
        raise Invalid("reply_to", f"must have at most {fields.REPLY_TO_CHARS} characters")
    check_data(publish.headers, publish.data, max_bytes)


def check_data(headers: Mapping[str, str] | None, raw: msgspec.Raw, max_bytes: int) -> None:
    """Raise as `check_publish` does, for the headers and data of a message of any kind."""
    if headers:
        fields.headers(headers)
    data = bytes(raw)
    if len(data) > max_bytes:
        if len(data) > fields.MESSAGE_BYTES:
            raise TooLarge("data", fields.MESSAGE_BYTES)
        raise LimitExceeded(Limit.MESSAGE_BYTES.value, max_bytes, len(data))
    problem = payloads.problem_of(data)
    if problem is not None:
        raise Invalid("data", problem)


def check_partition(channel: Channel, publish: Publish) -> None:
    """Raise `Invalid` for a partition header that is too long, in a queue ordered by it."""
    if publish.headers and channel.queue is not None and channel.queue.key_ordered:
        fields.partition(publish.headers.get(PARTITION, ""))
