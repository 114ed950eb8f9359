"""A tenant's scheduled messages: kept in its log, each under a subject of its own, until they move to their channels or are
cancelled.

The first message of such a subject is the scheduled one. The second is its end, `DELIVERED` or `CANCELLED`, and NATS stores it
only if nothing has followed the first (`Nats-Expected-Last-Subject-Sequence`). A delivery is stored in one atomic batch with its
end. So each message is either delivered once or cancelled, whichever servers try, and however often. Ended ones stay in the log
for some time: they answer repeats of a key, and the meter must pass over their sequences (decision record 50).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from artcafe.errors import LogRefused, NatsConnectionLost, NoResponder, Unanswered
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import unreachable
from artcafe.fabric.nats.jetstream import StreamMessage, as_batch, check_answer
from artcafe.fabric.queue_rewind import prepare_log
from artcafe.fabric.tenant_log import DEDUPE_WINDOW_S, TenantLog
from artcafe.model import ChannelId, Epoch, Seq
from artcafe.observe.logs import log
from artcafe.rules import ids, subjects
from artcafe.rules.subjects import Subject

DELIVERED: Final = b"delivered"
CANCELLED: Final = b"cancelled"
ANSWER_TIMEOUT_S: Final = 4.0
MOVED_AT_ONCE: Final = 400
MOVED_BYTES: Final = 2 << 20
"""Limits of one batch, which waits for the disk once."""
DENSE: Final = 3
"""Messages are read in bulk, at a tenth of the cost, if the log has at most this many from the first to the last for each."""
WRONG_LAST: Final = frozenset({10071, 10164})
"""NATS's codes if the last sequence of a subject is another one: the message has ended, or another server is just ending it."""
CANCEL_TRIES: Final = 3
KEEP_S: Final = DEDUPE_WINDOW_S + 300.0
"""How long an ended message stays in the log: its key may be repeated, also when NATS has restarted (contract, sentence 3)."""
SWEPT_AT_ONCE: Final = 200
READ_AGAIN_S: Final = 10.0
"""Least time between two reads of everything: 10,000 messages take some megabytes."""

_answer = msgspec.json.Decoder(dict[str, object])


class Scheduled(NamedTuple):
    """A scheduled message: when it is due, its sequence in the log, and its subject. It sorts by the order of delivery."""

    due: datetime
    seq: Seq
    subject: Subject

    @property
    def message_id(self) -> str:
        return subjects.scheduled_id(self.subject)


class _End(NamedTuple):
    """The end of a scheduled message: its sequence, `DELIVERED` or `CANCELLED`, and the monotonic time at which it was read."""

    scheduled: Scheduled
    seq: Seq
    kind: bytes
    read_at: float

    @property
    def delivered_seq(self) -> Seq | None:
        """The sequence of the delivered message, which is stored right before this end; None if the message was cancelled."""
        return self.seq - 1 if self.kind == DELIVERED else None


