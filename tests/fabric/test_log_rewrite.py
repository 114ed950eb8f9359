"""Copy of a log under other ids: with dead letters, their marks, scheduled messages and positions of queues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Raw

from artcafe.fabric.log_rewrite import LogNames, rewrite_log
from artcafe.fabric.marked_copies import MarkedCopy, store_copies
from artcafe.fabric.marks import find_mark, redriven_marks
from artcafe.fabric.queue_consumer import QueueConsumer
from artcafe.fabric.scheduled_messages import ScheduledMessages
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId, Cursor, QueueSettings
from artcafe.rules import ids, subjects
from artcafe.wire.envelopes import (
    DeadLetter,
    Redriven,
    dead_letter_envelope,
    envelope,
    is_copy,
    parse_envelope,
    redriven_envelope,
)
from artcafe.wire.frames import Publish
from tests.fabric.nats_env import A, B, Nats, Writer, a_tenant, within, writing

TIME = "2026-11-28T10:59:59.999Z"
DUE = datetime(2026, 12, 24, 12, tzinfo=UTC)
INBOX, NEW_INBOX = ChannelId("@agt_1"), ChannelId("@agt_new")
OMITTED = ChannelId("chn_omitted")
NAMES = LogNames(
    {A: ChannelId("chn_new_a"), B: ChannelId("chn_new_b"), INBOX: NEW_INBOX},
    lambda sender: "agt_new" if sender == "agt_1" else sender,
    {A: QueueSettings()},
)


def message(number: int, reply_to: str | None = None) -> bytes:
    return envelope(Publish(A, Raw(b"%d" % number), reply_to=reply_to), message_id=f"msg_{number}", sender="agt_1", time=TIME)


async def publish(writer: Writer, channel: ChannelId, stored: bytes) -> int:
    return (await within(writer.log_writer.submit(subjects.stored(channel), stored, "", None))).seq or 0


async def schedule(writer: Writer, channel: ChannelId, due: datetime) -> str:
    message_id = ids.id_at("msg", due)
    subject = subjects.scheduled(channel, message_id)
    stored = message(7, reply_to=channel)
    await within(writer.log_writer.submit(subject, stored, message_id, None, has_seq=False))
    return message_id


async def fill(writer: Writer) -> None:
    """Store: two tasks, one of them dead-lettered and redriven; a direct message; and messages that are not copied."""
    first = await publish(writer, A, message(1))
    await publish(writer, OMITTED, message(2))
    failed = message(3, reply_to=INBOX)
    seq = await publish(writer, A, failed)
    origin = DeadLetter(A, seq, "msg_3", "rejected", 1, TIME)
    letter = MarkedCopy(
        subjects.stored(B), dead_letter_envelope(failed, "msg_4", origin), subjects.dead_mark(A, seq), "msg_4", "artcafe", TIME
    )
    (stored,) = await store_copies(writer.log, [letter])
    back = redriven_envelope(letter.envelope, "msg_5", Redriven(B, stored.seq, "msg_3", 1, "usr:bob", TIME))
    redriven = MarkedCopy(subjects.stored(A), back, subjects.redriven_mark(B, stored.seq), "msg_5", "usr:bob", TIME)
    removed = MarkedCopy(subjects.stored(B), letter.envelope, subjects.dead_mark(A, 4000), "msg_4", "artcafe", TIME)
    await store_copies(writer.log, [redriven, removed])
    await publish(writer, INBOX, message(6))
    await QueueConsumer(writer.log, A).begin_after(first, QueueSettings())


async def test_rewritten_log_has_every_message_under_the_new_names_with_its_marks_and_queue_positions(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as source, nats.connection(a_tenant()) as target, writing(source) as writer:
        await writer.publish(0, channel=OMITTED)
        await fill(writer)
        copied, made = await within(rewrite_log(source, target, NAMES, 1))
        log = TenantLog(target)
        state = await log.state()
        assert state is not None
        found = {
            channel: [(each.seq, parse_envelope(each.envelope)) for each in await log.after(channel, 0)]
            for channel in (A, B, INBOX, OMITTED, *NAMES.channels.values())
        }
        queue, dead = NAMES.channels[A], NAMES.channels[B]
        assert [(seq, each.message_id, bytes(each.data)) for seq, each in found[queue]] == [
            (1, "msg_1", b"1"),
            (2, "msg_3", b"3"),
            (5, "msg_5", b"3"),
        ]
        assert [(seq, each.message_id) for seq, each in found[dead]] == [(3, "msg_4"), (7, "msg_4")]
        assert [(seq, each.sender) for seq, each in found[NEW_INBOX]] == [(8, "agt_new")]
        assert found[A] == found[B] == found[INBOX] == found[OMITTED] == []
        assert (copied.messages, copied.scheduled, made.end) == (6, 0, Cursor(epoch=state.epoch, seq=8))

        _, failed = found[queue][1]
        assert (failed.sender, failed.reply_to) == ("agt_new", NEW_INBOX)
        _, letter = found[dead][0]
        assert letter.dead_letter is not None
        assert (letter.dead_letter.channel, letter.dead_letter.seq, letter.reply_to) == (queue, 2, NEW_INBOX)
        _, back = found[queue][2]
        assert back.redriven is not None
        assert (back.redriven.channel, back.redriven.seq, back.redriven.by) == (dead, 3, "usr:bob")
        assert [is_copy(each.envelope) for each in await log.after(queue, 0)] == [False, False, True]

        mark = await find_mark(log, subjects.dead_mark(queue, 2))
        assert mark is not None
        assert (mark.seq, parse_envelope(mark.data).message_id) == (4, "msg_4")
        assert {seq: each.seq for seq, each in (await redriven_marks(log, dead)).items()} == {3: 6}
        assert await find_mark(log, subjects.dead_mark(queue, 4000)) is None

        info = await QueueConsumer(log, queue).info()
        assert info is not None
        assert info["config"]["opt_start_seq"] == 2


async def test_scheduled_messages_are_rewritten_until_they_end(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as source, nats.connection(a_tenant()) as target, writing(source) as writer:
        await writer.log.accept_scheduled()
        waiting = [await schedule(writer, channel, DUE + timedelta(days=at)) for at, channel in enumerate((A, INBOX))]
        await schedule(writer, OMITTED, DUE)
        ended = await schedule(writer, A, DUE)
        here = ScheduledMessages(writer.log)
        await here.refresh()
        (one,) = [each for each in here.of_channel(A) if each.message_id == ended]
        assert await here.cancel(one) is None

        for _ in range(2):  # a repeated copy begins from the start
            copied, made = await within(rewrite_log(source, target, NAMES, 1))
            assert (copied.messages, copied.scheduled, made.end.seq) == (0, 2, 0)
        log = TenantLog(target)
        there = ScheduledMessages(log)
        await there.refresh()
        found = {channel: there.of_channel(channel) for channel in NAMES.channels.values()}
        assert [[each.message_id for each in found[NAMES.channels[channel]]] for channel in (A, INBOX)] == [
            [waiting[0]],
            [waiting[1]],
        ]
        read = await there.read(found[NEW_INBOX][0])
        assert read is not None
        assert (parse_envelope(read).sender, parse_envelope(read).reply_to) == ("agt_new", NEW_INBOX)
        assert await there.deliver(there.due(DUE)) == 1
        assert len(await log.after(NAMES.channels[A], 0)) == 1
