from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from artcafe.errors import Unavailable
from artcafe.fabric.channel_readers import ChannelReaders
from artcafe.fabric.log_watch import CHECK_S
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.rules.start_position import LogLineage
from tests.fabric.nats_env import A, B, Nats, Writer, a_tenant, until, writing


class Sink:
    """Records its messages."""

    def __init__(self) -> None:
        self.begins: list[Seq] = []
        self.lives: list[LogLineage] = []
        self.got: list[StoredMessage] = []

    @property
    def began(self) -> Seq | None:
        """Where reading began, if it began once."""
        return self.begins[0] if len(self.begins) == 1 else None

    def begin(self, last: Seq, lineage: LogLineage) -> None:
        self.begins.append(last)
        self.lives.append(lineage)

    def record_first_epoch(self, lineage: LogLineage) -> None:
        assert self.lives.pop() == LogLineage(None)
        self.lives.append(lineage)

    def take(self, found: list[StoredMessage]) -> None:
        self.got += found

    @property
    def seqs(self) -> list[Seq]:
        return [one.seq for one in self.got]


@asynccontextmanager
async def reading(connection: NatsConnection, check_s: float = CHECK_S) -> AsyncIterator[ChannelReaders]:
    """Run the channel readers of the connection's tenant, and have them check the log every `check_s`."""
    readers = ChannelReaders(TenantLog(connection))

    async def check() -> None:
        while True:
            await asyncio.sleep(check_s)
            readers.check_soon()

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(each()) for each in (readers.run, check)]
        try:
            yield readers
        finally:
            for each in running:
                each.cancel()


