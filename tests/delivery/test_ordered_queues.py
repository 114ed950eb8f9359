"""Queues with `key_ordered` on a server: pulls, dead letters, sockets, and requests that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from msgspec import Raw

from artcafe.delivery.pull_holds import ACK, EXTEND, NAK
from artcafe.errors import Conflict, Invalid
from artcafe.fabric.tenant_log import TenantLog
from artcafe.model import Channel, ChannelType, QueueSettings
from artcafe.rules.queues import QueueChange
from artcafe.wire.frames import Publish
from tests.delivery.test_queue_pull import LONG, Worker, a_worker, another_server, data_of
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, RawClient
from tests.gateway.test_queues import next_of, worker

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayApp]:
    """Yield the server shared by the tests of this module."""
    async with gateway_app(tmp_path_factory.mktemp("server")) as made:
        yield made


async def an_ordered_queue(it: GatewayApp, **more: Any) -> Channel:
    change = QueueChange(key_ordered=True, **more)
    return await it.services.channels.create(it.owner, name="tasks", type=ChannelType.QUEUE, queue=change)


async def publish(it: GatewayApp, queue: Channel, *tasks: tuple[str, int]) -> None:
    """Store messages, each with its key and data."""
    for key, data in tasks:
        message = Publish(queue.id, Raw(b"%d" % data), headers={"partition": key})
        await it.services.messaging.publish(it.owner, queue.id, message)


@asynccontextmanager
async def at_work(it: GatewayApp, queue: Channel) -> AsyncIterator[RawClient]:
    """Connect the agent to the queue, and delete that at the end: its subscription begins on every later connection."""
    try:
        async with worker(it, queue, max_unacked=8) as raw:
            yield raw
    finally:
        await it.services.channels.delete(it.owner, queue.id)


async def pulled(puller: Worker, count: int) -> list[dict[str, Any]]:
    """Pull until there are as many messages, without acknowledging them."""
    found: list[dict[str, Any]] = []
    async with asyncio.timeout(BOUND_S):
        while len(found) < count:
            found += await puller.pull(LONG)
    return found


async def test_pull_takes_one_message_of_each_key(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it)
    one, other = await a_worker(it, queue), await a_worker(it, queue)
    await publish(it, queue, ("a", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5))
    first, second = await one.pull()
    assert data_of([first, second]) == [1, 3]
    assert await other.pull() == []

    assert await one.code(ACK, first) is None
    (third,) = await pulled(other, 1)
    assert (third["data"], third["deliveries"]) == (2, 1)
    assert await one.code(NAK, second) is None
    (again,) = await pulled(other, 1)
    assert (again["data"], again["deliveries"]) == (3, 2)
    assert await other.code(ACK, again) is None
    assert await other.code(ACK, third) is None
    assert sorted(data_of(await pulled(one, 2))) == [4, 5]


@pytest.mark.promise("9c")
async def test_pulls_from_two_servers_share_the_order(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it)
    puller = await a_worker(it, queue)
    await publish(it, queue, ("a", 1), ("a", 2), ("a", 3))
    async with another_server(it) as there:
        elsewhere = replace(puller, services=there)
        (first,) = await puller.pull()
        assert await elsewhere.pull() == []
        assert await elsewhere.code(EXTEND, first) is None
        assert await elsewhere.code(ACK, first) is None
        (second,) = await pulled(elsewhere, 1)
        assert (second["data"], second["deliveries"]) == (2, 1)
        assert await puller.code(ACK, second) is None
        (third,) = await pulled(puller, 1)
        assert (third["data"], third["deliveries"]) == (3, 1)
        assert await puller.code(ACK, third) is None


async def test_ack_of_a_pull_whose_server_has_ended_lets_its_key_go_on(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it)
    puller = await a_worker(it, queue)
    await publish(it, queue, ("a", 1), ("a", 2))
    async with another_server(it) as there:
        (first,) = await replace(puller, services=there).pull()
    assert await puller.pull() == []
    assert await puller.code(ACK, first) is None
    (second,) = await pulled(puller, 1)
    assert (second["data"], second["deliveries"]) == (2, 1)


@pytest.mark.promise("9c")
async def test_poison_message_goes_to_the_dead_letters_and_its_key_goes_on(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it, max_deliveries=2)
    await publish(it, queue, ("a", 1), ("a", 2), ("b", 3))
    assert queue.dead_letter is not None
    log: TenantLog = it.services.fabric.tenant(it.owner.tenant_id).log
    async with at_work(it, queue) as raw:
        got = [await next_of(raw, queue) for _ in range(2)]
        assert sorted(each["data"] for each in got) == [1, 3]
        poison = next(each for each in got if each["data"] == 1)
        await raw.ask("nak", channel=queue.id, seq=poison["seq"], delay_s=0)
        assert ((again := await next_of(raw, queue))["data"], again["deliveries"]) == (1, 2)
        assert not await log.after(queue.dead_letter, 0)
        await raw.ask("nak", channel=queue.id, seq=poison["seq"], delay_s=0)
        following = await next_of(raw, queue)
        assert (following["data"], following["deliveries"]) == (2, 1)
        (letter,) = await log.after(queue.dead_letter, 0)
        assert b'"reason":"max_deliveries","deliveries":2' in letter.envelope

        await raw.ask("nak", channel=queue.id, seq=following["seq"], dead=True)  # rejected
        await publish(it, queue, ("a", 4))
        assert (await next_of(raw, queue))["data"] == 4
        (last_letter,) = await log.after(queue.dead_letter, letter.seq)
        assert b'"reason":"rejected"' in last_letter.envelope


async def test_redriven_message_goes_behind_the_others_of_its_key(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it, max_deliveries=1)
    await publish(it, queue, ("a", 1), ("a", 2))
    log: TenantLog = it.services.fabric.tenant(it.owner.tenant_id).log
    async with at_work(it, queue) as raw:
        first = await next_of(raw, queue)
        await raw.ask("nak", channel=queue.id, seq=first["seq"], dead=True)
        second = await next_of(raw, queue)
        assert queue.dead_letter is not None
        (letter,) = await log.after(queue.dead_letter, 0)
        await it.services.redrives.redrive_one(it.owner, queue.dead_letter, letter.seq)
        assert await raw.is_quiet()
        await raw.ack(queue.id, second["seq"])
        assert (await next_of(raw, queue))["data"] == 1


async def test_key_that_is_too_long_is_refused_and_named(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it)
    plain = await it.services.channels.create(it.owner, name="plain", type=ChannelType.QUEUE)
    await publish(it, queue, ("k" * 256, 1))
    await publish(it, plain, ("k" * 257, 1))
    with pytest.raises(Invalid, match=r"headers.partition: must have at most 256 characters in a channel with key_ordered.* 257"):
        await publish(it, queue, ("k" * 257, 1))
    async with at_work(it, queue) as raw:
        await next_of(raw, queue)
        await raw.say("publish", channel=queue.id, data=1, headers={"partition": "k" * 257})
        assert "headers.partition" in (await raw.next())["error"]["message"]


async def test_order_begins_while_no_message_is_unfinished_and_ends_at_any_time(it: GatewayApp) -> None:
    queue = await it.services.channels.create(it.owner, name="tasks", type=ChannelType.QUEUE)
    update = it.services.channels.update
    await publish(it, queue, ("a", 1))
    with pytest.raises(Conflict, match="has messages that are not acknowledged"):
        await update(it.owner, queue.id, queue=QueueChange(key_ordered=True))
    async with at_work(it, queue) as raw:
        first = await next_of(raw, queue)
        with pytest.raises(Conflict):
            await update(it.owner, queue.id, queue=QueueChange(key_ordered=True))
        await raw.ack(queue.id, first["seq"])
        async with asyncio.timeout(BOUND_S):
            while not await it.services.fabric.is_queue_done(it.owner.tenant_id, queue.id):  # noqa: ASYNC110 (NATS is asked)
                await asyncio.sleep(0.01)
        ordered = await update(it.owner, queue.id, queue=QueueChange(key_ordered=True))
        assert ordered.key_ordered is True
        feed = it.services.queue_hub.feed(it.owner.tenant_id, queue.id, QueueSettings())
        await until(lambda: feed.settings.key_ordered)
        it.services.queue_hub.release(feed)
        await publish(it, queue, ("a", 2), ("a", 3))
        assert (await next_of(raw, queue))["data"] == 2
        assert await raw.is_quiet()
        assert (await update(it.owner, queue.id, queue=QueueChange(key_ordered=False))).key_ordered is False
        assert (await next_of(raw, queue))["data"] == 3


async def test_messages_that_waited_for_their_key_count_no_delivery_when_it_is_switched_off(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it, max_deliveries=1, ack_wait_s=60)
    async with another_server(it) as there:
        puller = await a_worker(it, queue)
        elsewhere = replace(puller, services=there)
        await publish(it, queue, ("a", 1), ("a", 2), ("a", 3))
        assert data_of(await puller.pull()) == [1]
        await it.services.channels.update(it.owner, queue.id, queue=QueueChange(key_ordered=False))
        there.invalidation.notify(it.owner.tenant_id)
        found = await pulled(elsewhere, 2)
        assert [(item["data"], item["deliveries"]) for item in found] == [(2, 1), (3, 1)]


async def test_order_begins_again_at_once_after_it_was_switched_off(it: GatewayApp) -> None:
    queue = await an_ordered_queue(it)
    puller = await a_worker(it, queue)

    async def do(*data: int) -> None:
        await publish(it, queue, *(("a", each) for each in data))
        done: list[Any] = []
        while len(done) < len(data):
            for item in await pulled(puller, 1):
                assert await puller.code(ACK, item) is None
                done.append(item["data"])
        assert done == [*data]

    async def switch(is_ordered: bool) -> None:
        feed = it.services.queue_hub._feeds[it.owner.tenant_id, queue.id]
        await it.services.channels.update(it.owner, queue.id, queue=QueueChange(key_ordered=is_ordered))
        await until(lambda: feed.settings.key_ordered is is_ordered)

    await do(1, 2)
    await switch(False)
    await do(3, 4)
    await switch(True)
    await publish(it, queue, ("a", 5), ("a", 6))
    (item,) = await pulled(puller, 1)
    assert item["data"] == 5
