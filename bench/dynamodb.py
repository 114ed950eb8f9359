"""The overhead of the table port over bare aiobotocore, and the table calls made while agents publish, receive and acknowledge.

* cpu: processor time per call, of this process alone; DynamoDB is the emulator, in another process. Bare aiobotocore sends the
  same requests, built beforehand, and parses no answer; the port builds and checks its write, and returns a checked item. They
  take turns every ten calls. Items of about 450 bytes.
* calls: `artcafe up` on the emulator behind a proxy that counts. One agent publishes and ten receive and acknowledge. Meanwhile a
  subscription's cursor may be written when it is due, and the versions of tenants are read every 4 s; any other call fails the
  bench.
"""

from __future__ import annotations

import asyncio
import math
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from artcafe.sdk.agent import Agent
from artcafe.services.version_watch import READ_EVERY_S
from artcafe.tables.catalog import AGENTS, Environment
from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.dynamodb.schema import Schema
from artcafe.tables.dynamodb.values import to_attributes
from artcafe.tables.engine.conditions import Absent
from artcafe.tables.engine.values import normal_item
from artcafe.tables.engine.writes import Assign, ItemKey, Put, Update
from bench.report import Options, Table
from bench.tables import agent
from tests import aws
from tests.faulty_aws import FaultyAws, faulty
from tests.platform import running

CALLS: Final = 10
"""Calls of one way before the other way's turn."""

TURNS: Final = 20
"""Calls in a round."""

MOST: Final = 0.15
"""Allowed overhead of the port, relative to bare aiobotocore's processor time (the design's figure)."""

RECEIVERS: Final = 10
PUBLISHED: Final = 10_000
CURSOR_S: Final = 2
WATCHED: Final = {("GetItem", "artcafe-tenants"), ("BatchGetItem", "artcafe-tenants")}
DUE: Final = ("UpdateItem", "artcafe-channel-subscriptions")

numbers = count(1)
Call = Callable[[], Awaitable[object]]


async def run(options: Options) -> list[Table]:
    """Run both; raise AssertionError for calls that are not allowed."""
    os.environ.update(aws.CREDENTIALS)
    with TemporaryDirectory(dir=options.folder) as folder, aws.running(Path(folder)) as emulator:
        return [await overhead(options, emulator), await calls(Path(folder), emulator)]


async def overhead(options: Options, emulator: aws.Aws) -> Table:
    """Return one row for each verb."""
    client = await DynamoDbClient.open(Endpoint(emulator.new_region(), emulator.url))
    await Schema(client, Environment.PROD).create([AGENTS])
    engine = DynamoDb(client, Environment.PROD)
    await engine.put(Put(AGENTS, agent(0)))
    table = Table("Processor time a call, in µs", ("verb", "the port", "bare aiobotocore", "added"), ("Medians of the rounds.",))
    for verb, (ours, bare) in _ways(engine, client._service).items():  # the same client instance that the port uses
        rounds = [await cpu_us(ours, bare) for _ in range(options.rounds)]
        added = statistics.median(one / other - 1 for one, other in rounds)
        port, other = (statistics.median(each) for each in zip(*rounds, strict=True))
        table.rows.append((verb, f"{port:,.0f}", f"{other:,.0f}", f"{added:+.1%}"))
        assert added < MOST, f"{verb}: the port adds {added:.1%}, and may add {MOST:.0%}"
    await engine.close()
    return table


