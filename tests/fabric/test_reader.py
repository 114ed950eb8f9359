from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from artcafe.errors import Unavailable
from artcafe.fabric.link import Link
from artcafe.fabric.reader import LOOK_S, Tail
from artcafe.fabric.streams import Stored, TenantLog
from artcafe.model import ChannelId, Seq
from artcafe.rules.starts import Life
from tests.fabric.rooms import A, B, Nats, a_tenant, until, writing


class Sink:
    """Keeps what it is handed."""

    def __init__(self) -> None:
        self.begins: list[Seq] = []
        self.lives: list[Life] = []
        self.got: list[Stored] = []

    @property
    def began(self) -> Seq | None:
        """Where, if it was once."""
        return self.begins[0] if len(self.begins) == 1 else None

    def begin(self, last: Seq, life: Life) -> None:
        self.begins.append(last)
        self.lives.append(life)

    def begun(self, life: Life) -> None:
        assert self.lives.pop() == Life(None)
        self.lives.append(life)

    def take(self, found: list[Stored]) -> None:
        self.got += found

    @property
    def seqs(self) -> list[Seq]:
        return [one.seq for one in self.got]


@asynccontextmanager
async def tailing(link: Link, look_s: float = LOOK_S) -> AsyncIterator[Tail]:
    """A tail of the link's tenant that runs."""
    tail = Tail(TenantLog(link), look_s=look_s)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(tail.run())
        try:
            yield tail
        finally:
            running.cancel()


async def test_a_follower_gets_what_comes_after_it_began_each_with_the_one_before(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link, writing(link) as writer, tailing(link) as tail:
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
        nats.link(tenant, proxy.url) as link,
        nats.link(tenant) as other,
        writing(other) as writer,
        tailing(link) as tail,
    ):
        await writer.publish(-1)
        sink = Sink()
        await tail.follow(A, sink)
        for _ in range(5):
            for number in range(100):
                await writer.publish(number)
                if number == 50:
                    proxy.cut()
            await link.wait_up()
        await writer.publish(-2)
        await until(lambda: len(sink.got) >= 501)

        assert sink.seqs == list(range(2, 503))
        assert [one.prev for one in sink.got] == list(range(1, 502))


async def test_a_last_message_that_was_never_shown_is_found_by_looking(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.link(tenant, proxy.url) as link,
        nats.link(tenant) as other,
        writing(other) as writer,
        tailing(link, look_s=0.2) as tail,
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


async def test_what_was_missed_and_removed_shows_in_the_message_after_it(nats: Nats) -> None:
    tenant = a_tenant()
    async with (
        nats.proxy() as proxy,
        nats.link(tenant, proxy.url) as link,
        nats.link(tenant) as other,
        writing(other) as writer,
        tailing(link) as tail,
    ):
        sink = Sink()
        await writer.publish(0)
        await tail.follow(A, sink)
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not link.is_up)
        await writer.publish(1)
        await writer.publish(2)
        await writer.log.purge(A)
        proxy.is_open = True
        await link.wait_up()
        await link.check(5)
        await writer.publish(3)
        await writer.publish(4)
        await until(lambda: len(sink.got) == 2)

        assert [(one.seq, one.prev) for one in sink.got] == [(4, None), (5, 4)]


async def test_two_readers_of_a_channel_do_not_disturb_each_other_and_one_that_ended_gets_nothing(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link, writing(link) as writer, tailing(link) as tail:
        staying, leaving = Sink(), Sink()
        await tail.follow(A, staying)
        reader = await tail.follow(A, leaving)
        await writer.publish(1)
        await until(lambda: len(staying.got) == len(leaving.got) == 1)

        await tail.unfollow(reader)
        await tail.unfollow(reader)
        await writer.publish(2)
        await until(lambda: len(staying.got) == 2)
        await reader.level()

        assert (len(leaving.got), len(tail), len(link._follows)) == (1, 1, 1)


async def test_without_nats_nothing_is_followed(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.link(a_tenant(), proxy.url) as link, tailing(link) as tail:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not link.is_up)
        sink = Sink()

        with pytest.raises(Unavailable):
            await tail.follow(A, sink)

        assert (len(tail), len(link._follows), sink.began) == (0, 0, None)


async def test_a_following_that_nats_leaves_in_the_middle_is_given_up_whole(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.link(a_tenant(), proxy.url) as link, tailing(link) as tail:
        proxy.is_mute = True
        async with asyncio.TaskGroup() as group:
            group.create_task(_is_refused(tail))
            await until(lambda: proxy.lost_bytes > 0)
            proxy.is_open = False
            proxy.cut()

        assert (len(tail), len(link._follows)) == (0, 0)


async def _is_refused(tail: Tail) -> None:
    with pytest.raises(Unavailable):
        await tail.follow(A, Sink())
