from __future__ import annotations

import asyncio

import pytest
from nats.aio.msg import Msg

from artcafe.errors import LinkLost, NoResponder, Unavailable
from artcafe.fabric.nats.client import Outgoing
from artcafe.fabric.nats.connection import Link
from artcafe.fabric.nats.subscription import Follow
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, a_tenant, until, within
from tests.relay import relayed

ASKED = Subject("asked")


def echo(link: Link, prefix: bytes = b"") -> object:
    async def answer(msg: Msg) -> None:
        await link.client().publish(msg.reply, prefix + msg.data)

    return answer


async def send(link: Link, subject: str, body: bytes) -> None:
    await link.client().publish(subject, body)
    await link.client().flush()


async def test_an_account_that_nats_does_not_know_is_made_known_and_then_let_in(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link:
        assert link.is_up
        await link.check(BOUND_S)


async def test_requests_are_answered_each_with_its_own_answer(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.link(tenant) as link, nats.link(tenant) as other:
        await other.subscribe(ASKED, echo(other, b"to "))  # type: ignore[arg-type]  # the coroutine that it is

        async with asyncio.TaskGroup() as group:
            asking = {number: group.create_task(link.request(ASKED, b"%d" % number)) for number in range(50)}

        assert all(task.result().data == b"to %d" % number for number, task in asking.items())


async def test_a_request_that_nobody_takes_is_told_from_one_that_is_lost(nats: Nats) -> None:
    async with nats.link(a_tenant()) as link:
        with pytest.raises(NoResponder):
            await link.request(Subject("nobody"), b"")
        with pytest.raises(NoResponder):
            await link.request_many(Subject("nobody"), b"")


async def test_what_waits_for_an_answer_hears_that_the_connection_is_lost(nats: Nats) -> None:
    tenant = a_tenant()
    heard = asyncio.Event()

    async def never_answer(_: Msg) -> None:
        heard.set()

    async with nats.proxy() as proxy, nats.link(tenant, proxy.url) as link, nats.link(tenant) as other:
        await other.subscribe(ASKED, never_answer)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(_outcome(link.request(ASKED, b""))) for _ in range(3)]
            asking.append(group.create_task(_outcome(link.request_many(ASKED, b""))))
            await within(heard.wait())
            proxy.cut()

        assert [type(task.result()) for task in asking] == [LinkLost] * 4


async def _outcome(request: object) -> object:
    try:
        return await request  # type: ignore[misc]  # any of the two kinds of request
    except LinkLost as lost:
        return lost


async def test_a_request_that_is_not_answered_in_time_says_so_and_is_forgotten(nats: Nats) -> None:
    async def never_answer(_: Msg) -> None:
        return

    async with nats.link(a_tenant()) as link:
        await link.subscribe(ASKED, never_answer)
        with pytest.raises(TimeoutError):
            await link.request(ASKED, b"", timeout_s=0.01)
        assert not link._waiting


async def test_without_a_connection_nothing_is_sent_and_everything_says_so(nats: Nats) -> None:
    async def ignore(_: Msg) -> None:
        return

    async with nats.proxy() as proxy, nats.link(a_tenant(), proxy.url) as link:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not link.is_up)

        with pytest.raises(Unavailable):
            await link.request(ASKED, b"")
        with pytest.raises(Unavailable):
            await link.request_last([Outgoing(ASKED, "", b"")] * 2)
        with pytest.raises(Unavailable):
            await link.subscribe(ASKED, ignore)
        with pytest.raises(Unavailable):
            await link.wait_up(0.01)
        with pytest.raises(Unavailable):
            await link.check(0.01)
        assert not link._follows


async def test_a_following_outlives_its_connections_and_each_new_one_is_told(nats: Nats) -> None:
    tenant, heard, ups = a_tenant(), asyncio.Queue[bytes](), []

    async def hear(msg: Msg) -> None:
        heard.put_nowait(msg.data)

    async with nats.proxy() as proxy, nats.link(tenant, proxy.url) as link, nats.link(tenant) as other:
        follow = await link.subscribe(ASKED, hear)
        for round_ in range(3):
            link.on_up(lambda: ups.append(link.is_up))
            await send(other, ASKED, b"%d" % round_)
            assert await within(heard.get()) == b"%d" % round_
            seen = proxy.connections
            proxy.cut()
            await until(lambda: proxy.connections > seen and link.is_up)  # noqa: B023 (called within its round)

        await link.unsubscribe(follow)
        await link.unsubscribe(follow)
        await link.check(BOUND_S)
        await send(other, ASKED, b"to nobody")
        await link.check(BOUND_S)
        assert heard.empty()
        assert ups == [True] * 6  # 1 + 2 + 3 callbacks.


async def test_followings_that_end_while_the_connection_is_replaced_are_gone_on_the_new_one(nats: Nats) -> None:
    tenant, heard = a_tenant(), asyncio.Queue[str]()

    async def hear(msg: Msg) -> None:
        heard.put_nowait(msg.subject)

    async with nats.proxy() as proxy, nats.link(tenant, proxy.url) as link, nats.link(tenant) as other:
        follows = [await link.subscribe(Subject(f"f.{number}"), hear) for number in range(20)]
        for _ in range(5):
            last: Follow = follows.pop()
            seen = proxy.connections
            proxy.cut()
            await until(lambda: proxy.connections > seen)  # noqa: B023 (called within its round)
            for _ in range(2):
                await link.unsubscribe(follows.pop(0))
                await asyncio.sleep(0)
            await link.unsubscribe(last)
            await link.wait_up()

        for number in range(20):
            await send(other, f"f.{number}", b"")
        await link.check(BOUND_S)
        await link.check(BOUND_S)
        assert heard.qsize() == len(follows)


async def test_a_server_that_hangs_with_much_unsent_is_left_for_one_that_answers(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.link(a_tenant(), proxy.url, ping_s=0.3) as link:
        client, seen = link.client(), proxy.connections
        proxy.stick()
        for _ in range(40):
            await client.publish("x", bytes(1_000_000))

        await until(lambda: proxy.connections > seen and link.is_up)

        await link.check(BOUND_S)


async def test_closing_ends_a_link_that_cannot_connect(nats: Nats) -> None:
    async with nats.proxy() as proxy:
        proxy.is_open = False
        link = Link("test", [proxy.url], lambda: nats.accounts.user(a_tenant()))
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            group.create_task(link.run())
            with pytest.raises(Unavailable):
                await link.wait_up(0.2)
            link.close()
            link.close()


async def test_what_a_lost_connection_has_not_carried_is_not_delivered_when_the_network_is_back(nats: Nats) -> None:
    tenant, got = a_tenant(), list[bytes]()

    async def note(msg: Msg) -> None:
        got.append(msg.data)

    async with (
        relayed(nats.url) as wire,
        nats.link(tenant, wire.url, ping_s=0.2) as link,
        nats.link(tenant) as other,
    ):
        await other.subscribe(ASKED, note)
        dialled = wire.connections
        wire.hold()
        await link.send(Outgoing(ASKED, "", b"held"))
        await until(lambda: wire.connections > dialled)  # The link dials again once it has broken the connection.
        wire.release()
        await link.wait_up(BOUND_S)
        await link.send(Outgoing(ASKED, "", b"later"))
        await until(lambda: b"later" in got)
        assert got == [b"later"]
