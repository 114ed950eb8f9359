"""Send dead letters back to their queues: one, all, or one after another until one of them fails again.

Each letter is sent back once, also if the command is repeated, or runs on several servers at once: the message and the mark of
its letter are stored together, and NATS refuses a second mark (`fabric.marked_copies`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import ChannelNotFound, Conflict, DeadLetterNotFound
from artcafe.fabric.fabric import Fabric
from artcafe.fabric.marked_copies import MOST_COPIES, MarkedCopy, StoredCopy, store_copies
from artcafe.fabric.marks import find_mark, redriven_marks
from artcafe.fabric.nats.jetstream import StreamMessage
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, Principal, Record, Seq
from artcafe.observe import metrics
from artcafe.observe.clock import Clock
from artcafe.rules import access, ids, subjects, times
from artcafe.rules.access import Action
from artcafe.services.audit import Audit
from artcafe.tables.store import Store
from artcafe.tables.tenant_store import TenantStore
from artcafe.wire.envelopes import DeadLetter, Envelope, Redriven, parse_envelope, parse_head, redriven_envelope

MOST_LETTERS: Final = 1000
"""Letters of one answer. The caller continues after the last one."""
MOST_S: Final = 10.0
"""How long one request sends letters back before it answers that there are more."""
BATCH_BYTES: Final = 4 << 20
"""The most bytes of letters in memory."""
MAX_WAIT_S: Final = 25
"""How long one request waits for the outcome of a redriven message."""
LOOK_S: Final = 0.25
"""Seconds between two looks at the outcome of a redriven message."""


class LetterStatus(StrEnum):
    """What became of a dead letter."""

    REDRIVEN = "redriven"
    """It was sent back by this request."""
    REDRIVEN_BEFORE = "redriven_before"
    """It was sent back by an earlier request, or by another one at the same time, and not again."""
    QUEUE_DELETED = "queue_deleted"
    """Its queue was deleted, so it stays."""
    WAITING = "waiting"
    """It was sent back, and its message is neither done nor dead-lettered yet."""
    DONE = "done"
    """It was sent back, and its message was acknowledged."""
    FAILED = "failed"
    """It was sent back, and its message was dead-lettered again."""


class RedrivenLetter(Record, frozen=True, kw_only=True):
    """A dead letter by its sequence, its queue, and the message sent back there; None if none was."""

    seq: Seq
    channel: ChannelId
    status: LetterStatus
    redriven_seq: Seq | None = None
    message_id: str | None = None


class RedriveResult(Record, frozen=True, kw_only=True):
    """What one request did. To continue, pass `after` and `up_to`; without `has_more` there is nothing to continue.

    `up_to` is the end of the log when the redrive began: later letters, such as those of messages that failed again, are left.
    """

    dead_letter: ChannelId
    items: tuple[RedrivenLetter, ...]
    after: Seq
    up_to: Seq
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RedriveRange:
    """The letters to send back: above `after` and up to `up_to` (None: the end of the log now).

    With `until_failure` each letter waits for the one before to be done, for at most `wait_s` in one request, and a failure ends
    the redrive; the letter at `after` is the first to wait for.
    """

    after: Seq = 0
    up_to: Seq | None = None
    until_failure: bool = False
    wait_s: float = MAX_WAIT_S


class _Letter(NamedTuple):
    """A dead letter: `stored` is its encoded envelope, `origin` the message that failed."""

    seq: Seq
    envelope: Envelope
    stored: bytes
    origin: DeadLetter


@dataclass(slots=True)
class _Redrive:
    """One request: the dead-letter channel, the queue whose letters are asked for (None: of every queue), and its log."""

    principal: Principal
    tenant: TenantStore
    channel: ChannelId
    queue: ChannelId | None
    log: TenantLog
    queues: dict[str, bool] = field(default_factory=dict)
    """Whether each queue exists, as read in this request."""

    async def letters(self, after: Seq, up_to: Seq) -> AsyncIterator[_Letter]:
        """Yield the dead letters in a range of the channel, oldest first."""
        while found := await self.log.after(self.channel, after):
            for one in found:
                after = one.seq
                if after > up_to:
                    return
                if letter := self._letter(one.seq, one.envelope):
                    yield letter

    async def letter(self, seq: Seq) -> _Letter:
        """Return the dead letter at a sequence. Raise DeadLetterNotFound."""
        found = await self.log.after(self.channel, seq - 1, most=1)
        letter = self._letter(seq, found[0].envelope) if found and found[0].seq == seq else None
        if letter is None:
            raise DeadLetterNotFound(str(seq))
        return letter

    def _letter(self, seq: Seq, stored: bytes) -> _Letter | None:
        """Return a message as a dead letter; None for another message, and for a letter of another queue."""
        envelope = parse_envelope(stored)
        origin = envelope.dead_letter
        if origin is None or self.queue not in (None, origin.channel):
            return None
        return _Letter(seq, envelope, stored, origin)

    async def has_queue(self, letter: _Letter) -> bool:
        """Return whether the queue of a letter exists."""
        known = self.queues.get(letter.origin.channel)
        if known is None:
            known = self.queues[letter.origin.channel] = await self.tenant.channel(letter.origin.channel) is not None
        return known


class Redrives:
    """Sends dead letters back, for members."""

    def __init__(self, store: Store, fabric: Fabric, audit: Audit, clock: Clock) -> None:
        self._store, self._fabric, self._audit, self._clock = store, fabric, audit, clock

    async def redrive_one(self, principal: Principal, channel_id: str, seq: Seq) -> RedriveResult:
        """Send the letter at a sequence of the dead-letter channel back to its queue. May be repeated.

        `channel_id` is a queue or a dead-letter channel. Raises Forbidden, ChannelNotFound, DeadLetterNotFound, Conflict for a
        channel without dead letters and for a deleted queue, QuotaFull and Unavailable.
        """
        redrive = await self._open(principal, channel_id)
        async with self._audit.action(principal, "channel.redrive", redrive.channel, seq=str(seq)) as audited:
            letter = await redrive.letter(seq)
            if not await redrive.has_queue(letter):
                raise Conflict(f"the queue {letter.origin.channel} of this dead letter was deleted; publish its data elsewhere")
            (item,) = await self._send_back(redrive, [letter])
            audited.facts["status"] = item.status.value
        return RedriveResult(dead_letter=redrive.channel, items=(item,), after=seq, up_to=seq, has_more=False)

    async def redrive_all(self, principal: Principal, channel_id: str, wanted: RedriveRange) -> RedriveResult:
        """Send letters back for the first time, oldest first, as many as one request may. May be repeated.

        Raises as `redrive_one` does, except DeadLetterNotFound; a letter of a deleted queue is skipped.
        """
        redrive = await self._open(principal, channel_id)
        facts = {"after": str(wanted.after)} | ({"until": "failure"} if wanted.until_failure else {})
        async with self._audit.action(principal, "channel.redrive", redrive.channel, **facts) as audited:
            state = await redrive.log.state()
            up_to = wanted.up_to if wanted.up_to is not None else 0 if state is None else state.last_seq
            run = self._until_failure if wanted.until_failure else self._all
            items: list[RedrivenLetter] = []
            try:
                after = await run(redrive, wanted, up_to, items)
            finally:
                redriven = sum(item.status not in (LetterStatus.REDRIVEN_BEFORE, LetterStatus.QUEUE_DELETED) for item in items)
                audited.facts["letters"] = str(redriven)
        return RedriveResult(
            dead_letter=redrive.channel,
            items=tuple(items),
            after=up_to if after is None else after,
            up_to=up_to,
            has_more=after is not None,
        )

    async def _open(self, principal: Principal, channel_id: str) -> _Redrive:
        """Return the request's channels and log. Raises Forbidden, ChannelNotFound, Conflict and Unavailable."""
        access.check(principal, Action.REDRIVE)
        tenant = self._store.tenant(principal.tenant_id)
        channel = await tenant.channel(channel_id)
        if channel is None:
            raise ChannelNotFound(channel_id)
        log = await self._fabric.tenant(principal.tenant_id).connected_log()
        if channel.is_dead_letter:
            return _Redrive(principal, tenant, channel.id, None, log)
        if channel.dead_letter is None or await tenant.channel(channel.dead_letter) is None:
            raise Conflict("this channel is neither a dead-letter channel nor a queue that has one; PATCH a queue's dead_letter")
        return _Redrive(principal, tenant, channel.dead_letter, channel.id, log)

    async def _all(self, redrive: _Redrive, wanted: RedriveRange, up_to: Seq, items: list[RedrivenLetter]) -> Seq | None:
        """Send letters back, and note each in `items`. Return the sequence after which to continue; None at the end."""
        ends_at, marks = time.monotonic() + MOST_S, await redriven_marks(redrive.log, redrive.channel)
        some: list[_Letter] = []
        size_bytes = 0
        async for letter in redrive.letters(wanted.after, up_to):
            if letter.seq in marks:
                continue
            if not await redrive.has_queue(letter):
                items.append(_skipped(letter))
                continue
            some.append(letter)
            size_bytes += len(letter.stored)
            if len(some) >= MOST_COPIES or size_bytes >= BATCH_BYTES:
                items += await self._send_back(redrive, some)
                some, size_bytes = [], 0
                if len(items) >= MOST_LETTERS or time.monotonic() >= ends_at:
                    return letter.seq
        if some:
            items += await self._send_back(redrive, some)
        return None

    async def _until_failure(
        self, redrive: _Redrive, wanted: RedriveRange, up_to: Seq, items: list[RedrivenLetter]
    ) -> Seq | None:
        """As `_all`, but one after the other. A letter that is waiting or has failed is the last one in `items`.

        A letter that was sent back after `up_to` is one of this redrive, whose answer was lost, or of another at the same time.
        """
        ends_at, marks = time.monotonic() + wanted.wait_s, await redriven_marks(redrive.log, redrive.channel)
        async for letter in redrive.letters(max(wanted.after - 1, 0), up_to):
            mark = marks.get(letter.seq)
            if letter.seq <= wanted.after and mark is None:
                continue
            if letter.seq > wanted.after and mark is not None and mark.seq <= up_to:
                continue
            if not await redrive.has_queue(letter):
                items.append(_skipped(letter))
                continue
            if mark is not None:
                sent = _sent_before(letter, mark)
            else:
                (sent,) = await self._send_back(redrive, [letter])
            item = await self._outcome(redrive, sent, ends_at)
            items.append(item)
            if item.status is LetterStatus.WAITING:
                return item.seq
            if item.status is LetterStatus.FAILED:
                return None
        return None

    async def _outcome(self, redrive: _Redrive, sent: RedrivenLetter, ends_at: float) -> RedrivenLetter:
        """Wait for the outcome of a redriven message, at most until a monotonic time."""
        assert sent.redriven_seq is not None
        while True:
            # In this order: a message gets the mark of a dead letter before its queue is done with it.
            is_done = await QueueConsumer(redrive.log, sent.channel).is_done(sent.redriven_seq)
            if await find_mark(redrive.log, subjects.dead_mark(sent.channel, sent.redriven_seq)) is not None:
                return _with_status(sent, LetterStatus.FAILED)
            if is_done:
                return _with_status(sent, LetterStatus.DONE)
            if time.monotonic() >= ends_at:
                return _with_status(sent, LetterStatus.WAITING)
            await asyncio.sleep(LOOK_S)

    async def _send_back(self, redrive: _Redrive, letters: list[_Letter]) -> list[RedrivenLetter]:
        """Store the messages of letters in their queues again, unless they were sent back before."""
        copies = [self._copy(redrive, letter) for letter in letters]
        stored = await store_copies(redrive.log, copies)
        metrics.REDRIVEN.of(tenant=redrive.tenant.id).add(sum(one.is_new for one in stored))
        return [_redriven(letter, one) for letter, one in zip(letters, stored, strict=True)]

    def _copy(self, redrive: _Redrive, letter: _Letter) -> MarkedCopy:
        """Return the message of a letter for its queue, with the mark of the letter."""
        queue, now, message_id = ChannelId(letter.origin.channel), times.to_text(self._clock()), ids.new_id("msg")
        before = letter.envelope.redriven
        origin = Redriven(
            channel=redrive.channel,
            seq=letter.seq,
            message_id=letter.origin.message_id,
            times=1 if before is None else before.times + 1,
            by=redrive.principal.sender,
            time=now,
        )
        return MarkedCopy(
            subject=subjects.stored(queue),
            envelope=redriven_envelope(letter.stored, message_id, origin),
            mark=subjects.redriven_mark(redrive.channel, letter.seq),
            message_id=message_id,
            sender=redrive.principal.sender,
            time=now,
        )


def _redriven(letter: _Letter, stored: StoredCopy) -> RedrivenLetter:
    """Return a letter whose message is stored in its queue, by this request or an earlier one."""
    return RedrivenLetter(
        seq=letter.seq,
        channel=ChannelId(letter.origin.channel),
        status=LetterStatus.REDRIVEN if stored.is_new else LetterStatus.REDRIVEN_BEFORE,
        redriven_seq=stored.seq,
        message_id=stored.message_id,
    )


def _sent_before(letter: _Letter, mark: StreamMessage) -> RedrivenLetter:
    """Return the letter with this mark, sent back before. Its message is stored just before the mark."""
    return _redriven(letter, StoredCopy(mark.seq - 1, parse_head(mark.data).message_id, is_new=False))


def _skipped(letter: _Letter) -> RedrivenLetter:
    """Return a letter that stays, because its queue was deleted."""
    return RedrivenLetter(seq=letter.seq, channel=ChannelId(letter.origin.channel), status=LetterStatus.QUEUE_DELETED)


def _with_status(item: RedrivenLetter, status: LetterStatus) -> RedrivenLetter:
    return msgspec.structs.replace(item, status=status)