class ScheduledMessages:
    """The scheduled messages in one tenant's log, as read by the last `refresh`."""

    def __init__(self, tenant_log: TenantLog, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log, self._monotonic = tenant_log, monotonic
        self._waiting: dict[Subject, Scheduled] = {}
        self._ended: dict[Subject, _End] = {}
        self._epoch: Epoch | None = None
        self._read_to: Seq = 0
        self._reading = asyncio.Lock()
        self._read_again_at = float("-inf")
        self._called = self._answered = 0
        """The number of calls of `refresh`, and up to which of them the log was read after the call."""

    def __len__(self) -> int:
        """Return the number of messages that are neither delivered nor cancelled."""
        return len(self._waiting)

    async def refresh(self) -> None:
        """Read what was scheduled, delivered and cancelled since the last call, by any server. Raise `Unavailable`."""
        self._called += 1
        call = self._called
        async with self._reading:
            if call <= self._answered:  # Another call has begun to read after this one.
                return
            answers = self._called
            state = await self._log.state()
            epoch = None if state is None else state.epoch
            if epoch != self._epoch:
                self._waiting, self._ended, self._read_to, self._epoch = {}, {}, 0, epoch
            while self._log.has_scheduled and (found := await self._log.following(subjects.SCHEDULED, self._read_to)):
                for each in found:
                    self._note(each)
                self._read_to = found[-1].seq
                await asyncio.sleep(0)
            self._answered = answers

    async def read_again(self) -> None:
        """Read everything again, at most every `READ_AGAIN_S`: what was removed with its channel is not scheduled any more. Raise
        `Unavailable`."""
        if self._monotonic() < self._read_again_at:
            return
        async with self._reading:
            self._read_again_at = self._monotonic() + READ_AGAIN_S
            self._waiting, self._read_to = {}, 0
        await self.refresh()

    def _note(self, message: StreamMessage) -> None:
        if message.data in (DELIVERED, CANCELLED):
            self._end(message.subject, message.seq, message.data)
            return
        due = ids.time_of(subjects.scheduled_id(message.subject), "msg")
        if message.subject not in self._ended and due is not None:
            self._waiting[message.subject] = Scheduled(due.astimezone(UTC), message.seq, message.subject)

    def _end(self, subject: Subject, seq: Seq, kind: bytes) -> None:
        scheduled = self._waiting.pop(subject, None)
        if scheduled is not None:
            self._ended[subject] = _End(scheduled, seq, kind, self._monotonic())

    # --- queries ---

    def next_due(self) -> datetime | None:
        """Return when the next message is due; None if none is scheduled."""
        return min(self._waiting.values())[0] if self._waiting else None

    def times(self) -> list[datetime]:
        """Return when the scheduled messages are due, in no order."""
        return [each.due for each in self._waiting.values()]

    def due(self, now: datetime) -> list[Scheduled]:
        """Return the messages that are due, in the order of their delivery."""
        return sorted(each for each in self._waiting.values() if each.due <= now)

    def of_channel(self, channel: ChannelId) -> list[Scheduled]:
        """Return a channel's scheduled messages, in the order of their delivery."""
        stored = subjects.stored(channel)
        return sorted(each for each in self._waiting.values() if subjects.delivered(each.subject) == stored)

    def find(self, channel: ChannelId, message_id: str) -> Scheduled | None:
        """Return a scheduled message of a channel, also one that has ended in the last minutes; None if there is none."""
        subject = subjects.scheduled(channel, message_id)
        end = self._ended.get(subject)
        return self._waiting.get(subject) if end is None else end.scheduled

    async def read(self, scheduled: Scheduled) -> bytes | None:
        """Return the envelope of a scheduled message, or None if it was removed. Raise `Unavailable`."""
        envelope = await self._log.read(scheduled.seq)
        if envelope is None:
            self._waiting.pop(scheduled.subject, None)
        return envelope

    # --- changes ---

    async def deliver(self, due: Sequence[Scheduled]) -> int:
        """Move messages to their channels, in this order, and return how many this call moved.

        Another server may have moved or cancelled some of them. Raise `Unavailable`, after which the next `refresh` shows what
        was done, and `QuotaFull`.
        """
        moved, size, group = 0, 0, list[tuple[Scheduled, bytes]]()
        async for each, envelope in self._envelopes(due):
            if group and (len(group) >= MOVED_AT_ONCE or size + len(envelope) > MOVED_BYTES):
                moved += await self._move(group)
                size, group = 0, []
            group.append((each, envelope))
            size += len(envelope)
        return moved + (await self._move(group) if group else 0)

    async def _envelopes(self, due: Sequence[Scheduled]) -> AsyncIterator[tuple[Scheduled, bytes]]:
        """Yield the messages that were not removed, with their envelopes. Raise `Unavailable`."""
        for first in range(0, len(due), MOVED_AT_ONCE):
            some = due[first : first + MOVED_AT_ONCE]
            found = await self._read_dense(sorted(each.seq for each in some))
            for each in some:
                envelope = found.get(each.seq)
                # A replica that lags has not all of them, and a removed one is noted.
                envelope = await self.read(each) if envelope is None else envelope
                if envelope is not None:
                    yield each, envelope

    async def _read_dense(self, seqs: Sequence[Seq]) -> dict[Seq, bytes]:
        """Return the envelopes at these sequences, as far as they are close to one another, and up to `MOVED_BYTES`."""
        found, size, after = dict[Seq, bytes](), 0, seqs[0] - 1
        if seqs[-1] - after > DENSE * len(seqs):
            return found
        while after < seqs[-1] and size < MOVED_BYTES:
            messages = await self._log.following(subjects.SCHEDULED, after, seqs[-1] - after)
            if not messages:
                break
            found |= {each.seq: each.data for each in messages}
            size += sum(len(each.data) for each in messages)
            after = messages[-1].seq
        return found

    async def _move(self, group: list[tuple[Scheduled, bytes]]) -> int:
        """Move messages in one batch. NATS rejects a whole batch for one message that has ended: its halves are then moved."""
        batch: list[tuple[Subject, str, bytes]] = []
        for each, envelope in group:
            batch.append((subjects.delivered(each.subject), "", envelope))
            batch.append((each.subject, _after(each.seq), DELIVERED))
        answer = await self._store(as_batch(batch))
        if answer.get("error") is None:
            for back, (each, _) in enumerate(reversed(group)):
                self._end(each.subject, int(str(answer["seq"])) - 2 * back, DELIVERED)
            return len(group)
        if len(group) > 1:
            middle = len(group) // 2
            return await self._move(group[:middle]) + await self._move(group[middle:])
        try:
            check_answer(answer)
        except LogRefused as exc:
            if exc.error_code not in WRONG_LAST:
                log.warning("scheduled_messages.refused", subject=group[0][0].subject, error=str(exc))
        except NoResponder as exc:
            raise unreachable() from exc
        return 0

    async def cancel(self, scheduled: Scheduled) -> Seq | None:
        """Cancel a message, and return None; or return the sequence of the message if it was delivered before. May be repeated.

        Raise `Unavailable`, `Unanswered` if it is unknown what happened, or `QuotaFull`.
        """
        for _ in range(CANCEL_TRIES):
            end = self._ended.get(scheduled.subject)
            if end is not None:
                return end.delivered_seq
            try:
                answer = await self._store([OutgoingMessage(scheduled.subject, _after(scheduled.seq), CANCELLED)])
                check_answer(answer)
                self._end(scheduled.subject, int(str(answer["seq"])), CANCELLED)
                return None
            except LogRefused as exc:
                if exc.error_code not in WRONG_LAST:
                    raise
            except NoResponder as exc:
                raise unreachable() from exc
            await self.refresh()
        raise Unanswered("the message log (NATS)")

    async def _store(self, messages: Sequence[OutgoingMessage]) -> dict[str, object]:
        """Store messages and return NATS's answer. Raise `Unavailable` without one: they may be stored."""
        if not self._log.is_prepared:
            await prepare_log(self._log)
        try:
            answer = await self._log.connection.request_last(messages, timeout_s=ANSWER_TIMEOUT_S)
        except (NatsConnectionLost, TimeoutError, NoResponder) as exc:
            raise Unanswered("the message log (NATS)") from exc
        return _answer.decode(answer.data)

    async def sweep(self, counted_to: Seq) -> None:
        """Remove messages that ended some time ago, and that the meter has passed. May be repeated. Raise `Unavailable`."""
        before = self._monotonic() - KEEP_S
        old = [subject for subject, end in self._ended.items() if end.seq <= counted_to and end.read_at < before]
        for subject in old[:SWEPT_AT_ONCE]:
            await self._log.purge_subject(subject)
            del self._ended[subject]


def _after(seq: Seq) -> str:
    """Return the NATS header of a message that must follow the one at `seq` in its subject."""
    return f"Nats-Expected-Last-Subject-Sequence: {seq}\r\n"
