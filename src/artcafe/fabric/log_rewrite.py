"""Copy of a tenant's log under other ids, message by message: for a copy of the tenant beside the original.

Messages, their marks (`marked_copies`) and scheduled messages are copied, and the positions of queues. Sequences begin at 1.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from artcafe.errors import OutcomeUnknown
from artcafe.fabric.log_writer import LogWriter
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.scheduled_messages import ScheduledMessages
from artcafe.fabric.stream_copy import CopiedStream
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.model import ChannelId, Cursor, Epoch, QueueSettings, Seq
from artcafe.rules import subjects
from artcafe.rules.start_position import LogLineage
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import NewNames, renamed
from artcafe.wire.replies import PublishReply

SCHEDULED_AT_ONCE: Final = 100
"""Scheduled messages that are written at once, each of at most 64 KiB."""


@dataclass(frozen=True, slots=True)
class LogNames:
    """The names in the copy: of channels and inboxes by their old ids, of a message's sender, and which channels are queues."""

    channels: Mapping[ChannelId, ChannelId]
    sender: Callable[[str], str]
    queues: Mapping[ChannelId, QueueSettings]


class SequenceMap:
    """The sequences of a rewritten log by those of the old one."""

    def __init__(self, lineage: LogLineage, epoch: Epoch | None) -> None:
        self._lineage, self.epoch = lineage, epoch
        self._old, self._new = array("Q"), array("Q")

    def add(self, old: Seq, new: Seq) -> None:
        """Note that the message at `old` is now at `new`; both rise from call to call."""
        self._old.append(old)
        self._new.append(new)

    @property
    def end(self) -> Cursor:
        """Return the position of the last rewritten message."""
        return Cursor(epoch=self.epoch, seq=self._new[-1] if self._new else 0)

    def translate(self, cursor: Cursor) -> Cursor:
        """Return a cursor's position in the new log: the last rewritten message at or before it. A cursor without an epoch stays
        the same."""
        if cursor.epoch is None:
            return cursor
        return Cursor(epoch=self.epoch, seq=self.up_to(self._lineage.to_seq(cursor)))

    def up_to(self, old: Seq) -> Seq:
        """Return the new sequence of the last rewritten message at or before an old sequence; 0 if there is none."""
        behind = bisect_right(self._old, old)
        return self._new[behind - 1] if behind else 0

    def find(self, old: Seq) -> Seq | None:
        """Return the new sequence of the message at an old one, or None if that was not rewritten."""
        at = bisect_left(self._old, old)
        return self._new[at] if at < len(self._old) and self._old[at] == old else None


async def rewrite_log(
    source: NatsConnection,
    target: NatsConnection,
    names: LogNames,
    replicas: int,
    on_progress: Callable[[int], None] = lambda count: None,
) -> tuple[CopiedStream, SequenceMap]:
    """Rewrite a log with these names, in its order. Messages of other channels are omitted.

    The returned `SequenceMap` translates old sequences. Times within the messages stay, while their age starts anew. Scheduled
    messages follow the others; what was done of a queue is done in the copy, up to the first message that was not. May be
    repeated, which begins from the start. `on_progress` is called with the number of messages just written. Raise
    `OutcomeUnknown` if NATS was lost in between, and `Unavailable`.
    """
    log, copy = TenantLog(source), TenantLog(target, replicas=replicas)
    state = await log.state()
    if state is None:
        return CopiedStream(STREAM, 0, 0), SequenceMap(LogLineage(None), None)
    if await copy.state() is not None:
        await copy.drop()
    made = SequenceMap(state.lineage, (await copy.ensure()).epoch)
    async with asyncio.TaskGroup() as group:
        writer = LogWriter(copy)
        writing = group.create_task(writer.run())
        rewriting = _Rewriting(log, copy, writer, names, made)
        seq = 0
        while seq < state.last_seq and (found := await log.all_after(seq)):
            await rewriting.write([each for each in found if each[0] <= state.last_seq])
            seq = found[-1][0]
            on_progress(rewriting.take_messages())
        scheduled = await rewriting.write_scheduled()
        writing.cancel()
    await rewriting.place_queues()
    return CopiedStream(STREAM, rewriting.messages, state.last_seq, scheduled=scheduled), made


class _Rewriting:
    """A rewrite in progress. The copy has no other writer, so that its sequences are known before the messages are stored."""

    def __init__(self, log: TenantLog, copy: TenantLog, writer: LogWriter, names: LogNames, made: SequenceMap) -> None:
        self._log, self._copy, self._writer, self._names, self._made = log, copy, writer, names, made
        self._subjects = {subjects.stored(old): subjects.stored(new) for old, new in names.channels.items()}
        self._envelopes = NewNames(names.sender, self._channel, lambda seq: made.find(seq) or 0)
        self.messages = self._reported = 0

    def take_messages(self) -> int:
        """Return the number of messages written since the last call, without marks."""
        new, self._reported = self.messages - self._reported, self.messages
        return new

    async def write(self, found: list[tuple[Seq, Subject, bytes]]) -> None:
        """Write stored messages and marks, and wait until they are stored."""
        some: list[tuple[Seq, asyncio.Future[PublishReply]]] = []
        for old, subject, envelope in found:
            new_subject = self._subject(subject)
            if new_subject is None:
                continue
            new = self._made.end.seq + 1
            some.append((new, self._writer.submit(new_subject, renamed(envelope, self._envelopes), "", None)))
            self._made.add(old, new)
            self.messages += subject in self._subjects
        for new, done in some:
            if (await done).seq != new:
                raise OutcomeUnknown

    async def write_scheduled(self) -> int:
        """Write the scheduled messages that have not ended, and return their number."""
        scheduled = ScheduledMessages(self._log)
        await scheduled.refresh()
        prefixes = {subjects.scheduled_of(old)[:-1]: subjects.scheduled_of(new)[:-1] for old, new in self._names.channels.items()}
        written: list[asyncio.Future[PublishReply]] = []
        for each in scheduled.due(datetime.max.replace(tzinfo=UTC)):
            message_id = each.message_id
            prefix = prefixes.get(each.subject.removesuffix(message_id))
            envelope = None if prefix is None else await scheduled.read(each)
            if envelope is None:
                continue
            if not written:
                await self._copy.accept_scheduled()
            subject = Subject(f"{prefix}{message_id}")
            written.append(self._writer.submit(subject, renamed(envelope, self._envelopes), message_id, None, has_seq=False))
            if len(written) % SCHEDULED_AT_ONCE == 0:
                await written[-1]
        for done in written:
            await done
        return len(written)

    async def place_queues(self) -> None:
        """Let each queue continue after the messages that are done, up to the first one that is not."""
        for old, settings in self._names.queues.items():
            info = await QueueConsumer(self._log, old).info()
            if info is not None:
                done_to = self._made.up_to(info["ack_floor"]["stream_seq"])
                await QueueConsumer(self._copy, self._names.channels[old]).begin_after(done_to, settings)

    def _subject(self, subject: Subject) -> Subject | None:
        """Return the new subject of a message or mark; None for one that is not copied, such as a mark at a removed message."""
        stored = self._subjects.get(subject)
        if stored is not None:
            return stored
        mark = subjects.parse_mark(subject)
        channel = None if mark is None else self._subjects.get(mark.stored)
        if mark is None or channel is None or (seq := self._made.find(mark.seq)) is None:
            return None
        return Subject(f"{channel}.{mark.kind}.{seq}")

    def _channel(self, channel: str) -> str:
        return self._names.channels.get(ChannelId(channel), channel)
