"""Queue channels on sockets: each message at one subscriber at a time, given back in every way, and acknowledged once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from artcafe.delivery import queue_hub
from artcafe.errors import Unavailable
from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.tenant_log import TenantLog
from artcafe.fabric.work_queue import QueuedMessage, WorkQueue
from artcafe.model import AgentPrincipal, Channel, ChannelType, QueueSettings, SubscriptionStatus, TenantChange
from artcafe.rules.queues import QueueChange
from artcafe.rules.subjects import Subject, queue_consumer
from artcafe.tables.catalog import CHANNELS, Table
from artcafe.tables.engine.values import Item
from artcafe.tables.engine.writes import Assign, ItemKey
from artcafe.tables.sqlite.engine import Sqlite
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import BOUND_S, RawClient, open_client
from tests.services.service_env import new_key

numbers = itertools.count()


class FailingReads(Sqlite):
    """Tables whose next reads of channels fail."""

    fails = 0

    async def get(self, table: Table, keys: Sequence[ItemKey], *, consistent: bool = False) -> list[Item | None]:
        if table is CHANNELS and self.fails:
            self.fails -= 1
            raise Unavailable("the tables")
        return await super().get(table, keys, consistent=consistent)


async def make_queue(it: GatewayApp, **settings: Any) -> Channel:
    """Create a queue channel that the agent may subscribe to."""
    return await it.services.channels.create(
        it.owner, name=f"tasks {next(numbers)}", type=ChannelType.QUEUE, queue=QueueChange(**settings)
    )


@asynccontextmanager
async def worker(it: GatewayApp, queue: Channel, **more: object) -> AsyncIterator[RawClient]:
    """Connect the agent, and subscribe to the queue on this socket."""
    async with it.connected() as raw:
        reply = await raw.ask("subscribe", channel=queue.id, **more)
        assert reply == {"epoch": None, "cursor": None, "last": None, "gap": None, "channel": queue.id}, reply
        yield raw


async def next_of(raw: RawClient, queue: Channel) -> dict[str, Any]:
    """Return the next message of the queue."""
    message = await raw.message()
    assert message["channel"] == queue.id
    return message


async def consumer(connection: NatsConnection, queue: Channel) -> dict[str, Any]:
    """Return the state of a queue's consumer in NATS, or an error."""
    got = await connection.request(Subject(f"$JS.API.CONSUMER.INFO.log.{queue_consumer(queue.id)}"), b"")
    found: dict[str, Any] = msgspec.json.decode(got.data)
    return found


async def pending(it: GatewayApp, queue: Channel) -> int:
    """Return how many messages NATS counts as unacknowledged or undelivered."""
    info = await consumer(it.services.fabric.tenant(it.owner.tenant_id).connection, queue)
    return int(info["num_ack_pending"] + info["num_pending"])


async def emptied(it: GatewayApp, queue: Channel) -> None:
    """Wait until every message is acknowledged."""
    async with asyncio.timeout(BOUND_S):
        while await pending(it, queue):  # noqa: ASYNC110 (NATS is asked)
            await asyncio.sleep(0.01)


