from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcafe.errors import LogRefused, QuotaFull, Unavailable
from artcafe.fabric.tenant_log import BATCH_MESSAGES, CONTINUES, StoredMessage, TenantLog, parse_continues
from artcafe.model import Cursor, Epoch
from artcafe.observe.clock import now
from artcafe.rules import subjects, times
from artcafe.rules.start_position import LogLineage
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import A, B, Nats, a_tenant, until, writing


async def test_every_read_of_a_missing_log_is_empty(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        log = TenantLog(connection)

        assert await log.state() is None
        assert (await log.last_seq_of(A), await log.after(A, 0), await log.read(1)) == (0, [], None)
        await log.purge(A)
        await log.drop()
        assert log.epoch is None
        with pytest.raises(LogRefused, match="10059"):
            await log.begin_epoch()


async def test_log_is_readable_while_it_is_created(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as creating, nats.connection(tenant) as reading:
        log, reader = TenantLog(creating), TenantLog(reading)

        async def read(done: asyncio.Event) -> None:
            while not done.is_set():
                assert await reader.after(A, 0) == []

        for _ in range(20):
            done = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(read(done))
                await log.ensure()
                done.set()
            await log.drop()


async def test_concurrent_servers_create_one_log(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as first, nats.connection(tenant) as second:
        logs = [TenantLog(connection) for connection in (first, second, first, second)]
        async with asyncio.TaskGroup() as group:
            making = [group.create_task(log.ensure()) for log in logs]

        epochs = {task.result().epoch for task in making}
        assert len(epochs) == 1
        assert {log.epoch for log in logs} == epochs


async def test_log_created_again_has_a_new_epoch(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        log = TenantLog(connection)
        first = await log.ensure()
        changed = await log.begin_epoch()
        assert (await log.begin_epoch(instead_of=first.epoch)).epoch == changed.epoch, "another server was faster"
        await log.drop()
        second = await log.ensure()

        assert len({first.epoch, changed.epoch, second.epoch}) == 3
        assert log.epoch == second.epoch


async def test_log_gets_a_new_epoch_only_for_a_cursor_of_its_epoch_beyond_its_end(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(0)
        state = await writer.log.state()
        assert state is not None
        for cursor in (Cursor(), Cursor(epoch=state.epoch, seq=1), Cursor(epoch=Epoch("another"), seq=9)):
            assert await writer.log.state_for(cursor) == state
        renewed = await writer.log.state_for(Cursor(epoch=state.epoch, seq=2))
        assert renewed is not None
        assert renewed.epoch != state.epoch


async def test_message_counts_as_removed_only_if_the_log_reaches_its_sequence(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(0)
        await writer.publish(1)
        await writer.log.purge(A, up_to=1)
        assert (await writer.log.is_removed(1), await writer.log.is_removed(2)) == (True, False)
        with pytest.raises(Unavailable):
            await writer.log.is_removed(3)


async def test_backlog_is_read_in_portions_each_message_with_its_predecessor(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        waiting = []
        for number in range(BATCH_MESSAGES + 10):
            waiting += [writer.submit(number), writer.submit(number, channel=B)]
        await writer.publish(b'"last"')
        assert all(one.done() for one in waiting)

        first = await writer.log.after(A, 0)
        rest = await writer.log.after(A, first[-1].seq)

        assert len(first) == BATCH_MESSAGES
        assert [one.prev for one in first + rest] == [None, *(one.seq for one in first + rest)][:-1]
        assert [one.seq for one in first + rest] == [*range(1, 2 * BATCH_MESSAGES + 20, 2), 2 * BATCH_MESSAGES + 21]
        assert await writer.log.after(A, rest[-1].seq) == []


async def test_newest_message_is_found_per_channel_and_up_to_a_time(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(1)
        await writer.publish(2, channel=B)
        await writer.publish(3)

        assert (await writer.log.last_seq_of(A), await writer.log.last_seq_of(B)) == (3, 2)
        assert [await writer.log.last_seq_of(A, up_to=seq) for seq in range(4)] == [0, 1, 1, 3]
        assert await writer.log.last_seqs([A, B]) == {subjects.stored(A): 3, subjects.stored(B): 2}


async def test_purge_removes_one_channel_and_keeps_the_next_sequence(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        await writer.publish(1)
        await writer.publish(2, channel=B)
        before = await writer.log.state()

        await writer.log.purge(A)
        await writer.log.purge(A)

        assert (await writer.stored(A), await writer.stored(B)) == ([], [b"2"])
        assert await writer.log.read(1) is None
        assert (await writer.log.read(2) or b"").endswith(b'"data":2}')
        after = await writer.log.state()
        assert before is not None
        assert after is not None
        assert (after.epoch, after.last_seq) == (before.epoch, 2)
        assert (await writer.publish(3)).seq == 3


async def test_every_read_raises_unavailable_without_nats(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection:
        log = TenantLog(connection)
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)

        for ask in (log.state, log.ensure, log.begin_epoch, log.drop, lambda: log.purge(A), lambda: log.read(1)):
            with pytest.raises(Unavailable):
                await ask()
        for question in (lambda: log.after(A, 0), lambda: log.last_seq_of(A)):
            with pytest.raises(Unavailable):
                await question()


# --- what retention asks ---------------------------------------------------------------------------------------------------


async def test_newest_message_before_a_time_is_found_for_each_channel(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        log, long_ago = writer.log, now() - timedelta(days=1)
        assert await log.last_seqs([A, B], until=now()) == {}
        for channel in (A, B, A):
            await writer.publish(1, channel=channel)
        between = await _a_later_millisecond()
        await writer.publish(1, channel=B)

        assert await log.last_seqs([A, B], until=long_ago) == {}
        assert await log.last_seqs([A, B], until=between) == {subjects.stored(A): 3, subjects.stored(B): 2}
        assert await log.last_seqs([A, B], until=now() + timedelta(hours=1)) == {subjects.stored(A): 3, subjects.stored(B): 4}


async def _a_later_millisecond() -> datetime:
    """Return a time after the messages stored before the call, and before those stored after it. NATS takes milliseconds."""
    before = now()
    async with asyncio.timeout(BOUND_S):
        while times.to_text(now()) <= times.to_text(before + timedelta(milliseconds=1)):  # noqa: ASYNC110 (time itself is awaited)
            await asyncio.sleep(0)
    return before + timedelta(milliseconds=1)


async def test_purge_up_to_a_sequence_keeps_later_messages_and_other_channels(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        for number in range(1, 7):
            await writer.publish(number, channel=A if number % 2 else B)

        await writer.log.purge(A, up_to=3)
        await writer.log.purge(A, up_to=3)

        assert (await writer.stored(A), await writer.stored(B)) == ([b"5"], [b"2", b"4", b"6"])
        await writer.log.purge(A, up_to=5)
        assert await writer.stored(A) == []


async def test_messages_after_an_anchor_are_complete_while_the_anchor_exists(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer:
        for number in range(1, 9):
            await writer.publish(number, channel=A if number % 2 else B)
        log = writer.log

        def seqs(answer: tuple[list[StoredMessage], bool]) -> tuple[list[tuple[int, int | None]], bool]:
            return [(one.seq, one.prev) for one in answer[0]], answer[1]

        assert seqs(await log.after_anchor(A, 3, 3)) == ([(5, 3), (7, 5)], True)
        assert seqs(await log.after_anchor(A, 3, 4)) == ([(5, 3), (7, 5)], True)
        assert seqs(await log.after_anchor(A, 7, 7)) == ([], True)
        assert seqs(await log.after_anchor(A, 0, 0)) == ([(1, None), (3, 1), (5, 3), (7, 5)], False)
        await log.purge(A, up_to=3)
        assert seqs(await log.after_anchor(A, 3, 3)) == ([(5, None), (7, 5)], False)
        assert seqs(await log.after_anchor(A, 5, 5)) == ([(7, 5)], True)
        await log.purge(A, up_to=7)
        assert seqs(await log.after_anchor(A, 7, 7)) == ([], False)


async def test_lowered_limit_removes_nothing_and_refuses_new_messages(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection, max_bytes=1 << 20) as writer:
        for number in range(10):
            await writer.publish(number)
        for bytes_ in (100, 0):
            await writer.log.limit(bytes_)
            with pytest.raises(QuotaFull):
                await writer.publish(10)
        assert len(await writer.stored()) == 10

        await writer.log.limit(1 << 20)
        assert (await writer.publish(10)).seq == 11


async def test_metadata_name_the_logs_restored_from_until_a_new_epoch_begins(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        log = TenantLog(connection)
        assert (await log.ensure()).lineage == LogLineage(log.epoch or Epoch(""), {})
        info = await log._jetstream.request("STREAM.INFO.log", {})
        info["config"]["metadata"][CONTINUES] = "01A:7 01B:3"
        await log._jetstream.request("STREAM.UPDATE.log", info["config"])

        state = await log.state()
        assert state is not None
        assert state.continues == {"01A": 7, "01B": 3}
        assert (await log.begin_epoch()).continues == {}


@given(st.text(alphabet="01A: x", max_size=20))
def test_unreadable_metadata_continue_no_log(text: str) -> None:
    assert all(epoch and seq >= 0 for epoch, seq in parse_continues(text).items())
