"""Copies between channels, each made once: on a real nats-server, with lost answers, full logs and concurrent writers."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import Raw

from artcafe.errors import QuotaFull, Unavailable
from artcafe.fabric import marked_copies
from artcafe.fabric.marked_copies import MOST_COPIES, MarkedCopy, StoredCopy, store_copies
from artcafe.fabric.marks import find_mark
from artcafe.fabric.queue_rewind import prepare_log
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import ChannelId
from artcafe.rules import ids, subjects
from artcafe.wire.envelopes import envelope, parse_envelope
from artcafe.wire.frames import Publish
from tests.fabric.nats_env import A, B, Nats, a_tenant, until, within, writing

TIME = "2026-11-28T10:59:59.999Z"


def copy_of(seq: int, size: int = 1, to: ChannelId = B) -> MarkedCopy:
    """Return a copy of the message at a sequence of channel A."""
    message_id = ids.new_id("msg")
    data = Publish(to, Raw(b'"%b"' % (b"x" * size)))
    stored = envelope(data, message_id=message_id, sender="agt_1", time=TIME)
    return MarkedCopy(subjects.stored(to), stored, subjects.dead_mark(A, seq), message_id, "artcafe", TIME)


async def ids_in(log: TenantLog, channel: ChannelId) -> list[str]:
    found, after = [], 0
    while some := await log.after(channel, after):
        found += [parse_envelope(one.envelope).message_id for one in some]
        after = some[-1].seq
    return found


async def eventually_stored(log: TenantLog) -> None:
    """Wait until channel B has a message."""
    async with asyncio.timeout(10):
        while not await ids_in(log, B):  # noqa: ASYNC110 (the condition is another process's, without an event)
            await asyncio.sleep(0.01)


async def test_repeated_copy_is_stored_once_and_returns_the_first(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(1)
        first, again = copy_of(1), copy_of(1)
        assert await within(store_copies(writer.log, [first])) == [StoredCopy(2, first.message_id, is_new=True)]
        assert await within(store_copies(writer.log, [again])) == [StoredCopy(2, first.message_id, is_new=False)]
        assert await ids_in(writer.log, B) == [first.message_id]
        mark = await find_mark(writer.log, first.mark)
        assert mark is not None
        assert (mark.seq, parse_envelope(mark.data).message_id) == (3, first.message_id)


async def test_repeats_within_a_batch_and_between_batches_leave_the_others_in_order(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(1)
        earlier = [copy_of(seq) for seq in (3, 40, 41)]
        await within(store_copies(writer.log, earlier))
        some = [copy_of(seq) for seq in range(1, MOST_COPIES + 30)]
        stored = await within(store_copies(writer.log, [*some, copy_of(7)]))
        assert [one.is_new for one in stored] == [seq not in (3, 40, 41) for seq in range(1, MOST_COPIES + 30)] + [False]
        assert stored[6] == stored[-1]._replace(is_new=True)
        kept = await ids_in(writer.log, B)
        assert kept == [one.message_id for one in earlier] + [
            one.message_id for one, got in zip(some, stored, strict=False) if got.is_new
        ]
        where = {parse_envelope(one.envelope).message_id: one.seq for one in await writer.log.after(B, 0)}
        assert all(where[one.message_id] == one.seq for one in stored), "each answer has the sequence of the copy"


async def test_concurrent_copies_of_one_message_store_one(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as one, nats.connection(tenant) as other, writing(one) as writer:
        await writer.publish(1)
        logs = [writer.log, TenantLog(other)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(store_copies(logs[at % 2], [copy_of(seq) for seq in range(1, 11)])) for at in range(8)]
        found = [task.result() for task in tasks]
        for at in range(10):
            copies = [each[at] for each in found]
            assert sum(each.is_new for each in copies) == 1
            assert len({(each.seq, each.message_id) for each in copies}) == 1
        assert len(await ids_in(writer.log, B)) == 10


async def test_copy_whose_answer_is_lost_is_found_by_its_mark(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.proxy() as proxy, nats.connection(tenant) as direct, writing(direct) as writer:
        await writer.publish(1)
        async with nats.connection(tenant, proxy.url, ping_s=0.2) as connection:
            log, copy = TenantLog(connection), copy_of(1)
            await prepare_log(log)
            async with asyncio.TaskGroup() as group:
                proxy.is_mute = True
                storing = group.create_task(store_copies(log, [copy]))
                await eventually_stored(writer.log)
                proxy.cut()
                proxy.is_mute = False
            assert storing.result() == [StoredCopy(2, copy.message_id, is_new=True)], "it is this call's own"
        assert await ids_in(writer.log, B) == [copy.message_id]


async def test_full_log_refuses_copy_and_mark_together(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection, max_bytes=8000) as writer:
        await writer.publish(1)
        with pytest.raises(QuotaFull):
            await within(store_copies(writer.log, [copy_of(1, size=9000)]))
        assert await find_mark(writer.log, subjects.dead_mark(A, 1)) is None
        assert await ids_in(writer.log, B) == []
        (stored,) = await within(store_copies(writer.log, [copy_of(1)]))
        assert stored.is_new


async def test_copy_without_nats_is_unavailable_in_time(nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marked_copies, "TIMEOUT_S", 0.2)
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)
        with pytest.raises(Unavailable):
            await within(store_copies(TenantLog(connection), [copy_of(1)]))


async def test_purge_removes_the_marks_at_removed_messages(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        for number in range(2):
            await writer.publish(number)
        first, second = copy_of(1), copy_of(2)
        await within(store_copies(writer.log, [first, second]))
        await writer.log.purge(A, up_to=1)
        assert await find_mark(writer.log, first.mark) is not None, "a mark is kept at least as long as its message"
        await writer.log.purge(A, up_to=4)
        assert await find_mark(writer.log, first.mark) is None
        assert await find_mark(writer.log, second.mark) is not None
        assert await ids_in(writer.log, B) == [first.message_id, second.message_id]
        await writer.log.purge(A)
        assert await find_mark(writer.log, second.mark) is None
