from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from artcafe.fabric.nats.connection import NatsConnection
from artcafe.fabric.nats.liveness import Liveness
from tests.fabric.nats_clients import BOUND_S
from tests.fabric.nats_env import Nats, until

PING_S = 0.2


@asynccontextmanager
async def connections(nats: Nats, url: str, liveness: Liveness, count: int) -> AsyncIterator[list[NatsConnection]]:
    """Open connections to the platform's account that share their detection of hanging servers."""
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        found = [NatsConnection("test", [url], nats.accounts.platform_user, liveness=liveness) for _ in range(count)]
        for each in found:
            group.create_task(each.run())
            stack.callback(each.close)
        for each in found:
            await each.wait_up(BOUND_S)
        yield found


async def test_idle_connections_to_a_hanging_server_are_all_replaced(nats: Nats) -> None:
    liveness = Liveness(PING_S)
    async with nats.proxy() as proxy, connections(nats, proxy.url, liveness, 5) as idle:
        clients = [each.client() for each in idle]
        proxy.stick()

        await until(lambda: proxy.connections == 10 and all(each.is_up for each in idle))

        assert not {each.client() for each in idle} & set(clients)


async def test_connection_that_hangs_alone_is_replaced_and_others_to_its_server_stay(nats: Nats) -> None:
    liveness = Liveness(PING_S)
    async with nats.proxy() as proxy, connections(nats, proxy.url, liveness, 1) as (hanging,):
        lost = hanging.client()
        proxy.stick()
        async with connections(nats, proxy.url, liveness, 5) as others:
            clients = [each.client() for each in others]

            await until(lambda: hanging.is_up and hanging.client() is not lost)

            for each in others:
                await each.check(BOUND_S)
            assert [each.client() for each in others] == clients