async def test_reader_receives_later_messages_each_with_its_predecessor(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer, reading(connection) as readers:
        await writer.publish(0)
        await writer.publish(0, channel=B)
        sink, empty = Sink(), Sink()
        await readers.follow(A, sink)
        await readers.follow(ChannelId("chn_empty"), empty)

        for number in range(3):
            await writer.publish(number)
            await writer.publish(number, channel=B)
        together = [writer.submit(number) for number in range(300)]
        await together[-1]
        await until(lambda: len(sink.got) == 303)

        assert (sink.began, empty.began) == (1, 0)
        assert sink.seqs == [3, 5, 7, *range(9, 309)]
        assert [one.prev for one in sink.got] == [1, *sink.seqs[:-1]]
        assert sink.got[0].envelope.endswith(b'"data":0}')
        assert empty.got == []


async def test_messages_over_lost_connections_arrive_once_and_in_order(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        reading(connection) as readers,
    ):
        await writer.publish(-1)
        sink = Sink()
        await readers.follow(A, sink)
        for _ in range(5):
            for number in range(100):
                await writer.publish(number)
                if number == 50:
                    proxy.cut()
            await connection.wait_up()
        await writer.publish(-2)
        await until(lambda: len(sink.got) >= 501)

        assert sink.seqs == list(range(2, 503))
        assert [one.prev for one in sink.got] == list(range(1, 502))


async def test_last_message_that_was_not_republished_is_found_by_the_check(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        reading(connection, check_s=0.2) as readers,
    ):
        await writer.publish(0, channel=B)
        sink = Sink()
        await readers.follow(A, sink)
        proxy.is_mute = True
        await writer.publish(1)
        await until(lambda: proxy.lost_bytes > 0)
        proxy.is_mute = False
        await until(lambda: len(sink.got) == 1)

        assert (sink.got[0].seq, sink.got[0].prev) == (2, None)


async def stored(writer: Writer, count: int) -> list[Seq]:
    """Store so many messages, and return their sequences."""
    return [reply.seq or 0 for reply in [await writer.publish(number) for number in range(count)]]


def has_come_to(sink: Sink, seq: Seq) -> bool:
    return max([*sink.seqs, sink.begins[-1]]) == seq


async def test_reader_begins_again_after_missed_messages_were_removed(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        reading(connection) as readers,
    ):
        sink, bystander = Sink(), Sink()
        await writer.publish(0)
        await writer.publish(0, channel=B)
        await readers.follow(A, sink)
        await readers.follow(B, bystander)
        for _ in range(4):
            proxy.is_open = False
            proxy.cut()
            await until(lambda: not connection.is_up)
            lost = await stored(writer, 2)
            await writer.log.purge(A)
            proxy.is_open = True
            await connection.wait_up()
            kept = await stored(writer, 5)  # Some of them possibly before the first check.
            await until(partial(has_come_to, sink, kept[-1]))

            again = sink.begins[-1]
            assert again not in lost
            assert [seq for seq in kept if seq > again] == [seq for seq in sink.seqs if seq >= kept[0]]

        assert len(sink.begins) == 5
        assert bystander.begins == [2]


async def test_purged_channel_continues_without_a_gap_if_no_message_was_missed(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        reading(connection, check_s=0.02) as readers,
    ):
        sink = Sink()
        await writer.publish(0)
        await readers.follow(A, sink)
        for number in range(3):
            await writer.publish(number)
            await until(partial(has_come_to, sink, number + 2))
            await writer.log.purge(A)
            await connection.check(5)

        assert sink.begins == [1]
        assert [(one.seq, one.prev) for one in sink.got] == [(2, 1), (3, None), (4, None)]


async def test_reader_continues_after_a_reconnect_from_a_message_that_still_exists(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        reading(connection) as readers,
    ):
        sink = Sink()
        for number in range(3):
            await writer.publish(number)
        await readers.follow(A, sink)
        await writer.log.purge(A, up_to=2)
        proxy.cut()
        await until(lambda: not connection.is_up)
        await writer.publish(3)
        await connection.wait_up()
        await until(lambda: len(sink.got) == 1)

        assert (sink.begins, sink.got[0].prev) == ([3], 3)


async def test_new_logs_lineage_is_passed_on_before_its_first_message(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer, reading(connection) as readers:
        sink = Sink()
        await readers.follow(A, sink)
        assert sink.lives == [LogLineage(None)]
        for number in range(20):
            await writer.publish(number, channel=B if number % 2 else A)
        await until(lambda: len(sink.got) == 10)

        assert sink.begins == [0]
        assert sink.lives == [LogLineage(writer.log.epoch)]
        assert sink.seqs == list(range(1, 20, 2))


async def test_replaced_log_is_detected_and_read_from_its_end(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        reading(connection, check_s=0.05) as readers,
    ):
        sink = Sink()
        for number in range(10):
            await writer.publish(number)
        await readers.follow(A, sink)
        await writer.log.drop()
        for number in range(3):
            await writer.publish(number)
        state = await writer.log.state()
        assert state is not None
        await until(lambda: len(sink.begins) == 2)
        await writer.publish(3)
        await until(lambda: bool(sink.got) and sink.got[-1].seq == 4)

        before, end = sink.begins  # the end of the new log when it was detected, which may be before its third message
        assert (before, 0 < end <= 3) == (10, True)
        assert sink.lives[1] == state.lineage != sink.lives[0]
        assert [(one.seq, one.prev) for one in sink.got] == [(seq, seq - 1) for seq in range(end + 1, 5)]


async def test_new_epoch_with_matching_sequences_is_detected(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        reading(connection, check_s=0.05) as readers,
    ):
        sink = Sink()
        await writer.publish(0)
        await readers.follow(A, sink)
        state = await writer.log.begin_epoch()
        await until(lambda: len(sink.begins) == 2)

        assert (sink.begins, sink.lives[1]) == ([1, 1], state.lineage)


async def test_two_readers_of_a_channel_are_independent_and_a_closed_one_receives_nothing(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer, reading(connection) as readers:
        staying, leaving = Sink(), Sink()
        await readers.follow(A, staying)
        reader = await readers.follow(A, leaving)
        await writer.publish(1)
        await until(lambda: len(staying.got) == len(leaving.got) == 1)

        await readers.unfollow(reader)
        await readers.unfollow(reader)
        await writer.publish(2)
        await until(lambda: len(staying.got) == 2)
        await reader.catch_up()

        assert (len(leaving.got), len(readers), len(connection._subscriptions)) == (1, 1, 1)


async def test_follow_without_nats_raises_unavailable_and_leaves_no_reader(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection, reading(connection) as readers:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)
        sink = Sink()

        with pytest.raises(Unavailable):
            await readers.follow(A, sink)

        assert (len(readers), len(connection._subscriptions), sink.began) == (0, 0, None)


async def test_follow_interrupted_by_a_lost_connection_leaves_no_reader(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection, reading(connection) as readers:
        proxy.is_mute = True
        async with asyncio.TaskGroup() as group:
            group.create_task(_is_refused(readers))
            await until(lambda: proxy.lost_bytes > 0)
            proxy.is_open = False
            proxy.cut()

        assert (len(readers), len(connection._subscriptions)) == (0, 0)


async def _is_refused(readers: ChannelReaders) -> None:
    with pytest.raises(Unavailable):
        await readers.follow(A, Sink())


class Failing(Sink):
    """Raises once on each message, before it takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[Seq] = set()

    def take(self, found: list[StoredMessage]) -> None:
        if not {one.seq for one in found} <= self.refused:
            self.refused.update(one.seq for one in found)
            raise ValueError(found)
        super().take(found)


async def test_failing_sink_misses_no_message_and_does_not_delay_other_channels(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        reading(connection, check_s=0.05) as readers,
    ):
        failing, other = Failing(), Sink()
        await readers.follow(A, failing)
        await readers.follow(B, other)
        for number in range(10):
            await writer.publish(number)
            await writer.publish(number, channel=B)
        await until(lambda: len(failing.got) == 10 and len(other.got) == 10)
        assert failing.seqs == list(range(1, 20, 2))
        assert other.seqs == list(range(2, 21, 2))
