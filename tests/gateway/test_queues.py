"""Queue channels on sockets: each message at one subscriber at a time, given back in every way, and acknowledged once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from artcafe.model import Channel, ChannelType
from artcafe.rules.queues import QueueChange
from artcafe.rules.subjects import Subject, queue_consumer
from tests.gateway.gateway_app import GatewayApp, gateway_app
from tests.gateway.raw_client import BOUND_S, RawClient

numbers = itertools.count()


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
        assert reply == {"epoch": None, "cursor": None, "last": None, "gap": None}, reply
        yield raw


async def next_of(raw: RawClient, queue: Channel) -> dict[str, Any]:
    """Return the next message of the queue."""
    message = await raw.message()
    assert message["channel"] == queue.id
    return message


async def pending(it: GatewayApp, queue: Channel) -> int:
    """Return how many messages NATS counts as unacknowledged or undelivered."""
    connection = it.services.fabric.tenant(it.owner.tenant_id).connection
    got = await connection.request(Subject(f"$JS.API.CONSUMER.INFO.log.{queue_consumer(queue.id)}"), b"")
    info = msgspec.json.decode(got.data)
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
                assert (again["seq"], again["deliveries"]) == (seqs[1], 2)
                extended = await two.ask("extend", channel=queue.id, seq=seqs[1])
                assert extended == {"channel": queue.id, "seq": seqs[1], "ack_wait_s": 30}
            await one.ack(queue.id, seqs[2])
            back = await next_of(one, queue)
            assert (back["seq"], back["deliveries"]) == (seqs[1], 3)
            await one.ack(queue.id, seqs[1])
            last = await next_of(one, queue)
            assert last["seq"] == seqs[3]
            await one.ack(queue.id, seqs[3])
            await emptied(it, queue)
