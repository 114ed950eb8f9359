"""A load on the tables while every nth call fails: nothing answered is lost, nothing is applied twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from artcafe.errors import Unanswered, Unavailable
from artcafe.tables.catalog import AGENTS, TENANTS, USAGE_METRICS, Environment
from artcafe.tables.dynamodb.client import DynamoDbClient, Endpoint
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.dynamodb.schema import Schema
from artcafe.tables.engine.conditions import Absent, Equals
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Add, Assign, ItemKey, Put, Update
from tests.aws import Aws
from tests.faults.conftest import TableReport
from tests.faulty_aws import READS, WRITES, Fault, FaultyAws, Rule, faulty

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

WORKERS = 16
ROUNDS = 25
TENANT = ItemKey("ten_1")

STRIKES: dict[str, tuple[Fault, tuple[str, ...], int]] = {
    "throttled, every 10th call": (Fault.THROTTLED, (*WRITES, *READS), 10),
    "answered 500, every 4th call": (Fault.FAILED, (*WRITES, *READS), 4),
    "conflict, every 3rd write": (Fault.CONFLICT, WRITES, 3),
    "applied and the answer lost, every 4th write": (Fault.LOST, WRITES, 4),
    "answered after 5.5 s, every 60th call": (Fault.SLOW, (*WRITES, *READS), 60),
    "answered 500, every call": (Fault.FAILED, WRITES, 1),
    "conflict, every write": (Fault.CONFLICT, WRITES, 1),
    "applied and the answer lost, every write": (Fault.LOST, WRITES, 1),
}


@pytest.fixture
def proxy(aws: Aws) -> Iterator[FaultyAws]:
    with faulty(aws.url) as proxy:
        yield proxy


@pytest.fixture
async def tables(aws: Aws, proxy: FaultyAws) -> AsyncIterator[DynamoDb]:
    client = await DynamoDbClient.open(Endpoint(aws.new_region(), proxy.url))
    await Schema(client, Environment.PROD).create([AGENTS, TENANTS, USAGE_METRICS])
    engine = DynamoDb(client, Environment.PROD)
    await engine.put(Put(TENANTS, {"id": TENANT.partition, "count": 0}))
    yield engine
    proxy.spare()
    await engine.close()


class TableLoad:
    """Workers that each write rows, each in a transaction with a sum, and a guarded sum of their own, as metering does."""

    def __init__(self, tables: DynamoDb) -> None:
        self._tables = tables
        self.outcomes: Counter[str] = Counter()
        self.rows: dict[str, str] = {}
        """The answer to the writer of each row."""

    async def run(self, rounds: int) -> None:
        async with asyncio.TaskGroup() as group:
            for worker in range(WORKERS):
                group.create_task(self._work(worker, rounds))

    async def _work(self, worker: int, rounds: int) -> None:
        meter = ItemKey("ten_1", f"meter_{worker}")
        await self._one("", self._tables.put(Put(USAGE_METRICS, {"tenant_id": "ten_1", "metric_id": meter.sort, "cursor": 0})))
        for number in range(1, rounds + 1):
            row = f"agt_{worker:02}_{number:03}"
            count = Update(TENANTS, TENANT, [Add("count", 1)])
            await self._one(row, self._tables.transact([count, Put(AGENTS, {"tenant_id": "ten_1", "id": row}, Absent("id"))]))
            step = Update(USAGE_METRICS, meter, [Assign("cursor", number), Add("value", 1)], Equals("cursor", number - 1))
            await self._one("", self._tables.update(step))
            await self._one("", self._tables.get(AGENTS, [ItemKey("ten_1", row)], consistent=True))

    async def _one(self, row: str, call: object) -> None:
        try:
            await call  # type: ignore[misc]  # of whichever type; its answer is not looked at
            outcome = "ok"
        except Unanswered:
            outcome = "unknown"
        except Unavailable:
            outcome = "refused"
        except ConditionFailed:
            # Only for the guarded sum: its first attempt had been applied, or the previous one had not.
            assert not row
            outcome = "ok"
        self.outcomes[outcome] += 1
        if row:
            self.rows[row] = outcome

    async def verdict(self) -> tuple[int, int]:
        """Return the number of answered rows that are lost, and of changes applied twice or in part."""
        found: set[str] = set()
        after: str | None = None
        while True:
            page = await self._tables.query(AGENTS, "ten_1", after=after, limit=500, consistent=True)
            found |= {str(item["id"]) for item in page.items}
            after = page.next
            if after is None:
                break
        lost = [row for row, outcome in self.rows.items() if outcome == "ok" and row not in found]
        unasked = [row for row, outcome in self.rows.items() if outcome == "refused" and row in found]
        (tenant,) = await self._tables.get(TENANTS, [TENANT], consistent=True)
        assert tenant is not None
        count = tenant["count"]
        assert isinstance(count, int)
        meters = (await self._tables.query(USAGE_METRICS, "ten_1", limit=500, consistent=True)).items
        uneven = [meter for meter in meters if meter["cursor"] != meter.get("value", 0)]
        return len(lost), abs(count - len(found)) + len(unasked) + len(uneven)


@pytest.mark.parametrize("name", STRIKES)
@pytest.mark.promise("6d")
async def test_load_with_failing_calls_loses_nothing_and_applies_nothing_twice(
    tables: DynamoDb, proxy: FaultyAws, table_report: TableReport, name: str
) -> None:
    fault, operations, every = STRIKES[name]
    load = TableLoad(tables)
    proxy.calls.clear()
    rule: Rule = proxy.strike(fault, *operations, every=every)
    await load.run(ROUNDS if every > 1 else 1)
    asked, failed = proxy.calls.total(), rule.struck
    proxy.spare()
    lost, doubled = await load.verdict()
    table_report(name, sum(load.outcomes.values()), asked, failed, load.outcomes, lost, doubled)
    assert failed > 5
    assert (lost, doubled) == (0, 0)
    if every > 1:
        # Not all: AWS's client has a retry budget, which successful calls refill.
        assert load.outcomes["ok"] > 0.8 * sum(load.outcomes.values()), load.outcomes
