"""Stores messages of queues in their dead-letter channels, each once.

A message is first stored as a dead letter, and then terminated in its queue by the caller. If the server dies in between, another
one moves the message again, and finds the first letter (`fabric.marked_copies`). A message that cannot be stored stays in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from artcafe.errors import OurFault, QuotaFull
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.marked_copies import MarkedCopy, store_copies
from artcafe.model import Channel, ChannelId, Seq
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.observe.logs import log
from artcafe.rules import ids, subjects, times
from artcafe.tables.store import Store
from artcafe.wire.envelopes import DeadLetter, DeadLetterReason, dead_letter_envelope, parse_head

SENDER: Final = "artcafe"
"""The sender in the mark of a dead letter, which no agent or person has sent."""


class FailedMessage(NamedTuple):
    """A failed message of a queue, the reason, and the number of its deliveries."""

    seq: Seq
    envelope: bytes
    reason: DeadLetterReason
    deliveries: int


class DeadLetters:
    """Writes dead letters."""

    def __init__(self, store: Store, fabric: Fabric, clock: Clock) -> None:
        self._store, self._fabric, self.clock = store, fabric, clock

    async def store(self, queue: Channel, failed: Sequence[FailedMessage]) -> bool:
        """Store messages of a queue in its dead-letter channel. May be repeated, on any server.

        Return True if all are stored, by this call or an earlier one: then terminate them. Return False if the dead-letter
        channel was deleted, the tenant's storage is full or NATS is away: then keep them, and call again later; some may be
        stored.
        """
        try:
            return await self._store_letters(queue, failed)
        except (OurFault, QuotaFull) as exc:
            log.warning("dead_letters.wait", tenant=queue.tenant_id, channel=queue.id, messages=len(failed), error=str(exc))
            return False

    async def _store_letters(self, queue: Channel, failed: Sequence[FailedMessage]) -> bool:
        # Read from the table, and not from a cache: a letter in a deleted channel would be lost.
        target = None if queue.dead_letter is None else await self._store.tenant(queue.tenant_id).channel(queue.dead_letter)
        if target is None:
            log.warning("dead_letters.no_channel", tenant=queue.tenant_id, channel=queue.id, messages=len(failed))
            return False
        tenant_log = await self._fabric.tenant(queue.tenant_id).connected_log()
        stored = await store_copies(tenant_log, [self._letter(queue, target.id, each) for each in failed])
        for one, letter in zip(failed, stored, strict=True):
            if letter.is_new:
                metrics.DEAD_LETTERS.of(one.reason.value, tenant=queue.tenant_id).add()
        return True

    def _letter(self, queue: Channel, to: ChannelId, one: FailedMessage) -> MarkedCopy:
        time, message_id = times.to_text(self.clock()), ids.new_id("msg")
        origin = DeadLetter(
            channel=queue.id,
            seq=one.seq,
            message_id=parse_head(one.envelope).message_id,
            reason=one.reason,
            deliveries=one.deliveries,
            time=time,
        )
        return MarkedCopy(
            subject=subjects.stored(to),
            envelope=dead_letter_envelope(one.envelope, message_id, origin),
            mark=subjects.dead_mark(queue.id, one.seq),
            message_id=message_id,
            sender=SENDER,
            time=time,
        )
