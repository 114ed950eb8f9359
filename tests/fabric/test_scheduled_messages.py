"""Scheduled messages in a tenant's log: each is delivered once or cancelled, whatever servers try."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import Raw

from artcafe.errors import LogRefused, OurFault, QuotaFull
from artcafe.fabric import scheduled_messages
from artcafe.fabric.log_counter import count_range
from artcafe.fabric.nats.jetstream import JetStream, StreamMessage
from artcafe.fabric.queue_rewind import prepare_log
from artcafe.fabric.scheduled_messages import KEEP_S, Scheduled, ScheduledMessages
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import TenantId
from artcafe.rules import ids, subjects, times
from artcafe.wire.envelopes import envelope, parse_head
from artcafe.wire.frames import Publish
from tests.fabric.nats_env import A, B, Nats, Writer, a_tenant, within, writing

DUE = datetime(2026, 11, 29, 12, tzinfo=UTC)
LATER = DUE + timedelta(hours=1)


@asynccontextmanager
async def writer_of(nats: Nats, tenant: TenantId, max_bytes: int | None = None) -> AsyncIterator[Writer]:
    """Run a writer of a log that accepts scheduled messages."""
    async with nats.connection(tenant) as connection, writing(connection, max_bytes=max_bytes) as writer:
        await writer.log.accept_scheduled()
        yield writer


async def schedule(writer: Writer, due: datetime, data: bytes = b"1") -> str:
    """Store a message that is due at this time, and return its id."""
    message_id, text = ids.id_at("msg", due), times.to_text(due)
    stored = envelope(Publish(A, Raw(data), deliver_at=text), message_id=message_id, sender="agt_1", time=text)
    subject = subjects.scheduled(A, message_id)
    reply = await within(writer.log_writer.submit(subject, stored, message_id, None, has_seq=False))
    assert (reply.seq, reply.message_id) == (None, message_id)
    return message_id


async def read(log: TenantLog) -> ScheduledMessages:
    """Return the scheduled messages as another server reads them."""
    scheduled = ScheduledMessages(log)
    await scheduled.refresh()
    return scheduled


def found(scheduled: ScheduledMessages, message_id: str) -> Scheduled:
    one = scheduled.find(A, message_id)
    assert one is not None
    return one


async def delivered(log: TenantLog) -> list[str]:
    """Return the ids of the messages in the channel."""
    return [parse_head(one.envelope).message_id for one in await log.after(A, 0, most=1000)]


@pytest.mark.promise("s3", "s4")
async def test_messages_move_to_their_channel_when_they_are_due_in_the_order_of_their_times(nats: Nats) -> None:
    async with writer_of(nats, a_tenant()) as writer:
        late, soon = [await schedule(writer, DUE + timedelta(seconds=each)) for each in (2, 1)]
        scheduled = await read(writer.log)
        assert (len(scheduled), scheduled.next_due()) == (2, DUE + timedelta(seconds=1))
        assert [each.message_id for each in scheduled.of_channel(A)] == [soon, late]
        assert (scheduled.of_channel(B), scheduled.due(DUE), await delivered(writer.log)) == ([], [], [])

        assert await scheduled.deliver(scheduled.due(LATER)) == 2
        assert await delivered(writer.log) == [soon, late]
        assert (len(scheduled), scheduled.next_due(), scheduled.of_channel(A)) == (0, None, [])
        first, *_ = await writer.log.after(A, 0)
        for each in (scheduled, await read(writer.log)):
            assert await each.cancel(found(each, soon)) == first.seq, "too late, here and at another server"
            assert await each.deliver(each.due(LATER)) == 0


async def test_cancelled_message_is_not_delivered_by_a_server_that_has_read_it_before(nats: Nats) -> None:
    async with writer_of(nats, a_tenant()) as writer:
        ended, *others = [await schedule(writer, DUE + timedelta(seconds=each)) for each in range(5)]
        stale, scheduled = await read(writer.log), await read(writer.log)
        for _ in range(2):
            assert await scheduled.cancel(found(scheduled, ended)) is None

        assert await stale.deliver(stale.due(LATER)) == 4, "one ended message does not hold back the others"
        assert await delivered(writer.log) == others
        await stale.refresh()
        assert (len(stale), await stale.cancel(found(stale, ended))) == (0, None)


async def attempt(scheduled: ScheduledMessages, message_ids: Sequence[str], cancels: Sequence[str]) -> dict[str, int | None]:
    """Deliver everything and cancel some messages, in a random order. Return the answers to the cancellations."""
    answers: dict[str, int | None] = {}
    await scheduled.refresh()
    for message_id in random.sample(message_ids, len(message_ids)):
        one = found(scheduled, message_id)
        if message_id in cancels:
            answers[message_id] = await scheduled.cancel(one)
        else:
            await scheduled.deliver([one])
    return answers


@pytest.mark.promise("s5")
async def test_each_message_is_delivered_once_or_cancelled_when_servers_deliver_and_cancel_at_once(nats: Nats) -> None:
    tenant, count = a_tenant(), 60
    async with writer_of(nats, tenant) as writer, AsyncExitStack() as stack:
        message_ids = [await schedule(writer, DUE) for _ in range(count)]
        connections = [await stack.enter_async_context(nats.connection(tenant)) for _ in range(3)]
        servers = [ScheduledMessages(TenantLog(connection)) for connection in connections]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(each, message_ids, message_ids[start::2])) for start, each in enumerate(servers)]
        answers = [task.result() for task in tasks]

        there = await delivered(writer.log)
        assert len(there) == len(set(there)), "none twice"
        for message_id in message_ids:
            said = {each[message_id] is None for each in answers if message_id in each}
            assert said in (set(), {message_id not in there}), "every answer says what happened"


async def test_delivery_without_an_answer_is_not_repeated(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_messages, "ANSWER_TIMEOUT_S", 0.5)
    tenant = a_tenant()
    async with writer_of(nats, tenant) as writer, nats.proxy() as proxy, nats.connection(tenant, proxy.url) as connection:
        message_id = await schedule(writer, DUE)
        log = TenantLog(connection)
        await prepare_log(log)
        scheduled = await read(log)

        async def read_and_mute(*arguments: Any) -> list[StreamMessage]:
            found = await TenantLog.following(log, *arguments)
            proxy.is_mute = True
            return found

        monkeypatch.setattr(log, "following", read_and_mute)
        with pytest.raises(OurFault):
            await scheduled.deliver(scheduled.due(LATER))
        monkeypatch.undo()
        proxy.is_mute = False
        assert len(scheduled) == 1, "it is not known what happened"
        assert await scheduled.deliver(scheduled.due(LATER)) == 0
        await scheduled.refresh()
        assert (len(scheduled), await delivered(writer.log)) == (0, [message_id])


@pytest.mark.promise("s4")
@pytest.mark.parametrize("others", [0, scheduled_messages.DENSE], ids=["read in bulk", "read one by one"])
async def test_burst_is_moved_in_the_order_of_its_times_without_a_removed_message(nats: Nats, others: int) -> None:
    async with writer_of(nats, a_tenant()) as writer:
        times_s = random.Random(1).sample(range(1_000), 50)
        by_time: dict[int, str] = {}
        for each in times_s:
            by_time[each] = await schedule(writer, DUE + timedelta(seconds=each))
            for number in range(others):
                await schedule(writer, LATER + timedelta(days=1, seconds=number))
        scheduled = await read(writer.log)
        removed = by_time.pop(sorted(times_s)[20])
        await writer.log.purge_subject(subjects.scheduled(A, removed))
        assert await scheduled.deliver(scheduled.due(LATER)) == len(by_time)
        assert await delivered(writer.log) == [by_time[each] for each in sorted(by_time)]
        assert len(scheduled) == others * len(times_s)


@pytest.mark.promise("s10")
async def test_full_log_keeps_a_due_message_until_there_is_space(nats: Nats) -> None:
    async with writer_of(nats, a_tenant(), max_bytes=6_000) as writer:
        message_id = await schedule(writer, DUE, b'"%b"' % (b"x" * 4_000))
        scheduled = await read(writer.log)
        with pytest.raises(QuotaFull):
            await scheduled.deliver(scheduled.due(LATER))
        assert await delivered(writer.log) == []
        await writer.log.limit(1 << 20)
        assert await scheduled.deliver(scheduled.due(LATER)) == 1
        assert await delivered(writer.log) == [message_id]


@pytest.mark.promise("s9")
async def test_meter_counts_delivered_messages_only_and_sees_no_hole(nats: Nats) -> None:
    async with writer_of(nats, a_tenant()) as writer:
        await writer.publish(1)
        one, two = [await schedule(writer, DUE) for _ in range(2)]
        scheduled = await read(writer.log)
        await scheduled.deliver([found(scheduled, one)])
        await scheduled.cancel(found(scheduled, two))
        await writer.publish(2)

        end = await writer.log.state()
        assert end is not None
        counted = await count_range(writer.log, [], 0, end.last_seq)
        assert (counted.to_seq, counted.holes) == (end.last_seq, [])
        assert sum(sums.messages for sums in counted.counts.values()) == 3
        assert b"2026-11-29T12" in {head[-13:] for _, head in counted.counts}, "the hour in which it was due"


async def test_old_ended_messages_are_removed_once_they_are_metered(nats: Nats) -> None:
    now = 0.0
    async with writer_of(nats, a_tenant()) as writer:
        one, two, three = [await schedule(writer, DUE) for _ in range(3)]
        scheduled = ScheduledMessages(writer.log, lambda: now)
        await scheduled.refresh()
        await scheduled.cancel(found(scheduled, one))
        await scheduled.deliver([found(scheduled, two)])
        end = await writer.log.state()
        assert end is not None
        await scheduled.sweep(end.last_seq)
        assert scheduled.find(A, one) is not None, "its key may still be repeated"
        now = KEEP_S + 1
        await scheduled.sweep(end.last_seq - 1)
        await scheduled.sweep(end.last_seq - 1)
        assert [scheduled.find(A, each) is None for each in (one, two, three)] == [True, False, False]
        await scheduled.sweep(end.last_seq)
        again = await read(writer.log)
        assert [again.find(A, each) is None for each in (one, two, three)] == [True, True, False]
        assert await delivered(writer.log) == [two]


async def test_nats_refuses_its_own_schedules_in_a_log_that_never_drops_messages(nats: Nats) -> None:
    """This is why ArtCafe delivers by itself. Decide again when it fails."""
    async with nats.connection(a_tenant()) as connection:
        config = {"name": "s", "subjects": ["x.>"], "storage": "file", "discard": "new", "allow_msg_schedules": True}
        with pytest.raises(LogRefused, match="message scheduling cannot use discard new"):
            await JetStream(connection).create(config)
