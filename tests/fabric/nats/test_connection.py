from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from nats.aio.msg import Msg

from artcafe.errors import NatsConnectionLost, NoResponder, Unavailable
from artcafe.fabric.nats.client import OutgoingMessage
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.subscription import SubjectSubscription
from artcafe.rules.subjects import Subject
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, a_tenant, until, within
from tests.relay import relayed

ASKED = Subject("asked")


def echo(connection: NatsConnection, prefix: bytes = b"") -> object:
    async def answer(msg: Msg) -> None:
        await connection.client().publish(msg.reply, prefix + msg.data)

    return answer


async def send(connection: NatsConnection, subject: str, body: bytes) -> None:
    await connection.client().publish(subject, body)
    await connection.client().flush()


async def test_unknown_account_is_registered_and_then_connects(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        assert connection.is_up
        await connection.check(BOUND_S)


async def test_concurrent_requests_each_get_their_own_reply(nats: Nats) -> None:
    tenant = a_tenant()
    async with nats.connection(tenant) as connection, nats.connection(tenant) as other:
        await other.subscribe(ASKED, echo(other, b"to "))  # type: ignore[arg-type]  # the coroutine that it is

        async with asyncio.TaskGroup() as group:
            asking = {number: group.create_task(connection.request(ASKED, b"%d" % number)) for number in range(50)}

        assert all(task.result().data == b"to %d" % number for number, task in asking.items())


async def test_request_without_a_responder_raises_no_responder(nats: Nats) -> None:
    async with nats.connection(a_tenant()) as connection:
        with pytest.raises(NoResponder):
            await connection.request(Subject("nobody"), b"")
        with pytest.raises(NoResponder):
            await connection.request_many(Subject("nobody"), b"")


async def test_requests_in_flight_fail_when_the_connection_is_lost(nats: Nats) -> None:
    tenant = a_tenant()
    heard = asyncio.Event()

    async def never_answer(_: Msg) -> None:
        heard.set()

    async with nats.proxy() as proxy, nats.connection(tenant, proxy.url) as connection, nats.connection(tenant) as other:
        await other.subscribe(ASKED, never_answer)
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(_outcome(connection.request(ASKED, b""))) for _ in range(3)]
            asking.append(group.create_task(_outcome(connection.request_many(ASKED, b""))))
            await within(heard.wait())
            proxy.cut()

        assert [type(task.result()) for task in asking] == [NatsConnectionLost] * 4


async def _outcome(request: object) -> object:
    try:
        return await request  # type: ignore[misc]  # any of the two kinds of request
    except NatsConnectionLost as lost:
        return lost


async def test_unanswered_request_times_out_and_is_forgotten(nats: Nats) -> None:
    async def never_answer(_: Msg) -> None:
        return

    async with nats.connection(a_tenant()) as connection:
        await connection.subscribe(ASKED, never_answer)
        with pytest.raises(TimeoutError):
            await connection.request(ASKED, b"", timeout_s=0.01)
        assert not connection.replies.waiting


async def test_without_a_connection_every_call_raises_unavailable(nats: Nats) -> None:
    async def ignore(_: Msg) -> None:
        return

    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url) as connection:
        proxy.is_open = False
        proxy.cut()
        await until(lambda: not connection.is_up)

        with pytest.raises(Unavailable):
            await connection.request(ASKED, b"")
        with pytest.raises(Unavailable):
            await connection.request_last([OutgoingMessage(ASKED, "", b"")] * 2)
        with pytest.raises(Unavailable):
            await connection.subscribe(ASKED, ignore)
        with pytest.raises(Unavailable):
            await connection.wait_up(0.01)
        with pytest.raises(Unavailable):
            await connection.check(0.01)
        assert not connection._subscriptions


