"""The pushes about what became of a message, and about a moved cursor: structs and encoding."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

_encode = msgspec.json.Encoder().encode


class Recipient(msgspec.Struct, frozen=True, omit_defaults=True):
    """One recipient of a message. `state`: `pending`, `delivered` (sent to a socket), `acked`, `dead_lettered`, `skipped` (its
    cursor was moved over the message), `away` (not connected), or `unknown` (its server does not answer).

    `last_seen` is when an agent that is away was last known to be connected. Absent: unknown. In a queue, `agent` is the one that
    holds the message or has acknowledged it, null if there is none or it is unknown, and `reason` is that of a dead letter.
    """

    agent: str | None
    state: str
    last_seen: str | None = None
    reason: str | None = None


class ReceiptPush(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a message: the recipients whose state changed since the last push about it.

    `open` counts the recipients that have not reached what the publisher waits for; null if it is unknown. The `final` push has
    a `reason`: `reached`, `deadline`, `too_many` (recipients to follow) or `unavailable`. With `queue`, the message has one
    state, and `recipients` has the present one alone; absent in other channels.
    """

    channel: str
    seq: int
    message_id: str | None
    receipt: str
    recipients: Sequence[Recipient]
    open: int | None
    final: bool
    reason: str | None
    queue: bool = False


class MovedPush(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery begins where a request has set its cursor: after `cursor`. `moves` counts these requests, so that a client
    ignores one that it knows."""

    channel: str
    epoch: str | None
    cursor: int
    moves: int


def receipt(push: ReceiptPush) -> bytes:
    """Encode a receipt push."""
    return _encode({"receipt": push})


def moved(push: MovedPush) -> bytes:
    """Encode a push of a moved cursor."""
    return _encode({"moved": push})
