"""Copies of a tenant's streams on another NATS: unchanged, or message by message under other ids.

The target tenant is not in use meanwhile, since it does not exist yet. A copy lacks messages published here after their stream
was read; compare `CopiedStream` with the stream afterwards.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from tempfile import TemporaryFile

import msgspec

from artcafe.errors import LogRefused
from artcafe.fabric import snapshots
from artcafe.fabric.log_writer import LogWriter
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.snapshots import CHUNK_BYTES, StreamSnapshot
from artcafe.fabric.tenant_log import CONTINUES, STREAM, TenantLog, parse_continues
from artcafe.model import Cursor, Epoch, Seq
from artcafe.rules.start_position import LogLineage
from artcafe.rules.subjects import Subject
from artcafe.wire.envelopes import parse_envelope, sent_by
from artcafe.wire.replies import PublishReply


class CopiedStream(msgspec.Struct, frozen=True):
    """A stream at the target: its name, its messages, and the source's last sequence at the time of the copy."""

    stream: str
    messages: int
    last_seq: Seq
    was_there: bool = False


class ForeignStream(Exception):
    """The target has a stream of this name from another tenant or an earlier log. Nothing was changed."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream


async def copy_stream(source: NatsConnection, target: NatsConnection, stream: str, replicas: int) -> CopiedStream:
    """Copy a stream with its sequences, times and keys. A log becomes a new log that continues the source.

    May be repeated: a complete copy is kept, and an outdated one is replaced. Raise `ForeignStream`, and as `snapshots.restore`.
    """
    now = await snapshots.current(source, stream)
    there = await snapshots.current(target, stream)
    if now is not None and there is not None:
        if (end := _copied_up_to(there, now)) is None:
            raise ForeignStream(stream)
        if end == now.last_seq == there.last_seq and there.messages == now.messages:
            return CopiedStream(stream, there.messages, now.last_seq, was_there=True)
        await snapshots.remove(target, stream)
    with TemporaryFile() as spool:
        saved = await snapshots.save(source, stream, spool.write)
        spool.seek(0)
        wanted = saved.as_continuation()
        wanted = StreamSnapshot({**wanted.config, "num_replicas": replicas}, wanted.state)
        made = await snapshots.restore(target, wanted, iter(lambda: spool.read(CHUNK_BYTES), b""))
    if (made.last_seq, made.messages) != (saved.last_seq, saved.messages):
        raise LogRefused(0, f"the copy of {stream} has {made.messages} messages instead of {saved.messages}")
    return CopiedStream(stream, made.messages, saved.last_seq)


def _copied_up_to(there: StreamSnapshot, here: StreamSnapshot) -> Seq | None:
    """Return the last sequence up to which the target's stream is a copy of the source's, or None if it is not a copy."""
    if here.epoch is None:
        return there.last_seq if there.config.get("subjects") == here.config.get("subjects") else None
    (first, *_) = [*parse_continues(there.config.get("metadata", {}).get(CONTINUES, "")).items(), (None, 0)]
    return first[1] if first[0] == here.epoch else None


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
    def messages(self) -> int:
        return len(self._old)

    @property
    def end(self) -> Cursor:
        """Return the position of the last rewritten message."""
        return Cursor(epoch=self.epoch, seq=self._new[-1] if self._new else 0)

    def translate(self, cursor: Cursor) -> Cursor:
        """Return a cursor's position in the new log: the last rewritten message at or before it. A cursor without an epoch stays
        the same."""
        if cursor.epoch is None:
            return cursor
        behind = bisect_right(self._old, self._lineage.to_seq(cursor))
        return Cursor(epoch=self.epoch, seq=self._new[behind - 1] if behind else 0)


async def rewrite_log(
    source: NatsConnection,
    target: NatsConnection,
    subjects: Mapping[Subject, Subject],
    sender: Callable[[str], str],
    replicas: int,
    on_progress: Callable[[int], None] = lambda count: None,
) -> tuple[CopiedStream, SequenceMap]:
    """Rewrite a log: each message in its order, under the subject that `subjects` gives, from the sender that `sender` returns.

    Messages of other channels are omitted. Sequences begin at 1, and the returned `SequenceMap` translates old ones. Times within
    the messages stay, while their age starts anew. May be repeated, which begins from the start. `on_progress` is called with the
    number of messages just written. Raise `OutcomeUnknown` if NATS was lost in between, and `Unavailable`.
    """
    log, copy = TenantLog(source), TenantLog(target, replicas=replicas)
    state = await log.state()
    if state is None:
        return CopiedStream(STREAM, 0, 0), SequenceMap(LogLineage(None), None)
    if await copy.state() is not None:
        await copy.drop()
    made = SequenceMap(state.lineage, (await copy.ensure()).epoch)
    seq = 0
    async with asyncio.TaskGroup() as group:
        writer = LogWriter(copy)
        writing = group.create_task(writer.run())
        while seq < state.last_seq and (found := await log.all_after(seq)):
            some: list[tuple[Seq, asyncio.Future[PublishReply]]] = []
            for seq, subject, envelope in found:
                if seq <= state.last_seq and subject in subjects:
                    text = _from(envelope, sender)
                    some.append((seq, writer.submit(subjects[subject], text, "", None)))
            for old, done in some:
                made.add(old, (await done).seq or 0)
            on_progress(len(some))
        writing.cancel()
    return CopiedStream(STREAM, made.messages, state.last_seq), made


def _from(envelope: bytes, sender: Callable[[str], str]) -> bytes:
    old = parse_envelope(envelope).sender
    new = sender(old)
    return envelope if new == old else sent_by(envelope, new)