@pytest.mark.promise("9a")
async def test_queue_on_sockets(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        seqs = [await it.publish(b'"%d"' % each, queue) for each in range(4)]
        async with worker(it, queue) as one:
            first = await next_of(one, queue)
            assert (first["seq"], first["prev"], first["deliveries"], first["data"]) == (seqs[0], None, 1, "0")
            async with worker(it, queue) as two:
                second = await next_of(two, queue)
                assert second["seq"] == seqs[1]
                await one.ack(queue.id, seqs[1])
                assert (await one.next())["error"]["code"] == "not_held"
                await one.ack(queue.id, seqs[0])
                assert (await next_of(one, queue))["seq"] == seqs[2]
                assert await two.ask("nak", channel=queue.id, seq=seqs[1], delay_s=0) == {"channel": queue.id, "seq": seqs[1]}
                again = await next_of(two, queue)
                if again["seq"] == seqs[3]:  # NATS may deliver the next one first
                    await two.ack(queue.id, seqs.pop())
                    again = await next_of(two, queue)
                assert (again["seq"], again["deliveries"]) == (seqs[1], 2)
                extended = await two.ask("extend", channel=queue.id, seq=seqs[1])
                assert extended == {"channel": queue.id, "seq": seqs[1], "ack_wait_s": 30}
            await one.ack(queue.id, seqs[2])
            back = await next_of(one, queue)
            assert (back["seq"], back["deliveries"]) == (seqs[1], 3)
            await one.ack(queue.id, seqs[1])
            for seq in seqs[3:]:
                assert (await next_of(one, queue))["seq"] == seq
                await one.ack(queue.id, seq)
            await emptied(it, queue)


@pytest.mark.promise("9a", "12a")
@pytest.mark.parametrize("ends", ["close", "unsubscribe", "pause", "delete"])
async def test_a_subscriber_that_ends_gives_its_messages_back_at_once(tmp_path: Path, ends: str) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        other = await it.services.agents.create(it.owner, name="other", public_key=new_key())
        async with worker(it, queue, max_unacked=2) as one:
            await it.publish(b"1", queue)
            held = await next_of(one, queue)
            if ends == "close":
                await one.socket.close()
            elif ends == "unsubscribe":
                assert await one.ask("unsubscribe", channel=queue.id) == {"channel": queue.id}
            elif ends == "pause":
                await it.services.subscriptions.set_status(it.owner, queue.id, it.agent.id, SubscriptionStatus.PAUSED)
            else:
                await it.services.subscriptions.delete(it.owner, queue.id, it.agent.id)
            await until(lambda: len(it.services.queue_hub) == 0)
            if ends != "close":
                await one.ack(queue.id, held["seq"])
                assert (await one.next())["error"]["code"] == "not_subscribed"
            async with open_client(it.url) as two:
                principal = AgentPrincipal(agent_id=other.id, tenant_id=other.tenant_id, epoch=0)
                await two.ask("connect", access_token=it.services.tokens.mint(principal, it.clock()))
                await two.ask("subscribe", channel=queue.id)
                again = await next_of(two, queue)
                assert (again["seq"], again["deliveries"]) == (held["seq"], 2)
                await two.ack(queue.id, held["seq"])
                await emptied(it, queue)
            if ends != "close":
                assert await one.is_quiet()


async def test_a_resumed_subscription_to_a_queue_is_delivered_again(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        async with worker(it, queue) as raw:
            await it.services.subscriptions.set_status(it.owner, queue.id, it.agent.id, SubscriptionStatus.PAUSED)
            await until(lambda: len(it.services.queue_hub) == 0)
            seq = await it.publish(b"1", queue)
            assert await raw.is_quiet()
            await it.services.subscriptions.set_status(it.owner, queue.id, it.agent.id, SubscriptionStatus.ACTIVE)
            assert (await next_of(raw, queue))["seq"] == seq
        async with it.connected(max_unacked=3) as raw:  # the subscription begins by itself, with the window of `connect`
            await it.publish(b"2", queue)
            await it.publish(b"3", queue)
            assert sorted([(await next_of(raw, queue))["data"] for _ in range(3)]) == [1, 2, 3]


async def test_wrong_commands_on_queues_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        seq = await it.publish(b"1", queue)
        async with it.connected() as raw:
            for start in ("new", "first", seq):
                refused = await raw.ask("subscribe", channel=queue.id, **{"from": start})
                assert (refused["code"], "share one position" in refused["message"]) == ("invalid", True)
            assert (await raw.ask("nak", channel="chn_none", seq=seq))["code"] == "not_subscribed"
            await raw.ask("subscribe", channel=queue.id)
            held = await next_of(raw, queue)
            assert held["seq"] == seq
            for wrong in (seq + 1, 0, 2**53):
                await raw.ack(queue.id, wrong)
                assert (await raw.next())["error"]["code"] == "not_held"
                assert (await raw.ask("nak", channel=queue.id, seq=wrong))["code"] == "not_held"
                assert (await raw.ask("extend", channel=queue.id, seq=wrong))["code"] == "not_held"
            for delay_s in (-1, 86401, 1e300, "1"):
                assert (await raw.ask("nak", channel=queue.id, seq=seq, delay_s=delay_s))["code"] == "bad_command"
            assert (await raw.ask("nak", channel=it.channel.id, seq=seq))["code"] == "not_subscribed"
            await raw.ack(queue.id, seq)
            await emptied(it, queue)
            await raw.ack(queue.id, seq)
            assert (await raw.next())["error"]["code"] == "not_held"


async def test_a_queue_has_history_watchers_and_metered_deliveries_like_any_channel(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        async with (
            it.connected_person() as person,
            worker(it, queue, max_unacked=8) as one,
            worker(it, queue, max_unacked=8) as two,
        ):
            assert await person.ask("watch", channel=queue.id) == {"channel": queue.id}
            for at in range(4):
                await it.publish(b"%d" % at, queue)
            assert [(await person.message())["data"] for _ in range(4)] == [0, 1, 2, 3]
            shared = [await one.messages(2), await two.messages(2)]
            assert sorted([*shared[0], *shared[1]]) == [0, 1, 2, 3]
            past = await one.ask("history", channel=queue.id, after=0)
            assert [each["data"] for each in past["messages"]] == [0, 1, 2, 3]
            assert all("deliveries" not in each for each in past["messages"])
            counts = {(each.channel_id, each.receiver): each.messages for each in it.services.queue_hub.take_counts()}
            assert counts == {(queue.id, it.agent.id): 4}


class Heir:
    """Takes messages at another server."""

    room = 3

    def __init__(self) -> None:
        self.taken: list[QueuedMessage] = []

    def take(self, message: QueuedMessage) -> None:
        self.taken.append(message)

    def forget(self) -> None:
        self.taken.clear()

    async def drained(self) -> None:
        """Make no last acks."""


async def test_a_shutdown_gives_every_held_message_back(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        seqs = [await it.publish(b"1", queue) for _ in range(3)]
        async with worker(it, queue, max_unacked=8) as raw:
            assert [(await next_of(raw, queue))["seq"] for _ in range(3)] == seqs
            await it.gateway.drain()
            await it.services.queue_hub.close()
        async with it.nats.connection(it.owner.tenant_id) as connection:
            heir = Heir()
            other = WorkQueue(TenantLog(connection), queue.id, QueueSettings(), heir, connection.wait_up)
            async with asyncio.TaskGroup() as group:
                group.create_task(other.run())
                await until(lambda: len(heir.taken) == 3)
                other.close()
        assert sorted((each.seq, each.deliveries) for each in heir.taken) == [(seq, 2) for seq in seqs]


async def test_a_deleted_queue_takes_its_consumer_with_it(tmp_path: Path) -> None:
    async with gateway_app(tmp_path) as it:
        queue = await make_queue(it)
        await it.publish(b"1", queue)
        async with worker(it, queue) as raw:
            held = await next_of(raw, queue)
            await it.services.channels.delete(it.owner, queue.id)
            fabric = it.services.fabric.tenant(it.owner.tenant_id)
            await until(lambda: not fabric.work_queues)
            await raw.ack(queue.id, held["seq"])
            assert (await raw.next())["error"]["code"] == "not_held"
            connection = it.services.fabric.tenant(it.owner.tenant_id).connection
            async with asyncio.timeout(BOUND_S):
                while "error" not in await consumer(connection, queue):  # noqa: ASYNC110 (NATS is asked)
                    await asyncio.sleep(0.01)


async def test_changed_settings_that_cannot_be_read_at_once_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_hub, "REREAD_S", 0.05)
    async with gateway_app(tmp_path, engine=FailingReads) as it:
        queue = await make_queue(it, ack_wait_s=3600)
        await it.publish(b"1", queue)
        async with worker(it, queue) as raw:
            assert (await next_of(raw, queue))["deliveries"] == 1
            tenant, tables = it.services.store.tenant(it.owner.tenant_id), it.tables
            assert isinstance(tables, FailingReads)
            await tenant.transact([tenant.change_channel(queue, [Assign("ack_wait_s", 1)])])
            tables.fails = 2
            it.services.invalidation.publish(TenantChange(tenant_id=tenant.id, channels=(queue.id,)))
            assert (await next_of(raw, queue))["deliveries"] == 2
            assert tables.fails == 0
