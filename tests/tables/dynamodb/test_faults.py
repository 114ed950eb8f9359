"""The engine on a DynamoDB with throttling, failures, conflicts, lost answers and outages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import structlog

from artcafe.errors import TablesDenied, Unanswered, Unavailable
from artcafe.tables.catalog import AGENTS, TABLES, TENANTS, Environment
from artcafe.tables.dynamodb import client as dynamodb_client
from artcafe.tables.dynamodb.client import LONGEST_WAIT_S, MAX_CALLS, MAX_TRIES, DynamoDbClient, Endpoint, backoff_delays
from artcafe.tables.dynamodb.engine import DynamoDb
from artcafe.tables.dynamodb.permissions import ACTIONS, WRITE_ACTIONS
from artcafe.tables.dynamodb.schema import Schema
from artcafe.tables.engine.conditions import Absent, Equals
from artcafe.tables.engine.port import ConditionFailed
from artcafe.tables.engine.writes import Add, Assign, Delete, ItemKey, Put, Update
from tests.aws import Aws
from tests.faulty_aws import READS, WRITES, Fault, FaultyAws, faulty

TENANT = ItemKey("ten_1")
ROW = {"tenant_id": "ten_1", "id": "agt_1", "name": "Planner"}
AGENT = ItemKey("ten_1", "agt_1")


@pytest.fixture
def proxy(aws: Aws) -> Iterator[FaultyAws]:
    with faulty(aws.url) as proxy:
        yield proxy


@pytest.fixture
async def tables(aws: Aws, proxy: FaultyAws) -> AsyncIterator[DynamoDb]:
    """Yield an engine behind the proxy, with one tenant and one agent."""
    client = await DynamoDbClient.open(Endpoint(aws.new_region(), proxy.url))
    await Schema(client, Environment.PROD).create([AGENTS, TENANTS])
    engine = DynamoDb(client, Environment.PROD)
    await engine.transact([Put(TENANTS, {"id": "ten_1", "count": 0}), Put(AGENTS, ROW)])
    proxy.calls.clear()
    yield engine
    proxy.spare()
    await engine.close()


async def put(tables: DynamoDb) -> None:
    await tables.put(Put(AGENTS, {**ROW, "id": "agt_2"}))
    assert await tables.get(AGENTS, [ItemKey("ten_1", "agt_2")], consistent=True) == [{**ROW, "id": "agt_2"}]


async def update(tables: DynamoDb) -> None:
    assert await tables.update(Update(AGENTS, AGENT, [Assign("name", "Critic")])) == {**ROW, "name": "Critic"}


async def delete(tables: DynamoDb) -> None:
    await tables.delete(Delete(AGENTS, AGENT))
    assert await tables.get(AGENTS, [AGENT], consistent=True) == [None]


async def transact(tables: DynamoDb) -> None:
    new = {**ROW, "id": "agt_2"}
    await tables.transact([Update(TENANTS, TENANT, [Add("count", 1)]), Put(AGENTS, new, Absent("id"))])
    assert await tables.get(TENANTS, [TENANT], consistent=True) == [{"id": "ten_1", "count": 1}]
    assert await tables.get(AGENTS, [ItemKey("ten_1", "agt_2")], consistent=True) == [new]


async def get(tables: DynamoDb) -> None:
    assert await tables.get(AGENTS, [AGENT]) == [ROW]


async def get_several(tables: DynamoDb) -> None:
    assert await tables.get(AGENTS, [AGENT, ItemKey("ten_1", "agt_9")]) == [ROW, None]


async def query(tables: DynamoDb) -> None:
    page = await tables.query(AGENTS, "ten_1")
    assert (page.items, page.next) == ([ROW], None)


async def scan(tables: DynamoDb) -> None:
    assert [item async for item in tables.scan(AGENTS)] == [ROW]


Verb = Callable[[DynamoDb], Awaitable[None]]
VERBS = {
    "PutItem": put,
    "UpdateItem": update,
    "DeleteItem": delete,
    "TransactWriteItems": transact,
    "GetItem": get,
    "BatchGetItem": get_several,
    "Query": query,
    "Scan": scan,
}


@pytest.mark.parametrize("operation", VERBS)
@pytest.mark.parametrize("fault", [Fault.FAILED, Fault.LOST])
async def test_failed_calls_and_lost_answers_are_retried_and_applied_once(
    tables: DynamoDb, proxy: FaultyAws, operation: str, fault: Fault
) -> None:
    proxy.strike(fault, operation, most=2)
    await VERBS[operation](tables)
    assert proxy.calls[operation] == 3


@pytest.mark.parametrize("operation", WRITES)
async def test_write_conflicting_with_a_transaction_is_retried(tables: DynamoDb, proxy: FaultyAws, operation: str) -> None:
    proxy.strike(Fault.CONFLICT, operation, most=3)
    await VERBS[operation](tables)
    assert proxy.calls[operation] == 4


@pytest.mark.parametrize("operation", ["UpdateItem", "TransactWriteItems", "Query"])
async def test_throttled_call_is_retried(tables: DynamoDb, proxy: FaultyAws, operation: str) -> None:
    proxy.strike(Fault.THROTTLED, operation, most=1)
    await VERBS[operation](tables)
    assert proxy.calls[operation] == 2


async def test_unprocessed_keys_are_requested_again(tables: DynamoDb, proxy: FaultyAws) -> None:
    proxy.strike(Fault.UNREAD, "BatchGetItem", most=3)
    await get_several(tables)
    assert proxy.calls["BatchGetItem"] == 4


async def test_keys_never_processed_raise_unavailable_after_all_retries(tables: DynamoDb, proxy: FaultyAws) -> None:
    proxy.strike(Fault.UNREAD, "BatchGetItem")
    with pytest.raises(Unavailable):
        await get_several(tables)
    assert proxy.calls["BatchGetItem"] == MAX_TRIES + 1


@pytest.mark.parametrize("operation", VERBS)
async def test_persistent_failure_raises_unavailable_after_five_attempts(
    tables: DynamoDb, proxy: FaultyAws, operation: str
) -> None:
    proxy.strike(Fault.FAILED, operation)
    with pytest.raises(Unavailable) as caught:
        await VERBS[operation](tables)
    assert proxy.calls[operation] == 5
    assert isinstance(caught.value, Unanswered) is (operation in WRITES)


@pytest.mark.parametrize("operation", ["UpdateItem", "TransactWriteItems"])
async def test_persistent_conflict_raises_unavailable_and_changes_nothing(
    tables: DynamoDb, proxy: FaultyAws, operation: str
) -> None:
    proxy.strike(Fault.CONFLICT, operation)
    with pytest.raises(Unavailable, match="nothing was changed") as caught:
        await VERBS[operation](tables)
    assert not isinstance(caught.value, Unanswered)
    assert proxy.calls[operation] == MAX_TRIES + 1


async def test_write_with_every_answer_lost_raises_unanswered(tables: DynamoDb, proxy: FaultyAws) -> None:
    proxy.strike(Fault.LOST, *WRITES)
    with pytest.raises(Unanswered, match="whether anything was changed is unknown"):
        await transact(tables)
    proxy.spare()
    assert await tables.get(TENANTS, [TENANT], consistent=True) == [{"id": "ten_1", "count": 1}]


async def test_every_verb_raises_unavailable_without_a_server_and_works_once_it_listens(
    tables: DynamoDb, proxy: FaultyAws
) -> None:
    proxy.shut()
    for verb in VERBS.values():
        with pytest.raises(Unavailable):
            await verb(tables)
    proxy.open()
    await get(tables)


async def test_transactions_are_applied_once_despite_lost_answers(tables: DynamoDb, proxy: FaultyAws) -> None:
    """An unconditional sum would count twice if a transaction were applied twice.

    With every answer lost, the outcome is unknown.
    """
    rules = [proxy.strike(fault, "TransactWriteItems", every=every) for fault, every in ((Fault.LOST, 3), (Fault.CONFLICT, 4))]

    done: set[str] = set()

    async def add(id: str) -> None:
        with suppress(Unanswered):
            await tables.transact([Update(TENANTS, TENANT, [Add("count", 1)]), Put(AGENTS, {**ROW, "id": id})])
            done.add(id)

    ids = [f"agt_{number}" for number in range(100, 140)]
    async with asyncio.TaskGroup() as group:
        for id in ids:
            group.create_task(add(id))
    assert all(rule.struck for rule in rules)
    rows = await tables.get(AGENTS, [ItemKey("ten_1", id) for id in ids], consistent=True)
    found = {row["id"] for row in rows if row is not None}
    assert len(done) > 20
    assert done <= found
    assert await tables.get(TENANTS, [TENANT], consistent=True) == [{"id": "ten_1", "count": len(found)}]


async def test_guarded_sum_counts_once_despite_lost_answers(tables: DynamoDb, proxy: FaultyAws) -> None:
    """A cursor and a sum in one conditional update, as for metering."""
    await tables.update(Update(TENANTS, TENANT, [Assign("cursor", 0)]))
    rule = proxy.strike(Fault.LOST, "UpdateItem", every=3)
    for number in range(1, 31):
        # A failed condition means that its own first attempt, with a lost answer, was applied.
        with suppress(ConditionFailed):
            step = Update(TENANTS, TENANT, [Assign("cursor", number), Add("count", 1)], Equals("cursor", number - 1))
            await tables.update(step)
    assert rule.struck > 5
    assert await tables.get(TENANTS, [TENANT], consistent=True) == [{"id": "ten_1", "count": 30, "cursor": 30}]


async def test_failed_condition_takes_precedence_over_a_conflict(tables: DynamoDb) -> None:
    with pytest.raises(ConditionFailed) as failed:
        await tables.transact([Put(AGENTS, ROW, Absent("id")), Update(TENANTS, TENANT, [Add("count", 1)])])
    assert failed.value.failed == {0: ROW}


async def test_calls_above_the_queue_limit_are_refused_at_once(tables: DynamoDb, proxy: FaultyAws) -> None:
    proxy.strike(Fault.HELD, "GetItem")
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(get(tables)) for _ in range(MAX_CALLS)]
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await get(tables)
        for each in waiting:
            each.cancel()
    proxy.spare()
    await get(tables)


async def test_close_waits_for_calls_in_flight_and_refuses_later_ones(tables: DynamoDb, proxy: FaultyAws) -> None:
    held = proxy.strike(Fault.HELD, "UpdateItem")
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        writing = group.create_task(update(tables))
        assert await asyncio.to_thread(held.first.wait, 5)
        closing = group.create_task(tables.close())
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await get(tables)
        assert not closing.done()
        proxy.spare()
    assert writing.exception() is None


async def test_outage_is_logged_once_per_error_code_and_once_at_its_end(
    tables: DynamoDb, proxy: FaultyAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            proxy.strike(Fault.FAILED, *READS)
            with pytest.raises(Unavailable):
                await get(tables)
            proxy.spare()
            await get(tables)
        monkeypatch.setattr(dynamodb_client, "RECOVERED_AFTER_S", 0)
        await get(tables)
        await get(tables)
    assert [(line["event"], line.get("code")) for line in lines] == [
        ("tables.unavailable", "InternalServerError"),
        ("tables.available", None),
    ]


async def test_consumed_units_are_reported_for_every_call_if_requested(aws: Aws) -> None:
    endpoint = Endpoint(aws.new_region(), aws.url)
    seen: list[tuple[str, dict[str, float]]] = []
    client = await DynamoDbClient.open(endpoint, lambda consumed: seen.append((consumed.operation, dict(consumed.units))))
    await Schema(client, Environment.PROD).create([AGENTS, TENANTS])
    engine = DynamoDb(client, Environment.PROD)
    await engine.put(Put(AGENTS, ROW))
    await engine.get(AGENTS, [AGENT], consistent=True)
    await engine.get(AGENTS, [AGENT])
    await engine.transact([Put(AGENTS, ROW), Put(TENANTS, {"id": "ten_1"})])
    await engine.close()
    assert seen == [
        ("put_item", {"artcafe-agents": 1.0}),
        ("get_item", {"artcafe-agents": 1.0}),
        ("get_item", {"artcafe-agents": 0.5}),
        ("transact_write_items", {"artcafe-agents": 2.0, "artcafe-tenants": 2.0}),
    ]


def test_backoff_grows_from_25_ms_to_a_second_with_full_jitter() -> None:
    runs = [list(backoff_delays()) for _ in range(200)]
    assert {len(run) for run in runs} == {MAX_TRIES}
    for number, tries in enumerate(zip(*runs, strict=True)):
        bound = min(LONGEST_WAIT_S, 0.025 * 2**number)
        assert 0 <= min(tries) < bound / 4
        assert bound * 3 / 4 < max(tries) <= bound


@pytest.mark.faults
async def test_call_with_a_late_answer_is_retried(tables: DynamoDb, proxy: FaultyAws) -> None:
    proxy.strike(Fault.SLOW, "TransactWriteItems", most=1)
    await transact(tables)
    assert proxy.calls["TransactWriteItems"] == 2


@pytest.mark.faults
@pytest.mark.parametrize(("fault", "operation"), [(Fault.SLOW, "GetItem"), (Fault.THROTTLED, "GetItem")])
async def test_persistently_slow_or_throttled_calls_fail_within_the_timeout(
    tables: DynamoDb, proxy: FaultyAws, fault: Fault, operation: str
) -> None:
    proxy.strike(fault, operation)
    with pytest.raises(Unavailable):
        async with asyncio.timeout(20):
            await get(tables)
    assert proxy.calls[operation] <= 5


# --- permissions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", VERBS)
async def test_denied_call_is_logged_once_with_its_action_and_table_until_it_is_allowed(
    tables: DynamoDb, proxy: FaultyAws, operation: str
) -> None:
    action = "PutItem" if operation == "TransactWriteItems" else operation
    proxy.denied.add((action, "artcafe-agents"))
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(TablesDenied, match="operator must grant") as caught:
                await VERBS[operation](tables)
        assert not isinstance(caught.value, Unanswered)
        assert tables.denied == [f"dynamodb:{action} on artcafe-agents"]
        proxy.spare()
        await VERBS[operation](tables)
    assert tables.denied == []
    named = {"action": f"dynamodb:{action}", "table": "artcafe-agents"}
    assert [line["event"] for line in lines] == ["tables.denied", "tables.allowed"]
    assert named.items() <= lines[0].items()
    assert "assumed-role/artcafe" in lines[0]["message"]
    assert lines[0]["log_level"] == "error"
    assert proxy.calls[operation] >= 3, "a denied call is not retried"


async def test_denial_that_names_nothing_is_logged_with_the_permissions_of_its_call(tables: DynamoDb, proxy: FaultyAws) -> None:
    proxy.is_terse = True
    proxy.denied.add(("UpdateItem", "artcafe-tenants"))
    with pytest.raises(TablesDenied):
        await transact(tables)
    assert tables.denied == ["dynamodb:PutItem on artcafe-agents", "dynamodb:UpdateItem on artcafe-tenants"]


async def test_permissions_are_tried_without_changing_anything(aws: Aws, proxy: FaultyAws) -> None:
    client = await DynamoDbClient.open(Endpoint(aws.new_region(), proxy.url))
    await Schema(client, Environment.PROD).create(TABLES)
    engine = DynamoDb(client, Environment.PROD)
    proxy.denied = {("Query", "artcafe-agents"), ("ConditionCheckItem", "artcafe-tenants"), ("Scan", "artcafe-channels")}
    await engine.try_permissions(scanned=[])
    assert engine.denied == ["dynamodb:Query on artcafe-agents", "dynamodb:ConditionCheckItem on artcafe-tenants"]
    proxy.denied = {(action, TENANTS.name) for action in (*ACTIONS.values(), *WRITE_ACTIONS.values())}
    await engine.try_permissions(scanned=[TENANTS])
    assert engine.denied == sorted(f"dynamodb:{action} on artcafe-tenants" for action, _ in proxy.denied)
    proxy.denied.clear()
    await engine.retry_denied()
    assert engine.denied == []
    assert [item for table in TABLES async for item in engine.scan(table)] == []
    await engine.close()