def _ways(engine: DynamoDb, bare: Any) -> dict[str, tuple[Call, Call]]:
    name, key = AGENTS.name, ItemKey(str(agent(0)["tenant_id"]), str(agent(0)["id"]))
    key_attributes = {"tenant_id": {"S": key.partition}, "id": {"S": key.sort}}
    guarded = {"ConditionExpression": "attribute_not_exists(#0)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    item = to_attributes(normal_item(agent(0)))

    def fresh() -> dict[str, Any]:
        return item | {"id": {"S": f"bare_{next(numbers)}"}}

    return {
        "get": (
            lambda: engine.get(AGENTS, [key], consistent=True),
            lambda: bare.get_item(TableName=name, Key=key_attributes, ConsistentRead=True),
        ),
        "put, on a condition": (
            lambda: engine.put(Put(AGENTS, agent(next(numbers)), Absent("id"))),
            lambda: bare.put_item(TableName=name, Item=fresh(), ExpressionAttributeNames={"#0": "id"}, **guarded),
        ),
        "update": (
            lambda: engine.update(Update(AGENTS, key, [Assign("name", "critic")])),
            lambda: bare.update_item(
                TableName=name,
                Key=key_attributes,
                UpdateExpression="SET #0 = :0",
                ExpressionAttributeNames={"#0": "name"},
                ExpressionAttributeValues={":0": {"S": "critic"}},
                ReturnValues="ALL_NEW",
            ),
        ),
        "query of 20": (
            lambda: engine.query(AGENTS, key.partition, limit=20),
            lambda: bare.query(
                TableName=name,
                KeyConditionExpression="#0 = :0",
                ExpressionAttributeNames={"#0": "tenant_id"},
                ExpressionAttributeValues={":0": {"S": key.partition}},
                Limit=20,
            ),
        ),
    }


async def cpu_us(*ways: Call) -> list[float]:
    """Return microseconds of this process per call for each way, in turns of a few calls, so that disturbances affect all."""
    used = [0.0] * len(ways)
    for _ in range(TURNS):
        for number, call in enumerate(ways):
            began = time.process_time()
            for _ in range(CALLS):
                await call()
            used[number] += time.process_time() - began
    return [each / (TURNS * CALLS) * 1e6 for each in used]


async def calls(folder: Path, emulator: aws.Aws) -> Table:
    """Return the calls that arrived at the proxy, by operation and table."""
    with faulty(emulator.url) as proxy:
        flags = [*emulator.tables_flags(proxy.url), "--cursor-write-s", str(CURSOR_S)]
        with running(folder / "platform", flags, python=sys.executable) as platform:
            cast = await platform.tenant_with(agents=RECEIVERS)
            async with asyncio.TaskGroup() as group:
                receivers = [cast.agent(number) for number in range(RECEIVERS)]
                for receiver in receivers:
                    await receiver.__aenter__()
                reading = [group.create_task(take(receiver, PUBLISHED)) for receiver in receivers]
                await settled(proxy)
                await receivers[0].publish(cast.channels[0], "which reads the channel")
                proxy.tables.clear()
                began = time.monotonic()
                for number in range(PUBLISHED // 100):
                    async with asyncio.TaskGroup() as hundred:
                        for each in range(100):
                            hundred.create_task(receivers[0].publish(cast.channels[0], number * 100 + each))
            taken_s = time.monotonic() - began
            seen = dict(proxy.tables)
            for receiver in receivers:
                await receiver.__aexit__(None, None, None)
    assert all(each.done() for each in reading)
    table = Table(
        f"Table calls in {taken_s:.1f} s with {PUBLISHED:,} publishes, {PUBLISHED * RECEIVERS:,} deliveries and acknowledgements",
        ("call", "count", "allowed"),
        (f"Cursors are due every {CURSOR_S} s.",),
    )
    due = RECEIVERS * (math.ceil(taken_s / CURSOR_S) + 1)
    allowed = {DUE: due, **dict.fromkeys(WATCHED, math.ceil(taken_s / 4) + 1)}
    for call in sorted({DUE, *seen}):
        table.rows.append((" ".join(call), str(seen.get(call, 0)), str(allowed.get(call, 0))))
        assert seen.get(call, 0) <= allowed.get(call, 0), f"{call} came {seen[call]} times; allowed is {allowed.get(call, 0)}"
    return table


async def settled(proxy: FaultyAws) -> None:
    """Wait for a complete read of the versions without a consequence: at the first read of a tenant the server drops its cached
    rows, which may have changed before, and reads them again on demand."""
    async with asyncio.timeout(READ_EVERY_S * 10):
        while True:
            proxy.tables.clear()
            await asyncio.sleep(READ_EVERY_S * 1.5)
            if not set(proxy.tables) - WATCHED - {DUE}:
                return


async def take(receiver: Agent, most: int) -> None:
    """Receive and acknowledge this many messages, and the one before."""
    got = 0
    async for message in receiver.messages():
        await message.ack()
        got += 1
        if got == most + 1:
            return