async def test_subscription_outlives_its_connections_and_callbacks_run_after_each_new_one(nats: Nats) -> None:
    tenant, heard, ups = a_tenant(), asyncio.Queue[bytes](), []

    async def hear(msg: Msg) -> None:
        heard.put_nowait(msg.data)

    async with nats.proxy() as proxy, nats.connection(tenant, proxy.url) as connection, nats.connection(tenant) as other:
        subscription = await connection.subscribe(ASKED, hear)
        for round_ in range(3):
            connection.on_up(lambda: ups.append(connection.is_up))
            await send(other, ASKED, b"%d" % round_)
            assert await within(heard.get()) == b"%d" % round_
            seen = proxy.connections
            proxy.cut()
            await until(lambda: proxy.connections > seen and connection.is_up)  # noqa: B023 (called within its round)

        await connection.unsubscribe(subscription)
        await connection.unsubscribe(subscription)
        await connection.check(BOUND_S)
        await send(other, ASKED, b"to nobody")
        await connection.check(BOUND_S)
        assert heard.empty()
        assert ups == [True] * 6  # 1 + 2 + 3 callbacks.


async def test_subscriptions_that_end_during_a_reconnect_are_absent_from_the_new_connection(nats: Nats) -> None:
    tenant, heard = a_tenant(), asyncio.Queue[str]()

    async def hear(msg: Msg) -> None:
        heard.put_nowait(msg.subject)

    async with nats.proxy() as proxy, nats.connection(tenant, proxy.url) as connection, nats.connection(tenant) as other:
        follows = [await connection.subscribe(Subject(f"f.{number}"), hear) for number in range(20)]
        for _ in range(5):
            last: SubjectSubscription = follows.pop()
            seen = proxy.connections
            proxy.cut()
            await until(lambda: proxy.connections > seen)  # noqa: B023 (called within its round)
            for _ in range(2):
                await connection.unsubscribe(follows.pop(0))
                await asyncio.sleep(0)
            await connection.unsubscribe(last)
            await connection.wait_up()

        for number in range(20):
            await send(other, f"f.{number}", b"")
        await connection.check(BOUND_S)
        await connection.check(BOUND_S)
        assert heard.qsize() == len(follows)


async def test_hanging_server_with_a_full_send_buffer_is_replaced_by_one_that_answers(nats: Nats) -> None:
    async with nats.proxy() as proxy, nats.connection(a_tenant(), proxy.url, ping_s=0.3) as connection:
        client, seen = connection.client(), proxy.connections
        proxy.stick()
        for _ in range(40):
            await client.publish("x", bytes(1_000_000))

        await until(lambda: proxy.connections > seen and connection.is_up)

        await connection.check(BOUND_S)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_connection_that_is_lost_with_unsent_bytes_is_replaced_without_a_ping(
    nats: Nats, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """uvloop refuses a write to a closed transport, where nats-py's close would end without its callback."""

    async def story() -> None:
        async with nats.connection(a_tenant(), ping_s=10 * BOUND_S) as connection:
            is_replaced = asyncio.Event()
            connection.on_up(is_replaced.set)
            lost = connection.client()
            await lost._send_command(b"PING\r\n")  # as a publish does, before it flushes
            lost.abort()
            await within(is_replaced.wait())
            await connection.check(BOUND_S)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


async def test_close_ends_a_connection_that_cannot_connect(nats: Nats) -> None:
    async with nats.proxy() as proxy:
        proxy.is_open = False
        connection = NatsConnection("test", [proxy.url], lambda: nats.accounts.user(a_tenant()))
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
            group.create_task(connection.run())
            with pytest.raises(Unavailable):
                await connection.wait_up(0.2)
            connection.close()
            connection.close()


async def test_unsent_bytes_of_a_lost_connection_are_not_delivered_later(nats: Nats) -> None:
    tenant, got = a_tenant(), list[bytes]()

    async def note(msg: Msg) -> None:
        got.append(msg.data)

    async with (
        relayed(nats.url) as wire,
        nats.connection(tenant, wire.url, ping_s=0.2) as connection,
        nats.connection(tenant) as other,
    ):
        await other.subscribe(ASKED, note)
        dialled = wire.connections
        wire.hold()
        await connection.send(OutgoingMessage(ASKED, "", b"held"))
        await until(lambda: wire.connections > dialled)  # The connection dials again after closing the old one.
        wire.release()
        await connection.wait_up(BOUND_S)
        await connection.send(OutgoingMessage(ASKED, "", b"later"))
        await until(lambda: b"later" in got)
        assert got == [b"later"]
