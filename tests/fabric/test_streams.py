from __future__ import annotations

import asyncio

import pytest

from artcafe.errors import LogRefused, Unavailable
from artcafe.fabric.streams import BATCH_MESSAGES, TenantLog
from artcafe.rules import subjects
from tests.fabric.rooms import A, B, Nats, a_tenant, until, writing


async def test_a_log_that_has_not_begun_is_empty_to_every_question(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link:
        log = TenantLog(link)

        assert await log.state() is None
        assert (await log.last_of(A), await log.after(A, 0), await log.read(1)) == (0, [], None)
        await log.purge(A)
        await log.drop()
        assert log.epoch is None
        with pytest.raises(LogRefused, match="10059"):
            await log.begin_epoch()


async def test_servers_that_begin_the_log_at_the_same_time_begin_one(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.link(tenant) as first, nats.link(tenant) as second:
        logs = [TenantLog(link) for link in (first, second, first, second)]
        async with asyncio.TaskGroup() as group:
            making = [group.create_task(log.ensure()) for log in logs]

        states = {task.result() for task in making}
        assert len(states) == 1
        assert {log.epoch for log in logs} == {states.pop().epoch}


async def test_a_log_that_begins_anew_has_another_epoch(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link:
        log = TenantLog(link)
        first = await log.ensure()
        changed = await log.begin_epoch()
        await log.drop()
        second = await log.ensure()

        assert len({first.epoch, changed.epoch, second.epoch}) == 3
        assert log.epoch == second.epoch


async def test_a_backlog_is_read_in_pieces_each_message_naming_the_one_before(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link, writing(link) as writer:
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


async def test_the_newest_of_a_channel_is_its_own_and_can_be_asked_for_an_earlier_time(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link, writing(link) as writer:
        await writer.publish(1)
        await writer.publish(2, channel=B)
        await writer.publish(3)

        assert (await writer.log.last_of(A), await writer.log.last_of(B)) == (3, 2)
        assert [await writer.log.last_of(A, up_to=seq) for seq in range(4)] == [0, 1, 1, 3]
        assert await writer.log.last_of_each([A, B]) == {subjects.stored(A): 3, subjects.stored(B): 2}


async def test_a_purge_takes_one_channel_and_leaves_the_place_of_what_comes(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link, writing(link) as writer:
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


async def test_every_question_says_so_when_nats_cannot_be_reached(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.link(a_tenant(), proxy.url) as link:
        log = TenantLog(link)
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not link.is_up)

        for ask in (log.state, log.ensure, log.begin_epoch, log.drop, lambda: log.purge(A), lambda: log.read(1)):
            with pytest.raises(Unavailable):
                await ask()
        for question in (lambda: log.after(A, 0), lambda: log.last_of(A)):
            with pytest.raises(Unavailable):
                await question()
