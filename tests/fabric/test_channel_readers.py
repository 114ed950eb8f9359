from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from artcafe.errors import Unavailable
from artcafe.fabric.channel_readers import CHECK_S, ChannelReaders
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_log import StoredMessage, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.rules.start_position import LogLineage
from tests.fabric.nats_env import A, B, Nats, Writer, a_tenant, until, writing


class Sink:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.begins: list[Seq] = []
        self.lives: list[LogLineage] = []
        self.got: list[StoredMessage] = []

    @property
    def began(self) -> Seq | None:
        """Where, if it was once."""
        return self.begins[0] if len(self.begins) == 1 else None

    def begin(self, last: Seq, life: LogLineage) -> None:
        self.begins.append(last)
        self.lives.append(life)

    def begun(self, life: LogLineage) -> None:
        assert self.lives.pop() == LogLineage(None)
        self.lives.append(life)

    def take(self, found: list[StoredMessage]) -> None:
        self.got += found

    @property
    def seqs(self) -> list[Seq]:
        return [one.seq for one in self.got]


@asynccontextmanager
async def tailing(connection: NatsConnection, check_s: float = CHECK_S) -> AsyncIterator[ChannelReaders]:
    """A tail of the connection's tenant that runs."""
    tail = ChannelReaders(TenantLog(connection), check_s=check_s)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(tail.run())
        try:
            yield tail
        finally:
            running.cancel()


