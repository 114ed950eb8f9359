"""The consumer of a queue channel: pulls, acks, and what happens to both when NATS, its log or this process is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from artcafe.errors import ChannelNotFound, Unavailable
from artcafe.fabric.nats.client import IncomingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.queue_consumer import MARGIN_S, PULL_S, QueueConsumer
from artcafe.fabric.tenant_log import STREAM, TenantLog
from artcafe.fabric.work_queue import QueuedMessage, WorkQueue, parse
from artcafe.model import ChannelId, QueueSettings
from artcafe.rules import subjects
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import A, Nats, a_tenant, until, writing
from tests.fabric.queue_consumers import put_ahead


class Taker:
    """Takes up to `most` messages of a queue."""

    def __init__(self, most: int = 16) -> None:
        self.most = most
        self.taken: list[QueuedMessage] = []
        self.forgotten = 0

    @property
    def room(self) -> int:
        return max(0, self.most - len(self.taken))

    def take(self, message: QueuedMessage) -> None:
        self.taken.append(message)

    def forget(self) -> None:
        self.forgotten += 1
        self.taken.clear()

    async def drained(self) -> None:
        """Make no last acks."""

    async def next(self, count: int = 1) -> list[QueuedMessage]:
        """Return the next messages, once there are as many."""
        await until(lambda: len(self.taken) >= count)
        found, self.taken = self.taken[:count], self.taken[count:]
        return found


@asynccontextmanager
async def working(connection: NatsConnection, taker: Taker, *, is_deleted: bool = False) -> AsyncIterator[WorkQueue]:
    """Run a work queue of channel A."""

    async def confirm() -> None:
        if is_deleted:
            raise ChannelNotFound(A)

    queue = WorkQueue(TenantLog(connection), A, QueueSettings(), taker, confirm)
    async with asyncio.TaskGroup() as group:
        group.create_task(queue.run())
        yield queue
        queue.close()


async def put(connection: NatsConnection, *data: int) -> None:
    """Store messages in channel A."""
    async with writing(connection) as writer:
        for each in data:
            await writer.publish(each)


async def consumer(connection: NatsConnection) -> dict[str, Any]:
    """Return the state of the channel's consumer in NATS."""
    got = await connection.request(Subject(f"$JS.API.CONSUMER.INFO.{STREAM}.{subjects.queue_consumer(A)}"), b"")
    found: dict[str, Any] = msgspec.json.decode(got.data)
    return found


async def settled(connection: NatsConnection, **expected: int) -> None:
    """Wait until the consumer's state has these numbers."""
    async with asyncio.timeout(BOUND_S):
        while True:
            info = await consumer(connection)
            if {name: info.get(name) for name in expected} == expected:
                return
            await asyncio.sleep(0.02)


