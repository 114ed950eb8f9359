"""Read the marks of dead-lettered messages and of redriven letters. `marked_copies` stores them."""

from __future__ import annotations

from artcafe.fabric.nats.jetstream import JetStream, StreamMessage, stream_message
from artcafe.fabric.tenant_log import BATCH_MESSAGES, STREAM, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject


async def find_mark(log: TenantLog, subject: Subject) -> StreamMessage | None:
    """Return the mark of this subject from the leader, or None if there is none. Raise `Unavailable`."""
    return await JetStream(log.connection).get_from_leader(STREAM, {"last_by_subj": subject})


async def find_marks(log: TenantLog, wanted: list[Subject]) -> dict[Subject, StreamMessage]:
    """Return the marks of at most 1,000 subjects. Any replica answers; a lagging one lacks the newest. Raise `Unavailable`."""
    found = map(stream_message, await JetStream(log.connection).get_direct(STREAM, {"multi_last": wanted}))
    return {each.subject: each for each in found}


async def moved_after(log: TenantLog, seq: Seq) -> dict[str, Seq]:
    """Return the oldest dead-lettered message of each queue, by the name of its consumer, of the letters stored above `seq`.

    Raise `Unavailable`.
    """
    found: dict[str, Seq] = {}
    while some := await log.following(subjects.DEAD_MARKS, seq, BATCH_MESSAGES):
        for each in some:
            consumer, moved = subjects.consumer_of_mark(each.subject), subjects.marked_seq(each.subject)
            found[consumer] = min(moved, found.get(consumer, moved))
        seq = some[-1].seq
    return found


async def redriven_marks(log: TenantLog, channel: ChannelId) -> dict[Seq, StreamMessage]:
    """Return the marks of a channel's redriven dead letters by the sequence of the letter.

    Any replica answers, also a lagging one, which lacks the newest. Raise `Unavailable`.
    """
    found: dict[Seq, StreamMessage] = {}
    seq = 0
    while some := await log.following(subjects.redriven_marks(channel), seq, BATCH_MESSAGES):
        found |= {subjects.marked_seq(each.subject): each for each in some}
        seq = some[-1].seq
    return found