async def test_a_follower_gets_what_comes_after_it_began_each_with_the_one_before(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer, tailing(connection) as tail:
        await writer.publish(0)
        await writer.publish(0, channel=B)
        sink, empty = Sink(), Sink()
        await tail.follow(A, sink)
        await tail.follow(ChannelId("chn_empty"), empty)

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


async def test_over_cut_connections_nothing_is_missed_repeated_or_out_of_order(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        tailing(connection) as tail,
    ):
        await writer.publish(-1)
        sink = Sink()
        await tail.follow(A, sink)
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


async def test_a_last_message_that_was_never_shown_is_found_by_looking(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        tailing(connection, check_s=0.2) as tail,
    ):
        await writer.publish(0, channel=B)
        sink = Sink()
        await tail.follow(A, sink)
        proxy.is_mute = True
        await writer.publish(1)
        await until(lambda: proxy.lost_bytes > 0)
        proxy.is_mute = False
        await until(lambda: len(sink.got) == 1)

        assert (sink.got[0].seq, sink.got[0].prev) == (2, None)


async def stored(writer: Writer, count: int) -> list[Seq]:
    """The sequences of so many new messages."""
    return [reply.seq or 0 for reply in [await writer.publish(number) for number in range(count)]]


def has_come_to(sink: Sink, seq: Seq) -> bool:
    return max([*sink.seqs, sink.begins[-1]]) == seq


async def test_where_something_was_missed_and_removed_the_reader_begins_again_behind_it(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        tailing(connection) as tail,
    ):
        sink, bystander = Sink(), Sink()
        await writer.publish(0)
        await writer.publish(0, channel=B)
        await tail.follow(A, sink)
        await tail.follow(B, bystander)
        for _ in range(4):
            proxy.is_open = False
            proxy.cut()
            await until(lambda: not connection.is_up)
            lost = await stored(writer, 2)
            await writer.log.purge(A)
            proxy.is_open = True
            await connection.wait_up()
            kept = await stored(writer, 5)  # Some of it before the log was looked at, perhaps.
            await until(partial(has_come_to, sink, kept[-1]))

            again = sink.begins[-1]
            assert again not in lost
            assert [seq for seq in kept if seq > again] == [seq for seq in sink.seqs if seq >= kept[0]]

        assert len(sink.begins) == 5
        assert bystander.begins == [2]


async def test_a_channel_that_was_emptied_goes_on_without_a_break_where_nothing_was_missed(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        tailing(connection, check_s=0.02) as tail,
    ):
        sink = Sink()
        await writer.publish(0)
        await tail.follow(A, sink)
        for number in range(3):
            await writer.publish(number)
            await until(partial(has_come_to, sink, number + 2))
            await writer.log.purge(A)
            await connection.check(5)

        assert sink.begins == [1]
        assert [(one.seq, one.prev) for one in sink.got] == [(2, 1), (3, None), (4, None)]


async def test_after_a_cut_the_reader_goes_on_behind_a_message_that_is_still_there(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.connection(tenant, proxy.url) as connection,
        nats.connection(tenant) as other,
        writing(other) as writer,
        tailing(connection) as tail,
    ):
        sink = Sink()
        for number in range(3):
            await writer.publish(number)
        await tail.follow(A, sink)
        await writer.log.purge(A, up_to=2)
        proxy.cut()
        await until(lambda: not connection.is_up)
        await writer.publish(3)
        await connection.wait_up()
        await until(lambda: len(sink.got) == 1)

        assert (sink.begins, sink.got[0].prev) == ([3], 3)


async def test_a_log_that_begins_is_known_before_its_first_message_is_handed_on(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer, tailing(connection) as tail:
        sink = Sink()
        await tail.follow(A, sink)
        assert sink.lives == [LogLineage(None)]
        for number in range(20):
            await writer.publish(number, channel=B if number % 2 else A)
        await until(lambda: len(sink.got) == 10)

        assert sink.begins == [0]
        assert sink.lives == [LogLineage(writer.log.epoch)]
        assert sink.seqs == list(range(1, 20, 2))


async def test_a_log_that_another_has_taken_the_place_of_is_noticed_and_read_from_there(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        tailing(connection, check_s=0.05) as tail,
    ):
        sink = Sink()
        for number in range(10):
            await writer.publish(number)
        await tail.follow(A, sink)
        await writer.log.drop()
        for number in range(3):
            await writer.publish(number)
        state = await writer.log.state()
        assert state is not None
        await until(lambda: len(sink.begins) == 2)
        await writer.publish(3)
        await until(lambda: bool(sink.got))

        assert sink.begins == [10, 3]
        assert sink.lives[1] == state.lineage != sink.lives[0]
        assert [(one.seq, one.prev) for one in sink.got] == [(4, 3)]


async def test_another_epoch_is_noticed_even_where_the_sequences_fit(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        tailing(connection, check_s=0.05) as tail,
    ):
        sink = Sink()
        await writer.publish(0)
        await tail.follow(A, sink)
        state = await writer.log.begin_epoch()
        await until(lambda: len(sink.begins) == 2)

        assert (sink.begins, sink.lives[1]) == ([1, 1], state.lineage)


async def test_two_readers_of_a_channel_do_not_disturb_each_other_and_one_that_ended_gets_nothing(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection, writing(connection) as writer, tailing(connection) as tail:
        staying, leaving = Sink(), Sink()
        await tail.follow(A, staying)
        reader = await tail.follow(A, leaving)
        await writer.publish(1)
        await until(lambda: len(staying.got) == len(leaving.got) == 1)

        await tail.unfollow(reader)
        await tail.unfollow(reader)
        await writer.publish(2)
        await until(lambda: len(staying.got) == 2)
        await reader.catch_up()

        assert (len(leaving.got), len(tail), len(connection._subscriptions)) == (1, 1, 1)


async def test_without_nats_nothing_is_followed(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection, tailing(connection) as tail:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)
        sink = Sink()

        with pytest.raises(Unavailable):
            await tail.follow(A, sink)

        assert (len(tail), len(connection._subscriptions), sink.began) == (0, 0, None)


async def test_a_following_that_nats_leaves_in_the_middle_is_given_up_whole(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection, tailing(connection) as tail:
        proxy.is_mute = True
        async with asyncio.TaskGroup() as group:
            group.create_task(_is_refused(tail))
            await until(lambda: proxy.lost_bytes > 0)
            proxy.is_open = False
            proxy.cut()

        assert (len(tail), len(connection._subscriptions)) == (0, 0)


async def _is_refused(tail: ChannelReaders) -> None:
    with pytest.raises(Unavailable):
        await tail.follow(A, Sink())


class Failing(Sink):
    """Raises on each message once, before it takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[Seq] = set()

    def take(self, found: list[StoredMessage]) -> None:
        if not {one.seq for one in found} <= self.refused:
            self.refused.update(one.seq for one in found)
            raise ValueError(found)
        super().take(found)


async def test_a_sink_that_raises_misses_nothing_and_no_other_channel_waits(nats: Nats) -> None:
    async with (
        nats.connection(a_tenant()) as connection,
        writing(connection) as writer,
        tailing(connection, check_s=0.05) as tail,
    ):
        failing, other = Failing(), Sink()
        await tail.follow(A, failing)
        await tail.follow(B, other)
        for number in range(10):
            await writer.publish(number)
            await writer.publish(number, channel=B)
        await until(lambda: len(failing.got) == 10 and len(other.got) == 10)
        assert failing.seqs == list(range(1, 20, 2))
        assert other.seqs == list(range(2, 21, 2))
