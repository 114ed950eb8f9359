"""What became of a message for one agent: decided from its subscription's row, its presence, and positions of its sockets."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from artcafe.fabric.position_exchange import AgentPosition
from artcafe.model import Cursor, Epoch, Seq, Subscription
from artcafe.rules.start_position import LogLineage


class DeliveryState(StrEnum):
    """The state of a message for one recipient."""

    PENDING = "pending"
    """The agent is connected, and the message has not been sent to it yet."""
    DELIVERED = "delivered"
    """It was sent to a socket of the agent."""
    ACKED = "acked"
    DEAD_LETTERED = "dead_lettered"
    SKIPPED = "skipped"
    """A request moved the cursor over it: it may never have been sent."""
    EXPIRED = "expired"
    """It expired before it was known to be sent or acknowledged: a position above it may be that of the gap in its place."""
    AWAY = "away"
    """The agent is not connected to any server."""
    UNKNOWN = "unknown"
    """The agent is connected to a server that does not answer, or it is unknown whether it is connected."""


FINAL = frozenset({DeliveryState.ACKED, DeliveryState.DEAD_LETTERED, DeliveryState.SKIPPED, DeliveryState.EXPIRED})
"""States that do not change any more."""
SENT = FINAL | {DeliveryState.DELIVERED}


def is_recipient(row: Subscription, seq: Seq, lineage: LogLineage) -> bool:
    """Return whether a subscription delivers a message: it was stored after the subscription's start.

    A row of an older system does not name the log of its start, which counts as the current one.
    """
    if row.start.epoch not in (None, lineage.epoch):
        return seq > lineage.to_seq(row.start)
    return seq > row.start.seq


def state_of_row(row: Subscription, seq: Seq, lineage: LogLineage) -> DeliveryState | None:
    """Return the state shown by the stored cursor, or None if it is below the message.

    A cursor above the message shows an ack, except in a range skipped by a move.
    """
    if lineage.to_seq(row.cursor) < seq:
        return None
    skipped = row.skipped
    if skipped is not None:
        after, to = (lineage.to_seq(Cursor(epoch=skipped.epoch, seq=end)) for end in (skipped.after, skipped.to))
        if after < seq <= to:
            return DeliveryState.SKIPPED
    return DeliveryState.ACKED


def state_of_positions(positions: Iterable[AgentPosition], seq: Seq, epoch: Epoch | None) -> DeliveryState | None:
    """Return the state known to the servers of an agent's sockets, or None if none of them has sent it the message."""
    found: DeliveryState | None = None
    for position in positions:
        if position.epoch != epoch:
            continue
        if position.acked >= seq:
            return DeliveryState.ACKED
        if any(after < seq <= to for after, to in position.sent):
            found = DeliveryState.DELIVERED
    return found
