"""Expired messages at delivery: a gap with the reason `expired` takes the place of each one.

They stay in the log until retention removes them, and the history shows them. Most messages have no expiry, so their envelopes
are not parsed (`wire.envelopes.EXPIRING`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Final

from artcafe.fabric.tenant_log import StoredMessage
from artcafe.observe.clock import Clock
from artcafe.wire import envelopes
from artcafe.wire.replies import Gap

EXPIRED: Final = "expired"
"""The reason of a gap in place of messages that expired before their delivery. They need no ack."""


def is_expired(envelope: bytes, now: datetime) -> bool:
    """Return whether a message must not be delivered any more."""
    expires_at = envelopes.expires_at(envelope)
    return expires_at is not None and expires_at <= now


def runs(messages: Sequence[StoredMessage], clock: Clock) -> Iterator[tuple[Gap | None, Sequence[StoredMessage]]]:
    """Divide messages of a channel, in order, into runs to be delivered and runs of expired ones, these with their gap."""
    if not any(one.envelope.startswith(envelopes.EXPIRING) for one in messages):
        yield None, messages
        return
    now = clock()
    for are_expired, found in groupby(messages, lambda one: is_expired(one.envelope, now)):
        run = list(found)
        yield Gap(run[0].seq, run[-1].seq, EXPIRED) if are_expired else None, run
