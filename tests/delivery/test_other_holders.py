"""Two servers on one nats-server that is killed before it has written its last deliveries: a message gets no second holder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from artcafe.assembly import Services
from artcafe.delivery.pull_holds import ACK
from artcafe.model import Channel
from artcafe.rules.queues import QueueChange
from artcafe.rules.subjects import queue_consumer
from tests.delivery.test_ordered_queues import an_ordered_queue, publish
from tests.delivery.test_queue_pull import LONG, Worker, a_queue, a_worker, data_of
from tests.faults.processes import frozen
from tests.gateway.gateway_app import GatewayApp, gateway_app, until
from tests.gateway.raw_client import open_client
from tests.gateway.test_queues import consumer, emptied, next_of, worker
from tests.gateway.test_receipts import second_server

ACK_WAIT_S = 600
"""NATS delivers no message again during a test, unless it has forgotten a delivery."""


@dataclass(frozen=True)
class TwoServers:
    """Two servers that know each other. `it.services` are those of the first one."""

    it: GatewayApp
    other: Services
    other_url: str

    async def workers(self, queue: Channel) -> tuple[Worker, Worker]:
        """Return an agent that pulls from the first server, and one that pulls from the other."""
        return await a_worker(self.it, queue), replace(await a_worker(self.it, queue), services=self.other)

    async def forget_deliveries(self, queue: Channel) -> None:
        """Kill nats-server as if it had written no delivery of the queue. Return when the tenant's connections are up again."""
        it, tenant_id = self.it, self.it.owner.tenant_id
        opened = filter(None, (services.fabric.peek(tenant_id) for services in (it.services, self.other)))
        connections = [each.connection for each in opened]
        (state,) = (it.folder / "nats").glob(f"**/obs/{queue_consumer(queue.id)}")
        assert it.broker.pid is not None
        with frozen(it.broker.pid) as nats:
            (state / "o.dat").unlink(missing_ok=True)
            nats.kill()
        killed_at = time.monotonic()
        await until(lambda: all(each.is_up and (each.reconnected_at or 0.0) > killed_at for each in connections))
        assert (await consumer(connections[0], queue))["delivered"]["consumer_seq"] == 0, "it has forgotten the deliveries"


@asynccontextmanager
async def two_servers(folder: Path) -> AsyncIterator[TwoServers]:
    """Run two servers on one nats-server, which is started again when it ends."""
    async with gateway_app(folder) as it, asyncio.TaskGroup() as group, second_server(it, group) as (url, other):
        restarts = group.create_task(it.broker.run())
        peers = it.services.fabric.announcements, other.fabric.announcements
        await until(lambda: all(each.has_peers for each in peers))
        try:
            yield TwoServers(it, other, url)
        finally:
            await other.queue_hub.close()  # pulls leave queues behind
            restarts.cancel()


@pytest.mark.promise("9a")
@pytest.mark.parametrize("is_connected", [True, False])
async def test_message_that_nats_delivers_to_a_second_server_keeps_its_holder(tmp_path: Path, is_connected: bool) -> None:
    """`is_connected`: the other server had a connection of this tenant when NATS was killed."""
    async with two_servers(tmp_path) as servers:
        it = servers.it
        queue = await a_queue(it, QueueChange(ack_wait_s=ACK_WAIT_S))
        holder, other = await servers.workers(queue)
        if is_connected:
            assert await other.pull() == []
        await it.publish(b"1", queue)
        (held,) = await holder.pull()

        await servers.forget_deliveries(queue)
        await it.publish(b"2", queue)
        items = await other.pull(LONG)
        assert data_of(items) == [2], "an agent of the first server still holds the first message"
        (new,) = items
        assert new["deliveries"] == 1
        assert await holder.code(ACK, held) is None
        assert await other.code(ACK, new) is None
        await emptied(it, queue)
        assert await holder.pull() == await other.pull() == []


@pytest.mark.promise("9a", "9c")
async def test_message_that_waits_for_its_key_on_one_server_gets_no_holder_on_another(tmp_path: Path) -> None:
    async with two_servers(tmp_path) as servers:
        it = servers.it
        queue = await an_ordered_queue(it, ack_wait_s=ACK_WAIT_S)
        async with worker(it, queue, max_unacked=2) as holder, open_client(servers.other_url) as other:
            # The second message waits for the first one, and the third one fills the window: this socket asks for no more.
            await publish(it, queue, ("a", 1), ("a", 2), ("b", 3))
            first, third = await next_of(holder, queue), await next_of(holder, queue)
            assert (first["data"], third["data"]) == (1, 3)

            await servers.forget_deliveries(queue)
            await publish(it, queue, ("c", 4))
            await other.ask("connect", access_token=it.token())
            await other.ask("subscribe", channel=queue.id, max_unacked=8)
            fourth = await next_of(other, queue)
            assert (fourth["data"], fourth["deliveries"]) == (4, 1), "the first server has the others"

            await holder.ack(queue.id, first["seq"])
            second = await next_of(holder, queue)
            assert second["data"] == 2
            await publish(it, queue, ("d", 5))
            fifth = await next_of(other, queue)
            assert fifth["data"] == 5, "the socket at the first server holds the second message, and is full"
            for raw, message in ((holder, second), (holder, third), (other, fourth), (other, fifth)):
                await raw.ack(queue.id, message["seq"])
            await emptied(it, queue)
            assert await holder.is_quiet()
            assert await other.is_quiet()
