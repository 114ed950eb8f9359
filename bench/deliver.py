"""Delivery of stored messages: to 1, 10 and 100 subscribers during publishing, and one agent's backlog.

Four processes share the cores: the server, its nats-server, a publisher and a reader. So the figures are those of the whole
machine, and lower bounds of the server's.

* deliver: 256 publishes always wait on one socket; measured from the first publish to the last message on the last subscriber's
  socket. The number of messages and the last one are checked, not their order in between (`bench.fanout` checks that). Publishing
  is the limit: it takes the complete path, and a disk.
* backlog: a new socket subscribes from the first message. For comparison, nats-py alone reads the same log (an ordered consumer,
  and a pull consumer with batches of 256), and so does ArtCafe's own reader without a gateway.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from artcafe.fabric.tenant_fabric import TenantFabric
from artcafe.fabric.tenant_log import STREAM
from artcafe.model import ChannelId
from artcafe.rules import subjects
from bench import report
from bench.bench_env import BenchEnv, bench_env
from bench.publish import DATA
from bench.raw_client import Publisher
from bench.readers import Order
from bench.report import Options, Sample, Table
from tests.platform import Cast

SUBSCRIBERS: Final = (1, 10, 100)
MESSAGES: Final = 6_000
"""Messages to each subscriber, in one round."""
BACKLOG: Final = 20_000
WAITING: Final = 256
FETCH: Final = 256


async def run(options: Options) -> list[Table]:
    """Return the two tables, each with a platform of its own."""
    return [await _deliver(options), await _backlog(options)]


# --- deliver -----------------------------------------------------------------------------------------------------------


async def _deliver(options: Options) -> Table:
    taken: dict[int, list[Sample]] = defaultdict(list)
    async with bench_env(options) as env:
        cast, publisher, token = await publishing_tenant(env)
        for number in range(options.rounds + 1):
            for subscribers in SUBSCRIBERS:
                sample = await _delivered(env, cast, publisher, token, subscribers)
                if number:
                    taken[subscribers].append(sample)
    table = Table(
        "Stored messages delivered, 256 publishes waiting",
        ["subscribers", "messages/s", "deliveries/s"],
        [f"Medians (lowest–highest) of {options.rounds} rounds of {MESSAGES:,} messages, first publish to last delivery."],
    )
    for subscribers, samples in taken.items():
        deliveries = [Sample(each.count * subscribers, each.seconds) for each in samples]
        table.rows.append((str(subscribers), report.median_rate(samples), report.median_rate(deliveries)))
    return table


async def publishing_tenant(env: BenchEnv) -> tuple[Cast, Publisher, str]:
    """Return a tenant whose first agent publishes, and the token of the second agent, which subscribes."""
    cast = await env.platform.tenant_with(agents=2, channels=1, subscribed=False)
    async with cast.rest() as rest:
        await rest.tenant(cast.tenant).subscriptions.create(cast.channels[0], cast.agents[1])
    line = await env.line(cast, await env.token(cast, 0))
    return cast, Publisher(line, cast.channels[0], DATA), await env.token(cast, 1)


async def _delivered(env: BenchEnv, cast: Cast, publisher: Publisher, token: str, subscribers: int) -> Sample:
    order = Order(env.platform.gateway_url, cast.tenant, token, cast.channels[0], MESSAGES, subscribers)
    begun = 0.0

    async def publish() -> None:
        nonlocal begun
        begun = time.monotonic()
        await publish_all(publisher, MESSAGES)

    read = await _read(order, publish)
    return Sample(MESSAGES, read["ended"] - begun)


async def publish_all(publisher: Publisher, messages: int) -> None:
    """Publish this many messages, `WAITING` of them at a time, and return when all are stored."""
    left = messages

    def more() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    await publisher.run(WAITING, more)


async def _read(order: Order, meanwhile: Callable[[], Awaitable[None]] | None = None) -> dict[str, Any]:
    """Return the counts of the readers' process; run `meanwhile` once they are subscribed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.readers", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(msgspec.json.encode(order))
    process.stdin.close()
    await process.stdout.readline()
    if meanwhile is not None:
        await meanwhile()
    read: dict[str, Any] = msgspec.json.decode(await process.stdout.readline())
    await process.wait()
    if read["count"] != order.expected * order.sockets or len(read["last"]) != 1:
        raise RuntimeError(f"{order.expected} messages to each of {order.sockets} were expected, and read was {read}")
    return read


# --- backlog -----------------------------------------------------------------------------------------------------------


async def _backlog(options: Options) -> Table:
    taken: dict[str, list[Sample]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        env = await stack.enter_async_context(bench_env(options))
        cast, publisher, token = await publishing_tenant(env)
        await publish_all(publisher, BACKLOG)
        client = await stack.enter_async_context(env.nats_py(cast.tenant))
        tenant_fabric = await env.tenant_fabric(cast.tenant)
        channel = ChannelId(cast.channels[0])
        order = Order(env.platform.gateway_url, cast.tenant, token, channel, BACKLOG, 1, from_first=True)
        ways: dict[str, Callable[[], Awaitable[Sample]]] = {
            "one socket of the gateway": lambda: by_gateway(order),
            "the log's reader, no gateway": lambda: _by_log(tenant_fabric, channel),
            "nats-py alone, ordered consumer": lambda: _by_ordered_consumer(client, channel),
            "nats-py alone, 256 a fetch": lambda: _by_fetching(client, channel),
        }
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                sample = await way()
                if number:
                    taken[name].append(sample)
    gateway = taken["one socket of the gateway"]
    table = Table(
        "Backlog of one agent",
        ["read by", "messages/s", "the gateway's rate to this"],
        [f"Medians (lowest–highest) of {options.rounds} rounds of {BACKLOG:,} messages of 200 bytes; ratios within each round."],
    )
    table.rows = [(name, report.median_rate(each), report.median_ratio(gateway, each)) for name, each in taken.items()]
    return table


async def by_gateway(order: Order) -> Sample:
    """Read the order's messages from the gateway, in a separate process."""
    read = await _read(order)
    return Sample(order.expected, read["ended"] - read["begun"])


async def _by_log(tenant_fabric: TenantFabric, channel: ChannelId) -> Sample:
    start, count, last = time.perf_counter(), 0, 0
    while found := await tenant_fabric.log.after(channel, last):
        count, last = count + len(found), found[-1].seq
    assert count == BACKLOG
    return Sample(count, time.perf_counter() - start)


async def _by_ordered_consumer(client: Client, channel: ChannelId) -> Sample:
    start = time.perf_counter()
    subscription = await client.jetstream().subscribe(subjects.stored(channel), stream=STREAM, ordered_consumer=True)
    for _ in range(BACKLOG):
        await subscription.next_msg(timeout=10)
    sample = Sample(BACKLOG, time.perf_counter() - start)
    await subscription.unsubscribe()
    return sample


async def _by_fetching(client: Client, channel: ChannelId) -> Sample:
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
    start, count = time.perf_counter(), 0
    puller = await client.jetstream().pull_subscribe(subjects.stored(channel), stream=STREAM, config=config)
    while count < BACKLOG:
        count += len(await puller.fetch(min(FETCH, BACKLOG - count), timeout=10))
    sample = Sample(BACKLOG, time.perf_counter() - start)
    await puller.unsubscribe()
    return sample
