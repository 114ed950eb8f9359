"""A tenant's streams from one NATS to another: as they are, or message by message under other ids.

The other end is not in use meanwhile: its tenant is not there yet. What is published here after a stream was read is not in the
copy; whoever copies compares `CopiedStream` with the stream afterwards.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from tempfile import TemporaryFile
from typing import Final

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

WINDOW: Final = 2048
"""Messages that are on their way at once when a log is written again."""


class CopiedStream(msgspec.Struct, frozen=True):
    """A stream that stands at the other end now: its name, what it has, and where it ended when it was read."""

    stream: str
    messages: int
    last_seq: Seq
    was_there: bool = False


class ForeignStream(Exception):
    """The other end has a stream of this name, of another tenant or of an earlier life of it; nothing was changed."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.stream = stream


async def copy_stream(source: NatsConnection, target: NatsConnection, stream: str, replicas: int) -> CopiedStream:
    """Copies a stream with its sequences, times and keys; a log becomes another log, which knows that it continues this one.

    May be repeated: a copy that is whole is left, and one of an earlier state is made anew. Raises `ForeignStream`, and as
    `snapshots.restore`.
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
        raise LogRefused(0, f"{stream} came over with {made.messages} messages and not {saved.messages}")
    return CopiedStream(stream, made.messages, saved.last_seq)


def _copied_up_to(there: StreamSnapshot, here: StreamSnapshot) -> Seq | None:
    """Up to which sequence the stream there is a copy of this one; None where it is none."""
    if here.epoch is None:
        return there.last_seq if there.config.get("subjects") == here.config.get("subjects") else None
    (first, *_) = [*parse_continues(there.config.get("metadata", {}).get(CONTINUES, "")).items(), (None, 0)]
    return first[1] if first[0] == here.epoch else None


class SequenceMap:
    """Which sequence of the new log each place in the old one means."""

    def __init__(self, life: LogLineage, epoch: Epoch | None) -> None:
        self._life, self.epoch = life, epoch
        self._old, self._new = array("Q"), array("Q")

    def note(self, old: Seq, new: Seq) -> None:
        """The message at `old` stands at `new`; both rise from call to call."""
        self._old.append(old)
        self._new.append(new)

    @property
    def messages(self) -> int:
        return len(self._old)

    def place_of(self, cursor: Cursor) -> Cursor:
        """The same place in the new log: the last message at or before it that is there. One of no log stays so."""
        if cursor.epoch is None:
            return cursor
        behind = bisect_right(self._old, self._life.to_seq(cursor))
        return Cursor(epoch=self.epoch, seq=self._new[behind - 1] if behind else 0)


async def rewrite_log(
    source: NatsConnection,
    target: NatsConnection,
    subjects: Mapping[Subject, Subject],
    sender: Callable[[str], str],
    replicas: int,
    told: Callable[[int], None] = lambda count: None,
) -> tuple[CopiedStream, SequenceMap]:
    """Writes a log again, each message in its order under another subject, and from another sender where `sender` says so.

    Messages of channels that are not among the `subjects` are left out. Sequences begin at 1, and are told by what is returned;
    times within the messages stay, their age begins anew. May be repeated, which begins from the beginning. Raises
    `OutcomeUnknown` where NATS was lost on the way, and `Unavailable`. `told` gets how many more are done.
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
                made.note(old, (await done).seq or 0)
            told(len(some))
        writing.cancel()
    return CopiedStream(STREAM, made.messages, state.last_seq), made


def _from(envelope: bytes, sender: Callable[[str], str]) -> bytes:
    old = parse_envelope(envelope).sender
    new = sender(old)
    return envelope if new == old else sent_by(envelope, new)