async def test_messages_stored_before_the_first_worker_are_pulled_and_acknowledged(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        await put(connection, 1, 2, 3)
        taker = Taker(most=2)
        async with working(connection, taker) as queue:
            await until(lambda: len(taker.taken) == 2)
            assert [(each.seq, each.deliveries) for each in taker.taken] == [(1, 1), (2, 1)]
            assert taker.taken[0].envelope.endswith(b'"data":1}')
            await settled(connection, num_ack_pending=2, num_pending=1)
            for message in await taker.next(2):
                queue.ack(message)
            queue.ack((await taker.next())[0])
            await settled(connection, num_ack_pending=0, num_pending=0)


async def test_a_nak_delivers_again_at_once_or_after_its_delay_and_counts_deliveries(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        await put(connection, 1, 2)
        taker = Taker(most=4)
        async with working(connection, taker) as queue:
            first, second = await taker.next(2)
            queue.nak(first, 0.3)
            queue.nak(second)
            again = [*await taker.next(), *await taker.next()]
            assert [(each.seq, each.deliveries) for each in again] == [(2, 2), (1, 2)]
            for message in again:
                queue.terminate(message)
            await settled(connection, num_ack_pending=0, num_pending=0)


async def test_a_queue_waits_for_the_first_message_of_its_tenant(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        taker = Taker()
        async with working(connection, taker) as queue:
            await until(lambda: queue.has_asked)
            await put(connection, 1)
            queue.ack((await taker.next())[0])


async def test_two_servers_share_one_consumer(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as here, nats.connection(tenant) as there:
        one, two = Taker(most=5), Taker(most=5)
        async with working(here, one), working(there, two):
            await put(here, *range(10))
            await until(lambda: len(one.taken) == len(two.taken) == 5)
            assert sorted(each.seq for each in [*one.taken, *two.taken]) == list(range(1, 11))


async def test_a_leaving_server_gives_back_messages_that_were_on_their_way(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        taker = Taker(most=1000)
        async with working(connection, taker) as queue:
            await until(lambda: queue.has_asked)
            queue.close()
            await put(connection, *range(50))
        held = list(taker.taken)
        async with working(connection, Taker(most=0)) as queue:
            for message in held:
                queue.nak(message)
            await settled(connection, num_pending=50 - len({each.seq for each in held}))
        other = Taker(most=1000)
        async with working(connection, other):
            await until(lambda: len(other.taken) == 50)


async def test_acks_made_while_nats_is_away_are_sent_when_it_is_back(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(tenant := a_tenant(), proxy.url) as connection:
        await put(connection, 1, 2)
        taker = Taker()
        async with working(connection, taker) as queue, nats.connection(tenant) as direct:
            first, second = await taker.next(2)
            proxy.is_open = False
            proxy.cut()
            await until(lambda: not connection.is_up)
            queue.ack(first)
            with pytest.raises(Unavailable):
                await queue.extend(second)
            proxy.is_open = True
            await settled(direct, num_ack_pending=1)
            extended = await queue.extend(second)
            assert extended.taken_at > second.taken_at
            queue.ack(extended)
            await settled(direct, num_ack_pending=0)


async def test_an_ack_whose_answer_is_lost_is_sent_again_and_a_nak_is_not(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(tenant := a_tenant(), proxy.url) as connection:
        await put(connection, 1, 2)
        taker = Taker(most=2)
        async with working(connection, taker) as queue, nats.connection(tenant) as direct:
            first, second = await taker.next(2)
            taker.most = 0
            other = Taker(most=1)
            async with working(direct, other):
                proxy.is_mute = True
                queue.ack(first)
                queue.nak(second)
                (moved,) = await other.next()
                other.most = 0
                assert (moved.seq, moved.deliveries) == (second.seq, 2)
                proxy.cut()
                await until(lambda: not connection.is_up)
                proxy.is_mute = False
                await connection.wait_up(BOUND_S)
                await settled(direct, num_ack_pending=1, num_redelivered=1)
                assert (taker.taken, other.taken) == ([], [])


async def test_a_log_created_anew_makes_the_queue_forget_its_messages(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        await put(connection, 1, 2)
        taker = Taker()
        async with working(connection, taker):
            (old, _) = await taker.next(2)
            await TenantLog(connection).drop()
            await put(connection, 3)
            await until(lambda: taker.forgotten == 1 and len(taker.taken) == 1)
            assert taker.taken[0].envelope.endswith(b'"data":3}')
            assert taker.taken[0].seq == old.seq


async def test_a_log_that_lost_its_newest_messages_delivers_those_stored_in_their_place(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        await put(connection, 1)
        await put_ahead(connection, 2)
        taker = Taker()
        async with working(connection, taker) as queue:
            await until(lambda: queue.has_asked)
            await put(connection, 2)
            assert [each.seq for each in await taker.next()] == [2]
        async with working(connection, again := Taker()):
            await put(connection, 3)
            await until(lambda: 3 in [each.seq for each in again.taken])


@pytest.mark.promise("8c", "9a")
async def test_messages_stored_in_place_of_lost_ones_before_a_worker_comes_are_delivered(nats: Nats) -> None:
    """Then the log is as long as before its loss, and only its epoch tells that its end is another one."""
    async with nats.connection(tenant := a_tenant()) as connection:
        await put(connection, 1)
        before = await TenantLog(connection).state()
        await put_ahead(connection, 3)
        async with nats.connection(tenant) as after:
            await put(after, 2, 3, 4)
            state = await TenantLog(after).state()
            assert before is not None
            assert state is not None
            assert state.epoch != before.epoch
            async with working(after, taker := Taker()):
                assert [each.seq for each in await taker.next(3)] == [2, 3, 4]


async def test_a_holder_of_a_lost_message_is_forgotten_when_another_server_has_noticed_the_loss(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(tenant := a_tenant(), proxy.url) as connection:
        await put(connection, 1)
        async with working(connection, taker := Taker(most=1)):
            await until(lambda: len(taker.taken) == 1)
            proxy.is_open = False
            proxy.cut()
            await until(lambda: not connection.is_up)
            async with nats.connection(tenant) as other:
                await QueueConsumer(TenantLog(other), A).delete()
                await put_ahead(other, 3)
                await put(other, 2)
            proxy.is_open = True
            await until(lambda: taker.forgotten == 1)
            assert [each.seq for each in await taker.next()] == [2]


@pytest.mark.parametrize("count", [1, 300])
async def test_consumers_that_are_not_ahead_are_left_alone(nats: Nats, count: int) -> None:
    """NATS lists at most 256 consumers at once."""
    async with nats.connection(tenant := a_tenant()) as connection:
        await put(connection, 1, 2)
        log = TenantLog(connection)
        for number in range(count):
            await QueueConsumer(log, ChannelId(f"chn_{number}")).make(QueueSettings())
        before = await log.ensure()
        await put_ahead(connection, 2)
        async with nats.connection(tenant) as after:
            await put(after, 3)
            assert (await TenantLog(after).ensure()).epoch == before.epoch
            await QueueConsumer(log, A).delete()
            await put_ahead(connection, 7)
        async with nats.connection(tenant) as after:
            await put(after, 4)
            async with working(after, taker := Taker()):
                assert [each.seq for each in await taker.next()] == [4]


async def test_changed_settings_reach_the_consumer(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        taker = Taker()
        async with working(connection, taker) as queue:
            await until(lambda: queue.has_asked)
            queue.change(QueueSettings(ack_wait_s=90))
            async with asyncio.timeout(BOUND_S):
                while (await consumer(connection))["config"]["ack_wait"] != (90 + MARGIN_S) * 1e9:  # noqa: ASYNC110 (NATS is asked)
                    await asyncio.sleep(0.02)


async def test_a_deleted_consumer_is_made_again_and_not_for_a_deleted_channel(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        await put(connection, 1)
        log = TenantLog(connection)
        await QueueConsumer(log, A).delete()
        taker = Taker()
        async with working(connection, taker):
            await taker.next()
            await QueueConsumer(log, A).delete()
            assert (await taker.next())[0].deliveries == 1
        await QueueConsumer(log, A).delete()
        async with working(connection, Taker(), is_deleted=True):
            await asyncio.sleep(0.05)
        assert (await consumer(connection))["error"]["err_code"] == 10014


async def test_a_message_read_late_counts_as_delivered_at_the_end_of_its_request(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        await put(connection, 1)
        taker = Taker()
        async with working(connection, taker) as queue:
            (message,) = await taker.next()
            slot = queue.slots[0]
            slot.asked_at -= 60  # as if this process was stopped for a minute after its request
            late = IncomingMessage(b"{}", None, message.ack_subject.encode())
            queue.on_message(slot, late)
            assert taker.taken[0].taken_at == slot.asked_at + PULL_S


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.log.queue-chn_a.3.17.20.1700000000000000000.4",
        b"$JS.ACK._.ACCOUNT.log.queue-chn_a.3.17.20.1700000000000000000.4.token",
    ],
)
def test_both_forms_of_the_reply_subject_are_parsed(reply: bytes) -> None:
    message = parse(IncomingMessage(b"{}", None, reply), 1.0)

    assert (message.seq, message.deliveries, message.taken_at, message.ack_subject) == (17, 3, 1.0, reply.decode())
